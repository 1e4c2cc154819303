//! What a Meeting is: the custom resources of `plenum.dev/v1alpha1`, their defaults, rules and
//! conditions.
//!
//! Owns the Rust types, the JSON schema with its CEL rules, and the generators of the chart's YAML
//! and of `docs/api.md`. No client and no I/O but in the `crdgen` binary. Invariants: every string
//! and list in a schema is bounded; every CEL rule says what to do; a fresh object is not healthy by
//! kstatus, because `status.observedGeneration` defaults to -1.

#[expect(unreachable_pub, reason = "KubeSchema derives a hidden twin of each type")]
mod breakout_room;
mod common;
pub mod docs;
#[expect(unreachable_pub, reason = "KubeSchema derives a hidden twin of each type")]
mod media;
#[expect(unreachable_pub, reason = "KubeSchema derives a hidden twin of each type")]
mod media_worker_pool;
#[expect(unreachable_pub, reason = "KubeSchema derives a hidden twin of each type")]
mod meeting;
mod quantity;
mod schema;
pub mod yaml;

pub use breakout_room::{BreakoutRoom, BreakoutRoomSpec, BreakoutRoomStatus, MeetingRef};
pub use common::{Assignment, ConditionType, Reason, SecretRef, WorkerPoolRef};
pub use media::{Audio, Codec, EndToEndEncryption, Media, Speakers};
pub use media_worker_pool::{
    Advertise, AllowedMeetings, AllowedNamespaces, Buffer, Capacity, Drain, DrainMode, Exposure,
    ExposureType, MediaWorkerPool, MediaWorkerPoolSpec, MediaWorkerPoolStatus, NodeAddressKind,
    UpdateStrategy, WorkerTemplate,
};
pub use meeting::{
    BreakoutAssignment, BreakoutDecisions, Breakouts, Guests, LastSession, Lobby, Meeting, MeetingSpec,
    MeetingStatus, MoveDecision, Permissions, RolePermissions, RoomDecision, Schedule, SessionDecisions,
    Source,
};
pub use quantity::{BitRate, Duration, QuantityError};
pub use schema::{Rule, all, cel_rules};

/// The group of every object here.
pub const GROUP: &str = "plenum.dev";
/// The version of every object here.
pub const VERSION: &str = "v1alpha1";
/// What the controller puts on a Meeting or BreakoutRoom that a worker holds.
pub const FINALIZER: &str = "plenum.dev/release";
/// Label on BreakoutRooms that a host made inside the meeting.
pub const MADE_IN_MEETING_LABEL: &str = "plenum.dev/made-in-meeting";
/// Field manager of what gateways write on behalf of hosts.
pub const GATEWAY_MANAGER: &str = "plenum-gateway";
/// Label on everything that belongs to a pool.
pub const POOL_LABEL: &str = "plenum.dev/pool";
