//! Random meetings: posts, attaches, lost gateways, lost streams and lost hubs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::room::Sids;

/// A gateway as far as the hub is concerned: its memory, and the stream it reads.
#[derive(Default)]
struct Gateway {
    id: Option<GatewayId>,
    tail: BTreeMap<u64, MeetingEntry>,
    standing: String,
    stream: VecDeque<Frame>,
    clients: Vec<usize>,
}

/// What one client has applied, and the text of it.
#[derive(Default)]
struct Client {
    last: u64,
    applied: Vec<(u64, String)>,
}

struct World {
    bench: Bench,
    epoch: u64,
    gateways: Vec<Gateway>,
    clients: Vec<Client>,
    next_id: u64,
    /// Content of each number, whoever saw it.
    meaning: BTreeMap<u64, String>,
    /// Texts that a gateway, still there when a hub was lost, was given.
    given: BTreeSet<String>,
    /// Texts that only gateways which are gone had.
    lost: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            bench: Bench::new(1),
            epoch: 1,
            gateways: Vec::new(),
            clients: Vec::new(),
            next_id: 1,
            meaning: BTreeMap::new(),
            given: BTreeSet::new(),
            lost: BTreeSet::new(),
        };
        for g in 0..3 {
            world.gateways.push(Gateway::default());
            for _ in 0..2 {
                world.gateways[g].clients.push(world.clients.len());
                world.clients.push(Client::default());
            }
            world.attach(g);
        }
        world
    }

    fn attach(&mut self, g: usize) {
        let id = GatewayId(self.next_id);
        self.next_id += 1;
        let gateway = &mut self.gateways[g];
        gateway.id = Some(id);
        gateway.stream.clear();
        let tail = gateway.tail.values().cloned().collect();
        let standing = gateway.standing.clone();
        self.bench.attach(id, tail, &standing);
        self.route();
    }

    /// What the hub has sent goes on its way to the gateways.
    fn route(&mut self) {
        for (id, frame) in std::mem::take(&mut self.bench.sent) {
            if let Some(gateway) = self.gateways.iter_mut().find(|g| g.id == Some(id)) {
                gateway.stream.push_back(frame);
            }
        }
    }

    fn read(&mut self, g: usize, frames: usize) {
        for _ in 0..frames {
            let Some(frame) = self.gateways[g].stream.pop_front() else {
                return;
            };
            match frame {
                Frame::Entry(entry) => self.give(g, &entry),
                Frame::StandingJson(json) => self.gateways[g].standing = json,
                _ => {}
            }
        }
    }

    fn give(&mut self, g: usize, entry: &MeetingEntry) {
        let said = self
            .meaning
            .entry(entry.seq)
            .or_insert_with(|| entry.signal_json.clone());
        assert_eq!(*said, entry.signal_json, "{} says two things", entry.seq);
        let gateway = &mut self.gateways[g];
        if let Some((last, _)) = gateway.tail.last_key_value() {
            assert!(entry.seq > *last, "{} after {last}", entry.seq);
        }
        gateway.tail.insert(entry.seq, entry.clone());
        self.given.insert(entry.signal_json.clone());
        for client in &gateway.clients {
            self.clients[*client].apply(entry);
        }
    }

    /// The stream breaks; what was on its way is lost.
    fn cut(&mut self, g: usize) {
        if let Some(id) = self.gateways[g].id.take() {
            self.bench.run(|hub, now, _| hub.detach(id, now));
        }
        self.gateways[g].stream.clear();
    }

    /// The gateway dies; its clients go to another and say what they have.
    fn kill(&mut self, g: usize) {
        self.cut(g);
        let clients = std::mem::take(&mut self.gateways[g].clients);
        self.gateways[g] = Gateway::default();
        self.attach(g);
        self.read(g, usize::MAX);
        for client in clients {
            for entry in self.gateways[g].tail.values() {
                self.clients[client].apply(entry);
            }
            self.gateways[g].clients.push(client);
        }
    }

    /// The worker dies; what gateways have not read is lost with it.
    fn lose_hub(&mut self) {
        for gateway in &mut self.gateways {
            gateway.stream.clear();
            gateway.id = None;
        }
        let known: BTreeSet<&String> = self
            .gateways
            .iter()
            .flat_map(|g| g.tail.values().map(|e| &e.signal_json))
            .collect();
        self.lost
            .extend(self.given.iter().filter(|t| !known.contains(t)).cloned());
        self.epoch += 1;
        let now = self.bench.now;
        self.bench = Bench::new(self.epoch);
        self.bench.now = now;
    }
}

impl Client {
    fn apply(&mut self, entry: &MeetingEntry) {
        if entry.seq > self.last {
            self.last = entry.seq;
            self.applied.push((entry.seq, entry.signal_json.clone()));
        }
    }
}

#[test]
fn numbers_rise_for_everyone_and_what_was_given_is_never_lost() {
    let (mut hubs_lost, mut gateways_lost, mut compared) = (0, 0, 0);
    for seed in 0..300 {
        let mut random = Sids::seeded(seed);
        let mut pick = move |below: u64| random.next_u64() % below;
        let mut world = World::new();
        let mut posted = 0;
        for _ in 0..120 {
            let g = pick(3) as usize;
            match pick(20) {
                0 => {
                    world.lose_hub();
                    hubs_lost += 1;
                    // All come back while the new hub listens, in whatever order.
                    let first = pick(3) as usize;
                    for g in 0..3 {
                        world.attach((first + g) % 3);
                    }
                }
                1 => {
                    world.cut(g);
                    world.attach(g);
                }
                2 => {
                    world.kill(g);
                    gateways_lost += 1;
                }
                3..10 => {
                    posted += 1;
                    world
                        .bench
                        .post(&broadcast(&format!("{seed}-{posted}")), &Audience::Everyone);
                    world.route();
                }
                10..13 => {
                    world.bench.pass(Duration::from_millis(pick(2_000)));
                    world.route();
                }
                _ => world.read(g, pick(5) as usize),
            }
        }
        world.bench.pass(LISTEN);
        world.route();
        for g in 0..3 {
            world.cut(g);
            world.attach(g);
            world.read(g, usize::MAX);
        }
        for client in &world.clients {
            for two in client.applied.windows(2) {
                assert!(two[0].0 < two[1].0);
            }
            let texts: BTreeSet<&String> = client.applied.iter().map(|(_, text)| text).collect();
            assert_eq!(texts.len(), client.applied.len(), "seed {seed}: told twice");
            for text in world.given.difference(&world.lost) {
                assert!(texts.contains(text), "seed {seed}: {text} was lost");
                compared += 1;
            }
        }
        let tails: BTreeSet<Vec<&u64>> = world.gateways.iter().map(|g| g.tail.keys().collect()).collect();
        assert_eq!(tails.len(), 1, "seed {seed}: gateways remember differently");
    }
    assert!(hubs_lost > 500 && gateways_lost > 500 && compared > 10_000);
}
