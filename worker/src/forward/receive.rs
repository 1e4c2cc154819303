//! What is known of one incoming RTP stream.
//!
//! Owns loss and jitter (RFC 3550 appendix A), the list of missing packets to ask for again, and the
//! sender's clock. Pure: takes `now`. Invariant: the list of missing packets is bounded in length, age
//! and number of requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::packet::Unwrapper;
use super::rtcp::ReportBlock;

/// A gap larger than this is a restart, not a loss.
const MAX_GAP: u64 = 512;
const MAX_MISSING: usize = 512;
/// A packet may be reordered for so long before it is asked for.
const REORDER: Duration = Duration::from_millis(5);

/// A pause says nothing of what lies between frames.
const LONGEST_INTERVAL: Duration = Duration::from_millis(500);

/// Bounds of the time between two requests for one packet.
const SOONEST: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_millis(400);

/// How long and how often a packet is asked for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    age: Duration,
    requests: u8,
}

const VIDEO: Patience = Patience {
    age: Duration::from_millis(1000),
    requests: 10,
};
/// Nobody waits longer for sound.
const AUDIO: Patience = Patience {
    age: Duration::from_millis(300),
    requests: 3,
};

/// The sender's clock at one moment, and when we learned it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SenderClock {
    pub(crate) ntp: u64,
    pub(crate) rtp: u32,
    pub(crate) at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Instant,
    asked: Option<Instant>,
    requests: u8,
}

/// State of one SSRC.
#[derive(Debug)]
pub(crate) struct Receiver {
    clock_rate: u32,
    unwrapper: Unwrapper,
    base: Option<u64>,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    jitter: f64,
    last_transit: Option<(Instant, u32)>,
    /// Time between frames as they come, smoothed.
    interval: Option<Duration>,
    prior_expected: u64,
    prior_received: u64,
    pub(crate) clock: Option<SenderClock>,
    missing: BTreeMap<u64, Missing>,
    patience: Patience,
    /// How long an answer to a request takes, smoothed.
    repair: Option<Duration>,
    pub(crate) nacks: u64,
}

/// What a packet was to its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Extended sequence number.
    pub(crate) sequence: u64,
    /// Ahead of all before it.
    pub(crate) newest: bool,
}

impl Receiver {
    pub(crate) fn new(clock_rate: u32) -> Self {
        Receiver {
            clock_rate,
            unwrapper: Unwrapper::default(),
            base: None,
            packets: 0,
            bytes: 0,
            jitter: 0.0,
            last_transit: None,
            interval: None,
            prior_expected: 0,
            prior_received: 0,
            clock: None,
            missing: BTreeMap::new(),
            patience: VIDEO,
            repair: None,
            nacks: 0,
        }
    }

    /// Of sound.
    pub(crate) fn audio(clock_rate: u32) -> Self {
        Receiver {
            patience: AUDIO,
            ..Self::new(clock_rate)
        }
    }

    /// Notes a packet. `repaired` ones (over RTX) don't count for jitter.
    pub(crate) fn packet(
        &mut self,
        sequence: u16,
        timestamp: u32,
        bytes: usize,
        repaired: bool,
        now: Instant,
    ) -> Arrival {
        let before = self.unwrapper.highest();
        let extended = self.unwrapper.unwrap(sequence);
        let newest = before.is_none_or(|h| extended > h);
        self.base.get_or_insert(extended);
        self.packets += 1;
        self.bytes += bytes as u64;
        match before {
            Some(highest) if newest && extended - highest <= MAX_GAP => {
                for gap in highest + 1..extended {
                    self.missing.insert(
                        gap,
                        Missing {
                            since: now,
                            asked: None,
                            requests: 0,
                        },
                    );
                }
                while self.missing.len() > MAX_MISSING {
                    self.missing.pop_first();
                }
            }
            Some(_) if newest => self.missing.clear(),
            _ => {
                // Asked for once: it is known which request it answers.
                if let Some(Missing {
                    asked: Some(at),
                    requests: 1,
                    ..
                }) = self.missing.remove(&extended)
                {
                    let took = now.saturating_duration_since(at);
                    self.repair = Some(self.repair.map_or(took, |r| (r * 7 + took) / 8));
                }
            }
        }
        if newest && !repaired {
            self.update_jitter(timestamp, now);
        }
        Arrival {
            sequence: extended,
            newest,
        }
    }

