//! The answer to `hello`: all that a client needs to show the meeting as it is.
//!
//! Invariant: participants are told of their own assignment, hand and call for help, of the hands in
//! their room, and of nobody else's.

use std::time::Duration;

use plenum_errors::{Code, PublicError};
use plenum_protocol::{Asking, Me, RoomView, Standing, State};
use plenum_token::Role;

use super::{ClientSession, Event};
use crate::gateway::meetings::now_ms;

/// How long a client waits for a hub that is away; then it is told what this gateway knows.
const HUB_PATIENCE: Duration = Duration::from_secs(2);

impl ClientSession {
    /// The client says hello. It is answered once the hub has told what it remembers.
    pub(super) fn hello(&mut self, id: u64, since: Option<u64>) {
        let mut caught_up = self.presence.meeting.caught_up();
        if *caught_up.borrow() {
            return self.greet(id, since);
        }
        let events = self.events.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(HUB_PATIENCE, caught_up.wait_for(|there| *there)).await;
            let _ = events.send(Event::Greets { id, since });
        });
    }

    /// The state, then the signals after `since`.
    pub(super) fn greet(&mut self, id: u64, since: Option<u64>) {
        let state = self.state();
        let last = state.seq;
        let result = serde_json::to_value(state)
            .map_err(|_| PublicError::new(Code::Internal, "the state cannot be written"));
        self.answer(id, "hello", result);
        self.cursor = Some(since.unwrap_or(last).min(last));
        self.behind = true;
    }

    fn state(&self) -> State {
        let meeting = &self.presence.meeting;
        let (view, now) = (meeting.view(), now_ms());
        let plan = &view.plan;
        let identity = &self.by_token.identity;
        let journal = meeting.journal();
        let (hands, help) = visible(journal.standing(), self.role, identity, self.room.as_deref());
        State {
            me: Me {
                identity: identity.clone(),
                role: self.role.as_str().to_owned(),
                room: self.room.clone(),
                assigned: plan.assigned(identity).map(str::to_owned),
            },
            mode: plan.mode,
            rooms: plan
                .views(now)
                .into_iter()
                .map(|room| visible_room(room, self.role, identity))
                .collect(),
            allow_return_to_main: plan.allow_return_to_main,
            allow_cancel: plan.allow_cancel,
            hands,
            help,
            seq: journal.last(),
            now,
        }
    }
}

/// Hands and calls for help that somebody may see.
fn visible(
    standing: &Standing,
    role: Role,
    identity: &str,
    room: Option<&str>,
) -> (Vec<Asking>, Vec<Asking>) {
    let host = role >= Role::Cohost;
    let own = |one: &&Asking| host || one.identity == identity;
    let hands = standing.hands.iter();
    let hands = hands.filter(|one| own(one) || one.room.as_deref() == room);
    (
        hands.cloned().collect(),
        standing.help.iter().filter(own).cloned().collect(),
    )
}

/// A room as somebody may see it.
fn visible_room(mut room: RoomView, role: Role, identity: &str) -> RoomView {
    if role < Role::Cohost {
        room.participants.retain(|one| one == identity);
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn participants_see_what_is_their_own_or_in_their_room() {
        let asking = |identity: &str, room: Option<&str>| Asking {
            identity: identity.into(),
            room: room.map(str::to_owned),
            ..Asking::default()
        };
        let standing = Standing {
            hands: vec![asking("ann", Some("red")), asking("bob", None)],
            help: vec![asking("ann", Some("red")), asking("bob", None)],
        };
        let count = |role, identity, room| {
            let (hands, help) = visible(&standing, role, identity, room);
            (hands.len(), help.len())
        };
        assert_eq!(count(Role::Participant, "cid", Some("red")), (1, 0));
        assert_eq!(count(Role::Participant, "cid", Some("blue")), (0, 0));
        assert_eq!(count(Role::Participant, "bob", Some("red")), (2, 1));
        assert_eq!(count(Role::Cohost, "dan", Some("blue")), (2, 2));

        let room = RoomView {
            participants: vec!["ann".into(), "bob".into()],
            ..RoomView::default()
        };
        assert_eq!(
            visible_room(room.clone(), Role::Viewer, "bob").participants,
            ["bob"]
        );
        assert_eq!(visible_room(room, Role::Host, "dan").participants.len(), 2);
    }
}
