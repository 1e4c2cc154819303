//! What a Meeting's main room and a BreakoutRoom have in common: finding a pool, a worker, and
//! telling it.
//!
//! Invariants: a worker is told of a room only after the assignment is written, and only with that
//! assignment's epoch; a room is released only on the worker that the assignment names.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::core::{Selector, SelectorExt as _};
use kube::{Resource as _, ResourceExt as _};
use plenum_crds::{
    AllowedNamespaces, Assignment, BitRate, MediaWorkerPool, Meeting, POOL_LABEL, Reason, WorkerPoolRef,
};
use plenum_errors::Code;
use plenum_worker_api::v1::{Encryption, EndReason, Publishing, RoomReport, RoomSpec, Speakers};
use tokio::time::Instant;

use super::context::{Again, Context, ReconcileError};
use super::crowd::{Crowd, Expected};
use super::index::namespace;
use super::placement::{self, Holder, Limits, Obstacle, Placement, Worker};
use super::worker_pod::DRAINING;
use super::workers::{Line, Live, WorkerError};

/// A worker whose host says that nobody listens is dead after this: its rooms are gone with the
/// process, so that waiting for its return wins nothing where there is another worker.
const REFUSED: Duration = Duration::from_millis(200);
/// A worker that is silent is dead after this: it may be the network.
const SILENT: Duration = Duration::from_secs(10);
/// A deleted object waits this long for its worker.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a worker is told of every room of a meeting, the main room and breakout rooms alike.
pub(crate) fn common_spec(meeting: &Meeting, room: &str, epoch: i64) -> RoomSpec {
    let spec = &meeting.spec;
    let media = &spec.media;
    let decided = meeting.status.as_ref().and_then(|status| status.session.as_ref());
    RoomSpec {
        name: room.to_owned(),
        epoch: u64::try_from(epoch).unwrap_or(0),
        departure_timeout_ms: spec.departure_timeout.as_millis(),
        locked: decided.and_then(|session| session.locked).unwrap_or(spec.locked),
        metadata: spec.metadata.clone().unwrap_or_default(),
        codecs: media
            .codecs
            .iter()
            .map(|codec| codec.wire_name().to_owned())
            .collect(),
        encryption: Some(Encryption {
            tracks: media.e2ee.required,
            data: media.e2ee.required_for_data,
        }),
        publishing: Some(Publishing {
            simulcast: media.simulcast,
            red: media.audio.red,
            dtx: media.audio.dtx,
            max_bitrate: media.max_bitrate.as_ref().map_or(0, BitRate::bits_per_second),
        }),
        speakers: media.audio.speakers.as_ref().map(|choice| Speakers {
            max: choice.max,
            from: choice.from,
        }),
        ..RoomSpec::default()
    }
}

/// Why there is no pool for a meeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolFault {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

fn fault(reason: Reason, code: Code, detail: String) -> PoolFault {
    PoolFault {
        reason,
        message: format!("{detail}: {}", code.remedy()),
    }
}

