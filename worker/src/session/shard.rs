//! The thread that runs one engine.
//!
//! Owns socket, clock and channels; decides nothing. One turn: wait, take what is there (commands, then
//! batches of datagrams), hand over what is for others, run what is due, send everything, tell what
//! happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use super::api::Event;
use super::engine::Engine;
use super::exchange::{Bundle, Exchange};
use super::front::Input;
use super::runtime::candidates;
use crate::forward::drops::DropCounters;
use crate::net::tcp::{TcpInput, TcpPort};
use crate::net::{Route, UdpPort};

/// Commands taken in one turn.
const COMMANDS: usize = 256;
/// Frames of connections taken in one turn.
const FRAMES: usize = 128;
/// Bundles of other shards taken in one turn.
const BUNDLES: usize = 16;
/// Seconds between the NTP and the Unix epoch.
const NTP_OFFSET: u64 = 2_208_988_800;

/// What runs on the thread.
pub(super) struct Worker {
    pub(super) engine: Engine,
    pub(super) port: UdpPort,
    pub(super) tcp: TcpPort,
    pub(super) input: mpsc::UnboundedReceiver<Input>,
    pub(super) inbox: mpsc::Receiver<Bundle>,
    pub(super) exchange: Exchange,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) local: SocketAddr,
    /// Whether connections are accepted.
    pub(super) accepts: bool,
    pub(super) drops: Arc<DropCounters>,
}

/// The loop is over.
struct Over;

impl Worker {
    pub(super) async fn run(mut self) {
        while let Ok(()) = self.turn().await {}
    }

    async fn turn(&mut self) -> Result<(), Over> {
        let due = self.engine.next_timeout();
        let sleep = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let (mut input, mut stream, mut bundle) = (None, None, None);
        tokio::select! {
            given = self.input.recv() => input = Some(given.ok_or(Over)?),
            _ = self.port.readable() => {}
            given = self.inbox.recv() => bundle = given,
            received = self.tcp.receive() => stream = received,
            () = sleep => {}
        }
        let now = Instant::now();
        for _ in 0..COMMANDS {
            match input.take().or_else(|| self.input.try_recv().ok()) {
                Some(input) => self.take(input, now)?,
                None => break,
            }
        }
        let engine = &mut self.engine;
        self.port
            .receive(|from, datagram| engine.datagram(Route::Udp(from), datagram, now));
        for _ in 0..BUNDLES {
            match bundle.take().or_else(|| self.inbox.try_recv().ok()) {
                Some(mut bundle) => bundle.each(|from, datagram| engine.handed_over(from, datagram, now)),
                None => break,
            }
        }
        for _ in 0..FRAMES {
            match stream.take().or_else(|| self.tcp.try_receive()) {
                Some(TcpInput::Frame(route, mut frame)) => engine.datagram(route, &mut frame, now),
                Some(TcpInput::Closed(route)) => engine.route_closed(route),
                None => break,
            }
        }
        self.exchange.hand_over(&mut engine.misdirected);
        if engine.next_timeout().is_some_and(|at| now >= at) {
            engine.handle_timeout(wall_ntp(), now);
        }
        engine.settle(now);
        // Before the answers: who is told that it may send must be known wherever that arrives.
        self.exchange.tell(engine.routes.take_news());
        while engine.deliver(now) {
            self.port.flush(&mut engine.batch, Some(&self.tcp), &self.drops);
        }
        self.port.flush(&mut engine.batch, Some(&self.tcp), &self.drops);
        for event in engine.take_events() {
            self.events.send(event).map_err(|_| Over)?;
        }
        Ok(())
    }

    fn take(&mut self, input: Input, now: Instant) -> Result<(), Over> {
        match input {
            Input::Command(command) => self.engine.command(command, now),
            Input::Advertise(addresses) => {
                let udp = candidates(&addresses, self.local);
                let tcp = if self.accepts { udp.clone() } else { Vec::new() };
                self.engine.set_candidates(udp, tcp);
            }
            Input::Statistics(gathering) => {
                let answer = self.engine.statistics(now);
                if let Some(sessions) = gathering.add(answer) {
                    let all = Event::Statistics { sessions };
                    self.events.send(all).map_err(|_| Over)?;
                }
            }
            Input::News(shard, news) => self.engine.learn(shard, news),
            Input::Connection(accepted) => self.tcp.take(accepted),
            Input::Failed => return Err(Over),
        }
        Ok(())
    }
}

/// The wall clock as NTP.
fn wall_ntp() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    crate::forward::subscription::ntp_of(since).wrapping_add(NTP_OFFSET << 32)
}
