//! Commands about rooms.

use super::*;

#[test]
fn new_rooms_get_names_titles_and_a_common_end() {
    let mut taken = room("standup-1");
    taken.spec.title = Some("Room 1".into());
    let mut world = World::new(vec![taken, deleting(room("standup-2"))]);
    world.taken.insert("standup-3".into());
    world.now = NOW + 1;
    let decision = world
        .host(Command::CreateRooms {
            rooms: vec![
                NewRoom {
                    title: Some(" Blue ".into()),
                    max_participants: Some(0),
                    participants: ids(&["zoe"]),
                },
                NewRoom {
                    max_participants: Some(3),
                    ..NewRoom::default()
                },
            ],
            mode: Some(Mode::SelfSelect),
            how: How::Even,
            duration: Some(60),
            open: true,
        })
        .unwrap();
    let [first, second] = decision.new_rooms.as_slice() else {
        panic!("{decision:?}")
    };
    assert_eq!(
        (first.name.as_str(), second.name.as_str()),
        ("standup-4", "standup-5")
    );
    assert_eq!(first.spec.title.as_deref(), Some("Blue"));
    assert_eq!(second.spec.title.as_deref(), Some("Room 2"));
    assert_eq!(
        (first.spec.max_participants, second.spec.max_participants),
        (None, Some(3))
    );
    assert_eq!(first.spec.participants, ["zoe"]);
    assert_eq!(first.spec.meeting_ref.name, "standup");
    // A second more than asked for rather than one less: objects carry whole seconds.
    assert_eq!(first.spec.close_at, Some(at(NOW + 61_000)));
    assert_eq!(first.spec.close_at, second.spec.close_at);
    assert!(first.spec.open && first.spec.close_after.is_none());
    assert_eq!(
        decision.decisions.unwrap().assignment,
        Some(BreakoutAssignment::SelfSelect)
    );

    let prepared = world
        .host(Command::CreateRooms {
            rooms: vec![NewRoom::default()],
            mode: Some(Mode::SelfSelect),
            how: How::Even,
            duration: Some(60),
            open: false,
        })
        .unwrap();
    let spec = &prepared.new_rooms[0].spec;
    assert!(!spec.open && spec.close_at.is_none());
    assert_eq!(
        spec.close_after.as_ref().unwrap().as_millis(),
        60_000,
        "counts from the opening"
    );
    assert_eq!(prepared.decisions, None, "the mode is what it was");
}

#[test]
fn names_of_new_rooms_are_labels() {
    let mut world = World::new(vec![]);
    world.meeting.metadata.name = Some(format!("a.{}.b", "m".repeat(60)));
    let decision = world.host(make(vec![NewRoom::default(); 12], None)).unwrap();
    let names: HashSet<&str> = decision
        .new_rooms
        .iter()
        .map(|draft| draft.name.as_str())
        .collect();
    assert_eq!(names.len(), 12);
    for name in names {
        assert!(
            name.len() <= 63 && name.starts_with("a-m") && !name.contains("--") && !name.contains('.'),
            "{name}"
        );
    }
}

#[test]
fn what_cannot_become_an_object_is_refused() {
    let mut world = World::new(vec![]);
    let mut one = |room: NewRoom| code(world.host(make(vec![room], None)));
    let long = "x".repeat(201);
    assert_eq!(
        one(NewRoom {
            title: Some(long),
            ..NewRoom::default()
        }),
        Code::MessageTooLarge
    );
    assert_eq!(
        one(NewRoom {
            max_participants: Some(10_001),
            ..NewRoom::default()
        }),
        Code::RequestMalformed
    );
    assert_eq!(
        one(NewRoom {
            participants: ids(&[""]),
            ..NewRoom::default()
        }),
        Code::RequestMalformed
    );
    let crowded = NewRoom {
        max_participants: Some(1),
        participants: ids(&["a", "b"]),
        title: None,
    };
    assert_eq!(one(crowded), Code::RequestMalformed);
    let both = vec![
        NewRoom {
            participants: ids(&["a"]),
            ..NewRoom::default()
        };
        2
    ];
    assert_eq!(code(world.host(make(both, None))), Code::RequestMalformed);
    assert_eq!(code(world.host(make(vec![], None))), Code::RequestMalformed);

    world.rooms = (0..198).map(|n| room(&format!("r{n}"))).collect();
    assert!(world.host(make(vec![NewRoom::default(); 2], None)).is_ok());
    assert_eq!(
        code(world.host(make(vec![NewRoom::default(); 3], None))),
        Code::RoomLimit
    );
}

