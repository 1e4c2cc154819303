//! SRTP of one leg, both directions, on the library's contexts.
//!
//! Owns the keys. Invariants: nothing about a packet is believed before it is authenticated; a stranger
//! who forges SSRCs can't grow any table (unknown SSRCs are tried in a probe context that is thrown away
//! when it has seen [`PROBE_LIMIT`] of them); the sequence numbers sealed under one SSRC come from one
//! counter, since a nonce that repeats breaks GCM (RFC 7714 section 8.4).

use std::collections::HashSet;
use std::sync::Arc;

use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;
use rtc::rtp;
use rtc::shared::error::Error;
use rtc::srtp::context::Context;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc::srtp::protection_profile::ProtectionProfile;

use super::packet::Header;

/// SSRCs that proved themselves, per direction of one leg.
const ADMITTED_LIMIT: usize = 512;
/// SSRCs the probe context may hold.
const PROBE_LIMIT: usize = 64;
/// Packets of a stream that may be reordered.
const REPLAY_WINDOW: usize = 256;

/// Master keys as DTLS exported them (RFC 5764 section 4.2).
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) profile: ProtectionProfile,
    pub(crate) local_key: Vec<u8>,
    pub(crate) local_salt: Vec<u8>,
    pub(crate) remote_key: Vec<u8>,
    pub(crate) remote_salt: Vec<u8>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// Why a packet wasn't opened or sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SrtpError {
    #[error("not authentic")]
    Authentication,
    #[error("seen before")]
    Replay,
    #[error("too many sources")]
    TooManySources,
    #[error("cannot be sealed")]
    Seal,
}

fn classify(error: &Error) -> SrtpError {
    match error {
        Error::SrtpSsrcDuplicated(..) | Error::SrtcpSsrcDuplicated(..) => SrtpError::Replay,
        _ => SrtpError::Authentication,
    }
}

struct Inbound {
    context: Context,
    admitted: HashSet<u32>,
    probe: Context,
    probed: HashSet<u32>,
}

/// Both directions.
pub(crate) struct Srtp {
    keys: Keys,
    provider: Arc<dyn RTCCryptoProvider>,
    out: Context,
    rtp: Inbound,
    rtcp: Inbound,
    /// Reused: the library reads SSRC, sequence number and length from it, nothing else.
    head: rtp::Header,
}

impl std::fmt::Debug for Srtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Srtp")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
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
            probe: inbound_context(keys, provider)?,
            probed: HashSet::new(),
        })
    }

    /// Opens with the main context if `ssrc` is known, else only after the probe opened it.
    fn open(
        &mut self,
        ssrc: u32,
        keys: &Keys,
        provider: &Arc<dyn RTCCryptoProvider>,
        mut decrypt: impl FnMut(&mut Context) -> Result<BytesMut, Error>,
    ) -> Result<BytesMut, SrtpError> {
        if !self.admitted.contains(&ssrc) {
            if self.admitted.len() >= ADMITTED_LIMIT {
                return Err(SrtpError::TooManySources);
            }
            if self.probed.len() >= PROBE_LIMIT && !self.probed.contains(&ssrc) {
                self.probe = inbound_context(keys, provider).map_err(|e| classify(&e))?;
                self.probed.clear();
            }
            self.probed.insert(ssrc);
            decrypt(&mut self.probe).map_err(|e| classify(&e))?;
            self.admitted.insert(ssrc);
        }
        decrypt(&mut self.context).map_err(|e| classify(&e))
    }
}

