//! What room logic and media say to each other.
//!
//! Owns the vocabulary: [`Command`] goes in, [`Event`] comes out, both plain values. The media side
//! never asks a room anything and a room never sees a packet. Invariants: a session is named by a
//! [`SessionId`] that is never reused; every `Offer` is answered by exactly one `Event::Answer` or
//! `Event::Refused` with its id; a track sid belongs to one publishing session until `RemoveTrack`;
//! whoever receives a track is of its publisher's [`Home`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use crate::forward::audio::select::SpeakerPolicy;

/// One client's media session. Survives a resume of its signalling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// LiveKit's track id, `TR_...`.
pub type TrackSid = Arc<str>;

/// What a session belongs to for as long as it lives: its meeting. Sessions of one home are served by one
/// thread, so that they can be forwarded to each other whichever rooms they are in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Home(Arc<str>);

impl From<&str> for Home {
    fn from(meeting: &str) -> Self {
        Self(Arc::from(meeting))
    }
}

/// How many peer connections the client holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// Signalling v1: one, the client always offers.
    Single,
    /// Signalling v0: the client offers on the publisher's, the server on the subscriber's.
    Dual,
}

/// Which of a client's peer connections. A [`Topology::Single`] client has only `Publisher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leg {
    /// `SignalTarget::PUBLISHER`
    Publisher,
    /// `SignalTarget::SUBSCRIBER`
    Subscriber,
}

/// Kind of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

/// Spatial layer as LiveKit names it, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quality {
    /// RID `q`
    Low,
    /// RID `h`
    Medium,
    /// RID `f`, and the only layer of a track without simulcast
    High,
}

/// Which data channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reliability {
    /// `_reliable`: ordered, retransmitted
    Reliable,
    /// `_lossy`: unordered, no retransmission
    Lossy,
}

/// A track the client announced by AddTrack, before its section shows up in an offer.
#[derive(Debug, Clone)]
pub struct ExpectedTrack {
    /// The msid track id that the offer will carry.
    pub cid: String,
    /// Ours.
    pub sid: TrackSid,
    /// Audio or video.
    pub kind: MediaKind,
    /// What the client wants to send, lower case as in `h264`; empty = whatever it offers first.
    pub codec: String,
    /// Several encodings may come; otherwise only the highest is taken.
    pub simulcast: bool,
    /// Bits per second that its publisher may send of all its tracks, asked for by REMB; `None` = no bound.
    pub max_bitrate: Option<u64>,
    /// Of sound.
    pub audio: AudioOptions,
}

/// What a client announced of its sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioOptions {
    /// Two channels.
    pub stereo: bool,
    /// The encoder pauses in silence.
    pub dtx: bool,
    /// Packets may carry the ones before them along (RFC 2198).
    pub red: bool,
    /// Encrypted end to end: payloads are passed on as they are or not at all.
    pub encrypted: bool,
    /// One of many that may speak, and needn't be heard at all times.
    pub one_of_many: bool,
}

impl Default for AudioOptions {
    fn default() -> Self {
        Self {
            stereo: false,
            dtx: true,
            red: true,
            encrypted: false,
            one_of_many: true,
        }
    }
}