/// The pool for a meeting of that namespace.
pub(crate) fn resolve_pool(
    context: &Context,
    meeting_namespace: &str,
    wish: Option<&WorkerPoolRef>,
) -> Result<MediaWorkerPool, PoolFault> {
    let allowed = |pool: &MediaWorkerPool| allows(context, pool, meeting_namespace);
    if let Some(wish) = wish {
        let pool_namespace = wish.namespace.as_deref().unwrap_or(meeting_namespace);
        let full = format!("{pool_namespace}/{}", wish.name);
        let pool = context.index.pool(pool_namespace, &wish.name);
        return match pool.as_deref().map(|pool| &pool.0) {
            // To somebody who may not use it, a pool elsewhere looks the same whether it is there or not.
            Some(Ok(pool)) if allowed(pool) && served(context, pool) => Ok(pool.clone()),
            Some(Ok(pool)) if allowed(pool) => Err(not_served(pool)),
            Some(Err(error)) if pool_namespace == meeting_namespace => Err(fault(
                Reason::PoolNotFound,
                Code::PoolNotFound,
                format!("MediaWorkerPool {full} cannot be read ({error})"),
            )),
            None if pool_namespace == meeting_namespace => Err(fault(
                Reason::PoolNotFound,
                Code::PoolNotFound,
                format!("no MediaWorkerPool {full}"),
            )),
            _ => Err(fault(
                Reason::NotAllowed,
                Code::PoolNotAllowed,
                format!("MediaWorkerPool {full} does not allow meetings from {meeting_namespace}"),
            )),
        };
    }
    let mut defaults: Vec<MediaWorkerPool> = context
        .index
        .pools
        .state_filter(|pool| matches!(&pool.0, Ok(pool) if pool.spec.default))
        .iter()
        .filter_map(|pool| pool.0.as_ref().ok().cloned())
        .filter(|pool| allowed(pool) && served(context, pool))
        .collect();
    // The meeting's own namespace first, then by name, so that everyone sees the same order.
    defaults.sort_by_key(|pool| {
        (
            namespace(pool) != meeting_namespace,
            namespace(pool),
            pool.name_any(),
        )
    });
    defaults.into_iter().next().ok_or_else(|| {
        fault(
            Reason::PoolNotFound,
            Code::PoolNotFound,
            format!("no default MediaWorkerPool allows meetings from {meeting_namespace}"),
        )
    })
}

fn served(context: &Context, pool: &MediaWorkerPool) -> bool {
    context.settings.worker_namespaces.contains(&namespace(pool))
}

fn not_served(pool: &MediaWorkerPool) -> PoolFault {
    PoolFault {
        reason: Reason::NotAllowed,
        message: format!(
            "the operator may not run workers in namespace {}: add it to the operator's --worker-namespaces",
            namespace(pool)
        ),
    }
}

fn allows(context: &Context, pool: &MediaWorkerPool, meeting_namespace: &str) -> bool {
    if namespace(pool) == meeting_namespace {
        return true;
    }
    let allowed = &pool.spec.allowed_meetings;
    match allowed.namespaces {
        AllowedNamespaces::Same => false,
        AllowedNamespaces::All => true,
        AllowedNamespaces::Selector => allowed
            .selector
            .as_ref()
            .is_some_and(|selector| matches(selector, &context.index.namespace_labels(meeting_namespace))),
    }
}

