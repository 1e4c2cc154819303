//! A double of the rooms behind the front door, and clients before it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use futures::StreamExt;
use livekit_protocol as proto;
use plenum_errors::{Code, PublicError};
use plenum_join::{JoinConfig, Order, Rooms, ServeLimits, Session, router, serve};
use plenum_token::{Claims, Role};
use plenum_worker_api::v1::{ClientFrame, Closed, Start, WorkerFrame, worker_frame};
use prost::Message as _;
use proto::signal_response::Message as Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest};

pub(crate) const KEY: &str = "devkey";
pub(crate) const SECRET: &str = "a-secret-of-exactly-32-bytes-ok!";

/// What the test holds of a session that a client opened.
pub(crate) struct Opened {
    pub(crate) start: Start,
    pub(crate) from_client: mpsc::Receiver<ClientFrame>,
    pub(crate) to_client: mpsc::Sender<WorkerFrame>,
    pub(crate) orders: mpsc::Sender<Order>,
}

#[derive(Default)]
pub(crate) struct Double {
    /// Where joins lead, by the room of the token; to that room itself where nothing is said.
    pub(crate) leads_to: Mutex<HashMap<String, String>>,
    pub(crate) refuse: Mutex<Option<PublicError>>,
    /// What the worker says first, by room.
    pub(crate) first: Mutex<HashMap<String, Vec<worker_frame::Frame>>>,
    pub(crate) opened: Mutex<Option<mpsc::Sender<Opened>>>,
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

pub(crate) fn response(message: Response) -> worker_frame::Frame {
    worker_frame::Frame::Response(
        proto::SignalResponse {
            message: Some(message),
        }
        .encode_to_vec(),
    )
}

pub(crate) fn closed(code: Code) -> worker_frame::Frame {
    worker_frame::Frame::Closed(Closed {
        code: code.as_str().into(),
        detail: "because".into(),
    })
}

pub(crate) struct World {
    pub(crate) address: String,
    pub(crate) double: Arc<Double>,
    pub(crate) opened: mpsc::Receiver<Opened>,
    pub(crate) stop: watch::Sender<bool>,
}

pub(crate) async fn world(config: JoinConfig, limits: ServeLimits) -> World {
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

pub(crate) async fn plain_world() -> World {
    world(JoinConfig::default(), ServeLimits::default()).await
}

pub(crate) fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub(crate) fn token(room: &str) -> String {
    let claims = Claims {
        name: "Alice".into(),
        ..Claims::for_participant("alice", room, Role::Host, now(), 60)
    };
    plenum_token::sign(&claims, KEY, SECRET).unwrap()
}

pub(crate) fn v1_query(token: &str) -> String {
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

pub(crate) type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

pub(crate) async fn connect(
    world: &World,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Socket, (u16, String)> {
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

pub(crate) async fn joined(world: &mut World) -> (Socket, Opened) {
    let path = format!("/rtc/v1?{}", v1_query(&token("demo/standup")));
    let socket = connect(world, &path, &[]).await.unwrap();
    (socket, world.opened.recv().await.unwrap())
}

/// The next signal response, pings aside.
pub(crate) async fn next(socket: &mut Socket) -> Response {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => return proto::SignalResponse::decode(bytes).unwrap().message.unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn close_code(socket: &mut Socket) -> (u16, String) {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}

pub(crate) async fn get(world: &World, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(&world.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Another front door to the same rooms.
pub(crate) async fn another(world: &World) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let routes = router(world.double.clone(), JoinConfig::default());
    tokio::spawn(serve(
        listener,
        routes,
        ServeLimits::default(),
        std::future::pending(),
    ));
    address
}

/// What an HTTP request was answered with. Names of headers are in lower case.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Status and code of a refusal, whose body must say the same.
    pub(crate) fn refusal(&self) -> (u16, String) {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body["status"], self.status);
        assert_eq!(body["code"].as_str(), self.header("plenum-error"));
        let code = Code::parse(body["code"].as_str().unwrap()).unwrap();
        assert_eq!(body["cause"], code.cause());
        assert_eq!(body["remedy"], code.remedy());
        (self.status, code.as_str().to_owned())
    }
}

pub(crate) async fn http(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    // A server that has read enough may close before it has read all.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Reply {
        status,
        headers,
        body: body.to_owned(),
    }
}
