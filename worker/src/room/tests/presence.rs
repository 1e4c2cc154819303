//! Leaving, losing the connection, coming back, and timers.

use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::leave_request::Action as LeaveAction;
use plenum_errors::Code;

use super::{ROOM, Stage, audio, entry, video};
use crate::room::{Action, Entered, Notice, Output, RoomName, RoomSpec, Scenario};
use crate::session::api::{Command, Event, Leg, SdpError, SessionId, Topology, TransportEnd};

const SECOND: Duration = Duration::from_secs(1);

fn resume(stage: &mut Stage, identity: &str) -> Entered {
    let sid = stage
        .hall
        .room(ROOM)
        .and_then(|r| r.participant(identity))
        .map(|p| p.sid.to_string())
        .unwrap_or_else(|| "PA_gone".into());
    stage
        .try_enter(super::Entry {
            resume: Some(sid),
            ..entry(identity)
        })
        .unwrap()
}

fn disconnected(stage: &Stage, watcher: SessionId, identity: &str) -> bool {
    stage
        .last_info(watcher, identity)
        .is_some_and(|i| i.state == lk::participant_info::State::Disconnected as i32)
}

#[test]
fn a_leave_ends_the_session_at_once() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    stage.publish(alice, audio("mic"));
    stage.clear();
    stage.act(alice, Action::Leave);
    assert_eq!(stage.ended(alice), Some(None));
    assert!(disconnected(&stage, bob, "alice"));
    let info = stage.last_info(bob, "alice").unwrap();
    assert_eq!(
        info.disconnect_reason,
        lk::DisconnectReason::ClientInitiated as i32
    );
    assert!(
        stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::Close { session } if *session == alice))
    );
    // What it still says is not heard.
    stage.clear();
    stage.act(alice, Action::AddTrack(Box::new(audio("again"))));
    assert!(stage.out.is_empty());
}

#[test]
fn a_lost_client_keeps_its_place_and_then_loses_it() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    stage.clear();
    stage.lose(alice);
    stage.pass(SECOND * 19);
    assert!(!disconnected(&stage, bob, "alice"));
    stage.pass(SECOND * 2);
    assert!(disconnected(&stage, bob, "alice"));
    let info = stage.last_info(bob, "alice").unwrap();
    assert_eq!(info.disconnect_reason, lk::DisconnectReason::SignalClose as i32);
    assert_eq!(stage.hall.room(ROOM).unwrap().participants().count(), 1);
}

#[test]
fn a_resume_keeps_everything_and_catches_up() {
    let mut stage = Stage::new();
    let (alice, bob, carol) = (stage.join("alice"), stage.join("bob"), stage.join("carol"));
    let mine = stage.publish(alice, video("camera"));
    let theirs = stage.publish(bob, audio("mic"));
    let before = stage
        .hall
        .room(ROOM)
        .unwrap()
        .participant("alice")
        .unwrap()
        .info();
    stage.lose(alice);
    stage.pass(SECOND * 5);
    stage.act(carol, Action::Leave);
    stage.join("dave");
    stage.pass(SECOND * 5);
    stage.clear();
    assert_eq!(resume(&mut stage, "alice"), Entered::Resumed(alice));
    let told = stage.told(alice);
    assert!(matches!(told[0], Notice::WelcomeBack { .. }), "{:?}", told[0]);
    let Notice::Participants(infos) = &told[1] else {
        panic!("{:?}", told[1])
    };
    let state = |who: &str| infos.iter().find(|i| i.identity == who).map(|i| i.state);
    assert_eq!(
        state("carol"),
        Some(lk::participant_info::State::Disconnected as i32)
    );
    assert_eq!(state("dave"), Some(lk::participant_info::State::Active as i32));
    let after = stage
        .hall
        .room(ROOM)
        .unwrap()
        .participant("alice")
        .unwrap()
        .info();
    assert_eq!((before.sid, before.tracks), (after.sid, after.tracks));
    assert_eq!(
        stage
            .hall
            .room(ROOM)
            .unwrap()
            .participant("alice")
            .unwrap()
            .info()
            .tracks[0]
            .sid,
        *mine
    );
    // Decoders wait for pictures after a break.
    assert!(
        stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::KeyFrame { sid, .. } if *sid == theirs))
    );
    // The others heard nothing of it.
    assert!(stage.told(bob).is_empty());
    stage.pass(SECOND * 60);
    assert!(!disconnected(&stage, bob, "alice"));
}

