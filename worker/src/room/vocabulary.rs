//! What clients ask of a room and what a room answers.
//!
//! Owns [`Action`] (in), [`Notice`] and [`Output`] (out). LiveKit's message types serve as values
//! where they say exactly what is meant; which message carries them is the business of `signal`.

use std::sync::Arc;

use livekit_protocol as lk;
use plenum_errors::Code;

use super::ids::RoomName;
use crate::session::api::{Command, Leg, Quality, SessionId, TrackSid};

/// Something a client asks for, decoded and within its size limits.
#[derive(Debug, Clone)]
pub enum Action {
    /// Its session description on `leg`.
    Offer { leg: Leg, id: u32, sdp: String },
    /// Its answer to ours.
    Answer { id: u32, sdp: String },
    /// Its one offer again, where it makes but one: with new ICE credentials, or as it was.
    OfferAgain {
        id: u32,
        credentials: Option<(String, String)>,
    },
    /// Announces a track.
    AddTrack(Box<lk::AddTrackRequest>),
    /// Mutes or unmutes its own track.
    Mute { sid: TrackSid, muted: bool },
    /// Wants or does not want these tracks.
    Subscribe { sids: Vec<TrackSid>, on: bool },
    /// How it wants to receive tracks.
    TrackSettings(lk::UpdateTrackSettings),
    /// Who may receive its tracks.
    Audience(lk::SubscriptionPermission),
    /// What it had before a resume.
    Sync(Box<lk::SyncState>),
    /// Its own name, metadata, attributes.
    Describe(lk::UpdateParticipantMetadata),
    /// Features of its audio track.
    AudioTrack(lk::UpdateLocalAudioTrack),
    /// Dimensions of its video track.
    VideoTrack(lk::UpdateLocalVideoTrack),
    /// A drill.
    Simulate(Scenario),
    /// Leaves.
    Leave,
    /// Asks for something this server does not do; answered so.
    Unsupported(Box<RequestFailure>),
}

/// A drill that a client asks for on itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Is shown as speaking.
    Speaks,
    /// Its signalling connection drops.
    SignalLoss,
    /// Is told to leave for good.
    ServerLeave,
    /// Is told to connect anew.
    FullReconnect,
    /// Its next resume is cut off, after the greeting or before it.
    CutNextResume { before_greeting: bool },
}

/// The first message of a stay.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The room.
    pub room: lk::Room,
    /// Oneself.
    pub me: lk::ParticipantInfo,
    /// Everyone else.
    pub others: Vec<lk::ParticipantInfo>,
    /// Two peer connections: the subscriber's is the primary one.
    pub dual: bool,
    /// MIME types that may be published.
    pub codecs: Vec<String>,
}

/// What somebody is told who was moved to another room.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The room.
    pub room: lk::Room,
    /// Oneself.
    pub me: lk::ParticipantInfo,
    /// Everyone else.
    pub others: Vec<lk::ParticipantInfo>,
}

/// The last message of a stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    /// Why.
    pub reason: lk::DisconnectReason,
    /// What to do about it.
    pub action: lk::leave_request::Action,
}

/// A request that was refused.
#[derive(Debug, Clone)]
pub struct RequestFailure {
    /// 0 where the request has none.
    pub request_id: u32,
    /// Why.
    pub reason: lk::request_response::Reason,
    /// For developers.
    pub message: String,
    /// The request, where clients match by it.
    pub request: Option<lk::request_response::Request>,
}

/// What is wanted of a track in one codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedCodec {
    /// Short, as in `vp8`.
    pub name: String,
    /// The highest layer; `None`: nothing.
    pub highest: Option<Quality>,
}

/// Something a client is told.
#[derive(Debug, Clone)]
pub enum Notice {
    /// You are in.
    Welcome(Box<Welcome>),
    /// You are back.
    WelcomeBack { last_message_seq: u32 },
    /// You are in another room now.
    RoomMoved(Box<Arrival>),
    /// The answer to your offer.
    Answer {
        id: u32,
        sdp: String,
        mid_to_track: Vec<(String, String)>,
    },
    /// Our offer of the subscriber's connection.
    Offer {
        id: u32,
        sdp: String,
        mid_to_track: Vec<(String, String)>,
    },
    /// These participants are so now.
    Participants(Vec<lk::ParticipantInfo>),
    /// Your track has this id.
    TrackPublished { cid: String, track: Box<lk::TrackInfo> },
    /// Your track was taken down by us.
    TrackUnpublished { sid: TrackSid },
    /// Your track was muted by us.
    Muted { sid: TrackSid, muted: bool },
    /// These changed how loud they are.
    Speakers(Vec<lk::SpeakerInfo>),
    /// The room is so now.
    Room(lk::Room),
    /// Connections are so now.
    Quality(Vec<lk::ConnectionQualityInfo>),
    /// The publisher lets you, or does not.
    Allowed {
        publisher: Arc<str>,
        sid: TrackSid,
        allowed: bool,
    },
    /// No such track.
    SubscriptionFailed { sid: TrackSid },
    /// Somebody receives your track for the first time.
    TrackSubscribed { sid: TrackSid },
    /// Offer this many more sections.
    NeedSections { audios: u32, videos: u32 },
    /// Which layers of your track anyone wants, in each codec that you announced.
    WantedLayers {
        sid: TrackSid,
        codecs: Vec<WantedCodec>,
        /// For those who don't tell codecs apart.
        highest: Option<Quality>,
    },
    /// The network lets this track through to you, or does not at the moment.
    StreamState {
        publisher: Arc<str>,
        sid: TrackSid,
        paused: bool,
    },
    /// Your request was done or refused.
    Request(Box<RequestFailure>),
    /// Go.
    Goodbye(Goodbye),
}

