//! Gateways: movers, joins, and what they write on people's behalf.

use plenum_crds::{BreakoutDecisions, MADE_IN_MEETING_LABEL};
use plenum_protocol::Command;

use super::*;
use crate::decide::{Actor, Decision, Scene, auto_assign, decide, pruned};
use crate::mover::{Input, Output};
use crate::plan::Wish;
use crate::testing::{at, with};

/// Who asks for a write.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Person {
        who: usize,
        command: Command,
    },
    /// People without a place in mode automatic.
    Automatic,
    /// What was superseded is to be forgotten.
    Prune,
}

/// A write under way: decided on a Meeting of some version.
#[derive(Debug, Clone)]
pub(super) struct Write {
    gateway: usize,
    ask: Ask,
    version: u64,
    decision: Decision,
    tries: u32,
}

impl World {
    pub(super) fn seen(&mut self, gateway: usize, objects: Arc<Objects>) {
        if objects.version <= self.gateways[gateway].seen.version {
            return;
        }
        let plan = Arc::new(objects.plan());
        self.gateways[gateway].seen = objects;
        self.gateways[gateway].plan = plan.clone();
        if self.is_down(gateway) {
            return;
        }
        self.check_timers(gateway);
        for who in 0..self.clients.len() {
            if self.clients[who].gateway == gateway {
                self.feed(who, Input::Plan(plan.clone()));
            }
        }
        let housekeeping = if self.chance(2) {
            Ask::Automatic
        } else {
            Ask::Prune
        };
        self.ask(gateway, housekeeping, 0);
    }

    pub(super) fn is_down(&self, gateway: usize) -> bool {
        self.now < self.gateways[gateway].down_until
    }

    fn live_gateway(&mut self) -> Option<usize> {
        let live: Vec<usize> = (0..self.gateways.len())
            .filter(|one| !self.is_down(*one))
            .collect();
        (!live.is_empty()).then(|| live[self.dice.below(live.len())])
    }

    /// Decides on the Meeting as it is, and sends the write.
    pub(super) fn ask(&mut self, gateway: usize, ask: Ask, tries: u32) {
        if self.is_down(gateway) || tries > 5 {
            return;
        }
        // The Meeting is read anew for a write; the rooms are those of the watch.
        let meeting = self.objects.meeting.clone();
        let seen = self.gateways[gateway].seen.clone();
        let plan = Plan::of(&meeting, seen.rooms.values());
        let people = self.people();
        let scene = Scene {
            plan: &plan,
            meeting: &meeting,
            people: &people,
            taken: &self.taken,
            now: self.now,
            seed: self.seed,
        };
        let only = |decisions: Option<BreakoutDecisions>| Decision {
            decisions,
            ..Decision::default()
        };
        let decided = match &ask {
            Ask::Automatic => auto_assign(&scene).map(only),
            Ask::Prune => Ok(only(pruned(&meeting, &plan))),
            Ask::Person { who, command } => {
                let client = &self.clients[*who];
                let who = Actor {
                    identity: client.identity.clone(),
                    role: client.role,
                    room: self.place_of(*who).flatten(),
                };
                decide(command, &who, &scene)
            }
        };
        let decision = match decided {
            Ok(decision) => decision,
            Err(_) => {
                self.tally.refusals += 1;
                return;
            }
        };
        if let (Ask::Person { who, command }, 0) = (&ask, tries) {
            if matches!(command, Command::CancelMove {}) {
                let announced = self.clients[*who].notice.clone();
                self.feed(*who, Input::Cancelled);
                if let (Some((to, _)), None) = (announced, &self.clients[*who].notice) {
                    self.excuse(*who, to);
                }
            } else if self.chance(2) {
                self.expect(*who, &decision);
            }
        }
        let write = Box::new(Write {
            gateway,
            ask,
            version: self.objects.version,
            decision,
            tries,
        });
        let lag = self.lag(5, 150);
        self.at(lag, Event::Write { write });
    }

    fn expect(&mut self, who: usize, decision: &Decision) {
        if let Some(to) = &decision.expect {
            self.clients[who].wished = Some((to.clone(), self.now));
            self.feed(who, Input::Expect(to.clone()));
        }
    }

