//! SRTP with AES-GCM in place (RFC 7714): the framing, on the library's cipher.
//!
//! Owns session keys, nonces and rollover counters. Invariants: what is sealed under one SSRC has its
//! index from one counter, which its owner keeps and never turns back, since a nonce that repeats breaks
//! GCM (RFC 7714 section 8.4); a packet sent again under its index is the same bytes. An incoming source is
//! remembered only after one of its packets was authentic.

use rtc::crypto::{AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CryptoError, RTCCrypto, SecretVec};

use super::replay::Sources;
use super::{SOURCES, SrtpError};
use crate::forward::packet::Header;

const TAG: usize = 16;
const SALT: usize = 12;
/// RFC 3711 section 4.3.1
const LABEL_RTP_KEY: u8 = 0;
const LABEL_RTP_SALT: u8 = 2;
const LABEL_RTCP_KEY: u8 = 3;
const LABEL_RTCP_SALT: u8 = 5;
/// The index behind a packet: the E bit and 31 bits.
const RTCP_INDEX: usize = 4;
const ENCRYPTED: u32 = 1 << 31;
/// The part of an RTCP packet that stays in clear.
const RTCP_CLEAR: usize = 8;

/// `len` bytes of the key stream for `label` (RFC 3711 section 4.3.3, RFC 6188 for long keys), with a key
/// derivation rate of 0.
fn derive(
    crypto: &dyn RTCCrypto,
    master_key: &[u8],
    master_salt: &[u8],
    label: u8,
    len: usize,
) -> Result<SecretVec, CryptoError> {
    let cipher = match master_key.len() {
        32 => BlockCipherAlgorithm::Aes256,
        _ => BlockCipherAlgorithm::Aes128,
    };
    let mut out = Vec::with_capacity(len.next_multiple_of(16));
    for counter in 0_u16.. {
        if out.len() >= len {
            break;
        }
        let mut block = [0_u8; 16];
        // A 96-bit salt is the high part of the 112-bit one (RFC 7714 section 11).
        for (b, s) in block.iter_mut().zip(master_salt.iter().take(14)) {
            *b = *s;
        }
        let [.., c0, c1] = &mut block;
        [*c0, *c1] = counter.to_be_bytes();
        let [_, _, _, _, _, _, _, at, ..] = &mut block;
        *at ^= label;
        crypto.block_encrypt(cipher, master_key, &mut block)?;
        out.extend_from_slice(&block);
    }
    out.truncate(len);
    Ok(SecretVec::new(out))
}

/// One direction's cipher and salt for one of the two protocols.
struct Keyed {
    cipher: Box<dyn AeadCipher>,
    salt: [u8; SALT],
}

impl Keyed {
    fn new(
        crypto: &dyn RTCCrypto,
        key: &[u8],
        salt: &[u8],
        (key_label, salt_label): (u8, u8),
    ) -> Result<Keyed, CryptoError> {
        let algorithm = match key.len() {
            32 => AeadAlgorithm::Aes256Gcm,
            _ => AeadAlgorithm::Aes128Gcm,
        };
        let session_key = derive(crypto, key, salt, key_label, key.len())?;
        let session_salt = derive(crypto, key, salt, salt_label, SALT)?;
        let mut salt = [0; SALT];
        for (to, from) in salt.iter_mut().zip(session_salt.as_ref()) {
            *to = *from;
        }
        Ok(Keyed {
            cipher: crypto.new_aead(algorithm, session_key.as_ref())?,
            salt,
        })
    }

    /// RFC 7714 section 8.1: two zero octets, SSRC, rollover counter, sequence number.
    fn rtp_nonce(&self, ssrc: u32, index: u64) -> [u8; 12] {
        self.salted(u128::from(ssrc) << 48 | u128::from(index & 0xFFFF_FFFF_FFFF))
    }

    /// RFC 7714 section 9.1: two zero octets, SSRC, two zero octets, index.
    fn rtcp_nonce(&self, ssrc: u32, index: u32) -> [u8; 12] {
        self.salted(u128::from(ssrc) << 48 | u128::from(index))
    }

    fn salted(&self, value: u128) -> [u8; 12] {
        let [_, _, _, _, nonce @ ..] = value.to_be_bytes();
        let mut nonce: [u8; 12] = nonce;
        for (n, s) in nonce.iter_mut().zip(self.salt) {
            *n ^= s;
        }
        nonce
    }

