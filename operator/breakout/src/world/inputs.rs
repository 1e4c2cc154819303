//! What happens from outside: hosts, people, Git, crashes.

use plenum_crds::{BreakoutAssignment, BreakoutRoomSpec, Duration, MeetingRef, MeetingSpec};
use plenum_protocol::{Command, How, Mode, NewRoom, Placement};

use super::gateway::Ask;
use super::*;
use crate::testing::at;

const PEOPLE: usize = 10;

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed);
        let mut meeting = Meeting::new("standup", MeetingSpec::default());
        meeting.metadata.namespace = Some("demo".into());
        meeting.metadata.generation = Some(1);
        let breakouts = &mut meeting.spec.breakouts;
        breakouts.assignment = match dice.below(3) {
            0 => BreakoutAssignment::Automatic,
            1 => BreakoutAssignment::SelfSelect,
            _ => BreakoutAssignment::Manual,
        };
        breakouts.allow_cancel = dice.below(2) == 0;
        breakouts.closing_countdown = Duration::from_secs([0, 10, 30][dice.below(3)]);
        // Now and then not everybody fits into the main room.
        meeting.spec.max_participants = if dice.below(4) == 0 { 8 } else { 100 };
        let objects = Objects {
            version: 1,
            meeting,
            rooms: BTreeMap::new(),
        };
        let gateway = || Gateway {
            seen: Arc::new(objects.clone()),
            plan: Arc::new(objects.plan()),
            down_until: 0,
        };
        let client = |n: usize| Client {
            identity: if n == 0 { "host".into() } else { format!("p{n}") },
            role: if n == 0 { Role::Host } else { Role::Participant },
            state: State::Away,
            life: 0,
            gateway: 0,
            mover: None,
            going: None,
            notice: None,
            banner: false,
            wished: None,
            excused: BTreeMap::new(),
            since: 0,
            tick_at: 0,
        };
        let mut world = World {
            seed,
            dice,
            now: NOW,
            calm: false,
            sturdy: seed.is_multiple_of(2),
            queue: BTreeMap::new(),
            events: 0,
            gateways: vec![gateway(), gateway()],
            clients: (0..PEOPLE).map(client).collect(),
            objects,
            main_epoch: 1,
            halls: BTreeMap::new(),
            workers: 3,
            controller_down_until: 0,
            looks: BTreeSet::new(),
            taken: HashSet::new(),
            made: 0,
            told_timers: checks::Timers::default(),
            tally: Tally::default(),
        };
        world.at(0, Event::Told { room: None, epoch: 1 });
        world.at(10, Event::Input);
        for who in 0..PEOPLE {
            let lag = world.lag(100, 5_000);
            world.at(
                lag,
                Event::Enter {
                    who,
                    life: 0,
                    sent_to: None,
                },
            );
        }
        world
    }

    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        self.controller_down_until = 0;
        self.look_at(self.now + 1);
    }

    pub(super) fn input(&mut self) {
        if self.calm {
            return;
        }
        let next = self.lag(100, 4_000);
        self.at(next, Event::Input);
        match self.dice.below(if self.sturdy { 16 } else { 20 }) {
            0..=8 => self.person_asks(),
            9..=13 => self.git_says(),
            14..=15 => self.comes_or_goes(),
            16 => {
                let worker = self.dice.below(self.workers);
                self.crash_worker(worker);
            }
            17 => {
                let gateway = self.dice.below(self.gateways.len());
                self.crash_gateway(gateway);
            }
            18 => self.controller_down_until = self.now + 8_000,
            _ => {
                let worker = self.halls.get(&None).map_or(0, |hall| hall.worker);
                self.crash_worker(worker);
            }
        }
    }

    fn comes_or_goes(&mut self) {
        let who = 1 + self.dice.below(PEOPLE - 1);
        let state = self.clients[who].state;
        let life = self.clients[who].next_life();
        match state {
            State::Away => {
                self.clients[who].state = State::Lost;
                self.at(
                    1,
                    Event::Enter {
                        who,
                        life,
                        sent_to: None,
                    },
                );
            }
            State::Connected | State::Lost | State::Switching => {
                self.stand_up(who);
                self.clients[who].state = State::Away;
            }
        }
    }

    fn some_room(&mut self) -> Option<String> {
        let names: Vec<String> = self.objects.rooms.keys().cloned().collect();
        (!names.is_empty()).then(|| names[self.dice.below(names.len())].clone())
    }

    fn some_person(&mut self) -> String {
        let who = self.dice.below(PEOPLE);
        self.clients[who].identity.clone()
    }

    fn some_people(&mut self, most: usize) -> Vec<String> {
        let count = self.dice.below(most + 1);
        let people: BTreeSet<String> = (0..count).map(|_| self.some_person()).collect();
        people.into_iter().collect()
    }

    fn person_asks(&mut self) {
        let host = self.dice.below(3) > 0;
        let who = if host { 0 } else { 1 + self.dice.below(PEOPLE - 1) };
        if self.clients[who].mover.is_none() {
            return;
        }
        let command = if host {
            self.host_command()
        } else {
            self.own_command()
        };
        if let Some(command) = command {
            let gateway = self.clients[who].gateway;
            self.ask(gateway, Ask::Person { who, command }, 0);
        }
    }

    fn own_command(&mut self) -> Option<Command> {
        Some(match self.dice.below(4) {
            0 => Command::ReturnToMain {},
            1 => Command::CancelMove {},
            _ => Command::ChooseRoom {
                room: self.some_room()?,
            },
        })
    }

    fn host_command(&mut self) -> Option<Command> {
        let some_rooms = |world: &mut World| {
            if world.chance(2) {
                Vec::new()
            } else {
                world.some_room().into_iter().collect()
            }
        };
        let how = if self.chance(2) { How::Even } else { How::Random };
        let duration = (self.chance(2)).then(|| 5 + u32::try_from(self.dice.below(40)).unwrap());
        Some(match self.dice.below(12) {
            0 | 1 if self.objects.rooms.len() < 6 => Command::CreateRooms {
                rooms: (0..1 + self.dice.below(3))
                    .map(|_| NewRoom {
                        max_participants: self.some_limit(),
                        ..NewRoom::default()
                    })
                    .collect(),
                mode: self.chance(3).then_some(Mode::Automatic),
                how,
                duration,
                open: !self.chance(3),
            },
            0..=2 => Command::RemoveRoom {
                room: self.some_room()?,
            },
            3 => Command::OpenRooms {
                rooms: some_rooms(self),
                duration,
            },
            4 => Command::CloseRooms {
                rooms: some_rooms(self),
                countdown: [None, Some(0), Some(10), Some(20)][self.dice.below(4)],
            },
            5 => Command::Extend { seconds: 7 },
            6 | 7 => {
                let room = if self.chance(4) { None } else { self.some_room() };
                let moves = self.some_people(4).into_iter().map(|identity| Placement {
                    identity,
                    room: room.clone(),
                });
                Command::Assign {
                    moves: moves.collect(),
                }
            }
            8 => Command::Shuffle { how },
            9 => Command::Settings {
                mode: Some([Mode::Automatic, Mode::SelfSelect, Mode::Manual][self.dice.below(3)]),
                allow_return_to_main: Some(self.chance(2)),
                allow_cancel: Some(self.chance(2)),
            },
            10 => Command::ChooseRoom {
                room: self.some_room()?,
            },
            _ => Command::RenameRoom {
                room: self.some_room()?,
                title: format!("Title {}", self.events),
            },
        })
    }

    fn some_limit(&mut self) -> Option<u32> {
        [None, Some(2), Some(4)][self.dice.below(3)]
    }

    fn git_says(&mut self) {
        if self.objects.rooms.len() < 5 && self.chance(3) {
            self.made += 1;
            let name = format!("git-{}", self.made);
            let spec = BreakoutRoomSpec {
                meeting_ref: MeetingRef {
                    name: "standup".into(),
                },
                title: None,
                max_participants: self.some_limit(),
                participants: self.some_people(2),
                close_after: None,
                close_at: None,
                open: !self.chance(3),
            };
            self.create(&name, spec, false);
            return self.changed();
        }
        let Some(name) = self.some_room() else { return };
        if self.chance(8) {
            self.delete(&name);
            return self.changed();
        }
        let (people, limit) = (self.some_people(2), self.some_limit());
        let seconds = 3 + self.dice.below(40) as i64;
        let which = self.dice.below(6);
        let time = at((self.now.div_euclid(1_000) + seconds) * 1_000);
        let room = self.objects.rooms.get_mut(&name).unwrap();
        let spec = &mut room.spec;
        let before = spec.clone();
        match which {
            0 => spec.open = !spec.open,
            1 | 2 => spec.participants = people,
            3 => spec.max_participants = limit,
            4 => {
                spec.close_after = None;
                spec.close_at = Some(time);
            }
            _ => {
                spec.close_at = None;
                spec.close_after = Some(Duration::from_secs(u64::try_from(seconds).unwrap()));
            }
        }
        if *spec != before {
            *room.metadata.generation.as_mut().unwrap() += 1;
            self.changed();
        }
    }
}
