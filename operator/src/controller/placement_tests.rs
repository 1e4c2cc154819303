use super::*;

const LIMITS: Limits = Limits {
    rooms: 10,
    participants: 100,
    egress_mbps: 1000,
};

fn worker(name: &str, rooms: u32) -> Worker {
    Worker {
        namespace: "plenum".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        accepting: true,
        rooms,
        participants: 0,
        expected: 0,
        peak: 0,
        egress_mbps: 0,
        cpu_permille: 0,
        limits: LIMITS,
    }
}

/// A room nobody is expected in.
const ROOM: Newcomer<'_> = Newcomer {
    people: 0,
    home: None,
    covered: 0,
    leaving: 0,
};

fn at_home(home: &str) -> Newcomer<'_> {
    Newcomer {
        home: Some(home),
        ..ROOM
    }
}

fn on(name: &str, epoch: i64) -> Assignment {
    Assignment {
        worker: name.into(),
        worker_uid: format!("uid-{name}"),
        worker_namespace: "plenum".into(),
        epoch,
    }
}

#[test]
fn the_worker_with_most_room_is_chosen_and_the_epoch_rises() {
    let workers = [worker("a", 3), worker("b", 1), worker("c", 1)];
    assert_eq!(place(None, 0, &workers, ROOM), Placement::Assign(on("b", 1)));
    assert_eq!(place(None, 7, &workers, ROOM), Placement::Assign(on("b", 8)));
    assert_eq!(
        place(None, 0, &workers, at_home("uid-c")),
        Placement::Assign(on("c", 1))
    );
}

#[test]
fn participants_egress_and_cpu_count_too() {
    let busy = |f: fn(&mut Worker)| {
        let mut busy = worker("a", 0);
        f(&mut busy);
        place(None, 0, &[busy, worker("b", 5)], ROOM)
    };
    assert_eq!(busy(|w| w.expected = 90), Placement::Assign(on("b", 1)));
    assert_eq!(busy(|w| w.egress_mbps = 900), Placement::Assign(on("b", 1)));
    assert_eq!(busy(|w| w.cpu_permille = 700), Placement::Assign(on("b", 1)));
    assert_eq!(busy(|_| ()), Placement::Assign(on("a", 1)));
}

#[test]
fn full_and_not_ready_are_told_apart() {
    let mut closed = worker("a", 0);
    closed.accepting = false;
    assert_eq!(place(None, 0, &[], ROOM), Placement::Wait(Obstacle::NotReady));
    assert_eq!(
        place(None, 0, &[closed.clone()], ROOM),
        Placement::Wait(Obstacle::NotReady)
    );
    assert_eq!(
        place(None, 0, &[closed, worker("b", 10)], ROOM),
        Placement::Wait(Obstacle::Full)
    );
}

#[test]
fn a_room_stays_unless_its_worker_is_gone() {
    let workers = [worker("a", 9), worker("b", 0)];
    let here = on("a", 4);
    assert_eq!(
        place(Some((&here, Holder::Present)), 4, &workers, ROOM),
        Placement::Keep
    );
    assert_eq!(
        place(Some((&here, Holder::Lost)), 4, &workers, ROOM),
        Placement::Assign(on("b", 5))
    );
    assert_eq!(
        place(Some((&here, Holder::Lost)), 4, &workers[..1], ROOM),
        Placement::Keep
    );
    assert_eq!(
        place(Some((&here, Holder::Gone)), 4, &[], ROOM),
        Placement::Wait(Obstacle::NotReady)
    );
    assert_eq!(
        place(Some((&here, Holder::Forgot)), 4, &workers, ROOM),
        Placement::Assign(on("a", 5))
    );
}

