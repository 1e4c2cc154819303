use std::collections::BTreeMap;

use super::super::placement::{Limits, Obstacle, Placement, Worker, place};
use super::*;

/// A cluster in memory: workers, who is where, and what is expected of the rooms.
struct Play {
    limits: Limits,
    workers: Vec<&'static str>,
    holders: HashMap<String, String>,
    present: HashMap<String, u32>,
    expected: HashMap<String, u32>,
}

impl Play {
    fn new(workers: &[&'static str], participants: u32, rooms: u32) -> Self {
        Self {
            limits: Limits {
                rooms,
                participants,
                egress_mbps: 1000,
            },
            workers: workers.to_vec(),
            holders: HashMap::new(),
            present: HashMap::new(),
            expected: HashMap::new(),
        }
    }

    fn put(&mut self, room: &str, worker: &str, present: u32) {
        self.holders.insert(room.to_owned(), worker.to_owned());
        self.present.insert(room.to_owned(), present);
    }

    fn present(&self, uid: &str, room: &str) -> u32 {
        let here = self.holders.get(room).is_some_and(|holder| holder == uid);
        if here { self.present[room] } else { 0 }
    }

    fn crowd(&self) -> Crowd {
        Crowd::new(
            &self.holders,
            |room| self.expected.get(room).copied().unwrap_or(0),
            |uid, room| self.present(uid, room),
        )
    }

    fn live(&self, uid: &str) -> u32 {
        let here = self.holders.iter().filter(|(_, holder)| *holder == uid);
        here.map(|(room, _)| self.present[room]).sum()
    }

    /// Places a room as the controller does.
    fn place(&mut self, room: &str, people: u32, home: Option<&str>) -> Placement {
        let crowd = self.crowd();
        let workers: Vec<Worker> = self
            .workers
            .iter()
            .map(|name| {
                let (load, participants) = (crowd.load(name), self.live(name));
                Worker {
                    namespace: "plenum".into(),
                    name: (*name).into(),
                    uid: (*name).into(),
                    accepting: true,
                    rooms: load.rooms,
                    participants,
                    expected: (participants + load.coming).saturating_sub(load.leaving),
                    peak: participants + load.reserve,
                    egress_mbps: 0,
                    cpu_permille: 0,
                    limits: self.limits,
                }
            })
            .collect();
        let newcomer = crowd.newcomer(room, people, home, |uid, room| self.present(uid, room));
        let placement = place(None, 0, &workers, newcomer);
        if let Placement::Assign(to) = &placement {
            self.put(room, &to.worker_uid, 0);
            self.expected.insert(room.to_owned(), people);
        }
        placement
    }

    /// Places as many rooms of the meeting `n/m` at once; how many people are to be on each worker.
    fn burst(&mut self, rooms: u32, people: u32, home: Option<&str>) -> BTreeMap<String, (u32, u32)> {
        let mut all: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for room in 0..rooms {
            let placement = self.place(&format!("n/m/r{room}"), people, home);
            let Placement::Assign(to) = placement else {
                panic!("room {room}: {placement:?}")
            };
            let (rooms, expected) = all.entry(to.worker).or_default();
            *rooms += 1;
            *expected += people;
        }
        all
    }
}

fn assert_even(all: &BTreeMap<String, (u32, u32)>, workers: usize, capacity: u32, slack: u32) {
    assert_eq!(all.len(), workers, "{all:?}");
    let people: Vec<u32> = all.values().map(|(_, people)| *people).collect();
    let (least, most) = (people.iter().min().copied(), people.iter().max().copied());
    assert!(
        most <= least.map(|least| least + slack) && most <= Some(capacity),
        "{all:?}"
    );
}

#[test]
fn two_hundred_rooms_of_ten_are_spread_evenly_before_anybody_comes() {
    let mut play = Play::new(&["a", "b", "c"], 1000, 100);
    let all = play.burst(200, 10, None);
    assert_even(&all, 3, 1000, 10);
    let mut again = Play::new(&["a", "b", "c"], 1000, 100);
    assert_eq!(again.burst(200, 10, None), all, "the same twice");

    // With the main room on one of them that one takes a little more: 50 permille of its capacity.
    let mut play = Play::new(&["a", "b", "c"], 1000, 1000);
    play.put("n/m", "b", 0);
    let all = play.burst(200, 10, Some("b"));
    assert_even(&all, 3, 1000, 60);
    assert!(all["b"].1 > all["a"].1, "{all:?}");
}

#[test]
fn people_of_the_main_room_are_counted_once() {
    // Nine hundred people go from the main room to ninety rooms: a third each, though the worker of
    // the main room looks nearly full at first.
    let mut play = Play::new(&["a", "b", "c"], 1000, 1000);
    play.put("n/m", "a", 900);
    let all = play.burst(90, 10, Some("a"));
    assert_even(&all, 3, 1000, 110);
    // One worker alone can hold them all as well, because they are on it already.
    let mut play = Play::new(&["a"], 1000, 1000);
    play.put("n/m", "a", 900);
    assert_even(&play.burst(90, 10, Some("a")), 1, 1000, 0);
    // A hundred more would be too many for it, even while the nine hundred are elsewhere.
    assert!(matches!(play.place("n/other/x", 100, None), Placement::Assign(_)));
    assert_eq!(play.place("n/other/y", 1, None), Placement::Wait(Obstacle::Full));
}

#[test]
fn those_who_are_away_can_come_back() {
    let mut play = Play::new(&["a", "b"], 100, 1000);
    play.put("n/m", "a", 10);
    play.put("n/m/x", "b", 80);
    let load = play.crowd().load("a");
    assert_eq!((load.reserve, load.coming, load.leaving), (80, 0, 0));
    assert!(matches!(play.place("n/other/x", 11, Some("b")), Placement::Assign(to) if to.worker == "b"));
    assert!(matches!(play.place("n/other/y", 10, Some("a")), Placement::Assign(to) if to.worker == "a"));
}

#[test]
fn a_full_cluster_takes_no_more() {
    let mut play = Play::new(&["a", "b", "c"], 100, 1000);
    let all = play.burst(30, 10, None);
    assert_eq!(
        all.values().map(|(_, people)| *people).collect::<Vec<_>>(),
        [100, 100, 100]
    );
    assert_eq!(play.place("n/m/last", 10, None), Placement::Wait(Obstacle::Full));
    let mut play = Play::new(&["a", "b", "c"], 10_000, 66);
    assert_eq!(
        play.burst(198, 10, None)
            .values()
            .map(|(rooms, _)| *rooms)
            .collect::<Vec<_>>(),
        [66; 3]
    );
    assert_eq!(play.place("n/m/last", 10, None), Placement::Wait(Obstacle::Full));
}

#[test]
fn rooms_fill_up_and_nobody_is_counted_twice() {
    let mut play = Play::new(&["a", "b"], 100, 1000);
    play.put("n/m", "a", 20);
    play.place("n/m/x", 10, Some("b"));
    let before = play.crowd().load("b");
    assert_eq!((before.coming, before.reserve), (10, 10));
    assert_eq!(play.crowd().load("a").leaving, 10);
    play.present.insert("n/m/x".into(), 7);
    play.present.insert("n/m".into(), 13);
    let half = play.crowd();
    assert_eq!((half.load("b").coming, half.load("a").leaving), (3, 3));
    assert_eq!(half.load("a").reserve, 7, "the seven may come back");
}

#[test]
fn what_is_expected_counts_until_the_room_is_in_use() {
    let start = Instant::now();
    let (half, later) = (start + SETTLED / 2, start + SETTLED);
    let mut expectations = Expectations::default();
    let expected = Expected { named: 4, share: 10 };
    expectations.placed("n/m/x", expected, start);
    expectations.placed("n/m/y", expected, start);
    assert_eq!(expectations.people("n/m/x", start), 10);
    assert_eq!(expectations.people("n/m/z", start), 0);
    expectations.named("n/m/x", 12);
    assert_eq!(expectations.people("n/m/x", start), 12);
    expectations.in_use("n/m/y", start);
    expectations.in_use("n/m/y", half);
    assert_eq!(expectations.people("n/m/y", half), 10);
    let long = "in use for long: what is seen counts";
    assert_eq!(expectations.people("n/m/y", later), 0, "{long}");
    assert_eq!(expectations.people("n/m/x", later), 12, "nobody has come yet");
    expectations.named("n/m/x", 3);
    assert_eq!(expectations.people("n/m/x", later), 3, "its share is forgotten");
    expectations.forget("n/m/x");
    assert!(!expectations.knows("n/m/x"));
}
