//! Active speakers.
//!
//! Owns who speaks and how loudly, from media's audio levels. Rule: active where at least 40 % of
//! 400 ms was at or above -35 dBov. The level told is the loudest of the window, less by as much as the
//! window wasn't active, smoothed over two active windows and rounded up to eighths, so that clients
//! are told of changes one can see. Invariant: whoever was told as active is told once when it stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;

use super::ids::Now;

const WINDOW: Duration = Duration::from_millis(400);
/// Media reports every 100 ms.
const REPORTS_PER_WINDOW: f32 = 4.0;
const ACTIVE_SHARE: f32 = 0.4;
/// 2 / (N + 1) for two windows.
const SMOOTHING: f32 = 2.0 / 3.0;
const STEPS: f32 = 8.0;

#[derive(Debug, Default)]
struct Voice {
    /// Of the window.
    share: f32,
    loudest: f32,
    /// Over the active windows up to now.
    smoothed: f32,
    told: f32,
}

/// The speakers of a room, by participant sid.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    voices: BTreeMap<Arc<str>, Voice>,
    window_began: Duration,
}

impl Speakers {
    /// One report of one participant's track. `dbov` 0 is loudest.
    pub(super) fn report(&mut self, sid: &Arc<str>, dbov: u8, active_ratio: f32) {
        let voice = self.voices.entry(Arc::clone(sid)).or_default();
        voice.share += active_ratio.clamp(0.0, 1.0);
        // From decibels to amplitude: what clients draw.
        voice.loudest = voice.loudest.max(10f32.powf(-f32::from(dbov) / 20.0));
    }

    /// What changed, once per window.
    pub(super) fn changes(&mut self, now: Now) -> Vec<lk::SpeakerInfo> {
        if now.since(self.window_began) < WINDOW {
            return Vec::new();
        }
        self.window_began = now.since_start;
        let mut changed = Vec::new();
        self.voices.retain(|sid, voice| {
            let share = (std::mem::take(&mut voice.share) / REPORTS_PER_WINDOW).min(1.0);
            let window = std::mem::take(&mut voice.loudest) * share;
            let level = if share >= ACTIVE_SHARE {
                voice.smoothed += (window - voice.smoothed) * SMOOTHING;
                ((voice.smoothed * STEPS).ceil() / STEPS).clamp(1.0 / STEPS, 1.0)
            } else {
                voice.smoothed = 0.0;
                0.0
            };
            if (level - voice.told).abs() > f32::EPSILON {
                voice.told = level;
                changed.push(speaker(sid, level));
            }
            level > 0.0
        });
        changed.sort_by(|a, b| b.level.total_cmp(&a.level));
        changed
    }

    /// Was it last told as active?
    pub(super) fn speaks(&self, sid: &str) -> bool {
        self.voices.get(sid).is_some_and(|v| v.told > 0.0)
    }

    /// Everyone who speaks now, for somebody who comes back.
    pub(super) fn current(&self) -> Vec<lk::SpeakerInfo> {
        self.voices
            .iter()
            .filter(|(_, v)| v.told > 0.0)
            .map(|(sid, v)| speaker(sid, v.told))
            .collect()
    }

    /// It left or unpublished; what the others must be told.
    pub(super) fn forget(&mut self, sid: &str) -> Option<lk::SpeakerInfo> {
        let voice = self.voices.remove(sid)?;
        (voice.told > 0.0).then(|| speaker(sid, 0.0))
    }
}

fn speaker(sid: &str, level: f32) -> lk::SpeakerInfo {
    lk::SpeakerInfo {
        sid: sid.to_owned(),
        level,
        active: level > 0.0,
    }
}

/// For the drill.
pub(super) fn simulated(sid: &str) -> lk::SpeakerInfo {
    speaker(sid, 1.0)
}
