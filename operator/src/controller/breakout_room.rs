//! Reconciles BreakoutRooms: a room of its own on a worker, by preference the one of the meeting.
//!
//! Invariants: as for Meetings (assignment before order, rising epoch, bounded release); a room
//! lives only while its Meeting is placed and not deleted; the spec is never written.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};
use plenum_crds::{Assignment, BreakoutRoom, BreakoutRoomStatus, ConditionType, FINALIZER, Meeting, Reason};
use plenum_worker_api::v1::{EndReason, RoomReport, RoomSpec};

use super::context::{Again, Context, ReconcileError};
use super::index::{Guard, breakout_room, main_room, namespace};
use super::meeting_status::is_active;
use super::placement::{Holder, Placement};
use super::room;
use super::status::{self, Conditions};

/// Field manager of what this reconciler writes.
pub(crate) const MANAGER: &str = "plenum-breakout-room-controller";
/// A deleted BreakoutRoom waits this long for its worker.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);

/// One look at a BreakoutRoom.
pub(crate) async fn reconcile(
    object: Arc<Guard<BreakoutRoom>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let breakout = match &object.0 {
        Ok(breakout) => breakout,
        Err(error) => {
            tracing::warn!(room = %object.name_any(), %error, "breakout room cannot be read");
            context.events.warning(
                object.object_ref(&()),
                "Read",
                Reason::InvalidSpec,
                &error.to_string(),
            );
            return Ok(Action::await_change());
        }
    };
    let reconciler = Reconciler {
        api: Api::namespaced(context.client.clone(), &namespace(breakout)),
        room: breakout_room(breakout),
        now: Timestamp::now(),
        again: Again::default(),
        context: &context,
    };
    if breakout.metadata.deletion_timestamp.is_some() {
        reconciler.delete(breakout).await
    } else {
        reconciler.run(breakout.clone()).await
    }
}

struct Reconciler<'a> {
    context: &'a Context,
    api: Api<BreakoutRoom>,
    room: String,
    now: Timestamp,
    again: Again,
}

/// Where a room stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Closed(&'static str),
    Waiting {
        reason: Reason,
        message: String,
        stalled: bool,
    },
    Assigning(Assignment),
    Open {
        assignment: Assignment,
        draining: bool,
    },
}

