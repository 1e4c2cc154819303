//! What a room says to SignalResponse.
//!
//! Owns the wire form of every notice and what this server says of itself.

use livekit_protocol as lk;
use livekit_protocol::signal_response::Message;
use prost::Message as _;

use crate::room::{Arrival, Goodbye, Notice, WantedCodec, Welcome};
use crate::session::api::Quality;

/// LiveKit's protocol version that we speak.
pub const PROTOCOL: i32 = 16;
/// The server version that clients are told: some switch features on by it, so it is the LiveKit
/// version whose behaviour this server has. Our own is in `debug_info`.
pub const COMPATIBLE_VERSION: &str = "1.13.0";
/// Seconds without a pong after which a client gives its connection up.
pub const PING_TIMEOUT: i32 = 15;
/// Seconds between a client's pings.
pub const PING_INTERVAL: i32 = 5;

/// What the server says of itself.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Where it runs, for people.
    pub region: String,
    /// Which worker.
    pub node_id: String,
    /// Marks frames that the server itself put into an encrypted stream.
    pub sif_trailer: Vec<u8>,
}

impl Identity {
    fn info(&self) -> lk::ServerInfo {
        lk::ServerInfo {
            edition: lk::server_info::Edition::Standard as i32,
            version: COMPATIBLE_VERSION.to_owned(),
            protocol: PROTOCOL,
            region: self.region.clone(),
            node_id: self.node_id.clone(),
            debug_info: concat!("plenum ", env!("CARGO_PKG_VERSION")).to_owned(),
            agent_protocol: 0,
        }
    }
}

/// A notice on the wire, and its metric label.
pub fn encode(notice: Notice, server: &Identity) -> (&'static str, Vec<u8>) {
    let message = message(notice, server);
    (name(&message), encode_message(message))
}

/// A bare message on the wire.
pub fn encode_message(message: Message) -> Vec<u8> {
    lk::SignalResponse {
        message: Some(message),
    }
    .encode_to_vec()
}

fn message(notice: Notice, server: &Identity) -> Message {
    match notice {
        Notice::Welcome(welcome) => Message::Join(join(*welcome, server)),
        Notice::WelcomeBack { last_message_seq } => Message::Reconnect(lk::ReconnectResponse {
            server_info: Some(server.info()),
            last_message_seq,
            ..Default::default()
        }),
        Notice::RoomMoved(arrival) => Message::RoomMoved(moved(*arrival)),
        Notice::Answer {
            id,
            sdp,
            mid_to_track,
        } => Message::Answer(description("answer", id, sdp, mid_to_track)),
        Notice::Offer {
            id,
            sdp,
            mid_to_track,
        } => Message::Offer(description("offer", id, sdp, mid_to_track)),
        Notice::Participants(participants) => Message::Update(lk::ParticipantUpdate { participants }),
        Notice::TrackPublished { cid, track } => Message::TrackPublished(lk::TrackPublishedResponse {
            cid,
            track: Some(*track),
        }),
        Notice::TrackUnpublished { sid } => Message::TrackUnpublished(lk::TrackUnpublishedResponse {
            track_sid: sid.to_string(),
        }),
        Notice::Muted { sid, muted } => Message::Mute(lk::MuteTrackRequest {
            sid: sid.to_string(),
            muted,
        }),
        Notice::Speakers(speakers) => Message::SpeakersChanged(lk::SpeakersChanged { speakers }),
        Notice::Room(room) => Message::RoomUpdate(lk::RoomUpdate { room: Some(room) }),
        Notice::Quality(updates) => Message::ConnectionQuality(lk::ConnectionQualityUpdate { updates }),
        Notice::Allowed {
            publisher,
            sid,
            allowed,
        } => Message::SubscriptionPermissionUpdate(lk::SubscriptionPermissionUpdate {
            participant_sid: publisher.to_string(),
            track_sid: sid.to_string(),
            allowed,
        }),
        Notice::SubscriptionFailed { sid } => Message::SubscriptionResponse(lk::SubscriptionResponse {
            track_sid: sid.to_string(),
            err: lk::SubscriptionError::SeTrackNotfound as i32,
        }),
        Notice::TrackSubscribed { sid } => Message::TrackSubscribed(lk::TrackSubscribed {
            track_sid: sid.to_string(),
        }),
        Notice::NeedSections { audios, videos } => {
            Message::MediaSectionsRequirement(lk::MediaSectionsRequirement {
                num_audios: audios,
                num_videos: videos,
            })
        }
        Notice::WantedLayers { sid, codecs, highest } => {
            Message::SubscribedQualityUpdate(wanted(sid.to_string(), codecs, highest))
        }
        Notice::StreamState {
            publisher,
            sid,
            paused,
        } => Message::StreamStateUpdate(lk::StreamStateUpdate {
            stream_states: vec![lk::StreamStateInfo {
                participant_sid: publisher.to_string(),
                track_sid: sid.to_string(),
                state: if paused {
                    lk::StreamState::Paused
                } else {
                    lk::StreamState::Active
                } as i32,
            }],
        }),
        Notice::Request(failure) => Message::RequestResponse(lk::RequestResponse {
            request_id: failure.request_id,
            reason: failure.reason as i32,
            message: failure.message,
            request: failure.request,
        }),
        Notice::Goodbye(goodbye) => Message::Leave(leave(goodbye)),
    }
}

