//! One connectivity check as ICE's controlling side makes it (RFC 8445, RFC 8489).
//!
//! Pure: bytes out, bytes in. Only what a check against an ICE-lite server needs.

const COOKIE: u32 = 0x2112_A442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const HEADER: usize = 20;

/// The identifier of one check.
pub(super) type Transaction = [u8; 12];

/// A binding request for the peer that calls itself `remote`, from one that calls itself `local`,
/// authenticated with the peer's password.
pub(super) fn request(transaction: Transaction, remote: &str, local: &str, password: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    message.extend_from_slice(&BINDING_REQUEST.to_be_bytes());
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(&COOKIE.to_be_bytes());
    message.extend_from_slice(&transaction);
    attribute(&mut message, 0x0006, format!("{remote}:{local}").as_bytes()); // USERNAME
    attribute(&mut message, 0x0024, &0x6E00_01FF_u32.to_be_bytes()); // PRIORITY, peer-reflexive
    attribute(&mut message, 0x802A, &transaction[..8]); // ICE-CONTROLLING, any number
    attribute(&mut message, 0x0025, &[]); // USE-CANDIDATE
    let integrity = integrity(&mut message, password);
    attribute(&mut message, 0x0008, &integrity);
    set_length(&mut message, 8);
    let fingerprint = crc32(&message) ^ 0x5354_554E;
    attribute(&mut message, 0x8028, &fingerprint.to_be_bytes());
    message
}

/// Is this the success that answers that transaction?
pub(super) fn is_success(message: &[u8], transaction: &Transaction) -> bool {
    message.len() >= HEADER
        && message[..2] == BINDING_SUCCESS.to_be_bytes()
        && message[4..8] == COOKIE.to_be_bytes()
        && message[8..HEADER] == transaction[..]
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
    set_length(message, 0);
}

/// The length that the header names: what follows it, and `ahead` more bytes to come.
fn set_length(message: &mut [u8], ahead: usize) {
    let length = u16::try_from(message.len() - HEADER + ahead).unwrap_or(u16::MAX);
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// HMAC-SHA1 over the message as if the attribute that will hold it were there.
fn integrity(message: &mut [u8], password: &str) -> Vec<u8> {
    set_length(message, 24);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    ring::hmac::sign(&key, message).as_ref().to_vec()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_common_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_request_names_both_sides_and_its_own_length() {
        let message = request([7; 12], "server", "probe", "password");
        assert_eq!(message.len() % 4, 0);
        assert_eq!(
            usize::from(u16::from_be_bytes([message[2], message[3]])),
            message.len() - HEADER
        );
        assert!(message.windows(12).any(|window| window == b"server:probe"));
        // The integrity covers everything before it, with the length up to its own end.
        let before = message.len() - 8 - 24;
        let mut covered = message[..before].to_vec();
        assert_eq!(
            integrity(&mut covered, "password"),
            message[before + 4..before + 24]
        );
    }

    #[test]
    fn only_its_own_success_counts() {
        let mut answer = request([7; 12], "a", "b", "c");
        assert!(!is_success(&answer, &[7; 12]));
        answer[..2].copy_from_slice(&BINDING_SUCCESS.to_be_bytes());
        assert!(is_success(&answer, &[7; 12]));
        assert!(!is_success(&answer, &[8; 12]));
        assert!(!is_success(&answer[..19], &[7; 12]));
    }
}
