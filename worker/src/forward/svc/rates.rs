//! What every choice of layers costs, as the stream came in lately.
//!
//! Owns the meter of one published stream: bytes and pictures of the last second by what a subscriber of
//! each (spatial, temporal) layer would get. Invariants: fixed size, no allocation; a layer that stopped
//! costs nothing once the window has passed.

use std::time::{Duration, Instant};

use super::Target;
use super::dependency_descriptor::Indication;
use super::selector::Layering;

/// Layers told apart in each dimension; higher ones count as the last.
pub(crate) const DIMENSION: usize = 4;
const CELLS: usize = DIMENSION * DIMENSION;
const SLOTS: usize = 8;
const SLOT: Duration = Duration::from_millis(125);
/// Also how long after its last packet a layer is there.
pub(crate) const WINDOW: Duration = Duration::from_millis(1000);

/// A set of (spatial, temporal) layers whose subscribers get a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Audience(u16);

impl Audience {
    /// Those who get this packet.
    pub(crate) fn of(packet: &Layering<'_>) -> Audience {
        match packet {
            Layering::Plain => Audience(u16::MAX),
            Layering::Vp8(d) => {
                let own = d.temporal.map_or(0, |t| t.0);
                Audience::where_layer(|t| t.temporal >= own)
            }
            Layering::Vp9(d) => Audience::where_layer(|t| {
                let own = t.spatial == d.spatial.min(DIMENSION as u8 - 1);
                t.temporal >= d.temporal && (own || (t.spatial > d.spatial && !d.not_for_upper))
            }),
            Layering::Targets { frame, structure, .. } => {
                let present = (0..structure.targets())
                    .filter(|t| frame.indication(*t) != Indication::NotPresent)
                    .map(|t| cell(structure.layers(t)));
                Audience(present.fold(0, |set, cell| set | 1 << cell))
            }
        }
    }

    fn where_layer(f: impl Fn(Target) -> bool) -> Audience {
        let mut set = 0;
        for c in 0..CELLS {
            let layer = Target {
                spatial: (c / DIMENSION) as u8,
                temporal: (c % DIMENSION) as u8,
            };
            if f(layer) {
                set |= 1 << c;
            }
        }
        Audience(set)
    }
}

fn cell(t: Target) -> usize {
    let clamp = |v: u8| usize::from(v).min(DIMENSION - 1);
    clamp(t.spatial) * DIMENSION + clamp(t.temporal)
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    bytes: [u32; SLOTS],
    pictures: [u16; SLOTS],
    timestamp: Option<u32>,
}

/// The meter.
#[derive(Debug, Clone)]
pub(crate) struct LayerRates {
    cells: [Cell; CELLS],
    slot: usize,
    slot_start: Option<Instant>,
    since: Option<Instant>,
    spatial: [Option<Instant>; DIMENSION],
    temporal: [Option<Instant>; DIMENSION],
}

impl Default for LayerRates {
    fn default() -> Self {
        LayerRates {
            cells: [Cell::default(); CELLS],
            slot: 0,
            slot_start: None,
            since: None,
            spatial: [None; DIMENSION],
            temporal: [None; DIMENSION],
        }
    }
}

impl LayerRates {
    /// Counts a packet.
    pub(crate) fn note(&mut self, packet: &Layering<'_>, timestamp: u32, bytes: usize, now: Instant) {
        self.advance(now);
        let layers = packet.layers();
        let place = |v: u8| usize::from(v).min(DIMENSION - 1);
        if let Some(last) = self.spatial.get_mut(place(layers.spatial)) {
            *last = Some(now);
        }
        if let Some(last) = self.temporal.get_mut(place(layers.temporal)) {
            *last = Some(now);
        }
        let Audience(set) = Audience::of(packet);
        let slot = self.slot;
        for (i, c) in self.cells.iter_mut().enumerate() {
            if set >> i & 1 == 0 {
                continue;
            }
            if let Some(b) = c.bytes.get_mut(slot) {
                *b = b.saturating_add(bytes as u32);
            }
            if c.timestamp != Some(timestamp) {
                c.timestamp = Some(timestamp);
                if let Some(p) = c.pictures.get_mut(slot) {
                    *p = p.saturating_add(1);
                }
            }
        }
    }

    /// Moves on to `now`, so that what is read below is of the last second.
    pub(crate) fn advance(&mut self, now: Instant) {
        let Some(start) = self.slot_start else {
            self.slot_start = Some(now);
            self.since = Some(now);
            return;
        };
        let passed = now.saturating_duration_since(start).as_millis() / SLOT.as_millis();
        if passed == 0 {
            return;
        }
        for _ in 0..passed.min(SLOTS as u128) {
            self.slot = (self.slot + 1) % SLOTS;
            for c in &mut self.cells {
                if let (Some(b), Some(p)) = (c.bytes.get_mut(self.slot), c.pictures.get_mut(self.slot)) {
                    (*b, *p) = (0, 0);
                }
            }
        }
        self.slot_start = Some(if passed > SLOTS as u128 {
            self.since = Some(now);
            now
        } else {
            start + SLOT * passed as u32
        });
    }