#[test]
fn automatic_rooms_are_filled_with_the_participants_who_have_no_place() {
    let mut world =
        World::new(vec![room("old"), closed(room("shut"))]).people(&["p1", "p2", "p3", "p4", "p5"]);
    world.join("settled", Role::Participant, Some("old"));
    world.join("host", Role::Host, None);
    world.join("helper", Role::Cohost, None);
    let world = world.decided(moves_decided(vec![
        goes("p1", None, None),
        goes("p2", Some("shut"), None),
        goes("p5", Some("old"), None),
    ]));
    let mut world = world;
    let rooms = vec![
        NewRoom::default(),
        NewRoom {
            participants: ids(&["p4"]),
            ..NewRoom::default()
        },
    ];
    let decision = world.host(make(rooms, Some(Mode::Automatic))).unwrap();
    assert_eq!(decision.new_rooms[0].spec.participants, ["p1", "p2"]);
    assert_eq!(decision.new_rooms[1].spec.participants, ["p4", "p3"]);

    // As many as fit; the others stay where they are.
    let tight = vec![
        NewRoom {
            max_participants: Some(1),
            ..NewRoom::default()
        };
        2
    ];
    let decision = world.host(make(tight, Some(Mode::Automatic))).unwrap();
    let sizes: Vec<_> = decision
        .new_rooms
        .iter()
        .map(|draft| draft.spec.participants.len())
        .collect();
    assert_eq!(sizes, [1, 1]);
    // In other modes nobody is.
    let decision = world
        .host(make(vec![NewRoom::default()], Some(Mode::Manual)))
        .unwrap();
    assert!(decision.new_rooms[0].spec.participants.is_empty());
}

#[test]
fn only_rooms_made_in_the_meeting_are_removed_from_inside() {
    let rooms = vec![
        made_here(room("a")),
        room("b"),
        named(room("c"), &["bob"]),
        made_here(deleting(room("d"))),
    ];
    let mut world = World::new(rooms).decided(BreakoutDecisions {
        moves: vec![
            goes("alice", Some("a"), None),
            goes("bob", Some("a"), Some("c")),
            goes("carol", Some("b"), None),
        ],
        ..rooms_decided(vec![plenum_crds::RoomDecision {
            title: Some("A".into()),
            ..about("a")
        }])
    });
    let remove = |id: &str| Command::RemoveRoom { room: id.into() };
    assert_eq!(code(world.host(remove("b"))), Code::RoomForeign);
    assert_eq!(code(world.host(remove("x"))), Code::RoomNotFound);
    assert_eq!(code(world.host(remove("d"))), Code::RoomNotFound);
    let decision = world.host(remove("a")).unwrap();
    assert_eq!(decision.remove, ["a"]);
    let left = decision.decisions.unwrap();
    assert!(left.rooms.is_empty());
    // Bob comes back like everybody, rather than being sent where a spec names him.
    assert_eq!(
        left.moves,
        [goes("bob", None, Some("c")), goes("carol", Some("b"), None)]
    );
}

#[test]
fn renaming_is_laid_over_the_spec() {
    let mut world = World::new(vec![room("a")]);
    let rename = |title: &str| Command::RenameRoom {
        room: "a".into(),
        title: title.into(),
    };
    world.host(rename(" Blue ")).unwrap();
    assert_eq!(world.room("a").title, "Blue");
    assert!(world.room("a").open);
    assert_eq!(world.host(rename("Blue")).unwrap(), Decision::default());
    assert_eq!(code(world.host(rename("  "))), Code::RequestMalformed);
    assert_eq!(code(world.host(rename(&"x".repeat(201)))), Code::MessageTooLarge);
}

