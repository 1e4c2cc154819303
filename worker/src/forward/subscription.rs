//! One track on its way to one subscriber.
//!
//! Owns the rewriting: sequence numbers, timestamps, payload types, header extensions and VP8 numbers
//! run on as one stream whatever layer feeds it. Here is what decides, in [`write`] what writes. Invariants:
//! the layer changes only at the first packet of a key frame that is the newest of its layer; numbers only
//! rise, over the whole life of a key ([`Subscription::spent`]).

mod write;

use std::time::{Duration, Instant};

pub(crate) use self::write::{Dressed, Resend};
use super::audio::demand::Demand;
use super::audio::red::Redundancy;
use super::codec::Codec;
use super::extension::{Extension, Outgoing, Passed};
use super::gaps::Gaps;
use super::history::History;
use super::layers::LayerSet;
use super::packet::Header;
use super::paths::Room;
use super::receive::SenderClock;
use super::seqmap::SequenceMap;
use super::svc::{Decision, Dress, Layering, Numbers, Position, Selector, Target};
use super::{LegKey, PayloadMap};
use crate::session::api::{Quality, SessionId};

/// Sent packets remembered for NACK; powers of two.
const VIDEO_HISTORY: usize = 512;
const AUDIO_HISTORY: usize = 64;
/// Bytes on the wire by those of payload, about; and the longest that a key frame is waited for.
const WIRE: f64 = 1.1;
const LONGEST_WAY: Duration = Duration::from_millis(2000);
/// A receiver that asks for a key frame so soon may not have been there for the first, so many times.
const BEGINNING: Duration = Duration::from_secs(2);
const BEGINNINGS: u8 = 3;
/// A key frame that a path carries in so little time may as well be sent twice. Where nothing strains it, the
/// estimate says what was sent so far, and more can be expected of it: so many bits per second.
const QUICK: Duration = Duration::from_millis(200);
const USUAL: u64 = 1_000_000;
/// Bytes that a second beginning doesn't wait with, about a key frame of a small picture.
const AT_ONCE: usize = 8 << 10;
/// A switch whose sender-report time is further off than this from the arrival time isn't believed.
const MAX_CLOCK_ERROR: i64 = 3;

/// What a subscriber negotiated.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) session: SessionId,
    pub(crate) leg: LegKey,
    pub(crate) mid: String,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: u32,
    pub(crate) payloads: PayloadMap,
    pub(crate) extensions: Outgoing,
    /// Header blocks of the two-byte form are allowed (RFC 8285 section 4.1.2).
    pub(crate) mixed: bool,
    /// Feedback by transport-wide numbers was agreed on: packets carry them.
    pub(crate) wide: bool,
    pub(crate) wanted: Option<Quality>,
}

impl Binding {
    /// Packets carry transport-wide numbers.
    pub(crate) fn is_numbered(&self) -> bool {
        self.wide && self.extensions.get(Extension::TransportCc).is_some()
    }

    /// Whatever is lost is sent again under another SSRC.
    fn repairs(&self) -> bool {
        self.payloads.entries.iter().all(|(.., rtx)| rtx.is_some())
    }
}

/// Bytes to add to a packet, so that it is as long as its neighbours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Padding {
    /// In the block of header extensions.
    pub(crate) block: u8,
    /// Behind the payload.
    pub(crate) payload: u8,
}

/// A packet as it came, parsed once for all subscribers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) header: &'a Header,
    pub(crate) payload: &'a [u8],
    pub(crate) passed: &'a Passed,
    pub(crate) codec: Codec,
    pub(crate) layering: Layering<'a>,
    pub(crate) layer: usize,
    pub(crate) sequence: u64,
    pub(crate) newest: bool,
    pub(crate) starts: bool,
    pub(crate) padding: Padding,
    /// What the payload is of: not always what the header says.
    pub(crate) payload_type: u8,
    /// Sound that goes along with it.
    pub(crate) redundancy: Redundancy<'a>,
    /// Not among what came in, so that it can't be found to be sent again.
    pub(crate) restored: bool,
    pub(crate) now: Instant,
}