/// From room logic to media.
#[derive(Debug)]
pub enum Command {
    /// A new session. `codecs` limits what is answered (lower-case names, empty = all).
    Open {
        session: SessionId,
        home: Home,
        topology: Topology,
        codecs: Vec<String>,
    },
    /// A new session that goes on with the peer connection that its client has with another engine.
    /// Its next offer is answered as that engine would have, but with other credentials, and every
    /// section that carried something to the client is idle.
    Adopt {
        session: SessionId,
        home: Home,
        codecs: Vec<String>,
        state: Box<PeerState>,
    },
    /// Ask what another engine would need to go on; answered by exactly one [`Event::HandedOver`]. For a
    /// while from now on the end of the session is not told to the client's transport, which another
    /// engine may be using.
    HandOver { session: SessionId },
    /// Whom it hears where many microphones are on; `None` as the engine is set.
    Hear {
        session: SessionId,
        policy: Option<SpeakerPolicy>,
    },
    /// Ends it; no event follows.
    Close { session: SessionId },
    /// The session's client makes one offer and can't be asked for another: sections it would receive on
    /// are answered as sending, whether there is a track for them or not, and filled and emptied without
    /// a further round. Single topology, before the offer.
    OffersOnce { session: SessionId },
    /// The one offer of such a client again, with new ICE credentials of its own (user name, password)
    /// or as it was. Answered like an [`Command::Offer`].
    OfferAgain {
        session: SessionId,
        id: u32,
        credentials: Option<(String, String)>,
    },
    /// The client's offer on `leg`.
    Offer {
        session: SessionId,
        leg: Leg,
        id: u32,
        sdp: String,
    },
    /// The client's answer to [`Event::Offer`] (dual only).
    Answer {
        session: SessionId,
        id: u32,
        sdp: String,
    },
    /// From AddTrack. A second one with the same sid adds a simulcast codec's cid.
    ExpectTrack {
        session: SessionId,
        track: ExpectedTrack,
    },
    /// The participant unpublished, or lost the right to publish; its subscribers are unbound.
    RemoveTrack { session: SessionId, sid: TrackSid },
    /// Nothing of the track, which is the session's, is forwarded while muted.
    Mute {
        session: SessionId,
        sid: TrackSid,
        muted: bool,
    },
    /// Forward `sid` to `session`. Bound at its next negotiation; media asks for one by
    /// [`Event::NeedSections`] (single) or makes one itself ([`Event::Offer`], dual).
    /// `publisher_sid` (`PA_...`) becomes the msid stream.
    Subscribe {
        session: SessionId,
        sid: TrackSid,
        publisher_sid: Arc<str>,
    },
    /// Stop forwarding; the section goes inactive at the next negotiation.
    Unsubscribe { session: SessionId, sid: TrackSid },
    /// Highest layer wanted by this subscriber; `None` pauses.
    SetLayer {
        session: SessionId,
        sid: TrackSid,
        quality: Option<Quality>,
    },
    /// What else this subscriber said of a track: how many frames a second are enough (`None`: all), and
    /// which of its tracks come first where not all fit (1 first, 0 = nothing said).
    Prefer {
        session: SessionId,
        sid: TrackSid,
        fps: Option<u32>,
        priority: u32,
    },
    /// Media is asked for a key frame of a track that `session` receives (throttled there).
    KeyFrame { session: SessionId, sid: TrackSid },
    /// One payload to many sessions. A slow one loses lossy data, and is closed when its reliable
    /// buffer exceeds the limit (`Event::Disconnected`).
    SendData {
        sessions: Vec<SessionId>,
        reliability: Reliability,
        payload: Bytes,
    },
    /// Dual topology: offer the subscriber leg again with new ICE credentials, as after a resume of the
    /// signalling. A single-connection client restarts by its own offer.
    RestartIce { session: SessionId },
    /// Ask for statistics: answered by [`Event::Statistics`].
    Statistics,
}

/// From media to room logic.
#[derive(Debug)]
pub enum Event {
    /// The answer to `Command::Offer`. `mid_to_track`: the publisher's sections by our sid.
    Answer {
        session: SessionId,
        leg: Leg,
        id: u32,
        sdp: String,
        mid_to_track: BTreeMap<String, String>,
    },
    /// The server's offer of the subscriber leg.
    Offer {
        session: SessionId,
        id: u32,
        sdp: String,
        mid_to_track: BTreeMap<String, String>,
    },
    /// The offer or answer cannot be used.
    Refused {
        session: SessionId,
        leg: Leg,
        id: u32,
        error: SdpError,
    },
    /// Single topology: the client must offer this many more recvonly sections ({0, 0}: just offer).
    NeedSections {
        session: SessionId,
        audios: u32,
        videos: u32,
    },
    /// ICE and DTLS of the leg are up; `since_open` is the join time as media saw it.
    Connected {
        session: SessionId,
        leg: Leg,
        since_open: Duration,
    },
    /// The reliable channel towards the client is open: what is sent from here on arrives.
    DataOpen { session: SessionId },
    /// A data channel of the client's is gone for good, while its media goes on. Only a new connection
    /// brings it back.
    DataLost { session: SessionId },
    /// A leg's transport is gone for good (consent lost, DTLS closed or failed).
    Disconnected {
        session: SessionId,
        leg: Leg,
        reason: TransportEnd,
    },
    /// The announced track is bound to a section, and its codec is known.
    TrackLive {
        session: SessionId,
        sid: TrackSid,
        mid: String,
        mime_type: String,
        simulcast: bool,
    },
    /// The client stopped offering the track.
    TrackEnded { session: SessionId, sid: TrackSid },
    /// The answer to `Command::HandOver`; `None` where nobody can go on with it.
    HandedOver {
        session: SessionId,
        state: Option<Box<PeerState>>,
    },
    /// The subscription is bound: packets flow from here on.
    SubscriptionBound { session: SessionId, sid: TrackSid },
    /// The network does not let a video track through to this subscriber at the moment (`paused`), or
    /// does again. Told once per change; a bound subscription begins as not paused.
    StreamState {
        session: SessionId,
        sid: TrackSid,
        paused: bool,
    },
    /// From a data channel.
    Data {
        session: SessionId,
        reliability: Reliability,
        payload: Bytes,
    },
    /// Audio levels since the last one, every 100 ms, only of audible unmuted tracks.
    Levels { levels: Vec<AudioLevel> },
    /// The answer to `Command::Statistics`.
    Statistics { sessions: Vec<SessionStatistics> },
}

