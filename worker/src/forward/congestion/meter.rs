//! Bytes per time over a sliding window.
//!
//! Owns buckets of [`BUCKET`] each. Invariant: what is older than the window is never counted.

use super::Micros;

const BUCKET: Micros = 20_000;
const BUCKETS: usize = 50;

/// A window of one second.
#[derive(Debug)]
pub(crate) struct Meter {
    buckets: [u32; BUCKETS],
    /// Bucket number of the newest.
    head: Option<i64>,
    first: Micros,
    /// The newest moment, and the place of its bucket.
    last: Micros,
    newest: usize,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Meter {
            buckets: [0; BUCKETS],
            head: None,
            first: 0,
            last: Micros::MIN,
            newest: 0,
        }
    }

    pub(crate) fn add(&mut self, at: Micros, bytes: usize) {
        // Most packets leave or come together with the one before.
        if at == self.last {
            if let Some(b) = self.buckets.get_mut(self.newest) {
                *b = b.saturating_add(bytes as u32);
            }
            return;
        }
        let number = at.div_euclid(BUCKET);
        match self.head {
            Some(head) if number > head => {
                // What lies between is empty; everything, where it is more than a window.
                for skipped in (head + 1..=number).rev().take(BUCKETS) {
                    self.put(skipped, 0);
                }
                if number - head > BUCKETS as i64 {
                    self.first = at;
                }
                self.head = Some(number);
            }
            Some(head) if head - number >= BUCKETS as i64 => return,
            Some(_) => {}
            None => {
                self.head = Some(number);
                self.first = at;
            }
        }
        if at >= self.last {
            self.last = at;
            self.newest = number.rem_euclid(BUCKETS as i64) as usize;
        }
        let old = self.bucket(number);
        self.put(number, old.saturating_add(bytes as u32));
    }

    /// Bits per second over `window` up to the newest packet; `None` while less than a window is known.
    pub(crate) fn known(&self, window: Micros) -> Option<f64> {
        (self.head.is_some() && self.last - self.first >= window).then(|| self.rate(self.last, window))
    }

    /// Bits per second over `window` up to `now`, with silence counted.
    pub(crate) fn rate(&self, now: Micros, window: Micros) -> f64 {
        let Some(head) = self.head else { return 0.0 };
        let count = (window / BUCKET).clamp(1, BUCKETS as i64 - 1);
        let last = now.div_euclid(BUCKET).max(head);
        // Whole buckets and the part of the newest that has passed.
        let bytes: u64 = (last - count..=last)
            .filter(|n| *n <= head && head - n < BUCKETS as i64)
            .map(|n| u64::from(self.bucket(n)))
            .sum();
        let span = count * BUCKET + now.max(self.last).rem_euclid(BUCKET).max(1);
        bytes as f64 * 8e6 / span as f64
    }

    fn bucket(&self, number: i64) -> u32 {
        self.buckets
            .get(number.rem_euclid(BUCKETS as i64) as usize)
            .copied()
            .unwrap_or(0)
    }

    fn put(&mut self, number: i64, value: u32) {
        if let Some(b) = self.buckets.get_mut(number.rem_euclid(BUCKETS as i64) as usize) {
            *b = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_rate_is_measured() {
        let mut m = Meter::new();
        for i in 0..400 {
            m.add(i * 10_000, 1250);
            if i == 20 {
                assert!(m.known(500_000).is_none());
            }
        }
        for window in [200_000, 500_000] {
            let rate = m.known(window).unwrap();
            assert!((rate - 1e6).abs() < 0.08e6, "{rate}");
        }
        assert!(m.rate(4_000_000 + 2_000_000, 500_000) < 1.0, "silence counts");
        m.add(60_000_000, 1250);
        assert!(m.known(500_000).is_none(), "after a long silence it begins anew");
        assert!(m.rate(60_000_000, 200_000) < 60_000.0);
        m.add(1_000_000, 100_000);
        assert!(m.rate(60_000_000, 200_000) < 60_000.0, "older than the window");
    }
}