#[test]
fn a_resume_of_what_is_gone_must_start_anew() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    stage.lose(alice);
    stage.pass(SECOND * 25);
    assert_eq!(resume(&mut stage, "alice"), Entered::Stale);
    // A sid of an earlier stay is as good as gone.
    stage.join("alice");
    let stale = super::Entry {
        resume: Some("PA_earlier".into()),
        ..entry("alice")
    };
    assert_eq!(stage.try_enter(stale).unwrap(), Entered::Stale);
}

#[test]
fn one_who_was_replaced_while_away_is_not_shown_as_departed() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    stage.lose(alice);
    stage.act(bob, Action::Leave);
    stage.join("bob");
    stage.clear();
    resume(&mut stage, "alice");
    let states: Vec<i32> = stage
        .told(alice)
        .into_iter()
        .filter_map(|n| match n {
            Notice::Participants(i) => Some(i.into_iter().filter(|i| i.identity == "bob").map(|i| i.state)),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(states, [lk::participant_info::State::Active as i32]);
}

#[test]
fn the_reply_to_a_resume_says_which_message_came_last() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let packet = lk::DataPacket {
        sequence: 41,
        value: Some(lk::data_packet::Value::User(lk::UserPacket::default())),
        ..Default::default()
    };
    stage.media(Event::Data {
        session: alice,
        reliability: crate::session::api::Reliability::Reliable,
        payload: prost::Message::encode_to_vec(&packet).into(),
    });
    stage.lose(alice);
    stage.clear();
    resume(&mut stage, "alice");
    assert!(matches!(
        stage.told(alice)[0],
        Notice::WelcomeBack { last_message_seq: 41 }
    ));
}

#[test]
fn lost_media_with_working_signalling_means_connect_anew() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    stage.clear();
    stage.media(Event::Disconnected {
        session: alice,
        leg: Leg::Publisher,
        reason: TransportEnd::ConsentLost,
    });
    assert_eq!(stage.goodbye(alice).unwrap().action, LeaveAction::Reconnect);
    assert!(
        stage
            .out
            .iter()
            .any(|o| matches!(o, Output::Cut { session } if *session == alice))
    );
    assert_eq!(resume(&mut stage, "alice"), Entered::Stale);
    assert!(!disconnected(&stage, bob, "alice"));
    // It comes back in time, as somebody new.
    stage.pass(SECOND);
    let again = stage.join("alice");
    assert_ne!(again, alice);
    // Or it does not.
    stage.media(Event::Disconnected {
        session: again,
        leg: Leg::Publisher,
        reason: TransportEnd::ConsentLost,
    });
    stage.pass(SECOND * 6);
    assert!(disconnected(&stage, bob, "alice"));
}

#[test]
fn a_closed_tab_is_noticed_without_waiting() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    stage.lose(alice);
    stage.media(Event::Disconnected {
        session: alice,
        leg: Leg::Publisher,
        reason: TransportEnd::Closed,
    });
    assert!(disconnected(&stage, bob, "alice"));
}

#[test]
fn a_description_that_cannot_be_used_drops_its_sender_only() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let refused = |session, error| Event::Refused {
        session,
        leg: Leg::Publisher,
        id: 1,
        error,
    };
    stage.media(refused(alice, SdpError::Unexpected));
    assert!(stage.ended(alice).is_none());
    stage.media(refused(alice, SdpError::Missing("ice-ufrag")));
    assert_eq!(stage.ended(alice), Some(Some(Code::SdpInvalid)));
    assert!(stage.ended(bob).is_none());
}

#[test]
fn an_empty_room_ends_its_session_and_starts_another() {
    let spec = RoomSpec {
        empty_timeout: Some(SECOND * 60),
        departure_timeout: Some(SECOND * 10),
        ..RoomSpec::open(RoomName::from(ROOM))
    };
    let mut stage = Stage::with(spec);
    let standing = |stage: &Stage| stage.hall.room(ROOM).unwrap().standing().clone();
    stage.pass(SECOND * 59);
    assert_eq!(standing(&stage).ended_at_ms, 0);
    stage.pass(SECOND * 2);
    assert!(standing(&stage).ended_at_ms > 0 && standing(&stage).active_since_ms == 0);
    let alice = stage.join("alice");
    stage.join("bob");
    assert_eq!(
        (standing(&stage).ended_at_ms, standing(&stage).peak_participants),
        (0, 2)
    );
    let since = standing(&stage).active_since_ms;
    assert_eq!(since, stage.now.unix_ms);
    stage.act(alice, Action::Leave);
    let bob = stage.hall.room(ROOM).unwrap().session_of("bob").unwrap();
    stage.act(bob, Action::Leave);
    stage.pass(SECOND * 9);
    // Whoever comes back in time goes on with the same session.
    let alice = stage.join("alice");
    assert_eq!(standing(&stage).active_since_ms, since);
    stage.act(alice, Action::Leave);
    stage.pass(SECOND * 11);
    assert!(standing(&stage).ended_at_ms > 0);
    assert_eq!(standing(&stage).peak_participants, 2);
}

