//! One room: who is in it.
//!
//! Owns entering, resuming and leaving. Invariants: at most one stay per identity; a client's first
//! notice of a stay is a welcome or a goodbye; everyone who could see a participant is told when it
//! leaves, and those who were away are told when they come back.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::leave_request::Action as LeaveAction;
use livekit_protocol::participant_info::State;
use plenum_errors::Code;

use super::announce::Newcomers;
use super::data::ReliableMemory;
use super::entry::Entry;
use super::ids::{Identity, Now, ParticipantSid, RoomSid, Sids};
use super::limits;
use super::participant::{Participant, Presence};
use super::reserve::Reservations;
use super::speakers::Speakers;
use super::spec::{EndReason, RoomSpec};
use super::vocabulary::{Goodbye, Notice, Outbox, Output, Welcome};
use crate::session::api::{Command, Home, Leg, SessionId, Topology, TrackSid};

/// What others want to know of a room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomStanding {
    /// People in it, hidden ones too.
    pub participants: u32,
    /// Unix milliseconds of the first join of the present session; 0 = never joined.
    pub active_since_ms: i64,
    /// Most at a time in the present or last session.
    pub peak_participants: u32,
    /// Unix milliseconds of the end of the last session; 0 = running or never joined.
    pub ended_at_ms: i64,
}

/// A departure, for those who were away.
#[derive(Debug)]
struct Departed {
    at: Duration,
    info: lk::ParticipantInfo,
}

/// A room.
#[derive(Debug)]
pub struct Room {
    pub(super) spec: RoomSpec,
    pub(super) sid: RoomSid,
    pub(super) sids: Sids,
    pub(super) created_ms: i64,
    pub(super) participants: BTreeMap<SessionId, Participant>,
    pub(super) by_identity: HashMap<Identity, SessionId>,
    /// Publisher of each track, announced or live.
    pub(super) publishers: HashMap<TrackSid, SessionId>,
    /// Tracks of which something else may be wanted than their publishers were told.
    pub(super) restless: BTreeSet<TrackSid>,
    pub(super) speakers: Speakers,
    pub(super) reliable: ReliableMemory,
    departed: VecDeque<Departed>,
    pub(super) newcomers: Newcomers,
    /// Identity and the Unix millisecond before which its tokens are void.
    pub(super) revoked: VecDeque<(Identity, i64)>,
    pub(super) reserved: Reservations,
    pub(super) standing: RoomStanding,
    /// Since when nobody is in it.
    pub(super) empty_since: Duration,
    pub(super) active_since: Option<Duration>,
    /// maxDuration was reached: nobody enters until the room is assigned anew.
    pub(super) over: bool,
    pub(super) room_changed: bool,
    pub(super) room_told: Duration,
}

impl Room {
    /// An empty room.
    pub fn new(spec: RoomSpec, mut sids: Sids, now: Now) -> Self {
        let sid = RoomSid::from(sids.sid("RM"));
        Self {
            spec,
            sid,
            sids,
            created_ms: now.unix_ms,
            participants: BTreeMap::new(),
            by_identity: HashMap::new(),
            publishers: HashMap::new(),
            restless: BTreeSet::new(),
            speakers: Speakers::default(),
            reliable: ReliableMemory::default(),
            departed: VecDeque::new(),
            newcomers: Newcomers::default(),
            revoked: VecDeque::new(),
            reserved: Reservations::default(),
            standing: RoomStanding::default(),
            empty_since: now.since_start,
            active_since: None,
            over: false,
            room_changed: false,
            room_told: now.since_start,
        }
    }

    /// Its settings.
    pub fn spec(&self) -> &RoomSpec {
        &self.spec
    }

    /// LiveKit's id of it.
    pub fn sid(&self) -> &RoomSid {
        &self.sid
    }

    /// For reports.
    pub fn standing(&self) -> &RoomStanding {
        &self.standing
    }

    /// Everyone in it.
    pub fn participants(&self) -> impl Iterator<Item = &Participant> {
        self.participants.values()
    }

    /// By identity.
    pub fn participant(&self, identity: &str) -> Option<&Participant> {
        self.by_identity
            .get(identity)
            .and_then(|session| self.participants.get(session))
    }

