use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use plenum_crds::Assignment;

use super::*;

const COUNTDOWN: Duration = Duration::from_secs(60);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn wanted(open: bool, closes_at: Option<i64>) -> Effective {
    Effective {
        open,
        closes_at_ms: closes_at.map(|seconds| at(seconds).as_millisecond()),
        countdown_due: false,
        title: String::new(),
    }
}

/// Spec.open has just become false.
fn due() -> Effective {
    Effective {
        countdown_due: true,
        ..wanted(false, None)
    }
}

fn status(reason: Reason, closes_at: Option<i64>) -> BreakoutRoomStatus {
    BreakoutRoomStatus {
        conditions: vec![Condition {
            type_: "Ready".into(),
            status: "True".into(),
            reason: reason.as_str().into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(at(0)),
        }],
        assignment: Some(Assignment {
            worker: "w".into(),
            worker_uid: "u".into(),
            worker_namespace: "p".into(),
            epoch: 1,
        }),
        closes_at: closes_at.map(|seconds| Time(at(seconds))),
        ..BreakoutRoomStatus::default()
    }
}

fn look(wanted: &Effective, before: &BreakoutRoomStatus, people: Option<u32>, now: Timestamp) -> Stage {
    stage(wanted, before, COUNTDOWN, people, now)
}

#[test]
fn an_open_room_closes_when_its_timer_is_over_and_its_people_are_gone() {
    let open = status(Reason::Open, Some(100));
    let timed = wanted(true, Some(100));
    assert_eq!(
        look(&wanted(true, None), &open, Some(3), at(500)),
        Stage::Open { closes_at: None }
    );
    assert_eq!(
        look(&timed, &open, Some(3), at(99)),
        Stage::Open {
            closes_at: Some(at(100))
        }
    );
    assert_eq!(
        look(&timed, &open, Some(3), at(100)),
        Stage::Leaving { closed_at: at(100) }
    );
    assert_eq!(
        look(&timed, &open, None, at(102)),
        Stage::Leaving { closed_at: at(100) }
    );
    let closed = Stage::Closed {
        closed_at: Some(at(100)),
    };
    assert_eq!(look(&timed, &open, Some(0), at(100)), closed);
    assert_eq!(look(&timed, &open, Some(3), at(103)), closed);
    let mut unplaced = open;
    unplaced.assignment = None;
    assert_eq!(
        look(&timed, &unplaced, Some(0), at(99)),
        Stage::Open {
            closes_at: Some(at(100))
        }
    );
    assert_eq!(look(&timed, &unplaced, Some(0), at(100)), closed);
}

#[test]
fn a_countdown_is_set_once_and_does_not_outlast_a_timer() {
    let now = at(10) + Duration::from_millis(1);
    let closing = |end| Stage::Closing { closes_at: at(end) };
    assert_eq!(
        look(&due(), &status(Reason::Open, None), Some(3), now),
        closing(71),
        "whole seconds"
    );
    assert_eq!(
        look(&due(), &status(Reason::Open, Some(30)), Some(3), now),
        closing(30)
    );
    assert_eq!(
        look(&due(), &status(Reason::Open, Some(300)), Some(3), now),
        closing(71)
    );
    // Another change of the spec meanwhile.
    assert_eq!(
        look(&due(), &status(Reason::Closing, Some(30)), Some(3), at(20)),
        closing(30)
    );
    let late = look(&due(), &status(Reason::Closing, Some(30)), Some(3), at(31));
    assert_eq!(late, Stage::Leaving { closed_at: at(30) });
    // Seen: the end comes with what is wanted.
    let counting = status(Reason::Closing, Some(70));
    assert_eq!(
        look(&wanted(false, Some(70)), &counting, Some(3), at(69)),
        closing(70)
    );
    assert_eq!(
        look(&wanted(false, Some(70)), &counting, Some(0), at(69)),
        closing(70),
        "people may come back"
    );
    assert_eq!(
        look(&wanted(false, Some(70)), &counting, Some(3), at(70)),
        Stage::Leaving { closed_at: at(70) }
    );
    assert_eq!(
        look(&wanted(false, Some(70)), &counting, Some(3), at(73)),
        Stage::Closed {
            closed_at: Some(at(70))
        }
    );
    // No countdown at all.
    let none = stage(
        &due(),
        &status(Reason::Open, None),
        Duration::ZERO,
        Some(3),
        at(10),
    );
    assert_eq!(none, Stage::Leaving { closed_at: at(10) });
}

#[test]
fn at_once_is_at_once_and_the_grace_is_not_prolonged() {
    let at_once = wanted(false, None);
    let began = look(&at_once, &status(Reason::Open, Some(500)), Some(3), at(10));
    assert_eq!(began, Stage::Leaving { closed_at: at(10) });
    let written = status(Reason::Closing, Some(10));
    assert_eq!(
        look(&at_once, &written, Some(3), at(12)),
        Stage::Leaving { closed_at: at(10) }
    );
    let closed = Stage::Closed {
        closed_at: Some(at(10)),
    };
    assert_eq!(look(&at_once, &written, Some(3), at(13)), closed);
    let mut unplaced = written;
    unplaced.assignment = None;
    assert_eq!(
        look(&at_once, &unplaced, Some(0), at(13)),
        Stage::Closed { closed_at: None }
    );
    assert_eq!(
        look(&due(), &unplaced, Some(0), at(13)),
        Stage::Closed { closed_at: None }
    );
}

#[test]
fn the_end_of_time_is_no_panic() {
    let never = Effective {
        closes_at_ms: Some(i64::MAX),
        ..wanted(true, None)
    };
    let open = status(Reason::Open, None);
    assert_eq!(
        look(&never, &open, Some(3), at(0)),
        Stage::Open { closes_at: None }
    );
    assert_eq!(later(Timestamp::MAX, GRACE), Timestamp::MAX);
}
