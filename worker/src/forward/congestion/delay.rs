//! Whether the path's queue grows, draft-ietf-rmcat-gcc-02 section 5.
//!
//! Owns the grouping of packets into bursts, the trend of their one-way delay and the threshold it is held
//! against. Invariants: clocks of sender and receiver are never compared, only differences of each; a
//! window of [`WINDOW`] groups is all that is kept.

use super::Micros;

/// Packets sent within this time count as one (section 5.2).
const BURST: Micros = 5_000;
/// Packets a queue releases together are one group no longer than this.
const MAX_BURST: Micros = 100_000;
/// Receiver time that jumps further starts all over.
const JUMP: Micros = 3_000_000;
/// Groups the trend is fitted over.
const WINDOW: usize = 20;
/// Weight of the past in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// The slope becomes comparable with milliseconds of delay by these.
const GAIN: f64 = 4.0;
const MAX_COUNT: f64 = 60.0;
/// Threshold at first and its range, in ms (section 5.4: `del_var_th`).
const THRESHOLD: f64 = 12.5;
const MIN_THRESHOLD: f64 = 6.0;
const MAX_THRESHOLD: f64 = 600.0;
/// How fast it follows up and down, per ms. Slower up than down would let a loss-based flow starve this
/// one; these are the values the deployed algorithm settled on.
const FOLLOW_UP: f64 = 0.0087;
const FOLLOW_DOWN: f64 = 0.039;
/// A spike further off isn't followed.
const SPIKE: f64 = 15.0;
/// Over-use must last this long, in ms (`overuse_time_th`).
const OVERUSE_TIME: f64 = 10.0;

/// A queue that stands this high, though it grows no further, leaves no room for more.
const STANDING: Micros = 100_000;
/// The path's own delay is the least of this many stretches of this length; skewed clocks drift further
/// only after more.
const STRETCHES: usize = 4;
const STRETCH: Micros = 10_000_000;

/// State of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Usage {
    #[default]
    Normal,
    /// The queue grows.
    Over,
    /// The queue drains.
    Under,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_sent: Micros,
    last_sent: Micros,
    first_arrival: Micros,
    last_arrival: Micros,
}

/// The detector.
#[derive(Debug)]
pub(crate) struct DelayDetector {
    current: Option<Group>,
    previous: Option<Group>,
    /// Ring of (arrival, smoothed delay), in ms.
    points: [(f64, f64); WINDOW],
    count: usize,
    start: Micros,
    accumulated: f64,
    smoothed: f64,
    threshold: f64,
    threshold_at: Option<Micros>,
    over_for: f64,
    overs: u32,
    last_trend: f64,
    usage: Usage,
    /// Least difference of the two clocks per stretch, the newest first; and since when.
    least: [Micros; STRETCHES],
    stretch: Micros,
    /// The same of late, smoothed.
    recent: f64,
}

impl DelayDetector {
    pub(crate) fn new() -> Self {
        DelayDetector {
            current: None,
            previous: None,
            points: [(0.0, 0.0); WINDOW],
            count: 0,
            start: 0,
            accumulated: 0.0,
            smoothed: 0.0,
            threshold: THRESHOLD,
            threshold_at: None,
            over_for: -1.0,
            overs: 0,
            last_trend: 0.0,
            usage: Usage::Normal,
            least: [Micros::MAX; STRETCHES],
            stretch: 0,
            recent: 0.0,
        }
    }