/// A packet that is for this subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// The number it leaves with, extended.
    out: u64,
    /// The same with the rollover counter of the present key.
    index: u64,
    timestamp: u32,
    /// Of what it carries.
    payload_type: u8,
    dress: Dress,
}

/// Where a stream ended whose SSRC another track goes on with.
#[derive(Debug, Clone)]
pub(crate) struct Trail {
    timestamp: u32,
    at: Instant,
    numbers: Numbers,
}

/// What is known of the path to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathState {
    /// Bits per second.
    pub(crate) estimate: u64,
    /// What is sent does not get through.
    pub(crate) strained: bool,
}

/// Per-subscriber state of one track.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) binding: Binding,
    pub(crate) current: Option<usize>,
    pub(crate) target: Option<usize>,
    /// Layers whose key frame is taken on the way to the target.
    pub(crate) accepted: LayerSet,
    /// Frames a second that are enough.
    pub(crate) fps: Option<u32>,
    /// What there is room for on the path, and since when there is none.
    pub(crate) room: Room,
    pub(crate) unfit_since: Option<Instant>,
    /// The client was told that the path has no room for it.
    pub(crate) paused: bool,
    /// Which of the leg's tracks come first where not all fit, the highest.
    pub(crate) priority: u8,
    /// Packets reach the subscriber. A key frame that came before would be lost, and its decoder wait for
    /// the one after.
    pub(crate) ready: bool,
    /// The present layer ended before the next has begun.
    cut: bool,
    /// Nothing below this number is sent again.
    floor: u64,
    /// When the last key frame began, and the bytes before it.
    key_frame: Option<(Instant, u64)>,
    /// When the first packet left, and how often it began anew for a receiver that missed it.
    begun: Option<(Instant, u8)>,
    /// Bytes that are left of [`AT_ONCE`].
    at_once: usize,
    map: SequenceMap,
    timestamp_offset: u32,
    last_timestamp: u32,
    last_at: Option<Instant>,
    /// When the stream ended that this one goes on with.
    ended: Option<Instant>,
    /// Layer of the last packet, whose clock relates to the offset.
    last_layer: Option<usize>,
    selector: Selector,
    numbers: Numbers,
    history: History,
    /// The moment that the history counts from.
    epoch: Option<Instant>,
    /// The next number over RTX.
    rtx: u64,
    /// What the rollover counter of the present key doesn't count.
    before_key: u64,
    /// What is lost on the way, if it is sound.
    pub(crate) demand: Demand,
    reports: [(u32, Option<Instant>); 4],
    pub(crate) next_report: Option<Instant>,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) nacks: u64,
    pub(crate) plis: u64,
    pub(crate) lost: u64,
    pub(crate) jitter: Duration,
    /// As it goes out.
    pub(crate) gaps: Gaps,
}

impl Subscription {
    /// `seed` sets the first numbers; kept below half the range, where receivers guess the rollover
    /// counter right.
    pub(crate) fn new(binding: Binding, video: bool, seed: u32) -> Self {
        let history = if video { VIDEO_HISTORY } else { AUDIO_HISTORY };
        Subscription {
            binding,
            current: None,
            target: None,
            accepted: LayerSet::default(),
            fps: None,
            room: Room::default(),
            unfit_since: None,
            paused: false,
            priority: 0,
            ready: true,
            cut: false,
            floor: 0,
            key_frame: None,
            begun: None,
            at_once: 0,
            map: SequenceMap::new(u64::from(seed & 0x3FFF)),
            timestamp_offset: 0,
            last_timestamp: seed,
            last_at: None,
            ended: None,
            last_layer: None,
            selector: Selector::default(),
            numbers: Numbers::default(),
            history: History::new(history),
            epoch: None,
            rtx: u64::from((seed >> 16) & 0x3FFF),
            before_key: 0,
            demand: Demand::default(),
            reports: [(0, None); 4],
            next_report: None,
            packets: 0,
            bytes: 0,
            nacks: 0,
            plis: 0,
            lost: 0,
            jitter: Duration::ZERO,
            gaps: Gaps::default(),
        }
    }

