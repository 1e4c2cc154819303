//! When a packet of a subscriber leaves.
//!
//! Owns a leaky bucket per path and the packets that wait for it. Invariants: nothing is dropped here; what
//! waits leaves within [`MAX_DEBT`]; sound never waits; packets sent again go first; a stream's packets
//! leave in the order in which they came; as long as a frame fits in the burst, no packet of it is copied.

use std::collections::VecDeque;

use super::Micros;

/// Times the estimate at which the bucket drains. A frame larger than its share must be out before the next.
const FACTOR: f64 = 1.5;
/// What may leave at once, as time at that rate. Frames of a stream that fits do, in one turn.
const BURST: f64 = 0.040;
/// Nothing waits longer: the rate rises instead.
const MAX_DEBT: f64 = 0.5;
/// Limits of what waits; beyond, packets leave unpaced.
const MAX_PACKETS: usize = 2048;
const MAX_BYTES: usize = 1 << 20;

/// Which queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Resend,
    Media,
}

/// Packets in a ring of bytes, which is kept once it has grown.
#[derive(Debug, Default)]
struct Queue {
    lengths: VecDeque<u16>,
    bytes: VecDeque<u8>,
}

impl Queue {
    fn push(&mut self, packet: &[u8]) {
        self.lengths.push_back(packet.len() as u16);
        self.bytes.extend(packet);
    }

    fn pop(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(len) = self.lengths.pop_front() else {
            return false;
        };
        out.clear();
        out.extend(self.bytes.drain(..usize::from(len).min(self.bytes.len())));
        true
    }
}

/// The pacer of one path.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Bytes that have left and not yet drained.
    debt: f64,
    at: Micros,
    /// Bytes per second.
    rate: f64,
    /// The rate that gets what waits out in time; until nothing waits.
    hurry: f64,
    resends: Queue,
    media: Queue,
}

impl Pacer {
    pub(crate) fn new(estimate: f64) -> Self {
        Pacer {
            debt: 0.0,
            at: 0,
            rate: estimate * FACTOR / 8.0,
            hurry: 0.0,
            resends: Queue::default(),
            media: Queue::default(),
        }
    }

    pub(crate) fn set_estimate(&mut self, estimate: f64, now: Micros) {
        self.drain(now);
        self.rate = estimate * FACTOR / 8.0;
    }

    /// Whether anything waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    fn waiting(&self) -> usize {
        self.resends.bytes.len() + self.media.bytes.len()
    }

    fn effective(&self) -> f64 {
        self.rate.max(self.hurry)
    }

    fn drain(&mut self, now: Micros) {
        let since = (now - self.at).max(0) as f64 / 1e6;
        self.at = self.at.max(now);
        self.debt = (self.debt - since * self.effective()).max(0.0);
    }

    /// A packet is there to be sent. `true`: it may leave at once. `false`: it was kept, and comes out of
    /// [`Self::pop`].
    pub(crate) fn offer(&mut self, kind: Kind, packet: &[u8], now: Micros) -> bool {
        self.drain(now);
        let behind = match kind {
            Kind::Resend => &self.resends,
            Kind::Media => &self.media,
        };
        let full = self.waiting() + packet.len() > MAX_BYTES
            || self.resends.lengths.len() + self.media.lengths.len() >= MAX_PACKETS;
        if (behind.lengths.is_empty() && self.open()) || full {
            return true;
        }
        match kind {
            Kind::Resend => self.resends.push(packet),
            Kind::Media => self.media.push(packet),
        }
        self.hurry = self.hurry.max((self.waiting() as f64 + self.debt) / MAX_DEBT);
        false
    }

    fn open(&self) -> bool {
        self.debt < BURST * self.effective()
    }

    /// The next packet that may leave now, into `out`.
    pub(crate) fn pop(&mut self, out: &mut Vec<u8>, now: Micros) -> Option<Kind> {
        self.drain(now);
        if !self.open() {
            return None;
        }
        self.force(out)
    }

    /// The next packet whatever the bucket: a probe sends real packets before padding.
    pub(crate) fn force(&mut self, out: &mut Vec<u8>) -> Option<Kind> {
        let kind = if self.resends.pop(out) {
            Kind::Resend
        } else if self.media.pop(out) {
            Kind::Media
        } else {
            return None;
        };
        if self.is_empty() {
            self.hurry = 0.0;
        }
        Some(kind)
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

    /// Offers `frame` packets of 1,000 bytes, then lets them out; when each left.
    fn run(p: &mut Pacer, frame: usize, from: Micros) -> Vec<Micros> {
        let mut left = Vec::new();
        for i in 0..frame {
            if p.offer(Kind::Media, &[i as u8; 1000], from) {
                p.on_sent(1000, from);
                left.push(from);
            }
        }
        let mut out = Vec::new();
        while let Some(at) = p.next() {
            let at = at.max(from);
            while p.pop(&mut out, at).is_some() {
                assert_eq!(out, vec![left.len() as u8; 1000], "in order, whole");
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
        while p.offer(Kind::Media, &[1; 1000], 0) {
            p.on_sent(1000, 0);
        }
        assert!(!p.offer(Kind::Resend, &[2; 500], 0));
        let mut out = Vec::new();
        let at = p.next().unwrap();
        assert_eq!(p.pop(&mut out, at), Some(Kind::Resend));
        assert_eq!(out, vec![2; 500]);
        assert_eq!(p.force(&mut out), Some(Kind::Media));
        assert_eq!(out.len(), 1000);
        assert!(p.is_empty() && p.next().is_none());
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_dropped() {
        let mut p = Pacer::new(30_000.0);
        let mut passed = 0;
        for _ in 0..5_000 {
            if p.offer(Kind::Media, &[0; 1200], 0) {
                p.on_sent(1200, 0);
                passed += 1;
            }
        }
        assert!(p.waiting() <= MAX_BYTES);
        assert_eq!(passed + p.media.lengths.len(), 5_000);
    }
}
