//! The media worker: rooms, sessions and packet forwarding behind one UDP port.
pub mod control;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod forward;
pub mod meeting;
mod net;
pub mod quality;
pub mod room;
pub mod session;
pub mod signal;
