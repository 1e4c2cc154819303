//! What a subscriber says about the packets it got, draft-holmer-rmcat-transport-wide-cc-extensions-01.
//!
//! Owns the reading of a feedback packet and the record of what was sent. Invariants: reading is total,
//! takes nothing from a packet that is malformed anywhere, and allocates nothing; the record is a ring by
//! sequence number that never holds more than [`MAX_HISTORY`] packets.

use super::Micros;

/// Header, two SSRCs, and the fixed part of the feedback.
const FIXED: usize = 20;
/// Unit of the reference time, and of a delta.
const REFERENCE: Micros = 64_000;
const TICK: Micros = 250;

/// No path brings more packets between two feedbacks; a run-length chunk could tell of any number.
const MAX_STATUSES: u16 = 4096;

/// Slots at first, and at most; powers of two. A second of 60 Mbit/s fits.
const MIN_HISTORY: usize = 256;
const MAX_HISTORY: usize = 8192;
/// A packet that makes room for a new one within this time makes the ring grow.
const REMEMBERED: Micros = 2_000_000;

/// A feedback packet that was found sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feedback<'a> {
    base: u16,
    count: u16,
    /// In 64 ms, 24 bits.
    reference: u32,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Reads one whole RTCP packet, its header included.
    pub(crate) fn parse(packet: &'a [u8]) -> Option<Self> {
        let (head, mut body) = packet.split_at_checked(FIXED)?;
        let [b0, kind, .., base0, base1, count0, count1, r0, r1, r2, _number] = head else {
            return None;
        };
        if b0 >> 6 != 2 || b0 & 0x1F != 15 || *kind != 205 {
            return None;
        }
        if b0 & 0x20 != 0 {
            let padding = usize::from(*body.last()?);
            if padding == 0 {
                return None;
            }
            body = body.get(..body.len().checked_sub(padding)?)?;
        }
        let count = u16::from_be_bytes([*count0, *count1]);
        if count > MAX_STATUSES {
            return None;
        }
        let (mut left, mut at, mut wanted) = (usize::from(count), 0, 0);
        while left > 0 {
            let chunk = Chunk::at(body, at)?;
            at += 2;
            for i in 0..chunk.len().min(left) {
                wanted += match chunk.symbol(i) {
                    0 => 0,
                    1 => 1,
                    2 => 2,
                    _ => return None,
                };
            }
            left = left.saturating_sub(chunk.len());
        }
        let (chunks, deltas) = body.split_at_checked(at)?;
        if deltas.len() < wanted {
            return None;
        }
        Some(Feedback {
            base: u16::from_be_bytes([*base0, *base1]),
            count,
            reference: u32::from_be_bytes([0, *r0, *r1, *r2]),
            chunks,
            deltas,
        })
    }

    /// Every packet spoken of in order: its number, and when it came by the receiver's clock relative to
    /// the reference time. `None`: it had not come.
    pub(crate) fn statuses(&self) -> Statuses<'a> {
        Statuses {
            next: self.base,
            left: usize::from(self.count),
            chunks: self.chunks,
            place: 0,
            deltas: self.deltas,
            at: 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    fn at(bytes: &[u8], at: usize) -> Option<Chunk> {
        let b = bytes.get(at..at + 2)?;
        Some(Chunk(u16::from_be_bytes([b[0], b[1]])))
    }

    fn len(self) -> usize {
        match self.0 >> 14 {
            0 | 1 => usize::from(self.0 & 0x1FFF),
            2 => 14,
            _ => 7,
        }
    }

    fn symbol(self, i: usize) -> u8 {
        let bits = match self.0 >> 14 {
            0 | 1 => self.0 >> 13 & 3,
            2 => self.0 >> (13 - i.min(13)) & 1,
            _ => self.0 >> (12 - 2 * i.min(6)) & 3,
        };
        bits as u8
    }
}

/// Iterator of [`Feedback::statuses`].
#[derive(Debug, Clone)]
pub(crate) struct Statuses<'a> {
    next: u16,
    left: usize,
    chunks: &'a [u8],
    place: usize,
    deltas: &'a [u8],
    at: Micros,
}

impl Iterator for Statuses<'_> {
    type Item = (u16, Option<Micros>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let mut chunk = Chunk::at(self.chunks, 0)?;
        while self.place >= chunk.len() {
            self.chunks = self.chunks.get(2..)?;
            self.place = 0;
            chunk = Chunk::at(self.chunks, 0)?;
        }
        let delta = match chunk.symbol(self.place) {
            1 => {
                let (first, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                Some(Micros::from(*first))
            }
            2 => {
                let (first, rest) = self.deltas.split_first_chunk::<2>()?;
                self.deltas = rest;
                Some(Micros::from(i16::from_be_bytes(*first)))
            }
            _ => None,
        };
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.place += 1;
        self.left -= 1;
        let arrival = delta.map(|d| {
            self.at += d * TICK;
            self.at
        });
        Some((number, arrival))
    }
}

