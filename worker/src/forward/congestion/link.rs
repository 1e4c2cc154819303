//! A path between two tests, in virtual time.

use std::collections::VecDeque;

use super::Micros;

/// Reproducible numbers (splitmix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A queue before a wire. What arrives keeps its order, as on real paths.
#[derive(Debug)]
pub(crate) struct Link {
    /// Bits per second.
    pub(crate) rate: f64,
    /// Longest time in the queue; what doesn't fit is dropped.
    pub(crate) queue: Micros,
    pub(crate) delay: Micros,
    /// Uniform, on top of the delay.
    pub(crate) jitter: Micros,
    /// Share lost at random.
    pub(crate) loss: f64,
    /// Someone else's bits per second through the same queue.
    pub(crate) cross: f64,
    free: f64,
    cross_at: Micros,
    last_arrival: Micros,
    random: Random,
}

impl Link {
    pub(crate) fn new(rate: f64, seed: u64) -> Self {
        Link {
            rate,
            queue: 300_000,
            delay: 25_000,
            jitter: 0,
            loss: 0.0,
            cross: 0.0,
            free: 0.0,
            cross_at: 0,
            last_arrival: 0,
            random: Random::new(seed),
        }
    }

    /// More numbers of the same seed.
    pub(crate) fn fork(&mut self) -> Random {
        Random::new(self.random.next())
    }

    /// Time a packet would wait now.
    pub(crate) fn queued(&self, now: Micros) -> Micros {
        (self.free - now as f64).max(0.0) as Micros
    }

    /// Sends a packet of `size` bytes; when it arrives.
    pub(crate) fn send(&mut self, size: usize, now: Micros) -> Option<Micros> {
        // The others' packets of 1,000 bytes, as they came in between.
        while self.cross > 0.0 && self.cross_at <= now {
            if self.queued(self.cross_at) <= self.queue {
                self.free = self.free.max(self.cross_at as f64) + 8e9 / self.rate;
            }
            self.cross_at += (8e9 / self.cross) as Micros;
        }
        if self.cross == 0.0 {
            self.cross_at = now;
        }
        if self.queued(now) > self.queue {
            return None;
        }
        self.free = self.free.max(now as f64) + size as f64 * 8e6 / self.rate;
        if self.random.unit() < self.loss {
            return None;
        }
        let jitter = if self.jitter > 0 {
            self.random.below(self.jitter as u64) as Micros
        } else {
            0
        };
        let arrival = (self.free as Micros + self.delay + jitter).max(self.last_arrival);
        self.last_arrival = arrival;
        Some(arrival)
    }
}

/// Things that happen at a time, in its order where they were put in it.
#[derive(Debug)]
pub(crate) struct Wire<T>(pub(crate) VecDeque<(Micros, T)>);

impl<T> Wire<T> {
    pub(crate) fn new() -> Self {
        Wire(VecDeque::new())
    }

    pub(crate) fn put(&mut self, at: Micros, what: T) {
        self.0.push_back((at, what));
    }

    /// The first, if its time has come.
    pub(crate) fn take(&mut self, now: Micros) -> Option<(Micros, T)> {
        if self.0.front()?.0 <= now {
            self.0.pop_front()
        } else {
            None
        }
    }
}
