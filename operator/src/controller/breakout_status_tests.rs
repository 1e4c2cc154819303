use std::time::Duration;

use plenum_crds::RoomDecision;
use serde_json::json;

use super::*;

fn breakout(spec: serde_json::Value) -> BreakoutRoom {
    let mut breakout = BreakoutRoom::new("one", serde_json::from_value(spec).unwrap());
    breakout.metadata.generation = Some(1);
    breakout
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn after(seconds: u64) -> Timestamp {
    start() + Duration::from_secs(seconds)
}

fn open() -> State {
    State::Open {
        assignment: Assignment {
            worker: "w".into(),
            worker_uid: "u".into(),
            worker_namespace: "p".into(),
            epoch: 3,
        },
        draining: false,
    }
}

/// Puts the room into that state; returns the status.
fn put(
    room: &mut BreakoutRoom,
    decisions: Option<&BreakoutDecisions>,
    state: State,
    now: Timestamp,
) -> BreakoutRoomStatus {
    let before = room.status.clone().unwrap_or_default();
    let after = compute(&Facts {
        breakout: room,
        decisions,
        before: &before,
        state,
        report: None,
        count: false,
        now,
    });
    room.status = Some(after.clone());
    after
}

fn decided(room: &BreakoutRoom, open: Option<bool>, closes_at: Option<Timestamp>) -> BreakoutDecisions {
    BreakoutDecisions {
        rooms: vec![RoomDecision {
            name: "one".into(),
            generation: room.metadata.generation.unwrap(),
            open,
            closes_at: closes_at.map(Time),
            title: None,
        }],
        ..BreakoutDecisions::default()
    }
}

#[test]
fn it_opens_once_closes_on_time_and_opens_anew_with_its_whole_time() {
    let mut room = breakout(json!({ "meetingRef": { "name": "daily" }, "closeAfter": "10m" }));
    let first = put(&mut room, None, open(), start());
    assert_eq!(first.closes_at, Some(Time(after(600))));
    assert_eq!(
        put(&mut room, None, open(), after(60)),
        first,
        "no write while nothing changes"
    );
    let why = why(&room, None, true);
    let closed = State::Closed {
        why,
        timed_out: Some(after(600)),
    };
    let over = put(&mut room, None, closed.clone(), after(603));
    assert_eq!((over.assignment.clone(), over.epoch), (None, Some(3)));
    assert_eq!(
        (&over.opened_at, &over.closes_at),
        (&first.opened_at, &first.closes_at)
    );
    assert_eq!(put(&mut room, None, closed, after(900)), over);
    let waiting = State::Waiting {
        reason: Reason::NoCapacity,
        message: "full".into(),
        stalled: false,
    };
    let anew = put(&mut room, None, waiting, after(950));
    assert_eq!((anew.opened_at, anew.closes_at), (None, None));
    let anew = put(&mut room, None, open(), after(1000));
    assert_eq!(anew.opened_at, Some(Time(after(1000))));
    assert_eq!(anew.closes_at, Some(Time(after(1600))));
    let closed = State::Closed { why, timed_out: None };
    let off = put(&mut room, None, closed, after(1010));
    assert_eq!((off.opened_at, off.closes_at), (None, None));
}

#[test]
fn a_hosts_timer_wins_until_the_spec_says_something_new() {
    let mut room = breakout(json!({ "meetingRef": { "name": "daily" }, "closeAt": "2026-01-01T00:30:00Z" }));
    assert_eq!(
        put(&mut room, None, open(), start()).closes_at,
        Some(Time(after(1800)))
    );
    let longer = decided(&room, None, Some(after(3600)));
    assert_eq!(
        put(&mut room, Some(&longer), open(), after(1)).closes_at,
        Some(Time(after(3600)))
    );
    assert_eq!(why(&room, Some(&longer), true), "the host's timer is over");
    assert_eq!(
        why(&room, Some(&decided(&room, Some(false), None)), false),
        "a host closed it"
    );
    room.metadata.generation = Some(2);
    let newer = put(&mut room, Some(&longer), open(), after(2));
    assert_eq!(
        (newer.closes_at, newer.observed_generation),
        (Some(Time(after(1800))), 2)
    );
    assert_eq!(why(&room, Some(&longer), true), "spec.closeAt has come");
    assert_eq!(why(&room, Some(&longer), false), "spec.open is false");
}

#[test]
fn closing_keeps_the_worker_and_says_when() {
    let mut room = breakout(json!({ "meetingRef": { "name": "daily" } }));
    let first = put(&mut room, None, open(), start());
    let closing = State::Closing {
        why: "a host closed it",
        closes_at: after(60),
    };
    let status = put(&mut room, None, closing.clone(), after(1));
    assert_eq!(status.closes_at, Some(Time(after(60))));
    assert_eq!(
        (&status.assignment, &status.opened_at),
        (&first.assignment, &first.opened_at)
    );
    let ready = status.conditions.iter().find(|one| one.type_ == "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("True", "Closing")
    );
    assert_eq!(
        ready.message,
        "a host closed it: people are sent back at 2026-01-01T00:01:00Z"
    );
    assert!(was_open(&status));
    assert_eq!(
        put(&mut room, None, closing, after(62)),
        status,
        "nothing new while people leave"
    );
    // Opened again within the countdown: it never was closed.
    let again = put(&mut room, None, open(), after(30));
    assert_eq!((again.opened_at, again.closes_at), (first.opened_at, None));
}

#[test]
fn with_its_meeting_at_rest_a_room_begins_anew() {
    let mut room = breakout(json!({ "meetingRef": { "name": "daily" }, "closeAfter": "10m" }));
    put(&mut room, None, open(), start());
    let resting = State::Waiting {
        reason: Reason::MeetingNotReady,
        message: "Meeting daily holds no worker".into(),
        stalled: false,
    };
    let status = put(&mut room, None, resting, after(60));
    assert_eq!(
        (status.assignment, status.opened_at, status.closes_at),
        (None, None, None)
    );
    assert_eq!(
        put(&mut room, None, open(), after(900)).closes_at,
        Some(Time(after(1500)))
    );
}
