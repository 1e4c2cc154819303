//! Commands about people.

use super::*;

#[test]
fn people_are_assigned_over_what_specs_say() {
    let mut world = World::new(vec![named(room("a"), &["alice"]), room("b")]).people(&["alice"]);
    assert_eq!(code(world.host(send("alice", Some("x")))), Code::RoomNotFound);
    assert_eq!(code(world.host(send("", Some("b")))), Code::RequestMalformed);
    world.host(send("alice", Some("b"))).unwrap();
    world.host(send("later", Some("b"))).unwrap();
    assert_eq!((world.wish("alice"), world.wish("later")), (to("b"), to("b")));
    world.host(send("alice", None)).unwrap();
    assert_eq!(world.wish("alice"), Wish::Main);
    // Her own place needs no decision.
    let decision = world.host(send("alice", Some("a"))).unwrap().decisions.unwrap();
    assert_eq!(decision.moves, [goes("later", Some("b"), None)]);
    assert_eq!(world.wish("alice"), to("a"));
    assert_eq!(world.host(send("alice", Some("a"))).unwrap(), Decision::default());
}

#[test]
fn two_hosts_at_once_are_taken_one_after_the_other() {
    let mut world = World::new(vec![room("a"), room("b")]).people(&["alice", "bob"]);
    let first = world.ask("h1", Role::Host, &send("alice", Some("a"))).unwrap();
    let second = world.ask("h2", Role::Host, &send("alice", Some("b"))).unwrap();
    assert_ne!(first, second);
    // The first is written; the second meets a newer object and decides again.
    world.meeting = with(world.meeting.clone(), first.decisions.unwrap());
    world.host(send("bob", Some("a"))).unwrap();
    let again = world.host(send("alice", Some("b"))).unwrap().decisions.unwrap();
    assert_eq!(
        again.moves,
        [goes("bob", Some("a"), None), goes("alice", Some("b"), None)]
    );
}

#[test]
fn each_write_leaves_out_what_was_superseded() {
    let decision = |name: &str, generation| plenum_crds::RoomDecision {
        generation,
        open: Some(false),
        ..about(name)
    };
    let rooms = vec![named(room("a"), &["alice"]), room("b")];
    let mut world = World::new(rooms).decided(BreakoutDecisions {
        moves: vec![
            goes("alice", Some("b"), None),
            goes("bob", Some("gone"), None),
            goes("carol", Some("b"), None),
            goes("carol", Some("a"), None),
        ],
        ..rooms_decided(vec![
            decision("a", 0),
            decision("b", 1),
            decision("gone", 1),
            decision("b", 1),
        ])
    });
    let expected = BreakoutDecisions {
        moves: vec![goes("carol", Some("a"), None)],
        ..rooms_decided(vec![decision("b", 1)])
    };
    assert_eq!(pruned(&world.meeting, &world.plan()), Some(expected.clone()));
    let written = world.host(send("dave", Some("b"))).unwrap().decisions.unwrap();
    assert_eq!(written.rooms, expected.rooms);
    assert_eq!(
        written.moves,
        [expected.moves[0].clone(), goes("dave", Some("b"), None)]
    );
    assert_eq!(pruned(&world.meeting, &world.plan()), None);
}

#[test]
fn a_full_list_drops_the_oldest_who_are_gone() {
    let mut moves: Vec<MoveDecision> = (0..5_000)
        .map(|n| goes(&format!("p{n}"), Some("a"), None))
        .collect();
    let mut world = World::new(vec![room("a")])
        .people(&["p0"])
        .decided(moves_decided(moves.clone()));
    let written = world.host(send("new", Some("a"))).unwrap().decisions.unwrap();
    moves.remove(1);
    moves.push(goes("new", Some("a"), None));
    assert_eq!(written.moves, moves);
    let everyone: Vec<String> = moves.iter().map(|one| one.identity.clone()).collect();
    let mut crowded = World::new(vec![room("a")]).decided(moves_decided(moves));
    for identity in &everyone {
        crowded.join(identity, Role::Participant, None);
    }
    assert_eq!(
        code(crowded.host(send("one more", Some("a")))),
        Code::RequestMalformed
    );
}

