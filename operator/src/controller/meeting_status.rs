//! What a Meeting's status says. Pure: facts in, status out.
//!
//! Invariants: the same facts give the same status, so that an hour in which nothing happens is an
//! hour without a write; what is not known at the moment (a worker's line is down) is left as it
//! was written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use plenum_crds::{Assignment, ConditionType, LastSession, MeetingStatus, Reason};
use plenum_worker_api::v1::RoomReport;

use super::status::{Conditions, highest_epoch, participants, reason_of};

/// Where a meeting stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Its time has not come.
    Scheduled { opens: Timestamp },
    /// It is over.
    Ended { message: String },
    /// Somebody set spec.suspend.
    Suspended,
    /// It cannot be placed, or not be kept up.
    Fault {
        reason: Reason,
        message: String,
        stalled: bool,
        assignment: Option<Assignment>,
    },
    /// A worker was chosen and is about to be told.
    Assigning { assignment: Assignment },
    /// Its worker does not answer.
    Unreachable { assignment: Assignment, message: String },
    /// Its worker holds it.
    Placed { assignment: Assignment, draining: bool },
}

/// All that the status follows from.
pub(crate) struct Facts<'a> {
    pub(crate) generation: Option<i64>,
    pub(crate) before: &'a MeetingStatus,
    pub(crate) state: State,
    /// What the worker says of the room; `None`: not known.
    pub(crate) report: Option<RoomReport>,
    /// The participant count may be written now.
    pub(crate) count: bool,
    pub(crate) rooms: i32,
    pub(crate) join_url: String,
    pub(crate) now: Timestamp,
}

/// Whether people are in the room, or were within the departure timeout.
pub(crate) fn is_active(report: &RoomReport) -> bool {
    report.active_since_ms > 0 && report.ended_at_ms == 0
}

/// Whether the worker was told of the meeting under its present assignment.
pub(crate) fn was_placed(status: &MeetingStatus) -> bool {
    let reason = reason_of(&status.conditions, ConditionType::Ready);
    status.assignment.is_some()
        && (reason == Some(Reason::Idle.as_str())
            || reason == Some(Reason::Active.as_str())
            || reason == Some(Reason::WorkerUnreachable.as_str()))
}

/// The reason of that name, of those that the Ready condition takes.
pub(crate) fn ready_reason(name: &str) -> Option<Reason> {
    use Reason::{
        Active, Ended, Idle, InvalidSchedule, NoCapacity, NotAllowed, PoolNotFound, PoolNotReady, Scheduled,
        SecretMissing, Suspended, WorkerUnreachable,
    };
    [
        Scheduled,
        Idle,
        Active,
        Ended,
        Suspended,
        PoolNotFound,
        NotAllowed,
        NoCapacity,
        PoolNotReady,
        InvalidSchedule,
        SecretMissing,
        WorkerUnreachable,
    ]
    .into_iter()
    .find(|reason| reason.as_str() == name)
}

/// The status that follows from the facts.
pub(crate) fn compute(facts: &Facts<'_>) -> MeetingStatus {
    let status = derive(facts, facts.count);
    let ours = MeetingStatus {
        session: None,
        ..facts.before.clone()
    };
    // What is written anyway takes the count along.
    if status == ours {
        status
    } else {
        derive(facts, true)
    }
}

