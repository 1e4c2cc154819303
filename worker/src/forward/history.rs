//! What one subscription sent, for those who ask again.
//!
//! Owns a ring of small records by outgoing number. Invariants: a record is found by its own number or not
//! at all; the ring grows until it holds [`KEPT`] of what leaves or is as long as it may be, and from then
//! on nothing is allocated.

use super::subscription::Padding;
use super::svc::Dress;

/// Nobody asks for what is older, in milliseconds.
const KEPT: u32 = 700;
const FIRST: usize = 32;

/// A packet that left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Its place in the layer's buffer.
    pub(crate) sequence: u64,
    /// The low part of the number it left with.
    pub(crate) out: u32,
    pub(crate) timestamp: u32,
    pub(crate) dress: Dress,
    /// When it last left, in milliseconds since the subscription's first packet.
    pub(crate) at: u32,
    /// Transport-wide number, where it carried one.
    pub(crate) wide: u16,
    pub(crate) layer: u8,
    pub(crate) padding: Padding,
    pub(crate) resent: u8,
}

/// No packet.
const VACANT: u8 = u8::MAX;

const NOTHING: Sent = Sent {
    sequence: 0,
    out: 0,
    timestamp: 0,
    dress: Dress::NONE,
    at: 0,
    wide: 0,
    layer: VACANT,
    padding: Padding { block: 0, payload: 0 },
    resent: 0,
};

/// Ring of records.
#[derive(Debug)]
pub(crate) struct History {
    slots: Vec<Sent>,
    most: usize,
}

impl History {
    /// At most so many, a power of two.
    pub(crate) fn new(most: usize) -> History {
        History {
            slots: Vec::new(),
            most: most.next_power_of_two(),
        }
    }

    fn at(&self, out: u32) -> usize {
        out as usize & (self.slots.len().max(1) - 1)
    }

    /// Keeps a record in place of the one whose turn it is.
    pub(crate) fn insert(&mut self, sent: Sent) {
        if self.slots.is_empty() {
            self.slots.resize(FIRST.min(self.most), NOTHING);
        }
        while let Some(old) = self.slots.get(self.at(sent.out)) {
            let of_use = old.layer != VACANT
                && old.out != sent.out
                && sent.at.wrapping_sub(old.at) < KEPT
                && self.slots.len() < self.most;
            if !of_use {
                break;
            }
            self.grow();
        }
        let at = self.at(sent.out);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = sent;
        }
    }

    fn grow(&mut self) {
        let wider = vec![NOTHING; self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, wider);
        for sent in old.into_iter().filter(|s| s.layer != VACANT) {
            let at = self.at(sent.out);
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = sent;
            }
        }
    }

    /// The newest record whose number ends in `sequence`.
    pub(crate) fn get(&mut self, sequence: u16) -> Option<&mut Sent> {
        let at = self.at(u32::from(sequence));
        self.slots
            .get_mut(at)
            .filter(|s| s.layer != VACANT && s.out as u16 == sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(out: u32, at: u32) -> Sent {
        Sent {
            out,
            at,
            layer: 0,
            sequence: u64::from(out) + 7,
            ..NOTHING
        }
    }

    #[test]
    fn it_grows_with_the_rate_up_to_its_bound() {
        for (gap, most, kept, len) in [
            (20, 64, 35, 64),
            (30, 64, 32, 32),
            (3, 512, 230, 256),
            (1, 512, 512, 512),
            (1, 64, 64, 64),
        ] {
            let mut h = History::new(most);
            assert!(h.get(0).is_none());
            // Over a wrap of the 16-bit numbers and of the 32-bit ones.
            for start in [0xFF00_u32, 0xFFFF_FF00] {
                for i in 0..2000_u32 {
                    h.insert(sent(start.wrapping_add(i), i * gap));
                }
                let last = start.wrapping_add(1999);
                for back in 0..kept {
                    let out = last.wrapping_sub(back);
                    assert_eq!(h.get(out as u16).map(|s| s.out), Some(out), "{back}");
                }
                assert!(h.get(last.wrapping_add(1) as u16).is_none());
            }
            assert_eq!(h.slots.len(), len);
        }
    }
}
