//! What can go wrong while measuring.
//!
//! Owns the one error type. A number never is an error: only a call, a process or a system call that fails.

use std::net::SocketAddr;

/// A failed benchmark.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{server} did not listen on {address} in time; its log ends with:\n{log}")]
    NotListening {
        server: String,
        address: SocketAddr,
        log: String,
    },
    #[error("{server} ended; its log ends with:\n{log}")]
    Ended { server: String, log: String },
    #[error("the access token: {0}")]
    Token(#[from] plenum_token::TokenError),
    #[error("the WebSocket of {identity}: {source}")]
    Socket {
        identity: String,
        #[source]
        source: Box<tokio_tungstenite::tungstenite::Error>,
    },
    #[error("{identity} was turned away: {reason}")]
    TurnedAway { identity: String, reason: String },
    #[error("{identity} waited in vain for {what}")]
    TimedOut { identity: String, what: &'static str },
    #[error("the answer to {identity} has no {what}")]
    Answer { identity: String, what: &'static str },
    #[error("{what} of the transport: {source}")]
    Transport {
        what: &'static str,
        #[source]
        source: rtc::shared::error::Error,
    },
    #[error("{receiving} of {of} subscribers receive; the others got nothing in time")]
    Silent { receiving: usize, of: usize },
    #[error("a thread of the load generator ended")]
    GeneratorEnded,
    #[error("{what} is not given")]
    Missing { what: &'static str },
    #[error("/proc: {0}")]
    Proc(String),
    #[error("the cipher refused")]
    Cipher,
}

impl BenchError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> BenchError {
        move |source| BenchError::Io { what, source }
    }

    pub(crate) fn transport(what: &'static str) -> impl FnOnce(rtc::shared::error::Error) -> BenchError {
        move |source| BenchError::Transport { what, source }
    }
}