    /// Whether packets wait in a queue that does not get shorter.
    pub(crate) fn standing(&self) -> bool {
        let least = self.least.iter().copied().min().unwrap_or(Micros::MAX);
        least != Micros::MAX && self.recent - least as f64 > STANDING as f64
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// A packet that came, in the order of sending.
    pub(crate) fn packet(&mut self, sent: Micros, arrival: Micros) {
        self.note(sent, arrival);
        let Some(current) = &mut self.current else {
            self.current = Some(Group::new(sent, arrival));
            return;
        };
        if sent < current.first_sent {
            return; // reported late, its group is closed
        }
        if (arrival - current.last_arrival).abs() > JUMP {
            *self = DelayDetector::new();
            self.note(sent, arrival);
            self.current = Some(Group::new(sent, arrival));
            return;
        }
        if current.takes(sent, arrival) {
            current.last_sent = current.last_sent.max(sent);
            current.last_arrival = current.last_arrival.max(arrival);
            return;
        }
        let closed = *current;
        self.current = Some(Group::new(sent, arrival));
        if let Some(previous) = self.previous.replace(closed) {
            self.compare(&previous, &closed);
        }
    }

    /// Nothing was sent for a while: queues have drained, only the path's own delay is still known.
    pub(crate) fn rest(&mut self) {
        let (least, stretch) = (self.least, self.stretch);
        *self = DelayDetector::new();
        (self.least, self.stretch) = (least, stretch);
        self.recent = least.iter().copied().min().unwrap_or_default() as f64;
    }

    fn note(&mut self, sent: Micros, arrival: Micros) {
        let took = arrival - sent;
        if self.least == [Micros::MAX; STRETCHES] {
            self.stretch = sent;
            self.recent = took as f64;
        } else if sent - self.stretch > STRETCH {
            self.stretch = sent;
            self.least.rotate_right(1);
            self.least[0] = Micros::MAX;
        }
        self.least[0] = self.least[0].min(took);
        self.recent += (took as f64 - self.recent) / 16.0;
    }

    fn compare(&mut self, a: &Group, b: &Group) {
        let sent = (b.last_sent - a.last_sent) as f64 / 1000.0;
        let arrival = (b.last_arrival - a.last_arrival) as f64 / 1000.0;
        if arrival < 0.0 {
            return; // overtook its predecessor as a whole
        }
        if self.count == 0 {
            self.start = b.last_arrival;
        }
        self.count += 1;
        self.accumulated += arrival - sent;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        let x = (b.last_arrival - self.start) as f64 / 1000.0;
        if let Some(point) = self.points.get_mut((self.count - 1) % WINDOW) {
            *point = (x, self.smoothed);
        }
        if let Some(slope) = self.slope() {
            self.detect(slope, sent, b.last_arrival);
        }
    }

    /// Least squares over the window; `None` until it is full.
    fn slope(&self) -> Option<f64> {
        if self.count < WINDOW {
            return None;
        }
        let n = WINDOW as f64;
        let (sx, sy) = self
            .points
            .iter()
            .fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
        let (mx, my) = (sx / n, sy / n);
        let (mut num, mut den) = (0.0, 0.0);
        for (x, y) in &self.points {
            num += (x - mx) * (y - my);
            den += (x - mx) * (x - mx);
        }
        (den > 0.0).then_some(num / den)
    }

    fn detect(&mut self, slope: f64, sent_delta: f64, now: Micros) {
        let trend = (self.count as f64).min(MAX_COUNT) * slope * GAIN;
        if trend > self.threshold {
            // The first time over began somewhere between the two groups.
            self.over_for = if self.over_for < 0.0 {
                sent_delta / 2.0
            } else {
                self.over_for + sent_delta
            };
            self.overs += 1;
            if self.over_for > OVERUSE_TIME && self.overs > 1 && slope >= self.last_trend {
                self.over_for = 0.0;
                self.overs = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_for = -1.0;
            self.overs = 0;
            self.usage = if trend < -self.threshold {
                Usage::Under
            } else {
                Usage::Normal
            };
        }
        self.last_trend = slope;
        self.adapt(trend.abs(), now);
    }

    fn adapt(&mut self, trend: f64, now: Micros) {
        let since = self.threshold_at.map_or(0, |at| now - at);
        self.threshold_at = Some(now);
        if trend > self.threshold + SPIKE {
            return;
        }
        let follow = if trend < self.threshold {
            FOLLOW_DOWN
        } else {
            FOLLOW_UP
        };
        let elapsed = (since as f64 / 1000.0).clamp(0.0, 100.0);
        self.threshold += follow * (trend - self.threshold) * elapsed;
        self.threshold = self.threshold.clamp(MIN_THRESHOLD, MAX_THRESHOLD);
    }
}

impl Group {
    fn new(sent: Micros, arrival: Micros) -> Self {
        Group {
            first_sent: sent,
            last_sent: sent,
            first_arrival: arrival,
            last_arrival: arrival,
        }
    }

    fn takes(&self, sent: Micros, arrival: Micros) -> bool {
        if sent - self.first_sent <= BURST {
            return true;
        }
        // Came out of a queue faster than it went in (section 5.2, second rule).
        let apart = arrival - self.last_arrival;
        let slower = apart - (sent - self.last_sent);
        slower < 0 && apart <= BURST && arrival - self.first_arrival < MAX_BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Usages seen with a packet each 10 ms whose delay is given.
    fn run(delay: impl Fn(i64) -> Micros) -> Vec<Usage> {
        let mut d = DelayDetector::new();
        (0..300)
            .map(|i| {
                d.packet(i * 10_000, 5_000_000 + i * 10_000 + delay(i));
                d.usage()
            })
            .collect()
    }

    #[test]
    fn a_growing_queue_is_over_use_and_a_draining_one_under_use() {
        let up = run(|i| if i > 100 { (i - 100) * 2_000 } else { 0 });
        assert!(up[..100].iter().all(|u| *u == Usage::Normal));
        let first = up.iter().position(|u| *u == Usage::Over).unwrap();
        assert!(first < 130, "{first}");
        let down = run(|i| 500_000 - if i > 100 { (i - 100) * 2_000 } else { 0 });
        assert!(down.contains(&Usage::Under) && !down.contains(&Usage::Over));
    }

    #[test]
    fn a_steady_path_is_normal_whatever_the_clocks() {
        assert!(run(|_| 77_000).iter().all(|u| *u == Usage::Normal));
        // 100 ppm of skew.
        assert!(run(|i| i).iter().all(|u| *u == Usage::Normal));
    }

    #[test]
    fn a_queue_that_stands_is_seen_and_forgotten_when_it_is_the_path() {
        let mut d = DelayDetector::new();
        let mut packet = |i: i64, delay: i64| {
            d.packet(i * 10_000, 5_000_000 + i * 10_000 + delay);
            d.standing()
        };
        assert!(!(0..300).any(|i| packet(i, 40_000)));
        assert!(!(300..600).any(|i| packet(i, 120_000)));
        assert!((600..700).any(|i| packet(i, 190_000)));
        assert!((700..900).all(|i| packet(i, 190_000)));
        // Another route after some time: what was short before isn't coming back.
        d.rest();
        assert!(!d.standing());
        let mut packet = |i: i64, delay: i64| {
            d.packet(i * 10_000, 5_000_000 + i * 10_000 + delay);
            d.standing()
        };
        assert!(
            (900..1_000).map(|i| packet(i, 190_000)).last().unwrap(),
            "the same queue again"
        );
        (1_000..6_000).for_each(|i| _ = packet(i, 190_000));
        assert!(!packet(6_000, 190_000));
    }

    #[test]
    fn a_jump_of_the_receivers_clock_is_forgotten() {
        let all = run(|i| if i > 150 { 20_000_000 } else { 0 });
        assert!(all.iter().all(|u| *u == Usage::Normal));
    }
}
