//! The names of sessions: what a Location ends with.
//!
//! Owns their form. A session's name is a JWT, signed with the key that its token was signed with; it
//! says whose session it is, so that a gateway which did not make it finds the worker that holds it.
//! Invariants: nobody guesses one; it gives no right to join anything; a token for joining is none.

use plenum_errors::{Code, PublicError};
use plenum_token::{Claims, VideoGrant};

use super::Protocol;

/// How long a session can be ended by its name, in seconds. Sessions may last longer.
const LIFE: u64 = 30 * 24 * 3600;

/// Whose session it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) protocol: Protocol,
    pub(crate) api_key: String,
    /// At the time of joining.
    pub(crate) room: String,
    pub(crate) identity: String,
    pub(crate) participant_sid: String,
    /// When the token was issued, Unix seconds.
    pub(crate) issued_at: Option<u64>,
    /// The only participant that a viewer wants to see.
    pub(crate) only: Option<String>,
}

/// Attribute of the name that says [`Owner::only`].
const ONLY: &str = "participant";

/// No such session.
fn unknown() -> PublicError {
    Code::SessionNotFound.into()
}

impl Owner {
    /// The session's name.
    pub(crate) fn sign(&self, secret: &str, now: u64) -> Result<String, PublicError> {
        let claims = Claims {
            sub: self.identity.clone(),
            jti: Some(self.participant_sid.clone()),
            exp: now.saturating_add(LIFE),
            nbf: Some(now),
            iat: self.issued_at,
            kind: self.protocol.as_str().to_owned(),
            attributes: self
                .only
                .iter()
                .map(|only| (ONLY.to_owned(), only.clone()))
                .collect(),
            video: VideoGrant {
                room: self.room.clone(),
                ..VideoGrant::default()
            },
            ..Claims::default()
        };
        plenum_token::sign(&claims, &self.api_key, secret).map_err(PublicError::from)
    }

    /// Reads a name, whose key is found by what [`plenum_token::peek`] says of it. Whatever is wrong
    /// with it, there is no such session.
    pub(crate) fn verify(
        protocol: Protocol,
        name: &str,
        api_key: &str,
        secret: &str,
        now: u64,
    ) -> Result<Owner, PublicError> {
        let mut claims = plenum_token::verify(name, api_key, secret, now).map_err(|_| unknown())?;
        let participant_sid = claims.jti.filter(|sid| !sid.is_empty()).ok_or_else(unknown)?;
        if claims.kind != protocol.as_str() || claims.video.room_join || claims.sub.is_empty() {
            return Err(unknown());
        }
        Ok(Owner {
            protocol,
            api_key: claims.iss,
            room: claims.video.room,
            identity: claims.sub,
            participant_sid,
            issued_at: claims.iat,
            only: claims.attributes.remove(ONLY),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plenum_token::Role;

    const SECRET: &str = "a-secret-of-exactly-32-bytes-ok!";

    #[test]
    fn a_name_says_whose_session_it_is_and_opens_no_door() {
        let owner = Owner {
            protocol: Protocol::Whip,
            api_key: "key".into(),
            room: "demo/standup".into(),
            identity: "camera".into(),
            participant_sid: "PA_x".into(),
            issued_at: Some(990),
            only: Some("bob".into()),
        };
        let name = owner.sign(SECRET, 1000).unwrap();
        let read = |protocol, name: &str, secret: &str| Owner::verify(protocol, name, "key", secret, 1000);
        assert_eq!(read(Protocol::Whip, &name, SECRET), Ok(owner));
        assert_eq!(plenum_token::peek(&name).unwrap().room, "demo/standup");
        let claims = plenum_token::verify(&name, "key", SECRET, 1000).unwrap();
        assert!(claims.require_join().is_err());

        let join = Claims::for_participant("camera", "demo/standup", Role::Host, 1000, 60);
        let join = plenum_token::sign(&join, "key", SECRET).unwrap();
        for (protocol, name, secret) in [
            (Protocol::Whep, name.as_str(), SECRET),
            (Protocol::Whip, name.as_str(), "another-secret-of-32-bytes-or-so"),
            (Protocol::Whip, join.as_str(), SECRET),
            (Protocol::Whip, "garbage", SECRET),
        ] {
            assert_eq!(
                read(protocol, name, secret).unwrap_err().code,
                Code::SessionNotFound
            );
        }
    }
}
