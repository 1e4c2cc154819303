//! ICE-lite (RFC 8445 section 2.5): we answer checks and never send any.
//!
//! Owns credentials, and that a user name of ours says which shard it belongs to. Invariants: a request counts only with our ufrag, the peer's, and a valid
//! MESSAGE-INTEGRITY; nothing else moves a route or keeps a leg alive.

use std::net::SocketAddr;
use std::sync::Arc;

use rtc::crypto::RTCCryptoProvider;
use rtc::stun::attributes::{ATTR_MESSAGE_INTEGRITY, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter};
use rtc::stun::xoraddr::XorMappedAddress;

use crate::net::Shard;

/// Larger than a check ever is.
const MAX_MESSAGE: usize = 1280;

/// Why a STUN message is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StunError {
    #[error("not a binding request")]
    NotARequest,
    #[error("not STUN")]
    Malformed,
    #[error("no leg has this user name")]
    UnknownUser,
    #[error("not authentic")]
    Integrity,
    #[error("cannot be answered")]
    Response,
}

/// Credentials of both ends for one generation of a leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) local_ufrag: String,
    pub(crate) local_pwd: String,
    pub(crate) remote_ufrag: String,
}

/// A request that carries a user name, not yet believed.
#[derive(Debug)]
pub(crate) struct Request {
    message: Message,
    pub(crate) local_ufrag: String,
}

/// The answer to an authentic request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Vec<u8>,
    pub(crate) nominated: bool,
}

/// Parses a request far enough to find whose it is.
pub(crate) fn read(datagram: &[u8]) -> Result<Request, StunError> {
    if datagram.len() > MAX_MESSAGE {
        return Err(StunError::Malformed);
    }
    let mut message = Message::new();
    message
        .unmarshal_binary(datagram)
        .map_err(|_| StunError::Malformed)?;
    if message.typ != BINDING_REQUEST {
        return Err(StunError::NotARequest);
    }
    let name = message.get(ATTR_USERNAME).map_err(|_| StunError::UnknownUser)?;
    let name = std::str::from_utf8(&name).map_err(|_| StunError::UnknownUser)?;
    // The second part isn't looked at (RFC 8445 section 7.3): checks may come before the peer's
    // description does, and some peers give up on those that aren't answered.
    let (local, _) = name.split_once(':').ok_or(StunError::UnknownUser)?;
    let local_ufrag = local.to_owned();
    Ok(Request { message, local_ufrag })
}

impl Request {
    /// Checks it against `credentials` and writes the response to `from`.
    pub(crate) fn answer(
        mut self,
        credentials: &Credentials,
        from: SocketAddr,
        provider: &Arc<dyn RTCCryptoProvider>,
    ) -> Result<Answer, StunError> {
        if self.local_ufrag != credentials.local_ufrag {
            return Err(StunError::UnknownUser);
        }
        // The library subtracts the attribute's nominal length from offsets: only 20 bytes are safe.
        let (attribute, found) = self.message.attributes.get(ATTR_MESSAGE_INTEGRITY);
        if !found || attribute.value.len() != 20 {
            return Err(StunError::Integrity);
        }
        let key = credentials.local_pwd.as_bytes();
        MessageIntegrity::check(&mut self.message, key, provider.crypto())
            .map_err(|_| StunError::Integrity)?;
        let nominated = self.message.contains(ATTR_USE_CANDIDATE);

        let mut response = Message::new();
        let mapped = XorMappedAddress {
            ip: from.ip(),
            port: from.port(),
        };
        let integrity = MessageIntegrity::new_raw_integrity_with_provider(key, provider.crypto());
        let parts: [Box<dyn Setter + '_>; 5] = [
            Box::new(BINDING_SUCCESS),
            Box::new(self.message.transaction_id),
            Box::new(mapped),
            Box::new(integrity),
            Box::new(FINGERPRINT),
        ];
        response.build(&parts).map_err(|_| StunError::Response)?;
        Ok(Answer {
            response: response.raw,
            nominated,
        })
    }
}

/// The ice-chars (RFC 8839 section 5.4).
const ALPHABET: &[u8; Shard::MOST] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Characters of a user name of ours. The first names the shard; of the rest are 66 bits random.
const UFRAG: usize = 12;

