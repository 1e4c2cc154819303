//! The dependency descriptor, appendix A of the RTP payload specification for AV1.
//!
//! Owns its parsing, the template structure of a stream, and the rewriting of what a selection changes:
//! the active decode targets and, where another source takes over, the frame number. Invariants: every
//! parse is total and bounded; a structure replaces the one before only if it is newer; frame numbers
//! come out extended to 64 bits and never run backwards at a key frame.

use super::Target;
use super::bits::{BitReader, BitWriter, MAX_EXTENSION};

/// Limits of the format itself.
const MAX_TARGETS: usize = 32;
const MAX_TEMPLATES: usize = 64;
/// AV1 has seven reference frames; more than eight differences are refused.
const MAX_REFERENCES: usize = 8;
const MAX_SPATIAL: u32 = 3;

/// What a frame is to a decode target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Indication {
    NotPresent,
    Discardable,
    /// From here on the decode target is decodable if this frame is.
    Switch,
    Required,
}

/// Distances back to the frames a frame refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct References {
    count: u8,
    distances: [u16; MAX_REFERENCES],
}

impl References {
    fn push(&mut self, distance: u16) -> Option<()> {
        *self.distances.get_mut(usize::from(self.count))? = distance;
        self.count += 1;
        Some(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.distances.iter().copied().take(usize::from(self.count))
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Template {
    spatial: u8,
    temporal: u8,
    /// Two bits per decode target, the first one lowest.
    indications: u64,
    references: References,
    /// Distance back to the last frame of each chain; 0: none.
    chains: [u8; MAX_TARGETS],
}

/// The template dependency structure that key frames carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Structure {
    offset: u8,
    targets: u8,
    chains: u8,
    templates: u8,
    template: [Template; MAX_TEMPLATES],
    protected_by: [u8; MAX_TARGETS],
    layers: [Target; MAX_TARGETS],
    /// Frame that brought it.
    number: u64,
}

impl Structure {
    fn empty() -> Structure {
        Structure {
            offset: 0,
            targets: 0,
            chains: 0,
            templates: 0,
            template: [Template::default(); MAX_TEMPLATES],
            protected_by: [0; MAX_TARGETS],
            layers: [Target {
                spatial: 0,
                temporal: 0,
            }; MAX_TARGETS],
            number: 0,
        }
    }

    /// How many decode targets there are.
    pub(crate) fn targets(&self) -> u8 {
        self.targets
    }

    /// The layers that make up a decode target.
    pub(crate) fn layers(&self, target: u8) -> Target {
        self.layers.get(usize::from(target)).copied().unwrap_or(Target {
            spatial: 0,
            temporal: 0,
        })
    }

    /// The chain that protects a decode target.
    pub(crate) fn chain(&self, target: u8) -> Option<u8> {
        (self.chains > 0)
            .then(|| self.protected_by.get(usize::from(target)).copied())
            .flatten()
    }

    /// Names this structure among those of its stream.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// All decode targets, as the mask of a new structure.
    pub(crate) fn all(&self) -> u32 {
        mask_of(self.targets)
    }

    /// The best active decode target within `wanted`, else the lowest active one.
    pub(crate) fn choose(&self, wanted: Target, active: u32) -> Option<u8> {
        let active = || (0..self.targets).filter(move |t| active >> t & 1 == 1);
        active()
            .filter(|t| self.layers(*t).within(wanted))
            .max_by_key(|t| self.layers(*t))
            .or_else(|| active().min_by_key(|t| self.layers(*t)))
    }

    /// The decode targets within `layers`, as a mask.
    pub(crate) fn within(&self, layers: Target) -> u32 {
        (0..self.targets)
            .filter(|t| self.layers(*t).within(layers))
            .fold(0, |mask, t| mask | 1 << t)
    }

    fn read(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        self.offset = r.bits(6)? as u8;
        self.targets = r.bits(5)? as u8 + 1;
        self.read_layers(r)?;
        let templates = usize::from(self.templates);
        for t in self.template.iter_mut().take(templates) {
            t.indications = read_indications(r, self.targets)?;
        }
        for t in self.template.iter_mut().take(templates) {
            t.references = References::default();
            while r.bit()? {
                t.references.push(r.bits(4)? as u16 + 1)?;
            }
        }
        self.chains = r.non_symmetric(u32::from(self.targets) + 1)? as u8;
        if self.chains > 0 {
            for p in self.protected_by.iter_mut().take(usize::from(self.targets)) {
                *p = r.non_symmetric(u32::from(self.chains))? as u8;
            }
            for t in self.template.iter_mut().take(templates) {
                for c in t.chains.iter_mut().take(usize::from(self.chains)) {
                    *c = r.bits(4)? as u8;
                }
            }
        }
        let mut highest = 0;
        for target in 0..self.targets {
            let mut layers = Target {
                spatial: 0,
                temporal: 0,
            };
            for t in self.template.iter().take(templates) {
                highest = highest.max(t.spatial);
                if indication(t.indications, target) != Indication::NotPresent {
                    layers.spatial = layers.spatial.max(t.spatial);
                    layers.temporal = layers.temporal.max(t.temporal);
                }
            }
            if let Some(slot) = self.layers.get_mut(usize::from(target)) {
                *slot = layers;
            }
        }
        if r.bit()? {
            for _ in 0..=highest {
                r.bits(32)?; // width and height, each less one
            }
        }
        Some(())
    }

    fn read_layers(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        let (mut spatial, mut temporal) = (0u32, 0u32);
        self.templates = 0;
        loop {
            let slot = self.template.get_mut(usize::from(self.templates))?;
            *slot = Template {
                spatial: spatial as u8,
                temporal: temporal as u8,
                ..Template::default()
            };
            self.templates += 1;
            match r.bits(2)? {
                0 => {}
                1 => temporal += 1,
                2 => {
                    spatial += 1;
                    temporal = 0;
                    if spatial > MAX_SPATIAL {
                        return None;
                    }
                }
                _ => return Some(()),
            }
        }
    }
}

fn mask_of(targets: u8) -> u32 {
    (1u64 << targets).wrapping_sub(1) as u32
}

fn indication(all: u64, target: u8) -> Indication {
    match all.checked_shr(u32::from(target) * 2).unwrap_or(0) & 3 {
        0 => Indication::NotPresent,
        1 => Indication::Discardable,
        2 => Indication::Switch,
        _ => Indication::Required,
    }
}

fn read_indications(r: &mut BitReader<'_>, targets: u8) -> Option<u64> {
    let mut all = 0;
    for target in 0..targets {
        all |= u64::from(r.bits(2)?) << (target * 2);
    }
    Some(all)
}

/// One packet's descriptor, resolved against its structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Extended.
    pub(crate) number: u64,
    /// The packet begins, or ends, the frame.
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    indications: u64,
    pub(crate) references: References,
    chains: [u8; MAX_TARGETS],
    /// The packet carries a structure: decoding can start here.
    pub(crate) structured: bool,
    /// Decode targets the sender goes on with, where it says so.
    pub(crate) active: Option<u32>,
}

impl Frame {
    pub(crate) fn indication(&self, target: u8) -> Indication {
        indication(self.indications, target)
    }

