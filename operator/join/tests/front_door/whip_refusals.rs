//! Which WHIP and WHEP requests are refused, and how.

use livekit_protocol as proto;
use plenum_errors::Code;
use plenum_join::{JoinConfig, ServeLimits};
use plenum_token::{Claims, Role};
use plenum_worker_api::v1::client_frame;
use proto::signal_response::Message as Response;

use crate::double::*;
use crate::whip::*;

#[tokio::test]
async fn bad_requests_are_refused_before_anything_begins() {
    let world = plain_world().await;
    let good = bearer(Role::Participant);
    let viewer = bearer(Role::Viewer);
    let deaf = {
        let mut claims = Claims::for_participant("deaf", ROOM, Role::Participant, now(), 60);
        claims.video.can_subscribe = Some(false);
        format!("Bearer {}", plenum_token::sign(&claims, KEY, SECRET).unwrap())
    };
    let large = format!("{OFFER}{}", "a=x\r\n".repeat(40_000));
    let sdp = "application/sdp";
    for (path, token, content_type, body, code) in [
        ("/whip", "", sdp, OFFER, Code::TokenMissing),
        ("/whip", "Bearer x", sdp, OFFER, Code::TokenMalformed),
        ("/whip/demo/other", &good, sdp, OFFER, Code::TokenWrongMeeting),
        (
            "/whip/demo/standup/red",
            &good,
            sdp,
            OFFER,
            Code::TokenWrongMeeting,
        ),
        ("/whip", &viewer, sdp, OFFER, Code::NotPermitted),
        ("/whep", &deaf, sdp, OFFER, Code::NotPermitted),
        (
            "/whip",
            &good,
            "application/json",
            OFFER,
            Code::ContentTypeUnsupported,
        ),
        ("/whip", &good, "", OFFER, Code::ContentTypeUnsupported),
        ("/whip", &good, sdp, "hello", Code::SdpInvalid),
        ("/whip", &good, sdp, "", Code::SdpInvalid),
        ("/whep", &good, sdp, OFFER, Code::SdpInvalid),
        ("/whip?source=moon", &good, sdp, OFFER, Code::RequestMalformed),
        ("/whip", &good, sdp, large.as_str(), Code::MessageTooLarge),
    ] {
        let headers = [("authorization", token), ("content-type", content_type)];
        let reply = http(&world.address, "POST", path, &headers, body).await;
        let expected = (code.http_status(), code.as_str().to_owned());
        assert_eq!(reply.refusal(), expected, "{path} {content_type}");
    }
    let lower = [
        ("authorization", good.as_str()),
        ("content-type", "Application/SDP; charset=utf-8"),
    ];
    let reply = http(&world.address, "POST", "/whip", &lower, "v=1").await;
    assert_eq!(reply.refusal().1, "SdpInvalid");
    for (method, path, allow) in [
        ("GET", "/whip", "POST, OPTIONS"),
        ("PUT", "/whep/demo/standup", "POST, OPTIONS"),
        ("PATCH", "/whip", "POST, OPTIONS"),
        ("GET", "/whip/-/x", "PATCH, DELETE, OPTIONS"),
        ("POST", "/whep/-/x", "PATCH, DELETE, OPTIONS"),
    ] {
        let reply = http(&world.address, method, path, &[], "").await;
        assert_eq!(reply.refusal(), (405, "MethodNotAllowed".to_owned()));
        assert_eq!(reply.header("allow"), Some(allow));
    }
    assert_eq!(http(&world.address, "HEAD", "/whip", &[], "").await.status, 405);
}

