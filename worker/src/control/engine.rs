//! The media engine as the hub wants it.
//!
//! Owns the start of the engine and the adapter between its handle and [`MediaPort`].

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::service::SetAdvertise;
use crate::session::api::{Command, Event};
use crate::session::{MediaConfig, MediaError, MediaHandle, ShardLoad};
use crate::signal::MediaPort;

impl MediaPort for MediaHandle {
    fn send(&self, command: Command) {
        MediaHandle::send(self, command);
    }

    fn dropped(&self) -> Vec<(&'static str, u64)> {
        self.drops().read().to_vec()
    }

    fn loads(&self) -> Vec<ShardLoad> {
        MediaHandle::loads(self)
    }
}

/// A running engine.
pub struct Engine {
    /// For the hub.
    pub port: MediaHandle,
    /// For the hub.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Changes what clients are told.
    pub set_advertise: SetAdvertise,
}

/// Starts it.
pub fn start(config: MediaConfig) -> Result<Engine, MediaError> {
    let (port, events, address) = crate::session::start(config)?;
    let handle = port.clone();
    let set_advertise: SetAdvertise = Arc::new(move |addresses| handle.set_advertise(addresses));
    Ok(Engine {
        port,
        events,
        address,
        set_advertise,
    })
}
