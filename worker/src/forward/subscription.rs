//! One track on its way to one subscriber.
//!
//! Owns the rewriting: sequence numbers, timestamps, payload types, header extensions and VP8 numbers
//! run on as one stream whatever layer feeds it. Invariants: the layer changes only at the first packet
//! of a key frame that is the newest of its layer; a packet sent again without RTX is byte for byte the
//! one sent before, since it is sealed under the same nonce.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::codec::{Codec, Vp8, Vp8Munger, Vp8Numbers};
use super::extension::{Extension, Incoming, Outgoing};
use super::packet::{ExtensionWriter, Header, Rewrite, write_header};
use super::receive::SenderClock;
use super::seqmap::SequenceMap;
use super::{LegKey, PayloadMap};
use crate::session::api::{Quality, SessionId};

/// Sent packets remembered for NACK; powers of two.
const VIDEO_HISTORY: usize = 512;
const AUDIO_HISTORY: usize = 64;
/// A packet is sent again at most so often.
const MAX_RESENDS: u8 = 3;
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
    pub(crate) wanted: Option<Quality>,
}

/// A packet as it came, parsed once for all subscribers.
#[derive(Debug)]
pub(crate) struct Arrived<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) header: &'a Header,
    pub(crate) payload: &'a [u8],
    pub(crate) extensions: &'a Incoming,
    pub(crate) codec: Codec,
    pub(crate) vp8: Option<Vp8>,
    pub(crate) layer: usize,
    pub(crate) sequence: u64,
    pub(crate) newest: bool,
    pub(crate) starts: bool,
    pub(crate) now: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    out: u16,
    sequence: u64,
    layer: u8,
    timestamp: u32,
    numbers: Vp8Numbers,
    resent: u8,
    last: Instant,
}

/// What to take from which layer's buffer, and how to dress it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resend {
    pub(crate) layer: usize,
    pub(crate) sequence: u64,
    out: u16,
    timestamp: u32,
    numbers: Vp8Numbers,
}

