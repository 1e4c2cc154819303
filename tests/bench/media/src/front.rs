//! The door of a server, whatever it speaks.
//!
//! Owns the interface between the sweep and a signalling protocol: one implementation per protocol.

use tokio::task::JoinHandle;

use crate::error::BenchError;
use crate::link::Link;

/// What a client is there for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// To send one video track.
    Publisher { ssrc: u32 },
    /// To receive whatever there is.
    Subscriber,
    /// To send and to receive.
    Member(Sending),
}

/// What a member of a meeting sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// One microphone.
    Voice { ssrc: u32 },
    /// One camera in three layers; wants the lowest of everybody else's.
    Camera,
}

/// A client at the door.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) room: String,
    pub(crate) identity: String,
    pub(crate) part: Part,
}

/// A client that is in. Dropped: its signalling ends.
#[derive(Debug)]
pub(crate) struct Seat {
    task: JoinHandle<()>,
}

impl Seat {
    pub(crate) fn new(task: JoinHandle<()>) -> Seat {
        Seat { task }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A signalling protocol.
#[async_trait::async_trait]
pub(crate) trait Front: Send + Sync {
    /// The name of the section on which a publisher's track is.
    fn publisher_mid(&self) -> String;

    /// Brings a client in. Returns when its transport is connected and its track, or the track it
    /// subscribes to, is negotiated.
    async fn enter(&self, guest: Guest, link: Link) -> Result<Seat, BenchError>;
}
