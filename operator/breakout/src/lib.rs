//! Breakout rooms: what the objects and the hosts' decisions amount to, and who goes where.
//!
//! Owns the rules of `docs/breakouts.md` as pure functions of objects and time. Invariants: no I/O,
//! no clock, randomness only from a seed that the caller gives; nobody's spec is written; of two
//! decisions about the same thing the newest stands. Times are Unix milliseconds of the server's
//! clock, rooms are known by the names of their objects, and `None` as a room is the main room.

mod assign;
mod decide;
mod mover;
mod plan;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod world;

pub use assign::{Person, Space, Spread, spread};
pub use decide::{Actor, Decision, Present, RoomDraft, Scene, auto_assign, decide, pruned};
pub use mover::{Input, Mover, Output};
pub use plan::{Effective, Plan, PlannedRoom, Wish, effective};
