//! What is due when, without looking at what isn't.
//!
//! Owns a heap of moments. Invariant: an entry is only a reminder: whose it is decides whether anything is
//! due, so that one that was overtaken does no harm.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Reminders.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Timers {
            heap: BinaryHeap::new(),
        }
    }
}

impl<K: Ord> Timers<K> {
    /// Reminds of `key` at `at`.
    pub(crate) fn set(&mut self, at: Instant, key: K) {
        self.heap.push(Reverse((at, key)));
    }

    /// The first moment that something is set for.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// One reminder that is due, with its moment.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(Instant, K)> {
        if self.heap.peek().is_none_or(|Reverse((at, _))| *at > now) {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_is_due_in_its_order() {
        let t = Instant::now();
        let mut timers = Timers::default();
        for (ms, key) in [(30, 'c'), (10, 'a'), (20, 'b')] {
            timers.set(t + Duration::from_millis(ms), key);
        }
        assert_eq!(timers.due(t), None);
        assert_eq!(timers.next(), Some(t + Duration::from_millis(10)));
        let now = t + Duration::from_millis(20);
        assert_eq!(timers.due(now).map(|d| d.1), Some('a'));
        assert_eq!(timers.due(now).map(|d| d.1), Some('b'));
        assert_eq!(timers.due(now), None);
        assert_eq!(timers.due(t + Duration::from_secs(1)).map(|d| d.1), Some('c'));
    }
}
