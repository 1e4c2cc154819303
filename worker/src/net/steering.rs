//! Which of the sockets that share the port the kernel gives a datagram to.
//!
//! Owns the program that it asks (classic BPF, `SO_ATTACH_REUSEPORT_CBPF`), made anew from the senders
//! whose shard is known. The program is a hint: whoever gets a datagram that is another's hands it over.
//! So senders are told apart by a number made of port and address that two may share, and one that isn't
//! known gets to any socket. Invariants: a program that was accepted ends and reads nothing beyond the
//! headers; it changes once a second at most; without one everything works, at a higher price.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::Shard;
use super::calls::attach_steering;

/// Between two programs.
const PAUSE: Duration = Duration::from_secs(1);
/// What comes in a burst comes in one program.
const GATHER: Duration = Duration::from_millis(20);
/// Ranges of numbers that one program knows: what fits the kernel's 4,096 instructions (`BPF_MAXINSNS`).
const RANGES: usize = 2_000;
/// Fewer aren't worth another try, where the kernel takes fewer (the sysctl `net.core.optmem_max`).
const FEWEST: usize = 16;

/// One instruction, as the kernel's `sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) yes: u8,
    pub(super) no: u8,
    pub(super) value: u32,
}

/// The way to the thread that keeps the program.
#[derive(Debug, Clone)]
pub(crate) struct Steering {
    changes: Sender<Change>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    shard: Shard,
    sender: SocketAddr,
    there: bool,
}

impl Steering {
    /// For these sockets, which were bound to one address in this order. One alone needs none.
    pub(crate) fn start(sockets: &[UdpSocket]) -> io::Result<Option<Steering>> {
        let (Some(first), true) = (sockets.first(), sockets.len() > 1) else {
            return Ok(None);
        };
        let socket = first.try_clone()?;
        let (changes, queue) = channel();
        std::thread::Builder::new()
            .name("steering".to_owned())
            .spawn(move || keep(&queue, |program| attach_steering(&socket, program)))?;
        Ok(Some(Steering { changes }))
    }

    /// Datagrams of that sender are for that shard.
    pub(crate) fn add(&self, shard: Shard, sender: SocketAddr) {
        self.send(shard, sender, true);
    }

    /// No longer.
    pub(crate) fn remove(&self, shard: Shard, sender: SocketAddr) {
        self.send(shard, sender, false);
    }

    fn send(&self, shard: Shard, sender: SocketAddr, there: bool) {
        // The thread may have given up.
        let _ = self.changes.send(Change { shard, sender, there });
    }
}

/// Makes programs until nobody is left to change them, or none is accepted.
fn keep(queue: &Receiver<Change>, attach: impl Fn(&[Instruction]) -> io::Result<()>) {
    let mut senders = Senders::default();
    let mut ranges = RANGES;
    let mut next = Instant::now();
    while let Ok(change) = queue.recv() {
        senders.apply(change);
        let until = next.max(Instant::now() + GATHER);
        loop {
            match queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(change) => senders.apply(change),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= until {
                break;
            }
        }
        while let Err(error) = attach(&senders.program(ranges)) {
            if error.kind() != io::ErrorKind::OutOfMemory || ranges <= FEWEST {
                tracing::warn!(%error, "the kernel steers no datagrams to their threads, which hand them over");
                return;
            }
            ranges /= 2;
        }
        next = Instant::now() + PAUSE;
    }
}

/// Whose shard is known.
#[derive(Debug, Default)]
struct Senders(HashMap<SocketAddr, Shard>);

impl Senders {
    fn apply(&mut self, change: Change) {
        if change.there {
            self.0.insert(change.sender, change.shard);
        } else if self.0.get(&change.sender) == Some(&change.shard) {
            self.0.remove(&change.sender);
        }
    }

    /// All numbers, cut into ranges of one shard each: where each begins. The last of at most `most` is as
    /// long as it has to be.
    fn ranges(&self, most: usize) -> Vec<(u32, Shard)> {
        let mut known: Vec<(u32, Shard)> = self.0.iter().map(|(a, s)| (number(*a), *s)).collect();
        known.sort_unstable();
        known.dedup_by_key(|(number, _)| *number);
        known.dedup_by_key(|(_, shard)| *shard);
        known.truncate(most);
        known
    }