#[test]
fn the_maximum_duration_sends_everyone_away_and_closes_the_door() {
    let spec = RoomSpec {
        max_duration: Some(SECOND * 30),
        ..RoomSpec::open(RoomName::from(ROOM))
    };
    let mut stage = Stage::with(spec.clone());
    // Counted from the first join, not from the assignment.
    stage.pass(SECOND * 60);
    let alice = stage.join("alice");
    stage.pass(SECOND * 29);
    assert!(stage.ended(alice).is_none());
    stage.pass(SECOND * 2);
    assert_eq!(
        stage.goodbye(alice).unwrap().reason,
        lk::DisconnectReason::RoomClosed
    );
    assert_eq!(
        stage.try_enter(entry("bob")).unwrap_err().code,
        Code::MeetingEnded
    );
    // More time reopens it.
    stage.assign(RoomSpec {
        max_duration: Some(SECOND * 300),
        ..spec
    });
    stage.join("bob");
}

#[test]
fn room_updates_are_told_once_a_second_at_most() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    stage.clear();
    for i in 0..20 {
        stage.join(&format!("p{i}"));
        stage.pass(Duration::from_millis(100));
    }
    stage.pass(SECOND * 2);
    let counts: Vec<u32> = stage
        .told(alice)
        .into_iter()
        .filter_map(|n| match n {
            Notice::Room(r) => Some(r.num_participants),
            _ => None,
        })
        .collect();
    assert!(counts.len() <= 4, "{counts:?}");
    assert_eq!(counts.last(), Some(&21));
}

#[test]
fn drills() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let drill = |stage: &mut Stage, scenario| stage.act(alice, Action::Simulate(scenario));
    drill(&mut stage, Scenario::Speaks);
    assert!(stage.told(alice).iter().any(|n| matches!(n, Notice::Speakers(_))));
    let cut = |stage: &Stage| {
        stage
            .out
            .iter()
            .filter(|o| matches!(o, Output::Cut { .. }))
            .count()
    };
    drill(&mut stage, Scenario::SignalLoss);
    assert_eq!(cut(&stage), 1);
    assert_eq!(resume(&mut stage, "alice"), Entered::Resumed(alice));
    drill(
        &mut stage,
        Scenario::CutNextResume {
            before_greeting: true,
        },
    );
    stage.clear();
    resume(&mut stage, "alice");
    assert_eq!(cut(&stage), 1);
    assert!(stage.told(alice).is_empty());
    resume(&mut stage, "alice");
    assert!(matches!(stage.told(alice)[0], Notice::WelcomeBack { .. }));
    drill(&mut stage, Scenario::FullReconnect);
    assert_eq!(stage.goodbye(alice).unwrap().action, LeaveAction::Reconnect);
}

#[test]
fn of_two_connections_the_subscriber_is_restarted_by_us() {
    let mut stage = Stage::new();
    for (topology, identity, restarts) in [(Topology::Dual, "old", 1), (Topology::Single, "new", 0)] {
        let session = stage.join_as(super::Entry {
            topology,
            ..entry(identity)
        });
        stage.lose(session);
        stage.clear();
        resume(&mut stage, identity);
        let count = stage
            .commands()
            .iter()
            .filter(|c| matches!(c, Command::RestartIce { .. }))
            .count();
        assert_eq!(count, restarts, "{identity}");
    }
}

#[test]
fn media_closed_before_the_signalling_is_a_leave() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let closed = |session| Event::Disconnected {
        session,
        leg: Leg::Publisher,
        reason: TransportEnd::Closed,
    };
    stage.clear();
    stage.media(closed(alice));
    assert!(stage.goodbye(alice).is_none());
    stage.lose(alice);
    stage.pass(Duration::from_millis(100));
    assert!(disconnected(&stage, bob, "alice"));
    // One that stays without media is told to connect anew.
    stage.media(closed(bob));
    stage.pass(SECOND * 6);
    assert_eq!(stage.goodbye(bob).unwrap().action, LeaveAction::Reconnect);
}
