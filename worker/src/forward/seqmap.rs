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
    /// Added to an input number; two's complement. `None`: nothing of it leaves.
    offset: Option<u64>,
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

    /// The number of the next packet to leave; none that left is as high.
    pub(crate) fn next_out(&self) -> u64 {
        self.next_out
    }

    /// The source changes: its packet `start` is the next to leave. What is older than it is dropped.
    pub(crate) fn switch(&mut self, start: u64) {
        self.ranges.clear();
        self.dropped.clear();
        self.ranges.push_back(Range {
            start,
            offset: Some(self.next_out.wrapping_sub(start)),
        });
        self.highest_in = None;
    }

    /// Nothing that is newer than what left so far is forwarded, until [`Self::resume`].
    pub(crate) fn pause(&mut self) {
        match (self.highest_in, self.ranges.back_mut()) {
            (_, Some(Range { offset: None, .. }) | None) => {}
            // What is missing just before gets no number either: it would be that of the next to leave.
            (Some(highest), _) => self.push(Range {
                start: highest + 1,
                offset: None,
            }),
            (None, Some(last)) => last.offset = None,
        }
    }

    /// After a pause: input `sequence`, which is newer than any before, is the next to leave.
    pub(crate) fn resume(&mut self, sequence: u64) {
        if matches!(self.ranges.back(), Some(Range { offset: None, .. })) {
            self.push(Range {
                start: sequence,
                offset: Some(self.next_out.wrapping_sub(sequence)),
            });
        }
    }

    fn push(&mut self, range: Range) {
        self.ranges.push_back(range);
        while self.ranges.len() > MAX_RANGES {
            self.ranges.pop_front();
        }
    }

    /// The output number of input `sequence`; `None` before the first switch or too late.
    pub(crate) fn map(&mut self, sequence: u64) -> Option<u64> {
        let range = self.ranges.iter().rev().find(|r| r.start <= sequence)?;
        if self.dropped.contains(&sequence) {
            return None;
        }
        let out = sequence.wrapping_add(range.offset?);
        if self.highest_in.is_none_or(|h| sequence > h) {
            self.highest_in = Some(sequence);
            self.next_out = out.wrapping_add(1);
        }
        Some(out)
    }

    /// Input `sequence` isn't forwarded. If it is the newest, the gap closes and `true` is returned;
    /// otherwise its number was already left open and the receiver sees a loss.
    pub(crate) fn drop_packet(&mut self, sequence: u64) -> bool {
        let Some(Range {
            start,
            offset: Some(offset),
        }) = self.ranges.back().copied()
        else {
            return false;
        };
        if self.highest_in.is_some_and(|h| sequence <= h) || sequence < start {
            return false;
        }
        self.highest_in = Some(sequence);
        self.next_out = sequence.wrapping_add(offset);
        self.push(Range {
            start: sequence + 1,
            offset: Some(offset.wrapping_sub(1)),
        });
        self.dropped.push_back(sequence);
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
    fn a_pause_leaves_no_hole() {
        let mut m = SequenceMap::new(10);
        m.switch(100);
        assert_eq!(m.map(100), Some(10));
        assert_eq!(m.map(102), Some(12));
        m.pause();
        m.pause();
        assert_eq!(m.map(105), None);
        assert!(!m.drop_packet(106));
        assert_eq!(m.map(101), Some(11), "a number left open before is still good");
        m.resume(200);
        assert_eq!(m.map(200), Some(13));
        assert_eq!(m.map(202), Some(15));
        for late in [103, 150, 199] {
            assert_eq!(m.map(late), None, "what was held back stays so");
        }
        assert_eq!(m.map(201), Some(14));
        m.resume(300);
        assert_eq!(m.map(203), Some(16), "nothing to resume from");
        // Before anything left.
        m.switch(1000);
        m.pause();
        m.resume(1004);
        assert_eq!(m.map(1004), Some(17));
        assert_eq!(m.map(1003), None);
    }

    #[test]
    fn no_number_leaves_twice() {
        let mut m = SequenceMap::new(0);
        m.switch(0);
        let mut seen = std::collections::HashSet::new();
        for i in 0..2000u64 {
            if i % 50 == 20 {
                m.pause();
            } else if i % 50 == 30 {
                m.resume(i);
            }
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
