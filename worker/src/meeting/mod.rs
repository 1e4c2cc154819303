//! The hub: what a whole meeting is told, in one order.
//!
//! The worker that holds a meeting's main room is its hub. Gateways attach to it, one stream each, and
//! pass on to their clients what it numbers, whatever room and worker those are in.
//!
//! Owns the numbers and the memory of a meeting's signals ([`journal`]), what stands (hands and help,
//! [`standing`]), who is where by which connection ([`directory`]), what is said about the breakout
//! rooms ([`breakouts`]), all of it for one meeting ([`state`]: pure, in virtual time), and the task
//! and streams for all meetings of the worker ([`actor`]). Invariants: numbers rise and are never given
//! twice, also from one hub to the next (see [`journal`]); what one gateway was given as an entry, the
//! next hub has, if that gateway attaches to it; a gateway that is slow costs itself its stream and
//! nobody else anything; nothing a gateway sends can panic.

mod actor;
mod breakouts;
mod directory;
mod journal;
mod standing;
mod state;
mod stats;

#[cfg(test)]
mod tests;

pub use actor::{Attached, Meetings, MeetingsHandle};

/// One gateway's stream to one meeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayId(u64);
