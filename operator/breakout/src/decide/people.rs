//! Commands about people.

use std::collections::HashSet;

use plenum_crds::BreakoutDecisions;
use plenum_errors::{Code, PublicError};
use plenum_protocol::{How, Mode, Placement};
use plenum_token::Role;

use super::edit::Edit;
use super::{Actor, CO_HOSTS, Decision, Present, Scene, existing, identity_fits, malformed, moderates};
use crate::assign::{Person, Space, spread};
use crate::plan::{PlannedRoom, Wish};

pub(super) fn assign(moves: &[Placement], scene: &Scene<'_>) -> Result<Decision, PublicError> {
    let mut edit = Edit::begin(scene.meeting, scene.plan);
    for placement in moves {
        identity_fits(&placement.identity)?;
        if let Some(id) = &placement.room {
            existing(scene.plan, id)?;
        }
        edit.place(&placement.identity, placement.room.as_deref());
    }
    Ok(Decision {
        decisions: edit.finish(scene)?,
        ..Decision::default()
    })
}

pub(super) fn shuffle(how: How, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    let rooms: Vec<&PlannedRoom> = open_rooms(scene);
    if rooms.is_empty() {
        return Err(PublicError::new(Code::RoomClosed, "no breakout room is open"));
    }
    let stays = |one: &&Present| moderates(one.role);
    let spaces: Vec<Space> = rooms
        .iter()
        .map(|room| {
            space(
                room,
                scene,
                scene
                    .people
                    .iter()
                    .filter(stays)
                    .filter(|one| one.room.as_deref() == Some(room.id.as_str()))
                    .count(),
            )
        })
        .collect();
    let people: Vec<Person> = scene
        .people
        .iter()
        .filter(|one| !stays(one))
        .map(person)
        .collect();
    let spread = spread(&people, &spaces, how, scene.seed);
    let mut edit = Edit::begin(scene.meeting, scene.plan);
    for placement in &spread.placements {
        edit.place(&placement.identity, placement.room.as_deref());
    }
    for identity in &spread.left_over {
        edit.place(identity, None);
    }
    Ok(Decision {
        decisions: edit.finish(scene)?,
        ..Decision::default()
    })
}

/// In mode `automatic`: gives a place to the participants in the main room about whom nobody said
/// anything. The new value of `status.session.breakouts`, or none where there is nobody to place.
///
/// A room that is assigned to somebody counts as said, even while it is closed: they go there when it
/// opens again.
///
/// # Errors
/// `RequestMalformed` where the list of decisions is full.
pub fn auto_assign(scene: &Scene<'_>) -> Result<Option<BreakoutDecisions>, PublicError> {
    let plan = scene.plan;
    if plan.mode != Mode::Automatic {
        return Ok(None);
    }
    let without_place = |one: &&Present| {
        !moderates(one.role) && one.room.is_none() && plan.says_nothing_of(&one.identity, scene.now)
    };
    let people: Vec<Person> = scene.people.iter().filter(without_place).map(person).collect();
    if people.is_empty() {
        return Ok(None);
    }
    let identities: HashSet<&str> = scene.people.iter().map(|one| one.identity.as_str()).collect();
    let spaces: Vec<Space> = open_rooms(scene)
        .into_iter()
        .map(|room| {
            let inside = scene
                .people
                .iter()
                .filter(|one| one.room.as_deref() == Some(room.id.as_str()));
            let on_the_way = room.participants.iter().map(String::as_str);
            let all: HashSet<&str> = inside
                .map(|one| one.identity.as_str())
                .chain(on_the_way.filter(|identity| identities.contains(identity)))
                .collect();
            space(room, scene, all.len())
        })
        .collect();
    let mut edit = Edit::begin(scene.meeting, plan);
    for placement in spread(&people, &spaces, How::Even, scene.seed).placements {
        edit.place(&placement.identity, placement.room.as_deref());
    }
    edit.finish(scene)
}

pub(super) fn choose(id: &str, who: &Actor, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    let plan = scene.plan;
    let room = existing(plan, id)?;
    let may =
        moderates(who.role) || plan.mode == Mode::SelfSelect || plan.assigned(&who.identity) == Some(id);
    if !may {
        return Err(PublicError::new(
            Code::NotPermitted,
            format!(
                "chooseRoom: {} is not assigned to you, and rooms can't be chosen freely",
                room.title
            ),
        ));
    }
    if !room.is_open(scene.now) {
        return Err(PublicError::new(Code::RoomClosed, room.title.clone()));
    }
    let others = scene
        .people
        .iter()
        .filter(|one| one.identity != who.identity && one.room.as_deref() == Some(id))
        .count();
    let limit = capacity(room, scene);
    if who.room.as_deref() != Some(id) && others >= limit as usize {
        return Err(PublicError::new(
            Code::MeetingFull,
            format!("{} takes {limit}", room.title),
        ));
    }
    own_wish(who, Some(id), scene)
}