#[test]
fn closing_counts_down_and_never_prolongs() {
    let mut soon = room("soon");
    soon.spec.close_at = Some(at(NOW + 5_000));
    let mut world = World::new(vec![room("a"), room("b"), soon, closed(room("shut"))]);
    let close = |names: &[&str], countdown| Command::CloseRooms {
        rooms: ids(names),
        countdown,
    };
    for bad in [1, 9, 121] {
        assert_eq!(code(world.host(close(&[], Some(bad)))), Code::RequestMalformed);
    }
    assert_eq!(code(world.host(close(&["a", "x"], None))), Code::RoomNotFound);
    // The meeting's countdown, a minute by default, for all.
    let decision = world.host(close(&[], None)).unwrap().decisions.unwrap();
    assert_eq!(decision.rooms.len(), 3, "closed ones stay as they are");
    for id in ["a", "b"] {
        let room = world.room(id);
        assert_eq!((room.open, room.closes_at_ms), (false, Some(NOW + 60_000)));
        assert!(room.may_stay(NOW + 59_999) && !room.may_stay(NOW + 60_000));
    }
    assert_eq!(world.room("soon").closes_at_ms, Some(NOW + 5_000));
    // Again: a longer one changes nothing, a shorter one does, none at all closes at once.
    assert_eq!(world.host(close(&["a"], Some(120))).unwrap(), Decision::default());
    world.host(close(&["a"], Some(10))).unwrap();
    assert_eq!(world.room("a").closes_at_ms, Some(NOW + 10_000));
    world.now = NOW + 400;
    world.host(close(&["b"], Some(0))).unwrap();
    assert!(!world.room("b").may_stay(world.now));
}

#[test]
fn opening_again_brings_a_new_timer() {
    let mut after = closed(room("after"));
    after.spec.close_after = Some(plenum_crds::Duration::from_secs(600));
    let mut past = room("past");
    past.spec.close_at = Some(at(NOW - 1_000));
    let mut ahead = closed(room("ahead"));
    ahead.spec.close_at = Some(at(NOW + 9_000));
    let mut world = World::new(vec![after, past, ahead, room("on")]);
    world
        .host(Command::OpenRooms {
            rooms: vec![],
            duration: None,
        })
        .unwrap();
    let timers: HashMap<String, _> = world
        .plan()
        .rooms
        .iter()
        .map(|room| (room.id.clone(), (room.is_open(NOW), room.closes_at_ms)))
        .collect();
    assert_eq!(
        timers["after"],
        (true, Some(NOW + 600_000)),
        "closeAfter counts from the opening"
    );
    assert_eq!(timers["past"], (true, None), "a closeAt that is over is over");
    assert_eq!(timers["ahead"], (true, Some(NOW + 9_000)));
    assert_eq!(timers["on"], (true, None));
    // With a time, for all of them.
    world
        .host(Command::OpenRooms {
            rooms: vec![],
            duration: Some(30),
        })
        .unwrap();
    for room in &world.plan().rooms {
        assert_eq!(room.closes_at_ms, Some(NOW + 30_000), "{}", room.id);
    }
    // One that is being closed is open again.
    world
        .host(Command::CloseRooms {
            rooms: ids(&["on"]),
            countdown: None,
        })
        .unwrap();
    world
        .host(Command::OpenRooms {
            rooms: ids(&["on"]),
            duration: None,
        })
        .unwrap();
    assert_eq!(
        (world.room("on").open, world.room("on").closes_at_ms),
        (true, None)
    );
    assert_eq!(
        code(world.host(Command::OpenRooms {
            rooms: vec![],
            duration: Some(0)
        })),
        Code::RequestMalformed
    );
}

#[test]
fn extending_moves_every_running_timer() {
    let (mut one, mut two) = (room("one"), room("two"));
    one.spec.close_at = Some(at(NOW + 5_000));
    two.spec.close_at = Some(at(NOW + 5_000));
    let mut world = World::new(vec![one, two, room("free"), closed(room("shut"))]);
    world.host(Command::Extend { seconds: 60 }).unwrap();
    assert_eq!(world.room("one").closes_at_ms, Some(NOW + 65_000));
    assert_eq!(world.room("two").closes_at_ms, Some(NOW + 65_000));
    assert_eq!(world.room("free").closes_at_ms, None);
    assert!(!world.room("shut").open);
    assert_eq!(
        code(world.host(Command::Extend { seconds: 0 })),
        Code::RequestMalformed
    );
}

#[test]
fn settings_are_written_where_they_change_something() {
    let mut world = World::new(vec![]);
    let set = |mode, back| Command::Settings {
        mode,
        allow_return_to_main: back,
        allow_cancel: None,
    };
    assert_eq!(
        world.host(set(Some(Mode::Manual), Some(true))).unwrap(),
        Decision::default()
    );
    let written = world
        .host(set(Some(Mode::Automatic), Some(false)))
        .unwrap()
        .decisions
        .unwrap();
    assert_eq!(
        (written.assignment, written.allow_return_to_main),
        (Some(BreakoutAssignment::Automatic), Some(false))
    );
    assert_eq!(
        (world.plan().mode, world.plan().allow_cancel),
        (Mode::Automatic, false)
    );
}
