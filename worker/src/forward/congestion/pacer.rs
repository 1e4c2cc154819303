//! When a packet of a subscriber leaves.
//!
//! Owns a leaky bucket per path and the queue of what waits for it: not packets, only what finds them
//! again. Invariants: nothing is dropped here but on demand; what waits leaves within [`MAX_DEBT`]; sound
//! never waits; packets sent again go first; a stream's packets leave in the order in which they came; a
//! frame that fits in the burst leaves in one turn.

use std::collections::VecDeque;

use super::Micros;

/// Times the estimate at which the bucket drains. A frame larger than its share must be out before the next.
const FACTOR: f64 = 1.5;
/// The same where a queue stands on the path: it is to get shorter, and would drop the end of a large frame.
const FULL_FACTOR: f64 = 1.0;
/// What may leave at once, as time at that rate. Frames of a stream that fits do, in one turn.
const BURST: f64 = 0.040;
/// Nothing waits longer: the rate rises instead.
const MAX_DEBT: f64 = 0.5;
/// What waits at most; beyond, packets leave unpaced.
const MAX_PACKETS: usize = 1024;

/// Which queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Resend,
    Media,
}

/// The pacer of one path. `T` finds a packet that waits.
#[derive(Debug)]
pub(crate) struct Pacer<T> {
    /// Bytes that have left and not yet drained.
    debt: f64,
    at: Micros,
    /// Bytes per second.
    rate: f64,
    /// The rate that gets what waits out in time; until nothing waits.
    hurry: f64,
    resends: VecDeque<(u16, T)>,
    media: VecDeque<(u16, T)>,
    waiting: usize,
}

impl<T> Pacer<T> {
    pub(crate) fn new(estimate: f64) -> Self {
        Pacer {
            debt: 0.0,
            at: 0,
            rate: estimate * FACTOR / 8.0,
            hurry: 0.0,
            resends: VecDeque::new(),
            media: VecDeque::new(),
            waiting: 0,
        }
    }

    /// `full`: a queue stands.
    pub(crate) fn set_estimate(&mut self, estimate: f64, full: bool, now: Micros) {
        self.drain(now);
        self.rate = estimate * if full { FULL_FACTOR } else { FACTOR } / 8.0;
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.resends.is_empty() && self.media.is_empty()
    }

    /// Bytes per second, with what waits out in time.
    fn effective(&self) -> f64 {
        self.rate.max(self.hurry)
    }

    fn drain(&mut self, now: Micros) {
        if now <= self.at {
            return;
        }
        let since = (now - self.at) as f64 / 1e6;
        self.at = now;
        self.debt = (self.debt - since * self.effective()).max(0.0);
    }

    fn open(&self) -> bool {
        self.debt < BURST * self.effective()
    }

    fn queue(&mut self, kind: Kind) -> &mut VecDeque<(u16, T)> {
        match kind {
            Kind::Resend => &mut self.resends,
            Kind::Media => &mut self.media,
        }
    }

    /// Whether a packet may leave at once. Otherwise it is for [`Self::keep`].
    pub(crate) fn may(&mut self, kind: Kind, now: Micros) -> bool {
        self.drain(now);
        let first = self.queue(kind).is_empty();
        (first && self.open()) || self.resends.len() + self.media.len() >= MAX_PACKETS
    }

    /// A packet of about `size` bytes waits.
    pub(crate) fn keep(&mut self, kind: Kind, size: usize, what: T) {
        self.queue(kind).push_back((size as u16, what));
        self.waiting += size;
        self.hurry = self.hurry.max((self.waiting as f64 + self.debt) / MAX_DEBT);
    }

    /// The next packet that may leave now.
    pub(crate) fn pop(&mut self, now: Micros) -> Option<(Kind, T)> {
        self.drain(now);
        if self.open() { self.force() } else { None }
    }

    /// The next packet whatever the bucket: a probe sends real packets before padding.
    pub(crate) fn force(&mut self) -> Option<(Kind, T)> {
        let (kind, (size, what)) = match self.resends.pop_front() {
            Some(first) => (Kind::Resend, first),
            None => (Kind::Media, self.media.pop_front()?),
        };
        self.waiting = self.waiting.saturating_sub(usize::from(size));
        if self.is_empty() {
            self.hurry = 0.0;
            self.waiting = 0;
        }
        Some((kind, what))
    }

