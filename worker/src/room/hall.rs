//! All rooms of a worker.
//!
//! Owns which rooms there are, which room a session is in, epochs and draining. Invariants: a
//! session is in at most one room; a room's epoch never falls; while draining no new room is taken;
//! beyond its limit of sessions nobody new is let in, so that media never has to refuse one.

use std::collections::{BTreeMap, HashMap};

use livekit_protocol as lk;
use plenum_errors::{Code, PublicError};
use plenum_token::Role;

use super::entry::{Admission, Entry};
use super::grant::Grant;
use super::ids::{Identity, Now, RoomName, RoomSid, Sids};
use super::moderate::Moderation;
use super::reserve::Reserve;
use super::spec::{EndReason, RoomSpec};
use super::state::Room;
use super::vocabulary::{Action, Outbox, Output};
use crate::session::api::{AudioLevel, Command, Event, Leg, SessionId};

/// How somebody entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// A new stay.
    Anew(SessionId),
    /// The old one goes on.
    Resumed(SessionId),
    /// The client must be told to start anew: what it wants to go on with is not here.
    Stale,
}

/// The rooms.
#[derive(Debug)]
pub struct Hall {
    pub(super) rooms: BTreeMap<RoomName, Room>,
    pub(super) sessions: HashMap<SessionId, RoomName>,
    next_session: u64,
    sids: Sids,
    draining: bool,
    max_sessions: Option<usize>,
}

impl Hall {
    /// No rooms yet.
    pub fn new(sids: Sids) -> Self {
        Self {
            rooms: BTreeMap::new(),
            sessions: HashMap::new(),
            next_session: 1,
            sids,
            draining: false,
            max_sessions: None,
        }
    }

    /// Lets in no more than so many; `None` = any number.
    pub fn limit_sessions(&mut self, most: Option<usize>) {
        self.max_sessions = most;
    }

    /// Is there a place for somebody new?
    pub fn vacancy(&self) -> Result<(), PublicError> {
        match self.max_sessions {
            Some(most) if self.sessions.len() + self.expected() >= most => Err(PublicError::new(
                Code::NoCapacity,
                format!("the worker takes {most} clients"),
            )),
            _ => Ok(()),
        }
    }

    /// People on the way from other workers.
    fn expected(&self) -> usize {
        self.rooms.values().map(Room::expected).sum()
    }

    /// Keeps a place in a room for somebody who is on the way from another worker. True: it may go on
    /// here with the peer connection that it has.
    pub fn reserve(&mut self, name: &RoomName, mut request: Reserve, now: Now) -> Result<bool, PublicError> {
        let room = self.held(name)?;
        room.may_reserve(&request)?;
        let counted =
            room.session_of(request.identity.as_str()).is_some() || room.reserved.holds(&request.identity);
        if !counted {
            self.vacancy()?;
        }
        let handover = request.handover.take();
        request.handover = handover.filter(|h| h.identity == request.identity && self.may_take_over(h));
        let may_resume = request.handover.is_some();
        if let Some(room) = self.rooms.get_mut(name) {
            room.reserve(request, now);
        }
        Ok(may_resume)
    }

    /// Every room.
    pub fn rooms(&self) -> impl Iterator<Item = &Room> {
        self.rooms.values()
    }

    /// One room.
    pub fn room(&self, name: &str) -> Option<&Room> {
        self.rooms.get(name)
    }

    /// The room of a session.
    pub fn room_of(&self, session: SessionId) -> Option<&RoomName> {
        self.sessions.get(&session)
    }

    /// Refuses new rooms?
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// Refuse new rooms from now on, or take them again.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Creates or updates a room; its session id.
    pub fn assign(&mut self, spec: RoomSpec, now: Now, out: &mut Outbox) -> Result<RoomSid, PublicError> {
        if let Some(room) = self.rooms.get_mut(&spec.name) {
            let held = room.spec.epoch;
            if spec.epoch < held {
                return Err(PublicError::new(
                    Code::EpochStale,
                    format!("room is at epoch {held}"),
                ));
            }
            if spec.epoch == held {
                room.update(spec, now, out);
                room.enforce_encryption(out);
                return Ok(room.sid.clone());
            }
            self.remove(&spec.name.clone(), EndReason::Moved, now, out);
        } else if self.draining {
            return Err(Code::WorkerDraining.into());
        }
        let seed = self.sids.next_u64();
        let room = Room::new(spec, Sids::seeded(seed), now);
        let sid = room.sid.clone();
        self.rooms.insert(room.spec.name.clone(), room);
        Ok(sid)
    }

