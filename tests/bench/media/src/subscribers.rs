//! Those who receive.
//!
//! Owns a thread with a socket per subscriber. Invariants: sockets are drained by the clock and never
//! waited for, so that a server is not charged for waking the receiver; most subscribers read no more
//! than headers; probes, a few, decrypt some packets, and tell how long those took.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::error::BenchError;
use crate::link::{Ends, Link, Order};
use crate::packet::{self, Header};
use crate::publisher::Departures;
use crate::reception::Stream;
use crate::rtcp::{self, Heard};
use crate::socket::{self, Inbox};
use crate::transport::{Identity, Input, Transport};

/// Between two rounds over all sockets of a few hundred subscribers.
pub(crate) const ROUND: Duration = Duration::from_millis(5);
/// The same for those that are still connecting.
const EAGER: Duration = Duration::from_millis(1);
const REPORTS: Duration = Duration::from_secs(1);

/// What all subscribers saw so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) received: u64,
    pub(crate) expected: u64,
    pub(crate) other: u64,
    /// Packets of each.
    pub(crate) each: Vec<u64>,
    /// Its port.
    pub(crate) ports: Vec<u16>,
    /// Nanoseconds of each packet that a probe saw since the last snapshot.
    pub(crate) delays: Vec<u64>,
}

enum Ask {
    Add(Box<Subscriber>),
    Snapshot(oneshot::Sender<Snapshot>),
    Stop,
}

/// How subscribers behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    /// Between two transport-wide feedbacks of a subscriber, where the server wants them at all.
    pub(crate) feedback: Option<Duration>,
    /// Every so many subscribers one is a probe.
    pub(crate) probe_every: usize,
    /// Of so many packets a probe decrypts one.
    pub(crate) sample: u16,
    /// Between two rounds over all sockets.
    pub(crate) round: Duration,
}

impl Manners {
    /// Each time another place of those that are served one after the other.
    fn probes(&self, index: usize) -> bool {
        let every = self.probe_every.max(1);
        index % every == index / every % every
    }
}

/// The thread.
pub(crate) struct Subscribers {
    asks: Sender<Ask>,
    orders: Sender<(usize, Order)>,
    thread: JoinHandle<Result<(), BenchError>>,
    identity: Identity,
    manners: Manners,
    count: usize,
}

impl Subscribers {
    pub(crate) fn start(identity: &Identity, manners: Manners) -> Result<Subscribers, BenchError> {
        let (asks, asked) = channel();
        let (orders, ordered) = channel();
        let thread = std::thread::Builder::new()
            .name("subscribers".to_owned())
            .spawn(move || Run::new(asked, ordered, manners).run())
            .map_err(BenchError::io("a thread"))?;
        Ok(Subscribers {
            asks,
            orders,
            thread,
            identity: identity.clone(),
            manners,
            count: 0,
        })
    }

    /// Another subscriber, to what left by this table.
    pub(crate) fn add(&mut self, departures: &Arc<Departures>) -> Result<Link, BenchError> {
        let (ends, link) = Ends::open(&self.identity, self.count, self.orders.clone())?;
        let Ends {
            socket,
            transport,
            report,
        } = ends;
        let subscriber = Subscriber {
            sender: 0x5B00_0000 | self.count as u32,
            port: socket
                .local_addr()
                .map_err(BenchError::io("a UDP socket"))?
                .port(),
            probe: self.manners.probes(self.count),
            departures: Arc::clone(departures),
            socket,
            transport,
            report,
            stream: Stream::default(),
            next_report: None,
            next_feedback: None,
        };
        self.count += 1;
        self.asks
            .send(Ask::Add(Box::new(subscriber)))
            .map_err(|_| BenchError::GeneratorEnded)?;
        Ok(link)
    }

