//! What a command does to the objects.
//!
//! Owns who may command what, what is checked before anything is written, and what is written then.
//! A [`Decision`] is complete: the caller creates and deletes what it names and replaces the two
//! lists; where the write meets a newer Meeting it decides again from that one, so that of two hosts
//! at the same moment the later one's word stands on top of the earlier one's. Invariants:
//!
//! * Only hosts and co-hosts do what [`Command`] marks "host"; everybody is refused with the name of
//!   the command.
//! * A decision that changes nothing writes nothing. Each new list is free of what was superseded,
//!   and names nobody and no room twice.
//! * Closing never makes a room close later than it would have.

mod edit;
mod people;
mod rooms;

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use plenum_crds::{BreakoutDecisions, BreakoutRoomSpec, Meeting};
use plenum_errors::{Code, PublicError};
use plenum_protocol::{Command, limits};
use plenum_token::Role;

pub use edit::pruned;
pub use people::auto_assign;

use crate::plan::{Plan, PlannedRoom};

/// Bytes of an identity, by the objects' schema.
const IDENTITY: usize = 128;
/// Co-hosts by decision, by the Meeting's schema.
const CO_HOSTS: usize = 64;

/// Who commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Who.
    pub identity: String,
    /// With which rights, decisions about co-hosts included.
    pub role: Role,
    /// In which room; `None` = the main room.
    pub room: Option<String>,
}

/// Somebody who is in the meeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Who.
    pub identity: String,
    /// Display name.
    pub name: String,
    /// With which rights.
    pub role: Role,
    /// In which room; `None` = the main room.
    pub room: Option<String>,
    /// Since when, in Unix milliseconds: the order in which people are spread.
    pub since: i64,
}

/// What a decision is made from.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Of `meeting` and its rooms.
    pub plan: &'a Plan,
    /// The object that the decision will be written to.
    pub meeting: &'a Meeting,
    /// Who is in the meeting, as far as the gateway knows.
    pub people: &'a [Present],
    /// Names that new rooms can't have though no room of the plan has them: rooms of other meetings
    /// in the namespace, and what was just refused as taken.
    pub taken: &'a HashSet<String>,
    /// Unix milliseconds of the server's clock.
    pub now: i64,
    /// For what is drawn by lot.
    pub seed: u64,
}

/// A room to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomDraft {
    /// Name of the object: a DNS label of at most 63 characters.
    pub name: String,
    /// Its spec.
    pub spec: BreakoutRoomSpec,
}

/// What has to be written. Empty where nothing has to be, or where the command is none about objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// BreakoutRooms to create, owned by the Meeting and labelled as made in it.
    pub new_rooms: Vec<RoomDraft>,
    /// Names of BreakoutRooms to delete.
    pub remove: Vec<String>,
    /// New value of `status.session.breakouts` of the Meeting.
    pub decisions: Option<BreakoutDecisions>,
    /// New value of `status.session.coHosts` of the Meeting.
    pub co_hosts: Option<Vec<String>>,
    /// The person moves by their own wish: to be told to their [`crate::Mover`] as
    /// [`crate::Input::Expect`].
    pub expect: Option<Option<String>>,
}

