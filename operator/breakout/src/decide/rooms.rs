//! Commands about rooms.

use std::collections::HashSet;

use plenum_crds::{BreakoutAssignment, BreakoutRoomSpec, Duration, MeetingRef};
use plenum_errors::{Code, PublicError};
use plenum_protocol::{How, Mode, NewRoom, limits};

use super::edit::Edit;
use super::{Decision, RoomDraft, Scene, existing, identity_fits, malformed, moderates, time};
use crate::assign::{Person, Space, spread};
use crate::plan::{PlannedRoom, Wish, ms};

/// Most identities in a room's spec, and the highest limit of a room, by the object's schema.
const PARTICIPANTS: usize = 1_000;
const MAX_PARTICIPANTS: u32 = 10_000;
/// Characters of an object's name that becomes part of addresses.
const NAME: usize = 63;

/// What createRooms asks for.
pub(super) struct Wanted<'a> {
    pub(super) rooms: &'a [NewRoom],
    pub(super) mode: Option<Mode>,
    pub(super) how: How,
    pub(super) duration: Option<u32>,
    pub(super) open: bool,
}

pub(super) fn create(wanted: &Wanted<'_>, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    let plan = scene.plan;
    if wanted.rooms.is_empty() {
        return Err(malformed("rooms is empty"));
    }
    let total = plan.rooms.len() + wanted.rooms.len();
    if total > limits::ROOMS {
        return Err(PublicError::new(
            Code::RoomLimit,
            format!(
                "{} exist, {} were asked for",
                plan.rooms.len(),
                wanted.rooms.len()
            ),
        ));
    }
    let duration = wanted.duration.map(seconds).transpose()?;
    let mut listed: HashSet<&str> = HashSet::new();
    for room in wanted.rooms {
        check_new(room, scene)?;
        for identity in &room.participants {
            if !listed.insert(identity) {
                return Err(malformed(format!("{identity:?} is named twice")));
            }
        }
    }
    let mut edit = Edit::begin(scene.meeting, plan);
    if let Some(mode) = wanted.mode.filter(|mode| *mode != plan.mode) {
        edit.settings().assignment = Some(assignment(mode));
    }
    let (mut names, mut titles) = (Names::of(scene), Titles::of(scene));
    let mut drafts: Vec<RoomDraft> = Vec::with_capacity(wanted.rooms.len());
    for room in wanted.rooms {
        let title = match room
            .title
            .as_deref()
            .map(str::trim)
            .filter(|title| !title.is_empty())
        {
            Some(title) => title.to_owned(),
            None => titles.next(),
        };
        let spec = BreakoutRoomSpec {
            meeting_ref: MeetingRef {
                name: scene.meeting.metadata.name.clone().unwrap_or_default(),
            },
            title: Some(title),
            max_participants: room.max_participants.filter(|limit| *limit > 0),
            participants: room.participants.clone(),
            // A prepared room's time counts from its opening, that of rooms opened now is the same
            // point for all.
            close_after: duration.filter(|_| !wanted.open).map(whole_seconds),
            close_at: match duration.filter(|_| wanted.open) {
                Some(length) => Some(time(scene.now.saturating_add(length))?),
                None => None,
            },
            open: wanted.open,
        };
        drafts.push(RoomDraft {
            name: names.next(),
            spec,
        });
    }
    if wanted.mode.unwrap_or(plan.mode) == Mode::Automatic {
        fill(&mut drafts, &listed, wanted.how, scene);
    }
    Ok(Decision {
        new_rooms: drafts,
        decisions: edit.finish(scene)?,
        ..Decision::default()
    })
}

fn check_new(room: &NewRoom, scene: &Scene<'_>) -> Result<(), PublicError> {
    if let Some(title) = &room.title {
        title_fits(title)?;
    }
    let limit = room.max_participants.filter(|limit| *limit > 0);
    if limit.is_some_and(|limit| limit > MAX_PARTICIPANTS) {
        return Err(malformed(format!(
            "maxParticipants is at most {MAX_PARTICIPANTS}"
        )));
    }
    for identity in &room.participants {
        identity_fits(identity)?;
    }
    let most = (limit.unwrap_or(scene.plan.meeting_max_participants) as usize).min(PARTICIPANTS);
    if room.participants.len() > most {
        return Err(malformed(format!(
            "{} participants for a room of at most {most}",
            room.participants.len()
        )));
    }
    Ok(())
}

