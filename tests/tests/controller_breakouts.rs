//! Breakout rooms from end to end: a real API server, the real controller with just its documented
//! rights, workers that are real at the gRPC layer, and hosts' decisions as the gateway writes them.
//!
//! There is no garbage collection here: that rooms go with their Meeting is the cluster's to show.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{Timestamp, ToSpan as _};
use plenum_tests::{
    Failure, NAMESPACE, Order, Stage, condition, dynamic, epoch_of, eventually, eventually_within, pool,
    worker_of,
};
use plenum_worker_api::v1::BreakoutEntry;
use serde_json::{Value, json};

const DELETED: i32 = 1;
const EXPIRED: i32 = 2;
const CLOSED: i32 = 3;

/// A stage with one worker and the Meeting `daily`; it is ready.
async fn stage_with_meeting(countdown: &str) -> Result<Stage, Failure> {
    let mut stage = Stage::with_pool(pool(1, json!({}))).await?;
    stage.bring_up("edge-0").await?;
    let spec = json!({ "breakouts": { "closingCountdown": countdown } });
    stage.plenum("Meeting", "team", "daily", spec).await?;
    stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    Ok(stage)
}

async fn room(stage: &Stage, name: &str, more: Value) -> Result<(), Failure> {
    let mut spec = json!({ "meetingRef": { "name": "daily" } });
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        spec[key] = value;
    }
    stage.plenum("BreakoutRoom", "team", name, spec).await?;
    Ok(())
}

/// Waits until the main room's worker was told of the room as it should be.
async fn told(
    stage: &Stage,
    id: &str,
    good: impl Fn(&BreakoutEntry) -> bool,
) -> Result<BreakoutEntry, Failure> {
    let entry = || {
        let rooms = stage.workers["edge-0"].breakouts("team/daily")?.rooms;
        rooms.into_iter().find(|entry| entry.id == id)
    };
    let found = eventually("what the hub is told", async || entry().filter(&good)).await;
    found.map_err(|error| format!("{id}: {error}; it was told {:?}", entry()).into())
}

