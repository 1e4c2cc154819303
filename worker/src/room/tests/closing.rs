//! The end of breakout rooms.

use livekit_protocol as lk;
use plenum_errors::Code;

use super::rooms::{
    RED, SECOND, arrival, media_is_left_alone, people, release, room_of, spec, stage, subscribed, to,
    transfer, unsubscribed,
};
use super::{ROOM, Stage, audio, entry};
use crate::room::{EndReason, Identity, Notice, Outbox, Output, Role, RoomName, RoomSpec};
use crate::session::api::{Command, SessionId};

#[test]
fn a_closed_breakout_room_sends_its_people_home() {
    for reason in [EndReason::Closed, EndReason::Deleted, EndReason::Expired] {
        let mut stage = Stage::with(RoomSpec {
            max_participants: Some(1),
            locked: true,
            ..spec(ROOM)
        });
        stage.assign(spec(RED));
        let host = stage.join_as(super::Entry {
            role: Role::Host,
            ..entry("host")
        });
        let inside: Vec<SessionId> = ["alice", "bob"]
            .into_iter()
            .map(|who| {
                stage.join_as(super::Entry {
                    room: RoomName::from(RED),
                    ..entry(who)
                })
            })
            .collect();
        let of_host = stage.publish(host, audio("h"));
        let of_alice = stage.publish(inside[0], audio("a"));
        stage.clear();
        release(&mut stage, RED, reason);
        // Neither the lock nor the limit keeps them out.
        assert_eq!(people(&stage, ROOM), ["host", "alice", "bob"]);
        assert!(stage.hall.room(RED).is_none());
        media_is_left_alone(&stage);
        for session in &inside {
            assert!(stage.goodbye(*session).is_none() && stage.ended(*session).is_none());
            assert_eq!(arrival(&stage, *session).unwrap().others.len(), 2);
            let order = |o: &Output| match o {
                Output::Relocated { session: s, .. } if s == session => Some("relocated"),
                Output::Tell {
                    to,
                    notice: Notice::RoomMoved(_),
                } if to.contains(session) => Some("moved"),
                _ => None,
            };
            let order: Vec<&str> = stage.out.iter().filter_map(order).collect();
            assert_eq!(order, ["relocated", "moved"]);
            assert!(subscribed(&stage, *session, &of_host));
        }
        // Together they were, together they are: subscribed anew under the new ids.
        assert!(unsubscribed(&stage, inside[1], &of_alice) && subscribed(&stage, inside[1], &of_alice));
        assert!(subscribed(&stage, host, &of_alice));
        // Who stays is told once of all.
        let updates = stage
            .told(host)
            .into_iter()
            .filter(|n| matches!(n, Notice::Participants(_)))
            .count();
        assert_eq!(updates, 1);
    }
}

#[test]
fn without_a_main_room_here_streams_end_without_a_goodbye() {
    let mut stage = Stage::with(spec(RED));
    let alice = stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("alice")
    });
    stage.clear();
    release(&mut stage, RED, EndReason::Closed);
    assert_eq!(stage.ended(alice), Some(Some(Code::RoomClosed)));
    assert!(stage.goodbye(alice).is_none());
    assert!(
        stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::Close { session } if *session == alice))
    );
    assert_eq!(room_of(&stage, alice), None);

    // One that goes to another worker says so to its clients, as before.
    let mut stage = stage_with_alice_in_red();
    let alice = stage.hall.room(RED).unwrap().session_of("alice").unwrap();
    release(&mut stage, RED, EndReason::Moved);
    assert_eq!(
        stage.goodbye(alice).unwrap().action,
        lk::leave_request::Action::Reconnect
    );
}

fn stage_with_alice_in_red() -> Stage {
    let mut stage = stage();
    stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("alice")
    });
    stage.clear();
    stage
}

#[test]
fn who_may_not_return_is_turned_out() {
    let mut stage = stage_with_alice_in_red();
    let alice = stage.hall.room(RED).unwrap().session_of("alice").unwrap();
    let mut out = Outbox::default();
    stage
        .hall
        .expel(
            &RoomName::from(ROOM),
            &Identity::from("alice"),
            true,
            stage.now,
            &mut out,
        )
        .unwrap();
    release(&mut stage, RED, EndReason::Closed);
    assert_eq!(stage.ended(alice), Some(Some(Code::RoomClosed)));
    assert!(people(&stage, ROOM).is_empty());
}

#[test]
fn at_home_the_newer_connection_of_an_identity_stands() {
    let mut stage = stage_with_alice_in_red();
    let older = stage.hall.room(RED).unwrap().session_of("alice").unwrap();
    let newer = stage.join("alice");
    stage.clear();
    release(&mut stage, RED, EndReason::Closed);
    assert_eq!(stage.ended(older), Some(Some(Code::DuplicateIdentity)));
    assert_eq!(
        (room_of(&stage, newer), room_of(&stage, older)),
        (Some(ROOM), None)
    );

    let mut stage = super::rooms::stage();
    let older = stage.join("alice");
    let newer = stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("alice")
    });
    release(&mut stage, RED, EndReason::Closed);
    assert_eq!(stage.ended(older), Some(Some(Code::DuplicateIdentity)));
    assert_eq!(room_of(&stage, newer), Some(ROOM));
    assert_eq!(people(&stage, ROOM), ["alice"]);
}

#[test]
fn a_breakout_room_whose_time_is_over_sends_its_people_home_and_takes_nobody() {
    let mut stage = Stage::new();
    stage.assign(RoomSpec {
        max_duration: Some(SECOND * 60),
        ..spec(RED)
    });
    let alice = stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("alice")
    });
    let bob = stage.join("bob");
    stage.pass(SECOND * 61);
    assert_eq!(room_of(&stage, alice), Some(ROOM));
    assert!(people(&stage, RED).is_empty());
    assert_eq!(transfer(&mut stage, bob, &to(RED)), Err(Code::RoomClosed));
}