    /// Seals what follows the first `clear` bytes of the packet at `start`, to the end of `out`.
    fn seal(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        clear: usize,
        nonce: &[u8; 12],
    ) -> Result<(), SrtpError> {
        let packet = out.get_mut(start..).ok_or(SrtpError::Seal)?;
        let (aad, body) = packet.split_at_mut_checked(clear).ok_or(SrtpError::Seal)?;
        let mut tag = [0; TAG];
        self.cipher
            .seal_in_place(nonce, aad, body, &mut tag)
            .map_err(|_| SrtpError::Seal)?;
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens a packet whose first `clear` bytes are not sealed; its length without the tag.
    fn open(&mut self, packet: &mut [u8], clear: usize, nonce: &[u8; 12]) -> Result<usize, SrtpError> {
        let (aad, body) = packet
            .split_at_mut_checked(clear)
            .ok_or(SrtpError::Authentication)?;
        let len = body.len().checked_sub(TAG).ok_or(SrtpError::Authentication)?;
        let (body, tag) = body.split_at_mut(len);
        self.cipher
            .open_in_place(nonce, aad, body, tag)
            .map_err(|_| SrtpError::Authentication)?;
        Ok(clear + len)
    }
}

/// Both directions of a leg.
pub(super) struct Gcm {
    rtp_out: Keyed,
    rtcp_out: Keyed,
    /// One for all our sources: an index may be left out, never used again.
    rtcp_index: u32,
    rtp_in: Keyed,
    rtcp_in: Keyed,
    rtp_sources: Sources,
    rtcp_sources: Sources,
}

impl Gcm {
    pub(super) fn new(keys: &super::Keys, crypto: &dyn RTCCrypto) -> Result<Gcm, CryptoError> {
        const RTP: (u8, u8) = (LABEL_RTP_KEY, LABEL_RTP_SALT);
        const RTCP: (u8, u8) = (LABEL_RTCP_KEY, LABEL_RTCP_SALT);
        let local = |labels| Keyed::new(crypto, &keys.local_key, &keys.local_salt, labels);
        let remote = |labels| Keyed::new(crypto, &keys.remote_key, &keys.remote_salt, labels);
        Ok(Gcm {
            rtp_out: local(RTP)?,
            rtcp_out: local(RTCP)?,
            rtcp_index: 0,
            rtp_in: remote(RTP)?,
            rtcp_in: remote(RTCP)?,
            rtp_sources: Sources::default(),
            rtcp_sources: Sources::default(),
        })
    }

    pub(super) fn open_rtp(&mut self, packet: &mut [u8], header: &Header) -> Result<usize, SrtpError> {
        let found = self.rtp_sources.find(header.ssrc);
        let index = match found {
            Ok(at) => {
                let window = self.rtp_sources.window(at).ok_or(SrtpError::Authentication)?;
                let index = window.index_of(header.sequence).ok_or(SrtpError::Replay)?;
                if !window.is_new(index) {
                    return Err(SrtpError::Replay);
                }
                index
            }
            Err(_) if self.rtp_sources.len() >= SOURCES => return Err(SrtpError::TooManySources),
            // A sender's first cycle (RFC 3711 section 3.3.1).
            Err(_) => u64::from(header.sequence),
        };
        let nonce = self.rtp_in.rtp_nonce(header.ssrc, index);
        let len = self.rtp_in.open(packet, header.header_len, &nonce)?;
        match found {
            Ok(at) => {
                if let Some(window) = self.rtp_sources.window(at) {
                    window.accept(index);
                }
            }
            Err(at) => self.rtp_sources.admit(at, header.ssrc, index),
        }
        Ok(len)
    }

    pub(super) fn open_rtcp(&mut self, packet: &mut [u8], ssrc: u32) -> Result<usize, SrtpError> {
        let split = packet
            .len()
            .checked_sub(RTCP_INDEX)
            .ok_or(SrtpError::Authentication)?;
        let (sealed, word) = packet.split_at_mut(split);
        let word = match *word {
            [a, b, c, d] => u32::from_be_bytes([a, b, c, d]),
            _ => return Err(SrtpError::Authentication),
        };
        // Nothing that a client says goes in clear.
        if word & ENCRYPTED == 0 {
            return Err(SrtpError::Authentication);
        }
        let index = word & !ENCRYPTED;
        let found = self.rtcp_sources.find(ssrc);
        match found {
            Ok(at) => {
                let window = self.rtcp_sources.window(at);
                if window.is_some_and(|w| !w.is_new(u64::from(index))) {
                    return Err(SrtpError::Replay);
                }
            }
            Err(_) if self.rtcp_sources.len() >= SOURCES => return Err(SrtpError::TooManySources),
            Err(_) => {}
        }
        let (head, body) = sealed
            .split_at_mut_checked(RTCP_CLEAR)
            .ok_or(SrtpError::Authentication)?;
        let len = body.len().checked_sub(TAG).ok_or(SrtpError::Authentication)?;
        let (body, tag) = body.split_at_mut(len);
        let nonce = self.rtcp_in.rtcp_nonce(ssrc, index);
        self.rtcp_in
            .cipher
            .open_in_place(&nonce, &rtcp_aad(head, word), body, tag)
            .map_err(|_| SrtpError::Authentication)?;
        match found {
            Ok(at) => {
                if let Some(window) = self.rtcp_sources.window(at) {
                    window.accept(u64::from(index));
                }
            }
            Err(at) => self.rtcp_sources.admit(at, ssrc, u64::from(index)),
        }
        Ok(RTCP_CLEAR + len)
    }

