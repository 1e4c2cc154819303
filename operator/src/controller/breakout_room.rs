//! Reconciles BreakoutRooms: a room of its own on a worker, by preference the one of the meeting.
//!
//! Invariants: as for Meetings (assignment before order, rising epoch, bounded release); what hosts
//! decided is laid over the spec ([`plenum_breakout::effective`]), which is never written; a room
//! lives only while its Meeting is neither deleted nor resting, and outlives the moments in which
//! that one changes its worker. When it opens and closes is decided in [`super::closing`], what the
//! status says in [`super::breakout_status`], both purely.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};
use plenum_breakout::{Plan, effective};
use plenum_crds::{
    Assignment, BreakoutDecisions, BreakoutRoom, ConditionType, FINALIZER, MediaWorkerPool, Meeting, Reason,
};
use plenum_worker_api::v1::{EndReason, RoomReport, RoomSpec};
use tokio::time::Instant;

use super::breakout_status::{self, Facts, State, was_open};
use super::closing::{self, Stage};
use super::context::{Again, Context, ReconcileError};
use super::crowd::Expected;
use super::index::{Guard, breakout_room, main_room, namespace};
use super::placement::{Holder, Placement};
use super::{room, status};

/// Field manager of what this reconciler writes.
pub(crate) const MANAGER: &str = "plenum-breakout-room-controller";
/// People of a deleted room are moved by the gateways; the room is ended after this at the latest.
const DELETION_GRACE: Duration = Duration::from_secs(15);

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

