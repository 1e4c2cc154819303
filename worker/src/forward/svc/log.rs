//! Which of the last frames left and which were held back.
//!
//! Owns one subscriber's decisions by frame number. Invariant: a number older than [`WINDOW`] is unknown.

/// Frames remembered; a multiple of 64.
pub(crate) const WINDOW: u64 = 512;
const WORDS: usize = WINDOW as usize / 64;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Forwarded,
    Dropped,
    /// Never seen, or too long ago.
    Unknown,
}

/// Ring of decisions.
#[derive(Debug, Clone, Default)]
pub(crate) struct FrameLog {
    newest: Option<u64>,
    forwarded: [u64; WORDS],
    dropped: [u64; WORDS],
}

impl FrameLog {
    fn place(number: u64) -> (usize, u64) {
        ((number % WINDOW / 64) as usize, 1 << (number % 64))
    }

    pub(crate) fn newest(&self) -> Option<u64> {
        self.newest
    }

    pub(crate) fn get(&self, number: u64) -> Fate {
        let Some(newest) = self.newest else {
            return Fate::Unknown;
        };
        if number > newest || newest - number >= WINDOW {
            return Fate::Unknown;
        }
        let (word, bit) = Self::place(number);
        let has = |words: &[u64; WORDS]| words.get(word).is_some_and(|w| w & bit != 0);
        if has(&self.forwarded) {
            Fate::Forwarded
        } else if has(&self.dropped) {
            Fate::Dropped
        } else {
            Fate::Unknown
        }
    }

    /// Notes a decision; one too old is forgotten at once.
    pub(crate) fn set(&mut self, number: u64, forwarded: bool) {
        match self.newest {
            Some(newest) if number <= newest => {
                if newest - number >= WINDOW {
                    return;
                }
            }
            Some(newest) => {
                for n in (newest + 1..=number).rev().take(WINDOW as usize) {
                    self.clear(n);
                }
                self.newest = Some(number);
            }
            None => self.newest = Some(number),
        }
        self.clear(number);
        let (word, bit) = Self::place(number);
        let words = if forwarded {
            &mut self.forwarded
        } else {
            &mut self.dropped
        };
        if let Some(w) = words.get_mut(word) {
            *w |= bit;
        }
    }

    /// Every frame is unknown again.
    pub(crate) fn forget(&mut self) {
        (self.forwarded, self.dropped) = ([0; WORDS], [0; WORDS]);
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        for words in [&mut self.forwarded, &mut self.dropped] {
            if let Some(w) = words.get_mut(word) {
                *w &= !bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_kept_for_the_window_and_no_longer() {
        let mut log = FrameLog::default();
        assert_eq!(log.get(0), Fate::Unknown);
        log.set(10, true);
        log.set(12, false);
        assert_eq!(log.get(10), Fate::Forwarded);
        assert_eq!(log.get(11), Fate::Unknown);
        assert_eq!(log.get(12), Fate::Dropped);
        log.set(11, true);
        assert_eq!(log.get(11), Fate::Forwarded, "late, but noted");
        log.set(10 + WINDOW, false);
        assert_eq!(log.get(10), Fate::Unknown);
        assert_eq!(log.get(11), Fate::Forwarded);
        log.set(10, true);
        assert_eq!(
            log.get(10 + WINDOW),
            Fate::Dropped,
            "a very late one displaces nothing"
        );
        log.set(1_000_000, true);
        for n in 0..1000 {
            assert_eq!(log.get(n), Fate::Unknown);
            assert_eq!(log.get(999_999 - n), Fate::Unknown);
        }
    }
}
