//! What a new subscription begins with: the packets from a recent key frame on, sent at once.
//!
//! Owns the reading of them from the layer's buffer. Invariants: it ends before what is pending, which
//! follows as usual; nothing is sent where a packet is missing; timestamps end at the present.

use std::time::Instant;

use super::audio::red::Redundancy;
use super::codec::Codec;
use super::extension::{Extension, Incoming, Passed};
use super::packet::Header;
use super::subscription::{Arrived, Padding, Subscription};
use super::svc::Described;
use super::svc::source::Parts;
use super::svc::start::Replay;
use super::track::{Layer, Pending};

/// A run of packets of one layer.
#[derive(Debug)]
pub(crate) struct Rewind<'a> {
    index: usize,
    layer: &'a Layer,
    replay: Replay,
    now: Instant,
}

/// One of them, parsed.
#[derive(Debug)]
pub(crate) struct Rewound<'a> {
    header: Header,
    passed: Passed,
    bytes: &'a [u8],
    payload: &'a [u8],
    codec: Codec,
    described: Described,
    starts: bool,
}

impl<'a> Rewind<'a> {
    /// For a subscription without a picture: the lowest layer that would do, where it has a key frame to
    /// begin with before what is pending.
    pub(crate) fn find(
        layers: &'a [Layer],
        pending: &[Pending],
        s: &Subscription,
        now: Instant,
    ) -> Option<Self> {
        if !s.can_start() {
            return None;
        }
        let of = |index: usize| {
            let layer = layers.get(index)?;
            let has = |sequence| layer.buffer.get(sequence).is_some();
            let mut replay = layer.source.key_frames.replay(now, has)?;
            let own = pending.iter().filter(|p| p.layer == index);
            if let Some(next) = own.map(|p| p.sequence).min() {
                replay.last = replay.last.min(next.checked_sub(1)?);
            }
            (replay.first <= replay.last).then_some(Rewind {
                index,
                layer,
                replay,
                now,
            })
        };
        s.accepted.iter().filter_map(of).min_by_key(|r| r.layer.quality)
    }

    pub(crate) fn sequences(&self) -> impl Iterator<Item = u64> + use<> {
        self.replay.first..=self.replay.last
    }

    /// Reads a packet; `None`: it had no payload.
    pub(crate) fn read(&self, sequence: u64, ids: &Incoming, codecs: &[(u8, Codec)]) -> Option<Rewound<'a>> {
        let bytes = self.layer.buffer.get(sequence)?;
        let mut header = Header::parse(bytes)?;
        let payload = header.payload(bytes)?;
        let codec = codecs.iter().find(|(pt, _)| *pt == header.payload_type)?.1;
        let passed = Passed::find(&header, bytes, ids);
        let (described, starts) = self.layer.source.again(Parts {
            codec,
            payload,
            descriptor: passed.get(bytes, Extension::DependencyDescriptor),
        });
        header.timestamp = self.replay.timestamp(header.timestamp);
        Some(Rewound {
            header,
            passed,
            bytes,
            payload,
            codec,
            described,
            starts,
        })
    }

    /// As it would have arrived now.
    pub(crate) fn arrived<'b>(&'b self, sequence: u64, p: &'b Rewound<'_>) -> Arrived<'b> {
        Arrived {
            bytes: p.bytes,
            header: &p.header,
            payload: p.payload,
            passed: &p.passed,
            codec: p.codec,
            layering: self.layer.source.layering(&p.described),
            layer: self.index,
            sequence,
            newest: true,
            starts: p.starts,
            padding: Padding::default(),
            payload_type: p.header.payload_type,
            redundancy: Redundancy::default(),
            restored: false,
            now: self.now,
        }
    }
}

#[cfg(test)]
#[path = "rewind_tests.rs"]
mod tests;