/// Random fleets and histories (xorshift, fixed seed): the invariants at the head of the module.
#[test]
fn invariants_hold_for_random_fleets() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..20_000 {
        let workers: Vec<Worker> = (0..random(6))
            .map(|i| Worker {
                accepting: random(4) > 0,
                rooms: random(12) as u32,
                participants: random(120) as u32,
                expected: random(120) as u32,
                peak: random(120) as u32,
                egress_mbps: random(1200) as u32,
                cpu_permille: random(1000) as u32,
                ..worker(&format!("w{i}"), 0)
            })
            .collect();
        let epoch = random(50) as i64;
        let current = (random(2) == 0).then(|| on(&format!("w{}", random(6)), random(50) as i64));
        let holder = [Holder::Present, Holder::Lost, Holder::Gone, Holder::Forgot][random(4) as usize];
        let home = (random(2) == 0).then(|| format!("uid-w{}", random(6)));
        let newcomer = Newcomer {
            people: random(150) as u32,
            home: home.as_deref(),
            covered: random(60) as u32,
            leaving: random(60) as u32,
        };
        let now = current.as_ref().map(|assignment| (assignment, holder));
        let placed = place(now, epoch, &workers, newcomer);
        assert_eq!(placed, place(now, epoch, &workers, newcomer), "the same twice");
        match &placed {
            Placement::Keep => assert!(matches!(now, Some((_, Holder::Present | Holder::Lost)))),
            Placement::Assign(to) => {
                assert!(to.epoch > epoch && current.as_ref().is_none_or(|from| to.epoch > from.epoch));
                if !matches!(now, Some((_, Holder::Forgot))) {
                    let target = workers.iter().find(|w| w.uid == to.worker_uid).unwrap();
                    assert!(target.accepting && target.has_room(newcomer));
                }
            }
            Placement::Wait(Obstacle::NotReady) => assert!(!workers.iter().any(|w| w.accepting)),
            Placement::Wait(Obstacle::Full) => {
                assert!(workers.iter().all(|w| !w.accepting || !w.has_room(newcomer)));
            }
        }
    }
}

#[test]
fn a_breakout_room_stays_with_its_meeting_while_that_worker_is_not_much_fuller() {
    let mut workers = [worker("a", 0), worker("b", 0), worker("c", 0)];
    let placed = |workers: &[Worker]| place(None, 0, workers, at_home("uid-c"));
    for worker in &mut workers {
        worker.limits.rooms = 100;
        worker.limits.participants = 1000;
    }
    workers[2].expected = 60;
    assert_eq!(
        placed(&workers),
        Placement::Assign(on("c", 1)),
        "60 against 10 permille"
    );
    workers[2].expected = 61;
    assert_eq!(placed(&workers), Placement::Assign(on("a", 1)));
    workers[2].expected = 60;
    workers[2].peak = 1000;
    assert_eq!(
        placed(&workers),
        Placement::Assign(on("a", 1)),
        "no room for one more"
    );
}

#[test]
fn people_who_are_expected_take_places() {
    let crowd = |people| Newcomer { people, ..ROOM };
    let mut workers = [worker("a", 0), worker("b", 9)];
    workers[0].peak = 60;
    assert_eq!(place(None, 0, &workers, crowd(40)), Placement::Assign(on("a", 1)));
    assert_eq!(place(None, 0, &workers, crowd(41)), Placement::Assign(on("b", 1)));
    workers[1].peak = 60;
    assert_eq!(
        place(None, 0, &workers, crowd(41)),
        Placement::Wait(Obstacle::Full)
    );
    // More than any worker takes: one for itself.
    assert_eq!(
        place(None, 0, &workers, crowd(400)),
        Placement::Wait(Obstacle::Full)
    );
    workers[1].peak = 0;
    assert_eq!(
        place(None, 0, &workers, crowd(400)),
        Placement::Assign(on("b", 1))
    );
    // Who is on the worker already takes no second place there.
    let moving = Newcomer {
        people: 40,
        home: Some("uid-a"),
        covered: 40,
        leaving: 40,
    };
    workers[0].participants = 100;
    workers[0].peak = 100;
    workers[0].expected = 60;
    workers[1].expected = 100;
    workers[1].peak = 100;
    assert_eq!(place(None, 0, &workers, moving), Placement::Assign(on("a", 1)));
}
