//! SRTP on the library's contexts, for peers without AES-GCM.
//!
//! Invariant: a source is tried in a context that is thrown away until one of its packets was authentic,
//! so that forged ones neither grow a table nor move a window. Each packet costs an allocation and
//! HMAC-SHA1: this path is for clients that can't do better.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;
use rtc::rtp;
use rtc::shared::error::Error;
use rtc::srtp::context::Context;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};

use super::{Keys, SOURCES, SrtpError};
use crate::forward::packet::Header;

/// Index and tag behind an RTCP packet, in the profiles that come here (RFC 3711 sections 3.4 and 5.2).
const RTCP_TRAILER: usize = 4 + 10;
/// Packets of a stream that may be reordered.
const REPLAY_WINDOW: usize = 256;

fn classify(error: &Error) -> SrtpError {
    match error {
        Error::SrtpSsrcDuplicated(..) | Error::SrtcpSsrcDuplicated(..) => SrtpError::Replay,
        _ => SrtpError::Authentication,
    }
}

struct Inbound {
    context: Context,
    admitted: HashSet<u32>,
}

/// Both directions.
pub(super) struct Library {
    keys: Keys,
    provider: Arc<dyn RTCCryptoProvider>,
    out: Context,
    rtp: Inbound,
    rtcp: Inbound,
    /// Reused: the library reads SSRC, sequence number and length from it, nothing else.
    head: rtp::Header,
}

fn inbound_context(keys: &Keys, provider: &Arc<dyn RTCCryptoProvider>) -> Result<Context, Error> {
    Context::new(
        &keys.remote_key,
        &keys.remote_salt,
        keys.profile,
        Some(srtp_replay_protection(REPLAY_WINDOW)),
        Some(srtcp_replay_protection(REPLAY_WINDOW)),
        provider.crypto(),
    )
}

impl Inbound {
    fn new(keys: &Keys, provider: &Arc<dyn RTCCryptoProvider>) -> Result<Self, Error> {
        Ok(Inbound {
            context: inbound_context(keys, provider)?,
            admitted: HashSet::new(),
        })
    }

    /// Opens with the lasting context if `ssrc` is known, else only after another one opened it.
    fn open(
        &mut self,
        ssrc: u32,
        keys: &Keys,
        provider: &Arc<dyn RTCCryptoProvider>,
        mut decrypt: impl FnMut(&mut Context) -> Result<BytesMut, Error>,
    ) -> Result<BytesMut, SrtpError> {
        if !self.admitted.contains(&ssrc) {
            if self.admitted.len() >= SOURCES {
                return Err(SrtpError::TooManySources);
            }
            let mut probe = inbound_context(keys, provider).map_err(|e| classify(&e))?;
            decrypt(&mut probe).map_err(|e| classify(&e))?;
            self.admitted.insert(ssrc);
        }
        decrypt(&mut self.context).map_err(|e| classify(&e))
    }
}

/// Puts what was opened where it came from.
fn replace(packet: &mut [u8], clear: &[u8]) -> Result<usize, SrtpError> {
    packet
        .get_mut(..clear.len())
        .ok_or(SrtpError::Authentication)?
        .copy_from_slice(clear);
    Ok(clear.len())
}

impl Library {
    pub(super) fn new(keys: Keys, provider: Arc<dyn RTCCryptoProvider>) -> Result<Self, Error> {
        let out = Context::new(
            &keys.local_key,
            &keys.local_salt,
            keys.profile,
            None,
            None,
            provider.crypto(),
        )?;
        let rtp = Inbound::new(&keys, &provider)?;
        let rtcp = Inbound::new(&keys, &provider)?;
        Ok(Library {
            keys,
            provider,
            out,
            rtp,
            rtcp,
            head: rtp::Header::default(),
        })
    }

    /// The library computes the header's length from a parsed header and is wrong about unusual
    /// padding; a header of as many CSRCs as there are words has the right length whatever it held.
    fn set_head(head: &mut rtp::Header, ssrc: u32, sequence: u16, header_len: usize) {
        head.version = 2;
        head.ssrc = ssrc;
        head.sequence_number = sequence;
        head.csrc.resize(header_len.saturating_sub(12) / 4, 0);
    }

    pub(super) fn open_rtp(&mut self, packet: &mut [u8], header: &Header) -> Result<usize, SrtpError> {
        Self::set_head(&mut self.head, header.ssrc, header.sequence, header.header_len);
        let head = &self.head;
        let sealed = &*packet;
        let clear = self.rtp.open(header.ssrc, &self.keys, &self.provider, |c| {
            c.decrypt_rtp_with_header(sealed, head)
        })?;
        replace(packet, &clear)
    }

    pub(super) fn open_rtcp(&mut self, packet: &mut [u8], ssrc: u32) -> Result<usize, SrtpError> {
        // The library takes what isn't marked as encrypted without looking at its tag.
        let word = packet.len().checked_sub(RTCP_TRAILER);
        if word.and_then(|at| packet.get(at)).is_none_or(|b| b & 0x80 == 0) {
            return Err(SrtpError::Authentication);
        }
        let sealed = &*packet;
        let clear = self
            .rtcp
            .open(ssrc, &self.keys, &self.provider, |c| c.decrypt_rtcp(sealed))?;
        replace(packet, &clear)
    }

    /// The rollover counter is the context's own.
    pub(super) fn seal_rtp(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        ssrc: u32,
        sequence: u16,
    ) -> Result<(), SrtpError> {
        Self::set_head(&mut self.head, ssrc, sequence, header_len);
        let clear = out.get(start..).ok_or(SrtpError::Seal)?;
        let sealed = self
            .out
            .encrypt_rtp_with_header(clear, &self.head)
            .map_err(|_| SrtpError::Seal)?;
        out.truncate(start);
        out.extend_from_slice(&sealed);
        Ok(())
    }

    pub(super) fn seal_rtcp(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), SrtpError> {
        let clear = out.get(start..).ok_or(SrtpError::Seal)?;
        let sealed = self.out.encrypt_rtcp(clear).map_err(|_| SrtpError::Seal)?;
        out.truncate(start);
        out.extend_from_slice(&sealed);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn admitted(&self) -> usize {
        self.rtp.admitted.len() + self.rtcp.admitted.len()
    }
}