    pub(super) fn write(&mut self, write: Write) {
        if self.is_down(write.gateway) {
            return;
        }
        let decision = &write.decision;
        if *decision == Decision::default() {
            return;
        }
        let taken = decision
            .new_rooms
            .iter()
            .find(|draft| self.objects.rooms.contains_key(&draft.name));
        if let Some(draft) = taken {
            self.taken.insert(draft.name.clone());
            return self.ask(write.gateway, write.ask, write.tries + 1);
        }
        if decision.decisions.is_some() && self.objects.version != write.version {
            self.tally.conflicts += 1;
            return self.ask(write.gateway, write.ask, write.tries + 1);
        }
        if let Some(decisions) = &decision.decisions {
            self.check_decisions(decisions);
            self.objects.meeting = with(self.objects.meeting.clone(), decisions.clone());
        }
        for draft in &decision.new_rooms {
            self.create(&draft.name, draft.spec.clone(), true);
        }
        for name in &decision.remove {
            self.delete(name);
        }
        self.changed();
        if let Ask::Person { who, .. } = write.ask {
            let decision = write.decision.clone();
            self.expect(who, &decision);
        }
    }

    pub(super) fn create(&mut self, name: &str, spec: plenum_crds::BreakoutRoomSpec, made_here: bool) {
        let mut room = BreakoutRoom::new(name, spec);
        room.metadata.namespace = Some("demo".into());
        room.metadata.generation = Some(1);
        room.metadata.creation_timestamp = Some(at(self.now.div_euclid(1_000) * 1_000));
        if made_here {
            let label = (MADE_IN_MEETING_LABEL.to_owned(), "true".to_owned());
            room.metadata.labels = Some(BTreeMap::from([label]));
        }
        self.objects.rooms.insert(name.to_owned(), room);
    }

    pub(super) fn delete(&mut self, name: &str) {
        if let Some(room) = self.objects.rooms.get_mut(name) {
            room.metadata.deletion_timestamp.get_or_insert(at(self.now));
        }
    }

    /// A client comes in at some gateway.
    pub(super) fn enter(&mut self, who: usize, life: u64, sent_to: Option<Room>) {
        if self.clients[who].life != life || self.clients[who].state == State::Connected {
            return;
        }
        let Some(gateway) = self.live_gateway() else {
            return self.at(500, Event::Enter { who, life, sent_to });
        };
        let plan = self.gateways[gateway].plan.clone();
        let target: Room = match (sent_to, plan.wish(&self.clients[who].identity, self.now)) {
            (Some(room), _) => room,
            (None, Wish::Room(id)) if plan.enterable(&id, self.now) => Some(id),
            (None, _) => None,
        };
        let epoch = target
            .as_deref()
            .and_then(|id| plan.room(id))
            .and_then(|room| room.epoch);
        let mut refused = None;
        let mut entered = self.sit(who, &target, epoch).map(|()| target.clone());
        if let (Err(code), Some(_)) = (&entered, &target) {
            self.tally.fallbacks += 1;
            refused = Some((target.clone(), *code));
            entered = self.sit(who, &None, None).map(|()| None);
        }
        let client = &mut self.clients[who];
        match entered {
            Ok(room) => {
                client.state = State::Connected;
                client.gateway = gateway;
                self.start_mover(who, room);
                if let Some((to, code)) = refused {
                    self.feed(who, Input::Refused(to, code));
                }
                self.ask(gateway, Ask::Automatic, 0);
            }
            // Neither is there a place in the main room, nor another worker for it yet.
            Err(_) => {
                client.state = State::Lost;
                self.at(
                    2_000,
                    Event::Enter {
                        who,
                        life,
                        sent_to: None,
                    },
                );
            }
        }
    }

    pub(super) fn start_mover(&mut self, who: usize, room: Room) {
        let client = &mut self.clients[who];
        let mut mover = Mover::new(client.identity.clone(), room);
        mover.set_host(client.role >= Role::Cohost);
        client.next_life();
        client.mover = Some(mover);
        let plan = self.gateways[client.gateway].plan.clone();
        self.feed(who, Input::Plan(plan));
    }

