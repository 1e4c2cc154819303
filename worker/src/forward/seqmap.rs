//! Maps the sequence numbers of what arrives to the numbers of what leaves.
//!
//! Owns the offsets of one subscription. Invariants: two packets of one source never leave with the
//! same number; a late packet leaves with the offset that was in force where it belongs, so that a
//! dropped or switched packet later in the stream doesn't move it.

use std::collections::VecDeque;

/// A late packet older than this many changes of offset is dropped.
const MAX_RANGES: usize = 128;

#[derive(Debug, Clone, Copy)]
struct Range {
    /// First input number under this offset.
    start: u64,
    /// Added to an input number; two's complement.
    offset: u64,
}

/// Extended input number to extended output number.
#[derive(Debug, Clone)]
pub(crate) struct SequenceMap {
    ranges: VecDeque<Range>,
    /// Numbers dropped on purpose, so that they are never handed out.
    dropped: VecDeque<u64>,
    next_out: u64,
    highest_in: Option<u64>,
}

impl SequenceMap {
    /// The first packet leaves with `first`.
    pub(crate) fn new(first: u64) -> Self {
        SequenceMap {
            ranges: VecDeque::new(),
            dropped: VecDeque::new(),
            next_out: first,
            highest_in: None,
        }
    }

    /// The source changes: its packet `start` is the next to leave. What is older than it is dropped.
    pub(crate) fn switch(&mut self, start: u64) {
        self.ranges.clear();
        self.dropped.clear();
        self.ranges.push_back(Range {
            start,
            offset: self.next_out.wrapping_sub(start),
        });
        self.highest_in = None;
    }

    /// The output number of input `sequence`; `None` before the first switch or too late.
    pub(crate) fn map(&mut self, sequence: u64) -> Option<u64> {
        let range = self.ranges.iter().rev().find(|r| r.start <= sequence)?;
        if self.dropped.contains(&sequence) {
            return None;
        }
        let out = sequence.wrapping_add(range.offset);
        if self.highest_in.is_none_or(|h| sequence > h) {
            self.highest_in = Some(sequence);
            self.next_out = out.wrapping_add(1);
        }
        Some(out)
    }

    /// Input `sequence` isn't forwarded. If it is the newest, the gap closes and `true` is returned;
    /// otherwise its number was already left open and the receiver sees a loss.
    pub(crate) fn drop_packet(&mut self, sequence: u64) -> bool {
        let Some(last) = self.ranges.back().copied() else {
            return false;
        };
        if self.highest_in.is_some_and(|h| sequence <= h) || sequence < last.start {
            return false;
        }
        self.highest_in = Some(sequence);
        self.next_out = sequence.wrapping_add(last.offset);
        self.ranges.push_back(Range {
            start: sequence + 1,
            offset: last.offset.wrapping_sub(1),
        });
        self.dropped.push_back(sequence);
        while self.ranges.len() > MAX_RANGES {
            self.ranges.pop_front();
        }
        while self.dropped.len() > MAX_RANGES {
            self.dropped.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_stay_gaps_and_drops_close() {
        let mut m = SequenceMap::new(1000);
        assert_eq!(m.map(5), None);
        m.switch(50);
        assert_eq!(m.map(50), Some(1000));
        assert_eq!(m.map(52), Some(1002));
        assert!(m.drop_packet(53));
        assert_eq!(m.map(54), Some(1003));
        assert_eq!(m.map(51), Some(1001), "late packet keeps the older offset");
        assert_eq!(m.map(49), None, "before the switch");
        assert_eq!(m.map(53), None, "dropped stays dropped");
        assert!(!m.drop_packet(52));
    }

    #[test]
    fn a_switch_continues_without_a_hole() {
        let mut m = SequenceMap::new(10);
        m.switch(1);
        assert_eq!(m.map(1), Some(10));
        assert_eq!(m.map(2), Some(11));
        m.switch(9000);
        assert_eq!(m.map(9000), Some(12));
        assert_eq!(m.map(9002), Some(14));
        assert_eq!(m.map(9001), Some(13));
    }

    #[test]
    fn no_number_leaves_twice() {
        let mut m = SequenceMap::new(0);
        m.switch(0);
        let mut seen = std::collections::HashSet::new();
        for i in 0..2000u64 {
            if i % 7 == 3 {
                m.drop_packet(i);
            } else if let Some(o) = m.map(i) {
                assert!(seen.insert(o));
            }
        }
        // All but the drops left, densely.
        assert_eq!(seen.len() as u64, seen.iter().max().unwrap() + 1);
    }
}
