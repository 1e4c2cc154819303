//! A token bucket.

use std::time::Instant;

/// Allows `per_second` in the long run and `burst` at once.
pub struct Bucket {
    per_second: f64,
    burst: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Bucket {
        Bucket {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
            level: f64::from(burst),
            at: now,
        }
    }

    /// Takes one; false = none left.
    pub fn take(&mut self, now: Instant) -> bool {
        let refill = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.level = (self.level + refill).min(self.burst);
        self.at = now;
        if self.level < 1.0 {
            return false;
        }
        self.level -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_then_a_steady_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, 300, start);
        assert_eq!((0..1000).filter(|_| bucket.take(start)).count(), 300);
        assert!(bucket.take(start + Duration::from_millis(10)));
        assert!(!bucket.take(start + Duration::from_millis(10)));
        let later = start + Duration::from_secs(60);
        assert_eq!((0..1000).filter(|_| bucket.take(later)).count(), 300);
    }
}
