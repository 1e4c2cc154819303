//! One participant.
//!
//! Owns a person's stay: rights, tracks, subscriptions and presence. Invariant: `version` rises with
//! every change that others are told of, so that clients can drop what arrives late.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::participant_info::{Kind, State};
use plenum_token::Role;

use super::entry::Entry;
use super::grant::Grant;
use super::ids::{Identity, Now, ParticipantSid, RoomName};
use super::limits;
use super::reserved::Waiting;
use super::track::Track;
use crate::session::api::{Command, SessionId, Topology, TrackSid};

/// Is its signalling connection there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Connected.
    Here,
    /// Gone without a Leave; may come back.
    Away {
        /// `Now::since_start` of the loss.
        since: Duration,
    },
}

/// Whether somebody receives a track, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscription {
    /// What the subscriber said; `None` = its default.
    pub(super) wanted: Option<bool>,
    /// Media was told to forward.
    pub(super) active: bool,
    /// It was told that the publisher does not let it.
    pub(super) denied: bool,
    pub(super) disabled: bool,
    pub(super) quality: Option<i32>,
    pub(super) dimensions: Option<(u32, u32)>,
    /// Frames a second that are enough.
    pub(super) fps: Option<u32>,
    /// Which of its tracks come first: 1 before 2, 0 = nothing said.
    pub(super) priority: u32,
    /// It was told that the network does not let it through at the moment.
    pub(super) paused: bool,
}

impl Subscription {
    /// Frames and priority, by what the subscriber said and by what is usual: a shared screen comes first.
    pub(super) fn preferred(&self, shared_screen: bool) -> (Option<u32>, u32) {
        let priority = match self.priority {
            0 if shared_screen => 1,
            said => said,
        };
        (self.fps, priority)
    }

    /// The same for media, where it differs from nothing at all.
    pub(super) fn preference(
        &self,
        session: SessionId,
        sid: &TrackSid,
        shared_screen: bool,
    ) -> Option<Command> {
        let preferred = self.preferred(shared_screen);
        (preferred != (None, 0)).then(|| Self::prefer(session, sid, preferred))
    }

    pub(super) fn prefer(session: SessionId, sid: &TrackSid, (fps, priority): (Option<u32>, u32)) -> Command {
        Command::Prefer {
            session,
            sid: TrackSid::clone(sid),
            fps,
            priority,
        }
    }
}

/// Whom a publisher lets receive its tracks. The default is everyone.
#[derive(Debug, Clone)]
pub(crate) struct Audience {
    pub(super) everyone: bool,
    pub(super) permissions: Vec<lk::TrackPermission>,
}

impl Audience {
    pub(super) fn allows(&self, subscriber: &Participant, sid: &str) -> bool {
        self.everyone
            || self.permissions.iter().any(|p| {
                let same = if p.participant_identity.is_empty() {
                    p.participant_sid == subscriber.sid.as_str()
                } else {
                    p.participant_identity == subscriber.identity.as_str()
                };
                same && (p.all_tracks || p.track_sids.iter().any(|s| s == sid))
            })
    }
}

/// An earlier stay of the same session.
#[derive(Debug, Clone)]
pub(super) struct Former {
    pub(super) room: RoomName,
    pub(super) sid: ParticipantSid,
}

/// A participant.
#[derive(Debug)]
pub struct Participant {
    /// Its media session.
    pub session: SessionId,
    /// This stay.
    pub sid: ParticipantSid,
    /// Who.
    pub identity: Identity,
    /// Rights in force.
    pub grant: Grant,
    /// Standing.
    pub role: Role,
    /// Signalling.
    pub presence: Presence,
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) metadata: String,
    pub(super) attributes: HashMap<String, String>,
    pub(super) client: lk::ClientInfo,
    pub(super) topology: Topology,
    pub(super) auto_subscribe: bool,
    pub(super) state: State,
    pub(super) joined_at_ms: i64,
    pub(super) version: u32,
    /// Its media is up.
    pub(super) connected: bool,
    /// Its media is gone for good; only a new session helps.
    pub(super) media_lost: bool,
    /// When it closed its media itself: it is leaving, or about to connect anew.
    pub(super) media_closed: Option<Duration>,
    pub(super) tracks: BTreeMap<TrackSid, Track>,
    pub(super) subscriptions: BTreeMap<TrackSid, Subscription>,
    pub(super) audience: Audience,
    /// Highest sequence of its reliable messages.
    pub(super) last_reliable: u32,
    pub(super) cut_next_resume: Option<bool>,
    /// Unix milliseconds; 0 = unknown.
    pub(super) token_issued_at_ms: i64,
    /// It speaks WHIP or WHEP: it stays and goes with its media.
    pub(super) offers_once: bool,
    /// Where it was before, latest last: it may not have heard yet that it was moved.
    former: VecDeque<Former>,
    /// Its reliable data channel is open.
    pub(super) data_open: bool,
    /// For when it is.
    pub(super) waiting: Waiting,
    /// Quality as last told to the others, and whether it knows everyone's.
    pub(super) quality_told: Option<lk::ConnectionQuality>,
    pub(super) quality: Option<(lk::ConnectionQuality, f32)>,
    pub(super) knows_qualities: bool,
    /// When it was told that its data must be encrypted.
    pub(super) told_to_encrypt: Option<Duration>,
}