    /// Is it heard now?
    pub fn speaks(&self, participant: &Participant) -> bool {
        self.speakers.speaks(participant.sid.as_str())
    }

    /// The session of an identity.
    pub fn session_of(&self, identity: &str) -> Option<SessionId> {
        self.by_identity.get(identity).copied()
    }

    /// New settings under the same epoch.
    pub(super) fn update(&mut self, spec: RoomSpec, now: Now, out: &mut Outbox) {
        if self.spec == spec {
            return;
        }
        if spec.speakers != self.spec.speakers {
            let policy = spec.speakers;
            let hear = |session: &SessionId| Command::Hear {
                session: *session,
                policy,
            };
            self.participants.keys().map(hear).for_each(|c| out.media(c));
        }
        // A longer time reopens what had run out.
        if spec.max_duration != self.spec.max_duration {
            self.over = false;
        }
        self.spec = spec;
        self.room_changed = true;
        // Told at the next tick, whatever was told last.
        self.room_told = now.since_start.saturating_sub(Duration::from_secs(3600));
    }

    /// Tells media whom a session hears.
    pub(super) fn hears(&self, session: SessionId, out: &mut Outbox) {
        if self.spec.speakers.is_some() {
            let policy = self.spec.speakers;
            out.media(Command::Hear { session, policy });
        }
    }

