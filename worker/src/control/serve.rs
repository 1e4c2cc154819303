//! A worker in a pod.
//!
//! Owns the order of start and stop. Start: media, hub, health, control port; ready only once the
//! controller has said how clients reach the pod. Stop (SIGTERM): unready, no new rooms, a wait for
//! the controller to move what is here, then a goodbye that makes the rest connect elsewhere. Invariant:
//! an open call, as every Watch is, never holds up the end of the process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plenum_worker_api::v1::{control_server::ControlServer, signal_server::SignalServer};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::report::Fixed;
use super::service::Services;
use super::{engine, tls};
use crate::meeting::{Meetings, MeetingsHandle};
use crate::quality::Metrics;
use crate::quality::http::{self, Health};
use crate::session::{MediaConfig, SpeakerPolicy};
use crate::signal::{Hub, HubConfig, HubHandle};

/// The largest gRPC message: a gateway's memory of a meeting (1 MiB of signals, each in an envelope), or
/// the spec of a main room with many breakout rooms.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Calls of one connection beside its sessions: Watch, Check, lists, moderation.
const CALLS_BESIDE_SESSIONS: usize = 64;
/// How long connections of controller and gateways may take to close after the goodbyes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What a pod is told by its arguments.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// gRPC.
    pub control_listen: SocketAddr,
    /// Health and metrics.
    pub metrics_listen: SocketAddr,
    /// UDP and TCP.
    pub media_listen: SocketAddr,
    /// `tls.crt`, `tls.key`, `ca.crt`.
    pub tls_directory: PathBuf,
    /// Of the pod.
    pub worker_uid: String,
    /// The pod's pool, `NAMESPACE/NAME`: a label of every metric.
    pub pool: String,
    /// Told to clients.
    pub region: String,
    /// Whom large rooms hear.
    pub speakers: SpeakerPolicy,
    /// Sessions beyond which media refuses.
    pub max_sessions: usize,
    /// See [`MediaConfig::threads`].
    pub media_threads: usize,
    /// Series per room, for that many rooms.
    pub room_metrics: Option<usize>,
    /// How long SIGTERM waits for the rooms to be moved.
    pub shutdown_grace: Duration,
}

/// Why a worker did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A socket.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Media.
    #[error("media: {0}")]
    Media(#[from] crate::session::MediaError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The gRPC server.
    #[error("control port: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// The metrics could not be set up.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The HTTP server.
    #[error("http: {0}")]
    Http(#[from] std::io::Error),
    /// Signals of the system.
    #[error("a task ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Binds a TCP port.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })
}

/// Runs until told to stop.
pub async fn run(config: ServeConfig) -> Result<(), RunError> {
    // First of all: process 1 of a container ignores a signal that it has no handler for.
    let termination = Termination::new()?;
    let tls_config = tls::load(&config.tls_directory)?;
    let control = listen(config.control_listen).await?;
    let metrics_listener = listen(config.metrics_listen).await?;
    let metrics = Arc::new(Metrics::new(&config.pool, config.room_metrics)?);
    let health = Arc::new(Health::default());
    let engine = engine::start(MediaConfig {
        udp: config.media_listen,
        advertise: Vec::new(),
        tcp: true,
        max_sessions: config.max_sessions,
        speakers: config.speakers,
        threads: config.media_threads,
        ..MediaConfig::default()
    })?;
    let hub_config = HubConfig {
        rooms_on_demand: false,
        max_sessions: Some(config.max_sessions),
        region: config.region.clone(),
        node_id: config.worker_uid.clone(),
    };
    let (hub, handle) = Hub::new(hub_config, engine.port, engine.events, Arc::clone(&metrics));
    let hub = tokio::spawn(hub.run());
    let (meetings, meetings_handle) = Meetings::new(&metrics)?;
    let meetings = tokio::spawn(meetings.run());
    let pages = http::router(metrics, Arc::clone(&health));
    tokio::spawn(async move {
        let never = std::future::pending();
        if let Err(error) = plenum_join::serve(
            metrics_listener,
            pages,
            plenum_join::ServeLimits::default(),
            never,
        )
        .await
        {
            tracing::error!(%error, "metrics port failed");
        }
    });

    let services = Services {
        hub: handle.clone(),
        meetings: meetings_handle.clone(),
        fixed: Fixed {
            worker_uid: config.worker_uid.clone(),
            media_port: engine.address.port(),
        },
        set_advertise: engine.set_advertise,
        health: Arc::clone(&health),
    };
    let (to, incoming) = mpsc::channel(16);
    tokio::spawn(tls::accept(control, config.tls_directory.clone(), tls_config, to));
    tracing::info!(control = %config.control_listen, media = %engine.address, "worker started");
    let (stopped, said_goodbye) = oneshot::channel();
    let stop = async move {
        stop(
            termination,
            handle,
            meetings_handle,
            health,
            config.shutdown_grace,
        )
        .await;
        let _ = stopped.send(());
    };
    let overdue = async {
        // Without the message the server has failed, and says so itself.
        if said_goodbye.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(CLOSE_PATIENCE).await;
    };
    let streams = config.max_sessions.saturating_add(CALLS_BESIDE_SESSIONS);
    let incoming = ReceiverStream::new(incoming);
    tokio::select! {
        served = server(services, incoming, streams, stop) => served?,
        () = overdue => {}
    }
    hub.abort();
    meetings.abort();
    tracing::info!("worker stopped");
    Ok(())
}

/// The gRPC server over connections whose handshake is done. `streams`: open calls of one connection.
pub async fn server<I, S>(
    services: Services,
    incoming: I,
    streams: usize,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error>
where
    I: tokio_stream::Stream<Item = std::io::Result<S>>,
    S: tokio::io::AsyncRead
        + tokio::io::AsyncWrite
        + tonic::transport::server::Connected
        + Unpin
        + Send
        + 'static,
{
    let control = ControlServer::new(services.clone()).max_decoding_message_size(MAX_MESSAGE);
    let signal = SignalServer::new(services).max_decoding_message_size(MAX_MESSAGE);
    tonic::transport::Server::builder()
        // Every client of a gateway is an open call: what a connection takes must not be less than what
        // the worker takes.
        .max_concurrent_streams(u32::try_from(streams).unwrap_or(u32::MAX))
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_service(control)
        .add_service(signal)
        .serve_with_incoming_shutdown(incoming, stop)
        .await
}

/// Completes when it is time to close the control port.
async fn stop(
    mut termination: Termination,
    hub: HubHandle,
    meetings: MeetingsHandle,
    health: Arc<Health>,
    grace: Duration,
) {
    termination.received().await;
    tracing::info!("stopping: waiting for rooms to be moved");
    health.stop();
    let _ = hub.set_draining(true).await;
    let mut snapshots = hub.snapshots();
    let empty = snapshots.wait_for(|snapshot| snapshot.participants == 0);
    tokio::select! {
        _ = empty => {}
        () = tokio::time::sleep(grace) => {}
        () = termination.received() => {}
    }
    hub.shutdown().await;
    meetings.close().await;
    // The goodbyes need a moment on the wire.
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// SIGTERM or SIGINT.
pub struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

impl Termination {
    /// From here on neither ends the process by itself.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