    fn update_jitter(&mut self, timestamp: u32, now: Instant) {
        if let Some((at, then)) = self.last_transit {
            if timestamp != then {
                let took = now.saturating_duration_since(at).min(LONGEST_INTERVAL);
                self.interval = Some(self.interval.map_or(took, |i| (i * 7 + took) / 8));
            }
            let arrival = now.saturating_duration_since(at).as_secs_f64() * f64::from(self.clock_rate);
            let media = f64::from(timestamp.wrapping_sub(then) as i32);
            let d = (arrival - media).abs();
            // A jump of the clock is a new source, not jitter.
            if d < f64::from(self.clock_rate) {
                self.jitter += (d - self.jitter) / 16.0;
            }
        }
        self.last_transit = Some((now, timestamp));
    }

    /// Time between two frames.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// Notes the sender's clock.
    pub(crate) fn sender_report(&mut self, ntp: u64, rtp: u32, now: Instant) {
        self.clock = Some(SenderClock { ntp, rtp, at: now });
    }

    /// Packets lost in all.
    pub(crate) fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.packets)
    }

    /// Interarrival jitter.
    pub(crate) fn jitter(&self) -> Duration {
        Duration::from_secs_f64(self.jitter / f64::from(self.clock_rate.max(1)))
    }

    fn expected(&self) -> u64 {
        match (self.unwrapper.highest(), self.base) {
            (Some(h), Some(b)) => h.saturating_sub(b) + 1,
            _ => 0,
        }
    }

    /// The block for a receiver report; `None` before the first packet.
    pub(crate) fn report(&mut self, ssrc: u32, now: Instant) -> Option<ReportBlock> {
        let highest = self.unwrapper.highest()?;
        let expected = self.expected();
        let expected_now = expected.saturating_sub(self.prior_expected);
        let received_now = self.packets.saturating_sub(self.prior_received);
        self.prior_expected = expected;
        self.prior_received = self.packets;
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255);
        let (last_sr, delay) = match self.clock {
            Some(c) => {
                let delay = now.saturating_duration_since(c.at).as_secs_f64() * 65_536.0;
                ((c.ntp >> 16) as u32, delay as u32)
            }
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc,
            fraction_lost: fraction as u8,
            total_lost: self.lost() as u32,
            // Cycles as RFC 3550 counts them: ours start one up.
            highest: (highest - 0x1_0000.min(highest)) as u32,
            jitter: self.jitter as u32,
            last_sr,
            delay,
        })
    }

    /// Whether `sequence` never came, as far as is known.
    pub(crate) fn lacks(&self, sequence: u64) -> bool {
        self.missing.contains_key(&sequence)
    }

    /// `sequence` needn't come any more. Still lost, for reports.
    pub(crate) fn forgo(&mut self, sequence: u64) {
        self.missing.remove(&sequence);
    }

    /// Sequence numbers to ask for now, ascending.
    pub(crate) fn due_nacks(&mut self, rtt: Duration, now: Instant) -> Vec<u16> {
        if self.missing.is_empty() {
            return Vec::new();
        }
        // A publisher that receives nothing tells no round trip, and a full queue lengthens it: to ask again
        // for what is under way would only fill the queue more.
        let again = rtt.max(self.repair.unwrap_or_default()).clamp(SOONEST, LATEST);
        let Patience { age, requests } = self.patience;
        self.missing.retain(|_, m| {
            now.saturating_duration_since(m.since) < age
                && (m.requests < requests || m.asked.is_some_and(|a| now < a + again))
        });
        let mut due = Vec::new();
        for (sequence, m) in &mut self.missing {
            let ready = match m.asked {
                None => now >= m.since + REORDER,
                Some(at) => now >= at + again && m.requests < requests,
            };
            if ready {
                m.asked = Some(now);
                m.requests += 1;
                due.push(*sequence as u16);
            }
        }
        self.nacks += due.len() as u64;
        due
    }

    /// Whether anything is missing, so that a timer is worth it.
    pub(crate) fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_gap_is_asked_for_until_it_comes() {
        let t = Instant::now();
        let mut r = Receiver::new(90_000);
        r.packet(10, 0, 1, false, t);
        r.packet(13, 0, 1, false, t);
        assert!(r.due_nacks(ms(50), t).is_empty(), "reordering is waited for");
        assert_eq!(r.due_nacks(ms(50), t + ms(5)), vec![11, 12]);
        assert!(r.due_nacks(ms(50), t + ms(40)).is_empty());
        r.packet(11, 0, 1, true, t + ms(41));
        assert_eq!(r.due_nacks(ms(50), t + ms(56)), vec![12]);
        assert!(r.due_nacks(ms(50), t + ms(1200)).is_empty());
        assert!(!r.has_missing(), "given up after a second");
        assert_eq!(r.nacks, 3);
    }

    #[test]
    fn what_is_under_way_is_not_asked_for_again() {
        let t = Instant::now();
        let mut r = Receiver::new(90_000);
        r.packet(1, 0, 1, false, t);
        r.packet(3, 0, 1, false, t);
        // The path takes 350 ms: the first is asked for twice, and which request was answered isn't known.
        assert_eq!(r.due_nacks(ms(100), t + ms(5)), vec![2]);
        assert_eq!(r.due_nacks(ms(100), t + ms(105)), vec![2]);
        r.packet(2, 0, 1, true, t + ms(355));
        r.packet(5, 0, 1, false, t + ms(400));
        assert_eq!(r.due_nacks(ms(400), t + ms(405)), vec![4]);
        r.packet(4, 0, 1, true, t + ms(755));
        r.packet(7, 0, 1, false, t + ms(800));
        assert_eq!(r.due_nacks(ms(100), t + ms(805)), vec![6]);
        assert!(r.due_nacks(ms(100), t + ms(1154)).is_empty());
        assert_eq!(r.due_nacks(ms(100), t + ms(1155)), vec![6], "then it was lost");
    }

    #[test]
    fn requests_are_limited() {
        let t = Instant::now();
        let mut r = Receiver::new(90_000);
        r.packet(1, 0, 1, false, t);
        r.packet(3, 0, 1, false, t);
        let asked: usize = (0..100).map(|i| r.due_nacks(ms(1), t + ms(i * 9)).len()).sum();
        assert_eq!(asked, usize::from(VIDEO.requests));
        let mut r = Receiver::audio(48_000);
        r.packet(1, 0, 1, false, t);
        r.packet(3, 0, 1, false, t);
        let asked: usize = (0..100).map(|i| r.due_nacks(ms(1), t + ms(i * 9)).len()).sum();
        assert_eq!(asked, usize::from(AUDIO.requests));
        assert!(!r.has_missing());
    }

    #[test]
    fn what_came_otherwise_is_not_asked_for() {
        let t = Instant::now();
        let mut r = Receiver::audio(48_000);
        let first = r.packet(1, 0, 1, false, t).sequence;
        r.packet(4, 0, 1, false, t);
        assert!(r.lacks(first + 1) && r.lacks(first + 2) && !r.lacks(first + 3));
        r.forgo(first + 1);
        assert_eq!(r.due_nacks(ms(50), t + ms(5)), vec![3]);
        assert_eq!(r.lost(), 2);
    }

    #[test]
    fn loss_and_wrap() {
        let t = Instant::now();
        let mut r = Receiver::new(8000);
        for s in [65_533u16, 65_534, 65_535, 1, 2] {
            r.packet(s, 0, 10, false, t);
        }
        let b = r.report(7, t).unwrap();
        assert_eq!(
            (b.total_lost, b.fraction_lost, b.highest),
            (1, 256u32.div_euclid(6) as u8, 0x1_0002)
        );
        assert_eq!(r.report(7, t).unwrap().fraction_lost, 0);
    }

    #[test]
    fn jitter_of_an_even_stream_is_nil() {
        let t = Instant::now();
        let mut r = Receiver::new(48_000);
        for i in 0..100u16 {
            r.packet(i, u32::from(i) * 960, 10, false, t + ms(20 * u64::from(i)));
        }
        assert!(r.jitter() < Duration::from_micros(50));
    }
}