impl Reconciler<'_> {
    async fn run(mut self, breakout: BreakoutRoom) -> Result<Action, ReconcileError> {
        let meeting = self
            .context
            .index
            .meeting(&namespace(&breakout), &breakout.spec.meeting_ref.name);
        let meeting = match meeting.as_deref().map(|meeting| &meeting.0) {
            Some(Ok(meeting)) if meeting.metadata.deletion_timestamp.is_none() => meeting.clone(),
            _ => {
                let message = format!(
                    "no Meeting {}: apply it, or delete this BreakoutRoom",
                    breakout.spec.meeting_ref.name
                );
                let state = State::Waiting {
                    reason: Reason::MeetingNotFound,
                    message,
                    stalled: true,
                };
                return self.close(breakout, state, EndReason::Deleted).await;
            }
        };
        if !breakout.spec.open {
            return self
                .close(breakout, State::Closed("spec.open is false"), EndReason::Closed)
                .await;
        }
        let closes = closes_at(&breakout);
        if let Some(closes) = closes {
            if self.now >= closes {
                return self
                    .close(
                        breakout,
                        State::Closed("spec.closeAfter is over"),
                        EndReason::Expired,
                    )
                    .await;
            }
            self.again
                .after(Duration::try_from(closes.duration_since(self.now)).unwrap_or_default());
        }
        let Some(main) = meeting
            .status
            .as_ref()
            .and_then(|status| status.assignment.clone())
        else {
            let message = format!("Meeting {} holds no worker yet", meeting.name_any());
            let state = State::Waiting {
                reason: Reason::MeetingNotReady,
                message,
                stalled: false,
            };
            return self.close(breakout, state, EndReason::Closed).await;
        };
        let wish = meeting.spec.worker_pool_ref.as_ref();
        let pool = match room::resolve_pool(self.context, &namespace(&breakout), wish) {
            Ok(pool) => pool,
            Err(fault) => {
                let state = State::Waiting {
                    reason: fault.reason,
                    message: fault.message,
                    stalled: true,
                };
                let action = self.again.action();
                self.write(breakout, state, None, false).await?;
                return Ok(action);
            }
        };
        self.keep_placed(breakout, &meeting, &main, &pool).await
    }

    async fn keep_placed(
        mut self,
        mut breakout: BreakoutRoom,
        meeting: &Meeting,
        main: &Assignment,
        pool: &plenum_crds::MediaWorkerPool,
    ) -> Result<Action, ReconcileError> {
        let before = breakout.status.clone().unwrap_or_default();
        let was_ready = was_open(&before);
        let current = before.assignment.clone();
        let holder = current
            .as_ref()
            .map(|assignment| room::holder(self.context, assignment, &self.room, was_ready, &mut self.again));
        let held = room::epoch_held(self.context, current.as_ref(), &self.room);
        let epoch = before.epoch.unwrap_or(0).max(held);
        let preferred = Some(main.worker_uid.as_str());
        let with_holder = current.as_ref().zip(holder);
        let assignment = match room::place(self.context, &self.room, with_holder, epoch, pool, preferred) {
            Placement::Keep => {
                let Some(assignment) = current else {
                    return Ok(self.again.action());
                };
                if holder == Some(Holder::Lost) {
                    self.again.after(Duration::from_secs(5));
                    let message = format!("worker {} does not answer", assignment.worker);
                    let state = State::Waiting {
                        reason: Reason::WorkerUnreachable,
                        message,
                        stalled: false,
                    };
                    let action = self.again.action();
                    self.write(breakout, state, None, false).await?;
                    return Ok(action);
                }
                assignment
            }
            Placement::Wait(obstacle) => {
                let (reason, message) = room::obstacle(obstacle, pool);
                let action = self.again.action();
                self.write(
                    breakout,
                    State::Waiting {
                        reason,
                        message,
                        stalled: false,
                    },
                    None,
                    false,
                )
                .await?;
                return Ok(action);
            }
            Placement::Assign(to) => {
                if let Some(guarded) = status::set_finalizer(&self.api, &breakout, FINALIZER, true).await? {
                    self.context.metrics.wrote("BreakoutRoom");
                    breakout = guarded;
                }
                breakout = self
                    .write(breakout, State::Assigning(to.clone()), None, false)
                    .await?;
                let note = format!("placed on worker {} (epoch {})", to.worker, to.epoch);
                self.context
                    .events
                    .normal(breakout.object_ref(&()), "Assign", Reason::Placed, &note);
                to
            }
        };
        let spec = room_spec(&breakout, meeting, &self.room, assignment.epoch);
        match room::tell(self.context, &assignment, spec).await {
            Ok(()) => {}
            Err(error) if error.is_stale_epoch() || error.is_draining() => {
                self.context.forget(&self.room);
                let mut status = breakout.status.clone().unwrap_or_default();
                let held = room::epoch_held(self.context, Some(&assignment), &self.room);
                status.epoch = Some(assignment.epoch.max(status.epoch.unwrap_or(0)).max(held));
                status.assignment = None;
                status::apply(&self.api, &breakout, MANAGER, &status).await?;
                return Ok(Action::requeue(Duration::from_millis(200)));
            }
            // Placed before, and the line is down for a moment: nothing that anyone should see.
            Err(_) if breakout.status.as_ref().is_some_and(was_open) => {
                self.again.after(Duration::from_secs(2));
                return Ok(self.again.action());
            }
            Err(error) => return Err(error.into()),
        }
        let report = room::report(self.context, &assignment, &self.room);
        let draining = room::is_draining(self.context, &assignment);
        let written = breakout.status.as_ref().and_then(|status| status.participants);
        let live = report.as_ref().map(|report| report.participants);
        let count = live.is_some_and(|live| {
            self.context
                .decide_count(&self.room, written, live, &mut self.again)
        });
        let closes = self
            .write(breakout, State::Open { assignment, draining }, report, count)
            .await?;
        if let Some(at) = closes_at(&closes) {
            self.again
                .after(Duration::try_from(at.duration_since(self.now)).unwrap_or_default());
        }
        Ok(self.again.action())
    }

    /// Gives the worker back, and says why.
    async fn close(
        self,
        breakout: BreakoutRoom,
        state: State,
        reason: EndReason,
    ) -> Result<Action, ReconcileError> {
        if let Some(assignment) = breakout
            .status
            .as_ref()
            .and_then(|status| status.assignment.as_ref())
        {
            room::release(self.context, assignment, &self.room, reason).await?;
        }
        let action = self.again.action();
        let written = self.write(breakout, state, None, false).await?;
        status::set_finalizer(&self.api, &written, FINALIZER, false).await?;
        Ok(action)
    }

    async fn delete(self, breakout: &BreakoutRoom) -> Result<Action, ReconcileError> {
        if !breakout
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == FINALIZER)
        {
            self.context.forget(&self.room);
            return Ok(Action::await_change());
        }
        if let Some(assignment) = breakout
            .status
            .as_ref()
            .and_then(|status| status.assignment.as_ref())
            && let Err(error) = room::release(self.context, assignment, &self.room, EndReason::Deleted).await
        {
            let since = breakout
                .metadata
                .deletion_timestamp
                .as_ref()
                .map_or(self.now, |at| at.0);
            let waited = Duration::try_from(self.now.duration_since(since)).unwrap_or_default();
            if waited < RELEASE_TIMEOUT {
                return Ok(Action::requeue(
                    Duration::from_secs(2).min(RELEASE_TIMEOUT - waited),
                ));
            }
            tracing::warn!(room = %self.room, %error, "room not released in time; its worker ends it by itself");
        }
        status::set_finalizer(&self.api, breakout, FINALIZER, false).await?;
        self.context.metrics.wrote("BreakoutRoom");
        self.context.forget(&self.room);
        Ok(Action::await_change())
    }

    async fn write(
        &self,
        breakout: BreakoutRoom,
        state: State,
        report: Option<RoomReport>,
        count: bool,
    ) -> Result<BreakoutRoom, ReconcileError> {
        let before = breakout.status.clone().unwrap_or_default();
        let now = self.now;
        let mut after = compute(&breakout, &before, state.clone(), report.as_ref(), count, now);
        if after == before {
            return Ok(breakout);
        }
        // It is written anyway: the count comes along.
        after = compute(&breakout, &before, state, report.as_ref(), true, now);
        let written = status::apply(&self.api, &breakout, MANAGER, &after).await?;
        self.context.metrics.wrote("BreakoutRoom");
        if after.participants != before.participants {
            self.context.counted(&self.room);
        }
        Ok(written)
    }
}

