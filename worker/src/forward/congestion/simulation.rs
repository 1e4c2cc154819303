//! The whole of it over a simulated path: a source that sends what it may, a receiver as browsers are.

use std::time::{Duration, Instant};

use super::super::twcc::Recorder;
use super::link::{Link, Wire};
use super::pacer::Kind;
use super::{Congestion, Micros, OVERHEAD};

const STEP: Micros = 1_000;
const FEEDBACK: Micros = 60_000;
const FRAME: Micros = 33_000;
const PADDING: usize = 320;
const SECOND: usize = 1_000;

struct Simulation {
    t0: Instant,
    now: Micros,
    c: Congestion<usize>,
    link: Link,
    recorder: Recorder,
    forth: Wire<u16>,
    back: Wire<Vec<u8>>,
    /// What the source could send at most.
    most: f64,
    /// Feedback gets through.
    back_open: bool,
    number: u16,
    lost: u64,
    sent: u64,
}

/// One sample per step.
#[derive(Debug, Default)]
struct Trace {
    estimate: Vec<f64>,
    queue: Vec<Micros>,
}

impl Trace {
    fn mean(&self) -> f64 {
        self.estimate.iter().sum::<f64>() / self.estimate.len() as f64
    }

    fn min(&self) -> f64 {
        self.estimate.iter().copied().fold(f64::MAX, f64::min)
    }

    /// Queue that is not exceeded for this share of the time.
    fn queue(&self, share: f64) -> Micros {
        let mut all = self.queue.clone();
        all.sort_unstable();
        all[((all.len() - 1) as f64 * share) as usize]
    }

    /// First second in which the mean is at least (or, negative, at most) this.
    fn reaches(&self, rate: f64) -> Option<usize> {
        self.estimate.chunks(SECOND / 4).position(|c| {
            let mean = c.iter().sum::<f64>() / c.len() as f64;
            if rate > 0.0 { mean >= rate } else { mean <= -rate }
        })
    }
}

impl Simulation {
    fn new(link: Link) -> Self {
        let t0 = Instant::now();
        let mut c = Congestion::new(true, t0);
        c.want(10_000_000, 10_000_000);
        Simulation {
            t0,
            now: 0,
            c,
            link,
            recorder: Recorder::new(t0),
            forth: Wire::new(),
            back: Wire::new(),
            most: 10e6,
            back_open: true,
            number: 60_000,
            lost: 0,
            sent: 0,
        }
    }

    fn at(&self, at: Micros) -> Instant {
        self.t0 + Duration::from_micros(at as u64)
    }

    fn leave(&mut self, len: usize, padding: bool) {
        let number = self.number;
        self.number = number.wrapping_add(1);
        self.c.left(Some(number), len, self.at(self.now));
        if padding {
            self.c.padded(len);
        }
        self.sent += 1;
        match self.link.send(len + OVERHEAD, self.now) {
            Some(at) => self.forth.put(at, number),
            None => self.lost += 1,
        }
    }

    fn run(&mut self, seconds: usize) -> Trace {
        let mut trace = Trace::default();
        for _ in 0..seconds * SECOND {
            self.step();
            trace
                .estimate
                .push(self.c.estimate(self.at(self.now)).unwrap() as f64);
            trace.queue.push(self.link.queued(self.now));
        }
        trace
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.at(self.now);
        while let Some((at, number)) = self.forth.take(self.now) {
            let at = self.at(at);
            self.recorder.record(number, at);
        }
        if self.now % FEEDBACK == 0 {
            while let Some(raw) = self.recorder.feedback(1, 2) {
                self.back.put(self.now + self.link.delay, raw);
            }
        }
        while let Some((_, raw)) = self.back.take(self.now) {
            if self.back_open {
                assert!(self.c.feedback(&raw, now));
            }
        }
        if self.now % 20_000 == 0 {
            self.c.tick(now);
        }
        if self.now % FRAME == 0 {
            let rate = (self.c.estimate(now).unwrap() as f64).min(self.most);
            let mut bytes = (rate / 8.0 * FRAME as f64 / 1e6) as usize;
            while bytes > 0 {
                let len = bytes.clamp(100, 1200);
                bytes = bytes.saturating_sub(len + OVERHEAD);
                if self.c.may(Kind::Media, now) {
                    self.leave(len, false);
                } else {
                    self.c.keep(Kind::Media, len, len);
                }
            }
        }
        while let Some((_, len)) = self.c.pop(now) {
            self.leave(len, false);
        }
        while self.c.probe_due(now) > 0 {
            self.leave(PADDING, true);
        }
    }
}

const SEEDS: std::ops::Range<u64> = 0..12;

#[test]
fn it_finds_the_rate_of_a_path_and_keeps_its_queue_short() {
    for rate in [300e3, 1e6, 3e6] {
        for seed in SEEDS {
            let mut s = Simulation::new(Link::new(rate, seed));
            s.link.delay = 10_000 + (seed as i64 % 5) * 15_000;
            s.link.jitter = (seed as i64 % 5) * 1_000;
            s.run(20);
            let steady = s.run(40);
            let share = steady.mean() / rate;
            assert!((0.8..=1.0).contains(&share), "{rate} {seed}: {share}");
            assert!(
                steady.queue(0.99) < 250_000,
                "{rate} {seed}: {}",
                steady.queue(0.99)
            );
            assert!(
                s.lost * 100 < s.sent,
                "{rate} {seed}: {} of {} lost",
                s.lost,
                s.sent
            );
        }
    }
}

#[test]
fn it_is_there_soon_after_the_start() {
    for seed in SEEDS {
        let mut s = Simulation::new(Link::new(3e6, seed));
        let trace = s.run(10);
        let at = trace.reaches(1.4e6).unwrap();
        assert!(at < 6, "{seed}: {at} quarters of a second");
    }
}

