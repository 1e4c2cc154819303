//! Moves between rooms, and the end of breakout rooms.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::participant_info::State;
use plenum_errors::Code;

use super::{ROOM, Stage, audio, entry, video};
use crate::room::{
    Action, Arrival, EndReason, Entered, Identity, Moderation, Notice, Outbox, Output, Role, RoomName,
    RoomSpec, Transfer,
};
use crate::session::api::{Command, Event, Quality, Reliability, SessionId, Topology, TrackSid};

const RED: &str = "team/standup/red";
const BLUE: &str = "team/standup/blue";
const SECOND: Duration = Duration::from_secs(1);

fn spec(name: &str) -> RoomSpec {
    RoomSpec::open(RoomName::from(name))
}

/// The main room and two breakout rooms.
fn stage() -> Stage {
    let mut stage = Stage::new();
    stage.assign(spec(RED));
    stage.assign(spec(BLUE));
    stage
}

fn to(room: &str) -> Transfer {
    Transfer {
        room: RoomName::from(room),
        epoch: 1,
        mute_sources: Vec::new(),
    }
}

fn transfer(stage: &mut Stage, session: SessionId, order: &Transfer) -> Result<(), Code> {
    let mut out = Outbox::default();
    let done = stage.hall.transfer(session, order, stage.now, &mut out);
    stage.out.extend(out.0);
    done.map_err(|error| error.code)
}

fn go(stage: &mut Stage, session: SessionId, room: &str) {
    transfer(stage, session, &to(room)).unwrap();
}

fn release(stage: &mut Stage, room: &str, reason: EndReason) {
    let mut out = Outbox::default();
    stage
        .hall
        .release(&RoomName::from(room), 1, reason, stage.now, &mut out)
        .unwrap();
    stage.out.extend(out.0);
}

fn room_of(stage: &Stage, session: SessionId) -> Option<&str> {
    stage.hall.room_of(session).map(RoomName::as_str)
}

fn people(stage: &Stage, room: &str) -> Vec<String> {
    let room = stage.hall.room(room).unwrap();
    room.participants().map(|p| p.identity.to_string()).collect()
}

fn arrival(stage: &Stage, session: SessionId) -> Option<Arrival> {
    stage.told(session).into_iter().find_map(|n| match n {
        Notice::RoomMoved(arrival) => Some(*arrival),
        _ => None,
    })
}

fn subscribed(stage: &Stage, session: SessionId, sid: &str) -> bool {
    stage
        .commands()
        .iter()
        .any(|c| matches!(c, Command::Subscribe { session: s, sid: t, .. } if *s == session && &**t == sid))
}

fn unsubscribed(stage: &Stage, session: SessionId, sid: &str) -> bool {
    stage
        .commands()
        .iter()
        .any(|c| matches!(c, Command::Unsubscribe { session: s, sid: t } if *s == session && &**t == sid))
}

/// Neither ended nor opened: media does not notice a move but for its subscriptions.
fn media_is_left_alone(stage: &Stage) {
    let touches = |c: &&Command| {
        matches!(
            c,
            Command::Open { .. }
                | Command::Close { .. }
                | Command::RemoveTrack { .. }
                | Command::ExpectTrack { .. }
        )
    };
    assert!(!stage.commands().iter().any(touches), "{:?}", stage.commands());
}

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
    // Nothing about the old room reaches it after that.
    assert!(stage.last_info(alice, "bob").is_none());
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
            .any(|c| matches!(c, Command::Mute { sid: s, muted: true } if s == sid))
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
        assert!(stage.out.iter().any(
            |o| matches!(o, Output::Relocated { session, room } if *session == alice && room.as_str() == ROOM)
        ));
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

    let mut stage = self::stage();
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

#[test]
fn a_new_standing_is_in_force_at_once_and_seen_by_all() {
    let mut stage = stage();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let (mic, of_bob) = (stage.publish(alice, audio("mic")), stage.publish(bob, audio("b")));
    let stand = |stage: &mut Stage, role: Role, change: fn(&mut plenum_token::VideoGrant)| {
        let mut grant = role.grant(ROOM);
        change(&mut grant);
        let mut out = Outbox::default();
        stage.hall.stand(alice, role, grant.into(), &mut out);
        stage.out.extend(out.0);
    };
    let before = stage.last_info(bob, "alice").unwrap();
    assert_eq!(before.attributes[plenum_protocol::ROLE_ATTRIBUTE], "participant");
    stage.clear();
    stand(&mut stage, Role::Cohost, |_| {});
    let after = stage.last_info(bob, "alice").unwrap();
    assert_eq!(after.attributes[plenum_protocol::ROLE_ATTRIBUTE], "cohost");
    assert!(after.version > before.version);
    assert!(stage.commands().is_empty(), "it may do all it did");
    assert_eq!(
        stage.hall.room(ROOM).unwrap().participant("alice").unwrap().role,
        Role::Cohost
    );

    stand(&mut stage, Role::Viewer, |grant| {
        grant.can_subscribe = Some(false)
    });
    assert!(unsubscribed(&stage, alice, &of_bob));
    assert!(
        stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::RemoveTrack { sid, .. } if *sid == mic))
    );
    let info = stage.last_info(alice, "alice").unwrap();
    let permission = info.permission.unwrap();
    assert!(!permission.can_publish && !permission.can_subscribe);
}

#[test]
fn nobody_writes_their_own_role() {
    let mut stage = Stage::new();
    let mine = |role: &str| [(plenum_protocol::ROLE_ATTRIBUTE.to_owned(), role.to_owned())].into();
    let mut bold = entry("alice");
    bold.attributes = mine("host");
    bold.grant.update_metadata = true;
    let alice = stage.join_as(bold);
    let role = |stage: &Stage| {
        let room = stage.hall.room(ROOM).unwrap();
        room.participant("alice").unwrap().info().attributes[plenum_protocol::ROLE_ATTRIBUTE].clone()
    };
    assert_eq!(role(&stage), "participant");
    for value in ["host", ""] {
        stage.act(
            alice,
            Action::Describe(lk::UpdateParticipantMetadata {
                attributes: mine(value),
                ..Default::default()
            }),
        );
        assert_eq!(role(&stage), "participant");
    }
    let update = Moderation::Update {
        identity: Identity::from("alice"),
        update: Box::new(lk::UpdateParticipantRequest {
            attributes: mine("host"),
            ..Default::default()
        }),
    };
    let mut out = Outbox::default();
    stage
        .hall
        .moderate(&RoomName::from(ROOM), update, stage.now, &mut out)
        .unwrap();
    assert_eq!(role(&stage), "participant");
}
