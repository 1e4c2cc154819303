use std::collections::HashMap;

use plenum_crds::{BreakoutAssignment, BreakoutRoom, MeetingStatus, MoveDecision, SessionDecisions};
use plenum_protocol::{How, Mode, NewRoom, Placement};

use super::*;
use crate::plan::Wish;
use crate::testing::{
    NOW, about, at, closed, deleting, goes, made_here, meeting, moves_decided, named, room, rooms_decided,
    with,
};

/// A meeting in which commands take effect at once.
struct World {
    meeting: Meeting,
    rooms: Vec<BreakoutRoom>,
    people: Vec<Present>,
    taken: HashSet<String>,
    now: i64,
}

impl World {
    fn new(rooms: Vec<BreakoutRoom>) -> World {
        World {
            meeting: meeting(),
            rooms,
            people: Vec::new(),
            taken: HashSet::new(),
            now: NOW,
        }
    }

    /// Participants in the main room, in that order of joining.
    fn people(mut self, identities: &[&str]) -> World {
        for identity in identities {
            self.join(identity, Role::Participant, None);
        }
        self
    }

    fn join(&mut self, identity: &str, role: Role, room: Option<&str>) {
        self.people.push(Present {
            identity: identity.into(),
            name: identity.into(),
            role,
            room: room.map(str::to_owned),
            since: NOW - 1_000 + self.people.len() as i64,
        });
    }

    fn decided(mut self, decisions: BreakoutDecisions) -> World {
        self.meeting = with(self.meeting, decisions);
        self
    }

    fn plan(&self) -> Plan {
        Plan::of(&self.meeting, &self.rooms)
    }

    fn ask(&self, identity: &str, role: Role, command: &Command) -> Result<Decision, PublicError> {
        let present = self.people.iter().find(|one| one.identity == identity);
        let who = Actor {
            identity: identity.into(),
            role,
            room: present.and_then(|one| one.room.clone()),
        };
        decide(command, &who, &self.scene(&self.plan()))
    }

    fn scene<'a>(&'a self, plan: &'a Plan) -> Scene<'a> {
        Scene {
            plan,
            meeting: &self.meeting,
            people: &self.people,
            taken: &self.taken,
            now: self.now,
            seed: 1,
        }
    }

    fn host(&mut self, command: Command) -> Result<Decision, PublicError> {
        let decision = self.ask("host", Role::Host, &command)?;
        if let Some(decisions) = &decision.decisions {
            self.meeting = with(self.meeting.clone(), decisions.clone());
        }
        Ok(decision)
    }

    fn room(&self, id: &str) -> PlannedRoom {
        self.plan().room(id).unwrap().clone()
    }

    fn wish(&self, identity: &str) -> Wish {
        self.plan().wish(identity, self.now)
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, PublicError>) -> Code {
    result.unwrap_err().code
}

fn to(id: &str) -> Wish {
    Wish::Room(id.into())
}

fn ids(names: &[&str]) -> Vec<String> {
    names.iter().map(|one| (*one).to_owned()).collect()
}

fn make(rooms: Vec<NewRoom>, mode: Option<Mode>) -> Command {
    Command::CreateRooms {
        rooms,
        mode,
        how: How::Even,
        duration: None,
        open: true,
    }
}

fn send(identity: &str, room: Option<&str>) -> Command {
    Command::Assign {
        moves: vec![Placement {
            identity: identity.into(),
            room: room.map(str::to_owned),
        }],
    }
}

#[test]
fn participants_are_refused_what_hosts_may() {
    let world = World::new(vec![made_here(room("a"))]).people(&["alice", "bob"]);
    let text = || "x".to_owned();
    let for_hosts = [
        (make(vec![NewRoom::default()], None), "createRooms"),
        (Command::RemoveRoom { room: "a".into() }, "removeRoom"),
        (
            Command::RenameRoom {
                room: "a".into(),
                title: text(),
            },
            "renameRoom",
        ),
        (
            Command::OpenRooms {
                rooms: vec![],
                duration: None,
            },
            "openRooms",
        ),
        (
            Command::CloseRooms {
                rooms: vec![],
                countdown: None,
            },
            "closeRooms",
        ),
        (Command::Extend { seconds: 60 }, "extend"),
        (send("bob", Some("a")), "assign"),
        (Command::Shuffle { how: How::Even }, "shuffle"),
        (
            Command::Settings {
                mode: None,
                allow_return_to_main: None,
                allow_cancel: None,
            },
            "settings",
        ),
        (
            Command::Broadcast {
                text: text(),
                rooms: vec![],
            },
            "broadcast",
        ),
        (
            Command::Cohost {
                identity: "bob".into(),
                on: true,
            },
            "cohost",
        ),
        (Command::Overview { watch: true }, "overview"),
        (Command::Listen { room: "a".into() }, "listen"),
        (Command::Speak {}, "speak"),
        (
            Command::LowerHand {
                identity: "bob".into(),
            },
            "lowerHand",
        ),
    ];
    for (command, name) in for_hosts {
        for role in [Role::Participant, Role::Viewer] {
            let refusal = world.ask("alice", role, &command).unwrap_err();
            assert_eq!(refusal.code, Code::NotPermitted, "{name}");
            assert!(refusal.detail.starts_with(name), "{}", refusal.detail);
        }
        for role in [Role::Cohost, Role::Host] {
            assert!(world.ask("carol", role, &command).is_ok(), "{name}");
        }
    }
    for command in [
        Command::Hello { since: None },
        Command::LowerHand {
            identity: "alice".into(),
        },
        Command::RaiseHand { up: true },
        Command::AskForHelp { on: true },
        Command::MessageHosts { text: text() },
        Command::ReturnToMain {},
    ] {
        assert_eq!(
            world.ask("alice", Role::Participant, &command),
            Ok(Decision::default())
        );
    }
}

#[test]
fn texts_are_limited() {
    let world = World::new(vec![]).people(&["alice"]);
    let said = |bytes: usize| {
        world.ask(
            "alice",
            Role::Participant,
            &Command::MessageHosts {
                text: "x".repeat(bytes),
            },
        )
    };
    assert!(said(limits::TEXT).is_ok());
    assert_eq!(code(said(limits::TEXT + 1)), Code::MessageTooLarge);
    assert_eq!(code(said(0)), Code::RequestMalformed);
    let unknown = Command::Broadcast {
        text: "x".into(),
        rooms: ids(&["", "b"]),
    };
    assert_eq!(code(world.ask("h", Role::Host, &unknown)), Code::RoomNotFound);
}

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

#[test]
fn listening_needs_a_room_with_people() {
    let mut world = World::new(vec![room("a"), closed(room("shut"))]);
    let mut listen = |id: &str| world.host(Command::Listen { room: id.into() });
    assert_eq!(listen("a"), Ok(Decision::default()));
    assert_eq!(code(listen("shut")), Code::RoomClosed);
    assert_eq!(code(listen("x")), Code::RoomNotFound);
}