impl Reconciler<'_> {
    async fn run(mut self, breakout: BreakoutRoom) -> Result<Action, ReconcileError> {
        let Some(meeting) = self.meeting(&breakout) else {
            let message = format!(
                "no Meeting {}: apply it, or delete this BreakoutRoom",
                breakout.spec.meeting_ref.name
            );
            let state = waiting(Reason::MeetingNotFound, message, true);
            return self.close(breakout, None, state, EndReason::Deleted).await;
        };
        let decisions = decisions(&meeting);
        let current = breakout
            .status
            .as_ref()
            .and_then(|status| status.assignment.as_ref());
        if rests(&meeting) || current.is_none() && main_worker(&meeting).is_none() {
            let message = format!("Meeting {} holds no worker", meeting.name_any());
            let state = waiting(Reason::MeetingNotReady, message, false);
            return self.close(breakout, decisions, state, EndReason::Closed).await;
        }
        let wanted = effective(&breakout, decisions);
        let people = current.map_or(Some(0), |assignment| {
            room::people(self.context, assignment, &self.room)
        });
        let before = breakout.status.clone().unwrap_or_default();
        let countdown = meeting.spec.breakouts.closing_countdown.get();
        let why = breakout_status::why(&breakout, decisions, wanted.open);
        match closing::stage(&wanted, &before, countdown, people, self.now) {
            Stage::Open { closes_at } => {
                if let Some(at) = closes_at {
                    self.again.after(room::until(self.now, at));
                }
                self.keep_open(breakout, &meeting, wanted.title).await
            }
            Stage::Closing { closes_at } => {
                self.again.after(room::until(self.now, closes_at));
                self.keep_closing(breakout, decisions, why, closes_at).await
            }
            Stage::Leaving { closed_at } => {
                let until = closing::later(closed_at, closing::GRACE);
                self.again.after(room::until(self.now, until));
                self.keep_closing(breakout, decisions, why, closed_at).await
            }
            Stage::Closed { closed_at } => {
                let timed_out = closed_at.filter(|_| wanted.open);
                let reason = if wanted.open {
                    EndReason::Expired
                } else {
                    EndReason::Closed
                };
                let state = State::Closed { why, timed_out };
                self.close(breakout, decisions, state, reason).await
            }
        }
    }

    /// The Meeting of the room, unless it is gone or going.
    fn meeting(&self, breakout: &BreakoutRoom) -> Option<Meeting> {
        let guard = self
            .context
            .index
            .meeting(&namespace(breakout), &breakout.spec.meeting_ref.name)?;
        let meeting = guard.0.as_ref().ok()?;
        meeting
            .metadata
            .deletion_timestamp
            .is_none()
            .then(|| meeting.clone())
    }

    /// Its people are about to leave: nothing is placed or told any more.
    async fn keep_closing(
        mut self,
        breakout: BreakoutRoom,
        decisions: Option<&BreakoutDecisions>,
        why: &'static str,
        closes_at: Timestamp,
    ) -> Result<Action, ReconcileError> {
        let assignment = breakout
            .status
            .as_ref()
            .and_then(|status| status.assignment.clone());
        let report = assignment.and_then(|assignment| room::report(self.context, &assignment, &self.room));
        let count = self.count(&breakout, report.as_ref());
        self.write(
            breakout,
            decisions,
            State::Closing { why, closes_at },
            report,
            count,
        )
        .await?;
        Ok(self.again.action())
    }

    /// Places the room where it is not, and makes its worker hold it.
    async fn keep_open(
        mut self,
        mut breakout: BreakoutRoom,
        meeting: &Meeting,
        title: String,
    ) -> Result<Action, ReconcileError> {
        let decisions = decisions(meeting);
        let wish = meeting.spec.worker_pool_ref.as_ref();
        let pool = match room::resolve_pool(self.context, &namespace(&breakout), wish) {
            Ok(pool) => pool,
            Err(fault) => {
                let state = waiting(fault.reason, fault.message, true);
                self.write(breakout, decisions, state, None, false).await?;
                return Ok(self.again.action());
            }
        };
        let before = breakout.status.clone().unwrap_or_default();
        let current = before.assignment.clone();
        let holder = current.as_ref().map(|assignment| {
            room::holder(
                self.context,
                assignment,
                &self.room,
                was_open(&before),
                &mut self.again,
            )
        });
        let assignment = match self.place(&breakout, meeting, &pool, current.as_ref().zip(holder)) {
            Placement::Keep => {
                let Some(assignment) = current else {
                    return Ok(self.again.action());
                };
                if holder == Some(Holder::Lost) {
                    self.again.after(Duration::from_secs(5));
                    let message = format!("worker {} does not answer", assignment.worker);
                    let state = waiting(Reason::WorkerUnreachable, message, false);
                    self.write(breakout, decisions, state, None, false).await?;
                    return Ok(self.again.action());
                }
                assignment
            }
            Placement::Wait(obstacle) => {
                let (reason, message) = room::obstacle(obstacle, &pool);
                let state = waiting(reason, message, false);
                self.write(breakout, decisions, state, None, false).await?;
                return Ok(self.again.action());
            }
            Placement::Assign(to) => {
                breakout = self.assign(breakout, decisions, &to).await?;
                to
            }
        };
        self.order(breakout, meeting, assignment, title).await
    }

    fn place(
        &self,
        breakout: &BreakoutRoom,
        meeting: &Meeting,
        pool: &MediaWorkerPool,
        current: Option<(&Assignment, Holder)>,
    ) -> Placement {
        let present = matches!(current, Some((_, Holder::Present)));
        // After a change of leaders, a room that is placed is counted like one that was just placed.
        if present && self.context.expectations().knows(&self.room) {
            return Placement::Keep;
        }
        let expected = self.expected(breakout, meeting);
        if present {
            self.context
                .expectations()
                .placed(&self.room, expected, Instant::now());
            return Placement::Keep;
        }
        let assignment = current.map(|(assignment, _)| assignment);
        let written = breakout
            .status
            .as_ref()
            .and_then(|status| status.epoch)
            .unwrap_or(0);
        let epoch = written.max(room::epoch_held(self.context, assignment, &self.room));
        let home = main_worker(meeting).map(|main| main.worker_uid.as_str());
        room::place(self.context, &self.room, current, epoch, pool, expected, home)
    }

    /// How many people will be in the room, as far as can be said before anybody is.
    fn expected(&self, breakout: &BreakoutRoom, meeting: &Meeting) -> Expected {
        let rooms = self
            .context
            .index
            .rooms_of(&namespace(meeting), &meeting.name_any());
        let plan = Plan::of(meeting, rooms.iter().filter_map(|room| room.0.as_ref().ok()));
        let named = plan.room(&breakout.name_any()).map_or(0, |room| {
            u32::try_from(room.participants.len()).unwrap_or(u32::MAX)
        });
        let main = main_room(meeting);
        let mut people =
            main_worker(meeting).map_or(0, |worker| self.context.present(&worker.worker_uid, &main));
        let mut open = 0_u32;
        for room in &plan.rooms {
            open += u32::from(room.is_open(self.now.as_millisecond()));
            if let Some(uid) = &room.worker_uid {
                people = people.saturating_add(self.context.present(uid, &format!("{main}/{}", room.id)));
            }
        }
        let most = breakout
            .spec
            .max_participants
            .unwrap_or(meeting.spec.max_participants);
        Expected {
            named: named.min(most),
            share: people.div_ceil(open.max(1)).min(most),
        }
    }

    /// Writes a new assignment: the finalizer first, so that there is none without it.
    async fn assign(
        &self,
        mut breakout: BreakoutRoom,
        decisions: Option<&BreakoutDecisions>,
        to: &Assignment,
    ) -> Result<BreakoutRoom, ReconcileError> {
        if let Some(guarded) = status::set_finalizer(&self.api, &breakout, FINALIZER, true).await? {
            self.context.metrics.wrote("BreakoutRoom");
            breakout = guarded;
        }
        let written = self
            .write(breakout, decisions, State::Assigning(to.clone()), None, false)
            .await?;
        let note = format!("placed on worker {} (epoch {})", to.worker, to.epoch);
        self.context
            .events
            .normal(written.object_ref(&()), "Assign", Reason::Placed, &note);
        Ok(written)
    }

    /// Tells the worker what the room should be, and the object what it is.
    async fn order(
        mut self,
        breakout: BreakoutRoom,
        meeting: &Meeting,
        assignment: Assignment,
        title: String,
    ) -> Result<Action, ReconcileError> {
        let spec = room_spec(&breakout, meeting, &self.room, title, assignment.epoch);
        match room::tell(self.context, &assignment, spec).await {
            Ok(()) => {}
            Err(error) if error.is_stale_epoch() || error.is_draining() => {
                self.context.forget(&self.room);
                let mut status = breakout.status.clone().unwrap_or_default();
                let held = room::epoch_held(self.context, Some(&assignment), &self.room);
                status.epoch = Some(assignment.epoch.max(status.epoch.unwrap_or(0)).max(held));
                status.assignment = None;
                status::apply(&self.api, &breakout, MANAGER, &status).await?;
                self.context.metrics.wrote("BreakoutRoom");
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
        if report.as_ref().is_some_and(|report| report.participants > 0) {
            self.context.expectations().in_use(&self.room, Instant::now());
        }
        let draining = room::is_draining(self.context, &assignment);
        let count = self.count(&breakout, report.as_ref());
        let state = State::Open { assignment, draining };
        let written = self
            .write(breakout, decisions(meeting), state, report, count)
            .await?;
        if let Some(at) = written.status.and_then(|status| status.closes_at) {
            self.again.after(room::until(self.now, at.0));
        }
        Ok(self.again.action())
    }

    /// Whether the participant count is to be written.
    fn count(&mut self, breakout: &BreakoutRoom, report: Option<&RoomReport>) -> bool {
        let written = breakout.status.as_ref().and_then(|status| status.participants);
        report.is_some_and(|report| {
            self.context
                .decide_count(&self.room, written, report.participants, &mut self.again)
        })
    }

    /// Gives the worker back, and says why.
    async fn close(
        self,
        breakout: BreakoutRoom,
        decisions: Option<&BreakoutDecisions>,
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
        let written = self.write(breakout, decisions, state, None, false).await?;
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
        let assignment = breakout
            .status
            .as_ref()
            .and_then(|status| status.assignment.as_ref());
        let waited = room::deleted_since(breakout, self.now);
        let people = assignment.map_or(Some(0), |assignment| {
            room::people(self.context, assignment, &self.room)
        });
        // The gateways move its people, after the usual notice. With the Meeting they have nowhere to go.
        if people != Some(0) && waited < DELETION_GRACE && self.meeting(breakout).is_some() {
            return Ok(Action::requeue(DELETION_GRACE - waited));
        }
        if let Some(wait) = room::release_deleted(self.context, assignment, &self.room, waited).await {
            return Ok(Action::requeue(wait));
        }
        status::set_finalizer(&self.api, breakout, FINALIZER, false).await?;
        self.context.metrics.wrote("BreakoutRoom");
        Ok(Action::await_change())
    }

    /// Writes the status that follows from the state, where it is another than before.
    async fn write(
        &self,
        breakout: BreakoutRoom,
        decisions: Option<&BreakoutDecisions>,
        state: State,
        report: Option<RoomReport>,
        count: bool,
    ) -> Result<BreakoutRoom, ReconcileError> {
        let before = breakout.status.clone().unwrap_or_default();
        let after = breakout_status::compute(&Facts {
            breakout: &breakout,
            decisions,
            before: &before,
            state,
            report,
            count,
            now: self.now,
        });
        if after == before {
            return Ok(breakout);
        }
        let written = status::apply(&self.api, &breakout, MANAGER, &after).await?;
        self.context.metrics.wrote("BreakoutRoom");
        if after.participants != before.participants {
            self.context.counted(&self.room);
        }
        let was = status::reason_of(&before.conditions, ConditionType::Ready);
        let now = status::reason_of(&after.conditions, ConditionType::Ready);
        if was != now {
            self.announce(&written);
        }
        Ok(written)
    }

    /// An Event for every change of the Ready condition's reason that people care for.
    fn announce(&self, breakout: &BreakoutRoom) {
        let conditions = breakout.status.iter().flat_map(|status| &status.conditions);
        let Some(ready) = conditions
            .into_iter()
            .find(|one| one.type_ == ConditionType::Ready.as_str())
        else {
            return;
        };
        let Some(reason) = breakout_status::announced(&ready.reason) else {
            return;
        };
        let (object, events) = (breakout.object_ref(&()), &self.context.events);
        if ready.status == "True" {
            events.normal(object, "Reconcile", reason, &ready.message);
        } else {
            events.warning(object, "Reconcile", reason, &ready.message);
        }
    }
}

fn waiting(reason: Reason, message: String, stalled: bool) -> State {
    State::Waiting {
        reason,
        message,
        stalled,
    }
}

/// What hosts decided about breakout rooms of the meeting.
fn decisions(meeting: &Meeting) -> Option<&BreakoutDecisions> {
    meeting.status.as_ref()?.session.as_ref()?.breakouts.as_ref()
}

/// The worker of the main room.
fn main_worker(meeting: &Meeting) -> Option<&Assignment> {
    meeting.status.as_ref()?.assignment.as_ref()
}

/// Whether the meeting holds no worker because it should hold none.
fn rests(meeting: &Meeting) -> bool {
    let Some(status) = &meeting.status else {
        return false;
    };
    let reason = status::reason_of(&status.conditions, ConditionType::Ready);
    let resting = [Reason::Scheduled, Reason::Ended, Reason::Suspended];
    status.assignment.is_none() && resting.iter().any(|one| reason == Some(one.as_str()))
}

/// The room as its worker is told of it.
fn room_spec(breakout: &BreakoutRoom, meeting: &Meeting, room: &str, title: String, epoch: i64) -> RoomSpec {
    let spec = &breakout.spec;
    RoomSpec {
        meeting: main_room(meeting),
        title,
        max_participants: spec.max_participants.unwrap_or(meeting.spec.max_participants),
        // A breakout room is there for as long as it is open, people or not.
        empty_timeout_ms: 0,
        // It may be prolonged; the controller ends it when its time is over.
        max_duration_ms: 0,
        breakouts: None,
        ..room::common_spec(meeting, room, epoch)
    }
}