#[tokio::test]
async fn what_the_room_refuses_is_told_with_its_status() {
    let mut world = plain_world().await;
    for (code, status, retry) in [
        (Code::MeetingNotFound, 404, None),
        (Code::MeetingNotReady, 503, Some("2")),
        (Code::NoCapacity, 503, Some("2")),
        (Code::WorkerDraining, 503, Some("2")),
        (Code::MeetingFull, 409, None),
    ] {
        *world.double.refuse.lock().unwrap() = Some(code.into());
        let reply = post(&world, "/whip", OFFER).await;
        assert_eq!(reply.refusal(), (status, code.as_str().to_owned()));
        assert_eq!(reply.header("retry-after"), retry);
    }
    *world.double.refuse.lock().unwrap() = None;
    let verdict = |reason: proto::request_response::Reason, message: &str| {
        response(Response::RequestResponse(proto::RequestResponse {
            reason: reason as i32,
            message: message.into(),
            ..Default::default()
        }))
    };
    use proto::request_response::Reason;
    let nothing = response(Response::Answer(proto::SessionDescription {
        id: 1,
        sdp: sdp("server1")
            .replace("audio 9", "audio 0")
            .replace("video 9", "video 0"),
        ..Default::default()
    }));
    for (frames, code) in [
        (
            vec![verdict(
                Reason::NotAllowed,
                "the grant does not allow this source",
            )],
            Code::NotPermitted,
        ),
        (
            vec![verdict(Reason::NotAllowed, "CodecNotAllowed")],
            Code::CodecNotAllowed,
        ),
        (
            vec![verdict(Reason::LimitExceeded, "TrackLimit")],
            Code::TrackLimit,
        ),
        (vec![nothing], Code::CodecNotAllowed),
        (vec![closed(Code::SdpInvalid)], Code::SdpInvalid),
    ] {
        let mut all = vec![welcome(Vec::new())];
        all.extend(frames);
        first(&world, all);
        let reply = post(&world, "/whip", OFFER).await;
        assert_eq!(reply.refusal(), (code.http_status(), code.as_str().to_owned()));
        // Nobody stays behind.
        let mut opened = world.opened.recv().await.unwrap();
        match heard(&mut opened).await {
            client_frame::Frame::Hangup(hangup) => assert!(!hangup.may_resume),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn pages_may_use_it_where_their_origin_may_connect() {
    let config = JoinConfig {
        allowed_origins: vec!["https://meet.test".into()],
        max_sessions: 1,
        ..JoinConfig::default()
    };
    let mut world = world(config, ServeLimits::default()).await;
    let good = [("origin", "https://meet.test")];
    for (path, extra, value) in [
        ("/whip", "accept-post", "application/sdp"),
        ("/whep/demo/standup", "accept-post", "application/sdp"),
        ("/whip/-/x", "accept-patch", "application/trickle-ice-sdpfrag"),
    ] {
        let reply = http(&world.address, "OPTIONS", path, &good, "").await;
        assert_eq!((reply.status, reply.header(extra)), (204, Some(value)));
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("https://meet.test")
        );
        let methods = reply.header("access-control-allow-methods").unwrap();
        assert!(methods.contains(if path.contains("/-/") { "DELETE" } else { "POST" }));
        assert!(
            reply
                .header("access-control-expose-headers")
                .unwrap()
                .contains("location")
        );
        assert!(
            reply
                .header("access-control-allow-headers")
                .unwrap()
                .contains("if-match")
        );
    }
    let evil = http(
        &world.address,
        "OPTIONS",
        "/whip",
        &[("origin", "https://evil.test")],
        "",
    )
    .await;
    assert_eq!(evil.header("access-control-allow-origin"), None);
    let bearer = bearer(Role::Participant);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/sdp"),
        ("origin", "https://evil.test"),
    ];
    let reply = http(&world.address, "POST", "/whip", &headers, OFFER).await;
    assert_eq!(reply.refusal(), (403, "NotPermitted".to_owned()));

    // A session counts as a client.
    first(&world, vec![welcome(Vec::new()), answer(1, "server1")]);
    let (_, path, mut opened) = made(&mut world, "/whip").await;
    assert_eq!(
        post(&world, "/whip", OFFER).await.refusal(),
        (429, "RateLimited".to_owned())
    );
    assert_eq!(delete(&world.address, &path, &mut opened).await.status, 200);
}

#[tokio::test]
async fn requests_about_a_session_come_no_faster_than_messages_may() {
    let config = JoinConfig {
        messages_per_second: 1,
        message_burst: 3,
        ..JoinConfig::default()
    };
    let mut world = world(config, ServeLimits::default()).await;
    first(&world, vec![welcome(Vec::new()), answer(1, "server1")]);
    let (_, path, mut opened) = made(&mut world, "/whip").await;
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        statuses.push(
            patch(&world.address, &path, "*", "a=end-of-candidates")
                .await
                .status,
        );
    }
    assert_eq!(statuses[..3], [204, 204, 204]);
    // Ending it is always possible.
    assert_eq!(delete(&world.address, &path, &mut opened).await.status, 200);
}
