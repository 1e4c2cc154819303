//! A participant on its way to another worker, as bytes.
//!
//! Owns reading and writing of the contract's Handover. Invariants: what was read is within the limits
//! that the same client would have met here, and consistent in itself: every section and stream names a
//! track that is there, of its kind. Bytes of another version, or of anything else, are an error.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use livekit_protocol as lk;
use plenum_worker_api::v1;
use prost::Message as _;

use super::ids::{Identity, RoomName};
use super::limits;
use super::participant::Participant;
use super::track::Track;
use crate::session::api::{
    ChannelState, MediaKind, PeerState, Quality, Reliability, SectionState, SourceState, TrackSid,
};

/// Of what this worker writes, and all that it reads.
const VERSION: u32 = 1;
/// Bytes of an id.
const ID: usize = 64;
/// Media sections of one description.
const SECTIONS: usize = 500;
/// RTP streams of one client.
const SOURCES: usize = 512;
/// Data channels of one client.
const CHANNELS: usize = 16;

/// Why bytes are no handover.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// Something else altogether.
    #[error("not a handover")]
    Malformed,
    /// Written by a worker too new or too old.
    #[error("version {0}")]
    Version(u32),
    /// It contradicts itself or a limit.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A participant that was elsewhere.
#[derive(Debug, Clone)]
pub struct Handover {
    pub(super) room: RoomName,
    /// Whom it is about.
    pub identity: Identity,
    /// Its id there.
    pub sid: String,
    pub(super) name: String,
    pub(super) metadata: String,
    pub(super) attributes: HashMap<String, String>,
    pub(super) permission: lk::ParticipantPermission,
    pub(super) auto_subscribe: bool,
    pub(super) audience: lk::SubscriptionPermission,
    pub(super) last_reliable: u32,
    pub(super) tracks: Vec<Handed>,
    pub(super) peer: PeerState,
}

/// A track that was published elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Handed {
    pub(super) sid: TrackSid,
    pub(super) kind: MediaKind,
    pub(super) info: lk::TrackInfo,
    pub(super) cids: Vec<String>,
    pub(super) censored: bool,
    pub(super) told_highest: Option<Option<Quality>>,
}

fn told(number: u32) -> Result<Option<Option<Quality>>, HandoverError> {
    Ok(match number {
        0 => None,
        1 => Some(None),
        2 => Some(Some(Quality::Low)),
        3 => Some(Some(Quality::Medium)),
        4 => Some(Some(Quality::High)),
        _ => return Err(HandoverError::Invalid("quality")),
    })
}

fn told_number(told: Option<Option<Quality>>) -> u32 {
    match told {
        None => 0,
        Some(None) => 1,
        Some(Some(Quality::Low)) => 2,
        Some(Some(Quality::Medium)) => 3,
        Some(Some(Quality::High)) => 4,
    }
}

const LABELS: [(&str, Reliability); 2] = [
    ("_reliable", Reliability::Reliable),
    ("_lossy", Reliability::Lossy),
];

/// Writes what is needed to go on with `participant` elsewhere. A track that ended while media was asked
/// is not mentioned.
pub(super) fn write(participant: &Participant, room: &RoomName, peer: &PeerState) -> Vec<u8> {
    let channels = peer.channels.iter().filter_map(|channel| {
        let (label, _) = LABELS.iter().find(|(_, r)| *r == channel.reliability)?;
        Some(v1::HandedChannel {
            id: channel.id.into(),
            label: (*label).to_owned(),
        })
    });
    let published = |sid: &&TrackSid| participant.tracks.contains_key(*sid);
    v1::Handover {
        version: VERSION,
        room: room.to_string(),
        identity: participant.identity.to_string(),
        participant_sid: participant.sid.to_string(),
        name: participant.name.clone(),
        metadata: participant.metadata.clone(),
        attributes: participant.attributes.clone(),
        permission: participant.grant.permission().encode_to_vec(),
        auto_subscribe: participant.auto_subscribe,
        audience: lk::SubscriptionPermission {
            all_participants: participant.audience.everyone,
            track_permissions: participant.audience.permissions.clone(),
        }
        .encode_to_vec(),
        last_reliable: participant.last_reliable,
        tracks: participant.tracks.values().map(handed_track).collect(),
        sections: peer
            .sections
            .iter()
            .map(|section| v1::HandedSection {
                mid: section.mid.clone(),
                kind: match section.kind {
                    None => 0,
                    Some(MediaKind::Audio) => 1,
                    Some(MediaKind::Video) => 2,
                },
                publishes: section
                    .publishes
                    .as_ref()
                    .filter(published)
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            })
            .collect(),
        sources: peer
            .sources
            .iter()
            .filter(|source| published(&&source.sid))
            .map(|source| v1::HandedSource {
                ssrc: source.ssrc,
                track_sid: source.sid.to_string(),
                rid: source.rid.clone(),
                repair: source.repair,
            })
            .collect(),
        channels: channels.collect(),
        moves: peer.moves,
    }
    .encode_to_vec()
}

