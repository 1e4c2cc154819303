//! One track on its way to one subscriber.
//!
//! Owns the rewriting: sequence numbers, timestamps, payload types, header extensions and VP8 numbers
//! run on as one stream whatever layer feeds it. Invariants: the layer changes only at the first packet
//! of a key frame that is the newest of its layer; a packet sent again without RTX is byte for byte the
//! one sent before, since it is sealed under the same nonce; numbers only rise, over the whole life of a
//! key ([`Subscription::spent`]).

use std::time::{Duration, Instant};

use super::audio::demand::Demand;
use super::audio::red::{self, Red, Redundancy};
use super::codec::Codec;
use super::extension::{Extension, Incoming, Outgoing, Passed};
use super::gaps::Gaps;
use super::history::{History, Sent};
use super::layers::LayerSet;
use super::packet::{ExtensionWriter, Header, Rewrite, write_header};
use super::paths::Room;
use super::receive::SenderClock;
use super::seqmap::SequenceMap;
use super::svc::{Decision, Dress, Layering, Numbers, Position, Selector, Target};
use super::{LegKey, PayloadMap};
use crate::session::api::{Quality, SessionId};

/// Sent packets remembered for NACK; powers of two.
const VIDEO_HISTORY: usize = 512;
const AUDIO_HISTORY: usize = 64;
/// A packet is sent again at most so often.
const MAX_RESENDS: u8 = 3;
/// What was sent again isn't for so long at most.
const LONGEST_HOLD: Duration = Duration::from_millis(300);
/// Bytes on the wire by those of payload, about; and the longest that a key frame is waited for.
const WIRE: f64 = 1.1;
const LONGEST_WAY: Duration = Duration::from_millis(2000);
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
#[derive(Debug)]
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

/// What is needed to seal a packet that was just written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dressed {
    pub(crate) ssrc: u32,
    /// Sequence number with the rollover counter before it.
    pub(crate) index: u64,
    pub(crate) header_len: usize,
    /// The leg's transport-wide number, if the packet took it.
    pub(crate) number: Option<u16>,
}

/// What to take from which layer's buffer, and how to dress it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resend {
    pub(crate) layer: usize,
    pub(crate) sequence: u64,
    out: u64,
    timestamp: u32,
    dress: Dress,
    wide: u16,
    padding: Padding,
    /// It never left: it waited for its time.
    first: bool,
}

/// Where a stream ended whose SSRC another track goes on with.
#[derive(Debug, Clone)]
pub(crate) struct Trail {
    timestamp: u32,
    at: Instant,
    numbers: Numbers,
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

    /// Appends the packet to `out` as this subscriber gets it; `None` and nothing appended: not for it.
    /// `clocks` are the layers' sender clocks, `number` is the leg's next transport-wide one.
    pub(crate) fn forward(
        &mut self,
        p: &Arrived<'_>,
        clocks: &dyn Fn(usize) -> Option<SenderClock>,
        number: u16,
        out: &mut Vec<u8>,
    ) -> Option<Dressed> {
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
        let (mut payload_type, _) = self.binding.payloads.get(p.payload_type)?;
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
        let mapped = self.map.map(p.sequence)?;
        // One from before the present key can't be sealed under its number any more.
        let index = mapped.checked_sub(self.before_key)?;
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
        let red = self.binding.payloads.red_to.filter(|_| !p.redundancy.is_empty());
        let carried = payload_type;
        payload_type = red.unwrap_or(payload_type);
        let at = self.milliseconds(p.now);
        self.history.insert(Sent {
            sequence: p.sequence,
            out: mapped as u32,
            timestamp,
            dress,
            at,
            wide: number,
            layer: p.layer as u8,
            padding: p.padding,
            // These bytes can't be made again.
            resent: if p.restored || red.is_some() {
                MAX_RESENDS
            } else {
                0
            },
        });
        let start = out.len();
        let head = Rewrite {
            marker,
            payload_type,
            sequence: mapped as u16,
            timestamp,
            ssrc: self.binding.ssrc,
        };
        write_header(out, &head);
        let numbered = self.write_extensions(p.bytes, p.passed, &dress, number, p.padding.block, out);
        let payload_at = out.len();
        if red.is_some() {
            p.redundancy.write(carried, p.payload, out);
        } else {
            out.extend_from_slice(p.payload);
            self.rename(p.payload_type, payload_at, out);
        }
        if let Some(payload) = out.get_mut(payload_at..) {
            p.layering.rewrite(payload, &dress);
        }
        pad(out, start, p.padding.payload);
        self.packets += 1;
        self.bytes += p.payload.len() as u64;
        Some(Dressed {
            ssrc: self.binding.ssrc,
            index,
            header_len: payload_at - start,
            number: numbered.then_some(number),
        })
    }

