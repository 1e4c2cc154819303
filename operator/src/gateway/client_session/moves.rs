//! Moves to a room on the same worker, and what every move ends with.
//!
//! Owns the order to the worker, its answer, and who is told of it. Invariant: where the client is
//! changes here and nowhere else.

use std::time::{Duration, Instant};

use plenum_breakout::Input;
use plenum_errors::{Code, PublicError};
use plenum_protocol::{Audience, Signal};
use plenum_worker_api::v1::{Move, Moved, client_frame};

use super::ClientSession;
use crate::gateway::meetings::Shared;
use crate::gateway::route::{RoomName, Route};

/// People at one gateway, up to which the whole meeting is told who goes where.
const TELL_EVERYONE: usize = 200;

/// How long a worker may take to answer a Move.
const MOVE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a worker may take to give a client's live state; without it the client starts anew.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);
/// A move under way.
pub(super) struct Going {
    pub(super) id: u64,
    pub(super) to: Option<String>,
    pub(super) stage: Stage,
    pub(super) began: Instant,
}

/// What the move waits for.
pub(super) enum Stage {
    /// The worker's answer: both rooms are on it.
    Moved,
    /// The client's live state, for the worker that holds the other room.
    HandedOver(Route),
    /// A place at that worker.
    Reserved,
}

impl Stage {
    /// How long it may take; `None` = whoever was asked has a limit of its own.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self {
            Stage::Moved => Some(MOVE_PATIENCE),
            Stage::HandedOver(_) => Some(HAND_OVER_PATIENCE),
            Stage::Reserved => None,
        }
    }
}

impl ClientSession {
    /// Sets out for a room.
    pub(super) fn go(&mut self, to: Option<String>) {
        let room = self.presence.meeting.room(to.as_deref());
        self.moves += 1;
        let id = self.moves;
        let route = self.meetings.reach.routes.lookup(&room);
        self.going = Some(Going {
            id,
            to,
            stage: Stage::Moved,
            began: Instant::now(),
        });
        match route {
            Err(error) => self.arrive(Err(error.code)),
            Ok(route) if route.worker.uid == self.worker_uid => {
                self.send(client_frame::Frame::Move(Move {
                    id,
                    room,
                    epoch: route.epoch,
                    mute_sources: Vec::new(),
                }));
            }
            Ok(route) => self.cross(route),
        }
    }

    /// The worker's answer to a Move.
    pub(super) fn moved(&mut self, moved: &Moved) {
        if self.going.as_ref().is_none_or(|going| going.id != moved.id) {
            // The answer to a move that was given up: what it says of the room holds all the same.
            if moved.code.is_empty() {
                self.relocated(moved);
            }
            return;
        }
        if moved.code.is_empty() {
            self.arrive(Ok(breakout_of(&moved.room)));
        } else {
            tracing::info!(code = moved.code, room = moved.room, "a move was refused");
            self.arrive(Err(Code::parse(&moved.code).unwrap_or(Code::Internal)));
        }
    }

    /// The worker took the client elsewhere by itself.
    pub(super) fn relocated(&mut self, moved: &Moved) {
        let room = breakout_of(&moved.room);
        self.now_in(room.clone());
        if self.takes_part {
            self.step(Input::Relocated(room));
        }
    }

    /// A move is over, well or not.
    pub(super) fn arrive(&mut self, outcome: Result<Option<String>, Code>) {
        let Some(going) = self.going.take() else {
            return;
        };
        let label = outcome.as_ref().map_or_else(|code| code.as_str(), |_| "ok");
        let way = match going.stage {
            Stage::Moved => "same_worker",
            Stage::HandedOver(_) | Stage::Reserved => "reconnect",
        };
        self.report_move(going.to.as_deref(), way, label, going.began.elapsed());
        match &outcome {
            Ok(room) => self.now_in(room.clone()),
            Err(code) => self.announce_failure(*code),
        }
        self.step(Input::Done(outcome));
    }

    /// The client is in that room now.
    pub(super) fn now_in(&mut self, room: Option<String>) {
        if room == self.room {
            return;
        }
        self.announce(room.as_deref());
        self.room = room;
        self.by_token.room = self.presence.meeting.room(self.room.as_deref());
        self.presence.moved(self.room.as_deref());
    }

    /// Tells the meeting that the client went to a room.
    pub(super) fn announce(&self, to: Option<&str>) {
        self.post_switch(to, None);
    }

    /// Tells the meeting that the client could not go elsewhere.
    pub(super) fn announce_failure(&self, code: Code) {
        self.post_switch(self.room.as_deref(), Some(code));
    }

    fn post_switch(&self, to: Option<&str>, failed: Option<Code>) {
        if !self.takes_part {
            return;
        }
        let meeting = &self.presence.meeting;
        let identity = &self.by_token.identity;
        if let Err(error) = post_switch(meeting, identity, self.room.as_deref(), to, failed) {
            tracing::debug!(code = %error.code, "a move is not told of");
        }
    }

    pub(super) fn report_move(&self, to: Option<&str>, way: &str, outcome: &str, took: Duration) {
        tracing::info!(
            identity = self.by_token.identity,
            meeting = self.presence.meeting.room(None),
            from = self.room.as_deref().unwrap_or_default(),
            to = to.unwrap_or_default(),
            way,
            outcome,
            "a client moved"
        );
        self.meetings.reach.metrics.moved(way, outcome, took);
    }
}

/// Tells the meeting that somebody went to a room, or could not go elsewhere. Where it is large, only
/// the breakout rooms concerned are told (and hosts, as ever): the main room sees its people come and
/// go anyway, and a thousand people who are told of a thousand moves are a million messages.
pub(super) fn post_switch(
    meeting: &Shared,
    identity: &str,
    from: Option<&str>,
    to: Option<&str>,
    failed: Option<Code>,
) -> Result<(), PublicError> {
    let signal = Signal::ParticipantSwitched {
        identity: identity.to_owned(),
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
        failed: failed.map(|code| code.as_str().to_owned()),
    };
    let audience = if meeting.size() <= TELL_EVERYONE {
        Audience::Everyone
    } else {
        Audience::Rooms([from, to].into_iter().flatten().map(str::to_owned).collect())
    };
    meeting.post(&signal, &audience)
}

fn breakout_of(room: &str) -> Option<String> {
    RoomName::parse(room)?.breakout.map(str::to_owned)
}
