//! The media worker: rooms, sessions and packet forwarding behind one UDP port.
pub mod session;
