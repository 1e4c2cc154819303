//! Scripted rooms in virtual time.

mod access;
mod announce;
mod closing;
mod data;
mod encryption;
mod layers;
mod moderation;
mod moving;
mod once;
mod presence;
mod property;
mod quality;
mod reserve;
mod rooms;
mod speakers;
mod standing;
mod takeover;
mod topic;
mod tracks;

use std::collections::HashMap;
use std::time::Duration;

use livekit_protocol as lk;
use plenum_token::Role;

use super::{
    Action, Entered, Entry, Grant, Hall, Identity, Notice, Now, Outbox, Output, RoomName, RoomSpec, Sids,
};
use crate::session::api::{Command, Event, Leg, SessionId, Topology, TrackSid};

pub(super) const ROOM: &str = "team/standup";

/// A hall with one room, a clock, and everything that came out.
pub(super) struct Stage {
    pub(super) hall: Hall,
    pub(super) now: Now,
    pub(super) out: Vec<Output>,
}

pub(super) fn full_grant() -> Grant {
    Grant::from(Role::Participant.grant(ROOM))
}

pub(super) fn entry(identity: &str) -> Entry {
    Entry {
        room: RoomName::from(ROOM),
        epoch: 1,
        identity: Identity::from(identity),
        name: identity.to_uppercase(),
        grant: full_grant(),
        role: Role::Participant,
        kind: lk::participant_info::Kind::Standard,
        metadata: String::new(),
        attributes: HashMap::new(),
        client: lk::ClientInfo::default(),
        auto_subscribe: true,
        topology: Topology::Single,
        resume: None,
        token_issued_at_ms: 1_000,
        offers_once: false,
        tracks: Vec::new(),
        offer: None,
        sync: None,
    }
}

