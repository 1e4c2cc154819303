//! What a subscriber's path carries, and what is done with it.
//!
//! Owns per subscribing leg: the numbers on its packets and what comes back about them ([`feedback`]), the
//! estimate ([`estimator`], [`delay`]), the probes ([`probe`]) and the pacing ([`pacer`]); and the sharing
//! of the estimate over the tracks ([`allocate`]). Everything is pure: `now` comes in, packets are not
//! touched. Invariants: bounded memory; no allocation per packet once its rings have grown; a leg without
//! feedback has none of this.

pub(crate) mod allocate;
pub(crate) mod cost;
mod delay;
mod estimator;
mod feedback;
#[cfg(test)]
pub(crate) mod link;
mod meter;
pub(crate) mod pacer;
mod probe;
#[cfg(test)]
mod simulation;

use std::time::{Duration, Instant};

use self::estimator::Estimator;
use self::feedback::{Feedback, History, ReceiverClock, Sent};
use self::pacer::{Kind, Pacer};
use self::probe::{Outcome, Prober};

/// Microseconds of one clock or another; only differences mean anything.
pub(crate) type Micros = i64;

/// What a sealed packet costs besides its own bytes: UDP and IP.
pub(crate) const OVERHEAD: usize = 8 + 20;
/// Share of the estimate that packets sent again may take, and for how many seconds it may be saved up.
const RESENDS: f64 = 0.4;
const RESENDS_SAVED: f64 = 0.5;
/// A receiver that has not spoken of so many packets after this time never will.
const DEAF_AFTER: Duration = Duration::from_secs(4);
const DEAF_PACKETS: u64 = 6;

/// One leg's path. `T` finds a packet that waits.
#[derive(Debug)]
pub(crate) struct Congestion<T> {
    start: Instant,
    numbered: u64,
    first_sent: Option<Instant>,
    history: History,
    clock: ReceiverClock,
    estimator: Estimator,
    prober: Prober,
    pacer: Pacer<T>,
    /// Bytes that may be sent again.
    resends: f64,
    resends_at: Micros,
    /// Only REMB tells of this path.
    remb_only: bool,
}

impl<T> Congestion<T> {
    /// `numbered`: packets carry transport-wide numbers.
    pub(crate) fn new(numbered: bool, start: Instant) -> Self {
        Congestion {
            start,
            numbered: 0,
            first_sent: None,
            history: History::new(),
            clock: ReceiverClock::default(),
            estimator: Estimator::new(),
            prober: Prober::new(),
            pacer: Pacer::new(estimator::START_RATE),
            resends: 0.0,
            resends_at: i64::from(i32::MIN),
            remb_only: !numbered,
        }
    }

    fn micros(&self, at: Instant) -> Micros {
        at.saturating_duration_since(self.start).as_micros() as Micros
    }

    /// A sealed packet of `len` bytes leaves, with or without a transport-wide number.
    pub(crate) fn left(&mut self, number: Option<u16>, len: usize, now: Instant) {
        let at = self.micros(now);
        let size = len + OVERHEAD;
        self.estimator.on_sent(size, number.is_some(), at);
        self.pacer.on_sent(size, at);
        let Some(sequence) = number else { return };
        self.numbered += 1;
        self.first_sent.get_or_insert(now);
        let probe = self.prober.on_sent(size, at);
        self.history.insert(
            sequence,
            Sent {
                at,
                size: size as u16,
                probe,
            },
        );
    }

    /// What has just left was padding.
    pub(crate) fn padded(&mut self, len: usize) {
        self.prober.pay(len + OVERHEAD);
    }

    /// Whether a packet of `size` bytes may be sent again: resends take no more than their share.
    pub(crate) fn may_resend(&mut self, size: usize, now: Instant) -> bool {
        let at = self.micros(now);
        let rate = self.estimator.estimate() * RESENDS / 8.0;
        let since = (at - self.resends_at).max(0) as f64 / 1e6;
        self.resends_at = at;
        self.resends = (self.resends + rate * since).min(rate * RESENDS_SAVED);
        let may = self.resends >= size as f64;
        if may {
            self.resends -= size as f64;
        }
        may
    }

