//! Who is in a meeting, in all its rooms, asked of the workers at that moment, and what they are made to
//! do there.
//!
//! Owns the question. Invariants: rooms of other meetings are never told of; a worker that does not
//! answer is left out and does not hide the others' people.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use livekit_protocol as proto;
use plenum_errors::{Code, PublicError};
use plenum_worker_api::v1::{ListParticipantsRequest, ModerateRequest, ParticipantEntry};
use prost::Message as _;

use super::Reach;
use super::plans::View;
use crate::gateway::route::{RoomName, WorkerAddress};
use crate::gateway::workers::{Workers, refused};

const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Up to so many rooms of one worker are asked for one by one; beyond, the whole worker is.
const ROOMS_ONE_BY_ONE: usize = 16;

/// Everyone on `worker`, or in one of its rooms.
pub(crate) async fn list(
    workers: &Workers,
    worker: &WorkerAddress,
    room: &str,
) -> Result<Vec<ParticipantEntry>, PublicError> {
    let lease = workers.lease(worker)?;
    let mut client = lease.client.clone();
    let call = client.list_participants(ListParticipantsRequest {
        room: room.to_owned(),
    });
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner().participants),
        Ok(Err(status)) => Err(refused(&status)),
        Err(_) => Err(Code::WorkerUnreachable.into()),
    }
}

/// Has `worker` carry out what a host wants of somebody in one of its rooms.
pub(crate) async fn moderate(
    workers: &Workers,
    worker: &WorkerAddress,
    request: ModerateRequest,
) -> Result<(), PublicError> {
    let lease = workers.lease(worker)?;
    let mut client = lease.client.clone();
    let answer = match tokio::time::timeout(CALL_TIMEOUT, client.moderate(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(refused(&status)),
        Err(_) => return Err(Code::WorkerUnreachable.into()),
    };
    if answer.code.is_empty() {
        return Ok(());
    }
    let code = Code::parse(&answer.code).unwrap_or(Code::Internal);
    Err(PublicError::new(code, answer.detail))
}

/// Somebody in a room of a meeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) identity: String,
    pub(crate) name: String,
    pub(crate) role: String,
    /// `None` = the main room.
    pub(crate) room: Option<String>,
    pub(crate) speaking: bool,
    /// When they came into this room, in Unix milliseconds.
    pub(crate) since: i64,
    /// When they joined, in Unix milliseconds.
    pub(crate) joined: i64,
    /// A person, not a program or somebody unseen.
    pub(crate) takes_part: bool,
}

impl Present {
    fn read(entry: ParticipantEntry) -> Option<(String, Present)> {
        let info = proto::ParticipantInfo::decode(entry.info.as_slice()).ok()?;
        let room = RoomName::parse(&entry.room)?;
        let meeting = format!("{}/{}", room.namespace, room.meeting);
        let permission = info.permission.clone().unwrap_or_default();
        let joined = if info.joined_at_ms > 0 {
            info.joined_at_ms
        } else {
            info.joined_at.saturating_mul(1000)
        };
        let kind = info.kind();
        let present = Present {
            takes_part: !permission.hidden
                && matches!(
                    kind,
                    proto::participant_info::Kind::Standard | proto::participant_info::Kind::Sip
                ),
            room: room.breakout.map(str::to_owned),
            identity: info.identity,
            name: info.name,
            role: entry.role,
            speaking: entry.speaking,
            since: if entry.since_ms > 0 {
                entry.since_ms
            } else {
                joined
            },
            joined,
        };
        Some((meeting, present))
    }
}

/// Everyone in the rooms of `view`, in the order of joining.
pub(crate) async fn of(view: &View, reach: &Reach) -> Vec<Present> {
    let namespace = view.meeting.metadata.namespace.clone().unwrap_or_default();
    let name = view.meeting.metadata.name.clone().unwrap_or_default();
    let meeting = format!("{namespace}/{name}");
    let rooms = std::iter::once(meeting.clone()).chain(
        view.plan
            .rooms
            .iter()
            .map(|room| format!("{meeting}/{}", room.id)),
    );
    let mut by_worker: BTreeMap<WorkerAddress, Vec<String>> = BTreeMap::new();
    for room in rooms {
        if let Ok(route) = reach.routes.lookup(&room) {
            by_worker.entry(route.worker).or_default().push(room);
        }
    }
    let questions = by_worker.into_iter().flat_map(|(worker, mut rooms)| {
        if rooms.len() > ROOMS_ONE_BY_ONE {
            rooms = vec![String::new()];
        }
        rooms.into_iter().map(move |room| (worker.clone(), room))
    });
    let answers =
        join_all(questions.map(|(worker, room)| async move { list(&reach.workers, &worker, &room).await }))
            .await;
    let mut people = Vec::new();
    for answer in answers {
        match answer {
            Ok(entries) => people.extend(
                entries
                    .into_iter()
                    .filter_map(Present::read)
                    .filter(|(of, _)| *of == meeting)
                    .map(|(_, present)| present),
            ),
            Err(error) if error.code == Code::RoomNotFound => {}
            Err(error) => {
                tracing::warn!(code = %error.code, meeting, "a worker was left out of a meeting's people");
            }
        }
    }
    people.sort_by(|a, b| (a.joined, &a.identity).cmp(&(b.joined, &b.identity)));
    people
}
