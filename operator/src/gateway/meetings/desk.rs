//! What somebody in a meeting asks for, carried out on its objects.
//!
//! Owns the way from a command to what is written: who is there, what follows (`plenum-breakout`
//! decides), the writes in their order, and the answer. Invariants: whether it is allowed is decided
//! from the objects as they are when it is written; what was made is known here by the time of the
//! answer, so that the next command can name it; texts and tokens are never logged.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kube::{Resource as _, ResourceExt as _};
use plenum_breakout::{Actor, Decision, Present, RoomDraft, Scene, decide};
use plenum_crds::{BreakoutRoom, MADE_IN_MEETING_LABEL, Meeting, SessionDecisions};
use plenum_errors::{Code, PublicError};
use plenum_protocol::{Access, Command, Sessions, limits};
use plenum_token::Role;
use plenum_worker_api::v1::{ModerateRequest, Mute, Unpublish, moderate_request};
use serde_json::{Value, json};

use super::plans::View;
use super::{Reach, Shared, now_ms, objects, people};
use crate::gateway::mint::{Aside, aside_token, random_number};

/// How long an answer waits for what was written to come back by the watch.
const READ_BACK: Duration = Duration::from_secs(2);

/// Somebody, as the desk sees them.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) actor: Actor,
    pub(crate) name: String,
}

/// Is it allowed, and possible, by the objects as this gateway knows them? For commands that write
/// nothing.
pub(crate) fn check(command: &Command, actor: &Actor, view: &View) -> Result<(), PublicError> {
    let none = HashSet::new();
    let scene = Scene {
        plan: &view.plan,
        meeting: &view.meeting,
        people: &[],
        taken: &none,
        now: now_ms(),
        seed: 0,
    };
    decide(command, actor, &scene).map(drop)
}

/// Carries out a command. `expects` is told where the asker is about to go, before it shows.
pub(crate) async fn execute(
    command: &Command,
    asker: &Asker,
    meeting: &Shared,
    reach: &Reach,
    expects: impl Fn(Option<String>),
) -> Result<Value, PublicError> {
    if let Command::Listen { room } = command {
        check(command, &asker.actor, &meeting.view())?;
        return listen(room, asker, meeting, reach).await;
    }
    if let Some(action) = moderation(command) {
        check(command, &asker.actor, &meeting.view())?;
        return moderate(action, meeting, reach).await;
    }
    if let Command::Speak {} = command {
        check(command, &asker.actor, &meeting.view())?;
        return speak(asker, meeting, reach).await;
    }
    // Those who may not are told before anybody is asked anything.
    let view = meeting.view();
    if asker.actor.role < Role::Cohost {
        check(command, &asker.actor, &view)?;
    }
    let present = if asks_for_people(command) {
        roster(&view, reach).await
    } else {
        Vec::new()
    };
    let seed = random_number();
    let mut decided = Decision::default();
    let mut object = view.meeting.clone();
    let rooms = || mirrored(meeting, reach);
    objects::write_session(
        &reach.client,
        &meeting.namespace,
        &meeting.name,
        rooms,
        |fresh, plan| {
            let scene = Scene {
                plan,
                meeting: fresh,
                people: &present,
                taken: &taken(meeting, reach),
                now: now_ms(),
                seed,
            };
            decided = decide(command, &asker.actor, &scene)?;
            object = fresh.clone().into();
            if let Some(to) = &decided.expect {
                expects(to.clone());
            }
            Ok(with(fresh, &decided))
        },
    )
    .await?;
    let mut result = Value::Null;
    if !decided.new_rooms.is_empty() {
        let created = make_rooms(&object, decided.new_rooms, reach).await?;
        known(meeting, reach, &created, true).await;
        result = json!({"rooms": created});
    }
    for room in &decided.remove {
        objects::delete(&reach.client, &meeting.namespace, room).await?;
    }
    known(meeting, reach, &decided.remove, false).await;
    reach
        .events
        .decided(command, &asker.actor.identity, object.object_ref(&()));
    Ok(result)
}

/// The rooms of the namespace as the watch has told; the view may be a moment behind.
pub(super) fn mirrored(meeting: &Shared, reach: &Reach) -> Vec<Arc<BreakoutRoom>> {
    let mut rooms = reach.routes.breakouts.all();
    rooms.retain(|room| room.namespace().as_deref() == Some(meeting.namespace.as_str()));
    rooms
}

/// The session's decisions with what was decided; `None` where nothing was.
fn with(meeting: &Meeting, decided: &Decision) -> Option<SessionDecisions> {
    if decided.decisions.is_none() && decided.co_hosts.is_none() {
        return None;
    }
    let mut session = meeting
        .status
        .as_ref()
        .and_then(|status| status.session.clone())
        .unwrap_or_default();
    if let Some(breakouts) = &decided.decisions {
        session.breakouts = Some(breakouts.clone());
    }
    if let Some(co_hosts) = &decided.co_hosts {
        session.co_hosts.clone_from(co_hosts);
    }
    Some(session)
}

/// Does what follows from the command depend on who is there?
fn asks_for_people(command: &Command) -> bool {
    matches!(
        command,
        Command::CreateRooms { .. }
            | Command::Shuffle { .. }
            | Command::ChooseRoom { .. }
            | Command::Cohost { .. }
    )
}

/// Everyone in the meeting who takes part.
pub(super) async fn roster(view: &View, reach: &Reach) -> Vec<Present> {
    people::of(view, reach)
        .await
        .into_iter()
        .filter(|one| one.takes_part)
        .map(|one| Present {
            role: one.role.parse().unwrap_or(Role::Participant),
            identity: one.identity,
            name: one.name,
            room: one.room,
            since: one.joined,
        })
        .collect()
}

