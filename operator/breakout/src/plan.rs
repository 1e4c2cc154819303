//! What the objects and the decisions laid over them amount to.
//!
//! Owns the overlay (rules 2 and 3 of `docs/breakouts.md`) and the life of a room in time (rule 7).
//! A [`Plan`] is rebuilt from the objects on each change of one, in time linear in their size, and
//! never changes; what depends on time takes `now`. Invariants:
//!
//! * A decision about a room counts while the room has the generation that the decision names.
//! * A decision about a person counts while the room whose spec names them is the one it was then,
//!   whether that room is open or not. Named by several: the youngest, then the name that sorts last.
//! * A room's life: it is *open* while the intent is open and its time is not over; it is *closing*
//!   while the intent is closed and the countdown runs, and people may stay but not come; else it is
//!   *closed*. A room that is being deleted is gone for all that concerns people.

use std::cmp::Ordering;
use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use plenum_crds::{
    BreakoutAssignment, BreakoutDecisions, BreakoutRoom, ConditionType, MADE_IN_MEETING_LABEL, Meeting,
    MoveDecision, RoomDecision,
};
use plenum_protocol::{Mode, RoomView};

/// What a room's object and the standing decision about it amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// What is wanted: open or closed.
    pub open: bool,
    /// When it closes. While `open`: the timer, if there is one. While not: the end of the countdown,
    /// or none where it closes (or was closed) at once.
    pub closes_at_ms: Option<i64>,
    /// The spec was just set to closed and the controller has not said yet when the countdown ends.
    /// Until it does the room goes on; the controller sets `status.closesAt` to the end of the
    /// countdown, but never later than the timer that ran before.
    pub countdown_due: bool,
    /// What people see.
    pub title: String,
}

/// Lays the decision about `room`, if one stands, over it.
///
/// A decision that opens a room brings its own timer, or none: `closeAfter` and `closeAt` of the spec
/// are then what the decision was made from. A decision that closes one brings the countdown's end.
pub fn effective(room: &BreakoutRoom, decisions: Option<&BreakoutDecisions>) -> Effective {
    let name = room.metadata.name.as_deref().unwrap_or_default();
    let about = decisions.and_then(|all| all.rooms.iter().find(|one| one.name == name));
    lay_over(room, about)
}

/// Does the decision still stand?
pub(crate) fn stands(room: &BreakoutRoom, decision: &RoomDecision) -> bool {
    room.metadata.generation.unwrap_or(0) == decision.generation
}

fn lay_over(room: &BreakoutRoom, decision: Option<&RoomDecision>) -> Effective {
    let decision = decision.filter(|decision| stands(room, decision));
    let spec = &room.spec;
    let status = room.status.as_ref();
    let decided_open = decision.and_then(|decision| decision.open);
    let decided_close = decision.and_then(|decision| decision.closes_at.as_ref()).map(ms);
    let open = decided_open.unwrap_or(spec.open);
    let mut countdown_due = false;
    let closes_at_ms = match (open, decided_open) {
        (_, Some(_)) => decided_close,
        (true, None) => decided_close.or_else(|| spec_timer(room)),
        (false, None) => {
            let seen = status.is_some_and(|status| {
                status.observed_generation >= room.metadata.generation.unwrap_or_default()
            });
            let placed = status.is_some_and(|status| status.assignment.is_some());
            countdown_due = placed && !seen;
            status
                .filter(|_| seen)
                .and_then(|status| status.closes_at.as_ref())
                .map(ms)
        }
    };
    let title = decision
        .and_then(|decision| decision.title.clone())
        .or_else(|| spec.title.clone())
        .or_else(|| room.metadata.name.clone())
        .unwrap_or_default();
    Effective {
        open,
        closes_at_ms,
        countdown_due,
        title,
    }
}

/// When the spec alone lets an open room close.
fn spec_timer(room: &BreakoutRoom) -> Option<i64> {
    if let Some(at) = &room.spec.close_at {
        return Some(ms(at));
    }
    let opened = ms(room.status.as_ref()?.opened_at.as_ref()?);
    Some(opened.saturating_add(close_after(room)?))
}

fn close_after(room: &BreakoutRoom) -> Option<i64> {
    let after = room.spec.close_after.as_ref().filter(|after| !after.is_zero())?;
    Some(i64::try_from(after.as_millis()).unwrap_or(i64::MAX))
}

pub(crate) fn ms(time: &Time) -> i64 {
    time.0.as_millisecond()
}

