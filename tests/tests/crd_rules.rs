//! Every rule of the definitions, tried against a real API server: one object that it accepts, one
//! that it refuses, and what it says.

use std::collections::BTreeSet;

use kube::api::{DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::{Api, Client};
use plenum_tests::{ApiServer, Failure, dynamic, install};
use serde_json::{Value, json};

/// Applies strictly; returns what the API server says against it.
async fn refusal(api: &Api<DynamicObject>, kind: &str, name: &str, spec: &Value) -> Option<String> {
    let object = json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    let mut params = PatchParams::apply("test");
    params.field_validation = Some(ValidationDirective::Strict);
    match api.patch(name, &params, &Patch::Apply(object)).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message.clone()),
        Err(error) => Some(error.to_string()),
    }
}

struct Case {
    kind: &'static str,
    /// Part of the rule's message.
    message: &'static str,
    good: Value,
    bad: Value,
}

fn case(kind: &'static str, message: &'static str, good: Value, bad: Value) -> Case {
    Case {
        kind,
        message,
        good,
        bad,
    }
}

fn cases() -> Vec<Case> {
    let schedule = |schedule: Value| json!({ "schedule": schedule });
    let (ten, eleven) = ("2026-05-04T10:00:00Z", "2026-05-04T11:00:00Z");
    let pool = |more: Value| {
        let mut spec = json!({ "replicas": 1 });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec
    };
    let room = |more: Value| {
        let mut spec = json!({ "meetingRef": { "name": "daily" } });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec
    };
    vec![
        case(
            "Meeting",
            "schedule.end must be after schedule.start",
            schedule(json!({ "start": ten, "end": eleven })),
            schedule(json!({ "start": eleven, "end": ten })),
        ),
        case(
            "Meeting",
            "schedule.end and schedule.rrule exclude each other",
            schedule(json!({ "start": ten, "rrule": "FREQ=WEEKLY;BYDAY=MO", "duration": "30m" })),
            schedule(json!({ "start": ten, "end": eleven, "rrule": "FREQ=WEEKLY" })),
        ),
        case(
            "Meeting",
            "schedule.rrule needs schedule.start",
            schedule(json!({ "start": ten, "rrule": "FREQ=DAILY" })),
            schedule(json!({ "rrule": "FREQ=DAILY" })),
        ),
        case(
            "Meeting",
            "schedule.duration is the length of each occurrence",
            schedule(json!({ "start": ten })),
            schedule(json!({ "start": ten, "duration": "1h" })),
        ),
        case(
            "Meeting",
            "media.codecs without Opus",
            json!({ "media": { "codecs": ["Opus", "VP8"] } }),
            json!({ "media": { "codecs": ["VP8"] } }),
        ),
        case(
            "BreakoutRoom",
            "spec.participants names more people than spec.maxParticipants",
            room(json!({ "maxParticipants": 2, "participants": ["a", "b"] })),
            room(json!({ "maxParticipants": 1, "participants": ["a", "b"] })),
        ),
        case(
            "BreakoutRoom",
            "spec.closeAfter and spec.closeAt exclude each other",
            room(json!({ "closeAt": ten })),
            room(json!({ "closeAt": ten, "closeAfter": "10m" })),
        ),
        case(
            "MediaWorkerPool",
            "a pool needs spec.replicas (a fixed number of workers) or spec.buffer",
            json!({ "buffer": { "minFreeSlots": 1, "max": 2 } }),
            json!({ "replicas": 1, "buffer": { "minFreeSlots": 1, "max": 2 } }),
        ),
        case(
            "MediaWorkerPool",
            "a pool needs spec.replicas (a fixed number of workers) or spec.buffer",
            json!({ "replicas": 0 }),
            json!({}),
        ),
        case(
            "MediaWorkerPool",
            "buffer.min must not be above buffer.max",
            json!({ "buffer": { "minFreeSlots": 1, "min": 2, "max": 2 } }),
            json!({ "buffer": { "minFreeSlots": 1, "min": 3, "max": 2 } }),
        ),
        case(
            "MediaWorkerPool",
            "exposure.mediaPort is the port on the node",
            pool(json!({ "exposure": { "type": "HostPort", "mediaPort": 40000 } })),
            pool(json!({ "exposure": { "mediaPort": 40000 } })),
        ),
        case(
            "MediaWorkerPool",
            "exposure.serviceAnnotations needs a type with a Service",
            pool(json!({ "exposure": { "type": "LoadBalancer", "serviceAnnotations": { "a": "b" } } })),
            pool(json!({ "exposure": { "type": "HostNetwork", "serviceAnnotations": { "a": "b" } } })),
        ),
        case(
            "MediaWorkerPool",
            "updateStrategy.maxSurge and maxUnavailable cannot both be 0",
            pool(json!({ "updateStrategy": { "maxSurge": 0, "maxUnavailable": 1 } })),
            pool(json!({ "updateStrategy": { "maxSurge": 0 } })),
        ),
        case(
            "MediaWorkerPool",
            "allowedMeetings.selector goes with namespaces: Selector",
            pool(
                json!({ "allowedMeetings": { "namespaces": "Selector", "selector": { "matchLabels": { "a": "b" } } } }),
            ),
            pool(json!({ "allowedMeetings": { "namespaces": "Selector" } })),
        ),
        case(
            "MediaWorkerPool",
            "allowedMeetings.selector goes with namespaces: Selector",
            pool(json!({ "allowedMeetings": { "namespaces": "All" } })),
            pool(
                json!({ "allowedMeetings": { "namespaces": "All", "selector": { "matchLabels": { "a": "b" } } } }),
            ),
        ),
    ]
}