fn derive(facts: &Facts<'_>, count: bool) -> MeetingStatus {
    let Facts { before, report, .. } = facts;
    let (generation, rooms, now) = (facts.generation, facts.rooms, facts.now);
    let (state, join_url) = (facts.state.clone(), facts.join_url.clone());
    let mut conditions = Conditions::new(&before.conditions, generation, now);
    let was_active = before
        .conditions
        .iter()
        .any(|one| one.type_ == "Active" && one.status == "True");
    let mut active = report.as_ref().map_or(was_active, is_active);
    let assignment = match state {
        State::Scheduled { opens } => {
            conditions.set(
                ConditionType::Ready,
                true,
                Reason::Scheduled,
                format!("opens at {opens}"),
            );
            None
        }
        State::Ended { message } => {
            conditions.set(ConditionType::Ready, true, Reason::Ended, message);
            None
        }
        State::Suspended => {
            conditions.set(
                ConditionType::Ready,
                true,
                Reason::Suspended,
                "spec.suspend is set",
            );
            None
        }
        State::Fault {
            reason,
            message,
            stalled,
            assignment,
        } => {
            conditions.set(ConditionType::Ready, false, reason, message.clone());
            if stalled {
                conditions.stalled(reason, message);
            } else {
                conditions.reconciling(reason, message);
            }
            assignment
        }
        State::Assigning { assignment } => {
            let message = format!("worker {} is being told", assignment.worker);
            conditions.set(ConditionType::Ready, false, Reason::Assigning, message.clone());
            conditions.reconciling(Reason::Assigning, message);
            // The room begins anew there; who was in it comes back by itself.
            active = false;
            Some(assignment)
        }
        State::Unreachable { assignment, message } => {
            conditions.set(
                ConditionType::Ready,
                false,
                Reason::WorkerUnreachable,
                message.clone(),
            );
            conditions.reconciling(Reason::WorkerUnreachable, message);
            Some(assignment)
        }
        State::Placed { assignment, draining } => {
            let (reason, message) = if active {
                (Reason::Active, "people are in the meeting")
            } else {
                (Reason::Idle, "nobody is in the meeting")
            };
            conditions.set(ConditionType::Ready, true, reason, message);
            if draining {
                let message = format!("worker {} takes no new rooms", assignment.worker);
                conditions.set(ConditionType::Draining, true, Reason::WorkerDraining, message);
            }
            Some(assignment)
        }
    };
    match &assignment {
        Some(to) => {
            let message = format!("on worker {}", to.worker);
            conditions.set(ConditionType::Assigned, true, Reason::Placed, message);
        }
        None => {
            active = false;
            conditions.set(ConditionType::Assigned, false, Reason::NotPlaced, "on no worker");
        }
    }
    let (reason, message) = if active {
        (Reason::Active, "people are in the meeting")
    } else {
        (Reason::Idle, "nobody is in the meeting")
    };
    conditions.set(ConditionType::Active, active, reason, message);

    let since = report
        .as_ref()
        .filter(|_| active)
        .and_then(|report| millis(report.active_since_ms));
    let active_since = if active {
        since.or_else(|| before.active_since.clone())
    } else {
        None
    };
    let participants = participants(assignment.as_ref(), report.as_ref(), count, before.participants);
    let epoch = highest_epoch(assignment.as_ref(), before.epoch);
    MeetingStatus {
        observed_generation: generation.unwrap_or(before.observed_generation),
        conditions: conditions.finish(),
        epoch,
        signal_url: Some(signal_url(&join_url)),
        join_url: Some(join_url),
        participants,
        rooms: Some(rooms),
        last_session: last_session(before, report.as_ref(), active, assignment.is_some(), now),
        active_since,
        assignment,
        session: None,
    }
}

/// LiveKit clients take the origin alone; the room is in their token.
fn signal_url(join_url: &str) -> String {
    let origin = join_url.split_once("/m/").map_or(join_url, |(origin, _)| origin);
    match origin.strip_prefix("https://") {
        Some(rest) => format!("wss://{rest}"),
        None => format!("ws://{}", origin.strip_prefix("http://").unwrap_or(origin)),
    }
}

/// The session that ended: by the worker's report, or because the room was taken from it.
fn last_session(
    before: &MeetingStatus,
    report: Option<&RoomReport>,
    active: bool,
    placed: bool,
    now: Timestamp,
) -> Option<LastSession> {
    let known = before.last_session.clone();
    let Some(report) = report.filter(|_| !active) else {
        return known;
    };
    let peak = i32::try_from(report.peak_participants).unwrap_or(i32::MAX);
    let end = if report.ended_at_ms > 0 {
        millis(report.ended_at_ms)
    } else if is_active(report) && !placed {
        Some(Time(seconds(now)))
    } else {
        None
    };
    let Some(end) = end else { return known };
    if known.as_ref().is_some_and(|known| known.end == end) {
        return known;
    }
    let start = millis(report.active_since_ms)
        .or_else(|| before.active_since.clone())
        .unwrap_or_else(|| end.clone());
    Some(LastSession { start, end, peak })
}

/// Objects carry whole seconds: with fractions what is computed would never equal what is read.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn millis(ms: i64) -> Option<Time> {
    (ms > 0)
        .then(|| Timestamp::from_second(ms.div_euclid(1000)).ok().map(Time))
        .flatten()
}

#[cfg(test)]
#[path = "meeting_status_tests.rs"]
mod tests;