/// A breakout room as it is meant to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRoom {
    /// Name of the object.
    pub id: String,
    /// What people see.
    pub title: String,
    /// How many people it takes; `None` = as many as the meeting.
    pub max_participants: Option<u32>,
    /// What is wanted: open or closed. [`PlannedRoom::is_open`] says what holds now.
    pub open: bool,
    /// See [`Effective::closes_at_ms`].
    pub closes_at_ms: Option<i64>,
    /// See [`Effective::countdown_due`].
    pub countdown_due: bool,
    /// A worker holds it and was told of it.
    pub ready: bool,
    /// The object is being deleted.
    pub deleting: bool,
    /// Identities assigned to it by the spec and by decisions, sorted. A closed room keeps them.
    pub participants: Vec<String>,
    /// `metadata.generation`.
    pub generation: i64,
    /// A host made it inside the meeting.
    pub made_in_meeting: bool,
    /// UID of the worker that holds it.
    pub worker_uid: Option<String>,
    /// Epoch of its assignment.
    pub epoch: Option<i64>,
    /// When the object was created; 0 = unknown.
    pub created: i64,
    /// `spec.closeAfter` in milliseconds: the timer of each opening.
    pub close_after_ms: Option<i64>,
    /// `spec.closeAt`.
    pub close_at_ms: Option<i64>,
}

impl PlannedRoom {
    /// Wanted open, and its time is not over. It may not be placed yet.
    pub fn is_open(&self, now: i64) -> bool {
        self.open && !self.deleting && self.closes_at_ms.is_none_or(|at| now < at)
    }

    /// To be closed, and the countdown still runs.
    pub fn is_closing(&self, now: i64) -> bool {
        !self.open && !self.deleting && (self.countdown_due || self.closes_at_ms.is_some_and(|at| now < at))
    }

    /// May those who are in it stay?
    pub fn may_stay(&self, now: i64) -> bool {
        self.is_open(now) || self.is_closing(now)
    }

    /// May somebody come in, as far as objects say? Whether there is a place left its worker knows.
    pub fn is_enterable(&self, now: i64) -> bool {
        self.ready && self.is_open(now)
    }

    /// The room as clients see it.
    pub fn view(&self, now: i64) -> RoomView {
        let live = self.may_stay(now);
        RoomView {
            id: self.id.clone(),
            title: self.title.clone(),
            max_participants: self.max_participants.unwrap_or(0),
            open: live && self.ready,
            closes_at: self.closes_at_ms.filter(|_| live),
            participants: self.participants.clone(),
        }
    }
}

/// Where somebody should be if they were placed now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Nobody said anything: whoever is somewhere stays, whoever comes goes to the main room.
    NoOpinion,
    /// In the main room: by decision, or because the room that was decided on is closed or gone.
    Main,
    /// In that room, which is open; it may not be placed yet.
    Room(String),
}

/// All breakout rooms of a meeting and who belongs where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Title of the meeting, which is that of its main room.
    pub title: String,
    /// How rooms are filled.
    pub mode: Mode,
    /// May participants go back to the main room by themselves?
    pub allow_return_to_main: bool,
    /// May participants refuse a move within its notice?
    pub allow_cancel: bool,
    /// Milliseconds of notice before a room is closed.
    pub closing_countdown_ms: i64,
    /// How many people the meeting takes in a room that sets no limit of its own.
    pub meeting_max_participants: u32,
    /// All rooms, by name (numbers in names in numerical order).
    pub rooms: Vec<PlannedRoom>,
    by_id: HashMap<String, usize>,
    /// Rooms whose spec names the identity, the one that counts first.
    named: HashMap<String, Vec<usize>>,
    /// Standing decisions.
    moves: HashMap<String, Option<String>>,
}