    /// Number of the chain's frame before this one; `None`: the chain begins anew.
    pub(crate) fn chain(&self, chain: u8) -> Option<u64> {
        match self.chains.get(usize::from(chain)) {
            Some(0) | None => None,
            Some(distance) => self.number.checked_sub(u64::from(*distance)),
        }
    }
}

/// The fields every descriptor has, and the flags of the longer ones.
#[derive(Debug, Clone, Copy)]
struct Head {
    first: bool,
    last: bool,
    template: u8,
    number: u16,
    extended: bool,
    structured: bool,
    masked: bool,
    custom_indications: bool,
    custom_references: bool,
    custom_chains: bool,
}

fn read_head(r: &mut BitReader<'_>, len: usize) -> Option<Head> {
    let mut head = Head {
        first: r.bit()?,
        last: r.bit()?,
        template: r.bits(6)? as u8,
        number: r.bits(16)? as u16,
        extended: len > 3,
        structured: false,
        masked: false,
        custom_indications: false,
        custom_references: false,
        custom_chains: false,
    };
    if head.extended {
        head.structured = r.bit()?;
        head.masked = r.bit()?;
        head.custom_indications = r.bit()?;
        head.custom_references = r.bit()?;
        head.custom_chains = r.bit()?;
    }
    Some(head)
}

/// The structure and the numbers of one incoming stream.
#[derive(Debug, Default)]
pub(crate) struct DescriptorStream {
    structure: Option<Box<Structure>>,
    /// The next structure is read into it, so that none is allocated after the second.
    spare: Option<Box<Structure>>,
    active: u32,
    highest: Option<u64>,
}

impl DescriptorStream {
    /// The structure in force and the active decode targets.
    pub(crate) fn structure(&self) -> Option<(&Structure, u32)> {
        self.structure.as_deref().map(|s| (s, self.active))
    }

    /// Reads the descriptor of an arriving packet. `newest`: it is ahead of all before it in its stream.
    /// `None`: malformed, or of a structure that isn't known.
    pub(crate) fn read(&mut self, bytes: &[u8], newest: bool) -> Option<Frame> {
        let mut r = BitReader::new(bytes);
        let head = read_head(&mut r, bytes.len())?;
        let number = self.extend(head.number, head.structured && newest);
        if head.structured {
            let mut next = self.spare.take().unwrap_or_else(|| Box::new(Structure::empty()));
            if next.read(&mut r).is_none() {
                self.spare = Some(next);
                return None;
            }
            next.number = number;
            let before = self.structure.as_ref().map(|s| s.number);
            if before.is_none_or(|n| number > n) {
                self.active = next.all();
                self.spare = self.structure.replace(next);
            } else {
                // Of a key frame that is no longer in force, or the same one again.
                self.spare = Some(next);
                if before != Some(number) {
                    return None;
                }
            }
        }
        let structure = self.structure.as_deref()?;
        let frame = finish(&mut r, &head, number, structure)?;
        if newest || head.structured {
            self.highest = Some(self.highest.map_or(number, |h| h.max(number)));
        }
        if let Some(active) = frame.active.filter(|_| newest) {
            self.active = active;
        }
        Some(frame)
    }

