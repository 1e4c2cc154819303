//! What a client asks for.

use serde::{Deserialize, Serialize};

use crate::Mode;

/// A request: `{"id": 7, "do": "raiseHand", "up": true}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client; the answer repeats it. Unique among its requests under way.
    pub id: u64,
    /// What.
    #[serde(flatten)]
    pub command: Command,
}

/// What may be asked for. Those marked "host" need the role host or co-host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Command {
    /// The state of the meeting, and the signals after `since` again. Sent after every connect,
    /// reconnect and move.
    Hello {
        /// Highest `seq` the client has seen. Left out: no signal is repeated, the state says it all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<u64>,
    },
    /// Host: makes breakout rooms, and opens them unless `open` is false. Answered with [`Created`].
    CreateRooms {
        /// One entry per room.
        rooms: Vec<NewRoom>,
        /// Left out: the meeting's mode stays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<Mode>,
        /// How people are spread in mode `automatic`.
        #[serde(default)]
        how: How,
        /// Seconds until the rooms close; left out: they stay open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration: Option<u32>,
        /// False: the rooms are prepared only.
        #[serde(default = "yes")]
        open: bool,
    },
    /// Host: removes a room that was made inside the meeting. Its people come back.
    RemoveRoom {
        /// Id of the room.
        room: String,
    },
    /// Host.
    RenameRoom {
        /// Id of the room.
        room: String,
        /// New title.
        title: String,
    },
    /// Host: opens rooms, with the same people as before.
    OpenRooms {
        /// Ids; empty = all.
        #[serde(default)]
        rooms: Vec<String>,
        /// Seconds until they close; left out: they stay open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration: Option<u32>,
    },
    /// Host: closes rooms after a countdown; their people come back.
    CloseRooms {
        /// Ids; empty = all.
        #[serde(default)]
        rooms: Vec<String>,
        /// Seconds (0, or 10 to 120); left out: `spec.breakouts.closingCountdown`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        countdown: Option<u32>,
    },
    /// Host: all open rooms close that much later.
    Extend {
        /// Seconds.
        seconds: u32,
    },
    /// Host: sends people to rooms or back (`room` left out = the main room). Identities that are not
    /// in the meeting yet go there when they come.
    Assign {
        /// Who goes where.
        moves: Vec<Placement>,
    },
    /// Host: spreads everyone over the open rooms anew.
    Shuffle {
        /// How.
        #[serde(default)]
        how: How,
    },
    /// Host: how rooms behave from now on.
    Settings {
        /// Left out: stays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<Mode>,
        /// Participants may go back to the main room by themselves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        allow_return_to_main: Option<bool>,
        /// Participants may refuse a move within its notice.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        allow_cancel: Option<bool>,
    },
    /// Host: text to all rooms, or to some.
    Broadcast {
        /// At most 4,000 bytes.
        text: String,
        /// Ids, `""` = the main room; empty = all.
        #[serde(default)]
        rooms: Vec<String>,
    },
    /// Host: makes somebody a co-host, or a participant again.
    Cohost {
        /// Whom.
        identity: String,
        /// Co-host or not.
        on: bool,
    },
    /// Host: silences somebody's tracks for everyone, or lets them be heard again once their owner unmutes
    /// them.
    Mute {
        /// Whose.
        identity: String,
        /// Id of the track; left out: all of theirs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        track: Option<String>,
        /// Silence, or no longer.
        on: bool,
    },
    /// Host: takes somebody's tracks down. They may publish again.
    Unpublish {
        /// Whose.
        identity: String,
        /// Id of the track; left out: all of theirs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        track: Option<String>,
    },
    /// Host: sends [`crate::Notice::Overview`] now and whenever it changes, until switched off.
    Overview {
        /// On or off.
        watch: bool,
    },
    /// Host: a token to hear a room without being in it; answered with [`Access`].
    Listen {
        /// Id of the room.
        room: String,
    },
    /// Host: tokens to speak into all open rooms at once; answered with [`Sessions`], one per room:
    /// publish the microphone on each.
    Speak {},
    /// Lowers somebody's hand. Everyone their own, a host anyone's.
    LowerHand {
        /// Whose.
        identity: String,
    },
    /// Goes to a room by oneself: hosts always, others in mode `selfSelect` or where they are assigned.
    ChooseRoom {
        /// Id of the room.
        room: String,
    },
    /// Goes back to the main room, where that is allowed.
    ReturnToMain {},
    /// Refuses the move that was announced, where that is allowed.
    CancelMove {},
    /// Raises or lowers one's hand, seen by everyone in the room and by hosts anywhere.
    RaiseHand {
        /// Up or down.
        up: bool,
    },
    /// Asks the hosts to come to one's room, or no longer.
    AskForHelp {
        /// Asks or not.
        on: bool,
    },
    /// A message to the hosts, wherever they are.
    MessageHosts {
        /// At most 4,000 bytes.
        text: String,
    },
}

