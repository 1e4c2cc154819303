//! From loss, delay and missing pictures to a word.
//!
//! Owns the scale: 100 is perfect, 0 is nothing at all. A stream is worth what its worst side is worth:
//! the least of its scores for loss, delay, bitrate and missed layers; a participant is worth its worst
//! stream. Invariant: pure; a score gets better slower than it gets worse, since people notice the other
//! way round.

use std::time::Duration;

use livekit_protocol::ConnectionQuality;

use crate::session::api::{MediaKind, Quality};

/// What one stream, in one direction, did in an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Sound or pictures.
    pub kind: MediaKind,
    /// Packets that should have arrived.
    pub expected: u64,
    /// Of them, missing.
    pub lost: u64,
    /// Of the stream.
    pub jitter: Duration,
    /// Bits a second that its sender announced, and that came; `None`: nothing is known to compare.
    pub bitrate: Option<(u64, u64)>,
    /// Steps between the layer that should flow and the one that does; nothing at all counts as one step
    /// below the lowest.
    pub missed_layers: u8,
    /// It should flow and nothing came.
    pub silent: bool,
}

impl Interval {
    /// Of a stream that did nothing and had nothing to do.
    pub fn idle(kind: MediaKind) -> Self {
        Self {
            kind,
            expected: 0,
            lost: 0,
            jitter: Duration::ZERO,
            bitrate: None,
            missed_layers: 0,
            silent: false,
        }
    }
}

const PERFECT: f32 = 100.0;
/// At 5 % loss Opus with its redundancy still sounds fair; video freezes until a retransmission.
const AUDIO_LOSS_WEIGHT: f32 = 4.0;
const VIDEO_LOSS_WEIGHT: f32 = 6.0;
/// Delay counts from where a conversation begins to suffer (ITU-T G.114: 150 ms one way).
const DELAY_FREE_MS: f32 = 150.0;
/// Points per millisecond above it: 300 ms more is a bad call.
const DELAY_WEIGHT: f32 = 0.2;
/// What is announced is a ceiling: a picture that stands still needs a fraction of it.
const BITRATE_FREE: f32 = 4.0;
/// Points per factor e below that fraction.
const BITRATE_WEIGHT: f32 = 20.0;
/// Points per layer: one less is seen, two less are annoying.
const LAYER_WEIGHT: f32 = 30.0;
const FASTER_DOWN: f32 = 0.8;
const SLOWER_UP: f32 = 0.4;

fn loss(interval: &Interval) -> f32 {
    if interval.expected == 0 {
        return PERFECT;
    }
    let percent = interval.lost.min(interval.expected) as f32 * 100.0 / interval.expected as f32;
    let weight = match interval.kind {
        MediaKind::Audio => AUDIO_LOSS_WEIGHT,
        MediaKind::Video => VIDEO_LOSS_WEIGHT,
    };
    PERFECT - percent * weight
}

fn delay(interval: &Interval, rtt: Option<Duration>) -> f32 {
    // One way, plus what the receiver must buffer against jitter.
    let one_way = rtt.unwrap_or_default() / 2 + interval.jitter * 2;
    PERFECT - (one_way.as_secs_f32() * 1000.0 - DELAY_FREE_MS).max(0.0) * DELAY_WEIGHT
}

fn bitrate(interval: &Interval) -> f32 {
    let Some((announced, came)) = interval.bitrate else {
        return PERFECT;
    };
    let short = announced as f32 / (came.max(1) as f32 * BITRATE_FREE);
    PERFECT - short.max(1.0).ln() * BITRATE_WEIGHT
}

/// How many steps `has` is below `should`; `None` is below the lowest.
pub fn steps_below(should: Option<Quality>, has: Option<Quality>) -> u8 {
    let height = |quality: Option<Quality>| match quality {
        None => 0u8,
        Some(Quality::Low) => 1,
        Some(Quality::Medium) => 2,
        Some(Quality::High) => 3,
    };
    height(should).saturating_sub(height(has))
}

/// The score of an interval of one stream.
pub fn of_stream(interval: &Interval, rtt: Option<Duration>) -> f32 {
    if interval.silent {
        return 0.0;
    }
    let layers = PERFECT - f32::from(interval.missed_layers) * LAYER_WEIGHT;
    loss(interval)
        .min(delay(interval, rtt))
        .min(bitrate(interval))
        .min(layers)
        .clamp(0.0, PERFECT)
}

/// The new smoothed score.
pub fn smoothed(before: Option<f32>, now: f32) -> f32 {
    match before {
        None => now,
        Some(before) if now < before => before + (now - before) * FASTER_DOWN,
        Some(before) => before + (now - before) * SLOWER_UP,
    }
}