    /// As clients see it.
    pub fn info(&self) -> lk::Room {
        let seconds = |d: Option<Duration>| d.map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX));
        let visible = || self.participants.values().filter(|p| !p.grant.hidden);
        lk::Room {
            sid: self.sid.to_string(),
            name: self.spec.name.to_string(),
            empty_timeout: seconds(self.spec.empty_timeout),
            departure_timeout: seconds(self.spec.departure_timeout),
            max_participants: self.spec.max_participants.unwrap_or(0),
            creation_time: self.created_ms / 1000,
            creation_time_ms: self.created_ms,
            enabled_codecs: Vec::new(),
            metadata: self.spec.metadata.clone(),
            num_participants: u32::try_from(visible().count()).unwrap_or(u32::MAX),
            num_publishers: u32::try_from(visible().filter(|p| p.tracks.values().any(|t| t.live)).count())
                .unwrap_or(u32::MAX),
            active_recording: self.participants.values().any(|p| p.grant.recorder),
            ..Default::default()
        }
    }

    /// Somebody enters as `session`, admitted as [`Admission::New`].
    pub(super) fn enter(&mut self, mut entry: Entry, session: SessionId, now: Now, out: &mut Outbox) {
        let offer = entry.offer.take();
        let tracks = std::mem::take(&mut entry.tracks);
        entry
            .name
            .truncate(floor_char_boundary(&entry.name, limits::NAME));
        entry
            .metadata
            .truncate(floor_char_boundary(&entry.metadata, limits::METADATA));
        let sid = ParticipantSid::from(self.sids.sid("PA"));
        let participant = Participant::new(entry, session, sid, now);
        let dual = participant.topology == Topology::Dual;
        out.media(Command::Open {
            session,
            home: Home::from(self.spec.meeting.as_str()),
            topology: participant.topology,
            codecs: self.spec.codecs.clone(),
        });
        if participant.offers_once {
            out.media(Command::OffersOnce { session });
        }
        self.hears(session, out);
        self.started(now);
        self.reserved.consume(&participant.identity);
        self.insert(participant);
        self.counted(now);
        let Some(me) = self.participants.get(&session) else {
            return;
        };
        out.tell(
            session,
            Notice::Welcome(Box::new(Welcome {
                room: self.info(),
                // Clients take what they are told of themselves here as the final word, and some wait
                // for ACTIVE before they publish.
                me: lk::ParticipantInfo {
                    state: State::Active as i32,
                    ..me.info()
                },
                others: self.others(session),
                dual,
                codecs: self.publishable_codecs(),
            })),
        );
        self.announce_newcomer(session, now, out);
        self.subscribe_to_all(session, out);
        for request in &tracks {
            self.add_track(session, request, out);
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

    /// Into both indexes.
    pub(super) fn insert(&mut self, participant: Participant) {
        self.by_identity
            .insert(participant.identity.clone(), participant.session);
        self.participants.insert(participant.session, participant);
    }

    /// Out of both indexes, and nothing else.
    pub(super) fn remove(&mut self, session: SessionId) -> Option<Participant> {
        let participant = self.participants.remove(&session)?;
        self.by_identity.remove(&participant.identity);
        self.newcomers.forget(session);
        Some(participant)
    }

    /// `session` has a new signalling connection. False: it was cut off again, as a drill.
    pub(super) fn resume(&mut self, session: SessionId, entry: Entry, now: Now, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        let away_since = match me.presence {
            Presence::Away { since } => since,
            Presence::Here => now.since_start,
        };
        me.presence = Presence::Here;
        me.client = entry.client;
        let cut = me.cut_next_resume.take();
        if cut == Some(true) {
            me.presence = Presence::Away {
                since: now.since_start,
            };
            out.0.push(Output::Cut { session });
            return;
        }
        out.tell(
            session,
            Notice::WelcomeBack {
                last_message_seq: me.last_reliable,
            },
        );
        if cut == Some(false) {
            me.presence = Presence::Away {
                since: now.since_start,
            };
            out.0.push(Output::Cut { session });
            return;
        }
        if let Some(me) = self.participants.get(&session) {
            let knows = match entry.resume.as_deref() {
                None | Some("") => entry.room == self.spec.name,
                Some(sid) => sid == me.sid.as_str(),
            };
            if !knows && let Some(arrival) = self.arrival(session) {
                out.tell(session, Notice::RoomMoved(Box::new(arrival)));
            }
        }
        // What the client was told just before the loss may not have arrived either.
        let horizon = away_since.saturating_sub(Duration::from_secs(10));
        let mut infos: Vec<lk::ParticipantInfo> = self
            .departed
            .iter()
            .filter(|d| d.at >= horizon && !self.by_identity.contains_key(d.info.identity.as_str()))
            .map(|d| d.info.clone())
            .collect();
        infos.extend(self.others(session));
        infos.extend(self.participants.get(&session).map(Participant::info));
        out.tell(session, Notice::Participants(infos));
        out.tell(session, Notice::Room(self.info()));
        let speakers = self.speakers.current();
        if !speakers.is_empty() {
            out.tell(session, Notice::Speakers(speakers));
        }
        if let Some(me) = self.participants.get_mut(&session) {
            me.knows_qualities = false;
        }
        if let Some(sync) = entry.sync {
            self.sync(session, &sync, now, out);
        }
    }

    /// The signalling connection of `session` is gone without a Leave.
    pub(super) fn lost(&mut self, session: SessionId, now: Now) {
        if let Some(participant) = self.participants.get_mut(&session) {
            participant.presence = Presence::Away {
                since: now.since_start,
            };
        }
    }

    /// Takes a participant out: tells media and the others. Its own goodbye is the caller's.
    pub(super) fn take(
        &mut self,
        session: SessionId,
        reason: lk::DisconnectReason,
        now: Now,
        out: &mut Outbox,
    ) -> Option<Participant> {
        let mut participant = self.remove(session)?;
        for sid in participant.tracks.keys() {
            self.publishers.remove(sid);
            out.media(Command::RemoveTrack {
                session,
                sid: Arc::clone(sid),
            });
            for other in self.participants.values_mut() {
                other.subscriptions.remove(sid);
            }
        }
        for (sid, subscription) in &participant.subscriptions {
            if subscription.active {
                self.forget_subscriber(sid, session);
            }
        }
        out.media(Command::Close { session });
        participant.state = State::Disconnected;
        participant.changed();
        if !participant.grant.hidden {
            let mut info = participant.info();
            info.disconnect_reason = reason as i32;
            info.tracks.clear();
            self.remember_departure(info.clone(), now);
            out.tell_all(self.everyone_but(session), Notice::Participants(vec![info]));
        }
        if let Some(stopped) = self.speakers.forget(participant.sid.as_str()) {
            out.tell_all(self.everyone_but(session), Notice::Speakers(vec![stopped]));
        }
        self.counted(now);
        Some(participant)
    }

    /// For those who are away.
    pub(super) fn remember_departure(&mut self, info: lk::ParticipantInfo, now: Now) {
        self.departed
            .retain(|d| now.since(d.at) < limits::DEPARTURE_MEMORY);
        self.departed.push_back(Departed {
            at: now.since_start,
            info,
        });
    }

    /// Takes a participant out and ends its signalling.
    pub(super) fn dismiss(
        &mut self,
        session: SessionId,
        goodbye: Option<Goodbye>,
        code: Option<Code>,
        detail: impl Into<String>,
        now: Now,
        out: &mut Outbox,
    ) -> Option<Participant> {
        if let Some(goodbye) = goodbye {
            out.tell(session, Notice::Goodbye(goodbye));
        }
        let reason = goodbye.map_or(lk::DisconnectReason::ClientInitiated, |g| g.reason);
        let participant = self.take(session, reason, now, out)?;
        out.0.push(Output::End {
            session,
            code,
            detail: detail.into(),
        });
        Some(participant)
    }

    /// A newer session of the same identity takes over.
    pub(super) fn replace(&mut self, session: SessionId, now: Now, out: &mut Outbox) {
        let goodbye = Goodbye {
            reason: lk::DisconnectReason::DuplicateIdentity,
            action: LeaveAction::Disconnect,
        };
        self.dismiss(
            session,
            Some(goodbye),
            Some(Code::DuplicateIdentity),
            "",
            now,
            out,
        );
    }

    /// Everyone goes. The room remains, empty.
    pub(super) fn end(&mut self, reason: EndReason, now: Now, out: &mut Outbox) {
        let (why, action) = reason.leave();
        let sessions: Vec<SessionId> = self.participants.keys().copied().collect();
        // Nobody needs to hear of each departure: all are told the same first.
        out.tell_all(sessions.clone(), Notice::Goodbye(Goodbye { reason: why, action }));
        for session in sessions {
            out.0.push(Output::End {
                session,
                code: Some(reason.code()),
                detail: String::new(),
            });
            out.media(Command::Close { session });
        }
        self.clear(now);
    }

    /// Nobody is here any more, and nothing is left of those who were.
    pub(super) fn clear(&mut self, now: Now) {
        self.participants.clear();
        self.by_identity.clear();
        self.publishers.clear();
        self.restless.clear();
        self.speakers = Speakers::default();
        self.reliable = ReliableMemory::default();
        self.departed.clear();
        self.newcomers = Newcomers::default();
        self.reserved.clear();
        self.counted(now);
        self.session_over(now);
    }

    /// The session of the room is over; the next join starts another.
    pub(super) fn session_over(&mut self, now: Now) {
        self.active_since = None;
        if self.standing.ended_at_ms == 0 {
            self.standing.ended_at_ms = now.unix_ms.max(1);
        }
    }

    pub(super) fn started(&mut self, now: Now) {
        if self.active_since.is_none() {
            self.active_since = Some(now.since_start);
            self.standing.active_since_ms = now.unix_ms;
            self.standing.ended_at_ms = 0;
            self.standing.peak_participants = 0;
            if self.created_ms == 0 {
                self.created_ms = now.unix_ms;
            }
        }
    }

    pub(super) fn counted(&mut self, now: Now) {
        let count = u32::try_from(self.participants.len()).unwrap_or(u32::MAX);
        self.standing.participants = count;
        self.standing.peak_participants = self.standing.peak_participants.max(count);
        self.room_changed = true;
        if count == 0 {
            self.empty_since = now.since_start;
        }
    }

    /// Everyone that `session` may know of.
    pub(super) fn others(&self, session: SessionId) -> Vec<lk::ParticipantInfo> {
        self.participants
            .values()
            .filter(|p| p.session != session && !p.grant.hidden)
            .map(Participant::info)
            .collect()
    }

    fn publishable_codecs(&self) -> Vec<String> {
        const ALL: [(&str, &str); 8] = [
            ("opus", "audio/opus"),
            ("red", "audio/red"),
            ("vp8", "video/VP8"),
            ("h264", "video/H264"),
            ("vp9", "video/VP9"),
            ("av1", "video/AV1"),
            ("h265", "video/H265"),
            ("rtx", "video/rtx"),
        ];
        ALL.iter()
            // Retransmission and redundancy are not codecs that a meeting chooses.
            .filter(|(name, _)| matches!(*name, "red" | "rtx") || self.spec.allows_codec(name))
            .map(|(_, mime)| (*mime).to_owned())
            .collect()
    }
}

/// The largest cut at or under `at` that splits no character.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}
