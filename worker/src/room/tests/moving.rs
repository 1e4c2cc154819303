//! Moves between rooms.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::participant_info::State;
use plenum_errors::Code;

use super::rooms::{
    BLUE, RED, SECOND, arrival, go, media_is_left_alone, people, release, room_of, spec, stage, subscribed,
    to, transfer, unsubscribed,
};
use super::{ROOM, Stage, audio, entry, video};
use crate::room::{
    Action, EndReason, Entered, Identity, Notice, Outbox, Output, Role, RoomName, RoomSpec, Transfer,
};
use crate::session::api::{Command, Event, Quality, Reliability, SessionId, Topology, TrackSid};

#[test]
fn a_move_takes_tracks_along_and_subscriptions_not() {
    let mut stage = stage();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let carol = stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("carol")
    });
    let (of_alice, of_bob) = (stage.publish(alice, video("a")), stage.publish(bob, audio("b")));
    let of_carol = stage.publish(carol, audio("c"));
    let before = stage
        .hall
        .room(ROOM)
        .unwrap()
        .participant("alice")
        .unwrap()
        .info();
    stage.clear();
    stage.now = stage.now.plus(SECOND);
    go(&mut stage, alice, RED);

    assert_eq!(room_of(&stage, alice), Some(RED));
    assert_eq!(
        (people(&stage, ROOM), people(&stage, RED)),
        (vec!["bob".into()], vec!["alice".into(), "carol".into()])
    );
    media_is_left_alone(&stage);
    assert!(unsubscribed(&stage, bob, &of_alice) && unsubscribed(&stage, alice, &of_bob));
    assert!(subscribed(&stage, carol, &of_alice) && subscribed(&stage, alice, &of_carol));

    // It is told where it is and who else; the tracks keep their ids, it has a new one.
    let told = arrival(&stage, alice).unwrap();
    assert_eq!((told.room.name.as_str(), told.others.len()), (RED, 1));
    assert_eq!(told.others[0].identity, "carol");
    assert_ne!(told.me.sid, before.sid);
    assert_eq!(told.me.tracks, before.tracks);
    assert_eq!(told.me.joined_at_ms, stage.now.unix_ms);
    assert!(told.me.version > before.version);
    // Whom it leaves behind is gone to it, for clients that RoomMoved does not tell so.
    let behind = stage.last_info(alice, "bob").unwrap();
    assert_eq!(behind.state, State::Disconnected as i32);
    assert!(behind.tracks.is_empty());
    // The old room sees it go, the new one sees it come.
    let gone = stage.last_info(bob, "alice").unwrap();
    assert_eq!(
        (gone.state, gone.sid.as_str()),
        (State::Disconnected as i32, before.sid.as_str())
    );
    let came = stage.last_info(carol, "alice").unwrap();
    assert_eq!((came.state, came.sid), (State::Active as i32, told.me.sid));
    assert_eq!(came.tracks.len(), 1);
    // Whoever receives it knows it by its new id.
    assert!(stage.commands().iter().any(|c| matches!(
        c,
        Command::Subscribe { session, publisher_sid, .. } if *session == carol && **publisher_sid == *came_sid(&stage, carol)
    )));

    // And back.
    stage.clear();
    go(&mut stage, alice, ROOM);
    media_is_left_alone(&stage);
    assert!(unsubscribed(&stage, carol, &of_alice) && unsubscribed(&stage, alice, &of_carol));
    assert!(subscribed(&stage, bob, &of_alice) && subscribed(&stage, alice, &of_bob));
    assert!(stage.last_info(bob, "alice").unwrap().version > gone.version);
    assert_eq!(people(&stage, RED), ["carol"]);
    // The track ends where its publisher is.
    stage.clear();
    stage.media(Event::TrackEnded {
        session: alice,
        sid: of_alice,
    });
    assert!(stage.last_info(bob, "alice").unwrap().tracks.is_empty());
    assert!(stage.told(carol).is_empty());
}

