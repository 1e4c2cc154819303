//! The front door over real sockets, before a double of the rooms.

// A helper that unwraps is a test that fails; clippy only knows that of `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod double;
mod endings;
mod joining;
mod limits;
mod refusals;
mod whip;
mod whip_refusals;
