//! What a path carries, draft-ietf-rmcat-gcc-02.
//!
//! Owns the estimate: the delay-based rate with its increase and decrease (section 5.5), the loss-based
//! bound (section 6), the round trip, and what happens when feedback stays out. Invariants: the estimate
//! stays within [`MIN_RATE`] and [`MAX_RATE`]; it never grows far past what arrived unless a probe
//! has shown more; a feedback costs no allocation.

use super::Micros;
use super::delay::{DelayDetector, Usage};
use super::meter::Meter;

/// Where a new path starts, as WebRTC's own senders do.
pub(crate) const START_RATE: f64 = 300_000.0;
/// Sound for one still fits.
pub(crate) const MIN_RATE: f64 = 30_000.0;
pub(crate) const MAX_RATE: f64 = 100_000_000.0;
/// What is kept of the rate that arrived when the queue grew (section 5.5: beta).
const BETA: f64 = 0.85;
/// Growth per second while nothing is known of the limit.
const GROWTH: f64 = 1.08;
/// The estimate stays under this many times of what arrives, plus a little.
const HEADROOM: f64 = 1.2;
const HEADROOM_BITS: f64 = 10_000.0;
/// Near the last known limit: within so many deviations.
const NEAR: f64 = 3.0;
/// Range of the limit's variance relative to its mean, in bit/s.
const MIN_VARIANCE: f64 = 400.0;
const MAX_VARIANCE: f64 = 2500.0;
/// A sender that sends less than this share of the estimate isn't the cause of a queue that grows.
const LIMITED_BY_SOURCE: f64 = 0.65;
/// Nor one of which at least this share arrives.
const PASSED: f64 = 0.7;
/// A queue that stands is answered after this, each time after as much more, and no more than so often.
const GIVE_WAY: Micros = 1_000_000;
const GIVE_WAY_TIMES: u8 = 4;
/// Time over which what arrived is measured: to hold the estimate against, and when the queue grew, where
/// the newest counts.
const LONG: Micros = 500_000;
const SHORT: Micros = 200_000;
/// Loss that is no sign of congestion, and loss that is (section 6).
const LOSS_LOW: f64 = 0.02;
const LOSS_HIGH: f64 = 0.10;
/// The latter where no queue has grown for so long: radio loses packets without being full, and less sent would
/// lose as large a share. Full paths without a queue are found here.
const LOSS_ALONE: f64 = 0.20;
const QUEUELESS: Micros = 5_000_000;
/// The loss is looked at over two of these; sooner where it is heavy.
const LOSS_INTERVAL: Micros = 1_000_000;
const LOSS_HEAVY: f64 = 0.3;
const LOSS_MIN_PACKETS: u32 = 20;
/// A bound so far above the rest binds nothing any more.
const LOSS_FREE: f64 = 2.0;
/// Feedback that stays out so long is a path that is blocked.
const SILENCE: Micros = 1_000_000;
const SILENCE_FACTOR: f64 = 0.7;
/// Nothing sent for so long: the path is empty.
const IDLE: Micros = 1_000_000;
/// A receiver's REMB is forgotten after this.
const REMB_LIFE: Micros = 15_000_000;
/// Until measured.
const DEFAULT_RTT: Micros = 200_000;

/// What the last limit was.
#[derive(Debug, Clone, Copy)]
struct Capacity {
    mean: f64,
    /// Variance relative to the mean.
    variance: f64,
}

/// Estimate of one path.
#[derive(Debug)]
pub(crate) struct Estimator {
    pub(crate) detector: DelayDetector,
    /// By the receiver's clock.
    arrived: Meter,
    /// By ours.
    sent: Meter,
    /// Part of `sent` that carries no number.
    unnumbered: Meter,
    rate: f64,
    capacity: Option<Capacity>,
    holding: bool,
    /// When the queue last grew by what was sent.
    last_overuse: Option<Micros>,
    last_update: Option<Micros>,
    last_decrease: Option<Micros>,
    given_way: u8,
    loss: Loss,
    remb: Option<(f64, Micros)>,
    rtt: Option<Micros>,
    last_sent: Option<Micros>,
    last_feedback: Option<Micros>,
    silent_since: Option<Micros>,
}

