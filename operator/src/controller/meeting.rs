//! Reconciles Meetings: schedule, placement, the worker's orders, status, release.
//!
//! Invariants: the assignment is written before the worker is told of it; the epoch never falls;
//! the finalizer is there while an assignment is, and its removal waits for the worker no longer than
//! [`room::release_deleted`] does; the spec is never written. What the status says is computed in
//! [`super::meeting_status`], purely.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};
use plenum_breakout::Plan;
use plenum_crds::{Assignment, ConditionType, FINALIZER, MediaWorkerPool, Meeting, MeetingStatus, Reason};
use plenum_errors::Code;
use plenum_protocol::Mode;
use plenum_worker_api::v1::{BreakoutEntry, Breakouts, EndReason, RoomReport, RoomSpec};

use super::context::{Again, Context, ReconcileError, is_gone};
use super::crowd::Expected;
use super::index::{Guard, main_room, namespace};
use super::meeting_status::{self, Facts, State};
use super::placement::{Holder, Placement};
use super::schedule::{self, Phase};
use super::{room, status};

/// Field manager of what this reconciler writes.
pub(crate) const MANAGER: &str = "plenum-meeting-controller";
/// A Secret that was there is looked at again after this.
const SECRET_CHECK: Duration = Duration::from_secs(300);

/// One look at a Meeting.
pub(crate) async fn reconcile(
    object: Arc<Guard<Meeting>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let meeting = match &object.0 {
        Ok(meeting) => meeting,
        Err(error) => {
            tracing::warn!(meeting = %object.name_any(), %error, "meeting cannot be read");
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
        api: Api::namespaced(context.client.clone(), &namespace(meeting)),
        room: main_room(meeting),
        now: Timestamp::now(),
        again: Again::default(),
        context: &context,
    };
    if meeting.metadata.deletion_timestamp.is_some() {
        reconciler.delete(meeting).await
    } else {
        reconciler.run(meeting.clone()).await
    }
}

struct Reconciler<'a> {
    context: &'a Context,
    api: Api<Meeting>,
    room: String,
    now: Timestamp,
    again: Again,
}