/// The score of a connection, whatever flows over it.
pub fn of_connection(rtt: Option<Duration>) -> f32 {
    delay(&Interval::idle(MediaKind::Audio), rtt).clamp(0.0, PERFECT)
}

/// The score of somebody with that connection and these streams.
pub fn of_participant(connection: f32, streams: impl Iterator<Item = f32>) -> f32 {
    streams.fold(connection, f32::min)
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

    fn stream(kind: MediaKind, lost: u64) -> Interval {
        Interval {
            expected: 1000,
            lost,
            ..Interval::idle(kind)
        }
    }

    fn video(lost: u64) -> Interval {
        stream(MediaKind::Video, lost)
    }

    #[test]
    fn nothing_lost_is_excellent_and_much_lost_is_poor() {
        assert_eq!(
            word(of_stream(&video(0), Some(Duration::from_millis(40)))),
            ConnectionQuality::Excellent
        );
        assert_eq!(word(of_stream(&video(50), None)), ConnectionQuality::Good);
        assert_eq!(word(of_stream(&video(120), None)), ConnectionQuality::Poor);
        assert_eq!(word(of_stream(&video(1000), None)), ConnectionQuality::Lost);
        // Sound bears more.
        assert!(of_stream(&stream(MediaKind::Audio, 50), None) > of_stream(&video(50), None));
    }

    #[test]
    fn a_stream_with_nothing_to_do_is_not_a_bad_one() {
        assert_eq!(of_stream(&Interval::idle(MediaKind::Video), None), 100.0);
        assert_eq!(of_participant(of_connection(None), [].into_iter()), 100.0);
    }

    #[test]
    fn delay_counts_from_150_ms_one_way() {
        assert_eq!(of_stream(&video(0), Some(Duration::from_millis(300))), 100.0);
        assert!(of_stream(&video(0), Some(Duration::from_millis(900))) < 50.0);
        assert!(of_connection(Some(Duration::from_millis(900))) < 50.0);
    }

    #[test]
    fn the_worst_side_counts_and_not_their_sum() {
        let lossy = of_stream(&video(30), None);
        let late = of_stream(&video(0), Some(Duration::from_millis(500)));
        let both = of_stream(&video(30), Some(Duration::from_millis(500)));
        assert!(lossy < 100.0 && late < 100.0);
        assert_eq!(both, lossy.min(late));
        assert_eq!(of_participant(95.0, [90.0, 40.0, 70.0].into_iter()), 40.0);
        assert_eq!(of_participant(30.0, [90.0].into_iter()), 30.0);
    }

    #[test]
    fn a_bitrate_counts_where_even_a_still_picture_would_need_more() {
        let with = |came| {
            of_stream(
                &Interval {
                    bitrate: Some((1_000_000, came)),
                    ..video(0)
                },
                None,
            )
        };
        assert_eq!(with(2_000_000), 100.0);
        assert_eq!(with(250_000), 100.0);
        assert_eq!(word(with(50_000)), ConnectionQuality::Good);
        assert_eq!(word(with(10_000)), ConnectionQuality::Poor);
        assert_eq!(with(0), 0.0);
    }

    #[test]
    fn missed_layers_count_one_by_one() {
        use Quality::{High, Low, Medium};
        assert_eq!(steps_below(Some(High), Some(High)), 0);
        assert_eq!(steps_below(Some(High), Some(Low)), 2);
        assert_eq!(steps_below(Some(Medium), None), 2);
        assert_eq!(steps_below(Some(Low), Some(High)), 0);
        assert_eq!(steps_below(None, None), 0);
        let missing = |missed_layers| {
            word(of_stream(
                &Interval {
                    missed_layers,
                    ..video(0)
                },
                None,
            ))
        };
        assert_eq!(missing(1), ConnectionQuality::Good);
        assert_eq!(missing(2), ConnectionQuality::Poor);
        assert_eq!(missing(3), ConnectionQuality::Poor);
    }

    #[test]
    fn silence_where_there_should_be_pictures_is_lost() {
        let silent = Interval {
            silent: true,
            ..Interval::idle(MediaKind::Video)
        };
        assert_eq!(word(of_stream(&silent, None)), ConnectionQuality::Lost);
    }

    #[test]
    fn worse_comes_faster_than_better() {
        let down = 100.0 - smoothed(Some(100.0), 50.0);
        let up = smoothed(Some(50.0), 100.0) - 50.0;
        assert!(down > up && (down - 40.0).abs() < 0.01 && (up - 20.0).abs() < 0.01);
    }
}
