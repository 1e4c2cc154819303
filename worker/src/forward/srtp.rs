//! SRTP of one leg, both directions.
//!
//! Owns the keys. AES-GCM is ours down to the library's cipher, in place and without an allocation
//! ([`gcm`]); peers without it are served by the library's contexts ([`library`]). Invariants: nothing about
//! a packet is believed before it is authenticated; a stranger who forges SSRCs can't grow any table; the
//! sequence numbers sealed under one SSRC come from one counter, since a nonce that repeats breaks GCM
//! (RFC 7714 section 8.4).

mod gcm;
mod library;
mod replay;

use std::sync::Arc;

use rtc::crypto::RTCCryptoProvider;
use rtc::shared::error::Error;
use rtc::srtp::protection_profile::ProtectionProfile;

use self::gcm::Gcm;
use self::library::Library;
use super::packet::Header;

/// SSRCs that proved themselves, per direction and protocol of one leg.
const SOURCES: usize = 512;

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

enum Contexts {
    Gcm(Gcm),
    Library(Box<Library>),
}

/// Both directions.
pub(crate) struct Srtp {
    contexts: Contexts,
}

impl std::fmt::Debug for Srtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Srtp").finish_non_exhaustive()
    }
}

impl Srtp {
    pub(crate) fn new(keys: Keys, provider: Arc<dyn RTCCryptoProvider>) -> Result<Self, Error> {
        let contexts = match keys.profile {
            ProtectionProfile::AeadAes128Gcm | ProtectionProfile::AeadAes256Gcm => {
                let gcm = Gcm::new(&keys, provider.crypto()).map_err(|e| Error::Crypto(e.to_string()))?;
                Contexts::Gcm(gcm)
            }
            _ => Contexts::Library(Box::new(Library::new(keys, provider)?)),
        };
        Ok(Srtp { contexts })
    }

    /// Opens in place an RTP packet parsed as `header`; the length of what is clear.
    pub(crate) fn open_rtp(&mut self, packet: &mut [u8], header: &Header) -> Result<usize, SrtpError> {
        match &mut self.contexts {
            Contexts::Gcm(gcm) => gcm.open_rtp(packet, header),
            Contexts::Library(library) => library.open_rtp(packet, header),
        }
    }

    /// Opens in place an RTCP packet; the length of what is clear.
    pub(crate) fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = rtcp_source(packet).ok_or(SrtpError::Authentication)?;
        match &mut self.contexts {
            Contexts::Gcm(gcm) => gcm.open_rtcp(packet, ssrc),
            Contexts::Library(library) => library.open_rtcp(packet, ssrc),
        }
    }

    /// Seals in place an RTP packet of ours that runs from `start` to the end of `out`. `index` is its
    /// sequence number with the rollover counter before it. What is left in `out` after an error is no
    /// packet.
    pub(crate) fn seal_rtp(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), SrtpError> {
        match &mut self.contexts {
            Contexts::Gcm(gcm) => gcm.seal_rtp(out, start, header_len, ssrc, index),
            Contexts::Library(library) => library.seal_rtp(out, start, header_len, ssrc, index as u16),
        }
    }

    /// Seals in place an RTCP packet of ours that runs from `start` to the end of `out`.
    pub(crate) fn seal_rtcp(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), SrtpError> {
        let ssrc = out.get(start..).and_then(rtcp_source).ok_or(SrtpError::Seal)?;
        match &mut self.contexts {
            Contexts::Gcm(gcm) => gcm.seal_rtcp(out, start, ssrc),
            Contexts::Library(library) => library.seal_rtcp(out, start),
        }
    }
}

/// The SSRC of the first packet of a compound one.
fn rtcp_source(packet: &[u8]) -> Option<u32> {
    let bytes = packet.get(4..8)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
#[path = "srtp_tests.rs"]
pub(crate) mod tests;
