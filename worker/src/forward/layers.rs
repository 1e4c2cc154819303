//! Which simulcast layer a subscriber gets.
//!
//! Owns the choice, a pure function of what is wanted and what arrives, and what may stand in until the
//! chosen layer has a key frame. Invariant: it names a layer that exists, and a live one if there is any.

use std::time::{Duration, Instant};

use crate::session::api::Quality;

/// A layer silent for so many frames, within these bounds, while another one runs was paused by its sender.
const DEAD_FRAMES: u32 = 6;
const DEAD_SOONEST: Duration = Duration::from_millis(300);
pub(crate) const DEAD_AFTER: Duration = Duration::from_millis(1000);

/// How long a layer may be silent whose frames come `interval` apart.
pub(crate) fn patience(interval: Option<Duration>) -> Duration {
    interval.map_or(DEAD_AFTER, |i| (i * DEAD_FRAMES).clamp(DEAD_SOONEST, DEAD_AFTER))
}

/// How long a layer that stopped has to come again before anybody is sent up to it; twice as long each time.
const PROBATION: Duration = Duration::from_secs(3);
const PROBATIONS: u32 = 3;
/// A stop after so long is the first again.
const STEADY: Duration = Duration::from_secs(30);

/// How steadily a layer comes. A sender whose path has hardly room for it stops and begins it again and
/// again; to follow each time would cost subscribers a key frame and a gap.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Steadiness {
    since: Option<Instant>,
    stops: u32,
}

impl Steadiness {
    /// Looks at it. `live`: it comes; `wanted`: somebody would take it, so that a stop is the sender's doing.
    pub(crate) fn look(&mut self, live: bool, wanted: bool, now: Instant) {
        match (live, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => {
                self.since = None;
                let anew = now.saturating_duration_since(since) >= STEADY;
                self.stops = if anew { 1 } else { (self.stops + 1).min(PROBATIONS) };
            }
            _ => {}
        }
        if !wanted {
            self.stops = 0;
        }
    }

    /// Whether it can be relied on.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        let Some(times) = self.stops.checked_sub(1) else {
            return true;
        };
        self.since
            .is_some_and(|since| now.saturating_duration_since(since) >= PROBATION * (1 << times))
    }
}

/// What is known of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerState {
    pub(crate) quality: Quality,
    pub(crate) last_packet: Option<Instant>,
    /// As of [`patience`].
    pub(crate) patience: Duration,
    /// As of [`Steadiness`].
    pub(crate) steady: bool,
}

impl LayerState {
    /// Whether it comes in; `newest` is the last packet of any layer.
    pub(crate) fn is_live(&self, newest: Option<Instant>) -> bool {
        newest
            .zip(self.last_packet)
            .is_some_and(|(newest, last)| newest.saturating_duration_since(last) < self.patience)
    }
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

/// A set of layers, by place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LayerSet(u32);

impl LayerSet {
    pub(crate) fn contains(self, layer: usize) -> bool {
        layer < 32 && self.0 >> layer & 1 == 1
    }

    /// Those in it, lowest place first.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..32).filter(move |l| self.contains(*l))
    }
}

impl FromIterator<usize> for LayerSet {
    fn from_iter<I: IntoIterator<Item = usize>>(layers: I) -> Self {
        LayerSet(
            layers
                .into_iter()
                .filter(|l| *l < 32)
                .fold(0, |set, l| set | 1 << l),
        )
    }
}

/// A layer's place with its state, where it is live.
fn live(layers: &[LayerState]) -> impl Iterator<Item = (usize, &LayerState)> + Clone {
    let newest = layers.iter().filter_map(|l| l.last_packet).max();
    layers.iter().enumerate().filter(move |(_, l)| l.is_live(newest))
}

/// The layer to forward: the highest live one up to `wanted`, steady or chosen before; else the lowest live
/// one, else what was chosen before, else the lowest. `None` where the subscriber paused.
pub(crate) fn choose(wanted: Option<Quality>, layers: &[LayerState], before: Option<usize>) -> Option<usize> {
    let wanted = wanted?;
    if layers.len() == 1 {
        return Some(0);
    }
    let best = live(layers)
        .filter(|(at, l)| l.quality <= wanted && (l.steady || before == Some(*at)))
        .max_by_key(|l| l.1.quality);
    best.or_else(|| live(layers).min_by_key(|l| l.1.quality))
        .map(|l| l.0)
        .or(before)
        .or_else(|| {
            let all = layers.iter().enumerate();
            all.min_by_key(|l| l.1.quality).map(|l| l.0)
        })
}