    pub(super) fn resume(&mut self, who: usize, life: u64) {
        if self.clients[who].life != life {
            return;
        }
        let (Some(room), Some(gateway)) = (self.place_of(who), self.live_gateway()) else {
            return self.at(500, Event::Resume { who, life });
        };
        self.clients[who].gateway = gateway;
        self.start_mover(who, room);
    }

    pub(super) fn tick(&mut self, who: usize, life: u64) {
        if self.clients[who].life == life {
            self.feed(who, Input::Tick);
        }
    }

    pub(super) fn relocated(&mut self, who: usize, life: u64) {
        if self.clients[who].life == life {
            self.feed(who, Input::Relocated(None));
        }
    }

    pub(super) fn answer(&mut self, who: usize, life: u64, outcome: Result<Room, Code>) {
        if self.clients[who].life != life {
            return;
        }
        let going = self.clients[who].going.take();
        assert!(going.is_some(), "seed {}: an answer to no question", self.seed);
        if let (Err(_), Some(to)) = (&outcome, going) {
            self.tally.failures += 1;
            self.excuse(who, to);
        }
        self.feed(who, Input::Done(outcome));
    }

    /// The client leaves its worker for another, where a place is kept.
    pub(super) fn switch(&mut self, who: usize, life: u64, to: Room) {
        if self.clients[who].life != life {
            // The session was lost meanwhile; the place is kept in vain.
            return;
        }
        self.tally.switches += 1;
        self.stand_up(who);
        let client = &mut self.clients[who];
        let life = client.next_life();
        if !self.calm && self.chance(20) {
            self.clients[who].state = State::Away;
            return;
        }
        self.clients[who].state = State::Switching;
        let lag = self.lag(50, 1_500);
        self.at(
            lag,
            Event::Enter {
                who,
                life,
                sent_to: Some(to),
            },
        );
    }

    pub(super) fn feed(&mut self, who: usize, input: Input) {
        let now = self.now;
        let Some(mover) = self.clients[who].mover.as_mut() else {
            return;
        };
        let outputs = mover.step(now, input);
        let deadline = mover.deadline();
        if let Some(at) = deadline {
            assert!(at > now, "seed {}: a deadline in the past", self.seed);
            if self.clients[who].tick_at != at {
                self.clients[who].tick_at = at;
                let life = self.clients[who].life;
                self.at(at - now, Event::Tick { who, life });
            }
        }
        for output in outputs {
            self.check_output(who, &output);
            if let Output::Go { to, .. } = output {
                self.go(who, to);
            }
        }
    }

    fn go(&mut self, who: usize, to: Room) {
        self.clients[who].going = Some(to.clone());
        let life = self.clients[who].life;
        let lag = self.lag(1, 100);
        let plan = self.gateways[self.clients[who].gateway].plan.clone();
        let from = self
            .place_of(who)
            .and_then(|room| self.halls.get(&room))
            .map(|hall| hall.worker);
        let target = match to.as_deref() {
            None => self.halls.get(&None).map(|hall| (hall.worker, hall.epoch)),
            Some(id) => plan
                .room(id)
                .and_then(|room| Some((room.worker_uid.as_ref()?.parse().unwrap(), room.epoch?))),
        };
        let event = match (from, target) {
            (Some(from), Some((worker, epoch))) if from == worker => Event::Transfer { who, life, to, epoch },
            (Some(_), Some((_, epoch))) => Event::Reserve { who, life, to, epoch },
            _ => Event::Answer {
                who,
                life,
                outcome: Err(Code::RoomNotFound),
            },
        };
        self.at(lag, event);
    }

    pub(super) fn crash_gateway(&mut self, gateway: usize) {
        self.tally.gateway_crashes += 1;
        self.gateways[gateway].down_until = self.now + 3_000;
        for who in 0..self.clients.len() {
            let client = &mut self.clients[who];
            if client.gateway == gateway && client.state == State::Connected {
                let life = client.next_life();
                let lag = self.lag(300, 1_500);
                self.at(lag, Event::Resume { who, life });
            }
        }
    }
}

impl Client {
    /// Another session, or none: what was under way is nobody's any more.
    pub(super) fn next_life(&mut self) -> u64 {
        self.life += 1;
        self.tick_at = 0;
        self.mover = None;
        self.going = None;
        self.notice = None;
        self.banner = false;
        self.excused.clear();
        self.life
    }
}