/// What an engine must know of a client to go on with a peer connection that was negotiated with another
/// one. The client's next offer brings the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerState {
    /// Every section of the last answer, in order.
    pub sections: Vec<SectionState>,
    /// Incoming RTP streams as they were learned.
    pub sources: Vec<SourceState>,
    /// Open data channels.
    pub channels: Vec<ChannelState>,
    /// How often the connection went from engine to engine before. Each time the candidates' priorities
    /// rise: a client sends to the best pair that answers, and what it knows of the engine before, which
    /// may go on answering for a moment, must not be the best.
    pub moves: u32,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionState {
    /// Its `mid`.
    pub mid: String,
    /// `None`: data.
    pub kind: Option<MediaKind>,
    /// The client's track in it.
    pub publishes: Option<TrackSid>,
}

/// One incoming RTP stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// Its SSRC.
    pub ssrc: u32,
    /// The track it belongs to.
    pub sid: TrackSid,
    /// The layer; empty where there is one.
    pub rid: String,
    /// Carries retransmissions.
    pub repair: bool,
}

/// One data channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelState {
    /// SCTP stream.
    pub id: u16,
    /// Which of the two.
    pub reliability: Reliability,
}

/// One audio track's loudness.
#[derive(Debug, Clone)]
pub struct AudioLevel {
    /// Publisher.
    pub session: SessionId,
    /// Track.
    pub sid: TrackSid,
    /// RFC 6464 level in -dBov (0 loudest, 127 silent), the mean over the active packets.
    pub level_dbov: u8,
    /// Share of packets at or under 35 -dBov, 0 to 1.
    pub active_ratio: f32,
}

/// Counters of one session since it opened.
#[derive(Debug, Clone, Default)]
pub struct SessionStatistics {
    /// Whose.
    pub session: Option<SessionId>,
    /// Round trip of STUN or RTCP, whichever is newer.
    pub rtt: Option<Duration>,
    /// Where its media goes.
    pub remote: Option<SocketAddr>,
    /// Estimated bandwidth towards the client, bits a second; `None`: not measured.
    pub estimate_bps: Option<u64>,
    /// One per published track.
    pub published: Vec<TrackStatistics>,
    /// One per bound subscription.
    pub subscribed: Vec<TrackStatistics>,
}

/// Counters of one track in one direction.
#[derive(Debug, Clone)]
pub struct TrackStatistics {
    /// Track.
    pub sid: TrackSid,
    /// Audio or video.
    pub kind: MediaKind,
    /// Packets forwarded or received.
    pub packets: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Packets lost as the receiver saw it.
    pub lost: u64,
    /// Interarrival jitter, RFC 3550.
    pub jitter: Duration,
    /// Retransmissions asked for.
    pub nacks: u64,
    /// Key frames asked for.
    pub plis: u64,
    /// Of video: the layer that flows to a subscriber, or the highest that comes from a publisher; `None`:
    /// none.
    pub layer: Option<Quality>,
    /// Of video: how often no packet went or came for more than a second, while unmuted and wanted.
    pub gaps: u64,
    /// How long that was in all.
    pub gap_time: Duration,
}

/// Why a session description was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Not SDP.
    #[error("not a session description: {0}")]
    Syntax(String),
    /// Too large or too many sections.
    #[error("session description exceeds the limit of {limit} {what}")]
    TooLarge {
        /// bytes, sections, codecs
        what: &'static str,
        /// the limit
        limit: usize,
    },
    /// A needed attribute is missing.
    #[error("session description lacks {0}")]
    Missing(&'static str),
    /// No such session or leg, or an answer to an offer that was never made.
    #[error("no such session, leg or offer")]
    Unexpected,
    /// The transport refused it.
    #[error("transport: {0}")]
    Transport(String),
}

/// Why a leg ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportEnd {
    /// Never connected in time.
    #[error("never connected")]
    ConnectTimeout,
    /// Consent was lost, RFC 7675.
    #[error("consent lost")]
    ConsentLost,
    /// The peer closed DTLS.
    #[error("closed by peer")]
    Closed,
    /// DTLS failed: wrong fingerprint or handshake.
    #[error("handshake failed: {0}")]
    Handshake(String),
    /// Its reliable data buffer is over the limit.
    #[error("too slow for its data")]
    SlowConsumer,
}
