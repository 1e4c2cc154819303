//! The numbered signals of a meeting.
//!
//! Owns numbers and memory. A hub at epoch E numbers from (E - 1) * 2^20 + 1 on, or from what it has
//! seen in a seed, whichever is higher: epochs rise for as long as a Meeting exists, so that numbers do,
//! and late seeds of former hubs can't collide with what this one numbered. The first hub begins with 1.
//!
//! Remembered are at most 1,000 entries, 1 MiB and ten minutes: what somebody can miss over a bad
//! connection, while a broadcast of half an hour ago is no news. Beyond these limits stays what the next
//! hub must know in order not to announce it again: the newest `breakout-room` and the timers that run.
//!
//! Invariants: an entry is never renumbered or replaced; of two that claim a number the first stays.

use std::collections::{BTreeMap, BTreeSet};

use plenum_protocol::Signal;
use plenum_worker_api::v1::MeetingEntry;

/// Entries remembered.
pub(super) const ENTRIES: usize = 1_000;
/// Their bytes.
pub(super) const BYTES: usize = 1024 * 1024;
/// And how long.
pub(super) const AGE_MS: i64 = 10 * 60 * 1000;
/// The largest number: JavaScript's largest safe integer.
pub(super) const MAX_SEQ: u64 = (1 << 53) - 1;
/// Numbers of one epoch, as a power of two.
const EPOCH_SHIFT: u32 = 20;
/// The largest entry that is taken from a seed.
const MAX_ENTRY: usize = 256 * 1024;
/// What an entry costs beside its text.
const OVERHEAD: usize = 64;

/// What the next hub must know of an entry.
enum Pin {
    Nothing,
    Rooms,
    Timer { rooms: Vec<String>, closes_at: i64 },
}

impl Pin {
    fn of(signal: Option<&Signal>) -> Self {
        match signal {
            Some(Signal::BreakoutRoom { .. }) => Pin::Rooms,
            Some(Signal::CountDownTimer { rooms, closes_at, .. }) => Pin::Timer {
                rooms: rooms.clone(),
                closes_at: *closes_at,
            },
            _ => Pin::Nothing,
        }
    }
}

struct Record {
    entry: MeetingEntry,
    pin: Pin,
}

fn cost(entry: &MeetingEntry) -> usize {
    entry.signal_json.len() + entry.audience_json.len() + OVERHEAD
}

/// What a meeting was told.
pub(super) struct Journal {
    records: BTreeMap<u64, Record>,
    bytes: usize,
    last: u64,
}

impl Journal {
    /// Of the hub at `epoch`.
    pub(super) fn new(epoch: u64) -> Self {
        let base = u128::from(epoch.saturating_sub(1)) << EPOCH_SHIFT;
        Self {
            records: BTreeMap::new(),
            bytes: 0,
            // Half of the numbers are left even to an absurd epoch.
            last: u64::try_from(base).unwrap_or(u64::MAX).min(MAX_SEQ / 2),
        }
    }

    /// The number before the next.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Numbers a signal. `None` where there are no numbers left.
    pub(super) fn push(
        &mut self,
        signal: &Signal,
        signal_json: String,
        audience_json: String,
        now_ms: i64,
    ) -> Option<u64> {
        let seq = self.last + 1;
        if seq > MAX_SEQ {
            return None;
        }
        self.insert(
            MeetingEntry {
                seq,
                at_ms: now_ms,
                signal_json,
                audience_json,
            },
            Pin::of(Some(signal)),
        );
        self.trim(now_ms);
        Some(seq)
    }

    /// Remembers what another hub has numbered. False: it has one of that number, or cannot take it.
    pub(super) fn take_over(&mut self, entry: MeetingEntry) -> bool {
        if !Self::plausible(&entry) || self.records.contains_key(&entry.seq) {
            return false;
        }
        // What is not known here was said by a newer version, and is for newer ones.
        let signal: Option<Signal> = serde_json::from_str(&entry.signal_json).ok();
        self.insert(entry, Pin::of(signal.as_ref()));
        true
    }

    /// Could a hub have numbered that?
    pub(super) fn plausible(entry: &MeetingEntry) -> bool {
        (1..MAX_SEQ).contains(&entry.seq) && cost(entry) <= MAX_ENTRY
    }

    fn insert(&mut self, entry: MeetingEntry, pin: Pin) {
        self.last = self.last.max(entry.seq);
        self.bytes += cost(&entry);
        self.records.insert(entry.seq, Record { entry, pin });
    }

    /// Entries with higher numbers, in order.
    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = &MeetingEntry> {
        self.records
            .range(seq.saturating_add(1)..)
            .map(|(_, record)| &record.entry)
    }

    /// All signals that this version knows, in order, with their times.
    pub(super) fn signals(&self) -> impl Iterator<Item = (i64, Signal)> {
        self.after(0)
            .filter_map(|entry| Some((entry.at_ms, serde_json::from_str(&entry.signal_json).ok()?)))
    }

    /// Forgets what is beyond the limits.
    pub(super) fn trim(&mut self, now_ms: i64) {
        let oldest = self.records.values().next().map_or(now_ms, |r| r.entry.at_ms);
        let too_old = |at_ms: i64| now_ms.saturating_sub(at_ms) > AGE_MS;
        if self.records.len() <= ENTRIES && self.bytes <= BYTES && !too_old(oldest) {
            return;
        }
        let pinned = self.pinned(now_ms);
        let mut gone = Vec::new();
        let (mut count, mut bytes) = (self.records.len(), self.bytes);
        for (seq, record) in &self.records {
            let over = count > ENTRIES || bytes > BYTES;
            if !pinned.contains(seq) && (over || too_old(record.entry.at_ms)) {
                count -= 1;
                bytes -= cost(&record.entry);
                gone.push(*seq);
            }
        }
        for seq in gone {
            self.records.remove(&seq);
        }
        self.bytes = bytes;
    }

    fn pinned(&self, now_ms: i64) -> BTreeSet<u64> {
        let mut pinned = BTreeSet::new();
        let (mut rooms_seen, mut timed) = (false, BTreeSet::new());
        for (seq, record) in self.records.iter().rev() {
            let keep = match &record.pin {
                Pin::Nothing => false,
                Pin::Rooms => !std::mem::replace(&mut rooms_seen, true),
                Pin::Timer { rooms, closes_at } => {
                    let news = rooms.iter().filter(|room| timed.insert(room.as_str())).count();
                    news > 0 && *closes_at > now_ms
                }
            };
            if keep {
                pinned.insert(*seq);
            }
        }
        pinned
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.records.len(), self.bytes)
    }
}
