//! Signing and checking.
//!
//! The signature is checked by `jsonwebtoken`; time, issuer, identity and grant are checked here,
//! against a clock that the caller hands in.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use plenum_errors::{Code, PublicError};
use serde::Deserialize;

use crate::Claims;

/// Clocks may differ by this much.
pub const LEEWAY_SECONDS: u64 = 60;
/// The shortest API secret that signs or verifies: HS256's own block of 256 bits.
pub const MIN_SECRET_BYTES: usize = 32;
/// Longer tokens are refused unread.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The longest identity.
const MAX_IDENTITY_BYTES: usize = 128;

/// Why a token was refused. Says never what it contained, but for names of keys and rooms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT, not HS256, or a claim is missing or of the wrong type.
    #[error("{0}")]
    Malformed(&'static str),
    /// The API secret is too short to be trusted with a signature.
    #[error("the API secret is shorter than 32 bytes")]
    WeakSecret,
    /// Signed with another secret.
    #[error("the signature does not match")]
    Signature,
    /// The issuer is not the key it was checked with.
    #[error("the issuer is another key")]
    Issuer,
    /// `exp` is past.
    #[error("expired {0} s ago")]
    Expired(u64),
    /// `nbf` is in the future.
    #[error("valid in {0} s")]
    NotYetValid(u64),
    /// No `sub`, or an unusable one.
    #[error("{0}")]
    Identity(&'static str),
    /// The video grant does not allow to join.
    #[error("{0}")]
    NotPermitted(&'static str),
    /// The grant names another room.
    #[error("the token is for another room")]
    WrongRoom,
}

impl TokenError {
    /// The catalogue entry.
    pub fn code(&self) -> Code {
        match self {
            TokenError::Malformed(_) => Code::TokenMalformed,
            // A weak key is as good as none: whoever guesses it signs what they like.
            TokenError::WeakSecret | TokenError::Issuer => Code::TokenUnknownKey,
            TokenError::Signature => Code::TokenSignature,
            TokenError::Expired(_) => Code::TokenExpired,
            TokenError::NotYetValid(_) => Code::TokenNotYetValid,
            TokenError::Identity(_) => Code::IdentityMissing,
            TokenError::NotPermitted(_) => Code::NotPermitted,
            TokenError::WrongRoom => Code::TokenWrongMeeting,
        }
    }
}

impl From<TokenError> for PublicError {
    fn from(error: TokenError) -> Self {
        match error {
            // The catalogue's own sentence says it all.
            TokenError::Signature | TokenError::Issuer | TokenError::WrongRoom => error.code().into(),
            _ => PublicError::new(error.code(), error.to_string()),
        }
    }
}

/// What an unchecked token says of itself: enough to find the key to check it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// The API key that is said to have signed.
    pub api_key: String,
    /// The room of the video grant; may be empty.
    pub room: String,
}

/// Reads issuer and room of a token whose signature is **not** checked.
pub fn peek(token: &str) -> Result<Peeked, TokenError> {
    #[derive(Deserialize)]
    struct Unchecked {
        #[serde(default)]
        iss: String,
        #[serde(default)]
        video: UncheckedGrant,
    }
    #[derive(Deserialize, Default)]
    struct UncheckedGrant {
        #[serde(default)]
        room: String,
    }

    require_hs256(token)?;
    let unchecked: Unchecked = jsonwebtoken::dangerous::insecure_decode_claims(token)
        .map_err(|_| TokenError::Malformed("the claims cannot be read"))?;
    if unchecked.iss.is_empty() {
        return Err(TokenError::Malformed("iss is missing"));
    }
    Ok(Peeked {
        api_key: unchecked.iss,
        room: unchecked.video.room,
    })
}

/// Signs `claims` as `api_key`.
pub fn sign(claims: &Claims, api_key: &str, secret: &str) -> Result<String, TokenError> {
    require_strong(secret)?;
    let claims = Claims {
        iss: api_key.to_owned(),
        ..claims.clone()
    };
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
    .map_err(|_| TokenError::Malformed("the claims cannot be written"))
}

/// Checks signature, issuer and time. What the grant allows is for the caller to ask, or for
/// [`Claims::require_join`].
pub fn verify(token: &str, api_key: &str, secret: &str, now: u64) -> Result<Claims, TokenError> {
    require_strong(secret)?;
    require_hs256(token)?;
    let mut validation = Validation::new(Algorithm::HS256);
    // Time is checked below, against `now`. An audience is refused: no token for a LiveKit server
    // has one, so a token with one was meant for somebody else.
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let value = jsonwebtoken::decode::<serde_json::Value>(
        token,
        &DecodingKey::from_secret(secret.as_bytes()),
        &validation,
    )
    .map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAudience => TokenError::Malformed("the token has an audience"),
        _ => TokenError::Malformed("not a JWT signed with HS256"),
    })?
    .claims;

    // Required claims are looked for by name: the claims' defaults would hide their absence.
    for (claim, missing, wrong) in [
        ("exp", "exp is missing", "exp is not a number"),
        ("nbf", "", "nbf is not a number"),
        ("iat", "", "iat is not a number"),
    ] {
        match value.get(claim) {
            None if missing.is_empty() => {}
            None => return Err(TokenError::Malformed(missing)),
            Some(at) if at.is_number() => {}
            Some(_) => return Err(TokenError::Malformed(wrong)),
        }
    }
    let claims: Claims =
        serde_json::from_value(value).map_err(|_| TokenError::Malformed("a claim has the wrong type"))?;
    if claims.iss.is_empty() {
        return Err(TokenError::Malformed("iss is missing"));
    }
    if claims.iss != api_key {
        return Err(TokenError::Issuer);
    }
    if claims.exp.saturating_add(LEEWAY_SECONDS) < now {
        return Err(TokenError::Expired(now - claims.exp));
    }
    if let Some(nbf) = claims.nbf.filter(|nbf| *nbf > now.saturating_add(LEEWAY_SECONDS)) {
        return Err(TokenError::NotYetValid(nbf - now));
    }
    Ok(claims)
}

