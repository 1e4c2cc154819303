//! The BreakoutRoom: a side room of a Meeting.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Assignment, yes};
use crate::quantity::Duration;

/// What a breakout room should be.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "plenum.dev",
    version = "v1alpha1",
    kind = "BreakoutRoom",
    namespaced,
    status = "BreakoutRoomStatus",
    derive = "PartialEq",
    shortname = "bor",
    category = "plenum",
    doc = "A side room of a Meeting. Applying it acts on the live meeting at once: the people it names are moved.",
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("the name of a BreakoutRoom has at most 63 characters; choose a shorter one and use spec.title for what people see"),
    printcolumn(name = "Meeting", type_ = "string", json_path = ".spec.meetingRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Worker", type_ = "string", json_path = ".status.assignment.worker"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.conditions[?(@.type==\"Active\")].status"),
    printcolumn(name = "Participants", type_ = "integer", json_path = ".status.participants"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.title", priority = 1),
    printcolumn(name = "Closes", type_ = "string", json_path = ".status.closesAt", priority = 1),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.assignment.epoch", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.maxParticipants) || !has(self.participants) || size(self.participants) <= self.maxParticipants")
        .message("spec.participants names more people than spec.maxParticipants admits; raise maxParticipants or shorten the list"),
    validation = Rule::new("!(has(self.closeAfter) && has(self.closeAt))")
        .message("spec.closeAfter and spec.closeAt exclude each other; keep the one you mean")
)]
pub struct BreakoutRoomSpec {
    /// The Meeting it belongs to, in the same namespace. Cannot change.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.meetingRef cannot change; delete the BreakoutRoom and create one for the other Meeting"))]
    pub meeting_ref: MeetingRef,
    /// What people see. The object's name where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub title: Option<String>,
    /// How many people may be in it at once. Left out: as many as in the meeting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_participants: Option<u32>,
    /// Identities assigned to the room: who is in the meeting is moved, who comes later is sent here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub participants: Vec<String>,
    /// The room closes this long after it opened. Left out: it stays open until closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_after: Option<Duration>,
    /// The room closes at this time, the same for every room that names it. Excludes closeAfter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_at: Option<Time>,
    /// False: after the Meeting's closingCountdown people are sent back to the main room and the room
    /// gives its place back.
    #[serde(default = "yes")]
    pub open: bool,
}

/// A Meeting in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeetingRef {
    /// Name of the Meeting.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// What a breakout room is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakoutRoomStatus {
    /// The generation that this status speaks of; -1 until the controller has seen the object.
    #[serde(default = "crate::schema::never_observed")]
    pub observed_generation: i64,
    /// Ready, Assigned, Active, Draining; Reconciling or Stalled only while abnormal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// Which worker holds the room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
    /// Highest epoch ever assigned, so that it rises even after a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// How many people are in it, give or take: at most one write in 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participants: Option<i32>,
    /// When it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Time>,
    /// When it will close, or closed: by spec.closeAfter, spec.closeAt, a host's timer, or the countdown
    /// after it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<Time>,
}

impl Default for BreakoutRoomStatus {
    fn default() -> Self {
        Self {
            observed_generation: crate::schema::never_observed(),
            conditions: Vec::new(),
            assignment: None,
            epoch: None,
            participants: None,
            opened_at: None,
            closes_at: None,
        }
    }
}
