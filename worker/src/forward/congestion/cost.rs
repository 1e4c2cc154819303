//! What a layer takes of a path.
//!
//! Owns the rate of one published layer, from counters that are read on a timer: packets cost nothing
//! here. Invariant: a layer that has just begun has no rate before [`KNOWN`] of it have been seen, and
//! one that stopped keeps its last, since it costs the same when it comes back.

use std::time::{Duration, Instant};

use super::OVERHEAD;

/// Key frames come seconds apart: the mean of less would rise and fall with them.
const SAMPLES: usize = 20;
const INTERVAL: Duration = Duration::from_millis(90);
const KNOWN: Duration = Duration::from_millis(300);
/// RTP header with the extensions that subscribers get, and the tag.
const HEADER: u64 = 28 + 16;
/// A layer silent for so long begins anew.
const SILENT: Duration = Duration::from_millis(1000);

/// Rate of one layer.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// Time and bytes of the counters, a ring.
    samples: [Option<(Instant, u64)>; SAMPLES],
    next: usize,
    last: Option<(Instant, u64)>,
    rate: Option<u64>,
}

impl Cost {
    /// Reads the layer's counters: packets and bytes of payload so far.
    pub(crate) fn note(&mut self, packets: u64, payload: u64, now: Instant) {
        let total = payload + packets * (HEADER + OVERHEAD as u64);
        if self.last.is_some_and(|(at, before)| {
            let since = now.saturating_duration_since(at);
            since < INTERVAL || (before == total && since < SILENT)
        }) {
            return;
        }
        if self.last.is_none_or(|(_, before)| before >= total) {
            // Silence says nothing of what the layer takes when it runs.
            self.samples = [None; SAMPLES];
            self.last = Some((now, total));
            self.put(now, total);
            return;
        }
        self.last = Some((now, total));
        self.put(now, total);
        let oldest = self.samples.iter().flatten().min_by_key(|(at, _)| *at);
        if let Some((at, bytes)) = oldest {
            let span = now.saturating_duration_since(*at);
            if span >= KNOWN {
                let bits = total.saturating_sub(*bytes) * 8;
                self.rate = Some((bits as f64 / span.as_secs_f64()) as u64);
            }
        }
    }

    fn put(&mut self, now: Instant, total: u64) {
        if let Some(slot) = self.samples.get_mut(self.next) {
            *slot = Some((now, total));
        }
        self.next = (self.next + 1) % SAMPLES;
    }

    /// Bits per second on the wire, where it is known.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_measured_and_remembered() {
        let t = Instant::now();
        let mut cost = Cost::default();
        let at = |i: u64| t + Duration::from_millis(20 * i);
        // 50 packets of 1,000 bytes per second.
        for i in 0..10 {
            cost.note(i, i * 1000, at(i));
        }
        assert_eq!(cost.rate(), None);
        for i in 10..200 {
            cost.note(i, i * 1000, at(i));
        }
        let expected = 50 * 8 * (1000 + HEADER + OVERHEAD as u64);
        let close = |rate: Option<u64>| rate.unwrap().abs_diff(expected) < expected / 10;
        assert!(close(cost.rate()), "{:?}", cost.rate());
        for i in 200..1000 {
            cost.note(200, 200_000, at(i));
        }
        assert!(close(cost.rate()), "{:?}", cost.rate());
        // It comes back half as fast: the silence isn't averaged in.
        for i in 1000..1200 {
            cost.note(200 + (i - 1000) / 2, 200_000 + (i - 1000) * 500, at(i));
        }
        let half = cost.rate().unwrap();
        assert!(half.abs_diff(expected / 2) < expected / 10, "{half}");
    }
}
