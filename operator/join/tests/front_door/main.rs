//! The front door over real sockets, before a double of the rooms.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test, also in a helper"
)]

mod double;
mod endings;
mod joining;
mod limits;
mod refusals;
mod whip;
mod whip_refusals;
