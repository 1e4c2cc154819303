//! A whole meeting in virtual time, with everything going wrong.
//!
//! A model of the parts around the pure ones: an API server with versions, gateways that see it late
//! and run [`Mover`]s, a controller that lags, workers with limits that crash. Hosts command through
//! [`decide`], others edit specs, people come, go, choose and refuse. What must hold is checked after
//! every event; when all of that stops, everybody must end where the rules put them.

mod checks;
mod controller;
mod gateway;
mod inputs;
mod workers;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use plenum_crds::{BreakoutRoom, Meeting};
use plenum_errors::Code;
use plenum_token::Role;

use crate::assign::Dice;
use crate::decide::Present;
use crate::mover::Mover;
use crate::plan::Plan;
use crate::testing::NOW;

/// How long things go wrong.
const TROUBLE_MS: i64 = 120_000;
/// How long it may take after that until everybody is in their place: timers, countdowns, notices.
const SETTLE_MS: i64 = 400_000;

/// A room; `None` = the main room.
type Room = Option<String>;

#[derive(Debug, Clone)]
enum Event {
    /// A gateway's watch brings the objects of that version.
    Seen { gateway: usize, objects: Arc<Objects> },
    /// The controller looks at everything.
    Reconcile,
    /// A worker has been told of a room under that epoch.
    Told { room: Room, epoch: i64 },
    /// A mover's deadline.
    Tick { who: usize, life: u64 },
    /// A client reaches a gateway: anew, or on the way to the room it was sent to.
    Enter {
        who: usize,
        life: u64,
        sent_to: Option<Room>,
    },
    /// A client whose gateway died finds another; its session lives on.
    Resume { who: usize, life: u64 },
    /// Move reaches the worker.
    Transfer {
        who: usize,
        life: u64,
        to: Room,
        epoch: i64,
    },
    /// Reserve reaches the other worker.
    Reserve {
        who: usize,
        life: u64,
        to: Room,
        epoch: i64,
    },
    /// The answer to either reaches the gateway.
    Answer {
        who: usize,
        life: u64,
        outcome: Result<Room, Code>,
    },
    /// The place on the other worker is kept: the client is sent there.
    Switch { who: usize, life: u64, to: Room },
    /// The worker says that it brought the client to the main room.
    Relocated { who: usize, life: u64 },
    /// A gateway writes what it decided on a Meeting of that version.
    Write { write: Box<gateway::Write> },
    /// Something happens from outside.
    Input,
}

/// What the API server holds.
#[derive(Debug, Clone)]
struct Objects {
    version: u64,
    meeting: Meeting,
    rooms: BTreeMap<String, BreakoutRoom>,
}

impl Objects {
    fn plan(&self) -> Plan {
        Plan::of(&self.meeting, self.rooms.values())
    }
}

/// A room as a worker holds it.
#[derive(Debug, Clone)]
struct Hall {
    worker: usize,
    epoch: i64,
    limit: usize,
    /// How many were in it when the limit was lowered: nobody is sent out for that.
    before: usize,
    seats: BTreeSet<usize>,
    /// Who is on the way, and until when the place is kept.
    kept: BTreeMap<usize, i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not in the meeting.
    Away,
    /// In it, with a session in some hall.
    Connected,
    /// Between two workers, with a place kept on one.
    Switching,
    /// Without a session, about to come again.
    Lost,
}

struct Client {
    identity: String,
    role: Role,
    state: State,
    /// Rises with each session; what belongs to an older one is ignored.
    life: u64,
    gateway: usize,
    mover: Option<Mover>,
    going: Option<Room>,
    /// The notice that stands: where to, and when.
    notice: Option<(Room, i64)>,
    /// The client shows that it is about to be moved.
    banner: bool,
    /// Where they chose to go, and when.
    wished: Option<(Room, i64)>,
    /// Where they could not go or refused to, and what was said by then.
    excused: BTreeMap<Room, checks::Said>,
    since: i64,
    /// The tick that is due next.
    tick_at: i64,
}

struct Gateway {
    seen: Arc<Objects>,
    plan: Arc<Plan>,
    down_until: i64,
}

