//! Meetings from end to end: a real API server, the real controller with just
//! its documented rights, workers that are real at the gRPC layer.

use std::time::{Duration, Instant};

use plenum_tests::{
    Failure, NAMESPACE, Order, Stage, condition, dynamic, epoch_of, eventually, pool, worker_of,
};
use serde_json::{Value, json};

const DELETED: i32 = 1;
const CLOSED: i32 = 3;

fn names(meeting: &Value) -> Vec<&str> {
    let conditions = meeting.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .filter_map(|one| one["type"].as_str())
        .collect()
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_lives() -> Result<(), Failure> {
    let mut stage = Stage::with_pool(pool(2, json!({}))).await?;
    stage.bring_up("edge-0").await?;
    stage.bring_up("edge-1").await?;
    stage
        .wait_ready("MediaWorkerPool", NAMESPACE, "edge", "WorkersReady")
        .await?;

    stage
        .plenum("Meeting", "team", "daily", json!({ "title": "Daily" }))
        .await?;
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    assert_eq!(
        meeting.pointer("/status/joinURL"),
        Some(&json!("http://localhost:7880/m/team/daily"))
    );
    assert_eq!(
        meeting.pointer("/status/signalURL"),
        Some(&json!("ws://localhost:7880"))
    );
    assert_eq!(
        meeting.pointer("/metadata/finalizers"),
        Some(&json!(["plenum.dev/release"]))
    );
    assert_eq!(names(&meeting), ["Active", "Assigned", "Ready"]);
    assert_eq!(epoch_of(&meeting), 1);
    let first = worker_of(&meeting);
    assert_eq!(stage.workers[&first].rooms().get("team/daily"), Some(&1));

    // The whole life of a meeting with twenty people is a handful of writes.
    let worker = &stage.workers[&first];
    let since = now_ms();
    for people in 1..=20 {
        worker.set("team/daily", |room| {
            room.participants = people;
            room.peak_participants = people;
            room.active_since_ms = since;
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Active").await?;
    assert!(meeting.pointer("/status/activeSince").is_some());
    for people in (0..20).rev() {
        worker.set("team/daily", |room| room.participants = people);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    worker.set("team/daily", |room| room.ended_at_ms = now_ms());
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    assert_eq!(meeting.pointer("/status/lastSession/peak"), Some(&json!(20)));
    assert_eq!(meeting.pointer("/status/participants"), Some(&json!(0)));

    // Nothing happens: nothing is written but the Lease.
    let quiet = stage.server.writes().len();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let writes = stage.server.writes();
    let loud: Vec<_> = writes[quiet..]
        .iter()
        .filter(|write| write.resource != "leases")
        .collect();
    assert!(loud.is_empty(), "{loud:?}");

    stage.delete("Meeting", "team", "daily").await?;
    stage.gone("Meeting", "team", "daily").await?;
    assert!(
        stage.workers[&first]
            .orders()
            .contains(&Order::Release("team/daily".into(), 1, DELETED))
    );
    let writes = stage.server.writes();
    let of_meeting: Vec<_> = writes
        .iter()
        .filter(|write| write.user == "controller" && write.object == "team/daily" && write.code < 300)
        .map(|write| format!("{} {}", write.verb, write.resource))
        .collect();
    let events = writes
        .iter()
        .filter(|write| write.resource == "events" && write.object.starts_with("team/"))
        .count();
    println!("{} writes and {events} events: {of_meeting:?}", of_meeting.len());
    assert!(of_meeting.len() <= 10, "{of_meeting:?}");
    let refused: Vec<_> = writes
        .iter()
        .filter(|write| write.user == "controller" && write.code == 403)
        .collect();
    assert!(
        refused.is_empty(),
        "the documented rights do not suffice: {refused:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_outlives_its_worker() -> Result<(), Failure> {
    let mut stage = Stage::with_pool(pool(2, json!({}))).await?;
    stage.bring_up("edge-0").await?;
    stage.bring_up("edge-1").await?;
    stage.plenum("Meeting", "team", "daily", json!({})).await?;
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    let (first, second) = match worker_of(&meeting).as_str() {
        "edge-0" => ("edge-0", "edge-1"),
        _ => ("edge-1", "edge-0"),
    };

    // The process dies: the meeting is elsewhere within seconds, under a higher epoch.
    let died = Instant::now();
    stage.workers.remove(first);
    let moved = stage
        .wait_for("Meeting", "team", "daily", "another worker", |meeting| {
            worker_of(meeting) == second
                && condition(meeting, "Ready").is_some_and(|ready| ready["status"] == "True")
        })
        .await?;
    println!("moved after {:?}", died.elapsed());
    assert_eq!(epoch_of(&moved), 2);
    assert_eq!(stage.workers[second].rooms().get("team/daily"), Some(&2));

    // Its process begins anew and knows nothing: the same worker is told again, under a higher epoch.
    stage.workers[second].forget();
    stage
        .wait_for("Meeting", "team", "daily", "epoch 3", |meeting| {
            epoch_of(meeting) == 3
        })
        .await?;
    eventually("the room on the worker", async || {
        (stage.workers[second].rooms().get("team/daily") == Some(&3)).then_some(())
    })
    .await?;

    // It holds the room under a higher epoch than is written: the next one is above both.
    stage.workers[second].set("team/daily", |room| room.epoch = 10);
    stage
        .wait_for("Meeting", "team", "daily", "epoch 11", |meeting| {
            epoch_of(meeting) == 11
        })
        .await?;

    // The Pod is deleted: the pool makes another, the meeting waits for it.
    let pods = dynamic(&stage.admin, "v1", "Pod", Some(NAMESPACE));
    stage.workers.remove(second);
    pods.delete(second, &kube::api::DeleteParams::default().grace_period(0))
        .await?;
    stage
        .wait_ready("Meeting", "team", "daily", "PoolNotReady")
        .await?;
    stage.bring_up(second).await?;
    let back = stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    assert_eq!(epoch_of(&back), 12);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_have_reasons_and_recover() -> Result<(), Failure> {
    let mut stage = Stage::new().await?;
    stage.namespace("team", &[("tier", "gold")]).await?;
    stage.namespace("elsewhere", &[]).await?;
    stage.start_controller().await?;

    stage.plenum("Meeting", "team", "daily", json!({})).await?;
    let meeting = stage
        .wait_ready("Meeting", "team", "daily", "PoolNotFound")
        .await?;
    assert!(names(&meeting).contains(&"Stalled"), "{meeting:#}");

    let selector =
        |value: &str| json!({ "namespaces": "Selector", "selector": { "matchLabels": { "tier": value } } });
    let spec = |allowed: Value| json!({ "replicas": 1, "default": true, "capacity": { "meetings": 1 }, "allowedMeetings": allowed });
    stage
        .plenum("MediaWorkerPool", NAMESPACE, "edge", spec(selector("silver")))
        .await?;
    let wish = json!({ "workerPoolRef": { "name": "edge", "namespace": NAMESPACE } });
    stage.plenum("Meeting", "team", "other", wish.clone()).await?;
    stage.wait_ready("Meeting", "team", "other", "NotAllowed").await?;
    stage
        .wait_ready("Meeting", "team", "daily", "PoolNotFound")
        .await?;
    stage.delete("Meeting", "team", "other").await?;

    stage
        .plenum("MediaWorkerPool", NAMESPACE, "edge", spec(selector("gold")))
        .await?;
    let meeting = stage
        .wait_ready("Meeting", "team", "daily", "PoolNotReady")
        .await?;
    assert!(
        names(&meeting).contains(&"Reconciling") && !names(&meeting).contains(&"Stalled"),
        "{meeting:#}"
    );
    stage.bring_up("edge-0").await?;
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    assert_eq!(names(&meeting), ["Active", "Assigned", "Ready"]);

    // One room is all it takes.
    stage.plenum("Meeting", "team", "second", wish).await?;
    stage
        .wait_ready("Meeting", "team", "second", "NoCapacity")
        .await?;
    stage
        .plenum("Meeting", "team", "daily", json!({ "suspend": true }))
        .await?;
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Suspended").await?;
    assert!(
        meeting.pointer("/status/assignment").is_none() && meeting.pointer("/metadata/finalizers").is_none()
    );
    assert!(
        stage.workers["edge-0"]
            .orders()
            .contains(&Order::Release("team/daily".into(), 1, CLOSED))
    );
    stage.wait_ready("Meeting", "team", "second", "Idle").await?;
    stage.delete("Meeting", "team", "second").await?;
    stage.gone("Meeting", "team", "second").await?;

    // The epoch rises over a pause, too.
    stage
        .plenum("Meeting", "team", "daily", json!({ "suspend": false }))
        .await?;
    let meeting = stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    assert_eq!(epoch_of(&meeting), 2);

    let schedule = |start: &str| json!({ "schedule": { "start": start, "rrule": "FREQ=NEVER;BYDAY=MO" } });
    stage
        .plenum("Meeting", "team", "wrong", schedule("2030-01-01T00:00:00Z"))
        .await?;
    stage
        .wait_ready("Meeting", "team", "wrong", "InvalidSchedule")
        .await?;
    stage
        .plenum(
            "Meeting",
            "team",
            "later",
            json!({ "schedule": { "start": "2090-01-01T00:00:00Z" } }),
        )
        .await?;
    let later = stage.wait_ready("Meeting", "team", "later", "Scheduled").await?;
    assert!(later.pointer("/status/assignment").is_none());
    let past = json!({ "schedule": { "start": "2020-01-01T00:00:00Z", "end": "2020-01-01T01:00:00Z" } });
    stage.plenum("Meeting", "team", "past", past).await?;
    stage.wait_ready("Meeting", "team", "past", "Ended").await?;

    // A pool where the operator may not have workers.
    stage
        .plenum("MediaWorkerPool", "elsewhere", "edge", json!({ "replicas": 1 }))
        .await?;
    let pool = stage
        .wait_ready("MediaWorkerPool", "elsewhere", "edge", "NotAllowed")
        .await?;
    assert_eq!(pool.pointer("/status/replicas"), Some(&json!(0)));
    stage
        .plenum(
            "Meeting",
            "elsewhere",
            "m",
            json!({ "workerPoolRef": { "name": "edge" } }),
        )
        .await?;
    stage
        .wait_ready("Meeting", "elsewhere", "m", "NotAllowed")
        .await?;
    let outside = |write: &&plenum_tests::Write| {
        write.user == "controller" && write.object.starts_with("elsewhere/") && !write.resource.contains('/')
    };
    let writes = stage.server.writes();
    let foreign: Vec<_> = writes
        .iter()
        .filter(outside)
        .filter(|write| write.resource != "events")
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_missing_is_said_and_found() -> Result<(), Failure> {
    let mut stage = Stage::with_pool(pool(1, json!({}))).await?;
    stage.bring_up("edge-0").await?;
    stage
        .plenum(
            "Meeting",
            "team",
            "own-key",
            json!({ "keySecretRef": { "name": "keys" } }),
        )
        .await?;
    let meeting = stage
        .wait_ready("Meeting", "team", "own-key", "SecretMissing")
        .await?;
    let message = condition(&meeting, "Ready")
        .map(|ready| ready["message"].to_string())
        .unwrap_or_default();
    assert!(message.contains("may not read Secret keys"), "{message}");

    let rules =
        json!([{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["keys"], "verbs": ["get"] }]);
    let rbac = "rbac.authorization.k8s.io";
    let role = json!({ "apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": { "name": "k" }, "rules": rules });
    let binding = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": { "name": "k" },
        "roleRef": { "apiGroup": rbac, "kind": "Role", "name": "k" },
        "subjects": [{ "kind": "User", "name": "controller", "apiGroup": rbac }],
    });
    stage.apply(Some("team"), role).await?;
    stage.apply(Some("team"), binding).await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" },
        "stringData": { "apiKey": "key", "apiSecret": "0123456789abcdef0123456789abcdef" },
    });
    stage.apply(Some("team"), secret).await?;
    stage.wait_ready("Meeting", "team", "own-key", "Idle").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_long_is_over_and_stays_over() -> Result<(), Failure> {
    let mut stage = Stage::with_pool(pool(1, json!({}))).await?;
    stage.bring_up("edge-0").await?;
    stage
        .plenum("Meeting", "team", "short", json!({ "maxDuration": "3s" }))
        .await?;
    stage.wait_ready("Meeting", "team", "short", "Idle").await?;
    stage.workers["edge-0"].set("team/short", |room| {
        room.participants = 2;
        room.peak_participants = 2;
        room.active_since_ms = now_ms();
    });
    stage.wait_ready("Meeting", "team", "short", "Active").await?;
    let ended = stage.wait_ready("Meeting", "team", "short", "Ended").await?;
    assert_eq!(ended.pointer("/status/lastSession/peak"), Some(&json!(2)));
    assert!(stage.workers["edge-0"].rooms().is_empty());
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.wait_ready("Meeting", "team", "short", "Ended").await?;
    // Somebody changes it: it may take place again.
    stage
        .plenum("Meeting", "team", "short", json!({ "maxDuration": "1h" }))
        .await?;
    stage.wait_ready("Meeting", "team", "short", "Idle").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_waits_for_a_worker_that_does_not_answer_at_most_half_a_minute() -> Result<(), Failure> {
    let mut stage = Stage::with_pool(pool(1, json!({}))).await?;
    stage.bring_up("edge-0").await?;
    stage.plenum("Meeting", "team", "daily", json!({})).await?;
    stage.wait_ready("Meeting", "team", "daily", "Idle").await?;
    stage.workers.clear();
    stage.delete("Meeting", "team", "daily").await?;
    let began = Instant::now();
    while stage.get("Meeting", "team", "daily").await.is_some() {
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "the finalizer outlived its timeout"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("gone after {:?}", began.elapsed());
    Ok(())
}