#[test]
fn a_shuffle_spreads_everybody_but_hosts_over_the_open_rooms() {
    let mut tight = room("a");
    tight.spec.max_participants = Some(2);
    let mut world =
        World::new(vec![tight, room("b"), closed(room("shut"))]).people(&["p1", "p2", "p3", "p4"]);
    world.join("p5", Role::Participant, Some("a"));
    world.join("host", Role::Host, Some("a"));
    let decision = world
        .host(Command::Shuffle { how: How::Random })
        .unwrap()
        .decisions
        .unwrap();
    assert_eq!(decision.moves.len(), 5);
    assert_eq!(
        world.room("a").participants.len(),
        1,
        "the host has a place in it"
    );
    assert_eq!(world.room("b").participants.len(), 4);
    assert_eq!(world.wish("host"), Wish::NoOpinion);

    // Nowhere to go: the main room rather than a place that is somebody else's.
    let mut small = room("a");
    small.spec.max_participants = Some(1);
    let mut world = World::new(vec![small]);
    world.join("p1", Role::Participant, Some("a"));
    world.join("p2", Role::Participant, Some("a"));
    world.host(Command::Shuffle { how: How::Even }).unwrap();
    assert_eq!((world.wish("p1"), world.wish("p2")), (to("a"), Wish::Main));
    let mut none = World::new(vec![closed(room("a"))]);
    assert_eq!(
        code(none.host(Command::Shuffle { how: How::Even })),
        Code::RoomClosed
    );
}

#[test]
fn in_automatic_mode_newcomers_get_the_emptiest_room() {
    let mut world = World::new(vec![
        named(room("a"), &["p1", "absent"]),
        room("b"),
        named(closed(room("c")), &["p4"]),
    ])
    .people(&["p1", "p2", "p3", "p4"]);
    world.join("host", Role::Host, None);
    world.join("visitor", Role::Host, Some("b"));
    world.join("back", Role::Participant, None);
    let mut world = world.decided(moves_decided(vec![goes("back", None, None)]));
    let auto = |world: &World| auto_assign(&world.scene(&world.plan()));
    assert_eq!(auto(&world), Ok(None), "only in mode automatic");
    world.meeting.spec.breakouts.assignment = BreakoutAssignment::Automatic;
    let decisions = auto(&world).unwrap().unwrap();
    world.meeting = with(world.meeting.clone(), decisions);
    assert_eq!((world.wish("p2"), world.wish("p3")), (to("a"), to("b")));
    assert_eq!(world.wish("p1"), to("a"));
    assert_eq!(world.wish("p4"), Wish::NoOpinion, "hers opens again some day");
    assert_eq!(world.wish("host"), Wish::NoOpinion);
    assert_eq!(world.wish("back"), Wish::Main, "who went back is not sent again");
    assert_eq!(auto(&world), Ok(None));
}

#[test]
fn choosing_a_room_is_for_hosts_for_modes_and_for_assigned_people() {
    let mut small = room("small");
    small.spec.max_participants = Some(1);
    let mut closing = room("closing");
    closing.spec.open = false;
    closing.status.as_mut().unwrap().closes_at = Some(at(NOW + 60_000));
    let rooms = vec![named(room("a"), &["alice"]), room("b"), small, closing];
    let mut world = World::new(rooms).people(&["alice", "bob"]);
    world.join("carol", Role::Participant, Some("small"));
    let choose = |id: &str| Command::ChooseRoom { room: id.into() };
    let ask = |world: &World, who: &str, role, id: &str| world.ask(who, role, &choose(id));
    let own = ask(&world, "alice", Role::Participant, "a").unwrap();
    assert_eq!((own.decisions, own.expect), (None, Some(Some("a".into()))));
    assert_eq!(
        code(ask(&world, "alice", Role::Participant, "b")),
        Code::NotPermitted
    );
    assert_eq!(
        code(ask(&world, "host", Role::Cohost, "small")),
        Code::MeetingFull,
        "hosts included"
    );
    assert_eq!(
        code(ask(&world, "host", Role::Cohost, "closing")),
        Code::RoomClosed
    );
    assert_eq!(code(ask(&world, "host", Role::Cohost, "x")), Code::RoomNotFound);
    let host = ask(&world, "host", Role::Cohost, "b").unwrap();
    assert_eq!(host.decisions.unwrap().moves, [goes("host", Some("b"), None)]);
    world.meeting.spec.breakouts.assignment = BreakoutAssignment::SelfSelect;
    let chosen = ask(&world, "bob", Role::Participant, "b").unwrap();
    assert_eq!(chosen.decisions.unwrap().moves, [goes("bob", Some("b"), None)]);
    assert!(
        ask(&world, "carol", Role::Participant, "small").is_ok(),
        "she is in it"
    );
}

