//! What clients are told.

use serde::{Deserialize, Serialize};

use crate::Mode;

/// A breakout room as clients see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomView {
    /// Name of the BreakoutRoom object.
    pub id: String,
    /// What people see.
    pub title: String,
    /// 0 = unlimited.
    #[serde(default)]
    pub max_participants: u32,
    /// People may be in it now.
    pub open: bool,
    /// When it closes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<i64>,
    /// Identities assigned to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub participants: Vec<String>,
}

/// What happened to the breakout rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BreakoutMessage {
    /// There are rooms that were not there, or were not open.
    RoomCreated,
    /// Rooms have other titles, limits, times or people, or some of them are gone.
    RoomChanged,
    /// You are about to be moved (only as [`Notice::Moving`] to the one concerned) or somebody was.
    ParticipantMoved,
    /// No room is open any more.
    AllRoomRemoved,
}

/// Something that a meeting is told, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "signal", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Signal {
    /// The rooms are so now.
    BreakoutRoom {
        /// What happened.
        message: BreakoutMessage,
        /// How they are filled: with `automatic` or `manual` wait to be moved, with `selfSelect` choose.
        mode: Mode,
        /// Participants may go back to the main room by themselves.
        #[serde(default)]
        allow_return_to_main: bool,
        /// Participants may refuse a move within its notice.
        #[serde(default)]
        allow_cancel: bool,
        /// All rooms.
        rooms: Vec<RoomView>,
    },
    /// Time runs until rooms close.
    CountDownTimer {
        /// Seconds left when it was sent.
        period: u32,
        /// When they close.
        closes_at: i64,
        /// The server's clock, to correct one's own by.
        now: i64,
        /// Ids of the rooms it concerns.
        rooms: Vec<String>,
    },
    /// Somebody went from a room to another.
    ParticipantSwitched {
        /// Who.
        identity: String,
        /// Id of the room; left out: the main room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// Id of the room; left out: the main room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// Where they were to go and could not: a code of the error catalogue.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// A hand went up or down.
    RaiseHand {
        /// Who, and where.
        #[serde(flatten)]
        who: Asking,
        /// Up or down.
        up: bool,
    },
    /// A room asks for a host.
    AskForHelp {
        /// Who, and where.
        #[serde(flatten)]
        who: Asking,
        /// Asks, or no longer.
        on: bool,
    },
    /// A host speaks to all.
    Broadcast {
        /// Identity of the host.
        from: String,
        /// Name of the host.
        name: String,
        /// What.
        text: String,
    },
    /// Somebody speaks to the hosts.
    MessageToHosts {
        /// Who, and where.
        #[serde(flatten)]
        who: Asking,
        /// What.
        text: String,
    },
}

impl Signal {
    /// Every value of `signal`.
    pub const KINDS: [&'static str; 7] = [
        "breakout-room",
        "count-down-timer",
        "participant-switched",
        "raise-hand",
        "ask-for-help",
        "broadcast",
        "message-to-hosts",
    ];

    /// The value of `signal`: for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Signal::BreakoutRoom { .. } => "breakout-room",
            Signal::CountDownTimer { .. } => "count-down-timer",
            Signal::ParticipantSwitched { .. } => "participant-switched",
            Signal::RaiseHand { .. } => "raise-hand",
            Signal::AskForHelp { .. } => "ask-for-help",
            Signal::Broadcast { .. } => "broadcast",
            Signal::MessageToHosts { .. } => "message-to-hosts",
        }
    }
}

/// Hands that are up and calls for help, of a whole meeting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Hands that are up, the longest first.
    #[serde(default)]
    pub hands: Vec<Asking>,
    /// Who asks for help, the longest first.
    #[serde(default)]
    pub help: Vec<Asking>,
}

/// Somebody, and where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asking {
    /// Who.
    pub identity: String,
    /// Display name.
    #[serde(default)]
    pub name: String,
    /// Id of the room; left out: the main room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// Since when.
    #[serde(default)]
    pub since: i64,
}

