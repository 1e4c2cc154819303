//! The front door: for LiveKit clients `/rtc`, `/rtc/v1` and their `validate` twins, for encoders and
//! players `/whip` and `/whep`.
//!
//! Owns the WebSocket, the join request in both protocol versions, the token check and the relay to
//! a room, and what speaks for clients that have no signalling ([`whip`]). Knows neither Kubernetes nor media: who holds the room is behind [`Rooms`], which the
//! gateway implements over gRPC and `plenum-worker dev` in process. Invariants: nothing reaches a
//! room before its token was checked; every refusal has a catalogue code; a token is never logged
//! nor repeated in an answer; what a client sends is bounded in size and rate.

mod admit;
mod origin;
mod rate;
mod refusal;
mod relay;
mod request;
mod serve;
mod whip;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use plenum_errors::PublicError;
use plenum_worker_api::v1::{ClientFrame, Closed, Start, WorkerFrame};
use tokio::sync::{mpsc, watch};

pub use origin::{Network, NotANetwork, remote_address};
pub use rate::Bucket;
pub use refusal::{refuse, text_of};
pub use relay::{is_leave, is_room_moved};
pub use serve::{ServeLimits, serve};

/// The largest signal message, in either direction, and the largest join request after inflation.
pub const MAX_MESSAGE_BYTES: usize = 512 * 1024;

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
    /// The room that was entered. Where it isn't the one that the token names, the client is given a
    /// token for it.
    pub room: String,
    /// What whoever opened the session asks of the front door; closed where it never asks anything.
    pub orders: mpsc::Receiver<Order>,
}

impl Session {
    /// A session between the client and one worker, with nobody in between.
    pub fn new(
        room: impl Into<String>,
        to_worker: mpsc::Sender<ClientFrame>,
        from_worker: mpsc::Receiver<WorkerFrame>,
    ) -> Session {
        Session {
            to_worker,
            from_worker,
            room: room.into(),
            orders: mpsc::channel(1).1,
        }
    }
}

/// What a session asks of the front door. Either ends the session, after the frames before it.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// The client goes on in another room, which this session does not lead to: it is given a token
    /// for that room and told to come again.
    Elsewhere {
        /// The other room.
        room: String,
        /// It may keep its peer connection, where its version of the protocol can.
        may_resume: bool,
    },
    /// The session is over, as if the worker had said so.
    Close(Closed),
}

/// Which way a signal message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Client to worker.
    Up,
    /// Worker to client.
    Down,
}

/// What the front door tells whoever keeps the metrics. Every method may be left out.
pub trait Observer: Send + Sync + 'static {
    /// A join attempt ended: `outcome` is `ok` or a catalogue code.
    fn joined(&self, outcome: &str, took: Duration) {
        let _ = (outcome, took);
    }
    /// A client's WebSocket opened (`1`) or closed (`-1`).
    fn connected(&self, delta: i64) {
        let _ = delta;
    }
    /// A WHIP or WHEP session begins (`1`) or ends (`-1`) here. `protocol` is `whip` or `whep`.
    fn http_session(&self, protocol: &'static str, delta: i64) {
        let _ = (protocol, delta);
    }
    /// A WHIP or WHEP request was answered: `outcome` is `ok` or a catalogue code.
    fn http_request(&self, protocol: &'static str, method: &'static str, outcome: &str) {
        let _ = (protocol, method, outcome);
    }
    /// A signal message of `bytes` was relayed.
    fn message(&self, direction: Direction, bytes: usize) {
        let _ = (direction, bytes);
    }
}

struct NoObserver;
impl Observer for NoObserver {}

/// How the front door behaves.
#[derive(Clone)]
pub struct JoinConfig {
    /// Origins of web pages that may connect: `https://meet.example.com`, or `*` for all. The
    /// token carries the authority and there are no cookies, so `*` is the default, as LiveKit has
    /// it. A page of the same host and a client without an Origin may always connect.
    pub allowed_origins: Vec<String>,
    /// Proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<Network>,
    /// Signal messages a client may send per second, in the long run.
    pub messages_per_second: u32,
    /// Signal messages a client may send at once.
    pub message_burst: u32,
    /// Open WebSockets beyond which new ones are refused.
    pub max_sessions: usize,
    /// How often a live session is given a fresh token.
    pub refresh_every: Duration,
    /// How long a fresh token is good for.
    pub refresh_ttl: Duration,
    /// A client that sent nothing, not even a pong, for this long is gone.
    pub idle_timeout: Duration,
    /// Becomes true when the process shuts down: clients are told to resume elsewhere.
    pub shutdown: Option<watch::Receiver<bool>>,
    /// Where the figures go.
    pub observer: Arc<dyn Observer>,
}

impl Default for JoinConfig {
    fn default() -> Self {
        JoinConfig {
            allowed_origins: vec!["*".to_owned()],
            trusted_proxies: Vec::new(),
            messages_per_second: 100,
            message_burst: 300,
            max_sessions: 20_000,
            refresh_every: Duration::from_secs(5 * 60),
            refresh_ttl: Duration::from_secs(10 * 60),
            idle_timeout: Duration::from_secs(60),
            shutdown: None,
            observer: Arc::new(NoObserver),
        }
    }
}

/// The routes of the front door.
pub fn router<R: Rooms>(rooms: Arc<R>, config: JoinConfig) -> Router {
    admit::router(rooms, config)
}