    /// The next numbers, media and RTX: nothing below them may be sealed again under the same key.
    pub(crate) fn spent(&self) -> (u64, u64) {
        (self.map.next_out() - self.before_key, self.rtx)
    }

    /// Where it ends; `None` if nothing was sent.
    pub(crate) fn trail(&self) -> Option<Trail> {
        Some(Trail {
            timestamp: self.last_timestamp,
            at: self.last_at?,
            numbers: self.numbers.clone(),
        })
    }

    /// To the receiver this is the stream that ended there.
    pub(crate) fn go_on(&mut self, trail: &Trail) {
        self.last_timestamp = trail.timestamp;
        self.ended = Some(trail.at);
        self.numbers = trail.numbers.clone();
    }

    /// Goes on after numbers that another subscription used.
    pub(crate) fn follow(&mut self, media: Option<u64>, rtx: Option<u64>) {
        if let Some(media) = media {
            self.map = SequenceMap::new(media);
        }
        self.rtx = rtx.unwrap_or(self.rtx);
    }

    /// The leg has a new key: its rollover counters start at 0, whatever the numbers are.
    pub(crate) fn rekeyed(&mut self) {
        self.before_key = self.map.next_out() & !0xFFFF;
        self.rtx &= 0xFFFF;
    }

    /// What is newer than all so far isn't forwarded, and leaves no gap.
    pub(crate) fn hold_back(&mut self) {
        self.map.pause();
    }

    /// Waits for a key frame before anything is forwarded again.
    pub(crate) fn restart(&mut self) {
        self.current = None;
        self.cut = false;
        self.selector.restart();
    }

