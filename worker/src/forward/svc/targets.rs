//! Selection by decode targets and chains, for streams with a dependency descriptor.
//!
//! Owns which decode target one subscriber has. Invariants: the target changes between pictures, or at the
//! key frame of a higher layer that leans on no other; up only at a frame that says so and whose
//! references left; sideways and down also where the chain of the new target is whole; a frame with a
//! reference that was held back never leaves.

use super::dependency_descriptor::{Frame, Indication, Structure};
use super::log::{Fate, FrameLog};
use super::{Decision, Position, Target};

/// A chain's frame that didn't come within so many frames won't.
const LOST_AFTER: u64 = 60;
/// How many frames after a change of target, or after a new structure, carry the active decode targets.
const ANNOUNCED: u8 = 8;

/// One subscriber's decode target.
#[derive(Debug, Clone, Default)]
pub(crate) struct TargetSelector {
    current: Option<u8>,
    /// Layers of `current`, which outlive the structure that numbered it.
    layers: Option<Target>,
    structure: Option<u64>,
    log: FrameLog,
    timestamp: Option<u32>,
    /// Frame of the current target's chain that hasn't come.
    awaited: Option<u64>,
    /// A higher or lower spatial layer, or any at all, needs a key frame.
    waits: bool,
    announce: u8,
}

impl TargetSelector {
    pub(crate) fn layers(&self) -> Option<Target> {
        self.current.and(self.layers)
    }

    pub(crate) fn waits_for_key_frame(&self) -> bool {
        self.waits
    }

    /// Decides about a packet.
    pub(crate) fn select(
        &mut self,
        frame: &Frame,
        structure: &Structure,
        active: u32,
        wanted: Target,
        at: Position,
    ) -> Decision {
        let fate = match self.log.get(frame.number) {
            Fate::Unknown => {
                // One of before the structure can't be judged by it.
                let newest =
                    self.log.newest().is_none_or(|n| frame.number > n) && frame.number >= structure.number();
                if newest {
                    self.turn(frame, structure, active, wanted, at);
                }
                let forward = self.needed(frame, newest);
                self.log.set(frame.number, forward);
                if forward && newest {
                    self.announce = self.announce.saturating_sub(1);
                }
                forward
            }
            fate => fate == Fate::Forwarded,
        };
        if !fate {
            return Decision::Drop;
        }
        let top = self.layers.is_some_and(|l| frame.spatial == l.spatial);
        Decision::Forward {
            marker: at.marker || (frame.last && top),
        }
    }

    /// The mask of active decode targets that the subscriber should be told with this frame, and its width.
    pub(crate) fn announcement(
        &self,
        frame: &Frame,
        structure: &Structure,
        active: u32,
    ) -> Option<(u32, u8)> {
        let layers = self.layers.filter(|_| frame.first || frame.active.is_some())?;
        let mask = structure.within(layers) & active;
        let said = frame.active.or(frame.structured.then(|| structure.all()));
        let due = said.map_or(self.announce > 0, |said| said != mask);
        (due && mask != 0).then_some((mask, structure.targets()))
    }

    /// A new frame: changes the target where that is possible.
    fn turn(&mut self, frame: &Frame, structure: &Structure, active: u32, wanted: Target, at: Position) {
        if self.structure != Some(structure.number()) {
            self.structure = Some(structure.number());
            self.current = None;
            self.awaited = None;
        }
        let begins = self.timestamp != Some(at.timestamp);
        self.timestamp = Some(at.timestamp);
        self.watch_chain(frame, structure);
        let Some(desired) = structure.choose(wanted, active) else {
            return;
        };
        if self.current == Some(desired) {
            self.waits = false;
            return;
        }
        let goal = structure.layers(desired);
        // Layers that lean on no other can be entered at their own key frames alone.
        let climbs = self
            .current
            .and(self.layers)
            .is_some_and(|now| frame.spatial > now.spatial && frame.spatial <= goal.spatial)
            && frame.references.is_empty();
        if begins || climbs {
            let reachable = (0..structure.targets())
                .filter(|t| active >> t & 1 == 1 && structure.layers(*t).within(goal))
                .filter(|t| self.can_switch(*t, frame, structure))
                .max_by_key(|t| structure.layers(*t));
            match (reachable, self.current.and(self.layers)) {
                // Already at least as good on the way up.
                (Some(t), Some(now)) if now.within(goal) && structure.layers(t) <= now => {}
                (Some(t), _) => self.enter(t, frame, structure),
                (None, Some(now)) if now.spatial > goal.spatial => {
                    self.thin_out(now, frame, structure, active)
                }
                (None, _) => {}
            }
        }
        self.waits = match self.current.and(self.layers) {
            None => true,
            Some(now) => now.spatial != goal.spatial,
        };
    }

