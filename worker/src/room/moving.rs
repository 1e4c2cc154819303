//! From one room to another within this worker.
//!
//! Owns departure and arrival of people whose media sessions stay, and the end of a breakout room,
//! whose people go to the main room. Invariants: a session is in exactly one room at every return;
//! where a move is refused nothing has changed; tracks keep their ids, peer connections are not
//! touched; nothing of a mover is left in the room it came from but the memory of its departure.

use std::sync::Arc;

use livekit_protocol as lk;
use livekit_protocol::participant_info::State;
use plenum_errors::{Code, PublicError};

use super::entry::Entry;
use super::hall::Hall;
use super::ids::{Now, ParticipantSid, RoomName};
use super::limits;
use super::participant::{Former, Participant};
use super::state::Room;
use super::vocabulary::{Arrival, Notice, Outbox, Output};
use crate::session::api::{Command, SessionId, TrackSid};

/// Why somebody comes over, and what that overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    /// The meeting's rules want it: a lock is for strangers.
    Ordered,
    /// Its room was closed. It belongs to the meeting, full or not.
    Home,
}

/// A move that was ordered.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Where to.
    pub room: RoomName,
    /// 0 = whatever is held.
    pub epoch: u64,
    /// Tracks of these sources (`lk::TrackSource`) arrive muted.
    pub mute_sources: Vec<i32>,
}

impl Participant {
    /// As those see it who are not in its room any more.
    fn farewell(&self) -> lk::ParticipantInfo {
        lk::ParticipantInfo {
            state: State::Disconnected as i32,
            disconnect_reason: lk::DisconnectReason::Migration as i32,
            tracks: Vec::new(),
            ..self.info()
        }
    }
}

impl Room {
    /// May `who` come over from another room?
    fn admits_arrival(&self, who: &Participant, passage: Passage) -> Result<(), PublicError> {
        self.check_revoked(&who.identity, who.token_issued_at_ms)?;
        self.check_running()?;
        if passage == Passage::Home {
            return Ok(());
        }
        let takes_anothers = self
            .participant(who.identity.as_str())
            .is_some_and(Participant::takes_a_place);
        if who.takes_a_place() && !takes_anothers && !self.reserved.holds(&who.identity) {
            self.check_places(&who.identity)?;
        }
        if self.publishers.len() + who.tracks.len() > limits::TRACKS_PER_ROOM {
            return Err(PublicError::new(Code::TrackLimit, "the room's tracks"));
        }
        Ok(())
    }

    /// Takes people out and leaves their media sessions as they are: subscriptions end both ways, and
    /// those who stay see them go.
    fn depart(&mut self, sessions: &[SessionId], now: Now, out: &mut Outbox) -> Vec<Participant> {
        let mut people: Vec<Participant> = Vec::with_capacity(sessions.len());
        for session in sessions {
            if let Some(participant) = self.remove(*session) {
                people.push(participant);
            }
        }
        let staying: Vec<SessionId> = self.participants.keys().copied().collect();
        let mut gone = Vec::new();
        let mut silent = Vec::new();
        for participant in &mut people {
            let session = participant.session;
            for sid in participant.tracks.keys() {
                self.publishers.remove(sid);
                for (other, stayer) in &mut self.participants {
                    if stayer.subscriptions.remove(sid).is_some_and(|s| s.active) {
                        out.media(Command::Unsubscribe {
                            session: *other,
                            sid: Arc::clone(sid),
                        });
                    }
                }
            }
            for (sid, subscription) in std::mem::take(&mut participant.subscriptions) {
                if subscription.active {
                    self.forget_subscriber(&sid, session);
                    out.media(Command::Unsubscribe { session, sid });
                }
            }
            for track in participant.tracks.values_mut() {
                track.subscribers.clear();
                track.announced_subscribed = false;
                track.lower_since = None;
            }
            participant.changed();
            if !participant.grant.hidden {
                let info = participant.farewell();
                self.remember_departure(info.clone(), now);
                gone.push(info);
            }
            silent.extend(self.speakers.forget(participant.sid.as_str()));
            participant.formerly(Former {
                room: self.spec.name.clone(),
                sid: participant.sid.clone(),
            });
        }
        if !gone.is_empty() {
            out.tell_all(staying.clone(), Notice::Participants(gone));
        }
        // RoomMoved says who is in the other room. Clients of before it said so only add those: they are
        // told whom they leave behind.
        let left: Vec<lk::ParticipantInfo> = self
            .participants
            .values()
            .filter(|p| !p.grant.hidden)
            .map(Participant::farewell)
            .collect();
        if !left.is_empty() {
            out.tell_all(sessions.to_vec(), Notice::Participants(left));
        }
        if !silent.is_empty() {
            out.tell_all(staying, Notice::Speakers(silent));
        }
        self.counted(now);
        people
    }

