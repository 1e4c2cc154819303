//! The front door for LiveKit clients: `/rtc`, `/rtc/v1` and their `validate` twins.
//!
//! Owns the WebSocket, the join request in both protocol versions, the token check and the relay to
//! a room. Knows neither Kubernetes nor media: who holds the room is behind [`Rooms`], which the
//! gateway implements over gRPC and `plenum-worker dev` in process.

use plenum_errors::PublicError;
use plenum_worker_api::v1::{ClientFrame, Start, WorkerFrame};
use tokio::sync::mpsc;

/// Where rooms are found and entered.
#[async_trait::async_trait]
pub trait Rooms: Send + Sync + 'static {
    /// The API secret of `api_key` for tokens of `room`, or `None` where no such key is known.
    async fn api_secret(&self, api_key: &str, room: &str) -> Option<String>;
    /// Can this client join now? Everything `enter` would refuse is refused here with its code.
    async fn check(&self, start: &Start) -> Result<(), PublicError>;
    /// Opens a session; the first client frame (`start`) is sent by the implementation.
    async fn enter(&self, start: Start) -> Result<Session, PublicError>;
}

/// One client's session with the worker that holds its room.
pub struct Session {
    /// To the worker. Dropping it without a Hangup means the socket is gone and may resume.
    pub to_worker: mpsc::Sender<ClientFrame>,
    /// From the worker; ends after a Closed frame, or without one where the worker was lost.
    pub from_worker: mpsc::Receiver<WorkerFrame>,
}