#[derive(Debug, Default)]
struct Loss {
    bound: Option<f64>,
    /// (received, lost) of the interval before and of this one.
    before: (u32, u32),
    now: (u32, u32),
    since: Option<Micros>,
    changed: Option<Micros>,
    fraction: f64,
}

impl Estimator {
    pub(crate) fn new() -> Self {
        Estimator {
            detector: DelayDetector::new(),
            arrived: Meter::new(),
            sent: Meter::new(),
            unnumbered: Meter::new(),
            rate: START_RATE,
            capacity: None,
            holding: false,
            last_overuse: None,
            last_update: None,
            last_decrease: None,
            given_way: 0,
            loss: Loss::default(),
            remb: None,
            rtt: None,
            last_sent: None,
            last_feedback: None,
            silent_since: None,
        }
    }

    /// Bits per second.
    pub(crate) fn estimate(&self) -> f64 {
        let bounds = [self.loss.bound, self.remb.map(|(rate, _)| rate)];
        bounds
            .into_iter()
            .flatten()
            .fold(self.rate, f64::min)
            .clamp(MIN_RATE, MAX_RATE)
    }

    /// Whether the receiver ever gave feedback.
    pub(crate) fn heard(&self) -> bool {
        self.last_feedback.is_some()
    }

    pub(crate) fn rtt(&self) -> Micros {
        self.rtt.unwrap_or(DEFAULT_RTT)
    }

    /// Nothing speaks against trying more.
    pub(crate) fn calm(&self, now: Micros) -> bool {
        self.detector.usage() != Usage::Over
            && !self.detector.standing()
            && self.loss.fraction <= self.loss_high(now)
            && self
                .last_decrease
                .is_none_or(|at| now - at > 2 * self.rtt() + LONG)
    }

    /// What is sent does not get through: a queue stands, much is lost, or nobody answers.
    pub(crate) fn strained(&self, now: Micros) -> bool {
        self.detector.standing()
            || self.loss.fraction > self.loss_high(now)
            || self.silent_since.is_some_and(|at| now - at > self.patience())
    }

    /// A queue stands: whatever is sent now waits behind it.
    pub(crate) fn full(&self) -> bool {
        self.detector.standing()
    }

    /// The loss from which on less is sent.
    fn loss_high(&self, now: Micros) -> f64 {
        let queue = self.detector.standing() || self.last_overuse.is_some_and(|at| now - at < QUEUELESS);
        if queue { LOSS_HIGH } else { LOSS_ALONE }
    }

    /// How long feedback may stay out.
    fn patience(&self) -> Micros {
        SILENCE.max(4 * self.rtt())
    }

    /// A packet leaves. One without a number is only counted.
    pub(crate) fn on_sent(&mut self, size: usize, numbered: bool, now: Micros) {
        self.sent.add(now, size);
        if numbered {
            self.last_sent = Some(now);
            self.silent_since.get_or_insert(now);
        } else {
            self.unnumbered.add(now, size);
        }
    }

    /// A packet came, told in the order of sending.
    pub(crate) fn on_received(&mut self, sent: Micros, arrival: Micros, size: usize, late: bool) {
        self.arrived.add(arrival, size);
        self.detector.packet(sent, arrival);
        if self.before_decrease(sent) {
            return;
        }
        self.loss.now.0 += 1;
        if late {
            // Taken back where it was counted.
            let counted = if self.loss.now.1 > 0 {
                &mut self.loss.now.1
            } else {
                &mut self.loss.before.1
            };
            *counted = counted.saturating_sub(1);
        }
    }

    /// A packet that was sent then didn't come.
    pub(crate) fn on_missing(&mut self, sent: Micros) {
        if !self.before_decrease(sent) {
            self.loss.now.1 += 1;
        }
    }

    /// What became of packets that left before there were fewer says nothing of those that leave now.
    fn before_decrease(&self, sent: Micros) -> bool {
        self.last_decrease.is_some_and(|at| sent < at)
    }

    /// A feedback has been taken in whole. `newest`: when the newest packet it speaks of as come was sent.
    /// `probing`: a queue that grows now is a probe's.
    pub(crate) fn on_feedback(&mut self, newest: Option<Micros>, probing: bool, now: Micros) {
        self.last_feedback = Some(now);
        self.silent_since = None;
        if let Some(newest) = newest {
            let sample = (now - newest).max(0);
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        }
        self.control(probing, now);
        self.control_loss(now);
    }