/// Reference times of successive feedback on one line, whatever wraps.
#[derive(Debug, Default)]
pub(crate) struct ReceiverClock {
    last: Option<(u32, Micros)>,
}

impl ReceiverClock {
    /// The reference time of `f` by the receiver's clock.
    pub(crate) fn reference(&mut self, f: &Feedback<'_>) -> Micros {
        let at = match self.last {
            None => Micros::from(f.reference) * REFERENCE,
            Some((last, at)) => {
                let forward = f.reference.wrapping_sub(last) & 0xFF_FFFF;
                // The nearer way round.
                let step = Micros::from(forward) - if forward >= 0x80_0000 { 0x100_0000 } else { 0 };
                at + step * REFERENCE
            }
        };
        self.last = Some((f.reference, at));
        at
    }
}

/// A packet as it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) at: Micros,
    pub(crate) size: u16,
    /// The probe it belongs to; 0: none.
    pub(crate) probe: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    InFlight,
    Missing,
    Received,
}

/// A [`Sent`] with its number, without the gaps that would leave: there are many.
#[derive(Debug, Clone, Copy)]
struct Slot {
    at: Micros,
    size: u16,
    sequence: u16,
    probe: u8,
    state: State,
}

const FREE: Slot = Slot {
    at: 0,
    size: 0,
    sequence: 0,
    probe: 0,
    state: State::Free,
};

impl Slot {
    fn sent(&self) -> Sent {
        Sent {
            at: self.at,
            size: self.size,
            probe: self.probe,
        }
    }
}

/// What was sent, by number.
#[derive(Debug)]
pub(crate) struct History {
    slots: Vec<Slot>,
}

impl History {
    pub(crate) fn new() -> Self {
        History {
            slots: vec![FREE; MIN_HISTORY],
        }
    }

    /// Notes a packet that leaves.
    pub(crate) fn insert(&mut self, sequence: u16, sent: Sent) {
        let old = self.slot(sequence).map_or(FREE, |s| *s);
        if old.state == State::InFlight && sent.at - old.at < REMEMBERED && self.slots.len() < MAX_HISTORY {
            self.grow();
        }
        if let Some(slot) = self.slot(sequence) {
            *slot = Slot {
                at: sent.at,
                size: sent.size,
                sequence,
                probe: sent.probe,
                state: State::InFlight,
            };
        }
    }

    /// The packet came. `true` beside it: it had been told missing before.
    pub(crate) fn received(&mut self, sequence: u16) -> Option<(Sent, bool)> {
        let slot = self.slot(sequence).filter(|s| s.sequence == sequence)?;
        let late = match slot.state {
            State::InFlight => false,
            State::Missing => true,
            State::Free | State::Received => return None,
        };
        slot.state = State::Received;
        Some((slot.sent(), late))
    }

    /// The packet had not come. `None` where that is no news.
    pub(crate) fn missing(&mut self, sequence: u16) -> Option<Sent> {
        let slot = self.slot(sequence)?;
        if slot.sequence != sequence || slot.state != State::InFlight {
            return None;
        }
        slot.state = State::Missing;
        Some(slot.sent())
    }

