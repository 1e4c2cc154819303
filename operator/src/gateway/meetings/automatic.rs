//! In mode `automatic`: places for people without one.
//!
//! Owns when this gateway writes them. Invariants: a gateway acts for clients of its own, and then
//! places everybody at once, so that of two gateways the later one finds nobody left; who has a place,
//! or a say of their own, is left alone.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use plenum_breakout::{Plan, Scene, Wish, auto_assign};
use plenum_crds::SessionDecisions;
use plenum_protocol::Mode;
use plenum_token::Role;
use tokio::sync::watch;

use super::plans::View;
use super::{Reach, Shared, desk, lock, now_ms, objects};
use crate::gateway::mint::random_number;

/// Those who come within this are placed together.
const GATHER: Duration = Duration::from_millis(300);
/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(2);
/// Rooms that are applied one after the other get their people together: nobody is placed before the
/// set of open rooms has been the same for this long.
const QUIET: Duration = Duration::from_secs(2);
/// But nobody waits longer than this for rooms that keep coming.
const QUIET_MOST: Duration = Duration::from_secs(10);

/// Places people for as long as the meeting has clients here.
pub(super) async fn run(meeting: Arc<Shared>, reach: Reach, mut ends: watch::Receiver<()>) {
    let mut views = meeting.views();
    let mut clients = meeting.clients_changed();
    let mut known = BTreeSet::new();
    loop {
        tokio::select! {
            _ = ends.changed() => return,
            changed = views.changed() => if changed.is_err() { return },
            changed = clients.changed() => if changed.is_err() { return },
        }
        if without_place(&meeting, &meeting.view()).is_empty() {
            continue;
        }
        tokio::select! {
            _ = ends.changed() => return,
            () = settled(&meeting, &mut views, &mut known) => {}
        }
        views.mark_unchanged();
        clients.mark_unchanged();
        let placed = tokio::select! {
            _ = ends.changed() => return,
            placed = place(&meeting, &reach) => placed,
        };
        if let Err(error) = placed {
            tracing::warn!(code = %error.code, meeting = meeting.room(None), "people were not placed");
            tokio::time::sleep(AGAIN).await;
            clients.mark_changed();
        }
    }
}

/// Waits until newcomers are gathered, and where the open rooms are others than the `known`, until they
/// have been the same for a while.
async fn settled(meeting: &Shared, views: &mut watch::Receiver<Arc<View>>, known: &mut BTreeSet<String>) {
    tokio::time::sleep(GATHER).await;
    let most = tokio::time::Instant::now() + QUIET_MOST;
    while open_rooms(&meeting.view().plan) != *known {
        *known = open_rooms(&meeting.view().plan);
        let quiet = (tokio::time::Instant::now() + QUIET).min(most);
        let others = views.wait_for(|view| open_rooms(&view.plan) != *known);
        if tokio::time::timeout_at(quiet, others).await.is_err() || quiet == most {
            return;
        }
    }
}

fn open_rooms(plan: &Plan) -> BTreeSet<String> {
    let now = now_ms();
    let open = plan.rooms.iter().filter(|room| room.is_open(now));
    open.map(|room| room.id.clone()).collect()
}

/// Own clients in the main room that nobody said anything about, while there is a room to go to.
fn without_place(meeting: &Shared, view: &View) -> HashSet<String> {
    let (plan, now) = (&view.plan, now_ms());
    if plan.mode != Mode::Automatic || !plan.rooms.iter().any(|room| room.is_open(now)) {
        return HashSet::new();
    }
    lock(&meeting.clients)
        .values()
        .filter(|one| one.takes_part && one.role < Role::Cohost && one.room.is_none())
        .filter(|one| is_free(plan, &one.identity, now))
        .map(|one| one.identity.clone())
        .collect()
}

fn is_free(plan: &Plan, identity: &str, now: i64) -> bool {
    plan.wish(identity, now) == Wish::NoOpinion && plan.assigned(identity).is_none()
}

async fn place(meeting: &Shared, reach: &Reach) -> Result<(), plenum_errors::PublicError> {
    let view = meeting.view();
    if without_place(meeting, &view).is_empty() {
        return Ok(());
    }
    // Other gateways' clients too: two that place each their own would both begin with the first room.
    let people = desk::roster(&view, reach).await;
    let (taken, seed) = (HashSet::new(), random_number());
    let rooms = || desk::mirrored(meeting, reach);
    objects::write_session(
        &reach.client,
        &meeting.namespace,
        &meeting.name,
        rooms,
        |fresh, plan| {
            let scene = Scene {
                plan,
                meeting: fresh,
                people: &people,
                taken: &taken,
                now: now_ms(),
                seed,
            };
            let Some(breakouts) = auto_assign(&scene)? else {
                return Ok(None);
            };
            let session = fresh.status.as_ref().and_then(|status| status.session.clone());
            Ok(Some(SessionDecisions {
                breakouts: Some(breakouts),
                ..session.unwrap_or_default()
            }))
        },
    )
    .await
}
