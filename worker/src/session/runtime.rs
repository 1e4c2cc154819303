//! The start of the engine.
//!
//! Owns how its shards are put together: threads that share the media port and a certificate, and nothing
//! else on a packet's way. Invariant: either all of them run or none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::api::Event;
use super::dtls::Identity;
use super::engine::Engine;
use super::exchange::{Exchange, Neighbour, Place};
use super::front::{Entrance, Input, MediaHandle};
use super::ice;
use super::shard::Worker;
use crate::forward::audio::select::SpeakerPolicy;
use crate::forward::drops::DropCounters;
use crate::net::steering::Steering;
use crate::net::tcp::{self, Accepted, TcpPort};
use crate::net::{Shard, UdpPort};

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct MediaConfig {
    /// Where to listen.
    pub udp: SocketAddr,
    /// Candidates written into descriptions; empty: the bound address, or where that is unspecified the
    /// addresses of this machine's interfaces.
    pub advertise: Vec<SocketAddr>,
    /// Accept ICE-TCP on the same port.
    pub tcp: bool,
    /// Sessions beyond this are refused.
    pub max_sessions: usize,
    /// Whom large rooms hear.
    pub speakers: SpeakerPolicy,
    /// Threads, each with a share of the meetings; at least one, at most [`MAX_THREADS`]. Where the system
    /// can't share a port, one.
    pub threads: usize,
    /// Have the kernel lead datagrams to their threads, which otherwise hand over what isn't theirs.
    pub steering: bool,
}

/// The most threads there may be.
pub const MAX_THREADS: usize = Shard::MOST;

impl Default for MediaConfig {
    fn default() -> Self {
        MediaConfig {
            udp: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            advertise: Vec::new(),
            tcp: false,
            max_sessions: 10_000,
            speakers: SpeakerPolicy::default(),
            threads: 1,
            steering: true,
        }
    }
}

/// Why the engine can't start.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The port can't be had.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// where
        address: SocketAddr,
        /// why
        source: io::Error,
    },
    /// The certificate can't be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(String),
    /// The thread can't be made.
    #[error("cannot start the media thread: {0}")]
    Thread(io::Error),
}

/// Starts an engine on threads of its own.
pub fn start(
    config: MediaConfig,
) -> Result<(MediaHandle, mpsc::UnboundedReceiver<Event>, SocketAddr), MediaError> {
    let identity = Identity::generate().map_err(|e| MediaError::Certificate(e.to_string()))?;
    let bind = |source| MediaError::Bind {
        address: config.udp,
        source,
    };
    let sockets = crate::net::bind_shared(config.udp, config.threads.clamp(1, MAX_THREADS)).map_err(bind)?;
    let local = match sockets.first() {
        Some(socket) => socket.local_addr().map_err(bind)?,
        None => config.udp,
    };
    let steering = if config.steering {
        Steering::start(&sockets).map_err(MediaError::Thread)?
    } else {
        None
    };
    let (events_out, events) = mpsc::unbounded_channel();
    let of = sockets.len();
    let (mut entrances, mut ends, mut neighbours) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..of {
        let (input, inputs) = mpsc::unbounded_channel();
        let (neighbour, inbox) = Neighbour::new(&input);
        neighbours.push(neighbour);
        ends.push((inputs, inbox));
        entrances.push(Entrance {
            input,
            drops: Arc::new(DropCounters::default()),
            handed_over: Arc::new(AtomicU64::new(0)),
        });
    }
    let mut workers: Vec<(Runtime, Worker)> = Vec::new();
    let parts = sockets.into_iter().zip(ends).zip(&entrances);
    for (shard, ((socket, (input, inbox)), entrance)) in Shard::all(of).zip(parts) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(MediaError::Thread)?;
        let port = {
            let _context = runtime.enter();
            UdpPort::new(socket).map_err(bind)?
        };
        let drops = Arc::clone(&entrance.drops);
        let place = Place { shard, of };
        let mut engine = Engine::new(identity.clone(), place, Arc::clone(&drops), Instant::now());
        engine.forwarder.set_speakers(config.speakers);
        let udp = candidates(&config.advertise, local);
        engine.set_candidates(udp.clone(), if config.tcp { udp } else { Vec::new() });
        let exchange = Exchange::new(
            shard,
            neighbours.clone(),
            steering.clone(),
            Arc::clone(&drops),
            Arc::clone(&entrance.handed_over),
        );
        let worker = Worker {
            engine,
            port,
            tcp: TcpPort::new(),
            input,
            inbox,
            exchange,
            events: events_out.clone(),
            local,
            accepts: config.tcp,
            drops,
        };
        workers.push((runtime, worker));
    }
    if config.tcp
        && let Some((runtime, _)) = workers.first()
    {
        let _context = runtime.enter();
        let listener = tcp::listen(local).map_err(bind)?;
        runtime.spawn(tcp::accept(listener, Arc::new(move |c| assign(c, &neighbours))));
    }
    for (runtime, worker) in workers {
        std::thread::Builder::new()
            .name("media".to_owned())
            .spawn(move || runtime.block_on(worker.run()))
            .map_err(MediaError::Thread)?;
    }
    Ok((MediaHandle::new(entrances, config.max_sessions), events, local))
}

/// Gives a connection to the shard that its first check is for; what isn't one, to the first, which says so.
fn assign(connection: Accepted, shards: &[Neighbour]) {
    let named = ice::read(connection.first())
        .ok()
        .and_then(|request| ice::shard_of(&request.local_ufrag));
    let shard = named.filter(|s| s.index() < shards.len()).unwrap_or_default();
    if let Some(to) = shards.get(shard.index()) {
        to.tell(Input::Connection(connection));
    }
}

/// What to write into descriptions.
pub(super) fn candidates(advertise: &[SocketAddr], local: SocketAddr) -> Vec<SocketAddr> {
    if !advertise.is_empty() {
        return advertise.to_vec();
    }
    if !local.ip().is_unspecified() {
        return vec![local];
    }
    let mut found: Vec<SocketAddr> = interface_addresses(local)
        .into_iter()
        .map(|ip| SocketAddr::new(ip, local.port()))
        .collect();
    if found.is_empty() {
        found.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), local.port()));
    }
    found
}

/// The address this machine would use towards the world. A connected UDP socket tells without a packet.
fn interface_addresses(local: SocketAddr) -> Vec<IpAddr> {
    let targets: &[(&str, &str)] = if local.is_ipv4() {
        &[("0.0.0.0:0", "192.0.2.1:9")]
    } else {
        &[("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")]
    };
    let mut found = Vec::new();
    for (bind, target) in targets {
        let probe = std::net::UdpSocket::bind(bind).and_then(|s| {
            s.connect(target)?;
            s.local_addr()
        });
        if let Ok(address) = probe
            && !address.ip().is_unspecified()
            && !found.contains(&address.ip())
        {
            found.push(address.ip());
        }
    }
    found
}
