//! How loud an audio track is.
//!
//! Owns what the levels that publishers write into their packets (RFC 6464) amount to over an interval,
//! by the time the packets last, not by their number: with discontinuous transmission silence has few.

/// At or under this a packet counts as speech, in -dBov.
const ACTIVE: u8 = 35;

/// A report's time, in ticks of the 48 kHz clock.
const INTERVAL: u32 = 4_800;
/// The longest packet of Opus; what is further apart has a pause between (RFC 7587 section 4.2).
const LONGEST: u32 = 5_760;
/// What a packet lasts where nothing else is known.
const USUAL: u32 = 960;

/// Accumulates one track's levels.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LevelMeter {
    last: Option<u32>,
    /// Ticks that were active since the last report.
    active: u32,
    /// The loudest of them.
    loudest: u8,
}

impl LevelMeter {
    /// The extension's first byte, voice bit and level, of a packet with this timestamp.
    pub(crate) fn note(&mut self, value: u8, timestamp: u32) {
        let lasted = match self.last.map(|last| timestamp.wrapping_sub(last)) {
            // Late, or the second of two.
            Some(0 | 0x8000_0000..) => return,
            Some(apart) if apart <= LONGEST => apart,
            _ => USUAL,
        };
        self.last = Some(timestamp);
        let level = value & 0x7F;
        if level <= ACTIVE {
            self.loudest = if self.active == 0 {
                level
            } else {
                self.loudest.min(level)
            };
            self.active = self.active.saturating_add(lasted);
        }
    }

    /// The loudest active level and the share of the time since the last call that was active, 100 ms;
    /// `None` if nothing was. Starts anew.
    pub(crate) fn take(&mut self) -> Option<(u8, f32)> {
        let active = std::mem::take(&mut self.active);
        (active > 0).then(|| (self.loudest, active.min(INTERVAL) as f32 / INTERVAL as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loudest_and_the_share_of_the_time() {
        let mut m = LevelMeter::default();
        assert_eq!(m.take(), None);
        for (i, v) in [20, 0x80 | 10, 127, 36, 35].into_iter().enumerate() {
            m.note(v, 960 * i as u32);
        }
        assert_eq!(m.take(), Some((10, 0.6)));
        assert_eq!(m.take(), None, "it starts anew");
        m.note(127, 960 * 5);
        assert_eq!(m.take(), None);
    }

    #[test]
    fn packets_count_by_what_they_last() {
        let mut m = LevelMeter::default();
        m.note(5, 0u32.wrapping_sub(480));
        m.take();
        m.note(5, 2_400);
        assert_eq!(m.take(), Some((5, 0.6)), "60 ms, over the wrap");
        // A pause without packets isn't sound.
        m.note(5, 2_400 + 48_000);
        assert_eq!(m.take(), Some((5, 0.2)));
        // Neither is a late packet, nor the same again.
        m.note(1, 2_400);
        m.note(1, 2_400 + 48_000);
        assert_eq!(m.take(), None);
        for i in 0..20 {
            m.note(9, 100_000 + i * 960);
        }
        assert_eq!(m.take(), Some((9, 1.0)), "a burst is no more than all of it");
    }
}
