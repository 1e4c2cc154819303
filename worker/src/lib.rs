//! The media worker: rooms, sessions and packet forwarding behind one UDP port.
mod forward;
mod net;
pub mod session;
