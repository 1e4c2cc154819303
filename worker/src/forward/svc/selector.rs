//! One interface over the codecs' ways of layering.
//!
//! Owns what a packet says of its layers, and one subscriber's choice. Invariant: what carries no layers,
//! or can't be understood, is forwarded as it came.

use super::dependency_descriptor::{DescriptorStream, Frame, Structure};
use super::numbers::Dress;
use super::targets::TargetSelector;
use super::vp8::Vp8Layers;
use super::vp9::Vp9;
use super::vp9_layers::Vp9Layers;
use super::{Decision, Position, Target};
use crate::forward::codec::Vp8;

/// What a packet says of its place among the layers; parsed once for all subscribers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layering<'a> {
    Plain,
    Vp8(Vp8),
    Vp9(Vp9),
    Targets {
        frame: Frame,
        structure: &'a Structure,
        active: u32,
        /// The payload's own descriptor, for receivers that have no other.
        vp9: Option<Vp9>,
    },
}

/// The same, without what it borrows from its stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Described {
    Plain,
    Vp8(Vp8),
    Vp9(Vp9),
    Frame(Frame, Option<Vp9>),
}

impl Described {
    /// Together with the structure that `stream` has now.
    pub(crate) fn layering<'a>(&self, stream: &'a DescriptorStream) -> Layering<'a> {
        match (self, stream.structure()) {
            (Described::Vp8(d), _) => Layering::Vp8(*d),
            (Described::Vp9(d), _) => Layering::Vp9(*d),
            (Described::Frame(frame, vp9), Some((structure, active))) => Layering::Targets {
                frame: *frame,
                structure,
                active,
                vp9: *vp9,
            },
            _ => Layering::Plain,
        }
    }
}

impl Layering<'_> {
    /// Writes the codec's running numbers over those of the payload.
    pub(crate) fn rewrite(&self, payload: &mut [u8], dress: &Dress) {
        let Some(numbers) = &dress.codec else { return };
        match self {
            Layering::Vp8(d) => d.rewrite(payload, numbers),
            Layering::Vp9(d) | Layering::Targets { vp9: Some(d), .. } => {
                d.rewrite(payload, numbers.picture_id, numbers.tl0_index);
            }
            _ => {}
        }
    }

    /// The layers a packet belongs to.
    pub(crate) fn layers(&self) -> Target {
        let (spatial, temporal) = match self {
            Layering::Plain => (0, 0),
            Layering::Vp8(d) => (0, d.temporal.map_or(0, |t| t.0)),
            Layering::Vp9(d) => (d.spatial, d.temporal),
            Layering::Targets { frame, .. } => (frame.spatial, frame.temporal),
        };
        Target { spatial, temporal }
    }
}

#[derive(Debug, Clone)]
enum Kind {
    Undecided,
    Vp8(Vp8Layers),
    Vp9(Vp9Layers),
    Targets(TargetSelector),
}

/// One subscriber's choice within the stream that feeds it.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    wanted: Target,
    kind: Kind,
}

impl Default for Selector {
    fn default() -> Self {
        Selector {
            wanted: Target::ALL,
            kind: Kind::Undecided,
        }
    }
}

impl Selector {
    /// The highest layers from now on.
    pub(crate) fn want(&mut self, wanted: Target) {
        self.wanted = wanted;
    }

    #[cfg(test)]
    pub(crate) fn wanted(&self) -> Target {
        self.wanted
    }

    /// Another stream takes over, or nothing left for a while: the next key frame starts anew.
    pub(crate) fn restart(&mut self) {
        self.kind = Kind::Undecided;
    }

    /// The layers forwarded now; `None` before the first frame, and for streams without layers.
    pub(crate) fn layers(&self) -> Option<Target> {
        match &self.kind {
            Kind::Undecided => None,
            Kind::Vp8(s) => s.layers(),
            Kind::Vp9(s) => s.layers(),
            Kind::Targets(s) => s.layers(),
        }
    }

    /// The wanted layers can't be entered without a key frame.
    pub(crate) fn waits_for_key_frame(&self) -> bool {
        match &self.kind {
            Kind::Undecided | Kind::Vp8(_) => false,
            Kind::Vp9(s) => s.waits_for_key_frame(),
            Kind::Targets(s) => s.waits_for_key_frame(),
        }
    }

    /// Decides about a packet.
    pub(crate) fn select(&mut self, layering: &Layering<'_>, at: Position) -> Decision {
        let wanted = self.wanted;
        match (layering, &mut self.kind) {
            (Layering::Plain, _) => Decision::Forward { marker: at.marker },
            (Layering::Vp8(d), Kind::Vp8(s)) => s.select(d, wanted, at),
            (Layering::Vp9(d), Kind::Vp9(s)) => s.select(d, wanted, at),
            (
                Layering::Targets {
                    frame,
                    structure,
                    active,
                    ..
                },
                Kind::Targets(s),
            ) => s.select(frame, structure, *active, wanted, at),
            // A packet whose descriptor is gone, in a stream that has them: what it is can't be known.
            (Layering::Vp9(_), Kind::Targets(_)) => Decision::Forward { marker: at.marker },
            (other, kind) => {
                *kind = match other {
                    Layering::Vp8(_) => Kind::Vp8(Vp8Layers::default()),
                    Layering::Vp9(_) => Kind::Vp9(Vp9Layers::default()),
                    _ => Kind::Targets(TargetSelector::default()),
                };
                self.select(layering, at)
            }
        }
    }

    /// The active decode targets to tell the subscriber with this packet, and how many bits they have.
    pub(crate) fn announcement(&self, layering: &Layering<'_>) -> Option<(u32, u8)> {
        match (layering, &self.kind) {
            (
                Layering::Targets {
                    frame,
                    structure,
                    active,
                    ..
                },
                Kind::Targets(s),
            ) => s.announcement(frame, structure, *active),
            _ => None,
        }
    }
}