    /// What the receiver thinks it can take, draft-alvestrand-rmcat-remb-03.
    pub(crate) fn on_remb(&mut self, rate: f64, now: Micros) {
        self.remb = Some((rate, now));
    }

    /// A probe got through at `rate`. Only ever raises the estimate: a probe is short, and what a few
    /// packets met says more about the queue at that moment than about the path.
    pub(crate) fn on_probe(&mut self, rate: f64, now: Micros) -> bool {
        let rate = rate + self.unnumbered.rate(now, LONG);
        if let Some(bound) = &mut self.loss.bound {
            *bound = bound.max(rate);
        }
        if rate <= self.rate {
            return false;
        }
        self.rate = rate.min(MAX_RATE);
        // The limit was elsewhere.
        if self.capacity.is_some_and(|c| rate > c.upper()) {
            self.capacity = None;
        }
        true
    }

    pub(crate) fn remb(&self) -> Option<f64> {
        self.remb.map(|(rate, _)| rate)
    }

    /// Time passes without feedback.
    pub(crate) fn tick(&mut self, now: Micros) {
        if self.remb.is_some_and(|(_, at)| now - at > REMB_LIFE) {
            self.remb = None;
        }
        if self.last_sent.is_some_and(|at| now - at > IDLE) {
            // What was seen of queues and losses is over.
            self.detector.rest();
            self.loss.fraction = 0.0;
            self.last_sent = None;
        }
        let limit = self.patience();
        if self.heard() && self.silent_since.is_some_and(|at| now - at > limit) {
            self.rate = (self.estimate() * SILENCE_FACTOR).max(MIN_RATE);
            self.capacity = None;
            self.last_decrease = Some(now);
            self.silent_since = self.last_sent.filter(|at| now - at < limit).map(|_| now);
        }
    }

    fn control(&mut self, probing: bool, now: Micros) {
        let elapsed = self.last_update.map_or(0, |at| now - at) as f64 / 1e6;
        self.last_update = Some(now);
        let extra = self.unnumbered.rate(now, LONG);
        match self.detector.usage() {
            _ if probing => {}
            Usage::Over => {
                self.last_overuse = Some(now);
                self.decrease(extra, now);
                self.holding = true;
            }
            // The queue drains: what went before was too much.
            Usage::Under => self.holding = true,
            // A path that narrows at once: no trend is needed to see that most doesn't get through.
            Usage::Normal if self.detector.standing() && self.squeezed(extra, now) => {
                self.last_overuse = Some(now);
                self.decrease(extra, now);
            }
            Usage::Normal if self.holding => self.holding = false,
            Usage::Normal if self.detector.standing() => self.give_way(now),
            Usage::Normal => {
                self.given_way = 0;
                self.increase(elapsed.min(1.0), extra);
            }
        }
    }

    fn squeezed(&self, extra: f64, now: Micros) -> bool {
        let arrived = self.arrived.known(SHORT).map(|r| r + extra);
        arrived.is_some_and(|arrived| arrived < PASSED * self.sent.rate(now, LONG))
    }

    /// A queue stands without growing. Less from here drains it where it is ours; where others fill it,
    /// that would only leave them the path.
    fn give_way(&mut self, now: Micros) {
        let patience = GIVE_WAY * (1 + Micros::from(self.given_way));
        let waited = self.last_decrease.is_none_or(|at| now - at > patience);
        if waited && self.given_way < GIVE_WAY_TIMES {
            self.given_way += 1;
            self.last_decrease = Some(now);
            self.rate = (BETA * self.rate).max(MIN_RATE);
        }
    }