    /// The highest layers of which a packet came within the last second.
    pub(crate) fn live(&self, now: Instant) -> Option<Target> {
        let highest = |last: &[Option<Instant>; DIMENSION]| {
            last.iter()
                .rposition(|at| at.is_some_and(|at| now.saturating_duration_since(at) < WINDOW))
        };
        Some(Target {
            spatial: highest(&self.spatial)? as u8,
            temporal: highest(&self.temporal)? as u8,
        })
    }

    /// Bits per second of a subscriber at `target`, cut to the layers that are live.
    pub(crate) fn bitrate(&self, target: Target, now: Instant) -> u64 {
        let Some(c) = self.cell(target, now) else { return 0 };
        let bits = c.bytes.iter().map(|b| u64::from(*b)).sum::<u64>() * 8;
        (bits as f64 / self.span(now)) as u64
    }

    /// Pictures per second of a subscriber at `target`.
    pub(crate) fn frame_rate(&self, target: Target, now: Instant) -> f64 {
        let Some(c) = self.cell(target, now) else {
            return 0.0;
        };
        c.pictures.iter().map(|p| f64::from(*p)).sum::<f64>() / self.span(now)
    }

    /// The lowest temporal layer with at least nearly `fps` pictures per second at `spatial`; the highest
    /// where none has.
    pub(crate) fn temporal_for(&self, fps: f64, spatial: u8, now: Instant) -> u8 {
        let most = self.live(now).map_or(0, |l| l.temporal);
        (0..most)
            .find(|t| {
                let at = Target {
                    spatial,
                    temporal: *t,
                };
                self.frame_rate(at, now) >= fps * 0.9
            })
            .unwrap_or(u8::MAX)
    }

    fn cell(&self, target: Target, now: Instant) -> Option<&Cell> {
        let live = self.live(now)?;
        let at = Target {
            spatial: target.spatial.min(live.spatial),
            temporal: target.temporal.min(live.temporal),
        };
        self.cells.get(cell(at))
    }

    fn span(&self, now: Instant) -> f64 {
        let (Some(since), Some(start)) = (self.since, self.slot_start) else {
            return 1.0;
        };
        // The whole slots kept, and the part of the present one.
        let kept = SLOT * (SLOTS as u32 - 1) + now.saturating_duration_since(start).min(SLOT);
        let lived = now.saturating_duration_since(since);
        kept.min(lived).max(SLOT).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::super::vp9::Vp9;
    use super::super::vp9::tests::{Spec, payload};
    use super::*;

    fn at(spatial: u8, temporal: u8) -> Target {
        Target { spatial, temporal }
    }

    /// Two seconds of two spatial and two temporal layers, 20 pictures per second.
    fn stream(key_svc: bool, highest: u8) -> (LayerRates, Instant) {
        let mut rates = LayerRates::default();
        let start = Instant::now();
        let mut now = start;
        for i in 0..40u32 {
            now = start + Duration::from_millis(50) * i;
            for spatial in 0..=highest {
                let spec = Spec {
                    spatial,
                    temporal: (i % 2) as u8,
                    not_for_upper: key_svc,
                    inter_picture: true,
                    ..Spec::default()
                };
                let packet = Layering::Vp9(Vp9::parse(&payload(&spec)).unwrap());
                rates.note(&packet, i * 4500, 1000 * (usize::from(spatial) + 1), now);
            }
        }
        (rates, now)
    }

    #[test]
    fn costs_are_those_of_what_would_be_forwarded() {
        let close = |a: u64, b: u64| assert!(a.abs_diff(b) < b / 8, "{a} is not about {b}");
        let (full, now) = stream(false, 1);
        close(full.bitrate(at(0, 0), now), 80_000);
        close(full.bitrate(at(0, 1), now), 160_000);
        close(full.bitrate(at(1, 0), now), 240_000);
        close(full.bitrate(at(1, 1), now), 480_000);
        close(full.bitrate(Target::ALL, now), 480_000);
        let (key, now) = stream(true, 1);
        close(key.bitrate(at(1, 1), now), 320_000);
        close(key.bitrate(at(0, 1), now), 160_000);
    }

    #[test]
    fn frame_rates_choose_the_temporal_layer() {
        let (rates, now) = stream(false, 1);
        assert!((rates.frame_rate(at(1, 1), now) - 20.0).abs() < 2.0);
        assert!((rates.frame_rate(at(1, 0), now) - 10.0).abs() < 2.0);
        assert_eq!(rates.temporal_for(9.0, 1, now), 0);
        assert_eq!(rates.temporal_for(15.0, 1, now), u8::MAX);
        assert_eq!(rates.temporal_for(60.0, 1, now), u8::MAX);
    }

    #[test]
    fn a_layer_that_stopped_is_no_longer_there() {
        let (mut rates, now) = stream(false, 1);
        assert_eq!(rates.live(now), Some(at(1, 1)));
        let later = now + Duration::from_secs(3);
        rates.advance(later);
        assert_eq!(rates.live(later), None);
        assert_eq!(rates.bitrate(Target::ALL, later), 0);
    }
}
