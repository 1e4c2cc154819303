//! Objects for tests.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use plenum_crds::{
    Assignment, BreakoutDecisions, BreakoutRoom, BreakoutRoomSpec, BreakoutRoomStatus, MADE_IN_MEETING_LABEL,
    Meeting, MeetingRef, MeetingSpec, MeetingStatus, MoveDecision, RoomDecision, SessionDecisions,
};

use crate::plan::Plan;

/// A Tuesday, on a whole second.
pub(crate) const NOW: i64 = 1_790_000_000_000;

pub(crate) fn at(ms: i64) -> Time {
    Time(Timestamp::from_millisecond(ms).unwrap())
}

pub(crate) fn meeting() -> Meeting {
    let mut meeting = Meeting::new("standup", MeetingSpec::default());
    meeting.metadata.namespace = Some("demo".into());
    meeting.metadata.generation = Some(1);
    meeting
}

pub(crate) fn with(mut meeting: Meeting, decisions: BreakoutDecisions) -> Meeting {
    let status = meeting.status.get_or_insert_with(MeetingStatus::default);
    status
        .session
        .get_or_insert_with(SessionDecisions::default)
        .breakouts = Some(decisions);
    meeting
}

/// A BreakoutRoom that is open, placed and ready, of generation 1.
pub(crate) fn room(name: &str) -> BreakoutRoom {
    let spec = BreakoutRoomSpec {
        meeting_ref: MeetingRef {
            name: "standup".into(),
        },
        title: None,
        max_participants: None,
        participants: Vec::new(),
        close_after: None,
        close_at: None,
        open: true,
    };
    let mut room = BreakoutRoom::new(name, spec);
    room.metadata.namespace = Some("demo".into());
    room.metadata.generation = Some(1);
    room.metadata.creation_timestamp = Some(at(NOW - 60_000));
    room.status = Some(BreakoutRoomStatus {
        observed_generation: 1,
        opened_at: Some(at(NOW - 50_000)),
        ..BreakoutRoomStatus::default()
    });
    place(&mut room, "w1", 1);
    room
}

pub(crate) fn place(room: &mut BreakoutRoom, worker: &str, epoch: i64) {
    let status = room.status.get_or_insert_with(BreakoutRoomStatus::default);
    status.assignment = Some(Assignment {
        worker: worker.into(),
        worker_uid: worker.into(),
        worker_namespace: "plenum".into(),
        epoch,
    });
    set_ready(status, true);
}

pub(crate) fn set_ready(status: &mut BreakoutRoomStatus, ready: bool) {
    status.conditions = vec![Condition {
        type_: "Ready".into(),
        status: if ready { "True" } else { "False" }.into(),
        reason: "Open".into(),
        message: String::new(),
        last_transition_time: at(NOW),
        observed_generation: None,
    }];
}

pub(crate) fn named(mut room: BreakoutRoom, identities: &[&str]) -> BreakoutRoom {
    room.spec.participants = identities.iter().map(|one| (*one).to_owned()).collect();
    room
}

pub(crate) fn closed(mut room: BreakoutRoom) -> BreakoutRoom {
    room.spec.open = false;
    if let Some(status) = &mut room.status {
        status.assignment = None;
    }
    room
}

pub(crate) fn made_here(mut room: BreakoutRoom) -> BreakoutRoom {
    let label = (MADE_IN_MEETING_LABEL.to_owned(), "true".to_owned());
    room.metadata.labels = Some(BTreeMap::from([label]));
    room
}

pub(crate) fn deleting(mut room: BreakoutRoom) -> BreakoutRoom {
    room.metadata.deletion_timestamp = Some(at(NOW));
    room
}

pub(crate) fn about(name: &str) -> RoomDecision {
    RoomDecision {
        name: name.into(),
        generation: 1,
        ..RoomDecision::default()
    }
}

pub(crate) fn rooms_decided(rooms: Vec<RoomDecision>) -> BreakoutDecisions {
    BreakoutDecisions {
        rooms,
        ..BreakoutDecisions::default()
    }
}

pub(crate) fn goes(identity: &str, room: Option<&str>, named: Option<&str>) -> MoveDecision {
    MoveDecision {
        identity: identity.into(),
        room: room.map(str::to_owned),
        named: named.map(str::to_owned),
    }
}

pub(crate) fn moves_decided(moves: Vec<MoveDecision>) -> BreakoutDecisions {
    BreakoutDecisions {
        moves,
        ..BreakoutDecisions::default()
    }
}

pub(crate) fn plan(meeting: &Meeting, rooms: &[BreakoutRoom]) -> Plan {
    Plan::of(meeting, rooms)
}
