//! The contract's messages to the worker's own types and back.

use std::time::Duration;

use livekit_protocol as lk;
use plenum_errors::{Code, PublicError};
use plenum_worker_api::v1;
use prost::Message as _;
use tonic::Status;

use crate::room::{
    Encrypted, EndReason, Handover, Identity, Moderation, Publishing, Reserve, RoomName, RoomSpec,
};
use crate::session::SpeakerPolicy;

fn limit(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

/// 0 = unlimited becomes `None`.
pub fn spec(spec: v1::RoomSpec) -> Result<RoomSpec, PublicError> {
    if spec.name.is_empty() {
        return Err(PublicError::new(Code::RequestMalformed, "room without a name"));
    }
    Ok(RoomSpec {
        name: RoomName::from(spec.name),
        epoch: spec.epoch,
        meeting: spec.meeting,
        title: spec.title,
        max_participants: (spec.max_participants > 0).then_some(spec.max_participants),
        empty_timeout: limit(spec.empty_timeout_ms),
        departure_timeout: limit(spec.departure_timeout_ms),
        max_duration: limit(spec.max_duration_ms),
        locked: spec.locked,
        metadata: spec.metadata,
        codecs: spec.codecs.iter().map(|c| c.to_ascii_lowercase()).collect(),
        encrypted: spec.encryption.map_or_else(Encrypted::default, |must| Encrypted {
            tracks: must.tracks,
            data: must.data,
        }),
        publishing: spec
            .publishing
            .map_or_else(Publishing::default, |asked| Publishing {
                simulcast: asked.simulcast,
                red: asked.red,
                dtx: asked.dtx,
                max_bitrate: (asked.max_bitrate > 0).then_some(asked.max_bitrate),
            }),
        speakers: spec.speakers.map(|choice| SpeakerPolicy {
            speakers: choice.max as usize,
            from: choice.from as usize,
        }),
    })
}

/// What is not known counts as closed.
pub fn end_reason(reason: v1::EndReason) -> EndReason {
    match reason {
        v1::EndReason::Deleted => EndReason::Deleted,
        v1::EndReason::Expired => EndReason::Expired,
        v1::EndReason::Moved => EndReason::Moved,
        v1::EndReason::Closed | v1::EndReason::Unspecified => EndReason::Closed,
    }
}

/// A moderator's request.
pub fn moderation(request: v1::ModerateRequest) -> Result<(RoomName, Moderation), PublicError> {
    use v1::moderate_request::Action;
    let named = |sid: String| (!sid.is_empty()).then(|| sid.into());
    let malformed = |what: &str| PublicError::new(Code::RequestMalformed, what);
    let identity = Identity::from(request.identity);
    let what = match request.action.ok_or_else(|| malformed("no action"))? {
        Action::Mute(mute) => Moderation::Mute {
            identity,
            sid: named(mute.track_sid),
            muted: mute.muted,
        },
        Action::Unpublish(unpublish) => Moderation::Unpublish {
            identity,
            sid: named(unpublish.track_sid),
        },
        Action::Update(bytes) => {
            let update = lk::UpdateParticipantRequest::decode(bytes.as_slice())
                .map_err(|_| malformed("not an UpdateParticipantRequest"))?;
            Moderation::Update {
                identity,
                update: Box::new(update),
            }
        }
        Action::Data(data) => {
            let packet =
                lk::DataPacket::decode(data.packet.as_slice()).map_err(|_| malformed("not a DataPacket"))?;
            Moderation::Data {
                packet: Box::new(packet),
                lossy: data.lossy,
            }
        }
        Action::Subscriptions(s) => Moderation::Subscriptions {
            identity,
            sids: s.track_sids.into_iter().map(Into::into).collect(),
            on: s.subscribe,
        },
        Action::RoomMetadata(metadata) => Moderation::Metadata(metadata),
    };
    Ok((RoomName::from(request.room), what))
}

/// What is to be kept, and where.
pub fn reservation(request: v1::ReserveRequest) -> (RoomName, Reserve) {
    let handover = match request.handover.as_slice() {
        [] => None,
        bytes => Handover::read(bytes)
            .inspect_err(|error| tracing::warn!(%error, "a handover that is not understood"))
            .ok(),
    };
    let reserve = Reserve {
        epoch: request.epoch,
        identity: Identity::from(request.identity),
        ttl: Duration::from_millis(u64::from(request.ttl_ms)),
        takes_a_place: request.takes_a_place,
        token_issued_at_ms: request.token_issued_at_ms,
        handover: handover.map(Box::new),
    };
    (RoomName::from(request.room), reserve)
}

/// A catalogue error as a gRPC status: the message is `CODE: detail`, so that the caller gets the
/// code back.
pub fn status(error: &PublicError) -> Status {
    let text = if error.detail.is_empty() {
        error.code.as_str().to_owned()
    } else {
        format!("{}: {}", error.code.as_str(), error.detail)
    };
    match error.code {
        Code::EpochStale => Status::failed_precondition(text),
        Code::WorkerDraining => Status::unavailable(text),
        Code::RoomNotFound | Code::ParticipantNotFound => Status::not_found(text),
        Code::RequestMalformed => Status::invalid_argument(text),
        Code::NotPermitted => Status::permission_denied(text),
        _ => Status::internal(text),
    }
}
