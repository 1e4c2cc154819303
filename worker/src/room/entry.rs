//! Who asks to enter, and with what.
//!
//! Owns the request to enter a room, already decoded, and the verdict on it.

use std::collections::HashMap;

use livekit_protocol as lk;

use plenum_token::Role;

use super::grant::Grant;
use super::ids::{Identity, RoomName};
use crate::session::api::{SessionId, Topology};

/// A client at the door.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which room.
    pub room: RoomName,
    /// 0 = whatever is held.
    pub epoch: u64,
    /// Who.
    pub identity: Identity,
    /// Display name.
    pub name: String,
    /// Rights.
    pub grant: Grant,
    /// Standing.
    pub role: Role,
    /// `lk::participant_info::Kind`
    pub kind: lk::participant_info::Kind,
    /// Of the participant.
    pub metadata: String,
    /// Of the participant.
    pub attributes: HashMap<String, String>,
    /// What it runs.
    pub client: lk::ClientInfo,
    /// Receives every track without asking.
    pub auto_subscribe: bool,
    /// One or two peer connections.
    pub topology: Topology,
    /// Asks to go on with an earlier session: its participant sid, empty where the client sent none.
    pub resume: Option<String>,
    /// Unix milliseconds; 0 = unknown.
    pub token_issued_at_ms: i64,
    /// It speaks WHIP or WHEP: see [`crate::session::api::Command::OffersOnce`].
    pub offers_once: bool,
    /// Published together with the join.
    pub tracks: Vec<lk::AddTrackRequest>,
    /// The first offer, where it came with the join.
    pub offer: Option<lk::SessionDescription>,
    /// What the client had, on a resume.
    pub sync: Option<lk::SyncState>,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Someone new.
    New,
    /// Someone new who takes the place of an older session of the same identity.
    Replaces(SessionId),
    /// Goes on with this session.
    Resumes(SessionId),
    /// Goes on with what it had on another worker, which announced it.
    TakesOver,
    /// Wants to go on with a session that is not here: must start anew.
    Unknown,
}