pub(super) fn video(cid: &str) -> lk::AddTrackRequest {
    let layer = |quality: lk::VideoQuality, width, height| lk::VideoLayer {
        quality: quality as i32,
        width,
        height,
        ..Default::default()
    };
    lk::AddTrackRequest {
        cid: cid.to_owned(),
        r#type: lk::TrackType::Video as i32,
        source: lk::TrackSource::Camera as i32,
        width: 1280,
        height: 720,
        layers: vec![
            layer(lk::VideoQuality::Low, 320, 180),
            layer(lk::VideoQuality::Medium, 640, 360),
            layer(lk::VideoQuality::High, 1280, 720),
        ],
        simulcast_codecs: vec![lk::SimulcastCodec {
            codec: "vp8".into(),
            cid: cid.to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(super) fn audio(cid: &str) -> lk::AddTrackRequest {
    lk::AddTrackRequest {
        cid: cid.to_owned(),
        r#type: lk::TrackType::Audio as i32,
        source: lk::TrackSource::Microphone as i32,
        ..Default::default()
    }
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with(RoomSpec {
            max_participants: None,
            ..RoomSpec::open(RoomName::from(ROOM))
        })
    }

    pub(super) fn with(spec: RoomSpec) -> Self {
        let mut stage = Self {
            hall: Hall::new(Sids::seeded(7)),
            now: Now {
                since_start: Duration::from_secs(100),
                unix_ms: 1_700_000_000_000,
            },
            out: Vec::new(),
        };
        stage.assign(spec);
        stage
    }

    pub(super) fn assign(&mut self, spec: RoomSpec) {
        let mut out = Outbox::default();
        self.hall.assign(spec, self.now, &mut out).unwrap();
        self.out.extend(out.0);
    }

    pub(super) fn try_enter(&mut self, entry: Entry) -> Result<Entered, plenum_errors::PublicError> {
        let mut out = Outbox::default();
        let entered = self.hall.enter(entry, self.now, &mut out);
        self.out.extend(out.0);
        entered
    }

    /// Enters and has its media up.
    pub(super) fn join_as(&mut self, entry: Entry) -> SessionId {
        let Entered::Anew(session) = self.try_enter(entry).unwrap() else {
            panic!("not anew")
        };
        self.media(Event::Connected {
            session,
            leg: Leg::Publisher,
            since_open: Duration::from_millis(150),
        });
        session
    }

    pub(super) fn join(&mut self, identity: &str) -> SessionId {
        self.join_as(entry(identity))
    }

    pub(super) fn act(&mut self, session: SessionId, action: Action) {
        let mut out = Outbox::default();
        self.hall.act(session, action, self.now, &mut out);
        self.out.extend(out.0);
    }

    pub(super) fn media(&mut self, event: Event) {
        let session = match &event {
            Event::Connected { session, .. }
            | Event::Disconnected { session, .. }
            | Event::TrackLive { session, .. }
            | Event::TrackEnded { session, .. }
            | Event::SubscriptionBound { session, .. }
            | Event::StreamState { session, .. }
            | Event::Refused { session, .. }
            | Event::DataOpen { session }
            | Event::DataLost { session }
            | Event::HandedOver { session, .. }
            | Event::Data { session, .. } => *session,
            other => panic!("not scripted: {other:?}"),
        };
        let mut out = Outbox::default();
        self.hall.media(session, event, self.now, &mut out);
        self.out.extend(out.0);
    }

    /// Publishes a track and has media bind it.
    pub(super) fn publish(&mut self, session: SessionId, request: lk::AddTrackRequest) -> TrackSid {
        let is_video = request.r#type == lk::TrackType::Video as i32;
        self.act(session, Action::AddTrack(Box::new(request)));
        let sid = self
            .told(session)
            .into_iter()
            .rev()
            .find_map(|n| match n {
                Notice::TrackPublished { track, .. } => Some(TrackSid::from(track.sid)),
                _ => None,
            })
            .expect("no TrackPublished");
        self.media(Event::TrackLive {
            session,
            sid: TrackSid::clone(&sid),
            mid: "3".into(),
            mime_type: if is_video { "video/VP8" } else { "audio/opus" }.into(),
            simulcast: is_video,
        });
        sid
    }

    /// Time passes in steps of a tick.
    pub(super) fn pass(&mut self, time: Duration) {
        let step = Duration::from_millis(100);
        let mut left = time;
        while !left.is_zero() {
            self.now = self.now.plus(step.min(left));
            left = left.saturating_sub(step);
            let names: Vec<RoomName> = self.hall.rooms().map(|r| r.spec().name.clone()).collect();
            for name in names {
                let mut out = Outbox::default();
                self.hall.tick(&name, self.now, &mut out);
                self.out.extend(out.0);
            }
        }
    }

    pub(super) fn lose(&mut self, session: SessionId) {
        self.hall.lost(session, self.now);
    }

    /// Everything a session was told since the last [`Stage::clear`].
    pub(super) fn told(&self, session: SessionId) -> Vec<Notice> {
        self.out
            .iter()
            .filter_map(|o| match o {
                Output::Tell { to, notice } if to.contains(&session) => Some(notice.clone()),
                _ => None,
            })
            .collect()
    }

    pub(super) fn commands(&self) -> Vec<&Command> {
        self.out
            .iter()
            .filter_map(|o| match o {
                Output::Media(command) => Some(command),
                _ => None,
            })
            .collect()
    }

    pub(super) fn ended(&self, session: SessionId) -> Option<Option<plenum_errors::Code>> {
        self.out.iter().find_map(|o| match o {
            Output::End { session: s, code, .. } if *s == session => Some(*code),
            _ => None,
        })
    }

    pub(super) fn clear(&mut self) {
        self.out.clear();
    }

    /// The last that `session` was told of `identity`.
    pub(super) fn last_info(&self, session: SessionId, identity: &str) -> Option<lk::ParticipantInfo> {
        self.told(session).into_iter().rev().find_map(|n| match n {
            Notice::Participants(infos) => infos.into_iter().rev().find(|i| i.identity == identity),
            _ => None,
        })
    }

    pub(super) fn goodbye(&self, session: SessionId) -> Option<super::Goodbye> {
        self.told(session).into_iter().find_map(|n| match n {
            Notice::Goodbye(goodbye) => Some(goodbye),
            _ => None,
        })
    }
}
