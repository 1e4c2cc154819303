//! What a server can't do without: one seal per packet and subscriber, and the send.
//!
//! Owns the limit programs, which a server is compared with. They seal the same packets with the same
//! cipher, a key per subscriber, at the same pace, to sockets that are drained in the same way; and know
//! nothing of rooms, layers, reports or the packets' own rewriting.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::BenchError;
use crate::pace::{Mode, Pace};
use crate::packet::{FRAMES, PACKET, PER_FRAME, Shape, TAG, Writer};
use crate::process::Usage;
use crate::publisher::SSRC;
use crate::socket::{self, Inbox, Outbox};

const ROUND: Duration = Duration::from_millis(5);
/// Before the window, so that caches and queues are as they will be.
const WARM: Duration = Duration::from_millis(500);
/// Buffers per system call: more gain nothing, and these stay in the cache.
const BATCH: usize = 64;

/// How packets leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// A datagram per buffer.
    Batched,
    /// A frame per buffer, cut up by the kernel.
    Segmented,
}

/// A limit program's window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) spent: Usage,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) seconds: f64,
}

/// Seals what a server would.
struct Sealer {
    keys: Vec<LessSafeKey>,
}

impl Sealer {
    fn new(count: usize) -> Result<Sealer, BenchError> {
        let random = SystemRandom::new();
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            let mut key = [0; 16];
            random.fill(&mut key).map_err(|_| BenchError::Cipher)?;
            let key = UnboundKey::new(&AES_128_GCM, &key).map_err(|_| BenchError::Cipher)?;
            keys.push(LessSafeKey::new(key));
        }
        Ok(Sealer { keys })
    }

    /// Appends a sealed packet to `out`. A number is used once per key.
    fn seal(
        &self,
        subscriber: usize,
        number: u64,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), BenchError> {
        let key = self.keys.get(subscriber).ok_or(BenchError::Cipher)?;
        let start = out.len();
        out.extend_from_slice(packet);
        let sealed = out.get_mut(start..).ok_or(BenchError::Cipher)?;
        // The header and its extensions stay in clear, RFC 3711 section 3.1.
        let words = sealed.get(14..16).ok_or(BenchError::Cipher)?;
        let header = 16 + 4 * words.iter().fold(0, |n, b| n << 8 | usize::from(*b));
        let (header, payload) = sealed.split_at_mut_checked(header).ok_or(BenchError::Cipher)?;
        let mut nonce = [0; 12];
        if let Some(low) = nonce.last_chunk_mut() {
            *low = number.to_be_bytes();
        }
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&*header), payload)
            .map_err(|_| BenchError::Cipher)?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

/// Nanoseconds to seal a packet, and nothing else.
pub(crate) fn seal_alone(subscribers: usize) -> Result<f64, BenchError> {
    const ROUNDS: u64 = 500;
    let sealer = Sealer::new(subscribers)?;
    let packet = Writer::new(SSRC, "0", Shape::PLAIN).packet();
    let mut out = Vec::with_capacity(PACKET + TAG);
    let before = Usage::of_this_thread()?;
    for number in 0..ROUNDS {
        for subscriber in 0..subscribers {
            out.clear();
            sealer.seal(subscriber, number, &packet, &mut out)?;
        }
    }
    let spent = Usage::of_this_thread()?.since(&before);
    Ok(spent.nanoseconds as f64 / (ROUNDS * subscribers as u64) as f64)
}

