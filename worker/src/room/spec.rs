//! What a room was ordered to be.
//!
//! Owns the room's settings and the reasons for its end. Invariant: a duration of `None` means
//! unlimited.

use std::time::Duration;

use livekit_protocol::{DisconnectReason, leave_request::Action as LeaveAction};
use plenum_errors::Code;

use super::ids::RoomName;
use crate::session::SpeakerPolicy;

/// The settings of a room, from the controller or, in dev mode, from defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSpec {
    /// NAMESPACE/MEETING[/ROOM]
    pub name: RoomName,
    /// Fencing number of the placement.
    pub epoch: u64,
    /// NAMESPACE/MEETING
    pub meeting: String,
    /// For people.
    pub title: String,
    /// `None` = unlimited.
    pub max_participants: Option<u32>,
    /// The session ends where nobody came for this long.
    pub empty_timeout: Option<Duration>,
    /// The session ends this long after the last one left.
    pub departure_timeout: Option<Duration>,
    /// Everyone is sent away this long after the first join.
    pub max_duration: Option<Duration>,
    /// Only hosts and co-hosts enter.
    pub locked: bool,
    /// Shown to clients as the room's metadata.
    pub metadata: String,
    /// Lower-case codec names; empty = all.
    pub codecs: Vec<String>,
    /// What must be encrypted end to end.
    pub encrypted: Encrypted,
    /// What publishers are asked to send.
    pub publishing: Publishing,
    /// Whom everybody hears; `None` = as this worker is set.
    pub speakers: Option<SpeakerPolicy>,
}

/// What publishers are asked to send. A track keeps what held when it was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publishing {
    /// Several encodings of a picture; otherwise the highest alone.
    pub simulcast: bool,
    /// Redundant sound, where the client agrees.
    pub red: bool,
    /// Sound that pauses in silence, where the client agrees.
    pub dtx: bool,
    /// Bits per second of one participant's tracks; `None` = what its network carries.
    pub max_bitrate: Option<u64>,
}

impl Default for Publishing {
    fn default() -> Self {
        Self {
            simulcast: true,
            red: true,
            dtx: true,
            max_bitrate: None,
        }
    }
}

/// What is refused where it is not encrypted end to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Encrypted {
    /// Tracks.
    pub tracks: bool,
    /// Data between participants.
    pub data: bool,
}

impl RoomSpec {
    /// An unrestricted room.
    pub fn open(name: RoomName) -> Self {
        Self {
            meeting: name.meeting().to_owned(),
            title: String::new(),
            name,
            epoch: 1,
            max_participants: None,
            empty_timeout: Some(Duration::from_secs(300)),
            departure_timeout: Some(Duration::from_secs(20)),
            max_duration: None,
            locked: false,
            metadata: String::new(),
            codecs: Vec::new(),
            encrypted: Encrypted::default(),
            publishing: Publishing::default(),
            speakers: None,
        }
    }

    /// May this codec (lower-case name, as in `vp8`) be used?
    pub fn allows_codec(&self, codec: &str) -> bool {
        // Redundant audio data carries Opus.
        let codec = if codec == "red" { "opus" } else { codec };
        self.codecs.is_empty() || self.codecs.iter().any(|c| c == codec)
    }
}

/// Why a room or its session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The object was deleted.
    Deleted,
    /// Its time is over.
    Expired,
    /// Suspended, or the breakout room was closed.
    Closed,
    /// It lives on another worker now.
    Moved,
    /// This worker stops.
    Shutdown,
    /// The room's logic failed; the room is gone, the worker is not.
    Failed,
}

impl EndReason {
    /// What clients are told.
    pub fn leave(self) -> (DisconnectReason, LeaveAction) {
        match self {
            EndReason::Deleted => (DisconnectReason::RoomDeleted, LeaveAction::Disconnect),
            EndReason::Expired | EndReason::Closed => (DisconnectReason::RoomClosed, LeaveAction::Disconnect),
            EndReason::Moved => (DisconnectReason::Migration, LeaveAction::Reconnect),
            EndReason::Shutdown => (DisconnectReason::ServerShutdown, LeaveAction::Reconnect),
            EndReason::Failed => (DisconnectReason::StateMismatch, LeaveAction::Reconnect),
        }
    }

    /// Is the room over for good, so that a breakout room's people belong in the main room?
    pub fn closes(self) -> bool {
        matches!(self, EndReason::Deleted | EndReason::Expired | EndReason::Closed)
    }

    /// What the gateway is told.
    pub fn code(self) -> Code {
        match self {
            EndReason::Deleted | EndReason::Expired | EndReason::Closed => Code::MeetingEnded,
            EndReason::Moved => Code::EpochStale,
            EndReason::Shutdown => Code::WorkerDraining,
            EndReason::Failed => Code::Internal,
        }
    }
}
