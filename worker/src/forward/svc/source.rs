//! One encoding as it comes in: what its packets say of themselves.
//!
//! Owns the structure of its layers, their rates and its last key frame. Invariant: what is read again says
//! what it said before, and changes nothing.

use std::time::Instant;

use super::dependency_descriptor::DescriptorStream;
use super::rates::LayerRates;
use super::selector::{Described, Layering};
use super::start::LastKeyFrame;
use super::vp9::Vp9;
use crate::forward::codec::{Codec, Vp8};

/// What a packet takes of a path besides its payload: headers down to IP, extensions, the tag.
const AROUND: usize = 72;

/// A packet's own parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) codec: Codec,
    pub(crate) payload: &'a [u8],
    /// Value of the dependency descriptor's header extension.
    pub(crate) descriptor: Option<&'a [u8]>,
}

/// State of an encoding.
#[derive(Debug, Default)]
pub(crate) struct Source {
    descriptors: DescriptorStream,
    pub(crate) rates: LayerRates,
    pub(crate) key_frames: LastKeyFrame,
}

impl Source {
    /// Reads an arriving packet: what it says, and whether decoding can start at it.
    pub(crate) fn arrive(
        &mut self,
        parts: Parts<'_>,
        sequence: u64,
        timestamp: u32,
        newest: bool,
        now: Instant,
    ) -> (Described, bool) {
        let frame = parts.descriptor.and_then(|d| self.descriptors.read(d, newest));
        let (described, starts) = describe(parts, frame);
        if parts.codec != Codec::Opus {
            let bytes = parts.payload.len();
            self.key_frames.note(sequence, timestamp, starts, bytes, now);
            if bytes > 0 {
                let layering = described.layering(&self.descriptors);
                self.rates.note(&layering, timestamp, bytes + AROUND, now);
            }
        }
        (described, starts)
    }

    /// Reads a packet that arrived before.
    pub(crate) fn again(&self, parts: Parts<'_>) -> (Described, bool) {
        let frame = parts.descriptor.and_then(|d| self.descriptors.read_again(d));
        describe(parts, frame)
    }

    /// What a packet says, with the structure in force.
    pub(crate) fn layering(&self, described: &Described) -> Layering<'_> {
        described.layering(&self.descriptors)
    }
}

fn describe(parts: Parts<'_>, frame: Option<super::dependency_descriptor::Frame>) -> (Described, bool) {
    let Parts { codec, payload, .. } = parts;
    let vp9 = (codec == Codec::Vp9).then(|| Vp9::parse(payload)).flatten();
    if codec == Codec::Vp8 {
        return match Vp8::parse(payload) {
            Some(d) => (Described::Vp8(d), d.key_frame),
            None => (Described::Plain, false),
        };
    }
    match (frame, vp9) {
        // AV1 says so in a bit of its payload that a frame encrypted as a whole doesn't have.
        (Some(f), None) => {
            let starts = f.structured && f.first;
            (
                Described::Frame(f, None),
                starts || codec.starts_key_frame(payload),
            )
        }
        (Some(f), Some(d)) => (Described::Frame(f, Some(d)), d.key_frame()),
        (None, Some(d)) => (Described::Vp9(d), d.key_frame()),
        (None, None) => (Described::Plain, codec.starts_key_frame(payload)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dependency_descriptor::tests::{Written, l2t2_key};
    use super::super::vp9::tests::{Spec, payload};
    use super::*;

    #[test]
    fn reading_again_says_the_same() {
        let mut source = Source::default();
        let now = Instant::now();
        let descriptor = Written {
            first: true,
            template: 3,
            number: 9,
            structure: Some(l2t2_key(3)),
            targets: 4,
            ..Written::default()
        }
        .bytes();
        let vp9 = payload(&Spec {
            first: true,
            ..Spec::default()
        });
        let packets = [
            (Codec::Vp8, vec![0x90, 0x80, 0x81, 0x02, 0, 0, 0], None),
            (Codec::Vp9, vp9.clone(), None),
            (Codec::Vp9, vp9, Some(descriptor.clone())),
            (Codec::Av1, vec![0x10, 0, 0], Some(descriptor)),
            (Codec::Av1, vec![0x18, 0, 0], None),
            (Codec::H264, vec![0x67, 0, 0], None),
            (Codec::H265, vec![19 << 1, 1, 0], None),
        ];
        for (i, (codec, payload, descriptor)) in packets.iter().enumerate() {
            let parts = Parts {
                codec: *codec,
                payload,
                descriptor: descriptor.as_deref(),
            };
            let first = source.arrive(parts, i as u64, i as u32, true, now);
            assert!(first.1, "{codec:?} starts");
            assert_eq!(format!("{first:?}"), format!("{:?}", source.again(parts)));
        }
        assert!(source.key_frames.replay(now, |_| true).is_some());
        assert!(source.rates.live(now).is_some());
    }

    #[test]
    fn sound_has_no_key_frames_to_replay() {
        let mut source = Source::default();
        let now = Instant::now();
        let parts = Parts {
            codec: Codec::Opus,
            payload: &[1, 2, 3],
            descriptor: None,
        };
        assert!(source.arrive(parts, 1, 1, true, now).1);
        assert_eq!(source.key_frames.replay(now, |_| true), None);
    }
}
