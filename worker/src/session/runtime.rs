//! The thread that runs the engine.
//!
//! Owns socket, clock and channels; decides nothing. One turn: wait, take what is there (commands, then
//! batches of datagrams), run what is due, send everything, tell what happened.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use super::api::{Command, Event};
use super::dtls::Identity;
use super::engine::Engine;
use crate::forward::audio::select::SpeakerPolicy;
use crate::forward::drops::DropCounters;
use crate::net::tcp::{TcpInput, TcpPort};
use crate::net::{Route, UdpPort};

/// Commands taken in one turn.
const COMMANDS: usize = 256;
/// Frames of connections taken in one turn.
const FRAMES: usize = 128;
/// Seconds between the NTP and the Unix epoch.
const NTP_OFFSET: u64 = 2_208_988_800;

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
}

impl Default for MediaConfig {
    fn default() -> Self {
        MediaConfig {
            udp: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            advertise: Vec::new(),
            tcp: false,
            max_sessions: 10_000,
            speakers: SpeakerPolicy::default(),
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

enum Input {
    Command(Command),
    Advertise(Vec<SocketAddr>),
}

/// The way into a running engine.
#[derive(Clone)]
pub struct MediaHandle {
    input: mpsc::UnboundedSender<Input>,
    drops: Arc<DropCounters>,
}

impl std::fmt::Debug for MediaHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaHandle").finish_non_exhaustive()
    }
}

impl MediaHandle {
    /// Sends a command. Lost if the engine has ended, which only happens when it panicked.
    pub fn send(&self, command: Command) {
        let _ = self.input.send(Input::Command(command));
    }

    /// Candidates for descriptions from now on; empty as in [`MediaConfig::advertise`].
    pub fn set_advertise(&self, addresses: Vec<SocketAddr>) {
        let _ = self.input.send(Input::Advertise(addresses));
    }

    /// Packets that ended here, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }
}

/// Starts an engine on a thread of its own.
pub fn start(
    config: MediaConfig,
) -> Result<(MediaHandle, mpsc::UnboundedReceiver<Event>, SocketAddr), MediaError> {
    let identity = Identity::generate().map_err(|e| MediaError::Certificate(e.to_string()))?;
    let bind = |source| MediaError::Bind {
        address: config.udp,
        source,
    };
    let socket = crate::net::bind(config.udp).map_err(bind)?;
    let local = socket.local_addr().map_err(bind)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(MediaError::Thread)?;
    let (port, tcp) = {
        let _context = runtime.enter();
        let tcp = if config.tcp {
            Some(TcpPort::bind(local).map_err(bind)?)
        } else {
            None
        };
        (UdpPort::new(socket).map_err(bind)?, tcp)
    };
    let (input, commands) = mpsc::unbounded_channel();
    let (events_out, events) = mpsc::unbounded_channel();
    let drops = Arc::new(DropCounters::default());
    let mut engine = Engine::new(identity, config.max_sessions, Arc::clone(&drops), Instant::now());
    engine.forwarder.set_speakers(config.speakers);
    let udp = candidates(&config.advertise, local);
    engine.set_candidates(udp.clone(), if config.tcp { udp } else { Vec::new() });
    let drops_here = Arc::clone(&drops);
    let worker = Worker {
        engine,
        port,
        tcp,
        commands,
        events: events_out,
        local,
        drops: drops_here,
    };
    std::thread::Builder::new()
        .name("media".to_owned())
        .spawn(move || runtime.block_on(worker.run()))
        .map_err(MediaError::Thread)?;
    Ok((MediaHandle { input, drops }, events, local))
}

struct Worker {
    engine: Engine,
    port: UdpPort,
    tcp: Option<TcpPort>,
    commands: mpsc::UnboundedReceiver<Input>,
    events: mpsc::UnboundedSender<Event>,
    local: SocketAddr,
    drops: Arc<DropCounters>,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let due = self.engine.next_timeout();
            let sleep = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let mut input = None;
            let mut stream = None;
            let tcp = async {
                match &mut self.tcp {
                    Some(tcp) => tcp.receive().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => input = Some(command),
                    None => return,
                },
                _ = self.port.readable() => {}
                received = tcp => stream = received,
                () = sleep => {}
            }
            let now = Instant::now();
            for _ in 0..COMMANDS {
                match input.take().or_else(|| self.commands.try_recv().ok()) {
                    Some(Input::Command(command)) => self.engine.command(command, now),
                    Some(Input::Advertise(addresses)) => {
                        let udp = candidates(&addresses, self.local);
                        let tcp = if self.tcp.is_some() {
                            udp.clone()
                        } else {
                            Vec::new()
                        };
                        self.engine.set_candidates(udp, tcp);
                    }
                    None => break,
                }
            }
            let engine = &mut self.engine;
            self.port
                .receive(|from, datagram| engine.datagram(Route::Udp(from), datagram, now));
            for _ in 0..FRAMES {
                match stream.take().or_else(|| self.tcp.as_mut()?.try_receive()) {
                    Some(TcpInput::Frame(route, mut frame)) => self.engine.datagram(route, &mut frame, now),
                    Some(TcpInput::Closed(route)) => self.engine.route_closed(route),
                    None => break,
                }
            }
            if self.engine.next_timeout().is_some_and(|at| now >= at) {
                self.engine.handle_timeout(wall_ntp(), now);
            }
            self.engine.settle(now);
            while self.engine.deliver(now) {
                self.port
                    .flush(&mut self.engine.batch, self.tcp.as_ref(), &self.drops);
            }
            self.port
                .flush(&mut self.engine.batch, self.tcp.as_ref(), &self.drops);
            for event in self.engine.take_events() {
                if self.events.send(event).is_err() {
                    return;
                }
            }
        }
    }
}

/// The wall clock as NTP.
fn wall_ntp() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    crate::forward::subscription::ntp_of(since).wrapping_add(NTP_OFFSET << 32)
}

/// What to write into descriptions.
fn candidates(advertise: &[SocketAddr], local: SocketAddr) -> Vec<SocketAddr> {
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