impl Claims {
    /// May the bearer join the room that the grant names?
    pub fn require_join(&self) -> Result<(), TokenError> {
        if !self.video.room_join {
            return Err(TokenError::NotPermitted("the video grant has no roomJoin"));
        }
        if self.video.room.is_empty() {
            return Err(TokenError::NotPermitted("the video grant names no room"));
        }
        if self.sub.is_empty() {
            return Err(TokenError::Identity("sub is empty"));
        }
        if self.sub.len() > MAX_IDENTITY_BYTES {
            return Err(TokenError::Identity("sub is longer than 128 bytes"));
        }
        if self.sub.chars().any(char::is_control) {
            return Err(TokenError::Identity("sub has control characters"));
        }
        Ok(())
    }

    /// As [`Claims::require_join`], and for this room: a token for a meeting is good for the
    /// meeting's breakout rooms only where it names them.
    pub fn require_room(&self, room: &str) -> Result<(), TokenError> {
        self.require_join()?;
        if self.video.room != room {
            return Err(TokenError::WrongRoom);
        }
        Ok(())
    }
}

fn require_strong(secret: &str) -> Result<(), TokenError> {
    if secret.len() < MIN_SECRET_BYTES {
        Err(TokenError::WeakSecret)
    } else {
        Ok(())
    }
}

/// Refuses all but `alg: HS256` before any key is looked up.
fn require_hs256(token: &str) -> Result<(), TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed("the token is longer than 16 KiB"));
    }
    let header = jsonwebtoken::decode_header(token)
        .map_err(|_| TokenError::Malformed("the header is not that of a signed JWT"))?;
    if header.alg != Algorithm::HS256 {
        return Err(TokenError::Malformed("the algorithm is not HS256"));
    }
    Ok(())
}
