//! Those who send and receive.
//!
//! Owns a thread with a socket per member of a meeting. Invariants: what a member sends is due by the
//! clock, at a phase of its own, so that not all speak at the same moment; sockets are drained by the
//! clock and never waited for.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::description::{OPUS, VP8};
use crate::error::BenchError;
use crate::front::Sending;
use crate::link::{Ends, Link, Order};
use crate::packet::{FRAMES, Header, Shape, Voice, Writer};
use crate::reception::unwrap;
use crate::rtcp::{self, Heard, Reception};
use crate::socket::Inbox;
use crate::transport::{Identity, Input, Transport};

const ROUND: Duration = Duration::from_millis(5);
const REPORTS: Duration = Duration::from_secs(1);
const VOICE_INTERVAL: Duration = Duration::from_millis(20);
/// Blocks of a report, RFC 3550 section 6.4.1.
const BLOCKS: usize = 31;
/// Behind by more than this, nobody is served by catching up.
const HOPELESS: Duration = Duration::from_millis(200);

/// What all members did so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) expected: u64,
    /// Streams that somebody receives.
    pub(crate) streams: u64,
}

enum Ask {
    Add(Box<Member>),
    /// Everybody sends from now on.
    Begin,
    Tally(oneshot::Sender<Tally>),
    Stop,
}

/// The thread.
pub(crate) struct Members {
    asks: Sender<Ask>,
    orders: Sender<(usize, Order)>,
    thread: JoinHandle<Result<(), BenchError>>,
    identity: Identity,
    feedback: Option<Duration>,
    count: usize,
}

impl Members {
    pub(crate) fn start(identity: &Identity, feedback: Option<Duration>) -> Result<Members, BenchError> {
        let (asks, asked) = channel();
        let (orders, ordered) = channel();
        let thread = std::thread::Builder::new()
            .name("members".to_owned())
            .spawn(move || run(&asked, &ordered))
            .map_err(BenchError::io("a thread"))?;
        Ok(Members {
            asks,
            orders,
            thread,
            identity: identity.clone(),
            feedback,
            count: 0,
        })
    }

    /// Another member, which sends on the section called `mid`. `level`: how loud, in -dBov.
    pub(crate) fn add(&mut self, sending: Sending, mid: &str, level: u8) -> Result<Link, BenchError> {
        let (ends, link) = Ends::open(&self.identity, self.count, self.orders.clone())?;
        let Ends {
            socket,
            transport,
            report,
        } = ends;
        let first = 0x0CA0_0000 | (self.count as u32) << 4;
        let source = match sending {
            Sending::Voice { ssrc } => Source::Voice(Voice::new(ssrc, mid, level)),
            Sending::Camera => Source::Camera(
                Shape::SIMULCAST
                    .iter()
                    .zip(first..)
                    .map(|(shape, ssrc)| Writer::new(ssrc, mid, *shape))
                    .collect(),
            ),
        };
        let member = Member {
            sender: 0x5B00_0000 | self.count as u32,
            phase: f64::from(self.count as u32) * 0.618_034 % 1.0,
            socket,
            transport,
            report,
            source,
            next: None,
            number: 0,
            sent: 0,
            streams: HashMap::new(),
            highest_transport: None,
            arrivals: Vec::new(),
            feedbacks: 0,
            feedback: self.feedback,
            next_report: None,
            next_feedback: None,
        };
        self.count += 1;
        self.asks
            .send(Ask::Add(Box::new(member)))
            .map_err(|_| BenchError::GeneratorEnded)?;
        Ok(link)
    }

    /// Everybody sends from now on.
    pub(crate) fn begin(&self) -> Result<(), BenchError> {
        self.asks.send(Ask::Begin).map_err(|_| BenchError::GeneratorEnded)
    }

    pub(crate) async fn tally(&self) -> Result<Tally, BenchError> {
        let (reply, answer) = oneshot::channel();
        self.asks
            .send(Ask::Tally(reply))
            .map_err(|_| BenchError::GeneratorEnded)?;
        answer.await.map_err(|_| BenchError::GeneratorEnded)
    }

    /// Ends it and tells what went wrong in it.
    pub(crate) fn stop(self) -> Result<(), BenchError> {
        // An error here means that it ended before, and why is told by the join.
        let _ = self.asks.send(Ask::Stop);
        self.thread.join().unwrap_or(Err(BenchError::GeneratorEnded))
    }
}

