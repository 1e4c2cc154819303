//! Who may command, and the world that the other tests command in.

mod people;
mod rooms;

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
        (
            Command::Mute {
                identity: "bob".into(),
                track: None,
                on: true,
            },
            "mute",
        ),
        (
            Command::Unpublish {
                identity: "bob".into(),
                track: Some("TR_1".into()),
            },
            "unpublish",
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
fn listening_needs_a_room_with_people() {
    let mut world = World::new(vec![room("a"), closed(room("shut"))]);
    let mut listen = |id: &str| world.host(Command::Listen { room: id.into() });
    assert_eq!(listen("a"), Ok(Decision::default()));
    assert_eq!(code(listen("shut")), Code::RoomClosed);
    assert_eq!(code(listen("x")), Code::RoomNotFound);
}
