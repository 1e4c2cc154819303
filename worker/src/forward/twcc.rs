//! Transport-wide congestion control feedback, draft-holmer-rmcat-transport-wide-cc-extensions-01.
//!
//! Owns the arrival times of every packet of one leg that carries the extension (media, RTX and padding
//! alike: the sender's estimator needs all of them) and writes the feedback. Pure: takes `now`.
//! Invariant: one feedback covers at most [`MAX_SPAN`] numbers and never one number twice, except that a
//! packet reordered past a feedback is reported in the next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::packet::Unwrapper;

/// Numbers covered by one feedback.
const MAX_SPAN: u64 = 1000;
/// How far back a late packet is still reported.
const WINDOW: u64 = 500;
/// Reference time is in multiples of 64 ms, deltas of 250 µs.
const REFERENCE: Duration = Duration::from_millis(64);
const TICK: u128 = 250;

/// Arrival times by number, in a row.
#[derive(Debug, Default)]
struct Arrivals {
    /// Number of the first in the row. The first and the last of a row are times.
    first: u64,
    row: VecDeque<Option<Instant>>,
    count: usize,
}

impl Arrivals {
    fn clear(&mut self) {
        self.row.clear();
        self.count = 0;
    }

    /// Keeps the first time of a number that is at most [`MAX_SPAN`] times ten from the others.
    fn insert(&mut self, number: u64, at: Instant) {
        if self.row.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.first -= 1;
            self.row.push_front(None);
        }
        let place = (number - self.first) as usize;
        if self.row.len() <= place {
            self.row.resize(place + 1, None);
        }
        if let Some(slot @ None) = self.row.get_mut(place) {
            *slot = Some(at);
            self.count += 1;
        }
    }

    fn get(&self, number: u64) -> Option<Instant> {
        let place = number.checked_sub(self.first)?;
        self.row.get(usize::try_from(place).ok()?).copied().flatten()
    }

    fn first(&self) -> Option<(u64, Instant)> {
        Some((self.first, self.row.front().copied().flatten()?))
    }

    fn last(&self) -> Option<u64> {
        (!self.row.is_empty()).then(|| self.first + self.row.len() as u64 - 1)
    }

    /// Forgets what is below `number`.
    fn forget(&mut self, number: u64) {
        while self.first < number || matches!(self.row.front(), Some(None)) {
            match self.row.pop_front() {
                Some(slot) => self.count -= usize::from(slot.is_some()),
                None => return,
            }
            self.first += 1;
        }
    }
}

/// Arrival times of one leg.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    unwrapper: Unwrapper,
    arrivals: Arrivals,
    /// The first number the next feedback covers.
    next: Option<u64>,
    count: u8,
}

impl Recorder {
    pub(crate) fn new(start: Instant) -> Self {
        Recorder {
            start,
            unwrapper: Unwrapper::default(),
            arrivals: Arrivals::default(),
            next: None,
            count: 0,
        }
    }

    /// Notes a packet's arrival.
    pub(crate) fn record(&mut self, sequence: u16, now: Instant) {
        let extended = self.unwrapper.unwrap(sequence);
        match self.next {
            None => self.next = Some(extended),
            // Late: begin the next feedback there, or forget it.
            Some(next) if extended < next => {
                if next - extended > WINDOW {
                    return;
                }
                self.next = Some(extended);
            }
            Some(next) if extended - next > 10 * MAX_SPAN => {
                // A jump: what lies between isn't worth reporting.
                self.arrivals.clear();
                self.next = Some(extended);
            }
            Some(_) => {}
        }
        self.arrivals.insert(extended, now);
    }

    /// Packets waiting to be reported.
    pub(crate) fn pending(&self) -> usize {
        self.arrivals.count
    }

    /// One feedback packet about everything since the last, or `None`. Call until `None`.
    pub(crate) fn feedback(&mut self, sender: u32, media: u32) -> Option<Vec<u8>> {
        let (first_received, first_at) = self.arrivals.first()?;
        let last = self.arrivals.last()?;
        let base = self
            .next?
            .max(first_received.saturating_sub(MAX_SPAN / 2))
            .min(first_received);
        let end = last.min(base + MAX_SPAN - 1);

        let reference = first_at.saturating_duration_since(self.start).as_nanos() / REFERENCE.as_nanos();
        let mut clock = reference * (REFERENCE.as_micros() / TICK);
        let mut symbols: Vec<u8> = Vec::with_capacity((end - base + 1) as usize);
        let mut deltas: Vec<u8> = Vec::with_capacity(symbols.capacity() * 2);
        let mut covered = base;
        for number in base..=end {
            match self.arrivals.get(number) {
                None => symbols.push(0),
                Some(at) => {
                    let ticks = at.saturating_duration_since(self.start).as_micros() / TICK;
                    let delta = ticks as i128 - clock as i128;
                    if let Ok(small) = u8::try_from(delta) {
                        symbols.push(1);
                        deltas.push(small);
                    } else if let Ok(large) = i16::try_from(delta) {
                        symbols.push(2);
                        deltas.extend_from_slice(&large.to_be_bytes());
                    } else {
                        break; // too far apart for one feedback
                    }
                    clock = ticks;
                }
            }
            covered = number + 1;
        }
        if covered == base {
            // Not reachable with a reference taken from the first arrival; never loop on it.
            self.arrivals.clear();
            return None;
        }
        self.arrivals.forget(covered);
        self.next = Some(covered);
        Some(self.write(sender, media, base as u16, reference as u32, &symbols, &deltas))
    }