    /// People come in with what they have. Nobody of their identities is here.
    fn arrive(&mut self, people: Vec<Participant>, now: Now, out: &mut Outbox) {
        let residents: Vec<SessionId> = self.participants.keys().copied().collect();
        let mut came = Vec::with_capacity(people.len());
        self.started(now);
        for mut participant in people {
            let session = participant.session;
            participant.sid = ParticipantSid::from(self.sids.sid("PA"));
            participant.joined_at_ms = now.unix_ms;
            participant.quality_told = None;
            participant.knows_qualities = false;
            participant.changed();
            self.reserved.consume(&participant.identity);
            for sid in participant.tracks.keys() {
                self.publishers.insert(Arc::clone(sid), session);
            }
            self.insert(participant);
            came.push(session);
        }
        self.counted(now);
        for session in &came {
            if let Some(arrival) = self.arrival(*session) {
                out.tell(*session, Notice::RoomMoved(Box::new(arrival)));
            }
        }
        let infos: Vec<lk::ParticipantInfo> = came
            .iter()
            .filter_map(|session| self.participants.get(session))
            .filter(|p| !p.grant.hidden)
            .map(Participant::info)
            .collect();
        if !infos.is_empty() {
            out.tell_all(residents, Notice::Participants(infos));
        }
        let speakers = self.speakers.current();
        if !speakers.is_empty() {
            out.tell_all(came.clone(), Notice::Speakers(speakers));
        }
        self.enforce_encryption(out);
        // Media asks for a key frame when it binds a subscription; asking now would only use up what may
        // be asked of the encoder.
        for session in &came {
            self.subscribe_to_all(*session, out);
        }
        // Who was watched by nobody may have stopped sending, and is told at once where somebody watches.
        for session in &came {
            for sid in self.tracks_of(*session) {
                self.subscribe_all_to(&sid, out);
                self.weigh(&sid, out);
            }
        }
    }

    /// What somebody who is here is told of having come.
    pub(super) fn arrival(&self, session: SessionId) -> Option<Arrival> {
        Some(Arrival {
            room: self.info(),
            // As in a welcome: the final word on oneself.
            me: lk::ParticipantInfo {
                state: State::Active as i32,
                ..self.participants.get(&session)?.info()
            },
            others: self.others(session),
        })
    }

    /// Tracks of these sources are muted from now on; the participant may unmute them.
    fn hush(&mut self, session: SessionId, sources: &[i32], out: &mut Outbox) {
        let audible: Vec<TrackSid> = self
            .participants
            .get(&session)
            .into_iter()
            .flat_map(|p| p.tracks.values())
            .filter(|t| !t.info.muted && sources.contains(&t.info.source))
            .map(|t| Arc::clone(&t.sid))
            .collect();
        for sid in audible {
            // After the news of its move, in which the track is unmuted: a client that sees its own
            // track muted there corrects us.
            out.tell(
                session,
                Notice::Muted {
                    sid: Arc::clone(&sid),
                    muted: true,
                },
            );
            self.set_muted(session, &sid, true, out);
        }
    }

    /// Ends the streams of everyone left without a word to the clients: whoever speaks for them takes
    /// them elsewhere.
    fn turn_out(&mut self, now: Now, out: &mut Outbox) {
        let sessions: Vec<SessionId> = self.participants.keys().copied().collect();
        for session in sessions {
            out.0.push(Output::End {
                session,
                code: Some(Code::RoomClosed),
                detail: self.spec.title.clone(),
            });
            out.media(Command::Close { session });
        }
        self.clear(now);
    }

    /// Is `entry` the resume of somebody who is here, though perhaps under another id by now?
    fn resumed_by(&self, entry: &Entry) -> bool {
        let Some(sid) = &entry.resume else { return false };
        self.participant(entry.identity.as_str()).is_some_and(|p| {
            if sid.is_empty() {
                self.spec.name == entry.room || p.former().any(|f| f.room == entry.room)
            } else {
                p.known_as(sid)
            }
        })
    }
}

