//! A whole server in one process.
//!
//! Owns dev mode: the front door and the rooms without a gateway between them, well-known keys, rooms
//! that exist from their first join on. For developers, tests and benchmarks: the keys are public, so
//! it must never face a network one does not trust.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use plenum_errors::PublicError;
use plenum_worker_api::v1::Start;
use tokio::sync::mpsc;

use super::engine;
use super::serve::{RunError, Termination, listen};
use crate::quality::Metrics;
use crate::quality::http::{self, Health};
use crate::session::{MediaConfig, SpeakerPolicy};
use crate::signal::{Hub, HubConfig, HubHandle};

/// The API key of dev mode.
pub const DEV_KEY: &str = "devkey";
/// Its secret. Public, and as long as HS256 asks for.
pub const DEV_SECRET: &str = "devsecret-devsecret-devsecret-0000";
/// Client frames between the socket and the hub.
const WAITING_FRAMES: usize = 64;

/// What dev mode is told.
#[derive(Debug, Clone)]
pub struct DevConfig {
    /// HTTP: `/rtc`, health and metrics.
    pub listen: SocketAddr,
    /// UDP and TCP.
    pub media_listen: SocketAddr,
    /// What clients are told; empty = this machine's addresses.
    pub advertise: Vec<SocketAddr>,
    /// Whom large rooms hear.
    pub speakers: SpeakerPolicy,
    /// Sessions beyond which media refuses.
    pub max_sessions: usize,
    /// See [`MediaConfig::threads`].
    pub media_threads: usize,
    /// API key and secret.
    pub key: String,
    /// Its secret.
    pub secret: String,
}

/// The rooms of this process, for the front door.
pub struct LocalRooms {
    hub: HubHandle,
    key: String,
    secret: String,
}

impl LocalRooms {
    /// Rooms behind `hub`, with one key.
    pub fn new(hub: HubHandle, key: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            hub,
            key: key.into(),
            secret: secret.into(),
        }
    }
}

#[async_trait::async_trait]
impl plenum_join::Rooms for LocalRooms {
    async fn api_secret(&self, api_key: &str, _room: &str) -> Option<String> {
        (api_key == self.key).then(|| self.secret.clone())
    }

    async fn check(&self, start: &Start) -> Result<(), PublicError> {
        self.hub.check(start.clone()).await
    }

    async fn enter(&self, start: Start) -> Result<plenum_join::Session, PublicError> {
        let room = start.room.clone();
        let session = self.hub.enter(start, 1).await?;
        let (to_worker, mut frames) = mpsc::channel(WAITING_FRAMES);
        let (hub, connection) = (self.hub.clone(), session.connection);
        tokio::spawn(async move {
            while let Some(frame) = frames.recv().await {
                hub.frame(connection, frame).await;
            }
            hub.disconnected(connection).await;
        });
        Ok(plenum_join::Session::new(room, to_worker, session.frames))
    }
}

/// Loopback, and the address that packets to the world would leave from.
fn local_addresses(port: u16) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    // Nothing is sent: connecting a UDP socket only asks the routing table.
    let outward = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).map(|()| socket))
        .and_then(|socket| socket.local_addr());
    if let Ok(outward) = outward
        && !outward.ip().is_loopback()
        && !outward.ip().is_unspecified()
    {
        addresses.push(SocketAddr::new(outward.ip(), port));
    }
    addresses.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    addresses
}

/// Runs until told to stop.
pub async fn run(config: DevConfig) -> Result<(), RunError> {
    let mut termination = Termination::new()?;
    let listener = listen(config.listen).await?;
    let metrics = Arc::new(Metrics::new("dev", Some(100))?);
    let health = Arc::new(Health::default());
    let engine = engine::start(MediaConfig {
        udp: config.media_listen,
        advertise: config.advertise.clone(),
        tcp: true,
        max_sessions: config.max_sessions,
        speakers: config.speakers,
        threads: config.media_threads,
        ..MediaConfig::default()
    })?;
    let advertise = if config.advertise.is_empty() {
        local_addresses(engine.address.port())
    } else {
        config.advertise.clone()
    };
    tracing::info!(http = %config.listen, media = %engine.address, ?advertise, key = config.key, "dev server started");
    (engine.set_advertise)(advertise);
    let hub_config = HubConfig {
        rooms_on_demand: true,
        max_sessions: Some(config.max_sessions),
        ..HubConfig::default()
    };
    let (hub, handle) = Hub::new(hub_config, engine.port, engine.events, Arc::clone(&metrics));
    let hub = tokio::spawn(hub.run());
    let rooms = LocalRooms::new(handle.clone(), config.key, config.secret);
    let router = plenum_join::router(Arc::new(rooms), plenum_join::JoinConfig::default())
        .merge(http::router(metrics, Arc::clone(&health)));
    health.set_ready(true);
    let stop = async move {
        termination.received().await;
        handle.shutdown().await;
    };
    plenum_join::serve(listener, router, plenum_join::ServeLimits::default(), stop).await?;
    hub.abort();
    Ok(())
}