#[test]
fn going_back_and_refusing_follow_the_settings() {
    let mut world = World::new(vec![room("a"), room("b")]);
    world.join("alice", Role::Participant, Some("a"));
    world.join("bob", Role::Participant, None);
    let (back, refuse) = (Command::ReturnToMain {}, Command::CancelMove {});
    let decision = world.ask("alice", Role::Participant, &back).unwrap();
    assert_eq!(decision.expect, Some(None));
    assert_eq!(decision.decisions.unwrap().moves, [goes("alice", None, None)]);
    assert_eq!(
        world.ask("bob", Role::Participant, &back),
        Ok(Decision::default())
    );

    world.host(send("alice", Some("b"))).unwrap();
    assert_eq!(
        code(world.ask("alice", Role::Participant, &refuse)),
        Code::NotPermitted
    );
    world
        .host(Command::Settings {
            mode: None,
            allow_return_to_main: Some(false),
            allow_cancel: Some(true),
        })
        .unwrap();
    assert_eq!(
        code(world.ask("alice", Role::Participant, &back)),
        Code::NotPermitted
    );
    assert!(world.ask("alice", Role::Host, &back).is_ok());
    let stays = world.ask("alice", Role::Participant, &refuse).unwrap();
    assert_eq!(stays.decisions.unwrap().moves, [goes("alice", Some("a"), None)]);
    assert_eq!(stays.expect, None);
    assert_eq!(
        world.ask("bob", Role::Participant, &refuse),
        Ok(Decision::default()),
        "nothing to refuse"
    );
    // Nobody refuses to leave a room that is gone.
    world.rooms[0] = deleting(room("a"));
    assert_eq!(
        code(world.ask("alice", Role::Participant, &refuse)),
        Code::RoomClosed
    );
}

#[test]
fn co_hosts_are_made_and_unmade_but_not_those_of_the_spec() {
    let mut world = World::new(vec![]).people(&["alice"]);
    world.join("boss", Role::Host, None);
    world.meeting.spec.co_hosts = ids(&["carol"]);
    let cohost = |identity: &str, on| Command::Cohost {
        identity: identity.into(),
        on,
    };
    let made = world.host(cohost("alice", true)).unwrap();
    assert_eq!(made.co_hosts, Some(ids(&["alice"])));
    world.meeting.status = Some(MeetingStatus {
        session: Some(SessionDecisions {
            co_hosts: ids(&["alice", "zoe"]),
            ..SessionDecisions::default()
        }),
        ..MeetingStatus::default()
    });
    assert_eq!(world.host(cohost("alice", true)).unwrap(), Decision::default());
    assert_eq!(
        world.host(cohost("alice", false)).unwrap().co_hosts,
        Some(ids(&["zoe"]))
    );
    assert_eq!(world.host(cohost("dave", false)).unwrap(), Decision::default());
    for (identity, why) in [("carol", "spec.coHosts"), ("boss", "token")] {
        assert_eq!(world.host(cohost(identity, true)).unwrap(), Decision::default());
        let refusal = world.host(cohost(identity, false)).unwrap_err();
        assert_eq!(refusal.code, Code::NotPermitted);
        assert!(refusal.detail.contains(why), "{}", refusal.detail);
    }
    let many: Vec<String> = (0..64).map(|n| format!("c{n}")).collect();
    world
        .meeting
        .status
        .as_mut()
        .unwrap()
        .session
        .as_mut()
        .unwrap()
        .co_hosts = many;
    assert_eq!(code(world.host(cohost("one more", true))), Code::RequestMalformed);
}