fn came_sid(stage: &Stage, watcher: SessionId) -> Arc<str> {
    stage.last_info(watcher, "alice").unwrap().sid.into()
}

#[test]
fn what_a_participant_is_travels_along() {
    let mut stage = stage();
    let alice = stage.join_as(super::Entry {
        attributes: [("seat".to_owned(), "4".to_owned())].into(),
        auto_subscribe: false,
        topology: Topology::Dual,
        role: Role::Cohost,
        ..entry("alice")
    });
    let carol = stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("carol")
    });
    let of_carol = stage.publish(carol, audio("c"));
    let mic = stage.publish(alice, audio("a"));
    stage.act(
        alice,
        Action::Mute {
            sid: mic.clone(),
            muted: true,
        },
    );
    stage.act(
        alice,
        Action::Audience(lk::SubscriptionPermission {
            all_participants: false,
            track_permissions: Vec::new(),
        }),
    );
    stage.clear();
    go(&mut stage, alice, RED);
    let alice_now = stage.hall.room(RED).unwrap().participant("alice").unwrap();
    assert_eq!(alice_now.role, Role::Cohost);
    let info = alice_now.info();
    assert_eq!(info.attributes["seat"], "4");
    assert!(info.tracks[0].muted);
    // Nobody may receive it, and it receives nothing that it does not ask for.
    assert!(!subscribed(&stage, carol, &mic) && !subscribed(&stage, alice, &of_carol));
    assert!(
        stage
            .told(carol)
            .iter()
            .any(|n| matches!(n, Notice::Allowed { allowed: false, .. }))
    );
    stage.act(
        alice,
        Action::Subscribe {
            sids: vec![of_carol.clone()],
            on: true,
        },
    );
    assert!(subscribed(&stage, alice, &of_carol));
}

#[test]
fn reliable_messages_are_neither_repeated_nor_lost_over_a_move() {
    let mut stage = stage();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let carol = stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("carol")
    });
    let say = |stage: &mut Stage, sequence: u32| {
        let packet = lk::DataPacket {
            sequence,
            value: Some(lk::data_packet::Value::User(lk::UserPacket {
                payload: sequence.to_string().into_bytes(),
                ..Default::default()
            })),
            ..Default::default()
        };
        stage.media(Event::Data {
            session: alice,
            reliability: Reliability::Reliable,
            payload: prost::Message::encode_to_vec(&packet).into(),
        });
    };
    let received = |stage: &Stage, who: SessionId| -> Vec<(u32, String)> {
        let packets = stage.commands().into_iter().filter_map(|c| match c {
            Command::SendData {
                sessions, payload, ..
            } if sessions.contains(&who) => {
                let packet: lk::DataPacket = prost::Message::decode(payload.clone()).unwrap();
                Some((packet.sequence, packet.participant_sid))
            }
            _ => None,
        });
        packets.collect()
    };
    say(&mut stage, 1);
    say(&mut stage, 2);
    let first_sid = received(&stage, bob)[0].1.clone();
    stage.clear();
    go(&mut stage, alice, RED);
    // Sent again by a client that is not sure; then a new one.
    say(&mut stage, 2);
    say(&mut stage, 3);
    assert!(received(&stage, bob).is_empty());
    let heard = received(&stage, carol);
    assert_eq!(heard.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3]);
    assert_ne!(heard[0].1, first_sid, "receivers count by the sender's id");
}

