//! Clients that go on here with the peer connection that they had with another worker, and the other way
//! round.
//!
//! Owns the participant that is made from a handover. Invariants: it is a stay of its own, with an id of
//! its own; rights and names are those in force where it comes from; its tracks keep their ids and are
//! shown once media has them here; whatever the room or the client's grant does not allow is taken down.
//! The first that the client is told is that it is back, the second that it is in another room.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::Entry;
use super::hall::Hall;
use super::handover::{self, Handed, Handover};
use super::ids::{Now, ParticipantSid};
use super::limits;
use super::participant::{Audience, Former, Participant};
use super::publish::expected;
use super::state::Room;
use super::track::Track;
use super::vocabulary::{Notice, Outbox, Output};
use crate::session::api::{Command, Home, Leg, PeerState, SessionId, Topology, TrackSid};

impl Handed {
    fn track(self) -> Track {
        Track {
            sid: self.sid,
            kind: self.kind,
            cids: self.cids,
            info: self.info,
            live: false,
            censored: self.censored,
            subscribers: std::collections::BTreeSet::new(),
            announced_subscribed: false,
            told_highest: self.told_highest,
            lower_since: None,
        }
    }
}

impl Room {
    /// Give the client's state to another worker: asks media for its part.
    pub(super) fn hand_over(&self, session: SessionId, out: &mut Outbox) {
        match self.participants.get(&session).map(|p| p.topology) {
            Some(Topology::Single) => out.media(Command::HandOver { session }),
            _ => out.0.push(Output::HandedOver {
                session,
                state: Vec::new(),
            }),
        }
    }

    /// Media has said its part.
    pub(super) fn handed_over(&self, session: SessionId, peer: Option<&PeerState>, out: &mut Outbox) {
        let Some(me) = self.participants.get(&session) else {
            return;
        };
        let state = peer.map(|peer| handover::write(me, &self.spec.name, peer));
        out.0.push(Output::HandedOver {
            session,
            state: state.unwrap_or_default(),
        });
    }

    /// Somebody enters as `session` with what it had elsewhere, admitted as
    /// [`super::Admission::TakesOver`].
    pub(super) fn take_over(&mut self, mut entry: Entry, session: SessionId, now: Now, out: &mut Outbox) {
        let Some(handed) = self.reserved.take_handover(&entry.identity) else {
            return;
        };
        let (offer, sync) = (entry.offer.take(), entry.sync.take());
        let sid = ParticipantSid::from(self.sids.sid("PA"));
        let Handover {
            room,
            sid: former,
            name,
            metadata,
            attributes,
            permission,
            auto_subscribe,
            audience,
            last_reliable,
            tracks,
            mut peer,
            ..
        } = *handed;
        entry.name = name;
        entry.metadata = metadata;
        entry.attributes = attributes;
        entry.auto_subscribe = auto_subscribe;
        entry.grant.apply(&permission);
        let mut me = Participant::new(entry, session, sid, now);
        me.audience = Audience {
            everyone: audience.all_participants,
            permissions: audience.track_permissions,
        };
        me.last_reliable = last_reliable;
        me.formerly(Former {
            room,
            sid: ParticipantSid::from(former),
        });
        let (tracks, refused) = self.acceptable(&me, tracks);
        peer.sources.retain(|s| tracks.contains_key(&s.sid));
        for section in &mut peer.sections {
            section.publishes = section.publishes.take().filter(|sid| tracks.contains_key(sid));
        }
        out.media(Command::Adopt {
            session,
            home: Home::from(self.spec.meeting.as_str()),
            codecs: self.spec.codecs.clone(),
            state: Box::new(peer),
        });
        self.hears(session, out);
        for track in tracks.values() {
            self.publishers.insert(Arc::clone(&track.sid), session);
            for cid in &track.cids {
                out.media(Command::ExpectTrack {
                    session,
                    track: expected(track, cid, &self.spec.publishing),
                });
            }
            if track.info.muted {
                out.media(Command::Mute {
                    session,
                    sid: Arc::clone(&track.sid),
                    muted: true,
                });
            }
        }
        me.tracks = tracks;
        self.started(now);
        self.reserved.consume(&me.identity);
        self.insert(me);
        self.counted(now);

        // Zero: what the old room did not get is not for the new one.
        out.tell(session, Notice::WelcomeBack { last_message_seq: 0 });
        if let Some(arrival) = self.arrival(session) {
            out.tell(session, Notice::RoomMoved(Box::new(arrival)));
        }
        for sid in refused {
            out.tell(session, Notice::TrackUnpublished { sid });
        }
        let speakers = self.speakers.current();
        if !speakers.is_empty() {
            out.tell(session, Notice::Speakers(speakers));
        }
        self.announce_newcomer(session, now, out);
        self.subscribe_to_all(session, out);
        if let Some(sync) = sync {
            self.sync(session, &sync, now, out);
        }
        if let Some(offer) = offer.filter(|o| !o.sdp.is_empty()) {
            out.media(Command::Offer {
                session,
                leg: Leg::Publisher,
                id: offer.id,
                sdp: offer.sdp,
            });
        }
    }

    /// Tracks that may be published here, and those that may not.
    fn acceptable(
        &self,
        me: &Participant,
        handed: Vec<Handed>,
    ) -> (BTreeMap<TrackSid, Track>, Vec<TrackSid>) {
        let mut tracks = BTreeMap::new();
        let mut refused = Vec::new();
        for track in handed.into_iter().map(Handed::track) {
            let names = track.codec_names();
            let codec = names.is_empty() || names.iter().any(|n| self.spec.allows_codec(n));
            let room = self.publishers.len() + tracks.len() < limits::TRACKS_PER_ROOM;
            let free = !self.publishers.contains_key(&track.sid);
            let encrypted = self.check_encryption(track.info.encryption).is_ok();
            if codec && room && free && encrypted && me.grant.may_publish(track.info.source) {
                tracks.insert(Arc::clone(&track.sid), track);
            } else {
                refused.push(track.sid);
            }
        }
        (tracks, refused)
    }
}

impl Hall {
    /// A client's state, for another worker.
    pub fn hand_over(&mut self, session: SessionId, out: &mut Outbox) {
        if let Some(room) = self.sessions.get(&session).and_then(|name| self.rooms.get(name)) {
            room.hand_over(session, out);
        }
    }

    /// Could a client go on here with this? Not while it still is here under the same id: the gateway
    /// moves it then.
    pub(super) fn may_take_over(&self, handed: &Handover) -> bool {
        let mut people = self.rooms.values().flat_map(|r| r.participants.values());
        let tracks = || handed.tracks.iter().map(|t| &t.sid);
        !people.any(|p| p.sid.as_str() == handed.sid)
            && !tracks().any(|sid| self.rooms.values().any(|r| r.publishers.contains_key(sid)))
    }
}

/// Does this resume fit?
pub(super) fn resumes(handed: &Handover, entry: &Entry, sid: &str) -> bool {
    entry.topology == Topology::Single
        && entry.identity == handed.identity
        && (sid.is_empty() || sid == handed.sid)
}