pub(super) fn return_to_main(who: &Actor, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    if who.room.is_none() {
        return Ok(Decision::default());
    }
    if !scene.plan.allow_return_to_main && !moderates(who.role) {
        return Err(PublicError::new(
            Code::NotPermitted,
            "returnToMain: only hosts send people back in this meeting",
        ));
    }
    own_wish(who, None, scene)
}

pub(super) fn cancel(who: &Actor, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    let plan = scene.plan;
    if !plan.allow_cancel && !moderates(who.role) {
        return Err(PublicError::new(
            Code::NotPermitted,
            "cancelMove: moves can't be refused in this meeting",
        ));
    }
    let stays = match plan.wish(&who.identity, scene.now) {
        Wish::NoOpinion => true,
        Wish::Main => who.room.is_none(),
        Wish::Room(id) => who.room.as_ref() == Some(&id),
    };
    if !plan.may_stay(who.room.as_deref(), scene.now) {
        let title = plan.title(who.room.as_deref());
        return Err(PublicError::new(Code::RoomClosed, title));
    }
    if stays {
        return Ok(Decision::default());
    }
    let mut decision = own_wish(who, who.room.as_deref(), scene)?;
    decision.expect = None;
    Ok(decision)
}

/// Writes down where somebody goes by themselves.
fn own_wish(who: &Actor, room: Option<&str>, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    let mut edit = Edit::begin(scene.meeting, scene.plan);
    edit.place(&who.identity, room);
    Ok(Decision {
        decisions: edit.finish(scene)?,
        expect: Some(room.map(str::to_owned)),
        ..Decision::default()
    })
}

pub(super) fn cohost(identity: &str, on: bool, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    identity_fits(identity)?;
    let not_permitted = |detail: String| PublicError::new(Code::NotPermitted, detail);
    if scene.meeting.spec.co_hosts.iter().any(|one| one == identity) {
        return if on {
            Ok(Decision::default())
        } else {
            Err(not_permitted(format!(
                "cohost: {identity:?} is named in spec.coHosts of the Meeting; remove the name there"
            )))
        };
    }
    let is_host = |one: &Present| one.identity == identity && one.role == Role::Host;
    if scene.people.iter().any(is_host) {
        return if on {
            Ok(Decision::default())
        } else {
            Err(not_permitted(format!(
                "cohost: {identity:?} is a host by their token"
            )))
        };
    }
    let session = scene
        .meeting
        .status
        .as_ref()
        .and_then(|status| status.session.as_ref());
    let mut co_hosts = session
        .map(|session| session.co_hosts.clone())
        .unwrap_or_default();
    let known = co_hosts.iter().position(|one| one == identity);
    match (on, known) {
        (true, None) if co_hosts.len() >= CO_HOSTS => {
            return Err(malformed(format!(
                "a meeting has at most {CO_HOSTS} co-hosts made by hosts"
            )));
        }
        (true, None) => co_hosts.push(identity.to_owned()),
        (false, Some(index)) => {
            co_hosts.remove(index);
        }
        _ => return Ok(Decision::default()),
    }
    Ok(Decision {
        co_hosts: Some(co_hosts),
        ..Decision::default()
    })
}

fn open_rooms<'a>(scene: &Scene<'a>) -> Vec<&'a PlannedRoom> {
    let rooms = scene.plan.rooms.iter();
    rooms.filter(|room| room.is_open(scene.now)).collect()
}

fn capacity(room: &PlannedRoom, scene: &Scene<'_>) -> u32 {
    room.max_participants
        .unwrap_or(scene.plan.meeting_max_participants)
}

fn space(room: &PlannedRoom, scene: &Scene<'_>, already: usize) -> Space {
    Space {
        id: room.id.clone(),
        capacity: Some(capacity(room, scene)),
        already: u32::try_from(already).unwrap_or(u32::MAX),
    }
}

fn person(one: &Present) -> Person {
    Person {
        identity: one.identity.clone(),
        joined_at: one.since,
        from: one.room.clone(),
    }
}
