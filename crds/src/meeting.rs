//! The Meeting: what people join.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Assignment, SecretRef, WorkerPoolRef, yes};
use crate::media::Media;
use crate::quantity::Duration;

/// What a meeting should be.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "plenum.dev",
    version = "v1alpha1",
    kind = "Meeting",
    namespaced,
    status = "MeetingStatus",
    derive = "PartialEq",
    shortname = "mtg",
    category = "plenum",
    doc = "A meeting: the operator places it on a media worker, people join it by its link.",
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("the name of a Meeting has at most 63 characters, because it is part of its link; choose a shorter one"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Worker", type_ = "string", json_path = ".status.assignment.worker"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.conditions[?(@.type==\"Active\")].status"),
    printcolumn(name = "Participants", type_ = "integer", json_path = ".status.participants"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.title", priority = 1),
    printcolumn(name = "Rooms", type_ = "integer", json_path = ".status.rooms", priority = 1),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.assignment.epoch", priority = 1),
    printcolumn(name = "Join URL", type_ = "string", json_path = ".status.joinURL", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct MeetingSpec {
    /// What people see. The object's name where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub title: Option<String>,
    /// Which pool's workers hold the meeting. Left out: the pool marked as default in this
    /// namespace, else a default pool elsewhere that allows this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_pool_ref: Option<WorkerPoolRef>,
    /// How many people may be in the main room at once.
    #[serde(default = "default_max_participants")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_participants: u32,
    /// When the meeting takes place. Left out: from now on until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How long the room is kept for the first person; then its session starts anew. 0s: for ever.
    #[serde(default = "default_empty_timeout")]
    pub empty_timeout: Duration,
    /// How long the session outlives the last person who leaves.
    #[serde(default = "default_departure_timeout")]
    pub departure_timeout: Duration,
    /// The meeting ends this long after its first join. 0s: no limit.
    #[serde(default = "default_zero")]
    pub max_duration: Duration,
    /// A waiting room before the meeting.
    #[serde(default)]
    pub lobby: Lobby,
    /// Nobody new may enter, whatever token they hold.
    #[serde(default)]
    pub locked: bool,
    /// What becomes of people who come by the link without a token.
    #[serde(default)]
    pub guests: Guests,
    /// Identities with a host's rights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub co_hosts: Vec<String>,
    /// What each role may do where the token does not say otherwise.
    #[serde(default)]
    pub permissions: Permissions,
    /// Codecs and rates.
    #[serde(default)]
    pub media: Media,
    /// How breakout rooms behave.
    #[serde(default)]
    pub breakouts: Breakouts,
    /// Free text of the application; LiveKit clients see it as the room's metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub metadata: Option<String>,
    /// True: the meeting is closed and gives its place back, while the object stays.
    #[serde(default)]
    pub suspend: bool,
    /// Secret with the keys `apiKey` and `apiSecret` that sign this meeting's tokens. Left out: the
    /// installation's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret_ref: Option<SecretRef>,
}

impl Default for MeetingSpec {
    fn default() -> Self {
        Self {
            title: None,
            worker_pool_ref: None,
            max_participants: default_max_participants(),
            schedule: None,
            empty_timeout: default_empty_timeout(),
            departure_timeout: default_departure_timeout(),
            max_duration: default_zero(),
            lobby: Lobby::default(),
            locked: false,
            guests: Guests::default(),
            co_hosts: Vec::new(),
            permissions: Permissions::default(),
            media: Media::default(),
            breakouts: Breakouts::default(),
            metadata: None,
            suspend: false,
            key_secret_ref: None,
        }
    }
}

fn default_max_participants() -> u32 {
    100
}

fn default_empty_timeout() -> Duration {
    Duration::from_secs(300)
}

fn default_departure_timeout() -> Duration {
    Duration::from_secs(20)
}

fn default_zero() -> Duration {
    Duration::from_secs(0)
}

/// When the meeting takes place: once (start, end), or again and again (start, rrule, duration).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.start) || !has(self.end) || self.end > self.start")
        .message("schedule.end must be after schedule.start; correct one of the two"),
    validation = Rule::new("!(has(self.end) && has(self.rrule))")
        .message("schedule.end and schedule.rrule exclude each other; remove end and set duration, or remove rrule"),
    validation = Rule::new("!has(self.rrule) || has(self.start)")
        .message("schedule.rrule needs schedule.start; add the time of the first occurrence"),
    validation = Rule::new("!has(self.duration) || has(self.rrule)")
        .message("schedule.duration is the length of each occurrence of an rrule; use schedule.end for a meeting that takes place once")
)]
pub struct Schedule {
    /// When the meeting, or its first occurrence, begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Time>,
    /// When it is over. Left out: open end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
    /// RFC 5545 recurrence rule, such as `FREQ=WEEKLY;BYDAY=MO`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 6, max = 512), regex(pattern = "^(RRULE:)?[A-Z]+=[^\\n\\r]+$"))]
    pub rrule: Option<String>,
    /// How long each occurrence of the rrule lasts. Left out: one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// IANA time zone that the rrule is counted in, such as `Europe/Berlin`. Left out: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_+/-]+$"))]
    pub time_zone: Option<String>,
}

/// A waiting room before the meeting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lobby {
    /// Participants wait until a host lets them in.
    #[serde(default)]
    pub enabled: bool,
}

/// What becomes of people who come by the link without a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Guests {
    /// They come in as participants.
    Allow,
    /// They wait in the lobby until a host lets them in.
    Lobby,
    /// They are turned away.
    #[default]
    Deny,
}

