//! What the three kinds share: references, placement, and the names of conditions and reasons.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// For fields that are on where they are left out.
pub(crate) fn yes() -> bool {
    true
}

/// A Secret in the object's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret, in the namespace of the object that names it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The pool whose workers hold a meeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerPoolRef {
    /// Name of the MediaWorkerPool.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// Its namespace; the meeting's own where left out. The pool must allow meetings from here
    /// (its spec.allowedMeetings).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Which worker holds a room. Written before the worker is told, so that a crash in between is
/// repaired by telling it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Name of the worker's Pod.
    #[schemars(length(max = 253))]
    pub worker: String,
    /// UID of the worker's Pod: a new Pod of the same name is another worker.
    #[serde(rename = "workerUID")]
    #[schemars(length(max = 64))]
    pub worker_uid: String,
    /// Namespace of the worker's Pod.
    #[schemars(length(max = 63))]
    pub worker_namespace: String,
    /// Rises by one at each new assignment. A worker refuses a lower one.
    pub epoch: i64,
}

/// Types of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// The object does what it says.
    Ready,
    /// A worker holds the room.
    Assigned,
    /// Somebody is in it.
    Active,
    /// Its worker (or the pool) is draining.
    Draining,
    /// Present only while the controller is working towards the spec.
    Reconciling,
    /// Present only while the controller cannot get further without help.
    Stalled,
}

impl ConditionType {
    /// The name as in `status.conditions[].type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Assigned => "Assigned",
            Self::Active => "Active",
            Self::Draining => "Draining",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

/// Reasons of conditions. Those of faults are codes of the error catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Ready: the schedule has not begun.
    Scheduled,
    /// Ready: placed, nobody in it.
    Idle,
    /// Ready: placed, people in it.
    Active,
    /// Ready: the meeting is over.
    Ended,
    /// Ready: spec.suspend is set.
    Suspended,
    /// Not ready: placed, and the worker is being told.
    Assigning,
    /// Not ready: being deleted.
    Deleting,
    /// No such pool.
    PoolNotFound,
    /// The pool, or the operator, does not allow it.
    NotAllowed,
    /// Every worker is full.
    NoCapacity,
    /// No worker is ready.
    PoolNotReady,
    /// The schedule cannot be understood.
    InvalidSchedule,
    /// The Secret is missing or lacks keys.
    SecretMissing,
    /// The worker does not answer.
    WorkerUnreachable,
    /// The BreakoutRoom's Meeting does not exist.
    MeetingNotFound,
    /// The BreakoutRoom's Meeting is not ready.
    MeetingNotReady,
    /// The room is open.
    Open,
    /// The room closes in a moment, or its people are being sent back.
    Closing,
    /// The room is closed.
    Closed,
    /// A worker holds the room.
    Placed,
    /// No worker holds the room.
    NotPlaced,
    /// Nothing out of the ordinary.
    AsExpected,
    /// The pool has the workers it asks for.
    WorkersReady,
    /// The pool waits for workers.
    WorkersStarting,
    /// The API server refuses the pool's pods.
    WorkersRefused,
    /// Workers of an older template are being replaced.
    RollingOut,
    /// The worker takes no new rooms.
    WorkerDraining,
    /// The object cannot be reconciled as it stands.
    InvalidSpec,
}

impl Reason {
    /// The name as in `status.conditions[].reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Idle => "Idle",
            Self::Active => "Active",
            Self::Ended => "Ended",
            Self::Suspended => "Suspended",
            Self::Assigning => "Assigning",
            Self::Deleting => "Deleting",
            Self::PoolNotFound => "PoolNotFound",
            Self::NotAllowed => "NotAllowed",
            Self::NoCapacity => "NoCapacity",
            Self::PoolNotReady => "PoolNotReady",
            Self::InvalidSchedule => "InvalidSchedule",
            Self::SecretMissing => "SecretMissing",
            Self::WorkerUnreachable => "WorkerUnreachable",
            Self::MeetingNotFound => "MeetingNotFound",
            Self::MeetingNotReady => "MeetingNotReady",
            Self::Open => "Open",
            Self::Closing => "Closing",
            Self::Closed => "Closed",
            Self::Placed => "Placed",
            Self::NotPlaced => "NotPlaced",
            Self::AsExpected => "AsExpected",
            Self::WorkersReady => "WorkersReady",
            Self::WorkersStarting => "WorkersStarting",
            Self::WorkersRefused => "WorkersRefused",
            Self::RollingOut => "RollingOut",
            Self::WorkerDraining => "WorkerDraining",
            Self::InvalidSpec => "InvalidSpec",
        }
    }
}
