//! The front door over real sockets, before a double of the rooms.

// A helper that unwraps is a test that fails; clippy only knows that of `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use futures::{SinkExt, StreamExt};
use livekit_protocol as proto;
use plenum_errors::{Code, PublicError};
use plenum_join::{JoinConfig, MAX_MESSAGE_BYTES, Order, Rooms, ServeLimits, Session, router, serve};
use plenum_token::{Claims, Role};
use plenum_worker_api::v1::{ClientFrame, Closed, Start, WorkerFrame, client_frame, worker_frame};
use prost::Message as _;
use proto::leave_request::Action;
use proto::signal_response::Message as Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest};

const KEY: &str = "devkey";
const SECRET: &str = "a-secret-of-exactly-32-bytes-ok!";

/// What the test holds of a session that a client opened.
struct Opened {
    start: Start,
    from_client: mpsc::Receiver<ClientFrame>,
    to_client: mpsc::Sender<WorkerFrame>,
    orders: mpsc::Sender<Order>,
}

#[derive(Default)]
struct Double {
    /// Where joins lead, by the room of the token; to that room itself where nothing is said.
    leads_to: Mutex<HashMap<String, String>>,
    refuse: Mutex<Option<PublicError>>,
    /// What the worker says first, by room.
    first: Mutex<HashMap<String, Vec<worker_frame::Frame>>>,
    opened: Mutex<Option<mpsc::Sender<Opened>>>,
}

#[async_trait::async_trait]
impl Rooms for Double {
    async fn api_secret(&self, api_key: &str, _room: &str) -> Option<String> {
        (api_key == KEY).then(|| SECRET.to_owned())
    }

    async fn check(&self, _start: &Start) -> Result<(), PublicError> {
        self.refuse.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    async fn enter(&self, start: Start) -> Result<Session, PublicError> {
        let (to_worker, from_client) = mpsc::channel(16);
        let (to_client, from_worker) = mpsc::channel(16);
        let first = self.first.lock().unwrap().get(&start.room).cloned();
        for frame in first.unwrap_or_else(|| vec![response(Response::Join(Default::default()))]) {
            to_client
                .try_send(WorkerFrame {
                    seq: 1,
                    frame: Some(frame),
                })
                .unwrap();
        }
        let opened = self.opened.lock().unwrap().clone().unwrap();
        let leads_to = self.leads_to.lock().unwrap().get(&start.room).cloned();
        let room = leads_to.unwrap_or_else(|| start.room.clone());
        let (orders, asked) = mpsc::channel(1);
        opened
            .send(Opened {
                start,
                from_client,
                to_client,
                orders,
            })
            .await
            .unwrap();
        Ok(Session {
            orders: asked,
            ..Session::new(room, to_worker, from_worker)
        })
    }
}

fn response(message: Response) -> worker_frame::Frame {
    worker_frame::Frame::Response(
        proto::SignalResponse {
            message: Some(message),
        }
        .encode_to_vec(),
    )
}

fn closed(code: Code) -> worker_frame::Frame {
    worker_frame::Frame::Closed(Closed {
        code: code.as_str().into(),
        detail: "because".into(),
    })
}

struct World {
    address: String,
    double: Arc<Double>,
    opened: mpsc::Receiver<Opened>,
    stop: watch::Sender<bool>,
}

async fn world(config: JoinConfig, limits: ServeLimits) -> World {
    let (sender, opened) = mpsc::channel(8);
    let double = Arc::new(Double {
        opened: Mutex::new(Some(sender)),
        ..Double::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, mut stopped) = watch::channel(false);
    let config = JoinConfig {
        shutdown: Some(stop.subscribe()),
        ..config
    };
    let routes = router(double.clone(), config);
    tokio::spawn(serve(listener, routes, limits, async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    }));
    World {
        address,
        double,
        opened,
        stop,
    }
}

async fn plain_world() -> World {
    world(JoinConfig::default(), ServeLimits::default()).await
}

fn token(room: &str) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = Claims {
        name: "Alice".into(),
        ..Claims::for_participant("alice", room, Role::Host, now, 60)
    };
    plenum_token::sign(&claims, KEY, SECRET).unwrap()
}