impl Reconciler<'_> {
    async fn run(mut self, meeting: Meeting) -> Result<Action, ReconcileError> {
        let phase = match schedule::phase(meeting.spec.schedule.as_ref(), self.now) {
            Ok(phase) => phase,
            Err(error) => {
                let message = format!("{error}: {}", Code::InvalidSchedule.remedy());
                return self.fault(meeting, Reason::InvalidSchedule, message, true).await;
            }
        };
        if let Phase::Before(at) | Phase::Open(Some(at)) = phase {
            self.again.after(room::until(self.now, at));
        }
        if let Some(rest) = self.rest(&meeting, phase) {
            return self.close(meeting, rest).await;
        }
        if let Err(message) = self.check_secret(&meeting).await? {
            self.again.after(Duration::from_secs(15));
            return self.fault(meeting, Reason::SecretMissing, message, true).await;
        }
        let resolved = room::resolve_pool(
            self.context,
            &namespace(&meeting),
            meeting.spec.worker_pool_ref.as_ref(),
        );
        let pool = match resolved {
            Ok(pool) => pool,
            Err(fault) => return self.fault(meeting, fault.reason, fault.message, true).await,
        };
        self.keep_placed(meeting, pool).await
    }

    /// Whether the meeting should hold no worker now, and why.
    fn rest(&mut self, meeting: &Meeting, phase: Phase) -> Option<Rest> {
        if meeting.spec.suspend {
            return Some(Rest::Suspended);
        }
        match phase {
            Phase::Before(opens) => return Some(Rest::Scheduled(opens)),
            Phase::Over => return Some(Rest::Over),
            Phase::Open(_) => {}
        }
        let limit = meeting.spec.max_duration.non_zero()?;
        let before = meeting.status.as_ref();
        let ended = before.is_some_and(|before| {
            status::reason_of(&before.conditions, ConditionType::Ready) == Some(Reason::Ended.as_str())
                && Some(before.observed_generation) == meeting.metadata.generation
        });
        if ended {
            // It stays ended until somebody changes it, or its next occurrence comes.
            return Some(Rest::TooLong);
        }
        let since = self
            .report(meeting)
            .filter(meeting_status::is_active)?
            .active_since_ms;
        let ends = Timestamp::from_millisecond(since).ok()? + limit;
        if self.now >= ends {
            return Some(Rest::TooLong);
        }
        self.again.after(room::until(self.now, ends));
        None
    }

    /// Gives the worker back, and says why.
    async fn close(self, meeting: Meeting, rest: Rest) -> Result<Action, ReconcileError> {
        let before = meeting.status.clone().unwrap_or_default();
        let report = self.report(&meeting);
        if let Some(assignment) = &before.assignment {
            let reason = match rest {
                Rest::Over | Rest::TooLong => EndReason::Expired,
                Rest::Suspended | Rest::Scheduled(_) => EndReason::Closed,
            };
            room::release(self.context, assignment, &self.room, reason).await?;
        }
        let state = match rest {
            Rest::Scheduled(opens) => State::Scheduled { opens },
            Rest::Suspended => State::Suspended,
            Rest::Over => State::Ended {
                message: "the schedule is over".to_owned(),
            },
            Rest::TooLong => State::Ended {
                message: "the meeting reached spec.maxDuration".to_owned(),
            },
        };
        let action = self.again.action();
        let written = self.write(meeting, state, report, false).await?;
        status::set_finalizer(&self.api, &written, FINALIZER, false).await?;
        Ok(action)
    }

    /// Places the meeting where it is not, and makes its worker hold it.
    async fn keep_placed(
        mut self,
        mut meeting: Meeting,
        pool: MediaWorkerPool,
    ) -> Result<Action, ReconcileError> {
        let before = meeting.status.clone().unwrap_or_default();
        let report = self.report(&meeting);
        let active = report.as_ref().is_some_and(meeting_status::is_active);
        let was_ready = meeting_status::was_placed(&before);
        let mut current = before.assignment.clone();
        if let Some(assignment) = &current
            && !active
            && !room::is_of(self.context, assignment, &pool)
        {
            // The meeting was given another pool; nobody is in it, so it goes there at once.
            room::release(self.context, assignment, &self.room, EndReason::Moved).await?;
            current = None;
        }
        let holder = current
            .as_ref()
            .map(|assignment| room::holder(self.context, assignment, &self.room, was_ready, &mut self.again));
        let with_holder = current.as_ref().zip(holder);
        let held = room::epoch_held(self.context, current.as_ref(), &self.room);
        let epoch = before.epoch.unwrap_or(0).max(held);
        let assignment = match room::place(
            self.context,
            &self.room,
            with_holder,
            epoch,
            &pool,
            Expected::default(),
            None,
        ) {
            Placement::Keep => {
                let Some(assignment) = current else {
                    return Ok(self.again.action());
                };
                if holder == Some(Holder::Lost) {
                    let message = format!(
                        "worker {} does not answer: {}",
                        assignment.worker,
                        Code::WorkerUnreachable.remedy()
                    );
                    self.again.after(Duration::from_secs(5));
                    let action = self.again.action();
                    self.write(meeting, State::Unreachable { assignment, message }, None, true)
                        .await?;
                    return Ok(action);
                }
                assignment
            }
            Placement::Wait(obstacle) => {
                let (reason, message) = room::obstacle(obstacle, &pool);
                return self.fault(meeting, reason, message, false).await;
            }
            Placement::Assign(to) => {
                meeting = self.assign(meeting, &to, current.as_ref(), holder).await?;
                to
            }
        };
        self.order(meeting, assignment).await
    }

    /// Writes a new assignment: the finalizer first, so that there is none without it.
    async fn assign(
        &self,
        meeting: Meeting,
        to: &Assignment,
        from: Option<&Assignment>,
        holder: Option<Holder>,
    ) -> Result<Meeting, ReconcileError> {
        let guarded = status::set_finalizer(&self.api, &meeting, FINALIZER, true).await?;
        if guarded.is_some() {
            self.context.metrics.wrote("Meeting");
        }
        let meeting = guarded.unwrap_or(meeting);
        let state = State::Assigning {
            assignment: to.clone(),
        };
        let written = self.write(meeting, state, None, false).await?;
        let note = format!("placed on worker {} (epoch {})", to.worker, to.epoch);
        self.context
            .events
            .normal(written.object_ref(&()), "Assign", Reason::Placed, &note);
        if let Some(from) = from
            && holder == Some(Holder::Lost)
        {
            // It may be alive after all; a higher epoch makes it give up the room in any case.
            let fleet = self.context.fleet.clone();
            let (uid, room, epoch) = (from.worker_uid.clone(), self.room.clone(), to.epoch);
            tokio::spawn(async move { fleet.release(&uid, &room, epoch, EndReason::Moved).await.ok() });
        }
        Ok(written)
    }

    /// Tells the worker what the meeting should be, and the object what it is.
    async fn order(mut self, meeting: Meeting, assignment: Assignment) -> Result<Action, ReconcileError> {
        let breakouts = self.breakouts(&meeting);
        let spec = room_spec(&meeting, &self.room, assignment.epoch, breakouts);
        let was_ready = meeting.status.as_ref().is_some_and(meeting_status::was_placed);
        match room::tell(self.context, &assignment, spec).await {
            Ok(()) => {}
            Err(error) if error.is_stale_epoch() || error.is_draining() => {
                // Somebody else held the room under a higher epoch, or the worker began to drain
                // between choice and order: the next epoch, where there is room.
                tracing::info!(room = %self.room, %error, "placing anew");
                self.context.forget(&self.room);
                let mut status = meeting.status.clone().unwrap_or_default();
                let held = room::epoch_held(self.context, Some(&assignment), &self.room);
                status.epoch = Some(assignment.epoch.max(status.epoch.unwrap_or(0)).max(held));
                status.assignment = None;
                let status = MeetingStatus {
                    session: None,
                    ..status
                };
                status::apply(&self.api, &meeting, MANAGER, &status).await?;
                self.context.metrics.wrote("Meeting");
                return Ok(Action::requeue(Duration::from_millis(200)));
            }
            // Placed before, and the line is down for a moment: nothing that anyone should see.
            Err(_) if was_ready => {
                self.again.after(Duration::from_secs(2));
                return Ok(self.again.action());
            }
            Err(error) => return Err(error.into()),
        }
        let report = room::report(self.context, &assignment, &self.room);
        let draining = room::is_draining(self.context, &assignment);
        let written = meeting.status.as_ref().and_then(|status| status.participants);
        let live = report.as_ref().map(|report| report.participants);
        let count_due = live.is_some_and(|live| {
            self.context
                .decide_count(&self.room, written, live, &mut self.again)
        });
        let action = self.again.action();
        self.write(meeting, State::Placed { assignment, draining }, report, count_due)
            .await?;
        Ok(action)
    }

    /// The breakout rooms as they are now, for the hub. Looks again when a room's time is over.
    fn breakouts(&mut self, meeting: &Meeting) -> Breakouts {
        let rooms = self
            .context
            .index
            .rooms_of(&namespace(meeting), &meeting.name_any());
        let plan = Plan::of(meeting, rooms.iter().filter_map(|room| room.0.as_ref().ok()));
        let now = self.now.as_millisecond();
        if let Some(at) = plan
            .next_change(now)
            .and_then(|at| Timestamp::from_millisecond(at).ok())
        {
            self.again.after(room::until(self.now, at));
        }
        let mut expectations = self.context.expectations();
        for room in &plan.rooms {
            let named = u32::try_from(room.participants.len()).unwrap_or(u32::MAX);
            expectations.named(&format!("{}/{}", self.room, room.id), named);
        }
        drop(expectations);
        wire_breakouts(&plan, now)
    }

    /// Something stands in the way. People who are in the meeting stay in it.
    async fn fault(
        self,
        meeting: Meeting,
        reason: Reason,
        message: String,
        stalled: bool,
    ) -> Result<Action, ReconcileError> {
        let report = self.report(&meeting);
        let before = meeting
            .status
            .as_ref()
            .and_then(|status| status.assignment.clone());
        let kept = before.filter(|assignment| self.context.index.worker(assignment).is_some());
        let action = self.again.action();
        self.write(
            meeting,
            State::Fault {
                reason,
                message,
                stalled,
                assignment: kept,
            },
            report,
            false,
        )
        .await?;
        Ok(action)
    }

    /// Ends the room and lets the object go.
    async fn delete(self, meeting: &Meeting) -> Result<Action, ReconcileError> {
        if !meeting
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == FINALIZER)
        {
            self.context.forget(&self.room);
            return Ok(Action::await_change());
        }
        let assignment = meeting
            .status
            .as_ref()
            .and_then(|status| status.assignment.as_ref());
        let waited = room::deleted_since(meeting, self.now);
        if let Some(wait) = room::release_deleted(self.context, assignment, &self.room, waited).await {
            return Ok(Action::requeue(wait));
        }
        status::set_finalizer(&self.api, meeting, FINALIZER, false).await?;
        self.context.metrics.wrote("Meeting");
        Ok(Action::await_change())
    }

    /// Writes the status that follows from the state, where it is another than before.
    async fn write(
        &self,
        meeting: Meeting,
        state: State,
        report: Option<RoomReport>,
        count: bool,
    ) -> Result<Meeting, ReconcileError> {
        let before = meeting.status.clone().unwrap_or_default();
        let open = self
            .context
            .index
            .rooms_of(&namespace(&meeting), &meeting.name_any());
        let facts = Facts {
            generation: meeting.metadata.generation,
            before: &before,
            state,
            report,
            count,
            rooms: i32::try_from(open.len()).unwrap_or(i32::MAX),
            join_url: format!("{}/m/{}", self.context.settings.public_url, self.room),
            now: self.now,
        };
        let after = meeting_status::compute(&facts);
        // What the gateway writes on behalf of hosts is not ours to write.
        let ours = MeetingStatus {
            session: None,
            ..before.clone()
        };
        if after == ours {
            return Ok(meeting);
        }
        let written = status::apply(&self.api, &meeting, MANAGER, &after).await?;
        self.context.metrics.wrote("Meeting");
        if after.participants != before.participants {
            self.context.counted(&self.room);
        }
        self.announce(&written, &before, &after);
        Ok(written)
    }

    /// An Event for every change of the Ready condition's reason that people care for.
    fn announce(&self, meeting: &Meeting, before: &MeetingStatus, after: &MeetingStatus) {
        let was = status::reason_of(&before.conditions, ConditionType::Ready);
        let Some(ready) = after
            .conditions
            .iter()
            .find(|one| one.type_ == ConditionType::Ready.as_str())
        else {
            return;
        };
        let assigning = Reason::Assigning.as_str();
        // That it was placed has an Event of its own.
        if was == Some(&ready.reason)
            || ready.reason == assigning
            || was == Some(assigning) && ready.reason == "Idle"
        {
            return;
        }
        let Some(reason) = meeting_status::ready_reason(&ready.reason) else {
            return;
        };
        let object = meeting.object_ref(&());
        if ready.status == "True" {
            self.context
                .events
                .normal(object, "Reconcile", reason, &ready.message);
        } else {
            self.context
                .events
                .warning(object, "Reconcile", reason, &ready.message);
        }
    }

    /// Whether the Secret that the meeting names is there with its keys; the message otherwise.
    async fn check_secret(&self, meeting: &Meeting) -> Result<Result<(), String>, ReconcileError> {
        let Some(reference) = &meeting.spec.key_secret_ref else {
            return Ok(Ok(()));
        };
        let key = format!("secret/{}/{}", namespace(meeting), reference.name);
        let was_missing = meeting.status.as_ref().is_some_and(|before| {
            status::reason_of(&before.conditions, ConditionType::Ready)
                == Some(Reason::SecretMissing.as_str())
        });
        if !was_missing && !self.context.is_due(&key) {
            return Ok(Ok(()));
        }
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &namespace(meeting));
        let remedy = Code::SecretMissing.remedy();
        Ok(match api.get(&reference.name).await {
            Ok(secret) => {
                let long_enough = |key: &str, least: usize| {
                    secret
                        .data
                        .as_ref()
                        .and_then(|data| data.get(key))
                        .is_some_and(|value| value.0.len() >= least)
                };
                if long_enough("apiKey", 1) && long_enough("apiSecret", 32) {
                    self.context.looked_at(&key, SECRET_CHECK);
                    Ok(())
                } else {
                    Err(format!(
                        "Secret {} lacks apiKey or an apiSecret of 32 bytes: {remedy}",
                        reference.name
                    ))
                }
            }
            Err(error) if is_gone(&error) => Err(format!("no Secret {}: {remedy}", reference.name)),
            Err(kube::Error::Api(denied)) if denied.code == 403 => Err(format!(
                "the operator may not read Secret {}: give it the right to get this Secret by name",
                reference.name
            )),
            Err(error) => return Err(error.into()),
        })
    }

    fn report(&self, meeting: &Meeting) -> Option<RoomReport> {
        let assignment = meeting.status.as_ref()?.assignment.as_ref()?;
        room::report(self.context, assignment, &self.room)
    }
}