    pub(super) fn seal_rtp(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), SrtpError> {
        // 2^48 packets are all that one key may seal.
        if index >> 48 != 0 {
            return Err(SrtpError::Seal);
        }
        let nonce = self.rtp_out.rtp_nonce(ssrc, index);
        self.rtp_out.seal(out, start, header_len, &nonce)
    }

    pub(super) fn seal_rtcp(&mut self, out: &mut Vec<u8>, start: usize, ssrc: u32) -> Result<(), SrtpError> {
        if self.rtcp_index & ENCRYPTED != 0 {
            return Err(SrtpError::Seal);
        }
        let index = self.rtcp_index;
        self.rtcp_index += 1;
        let word = index | ENCRYPTED;
        let nonce = self.rtcp_out.rtcp_nonce(ssrc, index);
        let packet = out.get_mut(start..).ok_or(SrtpError::Seal)?;
        let (head, body) = packet.split_at_mut_checked(RTCP_CLEAR).ok_or(SrtpError::Seal)?;
        let aad = rtcp_aad(head, word);
        let mut tag = [0; TAG];
        self.rtcp_out
            .cipher
            .seal_in_place(&nonce, &aad, body, &mut tag)
            .map_err(|_| SrtpError::Seal)?;
        out.extend_from_slice(&tag);
        out.extend_from_slice(&word.to_be_bytes());
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn admitted(&self) -> usize {
        self.rtp_sources.len() + self.rtcp_sources.len()
    }
}

/// RFC 7714 section 9.2: the clear part, then the index as it stands behind the packet.
fn rtcp_aad(head: &[u8], word: u32) -> [u8; RTCP_CLEAR + RTCP_INDEX] {
    let mut aad = [0; RTCP_CLEAR + RTCP_INDEX];
    let parts = head.iter().copied().take(RTCP_CLEAR).chain(word.to_be_bytes());
    for (to, from) in aad.iter_mut().zip(parts) {
        *to = from;
    }
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
            .collect()
    }

    /// RFC 3711 appendix B.3.
    #[test]
    fn session_keys_are_derived_as_the_standard_says() {
        let provider = rtc::crypto::default_provider().unwrap();
        let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
        let of = |label, len| {
            let derived = derive(provider.crypto(), &key, &salt, label, len).unwrap();
            derived.as_ref().to_vec()
        };
        assert_eq!(of(0, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(of(2, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(
            of(1, 94)[..32],
            hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCE")
        );
    }

    /// RFC 7714 section 16.1.1: the nonce and the packet of the example, with its session key and salt.
    #[test]
    fn a_packet_is_sealed_as_the_standard_says() {
        let provider = rtc::crypto::default_provider().unwrap();
        let key = hex("000102030405060708090a0b0c0d0e0f");
        let mut keyed = Keyed {
            cipher: provider
                .crypto()
                .new_aead(AeadAlgorithm::Aes128Gcm, &key)
                .unwrap(),
            salt: hex("517569642070726f2071756f").try_into().unwrap(),
        };
        let mut packet = hex("8040f17b 8041f8d3 5501a0b2");
        packet.extend_from_slice(b"Gallia est omnis divisa in partes tres");
        let nonce = keyed.rtp_nonce(0x5501_a0b2, 0xf17b);
        assert_eq!(nonce[..], hex("51753c6580c2726f20718414"));
        keyed.seal(&mut packet, 0, 12, &nonce).unwrap();
        let sealed = hex(
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833\
             899d7f27beb16a9152cf765ee4390cce",
        );
        assert_eq!(packet, sealed);
        assert_eq!(keyed.open(&mut packet, 12, &nonce).unwrap(), sealed.len() - TAG);
        assert_eq!(&packet[12..50], b"Gallia est omnis divisa in partes tres");
    }
}
