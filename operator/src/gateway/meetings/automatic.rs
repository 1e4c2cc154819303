//! In mode `automatic`: places for people without one.
//!
//! Owns when this gateway writes them. Invariants: a gateway acts for clients of its own, and then
//! places everybody at once, so that of two gateways the later one finds nobody left; who has a place,
//! or a say of their own, is left alone.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use plenum_breakout::{Plan, Scene, auto_assign};
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
        if !is_anyone_without_place(&meeting, &meeting.view()) {
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

/// Is there an own client in the main room that nobody said anything about, and a room to go to?
fn is_anyone_without_place(meeting: &Shared, view: &View) -> bool {
    let (plan, now) = (&view.plan, now_ms());
    plan.mode == Mode::Automatic
        && plan.rooms.iter().any(|room| room.is_open(now))
        && lock(&meeting.clients)
            .values()
            .filter(|one| one.takes_part && one.role < Role::Cohost && one.room.is_none())
            .any(|one| plan.says_nothing_of(&one.identity, now))
}

async fn place(meeting: &Shared, reach: &Reach) -> Result<(), plenum_errors::PublicError> {
    let view = meeting.view();
    if !is_anyone_without_place(meeting, &view) {
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
            let placed = auto_assign(&scene)?;
            Ok(placed.map(|breakouts| objects::with_breakouts(fresh, breakouts)))
        },
    )
    .await
}