/// Why a meeting holds no worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Scheduled(Timestamp),
    Suspended,
    Over,
    TooLong,
}

/// The plan as the hub takes it.
fn wire_breakouts(plan: &Plan, now: i64) -> Breakouts {
    let mode = match plan.mode {
        Mode::Automatic => "automatic",
        Mode::SelfSelect => "selfSelect",
        Mode::Manual => "manual",
    };
    let rooms = plan.views(now).into_iter().map(|room| BreakoutEntry {
        id: room.id,
        title: room.title,
        max_participants: room.max_participants,
        open: room.open,
        closes_at_ms: room.closes_at.unwrap_or(0),
        participants: room.participants,
    });
    Breakouts {
        mode: mode.to_owned(),
        rooms: rooms.collect(),
        allow_return_to_main: plan.allow_return_to_main,
        allow_cancel: plan.allow_cancel,
    }
}

/// The meeting as its worker is told of it.
fn room_spec(meeting: &Meeting, room: &str, epoch: i64, breakouts: Breakouts) -> RoomSpec {
    let spec = &meeting.spec;
    RoomSpec {
        meeting: room.to_owned(),
        title: spec.title.clone().unwrap_or_else(|| meeting.name_any()),
        max_participants: spec.max_participants,
        empty_timeout_ms: spec.empty_timeout.as_millis(),
        max_duration_ms: spec.max_duration.as_millis(),
        breakouts: Some(breakouts),
        ..room::common_spec(meeting, room, epoch)
    }
}
