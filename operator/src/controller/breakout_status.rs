//! What a BreakoutRoom's status says. Pure: facts in, status out.
//!
//! Invariants: the same facts give the same status, so that nothing is written while nothing
//! happens; `openedAt` is of the present opening, and a room that is opened again has its whole time
//! again; a room that closed by a timer keeps both times until something new is said.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use plenum_breakout::effective;
use plenum_crds::{Assignment, BreakoutDecisions, BreakoutRoom, BreakoutRoomStatus, ConditionType, Reason};
use plenum_worker_api::v1::RoomReport;

use super::meeting_status::is_active;
use super::status::{Conditions, highest_epoch, participants, reason_of};

/// Where a room stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody can be in it. `timed_out`: when its timer ran out; `None`: somebody closed it.
    Closed {
        why: &'static str,
        timed_out: Option<Timestamp>,
    },
    /// A countdown runs, or people are on their way back.
    Closing { why: &'static str, closes_at: Timestamp },
    /// It cannot be placed, or not be kept up.
    Waiting {
        reason: Reason,
        message: String,
        stalled: bool,
    },
    /// A worker was chosen and is about to be told.
    Assigning(Assignment),
    /// Its worker holds it.
    Open { assignment: Assignment, draining: bool },
}

/// All that the status follows from.
pub(crate) struct Facts<'a> {
    pub(crate) breakout: &'a BreakoutRoom,
    pub(crate) decisions: Option<&'a BreakoutDecisions>,
    pub(crate) before: &'a BreakoutRoomStatus,
    pub(crate) state: State,
    /// What the worker says of the room; `None`: not known.
    pub(crate) report: Option<RoomReport>,
    /// The participant count may be written now.
    pub(crate) count: bool,
    pub(crate) now: Timestamp,
}

/// Whether the worker was told of the room under its present assignment.
pub(crate) fn was_open(status: &BreakoutRoomStatus) -> bool {
    let reason = reason_of(&status.conditions, ConditionType::Ready);
    let told = [Reason::Open, Reason::Closing, Reason::WorkerUnreachable];
    status.assignment.is_some() && told.iter().any(|one| reason == Some(one.as_str()))
}

/// The reason of that name, of those that get an Event.
pub(crate) fn announced(name: &str) -> Option<Reason> {
    use Reason::{
        Closed, Closing, MeetingNotFound, NoCapacity, NotAllowed, Open, PoolNotFound, PoolNotReady,
        WorkerUnreachable,
    };
    [
        Open,
        Closing,
        Closed,
        MeetingNotFound,
        PoolNotFound,
        NotAllowed,
        NoCapacity,
        PoolNotReady,
        WorkerUnreachable,
    ]
    .into_iter()
    .find(|reason| reason.as_str() == name)
}

/// Why a room is closed, or closes.
pub(crate) fn why(
    breakout: &BreakoutRoom,
    decisions: Option<&BreakoutDecisions>,
    wanted_open: bool,
) -> &'static str {
    let name = breakout.metadata.name.as_deref();
    let decision = decisions.and_then(|all| {
        all.rooms.iter().find(|one| {
            Some(one.name.as_str()) == name && Some(one.generation) == breakout.metadata.generation
        })
    });
    let decided = decision.and_then(|decision| decision.open).is_some();
    let timed = decision.is_some_and(|decision| decision.closes_at.is_some());
    match (wanted_open, decided) {
        (false, true) => "a host closed it",
        (false, false) => "spec.open is false",
        (true, _) if timed => "the host's timer is over",
        (true, _) if breakout.spec.close_at.is_some() => "spec.closeAt has come",
        (true, _) => "spec.closeAfter is over",
    }
}

/// The status that follows from the facts.
pub(crate) fn compute(facts: &Facts<'_>) -> BreakoutRoomStatus {
    let status = derive(facts, facts.count);
    // What is written anyway takes the count along.
    if status == *facts.before {
        status
    } else {
        derive(facts, true)
    }
}

