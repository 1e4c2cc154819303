//! Packets as a subscriber gets them: the bytes.
//!
//! Owns the writing of what [`Subscription::admit`] let in, and of what is remembered of it: once more, or
//! for the first time where it had to wait. Invariants: a packet sent again without RTX is byte for byte
//! the one sent before, since it is sealed under the same nonce; extensions of constant length make a block
//! of constant length, so that a frame's packets can leave in one send.

use std::time::{Duration, Instant};

use super::super::audio::red::{self, Red};
use super::super::codec::Codec;
use super::super::extension::{Extension, Incoming, Passed};
use super::super::history::Sent;
use super::super::packet::{ExtensionWriter, Header, Rewrite, write_header};
use super::super::svc::Dress;
use super::{Admitted, Arrived, Padding, Subscription};

/// A packet is sent again at most so often.
const MAX_RESENDS: u8 = 3;
/// What was sent again isn't for so long at most.
const LONGEST_HOLD: Duration = Duration::from_millis(300);

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

impl Subscription {
    /// Appends an admitted packet to `out` as this subscriber gets it. `number` is the leg's next
    /// transport-wide one.
    pub(crate) fn write(
        &mut self,
        p: &Arrived<'_>,
        admitted: &Admitted,
        number: u16,
        out: &mut Vec<u8>,
    ) -> Dressed {
        self.remember(p, admitted, number);
        let red = self.red(p);
        let start = out.len();
        let head = Rewrite {
            marker: admitted.dress.marker,
            payload_type: red.unwrap_or(admitted.payload_type),
            sequence: admitted.out as u16,
            timestamp: admitted.timestamp,
            ssrc: self.binding.ssrc,
        };
        write_header(out, &head);
        let numbered =
            self.write_extensions(p.bytes, p.passed, &admitted.dress, number, p.padding.block, out);
        let payload_at = out.len();
        if red.is_some() {
            p.redundancy.write(admitted.payload_type, p.payload, out);
        } else {
            out.extend_from_slice(p.payload);
            self.rename(p.payload_type, payload_at, out);
        }
        if let Some(payload) = out.get_mut(payload_at..) {
            p.layering.rewrite(payload, &admitted.dress);
        }
        pad(out, start, p.padding.payload);
        Dressed {
            ssrc: self.binding.ssrc,
            index: admitted.index,
            header_len: payload_at - start,
            number: numbered.then_some(number),
        }
    }

    /// An admitted packet that has to wait: what finds it again. `None`: it can't wait. Without RTX a NACK
    /// would have its number sealed before its time, and then once more.
    pub(crate) fn put_off(&mut self, p: &Arrived<'_>, admitted: &Admitted) -> Option<Resend> {
        if !self.binding.repairs() {
            return None;
        }
        self.remember(p, admitted, 0);
        Some(Resend {
            layer: p.layer,
            sequence: p.sequence,
            out: admitted.out,
            timestamp: admitted.timestamp,
            dress: admitted.dress,
            wide: 0,
            padding: p.padding,
            first: true,
        })
    }

    /// The payload type of redundant data, where the packet leaves as that.
    fn red(&self, p: &Arrived<'_>) -> Option<u8> {
        self.binding.payloads.red_to.filter(|_| !p.redundancy.is_empty())
    }

    fn remember(&mut self, p: &Arrived<'_>, admitted: &Admitted, number: u16) {
        let at = self.milliseconds(p.now);
        // These bytes can't be made again.
        let lost = p.restored || self.red(p).is_some();
        self.history.insert(Sent {
            sequence: p.sequence,
            out: admitted.out as u32,
            timestamp: admitted.timestamp,
            dress: admitted.dress,
            at,
            wide: number,
            layer: p.layer as u8,
            padding: p.padding,
            resent: if lost { MAX_RESENDS } else { 0 },
        });
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
    /// the bytes that it was; or for the first time, if it had to wait. `number` as in [`Self::write`].
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