enum Source {
    Voice(Voice),
    Camera(Vec<Writer>),
}

/// A stream that a member receives.
#[derive(Debug, Default, Clone, Copy)]
struct Incoming {
    first: u64,
    highest: u64,
    received: u64,
    /// Expected and received as of the last report.
    reported: (u64, u64),
}

struct Member {
    sender: u32,
    phase: f64,
    socket: UdpSocket,
    transport: Transport,
    report: watch::Sender<bool>,
    source: Source,
    /// When the next packet or frame is due; `None`: silent.
    next: Option<Instant>,
    /// Transport-wide.
    number: u16,
    sent: u64,
    streams: HashMap<u32, Incoming>,
    highest_transport: Option<u64>,
    arrivals: Vec<(u64, u64)>,
    feedbacks: u8,
    feedback: Option<Duration>,
    next_report: Option<Instant>,
    next_feedback: Option<Instant>,
}

fn run(asks: &Receiver<Ask>, orders: &Receiver<(usize, Order)>) -> Result<(), BenchError> {
    let mut all: Vec<Member> = Vec::new();
    let mut inbox = Inbox::new();
    let mut due = Instant::now();
    loop {
        let now = Instant::now();
        loop {
            match asks.try_recv() {
                Ok(Ask::Add(member)) => all.push(*member),
                Ok(Ask::Begin) => all.iter_mut().for_each(|m| m.begin(now)),
                Ok(Ask::Tally(reply)) => {
                    let _ = reply.send(tally(&all));
                }
                Ok(Ask::Stop) | Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => break,
            }
        }
        while let Ok((index, order)) = orders.try_recv() {
            let Some(member) = all.get_mut(index) else {
                continue;
            };
            match order {
                Order::Answered(remote) => member.transport.answered(remote, now),
                Order::Trickled(candidate) => member.transport.trickled(candidate),
            }
        }
        for member in &mut all {
            member.round(now, &mut inbox)?;
        }
        due = (due + ROUND).max(now);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn tally(all: &[Member]) -> Tally {
    let streams = || all.iter().flat_map(|m| m.streams.values());
    Tally {
        sent: all.iter().map(|m| m.sent).sum(),
        received: streams().map(|s| s.received).sum(),
        expected: streams().map(|s| s.highest - s.first + 1).sum(),
        streams: streams().count() as u64,
    }
}

impl Member {
    fn begin(&mut self, now: Instant) {
        self.next = Some(now + self.interval().mul_f64(self.phase));
    }

    fn interval(&self) -> Duration {
        match self.source {
            Source::Voice(_) => VOICE_INTERVAL,
            Source::Camera(_) => Duration::from_nanos(1_000_000_000 / FRAMES),
        }
    }

    fn round(&mut self, now: Instant, inbox: &mut Inbox) -> Result<(), BenchError> {
        let feedback = self.feedback.is_some() && self.transport.feedback();
        let (transport, streams) = (&mut self.transport, &mut self.streams);
        let (highest_transport, arrivals) = (&mut self.highest_transport, &mut self.arrivals);
        let source = &mut self.source;
        let (mut failed, mut connected) = (None, false);
        inbox.drain(&self.socket, |d| match transport.datagram(d.bytes, d.from, now) {
            Ok(Input::Connected) => connected = true,
            Ok(Input::Rtp) => {
                let Some(header) = Header::read(d.bytes) else {
                    return;
                };
                if let Some(short) = header.transport.filter(|_| feedback) {
                    let near = highest_transport.unwrap_or(1 << 20 | u64::from(short));
                    let number = unwrap(near, short);
                    *highest_transport = Some(near.max(number));
                    arrivals.push((number, d.at));
                }
                // The rest is sent again, or padding.
                if header.payload_type != VP8 && header.payload_type != OPUS {
                    return;
                }
                let start = 1 << 20 | u64::from(header.sequence);
                let stream = streams.entry(header.ssrc).or_insert(Incoming {
                    first: start,
                    highest: start,
                    ..Incoming::default()
                });
                stream.highest = stream.highest.max(unwrap(stream.highest, header.sequence));
                stream.received += 1;
            }
            Ok(Input::Rtcp) => {
                let heard = transport.open_rtcp(d.bytes).and_then(|clear| rtcp::read(&clear));
                if heard.is_ok_and(|h| h.contains(&Heard::KeyFrame))
                    && let Source::Camera(layers) = source
                {
                    layers.iter_mut().for_each(Writer::key_frame);
                }
            }
            Ok(Input::Handled) => {}
            Err(e) => failed = Some(e),
        })?;
        // A datagram that can't be read is the server's affair once the handshake is over.
        if let Some(error) = failed.filter(|_| !self.transport.connected()) {
            return Err(BenchError::transport("a member's handshake")(error));
        }
        self.transport
            .tick(now)
            .map_err(BenchError::transport("the clock"))?;
        for (to, datagram) in self.transport.take_output() {
            let _ = self.socket.send_to(&datagram, to);
        }
        if connected {
            let _ = self.report.send(true);
            self.next_report = Some(now + REPORTS.mul_f64(self.phase));
            self.next_feedback = self.feedback.map(|every| now + every.mul_f64(self.phase));
        }
        let Some(server) = self.transport.server().filter(|_| self.transport.connected()) else {
            return Ok(());
        };
        self.send(server, now)?;
        self.reports(server, now)
    }

    /// Whatever is due.
    fn send(&mut self, server: SocketAddr, now: Instant) -> Result<(), BenchError> {
        let interval = self.interval();
        while let Some(due) = self.next.filter(|due| *due <= now) {
            self.next = Some(if now > due + HOPELESS { now } else { due } + interval);
            let mut packets = Vec::new();
            match &mut self.source {
                Source::Voice(voice) => {
                    packets.push(voice.packet(self.number));
                    self.number = self.number.wrapping_add(1);
                }
                Source::Camera(layers) => {
                    for layer in layers {
                        for _ in 0..layer.left_in_frame() {
                            packets.push(layer.packet_numbered(self.number));
                            self.number = self.number.wrapping_add(1);
                        }
                    }
                }
            }
            self.sent += packets.len() as u64;
            for packet in packets {
                let sealed = self
                    .transport
                    .seal_rtp(&packet)
                    .map_err(BenchError::transport("sealing"))?;
                let _ = self.socket.send_to(&sealed, server);
            }
        }
        Ok(())
    }

    fn reports(&mut self, server: SocketAddr, now: Instant) -> Result<(), BenchError> {
        let mut due = Vec::new();
        if self.next_report.is_some_and(|at| at <= now) {
            self.next_report = Some(now + REPORTS);
            let blocks: Vec<Reception> = self.streams.iter_mut().map(|(ssrc, s)| s.block(*ssrc)).collect();
            due.extend(
                blocks
                    .chunks(BLOCKS)
                    .map(|b| rtcp::receiver_report(self.sender, b)),
            );
        }
        if self.next_feedback.is_some_and(|at| at <= now) {
            self.next_feedback = self.feedback.map(|every| now + every);
            self.arrivals.sort_unstable();
            self.arrivals.dedup_by_key(|(number, _)| *number);
            let media = self.streams.keys().next().copied().unwrap_or_default();
            due.extend(rtcp::transport_feedback(
                self.sender,
                media,
                self.feedbacks,
                &self.arrivals,
            ));
            self.feedbacks = self.feedbacks.wrapping_add(1);
            self.arrivals.clear();
        }
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

impl Incoming {
    fn block(&mut self, ssrc: u32) -> Reception {
        let expected = self.highest - self.first + 1;
        let interval = expected - self.reported.0;
        let lost = interval.saturating_sub(self.received - self.reported.1);
        self.reported = (expected, self.received);
        Reception {
            ssrc,
            fraction_lost: (lost * 256).checked_div(interval).unwrap_or(0).min(255) as u8,
            lost: expected.saturating_sub(self.received).min(0x7F_FFFF) as u32,
            highest: (self.highest & 0xFFFF_FFFF) as u32,
            ..Reception::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_of_the_time_since_the_last() {
        let mut s = Incoming {
            first: 100,
            highest: 109,
            received: 5,
            ..Incoming::default()
        };
        assert_eq!(s.block(7).fraction_lost, 128);
        s.highest += 10;
        s.received += 10;
        let block = s.block(7);
        assert_eq!((block.ssrc, block.fraction_lost, block.lost), (7, 0, 5));
    }
}