/// Whom a signal is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Audience {
    /// The whole meeting.
    Everyone,
    /// Hosts and co-hosts, wherever they are.
    Hosts,
    /// Those rooms (`""` = the main room), and hosts wherever they are.
    Rooms(Vec<String>),
}

/// A signal with its number: `{"seq": 12, "at": 1790000000000, "signal": "raise-hand", ...}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rises with every entry of a meeting, also over its moves to other workers. Gaps are normal: what
    /// is not for a client is left out, and a new hub begins with a higher number. At most 2^53 - 1.
    pub seq: u64,
    /// When.
    pub at: i64,
    /// What.
    #[serde(flatten)]
    pub signal: Signal,
}

/// Something one client is told, outside the order of signals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Notice {
    /// You will be moved.
    Moving {
        /// Always `participantMoved`.
        message: BreakoutMessage,
        /// Where to; left out: the main room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// Title of that room.
        title: String,
        /// When.
        at: i64,
        /// The server's clock.
        now: i64,
        /// Seconds between the two.
        seconds: u32,
        /// May you refuse?
        cancellable: bool,
    },
    /// The move that was announced does not take place.
    NotMoving {},
    /// You were moved. A stock client has also been told by RoomMoved or by a reconnect.
    Moved {
        /// Where you are; left out: the main room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// Title of that room.
        title: String,
    },
    /// You could not be moved.
    MoveFailed {
        /// Where to; left out: the main room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// Where you are now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        landed: Option<String>,
        /// A code of the error catalogue.
        code: String,
    },
    /// What you may do has changed.
    Role {
        /// `host`, `cohost`, `participant` or `viewer`.
        role: String,
    },
    /// All rooms with their people, for hosts who watch.
    Overview(Overview),
}

impl Notice {
    /// Every value of `notice`.
    pub const KINDS: [&'static str; 6] = ["moving", "not-moving", "moved", "move-failed", "role", "overview"];

    /// The value of `notice`: for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Notice::Moving { .. } => "moving",
            Notice::NotMoving {} => "not-moving",
            Notice::Moved { .. } => "moved",
            Notice::MoveFailed { .. } => "move-failed",
            Notice::Role { .. } => "role",
            Notice::Overview(_) => "overview",
        }
    }
}

/// All rooms with their people. The main room comes first, with the id `""`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// The rooms.
    pub rooms: Vec<Occupied>,
}

/// A room and its people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Occupied {
    /// Id; `""` = the main room.
    pub id: String,
    /// What people see.
    pub title: String,
    /// May people be in it?
    pub open: bool,
    /// Its people.
    pub participants: Vec<Occupant>,
}

/// Somebody in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Occupant {
    /// Who.
    pub identity: String,
    /// Display name.
    pub name: String,
    /// Role.
    pub role: String,
    /// Since when in this room.
    pub since: i64,
    /// Speaks now.
    pub speaking: bool,
    /// Hand is up.
    pub hand: bool,
    /// Asks for help.
    pub help: bool,
}

/// Oneself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// Identity.
    pub identity: String,
    /// Role.
    pub role: String,
    /// Where; left out: the main room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// Where one is assigned to; left out: nowhere, or the main room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<String>,
}

/// The answer to `hello`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Oneself.
    pub me: Me,
    /// How rooms are filled.
    pub mode: Mode,
    /// All rooms.
    pub rooms: Vec<RoomView>,
    /// May participants go back by themselves?
    pub allow_return_to_main: bool,
    /// May participants refuse a move?
    pub allow_cancel: bool,
    /// Hands that are up; for participants, those of their own room.
    pub hands: Vec<Asking>,
    /// Who asks for help; empty for participants, but for oneself.
    pub help: Vec<Asking>,
    /// The last signal's number.
    pub seq: u64,
    /// The server's clock.
    pub now: i64,
}
