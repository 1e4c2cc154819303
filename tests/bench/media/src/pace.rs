//! When the next packets leave.
//!
//! Owns the two modes and their clock. Invariants: as many packets per second in both; no drift, however
//! late a wake-up is; no fixed step either: a departure is early or late by up to a tenth of the interval,
//! since a pace in step with the kernel's tick would have every sample of user and system time fall on the
//! same part of the work.

use std::time::{Duration, Instant};

use crate::packet::PER_FRAME;

/// How the packets of a second are spread over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Evenly.
    Single,
    /// A frame's packets back to back.
    Frames,
}

impl Mode {
    pub(crate) const ALL: [Mode; 2] = [Mode::Single, Mode::Frames];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Single => "single",
            Mode::Frames => "frames10",
        }
    }

    /// Between two departures, on average, at so many thousandths of a frame per second.
    pub(crate) fn interval(self, millihertz: u64) -> Duration {
        let departures = match self {
            Mode::Single => PER_FRAME,
            Mode::Frames => 1,
        };
        Duration::from_nanos(1_000_000_000_000 / (millihertz * departures).max(1))
    }
}

/// Behind by more than this, nobody is served by catching up.
const HOPELESS: Duration = Duration::from_secs(1);

/// The clock.
#[derive(Debug)]
pub(crate) struct Pace {
    even: Instant,
    random: u64,
}

impl Pace {
    /// The first departure is due about now.
    pub(crate) fn new(now: Instant) -> Pace {
        Pace {
            even: now,
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// When the next departure is due.
    pub(crate) fn due(&self, interval: Duration) -> Instant {
        // 0 to 1/5 of the interval, which is a tenth early or late of a clock a tenth ahead.
        let part = (self.random >> 40) as f64 / (1_u64 << 24) as f64;
        self.even + interval.mul_f64(part / 5.0)
    }

    /// One has left.
    pub(crate) fn departed(&mut self, interval: Duration, now: Instant) {
        // Knuth's linear congruence; its high bits are what is used.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.even += interval;
        if now > self.even + HOPELESS {
            self.even = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_modes_send_as_many_packets() {
        let per_second = |mode: Mode, burst: u128| burst * 1_000_000_000 / mode.interval(30_000).as_nanos();
        assert_eq!(per_second(Mode::Single, 1), 300);
        assert_eq!(per_second(Mode::Frames, 10), 300);
    }

    #[test]
    fn departures_wander_about_an_even_clock() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let (mut early, mut late) = (0, 0);
        let interval = Mode::Single.interval(30_000);
        for i in 0..1000 {
            let off = pace.due(interval) - (start + interval * i);
            assert!(off <= interval / 5);
            if off < interval / 10 {
                early += 1
            } else {
                late += 1
            }
            // However late this one was.
            pace.departed(interval, start + interval * i + interval / 2);
        }
        assert!(early > 400 && late > 400, "{early} {late}");
        pace.departed(interval, start + Duration::from_secs(60));
        assert!(pace.due(interval) >= start + Duration::from_secs(60));
    }
}
