//! What must hold.

use std::collections::HashMap;

use plenum_crds::BreakoutDecisions;
use plenum_protocol::Notice;

use super::*;
use crate::mover::Output;
use crate::plan::Wish;

/// What each gateway told of each room: when it closes, and on whose word.
#[derive(Debug, Default)]
pub(super) struct Timers(HashMap<(usize, String), Told>);

#[derive(Debug, Clone, PartialEq)]
struct Told {
    closes_at: Option<i64>,
    generation: i64,
    created: i64,
    decision: Option<plenum_crds::RoomDecision>,
}

/// What was said about somebody and a room: both objects' words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    decided: Option<Room>,
    named: Room,
    room: Option<(i64, Option<i64>)>,
}

fn said(plan: &Plan, identity: &str, room: Option<&str>) -> Said {
    Said {
        decided: plan.decided(identity).map(|room| room.map(str::to_owned)),
        named: plan.named(identity).map(str::to_owned),
        room: room
            .and_then(|id| plan.room(id))
            .map(|room| (room.generation, room.epoch)),
    }
}

impl World {
    /// The client could not go there, or refused to: nothing more is expected until something is
    /// said anew.
    pub(super) fn excuse(&mut self, who: usize, to: Room) {
        let client = &self.clients[who];
        let plan = &self.gateways[client.gateway].plan;
        let said = said(plan, &client.identity, to.as_deref());
        self.clients[who].excused.insert(to, said);
    }

    /// After every event.
    pub(super) fn check(&self) {
        let mut seats: HashMap<usize, Vec<&Room>> = HashMap::new();
        for (room, hall) in &self.halls {
            let most = hall.limit.max(hall.before);
            assert!(
                hall.seats.len() <= most,
                "seed {}: {room:?} is over its limit",
                self.seed
            );
            for who in &hall.seats {
                seats.entry(*who).or_default().push(room);
            }
        }
        for (who, client) in self.clients.iter().enumerate() {
            let held = seats.remove(&who).unwrap_or_default();
            let expected = usize::from(client.state == State::Connected);
            assert_eq!(
                held.len(),
                expected,
                "seed {} at {}: {} is {:?} in {held:?}",
                self.seed,
                self.now - NOW,
                client.identity,
                client.state
            );
            assert!(
                !self.idles_in_a_closed_room(client),
                "seed {} at {}: {} idles in a closed room",
                self.seed,
                self.now - NOW,
                client.identity
            );
            assert_eq!(
                client.going.is_some(),
                client.mover.as_ref().is_some_and(Mover::is_going),
                "seed {}",
                self.seed
            );
        }
    }

    /// A gateway that knows that somebody's room is closed has always something under way for them.
    fn idles_in_a_closed_room(&self, client: &Client) -> bool {
        let Some(mover) = &client.mover else { return false };
        let plan = &self.gateways[client.gateway].plan;
        let knows = !self.is_down(client.gateway) && !plan.may_stay(mover.present(), self.now - 1);
        let acts = client.going.is_some() || client.notice.is_some() || client.excused.contains_key(&None);
        knows && !acts
    }

    /// What a mover says.
    pub(super) fn check_output(&mut self, who: usize, output: &Output) {
        let (seed, now) = (self.seed, self.now);
        let plan = self.gateways[self.clients[who].gateway].plan.clone();
        let client = &mut self.clients[who];
        if let Output::Notice(notice) = output {
            client.banner = matches!(notice, Notice::Moving { .. });
        }
        match output {
            Output::Notice(Notice::Moving {
                to, at, now: told, ..
            }) => {
                self.tally.notices += 1;
                assert!(
                    client.going.is_none() && *told == now && *at == now + 5_000,
                    "seed {seed}"
                );
                assert!(
                    to.as_deref().is_none_or(|id| plan.enterable(id, now)),
                    "seed {seed}: {to:?}"
                );
                client.notice = Some((to.clone(), *at));
                // It is tried again.
                client.excused.remove(to);
            }
            Output::Notice(Notice::NotMoving {}) => {
                self.tally.withdrawn += 1;
                assert!(
                    client.notice.take().is_some(),
                    "seed {seed}: called off what was not announced"
                );
            }
            Output::Notice(Notice::Moved { to, .. }) => {
                assert_eq!(
                    client.mover.as_ref().unwrap().present(),
                    to.as_deref(),
                    "seed {seed}"
                );
                client.notice = None;
                client.excused.remove(to);
            }
            Output::Notice(Notice::MoveFailed { to, landed, .. }) => {
                assert_ne!(to, landed, "seed {seed}");
                // Where they landed ends what was announced.
                client.notice.take_if(|(announced, _)| announced == landed);
                let to = to.clone();
                self.excuse(who, to);
            }
            Output::Notice(other) => panic!("seed {seed}: {other:?}"),
            Output::Go { to, quiet } => {
                assert!(client.going.is_none(), "seed {seed}: two moves at once");
                let notice = client.notice.take();
                if *quiet {
                    self.tally.quiet += 1;
                    let wished = client
                        .wished
                        .as_ref()
                        .is_some_and(|(room, at)| room == to && now <= at + 10_000);
                    let present = client.mover.as_ref().unwrap().present();
                    let closed = present
                        .and_then(|id| plan.room(id))
                        .is_some_and(|room| !room.deleting && !room.may_stay(now));
                    let homeless = !plan.may_stay(client.mover.as_ref().unwrap().present(), now);
                    let instead = homeless && to.is_none() && !client.excused.is_empty();
                    let again = client.excused.contains_key(to);
                    assert!(
                        wished || closed || again || instead,
                        "seed {seed}: {} goes to {to:?} without a word",
                        client.identity
                    );
                } else {
                    let (announced, at) = notice.unwrap();
                    assert!(announced == *to && now >= at, "seed {seed}");
                }
            }
            Output::Settled => assert!(client.going.is_none() && client.notice.is_none(), "seed {seed}"),
        }
    }