    fn increase(&mut self, elapsed: f64, extra: f64) {
        let Some(arrived) = self.arrived.known(LONG).map(|r| r + extra) else {
            return;
        };
        if self.capacity.is_some_and(|c| arrived > c.upper()) {
            self.capacity = None;
        }
        let raised = if self.capacity.is_some() {
            // Half a packet per response time (section 5.5).
            let response = self.rtt() as f64 / 1e6 + 0.1;
            let per_frame = self.rate / 30.0;
            let packet = per_frame / (per_frame / (1200.0 * 8.0)).ceil();
            self.rate + (0.5 * (elapsed / response).min(1.0) * packet).max(1000.0 * elapsed)
        } else {
            self.rate * GROWTH.powf(elapsed) + 1000.0 * elapsed
        };
        let limit = HEADROOM * arrived + HEADROOM_BITS;
        if raised < limit {
            self.rate = raised.min(MAX_RATE);
        } else {
            // Not taken back where the source sends less than it might.
            self.rate = self.rate.max(limit.min(raised)).min(MAX_RATE);
        }
    }

    fn decrease(&mut self, extra: f64, now: Micros) {
        let arrived = self.arrived.known(SHORT).unwrap_or(self.rate) + extra;
        let again = self
            .last_decrease
            .is_some_and(|at| now - at < self.rtt().clamp(10_000, 200_000) + 50_000);
        if again && arrived > 0.5 * self.rate {
            return;
        }
        let sent = self.sent.rate(now, LONG);
        let mut to = BETA * arrived;
        if sent < LIMITED_BY_SOURCE * self.rate && arrived > PASSED * sent {
            // Someone else fills the queue. What arrives says nothing of the limit; give way in steps.
            if again {
                return;
            }
            to = to.max(BETA * self.rate);
        } else {
            let c = self.capacity.get_or_insert(Capacity {
                mean: arrived,
                variance: MIN_VARIANCE,
            });
            if arrived < c.lower() {
                *c = Capacity {
                    mean: arrived,
                    variance: c.variance,
                };
            }
            c.note(arrived);
        }
        self.decreased(now);
        self.rate = to.min(self.rate).max(MIN_RATE);
    }

    fn decreased(&mut self, now: Micros) {
        self.last_decrease = Some(now);
        (self.loss.before, self.loss.now) = ((0, 0), (0, 0));
    }

    fn control_loss(&mut self, now: Micros) {
        let high = self.loss_high(now);
        let loss = &mut self.loss;
        let since = *loss.since.get_or_insert(now);
        let fraction = |(r, l): (u32, u32)| f64::from(l) / f64::from((r + l).max(1));
        let current = loss.now.0 + loss.now.1;
        let heavy = current >= LOSS_MIN_PACKETS
            && fraction(loss.now) > LOSS_HEAVY
            && now - since > self.rtt.unwrap_or(DEFAULT_RTT) + 100_000;
        if now - since < LOSS_INTERVAL && !heavy {
            return;
        }
        let both = (loss.before.0 + loss.now.0, loss.before.1 + loss.now.1);
        let counted = if heavy { loss.now } else { both };
        loss.since = Some(now);
        (loss.before, loss.now) = (loss.now, (0, 0));
        if counted.0 + counted.1 < LOSS_MIN_PACKETS {
            return;
        }
        let p = fraction(counted);
        loss.fraction = p;
        let elapsed = loss.changed.map_or(1.0, |at| (now - at) as f64 / 1e6).min(2.0);
        loss.changed = Some(now);
        if p > high {
            let from = loss.bound.map_or(self.rate, |b| b.min(self.rate));
            loss.bound = Some((from * (1.0 - 0.5 * p)).max(MIN_RATE));
            self.last_decrease = Some(now);
        } else if p < LOSS_LOW {
            loss.bound = loss
                .bound
                .map(|b| b * GROWTH.powf(elapsed) + 1000.0)
                .filter(|b| *b < LOSS_FREE * self.rate);
        }
    }
}

impl Capacity {
    fn note(&mut self, sample: f64) {
        const WEIGHT: f64 = 0.05;
        self.mean = (1.0 - WEIGHT) * self.mean + WEIGHT * sample;
        let error = self.mean - sample;
        self.variance = ((1.0 - WEIGHT) * self.variance + WEIGHT * error * error / self.mean.max(1.0))
            .clamp(MIN_VARIANCE, MAX_VARIANCE);
    }

    /// In bits per second: the variance is kept relative to the mean.
    fn deviation(&self) -> f64 {
        (self.variance * self.mean).sqrt()
    }

    fn upper(&self) -> f64 {
        self.mean + NEAR * self.deviation()
    }

    fn lower(&self) -> f64 {
        self.mean - NEAR * self.deviation()
    }
}