    /// Ends with the index of a socket, or with none where the kernel is to choose.
    fn program(&self, most: usize) -> Vec<Instruction> {
        let ranges = self.ranges(most);
        if ranges.is_empty() {
            return vec![ret(ANY)];
        }
        let mut program = prelude();
        program.extend(search(&ranges));
        program
    }
}

/// What tells senders apart, as the program's first part makes it: of port and the last four octets of
/// the address, which are an IPv4 address also where it is mapped into IPv6.
fn number(sender: SocketAddr) -> u32 {
    let end = match sender.ip() {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(ip) => u128::from(ip) as u32,
    };
    // The half that the kernel compares in one instruction.
    end.wrapping_add(u32::from(sender.port()).wrapping_mul(SPREAD)) >> 1
}

/// Odd, and far from a multiple of anything: neighbouring ports are far apart.
const SPREAD: u32 = 0x9E37_79B1;
/// Beyond all sockets: the kernel chooses by its own hash.
const ANY: u32 = u32::MAX;
/// Of addresses: from the network header on (`SKF_NET_OFF`). What a program of a UDP socket finds at 0 is
/// the payload.
const HEADER: u32 = (-0x10_0000_i32) as u32;

// Codes of linux/bpf_common.h, put together.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF_AT_X: u16 = 0x48;
const MULTIPLY: u16 = 0x24;
const AND: u16 = 0x54;
const SHIFT_LEFT: u16 = 0x64;
const SHIFT_RIGHT: u16 = 0x74;
const ADD_X: u16 = 0x0C;
const TO_X: u16 = 0x07;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

fn step(code: u16, value: u32) -> Instruction {
    Instruction {
        code,
        yes: 0,
        no: 0,
        value,
    }
}

fn ret(value: u32) -> Instruction {
    step(RETURN, value)
}

/// Puts the sender's number into the accumulator.
fn prelude() -> Vec<Instruction> {
    let v4 = [
        // The length of its header.
        step(LOAD_BYTE, HEADER),
        step(AND, 0x0F),
        step(SHIFT_LEFT, 2),
        step(TO_X, 0),
        step(LOAD_HALF_AT_X, HEADER),
        step(MULTIPLY, SPREAD),
        step(TO_X, 0),
        step(LOAD_WORD, HEADER.wrapping_add(12)),
    ];
    let v6 = [
        // Extension headers: the kernel's choice.
        step(LOAD_BYTE, HEADER.wrapping_add(6)),
        Instruction {
            yes: 1,
            ..step(IF_EQUAL, UDP)
        },
        ret(ANY),
        step(LOAD_HALF, HEADER.wrapping_add(40)),
        step(MULTIPLY, SPREAD),
        step(TO_X, 0),
        step(LOAD_WORD, HEADER.wrapping_add(20)),
    ];
    let mut all = vec![step(LOAD_BYTE, HEADER), step(SHIFT_RIGHT, 4)];
    all.push(Instruction {
        no: v4.len() as u8 + 1,
        ..step(IF_EQUAL, 4)
    });
    all.extend(v4);
    all.push(step(JUMP, v6.len() as u32));
    all.extend(v6);
    all.extend([step(ADD_X, 0), step(SHIFT_RIGHT, 1)]);
    all
}

/// The protocol's number in an IPv6 header.
const UDP: u32 = 17;

/// Finds the range that the accumulator is in, and ends with its shard.
fn search(ranges: &[(u32, Shard)]) -> Vec<Instruction> {
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let Some((from, shard)) = high.first() else {
        return vec![ret(ANY)];
    };
    if low.is_empty() {
        return vec![ret(shard.index() as u32)];
    }
    let below = search(low);
    let above = IF_AT_LEAST;
    let mut all = match u8::try_from(below.len()) {
        Ok(far) => vec![Instruction {
            yes: far,
            ..step(above, *from)
        }],
        // Only an unconditional jump goes further.
        Err(_) => vec![
            Instruction {
                no: 1,
                ..step(above, *from)
            },
            step(JUMP, below.len() as u32),
        ],
    };
    all.extend(below);
    all.extend(search(high));
    all
}

#[cfg(test)]
#[path = "steering_tests.rs"]
mod tests;