fn v1_query(token: &str) -> String {
    let inner = proto::JoinRequest {
        participant_sid: "PA_x".into(),
        ..Default::default()
    }
    .encode_to_vec();
    let wrapped = proto::WrappedJoinRequest {
        compression: 0,
        join_request: inner,
    }
    .encode_to_vec();
    let encoded = base64::engine::general_purpose::URL_SAFE.encode(wrapped);
    format!("access_token={token}&join_request={encoded}")
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn connect(world: &World, path: &str, headers: &[(&str, &str)]) -> Result<Socket, (u16, String)> {
    let mut request = format!("ws://{}{path}", world.address)
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        let name = tungstenite::http::HeaderName::try_from(*name).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(&world.address).await.unwrap();
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let code = response
                .headers()
                .get("plenum-error")
                .map(|code| code.to_str().unwrap().to_owned());
            Err((response.status().as_u16(), code.unwrap_or_default()))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn joined(world: &mut World) -> (Socket, Opened) {
    let path = format!("/rtc/v1?{}", v1_query(&token("demo/standup")));
    let socket = connect(world, &path, &[]).await.unwrap();
    (socket, world.opened.recv().await.unwrap())
}

/// The next signal response, pings aside.
async fn next(socket: &mut Socket) -> Response {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => return proto::SignalResponse::decode(bytes).unwrap().message.unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn close_code(socket: &mut Socket) -> (u16, String) {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}

async fn get(world: &World, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(&world.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_v1_client_joins_and_is_given_a_fresh_token() {
    let mut world = plain_world().await;
    let (mut socket, mut opened) = joined(&mut world).await;
    assert_eq!(
        (opened.start.identity.as_str(), opened.start.role.as_str()),
        ("alice", "host")
    );
    assert_eq!(
        (opened.start.name.as_str(), opened.start.kind.as_str()),
        ("Alice", "standard")
    );
    assert!(!opened.start.dual_peer_connection && opened.start.token_issued_at_ms > 0);
    assert_eq!(opened.start.remote_address, "127.0.0.1");
    let request = proto::JoinRequest::decode(opened.start.join_request.as_slice()).unwrap();
    assert_eq!(request.participant_sid, "PA_x");

    assert!(matches!(next(&mut socket).await, Response::Join(_)));
    let Response::RefreshToken(fresh) = next(&mut socket).await else {
        panic!()
    };
    assert_eq!(plenum_token::peek(&fresh).unwrap().room, "demo/standup");
    assert_ne!(fresh, token("demo/standup"));

    socket
        .send(Message::Binary(vec![0x12, 0x00].into()))
        .await
        .unwrap();
    let frame = opened.from_client.recv().await.unwrap();
    assert_eq!(
        (frame.seq, frame.frame),
        (2, Some(client_frame::Frame::Request(vec![0x12, 0x00])))
    );
    opened
        .to_client
        .send(WorkerFrame {
            seq: 2,
            frame: Some(response(Response::Pong(7))),
        })
        .await
        .unwrap();
    assert!(matches!(next(&mut socket).await, Response::Pong(7)));
}

#[tokio::test]
async fn a_v0_client_joins_with_a_bearer_token() {
    let mut world = plain_world().await;
    let bearer = format!("Bearer {}", token("demo/standup"));
    let path = "/rtc?sdk=python&protocol=15&reconnect=1&sid=PA_y&auto_subscribe=0";
    let _socket = connect(&world, path, &[("authorization", &bearer)])
        .await
        .unwrap();
    let opened = world.opened.recv().await.unwrap();
    assert!(opened.start.dual_peer_connection);
    let request = proto::JoinRequest::decode(opened.start.join_request.as_slice()).unwrap();
    assert!(request.reconnect && request.participant_sid == "PA_y");
}

#[tokio::test]
async fn a_leave_is_for_good_and_a_broken_socket_may_resume() {
    let mut world = plain_world().await;
    for leaves in [true, false] {
        let (mut socket, mut opened) = joined(&mut world).await;
        if leaves {
            let leave = proto::signal_request::Message::Leave(Default::default());
            let bytes = proto::SignalRequest { message: Some(leave) }.encode_to_vec();
            socket.send(Message::Binary(bytes.into())).await.unwrap();
            assert!(matches!(
                opened.from_client.recv().await.unwrap().frame,
                Some(client_frame::Frame::Request(_))
            ));
        }
        drop(socket);
        match opened.from_client.recv().await.unwrap().frame {
            Some(client_frame::Frame::Hangup(hangup)) => assert_eq!(hangup.may_resume, !leaves),
            other => panic!("{other:?}"),
        }
        assert!(opened.from_client.recv().await.is_none());
    }
}

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
async fn a_resume_that_the_worker_knows_nothing_of_hears_so_on_the_socket() {
    let world = plain_world().await;
    world
        .double
        .first
        .lock()
        .unwrap()
        .insert("demo/standup".into(), vec![closed(Code::ParticipantNotFound)]);
    let path = format!("/rtc?reconnect=1&sid=PA_x&access_token={}", token("demo/standup"));
    let mut socket = connect(&world, &path, &[]).await.unwrap();
    let Response::Leave(leave) = next(&mut socket).await else {
        panic!()
    };
    assert_eq!(leave.action(), Action::Reconnect);
    assert_eq!(
        close_code(&mut socket).await,
        (4404, "ParticipantNotFound".to_owned())
    );
}

#[tokio::test]
async fn a_closed_session_ends_with_a_leave_and_a_close_code() {
    let mut world = plain_world().await;
    let (mut socket, opened) = joined(&mut world).await;
    opened
        .to_client
        .send(WorkerFrame {
            seq: 2,
            frame: Some(closed(Code::ParticipantRemoved)),
        })
        .await
        .unwrap();
    assert!(matches!(next(&mut socket).await, Response::Join(_)));
    assert!(matches!(next(&mut socket).await, Response::RefreshToken(_)));
    let Response::Leave(leave) = next(&mut socket).await else {
        panic!()
    };
    assert_eq!(leave.action(), Action::Disconnect);
    assert_eq!(leave.reason(), proto::DisconnectReason::ParticipantRemoved);
    assert_eq!(
        close_code(&mut socket).await,
        (4403, "ParticipantRemoved".to_owned())
    );
}

#[tokio::test]
async fn a_lost_worker_and_a_shutdown_ask_the_client_to_resume() {
    let mut world = plain_world().await;
    let (mut socket, opened) = joined(&mut world).await;
    let (mut other, mut other_opened) = joined(&mut world).await;
    drop(opened);
    let leave = loop {
        if let Response::Leave(leave) = next(&mut socket).await {
            break leave;
        }
    };
    assert_eq!(leave.action(), Action::Resume);
    assert_eq!(close_code(&mut socket).await.0, 1012);

    world.stop.send(true).unwrap();
    let leave = loop {
        if let Response::Leave(leave) = next(&mut other).await {
            break leave;
        }
    };
    assert_eq!(leave.action(), Action::Resume);
    match other_opened.from_client.recv().await.unwrap().frame {
        Some(client_frame::Frame::Hangup(hangup)) => assert!(hangup.may_resume),
        frame => panic!("{frame:?}"),
    }
}

#[tokio::test]
async fn a_move_to_another_room_carries_a_token_for_it() {
    let mut world = plain_world().await;
    let (mut socket, opened) = joined(&mut world).await;
    let moved = proto::RoomMovedResponse {
        room: Some(proto::Room {
            name: "demo/standup/red".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    opened
        .to_client
        .send(WorkerFrame {
            seq: 2,
            frame: Some(response(Response::RoomMoved(moved))),
        })
        .await
        .unwrap();
    let token = loop {
        if let Response::RoomMoved(moved) = next(&mut socket).await {
            break moved.token;
        }
    };
    assert_eq!(plenum_token::peek(&token).unwrap().room, "demo/standup/red");
}

#[tokio::test]
async fn a_join_that_leads_to_another_room_is_given_a_token_for_it() {
    let mut world = plain_world().await;
    world
        .double
        .leads_to
        .lock()
        .unwrap()
        .insert("demo/standup".into(), "demo/standup/red".into());
    let (mut socket, _opened) = joined(&mut world).await;
    assert!(matches!(next(&mut socket).await, Response::Join(_)));
    let Response::RefreshToken(fresh) = next(&mut socket).await else {
        panic!()
    };
    assert_eq!(plenum_token::peek(&fresh).unwrap().room, "demo/standup/red");
}

#[tokio::test]
async fn a_client_sent_elsewhere_gets_a_token_for_it_and_is_hung_up() {
    for may_resume in [true, false] {
        let mut world = plain_world().await;
        let (mut socket, mut opened) = joined(&mut world).await;
        // Frames that were on their way come first.
        let frame = WorkerFrame {
            seq: 2,
            frame: Some(response(Response::Pong(7))),
        };
        opened.to_client.send(frame).await.unwrap();
        let order = Order::Elsewhere {
            room: "demo/standup/red".into(),
            may_resume,
        };
        opened.orders.send(order).await.unwrap();
        // The session may be gone by the time the relay looks.
        drop(opened.to_client);
        drop(opened.orders);
        let mut ponged = false;
        let mut room = String::new();
        let leave = loop {
            match next(&mut socket).await {
                Response::Leave(leave) => break leave,
                Response::RefreshToken(token) => room = plenum_token::peek(&token).unwrap().room,
                Response::Pong(7) => ponged = true,
                _ => {}
            }
        };
        assert!(ponged);
        assert_eq!(room, "demo/standup/red");
        let expected = if may_resume {
            Action::Resume
        } else {
            Action::Reconnect
        };
        assert_eq!(leave.action(), expected);
        assert_eq!(close_code(&mut socket).await, (1012, "moved".to_owned()));
        match opened.from_client.recv().await.unwrap().frame {
            Some(client_frame::Frame::Hangup(hangup)) => assert!(!hangup.may_resume),
            frame => panic!("{frame:?}"),
        }
    }
}

#[tokio::test]
async fn a_session_may_be_ended_from_outside_its_worker() {
    let mut world = plain_world().await;
    let (mut socket, opened) = joined(&mut world).await;
    let closed = Closed {
        code: Code::DuplicateIdentity.as_str().into(),
        detail: String::new(),
    };
    opened.orders.send(Order::Close(closed)).await.unwrap();
    let leave = loop {
        if let Response::Leave(leave) = next(&mut socket).await {
            break leave;
        }
    };
    assert_eq!(leave.action(), Action::Disconnect);
    assert_eq!(leave.reason(), proto::DisconnectReason::DuplicateIdentity);
}

#[tokio::test]
async fn rules_broken_on_the_socket_close_it_with_a_reason() {
    let flood = || vec![Message::Binary(vec![0x12, 0x00].into()); 20];
    let large = || vec![Message::Binary(vec![0u8; MAX_MESSAGE_BYTES + 1].into())];
    let text = || vec![Message::Text("{}".into())];
    let config = JoinConfig {
        messages_per_second: 1,
        message_burst: 10,
        ..JoinConfig::default()
    };
    let mut world = world(config, ServeLimits::default()).await;
    for (messages, code, reason) in [
        (flood(), 1008, "RateLimited"),
        (large(), 1009, "MessageTooLarge"),
        (text(), 1003, "RequestMalformed"),
    ] {
        let (mut socket, mut opened) = joined(&mut world).await;
        tokio::spawn(async move { while opened.from_client.recv().await.is_some() {} });
        for message in messages {
            let _ = socket.send(message).await;
        }
        assert_eq!(close_code(&mut socket).await, (code, reason.to_owned()));
    }
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

#[tokio::test]
async fn slow_headers_and_silent_clients_are_cut_and_sessions_are_bounded() {
    let limits = ServeLimits {
        header_read_timeout: Duration::from_millis(200),
        ..ServeLimits::default()
    };
    let config = JoinConfig {
        idle_timeout: Duration::from_millis(600),
        max_sessions: 1,
        ..JoinConfig::default()
    };
    let mut world = world(config, limits).await;
    let mut stream = TcpStream::connect(&world.address).await.unwrap();
    stream
        .write_all(b"GET /rtc HTTP/1.1\r\nhost: x\r\nx-slow: ")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "a half-sent header kept its connection");

    // Not reading means not answering pings.
    let (socket, mut opened) = joined(&mut world).await;
    let path = format!("/rtc/v1?{}", v1_query(&token("demo/standup")));
    assert_eq!(connect(&world, &path, &[]).await.unwrap_err().1, "RateLimited");
    let frame = tokio::time::timeout(Duration::from_secs(3), opened.from_client.recv())
        .await
        .unwrap();
    assert!(matches!(frame.unwrap().frame, Some(client_frame::Frame::Hangup(h)) if h.may_resume));
    drop(socket);
}
