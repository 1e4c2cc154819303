//! WHIP and WHEP over HTTP, with a worker that is played by the test.

use livekit_protocol as proto;
use plenum_errors::Code;
use plenum_join::Order;
use plenum_token::{Claims, Role};
use plenum_worker_api::v1::{WorkerFrame, client_frame, worker_frame};
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;

use crate::double::*;

pub(crate) const ROOM: &str = "demo/standup";
pub(crate) const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:mine\r\na=ice-pwd:a-password-of-enough-length\r\n\
    a=fingerprint:sha-256 AA\r\na=setup:actpass\r\na=sendonly\r\na=msid:- mic\r\na=rtpmap:111 opus/48000/2\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=sendonly\r\na=msid:- cam\r\na=rtpmap:96 VP8/90000\r\n";

/// An answer of the worker with this ICE user name.
pub(crate) fn sdp(ufrag: &str) -> String {
    format!(
        "v=0\r\na=ice-lite\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:secret\r\na=candidate:u0 1 udp 1 192.0.2.1 7 typ host\r\na=end-of-candidates\r\n\
         a=sendonly\r\na=rtpmap:111 opus/48000/2\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=ice-ufrag:{ufrag}\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\n"
    )
}

pub(crate) fn answer(id: u32, ufrag: &str) -> worker_frame::Frame {
    response(Response::Answer(proto::SessionDescription {
        id,
        sdp: sdp(ufrag),
        ..Default::default()
    }))
}

pub(crate) fn welcome(others: Vec<proto::ParticipantInfo>) -> worker_frame::Frame {
    response(Response::Join(proto::JoinResponse {
        participant: Some(proto::ParticipantInfo {
            sid: "PA_mine".into(),
            ..Default::default()
        }),
        other_participants: others,
        ice_servers: vec![proto::IceServer {
            urls: vec!["turn:relay.test".into()],
            username: "u".into(),
            credential: "c".into(),
        }],
        ..Default::default()
    }))
}

pub(crate) fn first(world: &World, frames: Vec<worker_frame::Frame>) {
    world.double.first.lock().unwrap().insert(ROOM.into(), frames);
}

pub(crate) fn bearer(role: Role) -> String {
    let claims = Claims::for_participant("camera", ROOM, role, now(), 60);
    format!("Bearer {}", plenum_token::sign(&claims, KEY, SECRET).unwrap())
}

pub(crate) async fn post(world: &World, path: &str, body: &str) -> Reply {
    let bearer = bearer(Role::Participant);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/sdp"),
    ];
    http(&world.address, "POST", path, &headers, body).await
}

pub(crate) async fn patch(address: &str, path: &str, tag: &str, body: &str) -> Reply {
    let headers = [
        ("content-type", "application/trickle-ice-sdpfrag"),
        ("if-match", tag),
    ];
    http(address, "PATCH", path, &headers, body).await
}

/// A session that was just made: its address and the worker's end of it.
pub(crate) async fn made(world: &mut World, path: &str) -> (Reply, String, Opened) {
    let reply = post(world, path, OFFER).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let location = reply.header("location").unwrap().to_owned();
    (reply, location, world.opened.recv().await.unwrap())
}

pub(crate) async fn say(opened: &Opened, frame: worker_frame::Frame) {
    let frame = WorkerFrame {
        seq: 2,
        frame: Some(frame),
    };
    opened.to_client.send(frame).await.unwrap();
}

pub(crate) async fn heard(opened: &mut Opened) -> client_frame::Frame {
    opened.from_client.recv().await.unwrap().frame.unwrap()
}