fn derive(facts: &Facts<'_>, count: bool) -> BreakoutRoomStatus {
    let Facts {
        breakout,
        before,
        report,
        now,
        ..
    } = facts;
    let generation = breakout.metadata.generation;
    let mut conditions = Conditions::new(&before.conditions, generation, *now);
    let was_active = before
        .conditions
        .iter()
        .any(|one| one.type_ == "Active" && one.status == "True");
    let mut active = report.as_ref().map_or(was_active, is_active);
    let was_closed = reason_of(&before.conditions, ConditionType::Ready) == Some(Reason::Closed.as_str());
    // Opened anew, it has its whole time again.
    let mut opened_at = before.opened_at.clone().filter(|_| !was_closed);
    let mut closes_at = None;
    let assignment = match facts.state.clone() {
        State::Closed { why, timed_out } => {
            conditions.set(ConditionType::Ready, true, Reason::Closed, why);
            opened_at = before.opened_at.clone().filter(|_| timed_out.is_some());
            closes_at = timed_out;
            None
        }
        State::Closing { why, closes_at: at } => {
            let message = format!("{why}: people are sent back at {at}");
            conditions.set(ConditionType::Ready, true, Reason::Closing, message);
            closes_at = Some(at);
            before.assignment.clone()
        }
        State::Waiting {
            reason,
            message,
            stalled,
        } => {
            conditions.set(ConditionType::Ready, false, reason, message.clone());
            if stalled {
                conditions.stalled(reason, message);
            } else {
                conditions.reconciling(reason, message);
            }
            let ended = matches!(reason, Reason::MeetingNotFound | Reason::MeetingNotReady);
            opened_at = opened_at.filter(|_| !ended);
            before.assignment.clone().filter(|_| !ended)
        }
        State::Assigning(assignment) => {
            let message = format!("worker {} is being told", assignment.worker);
            conditions.set(ConditionType::Ready, false, Reason::Assigning, message.clone());
            conditions.reconciling(Reason::Assigning, message);
            active = false;
            Some(assignment)
        }
        State::Open { assignment, draining } => {
            conditions.set(ConditionType::Ready, true, Reason::Open, "the room is open");
            if draining {
                let message = format!("worker {} takes no new rooms", assignment.worker);
                conditions.set(ConditionType::Draining, true, Reason::WorkerDraining, message);
            }
            opened_at = opened_at.or_else(|| Timestamp::from_second(now.as_second()).ok().map(Time));
            Some(assignment)
        }
    };
    if !matches!(facts.state, State::Closed { .. } | State::Closing { .. }) {
        closes_at = timer(facts, opened_at.as_ref());
    }
    active &= assignment.is_some();
    match &assignment {
        Some(to) => {
            let message = format!("on worker {}", to.worker);
            conditions.set(ConditionType::Assigned, true, Reason::Placed, message);
        }
        None => conditions.set(ConditionType::Assigned, false, Reason::NotPlaced, "on no worker"),
    }
    let (reason, message) = if active {
        (Reason::Active, "people are in the room")
    } else {
        (Reason::Idle, "nobody is in the room")
    };
    conditions.set(ConditionType::Active, active, reason, message);
    let participants = participants(assignment.as_ref(), report.as_ref(), count, before.participants);
    let epoch = highest_epoch(assignment.as_ref(), before.epoch);
    BreakoutRoomStatus {
        observed_generation: generation.unwrap_or(before.observed_generation),
        conditions: conditions.finish(),
        epoch,
        participants,
        closes_at: closes_at.and_then(|at| Timestamp::from_second(at.as_second()).ok().map(Time)),
        opened_at,
        assignment,
    }
}

/// When the room closes if it was opened then.
fn timer(facts: &Facts<'_>, opened_at: Option<&Time>) -> Option<Timestamp> {
    let stands = facts
        .breakout
        .status
        .as_ref()
        .and_then(|status| status.opened_at.as_ref());
    let wanted = if stands == opened_at {
        effective(facts.breakout, facts.decisions)
    } else {
        let mut opened = facts.breakout.clone();
        opened.status.get_or_insert_default().opened_at = opened_at.cloned();
        effective(&opened, facts.decisions)
    };
    let ms = wanted.closes_at_ms.filter(|_| wanted.open)?;
    Timestamp::from_millisecond(ms).ok()
}

#[cfg(test)]
#[path = "breakout_status_tests.rs"]
mod tests;
