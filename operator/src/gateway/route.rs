//! Which worker holds a room, and under which epoch.
//!
//! Owns the answer to "where is NAMESPACE/MEETING[/ROOM]", read from mirrors of Meetings,
//! BreakoutRooms and worker Pods; every gateway answers from memory, so joins outlive the API
//! server. Invariants: a pod counts only under the UID that the assignment names; a room of one
//! namespace is never looked up in another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource as _, ResourceExt as _};
use plenum_breakout::effective;
use plenum_crds::{Assignment, BreakoutRoom, Meeting};
use plenum_errors::{Code, PublicError};
use tokio::sync::watch;

use super::meetings::now_ms;
use super::metrics::Metrics;
use super::mirror::Mirror;

/// How long an object that nobody heard of is waited for: the watch may lag behind an apply.
const WAIT_UNKNOWN: Duration = Duration::from_millis(700);

/// After a wait in vain the same room is not waited for again for this long: a stock client asks
/// twice, the second time with a deadline of three seconds.
const WAITED: Duration = Duration::from_secs(5);
const WAITED_MAX: usize = 4096;

/// A room's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomName<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) meeting: &'a str,
    /// The breakout room; `None` = the main room.
    pub(crate) breakout: Option<&'a str>,
}

impl<'a> RoomName<'a> {
    /// `NAMESPACE/MEETING` or `NAMESPACE/MEETING/ROOM`.
    pub(crate) fn parse(room: &'a str) -> Option<RoomName<'a>> {
        let mut parts = room.split('/');
        let name = RoomName {
            namespace: parts.next()?,
            meeting: parts.next()?,
            breakout: parts.next(),
        };
        let whole = parts.next().is_none()
            && !name.namespace.is_empty()
            && !name.meeting.is_empty()
            && name.breakout != Some("");
        whole.then_some(name)
    }
}

/// A worker pod that can be called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerAddress {
    pub(crate) uid: String,
    pub(crate) ip: IpAddr,
}

/// Where a room is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) worker: WorkerAddress,
    pub(crate) epoch: u64,
}

/// Changes of the mirrors.
pub(crate) struct Changes([watch::Receiver<u64>; 3]);

impl Changes {
    /// The next change.
    pub(crate) async fn next(&mut self) {
        let [meetings, breakouts, pods] = &mut self.0;
        tokio::select! {
            _ = meetings.changed() => {}
            _ = breakouts.changed() => {}
            _ = pods.changed() => {}
        }
    }
}

/// The mirrors that routes are read from.
pub(crate) struct Routes {
    pub(crate) meetings: Arc<Mirror<Meeting>>,
    pub(crate) breakouts: Arc<Mirror<BreakoutRoom>>,
    pub(crate) pods: Arc<Mirror<Pod>>,
    pub(crate) metrics: Arc<Metrics>,
    /// Rooms that were waited for in vain, and when.
    pub(crate) waited: Mutex<HashMap<String, Instant>>,
}

impl Routes {
    /// Are all mirrors filled?
    pub(crate) fn is_synced(&self) -> bool {
        self.meetings.is_synced() && self.breakouts.is_synced() && self.pods.is_synced()
    }