impl Plan {
    /// From the objects. Rooms of other meetings are left out.
    pub fn of<'a>(meeting: &Meeting, rooms: impl IntoIterator<Item = &'a BreakoutRoom>) -> Plan {
        let decisions = decisions(meeting);
        let about: HashMap<&str, &RoomDecision> = decisions
            .iter()
            .flat_map(|all| &all.rooms)
            .map(|one| (one.name.as_str(), one))
            .collect();
        let mut objects: Vec<&BreakoutRoom> =
            rooms.into_iter().filter(|room| belongs(meeting, room)).collect();
        objects.sort_by(|a, b| natural(name_of(a), name_of(b)));
        let mut planned: Vec<PlannedRoom> = objects
            .iter()
            .map(|room| plan_room(room, about.get(name_of(room)).copied()))
            .collect();
        let by_id = planned
            .iter()
            .enumerate()
            .map(|(index, room)| (room.id.clone(), index))
            .collect();
        let named = index_named(&objects, &planned);
        let moves = decisions
            .iter()
            .flat_map(|all| &all.moves)
            .filter(|one| move_stands(one, &named, &planned))
            .map(|one| (one.identity.clone(), one.room.clone()))
            .collect();
        let spec = &meeting.spec.breakouts;
        let title = meeting
            .spec
            .title
            .clone()
            .or_else(|| meeting.metadata.name.clone());
        let mut plan = Plan {
            title: title.unwrap_or_default(),
            mode: mode(
                decisions
                    .and_then(|all| all.assignment)
                    .unwrap_or(spec.assignment),
            ),
            allow_return_to_main: decisions
                .and_then(|all| all.allow_return_to_main)
                .unwrap_or(spec.allow_return_to_main),
            allow_cancel: decisions
                .and_then(|all| all.allow_cancel)
                .unwrap_or(spec.allow_cancel),
            closing_countdown_ms: i64::try_from(spec.closing_countdown.as_millis()).unwrap_or(i64::MAX),
            meeting_max_participants: meeting.spec.max_participants,
            rooms: Vec::new(),
            by_id,
            named,
            moves,
        };
        plan.assign_participants(&mut planned);
        plan.rooms = planned;
        plan
    }

    fn assign_participants(&self, rooms: &mut [PlannedRoom]) {
        let named = self
            .named
            .keys()
            .filter(|identity| !self.moves.contains_key(*identity))
            .map(|identity| (identity, self.named_place(identity, rooms)));
        let decided = self
            .moves
            .iter()
            .map(|(identity, room)| (identity, room.as_ref().and_then(|id| self.by_id.get(id).copied())));
        let placed: Vec<(String, usize)> = named
            .chain(decided)
            .filter_map(|(identity, room)| Some((identity.clone(), room?)))
            .collect();
        for (identity, room) in placed {
            rooms[room].participants.push(identity);
        }
        for room in rooms {
            room.participants.sort();
        }
    }

    /// Where the specs put somebody, whatever the time: the open room that counts first, else the
    /// closed one that does.
    fn named_place(&self, identity: &str, rooms: &[PlannedRoom]) -> Option<usize> {
        let named = self.named.get(identity)?;
        named
            .iter()
            .find(|index| rooms[**index].open)
            .or_else(|| named.first())
            .copied()
    }

    /// The room of that name.
    pub fn room(&self, id: &str) -> Option<&PlannedRoom> {
        self.by_id.get(id).map(|index| &self.rooms[*index])
    }

    /// May somebody come into the room, as far as objects say? False for rooms that do not exist.
    pub fn enterable(&self, id: &str, now: i64) -> bool {
        self.room(id).is_some_and(|room| room.is_enterable(now))
    }

    /// May those who are in the room stay? The main room always lets them.
    pub fn may_stay(&self, room: Option<&str>, now: i64) -> bool {
        room.is_none_or(|id| self.room(id).is_some_and(|room| room.may_stay(now)))
    }

    /// What people see of a room; empty for rooms that do not exist.
    pub fn title(&self, room: Option<&str>) -> String {
        match room {
            None => self.title.clone(),
            Some(id) => self.room(id).map(|room| room.title.clone()).unwrap_or_default(),
        }
    }

    /// Where somebody should be if they were placed now (rule 3): by the standing decision about
    /// them, which is the main room where the room it names is closed, closing or gone; else in the
    /// open room whose spec names them; else nowhere in particular.
    ///
    /// Who already is in a closing room stays in it until it closes, see [`Plan::may_stay`]; a room
    /// that is wished for may not be placed yet, see [`Plan::enterable`].
    pub fn wish(&self, identity: &str, now: i64) -> Wish {
        match self.moves.get(identity) {
            Some(Some(id)) if self.room(id).is_some_and(|room| room.is_open(now)) => Wish::Room(id.clone()),
            Some(_) => Wish::Main,
            None => self
                .named
                .get(identity)
                .and_then(|named| {
                    named
                        .iter()
                        .map(|index| &self.rooms[*index])
                        .find(|room| room.is_open(now))
                })
                .map_or(Wish::NoOpinion, |room| Wish::Room(room.id.clone())),
        }
    }

    /// The room somebody is assigned to, open or not.
    pub fn assigned(&self, identity: &str) -> Option<&str> {
        match self.moves.get(identity) {
            Some(Some(id)) => self.room(id).map(|room| room.id.as_str()),
            Some(None) => None,
            None => self
                .named_place(identity, &self.rooms)
                .map(|index| self.rooms[index].id.as_str()),
        }
    }

    /// Neither the objects nor anybody's decision give them a place, not even one that is closed for now.
    pub fn says_nothing_of(&self, identity: &str, now: i64) -> bool {
        self.wish(identity, now) == Wish::NoOpinion && self.assigned(identity).is_none()
    }

    /// Where the specs alone would put somebody, whatever the time.
    pub(crate) fn by_spec(&self, identity: &str) -> Option<&str> {
        self.named_place(identity, &self.rooms)
            .map(|index| self.rooms[index].id.as_str())
    }

    /// The standing decision about somebody: `Some(None)` = the main room.
    pub fn decided(&self, identity: &str) -> Option<Option<&str>> {
        self.moves.get(identity).map(|room| room.as_deref())
    }

    /// The room whose spec names somebody, open or not: what a decision about them is held against.
    pub fn named(&self, identity: &str) -> Option<&str> {
        let first = self.named.get(identity)?.first()?;
        Some(self.rooms[*first].id.as_str())
    }

    /// The next moment after `now` at which something changes though no object does.
    pub fn next_change(&self, now: i64) -> Option<i64> {
        self.rooms
            .iter()
            .filter(|room| !room.deleting)
            .filter_map(|room| room.closes_at_ms)
            .filter(|at| *at > now)
            .min()
    }

    /// All rooms that are not being deleted, as clients see them.
    pub fn views(&self, now: i64) -> Vec<RoomView> {
        self.rooms
            .iter()
            .filter(|room| !room.deleting)
            .map(|room| room.view(now))
            .collect()
    }
}

