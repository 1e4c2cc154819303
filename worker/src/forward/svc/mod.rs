//! Which parts of one encoded stream a subscriber gets: temporal and spatial layers, decode targets.
//!
//! Owns what a packet says about its place among the layers ([`Layering`]), the choice per subscriber
//! ([`Selector`]), the cost of every choice ([`rates`]) and where a new subscription may start
//! ([`start`]). Pure: no clock, no I/O. Invariants: the packets of one frame share one decision, late ones
//! included; a frame leaves only if no frame it refers to was held back; what is malformed or unknown is
//! passed on as if there were no layers.

pub(crate) mod bits;
pub(crate) mod dependency_descriptor;
pub(crate) mod log;
pub(crate) mod numbers;
pub(crate) mod rates;
pub(crate) mod selector;
pub(crate) mod source;
pub(crate) mod start;
pub(crate) mod targets;
pub(crate) mod vp8;
pub(crate) mod vp9;
pub(crate) mod vp9_layers;

#[cfg(test)]
mod model_tests;

pub(crate) use self::numbers::{Dress, Numbers};
pub(crate) use self::selector::{Described, Layering, Selector};
pub(crate) use self::source::Source;

/// The highest layers wanted, or those forwarded. Any value is legal; what isn't sent is not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
}

impl Target {
    /// Everything.
    pub(crate) const ALL: Target = Target {
        spatial: u8::MAX,
        temporal: u8::MAX,
    };

    /// Both dimensions at most those of `other`.
    pub(crate) fn within(self, other: Target) -> bool {
        self.spatial <= other.spatial && self.temporal <= other.temporal
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It leaves, with this marker bit.
    Forward { marker: bool },
    /// The subscriber doesn't need it: the gap in its numbers is closed.
    Drop,
}

/// Where a packet stands in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) timestamp: u32,
    /// Ahead of all before it.
    pub(crate) newest: bool,
    /// The marker bit as it came.
    pub(crate) marker: bool,
}
