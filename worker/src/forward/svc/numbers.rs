//! The running numbers that a codec writes into its packets, as they leave.
//!
//! Owns one subscriber's picture ids, TL0PICIDX, KEYIDX and frame numbers. Invariants: they run on when
//! another stream takes over; VP8's picture ids have no hole where a picture was held back on purpose;
//! frame numbers of the dependency descriptor keep their holes, since references are distances.

use super::bits::BitWriter;
use super::dependency_descriptor::{Changes, Frame, rewrite};
use super::selector::Layering;
use super::vp9::Vp9;
use crate::forward::codec::{Codec, Vp8, Vp8Munger, Vp8Numbers};

/// What a packet leaves with besides its RTP header: enough to write the same bytes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dress {
    /// Written over the payload's own; `None` where it has none.
    pub(crate) codec: Option<Vp8Numbers>,
    pub(crate) changes: Changes,
    pub(crate) marker: bool,
}

impl Dress {
    /// As it came.
    pub(crate) const NONE: Dress = Dress {
        codec: None,
        changes: Changes {
            number: 0,
            active: 0,
            targets: 0,
        },
        marker: false,
    };

    /// The dependency descriptor in the subscriber's terms, where they differ from the sender's.
    pub(crate) fn descriptor(&self, bytes: &[u8]) -> Option<BitWriter> {
        (!self.changes.is_none())
            .then(|| rewrite(bytes, &self.changes))
            .flatten()
    }

    /// Writes the codec's numbers over those of a payload that was dressed before.
    pub(crate) fn rewrite(&self, codec: Codec, payload: &mut [u8]) {
        let Some(numbers) = &self.codec else { return };
        match codec {
            Codec::Vp8 => {
                if let Some(d) = Vp8::parse(payload) {
                    d.rewrite(payload, numbers);
                }
            }
            Codec::Vp9 => {
                if let Some(d) = Vp9::parse(payload) {
                    d.rewrite(payload, numbers.picture_id, numbers.tl0_index);
                }
            }
            _ => {}
        }
    }
}

/// One subscriber's numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    codec: Vp8Munger,
    frame_offset: u16,
    last_frame: Option<u16>,
}

impl Numbers {
    /// Another stream takes over with this packet.
    pub(crate) fn switch(&mut self, first: &Layering<'_>) {
        match first {
            Layering::Vp8(d) => self.codec.switch(d),
            Layering::Vp9(d) | Layering::Targets { vp9: Some(d), .. } => self.codec.switch_to(numbers(d)),
            _ => {}
        }
        if let (Layering::Targets { frame, .. }, Some(last)) = (first, self.last_frame) {
            self.frame_offset = last.wrapping_add(1).wrapping_sub(frame.number as u16);
        }
    }

    /// The packet is held back on purpose.
    pub(crate) fn drop(&mut self, packet: &Layering<'_>, newest: bool) {
        if let (Layering::Vp8(d), true) = (packet, newest) {
            self.codec.drop_picture(d);
        }
    }

    /// What the packet leaves with. `announcement`: active decode targets to tell, and their number.
    pub(crate) fn dress(
        &mut self,
        packet: &Layering<'_>,
        newest: bool,
        marker: bool,
        announcement: Option<(u32, u8)>,
    ) -> Dress {
        let mut out = Dress {
            marker,
            ..Dress::NONE
        };
        out.codec = match packet {
            Layering::Vp8(d) => Some(self.codec.map(d, newest)),
            Layering::Vp9(d) | Layering::Targets { vp9: Some(d), .. } => {
                let wide = d.picture_id.is_some_and(|id| id.1);
                Some(self.codec.map_numbers(numbers(d), wide, newest))
            }
            _ => None,
        };
        if let Layering::Targets { frame, .. } = packet {
            out.changes.number = self.frame_offset;
            if let Some((active, targets)) = announcement {
                out.changes.active = active;
                out.changes.targets = targets;
            }
            self.note_frame(frame, newest);
        }
        out
    }

    fn note_frame(&mut self, frame: &Frame, newest: bool) {
        if newest {
            self.last_frame = Some((frame.number as u16).wrapping_add(self.frame_offset));
        }
    }
}

fn numbers(d: &Vp9) -> Vp8Numbers {
    Vp8Numbers {
        picture_id: d.picture_id.map_or(0, |p| p.0),
        tl0_index: d.tl0_index.unwrap_or(0),
        key_index: 0,
    }
}