/// The layers whose key frame is taken where it comes before the target's: any on the way there from the
/// current one, and any up to it while there is none.
pub(crate) fn on_the_way(layers: &[LayerState], current: Option<usize>, target: usize) -> LayerSet {
    let quality = |l: usize| layers.get(l).map(|l| l.quality);
    let Some(goal) = quality(target) else {
        return LayerSet::default();
    };
    // From above, anything within the target is nearer to it.
    let floor = current.and_then(quality).filter(|now| *now <= goal);
    live(layers)
        .filter(|(_, l)| l.quality <= goal && floor.is_none_or(|floor| l.quality > floor))
        .map(|(at, _)| at)
        .chain(std::iter::once(target))
        .filter(|l| Some(*l) != current)
        .collect()
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
                patience: DEAD_AFTER,
                steady: true,
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
    fn a_layer_that_ends_is_missed_after_some_of_its_frames() {
        let t = Instant::now() + Duration::from_secs(100);
        let ms = Duration::from_millis;
        assert_eq!(patience(None), DEAD_AFTER);
        assert_eq!(patience(Some(ms(10))), ms(300));
        assert_eq!(patience(Some(ms(100))), ms(600));
        assert_eq!(patience(Some(ms(400))), DEAD_AFTER);
        let mut all = layers(t, [Some(0), Some(10), Some(320)]);
        assert_eq!(choose(Some(Quality::High), &all, Some(2)), Some(2));
        all[2].patience = patience(Some(ms(33)));
        assert_eq!(choose(Some(Quality::High), &all, Some(2)), Some(1));
    }

    #[test]
    fn nobody_follows_a_layer_that_comes_and_goes() {
        let t = Instant::now() + Duration::from_secs(100);
        let mut all = layers(t, [Some(0), Some(10), None]);
        all[1].steady = false;
        assert_eq!(choose(Some(Quality::High), &all, Some(0)), Some(0));
        assert_eq!(
            choose(Some(Quality::High), &all, Some(1)),
            Some(1),
            "who has it stays"
        );
        all[0].steady = false;
        assert_eq!(
            choose(Some(Quality::High), &all, None),
            Some(0),
            "better than nothing"
        );
    }

    #[test]
    fn a_layer_is_relied_on_again_after_a_while() {
        let start = Instant::now();
        let mut layer = Steadiness::default();
        let mut clock = 0;
        // For so many seconds it comes, or doesn't; when it held first in that time.
        let mut pass = |live: bool, wanted: bool, seconds: u64| {
            let mut held = None;
            for ms in (0..seconds * 1000).step_by(500) {
                let now = start + Duration::from_millis(clock + ms);
                layer.look(live, wanted, now);
                if layer.holds(now) {
                    held.get_or_insert(ms);
                }
            }
            clock += seconds * 1000;
            held
        };
        assert_eq!(pass(true, true, 5), Some(0), "trusted at first");
        assert_eq!(pass(false, true, 2), None);
        assert_eq!(pass(true, true, 5), Some(3_000));
        assert_eq!(pass(false, true, 2), None);
        assert_eq!(pass(true, true, 7), Some(6_000));
        for _ in 0..3 {
            assert_eq!(pass(false, true, 2), None);
            assert_eq!(pass(true, true, 13), Some(12_000), "no longer than that");
        }
        pass(true, true, 30);
        assert_eq!(pass(false, true, 2), None);
        assert_eq!(pass(true, true, 5), Some(3_000), "what was long ago is forgotten");
        pass(false, false, 2);
        assert_eq!(pass(true, true, 1), Some(0), "stopped because nobody wanted it");
    }

    #[test]
    fn what_comes_first_on_the_way_is_taken() {
        let t = Instant::now() + Duration::from_secs(100);
        let all = layers(t, [Some(0), Some(10), Some(20)]);
        let set = |current, target| on_the_way(&all, current, target).iter().collect::<Vec<_>>();
        assert_eq!(set(None, 2), [0, 1, 2]);
        assert_eq!(set(None, 0), [0]);
        assert_eq!(set(Some(0), 2), [1, 2]);
        assert_eq!(set(Some(2), 1), [0, 1], "down, anything within the target");
        assert_eq!(set(Some(2), 2), Vec::<usize>::new());
        let paused = layers(t, [Some(2000), None, Some(0)]);
        assert_eq!(on_the_way(&paused, None, 2).iter().collect::<Vec<_>>(), [2]);
        let silent = layers(t, [None; 3]);
        assert_eq!(on_the_way(&silent, None, 1).iter().collect::<Vec<_>>(), [1]);
        assert_eq!(on_the_way(&all, None, 9), LayerSet::default());
    }

    #[test]
    fn names_and_places() {
        assert_eq!(quality_of("h", 0, 1), Quality::Medium);
        assert_eq!(quality_of("hi", 2, 3), Quality::High);
        assert_eq!(quality_of("lo", 0, 3), Quality::Low);
        assert_eq!(quality_of("mid", 1, 3), Quality::Medium);
    }
}
