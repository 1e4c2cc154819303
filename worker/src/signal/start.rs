//! Start to a client at the door.
//!
//! Owns the reading of what a gateway says about a client and of the client's own join request.

use std::collections::HashMap;

use livekit_protocol as lk;
use livekit_protocol::participant_info::Kind;
use plenum_errors::{Code, PublicError};
use plenum_token::{Role, VideoGrant};
use plenum_worker_api::v1::Start;
use prost::Message as _;

use crate::room::{Entry, Grant, Identity, RoomName};
use crate::session::api::Topology;

fn malformed(what: &str) -> PublicError {
    PublicError::new(Code::RequestMalformed, what)
}

/// Is this a re-attachment of a client whose socket never broke?
pub fn reattaches(start: &Start, entry: &Entry) -> bool {
    start.last_seen_seq > 0 && entry.resume.is_some() && !join_request(start).is_ok_and(|r| r.reconnect)
}

fn join_request(start: &Start) -> Result<lk::JoinRequest, PublicError> {
    lk::JoinRequest::decode(start.join_request.as_slice()).map_err(|_| malformed("not a JoinRequest"))
}

/// Decodes a Start.
pub fn entry(start: &Start) -> Result<Entry, PublicError> {
    let request = join_request(start)?;
    let grant: VideoGrant =
        serde_json::from_str(&start.video_grant_json).map_err(|_| malformed("not a video grant"))?;
    let grant = Grant::from(grant);
    let settings = request.connection_settings.unwrap_or(lk::ConnectionSettings {
        auto_subscribe: true,
        ..Default::default()
    });
    let mut attributes: HashMap<String, String> = start.attributes.clone();
    let mut metadata = start.metadata.clone();
    // What the client itself brings counts as a change of its own metadata.
    if grant.update_metadata {
        if !request.metadata.is_empty() {
            metadata = request.metadata;
        }
        attributes.extend(
            request
                .participant_attributes
                .into_iter()
                .filter(|(_, value)| !value.is_empty()),
        );
    }
    let resumes = request.reconnect || start.last_seen_seq > 0;
    Ok(Entry {
        room: RoomName::from(start.room.as_str()),
        epoch: start.epoch,
        identity: Identity::from(start.identity.as_str()),
        name: start.name.clone(),
        role: start.role.parse::<Role>().unwrap_or(if grant.publish {
            Role::Participant
        } else {
            Role::Viewer
        }),
        kind: kind(&start.kind, &grant),
        grant,
        metadata,
        attributes,
        client: request.client_info.unwrap_or_default(),
        auto_subscribe: settings.auto_subscribe,
        topology: if start.dual_peer_connection {
            Topology::Dual
        } else {
            Topology::Single
        },
        resume: resumes.then_some(request.participant_sid),
        token_issued_at_ms: start.token_issued_at_ms,
        offers_once: start.offers_once && !start.dual_peer_connection,
        tracks: request.add_track_requests,
        offer: request.publisher_offer,
        sync: request.sync_state,
    })
}

fn kind(text: &str, grant: &Grant) -> Kind {
    match text {
        "ingress" => Kind::Ingress,
        "egress" => Kind::Egress,
        "sip" => Kind::Sip,
        "agent" => Kind::Agent,
        "connector" => Kind::Connector,
        "bridge" => Kind::Bridge,
        _ if grant.agent => Kind::Agent,
        _ => Kind::Standard,
    }
}