/// Spreads the participants who have no place in an open room over the new ones.
fn fill(drafts: &mut [RoomDraft], listed: &HashSet<&str>, how: How, scene: &Scene<'_>) {
    let people: Vec<Person> = scene
        .people
        .iter()
        .filter(|one| !moderates(one.role) && !listed.contains(one.identity.as_str()))
        .filter(|one| one.room.is_none() || !scene.plan.may_stay(one.room.as_deref(), scene.now))
        .filter(|one| !matches!(scene.plan.wish(&one.identity, scene.now), Wish::Room(_)))
        .map(|one| Person {
            identity: one.identity.clone(),
            joined_at: one.since,
            from: None,
        })
        .collect();
    let capacity = |spec: &BreakoutRoomSpec| {
        let limit = spec
            .max_participants
            .unwrap_or(scene.plan.meeting_max_participants);
        limit.min(u32::try_from(PARTICIPANTS).unwrap_or(limit))
    };
    let spaces: Vec<Space> = drafts
        .iter()
        .map(|draft| Space {
            id: draft.name.clone(),
            capacity: Some(capacity(&draft.spec)),
            already: u32::try_from(draft.spec.participants.len()).unwrap_or(u32::MAX),
        })
        .collect();
    for placement in spread(&people, &spaces, how, scene.seed).placements {
        let draft = drafts
            .iter_mut()
            .find(|draft| placement.room.as_deref() == Some(draft.name.as_str()));
        if let Some(draft) = draft {
            draft.spec.participants.push(placement.identity);
        }
    }
}

pub(super) fn remove(id: &str, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    let room = existing(scene.plan, id)?;
    if !room.made_in_meeting {
        return Err(PublicError::new(Code::RoomForeign, room.title.clone()));
    }
    let mut edit = Edit::begin(scene.meeting, scene.plan);
    edit.remove_room(id);
    Ok(Decision {
        remove: vec![id.to_owned()],
        decisions: edit.finish(scene)?,
        ..Decision::default()
    })
}

pub(super) fn rename(id: &str, title: &str, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    let room = existing(scene.plan, id)?;
    let title = title.trim();
    title_fits(title)?;
    if title.is_empty() {
        return Err(malformed("the title is empty"));
    }
    let mut edit = Edit::begin(scene.meeting, scene.plan);
    if title != room.title {
        edit.room(id).title = Some(title.to_owned());
    }
    decided(edit, scene)
}

pub(super) fn open(
    ids: &[String],
    duration: Option<u32>,
    scene: &Scene<'_>,
) -> Result<Decision, PublicError> {
    let length = duration.map(seconds).transpose()?;
    let mut edit = Edit::begin(scene.meeting, scene.plan);
    for room in targets(ids, scene)? {
        let from_now = |length: i64| scene.now.saturating_add(length);
        if room.is_open(scene.now) {
            // It goes on as it is, unless it is given a time.
            if let Some(length) = length {
                edit.room(&room.id).closes_at = Some(time(from_now(length))?);
            }
            continue;
        }
        let closes_at = length
            .or(room.close_after_ms)
            .map(from_now)
            .or(room.close_at_ms.filter(|at| *at > scene.now));
        let decision = edit.room(&room.id);
        decision.open = Some(true);
        decision.closes_at = closes_at.map(time).transpose()?;
    }
    decided(edit, scene)
}

pub(super) fn close(
    ids: &[String],
    countdown: Option<u32>,
    scene: &Scene<'_>,
) -> Result<Decision, PublicError> {
    let countdown_ms = match countdown {
        None => scene.plan.closing_countdown_ms,
        Some(seconds) if seconds == 0 || limits::COUNTDOWN.contains(&seconds) => i64::from(seconds) * 1_000,
        Some(seconds) => {
            return Err(malformed(format!(
                "a countdown of {seconds} s: 0, or {} to {}",
                limits::COUNTDOWN.start(),
                limits::COUNTDOWN.end()
            )));
        }
    };
    // Whole seconds as in the object; at once means at once.
    let end = match countdown_ms {
        0 => scene.now.div_euclid(1_000) * 1_000,
        _ => ms(&time(scene.now.saturating_add(countdown_ms))?),
    };
    let mut edit = Edit::begin(scene.meeting, scene.plan);
    for room in targets(ids, scene)? {
        if !room.may_stay(scene.now) {
            continue;
        }
        let at = room.closes_at_ms.map_or(end, |running| running.min(end));
        if room.open || room.closes_at_ms != Some(at) {
            let decision = edit.room(&room.id);
            decision.open = Some(false);
            decision.closes_at = Some(time(at)?);
        }
    }
    decided(edit, scene)
}