/// Sends for so long to so many.
pub(crate) fn run(subscribers: usize, mode: Mode, way: Way, window: Duration) -> Result<Outcome, BenchError> {
    let sockets: Vec<UdpSocket> = (0..subscribers)
        .map(|_| socket::bind())
        .collect::<Result<_, _>>()?;
    let mut to = Vec::with_capacity(subscribers);
    for socket in &sockets {
        match socket.local_addr().map_err(BenchError::io("a UDP socket"))? {
            SocketAddr::V4(address) => to.push(address),
            SocketAddr::V6(_) => return Err(BenchError::Proc("IPv6".to_owned())),
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let receiver = {
        let (stop, received) = (Arc::clone(&stop), Arc::clone(&received));
        std::thread::spawn(move || receive(&sockets, &stop, &received))
    };
    let sender = {
        let received = Arc::clone(&received);
        std::thread::Builder::new()
            .name("limit".to_owned())
            .spawn(move || send(&to, mode, way, window, &received))
            .map_err(BenchError::io("a thread"))?
    };
    let outcome = sender.join().unwrap_or(Err(BenchError::GeneratorEnded));
    stop.store(true, Ordering::Relaxed);
    receiver.join().unwrap_or(Err(BenchError::GeneratorEnded))?;
    outcome
}

fn receive(sockets: &[UdpSocket], stop: &AtomicBool, received: &AtomicU64) -> Result<(), BenchError> {
    let mut inbox = Inbox::new();
    while !stop.load(Ordering::Relaxed) {
        let next = Instant::now() + ROUND;
        let mut count = 0;
        for socket in sockets {
            inbox.drain(socket, |d| count += u64::from(d.bytes.len() == PACKET + TAG))?;
        }
        received.fetch_add(count, Ordering::Relaxed);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn send(
    to: &[SocketAddrV4],
    mode: Mode,
    way: Way,
    window: Duration,
    received: &AtomicU64,
) -> Result<Outcome, BenchError> {
    let socket = socket::bind()?;
    let burst = match mode {
        Mode::Single => 1,
        Mode::Frames => PER_FRAME,
    };
    let per_buffer = match way {
        Way::Batched => 1,
        Way::Segmented => {
            socket::segment(&socket, PACKET + TAG)?;
            burst
        }
    };
    let sealer = Sealer::new(to.len())?;
    let mut writer = Writer::new(SSRC, "0", Shape::PLAIN);
    let mut outbox = Outbox::new(BATCH);
    let mut buffers: Vec<Vec<u8>> = vec![
        Vec::with_capacity(per_buffer as usize * (PACKET + TAG));
        to.len() * (burst / per_buffer) as usize
    ];
    let mut pace = Pace::new(Instant::now());
    let interval = mode.interval(FRAMES * 1000);
    let open = Instant::now() + WARM;
    let mut start: Option<(Usage, Instant, u64)> = None;
    let mut sent = 0;
    loop {
        std::thread::sleep(pace.due(interval).saturating_duration_since(Instant::now()));
        let now = Instant::now();
        match &start {
            None if now >= open => {
                start = Some((
                    Usage::of_this_thread()?,
                    Instant::now(),
                    received.load(Ordering::Relaxed),
                ));
                sent = 0;
            }
            Some((usage, at, before)) if now >= *at + window => {
                let spent = Usage::of_this_thread()?.since(usage);
                let seconds = at.elapsed().as_secs_f64();
                // What is under way has been paid for.
                std::thread::sleep(4 * ROUND);
                let received = received.load(Ordering::Relaxed) - before;
                return Ok(Outcome {
                    spent,
                    sent,
                    received: received.min(sent),
                    seconds,
                });
            }
            _ => {}
        }
        let packets: Vec<(u64, Vec<u8>)> = (0..burst).map(|_| (writer.written(), writer.packet())).collect();
        let mut free = buffers.iter_mut();
        let mut batch: Vec<(SocketAddrV4, &[u8])> = Vec::with_capacity(BATCH);
        for (subscriber, to) in to.iter().enumerate() {
            for group in packets.chunks(per_buffer as usize) {
                let Some(buffer) = free.next() else { break };
                buffer.clear();
                for (number, packet) in group {
                    sealer.seal(subscriber, *number, packet, buffer)?;
                }
                batch.push((*to, buffer));
            }
            if batch.len() >= BATCH {
                outbox.send(&socket, &batch)?;
                batch.clear();
            }
        }
        outbox.send(&socket, &batch)?;
        sent += burst * to.len() as u64;
        pace.departed(interval, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_again() {
        let sealer = Sealer::new(2).unwrap();
        let packet = Writer::new(SSRC, "0", Shape::PLAIN).packet();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        sealer.seal(0, 7, &packet, &mut a).unwrap();
        sealer.seal(1, 7, &packet, &mut b).unwrap();
        assert_eq!((a.len(), b.len()), (PACKET + TAG, PACKET + TAG));
        assert_ne!(a, b);
        let header = 24;
        assert_eq!(a[..header], packet[..header]);
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&7_u64.to_be_bytes());
        let (aad, body) = a.split_at_mut(header);
        let clear = sealer.keys[0]
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(&*aad), body)
            .unwrap();
        assert_eq!(*clear, packet[header..]);
        assert!(sealer.seal(2, 8, &packet, &mut b).is_err());
    }

    #[test]
    fn both_ways_deliver_what_they_send() {
        for (mode, way) in [(Mode::Single, Way::Batched), (Mode::Frames, Way::Segmented)] {
            let outcome = run(3, mode, way, Duration::from_millis(300)).unwrap();
            assert!(outcome.sent > 0 && outcome.spent.nanoseconds > 0);
            assert_eq!(outcome.received, outcome.sent, "{way:?}");
        }
    }
}