/// What `command` does, or why it is refused.
///
/// Commands that change no object (raising hands, messages, tokens to listen) are checked here too
/// and yield an empty decision.
///
/// # Errors
/// `NotPermitted`, `RoomNotFound`, `RoomForeign`, `RoomLimit`, `RoomClosed`, `MeetingFull`,
/// `MessageTooLarge` and `RequestMalformed`, each with a detail for people.
pub fn decide(command: &Command, who: &Actor, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    let host = moderates(who.role);
    if !host && is_for_hosts(command, who) {
        return Err(PublicError::new(Code::NotPermitted, refused(command)));
    }
    match command {
        Command::CreateRooms {
            rooms,
            mode,
            how,
            duration,
            open,
        } => rooms::create(
            &rooms::Wanted {
                rooms,
                mode: *mode,
                how: *how,
                duration: *duration,
                open: *open,
            },
            scene,
        ),
        Command::RemoveRoom { room } => rooms::remove(room, scene),
        Command::RenameRoom { room, title } => rooms::rename(room, title, scene),
        Command::OpenRooms { rooms, duration } => rooms::open(rooms, *duration, scene),
        Command::CloseRooms { rooms, countdown } => rooms::close(rooms, *countdown, scene),
        Command::Extend { seconds } => rooms::extend(*seconds, scene),
        Command::Settings {
            mode,
            allow_return_to_main,
            allow_cancel,
        } => rooms::settings(*mode, *allow_return_to_main, *allow_cancel, scene),
        Command::Assign { moves } => people::assign(moves, scene),
        Command::Shuffle { how } => people::shuffle(*how, scene),
        Command::ChooseRoom { room } => people::choose(room, who, scene),
        Command::ReturnToMain {} => people::return_to_main(who, scene),
        Command::CancelMove {} => people::cancel(who, scene),
        Command::Cohost { identity, on } => people::cohost(identity, *on, scene),
        Command::Broadcast { text, rooms } => {
            text_fits(text)?;
            for id in rooms.iter().filter(|id| !id.is_empty()) {
                existing(scene.plan, id)?;
            }
            Ok(Decision::default())
        }
        Command::Mute { identity, .. } | Command::Unpublish { identity, .. } => {
            identity_fits(identity).map(|()| Decision::default())
        }
        Command::MessageHosts { text } => text_fits(text).map(|()| Decision::default()),
        Command::Listen { room } => {
            let room = existing(scene.plan, room)?;
            if room.may_stay(scene.now) {
                Ok(Decision::default())
            } else {
                Err(PublicError::new(Code::RoomClosed, room.title.clone()))
            }
        }
        Command::Hello { .. }
        | Command::Overview { .. }
        | Command::Speak {}
        | Command::LowerHand { .. }
        | Command::RaiseHand { .. }
        | Command::AskForHelp { .. } => Ok(Decision::default()),
    }
}

fn is_for_hosts(command: &Command, who: &Actor) -> bool {
    command.is_for_hosts() || lowers_anothers_hand(command, who)
}

fn lowers_anothers_hand(command: &Command, who: &Actor) -> bool {
    matches!(command, Command::LowerHand { identity } if *identity != who.identity)
}

/// The command for somebody who may not: as clients write it.
fn refused(command: &Command) -> String {
    let whose = match command {
        Command::LowerHand { .. } => " of somebody else",
        _ => "",
    };
    format!("{}{whose} is for hosts and co-hosts", command.kind())
}

pub(crate) fn moderates(role: Role) -> bool {
    role >= Role::Cohost
}

fn text_fits(text: &str) -> Result<(), PublicError> {
    if text.is_empty() {
        return Err(malformed("the text is empty"));
    }
    if text.len() > limits::TEXT {
        return Err(PublicError::new(
            Code::MessageTooLarge,
            format!("{} bytes; a text has at most {}", text.len(), limits::TEXT),
        ));
    }
    Ok(())
}

fn malformed(detail: impl Into<String>) -> PublicError {
    PublicError::new(Code::RequestMalformed, detail)
}

/// The room of that name, unless it is on its way out.
fn existing<'a>(plan: &'a Plan, id: &str) -> Result<&'a PlannedRoom, PublicError> {
    plan.room(id)
        .filter(|room| !room.deleting)
        .ok_or_else(|| PublicError::new(Code::RoomNotFound, format!("no breakout room {id:?}")))
}

fn identity_fits(identity: &str) -> Result<(), PublicError> {
    if (1..=IDENTITY).contains(&identity.chars().count()) {
        Ok(())
    } else {
        Err(malformed(format!("an identity has 1 to {IDENTITY} characters")))
    }
}

/// Objects carry whole seconds: rounded up, so that nobody gets less time than was said.
fn time(ms: i64) -> Result<Time, PublicError> {
    let seconds = ms.div_euclid(1_000) + i64::from(ms.rem_euclid(1_000) > 0);
    Timestamp::from_second(seconds)
        .map(Time)
        .map_err(|_| malformed("a time beyond the calendar"))
}

#[cfg(test)]
mod tests;