fn handed_track(track: &Track) -> v1::HandedTrack {
    v1::HandedTrack {
        info: track.info.encode_to_vec(),
        // Those of codecs that were announced again and again are history.
        cids: track
            .cids
            .iter()
            .enumerate()
            .filter(|(at, cid)| *at == 0 || track.info.codecs.iter().any(|c| c.cid == **cid))
            .map(|(_, cid)| cid.clone())
            .collect(),
        censored: track.censored,
        told_highest: told_number(track.told_highest),
    }
}

fn ensure(holds: bool, what: &'static str) -> Result<(), HandoverError> {
    if holds {
        Ok(())
    } else {
        Err(HandoverError::Invalid(what))
    }
}

fn id(text: &str) -> bool {
    !text.is_empty() && text.len() <= ID
}

impl Handover {
    /// Reads what another worker wrote.
    pub fn read(bytes: &[u8]) -> Result<Self, HandoverError> {
        let malformed = |_| HandoverError::Malformed;
        let raw = v1::Handover::decode(bytes).map_err(malformed)?;
        if raw.version != VERSION {
            return Err(HandoverError::Version(raw.version));
        }
        ensure(
            !raw.identity.is_empty() && raw.identity.len() <= limits::IDENTITY,
            "identity",
        )?;
        ensure(id(&raw.participant_sid), "participant sid")?;
        ensure(raw.name.len() <= limits::NAME, "name")?;
        ensure(raw.metadata.len() <= limits::METADATA, "metadata")?;
        let attributes: usize = raw.attributes.iter().map(|(k, v)| k.len() + v.len()).sum();
        ensure(attributes <= limits::METADATA, "attributes")?;
        let permission = lk::ParticipantPermission::decode(raw.permission.as_slice()).map_err(malformed)?;
        let audience = lk::SubscriptionPermission::decode(raw.audience.as_slice()).map_err(malformed)?;

        ensure(raw.tracks.len() <= limits::TRACKS_PER_PARTICIPANT, "tracks")?;
        let mut tracks: Vec<Handed> = Vec::with_capacity(raw.tracks.len());
        for track in raw.tracks {
            let track = read_track(track)?;
            ensure(tracks.iter().all(|t| t.sid != track.sid), "track twice")?;
            tracks.push(track);
        }
        let peer = PeerState {
            sections: sections(raw.sections, &tracks)?,
            sources: sources(raw.sources, &tracks)?,
            channels: channels(&raw.channels)?,
            moves: raw.moves,
        };
        Ok(Self {
            room: RoomName::from(raw.room),
            identity: Identity::from(raw.identity),
            sid: raw.participant_sid,
            name: raw.name,
            metadata: raw.metadata,
            attributes: raw.attributes,
            permission,
            auto_subscribe: raw.auto_subscribe,
            audience,
            last_reliable: raw.last_reliable,
            tracks,
            peer,
        })
    }
}

