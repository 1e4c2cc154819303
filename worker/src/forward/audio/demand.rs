//! Whether redundancy pays for one subscriber.
//!
//! Owns the decision, from the loss its receiver reports say. Each level costs as many bytes as the sound
//! itself, so nothing is added to a path that loses nothing. Invariant: none goes as long as none was
//! lost, and it stays for [`HOLD`] after the last loss, so that it isn't switched by every report.

use std::time::{Duration, Instant};

/// Loss comes in bursts.
const HOLD: Duration = Duration::from_secs(10);
/// Lost of 256 from where one level isn't enough: a tenth, where two in a row are lost every few seconds.
const SEVERE: u8 = 26;

/// One subscriber's need.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Demand {
    lost: Option<Instant>,
    severe: Option<Instant>,
}

impl Demand {
    /// A receiver report: lost of 256 since the last.
    pub(crate) fn report(&mut self, fraction_lost: u8, now: Instant) {
        if fraction_lost > 0 {
            self.lost = Some(now);
        }
        if fraction_lost >= SEVERE {
            self.severe = Some(now);
        }
    }

    /// How many earlier packets go along.
    pub(crate) fn levels(&self, now: Instant) -> usize {
        let recent = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < HOLD);
        usize::from(recent(self.lost)) + usize::from(recent(self.severe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_loss_and_stays_a_while() {
        let t = Instant::now();
        let mut d = Demand::default();
        d.report(0, t);
        assert_eq!(d.levels(t), 0);
        d.report(1, t);
        assert_eq!(d.levels(t), 1);
        d.report(SEVERE, t + HOLD / 2);
        assert_eq!(d.levels(t + HOLD / 2), 2);
        d.report(SEVERE - 1, t + HOLD);
        assert_eq!(d.levels(t + HOLD + HOLD / 2), 1, "severe no more");
        d.report(0, t + HOLD + HOLD / 2);
        assert_eq!(d.levels(t + HOLD * 2), 0);
    }
}
