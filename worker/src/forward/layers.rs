//! Which simulcast layer a subscriber gets.
//!
//! Owns the choice, a pure function of what is wanted and what arrives. Invariant: it names a layer that
//! exists, and a live one if there is any.

use std::time::{Duration, Instant};

use crate::session::api::Quality;

/// A layer silent for so long while another one runs was paused by its sender.
const DEAD_AFTER: Duration = Duration::from_millis(1000);

/// What is known of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerState {
    pub(crate) quality: Quality,
    pub(crate) last_packet: Option<Instant>,
}

/// The quality of a RID; by place in the sender's list where it isn't one of LiveKit's names.
pub(crate) fn quality_of(rid: &str, index: usize, count: usize) -> Quality {
    match (rid, index) {
        ("q", _) => Quality::Low,
        ("h", _) => Quality::Medium,
        ("f", _) => Quality::High,
        (_, i) if i + 1 == count => Quality::High,
        (_, 0) => Quality::Low,
        _ => Quality::Medium,
    }
}

/// The layer to forward: the highest live one up to `wanted`, else the lowest live one, else what was
/// chosen before, else the lowest. `None` where the subscriber paused.
pub(crate) fn choose(wanted: Option<Quality>, layers: &[LayerState], before: Option<usize>) -> Option<usize> {
    let wanted = wanted?;
    if layers.len() == 1 {
        return Some(0);
    }
    let newest = layers.iter().filter_map(|l| l.last_packet).max();
    let live = |l: &&(usize, &LayerState)| match (newest, l.1.last_packet) {
        (Some(newest), Some(last)) => newest.saturating_duration_since(last) < DEAD_AFTER,
        _ => false,
    };
    let indexed: Vec<(usize, &LayerState)> = layers.iter().enumerate().collect();
    let best = indexed
        .iter()
        .filter(live)
        .filter(|l| l.1.quality <= wanted)
        .max_by_key(|l| l.1.quality);
    let lowest = || indexed.iter().filter(live).min_by_key(|l| l.1.quality);
    best.or_else(lowest)
        .map(|l| l.0)
        .or(before)
        .or_else(|| indexed.iter().min_by_key(|l| l.1.quality).map(|l| l.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(t: Instant, ages_ms: [Option<u64>; 3]) -> Vec<LayerState> {
        [Quality::Low, Quality::Medium, Quality::High]
            .into_iter()
            .zip(ages_ms)
            .map(|(quality, age)| LayerState {
                quality,
                last_packet: age.map(|a| t - Duration::from_millis(a)),
            })
            .collect()
    }

    #[test]
    fn highest_live_up_to_wanted() {
        let t = Instant::now() + Duration::from_secs(100);
        let all = layers(t, [Some(0), Some(10), Some(20)]);
        assert_eq!(choose(Some(Quality::High), &all, None), Some(2));
        assert_eq!(choose(Some(Quality::Medium), &all, Some(2)), Some(1));
        assert_eq!(choose(None, &all, Some(2)), None);
        let top_paused = layers(t, [Some(0), Some(10), Some(1500)]);
        assert_eq!(choose(Some(Quality::High), &top_paused, Some(2)), Some(1));
        let only_top = layers(t, [None, None, Some(0)]);
        assert_eq!(choose(Some(Quality::Low), &only_top, None), Some(2));
        let all_silent = layers(t, [Some(5000), Some(5000), Some(5000)]);
        assert_eq!(
            choose(Some(Quality::High), &all_silent, None),
            Some(2),
            "a pause of all is not a switch"
        );
        assert_eq!(choose(Some(Quality::High), &layers(t, [None; 3]), None), Some(0));
    }

    #[test]
    fn names_and_places() {
        assert_eq!(quality_of("h", 0, 1), Quality::Medium);
        assert_eq!(quality_of("hi", 2, 3), Quality::High);
        assert_eq!(quality_of("lo", 0, 3), Quality::Low);
        assert_eq!(quality_of("mid", 1, 3), Quality::Medium);
    }
}