fn read_track(raw: v1::HandedTrack) -> Result<Handed, HandoverError> {
    let info = lk::TrackInfo::decode(raw.info.as_slice()).map_err(|_| HandoverError::Malformed)?;
    let kind = match lk::TrackType::try_from(info.r#type) {
        Ok(lk::TrackType::Audio) => MediaKind::Audio,
        Ok(lk::TrackType::Video) => MediaKind::Video,
        _ => return Err(HandoverError::Invalid("track type")),
    };
    ensure(id(&info.sid), "track sid")?;
    let texts = [&info.name, &info.stream, &info.mime_type, &info.mid];
    ensure(texts.iter().all(|t| t.len() <= limits::TRACK_TEXT), "track text")?;
    #[allow(deprecated, reason = "older clients still read and send the old fields")]
    let layers = info.layers.len();
    let codecs = &info.codecs;
    ensure(
        layers <= limits::TRACK_LAYERS
            && codecs.len() <= limits::TRACK_LAYERS
            && codecs.iter().all(|c| c.layers.len() <= limits::TRACK_LAYERS),
        "track layers",
    )?;
    // The announced one, and one for each codec.
    ensure(
        (1..=limits::TRACK_LAYERS + 1).contains(&raw.cids.len())
            && raw
                .cids
                .iter()
                .all(|c| !c.is_empty() && c.len() <= limits::TRACK_TEXT),
        "track cids",
    )?;
    Ok(Handed {
        sid: TrackSid::from(info.sid.as_str()),
        kind,
        info,
        cids: raw.cids,
        censored: raw.censored,
        told_highest: told(raw.told_highest)?,
    })
}

fn sections(raw: Vec<v1::HandedSection>, tracks: &[Handed]) -> Result<Vec<SectionState>, HandoverError> {
    ensure(raw.len() <= SECTIONS, "sections")?;
    let mut mids = BTreeSet::new();
    let mut published = BTreeSet::new();
    let mut sections = Vec::with_capacity(raw.len());
    for section in raw {
        let kind = match section.kind {
            0 => None,
            1 => Some(MediaKind::Audio),
            2 => Some(MediaKind::Video),
            _ => return Err(HandoverError::Invalid("section kind")),
        };
        ensure(id(&section.mid) && mids.insert(section.mid.clone()), "mid")?;
        let publishes = if section.publishes.is_empty() {
            None
        } else {
            let track = tracks.iter().find(|t| *t.sid == *section.publishes);
            let track = track.filter(|t| Some(t.kind) == kind);
            let sid = Arc::clone(&track.ok_or(HandoverError::Invalid("track of a section"))?.sid);
            ensure(published.insert(Arc::clone(&sid)), "a track in two sections")?;
            Some(sid)
        };
        sections.push(SectionState {
            mid: section.mid,
            kind,
            publishes,
        });
    }
    Ok(sections)
}

fn sources(raw: Vec<v1::HandedSource>, tracks: &[Handed]) -> Result<Vec<SourceState>, HandoverError> {
    ensure(raw.len() <= SOURCES, "streams")?;
    raw.into_iter()
        .map(|source| {
            let track = tracks.iter().find(|t| *t.sid == *source.track_sid);
            ensure(source.rid.len() <= ID, "rid")?;
            Ok(SourceState {
                ssrc: source.ssrc,
                sid: Arc::clone(&track.ok_or(HandoverError::Invalid("track of a stream"))?.sid),
                rid: source.rid,
                repair: source.repair,
            })
        })
        .collect()
}

fn channels(raw: &[v1::HandedChannel]) -> Result<Vec<ChannelState>, HandoverError> {
    ensure(raw.len() <= CHANNELS, "channels")?;
    let mut ids = BTreeSet::new();
    raw.iter()
        .map(|channel| {
            // 65535 names no stream (RFC 8832 section 6).
            let id = u16::try_from(channel.id).ok().filter(|id| *id < u16::MAX);
            let id = id.ok_or(HandoverError::Invalid("channel id"))?;
            ensure(ids.insert(id), "channel twice")?;
            let known = LABELS.iter().find(|(label, _)| *label == channel.label);
            let (_, reliability) = known.ok_or(HandoverError::Invalid("channel label"))?;
            Ok(ChannelState {
                id,
                reliability: *reliability,
            })
        })
        .collect()
}
