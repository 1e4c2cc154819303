//! A meeting with breakout rooms, and what tests of it ask again and again.

use std::time::Duration;

use plenum_errors::Code;

use super::Stage;
use crate::room::{Arrival, EndReason, Notice, Outbox, RoomName, RoomSpec, Transfer};
use crate::session::api::{Command, SessionId};

pub(super) const RED: &str = "team/standup/red";
pub(super) const BLUE: &str = "team/standup/blue";
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn spec(name: &str) -> RoomSpec {
    RoomSpec::open(RoomName::from(name))
}

/// The main room and two breakout rooms.
pub(super) fn stage() -> Stage {
    let mut stage = Stage::new();
    stage.assign(spec(RED));
    stage.assign(spec(BLUE));
    stage
}

pub(super) fn to(room: &str) -> Transfer {
    Transfer {
        room: RoomName::from(room),
        epoch: 1,
        mute_sources: Vec::new(),
    }
}

pub(super) fn transfer(stage: &mut Stage, session: SessionId, order: &Transfer) -> Result<(), Code> {
    let mut out = Outbox::default();
    let done = stage.hall.transfer(session, order, stage.now, &mut out);
    stage.out.extend(out.0);
    done.map_err(|error| error.code)
}

pub(super) fn go(stage: &mut Stage, session: SessionId, room: &str) {
    transfer(stage, session, &to(room)).unwrap();
}

pub(super) fn release(stage: &mut Stage, room: &str, reason: EndReason) {
    let mut out = Outbox::default();
    stage
        .hall
        .release(&RoomName::from(room), 1, reason, stage.now, &mut out)
        .unwrap();
    stage.out.extend(out.0);
}

pub(super) fn room_of(stage: &Stage, session: SessionId) -> Option<&str> {
    stage.hall.room_of(session).map(RoomName::as_str)
}

pub(super) fn people(stage: &Stage, room: &str) -> Vec<String> {
    let room = stage.hall.room(room).unwrap();
    room.participants().map(|p| p.identity.to_string()).collect()
}

pub(super) fn arrival(stage: &Stage, session: SessionId) -> Option<Arrival> {
    stage.told(session).into_iter().find_map(|n| match n {
        Notice::RoomMoved(arrival) => Some(*arrival),
        _ => None,
    })
}

pub(super) fn subscribed(stage: &Stage, session: SessionId, sid: &str) -> bool {
    stage
        .commands()
        .iter()
        .any(|c| matches!(c, Command::Subscribe { session: s, sid: t, .. } if *s == session && &**t == sid))
}

pub(super) fn unsubscribed(stage: &Stage, session: SessionId, sid: &str) -> bool {
    stage
        .commands()
        .iter()
        .any(|c| matches!(c, Command::Unsubscribe { session: s, sid: t } if *s == session && &**t == sid))
}

/// Neither ended nor opened: media does not notice a move but for its subscriptions.
pub(super) fn media_is_left_alone(stage: &Stage) {
    let touches = |c: &&Command| {
        matches!(
            c,
            Command::Open { .. }
                | Command::Close { .. }
                | Command::RemoveTrack { .. }
                | Command::ExpectTrack { .. }
        )
    };
    assert!(!stage.commands().iter().any(touches), "{:?}", stage.commands());
}