/// What hosts decided about breakout rooms of this meeting.
pub(crate) fn decisions(meeting: &Meeting) -> Option<&BreakoutDecisions> {
    meeting.status.as_ref()?.session.as_ref()?.breakouts.as_ref()
}

fn belongs(meeting: &Meeting, room: &BreakoutRoom) -> bool {
    meeting.metadata.name.as_deref() == Some(room.spec.meeting_ref.name.as_str())
        && meeting.metadata.namespace == room.metadata.namespace
}

fn name_of(room: &BreakoutRoom) -> &str {
    room.metadata.name.as_deref().unwrap_or_default()
}

fn plan_room(room: &BreakoutRoom, decision: Option<&RoomDecision>) -> PlannedRoom {
    let effective = lay_over(room, decision);
    let status = room.status.as_ref();
    let assignment = status.and_then(|status| status.assignment.as_ref());
    let says_ready = status.is_some_and(|status| {
        status
            .conditions
            .iter()
            .any(|one| one.type_ == ConditionType::Ready.as_str() && one.status == "True")
    });
    let labels = room.metadata.labels.as_ref();
    PlannedRoom {
        id: name_of(room).to_owned(),
        title: effective.title,
        max_participants: room.spec.max_participants,
        open: effective.open,
        closes_at_ms: effective.closes_at_ms,
        countdown_due: effective.countdown_due,
        ready: says_ready && assignment.is_some(),
        deleting: room.metadata.deletion_timestamp.is_some(),
        participants: Vec::new(),
        generation: room.metadata.generation.unwrap_or(0),
        made_in_meeting: labels.is_some_and(|labels| labels.contains_key(MADE_IN_MEETING_LABEL)),
        worker_uid: assignment.map(|assignment| assignment.worker_uid.clone()),
        epoch: assignment.map(|assignment| assignment.epoch),
        created: room.metadata.creation_timestamp.as_ref().map_or(0, ms),
        close_after_ms: close_after(room),
        close_at_ms: room.spec.close_at.as_ref().map(ms),
    }
}

/// Identity -> rooms whose spec names it, youngest first, then by the name that sorts last.
fn index_named(objects: &[&BreakoutRoom], planned: &[PlannedRoom]) -> HashMap<String, Vec<usize>> {
    let mut order: Vec<usize> = (0..objects.len())
        .filter(|index| !planned[*index].deleting)
        .collect();
    order.sort_by(|a, b| {
        let (a, b) = (&planned[*a], &planned[*b]);
        b.created.cmp(&a.created).then_with(|| b.id.cmp(&a.id))
    });
    let mut named: HashMap<String, Vec<usize>> = HashMap::new();
    for index in order {
        for identity in &objects[index].spec.participants {
            let rooms = named.entry(identity.clone()).or_default();
            if rooms.last() != Some(&index) {
                rooms.push(index);
            }
        }
    }
    named
}

fn move_stands(decision: &MoveDecision, named: &HashMap<String, Vec<usize>>, rooms: &[PlannedRoom]) -> bool {
    let now = named
        .get(&decision.identity)
        .and_then(|named| named.first())
        .map(|index| rooms[*index].id.as_str());
    now == decision.named.as_deref()
}

fn mode(assignment: BreakoutAssignment) -> Mode {
    match assignment {
        BreakoutAssignment::Automatic => Mode::Automatic,
        BreakoutAssignment::SelfSelect => Mode::SelfSelect,
        BreakoutAssignment::Manual => Mode::Manual,
    }
}

/// Order of names in which `room-2` comes before `room-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (left.first(), right.first()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (number_a, number_b) = (digits(&mut left), digits(&mut right));
            (number_a.len(), number_a).cmp(&(number_b.len(), number_b))
        } else {
            let order = x.cmp(y);
            (left, right) = (&left[1..], &right[1..]);
            order
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// Takes the digits off the front, without leading zeros.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    let zeros = number
        .iter()
        .position(|digit| *digit != b'0')
        .unwrap_or(number.len());
    &number[zeros..]
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