/// What happened at all: a world in which nothing happens proves nothing.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    transfers: u32,
    switches: u32,
    failures: u32,
    full: u32,
    relocations: u32,
    notices: u32,
    withdrawn: u32,
    quiet: u32,
    conflicts: u32,
    refusals: u32,
    worker_crashes: u32,
    gateway_crashes: u32,
    fallbacks: u32,
}

struct World {
    seed: u64,
    dice: Dice,
    now: i64,
    /// Nothing more goes wrong.
    calm: bool,
    /// Workers and gateways live for ever.
    sturdy: bool,
    queue: BTreeMap<(i64, u64), Event>,
    events: u64,
    objects: Objects,
    /// Epochs of the main room and of rooms that were deleted.
    main_epoch: i64,
    gateways: Vec<Gateway>,
    clients: Vec<Client>,
    halls: BTreeMap<Room, Hall>,
    workers: usize,
    controller_down_until: i64,
    /// When the controller looks again.
    looks: BTreeSet<i64>,
    taken: HashSet<String>,
    made: u32,
    told_timers: checks::Timers,
    tally: Tally,
}

impl World {
    fn at(&mut self, delay: i64, event: Event) {
        self.events += 1;
        self.queue.insert((self.now + delay, self.events), event);
    }

    /// Some time of that order.
    fn lag(&mut self, from: i64, to: i64) -> i64 {
        from + self.dice.below(usize::try_from(to - from).unwrap()) as i64
    }

    /// Once in so many times.
    fn chance(&mut self, one_in: usize) -> bool {
        self.dice.below(one_in) == 0
    }

    fn run(&mut self, until: i64) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.handle(event);
            self.check();
        }
        self.now = until;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Seen { gateway, objects } => self.seen(gateway, objects),
            Event::Reconcile => self.reconcile(),
            Event::Told { room, epoch } => self.told(room, epoch),
            Event::Tick { who, life } => self.tick(who, life),
            Event::Enter { who, life, sent_to } => self.enter(who, life, sent_to),
            Event::Resume { who, life } => self.resume(who, life),
            Event::Transfer { who, life, to, epoch } => self.transfer(who, life, to, epoch),
            Event::Reserve { who, life, to, epoch } => self.reserve(who, life, to, epoch),
            Event::Answer { who, life, outcome } => self.answer(who, life, outcome),
            Event::Switch { who, life, to } => self.switch(who, life, to),
            Event::Relocated { who, life } => self.relocated(who, life),
            Event::Write { write } => self.write(*write),
            Event::Input => self.input(),
        }
    }

    /// The objects changed: everybody will hear of it, each in their time.
    fn changed(&mut self) {
        self.objects.version += 1;
        let objects = Arc::new(self.objects.clone());
        for gateway in 0..self.gateways.len() {
            let lag = self.lag(5, 600);
            self.at(
                lag,
                Event::Seen {
                    gateway,
                    objects: objects.clone(),
                },
            );
        }
        let lag = self.lag(10, 500);
        self.look_at(self.now + lag);
    }

    fn look_at(&mut self, time: i64) {
        if self.looks.insert(time) {
            self.at(time - self.now, Event::Reconcile);
        }
    }

    fn place_of(&self, who: usize) -> Option<Room> {
        self.halls
            .iter()
            .find(|(_, hall)| hall.seats.contains(&who))
            .map(|(room, _)| room.clone())
    }

    fn people(&self) -> Vec<Present> {
        self.clients
            .iter()
            .enumerate()
            .filter_map(|(who, client)| {
                Some(Present {
                    identity: client.identity.clone(),
                    name: client.identity.clone(),
                    role: client.role,
                    room: self.place_of(who)?,
                    since: client.since,
                })
            })
            .collect()
    }
}

fn play(seed: u64) -> Tally {
    let mut world = World::new(seed);
    world.run(NOW + TROUBLE_MS);
    world.calm_down();
    world.run(NOW + TROUBLE_MS + SETTLE_MS);
    world.check_settled();
    world.tally
}

#[test]
fn everybody_has_one_place_whatever_happens() {
    let mut all = Tally::default();
    for seed in 0..SEEDS {
        let one = play(seed);
        all.add(&one);
    }
    all.assert_eventful();
}

/// Each is a whole meeting.
const SEEDS: u64 = 60;
