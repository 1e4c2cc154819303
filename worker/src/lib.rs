//! The media worker: rooms, sessions and packet forwarding behind one UDP port.
pub mod control;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod meeting;
mod net;
pub mod quality;
pub mod room;
pub mod session;
pub mod signal;
