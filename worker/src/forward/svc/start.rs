//! Where a new subscription may start without waiting for a key frame.
//!
//! Owns what is known of an encoding's last key frame, and the timestamps of a replay. Invariants: a replay
//! begins at a key frame's first packet, is recent and short, and misses no packet; while the sender is
//! muted there is nothing to replay. It looks at no more of a payload than key-frame detection does, so
//! that encrypted frames are replayed alike.

use std::time::{Duration, Instant};

/// A picture older than this is better replaced by a new key frame.
const MAX_AGE: Duration = Duration::from_millis(1000);
/// Half as old it will do for one who comes in a moment.
const FRESH: Duration = Duration::from_millis(500);
/// What a new subscriber is sent at once, at most.
const MAX_BYTES: usize = 128 << 10;
/// Packets, likewise: an answer to a lost burst must still be in the buffer.
const MAX_PACKETS: u64 = 256;
/// Replayed pictures follow each other so much faster than they were taken. A receiver that got them with
/// their own timestamps would play the past at its own pace and stay behind.
const HASTE: u32 = 16;

#[derive(Debug, Clone, Copy)]
struct Point {
    sequence: u64,
    timestamp: u32,
    at: Instant,
    bytes: usize,
}

/// Packets of padding alone that are told from lost ones.
const HOLLOW: usize = 16;

/// The last key frame of one encoding.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastKeyFrame {
    point: Option<Point>,
    newest: Option<(u64, u32)>,
    /// Numbers of packets without a payload, which no buffer holds; a ring.
    hollow: [Option<u64>; HOLLOW],
    next: usize,
}

/// A run of packets to send again, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replay {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Timestamp of the newest packet, at which the replay meets what is live.
    pub(crate) meets: u32,
}

impl Replay {
    /// The timestamp a packet of the replay leaves with, in the sender's terms.
    pub(crate) fn timestamp(&self, original: u32) -> u32 {
        let behind = self.meets.wrapping_sub(original);
        if behind > u32::MAX / 2 {
            return original;
        }
        self.meets.wrapping_sub(behind.div_ceil(HASTE))
    }
}

impl LastKeyFrame {
    /// Notes a packet of the encoding; `starts` where decoding can start at it.
    pub(crate) fn note(&mut self, sequence: u64, timestamp: u32, starts: bool, bytes: usize, now: Instant) {
        if self.newest.is_none_or(|(s, _)| sequence > s) {
            self.newest = Some((sequence, timestamp));
        }
        if bytes == 0 {
            if let Some(slot) = self.hollow.get_mut(self.next) {
                *slot = Some(sequence);
            }
            self.next = (self.next + 1) % HOLLOW;
        }
        match &mut self.point {
            // Parameter sets and slices of one key frame each say so.
            Some(p) if starts && p.timestamp == timestamp => {
                p.sequence = p.sequence.min(sequence);
                p.bytes += bytes;
            }
            Some(p) if !starts || sequence < p.sequence => p.bytes += bytes,
            _ if starts => {
                self.point = Some(Point {
                    sequence,
                    timestamp,
                    at: now,
                    bytes,
                });
            }
            _ => {}
        }
    }

    /// Nothing before now may be shown again.
    pub(crate) fn forget(&mut self) {
        *self = LastKeyFrame::default();
    }

    /// Whether one who comes in a moment will be able to start here.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.point
            .is_some_and(|p| now.saturating_duration_since(p.at) <= FRESH)
    }

    /// What to send a new subscriber at once; `has` tells whether a packet is still in the buffer.
    pub(crate) fn replay(&self, now: Instant, has: impl Fn(u64) -> bool) -> Option<Replay> {
        let point = self.point?;
        let (last, meets) = self.newest?;
        let recent = now.saturating_duration_since(point.at) <= MAX_AGE;
        let short = point.bytes <= MAX_BYTES && last.saturating_sub(point.sequence) < MAX_PACKETS;
        let known = |s: u64| has(s) || self.hollow.contains(&Some(s));
        (recent && short && (point.sequence..=last).all(known)).then_some(Replay {
            first: point.sequence,
            last,
            meets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A key frame of two packets at 0 ms, then a packet every 40 ms until 400 ms.
    fn stream(start: Instant) -> LastKeyFrame {
        let mut k = LastKeyFrame::default();
        k.note(99, 0, false, 1000, start);
        k.note(100, 90, true, 1000, start);
        k.note(101, 90, false, 1000, start);
        for i in 1..=10u32 {
            k.note(101 + u64::from(i), 90 + 3600 * i, false, 1000, start + ms(40) * i);
        }
        k
    }

    #[test]
    fn a_recent_key_frame_is_replayed_to_the_newest_packet() {
        let start = Instant::now();
        let k = stream(start);
        assert!(k.is_fresh(start + ms(500)) && !k.is_fresh(start + ms(501)));
        let replay = k.replay(start + ms(400), |_| true).unwrap();
        assert_eq!((replay.first, replay.last, replay.meets), (100, 111, 90 + 36_000));
    }

    #[test]
    fn not_across_a_gap_not_late_not_long() {
        let start = Instant::now();
        let mut k = stream(start);
        assert_eq!(k.replay(start + ms(400), |s| s != 105), None);
        assert!(k.replay(start + ms(400), |s| s >= 100).is_some());
        assert_eq!(k.replay(start + ms(1001), |_| true), None);
        k.note(112, 50_000, false, 0, start + ms(405));
        assert!(
            k.replay(start + ms(405), |s| s != 112).is_some(),
            "padding is no loss"
        );
        k.note(113, 50_000, false, MAX_BYTES, start + ms(410));
        assert_eq!(k.replay(start + ms(420), |_| true), None);
    }

    #[test]
    fn a_newer_key_frame_takes_over_and_a_mute_forgets() {
        let start = Instant::now();
        let mut k = stream(start);
        k.note(112, 50_000, true, 500, start + ms(440));
        k.note(113, 50_000, true, 500, start + ms(440));
        assert_eq!(
            k.replay(start + ms(450), |_| true).unwrap().first,
            112,
            "parameter sets first"
        );
        k.note(100, 90, true, 500, start + ms(450));
        assert_eq!(
            k.replay(start + ms(450), |_| true).unwrap().first,
            112,
            "an old one again"
        );
        k.forget();
        assert_eq!(k.replay(start + ms(450), |_| true), None);
    }

    #[test]
    fn replayed_time_is_short_distinct_and_meets_the_present() {
        let r = Replay {
            first: 0,
            last: 0,
            meets: 1000,
        };
        assert_eq!(r.timestamp(1000), 1000);
        assert_eq!(r.timestamp(999), 999);
        assert_eq!(
            r.timestamp(1000u32.wrapping_sub(90_000)),
            1000u32.wrapping_sub(5625)
        );
        let mut last = r.timestamp(1000u32.wrapping_sub(90_000));
        for i in (0..60).rev() {
            let next = r.timestamp(1000u32.wrapping_sub(1500 * i));
            if i < 59 {
                assert!(next.wrapping_sub(last) as i32 > 0);
            }
            last = next;
        }
        assert_eq!(r.timestamp(1001), 1001, "live packets keep theirs");
    }
}