    fn slot(&mut self, sequence: u16) -> Option<&mut Slot> {
        let at = usize::from(sequence) & (self.slots.len() - 1);
        self.slots.get_mut(at)
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![FREE; old.len() * 2];
        for kept in old.into_iter().filter(|s| s.state != State::Free) {
            if let Some(slot) = self.slot(kept.sequence) {
                *slot = kept;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::twcc::Recorder;
    use super::*;
    use std::time::{Duration, Instant};

    fn sent(at: Micros) -> Sent {
        Sent {
            at,
            size: 100,
            probe: 0,
        }
    }

    /// Everything our own recorder writes is read back, number by number.
    #[test]
    fn what_a_receiver_writes_is_read() {
        for seed in 1..40u64 {
            let mut random = super::super::link::Random::new(seed);
            let t = Instant::now();
            let mut recorder = Recorder::new(t);
            let mut at = 0u64;
            let mut want = Vec::new();
            let base = random.below(65_536) as u16;
            for i in 0..400u16 {
                let pause = if random.below(40) == 0 { 200_000 } else { 3_000 };
                at += random.below(pause);
                if random.below(10) < 2 {
                    continue;
                }
                let number = base.wrapping_add(i);
                recorder.record(number, t + Duration::from_micros(at));
                want.push((number, at as Micros));
            }
            let mut clock = ReceiverClock::default();
            let mut got = Vec::new();
            while let Some(raw) = recorder.feedback(1, 2) {
                let f = Feedback::parse(&raw).unwrap();
                let reference = clock.reference(&f);
                got.extend(
                    f.statuses()
                        .filter_map(|(number, at)| Some((number, reference + at?))),
                );
            }
            assert_eq!(got.len(), want.len(), "seed {seed}");
            for (g, w) in got.iter().zip(&want) {
                assert_eq!(g.0, w.0);
                assert!((g.1 - w.1).abs() <= TICK, "{g:?} {w:?}");
            }
        }
    }

    fn raw(count: u16, chunks: &[u16], deltas: &[u8]) -> Vec<u8> {
        let mut out = vec![0x8F, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 10];
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&[0, 0, 1, 0]);
        out.extend(chunks.iter().flat_map(|c| c.to_be_bytes()));
        out.extend_from_slice(deltas);
        out
    }

    #[test]
    fn every_kind_of_chunk() {
        // Run of two small, one-bit vector of 14, two-bit vector of 7 of which three count.
        let packet = raw(
            19,
            &[0x2002, 0x8000 | 0x2000 | 1, 0xC000 | 0b01_10_00_00_00_00_00],
            &[4, 8, 12, 16, 20, 0xFF, 0xFC],
        );
        let all: Vec<_> = Feedback::parse(&packet).unwrap().statuses().collect();
        assert_eq!(all.len(), 19);
        let came: Vec<_> = all.iter().filter_map(|(n, at)| Some((*n, (*at)?))).collect();
        assert_eq!(
            came,
            vec![
                (10, 1_000),
                (11, 3_000),
                (12, 6_000),
                (25, 10_000),
                (26, 15_000),
                (27, 14_000)
            ]
        );
    }

    #[test]
    fn the_malformed_is_refused_whole() {
        let good = raw(3, &[0x2003], &[1, 2, 3]);
        assert!(Feedback::parse(&good).is_some());
        for end in 0..good.len() {
            assert!(Feedback::parse(&good[..end]).is_none(), "{end}");
        }
        assert!(
            Feedback::parse(&raw(3, &[0x6003], &[0; 9])).is_none(),
            "reserved symbol"
        );
        assert!(
            Feedback::parse(&raw(9, &[0x2003], &[0; 2])).is_none(),
            "fewer symbols than told"
        );
        assert!(
            Feedback::parse(&raw(9, &[0x2000, 0x2000], &[])).is_none(),
            "empty runs"
        );
        assert!(
            Feedback::parse(&raw(4097, &[0x1001], &[])).is_none(),
            "more than there can be"
        );
        assert!(Feedback::parse(&raw(4096, &[0x1000], &[])).is_some());
        let mut padded = good.clone();
        padded[0] |= 0x20;
        assert!(Feedback::parse(&padded).is_none(), "padding would eat a delta");
        let mut random = super::super::link::Random::new(7);
        for _ in 0..20_000 {
            let len = random.below(60) as usize;
            let mut noise: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
            if let [b0, b1, ..] = noise.as_mut_slice() {
                (*b0, *b1) = (0x8F | *b0 & 0x20, 205);
            }
            if let Some(f) = Feedback::parse(&noise) {
                assert_eq!(f.statuses().count(), usize::from(f.count));
            }
        }
    }

    #[test]
    fn the_receivers_clock_wraps() {
        let mut clock = ReceiverClock::default();
        let at = |reference: u32| Feedback {
            base: 0,
            count: 0,
            reference,
            chunks: &[],
            deltas: &[],
        };
        let a = clock.reference(&at(0xFF_FFFE));
        assert_eq!(clock.reference(&at(2)) - a, 4 * REFERENCE);
        assert_eq!(clock.reference(&at(0xFF_FFFF)) - a, REFERENCE);
    }

    #[test]
    fn each_packet_is_told_once() {
        let mut h = History::new();
        h.insert(65_535, sent(1));
        h.insert(0, sent(2));
        assert_eq!(h.missing(0), Some(sent(2)));
        assert_eq!(h.missing(0), None);
        assert_eq!(
            h.received(0),
            Some((sent(2), true)),
            "late is better than missing"
        );
        assert_eq!(h.received(0), None);
        assert_eq!(h.received(65_535), Some((sent(1), false)));
        assert_eq!(h.missing(65_535), None, "what came isn't missing later");
        assert_eq!(h.received(5), None, "never sent");
        assert_eq!(h.received(256), None, "another number in the same slot");
    }

    #[test]
    fn the_history_grows_with_what_is_in_flight_and_no_further() {
        let mut h = History::new();
        for i in 0..5_000u16 {
            h.insert(i, sent(i64::from(i)));
        }
        assert_eq!(h.slots.len(), MAX_HISTORY);
        assert_eq!(h.received(0), Some((sent(0), false)));
        for i in 5_000..60_000u16 {
            h.insert(i, sent(i64::from(i)));
        }
        assert_eq!(h.slots.len(), MAX_HISTORY);
        let mut slow = History::new();
        for i in 0..5_000u16 {
            slow.insert(i, sent(i64::from(i) * 20_000));
        }
        assert_eq!(slow.slots.len(), MIN_HISTORY, "what is older is given up");
    }
}