impl Hall {
    /// Moves a session to another room, as ordered. The order is fulfilled where it is there already.
    pub fn transfer(
        &mut self,
        session: SessionId,
        order: &Transfer,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), PublicError> {
        let from = self
            .sessions
            .get(&session)
            .cloned()
            .ok_or(Code::ParticipantNotFound)?;
        if from != order.room {
            self.may_transfer(session, &from, order)?;
            self.move_all(&from, &order.room, &[session], now, out);
        }
        if let Some(room) = self.rooms.get_mut(&order.room) {
            room.hush(session, &order.mute_sources, out);
        }
        Ok(())
    }

    fn may_transfer(&self, session: SessionId, from: &RoomName, order: &Transfer) -> Result<(), PublicError> {
        let here = self.held(from)?;
        let there = self.held(&order.room)?;
        if here.spec.meeting != there.spec.meeting {
            return Err(PublicError::new(Code::NotPermitted, "another meeting"));
        }
        there.check_epoch(order.epoch)?;
        let who = here.participants.get(&session).ok_or(Code::ParticipantNotFound)?;
        there.admits_arrival(who, Passage::Ordered)
    }

    /// Both rooms are held and the people admitted.
    fn move_all(
        &mut self,
        from: &RoomName,
        to: &RoomName,
        sessions: &[SessionId],
        now: Now,
        out: &mut Outbox,
    ) {
        let Some(here) = self.rooms.get_mut(from) else {
            return;
        };
        let people = here.depart(sessions, now, out);
        let Some(there) = self.rooms.get_mut(to) else {
            return;
        };
        for participant in &people {
            if let Some(older) = there.session_of(participant.identity.as_str()) {
                there.replace(older, now, out);
                self.sessions.remove(&older);
            }
            self.sessions.insert(participant.session, to.clone());
        }
        there.arrive(people, now, out);
    }

    /// A breakout room closes: its people go to the main room if that is here and lets them in; the
    /// streams of the others end.
    pub(super) fn close_breakout(&mut self, name: &RoomName, now: Now, out: &mut Outbox) {
        let Some(room) = self.rooms.get(name) else { return };
        let main = RoomName::from(room.spec.meeting.as_str());
        let mut going = Vec::new();
        let mut replaced = Vec::new();
        if let Some(home) = self.rooms.get(&main) {
            for who in room.participants.values() {
                // The newer connection of an identity stands.
                if home
                    .session_of(who.identity.as_str())
                    .is_some_and(|there| there > who.session)
                {
                    replaced.push(who.session);
                } else if home.admits_arrival(who, Passage::Home).is_ok() {
                    going.push(who.session);
                }
            }
        }
        if let Some(room) = self.rooms.get_mut(name) {
            for session in replaced {
                room.replace(session, now, out);
            }
        }
        for session in &going {
            out.0.push(Output::Relocated {
                session: *session,
                room: main.clone(),
            });
        }
        if !going.is_empty() {
            self.move_all(name, &main, &going, now, out);
        }
        if let Some(room) = self.rooms.get_mut(name) {
            room.turn_out(now, out);
        }
        self.sessions.retain(|_, at| at != name);
    }

    /// The rooms that the end of `name` may change: of a breakout room, the main room too.
    pub fn concerned_by_end(&self, name: &RoomName) -> Vec<RoomName> {
        let main = self
            .rooms
            .get(name)
            .filter(|_| name.is_breakout())
            .map(|room| RoomName::from(room.spec.meeting.as_str()));
        std::iter::once(name.clone()).chain(main).collect()
    }

    /// The rooms that [`Hall::tick`] may change.
    pub fn concerned_by_tick(&self, name: &RoomName) -> Vec<RoomName> {
        if self.must_close(name) {
            self.concerned_by_end(name)
        } else {
            vec![name.clone()]
        }
    }

    /// A breakout room whose time is over, with people in it.
    pub(super) fn must_close(&self, name: &RoomName) -> bool {
        name.is_breakout()
            && self
                .rooms
                .get(name)
                .is_some_and(|room| room.over && !room.participants.is_empty())
    }

    /// The room in which the session goes on that `entry` wants to resume, where that is another one
    /// than it names: its owner was moved since it got its token.
    pub fn moved_on(&self, entry: &Entry) -> Option<RoomName> {
        entry.resume.as_ref()?;
        if self.rooms.get(&entry.room).is_some_and(|r| r.resumed_by(entry)) {
            return None;
        }
        let meeting = entry.room.meeting();
        self.rooms
            .values()
            .find(|r| r.spec.name.meeting() == meeting && r.resumed_by(entry))
            .map(|r| r.spec.name.clone())
    }
}