pub(super) fn extend(by: u32, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    let length = seconds(by)?;
    let mut edit = Edit::begin(scene.meeting, scene.plan);
    for room in scene.plan.rooms.iter().filter(|room| room.is_open(scene.now)) {
        if let Some(at) = room.closes_at_ms {
            edit.room(&room.id).closes_at = Some(time(at.saturating_add(length))?);
        }
    }
    decided(edit, scene)
}

pub(super) fn settings(
    mode: Option<Mode>,
    allow_return_to_main: Option<bool>,
    allow_cancel: Option<bool>,
    scene: &Scene<'_>,
) -> Result<Decision, PublicError> {
    let plan = scene.plan;
    let mut edit = Edit::begin(scene.meeting, plan);
    let draft = edit.settings();
    if let Some(mode) = mode.filter(|mode| *mode != plan.mode) {
        draft.assignment = Some(assignment(mode));
    }
    if let Some(allow) = allow_return_to_main.filter(|allow| *allow != plan.allow_return_to_main) {
        draft.allow_return_to_main = Some(allow);
    }
    if let Some(allow) = allow_cancel.filter(|allow| *allow != plan.allow_cancel) {
        draft.allow_cancel = Some(allow);
    }
    decided(edit, scene)
}

fn decided(edit: Edit<'_>, scene: &Scene<'_>) -> Result<Decision, PublicError> {
    Ok(Decision {
        decisions: edit.finish(scene)?,
        ..Decision::default()
    })
}

/// The rooms of those names, or all.
fn targets<'a>(ids: &[String], scene: &Scene<'a>) -> Result<Vec<&'a PlannedRoom>, PublicError> {
    if ids.is_empty() {
        return Ok(scene.plan.rooms.iter().filter(|room| !room.deleting).collect());
    }
    ids.iter().map(|id| existing(scene.plan, id)).collect()
}

fn title_fits(title: &str) -> Result<(), PublicError> {
    if title.chars().count() > limits::TITLE {
        return Err(PublicError::new(
            Code::MessageTooLarge,
            format!("a title has at most {} characters", limits::TITLE),
        ));
    }
    Ok(())
}

/// Milliseconds; at least a second.
fn seconds(seconds: u32) -> Result<i64, PublicError> {
    if seconds == 0 {
        return Err(malformed("a time of 0 s"));
    }
    Ok(i64::from(seconds) * 1_000)
}

fn whole_seconds(ms: i64) -> Duration {
    Duration::from_secs(u64::try_from(ms / 1_000).unwrap_or_default())
}

fn assignment(mode: Mode) -> BreakoutAssignment {
    match mode {
        Mode::Automatic => BreakoutAssignment::Automatic,
        Mode::SelfSelect => BreakoutAssignment::SelfSelect,
        Mode::Manual => BreakoutAssignment::Manual,
    }
}

/// Names for new objects: `MEETING-1`, `MEETING-2` and so on.
struct Names<'a> {
    base: String,
    used: HashSet<&'a str>,
    last: usize,
}

impl<'a> Names<'a> {
    fn of(scene: &Scene<'a>) -> Names<'a> {
        let rooms = scene.plan.rooms.iter().map(|room| room.id.as_str());
        Names {
            base: scene
                .meeting
                .metadata
                .name
                .as_deref()
                .unwrap_or_default()
                .replace('.', "-"),
            used: rooms.chain(scene.taken.iter().map(String::as_str)).collect(),
            last: 0,
        }
    }

    fn next(&mut self) -> String {
        loop {
            self.last += 1;
            let suffix = format!("-{}", self.last);
            let room_left = NAME.saturating_sub(suffix.len());
            let end = self.base.len().min(room_left);
            // Names of objects are ASCII; anything else is cut where it may be.
            let base = self.base.get(..end).unwrap_or_default().trim_end_matches('-');
            let base = if base.is_empty() { "room" } else { base };
            let name = format!("{base}{suffix}");
            if !self.used.contains(name.as_str()) {
                return name;
            }
        }
    }
}

/// Titles for rooms that are given none: `Room 1`, `Room 2` and so on.
struct Titles<'a> {
    used: HashSet<&'a str>,
    last: usize,
}

impl<'a> Titles<'a> {
    fn of(scene: &Scene<'a>) -> Titles<'a> {
        let rooms = scene.plan.rooms.iter().filter(|room| !room.deleting);
        Titles {
            used: rooms.map(|room| room.title.as_str()).collect(),
            last: 0,
        }
    }

    fn next(&mut self) -> String {
        loop {
            self.last += 1;
            let title = format!("Room {}", self.last);
            if !self.used.contains(title.as_str()) {
                return title;
            }
        }
    }
}