/// A user name of the shard's own.
pub(crate) fn random_ufrag(provider: &Arc<dyn RTCCryptoProvider>, shard: Shard) -> Option<String> {
    let mark = char::from(*ALPHABET.get(shard.index())?);
    let rest = random_text(provider, UFRAG - 1)?;
    Some(format!("{mark}{rest}"))
}

/// Whose user name it is, if it is one of ours at all.
pub(crate) fn shard_of(local_ufrag: &str) -> Option<Shard> {
    let mark = local_ufrag.bytes().next()?;
    Shard::new(ALPHABET.iter().position(|c| *c == mark)?)
}

/// A random string of ice-chars.
pub(crate) fn random_text(provider: &Arc<dyn RTCCryptoProvider>, len: usize) -> Option<String> {
    let mut bytes = vec![0; len];
    provider.random().fill(&mut bytes).ok()?;
    bytes
        .iter()
        .map(|b| ALPHABET.get(usize::from(b & 63)).map(|c| char::from(*c)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::stun::attributes::AttrType;
    use rtc::stun::message::TransactionId;
    use rtc::stun::textattrs::TextAttribute;

    fn request(user: &str, pwd: &str, nominate: bool) -> Vec<u8> {
        let provider = rtc::crypto::default_provider().unwrap();
        let mut m = Message::new();
        let mut parts: Vec<Box<dyn Setter + '_>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId::new()),
            Box::new(TextAttribute::new(ATTR_USERNAME, user.to_owned())),
        ];
        struct Flag(AttrType);
        impl Setter for Flag {
            fn add_to(&self, m: &mut Message) -> rtc::shared::error::Result<()> {
                m.add(self.0, &[]);
                Ok(())
            }
        }
        if nominate {
            parts.push(Box::new(Flag(ATTR_USE_CANDIDATE)));
        }
        parts.push(Box::new(MessageIntegrity::new_raw_integrity_with_provider(
            pwd.as_bytes(),
            provider.crypto(),
        )));
        m.build(&parts).unwrap();
        m.raw
    }

    #[test]
    fn only_authentic_requests_are_answered() {
        let provider = rtc::crypto::default_provider().unwrap();
        let ours = Credentials {
            local_ufrag: "srv".to_owned(),
            local_pwd: "password-password-password".to_owned(),
            remote_ufrag: "cli".to_owned(),
        };
        let from: SocketAddr = "10.0.0.1:5000".parse().unwrap();
        let answer = |raw: &[u8]| read(raw)?.answer(&ours, from, &provider);
        let good = answer(&request("srv:cli", &ours.local_pwd, true)).unwrap();
        assert!(good.nominated);
        let mut m = Message::new();
        m.unmarshal_binary(&good.response).unwrap();
        assert_eq!(m.typ, BINDING_SUCCESS);
        MessageIntegrity::check(&mut m, ours.local_pwd.as_bytes(), provider.crypto()).unwrap();
        FINGERPRINT.check(&m).unwrap();

        assert!(
            !answer(&request("srv:cli", &ours.local_pwd, false))
                .unwrap()
                .nominated
        );
        assert_eq!(
            answer(&request("srv:cli", "wrong", true)).unwrap_err(),
            StunError::Integrity
        );
        assert_eq!(
            answer(&request("eve:cli", &ours.local_pwd, true)).unwrap_err(),
            StunError::UnknownUser
        );
        // The peer's own name may be one that we are yet to be told.
        assert!(answer(&request("srv:new", &ours.local_pwd, true)).is_ok());
        let mut cut = request("srv:cli", &ours.local_pwd, true);
        cut.truncate(30);
        assert!(answer(&cut).is_err());
    }

    #[test]
    fn a_user_name_leads_to_its_shard() {
        let provider = rtc::crypto::default_provider().unwrap();
        for shard in Shard::all(Shard::MOST) {
            let ufrag = random_ufrag(&provider, shard).unwrap();
            assert_eq!((ufrag.len(), shard_of(&ufrag)), (UFRAG, Some(shard)));
        }
        assert_eq!(Shard::all(1000).count(), Shard::MOST);
        assert_eq!((shard_of(""), shard_of("-x"), shard_of("ü")), (None, None, None));
    }

    #[test]
    fn random_text_is_ice_chars() {
        let provider = rtc::crypto::default_provider().unwrap();
        let a = random_text(&provider, 24).unwrap();
        assert_eq!(a.len(), 24);
        assert_ne!(a, random_text(&provider, 24).unwrap());
    }
}