    /// Drops what waits and isn't to be kept.
    pub(crate) fn give_up(&mut self, keep: impl Fn(&T) -> bool) {
        for queue in [&mut self.resends, &mut self.media] {
            queue.retain(|(size, what)| {
                let keep = keep(what);
                if !keep {
                    self.waiting = self.waiting.saturating_sub(usize::from(*size));
                }
                keep
            });
        }
        if self.is_empty() {
            (self.hurry, self.waiting) = (0.0, 0);
        }
    }

    /// Something left, paced or not.
    pub(crate) fn on_sent(&mut self, size: usize, now: Micros) {
        self.drain(now);
        self.debt = (self.debt + size as f64).min(MAX_DEBT * self.effective());
    }

    /// When [`Self::pop`] has something next.
    pub(crate) fn next(&self) -> Option<Micros> {
        if self.is_empty() {
            return None;
        }
        let over = self.debt - BURST * self.effective();
        Some(self.at + (over.max(0.0) * 1e6 / self.effective()) as Micros + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(p: &mut Pacer<usize>, kind: Kind, size: usize, what: usize, now: Micros) -> bool {
        let may = p.may(kind, now);
        if may {
            p.on_sent(size, now);
        } else {
            p.keep(kind, size, what);
        }
        may
    }

    /// Offers `frame` packets of 1,000 bytes, then lets them out; when each left.
    fn run(p: &mut Pacer<usize>, frame: usize, from: Micros) -> Vec<Micros> {
        let mut left = Vec::new();
        for i in 0..frame {
            if offer(p, Kind::Media, 1000, i, from) {
                left.push(from);
            }
        }
        while let Some(at) = p.next() {
            let at = at.max(from);
            while let Some((_, what)) = p.pop(at) {
                assert_eq!(what, left.len(), "in order");
                p.on_sent(1000, at);
                left.push(at);
            }
        }
        left
    }

    #[test]
    fn a_frame_that_fits_leaves_in_one_turn_and_a_key_frame_is_spread() {
        let mut p = Pacer::new(1e6);
        assert!(run(&mut p, 7, 0).iter().all(|t| *t == 0));
        let mut p = Pacer::new(1e6);
        let left = run(&mut p, 60, 0);
        assert_eq!(left.len(), 60);
        // 60 kB at 1.5 Mbit/s are 320 ms.
        let last = *left.last().unwrap();
        assert!((200_000..320_000).contains(&last), "{last}");
        for window in left.windows(20) {
            let rate = 19_000.0 * 8e6 / ((window[19] - window[0]) as f64 + BURST * 1e6);
            assert!(rate < 1.6e6, "{rate}");
        }
    }

    #[test]
    fn nothing_waits_longer_than_the_debt() {
        let mut p = Pacer::new(100_000.0);
        let left = run(&mut p, 200, 0);
        assert_eq!(left.len(), 200);
        let last = *left.last().unwrap();
        assert!(last <= (MAX_DEBT * 1e6) as Micros, "{last}");
        assert!(last > 300_000, "{last}");
    }

    #[test]
    fn what_is_sent_again_overtakes() {
        let mut p = Pacer::new(300_000.0);
        while offer(&mut p, Kind::Media, 1000, 1, 0) {}
        assert!(!offer(&mut p, Kind::Resend, 500, 2, 0));
        let at = p.next().unwrap();
        assert_eq!(p.pop(at), Some((Kind::Resend, 2)));
        assert_eq!(p.force(), Some((Kind::Media, 1)));
        assert!(p.is_empty() && p.next().is_none());
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_dropped() {
        let mut p = Pacer::new(30_000.0);
        let passed = (0..5_000)
            .filter(|i| offer(&mut p, Kind::Media, 1200, *i, 0))
            .count();
        assert_eq!(p.media.len(), MAX_PACKETS);
        assert_eq!(passed + p.media.len(), 5_000);
    }
}
