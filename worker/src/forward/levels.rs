//! How loud an audio track is.
//!
//! Owns the mean over an interval of the levels that publishers write into their packets (RFC 6464).

/// At or under this a packet counts as speech, in -dBov.
const ACTIVE: u8 = 35;

/// Accumulates one track's levels.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LevelMeter {
    packets: u32,
    active: u32,
    sum: u32,
}

impl LevelMeter {
    /// The extension's first byte: voice bit and level.
    pub(crate) fn note(&mut self, value: u8) {
        let level = value & 0x7F;
        self.packets += 1;
        if level <= ACTIVE {
            self.active += 1;
            self.sum += u32::from(level);
        }
    }

    /// Mean level of the active packets and their share; `None` if nothing was audible. Starts anew.
    pub(crate) fn take(&mut self) -> Option<(u8, f32)> {
        let seen = std::mem::take(self);
        let mean = seen.sum.checked_div(seen.active)?;
        Some((mean as u8, seen.active as f32 / seen.packets as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_of_the_audible() {
        let mut m = LevelMeter::default();
        assert_eq!(m.take(), None);
        for v in [10, 0x80 | 20, 127, 100] {
            m.note(v);
        }
        assert_eq!(m.take(), Some((15, 0.5)));
        m.note(127);
        assert_eq!(m.take(), None);
    }
}