/// Names of rooms of other meetings in the namespace: an object's name is taken for all of them.
fn taken(meeting: &Shared, reach: &Reach) -> HashSet<String> {
    mirrored(meeting, reach)
        .iter()
        .map(|room| room.name_any())
        .collect()
}

/// Creates the rooms; gives back their names.
async fn make_rooms(
    meeting: &Meeting,
    drafts: Vec<RoomDraft>,
    reach: &Reach,
) -> Result<Vec<String>, PublicError> {
    let owner = meeting.owner_ref(&());
    let rooms = drafts.into_iter().map(|draft| {
        let mut room = BreakoutRoom::new(&draft.name, draft.spec);
        room.metadata.namespace = meeting.namespace();
        room.metadata.owner_references = owner.clone().map(|owner| vec![owner]);
        room.labels_mut()
            .insert(MADE_IN_MEETING_LABEL.to_owned(), meeting.name_any());
        room
    });
    let namespace = meeting.namespace().unwrap_or_default();
    let created = objects::create(&reach.client, &namespace, rooms.collect()).await?;
    Ok(created.iter().map(|room| room.name_any()).collect())
}

/// Waits until rooms are there, or gone, as far as this gateway knows.
async fn known(meeting: &Shared, reach: &Reach, rooms: &[String], there: bool) {
    let mut changed = reach.routes.breakouts.changed();
    let mut views = meeting.views();
    let mirrored = |name: &String| {
        let room = reach.routes.breakouts.get(&meeting.namespace, name);
        room.is_some_and(|room| room.metadata.deletion_timestamp.is_none()) == there
    };
    let viewed = |name: &String| {
        let view = meeting.view();
        view.plan.room(name).is_some_and(|room| !room.deleting) == there
    };
    let all = async {
        while !rooms.iter().all(mirrored) {
            if changed.changed().await.is_err() {
                return;
            }
        }
        while !rooms.iter().all(viewed) {
            if views.changed().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(READ_BACK, all).await.is_err() {
        tracing::debug!("the watch lags behind what was written");
    }
}

/// What is asked of a worker about somebody's tracks.
fn moderation(command: &Command) -> Option<(&str, moderate_request::Action)> {
    use moderate_request::Action;
    let sid = |track: &Option<String>| track.clone().unwrap_or_default();
    match command {
        Command::Mute { identity, track, on } => Some((
            identity,
            Action::Mute(Mute {
                track_sid: sid(track),
                muted: *on,
            }),
        )),
        Command::Unpublish { identity, track } => Some((
            identity,
            Action::Unpublish(Unpublish {
                track_sid: sid(track),
            }),
        )),
        _ => None,
    }
}

/// Asks the worker of the room that somebody is in.
async fn moderate(
    (identity, action): (&str, moderate_request::Action),
    meeting: &Shared,
    reach: &Reach,
) -> Result<Value, PublicError> {
    let view = meeting.view();
    let present = people::of(&view, reach)
        .await
        .into_iter()
        .find(|one| one.identity == identity)
        .ok_or_else(|| PublicError::new(Code::ParticipantNotFound, identity))?;
    let room = meeting.room(present.room.as_deref());
    people::moderate(
        &reach.workers,
        &reach.routes.lookup(&room)?.worker,
        ModerateRequest {
            room,
            identity: identity.to_owned(),
            action: Some(action),
        },
    )
    .await?;
    Ok(Value::Null)
}

/// A token to hear a room without being in it.
async fn listen(room: &str, asker: &Asker, meeting: &Shared, reach: &Reach) -> Result<Value, PublicError> {
    let view = meeting.view();
    if !view.plan.room(room).is_some_and(|room| room.ready) {
        return Err(PublicError::new(
            Code::MeetingNotReady,
            view.plan.title(Some(room)),
        ));
    }
    let access = aside(Aside::Listen, room, asker, &view, meeting, reach).await?;
    Ok(serde_json::to_value(access).unwrap_or_default())
}

/// Tokens to speak into every room that is open.
async fn speak(asker: &Asker, meeting: &Shared, reach: &Reach) -> Result<Value, PublicError> {
    let view = meeting.view();
    let now = now_ms();
    let open: Vec<&str> = view
        .plan
        .rooms
        .iter()
        .filter(|room| room.ready && room.may_stay(now))
        .map(|room| room.id.as_str())
        .collect();
    if open.is_empty() {
        return Err(PublicError::new(Code::RoomClosed, "no breakout room is open"));
    }
    if open.len() > limits::SPEAK {
        return Err(PublicError::new(
            Code::SpeakLimit,
            format!("{} rooms are open", open.len()),
        ));
    }
    let mut sessions = Vec::with_capacity(open.len());
    for room in open {
        sessions.push(aside(Aside::Speak, room, asker, &view, meeting, reach).await?);
    }
    Ok(serde_json::to_value(Sessions { sessions }).unwrap_or_default())
}

/// A token for a host's second presence in a room.
async fn aside(
    what: Aside,
    room: &str,
    asker: &Asker,
    view: &View,
    meeting: &Shared,
    reach: &Reach,
) -> Result<Access, PublicError> {
    let token = aside_token(
        what,
        &reach.keys,
        &view.meeting,
        &meeting.room(Some(room)),
        &asker.actor.identity,
        &asker.name,
        u64::try_from(now_ms() / 1000).unwrap_or_default(),
    )
    .await?;
    let (purpose, role) = match what {
        Aside::Listen => ("listen", Role::Viewer),
        Aside::Speak => ("speak", Role::Participant),
    };
    reach
        .metrics
        .tokens_minted
        .with_label_values(&[purpose, role.as_str()])
        .inc();
    let links = reach.links.of(&view.meeting, &meeting.namespace, &meeting.name);
    Ok(Access {
        token,
        url: links.signal,
    })
}