/// Whether the worker was told of the room under its present assignment.
fn was_open(status: &BreakoutRoomStatus) -> bool {
    let reason = status::reason_of(&status.conditions, ConditionType::Ready);
    status.assignment.is_some()
        && (reason == Some(Reason::Open.as_str()) || reason == Some(Reason::WorkerUnreachable.as_str()))
}

/// When an open room closes by itself.
fn closes_at(breakout: &BreakoutRoom) -> Option<Timestamp> {
    let opened = breakout.status.as_ref()?.opened_at.as_ref()?.0;
    Some(opened + breakout.spec.close_after.as_ref()?.non_zero()?)
}

/// The status that follows from the state. Pure.
fn compute(
    breakout: &BreakoutRoom,
    before: &BreakoutRoomStatus,
    state: State,
    report: Option<&RoomReport>,
    count: bool,
    now: Timestamp,
) -> BreakoutRoomStatus {
    let generation = breakout.metadata.generation;
    let mut conditions = Conditions::new(&before.conditions, generation, now);
    let was_active = before
        .conditions
        .iter()
        .any(|one| one.type_ == "Active" && one.status == "True");
    let mut active = report.map_or(was_active, is_active);
    let mut opened_at = before.opened_at.clone();
    let assignment = match state {
        State::Closed(why) => {
            conditions.set(ConditionType::Ready, true, Reason::Closed, why);
            // Opened anew, it has its whole time again.
            if !breakout.spec.open {
                opened_at = None;
            }
            None
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
    active &= assignment.is_some();
    match &assignment {
        Some(to) => {
            conditions.set(
                ConditionType::Assigned,
                true,
                Reason::Placed,
                format!("on worker {}", to.worker),
            );
        }
        None => conditions.set(ConditionType::Assigned, false, Reason::NotPlaced, "on no worker"),
    }
    let (reason, message) = if active {
        (Reason::Active, "people are in the room")
    } else {
        (Reason::Idle, "nobody is in the room")
    };
    conditions.set(ConditionType::Active, active, reason, message);
    let participants = match (&assignment, report) {
        (None, _) => Some(0),
        (Some(_), Some(report)) if count || before.participants.is_none() => {
            Some(i32::try_from(report.participants).unwrap_or(i32::MAX))
        }
        _ => before.participants.or(Some(0)),
    };
    let epoch = assignment
        .as_ref()
        .map_or(0, |to| to.epoch)
        .max(before.epoch.unwrap_or(0));
    let close_after = breakout
        .spec
        .close_after
        .as_ref()
        .and_then(plenum_crds::Duration::non_zero);
    BreakoutRoomStatus {
        observed_generation: generation.unwrap_or(before.observed_generation),
        conditions: conditions.finish(),
        epoch: (epoch > 0).then_some(epoch),
        participants,
        closes_at: opened_at
            .as_ref()
            .zip(close_after)
            .map(|(opened, after)| Time(opened.0 + after)),
        opened_at,
        assignment,
    }
}

/// The room as its worker is told of it.
fn room_spec(breakout: &BreakoutRoom, meeting: &Meeting, room: &str, epoch: i64) -> RoomSpec {
    let spec = &breakout.spec;
    let decided = meeting.status.as_ref().and_then(|status| status.session.as_ref());
    RoomSpec {
        name: room.to_owned(),
        epoch: u64::try_from(epoch).unwrap_or(0),
        meeting: main_room(meeting),
        title: spec.title.clone().unwrap_or_else(|| breakout.name_any()),
        max_participants: spec.max_participants.unwrap_or(meeting.spec.max_participants),
        // A breakout room is there for as long as it is open, people or not.
        empty_timeout_ms: 0,
        departure_timeout_ms: meeting.spec.departure_timeout.as_millis(),
        max_duration_ms: spec
            .close_after
            .as_ref()
            .map_or(0, plenum_crds::Duration::as_millis),
        locked: decided
            .and_then(|session| session.locked)
            .unwrap_or(meeting.spec.locked),
        metadata: meeting.spec.metadata.clone().unwrap_or_default(),
        codecs: meeting
            .spec
            .media
            .codecs
            .iter()
            .map(|codec| codec.wire_name().to_owned())
            .collect(),
        breakouts: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn breakout(spec: serde_json::Value) -> BreakoutRoom {
        let mut breakout = BreakoutRoom::new("one", serde_json::from_value(spec).unwrap());
        breakout.metadata.generation = Some(1);
        breakout
    }

    fn on() -> Assignment {
        Assignment {
            worker: "w".into(),
            worker_uid: "u".into(),
            worker_namespace: "p".into(),
            epoch: 3,
        }
    }

    #[test]
    fn it_opens_once_closes_on_time_and_opens_anew() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut room = breakout(json!({ "meetingRef": { "name": "daily" }, "closeAfter": "10m" }));
        let open = || State::Open {
            assignment: on(),
            draining: false,
        };
        let first = compute(&room, &BreakoutRoomStatus::default(), open(), None, false, now);
        assert_eq!(first.closes_at, Some(Time(now + Duration::from_secs(600))));
        let again = compute(&room, &first, open(), None, false, now + Duration::from_secs(60));
        assert_eq!(again, first, "no write while nothing changes");
        room.status = Some(first.clone());
        assert_eq!(closes_at(&room), Some(now + Duration::from_secs(600)));
        let closed = compute(
            &room,
            &first,
            State::Closed("over"),
            None,
            false,
            now + Duration::from_secs(600),
        );
        assert_eq!(
            (closed.opened_at.clone(), closed.assignment.clone(), closed.epoch),
            (first.opened_at, None, Some(3))
        );
        room.spec.open = false;
        let off = compute(&room, &closed, State::Closed("off"), None, false, now);
        assert_eq!((off.opened_at, off.closes_at), (None, None));
    }
}