impl Participant {
    pub(super) fn new(entry: Entry, session: SessionId, sid: ParticipantSid, now: Now) -> Self {
        let mut attributes = entry.attributes;
        attributes.insert(
            plenum_protocol::ROLE_ATTRIBUTE.to_owned(),
            entry.role.as_str().to_owned(),
        );
        Self {
            session,
            sid,
            identity: entry.identity,
            grant: entry.grant,
            role: entry.role,
            presence: Presence::Here,
            kind: entry.kind,
            name: entry.name,
            metadata: entry.metadata,
            attributes,
            client: entry.client,
            topology: entry.topology,
            auto_subscribe: entry.auto_subscribe,
            state: State::Joined,
            joined_at_ms: now.unix_ms,
            version: 1,
            connected: false,
            media_lost: false,
            media_closed: None,
            tracks: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            audience: Audience {
                everyone: true,
                permissions: Vec::new(),
            },
            last_reliable: 0,
            cut_next_resume: None,
            token_issued_at_ms: entry.token_issued_at_ms,
            offers_once: entry.offers_once,
            former: VecDeque::new(),
            data_open: false,
            waiting: Waiting::default(),
            quality_told: None,
            quality: None,
            knows_qualities: false,
            told_to_encrypt: None,
        }
    }

    /// As clients see it.
    pub fn info(&self) -> lk::ParticipantInfo {
        lk::ParticipantInfo {
            sid: self.sid.to_string(),
            identity: self.identity.to_string(),
            state: self.state as i32,
            tracks: self
                .tracks
                .values()
                .filter(|t| t.live)
                .map(|t| t.info.clone())
                .collect(),
            metadata: self.metadata.clone(),
            joined_at: self.joined_at_ms / 1000,
            joined_at_ms: self.joined_at_ms,
            name: self.name.clone(),
            version: self.version,
            permission: Some(self.grant.permission()),
            is_publisher: self.tracks.values().any(|t| t.live),
            kind: self.kind as i32,
            attributes: self.attributes.clone(),
            client_protocol: self.client.client_protocol,
            capabilities: self.client.capabilities.clone(),
            ..Default::default()
        }
    }

    /// Unix milliseconds at which it came into the room it is in.
    pub fn joined_at_ms(&self) -> i64 {
        self.joined_at_ms
    }

    /// Programs, recorders and those who only carry sound from elsewhere don't take a person's place.
    pub(super) fn takes_a_place(&self) -> bool {
        takes_a_place(self.kind, &self.grant, self.offers_once)
    }

    /// New standing, shown to all.
    pub(super) fn set_role(&mut self, role: Role) {
        self.role = role;
        self.attributes.insert(
            plenum_protocol::ROLE_ATTRIBUTE.to_owned(),
            role.as_str().to_owned(),
        );
    }

    /// It leaves this stay behind.
    pub(super) fn formerly(&mut self, stay: Former) {
        if self.former.len() >= limits::FORMER_STAYS {
            self.former.pop_front();
        }
        self.former.push_back(stay);
    }

    pub(super) fn former(&self) -> impl Iterator<Item = &Former> {
        self.former.iter()
    }

    /// Is or was this its id?
    pub(super) fn known_as(&self, sid: &str) -> bool {
        self.sid.as_str() == sid || self.former.iter().any(|f| f.sid.as_str() == sid)
    }

    pub(super) fn changed(&mut self) {
        self.version = self.version.saturating_add(1);
    }

    /// The last known quality of its connection, as `kubectl get participants` shows it.
    pub fn quality_text(&self) -> &'static str {
        match self.quality.map(|(q, _)| q) {
            Some(lk::ConnectionQuality::Excellent) => "excellent",
            Some(lk::ConnectionQuality::Good) => "good",
            Some(lk::ConnectionQuality::Poor) => "poor",
            Some(lk::ConnectionQuality::Lost) => "lost",
            None => "",
        }
    }

    /// Number of live tracks of each kind: audio, video.
    pub fn live_tracks(&self) -> impl Iterator<Item = (crate::session::api::MediaKind, &str)> {
        self.tracks
            .values()
            .filter(|t| t.live)
            .map(|t| (t.kind, t.info.mime_type.as_str()))
    }
}

/// `over_http`: who watches by WHEP is of the kind egress and all the same somebody.
pub(super) fn takes_a_place(kind: Kind, grant: &Grant, over_http: bool) -> bool {
    let program = match kind {
        Kind::Egress => !over_http,
        Kind::Agent | Kind::Bridge => true,
        _ => false,
    };
    !program && !grant.recorder && !grant.agent
}