    pub(super) fn check_decisions(&self, decisions: &BreakoutDecisions) {
        let identities: HashSet<&str> = decisions.moves.iter().map(|one| one.identity.as_str()).collect();
        assert_eq!(
            identities.len(),
            decisions.moves.len(),
            "seed {}: somebody is named twice",
            self.seed
        );
        let rooms: HashSet<&str> = decisions.rooms.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            rooms.len(),
            decisions.rooms.len(),
            "seed {}: a room is named twice",
            self.seed
        );
    }

    /// A room never closes later than clients were told, but by a newer word.
    pub(super) fn check_timers(&mut self, gateway: usize) {
        let seen = self.gateways[gateway].seen.clone();
        let plan = self.gateways[gateway].plan.clone();
        let decisions = crate::plan::decisions(&seen.meeting);
        for room in &plan.rooms {
            let view = room.view(self.now);
            let told = Told {
                closes_at: view.closes_at,
                generation: room.generation,
                created: room.created,
                decision: decisions
                    .and_then(|all| all.rooms.iter().find(|one| one.name == room.id))
                    .filter(|one| one.generation == room.generation)
                    .cloned(),
            };
            let before = self
                .told_timers
                .0
                .insert((gateway, room.id.clone()), told.clone());
            let Some(before) = before else { continue };
            let same_word = (before.generation, before.created, &before.decision)
                == (told.generation, told.created, &told.decision);
            if let (true, Some(old), Some(new)) = (same_word, before.closes_at, told.closes_at) {
                assert!(
                    new <= old,
                    "seed {}: {} closes {} ms later than told",
                    self.seed,
                    room.id,
                    new - old
                );
            }
        }
    }

    /// When nothing has happened for long: everybody is where the rules put them.
    pub(super) fn check_settled(&self) {
        let seed = self.seed;
        let plan = self.objects.plan();
        for gateway in &self.gateways {
            assert_eq!(
                *gateway.plan, plan,
                "seed {seed}: a gateway has not seen everything"
            );
        }
        for id in self.halls.keys().flatten() {
            assert!(
                plan.may_stay(Some(id), self.now),
                "seed {seed}: {id} is closed and still held"
            );
        }
        let main_is_full = self
            .halls
            .get(&None)
            .is_none_or(|main| main.seats.len() >= main.limit);
        for (who, client) in self.clients.iter().enumerate() {
            let here = format!("seed {seed}: {}", client.identity);
            assert!(
                client.going.is_none() && client.notice.is_none() && !client.banner,
                "{here} is still on the move"
            );
            match client.state {
                State::Away => continue,
                State::Connected => {}
                State::Lost | State::Switching => {
                    assert!(main_is_full, "{here} is nowhere");
                    continue;
                }
            }
            let place = self.place_of(who).unwrap();
            assert_eq!(
                client.mover.as_ref().unwrap().present(),
                place.as_deref(),
                "{here}"
            );
            assert!(
                plan.may_stay(place.as_deref(), self.now),
                "{here} is in {place:?}, which is closed"
            );
            let belongs: Room = match plan.wish(&client.identity, self.now) {
                Wish::NoOpinion => continue,
                Wish::Main => None,
                Wish::Room(id) => Some(id),
            };
            let said = said(&plan, &client.identity, belongs.as_deref());
            let excused = client.excused.get(&belongs) == Some(&said);
            assert!(
                place == belongs || excused,
                "{here} is in {place:?} and belongs in {belongs:?}"
            );
        }
    }
}

impl Tally {
    fn fields(&mut self) -> [(&'static str, &mut u32); 13] {
        [
            ("transfers", &mut self.transfers),
            ("switches", &mut self.switches),
            ("failures", &mut self.failures),
            ("full", &mut self.full),
            ("relocations", &mut self.relocations),
            ("notices", &mut self.notices),
            ("withdrawn", &mut self.withdrawn),
            ("quiet", &mut self.quiet),
            ("conflicts", &mut self.conflicts),
            ("refusals", &mut self.refusals),
            ("worker crashes", &mut self.worker_crashes),
            ("gateway crashes", &mut self.gateway_crashes),
            ("fallbacks", &mut self.fallbacks),
        ]
    }

    pub(super) fn add(&mut self, other: &Tally) {
        let mut other = *other;
        for ((_, sum), (_, one)) in self.fields().into_iter().zip(other.fields()) {
            *sum += *one;
        }
    }

    pub(super) fn assert_eventful(&mut self) {
        println!("{self:?}");
        for (what, count) in self.fields() {
            assert!(*count > 0, "{what} happened {count} times only");
        }
    }
}
