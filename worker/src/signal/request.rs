//! SignalRequest to what a room understands.
//!
//! Owns decoding and the per-message limits. Invariant: pure; nothing is decided here but whether
//! the message makes sense.

use std::sync::Arc;

use livekit_protocol as lk;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_request::Message;
use livekit_protocol::simulate_scenario::Scenario as Simulated;
use plenum_errors::{Code, PublicError};
use prost::Message as _;

use super::limits;
use crate::room::{Action, RequestFailure, Scenario};
use crate::session::api::{Leg, TrackSid};

/// Track ids in one message.
const MAX_SIDS: usize = 4_096;

/// What to do with a request.
#[derive(Debug)]
pub enum Incoming {
    /// Ask the room.
    Act(Action),
    /// Answer at once: the client's clock value, and the newer form of the question.
    Ping { timestamp: i64, new_form: bool },
    /// Nothing.
    Ignore,
}

/// Decodes one message. The name is its metric label.
pub fn decode(bytes: &[u8]) -> Result<(&'static str, Incoming), PublicError> {
    if bytes.len() > limits::MESSAGE_BYTES {
        return Err(PublicError::new(
            Code::MessageTooLarge,
            format!("{} bytes", bytes.len()),
        ));
    }
    let request = lk::SignalRequest::decode(bytes)
        .map_err(|_| PublicError::new(Code::RequestMalformed, "not a SignalRequest"))?;
    // An empty message, or one of a kind newer than this server.
    let Some(message) = request.message else {
        return Ok(("unknown", Incoming::Ignore));
    };
    incoming(message)
}

fn incoming(message: Message) -> Result<(&'static str, Incoming), PublicError> {
    let act = |action| Ok(Incoming::Act(action));
    #[allow(deprecated, reason = "older clients still read and send the old fields")]
    let (name, incoming) = match message {
        Message::Offer(d) => (
            "offer",
            description(d).and_then(|(id, sdp)| {
                act(Action::Offer {
                    leg: Leg::Publisher,
                    id,
                    sdp,
                })
            }),
        ),
        Message::Answer(d) => (
            "answer",
            description(d).and_then(|(id, sdp)| act(Action::Answer { id, sdp })),
        ),
        // Our candidates are in the descriptions, and with ICE-lite theirs are found by their checks.
        Message::Trickle(_) => ("trickle", Ok(Incoming::Ignore)),
        Message::AddTrack(r) => ("add_track", act(Action::AddTrack(Box::new(r)))),
        Message::Mute(m) => (
            "mute",
            act(Action::Mute {
                sid: m.sid.into(),
                muted: m.muted,
            }),
        ),
        Message::Subscription(s) => {
            let on = s.subscribe;
            (
                "subscription",
                sids(&s).and_then(|sids| act(Action::Subscribe { sids, on })),
            )
        }
        Message::TrackSetting(s) => {
            let checked = if s.track_sids.len() > MAX_SIDS {
                Err(too_many())
            } else {
                act(Action::TrackSettings(s))
            };
            ("track_setting", checked)
        }
        Message::Leave(_) => ("leave", act(Action::Leave)),
        Message::UpdateLayers(_) => ("update_layers", Ok(Incoming::Ignore)),
        Message::SubscriptionPermission(p) => {
            let size = p.track_permissions.len()
                + p.track_permissions
                    .iter()
                    .map(|t| t.track_sids.len())
                    .sum::<usize>();
            let checked = if size > MAX_SIDS {
                Err(too_many())
            } else {
                act(Action::Audience(p))
            };
            ("subscription_permission", checked)
        }
        Message::SyncState(s) => ("sync_state", act(Action::Sync(Box::new(s)))),
        Message::Simulate(s) => (
            "simulate",
            Ok(scenario(&s).map_or(Incoming::Ignore, |s| Incoming::Act(Action::Simulate(s)))),
        ),
        Message::Ping(timestamp) => (
            "ping",
            Ok(Incoming::Ping {
                timestamp,
                new_form: false,
            }),
        ),
        Message::PingReq(p) => (
            "ping_req",
            Ok(Incoming::Ping {
                timestamp: p.timestamp,
                new_form: true,
            }),
        ),
        Message::UpdateMetadata(u) => ("update_metadata", act(Action::Describe(u))),
        Message::UpdateAudioTrack(u) => ("update_audio_track", act(Action::AudioTrack(u))),
        Message::UpdateVideoTrack(u) => ("update_video_track", act(Action::VideoTrack(u))),
        Message::PublishDataTrackRequest(r) => (
            "publish_data_track",
            Ok(unsupported(0, "data tracks", Some(Request::PublishDataTrack(r)))),
        ),
        Message::UnpublishDataTrackRequest(r) => (
            "unpublish_data_track",
            Ok(unsupported(
                0,
                "data tracks",
                Some(Request::UnpublishDataTrack(r)),
            )),
        ),
        Message::UpdateDataSubscription(_) => ("update_data_subscription", Ok(Incoming::Ignore)),
        Message::StoreDataBlobRequest(r) => (
            "store_data_blob",
            Ok(unsupported(r.request_id, "data blobs", None)),
        ),
        Message::GetDataBlobRequest(r) => {
            ("get_data_blob", Ok(unsupported(r.request_id, "data blobs", None)))
        }
    };
    Ok((name, incoming?))
}

fn too_many() -> PublicError {
    PublicError::new(Code::MessageTooLarge, format!("more than {MAX_SIDS} track ids"))
}

fn unsupported(request_id: u32, what: &str, request: Option<Request>) -> Incoming {
    Incoming::Act(Action::Unsupported(Box::new(RequestFailure {
        request_id,
        reason: Reason::UnsupportedType,
        message: format!("{what} are not supported"),
        request,
    })))
}

fn description(description: lk::SessionDescription) -> Result<(u32, String), PublicError> {
    if description.sdp.is_empty() {
        return Err(PublicError::new(Code::SdpInvalid, "empty description"));
    }
    Ok((description.id, description.sdp))
}

/// The tracks of an UpdateSubscription, in both places it may name them.
fn sids(update: &lk::UpdateSubscription) -> Result<Vec<TrackSid>, PublicError> {
    let named = update.participant_tracks.iter().flat_map(|p| &p.track_sids);
    let mut all: Vec<TrackSid> = Vec::new();
    for sid in update.track_sids.iter().chain(named) {
        if all.len() >= MAX_SIDS {
            return Err(too_many());
        }
        all.push(Arc::from(sid.as_str()));
    }
    // Clients name each track in both places.
    all.sort();
    all.dedup();
    Ok(all)
}

fn scenario(simulate: &lk::SimulateScenario) -> Option<Scenario> {
    match simulate.scenario.as_ref()? {
        Simulated::SpeakerUpdate(_) => Some(Scenario::Speaks),
        Simulated::NodeFailure(true) | Simulated::Migration(true) => Some(Scenario::SignalLoss),
        Simulated::ServerLeave(true) => Some(Scenario::ServerLeave),
        Simulated::LeaveRequestFullReconnect(true) => Some(Scenario::FullReconnect),
        Simulated::DisconnectSignalOnResume(true) => Some(Scenario::CutNextResume {
            before_greeting: false,
        }),
        Simulated::DisconnectSignalOnResumeNoMessages(true) => Some(Scenario::CutNextResume {
            before_greeting: true,
        }),
        _ => None,
    }
}
