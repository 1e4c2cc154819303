//! The one who sends.
//!
//! Owns a thread with the publisher's socket, its pace and the table of when each packet left. Invariants:
//! silent until told otherwise; the pace is kept by the clock, so that a late wake-up doesn't slow it; a
//! frame is sealed before its time comes, so that its packets leave together.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::watch;

use crate::error::BenchError;
use crate::link::{Ends, Link, Order};
use crate::pace::{Mode, Pace};
use crate::packet::{FRAMES, PACKET, PER_FRAME, Shape, Writer};
use crate::rtcp::{self, Heard};
use crate::socket::{self, Inbox, Outbox};
use crate::transport::{Identity, Input, Transport};

/// The stream's source.
pub(crate) const SSRC: u32 = 0x0BE7_0001;
/// Packets whose time is remembered: minutes of them.
const REMEMBERED: usize = 1 << 16;
const REPORTS: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_millis(5);
/// Seconds from 1900 to 1970.
const NTP: u64 = 2_208_988_800;

/// When each packet left.
#[derive(Debug)]
pub(crate) struct Departures(Vec<AtomicU64>);

impl Departures {
    fn new() -> Departures {
        Departures((0..REMEMBERED).map(|_| AtomicU64::new(0)).collect())
    }

    fn slot(&self, number: u64) -> Option<&AtomicU64> {
        self.0.get((number % REMEMBERED as u64) as usize)
    }

    fn set(&self, number: u64, at: u64) {
        if let Some(slot) = self.slot(number) {
            slot.store(at, Ordering::Relaxed);
        }
    }

    /// By the wall clock; `None` for a number never sent.
    pub(crate) fn get(&self, number: u64) -> Option<u64> {
        let at = self.slot(number)?.load(Ordering::Relaxed);
        (at > 0).then_some(at)
    }
}

#[derive(Debug)]
struct Control {
    /// 0: silent; 1 and 2: the modes.
    pace: AtomicU8,
    /// Thousandths of a frame per second.
    millihertz: AtomicU64,
    stop: AtomicBool,
    sent: AtomicU64,
    asked: AtomicU64,
}

/// The thread.
pub(crate) struct Publisher {
    control: Arc<Control>,
    pub(crate) departures: Arc<Departures>,
    thread: JoinHandle<Result<(), BenchError>>,
}

impl Publisher {
    /// Starts it; media is announced on the section called `mid`. Frames leave at that `phase` (0 to 1) of
    /// the clock at which it is told to send.
    pub(crate) fn start(identity: &Identity, mid: &str, phase: f64) -> Result<(Publisher, Link), BenchError> {
        let (orders, inbox) = channel();
        let (ends, link) = Ends::open(identity, 0, orders)?;
        let Ends {
            socket,
            transport,
            report,
        } = ends;
        let control = Arc::new(Control {
            pace: AtomicU8::new(0),
            millihertz: AtomicU64::new(FRAMES * 1000),
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        });
        let departures = Arc::new(Departures::new());
        let writer = Writer::new(SSRC, mid, Shape::PLAIN);
        let (ours, times) = (Arc::clone(&control), Arc::clone(&departures));
        // Buffers of system calls are made where they stay.
        let run = move || {
            let run = Run {
                socket,
                transport,
                orders: inbox,
                report,
                control: ours,
                departures: times,
                phase,
                writer,
                inbox: Inbox::new(),
                outbox: Outbox::new(PER_FRAME as usize),
            };
            run.run()
        };
        let thread = std::thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(run)
            .map_err(BenchError::io("a thread"))?;
        let publisher = Publisher {
            control,
            departures,
            thread,
        };
        Ok((publisher, link))
    }

    /// Sends like this from now on; `None`: not at all.
    pub(crate) fn pace(&self, mode: Option<Mode>) {
        let code = match mode {
            None => 0,
            Some(Mode::Single) => 1,
            Some(Mode::Frames) => 2,
        };
        self.control.pace.store(code, Ordering::Relaxed);
    }

    /// Sends so many thousandths of a frame per second from now on.
    pub(crate) fn rate(&self, millihertz: u64) {
        self.control
            .millihertz
            .store(millihertz.max(1), Ordering::Relaxed);
    }

    /// Packets sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.control.sent.load(Ordering::Relaxed)
    }

    /// Key frames that the server asked for so far.
    pub(crate) fn asked(&self) -> u64 {
        self.control.asked.load(Ordering::Relaxed)
    }

    /// Ends it and tells what went wrong in it.
    pub(crate) fn stop(self) -> Result<(), BenchError> {
        self.control.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(Err(BenchError::GeneratorEnded))
    }
}

struct Run {
    socket: UdpSocket,
    transport: Transport,
    orders: Receiver<(usize, Order)>,
    report: watch::Sender<bool>,
    control: Arc<Control>,
    departures: Arc<Departures>,
    phase: f64,
    writer: Writer,
    inbox: Inbox,
    outbox: Outbox,
}

