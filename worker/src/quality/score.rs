//! From loss and delay to a word.
//!
//! Owns the scale: 100 is perfect, 0 is nothing at all. Invariant: pure; a score gets better slower
//! than it gets worse, since people notice the other way round.

use std::time::Duration;

use livekit_protocol::ConnectionQuality;

/// What one direction of one connection did in an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Interval {
    /// Audio packets that should have arrived.
    pub audio_expected: u64,
    /// Of them, missing.
    pub audio_lost: u64,
    /// Video packets that should have arrived.
    pub video_expected: u64,
    /// Of them, missing.
    pub video_lost: u64,
    /// Largest jitter of its tracks.
    pub jitter: Duration,
}

const PERFECT: f32 = 100.0;
/// At 5 % loss Opus with its redundancy still sounds fair; video freezes until a retransmission.
const AUDIO_LOSS_WEIGHT: f32 = 4.0;
const VIDEO_LOSS_WEIGHT: f32 = 6.0;
/// Delay counts from where a conversation begins to suffer (ITU-T G.114: 150 ms one way).
const DELAY_FREE_MS: f32 = 150.0;
/// Points per millisecond above it: 300 ms more is a bad call.
const DELAY_WEIGHT: f32 = 0.2;
const FASTER_DOWN: f32 = 0.8;
const SLOWER_UP: f32 = 0.4;

fn loss_percent(lost: u64, expected: u64) -> f32 {
    if expected == 0 {
        0.0
    } else {
        lost.min(expected) as f32 * 100.0 / expected as f32
    }
}

/// The score of an interval of one direction.
pub fn of_interval(interval: &Interval, rtt: Option<Duration>) -> f32 {
    let audio = loss_percent(interval.audio_lost, interval.audio_expected) * AUDIO_LOSS_WEIGHT;
    let video = loss_percent(interval.video_lost, interval.video_expected) * VIDEO_LOSS_WEIGHT;
    // One way, plus what the receiver must buffer against jitter.
    let one_way = rtt.unwrap_or_default() / 2 + interval.jitter * 2;
    let delay = (one_way.as_secs_f32() * 1000.0 - DELAY_FREE_MS).max(0.0) * DELAY_WEIGHT;
    (PERFECT - audio.max(video) - delay).clamp(0.0, PERFECT)
}

/// The new smoothed score.
pub fn smoothed(before: Option<f32>, now: f32) -> f32 {
    match before {
        None => now,
        Some(before) if now < before => before + (now - before) * FASTER_DOWN,
        Some(before) => before + (now - before) * SLOWER_UP,
    }
}

/// The word clients show.
pub fn word(score: f32) -> ConnectionQuality {
    match score {
        s if s > 80.0 => ConnectionQuality::Excellent,
        s if s > 50.0 => ConnectionQuality::Good,
        s if s > 5.0 => ConnectionQuality::Poor,
        _ => ConnectionQuality::Lost,
    }
}

/// The mean opinion score (1 to 5) that LiveKit's message carries.
pub fn opinion(score: f32) -> f32 {
    1.0 + score / PERFECT * 3.5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(lost: u64) -> Interval {
        Interval {
            video_expected: 1000,
            video_lost: lost,
            ..Interval::default()
        }
    }

    #[test]
    fn nothing_lost_is_excellent_and_much_lost_is_poor() {
        assert_eq!(
            word(of_interval(&video(0), Some(Duration::from_millis(40)))),
            ConnectionQuality::Excellent
        );
        assert_eq!(word(of_interval(&video(50), None)), ConnectionQuality::Good);
        assert_eq!(word(of_interval(&video(120), None)), ConnectionQuality::Poor);
        assert_eq!(word(of_interval(&video(1000), None)), ConnectionQuality::Lost);
    }

    #[test]
    fn a_silent_direction_is_not_a_bad_one() {
        assert_eq!(of_interval(&Interval::default(), None), 100.0);
    }

    #[test]
    fn delay_counts_from_150_ms_one_way() {
        assert_eq!(of_interval(&video(0), Some(Duration::from_millis(300))), 100.0);
        assert!(of_interval(&video(0), Some(Duration::from_millis(900))) < 50.0);
    }

    #[test]
    fn worse_comes_faster_than_better() {
        let down = 100.0 - smoothed(Some(100.0), 50.0);
        let up = smoothed(Some(50.0), 100.0) - 50.0;
        assert!(down > up && (down - 40.0).abs() < 0.01 && (up - 20.0).abs() < 0.01);
    }
}
