//! LiveKit access tokens: what they say, what the roles of a meeting mean, signing and checking.
//!
//! Owns the claims ([`Claims`], [`VideoGrant`]), the roles ([`Role`]) and the only code that signs
//! or verifies. Pure but for the key: time comes in as Unix seconds. Invariants: HS256 and nothing
//! else; no claim is believed before the signature was checked, but for choosing the key
//! ([`peek`]); a key shorter than [`MIN_SECRET_BYTES`] signs and verifies nothing; neither a token
//! nor a secret appears in an error, a log line or a `Debug` output.

mod claims;
mod role;
mod verify;

pub use claims::{Claims, PlenumClaim, VideoGrant};
pub use role::Role;
pub use verify::{LEEWAY_SECONDS, MAX_TOKEN_BYTES, MIN_SECRET_BYTES, Peeked, TokenError, peek, sign, verify};

#[cfg(test)]
mod corpus;