impl Srtp {
    pub(crate) fn new(keys: Keys, provider: Arc<dyn RTCCryptoProvider>) -> Result<Self, Error> {
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
        Ok(Srtp {
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
    fn set_head(head: &mut rtp::Header, h: &Header) {
        head.version = 2;
        head.ssrc = h.ssrc;
        head.sequence_number = h.sequence;
        head.csrc.resize(h.header_len.saturating_sub(12) / 4, 0);
    }

    /// Opens an RTP packet parsed as `header`.
    pub(crate) fn open_rtp(&mut self, packet: &[u8], header: &Header) -> Result<BytesMut, SrtpError> {
        Self::set_head(&mut self.head, header);
        let head = &self.head;
        self.rtp.open(header.ssrc, &self.keys, &self.provider, |c| {
            c.decrypt_rtp_with_header(packet, head)
        })
    }

    /// Opens an RTCP packet.
    pub(crate) fn open_rtcp(&mut self, packet: &[u8]) -> Result<BytesMut, SrtpError> {
        let Some([a, b, c, d]) = packet.get(4..8) else {
            return Err(SrtpError::Authentication);
        };
        let ssrc = u32::from_be_bytes([*a, *b, *c, *d]);
        self.rtcp
            .open(ssrc, &self.keys, &self.provider, |c| c.decrypt_rtcp(packet))
    }

    /// Seals an RTP packet of ours.
    pub(crate) fn seal_rtp(&mut self, packet: &[u8], header: &Header) -> Result<BytesMut, SrtpError> {
        Self::set_head(&mut self.head, header);
        self.out
            .encrypt_rtp_with_header(packet, &self.head)
            .map_err(|_| SrtpError::Seal)
    }

    /// Seals an RTCP packet of ours.
    pub(crate) fn seal_rtcp(&mut self, packet: &[u8]) -> Result<BytesMut, SrtpError> {
        self.out.encrypt_rtcp(packet).map_err(|_| SrtpError::Seal)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::packet::{ExtensionWriter, Rewrite, write_header};
    use super::*;

    /// Two ends of one leg.
    pub(crate) fn pair() -> (Srtp, Srtp) {
        let provider = rtc::crypto::default_provider().unwrap();
        let a = Keys {
            profile: ProtectionProfile::AeadAes128Gcm,
            local_key: vec![1; 16],
            local_salt: vec![2; 12],
            remote_key: vec![3; 16],
            remote_salt: vec![4; 12],
        };
        let b = Keys {
            profile: a.profile,
            local_key: a.remote_key.clone(),
            local_salt: a.remote_salt.clone(),
            remote_key: a.local_key.clone(),
            remote_salt: a.local_salt.clone(),
        };
        (
            Srtp::new(a, provider.clone()).unwrap(),
            Srtp::new(b, provider).unwrap(),
        )
    }

    fn packet(ssrc: u32, sequence: u16) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(
            &mut out,
            &Rewrite {
                marker: false,
                payload_type: 96,
                sequence,
                timestamp: 1,
                ssrc,
            },
        );
        let mut w = ExtensionWriter::new(&mut out, false);
        w.push(1, b"0");
        w.finish();
        out.extend_from_slice(b"secret");
        out
    }

    #[test]
    fn sealed_opens_once_and_only_unharmed() {
        let (mut a, mut b) = pair();
        let clear = packet(5, 1);
        let h = Header::parse(&clear).unwrap();
        let sealed = a.seal_rtp(&clear, &h).unwrap();
        assert_ne!(&sealed[..clear.len()], &clear[..]);
        let mut bad = sealed.clone();
        bad[1] ^= 1;
        assert_eq!(
            b.open_rtp(&bad, &Header::parse(&bad).unwrap()),
            Err(SrtpError::Authentication)
        );
        assert_eq!(&b.open_rtp(&sealed, &h).unwrap()[..], &clear[..]);
        assert_eq!(b.open_rtp(&sealed, &h), Err(SrtpError::Replay));
    }

    #[test]
    fn forged_sources_leave_no_trace() {
        let (mut a, mut b) = pair();
        for ssrc in 0..1000 {
            let mut forged = packet(ssrc, 1);
            forged.extend_from_slice(&[0; 16]);
            let h = Header::parse(&forged).unwrap();
            assert!(b.open_rtp(&forged, &h).is_err());
        }
        assert!(b.rtp.admitted.is_empty());
        assert!(b.rtp.probed.len() <= PROBE_LIMIT);
        let clear = packet(77, 2);
        let h = Header::parse(&clear).unwrap();
        let sealed = a.seal_rtp(&clear, &h).unwrap();
        assert!(b.open_rtp(&sealed, &h).is_ok());
    }

    #[test]
    fn odd_extension_padding_opens() {
        let (mut a, mut b) = pair();
        // Id 15 ends the block early: a re-serialised header would be shorter than the real one.
        let mut clear = vec![0x90, 96, 0, 9, 0, 0, 0, 1, 0, 0, 0, 8, 0xBE, 0xDE, 0, 2];
        clear.extend_from_slice(&[0x10, b'0', 0xF0, 0, 0, 0, 0, 0]);
        clear.extend_from_slice(b"secret");
        let h = Header::parse(&clear).unwrap();
        let sealed = a.seal_rtp(&clear, &h).unwrap();
        assert_eq!(&b.open_rtp(&sealed, &h).unwrap()[..], &clear[..]);
    }
}