/// What the schema itself bounds: kind, spec, part of the answer.
fn bounds() -> Vec<(&'static str, Value, &'static str)> {
    let many = |n: usize| (0..n).map(|i| format!("p{i}")).collect::<Vec<_>>();
    vec![
        (
            "Meeting",
            json!({ "colour": "red" }),
            "field not declared in schema",
        ),
        (
            "Meeting",
            json!({ "lobby": { "enabled": true, "music": true } }),
            "field not declared in schema",
        ),
        (
            "Meeting",
            json!({ "maxParticipants": 0 }),
            "should be greater than or equal to 1",
        ),
        (
            "Meeting",
            json!({ "maxParticipants": 10001 }),
            "should be less than or equal to 10000",
        ),
        ("Meeting", json!({ "emptyTimeout": "5 minutes" }), "should match"),
        ("Meeting", json!({ "maxDuration": "-1h" }), "should match"),
        ("Meeting", json!({ "guests": "allow" }), "supported values"),
        (
            "Meeting",
            json!({ "coHosts": ["a", "a"] }),
            "duplicate entries for key",
        ),
        (
            "Meeting",
            json!({ "coHosts": many(65) }),
            "must have at most 64 items",
        ),
        (
            "Meeting",
            json!({ "title": "x".repeat(201) }),
            "may not be more than 200",
        ),
        (
            "Meeting",
            json!({ "media": { "maxBitrate": "3 Mbit" } }),
            "should match",
        ),
        (
            "Meeting",
            json!({ "schedule": { "start": "tomorrow" } }),
            "must be of type date-time",
        ),
        ("BreakoutRoom", json!({}), "meetingRef"),
        (
            "BreakoutRoom",
            json!({ "meetingRef": { "name": "m" }, "participants": ["a", "a"] }),
            "duplicate entries for key",
        ),
        (
            "MediaWorkerPool",
            json!({ "replicas": -1 }),
            "should be greater than or equal to 0",
        ),
        (
            "MediaWorkerPool",
            json!({ "replicas": 1, "podSpec": {} }),
            "field not declared in schema",
        ),
        (
            "MediaWorkerPool",
            json!({ "replicas": 1, "template": { "hostNetwork": true } }),
            "field not declared in schema",
        ),
        (
            "MediaWorkerPool",
            json!({ "replicas": 1, "exposure": { "advertise": { "addresses": ["example.org"] } } }),
            "should match",
        ),
    ]
}

async fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    dynamic(client, "plenum.dev/v1alpha1", kind, Some("default"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_accept_and_refuse() -> Result<(), Failure> {
    let server = ApiServer::start().await?;
    let client = server.admin().await?;
    install(&client).await?;
    let mut tried = BTreeSet::new();
    for (
        number,
        Case {
            kind,
            message,
            good,
            bad,
        },
    ) in cases().into_iter().enumerate()
    {
        let api = api(&client, kind).await;
        let accepted = refusal(&api, kind, &format!("good-{number}"), &good).await;
        assert_eq!(accepted, None, "{kind} {good}");
        let refused = refusal(&api, kind, &format!("bad-{number}"), &bad)
            .await
            .unwrap_or_default();
        assert!(
            refused.contains(message),
            "{kind} {bad}: {refused:?} does not say {message:?}"
        );
        tried.insert((kind.to_owned(), message.to_owned()));
    }

    for (kind, limit) in [("Meeting", 63), ("BreakoutRoom", 63), ("MediaWorkerPool", 40)] {
        let api = api(&client, kind).await;
        let spec = match kind {
            "Meeting" => json!({}),
            "BreakoutRoom" => json!({ "meetingRef": { "name": "m" } }),
            _ => json!({ "replicas": 1 }),
        };
        assert_eq!(refusal(&api, kind, &"n".repeat(limit), &spec).await, None);
        let message = format!("the name of a {kind} has at most {limit} characters");
        let refused = refusal(&api, kind, &"n".repeat(limit + 1), &spec)
            .await
            .unwrap_or_default();
        assert!(refused.contains(&message), "{refused}");
        tried.insert((kind.to_owned(), message));
    }

    let rooms = api(&client, "BreakoutRoom").await;
    let spec = |meeting: &str, title: &str| json!({ "meetingRef": { "name": meeting }, "title": title });
    assert_eq!(
        refusal(&rooms, "BreakoutRoom", "fixed", &spec("one", "a")).await,
        None
    );
    assert_eq!(
        refusal(&rooms, "BreakoutRoom", "fixed", &spec("one", "b")).await,
        None,
        "other fields may change"
    );
    let refused = refusal(&rooms, "BreakoutRoom", "fixed", &spec("two", "b"))
        .await
        .unwrap_or_default();
    assert!(refused.contains("spec.meetingRef cannot change"), "{refused}");
    tried.insert(("BreakoutRoom".into(), "spec.meetingRef cannot change".into()));

    for rule in plenum_crds::cel_rules()? {
        let covered = tried
            .iter()
            .any(|(kind, message)| *kind == rule.kind && rule.message.contains(message));
        assert!(
            covered,
            "{} {}: no case for {:?}",
            rule.kind, rule.path, rule.message
        );
    }

    for (kind, spec, answer) in bounds() {
        let refused = refusal(&api(&client, kind).await, kind, "bound", &spec)
            .await
            .unwrap_or_default();
        assert!(
            refused.to_lowercase().contains(&answer.to_lowercase()),
            "{kind} {spec}: {refused:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defaults_are_filled_in_and_a_fresh_object_is_not_healthy() -> Result<(), Failure> {
    let server = ApiServer::start().await?;
    let client = server.admin().await?;
    install(&client).await?;
    for (kind, spec) in [
        ("Meeting", json!({})),
        ("BreakoutRoom", json!({ "meetingRef": { "name": "m" } })),
        ("MediaWorkerPool", json!({ "replicas": 2 })),
    ] {
        let api = api(&client, kind).await;
        assert_eq!(refusal(&api, kind, "fresh", &spec).await, None);
        let fresh = serde_json::to_value(api.get("fresh").await?)?;
        assert_eq!(
            fresh.pointer("/status/observedGeneration"),
            Some(&json!(-1)),
            "{kind}: {fresh:#}"
        );
    }
    let meeting = api(&client, "Meeting").await.get("fresh").await?;
    let spec: plenum_crds::MeetingSpec = serde_json::from_value(meeting.data["spec"].clone())?;
    assert_eq!(spec, plenum_crds::MeetingSpec::default());
    let scale = api(&client, "MediaWorkerPool").await.get_scale("fresh").await?;
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(2));
    Ok(())
}