impl Run {
    fn run(mut self) -> Result<(), BenchError> {
        let mut pace = Pace::new(Instant::now());
        let mut next_report = Instant::now();
        let mut sealed: Vec<(u64, BytesMut)> = Vec::new();
        while !self.control.stop.load(Ordering::Relaxed) {
            self.serve()?;
            let millihertz = self.control.millihertz.load(Ordering::Relaxed);
            let mode = match self.control.pace.load(Ordering::Relaxed) {
                1 => Mode::Single,
                2 => Mode::Frames,
                _ => {
                    let frame = Mode::Frames.interval(millihertz);
                    pace = Pace::new(Instant::now() + frame.mul_f64(self.phase));
                    socket::wait(&self.socket, IDLE)?;
                    continue;
                }
            };
            let Some(server) = self.server().filter(|_| self.transport.connected()) else {
                socket::wait(&self.socket, IDLE)?;
                continue;
            };
            let interval = mode.interval(millihertz);
            if sealed.is_empty() {
                self.writer.rate(millihertz);
                self.seal(mode, &mut sealed)?;
            }
            let (now, due) = (Instant::now(), pace.due(interval));
            if now < due {
                socket::wait(&self.socket, due - now)?;
                continue;
            }
            self.depart(server, &mut sealed)?;
            pace.departed(interval, now);
            if now >= next_report {
                next_report = now + REPORTS;
                self.sender_report(server)?;
            }
        }
        Ok(())
    }

    fn server(&self) -> Option<SocketAddrV4> {
        match self.transport.server()? {
            SocketAddr::V4(server) => Some(server),
            SocketAddr::V6(_) => None,
        }
    }

    /// Signalling, the transport and what the server says.
    fn serve(&mut self) -> Result<(), BenchError> {
        let now = Instant::now();
        loop {
            match self.orders.try_recv() {
                Ok((_, Order::Answered(remote))) => self.transport.answered(remote, now),
                Ok((_, Order::Trickled(candidate))) => self.transport.trickled(candidate),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let (transport, writer, control) = (&mut self.transport, &mut self.writer, &self.control);
        let (mut failed, mut connected) = (None, false);
        self.inbox
            .drain(&self.socket, |d| match transport.datagram(d.bytes, d.from, now) {
                Ok(Input::Connected) => connected = true,
                Ok(Input::Rtcp) => {
                    let heard = transport.open_rtcp(d.bytes).and_then(|clear| rtcp::read(&clear));
                    if heard.is_ok_and(|h| h.contains(&Heard::KeyFrame)) {
                        control.asked.fetch_add(1, Ordering::Relaxed);
                        writer.key_frame();
                    }
                }
                Ok(Input::Handled | Input::Rtp) => {}
                Err(e) => failed = Some(e),
            })?;
        // A datagram that can't be read is the server's affair once the handshake is over.
        if let Some(error) = failed.filter(|_| !transport.connected()) {
            return Err(BenchError::transport("the publisher's handshake")(error));
        }
        transport.tick(now).map_err(BenchError::transport("the clock"))?;
        for (to, datagram) in transport.take_output() {
            let _ = self.socket.send_to(&datagram, to);
        }
        if connected {
            let _ = self.report.send(true);
        }
        Ok(())
    }

    fn seal(&mut self, mode: Mode, sealed: &mut Vec<(u64, BytesMut)>) -> Result<(), BenchError> {
        let count = match mode {
            Mode::Single => 1,
            Mode::Frames => self.writer.left_in_frame(),
        };
        for _ in 0..count {
            let number = self.writer.written();
            let packet = self.writer.packet();
            let packet = self
                .transport
                .seal_rtp(&packet)
                .map_err(BenchError::transport("sealing"))?;
            sealed.push((number, packet));
        }
        Ok(())
    }

    fn depart(&mut self, server: SocketAddrV4, sealed: &mut Vec<(u64, BytesMut)>) -> Result<(), BenchError> {
        let batch: Vec<(SocketAddrV4, &[u8])> = sealed.iter().map(|(_, p)| (server, &p[..])).collect();
        let at = socket::wall_clock();
        for (number, _) in &*sealed {
            self.departures.set(*number, at);
        }
        self.outbox.send(&self.socket, &batch)?;
        self.control
            .sent
            .fetch_add(sealed.len() as u64, Ordering::Relaxed);
        sealed.clear();
        Ok(())
    }

    fn sender_report(&mut self, server: SocketAddrV4) -> Result<(), BenchError> {
        let wall = socket::wall_clock();
        let fraction = (wall % 1_000_000_000) * (1 << 32) / 1_000_000_000;
        let ntp = (wall / 1_000_000_000 + NTP) << 32 | fraction;
        let sent = self.writer.written();
        let report = rtcp::sender_report(
            SSRC,
            ntp,
            self.writer.timestamp(),
            sent,
            sent.wrapping_mul(PACKET as u64),
        );
        let report = self
            .transport
            .seal_rtcp(&report)
            .map_err(BenchError::transport("sealing"))?;
        let _ = self.socket.send_to(&report, server);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn departures_are_remembered_by_number() {
        let d = Departures::new();
        assert_eq!(d.get(3), None);
        d.set(3, 17);
        d.set(REMEMBERED as u64 + 4, 18);
        assert_eq!((d.get(3), d.get(4)), (Some(17), Some(18)));
    }
}
