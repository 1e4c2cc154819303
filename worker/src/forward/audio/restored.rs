//! Which packets of a stream were taken from the redundancy of later ones.
//!
//! Owns that memory, so that a packet isn't sent a second time when it comes late itself: it would leave
//! with the same number and other bytes, which the cipher doesn't bear. Invariant: of a packet so late
//! that it isn't remembered, it is said that it was restored.

/// Packets remembered: what a bit set holds.
const WINDOW: u64 = 64;

/// A sliding bit set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Restored {
    /// Bit `n` stands for `highest - n`.
    bits: u64,
    highest: u64,
}

impl Restored {
    /// `sequence` was restored. `false`: it was before, or is too old to be known.
    pub(crate) fn insert(&mut self, sequence: u64) -> bool {
        if self.contains(sequence) {
            return false;
        }
        if sequence > self.highest {
            let shift = sequence - self.highest;
            self.bits = if shift < WINDOW { self.bits << shift } else { 0 };
            self.highest = sequence;
        }
        self.bits |= 1 << (self.highest - sequence);
        true
    }

    /// Was it restored, or may it have been?
    pub(crate) fn contains(&self, sequence: u64) -> bool {
        match self.highest.checked_sub(sequence) {
            Some(age) if age < WINDOW => self.bits >> age & 1 == 1,
            Some(_) => true,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn it_says_what_a_set_says_as_far_back_as_it_goes() {
        let mut known = Restored::default();
        let mut model = HashSet::new();
        let mut highest = 0;
        let mut x = 7u64;
        for _ in 0..5_000 {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let sequence = (highest + (x >> 60)).saturating_sub(x >> 40 & 15) + 1;
            assert_eq!(known.insert(sequence), model.insert(sequence));
            highest = highest.max(sequence);
            for probe in highest.saturating_sub(WINDOW - 1)..highest + 3 {
                if probe > 0 {
                    assert_eq!(
                        known.contains(probe),
                        model.contains(&probe),
                        "{probe} of {highest}"
                    );
                }
            }
            assert!(highest < WINDOW || known.contains(highest - WINDOW));
        }
        assert!(known.insert(highest + 1_000));
        assert!(!known.contains(highest + 999));
    }
}