/// Per-subscriber state of one track.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) binding: Binding,
    pub(crate) current: Option<usize>,
    pub(crate) target: Option<usize>,
    /// Packets reach the subscriber. A key frame that came before would be lost, and its decoder wait for
    /// the one after.
    pub(crate) ready: bool,
    map: SequenceMap,
    timestamp_offset: u32,
    last_timestamp: u32,
    last_at: Option<Instant>,
    /// Layer of the last packet, whose clock relates to the offset.
    last_layer: Option<usize>,
    vp8: Vp8Munger,
    history: Vec<Option<Sent>>,
    rtx_sequence: u16,
    reports: [(u32, Option<Instant>); 4],
    pub(crate) next_report: Option<Instant>,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) nacks: u64,
    pub(crate) plis: u64,
    pub(crate) lost: u64,
    pub(crate) jitter: Duration,
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
            ready: true,
            map: SequenceMap::new(u64::from(seed & 0x3FFF)),
            timestamp_offset: 0,
            last_timestamp: seed,
            last_at: None,
            last_layer: None,
            vp8: Vp8Munger::default(),
            history: vec![None; history],
            rtx_sequence: (seed >> 16) as u16 & 0x3FFF,
            reports: [(0, None); 4],
            next_report: None,
            packets: 0,
            bytes: 0,
            nacks: 0,
            plis: 0,
            lost: 0,
            jitter: Duration::ZERO,
        }
    }

    /// Waits for a key frame before anything is forwarded again.
    pub(crate) fn restart(&mut self) {
        self.current = None;
    }

    /// Whether a key frame of the target layer is awaited.
    pub(crate) fn waits_for_key_frame(&self) -> bool {
        self.ready && self.target.is_some() && self.target != self.current
    }

    /// Writes the packet as this subscriber gets it into `out` (cleared here). `false`: not for it.
    /// `clocks` are the layers' sender clocks.
    pub(crate) fn forward(
        &mut self,
        p: &Arrived<'_>,
        clocks: &dyn Fn(usize) -> Option<SenderClock>,
        out: &mut Vec<u8>,
    ) -> bool {
        if !self.ready {
            return false;
        }
        if Some(p.layer) == self.target && self.current != self.target && p.starts && p.newest {
            self.switch(p, clocks);
        }
        if self.current != Some(p.layer) {
            return false;
        }
        let Some((payload_type, _)) = self.binding.payloads.get(p.header.payload_type) else {
            return false;
        };
        if p.payload.is_empty() {
            // Padding probes this worker's estimator, not the subscriber's.
            self.map.drop_packet(p.sequence);
            return false;
        }
        let Some(mapped) = self.map.map(p.sequence) else {
            return false;
        };
        let sequence = mapped as u16;
        let timestamp = p.header.timestamp.wrapping_add(self.timestamp_offset);
        let numbers = p.vp8.map(|d| self.vp8.map(&d, p.newest)).unwrap_or_default();
        if p.newest {
            self.last_timestamp = timestamp;
            self.last_at = Some(p.now);
            self.last_layer = Some(p.layer);
        }
        let at = usize::from(sequence) % self.history.len().max(1);
        if let Some(slot) = self.history.get_mut(at) {
            *slot = Some(Sent {
                out: sequence,
                sequence: p.sequence,
                layer: p.layer as u8,
                timestamp,
                numbers,
                resent: 0,
                last: p.now,
            });
        }
        out.clear();
        let head = Rewrite {
            marker: p.header.marker,
            payload_type,
            sequence,
            timestamp,
            ssrc: self.binding.ssrc,
        };
        write_header(out, &head);
        self.write_extensions(p.header, p.bytes, p.extensions, out);
        let start = out.len();
        out.extend_from_slice(p.payload);
        if let (Some(d), Some(payload)) = (p.vp8, out.get_mut(start..)) {
            d.rewrite(payload, &numbers);
        }
        self.packets += 1;
        self.bytes += p.payload.len() as u64;
        true
    }

    fn switch(&mut self, p: &Arrived<'_>, clocks: &dyn Fn(usize) -> Option<SenderClock>) {
        self.map.switch(p.sequence);
        let rate = i64::from(p.codec.clock_rate());
        if let Some(last_at) = self.last_at {
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
        if let Some(d) = &p.vp8 {
            self.vp8.switch(d);
        }
        self.current = Some(p.layer);
    }

    fn write_extensions(&self, header: &Header, bytes: &[u8], ids: &Incoming, out: &mut Vec<u8>) {
        let passed = || {
            header.extensions(bytes).filter_map(|(id, value)| {
                let kind = ids.get(id).filter(|k| k.passes())?;
                Some((self.binding.extensions.get(kind)?, value))
            })
        };
        let mid = self.binding.extensions.get(Extension::Mid);
        let long = |id: u8, len: usize| id > 14 || len > 16 || len == 0;
        let two_byte = self.binding.mixed
            && (passed().any(|(id, v)| long(id, v.len()))
                || mid.is_some_and(|id| long(id, self.binding.mid.len())));
        let mut writer = ExtensionWriter::new(out, two_byte);
        if let Some(id) = mid {
            writer.push(id, self.binding.mid.as_bytes());
        }
        for (id, value) in passed() {
            writer.push(id, value);
        }
        writer.finish();
    }

    /// What a NACK for `out` asks for; `None` if it is unknown, was sent too often or just now.
    pub(crate) fn resend(&mut self, out: u16, rtt: Duration, now: Instant) -> Option<Resend> {
        self.nacks += 1;
        let at = usize::from(out) % self.history.len().max(1);
        let sent = self.history.get_mut(at)?.as_mut().filter(|s| s.out == out)?;
        let hold = (rtt * 2).min(Duration::from_millis(100));
        if sent.resent >= MAX_RESENDS || (sent.resent > 0 && now.saturating_duration_since(sent.last) < hold)
        {
            return None;
        }
        sent.resent += 1;
        sent.last = now;
        Some(Resend {
            layer: usize::from(sent.layer),
            sequence: sent.sequence,
            out,
            timestamp: sent.timestamp,
            numbers: sent.numbers,
        })
    }

    /// Dresses a buffered packet again, over RTX where it was negotiated (RFC 4588 section 4).
    pub(crate) fn repeat(
        &mut self,
        what: &Resend,
        packet: &Bytes,
        ids: &Incoming,
        codec_of: &dyn Fn(u8) -> Option<Codec>,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(header) = Header::parse(packet) else {
            return false;
        };
        let Some(payload) = header.payload(packet) else {
            return false;
        };
        let Some((payload_type, rtx)) = self.binding.payloads.get(header.payload_type) else {
            return false;
        };
        out.clear();
        let mut head = Rewrite {
            marker: header.marker,
            payload_type,
            sequence: what.out,
            timestamp: what.timestamp,
            ssrc: self.binding.ssrc,
        };
        if let Some(rtx) = rtx {
            head.payload_type = rtx;
            head.ssrc = self.binding.rtx_ssrc;
            head.sequence = self.rtx_sequence;
            self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        }
        write_header(out, &head);
        self.write_extensions(&header, packet, ids, out);
        if rtx.is_some() {
            out.extend_from_slice(&what.out.to_be_bytes());
        }
        let start = out.len();
        out.extend_from_slice(payload);
        if codec_of(header.payload_type) == Some(Codec::Vp8)
            && let (Some(d), Some(payload)) = (Vp8::parse(payload), out.get_mut(start..))
        {
            d.rewrite(payload, &what.numbers);
        }
        true
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