    /// Gives what redundant data from `start` on carries the payload type that it has here.
    fn rename(&self, payload_type: u8, start: usize, out: &mut [u8]) {
        if let Some((red, inner)) = self.binding.payloads.red_from
            && red == payload_type
            && let Some((to, _)) = self.binding.payloads.get(inner)
            && to != inner
            && let Some(payload) = out.get_mut(start..)
        {
            red::translate(payload, inner, to);
        }
    }

    fn milliseconds(&mut self, now: Instant) -> u32 {
        let epoch = *self.epoch.get_or_insert(now);
        now.saturating_duration_since(epoch).as_millis() as u32
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

    /// Elements of constant length first. Whether `number` is among them.
    fn write_extensions(
        &self,
        bytes: &[u8],
        passed: &Passed,
        dress: &Dress,
        number: u16,
        filling: u8,
        out: &mut Vec<u8>,
    ) -> bool {
        let ids = &self.binding.extensions;
        let mid = ids.get(Extension::Mid);
        let wide = ids.get(Extension::TransportCc).filter(|_| self.binding.wide);
        // The descriptor in this subscriber's terms, where they differ.
        let own = passed
            .get(bytes, Extension::DependencyDescriptor)
            .and_then(|d| dress.descriptor(d));
        let passed = || {
            passed.iter(bytes).map(|(kind, value)| match &own {
                Some(own) if kind == Extension::DependencyDescriptor => (kind, own.bytes()),
                _ => (kind, value),
            })
        };
        let long = |id: u8, len: usize| id > 14 || len > 16 || len == 0;
        let two_byte = self.binding.mixed
            && (passed().any(|(kind, v)| ids.get(kind).is_some_and(|id| long(id, v.len())))
                || mid.is_some_and(|id| long(id, self.binding.mid.len()))
                || wide.is_some_and(|id| long(id, 2)));
        let mut writer = ExtensionWriter::new(out, two_byte);
        if let Some(id) = mid {
            writer.push(id, self.binding.mid.as_bytes());
        }
        if let Some(id) = wide {
            writer.push(id, &number.to_be_bytes());
        }
        for (kind, value) in passed() {
            if let Some(id) = ids.get(kind) {
                writer.push(id, value);
            }
        }
        writer.fill(usize::from(filling));
        writer.finish();
        wide.is_some()
    }

    /// Whether the last key frame, with what followed it, may still be on its way to a receiver at the end of
    /// a path of so many bits per second.
    pub(crate) fn key_frame_is_under_way(&self, rate: u64, rtt: Duration, now: Instant) -> bool {
        let Some((at, before)) = self.key_frame else {
            return false;
        };
        let bits = (self.bytes - before) as f64 * 8.0 * WIRE;
        let takes = rtt + Duration::from_secs_f64(bits / rate.max(1) as f64);
        now.saturating_duration_since(at) < takes.min(LONGEST_WAY)
    }

    /// What a NACK for `out` asks for; `None` if it is unknown, was sent too often or just now.
    pub(crate) fn resend(&mut self, out: u16, rtt: Duration, now: Instant) -> Option<Resend> {
        self.nacks += 1;
        let at = self.milliseconds(now);
        let next = self.map.next_out();
        let before_key = self.before_key;
        let sent = self.history.get(out)?;
        // Who asks again within a round trip can't know yet that the answer was lost too.
        let hold = (rtt * 3 / 4).min(LONGEST_HOLD).as_millis() as u32;
        if sent.resent >= MAX_RESENDS || (sent.resent > 0 && at.wrapping_sub(sent.at) < hold) {
            return None;
        }
        // The record holds the low half of a number below the next.
        let out = next.checked_sub(u64::from((next as u32).wrapping_sub(sent.out)))?;
        if out < before_key || out < self.floor {
            return None;
        }
        sent.resent += 1;
        sent.at = at;
        Some(Resend {
            layer: usize::from(sent.layer),
            sequence: sent.sequence,
            out,
            timestamp: sent.timestamp,
            dress: sent.dress,
            wide: sent.wide,
            padding: sent.padding,
            first: false,
        })
    }

    /// What finds the packet again that was just written and has to wait. `None`: it can't. Without RTX a
    /// NACK would have its number sealed before its time, and then once more.
    pub(crate) fn put_off(&mut self, dressed: &Dressed) -> Option<Resend> {
        let sent = self.history.get(dressed.index as u16)?;
        if !self.binding.repairs() {
            return None;
        }
        Some(Resend {
            layer: usize::from(sent.layer),
            sequence: sent.sequence,
            out: dressed.index + self.before_key,
            timestamp: sent.timestamp,
            dress: sent.dress,
            wide: sent.wide,
            padding: sent.padding,
            first: true,
        })
    }

    /// Appends a packet of nothing but padding, under the SSRC of RTX; `None` where there is none.
    pub(crate) fn padding(&mut self, bytes: u8, number: u16, out: &mut Vec<u8>) -> Option<Dressed> {
        if !self.ready || !self.binding.is_numbered() {
            return None;
        }
        let payload_type = self.binding.payloads.entries.iter().find_map(|e| e.2)?;
        let index = self.rtx;
        self.rtx += 1;
        let start = out.len();
        let head = Rewrite {
            marker: false,
            payload_type,
            sequence: index as u16,
            timestamp: self.last_timestamp,
            ssrc: self.binding.rtx_ssrc,
        };
        write_header(out, &head);
        self.write_extensions(&[], &Passed::default(), &Dress::NONE, number, 0, out);
        let header_len = out.len() - start;
        pad(out, start, bytes);
        Some(Dressed {
            ssrc: head.ssrc,
            index,
            header_len,
            number: Some(number),
        })
    }

    /// Appends a buffered packet once more, over RTX where it was negotiated (RFC 4588 section 4), else as
    /// the bytes that it was; or for the first time, if it had to wait. `number` as in [`Self::forward`].
    pub(crate) fn repeat(
        &mut self,
        what: &Resend,
        packet: &[u8],
        ids: &Incoming,
        codec_of: &dyn Fn(u8) -> Option<Codec>,
        number: u16,
        out: &mut Vec<u8>,
    ) -> Option<Dressed> {
        let header = Header::parse(packet)?;
        let (payloads, mut came_as) = (&self.binding.payloads, header.payload_type);
        let mut payload = header.payload(packet)?;
        if payloads.get(came_as).is_none() && payloads.red_from.is_some_and(|(red, _)| red == came_as) {
            let red = Red::parse(payload)?;
            (came_as, payload) = (red.payload_type, red.primary);
        }
        let (payload_type, rtx) = payloads.get(came_as)?;
        let rtx = rtx.filter(|_| !what.first);
        let passed = Passed::find(&header, packet, ids);
        let start = out.len();
        let mut head = Rewrite {
            marker: what.dress.marker,
            payload_type,
            sequence: what.out as u16,
            timestamp: what.timestamp,
            ssrc: self.binding.ssrc,
        };
        // A new key has its own numbers.
        let mut index = what.out.checked_sub(self.before_key)?;
        if what.first {
            self.history
                .get(what.out as u16)
                .filter(|s| s.out == what.out as u32)?
                .wide = number;
        }
        if let Some(rtx) = rtx {
            index = self.rtx;
            self.rtx += 1;
            head.payload_type = rtx;
            head.ssrc = self.binding.rtx_ssrc;
            head.sequence = index as u16;
        }
        write_header(out, &head);
        let fresh = rtx.is_some() || what.first;
        let carried = if fresh { number } else { what.wide };
        // Only what is sealed under its old number must be the old bytes.
        let padding = if rtx.is_some() {
            Padding::default()
        } else {
            what.padding
        };
        let numbered = self.write_extensions(packet, &passed, &what.dress, carried, padding.block, out);
        let header_len = out.len() - start;
        if rtx.is_some() {
            out.extend_from_slice(&(what.out as u16).to_be_bytes());
        }
        let payload_at = out.len();
        out.extend_from_slice(payload);
        self.rename(came_as, payload_at, out);
        if let (Some(codec), Some(payload)) = (codec_of(header.payload_type), out.get_mut(payload_at..)) {
            what.dress.rewrite(codec, payload);
        }
        pad(out, start, padding.payload);
        Some(Dressed {
            ssrc: head.ssrc,
            index,
            header_len,
            number: (numbered && fresh).then_some(number),
        })
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

/// Puts padding behind the packet at `start` (RFC 3550 section 5.1).
fn pad(out: &mut Vec<u8>, start: usize, padding: u8) {
    if padding > 0 {
        out.resize(out.len() + usize::from(padding) - 1, 0);
        out.push(padding);
        if let Some(first) = out.get_mut(start) {
            *first |= 0x20;
        }
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
