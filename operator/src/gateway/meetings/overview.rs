//! All rooms with their people, for hosts who watch.
//!
//! Owns the poll that the overview is made of. Invariants: one poll per meeting, however many watch;
//! nobody is asked while nobody watches; what did not change is not said again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use plenum_protocol::{Occupant, Occupied, Overview, Standing};
use tokio::sync::watch;

use super::people::{self, Present};
use super::plans::View;
use super::{Reach, Shared, lock, now_ms};

const EVERY: Duration = Duration::from_secs(1);

/// Polls while somebody watches, for as long as the meeting has clients here.
pub(super) async fn run(meeting: Arc<Shared>, reach: Reach, mut ends: watch::Receiver<()>) {
    let mut clients = meeting.clients_changed();
    loop {
        let watched = lock(&meeting.clients).values().any(|client| client.watches);
        if !watched {
            // The next one to watch must not be shown what was.
            meeting.overview.send_if_modified(|shown| shown.take().is_some());
            tokio::select! {
                _ = ends.changed() => return,
                _ = clients.changed() => continue,
            }
        }
        let view = meeting.view();
        let people = tokio::select! {
            _ = ends.changed() => return,
            people = people::of(&view, &reach) => people,
        };
        let overview = assemble(&view, people, meeting.journal().standing(), now_ms());
        meeting.overview.send_if_modified(|shown| {
            let changed = shown.as_deref() != Some(&overview);
            if changed {
                *shown = Some(Arc::new(overview));
            }
            changed
        });
        tokio::select! {
            _ = ends.changed() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Rooms, people, hands and calls for help as one.
fn assemble(view: &View, people: Vec<Present>, standing: &Standing, now: i64) -> Overview {
    let hands: HashSet<&str> = standing.hands.iter().map(|one| one.identity.as_str()).collect();
    let help: HashSet<&str> = standing.help.iter().map(|one| one.identity.as_str()).collect();
    let mut by_room: HashMap<String, Vec<Occupant>> = HashMap::new();
    for one in people.into_iter().filter(|one| one.takes_part) {
        let occupant = Occupant {
            hand: hands.contains(one.identity.as_str()),
            help: help.contains(one.identity.as_str()),
            identity: one.identity,
            name: one.name,
            role: one.role,
            since: one.since,
            speaking: one.speaking,
        };
        by_room
            .entry(one.room.unwrap_or_default())
            .or_default()
            .push(occupant);
    }
    let mut rooms = vec![Occupied {
        id: String::new(),
        title: view.meeting.spec.title.clone().unwrap_or_default(),
        open: true,
        participants: by_room.remove("").unwrap_or_default(),
    }];
    rooms.extend(view.plan.views(now).into_iter().map(|room| Occupied {
        participants: by_room.remove(&room.id).unwrap_or_default(),
        id: room.id,
        title: room.title,
        open: room.open,
    }));
    Overview { rooms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::meetings::plans::tests::{meeting, room, view};
    use plenum_protocol::Asking;

    fn present(identity: &str, at: Option<&str>) -> Present {
        Present {
            identity: identity.into(),
            name: identity.to_uppercase(),
            role: "participant".into(),
            room: at.map(str::to_owned),
            speaking: identity == "ann",
            since: 7,
            joined: 5,
            takes_part: identity != "ear",
        }
    }

    #[test]
    fn the_main_room_comes_first_and_everyone_is_where_they_are() {
        let view = view(
            meeting("standup"),
            vec![room("standup", "red"), room("standup", "blue")],
        );
        let people = vec![
            present("ann", None),
            present("bob", Some("red")),
            present("ear", Some("red")),
        ];
        let standing = Standing {
            hands: vec![Asking {
                identity: "bob".into(),
                ..Asking::default()
            }],
            help: Vec::new(),
        };
        let overview = assemble(&view, people, &standing, 0);
        let ids: Vec<(&str, usize)> = overview
            .rooms
            .iter()
            .map(|room| (room.id.as_str(), room.participants.len()))
            .collect();
        assert_eq!(ids, [("", 1), ("blue", 0), ("red", 1)]);
        let bob = &overview.rooms[2].participants[0];
        assert!(bob.hand && !bob.help && !bob.speaking && bob.since == 7);
        assert!(overview.rooms[0].participants[0].speaking);
    }
}
