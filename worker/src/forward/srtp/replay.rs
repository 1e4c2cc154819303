//! Which packets of a stream were seen, and the long form of their numbers.
//!
//! Owns the tables of incoming sources of a leg. Invariant: a source enters a table, and a number is
//! taken for seen, only after the packet was authenticated; a number is taken once.

/// Words of 64 numbers that may be out of order.
const WORDS: usize = 4;
const WINDOW: u64 = WORDS as u64 * 64;

/// RFC 3711 section 3.3.2, over the long index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    highest: u64,
    /// Bit `i % WINDOW` stands for index `i` of the last `WINDOW` ones.
    seen: [u64; WORDS],
}

impl Window {
    fn starting_at(index: u64) -> Window {
        let mut window = Window {
            highest: index,
            seen: [0; WORDS],
        };
        window.mark(index);
        window
    }

    fn word(&mut self, index: u64) -> Option<(&mut u64, u64)> {
        let bit = 1 << (index % 64);
        let word = self.seen.get_mut((index % WINDOW / 64) as usize)?;
        Some((word, bit))
    }

    fn mark(&mut self, index: u64) {
        if let Some((word, bit)) = self.word(index) {
            *word |= bit;
        }
    }

    /// May `index` be new?
    pub(super) fn is_new(&self, index: u64) -> bool {
        if index > self.highest {
            return true;
        }
        if self.highest - index >= WINDOW {
            return false;
        }
        let word = self.seen.get((index % WINDOW / 64) as usize).copied();
        word.is_some_and(|w| w & (1 << (index % 64)) == 0)
    }

    /// It is authentic.
    pub(super) fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for between in self.highest + 1..=index {
                    if let Some((word, bit)) = self.word(between) {
                        *word &= !bit;
                    }
                }
            }
            self.highest = index;
        }
        self.mark(index);
    }

    /// The index that a sequence number most likely stands for (RFC 3711 appendix A); `None` before 0.
    pub(super) fn index_of(&self, sequence: u16) -> Option<u64> {
        let (roc, last) = (self.highest >> 16, self.highest as u16);
        let roc = if last < 0x8000 {
            if i32::from(sequence) - i32::from(last) > 0x8000 {
                roc.checked_sub(1)?
            } else {
                roc
            }
        } else if i32::from(last) - 0x8000 > i32::from(sequence) {
            roc + 1
        } else {
            roc
        };
        (roc <= u64::from(u32::MAX)).then_some(roc << 16 | u64::from(sequence))
    }
}

/// Windows by SSRC, in the order of the SSRCs.
#[derive(Debug, Default)]
pub(super) struct Sources {
    windows: Vec<(u32, Window)>,
    /// Where the last one was found: packets come in rows.
    last: usize,
}

impl Sources {
    /// The place of an SSRC, or where it would be put.
    pub(super) fn find(&mut self, ssrc: u32) -> Result<usize, usize> {
        if self.windows.get(self.last).is_some_and(|(s, _)| *s == ssrc) {
            return Ok(self.last);
        }
        let found = self.windows.binary_search_by_key(&ssrc, |(s, _)| *s);
        if let Ok(at) = found {
            self.last = at;
        }
        found
    }

    pub(super) fn window(&mut self, at: usize) -> Option<&mut Window> {
        self.windows.get_mut(at).map(|(_, w)| w)
    }

    /// A new source proved itself with `index`. `at` as [`Self::find`] said.
    pub(super) fn admit(&mut self, at: usize, ssrc: u32, index: u64) {
        let at = at.min(self.windows.len());
        self.windows.insert(at, (ssrc, Window::starting_at(index)));
    }

    pub(super) fn len(&self) -> usize {
        self.windows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_once_and_none_too_old() {
        let mut w = Window::starting_at(1000);
        assert!(!w.is_new(1000));
        for index in [1001, 1300, 1299, 1045, 1044] {
            assert_eq!(w.is_new(index), index != 1044, "{index}");
            if w.is_new(index) {
                w.accept(index);
            }
            assert!(!w.is_new(index), "{index}");
        }
        assert!(w.is_new(1298) && !w.is_new(1001));
        w.accept(100_000);
        assert!(!w.is_new(1298) && w.is_new(99_999) && !w.is_new(99_744));
        // Every number of a row in any order, each once.
        let mut w = Window::starting_at(0);
        for base in (1..2000_u64).step_by(40) {
            for index in (base..base + 40).rev() {
                assert!(w.is_new(index));
                w.accept(index);
                assert!(!w.is_new(index));
            }
        }
    }

    #[test]
    fn sequence_numbers_get_the_nearest_cycle() {
        let at = |highest: u64, sequence: u16| Window::starting_at(highest).index_of(sequence);
        assert_eq!(at(5, 9), Some(9));
        assert_eq!(at(5, 0xFFFF), None, "before the first cycle");
        assert_eq!(at(0xFFFE, 2), Some(0x1_0002));
        assert_eq!(at(0x1_0002, 0xFFFF), Some(0xFFFF));
        assert_eq!(at(0x5_9000, 0x1000), Some(0x5_1000));
        assert_eq!(at(0x5_9000, 0x0FFF), Some(0x6_0FFF));
        assert_eq!(at(0xFFFF_FFFF_FFFF, 1), None, "the last cycle is over");
    }

    #[test]
    fn sources_are_found_in_any_order() {
        let mut s = Sources::default();
        for ssrc in [7, 3, 9, 1] {
            let at = s.find(ssrc).unwrap_err();
            s.admit(at, ssrc, u64::from(ssrc));
        }
        assert_eq!(s.len(), 4);
        for ssrc in [1, 9, 3, 7, 7] {
            let at = s.find(ssrc).unwrap();
            assert_eq!(s.window(at).unwrap().highest, u64::from(ssrc));
        }
        assert!(s.find(2).is_err());
    }
}