    /// The Meeting of that name, waited for as long as a watch may lag.
    pub(crate) async fn meeting(&self, namespace: &str, name: &str) -> Result<Arc<Meeting>, PublicError> {
        let mut changed = self.meetings.changed();
        let deadline = tokio::time::Instant::now() + WAIT_UNKNOWN;
        loop {
            if let Some(meeting) = self.meetings.get(namespace, name) {
                return Ok(meeting);
            }
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                _ => {
                    return Err(PublicError::new(
                        Code::MeetingNotFound,
                        format!("{namespace}/{name}"),
                    ));
                }
            }
        }
    }

    /// Where `room` is, waiting a little where the watch may lag behind an apply.
    pub(crate) async fn find(&self, room: &str) -> Result<Route, PublicError> {
        let found = self.find_waiting(room).await;
        let outcome = found.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
        self.metrics.route_lookups.with_label_values(&[outcome]).inc();
        found
    }

    async fn find_waiting(&self, room: &str) -> Result<Route, PublicError> {
        let deadline = Instant::now() + WAIT_UNKNOWN;
        let mut changes = self.changes();
        loop {
            match self.lookup(room) {
                Err(error) if matches!(error.code, Code::MeetingNotFound | Code::RoomNotFound) => {
                    if RoomName::parse(room).is_none() || self.waited_lately(room) {
                        return Err(error);
                    }
                    if tokio::time::timeout_at(deadline.into(), changes.next())
                        .await
                        .is_err()
                    {
                        self.remember_wait(room);
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Fires after every change of what routes are read from.
    pub(crate) fn changes(&self) -> Changes {
        Changes([
            self.meetings.changed(),
            self.breakouts.changed(),
            self.pods.changed(),
        ])
    }

    /// Was this room waited for in vain, a moment ago?
    pub(crate) fn waited_lately(&self, room: &str) -> bool {
        let waited = self
            .waited
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        waited.get(room).is_some_and(|at| at.elapsed() < WAITED)
    }

    /// Notes that it was.
    pub(crate) fn remember_wait(&self, room: &str) {
        let mut waited = self
            .waited
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if waited.len() >= WAITED_MAX {
            waited.retain(|_, at| at.elapsed() < WAITED);
        }
        if waited.len() < WAITED_MAX {
            waited.insert(room.to_owned(), Instant::now());
        }
    }

    /// Where `room` is, by what is known now.
    pub(crate) fn lookup(&self, room: &str) -> Result<Route, PublicError> {
        let name = RoomName::parse(room).ok_or_else(|| {
            PublicError::new(
                Code::MeetingNotFound,
                "a room is named NAMESPACE/MEETING or NAMESPACE/MEETING/ROOM",
            )
        })?;
        let meeting = self
            .meetings
            .get(name.namespace, name.meeting)
            .ok_or_else(|| PublicError::new(Code::MeetingNotFound, room))?;
        if meeting.meta().deletion_timestamp.is_some() {
            return Err(PublicError::new(Code::MeetingEnded, "it was deleted"));
        }
        if meeting.spec.suspend {
            return Err(PublicError::new(Code::MeetingEnded, "it is suspended"));
        }
        let status = meeting.status.as_ref();
        let conditions = status
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        if ready_reason(conditions) == "Ended" {
            return Err(Code::MeetingEnded.into());
        }
        let Some(breakout) = name.breakout else {
            return self.follow(status.and_then(|status| status.assignment.as_ref()), conditions);
        };

        let room = self
            .breakouts
            .get(name.namespace, breakout)
            .filter(|room| room.spec.meeting_ref.name == name.meeting)
            .ok_or_else(|| PublicError::new(Code::RoomNotFound, room))?;
        let closed = || PublicError::new(Code::RoomClosed, "the breakout room is closed");
        if room.meta().deletion_timestamp.is_some() {
            return Err(closed());
        }
        let decided = status.and_then(|status| status.session.as_ref());
        let wanted = effective(&room, decided.and_then(|session| session.breakouts.as_ref()));
        let status = room.status.as_ref();
        // A room whose time is over keeps its worker until its people have left.
        let over = !wanted.open || wanted.closes_at_ms.is_some_and(|at| at <= now_ms());
        if over && status.is_none_or(|status| status.assignment.is_none()) {
            return Err(closed());
        }
        let conditions = status
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        self.follow(status.and_then(|status| status.assignment.as_ref()), conditions)
    }

    /// From an assignment to the pod it names.
    fn follow(
        &self,
        assignment: Option<&Assignment>,
        conditions: &[Condition],
    ) -> Result<Route, PublicError> {
        let Some(assignment) = assignment else {
            return Err(PublicError::new(Code::MeetingNotReady, ready_reason(conditions)));
        };
        let gone = || PublicError::new(Code::MeetingNotReady, "its worker is gone and another is sought");
        let pod = self
            .pods
            .get(&assignment.worker_namespace, &assignment.worker)
            .filter(|pod| pod.uid().as_deref() == Some(assignment.worker_uid.as_str()))
            .ok_or_else(gone)?;
        let worker = worker_address(&pod).ok_or_else(gone)?;
        let epoch = u64::try_from(assignment.epoch).unwrap_or_default();
        Ok(Route { worker, epoch })
    }

    /// Every worker that holds a room of `namespace`, or of any namespace.
    pub(crate) fn workers_of(&self, namespace: Option<&str>) -> Vec<WorkerAddress> {
        let inside = |of: Option<String>| namespace.is_none_or(|namespace| of.as_deref() == Some(namespace));
        let meetings = self.meetings.all();
        let breakouts = self.breakouts.all();
        let assignments = meetings
            .iter()
            .filter(|meeting| inside(meeting.namespace()))
            .filter_map(|meeting| meeting.status.as_ref()?.assignment.as_ref())
            .chain(
                breakouts
                    .iter()
                    .filter(|room| inside(room.namespace()))
                    .filter_map(|room| room.status.as_ref()?.assignment.as_ref()),
            );
        let mut workers: Vec<WorkerAddress> = assignments
            .filter_map(|assignment| self.follow(Some(assignment), &[]).ok())
            .map(|r| r.worker)
            .collect();
        workers.sort();
        workers.dedup();
        workers
    }
}

fn ready_reason(conditions: &[Condition]) -> &str {
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .map_or("", |condition| &condition.reason)
}

fn worker_address(pod: &Pod) -> Option<WorkerAddress> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return None;
    }
    Some(WorkerAddress {
        uid: pod.uid()?,
        ip: status.pod_ip.as_deref()?.parse().ok()?,
    })
}