pub(crate) async fn asked(opened: &mut Opened) -> Request {
    match heard(opened).await {
        client_frame::Frame::Request(bytes) => proto::SignalRequest::decode(bytes.as_slice())
            .unwrap()
            .message
            .unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Restarts ICE; what the worker answers is up to the test.
pub(crate) async fn restart(address: &str, path: &str, opened: &mut Opened, ufrag: &str) -> Reply {
    let fragment = "a=ice-ufrag:another\r\na=ice-pwd:another0password0of0enough\r\n";
    let worker = async {
        match heard(opened).await {
            client_frame::Frame::RestartIce(restart) => {
                assert_eq!(restart.ufrag, "another");
                assert_eq!(restart.pwd, "another0password0of0enough");
                say(opened, answer(restart.id, ufrag)).await;
            }
            other => panic!("{other:?}"),
        }
    };
    tokio::join!(patch(address, path, "*", fragment), worker).0
}

/// Ends the session; the worker lets the client go.
pub(crate) async fn delete(address: &str, path: &str, opened: &mut Opened) -> Reply {
    let worker = async {
        assert!(matches!(asked(opened).await, Request::Leave(_)));
        say(opened, worker_frame::Frame::Closed(Default::default())).await;
    };
    tokio::join!(http(address, "DELETE", path, &[], ""), worker).0
}

#[tokio::test]
async fn an_encoder_publishes_what_it_offers() {
    let mut world = plain_world().await;
    first(&world, vec![welcome(Vec::new()), answer(1, "server1")]);
    for path in [
        "/whip",
        "/whip/demo/standup",
        "/whip/demo%2Fstandup?source=screen",
    ] {
        let (reply, location, mut opened) = made(&mut world, path).await;
        assert_eq!(reply.body, sdp("server1"));
        for (name, value) in [
            ("content-type", "application/sdp"),
            ("etag", "\"server1\""),
            ("accept-patch", "application/trickle-ice-sdpfrag"),
            (
                "link",
                "<turn:relay.test>; rel=\"ice-server\"; username=\"u\"; credential=\"c\"; credential-type=\"password\"",
            ),
        ] {
            assert_eq!(reply.header(name), Some(value), "{path}");
        }
        assert!(location.starts_with("/whip/-/"), "{location}");

        let start = &opened.start;
        assert_eq!(
            (start.identity.as_str(), start.kind.as_str()),
            ("camera", "ingress")
        );
        assert!(start.offers_once && !start.dual_peer_connection && start.token_issued_at_ms > 0);
        let join = proto::JoinRequest::decode(start.join_request.as_slice()).unwrap();
        assert!(!join.connection_settings.unwrap().auto_subscribe);
        let offer = join.publisher_offer.unwrap();
        let sources: Vec<_> = join.add_track_requests.iter().map(|t| t.source()).collect();
        use proto::TrackSource::{Camera, Microphone, ScreenShare, ScreenShareAudio};
        let screen = path.ends_with("screen");
        assert_eq!(
            sources,
            if screen {
                [ScreenShareAudio, ScreenShare]
            } else {
                [Microphone, Camera]
            }
        );
        for track in &join.add_track_requests {
            assert!(
                offer.sdp.contains(&format!("a=msid:- {}\r\n", track.cid)),
                "{}",
                offer.sdp
            );
        }
        assert_eq!(delete(&world.address, &location, &mut opened).await.status, 200);
    }
}

#[tokio::test]
async fn candidates_and_restarts_are_for_the_ice_session_in_force() {
    let mut world = plain_world().await;
    first(&world, vec![welcome(Vec::new()), answer(1, "server1")]);
    let (_, path, mut opened) = made(&mut world, "/whip").await;
    let address = world.address.clone();
    let trickle = "m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.7 9 typ host\r\n";
    let with_own = format!("a=ice-ufrag:mine\r\na=ice-pwd:a0password0of0enough0length\r\n{trickle}");
    assert_eq!(patch(&address, &path, "\"server1\"", trickle).await.status, 204);
    assert_eq!(patch(&address, &path, "\"server1\"", &with_own).await.status, 204);
    let failed = |code: Code| (code.http_status(), code.as_str().to_owned());
    for stale in ["\"other\"", "W/\"server1\""] {
        let reply = patch(&address, &path, stale, trickle).await;
        assert_eq!(reply.refusal(), failed(Code::PreconditionFailed));
    }
    let none = http(
        &address,
        "PATCH",
        &path,
        &[("content-type", "application/trickle-ice-sdpfrag")],
        trickle,
    )
    .await;
    assert_eq!(none.refusal(), failed(Code::PreconditionRequired));
    let wrong = http(
        &address,
        "PATCH",
        &path,
        &[("if-match", "*"), ("content-type", "application/sdp")],
        trickle,
    )
    .await;
    assert_eq!(wrong.refusal(), failed(Code::ContentTypeUnsupported));
    assert_eq!(
        patch(&address, &path, "*", "v=0\r\n").await.refusal(),
        failed(Code::SdpInvalid)
    );
    let long = "a=candidate:x\r\n".repeat(10_000);
    assert_eq!(
        patch(&address, &path, "*", &long).await.refusal(),
        failed(Code::MessageTooLarge)
    );

    let restarted = restart(&address, &path, &mut opened, "server2").await;
    assert_eq!(
        (restarted.status, restarted.header("etag")),
        (200, Some("\"server2\""))
    );
    assert_eq!(
        restarted.header("content-type"),
        Some("application/trickle-ice-sdpfrag")
    );
    for line in [
        "a=ice-ufrag:server2",
        "a=ice-pwd:secret",
        "a=candidate:u0",
        "a=mid:0",
        "a=ice-lite",
    ] {
        assert!(restarted.body.contains(line), "{line} in {}", restarted.body);
    }
    let reply = patch(&address, &path, "\"server1\"", trickle).await;
    assert_eq!(reply.refusal(), failed(Code::PreconditionFailed));
    assert_eq!(patch(&address, &path, "\"server2\"", trickle).await.status, 204);
    // The same once more is no restart.
    let again = "a=ice-ufrag:another\r\na=ice-pwd:another0password0of0enough\r\n";
    assert_eq!(patch(&address, &path, "*", again).await.status, 204);
}

#[tokio::test]
async fn a_session_that_is_over_is_not_found() {
    let mut world = plain_world().await;
    first(&world, vec![welcome(Vec::new()), answer(1, "server1")]);
    let gone = (404, "SessionNotFound".to_owned());
    for by_whom in ["client", "worker", "order"] {
        first(&world, vec![welcome(Vec::new()), answer(1, "server1")]);
        let (_, path, mut opened) = made(&mut world, "/whip").await;
        // Nobody of that name is there any more.
        first(&world, vec![closed(Code::ParticipantNotFound)]);
        match by_whom {
            "client" => assert_eq!(delete(&world.address, &path, &mut opened).await.status, 200),
            "worker" => say(&opened, closed(Code::ParticipantRemoved)).await,
            _ => {
                let elsewhere = Order::Elsewhere {
                    room: "demo/standup/red".into(),
                    may_resume: true,
                };
                opened.orders.send(elsewhere).await.unwrap();
                // It can't be told of another room, so it leaves this one.
                match heard(&mut opened).await {
                    client_frame::Frame::Hangup(hangup) => assert!(!hangup.may_resume),
                    other => panic!("{other:?}"),
                }
            }
        }
        // The front door's end of the session goes once it has heard.
        while opened.from_client.recv().await.is_some() {}
        let reply = http(&world.address, "DELETE", &path, &[], "").await;
        assert_eq!(reply.refusal(), gone, "{by_whom}");
        let asked = world.opened.recv().await.unwrap();
        let join = proto::JoinRequest::decode(asked.start.join_request.as_slice()).unwrap();
        assert!(join.reconnect);
    }
    for name in ["x", "a.b.c"] {
        let reply = http(&world.address, "DELETE", &format!("/whip/-/{name}"), &[], "").await;
        assert_eq!(reply.refusal(), gone);
    }
    let token = bearer(Role::Host).replace("Bearer ", "/whip/-/");
    assert_eq!(
        http(&world.address, "DELETE", &token, &[], "").await.refusal(),
        gone
    );
}

#[tokio::test]
async fn any_front_door_goes_on_with_a_session() {
    let mut world = plain_world().await;
    first(&world, vec![welcome(Vec::new()), answer(1, "server1")]);
    let (_, path, opened) = made(&mut world, "/whip").await;
    let other = another(&world).await;
    let back = response(Response::Reconnect(Default::default()));
    first(&world, vec![back, answer(1, "server1")]);
    let trickle = "a=end-of-candidates\r\n";
    let reply = patch(&other, &path, "\"server1\"", trickle).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    let mut taken = world.opened.recv().await.unwrap();
    assert_eq!(
        (taken.start.identity.as_str(), taken.start.room.as_str()),
        ("camera", ROOM)
    );
    assert!(taken.start.offers_once && taken.start.kind == "ingress");
    let join = proto::JoinRequest::decode(taken.start.join_request.as_slice()).unwrap();
    assert!(join.reconnect && join.participant_sid == "PA_mine");
    // How things stand was asked for first.
    match heard(&mut taken).await {
        client_frame::Frame::RestartIce(asked) => assert_eq!((asked.id, asked.ufrag.as_str()), (1, "")),
        frame => panic!("{frame:?}"),
    }
    let reply = restart(&other, &path, &mut taken, "server2").await;
    assert_eq!((reply.status, reply.header("etag")), (200, Some("\"server2\"")));
    // The worker has let go of the first one's stream, which is no reason to end anything.
    let Opened {
        mut from_client,
        to_client,
        ..
    } = opened;
    drop(to_client);
    assert!(from_client.recv().await.is_none());
    assert_eq!(delete(&other, &path, &mut taken).await.status, 200);
}

fn participant(identity: &str, tracks: &[(&str, &str)]) -> proto::ParticipantInfo {
    proto::ParticipantInfo {
        identity: identity.into(),
        tracks: tracks
            .iter()
            .map(|(sid, mime_type)| proto::TrackInfo {
                sid: (*sid).into(),
                mime_type: (*mime_type).into(),
                r#type: i32::from(mime_type.starts_with("video")),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

async fn subscribes(opened: &mut Opened) -> (Vec<String>, bool) {
    match asked(opened).await {
        Request::Subscription(update) => (update.track_sids, update.subscribe),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_player_is_shown_as_much_as_it_has_sections_for() {
    let mut world = plain_world().await;
    let offer = OFFER.replace("sendonly", "recvonly");
    let ann = participant(
        "ann",
        &[
            ("TR_a", "audio/opus"),
            ("TR_v", "video/VP8"),
            ("TR_s", "video/VP8"),
        ],
    );
    let bob = participant("bob", &[("TR_b", "video/VP8")]);
    for (path, shown) in [
        ("/whep/demo/standup", vec!["TR_v", "TR_a"]),
        ("/whep?participant=bob", vec!["TR_b"]),
    ] {
        first(
            &world,
            vec![welcome(vec![ann.clone(), bob.clone()]), answer(1, "server1")],
        );
        let reply = post(&world, path, &offer).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        assert!(reply.header("location").unwrap().starts_with("/whep/-/"));
        let mut opened = world.opened.recv().await.unwrap();
        assert_eq!(opened.start.kind, "egress");
        let join = proto::JoinRequest::decode(opened.start.join_request.as_slice()).unwrap();
        assert!(join.add_track_requests.is_empty() && !join.connection_settings.unwrap().auto_subscribe);
        let mut shown = shown;
        shown.sort_unstable();
        let mut subscribed = subscribes(&mut opened).await;
        subscribed.0.sort_unstable();
        assert_eq!(
            subscribed,
            (shown.iter().map(|s| (*s).to_owned()).collect(), true)
        );
        // The next one follows when it goes.
        let update = proto::ParticipantUpdate {
            participants: vec![participant(
                "ann",
                &[("TR_a", "audio/opus"), ("TR_s", "video/VP8")],
            )],
        };
        if shown.contains(&"TR_v") {
            say(&opened, response(Response::Update(update))).await;
            assert_eq!(subscribes(&mut opened).await, (vec!["TR_s".to_owned()], true));
        }
        // At another front door what is shown is chosen anew.
        let other = another(&world).await;
        let back = response(Response::Reconnect(Default::default()));
        let known = response(Response::Update(proto::ParticipantUpdate {
            participants: vec![ann.clone(), bob.clone()],
        }));
        first(&world, vec![back, known, answer(1, "server1")]);
        let location = reply.header("location").unwrap();
        let trickled = patch(&other, location, "*", "a=end-of-candidates\r\n").await;
        assert_eq!(trickled.status, 204, "{trickled:?}");
        let mut taken = world.opened.recv().await.unwrap();
        assert!(matches!(
            heard(&mut taken).await,
            client_frame::Frame::RestartIce(_)
        ));
        assert!(!subscribes(&mut taken).await.1);
        let mut again = subscribes(&mut taken).await;
        again.0.sort_unstable();
        assert_eq!(again, (shown.iter().map(|s| (*s).to_owned()).collect(), true));
    }
}

#[tokio::test]
async fn a_shutdown_leaves_the_session_to_other_front_doors() {
    let mut world = plain_world().await;
    first(&world, vec![welcome(Vec::new()), answer(1, "server1")]);
    let (_, _, mut opened) = made(&mut world, "/whip").await;
    world.stop.send(true).unwrap();
    match heard(&mut opened).await {
        client_frame::Frame::Hangup(hangup) => assert!(hangup.may_resume),
        other => panic!("{other:?}"),
    }
}