fn yes() -> bool {
    true
}

impl Command {
    /// Every value of `do`.
    pub const KINDS: [&'static str; 24] = [
        "hello",
        "createRooms",
        "removeRoom",
        "renameRoom",
        "openRooms",
        "closeRooms",
        "extend",
        "assign",
        "shuffle",
        "settings",
        "broadcast",
        "cohost",
        "mute",
        "unpublish",
        "overview",
        "listen",
        "speak",
        "lowerHand",
        "chooseRoom",
        "returnToMain",
        "cancelMove",
        "raiseHand",
        "askForHelp",
        "messageHosts",
    ];

    /// The value of `do`: for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Command::Hello { .. } => "hello",
            Command::CreateRooms { .. } => "createRooms",
            Command::RemoveRoom { .. } => "removeRoom",
            Command::RenameRoom { .. } => "renameRoom",
            Command::OpenRooms { .. } => "openRooms",
            Command::CloseRooms { .. } => "closeRooms",
            Command::Extend { .. } => "extend",
            Command::Assign { .. } => "assign",
            Command::Shuffle { .. } => "shuffle",
            Command::Settings { .. } => "settings",
            Command::Broadcast { .. } => "broadcast",
            Command::Cohost { .. } => "cohost",
            Command::Mute { .. } => "mute",
            Command::Unpublish { .. } => "unpublish",
            Command::Overview { .. } => "overview",
            Command::Listen { .. } => "listen",
            Command::Speak {} => "speak",
            Command::LowerHand { .. } => "lowerHand",
            Command::ChooseRoom { .. } => "chooseRoom",
            Command::ReturnToMain {} => "returnToMain",
            Command::CancelMove {} => "cancelMove",
            Command::RaiseHand { .. } => "raiseHand",
            Command::AskForHelp { .. } => "askForHelp",
            Command::MessageHosts { .. } => "messageHosts",
        }
    }

    /// Only hosts and co-hosts may ask for it. (`lowerHand` of somebody else is theirs too.)
    pub fn is_for_hosts(&self) -> bool {
        match self {
            Command::CreateRooms { .. }
            | Command::RemoveRoom { .. }
            | Command::RenameRoom { .. }
            | Command::OpenRooms { .. }
            | Command::CloseRooms { .. }
            | Command::Extend { .. }
            | Command::Assign { .. }
            | Command::Shuffle { .. }
            | Command::Settings { .. }
            | Command::Broadcast { .. }
            | Command::Cohost { .. }
            | Command::Mute { .. }
            | Command::Unpublish { .. }
            | Command::Overview { .. }
            | Command::Listen { .. }
            | Command::Speak {} => true,
            Command::Hello { .. }
            | Command::LowerHand { .. }
            | Command::ChooseRoom { .. }
            | Command::ReturnToMain {}
            | Command::CancelMove {}
            | Command::RaiseHand { .. }
            | Command::AskForHelp { .. }
            | Command::MessageHosts { .. } => false,
        }
    }
}

/// A room to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewRoom {
    /// Left out: `Room N`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Left out: as many as in the meeting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_participants: Option<u32>,
    /// Identities assigned to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub participants: Vec<String>,
}

/// How people are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// As many in each, in the order of joining.
    #[default]
    Even,
    /// As many in each, at random.
    Random,
}

/// Somebody's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Who.
    pub identity: String,
    /// Id of the room; left out: the main room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
}

/// The answer to a request: `{"re": 7, "ok": true, "result": {...}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's id.
    pub re: u64,
    /// Was it done?
    pub ok: bool,
    /// What it yields, if anything.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub result: serde_json::Value,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

impl Answer {
    /// Done; `result` may be null.
    pub fn done(re: u64, result: serde_json::Value) -> Self {
        Self {
            re,
            ok: true,
            result,
            error: None,
        }
    }

    /// Not done.
    pub fn failed(re: u64, error: Failure) -> Self {
        Self {
            re,
            ok: false,
            result: serde_json::Value::Null,
            error: Some(error),
        }
    }
}

/// What `createRooms` yields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// Ids of the new rooms, in the order they were asked for.
    pub rooms: Vec<String>,
}

/// What `listen` yields: where to connect with a LiveKit client, beside the connection one has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// An access token.
    pub token: String,
    /// `wss://...`
    pub url: String,
}

/// What `speak` yields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// One per open room.
    pub sessions: Vec<Access>,
}

/// An entry of the error catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable code.
    pub code: String,
    /// What went wrong.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
    /// What is particular to this occurrence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