    fn write(
        &mut self,
        sender: u32,
        media: u32,
        base: u16,
        reference: u32,
        symbols: &[u8],
        deltas: &[u8],
    ) -> Vec<u8> {
        let chunks = pack(symbols);
        let body = 8 + chunks.len() * 2 + deltas.len();
        let padded = body.next_multiple_of(4);
        let mut out = Vec::with_capacity(12 + padded);
        let padding = (padded - body) as u8;
        out.push(0x80 | if padding > 0 { 0x20 } else { 0 } | 15);
        out.push(205);
        out.extend_from_slice(&((2 + padded / 4) as u16).to_be_bytes());
        out.extend_from_slice(&sender.to_be_bytes());
        out.extend_from_slice(&media.to_be_bytes());
        out.extend_from_slice(&base.to_be_bytes());
        out.extend_from_slice(&(symbols.len() as u16).to_be_bytes());
        out.extend_from_slice(&(reference << 8 | u32::from(self.count)).to_be_bytes());
        self.count = self.count.wrapping_add(1);
        for c in chunks {
            out.extend_from_slice(&c.to_be_bytes());
        }
        out.extend_from_slice(deltas);
        out.resize(12 + padded, 0);
        if padding > 0
            && let Some(last) = out.last_mut()
        {
            *last = padding;
        }
        out
    }
}

/// Packs symbols into run-length chunks where that pays, two-bit vectors elsewhere.
fn pack(mut symbols: &[u8]) -> Vec<u16> {
    let mut chunks = Vec::with_capacity(symbols.len().div_ceil(7));
    while let Some(&first) = symbols.first() {
        let run = symbols.iter().take_while(|s| **s == first).count().min(0x1FFF);
        if run >= 7 || run == symbols.len() {
            chunks.push(u16::from(first) << 13 | run as u16);
            symbols = symbols.get(run..).unwrap_or_default();
        } else {
            let take = symbols.len().min(7);
            let mut chunk = 0xC000;
            for (i, s) in symbols.iter().take(take).enumerate() {
                chunk |= u16::from(*s) << (12 - 2 * i);
            }
            chunks.push(chunk);
            symbols = symbols.get(take..).unwrap_or_default();
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
    };
    use rtc::shared::marshal::Unmarshal;

    /// Received numbers with their arrival in µs, as the library understands our packet.
    fn read(raw: &[u8]) -> Vec<(u16, i64)> {
        let p = TransportLayerCc::unmarshal(&mut &raw[..]).unwrap();
        let mut symbols = Vec::new();
        for c in &p.packet_chunks {
            match c {
                PacketStatusChunk::RunLengthChunk(r) => {
                    symbols.extend((0..r.run_length).map(|_| r.packet_status_symbol));
                }
                PacketStatusChunk::StatusVectorChunk(v) => symbols.extend(v.symbol_list.iter().copied()),
            }
        }
        symbols.truncate(usize::from(p.packet_status_count));
        let mut at = i64::from(p.reference_time) * 64_000;
        let mut deltas = p.recv_deltas.iter();
        let mut out = Vec::new();
        for (i, s) in symbols.iter().enumerate() {
            if *s != SymbolTypeTcc::PacketNotReceived {
                at += deltas.next().unwrap().delta;
                out.push((p.base_sequence_number.wrapping_add(i as u16), at));
            }
        }
        out
    }

    #[test]
    fn the_library_reads_our_feedback() {
        let t = Instant::now();
        let mut r = Recorder::new(t);
        let mut want = Vec::new();
        for i in 0..200u16 {
            if i % 13 == 5 {
                continue;
            }
            let at = u64::from(i) * 3_000 + if i % 50 == 0 { 70_000 } else { 0 };
            r.record(65_500u16.wrapping_add(i), t + Duration::from_micros(at));
            want.push((65_500u16.wrapping_add(i), at as i64));
        }
        let mut got = Vec::new();
        while let Some(raw) = r.feedback(1, 2) {
            assert_eq!(raw.len() % 4, 0);
            got.extend(read(&raw));
        }
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(&want) {
            assert_eq!(g.0, w.0);
            assert!((g.1 - w.1).abs() <= 250, "{g:?} {w:?}");
        }
        assert_eq!(r.pending(), 0);
    }

    #[test]
    fn long_silence_splits_and_late_packets_are_reported() {
        let t = Instant::now();
        let mut r = Recorder::new(t);
        r.record(1, t);
        r.record(2, t + Duration::from_secs(60));
        let mut n = 0;
        while let Some(raw) = r.feedback(1, 2) {
            n += read(&raw).len();
        }
        assert_eq!(n, 2);
        r.record(5, t + Duration::from_secs(61));
        assert_eq!(read(&r.feedback(1, 2).unwrap()).len(), 1);
        r.record(4, t + Duration::from_secs(61));
        assert_eq!(read(&r.feedback(1, 2).unwrap()), vec![(4, 61_000_000)]);
        r.record(40_000, t + Duration::from_secs(62));
        while r.feedback(1, 2).is_some() {}
        assert_eq!(r.pending(), 0);
    }
}