/// Whole seconds from now, as objects carry them.
fn in_seconds(seconds: i64) -> Timestamp {
    let at = Timestamp::now() + seconds.seconds();
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn ready(room: &Value) -> (String, String) {
    let text = |key: &str| {
        let ready = condition(room, "Ready").and_then(|ready| ready[key].as_str());
        ready.unwrap_or_default().to_owned()
    };
    (text("status"), text("message"))
}

fn released(stage: &Stage, room: &str) -> Vec<i32> {
    let orders = stage.workers["edge-0"].orders();
    let reasons = orders.iter().filter_map(|order| match order {
        Order::Release(name, _, reason) if name == room => Some(*reason),
        _ => None,
    });
    reasons.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_live_with_their_meeting() -> Result<(), Failure> {
    let mut stage = Stage::with_pool(pool(2, json!({}))).await?;
    stage.bring_up("edge-0").await?;
    stage.bring_up("edge-1").await?;
    room(&stage, "one", json!({ "participants": ["alice"] })).await?;
    stage
        .wait_ready("BreakoutRoom", "team", "one", "MeetingNotFound")
        .await?;
    stage.plenum("Meeting", "team", "daily", json!({})).await?;
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    let one = stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    let worker = worker_of(&meeting);
    assert_eq!(worker_of(&one), worker, "by preference where the meeting is");
    let spec = stage.workers[&worker].spec("team/daily/one");
    let spec = spec.map(|spec| {
        (
            spec.meeting,
            spec.title,
            spec.max_participants,
            spec.max_duration_ms,
        )
    });
    assert_eq!(spec, Some(("team/daily".into(), "one".into(), 100, 0)));
    stage
        .wait_for("Meeting", "team", "daily", "one room", |meeting| {
            meeting.pointer("/status/rooms") == Some(&json!(1))
        })
        .await?;

    // The meeting rests, and its rooms with it; they begin anew.
    stage
        .plenum("Meeting", "team", "daily", json!({ "suspend": true }))
        .await?;
    let resting = stage
        .wait_ready("BreakoutRoom", "team", "one", "MeetingNotReady")
        .await?;
    assert_eq!(resting.pointer("/status/openedAt"), None);
    stage
        .plenum("Meeting", "team", "daily", json!({ "suspend": false }))
        .await?;
    let again = stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    assert_eq!(epoch_of(&again), 2);
    let worker = worker_of(&again);

    // The meeting goes, and with it the room on the worker; the object says why it is idle.
    stage.workers[&worker].set("team/daily/one", |room| room.participants = 3);
    stage.delete("Meeting", "team", "daily").await?;
    stage.gone("Meeting", "team", "daily").await?;
    let left = stage
        .wait_ready("BreakoutRoom", "team", "one", "MeetingNotFound")
        .await?;
    assert!(left.pointer("/status/assignment").is_none());
    assert!(stage.workers.values().all(|worker| worker.rooms().is_empty()));
    stage.delete("BreakoutRoom", "team", "one").await?;
    stage.gone("BreakoutRoom", "team", "one").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_outlives_the_worker_of_the_main_room() -> Result<(), Failure> {
    // One room is all that a worker takes, so that they are on two.
    let mut stage = Stage::with_pool(pool(2, json!({ "capacity": { "meetings": 1 } }))).await?;
    stage.bring_up("edge-0").await?;
    stage.plenum("Meeting", "team", "daily", json!({})).await?;
    stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    room(&stage, "one", json!({})).await?;
    stage
        .wait_ready("BreakoutRoom", "team", "one", "NoCapacity")
        .await?;
    stage.bring_up("edge-1").await?;
    let before = stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    assert_eq!(worker_of(&before), "edge-1");

    let pods = dynamic(&stage.admin, "v1", "Pod", Some(NAMESPACE));
    stage.workers.remove("edge-0");
    pods.delete("edge-0", &kube::api::DeleteParams::default().grace_period(0))
        .await?;
    stage
        .wait_for("Meeting", "team", "daily", "no worker", |meeting| {
            meeting.pointer("/status/assignment").is_none()
        })
        .await?;
    stage.bring_up("edge-0").await?;
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    assert_eq!((worker_of(&meeting).as_str(), epoch_of(&meeting)), ("edge-0", 2));
    told(&stage, "one", |entry| entry.open).await?;
    let after = stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    assert_eq!(
        after.pointer("/status/assignment"),
        before.pointer("/status/assignment")
    );
    let orders = stage.workers["edge-1"].orders();
    assert!(
        !orders.iter().any(|order| matches!(order, Order::Release(..))),
        "{orders:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_is_told_and_the_newest_word_wins() -> Result<(), Failure> {
    let stage = stage_with_meeting("1m").await?;
    room(
        &stage,
        "one",
        json!({ "participants": ["alice"], "title": "Red" }),
    )
    .await?;
    stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    let entry = told(&stage, "one", |entry| entry.open).await?;
    assert_eq!((entry.title.as_str(), entry.closes_at_ms), ("Red", 0));
    assert_eq!(entry.participants, ["alice"]);
    let mode = stage.workers["edge-0"]
        .breakouts("team/daily")
        .map(|all| all.mode);
    assert_eq!(mode.as_deref(), Some("manual"));

    // A host sets a timer, a title and the mode, and sends somebody there.
    let at = in_seconds(3600);
    let decisions = json!({
        "assignment": "SelfSelect",
        "rooms": [{ "name": "one", "generation": 1, "closesAt": at.to_string(), "title": "Crimson" }],
        "moves": [{ "identity": "bob", "room": "one" }],
    });
    stage.decide("team", "daily", decisions.clone()).await?;
    let entry = told(&stage, "one", |entry| entry.title == "Crimson").await?;
    assert_eq!((entry.open, entry.closes_at_ms), (true, at.as_millisecond()));
    assert_eq!(entry.participants, ["alice", "bob"]);
    let mode = stage.workers["edge-0"]
        .breakouts("team/daily")
        .map(|all| all.mode);
    assert_eq!(mode.as_deref(), Some("selfSelect"));
    let closes_at = json!(at.to_string());
    stage
        .wait_for("BreakoutRoom", "team", "one", "the host's timer", |room| {
            room.pointer("/status/closesAt") == Some(&closes_at)
        })
        .await?;
    eventually("the title on the room's worker", async || {
        let spec = stage.workers["edge-0"].spec("team/daily/one")?;
        (spec.title == "Crimson").then_some(())
    })
    .await?;

    // Somebody applies the room anew: what was decided about it is void, what was decided about
    // people stands.
    room(
        &stage,
        "one",
        json!({ "participants": ["alice"], "title": "Blue" }),
    )
    .await?;
    let entry = told(&stage, "one", |entry| entry.title == "Blue").await?;
    assert_eq!(entry.closes_at_ms, 0);
    assert_eq!(entry.participants, ["alice", "bob"]);
    stage
        .wait_for("BreakoutRoom", "team", "one", "no timer", |room| {
            room.pointer("/status/closesAt").is_none()
                && room.pointer("/status/observedGeneration") == Some(&json!(2))
        })
        .await?;

    // The controller wrote the Meeting's status meanwhile; what hosts decided is as it was, and theirs.
    stage.workers["edge-0"].set("team/daily", |room| {
        room.participants = 4;
        room.active_since_ms = 1_700_000_000_000;
    });
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Active").await?;
    let mut stands = meeting["status"]["session"]["breakouts"].clone();
    stands["rooms"][0]["closesAt"] = closes_at;
    assert_eq!(stands, decisions);
    let managers = meeting
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    let owners: Vec<_> = managers
        .into_iter()
        .flatten()
        .filter(|entry| entry.pointer("/fieldsV1/f:status/f:session").is_some())
        .map(|entry| entry["manager"].clone())
        .collect();
    assert_eq!(owners, ["plenum-gateway"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_closes_and_opens_again() -> Result<(), Failure> {
    let stage = stage_with_meeting("1m").await?;
    room(&stage, "one", json!({ "closeAfter": "1h" })).await?;
    let open = stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    assert!(open.pointer("/status/closesAt").is_some());
    stage.workers["edge-0"].set("team/daily/one", |room| room.participants = 2);

    // A countdown of the host's own.
    let at = in_seconds(4);
    let decision = |more: Value| {
        let mut decision = json!({ "name": "one", "generation": 1 });
        for (key, value) in more.as_object().cloned().unwrap_or_default() {
            decision[key] = value;
        }
        json!({ "rooms": [decision] })
    };
    let close = decision(json!({ "open": false, "closesAt": at.to_string() }));
    stage.decide("team", "daily", close).await?;
    let closing = stage.wait_ready("BreakoutRoom", "team", "one", "Closing").await?;
    assert_eq!(closing.pointer("/status/closesAt"), Some(&json!(at.to_string())));
    let (status, message) = ready(&closing);
    assert_eq!(status, "True");
    assert_eq!(message, format!("a host closed it: people are sent back at {at}"));
    let entry = told(&stage, "one", |entry| entry.closes_at_ms == at.as_millisecond()).await?;
    assert!(entry.open, "its people may stay for the countdown");
    assert!(released(&stage, "team/daily/one").is_empty());
    told(&stage, "one", |entry| !entry.open).await?;
    // Gateways have brought its people back.
    stage.workers["edge-0"].set("team/daily/one", |room| room.participants = 0);
    let closed = stage.wait_ready("BreakoutRoom", "team", "one", "Closed").await?;
    assert!(
        closed.pointer("/status/assignment").is_none() && closed.pointer("/metadata/finalizers").is_none()
    );
    assert_eq!(ready(&closed), ("True".into(), "a host closed it".into()));
    assert_eq!(released(&stage, "team/daily/one"), [CLOSED]);

    // Opened again, without a timer: the decision brings its own, or none.
    stage
        .decide("team", "daily", decision(json!({ "open": true })))
        .await?;
    let again = stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    assert_eq!(epoch_of(&again), 2);
    assert_eq!(again.pointer("/status/closesAt"), None);
    assert!(
        again.pointer("/status/openedAt").map(Value::to_string)
            > open.pointer("/status/openedAt").map(Value::to_string)
    );
    told(&stage, "one", |entry| entry.open && entry.closes_at_ms == 0).await?;

    // A timer of the host's is over; then it is opened once more.
    let at = in_seconds(1);
    stage
        .decide(
            "team",
            "daily",
            decision(json!({ "open": true, "closesAt": at.to_string() })),
        )
        .await?;
    let over = stage.wait_ready("BreakoutRoom", "team", "one", "Closed").await?;
    assert_eq!(ready(&over).1, "the host's timer is over");
    assert_eq!(over.pointer("/status/closesAt"), Some(&json!(at.to_string())));
    assert_eq!(released(&stage, "team/daily/one"), [CLOSED, EXPIRED]);
    stage
        .decide("team", "daily", decision(json!({ "open": true })))
        .await?;
    let third = stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    assert_eq!(epoch_of(&third), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_in_the_spec_it_counts_down_once() -> Result<(), Failure> {
    let stage = stage_with_meeting("4s").await?;
    room(&stage, "one", json!({})).await?;
    stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    stage.workers["edge-0"].set("team/daily/one", |room| room.participants = 2);
    room(&stage, "one", json!({ "open": false })).await?;
    let closing = stage.wait_ready("BreakoutRoom", "team", "one", "Closing").await?;
    let until = closing.pointer("/status/closesAt").cloned();
    assert!(until.is_some() && closing.pointer("/status/assignment").is_some());
    // Another look, and another change: the countdown is what it was.
    stage.workers["edge-0"].set("team/daily/one", |room| room.participants = 1);
    room(&stage, "one", json!({ "open": false, "title": "Red" })).await?;
    let still = stage
        .wait_for("BreakoutRoom", "team", "one", "the second change", |room| {
            room.pointer("/status/observedGeneration") == Some(&json!(3))
        })
        .await?;
    assert_eq!(still.pointer("/status/closesAt").cloned(), until);
    // One does not leave: the worker sends them back.
    let closed = stage.wait_ready("BreakoutRoom", "team", "one", "Closed").await?;
    assert_eq!(ready(&closed).1, "spec.open is false");
    assert_eq!(closed.pointer("/status/closesAt"), None);
    assert_eq!(released(&stage, "team/daily/one"), [CLOSED]);
    // Opened within the countdown, nothing was closed.
    room(&stage, "one", json!({ "open": true })).await?;
    let open = stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    stage.workers["edge-0"].set("team/daily/one", |room| room.participants = 1);
    room(&stage, "one", json!({ "open": false })).await?;
    stage.wait_ready("BreakoutRoom", "team", "one", "Closing").await?;
    room(&stage, "one", json!({ "open": true })).await?;
    let again = stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    assert_eq!(
        again.pointer("/status/openedAt"),
        open.pointer("/status/openedAt")
    );
    assert_eq!(
        again.pointer("/status/assignment"),
        open.pointer("/status/assignment")
    );
    assert_eq!(again.pointer("/status/closesAt"), None);

    let events = dynamic(&stage.admin, "events.k8s.io/v1", "Event", Some("team"));
    eventually("an Event of each kind", async || {
        let list = events.list(&kube::api::ListParams::default()).await.ok()?;
        let of_room = list
            .items
            .iter()
            .filter(|event| event.data["regarding"]["name"] == "one");
        let reasons: Vec<&str> = of_room
            .filter_map(|event| event.data["reason"].as_str())
            .collect();
        ["Open", "Closing", "Closed"]
            .iter()
            .all(|reason| reasons.contains(reason))
            .then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_with_one_end_close_together() -> Result<(), Failure> {
    let stage = stage_with_meeting("1m").await?;
    let at = in_seconds(6);
    let names = ["one", "two", "three"];
    for name in names {
        room(&stage, name, json!({ "closeAt": at.to_string() })).await?;
    }
    for name in names {
        let open = stage.wait_ready("BreakoutRoom", "team", name, "Open").await?;
        assert_eq!(open.pointer("/status/closesAt"), Some(&json!(at.to_string())));
        told(&stage, name, |entry| {
            entry.open && entry.closes_at_ms == at.as_millisecond()
        })
        .await?;
    }
    for name in names {
        let closed = stage.wait_ready("BreakoutRoom", "team", name, "Closed").await?;
        assert_eq!(ready(&closed).1, "spec.closeAt has come");
        assert_eq!(closed.pointer("/status/closesAt"), Some(&json!(at.to_string())));
        assert_eq!(released(&stage, &format!("team/daily/{name}")), [EXPIRED]);
        told(&stage, name, |entry| !entry.open).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_room_waits_for_its_people() -> Result<(), Failure> {
    let stage = stage_with_meeting("1m").await?;
    room(&stage, "one", json!({})).await?;
    stage.wait_ready("BreakoutRoom", "team", "one", "Open").await?;
    told(&stage, "one", |entry| entry.open).await?;
    stage.workers["edge-0"].set("team/daily/one", |room| room.participants = 2);
    stage.delete("BreakoutRoom", "team", "one").await?;
    eventually("the hub without the room", async || {
        let all = stage.workers["edge-0"].breakouts("team/daily")?;
        all.rooms.is_empty().then_some(())
    })
    .await?;
    assert!(released(&stage, "team/daily/one").is_empty(), "people are in it");
    assert!(stage.get("BreakoutRoom", "team", "one").await.is_some());
    stage.workers["edge-0"].set("team/daily/one", |room| room.participants = 0);
    stage.gone("BreakoutRoom", "team", "one").await?;
    assert_eq!(released(&stage, "team/daily/one"), [DELETED]);

    // Whoever stays is sent back by the worker in the end.
    room(&stage, "two", json!({})).await?;
    stage.wait_ready("BreakoutRoom", "team", "two", "Open").await?;
    stage.workers["edge-0"].set("team/daily/two", |room| room.participants = 2);
    stage.delete("BreakoutRoom", "team", "two").await?;
    stage.gone("BreakoutRoom", "team", "two").await?;
    assert_eq!(released(&stage, "team/daily/two"), [DELETED]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_of_the_meeting_are_expected_though_nobody_named_them() -> Result<(), Failure> {
    let mut stage = Stage::with_pool(pool(3, json!({ "capacity": { "participants": 1000 } }))).await?;
    for name in ["edge-0", "edge-1", "edge-2"] {
        stage.bring_up(name).await?;
    }
    stage
        .wait_ready("MediaWorkerPool", NAMESPACE, "edge", "WorkersReady")
        .await?;
    stage
        .plenum("Meeting", "team", "daily", json!({ "maxParticipants": 500 }))
        .await?;
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    let main = worker_of(&meeting);
    stage.workers[&main].set("team/daily", |room| {
        room.participants = 300;
        room.active_since_ms = 1_700_000_000_000;
    });
    stage.wait_ready("Meeting", "team", "daily", "Active").await?;
    // The first two go where there is more room than on the worker that three hundred are on; the
    // third stays there, because by then two hundred of them are on their way.
    let mut holders = Vec::new();
    for name in ["one", "two", "three"] {
        room(&stage, name, json!({ "maxParticipants": 100 })).await?;
        let open = stage.wait_ready("BreakoutRoom", "team", name, "Open").await?;
        holders.push(worker_of(&open));
    }
    assert_eq!(holders[2], main, "{holders:?}");
    holders.sort();
    assert_eq!(holders, ["edge-0", "edge-1", "edge-2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_rooms_at_once_are_spread() -> Result<(), Failure> {
    const ROOMS: usize = 200;
    let mut stage = Stage::with_pool(pool(
        3,
        json!({ "capacity": { "meetings": 100, "participants": 1000 } }),
    ))
    .await?;
    for name in ["edge-0", "edge-1", "edge-2"] {
        stage.bring_up(name).await?;
    }
    stage
        .wait_ready("MediaWorkerPool", NAMESPACE, "edge", "WorkersReady")
        .await?;
    stage
        .plenum("Meeting", "team", "daily", json!({ "maxParticipants": 1000 }))
        .await?;
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    let applied = (0..ROOMS).map(|index| {
        let people: Vec<String> = (0..10).map(|person| format!("p{index}-{person}")).collect();
        let stage = &stage;
        async move { room(stage, &format!("room-{index}"), json!({ "participants": people })).await }
    });
    futures::future::try_join_all(applied).await?;

    let main = worker_of(&meeting);
    let told = eventually_within(120, "all rooms open at the hub", async || {
        let rooms = stage.workers[&main].breakouts("team/daily")?.rooms;
        let open = rooms
            .iter()
            .filter(|room| room.open && room.participants.len() == 10);
        (open.count() == ROOMS).then_some(rooms)
    })
    .await?;
    assert_eq!(told.len(), ROOMS);
    let mut spread: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, worker) in &stage.workers {
        let rooms = worker.rooms();
        let breakouts = rooms
            .keys()
            .filter(|room| room.starts_with("team/daily/"))
            .count();
        assert!(rooms.len() <= 100, "{name} holds {}", rooms.len());
        assert!(
            rooms.values().all(|epoch| *epoch == 1),
            "nothing was placed twice: {rooms:?}"
        );
        spread.insert(name, breakouts);
    }
    println!("{spread:?}");
    assert_eq!(spread.values().sum::<usize>(), ROOMS);
    // A third each, give or take what the main room's worker may be ahead: 50 people and a room.
    let (least, most) = (spread.values().min().copied(), spread.values().max().copied());
    assert!(most <= least.map(|least| least + 6), "{spread:?}");

    let mut of_rooms: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut of_meeting = 0;
    for write in stage.server.writes() {
        if write.user != "controller" || write.code >= 300 {
            continue;
        }
        if write.resource.starts_with("breakoutrooms") {
            let one = format!("{} {}", write.verb, write.resource);
            of_rooms.entry(write.object).or_default().push(one);
        } else if write.resource.starts_with("meetings") {
            of_meeting += 1;
        }
    }
    println!("{of_meeting} writes of the Meeting");
    assert_eq!(of_rooms.len(), ROOMS);
    for (room, writes) in &of_rooms {
        assert!(writes.len() <= 4, "{room}: {writes:?}");
    }
    Ok(())
}
