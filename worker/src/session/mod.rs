//! One peer: SDP, ICE, DTLS, SCTP. See [`api`] for what goes in and out, [`start`] for how it runs.
//!
//! Owns the media engine: threads of its own, the shards, with one UDP port for all peers. A shard serves
//! whole meetings. Invariants: a thread reads the clock once per turn; commands of a session take effect in
//! the order they were sent; the engine ends when the last [`MediaHandle`] is gone, or a thread panics.

pub mod api;
mod arrivals;
mod client;
mod codecs;
mod data;
pub(crate) mod dtls;
pub(crate) mod engine;
pub(crate) mod exchange;
mod flight;
mod front;
mod handover;
pub(crate) mod ice;
mod leg;
mod negotiation;
mod once;
mod peer;
mod placement;
mod routes;
mod runtime;
pub(crate) mod sdp;
mod sections;
mod shard;
mod write;

pub use self::front::{MediaHandle, ShardLoad};
pub use self::runtime::{MAX_THREADS, MediaConfig, MediaError, start};
pub use crate::forward::audio::select::SpeakerPolicy;
pub use crate::forward::drops::DropCounters;
