//! Trying whether the path carries more.
//!
//! Owns when to probe, at which rate, and what a probe showed. A probe is a cluster of packets sent at one
//! rate for some 25 ms, filled up with padding; the spacing with which they come says what the path's
//! slowest hop let through. Invariants: nobody probes for what nobody wants; padding takes no more than
//! [`SHARE`] of what is sent over time; after a failure the next try is twice as far off.

use super::Micros;

/// How long a probe lasts, and how many packets it has at least.
const DURATION: Micros = 25_000;
const MIN_PACKETS: u32 = 6;
/// First rates, as multiples of the start rate; the second only where the first got through.
const INITIAL: [f64; 2] = [3.0, 6.0];
/// Later ones at most so many times the estimate, and so much over what is wanted.
const STEP: f64 = 2.0;
const MARGIN: f64 = 1.25;
const STEP_MARGIN: f64 = 1.08;
/// A result under this share of the rate probed for is a failure.
const SUCCESS: f64 = 0.7;
/// A result counts once this share has been reported.
const REPORTED: f64 = 0.8;
/// A cluster that came in faster than it was sent by more than this was held up on its way.
const COMPRESSED: f64 = 2.0;
/// A path that let a probe through slower than it was sent is full, maybe with what others send, of which
/// the probe took a share that nothing else will: stay under.
const BUSY: f64 = 0.9;
const UTILISATION: f64 = 0.85;
/// Time between probes: after a success, and the range of the back-off after failures.
const MIN_INTERVAL: Micros = 250_000;
const FIRST_BACKOFF: Micros = 2_000_000;
const MAX_BACKOFF: Micros = 5_000_000;
/// Time to the next where there was nothing to probe with.
const ABANDONED: Micros = 200_000;
/// What isn't reported within this is lost.
const PATIENCE: Micros = 1_000_000;
/// How long a probe's own queue may still be seen.
const AFTERMATH: Micros = 300_000;
/// Share of the estimate that padding may take, and how much of it may be saved up, in bytes.
const SHARE: f64 = 0.10;
const SAVINGS: f64 = 60_000.0;

/// A cluster as it was sent and as it came.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    id: u8,
    rate: f64,
    started: Micros,
    /// First packet, last packet and its size.
    sent: Option<(Micros, Micros, usize)>,
    bytes: usize,
    packets: u32,
    arrived: Option<(Micros, Micros, usize)>,
    arrived_bytes: usize,
    arrived_packets: u32,
    complete: Option<Micros>,
}

impl Cluster {
    /// The rate it was to have, or that it had where this machine was too busy to keep to it.
    fn aim(&self) -> f64 {
        match self.sent {
            Some((first, last, size)) if last > first => {
                let left = self.bytes.saturating_sub(size) as f64 * 8e6 / (last - first) as f64;
                self.rate.min(left)
            }
            _ => self.rate,
        }
    }
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Outcome {
    /// The path carried this many bits per second.
    Carried(f64),
    Failed,
}

/// The probes of one path.
#[derive(Debug)]
pub(crate) struct Prober {
    /// Bits per second that would be used if they were there, and those that the next step takes.
    wanted: f64,
    next_step: f64,
    cluster: Option<Cluster>,
    initial: usize,
    next_id: u8,
    not_before: Micros,
    backoff: Micros,
    ended: Option<Micros>,
    savings: f64,
    saved_at: Option<Micros>,
}

impl Prober {
    pub(crate) fn new() -> Self {
        Prober {
            wanted: 0.0,
            next_step: 0.0,
            cluster: None,
            initial: 0,
            next_id: 1,
            not_before: 0,
            backoff: 0,
            ended: None,
            savings: SAVINGS,
            saved_at: None,
        }
    }

    /// What would be used if it were there, and what the least of it takes.
    pub(crate) fn want(&mut self, rate: f64, next_step: f64) {
        if rate > self.wanted * 1.1 && self.wanted > 0.0 && self.backoff > FIRST_BACKOFF {
            // Something else is asked for than what failed.
            self.backoff = FIRST_BACKOFF;
        }
        (self.wanted, self.next_step) = (rate, next_step);
    }