#[test]
fn a_refused_move_changes_nothing() {
    let mut stage = stage();
    stage.assign(RoomSpec {
        max_participants: Some(1),
        ..spec(BLUE)
    });
    stage.assign(RoomSpec {
        epoch: 1,
        meeting: "team/other".into(),
        ..spec("team/other")
    });
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    stage.publish(alice, audio("a"));
    stage.join_as(super::Entry {
        room: RoomName::from(BLUE),
        ..entry("carol")
    });
    let mut expelled = Outbox::default();
    let red = RoomName::from(RED);
    stage
        .hall
        .expel(&red, &Identity::from("bob"), true, stage.now, &mut expelled)
        .unwrap();
    stage.clear();
    let cases = [
        (alice, to(BLUE), Code::MeetingFull),
        (alice, to("team/standup/green"), Code::RoomNotFound),
        (alice, to("team/other"), Code::NotPermitted),
        (alice, Transfer { epoch: 2, ..to(RED) }, Code::EpochStale),
        (bob, to(RED), Code::TokenRevoked),
        (SessionId(99), to(RED), Code::ParticipantNotFound),
    ];
    for (session, order, code) in cases {
        assert_eq!(transfer(&mut stage, session, &order), Err(code));
    }
    assert!(stage.out.is_empty());
    assert_eq!(people(&stage, ROOM), ["alice", "bob"]);
    // A room that is as told needs no move.
    go(&mut stage, alice, ROOM);
    assert!(stage.out.is_empty());
}

#[test]
fn a_lock_is_for_strangers_and_a_kept_place_for_its_owner() {
    let mut stage = stage();
    stage.assign(RoomSpec {
        max_participants: Some(2),
        locked: true,
        ..spec(RED)
    });
    let sessions: Vec<SessionId> = ["alice", "bob", "carol"]
        .into_iter()
        .map(|who| stage.join(who))
        .collect();
    let expected = crate::room::Reserve {
        epoch: 1,
        identity: Identity::from("carol"),
        ttl: SECOND * 20,
        takes_a_place: true,
        token_issued_at_ms: 1_000,
        handover: None,
    };
    stage
        .hall
        .reserve(&RoomName::from(RED), expected, stage.now)
        .unwrap();
    go(&mut stage, sessions[0], RED);
    assert_eq!(
        transfer(&mut stage, sessions[1], &to(RED)),
        Err(Code::MeetingFull)
    );
    go(&mut stage, sessions[2], RED);
    assert_eq!(
        transfer(&mut stage, sessions[1], &to(RED)),
        Err(Code::MeetingFull)
    );
}

#[test]
fn the_same_identity_is_there_once() {
    let mut stage = stage();
    stage.assign(RoomSpec {
        max_participants: Some(1),
        ..spec(RED)
    });
    let there = stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("alice")
    });
    let here = stage.join("alice");
    stage.clear();
    // Its own place is free for it.
    go(&mut stage, here, RED);
    assert_eq!(stage.ended(there), Some(Some(Code::DuplicateIdentity)));
    assert_eq!(
        stage.goodbye(there).unwrap().reason,
        lk::DisconnectReason::DuplicateIdentity
    );
    assert_eq!((room_of(&stage, here), room_of(&stage, there)), (Some(RED), None));
    assert_eq!(people(&stage, RED), ["alice"]);
    assert!(arrival(&stage, here).unwrap().others.is_empty());
}

#[test]
fn sources_may_arrive_muted_and_be_unmuted_by_their_owner() {
    let mut stage = stage();
    let alice = stage.join("alice");
    let carol = stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("carol")
    });
    let (mic, camera) = (
        stage.publish(alice, audio("mic")),
        stage.publish(alice, video("cam")),
    );
    stage.clear();
    let order = Transfer {
        mute_sources: vec![lk::TrackSource::Microphone as i32],
        ..to(RED)
    };
    transfer(&mut stage, alice, &order).unwrap();
    let muted = |sid: &TrackSid| {
        stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::Mute { sid: s, muted: true, .. } if s == sid))
    };
    assert!(muted(&mic) && !muted(&camera));
    // First the move, then the muting: the other way round clients put their own track right.
    let told: Vec<&str> = stage
        .told(alice)
        .iter()
        .filter_map(|n| match n {
            Notice::RoomMoved(a) => {
                assert!(a.me.tracks.iter().all(|t| !t.muted));
                Some("moved")
            }
            Notice::Muted { muted: true, .. } => Some("muted"),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["moved", "muted"]);
    let seen = stage.last_info(carol, "alice").unwrap();
    assert!(seen.tracks.iter().all(|t| t.muted == (t.sid == *mic)));
    stage.act(
        alice,
        Action::Mute {
            sid: mic,
            muted: false,
        },
    );
    assert!(
        stage
            .last_info(carol, "alice")
            .unwrap()
            .tracks
            .iter()
            .all(|t| !t.muted)
    );
}