/// What each role may do where the token does not say otherwise. Hosts and co-hosts may do all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Permissions {
    /// Participants.
    #[serde(default)]
    pub participant: RolePermissions,
    /// Viewers: by default they see and hear, and send nothing.
    #[serde(default = "RolePermissions::viewer")]
    pub viewer: RolePermissions,
}

impl Default for Permissions {
    fn default() -> Self {
        Self {
            participant: RolePermissions::default(),
            viewer: RolePermissions::viewer(),
        }
    }
}

/// The rights of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolePermissions {
    /// Sources the role may publish.
    #[serde(default = "Source::all")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub publish: Vec<Source>,
    /// May receive others' tracks.
    #[serde(default = "yes")]
    pub subscribe: bool,
    /// May send chat and data.
    #[serde(default = "yes")]
    pub publish_data: bool,
    /// May change its own name, metadata and attributes.
    #[serde(default)]
    pub update_metadata: bool,
}

impl Default for RolePermissions {
    fn default() -> Self {
        Self {
            publish: Source::all(),
            subscribe: true,
            publish_data: true,
            update_metadata: false,
        }
    }
}

impl RolePermissions {
    /// See and hear only.
    fn viewer() -> Self {
        Self {
            publish: Vec::new(),
            subscribe: true,
            publish_data: false,
            update_metadata: false,
        }
    }
}

/// Where a track comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Source {
    /// Camera.
    Camera,
    /// Microphone.
    Microphone,
    /// Shared screen.
    ScreenShare,
    /// Sound of the shared screen.
    ScreenShareAudio,
}

impl Source {
    fn all() -> Vec<Self> {
        vec![
            Self::Camera,
            Self::Microphone,
            Self::ScreenShare,
            Self::ScreenShareAudio,
        ]
    }
}

/// How breakout rooms behave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breakouts {
    /// Who decides who goes where.
    #[serde(default)]
    pub assignment: BreakoutAssignment,
    /// How long the notice before a room closes.
    #[serde(default = "default_closing_countdown")]
    pub closing_countdown: Duration,
    /// Participants may go back to the main room by themselves.
    #[serde(default = "yes")]
    pub allow_return_to_main: bool,
    /// Participants may refuse a move within its five seconds of notice.
    #[serde(default)]
    pub allow_cancel: bool,
}

impl Default for Breakouts {
    fn default() -> Self {
        Self {
            assignment: BreakoutAssignment::default(),
            closing_countdown: default_closing_countdown(),
            allow_return_to_main: true,
            allow_cancel: false,
        }
    }
}

fn default_closing_countdown() -> Duration {
    Duration::from_secs(60)
}

/// Who decides who goes to which breakout room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BreakoutAssignment {
    /// Spread evenly.
    Automatic,
    /// Each for themselves.
    SelfSelect,
    /// A host, or whoever applies the BreakoutRooms.
    #[default]
    Manual,
}

/// What a meeting is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeetingStatus {
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
    /// Which worker holds the main room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
    /// Highest epoch ever assigned, so that it rises even after a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The link for people. It never holds a token.
    #[serde(rename = "joinURL", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub join_url: Option<String>,
    /// The address for LiveKit clients. It never holds a token.
    #[serde(rename = "signalURL", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub signal_url: Option<String>,
    /// How many people are in the main room, give or take: at most one write in 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participants: Option<i32>,
    /// How many breakout rooms the meeting has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<i32>,
    /// Start of the session that is going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_since: Option<Time>,
    /// The session before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_session: Option<LastSession>,
    /// What hosts decided inside the meeting. Written by the gateway on their behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionDecisions>,
}

impl Default for MeetingStatus {
    fn default() -> Self {
        Self {
            observed_generation: crate::schema::never_observed(),
            conditions: Vec::new(),
            assignment: None,
            epoch: None,
            join_url: None,
            signal_url: None,
            participants: None,
            rooms: None,
            active_since: None,
            last_session: None,
            session: None,
        }
    }
}

/// A session that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastSession {
    /// First join.
    pub start: Time,
    /// Last leave.
    pub end: Time,
    /// Most people at once.
    pub peak: i32,
}

/// What hosts decided inside the meeting; identities only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionDecisions {
    /// A host locked (or unlocked) the meeting; wins over spec.locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Identities that may not come back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub banned: Vec<String>,
    /// Identities that hosts made co-hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub co_hosts: Vec<String>,
    /// What hosts decided about breakout rooms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breakouts: Option<BreakoutDecisions>,
}

/// What hosts decided about breakout rooms inside the meeting. Nobody's spec is written for it: each
/// decision stands until the object it is about says something new, so that the newest word wins,
/// whoever spoke it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakoutDecisions {
    /// How rooms are filled; wins over spec.breakouts.assignment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<BreakoutAssignment>,
    /// Wins over spec.breakouts.allowReturnToMain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_return_to_main: Option<bool>,
    /// Wins over spec.breakouts.allowCancel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_cancel: Option<bool>,
    /// About single rooms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub rooms: Vec<RoomDecision>,
    /// Who goes where, against what the rooms' specs say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000))]
    pub moves: Vec<MoveDecision>,
}

/// What a host decided about one breakout room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomDecision {
    /// Name of the BreakoutRoom.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// metadata.generation of the room at that time: with a later one the decision is void.
    pub generation: i64,
    /// Wins over spec.open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// Wins over spec.closeAfter and spec.closeAt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<Time>,
    /// Wins over spec.title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub title: Option<String>,
}

/// Where somebody goes, by a host's decision or their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MoveDecision {
    /// Who.
    #[schemars(length(min = 1, max = 128))]
    pub identity: String,
    /// Name of the BreakoutRoom; left out: the main room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub room: Option<String>,
    /// The room whose spec named the identity at that time: once another one does (or none), the
    /// decision is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub named: Option<String>,
}