    /// Whether packets are being sent at a probe's rate.
    #[cfg(test)]
    pub(crate) fn sending(&self) -> bool {
        self.cluster.is_some_and(|c| c.complete.is_none())
    }

    /// Whether queues are of a probe's making: it is on its way, or has just been reported in vain.
    pub(crate) fn disturbs(&self, now: Micros) -> bool {
        self.cluster.is_some() || self.ended.is_some_and(|at| now - at < AFTERMATH)
    }

    /// There is nothing to probe with, as before the keys are there: not now.
    pub(crate) fn abandon(&mut self, now: Micros) {
        if self.cluster.take().is_some() {
            self.initial = self.initial.saturating_sub(1);
            self.not_before = now + ABANDONED;
        }
    }

    /// The probe that ended now changes nothing: the queue it left behind says nothing of what is sent.
    pub(crate) fn passed_by(&mut self, now: Micros) {
        self.ended = Some(now);
    }

    /// Begins a probe where one is due. `calm`: nothing speaks against it.
    pub(crate) fn poll(&mut self, estimate: f64, calm: bool, now: Micros) {
        let since = self.saved_at.map_or(0, |at| now - at);
        self.saved_at = Some(now);
        self.savings = (self.savings + SHARE * estimate / 8.0 * since as f64 / 1e6).min(SAVINGS);
        if self.cluster.is_some() || !calm || now < self.not_before || self.wanted <= estimate {
            return;
        }
        // After a failure no more than what the next step takes: a path that has room for that need not
        // have it for all.
        let most = if self.backoff > 0 && self.next_step > estimate {
            self.next_step * STEP_MARGIN
        } else {
            self.wanted * MARGIN
        };
        let rate = match INITIAL.get(self.initial) {
            Some(factor) => super::estimator::START_RATE * factor,
            None => estimate * STEP,
        }
        .min(most);
        self.initial += 1;
        if rate <= estimate || self.savings < rate / 8.0 * DURATION as f64 / 1e6 {
            return;
        }
        self.cluster = Some(Cluster {
            id: self.next_id,
            rate,
            started: now,
            sent: None,
            bytes: 0,
            packets: 0,
            arrived: None,
            arrived_bytes: 0,
            arrived_packets: 0,
            complete: None,
        });
        self.next_id = if self.next_id == u8::MAX {
            1
        } else {
            self.next_id + 1
        };
    }

    /// Bytes that the running probe is behind its rate.
    pub(crate) fn due(&self, now: Micros) -> usize {
        let Some(c) = self.cluster.filter(|c| c.complete.is_none()) else {
            return 0;
        };
        let Some((first, ..)) = c.sent else { return 1 };
        let should = c.rate / 8.0 * (now - first) as f64 / 1e6;
        (should as usize + 1).saturating_sub(c.bytes)
    }

    /// When [`Self::due`] has something next.
    pub(crate) fn next(&self) -> Option<Micros> {
        let c = self.cluster.filter(|c| c.complete.is_none())?;
        let Some((first, ..)) = c.sent else {
            return Some(c.started);
        };
        // Never a moment at which nothing is due yet.
        Some(first + (c.bytes as f64 * 8e6 / c.rate) as Micros + 1)
    }

    /// Padding was sent.
    pub(crate) fn pay(&mut self, size: usize) {
        self.savings -= size as f64;
    }

    /// A packet leaves; the probe it counts for, 0 if none.
    pub(crate) fn on_sent(&mut self, size: usize, now: Micros) -> u8 {
        let Some(c) = self.cluster.as_mut().filter(|c| c.complete.is_none()) else {
            return 0;
        };
        let first = c.sent.map_or(now, |(first, ..)| first);
        c.sent = Some((first, now, size));
        c.bytes += size;
        c.packets += 1;
        if c.packets >= MIN_PACKETS && c.bytes as f64 * 8e6 / c.rate >= DURATION as f64 {
            c.complete = Some(now);
        }
        c.id
    }

    /// A packet of a probe came.
    pub(crate) fn on_received(&mut self, probe: u8, size: usize, arrival: Micros) {
        let Some(c) = self.cluster.as_mut().filter(|c| c.id == probe) else {
            return;
        };
        let (first, last, head) = c.arrived.unwrap_or((arrival, arrival, size));
        c.arrived = Some(if arrival < first {
            (arrival, last, size)
        } else {
            (first, last.max(arrival), head)
        });
        c.arrived_bytes += size;
        c.arrived_packets += 1;
    }