#[test]
fn layers_that_nobody_wanted_are_wanted_at_once() {
    let mut stage = stage();
    let alice = stage.join("alice");
    stage.publish(alice, video("cam"));
    stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("carol")
    });
    stage.pass(SECOND * 10);
    let highest = |stage: &Stage| {
        stage.told(alice).into_iter().rev().find_map(|n| match n {
            Notice::WantedLayers { highest, .. } => Some(highest),
            _ => None,
        })
    };
    assert_eq!(highest(&stage), Some(None), "alone it sends nothing");
    stage.clear();
    go(&mut stage, alice, RED);
    assert_eq!(highest(&stage), Some(Some(Quality::High)));
}

#[test]
fn who_moves_speaks_no_more_in_the_old_room() {
    let mut stage = stage();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let mic = stage.publish(alice, audio("mic"));
    for _ in 0..8 {
        stage.hall.levels(vec![crate::session::api::AudioLevel {
            session: alice,
            sid: mic.clone(),
            level_dbov: 10,
            active_ratio: 1.0,
        }]);
        stage.pass(Duration::from_millis(100));
    }
    let room = stage.hall.room(ROOM).unwrap();
    assert!(room.speaks(room.participant("alice").unwrap()));
    stage.clear();
    go(&mut stage, alice, RED);
    let quiet = stage
        .told(bob)
        .into_iter()
        .any(|n| matches!(n, Notice::Speakers(s) if s.len() == 1 && !s[0].active));
    assert!(quiet);
}

/// Loses the session, and resumes with what the client knows.
fn resume(stage: &mut Stage, room: &str, sid: &str) -> Entered {
    stage
        .try_enter(super::Entry {
            room: RoomName::from(room),
            resume: Some(sid.to_owned()),
            ..entry("alice")
        })
        .unwrap()
}

#[test]
fn who_was_moved_while_away_hears_of_it_on_resume() {
    let mut stage = stage();
    let alice = stage.join_as(super::Entry {
        room: RoomName::from(RED),
        ..entry("alice")
    });
    stage.join("bob");
    let sid = stage
        .hall
        .room(RED)
        .unwrap()
        .participant("alice")
        .unwrap()
        .sid
        .to_string();
    stage.lose(alice);
    release(&mut stage, RED, EndReason::Closed);
    assert_eq!(room_of(&stage, alice), Some(ROOM));
    // By its old id or by the room it knows, in which it no longer is.
    for known in [sid.as_str(), ""] {
        stage.clear();
        assert_eq!(resume(&mut stage, RED, known), Entered::Resumed(alice));
        let told = stage.told(alice);
        assert!(matches!(told[0], Notice::WelcomeBack { .. }));
        assert!(matches!(&told[1], Notice::RoomMoved(a) if a.room.name == ROOM && a.others.len() == 1));
        let at = |f: &dyn Fn(&Output) -> bool| stage.out.iter().position(f).unwrap();
        let greeted = at(&|o| {
            matches!(
                o,
                Output::Tell {
                    notice: Notice::WelcomeBack { .. },
                    ..
                }
            )
        });
        let relocated = at(
            &|o| matches!(o, Output::Relocated { session, room } if *session == alice && room.as_str() == ROOM),
        );
        assert!(greeted < relocated, "a greeting comes first");
        stage.lose(alice);
    }
    // Who knows is not told.
    stage.clear();
    let sid = stage
        .hall
        .room(ROOM)
        .unwrap()
        .participant("alice")
        .unwrap()
        .sid
        .to_string();
    assert_eq!(resume(&mut stage, ROOM, &sid), Entered::Resumed(alice));
    assert!(arrival(&stage, alice).is_none());
    // Somebody else's id opens nothing.
    stage.lose(alice);
    assert_eq!(resume(&mut stage, ROOM, "PA_other"), Entered::Stale);
}
