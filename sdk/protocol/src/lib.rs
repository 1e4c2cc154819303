//! What Plenum and its clients say to each other beyond the LiveKit protocol.
//!
//! Owns the types of the reserved data topic: [`Request`] from a client, [`Answer`] to it,
//! [`Notice`] to one client, [`Entry`] (a numbered [`Signal`]) to a meeting. All are JSON objects in
//! a LiveKit `UserPacket` on the reliable channel with topic [`TOPIC`]; `docs/signals.md` describes
//! them for people and `sdk/src/protocol.ts` types them for web developers; the examples of
//! `fixtures.json` hold the three together. Invariants: within `plenum.v1` fields and kinds are only
//! added; a receiver ignores what it does not know; times are Unix milliseconds of the server's clock.

mod request;
mod signal;

#[cfg(test)]
mod fixtures;

pub use request::{Access, Answer, Command, Created, Failure, How, NewRoom, Placement, Request, Sessions};
pub use signal::{
    Asking, Audience, BreakoutMessage, Entry, Me, Notice, Occupant, Occupied, Overview, RoomView, Signal,
    Standing, State,
};

/// The reserved topic. Packets on it, and on any topic that begins with `plenum.`, are never passed
/// on to other participants as they are.
pub const TOPIC: &str = "plenum.v1";

/// How topics that are ours begin.
pub const RESERVED: &str = "plenum.";

/// The attribute that tells participants of each other's role: `host`, `cohost`, `participant` or
/// `viewer`. Set by the server; what a client writes there is replaced.
pub const ROLE_ATTRIBUTE: &str = "plenum.role";

/// Limits of what a client may ask for.
pub mod limits {
    /// Breakout rooms of a meeting.
    pub const ROOMS: usize = 200;
    /// Bytes of a broadcast or of a message to the hosts.
    pub const TEXT: usize = 4_000;
    /// Characters of a room's title.
    pub const TITLE: usize = 200;
    /// Shortest and longest countdown before rooms close, in seconds. 0 is allowed too: at once.
    pub const COUNTDOWN: std::ops::RangeInclusive<u32> = 10..=120;
    /// Rooms that one host speaks into at once: each is a connection of their browser.
    pub const SPEAK: usize = 25;
    /// Seconds between a notice and the move.
    pub const MOVE_NOTICE: u32 = 5;
}

/// How breakout rooms are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// People are spread over the rooms.
    Automatic,
    /// Each chooses.
    SelfSelect,
    /// Hosts (or the objects) say who goes where.
    #[default]
    Manual,
}