    fn enter(&mut self, target: u8, frame: &Frame, structure: &Structure) {
        if self.current != Some(target) {
            self.current = Some(target);
            self.layers = Some(structure.layers(target));
            self.awaited = None;
            // A structure alone says that all are active.
            let all = structure.within(structure.layers(target)) == structure.all();
            self.announce = if frame.structured && all { 0 } else { ANNOUNCED };
        }
    }

    /// Until a lower spatial layer can be entered, fewer frames of the present one make room.
    fn thin_out(&mut self, now: Target, frame: &Frame, structure: &Structure, active: u32) {
        let least = (0..structure.targets())
            .filter(|t| active >> t & 1 == 1 && structure.layers(*t).spatial == now.spatial)
            .min_by_key(|t| structure.layers(*t).temporal);
        if let Some(t) = least.filter(|t| self.can_switch(*t, frame, structure)) {
            self.enter(t, frame, structure);
        }
    }

    /// Whether everything of `target` from this frame on can be decoded with what left.
    fn can_switch(&self, target: u8, frame: &Frame, structure: &Structure) -> bool {
        let kind = frame.indication(target);
        if kind == Indication::Switch && self.references_left(frame) {
            return true;
        }
        // The chain is whole, and nothing of it is among what isn't forwarded now.
        let (Some(chain), Some(now)) = (structure.chain(target), self.current.and(self.layers)) else {
            return false;
        };
        structure.layers(target).within(now)
            && frame
                .chain(chain)
                .is_some_and(|n| self.log.get(n) == Fate::Forwarded)
            && (kind == Indication::NotPresent || self.references_left(frame))
    }

    fn references_left(&self, frame: &Frame) -> bool {
        let number = |d: u16| frame.number.checked_sub(u64::from(d));
        frame
            .references
            .iter()
            .all(|d| number(d).is_some_and(|n| self.log.get(n) == Fate::Forwarded))
    }

    /// Leaves the target whose chain broke.
    fn watch_chain(&mut self, frame: &Frame, structure: &Structure) {
        let Some(chain) = self.current.and_then(|t| structure.chain(t)) else {
            return;
        };
        if let Some(awaited) = self.awaited {
            match self.log.get(awaited) {
                Fate::Forwarded => self.awaited = None,
                _ if frame.number.saturating_sub(awaited) > LOST_AFTER => {
                    // What left since refers to what never came.
                    self.current = None;
                    self.log.forget();
                }
                _ => {}
            }
        }
        if let Some(before) = frame.chain(chain) {
            match self.log.get(before) {
                Fate::Forwarded => {}
                Fate::Dropped => self.current = None,
                Fate::Unknown => {
                    self.awaited.get_or_insert(before);
                }
            }
        }
        if self.current.is_none() {
            self.awaited = None;
        }
    }

    fn needed(&mut self, frame: &Frame, newest: bool) -> bool {
        // Targets are numbered by the structure that the subscriber was at.
        if self.structure.is_some_and(|s| frame.number < s) {
            return false;
        }
        let Some(target) = self.current else { return false };
        let kind = frame.indication(target);
        if kind == Indication::NotPresent {
            return false;
        }
        // Before this subscriber's first frame nothing is known to have been held back.
        let held_back = frame.references.iter().any(|d| {
            frame
                .number
                .checked_sub(u64::from(d))
                .is_some_and(|n| self.log.get(n) == Fate::Dropped)
        });
        if held_back && newest && kind != Indication::Discardable {
            self.current = None;
            self.waits = true;
        }
        !held_back
    }
}