    /// Ends a room. An unknown one is as good as ended.
    pub fn release(
        &mut self,
        name: &RoomName,
        epoch: u64,
        reason: EndReason,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), PublicError> {
        let Some(room) = self.rooms.get(name) else {
            return Ok(());
        };
        if epoch != 0 && epoch < room.spec.epoch {
            return Err(PublicError::new(
                Code::EpochStale,
                format!("room is at epoch {}", room.spec.epoch),
            ));
        }
        self.remove(name, reason, now, out);
        Ok(())
    }

    /// Ends a room, whatever its epoch. People of a breakout room that closes go to the main room.
    pub fn remove(&mut self, name: &RoomName, reason: EndReason, now: Now, out: &mut Outbox) {
        if name.is_breakout() && reason.closes() {
            self.close_breakout(name, now, out);
            self.rooms.remove(name);
            return;
        }
        if let Some(mut room) = self.rooms.remove(name) {
            room.end(reason, now, out);
        }
        self.sessions.retain(|_, room| room != name);
    }

    /// Forgets a room whose logic failed; nothing of it is run again.
    pub fn abandon(&mut self, name: &RoomName) -> Vec<SessionId> {
        self.rooms.remove(name);
        let lost: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, room)| *room == name)
            .map(|(session, _)| *session)
            .collect();
        self.sessions.retain(|_, room| room != name);
        lost
    }

    pub(super) fn held(&self, name: &RoomName) -> Result<&Room, PublicError> {
        self.rooms
            .get(name)
            .ok_or_else(|| PublicError::new(Code::RoomNotFound, name.as_str()))
    }

    /// What [`Hall::enter`] would say.
    pub fn check(&self, entry: &Entry) -> Result<(), PublicError> {
        self.admission(entry).map(drop)
    }

    /// The verdict, and the room it is about: whoever resumes may have been moved meanwhile.
    fn admission(&self, entry: &Entry) -> Result<(RoomName, Admission), PublicError> {
        if let Some(name) = self.moved_on(entry) {
            // The epoch it knows is that of the room it was in.
            let entry = Entry {
                room: name.clone(),
                epoch: 0,
                ..entry.clone()
            };
            let admission = self.held(&name)?.admit(&entry)?;
            return Ok((name, admission));
        }
        let room = self.held(&entry.room)?;
        let admission = room.admit(entry)?;
        // Whoever comes back or was announced has a place already.
        if admission == Admission::New && !room.reserved.holds(&entry.identity) {
            self.vacancy()?;
        }
        Ok((entry.room.clone(), admission))
    }

    /// Lets a client in.
    pub fn enter(&mut self, entry: Entry, now: Now, out: &mut Outbox) -> Result<Entered, PublicError> {
        let (name, admission) = self.admission(&entry)?;
        let Some(room) = self.rooms.get_mut(&name) else {
            return Err(Code::RoomNotFound.into());
        };
        let entered = match admission {
            Admission::Unknown => Entered::Stale,
            Admission::Resumes(session) => {
                let offer = entry.offer.clone();
                let elsewhere = entry.room != name;
                room.resume(session, entry, now, out);
                // The first frame of a resume is its greeting.
                if elsewhere {
                    out.0.push(Output::Relocated { session, room: name });
                }
                room.restart_subscriber(session, out);
                room.refresh_pictures(session, out);
                if let Some(offer) = offer.filter(|o| !o.sdp.is_empty()) {
                    out.media(Command::Offer {
                        session,
                        leg: Leg::Publisher,
                        id: offer.id,
                        sdp: offer.sdp,
                    });
                }
                Entered::Resumed(session)
            }
            Admission::TakesOver => {
                let session = SessionId(self.next_session);
                self.next_session += 1;
                if let Some(old) = room.session_of(entry.identity.as_str()) {
                    room.replace(old, now, out);
                    self.sessions.remove(&old);
                }
                room.take_over(entry, session, now, out);
                self.sessions.insert(session, name);
                Entered::Anew(session)
            }
            Admission::New | Admission::Replaces(_) => {
                let session = SessionId(self.next_session);
                self.next_session += 1;
                if let Admission::Replaces(old) = admission {
                    room.replace(old, now, out);
                    self.sessions.remove(&old);
                }
                room.enter(entry, session, now, out);
                self.sessions.insert(session, name);
                Entered::Anew(session)
            }
        };
        Ok(entered)
    }

    /// A client asks.
    pub fn act(&mut self, session: SessionId, action: Action, now: Now, out: &mut Outbox) {
        self.with(session, |room| room.act(session, action, now, out));
    }

    /// A client's signalling is gone without a Leave.
    pub fn lost(&mut self, session: SessionId, now: Now) {
        self.with(session, |room| room.lost(session, now));
    }

    /// Removes a client that broke the rules of the protocol.
    pub fn drop_client(&mut self, session: SessionId, error: &PublicError, now: Now, out: &mut Outbox) {
        let goodbye = super::vocabulary::Goodbye {
            reason: lk::DisconnectReason::UnknownReason,
            action: lk::leave_request::Action::Disconnect,
        };
        self.with(session, |room| {
            room.dismiss(
                session,
                Some(goodbye),
                Some(error.code),
                error.detail.clone(),
                now,
                out,
            );
        });
    }

    fn with(&mut self, session: SessionId, f: impl FnOnce(&mut Room)) {
        let Some(room) = self
            .sessions
            .get(&session)
            .and_then(|name| self.rooms.get_mut(name))
        else {
            return;
        };
        f(room);
        if !room.participants.contains_key(&session) {
            self.sessions.remove(&session);
        }
    }

    /// Media reports on one session.
    pub fn media(&mut self, session: SessionId, event: Event, now: Now, out: &mut Outbox) {
        self.with(session, |room| room.media(session, event, now, out));
    }

    /// Media reports who is heard, over all rooms.
    pub fn levels(&mut self, levels: Vec<AudioLevel>) {
        let mut by_room: BTreeMap<RoomName, Vec<AudioLevel>> = BTreeMap::new();
        for level in levels {
            if let Some(name) = self.sessions.get(&level.session) {
                by_room.entry(name.clone()).or_default().push(level);
            }
        }
        for (name, levels) in by_room {
            if let Some(room) = self.rooms.get_mut(&name) {
                room.levels(&levels);
            }
        }
    }

    /// Connection qualities, over all rooms.
    pub fn qualities(&mut self, measured: &[(SessionId, lk::ConnectionQuality, f32)], out: &mut Outbox) {
        for (session, quality, score) in measured {
            self.with(*session, |room| room.measured(*session, *quality, *score));
        }
        for room in self.rooms.values_mut() {
            room.tell_qualities(out);
        }
    }

    /// Time has passed, for one room.
    pub fn tick(&mut self, name: &RoomName, now: Now, out: &mut Outbox) {
        if self.must_close(name) {
            self.close_breakout(name, now, out);
        }
        let Some(room) = self.rooms.get_mut(name) else {
            return;
        };
        room.tick(now, out);
        let room = &*room;
        self.sessions
            .retain(|session, at| at != name || room.participants.contains_key(session));
    }

    /// JSON for one client.
    pub fn tell(&mut self, session: SessionId, json: String, out: &mut Outbox) {
        self.with(session, |room| room.tell_client(session, json, out));
    }

    /// A client's role and rights from now on.
    pub fn stand(&mut self, session: SessionId, role: Role, grant: Grant, out: &mut Outbox) {
        self.with(session, |room| room.stand(session, role, grant, out));
    }

    /// A moderator decides.
    pub fn moderate(
        &mut self,
        name: &RoomName,
        what: Moderation,
        now: Now,
        out: &mut Outbox,
    ) -> Result<Option<lk::ParticipantInfo>, PublicError> {
        let room = self
            .rooms
            .get_mut(name)
            .ok_or_else(|| PublicError::new(Code::RoomNotFound, name.as_str()))?;
        room.moderate(what, now, out)
    }

    /// A moderator removes somebody. False: nobody of that identity is there.
    pub fn expel(
        &mut self,
        name: &RoomName,
        identity: &Identity,
        revoke: bool,
        now: Now,
        out: &mut Outbox,
    ) -> Result<bool, PublicError> {
        let room = self
            .rooms
            .get_mut(name)
            .ok_or_else(|| PublicError::new(Code::RoomNotFound, name.as_str()))?;
        let session = room.session_of(identity.as_str());
        let found = room.expel(identity, revoke, now, out);
        if let Some(session) = session {
            self.sessions.remove(&session);
        }
        Ok(found)
    }
}