#[test]
fn a_narrowed_path_is_followed_down_and_a_widened_one_up() {
    for seed in SEEDS {
        let mut s = Simulation::new(Link::new(3e6, seed));
        s.link.jitter = 2_000;
        s.run(30);
        s.link.rate = 500e3;
        s.link.queue = 1_000_000;
        let down = s.run(20);
        let at = down.reaches(-520e3).unwrap();
        assert!(at <= 8, "{seed}: down after {at} quarters of a second");
        let drained = down.queue[4 * SECOND..]
            .iter()
            .position(|q| *q < 250_000)
            .unwrap();
        assert!(drained < SECOND, "{seed}: queue stays for {drained} ms more");
        let end = down.estimate[15 * SECOND..].iter().sum::<f64>() / (5 * SECOND) as f64;
        assert!((350e3..=500e3).contains(&end), "{seed}: {end}");
        s.link.rate = 3e6;
        let up = s.run(20);
        let at = up.reaches(2.4e6).unwrap();
        assert!(at <= 40, "{seed}: up after {at} quarters of a second");
    }
}

#[test]
fn random_loss_of_five_percent_is_no_congestion() {
    for seed in SEEDS {
        let mut s = Simulation::new(Link::new(2e6, seed));
        s.link.loss = 0.05;
        s.run(20);
        let steady = s.run(30);
        assert!(steady.mean() > 1.5e6, "{seed}: {}", steady.mean());
        assert!(steady.min() > 1.0e6, "{seed}: {}", steady.min());
    }
}

#[test]
fn heavy_loss_is() {
    for seed in SEEDS {
        let mut s = Simulation::new(Link::new(20e6, seed));
        s.run(10);
        let before = s.run(1).mean();
        s.link.loss = 0.4;
        let after = s.run(5);
        let last = *after.estimate.last().unwrap();
        assert!(last < 0.5 * before, "{seed}: {before} to {last}");
    }
}

#[test]
fn jitter_of_thirty_milliseconds_is_no_congestion() {
    for seed in SEEDS {
        let mut s = Simulation::new(Link::new(2e6, seed));
        s.link.jitter = 30_000;
        s.run(20);
        let steady = s.run(30);
        assert!(steady.mean() > 1.5e6, "{seed}: {}", steady.mean());
        assert!(steady.min() > 1.0e6, "{seed}: {}", steady.min());
    }
}

#[test]
fn it_shares_with_others() {
    for seed in SEEDS {
        let mut s = Simulation::new(Link::new(3e6, seed));
        s.run(20);
        s.link.cross = 2e6;
        s.run(20);
        let shared = s.run(20);
        assert!(
            (0.5e6..1.1e6).contains(&shared.mean()),
            "{seed}: {}",
            shared.mean()
        );
        assert!(shared.queue(0.95) < 250_000, "{seed}: {}", shared.queue(0.95));
    }
}

#[test]
fn without_feedback_less_is_sent_and_it_comes_back() {
    for seed in SEEDS {
        let mut s = Simulation::new(Link::new(2e6, seed));
        s.run(15);
        let before = s.run(1).mean();
        s.back_open = false;
        let blocked = s.run(6);
        assert!(*blocked.estimate.last().unwrap() < before / 3.0, "{seed}");
        s.back_open = true;
        let after = s.run(15);
        assert!(after.reaches(1.4e6).unwrap() < 48, "{seed}");
    }
}

#[test]
fn a_source_that_sends_little_is_not_taken_for_a_narrow_path() {
    for seed in SEEDS {
        let mut s = Simulation::new(Link::new(3e6, seed));
        s.run(15);
        s.most = 200e3;
        s.c.want(200_000, 200_000);
        let idle = s.run(20);
        assert!(idle.min() > 1e6, "{seed}: {}", idle.min());
    }
}

#[test]
fn a_receiver_that_never_answers_sets_no_limit() {
    let mut s = Simulation::new(Link::new(3e6, 1));
    s.back_open = false;
    for _ in 0..3_900 {
        s.step();
    }
    assert_eq!(s.c.estimate(s.at(s.now)), Some(300_000));
    for _ in 0..4_000 {
        let now = s.at(s.now);
        if s.c.estimate(now).is_none() {
            for _ in 0..1000 {
                assert!(s.c.may(Kind::Media, now), "nor a pace");
                s.c.left(Some(1), 1200, now);
            }
            return;
        }
        s.step();
    }
    panic!("still limited");
}

#[test]
fn remb_is_an_upper_bound() {
    let mut s = Simulation::new(Link::new(3e6, 1));
    s.run(15);
    assert!(s.run(1).mean() > 1e6);
    s.c.remb(400_000, s.at(s.now));
    assert_eq!(s.c.estimate(s.at(s.now)), Some(400_000));
    let t = Instant::now();
    let mut only = Congestion::<usize>::new(false, t);
    assert_eq!(only.estimate(t), None);
    only.remb(250_000, t);
    assert_eq!(only.estimate(t), Some(250_000));
    only.tick(t + Duration::from_secs(60));
    assert_eq!(only.estimate(t), None, "what is old says nothing");
}

#[test]
fn packets_sent_again_take_no_more_than_their_share() {
    let t = Instant::now();
    let mut c = Congestion::<usize>::new(true, t);
    let mut granted = 0;
    for ms in 0..10_000 {
        for _ in 0..5 {
            granted += usize::from(c.may_resend(1000, t + Duration::from_millis(ms)));
        }
    }
    // 40 % of 300 kbit/s are 15 of these a second, and half a second's worth at the start.
    assert!((140..170).contains(&granted), "{granted}");
}