/// What becomes of something that a client was told, where a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// Something later says it again.
    State,
    /// Lost, it would be missed for good: nothing later says it again.
    Once,
    /// As state, but large, and worth nothing once there is another: a client offers again only when it has
    /// the answer.
    Answer,
    /// Likewise: a newer offer has all that was in the one before.
    Offer,
}

impl Notice {
    /// What becomes of it.
    pub fn worth(&self) -> Worth {
        match self {
            Notice::TrackPublished { .. }
            | Notice::TrackUnpublished { .. }
            | Notice::Muted { .. }
            | Notice::Allowed { .. }
            | Notice::SubscriptionFailed { .. }
            | Notice::TrackSubscribed { .. }
            | Notice::WantedLayers { .. }
            | Notice::StreamState { .. }
            | Notice::Request(_) => Worth::Once,
            Notice::Answer { .. } => Worth::Answer,
            Notice::Offer { .. } => Worth::Offer,
            Notice::Welcome(_)
            | Notice::WelcomeBack { .. }
            | Notice::RoomMoved(_)
            | Notice::Participants(_)
            | Notice::Speakers(_)
            | Notice::Room(_)
            | Notice::Quality(_)
            | Notice::NeedSections { .. }
            | Notice::Goodbye(_) => Worth::State,
        }
    }
}

/// Why something a client sent was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// No right to send data.
    NotPermitted,
    /// Not a data packet.
    Malformed,
    /// Over the size limit.
    TooLarge,
    /// Seen before.
    Duplicate,
    /// A kind that clients do not send to each other.
    Unsupported,
    /// Too much is waiting for a client that cannot receive yet.
    Overflow,
    /// Too much in too short a time.
    RateLimited,
    /// The meeting takes only encrypted data.
    NotEncrypted,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [DropReason; 8] = [
        DropReason::NotPermitted,
        DropReason::Malformed,
        DropReason::TooLarge,
        DropReason::Duplicate,
        DropReason::Unsupported,
        DropReason::Overflow,
        DropReason::RateLimited,
        DropReason::NotEncrypted,
    ];

    /// Label value.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::NotPermitted => "not_permitted",
            DropReason::Malformed => "malformed",
            DropReason::TooLarge => "too_large",
            DropReason::Duplicate => "duplicate",
            DropReason::Unsupported => "unsupported",
            DropReason::Overflow => "overflow",
            DropReason::RateLimited => "rate_limited",
            DropReason::NotEncrypted => "not_encrypted",
        }
    }
}

/// Something that must be done now.
#[derive(Debug)]
pub enum Output {
    /// Tell media.
    Media(Command),
    /// Tell clients.
    Tell { to: Vec<SessionId>, notice: Notice },
    /// The session is over: its signalling ends with this. `None`: the client left by itself.
    End {
        session: SessionId,
        code: Option<Code>,
        detail: String,
    },
    /// The signalling connection is cut, the session stays.
    Cut { session: SessionId },
    /// The session is in this room now, and nobody who speaks for the client asked for it.
    Relocated { session: SessionId, room: RoomName },
    /// The client says something to the server: JSON.
    Said { session: SessionId, json: String },
    /// The client's state for another worker, to whoever asked; empty: it has to start anew there.
    HandedOver { session: SessionId, state: Vec<u8> },
    /// Count it.
    DataDropped(DropReason),
}

/// What must be done, in order.
#[derive(Debug, Default)]
pub struct Outbox(pub Vec<Output>);

impl Outbox {
    pub(super) fn media(&mut self, command: Command) {
        self.0.push(Output::Media(command));
    }

    pub(super) fn tell(&mut self, session: SessionId, notice: Notice) {
        self.0.push(Output::Tell {
            to: vec![session],
            notice,
        });
    }

    pub(super) fn tell_all(&mut self, to: Vec<SessionId>, notice: Notice) {
        if !to.is_empty() {
            self.0.push(Output::Tell { to, notice });
        }
    }
}
