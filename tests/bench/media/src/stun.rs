//! ICE as a controlling client with one socket (RFC 8445), as far as a server behind a public address
//! needs it.
//!
//! Owns the writing of nominating checks, the recognition of their responses and the answers to the
//! server's own checks. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use rtc::crypto::RTCCryptoProvider;
use rtc::shared::error::Error;
use rtc::stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc::stun::textattrs::TextAttribute;
use rtc::stun::xoraddr::XorMappedAddress;

const ATTR_PRIORITY: AttrType = AttrType(0x0024);
const ATTR_ICE_CONTROLLING: AttrType = AttrType(0x802A);
/// A peer-reflexive candidate's, RFC 8445 section 5.1.2.1.
const PRIORITY: u32 = 110 << 24 | 65_535 << 8 | 255;

struct Raw<'a>(AttrType, &'a [u8]);

impl Setter for Raw<'_> {
    fn add_to(&self, m: &mut Message) -> Result<(), Error> {
        m.add(self.0, self.1);
        Ok(())
    }
}

/// A nominating check.
pub(crate) fn check(
    provider: &Arc<dyn RTCCryptoProvider>,
    local_ufrag: &str,
    remote_ufrag: &str,
    remote_pwd: &str,
) -> Result<Vec<u8>, Error> {
    let mut m = Message::new();
    let priority = PRIORITY.to_be_bytes();
    let parts: [Box<dyn Setter + '_>; 8] = [
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId::new()),
        Box::new(TextAttribute::new(
            ATTR_USERNAME,
            format!("{remote_ufrag}:{local_ufrag}"),
        )),
        Box::new(Raw(ATTR_PRIORITY, &priority)),
        Box::new(Raw(ATTR_ICE_CONTROLLING, &[0x5A; 8])),
        Box::new(Raw(ATTR_USE_CANDIDATE, &[])),
        Box::new(MessageIntegrity::new_raw_integrity_with_provider(
            remote_pwd.as_bytes(),
            provider.crypto(),
        )),
        Box::new(FINGERPRINT),
    ];
    m.build(&parts)?;
    Ok(m.raw)
}

/// What a STUN datagram is to us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stun {
    /// One of our checks succeeded.
    Response,
    /// A check of the server's, and what to answer.
    Request(Vec<u8>),
    /// Neither, or not authentic.
    Other,
}

/// Reads a STUN datagram that came `from` the server.
pub(crate) fn read(
    provider: &Arc<dyn RTCCryptoProvider>,
    datagram: &[u8],
    from: SocketAddr,
    local_pwd: &str,
    remote_pwd: &str,
) -> Stun {
    let mut m = Message::new();
    if m.unmarshal_binary(datagram).is_err() {
        return Stun::Other;
    }
    if m.typ == BINDING_SUCCESS {
        return match MessageIntegrity::check(&mut m, remote_pwd.as_bytes(), provider.crypto()) {
            Ok(()) => Stun::Response,
            Err(_) => Stun::Other,
        };
    }
    if m.typ != BINDING_REQUEST
        || MessageIntegrity::check(&mut m, local_pwd.as_bytes(), provider.crypto()).is_err()
    {
        return Stun::Other;
    }
    let mut response = Message::new();
    let parts: [Box<dyn Setter + '_>; 5] = [
        Box::new(BINDING_SUCCESS),
        Box::new(m.transaction_id),
        Box::new(XorMappedAddress {
            ip: from.ip(),
            port: from.port(),
        }),
        Box::new(MessageIntegrity::new_raw_integrity_with_provider(
            local_pwd.as_bytes(),
            provider.crypto(),
        )),
        Box::new(FINGERPRINT),
    ];
    match response.build(&parts) {
        Ok(()) => Stun::Request(response.raw),
        Err(_) => Stun::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_answered_by_who_knows_the_password_and_by_nobody_else() {
        let provider = rtc::crypto::default_provider().unwrap();
        let from: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let request = check(&provider, "a", "b", "password-of-b-which-is-long").unwrap();
        let Stun::Request(response) = read(
            &provider,
            &request,
            from,
            "password-of-b-which-is-long",
            "password-of-a-which-is-long",
        ) else {
            panic!("not answered");
        };
        let seen = |pwd: &str| read(&provider, &response, from, "mine", pwd);
        assert_eq!(seen("password-of-b-which-is-long"), Stun::Response);
        assert_eq!(seen("another"), Stun::Other);
        assert_eq!(
            read(&provider, &request, from, "another", "x"),
            Stun::Other,
            "not meant for us"
        );
        assert_eq!(read(&provider, &[0; 5], from, "a", "b"), Stun::Other);
    }
}
