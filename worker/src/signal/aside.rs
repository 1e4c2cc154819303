//! What is said between the worker and whoever speaks for a client, past the client.
//!
//! Owns moves, standing and the reserved data topic as frames. Invariants: a move that is ordered again
//! is answered again and not made again; what clients say is passed on at a limited rate.

use plenum_errors::{Code, PublicError};
use plenum_token::{Role, VideoGrant};
use plenum_worker_api::v1::{Move, Moved, Standing, worker_frame::Frame};

use super::desk::Desk;
use super::outbound::Clogged;
use crate::room::{DropReason, Grant, Now, Outbox, RoomName, Transfer};
use crate::session::api::SessionId;

impl Desk {
    /// Carries out a Move and answers it.
    pub(super) fn move_client(&mut self, session: SessionId, order: &Move, now: Now) {
        let Some(client) = self.clients.get(&session) else {
            return;
        };
        let answer = match &client.last_move {
            Some(last) if last.id == order.id => last.clone(),
            Some(last) if last.id > order.id => {
                let error = PublicError::new(Code::RequestMalformed, "overtaken by another move");
                self.answer(session, order.id, Err(error))
            }
            _ => {
                let verdict = self.transfer(session, order, now);
                let answer = self.answer(session, order.id, verdict);
                if let Some(client) = self.clients.get_mut(&session) {
                    client.last_move = Some(answer.clone());
                }
                answer
            }
        };
        if self.say_aside(session, Frame::Moved(answer)).is_err() {
            self.cut(session, "slow", now);
        }
    }

    fn transfer(&mut self, session: SessionId, order: &Move, now: Now) -> Result<(), PublicError> {
        let room = RoomName::from(order.room.as_str());
        let mut rooms: Vec<RoomName> = self.hall.room_of(session).cloned().into_iter().collect();
        rooms.push(room.clone());
        let transfer = Transfer {
            room,
            epoch: order.epoch,
            mute_sources: order.mute_sources.clone(),
        };
        let mut out = Outbox::default();
        let failed = || PublicError::new(Code::Internal, "the room failed");
        let verdict = self
            .guarded(&rooms, |hall| hall.transfer(session, &transfer, now, &mut out))
            .ok_or_else(failed)?;
        let outcome = verdict.as_ref().map_or_else(|e| e.code.as_str(), |()| "ok");
        self.metrics.moved(outcome);
        self.carry_out(out, now);
        verdict
    }

    fn answer(&self, session: SessionId, id: u64, verdict: Result<(), PublicError>) -> Moved {
        let (code, detail) = match verdict {
            Ok(()) => (String::new(), String::new()),
            Err(error) => (error.code.as_str().to_owned(), error.detail),
        };
        Moved {
            id,
            room: self
                .hall
                .room_of(session)
                .map(ToString::to_string)
                .unwrap_or_default(),
            code,
            detail,
        }
    }

    /// New role and rights.
    pub(super) fn stand(&mut self, session: SessionId, standing: &Standing, now: Now) {
        let grant = serde_json::from_str::<VideoGrant>(&standing.video_grant_json);
        let (Ok(role), Ok(grant)) = (standing.role.parse::<Role>(), grant) else {
            tracing::warn!(
                session = session.0,
                role = standing.role,
                "a standing that makes no sense"
            );
            return;
        };
        let grant = Grant::from(grant);
        self.in_room_of(session, now, |hall, out| hall.stand(session, role, grant, out));
    }

    /// The client is in another room, and nobody asked for it.
    pub(super) fn relocated(&mut self, session: SessionId, room: &RoomName) -> Result<(), Clogged> {
        let moved = Moved {
            room: room.to_string(),
            ..Default::default()
        };
        self.say_aside(session, Frame::Relocated(moved))
    }

    /// The client speaks to the server.
    pub(super) fn said(&mut self, session: SessionId, json: String, now: Now) -> Result<(), Clogged> {
        let Some(client) = self.clients.get_mut(&session) else {
            return Ok(());
        };
        if !client.said_allowance.take(now.since_start) {
            self.metrics.data_dropped(DropReason::RateLimited);
            return Ok(());
        }
        client.out.say_aside(Frame::Said(json))
    }

    /// What another worker needs to go on with the client.
    pub(super) fn handed_over(&mut self, session: SessionId, state: Vec<u8>) -> Result<(), Clogged> {
        self.say_aside(session, Frame::HandedOver(state))
    }

    fn say_aside(&mut self, session: SessionId, frame: Frame) -> Result<(), Clogged> {
        match self.clients.get_mut(&session) {
            Some(client) => client.out.say_aside(frame),
            None => Ok(()),
        }
    }
}
