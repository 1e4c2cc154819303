//! One direction of a bad network, in virtual time.
//!
//! Owns what happens to a packet between its arrival and its departure: it is lost, or waits for the line
//! (a rate and a queue bounded in time, the last to come is dropped), then travels (delay and jitter). Knows
//! neither sockets nor clocks: `now` comes in. A packet that is stamped before what the link has done already
//! counts as coming right after that.
//!
//! Loss comes before the line, as with the kernel's `netem`, so a lost packet takes no room on it. A change
//! of the rate holds for packets that wait already; a change of the delay for those still to leave the line.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use crate::control::Change;

/// A queue holds this much whatever its time says, so that a slow line passes packets at all.
const LEAST_QUEUE_BYTES: u64 = 3_000;
const NANOS: u64 = 1_000_000_000;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Bits per second; `None` is no limit.
    pub(crate) rate: Option<u64>,
    /// The longest that a packet may have to wait for those before it.
    pub(crate) queue: Duration,
    pub(crate) delay: Duration,
    /// Added to the delay or taken from it, evenly spread.
    pub(crate) jitter: Duration,
    /// Whether jitter may let packets overtake each other.
    pub(crate) reorder: bool,
    /// Share of packets lost.
    pub(crate) loss: f64,
    /// Mean length of a loss, in packets. 1 is loss without memory; above, Gilbert's model.
    pub(crate) burst: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate: None,
            queue: Duration::from_millis(300),
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: false,
            loss: 0.0,
            burst: 1.0,
        }
    }
}

/// What became of packets since the link began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) offered: u64,
    pub(crate) passed: u64,
    pub(crate) passed_bytes: u64,
    /// Lost by chance.
    pub(crate) lost: u64,
    /// Dropped by a full queue.
    pub(crate) full: u64,
    /// Not taken by the device at the end.
    pub(crate) refused: u64,
}

impl Counters {
    pub(crate) fn json(self) -> Value {
        json!({
            "offered": self.offered,
            "passed": self.passed,
            "passedBytes": self.passed_bytes,
            "lost": self.lost,
            "full": self.full,
            "refused": self.refused,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Link {
    settings: Settings,
    random: fastrand::Rng,
    /// Whether a loss is under way.
    losing: bool,
    /// Up to when the line's work is done.
    at: Duration,
    line: VecDeque<Vec<u8>>,
    line_bytes: u64,
    /// What is left to send of the first in line, in billionths of a bit: a rate times nanoseconds.
    left: u64,
    /// Packets that travel, by when they arrive and which came first.
    travelling: BTreeMap<(Duration, u64), Vec<u8>>,
    sent: u64,
    last_due: Duration,
    counters: Counters,
}

fn bytes(packet: &[u8]) -> u64 {
    packet.len() as u64
}

fn billionths(packet: &[u8]) -> u64 {
    bytes(packet) * 8 * NANOS
}

impl Link {
    pub(crate) fn new(random: fastrand::Rng) -> Self {
        Self {
            settings: Settings::default(),
            random,
            losing: false,
            at: Duration::ZERO,
            line: VecDeque::new(),
            line_bytes: 0,
            left: 0,
            travelling: BTreeMap::new(),
            sent: 0,
            last_due: Duration::ZERO,
            counters: Counters::default(),
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn change(&mut self, now: Duration, change: &Change) {
        self.advance(now);
        change.apply(&mut self.settings);
    }

    /// Takes a packet in.
    pub(crate) fn push(&mut self, now: Duration, packet: Vec<u8>) {
        self.advance(now);
        self.counters.offered += 1;
        if self.lose() {
            self.counters.lost += 1;
            return;
        }
        if let Some(rate) = self.settings.rate {
            let limit = u64::try_from(self.settings.queue.as_millis())
                .unwrap_or(u64::MAX)
                .saturating_mul(rate)
                / 8_000;
            if self.line_bytes + bytes(&packet) > limit.max(LEAST_QUEUE_BYTES) {
                self.counters.full += 1;
                return;
            }
        }
        if self.line.is_empty() {
            self.left = billionths(&packet);
        }
        self.line_bytes += bytes(&packet);
        self.line.push_back(packet);
        self.advance(now);
    }

    /// Gives out the next packet that has arrived by `now`.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.advance(now);
        let first = self.travelling.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let packet = first.remove();
        self.counters.passed += 1;
        self.counters.passed_bytes += bytes(&packet);
        Some(packet)
    }

    /// When `pop` may have more to give, or the line's work goes on.
    pub(crate) fn next(&self) -> Option<Duration> {
        let arrives = self.travelling.first_key_value().map(|(key, _)| key.0);
        let leaves = (!self.line.is_empty()).then(|| self.first_leaves());
        match (arrives, leaves) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// The last packet popped could not be delivered.
    pub(crate) fn refused(&mut self) {
        self.counters.refused += 1;
    }

    /// When the first in line will have left it.
    fn first_leaves(&self) -> Duration {
        match self.settings.rate {
            None => self.at,
            Some(rate) => self.at + Duration::from_nanos(self.left.div_ceil(rate)),
        }
    }

    /// Does the line's work up to `now`.
    fn advance(&mut self, now: Duration) {
        while !self.line.is_empty() {
            let leaves = self.first_leaves();
            if leaves > now {
                if let Some(rate) = self.settings.rate {
                    let spent = u64::try_from(now.saturating_sub(self.at).as_nanos());
                    let done = spent.map_or(u64::MAX, |nanos| nanos.saturating_mul(rate));
                    self.left = self.left.saturating_sub(done);
                }
                break;
            }
            self.at = leaves;
            if let Some(packet) = self.line.pop_front() {
                self.line_bytes -= bytes(&packet);
                self.travel(packet);
            }
            self.left = self.line.front().map_or(0, |packet| billionths(packet));
        }
        self.at = self.at.max(now);
    }

    /// Sends a packet that left the line at `self.at` on its way.
    fn travel(&mut self, packet: Vec<u8>) {
        let Settings {
            delay,
            jitter,
            reorder,
            ..
        } = self.settings;
        let mut due = self.at + delay;
        if !jitter.is_zero() {
            // From one jitter early to one late.
            due = (due + jitter.mul_f64(2.0 * self.random.f64())).saturating_sub(jitter);
        }
        due = due.max(self.at);
        if !reorder {
            due = due.max(self.last_due);
        }
        self.last_due = self.last_due.max(due);
        self.travelling.insert((due, self.sent), packet);
        self.sent += 1;
    }

    /// Whether chance takes the next packet.
    fn lose(&mut self) -> bool {
        let Settings { loss, burst, .. } = self.settings;
        if burst <= 1.0 || loss >= 1.0 || loss <= 0.0 {
            self.losing = false;
            return self.random.f64() < loss;
        }
        // Losses end with the chance 1/burst per packet, and begin so often that their share is as told.
        let ends = 1.0 / burst;
        let begins = (loss * ends / (1.0 - loss)).min(1.0);
        let turn = if self.losing { ends } else { begins };
        if self.random.f64() < turn {
            self.losing = !self.losing;
        }
        self.losing
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
