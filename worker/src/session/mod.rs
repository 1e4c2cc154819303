//! One peer: SDP, ICE, DTLS, SCTP. See [`api`] for what goes in and out, [`start`] for how it runs.
//!
//! Owns the media engine: a thread of its own with one UDP port for all peers. Invariants: the thread
//! reads the clock once per turn; commands take effect in the order they were sent; the engine ends when
//! the last [`MediaHandle`] is gone.

pub mod api;
mod client;
mod codecs;
mod data;
pub(crate) mod dtls;
pub(crate) mod engine;
mod flight;
mod handover;
pub(crate) mod ice;
mod leg;
mod negotiation;
mod once;
mod peer;
mod runtime;
pub(crate) mod sdp;
mod sections;
mod write;

pub use self::runtime::{MediaConfig, MediaError, MediaHandle, start};
pub use crate::forward::audio::select::SpeakerPolicy;
pub use crate::forward::drops::DropCounters;