    /// Ends the present layer before the next has begun; `false`: it has ended.
    pub(crate) fn cut(&mut self) -> bool {
        self.floor = self.map.next_out();
        !std::mem::replace(&mut self.cut, true)
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// The layers within the encoding from now on.
    pub(crate) fn want(&mut self, wanted: Target) {
        self.selector.want(wanted);
    }

    /// The layers within the encoding that are forwarded, where there are any.
    pub(crate) fn layers(&self) -> Option<Target> {
        self.selector.layers()
    }

    /// Nothing is forwarded, though something could be.
    pub(crate) fn can_start(&self) -> bool {
        self.ready && self.current.is_none() && self.target.is_some()
    }

    /// A packet of a replay that had no payload.
    pub(crate) fn skip(&mut self, sequence: u64) {
        self.map.drop_packet(sequence);
    }

    /// Whether a key frame of the target layer is awaited.
    pub(crate) fn waits_for_key_frame(&self) -> bool {
        let inside = self.current.is_some() && self.selector.waits_for_key_frame();
        self.ready && self.target.is_some() && (self.target != self.current || inside)
    }

    /// Whether the packet is for this subscriber, and what is its own in it. What is admitted takes its number
    /// and has to be written or put off. `clocks` are the layers' sender clocks.
    pub(crate) fn admit(
        &mut self,
        p: &Arrived<'_>,
        clocks: &dyn Fn(usize) -> Option<SenderClock>,
    ) -> Option<Admitted> {
        if !self.ready {
            return None;
        }
        let enters = self.target == Some(p.layer) || self.accepted.contains(p.layer);
        if enters && self.current != self.target && self.current != Some(p.layer) && p.starts && p.newest {
            self.switch(p, clocks);
        }
        if self.current != Some(p.layer) {
            return None;
        }
        if self.cut {
            self.map.pause();
            return None;
        }
        let (payload_type, _) = self.binding.payloads.get(p.payload_type)?;
        if p.payload.is_empty() {
            // Padding probes this worker's estimator, not the subscriber's.
            self.map.drop_packet(p.sequence);
            return None;
        }
        let at = Position {
            timestamp: p.header.timestamp,
            newest: p.newest,
            marker: p.header.marker,
        };
        let Decision::Forward { marker } = self.selector.select(&p.layering, at) else {
            self.map.drop_packet(p.sequence);
            self.numbers.drop(&p.layering, p.newest);
            return None;
        };
        if p.newest {
            self.map.resume(p.sequence);
        }
        let out = self.map.map(p.sequence)?;
        // One from before the present key can't be sealed under its number any more.
        let index = out.checked_sub(self.before_key)?;
        let timestamp = p.header.timestamp.wrapping_add(self.timestamp_offset);
        let told = self.selector.announcement(&p.layering);
        let dress = self.numbers.dress(&p.layering, p.newest, marker, told);
        if p.newest {
            if p.starts {
                self.key_frame = Some((p.now, self.bytes));
            }
            self.last_timestamp = timestamp;
            self.last_at = Some(p.now);
            self.gaps.packet(p.now);
            self.last_layer = Some(p.layer);
        }
        self.begun.get_or_insert((p.now, 0));
        self.packets += 1;
        self.bytes += p.payload.len() as u64;
        Some(Admitted {
            out,
            index,
            timestamp,
            payload_type,
            dress,
        })
    }

    /// Admits and writes.
    #[cfg(test)]
    pub(crate) fn forward(
        &mut self,
        p: &Arrived<'_>,
        clocks: &dyn Fn(usize) -> Option<SenderClock>,
        number: u16,
        out: &mut Vec<u8>,
    ) -> Option<Dressed> {
        let admitted = self.admit(p, clocks)?;
        Some(self.write(p, &admitted, number, out))
    }

    fn switch(&mut self, p: &Arrived<'_>, clocks: &dyn Fn(usize) -> Option<SenderClock>) {
        self.map.switch(p.sequence);
        let rate = i64::from(p.codec.clock_rate());
        if let Some(last_at) = self.last_at.or(self.ended) {
            let elapsed = p.now.saturating_duration_since(last_at);
            let ticks = (elapsed.as_secs_f64() * rate as f64) as i64;
            let by_arrival = self.last_timestamp.wrapping_add(ticks.max(1) as u32);
            let old = self.last_layer.and_then(clocks);
            let by_report = match (old, clocks(p.layer)) {
                (Some(old), Some(new)) => {
                    // The new layer's timestamp in terms of the old one's, then as it left.
                    let ntp = new.ntp.wrapping_sub(old.ntp) as i64;
                    let between = ((i128::from(ntp) * i128::from(rate)) >> 32) as i64;
                    let in_old = p
                        .header
                        .timestamp
                        .wrapping_sub(new.rtp)
                        .wrapping_add(old.rtp)
                        .wrapping_add(between as u32);
                    let candidate = in_old.wrapping_add(self.timestamp_offset);
                    let error = i64::from(candidate.wrapping_sub(by_arrival) as i32);
                    let advance = candidate.wrapping_sub(self.last_timestamp) as i32;
                    (advance > 0 && error.abs() < MAX_CLOCK_ERROR * rate).then_some(candidate)
                }
                _ => None,
            };
            let start = by_report.unwrap_or(by_arrival);
            self.timestamp_offset = start.wrapping_sub(p.header.timestamp);
        } else {
            self.timestamp_offset = self.last_timestamp.wrapping_sub(p.header.timestamp);
        }
        self.numbers.switch(&p.layering);
        self.selector.restart();
        self.current = Some(p.layer);
        self.cut = false;
        // What lies on the way from here is seen when layers are chosen again.
        self.accepted = LayerSet::default();
    }

    /// How often it began anew, while it may do so again.
    pub(crate) fn beginnings(&self, now: Instant) -> Option<u8> {
        let (at, times) = self.begun?;
        (times < BEGINNINGS && now.saturating_duration_since(at) < BEGINNING).then_some(times)
    }

    /// Begins again, for a receiver that wasn't there the first time.
    pub(crate) fn begin_again(&mut self) {
        if let Some((_, times)) = &mut self.begun {
            *times += 1;
        }
        self.at_once = AT_ONCE;
        self.floor = self.map.next_out();
        self.restart();
    }

    /// Whether the next packet, of so many bytes, goes out at once where the path `allows` that.
    pub(crate) fn hurries(&mut self, bytes: usize, allows: impl FnOnce() -> bool) -> bool {
        let left = self.at_once.checked_sub(bytes).filter(|_| allows());
        self.at_once = left.unwrap_or(0);
        left.is_some()
    }

    /// Whether the last key frame, with what followed it, may still be on its way to a receiver at the end of
    /// the path.
    pub(crate) fn key_frame_is_under_way(&self, path: PathState, rtt: Duration, now: Instant) -> bool {
        let Some((at, before)) = self.key_frame else {
            return false;
        };
        let bits = (self.bytes - before) as f64 * 8.0 * WIRE;
        let at_rate = |rate: u64| Duration::from_secs_f64(bits / rate.max(1) as f64);
        // The first may have come before the client knew of the stream. A decoder set up since knows nothing
        // of it, and asks for no packet before its own first.
        let least = if path.strained { 0 } else { USUAL };
        if self.beginnings(now) == Some(0) && self.nacks == 0 && at_rate(path.estimate.max(least)) < QUICK {
            return false;
        }
        now.saturating_duration_since(at) < (rtt + at_rate(path.estimate)).min(LONGEST_WAY)
    }

    /// The clock pair for a sender report: the publisher's own NTP time, so that sound and picture of one
    /// publisher stay in step, moved on to `now`.
    pub(crate) fn sender_clock(
        &mut self,
        clock: Option<SenderClock>,
        rate: u32,
        wall_ntp: u64,
        now: Instant,
    ) -> Option<(u64, u32)> {
        let last_at = self.last_at?;
        let (ntp, rtp) = match clock {
            Some(c) => {
                let since = now.saturating_duration_since(c.at);
                (
                    c.ntp.wrapping_add(ntp_of(since)),
                    c.rtp
                        .wrapping_add(self.timestamp_offset)
                        .wrapping_add(ticks(since, rate)),
                )
            }
            None => {
                let since = now.saturating_duration_since(last_at);
                (wall_ntp, self.last_timestamp.wrapping_add(ticks(since, rate)))
            }
        };
        self.reports.rotate_right(1);
        if let Some(first) = self.reports.first_mut() {
            *first = ((ntp >> 16) as u32, Some(now));
        }
        Some((ntp, rtp))
    }

    /// The round trip that a report block closes, RFC 3550 section 6.4.1.
    pub(crate) fn round_trip(&self, last_sr: u32, delay: u32, now: Instant) -> Option<Duration> {
        let sent = self.reports.iter().find(|(ntp, _)| *ntp == last_sr)?.1?;
        let held = Duration::from_secs_f64(f64::from(delay) / 65_536.0);
        now.saturating_duration_since(sent).checked_sub(held)
    }

    /// Layer whose clock stands behind what leaves now.
    pub(crate) fn clock_layer(&self) -> Option<usize> {
        self.last_layer
    }
}

/// A duration as 32.32 fixed point seconds.
pub(crate) fn ntp_of(d: Duration) -> u64 {
    (d.as_secs() << 32) | ((u64::from(d.subsec_nanos()) << 32) / 1_000_000_000)
}

fn ticks(d: Duration, rate: u32) -> u32 {
    (d.as_micros() * u128::from(rate) / 1_000_000) as u32
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
