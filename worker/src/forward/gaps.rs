//! Times without a packet in a stream of pictures.
//!
//! Owns the count of one stream. What a server can know of a freeze: that for more than [`LONG`] nothing
//! came, or nothing was passed on, though it was wanted. Invariants: a gap counts when it ends; silence
//! that somebody wanted (muted, switched off) is none.

use std::time::{Duration, Instant};

/// A camera sends several frames in that time, however bad the light.
const LONG: Duration = Duration::from_secs(1);

/// The gaps of one stream.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gaps {
    last: Option<Instant>,
    pub(crate) count: u64,
    pub(crate) time: Duration,
}

impl Gaps {
    /// A packet.
    pub(crate) fn packet(&mut self, now: Instant) {
        if let Some(last) = self.last {
            let gap = now.saturating_duration_since(last);
            if gap > LONG {
                self.count += 1;
                self.time += gap;
            }
        }
        self.last = Some(now);
    }

    /// Nothing needs to come until the next packet.
    pub(crate) fn rest(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unwanted_silence_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut gaps = Gaps::default();
        for ms in [0, 33, 1_033, 2_034, 2_100] {
            gaps.packet(at(ms));
        }
        assert_eq!((gaps.count, gaps.time), (1, Duration::from_millis(1_001)));
        gaps.rest();
        gaps.packet(at(9_000));
        // A packet that came late by another way does no harm.
        gaps.packet(at(8_000));
        gaps.packet(at(12_000));
        assert_eq!((gaps.count, gaps.time), (2, Duration::from_millis(5_001)));
    }
}