    /// One RTCP packet of transport-wide feedback; `false` if it is malformed.
    pub(crate) fn feedback(&mut self, packet: &[u8], now: Instant) -> bool {
        let Some(feedback) = Feedback::parse(packet) else {
            return false;
        };
        let now = self.micros(now);
        let reference = self.clock.reference(&feedback);
        let (mut newest, mut news) = (None, false);
        for (sequence, arrival) in feedback.statuses() {
            match arrival {
                Some(arrival) => {
                    let Some((sent, late)) = self.history.received(sequence) else {
                        continue;
                    };
                    news = true;
                    newest = newest.max(Some(sent.at));
                    let (arrival, size) = (reference + arrival, usize::from(sent.size));
                    self.estimator.on_received(sent.at, arrival, size, late);
                    if sent.probe != 0 {
                        self.prober.on_received(sent.probe, size, arrival);
                    }
                }
                None => {
                    if let Some(sent) = self.history.missing(sequence) {
                        news = true;
                        self.estimator.on_missing(sent.at);
                    }
                }
            }
        }
        // About packets that were never sent: nothing to learn.
        if news {
            let probing = self.prober.disturbs(now);
            self.estimator.on_feedback(newest, probing, now);
            self.settle(now);
        }
        true
    }

    /// The receiver's own estimate.
    pub(crate) fn remb(&mut self, rate: u64, now: Instant) {
        let now = self.micros(now);
        self.estimator.on_remb(rate as f64, now);
        self.settle(now);
    }

    /// Bits per second the path is thought to carry; `None` where nothing is known of it, and no limit
    /// should be drawn from that.
    pub(crate) fn estimate(&self, now: Instant) -> Option<u64> {
        if self.remb_only {
            return self.estimator.remb().map(|r| r as u64);
        }
        (!self.is_deaf(now)).then(|| self.estimator.estimate() as u64)
    }

    /// Whether what is sent now is more than gets through, whatever the estimate says of what would be.
    pub(crate) fn is_strained(&self, now: Instant) -> bool {
        self.estimator.strained(self.micros(now))
    }

    /// Whether what is sent now waits in a queue that doesn't get shorter.
    pub(crate) fn is_full(&self) -> bool {
        self.estimator.full()
    }

    /// Gives up what waits and isn't to be kept.
    pub(crate) fn give_up(&mut self, keep: impl Fn(&T) -> bool) {
        self.pacer.give_up(keep);
    }

    fn is_deaf(&self, now: Instant) -> bool {
        !self.estimator.heard()
            && self.numbered >= DEAF_PACKETS
            && self
                .first_sent
                .is_some_and(|at| now.saturating_duration_since(at) > DEAF_AFTER)
    }

    /// Bits per second that would be used if they were there, and those that the next step up takes;
    /// probing aims at them.
    pub(crate) fn want(&mut self, rate: u64, next_step: u64) {
        self.prober.want(rate as f64, next_step as f64);
    }

    /// Bytes to send now for the sake of a probe.
    pub(crate) fn probe_due(&self, now: Instant) -> usize {
        self.prober.due(self.micros(now))
    }

    /// There is nothing to probe with.
    pub(crate) fn abandon_probe(&mut self, now: Instant) {
        let at = self.micros(now);
        self.prober.abandon(at);
    }

    /// Runs what depends on time. Call every some 20 ms, and when [`Self::next_timeout`] says.
    pub(crate) fn tick(&mut self, now: Instant) {
        let at = self.micros(now);
        self.estimator.tick(at);
        self.settle(at);
        // Probing is for a receiver that answers; before the first answer the first probes go out all the
        // same, since what they find decides what is sent at first.
        if self.estimate(now).is_some() && !self.remb_only {
            let calm = self.estimator.calm(at);
            self.prober.poll(self.estimator.estimate(), calm, at);
        }
    }

    fn settle(&mut self, now: Micros) {
        let raised = match self.prober.take(now) {
            Some(Outcome::Carried(rate)) => self.estimator.on_probe(rate, now),
            Some(Outcome::Failed) => false,
            None => true,
        };
        if !raised {
            self.prober.passed_by(now);
        }
        let (estimate, full) = (self.estimator.estimate(), self.estimator.full());
        self.pacer.set_estimate(estimate, full, now);
    }

    /// When packets that wait, or a probe, are due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let at = match (self.pacer.next(), self.prober.next()) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        Some(self.start + Duration::from_micros(at.max(0) as u64))
    }

    /// A video packet is ready: whether it may leave at once. Otherwise it is for [`Self::keep`].
    pub(crate) fn may(&mut self, kind: Kind, now: Instant) -> bool {
        let at = self.micros(now);
        self.is_deaf(now) || self.pacer.may(kind, at)
    }

    /// A packet of about `size` bytes waits for [`Self::pop`].
    pub(crate) fn keep(&mut self, kind: Kind, size: usize, what: T) {
        self.pacer.keep(kind, size + OVERHEAD, what);
    }

    /// The next that may leave: paced, or ahead of its time as part of a probe.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Kind, T)> {
        let at = self.micros(now);
        let paced = self.pacer.pop(at);
        if paced.is_none() && self.prober.due(at) > 0 {
            return self.pacer.force();
        }
        paced
    }
}
