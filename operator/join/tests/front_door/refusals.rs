//! Who is not let in, and how they hear of it.

use livekit_protocol as proto;
use plenum_errors::{Code, PublicError};
use plenum_join::{JoinConfig, ServeLimits};
use proto::signal_response::Message as Response;

use crate::double::*;

#[tokio::test]
async fn bad_tokens_and_requests_are_refused_with_code_and_words() {
    let world = plain_world().await;
    let good = token("demo/standup");
    let no_join_request = format!("/rtc/v1?access_token={good}");
    for (path, status, code) in [
        ("/rtc/v1", 401, "TokenMissing"),
        ("/rtc/v1?access_token=garbage", 401, "TokenMalformed"),
        (no_join_request.as_str(), 400, "RequestMalformed"),
    ] {
        assert_eq!(
            connect(&world, path, &[]).await.unwrap_err(),
            (status, code.to_owned()),
            "{path}"
        );
    }
    let (head, body) = get(
        &world,
        "/rtc/v1/validate?access_token=garbage",
        "origin: https://a.test\r\n",
    )
    .await;
    assert!(head.starts_with("HTTP/1.1 401 TokenMalformed"), "{head}");
    assert!(
        head.contains("access-control-allow-origin: https://a.test"),
        "{head}"
    );
    assert!(
        body.starts_with("TokenMalformed: the access token is not"),
        "{body}"
    );
    assert!(!body.contains("garbage"));
    let (_, json) = get(&world, "/rtc/validate", "accept: application/json\r\n").await;
    assert!(json.contains("\"code\":\"TokenMissing\""), "{json}");
    let (head, body) = get(&world, &format!("/rtc/v1/validate?{}", v1_query(&good)), "").await;
    assert!(head.starts_with("HTTP/1.1 200") && body == "success", "{head}");
    let (head, _) = get(&world, &format!("/rtc?access_token={good}"), "").await;
    assert!(head.starts_with("HTTP/1.1 400"), "no upgrade: {head}");
}

#[tokio::test]
async fn what_the_rooms_refuse_is_told_by_validate_too() {
    let world = plain_world().await;
    let query = v1_query(&token("demo/standup"));
    for (code, ws, validate) in [
        (Code::MeetingNotFound, 404, 404),
        (Code::MeetingEnded, 410, 403),
        (Code::MeetingNotReady, 503, 403),
        (Code::MeetingLocked, 403, 403),
    ] {
        *world.double.refuse.lock().unwrap() = Some(PublicError::new(code, "demo/standup"));
        let refused = connect(&world, &format!("/rtc/v1?{query}"), &[])
            .await
            .unwrap_err();
        assert_eq!(refused, (ws, code.as_str().to_owned()));
        let (head, body) = get(&world, &format!("/rtc/v1/validate?{query}"), "").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {validate} {code}")), "{head}");
        assert!(body.contains(code.cause()), "{body}");
    }
    // A client that reconnects must not be told that it is over.
    *world.double.refuse.lock().unwrap() = Some(Code::MeetingNotReady.into());
    let path = format!("/rtc/validate?reconnect=1&access_token={}", token("demo/standup"));
    let (head, _) = get(&world, &path, "").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
}

#[tokio::test]
async fn a_worker_that_refuses_is_heard_before_the_upgrade_and_remembered() {
    let world = plain_world().await;
    let leave = response(Response::Leave(Default::default()));
    world
        .double
        .first
        .lock()
        .unwrap()
        .insert("demo/full".into(), vec![leave, closed(Code::MeetingFull)]);
    let query = v1_query(&token("demo/full"));
    let refused = connect(&world, &format!("/rtc/v1?{query}"), &[])
        .await
        .unwrap_err();
    assert_eq!(refused, (409, "MeetingFull".to_owned()));
    let (head, body) = get(&world, &format!("/rtc/v1/validate?{query}"), "").await;
    assert!(
        head.starts_with("HTTP/1.1 403") && body.starts_with("MeetingFull"),
        "{head} {body}"
    );
}

#[tokio::test]
async fn foreign_pages_are_refused_where_origins_are_listed() {
    let config = JoinConfig {
        allowed_origins: vec!["https://meet.test".into()],
        ..JoinConfig::default()
    };
    let world = world(config, ServeLimits::default()).await;
    let path = format!("/rtc/v1?{}", v1_query(&token("demo/standup")));
    let refused = connect(&world, &path, &[("origin", "https://evil.test")])
        .await
        .unwrap_err();
    assert_eq!(refused, (403, "NotPermitted".to_owned()));
    assert!(
        connect(&world, &path, &[("origin", "https://meet.test")])
            .await
            .is_ok()
    );
    let (head, _) = get(&world, "/rtc/v1/validate", "origin: https://evil.test\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 403") && !head.contains("access-control"),
        "{head}"
    );
}