fn matches(selector: &LabelSelector, labels: &std::collections::BTreeMap<String, String>) -> bool {
    // A selector that cannot be understood allows nobody.
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// What is known of the worker of an assignment, and when to look again.
pub(crate) fn holder(
    context: &Context,
    assignment: &Assignment,
    room: &str,
    was_ready: bool,
    again: &mut Again,
) -> Holder {
    let Some(pod) = context.index.worker(assignment) else {
        return Holder::Gone;
    };
    if pod.meta().deletion_timestamp.is_some() || has_ended(&pod) {
        return Holder::Gone;
    }
    let Some(live) = context.fleet.live(&assignment.worker_uid) else {
        // The pool's reconciler connects to it in a moment.
        again.after(Duration::from_secs(1));
        return Holder::Present;
    };
    let patience = match live.line {
        Line::Up => {
            // Only a full report can say that the room is not there; without one nothing is known.
            // One under a higher epoch (the API server's data went back in time) is not this one.
            let ours = u64::try_from(assignment.epoch).unwrap_or(0);
            let held = live
                .rooms
                .as_ref()
                .map(|rooms| rooms.get(room).is_some_and(|report| report.epoch <= ours));
            return if was_ready && held == Some(false) {
                Holder::Forgot
            } else {
                Holder::Present
            };
        }
        Line::Connecting { since } => SILENT.saturating_sub(since.elapsed()),
        Line::Down { since, refused } => patience(refused, since),
    };
    if patience.is_zero() {
        return Holder::Lost;
    }
    again.after(patience);
    Holder::Present
}

fn patience(refused: bool, since: Instant) -> Duration {
    (if refused { REFUSED } else { SILENT }).saturating_sub(since.elapsed())
}

/// The epoch under which the worker holds the room, as far as is known: the next one is above it.
pub(crate) fn epoch_held(context: &Context, current: Option<&Assignment>, room: &str) -> i64 {
    let report = current
        .and_then(|assignment| context.fleet.room(&assignment.worker_uid, room))
        .flatten();
    report.map_or(0, |report| i64::try_from(report.epoch).unwrap_or(0))
}

/// Decides where a room goes, with nobody else deciding meanwhile. `home` is the UID of the worker
/// that holds the main room, for a breakout room.
pub(crate) fn place(
    context: &Context,
    room: &str,
    current: Option<(&Assignment, Holder)>,
    epoch: i64,
    pool: &MediaWorkerPool,
    expected: Expected,
    home: Option<&str>,
) -> Placement {
    // The usual case, and it needs no look at the whole cluster.
    if let Some((_, Holder::Present)) = current {
        return Placement::Keep;
    }
    context.reserve(room, expected, home, |crowd, newcomer| {
        let workers = workers_of(context, pool, crowd);
        let placement = placement::place(current, epoch, &workers, newcomer);
        let chosen = match &placement {
            Placement::Assign(assignment) => Some(assignment.worker_uid.clone()),
            Placement::Keep | Placement::Wait(_) => None,
        };
        (placement, chosen)
    })
}

/// The workers of a pool as placement sees them.
fn workers_of(context: &Context, pool: &MediaWorkerPool, crowd: &Crowd) -> Vec<Worker> {
    let capacity = &pool.spec.capacity;
    let unsigned = |value: i32| u32::try_from(value).unwrap_or(0);
    let limits = Limits {
        rooms: unsigned(capacity.meetings),
        participants: unsigned(capacity.participants),
        egress_mbps: unsigned(capacity.egress_mbps),
    };
    let pods = context.index.pods_of(&namespace(pool), &pool.name_any());
    pods.iter()
        .filter_map(|pod| {
            let uid = pod.uid()?;
            let live = context.fleet.live(&uid);
            let load = crowd.load(&uid);
            let participants = live.as_ref().map_or(0, |live| live.participants);
            Some(Worker {
                namespace: namespace(&**pod),
                name: pod.name_any(),
                accepting: accepts(pod, live.as_ref()),
                rooms: load.rooms,
                expected: participants
                    .saturating_add(load.coming)
                    .saturating_sub(load.leaving),
                peak: participants.saturating_add(load.reserve),
                participants,
                egress_mbps: live.as_ref().map_or(0, |live| {
                    u32::try_from(live.egress_bits / 1_000_000).unwrap_or(u32::MAX)
                }),
                cpu_permille: live.as_ref().map_or(0, |live| live.cpu_permille),
                limits,
                uid,
            })
        })
        .collect()
}

/// Whether a worker may be given rooms.
pub(crate) fn accepts(pod: &Pod, live: Option<&Live>) -> bool {
    is_ready(pod)
        && pod.metadata.deletion_timestamp.is_none()
        && !pod.annotations().contains_key(DRAINING)
        && live.is_some_and(Live::usable)
}

/// Whether a worker that was not spoken to yet is taken for ready: the kubelet says so, and the
/// controller itself has only just begun. Without this a change of leaders would look like an outage.
pub(crate) fn presumed_ready(pod: &Pod, live: Option<&Live>, again: &mut Again) -> bool {
    let patience = match live.map(|live| live.line) {
        None => SILENT,
        Some(Line::Connecting { since }) => SILENT.saturating_sub(since.elapsed()),
        // Connected, and told its addresses or its first report awaited in a moment.
        Some(Line::Up) => Duration::from_secs(1),
        Some(Line::Down { .. }) => Duration::ZERO,
    };
    let presumed = is_ready(pod) && !patience.is_zero();
    if presumed {
        again.after(patience);
    }
    presumed
}

/// Whether the kubelet says that the Pod is ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

/// Whether the Pod ended and stays so.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Whether the worker is of that pool.
pub(crate) fn is_of(context: &Context, assignment: &Assignment, pool: &MediaWorkerPool) -> bool {
    // A worker that is gone is nobody's: the placement sees to it.
    context.index.worker(assignment).is_none_or(|pod| {
        namespace(&*pod) == namespace(pool) && pod.labels().get(POOL_LABEL) == Some(&pool.name_any())
    })
}

/// Whether the worker is draining.
pub(crate) fn is_draining(context: &Context, assignment: &Assignment) -> bool {
    context.index.worker(assignment).is_some_and(|pod| {
        pod.annotations().contains_key(DRAINING) || pod.metadata.deletion_timestamp.is_some()
    })
}

/// Why a room waits, in words.
pub(crate) fn obstacle(obstacle: Obstacle, pool: &MediaWorkerPool) -> (Reason, String) {
    let name = format!("{}/{}", namespace(pool), pool.name_any());
    match obstacle {
        Obstacle::NotReady => (
            Reason::PoolNotReady,
            format!(
                "no worker of MediaWorkerPool {name} is ready yet: {}",
                Code::PoolNotReady.remedy()
            ),
        ),
        Obstacle::Full => (
            Reason::NoCapacity,
            format!(
                "every worker of MediaWorkerPool {name} is full: {}",
                Code::NoCapacity.remedy()
            ),
        ),
    }
}

/// Tells the worker of the room, unless it was told just that and holds it.
pub(crate) async fn tell(
    context: &Context,
    assignment: &Assignment,
    spec: RoomSpec,
) -> Result<(), WorkerError> {
    let uid = &assignment.worker_uid;
    let held =
        matches!(context.fleet.room(uid, &spec.name), Some(Some(report)) if report.epoch >= spec.epoch);
    if held && context.was_told(uid, &spec) {
        return Ok(());
    }
    context.fleet.assign(uid, spec.clone()).await?;
    context.tell(uid, spec);
    Ok(())
}

/// What the worker says of the room, where it holds it under this epoch.
pub(crate) fn report(context: &Context, assignment: &Assignment, room: &str) -> Option<RoomReport> {
    let report = context.fleet.room(&assignment.worker_uid, room)??;
    (report.epoch == u64::try_from(assignment.epoch).unwrap_or(0)).then_some(report)
}

/// How many people are in the room, as far as its worker says; `None`: not known at the moment.
pub(crate) fn people(context: &Context, assignment: &Assignment, room: &str) -> Option<u32> {
    if context.index.worker(assignment).is_none_or(|pod| has_ended(&pod)) {
        return Some(0);
    }
    let held = context.fleet.room(&assignment.worker_uid, room)?;
    Some(held.map_or(0, |report| report.participants))
}

/// Ends a room on its worker. Nothing is to be done where the worker is gone.
pub(crate) async fn release(
    context: &Context,
    assignment: &Assignment,
    room: &str,
    reason: EndReason,
) -> Result<(), ReconcileError> {
    if context
        .index
        .worker(assignment)
        .is_some_and(|pod| !has_ended(&pod))
    {
        context
            .fleet
            .release(&assignment.worker_uid, room, assignment.epoch, reason)
            .await?;
    }
    context.forget(room);
    Ok(())
}

/// Ends the room of an object that is being deleted, as far as that can be done within
/// [`RELEASE_TIMEOUT`]. `Some`: not yet, look again then.
pub(crate) async fn release_deleted(
    context: &Context,
    assignment: Option<&Assignment>,
    room: &str,
    waited: Duration,
) -> Option<Duration> {
    if let Some(assignment) = assignment
        && let Err(error) = release(context, assignment, room, EndReason::Deleted).await
    {
        if waited < RELEASE_TIMEOUT {
            tracing::debug!(%room, %error, "room not released yet");
            return Some(Duration::from_secs(2).min(RELEASE_TIMEOUT - waited));
        }
        tracing::warn!(%room, %error, "room not released in time; its worker ends it by itself");
    }
    context.forget(room);
    None
}

/// How long ago the deletion of an object was asked for.
pub(crate) fn deleted_since(object: &impl kube::Resource, now: Timestamp) -> Duration {
    let at = object.meta().deletion_timestamp.as_ref();
    at.map_or(Duration::ZERO, |at| {
        Duration::try_from(now.duration_since(at.0)).unwrap_or_default()
    })
}

/// How long until then; nothing where it is over.
pub(crate) fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}
