//! Editing `status.session.breakouts`.
//!
//! Owns what stays of the old list and how entries are replaced. Invariants: what no longer stands is
//! left out; entries about people are in the order in which they were made, so that the oldest about
//! people who are gone can give way when the list is full.

use std::collections::{HashMap, HashSet};

use plenum_crds::{BreakoutDecisions, Meeting, MoveDecision, RoomDecision};
use plenum_errors::{Code, PublicError};
use plenum_protocol::limits;

use super::{Scene, malformed};
use crate::plan::{Plan, decisions};

/// Most entries about people, by the Meeting's schema.
const MOVES: usize = 5_000;

/// The decisions of `meeting` without those that no longer stand, where that makes a difference.
///
/// Superseded decisions do no harm but one: were an object to go back to exactly what it said when
/// one was made, it would stand again. So gateways write this when they notice.
pub fn pruned(meeting: &Meeting, plan: &Plan) -> Option<BreakoutDecisions> {
    let before = decisions(meeting)?;
    let after = Edit::begin(meeting, plan).into_decisions();
    (after != *before).then_some(after)
}

pub(super) struct Edit<'a> {
    plan: &'a Plan,
    before: BreakoutDecisions,
    /// Everything but the moves.
    draft: BreakoutDecisions,
    moves: Vec<Option<MoveDecision>>,
    by_identity: HashMap<String, usize>,
}

impl<'a> Edit<'a> {
    pub(super) fn begin(meeting: &Meeting, plan: &'a Plan) -> Edit<'a> {
        let mut draft = decisions(meeting).cloned().unwrap_or_default();
        let old_moves = std::mem::take(&mut draft.moves);
        let old_rooms = std::mem::take(&mut draft.rooms);
        for decision in old_rooms {
            let stands = plan
                .room(&decision.name)
                .is_some_and(|room| !room.deleting && room.generation == decision.generation);
            let says = decision.open.is_some() || decision.closes_at.is_some() || decision.title.is_some();
            if stands && says {
                draft.rooms.retain(|one| one.name != decision.name);
                draft.rooms.push(decision);
            }
        }
        let mut edit = Edit {
            plan,
            before: BreakoutDecisions::default(),
            draft,
            moves: Vec::new(),
            by_identity: HashMap::new(),
        };
        for decision in old_moves {
            if plan.named(&decision.identity) == decision.named.as_deref() {
                edit.put(decision);
            }
        }
        let lives = |id: &str| plan.room(id).is_some_and(|room| !room.deleting);
        edit.let_go(|id| !lives(id));
        edit.before = edit.as_decisions();
        edit
    }

    fn put(&mut self, decision: MoveDecision) {
        self.forget(&decision.identity);
        self.by_identity
            .insert(decision.identity.clone(), self.moves.len());
        self.moves.push(Some(decision));
    }

    fn forget(&mut self, identity: &str) {
        if let Some(index) = self.by_identity.remove(identity) {
            self.moves[index] = None;
        }
    }

    /// Rooms are going: who was decided to be there is in the main room by that decision where a
    /// spec names them elsewhere, and without a place where none does.
    fn let_go(&mut self, goes: impl Fn(&str) -> bool) {
        for slot in &mut self.moves {
            let Some(decision) = slot else { continue };
            if !decision.room.as_deref().is_some_and(&goes) {
                continue;
            }
            decision.room = None;
            if decision.named.is_none() {
                self.by_identity.remove(&decision.identity);
                *slot = None;
            }
        }
    }

    /// Everything about that room is over.
    pub(super) fn remove_room(&mut self, id: &str) {
        self.draft.rooms.retain(|one| one.name != id);
        self.let_go(|room| room == id);
    }

    pub(super) fn settings(&mut self) -> &mut BreakoutDecisions {
        &mut self.draft
    }

    /// The decision about a room of the plan, to be edited.
    pub(super) fn room(&mut self, id: &str) -> &mut RoomDecision {
        let known = self.draft.rooms.iter().position(|one| one.name == id);
        let index = known.unwrap_or_else(|| {
            self.draft.rooms.push(RoomDecision {
                name: id.to_owned(),
                generation: self.plan.room(id).map_or(0, |room| room.generation),
                ..RoomDecision::default()
            });
            self.draft.rooms.len() - 1
        });
        &mut self.draft.rooms[index]
    }

    /// Somebody goes there (`None` = the main room). Where their spec's own place is meant, no
    /// decision is needed.
    pub(super) fn place(&mut self, identity: &str, room: Option<&str>) {
        let named = self.plan.named(identity);
        if room.is_some() && named == room && self.plan.by_spec(identity) == room {
            self.forget(identity);
            return;
        }
        let known = self
            .by_identity
            .get(identity)
            .and_then(|index| self.moves[*index].as_ref());
        if known.is_some_and(|known| known.room.as_deref() == room) {
            return;
        }
        self.put(MoveDecision {
            identity: identity.to_owned(),
            room: room.map(str::to_owned),
            named: named.map(str::to_owned),
        });
    }

    fn as_decisions(&self) -> BreakoutDecisions {
        BreakoutDecisions {
            moves: self.moves.iter().flatten().cloned().collect(),
            ..self.draft.clone()
        }
    }

    fn into_decisions(self) -> BreakoutDecisions {
        BreakoutDecisions {
            moves: self.moves.into_iter().flatten().collect(),
            ..self.draft
        }
    }

    /// The new list, or none where it says what the old one did.
    pub(super) fn finish(mut self, scene: &Scene<'_>) -> Result<Option<BreakoutDecisions>, PublicError> {
        let before = std::mem::take(&mut self.before);
        let mut after = self.into_decisions();
        if after == before {
            return Ok(None);
        }
        if after.rooms.len() > limits::ROOMS {
            return Err(PublicError::new(
                Code::RoomLimit,
                format!("decisions about {} rooms", after.rooms.len()),
            ));
        }
        if after.moves.len() > MOVES {
            let present: HashSet<&str> = scene.people.iter().map(|one| one.identity.as_str()).collect();
            let mut excess = after.moves.len() - MOVES;
            // What was decided just now does not give way.
            let old: HashMap<&str, &MoveDecision> = before
                .moves
                .iter()
                .map(|one| (one.identity.as_str(), one))
                .collect();
            after.moves.retain(|one| {
                let gives_way = excess > 0
                    && old.get(one.identity.as_str()) == Some(&one)
                    && !present.contains(one.identity.as_str());
                excess -= usize::from(gives_way);
                !gives_way
            });
            if excess > 0 {
                return Err(malformed(format!(
                    "more than {MOVES} people have a place by decision"
                )));
            }
        }
        Ok(Some(after))
    }
}