    /// As [`Self::read`], of a packet that was read before: nothing changes.
    pub(crate) fn read_again(&self, bytes: &[u8]) -> Option<Frame> {
        let mut r = BitReader::new(bytes);
        let head = read_head(&mut r, bytes.len())?;
        let number = self.extend(head.number, false);
        let structure = self.structure.as_deref()?;
        if head.structured {
            // Its own structure is skipped; only the one in force explains it.
            if number != structure.number {
                return None;
            }
            let mut own = Structure::empty();
            own.read(&mut r)?;
        }
        finish(&mut r, &head, number, structure)
    }

    /// `restart`: a key frame ahead of everything, which may count from anywhere.
    fn extend(&self, number: u16, restart: bool) -> u64 {
        let Some(highest) = self.highest else {
            return 0x1_0000 + u64::from(number);
        };
        if restart {
            return highest + u64::from(number.wrapping_sub(highest as u16));
        }
        let delta = number.wrapping_sub(highest as u16) as i16;
        highest.saturating_add_signed(i64::from(delta))
    }
}

fn finish(r: &mut BitReader<'_>, head: &Head, number: u64, structure: &Structure) -> Option<Frame> {
    let active = if head.masked {
        Some(r.bits(u32::from(structure.targets))?)
    } else {
        None
    };
    let index = (head.template + 64 - structure.offset) % 64;
    if index >= structure.templates {
        return None;
    }
    let template = structure.template.get(usize::from(index))?;
    let mut frame = Frame {
        number,
        first: head.first,
        last: head.last,
        spatial: template.spatial,
        temporal: template.temporal,
        indications: template.indications,
        references: template.references,
        chains: template.chains,
        structured: head.structured,
        active,
    };
    if head.custom_indications {
        frame.indications = read_indications(r, structure.targets)?;
    }
    if head.custom_references {
        frame.references = References::default();
        loop {
            let size = r.bits(2)?;
            if size == 0 {
                break;
            }
            frame.references.push(r.bits(4 * size)? as u16 + 1)?;
        }
    }
    if head.custom_chains {
        for c in frame.chains.iter_mut().take(usize::from(structure.chains)) {
            *c = r.bits(8)? as u8;
        }
    }
    Some(frame)
}

/// What a subscriber's descriptor differs in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Added to the frame number.
    pub(crate) number: u16,
    /// Active decode targets, and how many bits they have; 0 bits: as they came.
    pub(crate) active: u32,
    pub(crate) targets: u8,
}

impl Changes {
    pub(crate) fn is_none(&self) -> bool {
        self.number == 0 && self.targets == 0
    }
}

/// The descriptor with `changes`. `None` where it can't be read or would get too long: it then leaves as it
/// came.
pub(crate) fn rewrite(bytes: &[u8], changes: &Changes) -> Option<BitWriter> {
    let mut r = BitReader::new(bytes);
    let head = read_head(&mut r, bytes.len())?;
    let mut w = BitWriter::default();
    w.bit(head.first)?;
    w.bit(head.last)?;
    w.bits(u32::from(head.template), 6)?;
    w.bits(u32::from(head.number.wrapping_add(changes.number)), 16)?;
    let mask = changes.targets > 0;
    if !head.extended && !mask {
        return Some(w);
    }
    w.bit(head.structured)?;
    w.bit(head.masked || mask)?;
    w.bit(head.custom_indications)?;
    w.bit(head.custom_references)?;
    w.bit(head.custom_chains)?;
    let mut targets = changes.targets;
    if head.structured {
        let start = r.position();
        let mut structure = Structure::empty();
        structure.read(&mut r)?;
        let mut copy = BitReader::new(bytes);
        copy.bits(29)?;
        w.copy(&mut copy, r.position() - start)?;
        targets = structure.targets;
    }
    if mask {
        w.bits(changes.active & mask_of(targets), u32::from(targets))?;
        if head.masked {
            r.bits(u32::from(targets))?;
        }
    } else if head.masked && head.structured {
        w.copy(&mut r, usize::from(targets))?;
    }
    // What the frame says of itself, and the sender's own fill.
    let rest = (bytes.len() * 8).saturating_sub(r.position());
    if head.extended {
        w.copy(&mut r, rest)?;
    }
    (w.bytes().len() <= MAX_EXTENSION).then_some(w)
}

#[cfg(test)]
#[path = "dependency_descriptor_tests.rs"]
pub(crate) mod tests;