/// The last word.
pub fn leave(goodbye: Goodbye) -> lk::LeaveRequest {
    lk::LeaveRequest {
        // What clients before protocol 13 go by.
        can_reconnect: goodbye.action != lk::leave_request::Action::Disconnect,
        reason: goodbye.reason as i32,
        action: goodbye.action as i32,
        regions: None,
    }
}

fn join(welcome: Welcome, server: &Identity) -> lk::JoinResponse {
    lk::JoinResponse {
        room: Some(welcome.room),
        participant: Some(welcome.me),
        other_participants: welcome.others,
        server_version: COMPATIBLE_VERSION.to_owned(),
        subscriber_primary: welcome.dual,
        server_region: server.region.clone(),
        ping_timeout: PING_TIMEOUT,
        ping_interval: PING_INTERVAL,
        server_info: Some(server.info()),
        sif_trailer: server.sif_trailer.clone(),
        enabled_publish_codecs: welcome
            .codecs
            .into_iter()
            .map(|mime| lk::Codec {
                mime,
                fmtp_line: String::new(),
            })
            .collect(),
        ..Default::default()
    }
}

/// The token that goes with it is the gateway's to fill in: we have no key.
fn moved(arrival: Arrival) -> lk::RoomMovedResponse {
    lk::RoomMovedResponse {
        room: Some(arrival.room),
        token: String::new(),
        participant: Some(arrival.me),
        other_participants: arrival.others,
    }
}

fn description(
    kind: &str,
    id: u32,
    sdp: String,
    mid_to_track: Vec<(String, String)>,
) -> lk::SessionDescription {
    lk::SessionDescription {
        r#type: kind.to_owned(),
        sdp,
        id,
        mid_to_track_id: mid_to_track.into_iter().collect(),
    }
}

fn wanted(
    track_sid: String,
    codecs: Vec<WantedCodec>,
    highest: Option<Quality>,
) -> lk::SubscribedQualityUpdate {
    let qualities = |highest: Option<Quality>| -> Vec<lk::SubscribedQuality> {
        [Quality::Low, Quality::Medium, Quality::High]
            .into_iter()
            .zip(0..)
            .map(|(quality, number)| lk::SubscribedQuality {
                quality: number,
                enabled: highest.is_some_and(|highest| quality <= highest),
            })
            .collect()
    };
    #[allow(deprecated, reason = "older clients still read and send the old fields")]
    lk::SubscribedQualityUpdate {
        track_sid,
        subscribed_qualities: qualities(highest),
        subscribed_codecs: codecs
            .into_iter()
            .map(|codec| lk::SubscribedCodec {
                qualities: qualities(codec.highest),
                codec: codec.name,
            })
            .collect(),
    }
}

fn name(message: &Message) -> &'static str {
    match message {
        Message::Join(_) => "join",
        Message::Answer(_) => "answer",
        Message::Offer(_) => "offer",
        Message::Update(_) => "update",
        Message::TrackPublished(_) => "track_published",
        Message::TrackUnpublished(_) => "track_unpublished",
        Message::Leave(_) => "leave",
        Message::Mute(_) => "mute",
        Message::SpeakersChanged(_) => "speakers_changed",
        Message::RoomUpdate(_) => "room_update",
        Message::ConnectionQuality(_) => "connection_quality",
        Message::SubscribedQualityUpdate(_) => "subscribed_quality_update",
        Message::SubscriptionPermissionUpdate(_) => "subscription_permission_update",
        Message::Reconnect(_) => "reconnect",
        Message::SubscriptionResponse(_) => "subscription_response",
        Message::StreamStateUpdate(_) => "stream_state_update",
        Message::RequestResponse(_) => "request_response",
        Message::TrackSubscribed(_) => "track_subscribed",
        Message::MediaSectionsRequirement(_) => "media_sections_requirement",
        Message::RoomMoved(_) => "room_moved",
        Message::Pong(_) | Message::PongResp(_) => "pong",
        _ => "other",
    }
}
