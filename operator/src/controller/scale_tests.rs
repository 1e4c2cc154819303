use super::*;

const TIMEOUT: Duration = Duration::from_secs(600);

fn pod(name: &str) -> PodView {
    PodView {
        name: name.into(),
        current: true,
        ready: true,
        failed: false,
        deleting: false,
        draining: None,
        rooms: 0,
        age: 100,
    }
}

fn drain(name: &str, seconds: u64, rooms: u32) -> PodView {
    PodView {
        draining: Some(Duration::from_secs(seconds)),
        rooms,
        ..pod(name)
    }
}

fn steps(wanted: u32, pods: &[PodView]) -> Vec<Step> {
    plan(wanted, &UpdateStrategy::default(), TIMEOUT, pods)
}

#[test]
fn missing_workers_are_made_and_nothing_happens_when_all_are_there() {
    assert_eq!(steps(2, &[]), [Step::Create, Step::Create]);
    assert_eq!(steps(2, &[pod("a"), pod("b")]), []);
    let starting = PodView {
        ready: false,
        ..pod("b")
    };
    assert_eq!(steps(2, &[pod("a"), starting]), [], "a starting worker counts");
}

#[test]
fn the_empty_one_goes_first_and_only_after_draining() {
    let full = PodView { rooms: 3, ..pod("a") };
    assert_eq!(steps(1, &[full.clone(), pod("b")]), [Step::Drain("b".into())]);
    assert_eq!(steps(1, &[full.clone(), drain("b", 0, 0)]), []);
    assert_eq!(
        steps(1, &[full.clone(), drain("b", 2, 0)]),
        [Step::Delete("b".into())]
    );
    let starting = PodView {
        ready: false,
        ..pod("b")
    };
    assert_eq!(
        steps(1, &[full, starting]),
        [Step::Delete("b".into())],
        "never ready, nothing to drain"
    );
}

#[test]
fn an_occupied_worker_is_deleted_only_after_the_timeout() {
    assert_eq!(steps(0, &[drain("a", 599, 2)]), []);
    assert_eq!(steps(0, &[drain("a", 600, 2)]), [Step::Delete("a".into())]);
}

#[test]
fn a_draining_worker_is_taken_back_before_another_is_made() {
    assert_eq!(
        steps(2, &[pod("a"), drain("b", 30, 1)]),
        [Step::Undrain("b".into())]
    );
    let old = PodView {
        current: false,
        ..drain("b", 30, 1)
    };
    assert_eq!(steps(2, &[pod("a"), old]), [Step::Create]);
}

#[test]
fn failed_ones_are_replaced() {
    let failed = PodView {
        failed: true,
        ready: false,
        ..pod("a")
    };
    assert_eq!(steps(1, &[failed]), [Step::Delete("a".into()), Step::Create]);
}

#[test]
fn a_new_template_rolls_within_surge_and_unavailable() {
    let old = |name: &str| PodView {
        current: false,
        ..pod(name)
    };
    let surge = steps(2, &[old("a"), old("b")]);
    assert_eq!(surge, [Step::Create], "one above, none below");
    let starting = PodView {
        ready: false,
        ..pod("c")
    };
    assert_eq!(steps(2, &[old("a"), old("b"), starting]), []);
    assert_eq!(
        steps(2, &[old("a"), old("b"), pod("c")]).len(),
        1,
        "one old one goes"
    );
    let in_place = UpdateStrategy {
        max_surge: 0,
        max_unavailable: 1,
    };
    let steps = plan(2, &in_place, TIMEOUT, &[old("a"), old("b")]);
    assert!(matches!(steps.as_slice(), [Step::Drain(_)]), "{steps:?}");
}

#[test]
fn a_buffer_keeps_slots_free_within_its_bounds() {
    let buffer = Buffer {
        min_free_slots: 5,
        min: 1,
        max: 4,
    };
    let occupied = |name: &str, rooms| PodView { rooms, ..pod(name) };
    assert_eq!(wanted(&buffer, 10, &[]), 1);
    assert_eq!(wanted(&buffer, 10, &[occupied("a", 5)]), 1);
    assert_eq!(wanted(&buffer, 10, &[occupied("a", 6)]), 2);
    assert_eq!(
        wanted(
            &buffer,
            10,
            &[
                occupied("a", 10),
                occupied("b", 10),
                occupied("c", 10),
                occupied("d", 9)
            ]
        ),
        4
    );
    assert_eq!(
        wanted(
            &buffer,
            10,
            &[occupied("a", 1), occupied("b", 1), occupied("c", 1)]
        ),
        3,
        "occupied ones stay"
    );
}

/// A pool that is driven by its own plan, in virtual time: it converges, and nobody loses a room
/// before the timeout.
#[test]
fn it_converges_from_random_states() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..300 {
        let mut next = 0;
        let mut pods: Vec<PodView> = (0..random(8))
            .map(|i| PodView {
                current: random(2) == 0,
                ready: random(3) > 0,
                failed: random(8) == 0,
                draining: (random(4) == 0).then(|| Duration::from_secs(random(700))),
                rooms: random(3) as u32,
                ..pod(&format!("p{i}"))
            })
            .collect();
        let wanted = random(6) as u32;
        let strategy = UpdateStrategy {
            max_surge: 1,
            max_unavailable: random(2) as i32,
        };
        for _ in 0..2000 {
            let before = pods.clone();
            for step in plan(wanted, &strategy, TIMEOUT, &before) {
                match step {
                    Step::Create => {
                        next += 1;
                        pods.push(PodView {
                            ready: false,
                            age: 0,
                            ..pod(&format!("n{next}"))
                        });
                    }
                    Step::Delete(name) => {
                        let gone = before.iter().find(|pod| pod.name == name).unwrap();
                        assert!(
                            gone.rooms == 0
                                || gone.failed
                                || gone.draining.is_some_and(|since| since >= TIMEOUT),
                            "{gone:?}"
                        );
                        pods.retain(|pod| pod.name != name);
                    }
                    Step::Drain(name) => {
                        pods.iter_mut()
                            .filter(|pod| pod.name == name)
                            .for_each(|p| p.draining = Some(Duration::ZERO));
                    }
                    Step::Undrain(name) => {
                        pods.iter_mut()
                            .filter(|pod| pod.name == name)
                            .for_each(|p| p.draining = None);
                    }
                }
            }
            for pod in &mut pods {
                pod.ready = !pod.failed;
                pod.age += 1;
                pod.draining = pod.draining.map(|since| since + Duration::from_secs(1));
            }
        }
        let good = pods.iter().filter(|pod| pod.current && pod.in_service()).count();
        assert_eq!((good, pods.len()), (wanted as usize, wanted as usize), "{pods:?}");
        assert_eq!(plan(wanted, &strategy, TIMEOUT, &pods), []);
    }
}