    /// What was seen until now.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, BenchError> {
        let (reply, answer) = oneshot::channel();
        self.asks
            .send(Ask::Snapshot(reply))
            .map_err(|_| BenchError::GeneratorEnded)?;
        answer.await.map_err(|_| BenchError::GeneratorEnded)
    }

    /// Waits until every subscriber has got this many packets more.
    pub(crate) async fn receiving(&self, packets: u64, limit: Duration) -> Result<(), BenchError> {
        let before = self.snapshot().await?.each;
        let end = Instant::now() + limit;
        loop {
            let now = self.snapshot().await?.each;
            let receiving = now
                .iter()
                .zip(&before)
                .filter(|(now, before)| **now >= **before + packets)
                .count();
            if receiving == self.count {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(BenchError::Silent {
                    receiving,
                    of: self.count,
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it and tells what went wrong in it.
    pub(crate) fn stop(self) -> Result<(), BenchError> {
        // An error here means that it ended before, and why is told by the join.
        let _ = self.asks.send(Ask::Stop);
        self.thread.join().unwrap_or(Err(BenchError::GeneratorEnded))
    }
}

struct Subscriber {
    sender: u32,
    port: u16,
    probe: bool,
    departures: Arc<Departures>,
    socket: UdpSocket,
    transport: Transport,
    report: watch::Sender<bool>,
    stream: Stream,
    next_report: Option<Instant>,
    next_feedback: Option<Instant>,
}

struct Run {
    asks: Receiver<Ask>,
    orders: Receiver<(usize, Order)>,
    manners: Manners,
    all: Vec<Subscriber>,
    inbox: Inbox,
    heads: Inbox,
    delays: Vec<u64>,
}

impl Run {
    fn new(asks: Receiver<Ask>, orders: Receiver<(usize, Order)>, manners: Manners) -> Run {
        Run {
            asks,
            orders,
            manners,
            all: Vec::new(),
            inbox: Inbox::new(),
            heads: Inbox::of_heads(),
            delays: Vec::new(),
        }
    }

    fn run(mut self) -> Result<(), BenchError> {
        let mut full_round = Instant::now();
        loop {
            let now = Instant::now();
            let full = now >= full_round;
            if full {
                full_round = (full_round + self.manners.round).max(now);
            }
            // Whoever was ordered about was added before.
            let mut snapshots = Vec::new();
            loop {
                match self.asks.try_recv() {
                    Ok(Ask::Add(subscriber)) => self.all.push(*subscriber),
                    Ok(Ask::Snapshot(reply)) => snapshots.push(reply),
                    Ok(Ask::Stop) | Err(TryRecvError::Disconnected) => return Ok(()),
                    Err(TryRecvError::Empty) => break,
                }
            }
            while let Ok((index, order)) = self.orders.try_recv() {
                let Some(subscriber) = self.all.get_mut(index) else {
                    continue;
                };
                match order {
                    Order::Answered(remote) => subscriber.transport.answered(remote, now),
                    Order::Trickled(candidate) => subscriber.transport.trickled(candidate),
                }
            }
            let mut connecting = false;
            for subscriber in &mut self.all {
                let connected = subscriber.transport.connected();
                connecting |= !connected;
                if full || !connected || !snapshots.is_empty() {
                    let heads = connected && !subscriber.probe;
                    let inbox = if heads { &mut self.heads } else { &mut self.inbox };
                    subscriber.round(now, inbox, &self.manners, &mut self.delays)?;
                }
            }
            for reply in snapshots {
                let _ = reply.send(self.snapshot());
            }
            let next = if connecting { now + EAGER } else { full_round };
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let sum = |of: fn(&Stream) -> u64| self.all.iter().map(|s| of(&s.stream)).sum();
        Snapshot {
            received: sum(|s| s.received),
            expected: sum(Stream::expected),
            other: sum(|s| s.other),
            each: self.all.iter().map(|s| s.stream.received).collect(),
            ports: self.all.iter().map(|s| s.port).collect(),
            delays: std::mem::take(&mut self.delays),
        }
    }
}

impl Subscriber {
    fn round(
        &mut self,
        now: Instant,
        inbox: &mut Inbox,
        manners: &Manners,
        delays: &mut Vec<u64>,
    ) -> Result<(), BenchError> {
        let (transport, stream) = (&mut self.transport, &mut self.stream);
        let feedback = manners.feedback.is_some() && transport.feedback();
        let (probe, departures, sample) = (self.probe, &self.departures, manners.sample.max(1));
        let (mut failed, mut connected) = (None, false);
        inbox.drain(&self.socket, |d| match transport.datagram(d.bytes, d.from, now) {
            Ok(Input::Connected) => connected = true,
            Ok(Input::Rtp) => {
                let Some(header) = Header::read(d.bytes) else {
                    return;
                };
                let ours = stream.packet(&header, d.at, feedback);
                if ours && probe && header.sequence.is_multiple_of(sample) {
                    let clear = transport.open_rtp(d.bytes).ok();
                    let left = clear.and_then(|p| departures.get(packet::number(&p)?));
                    delays.extend(left.map(|left| d.at.saturating_sub(left)));
                }
            }
            Ok(Input::Rtcp) => {
                let heard = transport.open_rtcp(d.bytes).and_then(|clear| rtcp::read(&clear));
                for heard in heard.unwrap_or_default() {
                    if let Heard::Report { ssrc, ntp } = heard {
                        stream.heard(ssrc, ntp, d.at);
                    }
                }
            }
            Ok(Input::Handled) => {}
            Err(e) => failed = Some(e),
        })?;
        // A datagram that can't be read is the server's affair once the handshake is over.
        if let Some(error) = failed.filter(|_| !transport.connected()) {
            return Err(BenchError::transport("a subscriber's handshake")(error));
        }
        transport.tick(now).map_err(BenchError::transport("the clock"))?;
        for (to, datagram) in transport.take_output() {
            let _ = self.socket.send_to(&datagram, to);
        }
        if connected {
            let _ = self.report.send(true);
            // Spread over the second, as those of many people are.
            let phase = f64::from(self.sender & 0xFFFF) * 0.618_034 % 1.0;
            self.next_report = Some(now + REPORTS.mul_f64(phase));
            self.next_feedback = manners.feedback.map(|every| now + every.mul_f64(phase));
        }
        self.reports(now, manners)
    }

    fn reports(&mut self, now: Instant, manners: &Manners) -> Result<(), BenchError> {
        let mut due = Vec::new();
        if self.next_report.is_some_and(|at| at <= now) {
            self.next_report = Some(now + REPORTS);
            due.extend(self.stream.receiver_report(self.sender, socket::wall_clock()));
        }
        if self.next_feedback.is_some_and(|at| at <= now) {
            self.next_feedback = manners.feedback.map(|every| now + every);
            due.extend(self.stream.feedback(self.sender));
        }
        let Some(server) = self.transport.server() else {
            return Ok(());
        };
        for report in due {
            let sealed = self
                .transport
                .seal_rtcp(&report)
                .map_err(BenchError::transport("sealing"))?;
            let _ = self.socket.send_to(&sealed, server);
        }
        Ok(())
    }
}
