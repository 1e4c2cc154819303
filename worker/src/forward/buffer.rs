//! The packets of one incoming stream, for all its subscribers: those of this turn to be forwarded, those
//! before to be asked for again.
//!
//! Owns one ring of bytes per published layer. Invariants: a packet is found by its own sequence number or
//! not at all; what came in at one `now` is still there at the end of it; the ring grows until one round of
//! it takes [`KEPT`], up to [`MOST`] bytes, and from then on nothing is allocated.

use std::time::{Duration, Instant};

/// Numbers that are told apart: more than a packet may be late by.
const NUMBERS: usize = 512;
/// A packet is of use for so long.
const KEPT: Duration = Duration::from_millis(1000);
const FIRST: usize = 16 * 1024;
/// Twice what one turn can bring.
const MOST: usize = 1024 * 1024;
/// Longer packets are none of ours.
const LONGEST: usize = 2048;

/// Where a packet is.
#[derive(Debug, Clone, Copy)]
struct Place {
    sequence: u64,
    round: u32,
    start: u32,
    len: u16,
}

/// Ring of packets.
#[derive(Debug, Default)]
pub(crate) struct PacketBuffer {
    places: Vec<Option<Place>>,
    bytes: Vec<u8>,
    /// Where the next packet goes, and in which round.
    head: usize,
    round: u32,
    began: Option<Instant>,
    /// The present moment, and the bytes that came at it.
    turn: Option<Instant>,
    turn_bytes: usize,
}

impl PacketBuffer {
    /// Keeps a packet, in place of the oldest ones. One that is too late to be kept is not.
    pub(crate) fn insert(&mut self, sequence: u64, packet: &[u8], now: Instant) {
        let len = packet.len();
        if len > LONGEST || self.place(sequence).is_some_and(|p| p.sequence > sequence) {
            return;
        }
        if self.places.is_empty() {
            self.places.resize(NUMBERS, None);
            self.bytes.resize(FIRST, 0);
        }
        if self.turn != Some(now) {
            self.turn = Some(now);
            self.turn_bytes = 0;
        }
        self.turn_bytes += len;
        if self.turn_bytes > self.bytes.len() / 2 {
            self.grow();
        }
        let began = *self.began.get_or_insert(now);
        if self.head + len > self.bytes.len() && now.saturating_duration_since(began) < KEPT {
            self.grow();
        }
        if self.head + len > self.bytes.len() {
            self.head = 0;
            self.round = self.round.wrapping_add(1);
            self.began = Some(now);
        }
        let start = self.head;
        if let Some(to) = self.bytes.get_mut(start..start + len) {
            to.copy_from_slice(packet);
        }
        self.head = start + len;
        if let Some(place) = self.places.get_mut(sequence as usize % NUMBERS) {
            *place = Some(Place {
                sequence,
                round: self.round,
                start: start as u32,
                len: len as u16,
            });
        }
    }

    /// What is there stays where it is, and the round goes on.
    fn grow(&mut self) {
        let size = (self.bytes.len() * 2).min(MOST);
        self.bytes.resize(size, 0);
    }

    fn place(&self, sequence: u64) -> Option<Place> {
        self.places.get(sequence as usize % NUMBERS).copied().flatten()
    }

    /// The packet, if it is still there.
    pub(crate) fn get(&self, sequence: u64) -> Option<&[u8]> {
        let place = self.place(sequence).filter(|p| p.sequence == sequence)?;
        let start = place.start as usize;
        let there = match self.round.wrapping_sub(place.round) {
            0 => true,
            // This round has come as far as `head`.
            1 => start >= self.head,
            _ => false,
        };
        let bytes = self.bytes.get(start..start + usize::from(place.len))?;
        there.then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u64, len: usize) -> Vec<u8> {
        (0..len).map(|i| (sequence as usize * 31 + i) as u8).collect()
    }

    #[test]
    fn old_packets_make_room() {
        let t = Instant::now();
        let mut b = PacketBuffer::default();
        assert!(b.get(1).is_none());
        b.insert(1, b"a", t);
        b.insert(1 + NUMBERS as u64, b"b", t);
        assert!(b.get(1).is_none());
        assert_eq!(b.get(1 + NUMBERS as u64).unwrap(), b"b");
        b.insert(1, b"late", t);
        assert!(b.get(1).is_none(), "a late packet doesn't displace a newer one");
        b.insert(2, &[0; LONGEST + 1], t);
        assert!(b.get(2).is_none());
    }

    /// Whatever the pace, what is found is what was put in, and a turn's packets are all found in it.
    #[test]
    fn what_is_found_is_whole_at_any_pace() {
        for (per_turn, gap_ms, len) in [
            (1, 3, 1150),
            (10, 33, 1150),
            (100, 1, 2000),
            (1, 20, 90),
            (200, 5000, 1500),
        ] {
            let t = Instant::now();
            let mut b = PacketBuffer::default();
            let mut next = 0_u64;
            for turn in 0..200_u64 {
                let now = t + Duration::from_millis(turn * gap_ms);
                let first = next;
                for _ in 0..per_turn {
                    b.insert(next, &packet(next, len - next as usize % 50), now);
                    next += 1;
                }
                for s in first..next {
                    assert_eq!(b.get(s).unwrap(), packet(s, len - s as usize % 50));
                }
                for s in 0..first {
                    if let Some(found) = b.get(s) {
                        assert_eq!(found, packet(s, len - s as usize % 50));
                    }
                }
            }
            assert!(b.bytes.len() <= MOST);
        }
    }

    #[test]
    fn a_second_is_kept_and_no_more_than_needed() {
        let t = Instant::now();
        let mut b = PacketBuffer::default();
        // 300 packets per second, then silence of a kind.
        for s in 0..3000_u64 {
            b.insert(s, &packet(s, 1150), t + Duration::from_micros(s * 3333));
        }
        for s in 2700..3000 {
            assert!(b.get(s).is_some(), "{s}");
        }
        assert!(b.bytes.len() <= 1024 * 1024);
        let audio = |b: &mut PacketBuffer| {
            for s in 0..3000_u64 {
                b.insert(s, &packet(s, 100), t + Duration::from_millis(s * 20));
            }
        };
        let mut b = PacketBuffer::default();
        audio(&mut b);
        assert_eq!(b.bytes.len(), FIRST);
    }
}
