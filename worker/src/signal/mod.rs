//! LiveKit's signalling, from the frames of a gateway to the rules of a room and back.
//!
//! Owns the translation of requests ([`request`]) and responses ([`response`]), the client at the
//! door ([`start`]), the connection of each client with what may have to be said again ([`outbound`]), what is said to
//! whoever speaks for the client (`aside`),
//! and the one task that drives all rooms ([`hub`]). Invariants: rooms see only requests that were
//! decoded and within limits; a client that breaks the protocol loses its own session and nobody
//! else's; a slow client never makes the hub wait; a room whose logic panics is closed, the others
//! go on.

pub mod hub;
pub mod outbound;
pub mod request;
pub mod response;
pub mod start;

mod aside;
mod desk;

#[cfg(test)]
mod tests;

pub use hub::{Hub, HubConfig, HubHandle, MediaPort, Session, Snapshot};

/// What one signalling connection may do.
pub mod limits {
    /// Bytes of one message.
    pub const MESSAGE_BYTES: usize = 512 * 1024;
    /// Messages a second, in the long run.
    pub const MESSAGES_PER_SECOND: f64 = 200.0;
    /// Messages at once.
    pub const MESSAGE_BURST: f64 = 500.0;
    /// Frames waiting for a slow client before its connection is cut; it may resume.
    pub const OUTBOUND_FRAMES: usize = 1024;
    /// Frames kept for a client that resumes.
    pub const REPLAY_FRAMES: usize = 256;
    /// Their bytes.
    pub const REPLAY_BYTES: usize = 512 * 1024;
}