    /// What the probe showed, once it has been reported or should have been.
    pub(crate) fn take(&mut self, now: Micros) -> Option<Outcome> {
        let c = self.cluster?;
        let Some(complete) = c.complete else {
            // A source of padding that dried up.
            if now - c.started > PATIENCE {
                return Some(self.end(Outcome::Failed, &c, now));
            }
            return None;
        };
        let reported = f64::from(c.arrived_packets) >= REPORTED * f64::from(c.packets)
            && c.arrived_bytes as f64 >= REPORTED * c.bytes as f64;
        let outcome = match (reported, c.sent, c.arrived) {
            (true, Some(sent), Some(arrived)) => measure(&c, sent, arrived),
            _ if now - complete > PATIENCE => Outcome::Failed,
            _ => return None,
        };
        Some(self.end(outcome, &c, now))
    }

    fn end(&mut self, outcome: Outcome, c: &Cluster, now: Micros) -> Outcome {
        self.cluster = None;
        match outcome {
            Outcome::Carried(rate) if rate >= SUCCESS * c.aim() => {
                self.backoff = 0;
                // The first ones follow each other; later ones leave room to use what was found.
                let again = if self.initial < INITIAL.len() {
                    0
                } else {
                    MIN_INTERVAL
                };
                self.not_before = now + again;
            }
            _ => {
                self.initial = INITIAL.len();
                self.backoff = (self.backoff * 2).clamp(FIRST_BACKOFF, MAX_BACKOFF);
                self.not_before = now + self.backoff;
            }
        }
        outcome
    }
}

/// Rate of a cluster: the slower of how it left and how it came. The first packet opens the interval in
/// which the others come, the last one closes that in which the others left.
fn measure(c: &Cluster, sent: (Micros, Micros, usize), arrived: (Micros, Micros, usize)) -> Outcome {
    let rate = |bytes: usize, from: Micros, to: Micros| bytes as f64 * 8e6 / (to - from) as f64;
    if sent.1 <= sent.0 || arrived.1 <= arrived.0 {
        return Outcome::Failed;
    }
    let left = rate(c.bytes.saturating_sub(sent.2), sent.0, sent.1);
    let came = rate(c.arrived_bytes.saturating_sub(arrived.2), arrived.0, arrived.1);
    if came > COMPRESSED * left {
        return Outcome::Failed;
    }
    let carried = left.min(came);
    Outcome::Carried(if came < BUSY * left {
        UTILISATION * came
    } else {
        carried
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padding(p: &mut Prober, now: Micros) -> u8 {
        p.pay(320);
        p.on_sent(320, now)
    }

    /// Runs the due probe over a path of `capacity` bit/s; packets of 320 bytes.
    fn run(p: &mut Prober, capacity: f64, from: Micros) -> (Outcome, Micros) {
        let (mut now, mut free, mut lost) = (from, 0.0f64, 0);
        let mut came = Vec::new();
        while p.sending() {
            now = p.next().unwrap().max(now);
            while p.due(now) > 0 && p.sending() {
                let id = padding(p, now);
                free = free.max(now as f64) + 320.0 * 8e6 / capacity;
                came.push((id, free as Micros));
            }
            now += 1_000;
            lost += 1;
            assert!(lost < 10_000);
        }
        for (id, at) in came {
            p.on_received(id, 320, at + 40_000);
        }
        (p.take(now + 200_000).unwrap(), now + 200_000)
    }

    #[test]
    fn a_wide_path_is_climbed_and_a_narrow_one_is_measured() {
        let mut p = Prober::new();
        p.want(3e6, 3e6);
        p.poll(300_000.0, true, 0);
        let (Outcome::Carried(first), now) = run(&mut p, 100e6, 0) else {
            panic!("not carried")
        };
        assert!((first - 900_000.0).abs() < 150_000.0, "{first}");
        p.poll(first, true, now);
        assert!(p.sending(), "the second follows at once");
        let (Outcome::Carried(second), now) = run(&mut p, 1.2e6, now) else {
            panic!("not carried")
        };
        assert!((0.95e6..1.25e6).contains(&second), "{second}");
        p.poll(second, true, now + FIRST_BACKOFF - 1);
        assert!(!p.sending(), "1.2 of 1.8 Mbit/s is a failure");
        p.poll(second, true, now + FIRST_BACKOFF);
        assert!(p.sending());
    }

    #[test]
    fn failures_space_the_probes_out_and_padding_stays_within_its_share() {
        let mut p = Prober::new();
        p.want(5e6, 5e6);
        let (mut starts, mut spent) = (Vec::new(), 0.0);
        let mut now = 0;
        while now < 300_000_000 {
            p.poll(500_000.0, true, now);
            if p.sending() {
                starts.push(now);
                let before = p.savings;
                now = run(&mut p, 520_000.0, now).1;
                spent += before - p.savings;
            }
            now += 20_000;
        }
        let gaps: Vec<_> = starts.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.windows(2).all(|g| g[1] >= g[0]), "{gaps:?}");
        assert!(*gaps.last().unwrap() >= MAX_BACKOFF);
        let allowed = SAVINGS + SHARE * 500_000.0 / 8.0 * 300.0;
        assert!(spent > 10_000.0 && spent < allowed, "{spent}");
        assert!(starts.len() > 6);
    }

    #[test]
    fn after_a_failure_the_next_step_is_tried() {
        let mut p = Prober::new();
        p.want(5e6, 700_000.0);
        p.poll(400_000.0, true, 0);
        let (_, now) = run(&mut p, 500_000.0, 0);
        p.poll(400_000.0, true, now + FIRST_BACKOFF);
        let (Outcome::Carried(rate), _) = run(&mut p, 800_000.0, now + FIRST_BACKOFF) else {
            panic!("not carried")
        };
        assert!((700_000.0..800_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn nobody_probes_for_what_nobody_wants_or_in_a_storm() {
        let mut p = Prober::new();
        p.want(250_000.0, 250_000.0);
        p.poll(300_000.0, true, 0);
        assert!(!p.sending());
        p.want(900_000.0, 900_000.0);
        p.poll(300_000.0, false, 0);
        assert!(!p.sending());
        p.poll(300_000.0, true, 0);
        assert!(p.sending());
    }

    #[test]
    fn a_probe_that_is_lost_or_squeezed_fails() {
        let mut p = Prober::new();
        p.want(2e6, 2e6);
        p.poll(300_000.0, true, 0);
        let mut now = 0;
        while p.sending() {
            now = p.next().unwrap().max(now);
            padding(&mut p, now);
        }
        assert_eq!(p.take(now + 10_000), None);
        assert_eq!(p.take(now + PATIENCE + 1), Some(Outcome::Failed));

        let mut p = Prober::new();
        p.want(2e6, 2e6);
        p.poll(300_000.0, true, 0);
        let (mut now, mut at) = (0, 90_000);
        while p.sending() {
            now = p.next().unwrap().max(now);
            let id = padding(&mut p, now);
            p.on_received(id, 320, at);
            at += 100;
        }
        assert_eq!(
            p.take(now),
            Some(Outcome::Failed),
            "came at once: some hop had held it"
        );
    }

    #[test]
    fn without_a_source_a_probe_is_put_off() {
        let mut p = Prober::new();
        p.want(2e6, 2e6);
        p.poll(300_000.0, true, 0);
        assert!(p.due(0) > 0);
        p.abandon(0);
        assert_eq!((p.due(0), p.next()), (0, None));
        p.poll(300_000.0, true, ABANDONED - 1);
        assert!(!p.sending());
        p.poll(300_000.0, true, ABANDONED);
        let (Outcome::Carried(rate), _) = run(&mut p, 100e6, ABANDONED) else {
            panic!("not carried")
        };
        assert!(rate > 800_000.0, "still the first: {rate}");
    }

    #[test]
    fn a_source_that_dries_up_ends_the_probe() {
        let mut p = Prober::new();
        p.want(2e6, 2e6);
        p.poll(300_000.0, true, 0);
        padding(&mut p, 0);
        assert_eq!(p.take(PATIENCE), None);
        assert_eq!(p.take(PATIENCE + 1), Some(Outcome::Failed));
        assert!(!p.sending());
    }
}
