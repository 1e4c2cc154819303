//! A small installation for tests: workers behind their contract over real mutual TLS, an API server
//! that knows Meetings and BreakoutRooms, and gateways between them.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::client::Body;
use livekit_protocol as proto;
use plenum_crds::{Assignment, BreakoutRoom, BreakoutRoomStatus, Meeting, MeetingSpec, MeetingStatus};
use plenum_errors::Code;
use plenum_join::{Rooms as _, Session};
use plenum_token::Role;
use plenum_worker_api::v1::signal_server::{Signal, SignalServer};
use plenum_worker_api::v1::*;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::Links;
use super::keys::Keys;
use super::material::{ApiKey, Certificates};
use super::meetings::{Meetings, Reach};
use super::metrics::Metrics;
use super::mirror::Mirror;
use super::rooms::ClusterRooms;
use super::route::Routes;
use super::workers::Workers;
use crate::pki::{Authority, GATEWAY, WORKER};

/// What a test gives anything that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const SECRET: &str = "a-secret-of-exactly-32-bytes-ok!";

pub(crate) fn authority() -> Authority {
    let (certificate, key) = Authority::generate(Timestamp::now()).unwrap();
    Authority::load(&certificate, &key).unwrap()
}

/// A worker's session as the worker sees it.
pub(crate) struct Probe {
    pub(crate) start: Start,
    heard: mpsc::UnboundedReceiver<ClientFrame>,
    say: mpsc::Sender<Result<WorkerFrame, Status>>,
}

impl Probe {
    /// The next frame that is not a Tell, with what was told before it.
    pub(crate) async fn frame(&mut self) -> client_frame::Frame {
        loop {
            match self.any().await {
                client_frame::Frame::Tell(_) => {}
                frame => return frame,
            }
        }
    }

    async fn any(&mut self) -> client_frame::Frame {
        let frame = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        frame
            .expect("nothing came")
            .expect("the stream ended")
            .frame
            .unwrap()
    }

    /// The next message to the client that `wanted` accepts.
    pub(crate) async fn told(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let client_frame::Frame::Tell(json) = self.any().await {
                let value: Value = serde_json::from_str(&json).unwrap();
                if wanted(&value) {
                    return value;
                }
            }
        }
    }

    /// Every message to the client up to the one that `last` accepts.
    pub(crate) async fn told_until(&mut self, last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            all.push(self.told(|_| true).await);
            if all.last().is_some_and(&last) {
                return all;
            }
        }
    }

    pub(crate) async fn notice(&mut self, kind: &str) -> Value {
        self.told(|value| value["notice"] == kind).await
    }

    /// The client asks for something; its answer.
    pub(crate) async fn ask(&mut self, request: Value) -> Value {
        self.say(worker_frame::Frame::Said(request.to_string())).await;
        self.told(|value| value["re"] == request["id"]).await
    }

    pub(crate) async fn say(&self, frame: worker_frame::Frame) {
        let frame = WorkerFrame {
            seq: 0,
            frame: Some(frame),
        };
        self.say.send(Ok(frame)).await.unwrap();
    }

    pub(crate) async fn close(&self, code: Code) {
        self.say(worker_frame::Frame::Closed(Closed {
            code: code.as_str().into(),
            detail: String::new(),
        }))
        .await;
    }
}

/// A hub as a gateway sees it.
#[derive(Default)]
pub(crate) struct Hub {
    pub(crate) attached: Vec<Attach>,
    pub(crate) here: Vec<Here>,
    pub(crate) gone: Vec<Gone>,
    pub(crate) entries: Vec<MeetingEntry>,
    pub(crate) standing: String,
    streams: Vec<mpsc::UnboundedSender<MeetingDown>>,
    seq: u64,
}

impl Hub {
    pub(crate) fn send(&self, frame: meeting_down::Frame) {
        for stream in &self.streams {
            let _ = stream.send(MeetingDown {
                frame: Some(frame.clone()),
            });
        }
    }

    /// Lets go of every gateway.
    pub(crate) fn cut(&mut self) {
        self.streams.clear();
    }

    fn post(&mut self, post: Post) {
        self.seq += 1;
        let entry = MeetingEntry {
            seq: self.seq,
            at_ms: 1,
            signal_json: post.signal_json,
            audience_json: post.audience_json,
        };
        self.entries.push(entry.clone());
        self.send(meeting_down::Frame::Entry(entry));
    }

    pub(crate) fn signals(&self) -> Vec<Value> {
        self.entries
            .iter()
            .map(|entry| serde_json::from_str(&entry.signal_json).unwrap())
            .collect()
    }
}

/// A worker that does as it is told.
pub(crate) struct Worker {
    /// Answers to Check, before it lets everybody in.
    pub(crate) checks: Mutex<VecDeque<Code>>,
    pub(crate) asked: Mutex<u32>,
    /// Rooms that nobody gets into.
    pub(crate) refuses: Mutex<HashMap<String, Code>>,
    pub(crate) reserved: Mutex<Vec<ReserveRequest>>,
    pub(crate) people: Mutex<Vec<ParticipantEntry>>,
    pub(crate) lists: Mutex<u32>,
    pub(crate) hub: Mutex<Hub>,
    /// What it gives for another worker; `None` = nothing, not even an answer.
    pub(crate) handover: Mutex<Option<Vec<u8>>>,
    sessions: mpsc::UnboundedSender<Probe>,
    opened: tokio::sync::Mutex<mpsc::UnboundedReceiver<Probe>>,
}

impl Worker {
    fn new() -> Arc<Worker> {
        let (sessions, opened) = mpsc::unbounded_channel();
        Arc::new(Worker {
            checks: Mutex::default(),
            asked: Mutex::default(),
            refuses: Mutex::default(),
            reserved: Mutex::default(),
            people: Mutex::default(),
            lists: Mutex::default(),
            hub: Mutex::default(),
            handover: Mutex::new(Some(b"state".to_vec())),
            sessions,
            opened: tokio::sync::Mutex::new(opened),
        })
    }

    /// The next session that was opened.
    pub(crate) async fn opened(&self) -> Probe {
        let mut opened = self.opened.lock().await;
        let probe = tokio::time::timeout(PATIENCE, opened.recv()).await;
        probe.expect("no session was opened").unwrap()
    }

    pub(crate) fn refuse(&self, room: &str, code: Code) {
        self.refuses.lock().unwrap().insert(room.into(), code);
    }

    fn refusal(&self, room: &str) -> Option<Code> {
        self.refuses.lock().unwrap().get(room).copied()
    }

    pub(crate) fn person(&self, room: &str, identity: &str, role: Role) {
        let info = proto::ParticipantInfo {
            identity: identity.into(),
            name: identity.to_uppercase(),
            ..Default::default()
        };
        self.people.lock().unwrap().push(ParticipantEntry {
            room: room.into(),
            role: role.as_str().into(),
            info: info.encode_to_vec(),
            ..ParticipantEntry::default()
        });
    }
}

/// Waits until `done`.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

struct Service(Arc<Worker>);

#[tonic::async_trait]
impl Signal for Service {
    type SessionStream = ReceiverStream<Result<WorkerFrame, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<ClientFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut frames = request.into_inner();
        let Some(ClientFrame {
            seq: 1,
            frame: Some(client_frame::Frame::Start(start)),
        }) = frames.message().await?
        else {
            return Err(Status::invalid_argument("no Start"));
        };
        let (say, receiver) = mpsc::channel(64);
        let (hears, heard) = mpsc::unbounded_channel();
        let worker = self.0.clone();
        let mut room = start.room.clone();
        let first = match worker.refusal(&room) {
            Some(code) => worker_frame::Frame::Closed(Closed {
                code: code.as_str().into(),
                detail: String::new(),
            }),
            None => worker_frame::Frame::Response(b"joined".to_vec()),
        };
        let frame = |seq, frame| {
            Ok(WorkerFrame {
                seq,
                frame: Some(frame),
            })
        };
        let _ = say.send(frame(1, first)).await;
        let _ = worker.sessions.send(Probe {
            start,
            heard,
            say: say.clone(),
        });
        tokio::spawn(async move {
            while let Ok(Some(got)) = frames.message().await {
                let _ = hears.send(got.clone());
                let answer = match got.frame {
                    Some(client_frame::Frame::Request(bytes)) => worker_frame::Frame::Response(bytes),
                    Some(client_frame::Frame::Hangup(_)) => worker_frame::Frame::Closed(Closed::default()),
                    Some(client_frame::Frame::Move(order)) => {
                        let code = worker.refusal(&order.room);
                        if code.is_none() {
                            room = order.room;
                        }
                        worker_frame::Frame::Moved(Moved {
                            id: order.id,
                            room: room.clone(),
                            code: code.map(|code| code.as_str().into()).unwrap_or_default(),
                            detail: String::new(),
                        })
                    }
                    Some(client_frame::Frame::HandOver(_)) => match worker.handover.lock().unwrap().clone() {
                        Some(state) => worker_frame::Frame::HandedOver(state),
                        None => continue,
                    },
                    _ => continue,
                };
                let _ = say.send(frame(got.seq, answer)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn check(&self, request: Request<Start>) -> Result<Response<CheckResponse>, Status> {
        *self.0.asked.lock().unwrap() += 1;
        let start = request.into_inner();
        let next = self.0.checks.lock().unwrap().pop_front();
        let code = next.or_else(|| self.0.refusal(&start.room));
        Ok(Response::new(CheckResponse {
            code: code.map(|code| code.as_str().into()).unwrap_or_default(),
            detail: String::new(),
        }))
    }

    async fn list_participants(
        &self,
        request: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        *self.0.lists.lock().unwrap() += 1;
        let room = request.into_inner().room;
        let people = self.0.people.lock().unwrap();
        let participants = people.iter().filter(|one| room.is_empty() || one.room == room);
        Ok(Response::new(ListParticipantsResponse {
            participants: participants.cloned().collect(),
        }))
    }

    async fn remove_participant(
        &self,
        _: Request<RemoveParticipantRequest>,
    ) -> Result<Response<RemoveParticipantResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn moderate(&self, _: Request<ModerateRequest>) -> Result<Response<ModerateResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        let request = request.into_inner();
        let code = self.0.refusal(&request.room);
        let may_resume = !request.handover.is_empty();
        self.0.reserved.lock().unwrap().push(request);
        Ok(Response::new(ReserveResponse {
            code: code.map(|code| code.as_str().into()).unwrap_or_default(),
            detail: String::new(),
            may_resume,
        }))
    }

    type MeetingStream = ReceiverStream<Result<MeetingDown, Status>>;

    async fn meeting(
        &self,
        request: Request<Streaming<MeetingUp>>,
    ) -> Result<Response<Self::MeetingStream>, Status> {
        let mut frames = request.into_inner();
        let Some(MeetingUp {
            frame: Some(meeting_up::Frame::Attach(attach)),
        }) = frames.message().await?
        else {
            return Err(Status::invalid_argument("no Attach"));
        };
        let (stream, mut outgoing) = mpsc::unbounded_channel::<MeetingDown>();
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Some(frame) = outgoing.recv().await {
                if sender.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
        });
        {
            let mut hub = self.0.hub.lock().unwrap();
            let first: Vec<meeting_down::Frame> = hub
                .entries
                .iter()
                .cloned()
                .map(meeting_down::Frame::Entry)
                .chain([
                    meeting_down::Frame::StandingJson(if hub.standing.is_empty() {
                        r#"{"hands":[],"help":[]}"#.into()
                    } else {
                        hub.standing.clone()
                    }),
                    meeting_down::Frame::CaughtUp(hub.seq),
                ])
                .collect();
            for frame in first {
                let _ = stream.send(MeetingDown { frame: Some(frame) });
            }
            hub.attached.push(attach);
            hub.streams.push(stream);
        }
        let worker = self.0.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                let mut hub = worker.hub.lock().unwrap();
                match frame.frame {
                    Some(meeting_up::Frame::Post(post)) => hub.post(post),
                    Some(meeting_up::Frame::Here(here)) => hub.here.push(here),
                    Some(meeting_up::Frame::Gone(gone)) => hub.gone.push(gone),
                    _ => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// An API server that knows Meetings and BreakoutRooms, and tells the mirrors at once.
#[derive(Clone)]
pub(crate) struct ApiServer {
    pub(crate) routes: Arc<Routes>,
    version: Arc<Mutex<u64>>,
    /// So many writes meet a conflict.
    pub(crate) conflicts: Arc<Mutex<u32>>,
    pub(crate) writes: Arc<Mutex<Vec<(String, Value)>>>,
    /// Where new rooms are placed.
    place: Assignment,
}

impl ApiServer {
    fn next_version(&self) -> String {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        version.to_string()
    }

    fn answer(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        // apis/plenum.dev/v1alpha1/namespaces/NAMESPACE/KIND[/NAME[/status]]
        let (namespace, kind, name) = (parts[4], parts[5], parts.get(6).copied().unwrap_or_default());
        if method != "GET" {
            self.writes
                .lock()
                .unwrap()
                .push((format!("{method} {path}"), body.clone()));
        }
        match (method, kind) {
            ("GET", "meetings") => match self.routes.meetings.get(namespace, name) {
                Some(meeting) => (200, serde_json::to_value(&*meeting).unwrap()),
                None => failure(404, "NotFound"),
            },
            ("PATCH", "meetings") => {
                let Some(meeting) = self.routes.meetings.get(namespace, name) else {
                    return failure(404, "NotFound");
                };
                let mut conflicts = self.conflicts.lock().unwrap();
                let stale = body["metadata"]["resourceVersion"] != json!(meeting.resource_version());
                if *conflicts > 0 || stale {
                    *conflicts = conflicts.saturating_sub(1);
                    return failure(409, "Conflict");
                }
                let mut value = serde_json::to_value(&*meeting).unwrap();
                merge(&mut value["status"], &body["status"]);
                value["metadata"]["resourceVersion"] = json!(self.next_version());
                self.routes
                    .meetings
                    .put(serde_json::from_value(value.clone()).unwrap());
                (200, value)
            }
            ("POST", "breakoutrooms") => {
                let mut room: BreakoutRoom = serde_json::from_value(body.clone()).unwrap();
                if self.routes.breakouts.get(namespace, &room.name_any()).is_some() {
                    return failure(409, "AlreadyExists");
                }
                room.metadata.resource_version = Some(self.next_version());
                let created = serde_json::to_value(&room).unwrap();
                self.routes.breakouts.put(placed(room, &self.place));
                (201, created)
            }
            ("DELETE", "breakoutrooms") => match self.routes.breakouts.get(namespace, name) {
                Some(_) => {
                    self.routes.breakouts.remove(namespace, name);
                    (200, json!({"kind": "Status", "status": "Success"}))
                }
                None => failure(404, "NotFound"),
            },
            _ => failure(404, "NotFound"),
        }
    }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code,
    });
    (code, status)
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

impl tower_service::Service<axum::http::Request<Body>> for ApiServer {
    type Response = axum::http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let (code, answer) = server.answer(head.method.as_str(), head.uri.path(), &body);
            let response = axum::http::Response::builder().status(code);
            Ok(response
                .body(Body::from(answer.to_string().into_bytes()))
                .unwrap())
        })
    }
}

/// A room that a worker holds and is ready.
pub(crate) fn placed(mut room: BreakoutRoom, at: &Assignment) -> BreakoutRoom {
    room.metadata.generation.get_or_insert(1);
    let ready = Condition {
        type_: "Ready".into(),
        status: "True".into(),
        reason: "Open".into(),
        message: String::new(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    };
    room.status = Some(BreakoutRoomStatus {
        observed_generation: room.metadata.generation.unwrap_or_default(),
        conditions: vec![ready],
        assignment: Some(at.clone()),
        ..BreakoutRoomStatus::default()
    });
    room
}

/// Two workers, an API server and a gateway.
pub(crate) struct World {
    pub(crate) workers: Vec<Arc<Worker>>,
    pub(crate) rooms: ClusterRooms,
    pub(crate) api: ApiServer,
    pub(crate) reach: Reach,
}

/// The place of a room on worker `index`.
pub(crate) fn place(index: usize, epoch: i64) -> Assignment {
    Assignment {
        worker: format!("w{index}"),
        worker_uid: format!("uid-{index}"),
        worker_namespace: "plenum".into(),
        epoch,
    }
}

impl World {
    /// The meeting demo/standup is on worker 0.
    pub(crate) async fn new() -> World {
        let authority = authority();
        World::trusting(&authority, &authority).await
    }

    /// Workers under `trusted`, and a gateway whose certificate `own` signed.
    pub(crate) async fn trusting(trusted: &Authority, own: &Authority) -> World {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let now = Timestamp::now();
        let routes = Arc::new(Routes {
            meetings: Mirror::new(),
            breakouts: Mirror::new(),
            pods: Mirror::new(),
            metrics: Metrics::new().unwrap(),
            waited: Mutex::default(),
        });
        let (listeners, port) = listeners().await;
        let mut workers = Vec::new();
        for (index, (ip, listener)) in listeners.into_iter().enumerate() {
            let leaf = trusted.server(vec![WORKER.into()], now).unwrap();
            let tls = ServerTlsConfig::new()
                .identity(Identity::from_pem(&leaf.certificate, &leaf.key))
                .client_ca_root(Certificate::from_pem(trusted.certificate()));
            let worker = Worker::new();
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            tokio::spawn(
                Server::builder()
                    .tls_config(tls)
                    .unwrap()
                    .add_service(SignalServer::new(Service(worker.clone())))
                    .serve_with_incoming(incoming),
            );
            workers.push(worker);
            let mut pod = Pod {
                status: Some(PodStatus {
                    pod_ip: Some(ip.to_string()),
                    ..PodStatus::default()
                }),
                ..Pod::default()
            };
            pod.metadata.name = Some(format!("w{index}"));
            pod.metadata.namespace = Some("plenum".into());
            pod.metadata.uid = Some(format!("uid-{index}"));
            routes.pods.put(pod);
        }
        let client = own.client(GATEWAY, now).unwrap();
        let certificates = Certificates {
            client_certificate: client.certificate,
            client_key: client.key,
            authority: trusted.certificate().to_owned(),
            live_certificate: String::new(),
            live_key: String::new(),
        };
        let key = ApiKey {
            key: "k".into(),
            secret: SECRET.into(),
        };
        let api = ApiServer {
            routes: routes.clone(),
            version: Arc::default(),
            conflicts: Arc::default(),
            writes: Arc::default(),
            place: place(0, 3),
        };
        let client = kube::Client::new(api.clone(), "default");
        // Watches stay open as long as their senders: these are never changed.
        let certificates = watch::channel(Some(Arc::new(certificates))).1;
        let reach = Reach {
            workers: Arc::new(Workers::on_port(certificates, port)),
            keys: Arc::new(Keys::new(client.clone(), watch::channel(Some(Arc::new(key))).1)),
            metrics: routes.metrics.clone(),
            links: Links {
                public_url: Some("https://meet.test".into()),
            },
            routes,
            client,
        };
        let world = World {
            workers,
            rooms: ClusterRooms {
                meetings: Meetings::new(reach.clone()),
            },
            api,
            reach,
        };
        world.put_meeting("uid-0", |_| {});
        world
    }

    /// Another gateway of the same installation.
    pub(crate) fn gateway(&self) -> ClusterRooms {
        ClusterRooms {
            meetings: Meetings::new(self.reach.clone()),
        }
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.reach.routes
    }

    /// The Meeting demo/standup, as `change` has it.
    pub(crate) fn put_meeting(&self, worker_uid: &str, change: impl FnOnce(&mut Meeting)) {
        let known = self.routes().meetings.get("demo", "standup");
        let mut meeting = known.map_or_else(
            || Meeting::new("standup", MeetingSpec::default()),
            |meeting| (*meeting).clone(),
        );
        meeting.metadata.namespace = Some("demo".into());
        meeting.metadata.uid = Some("meeting-uid".into());
        meeting.metadata.resource_version = Some(self.api.next_version());
        let mut status = meeting.status.take().unwrap_or_default();
        status.assignment = Some(Assignment {
            worker_uid: worker_uid.into(),
            ..place(0, 7)
        });
        meeting.status = Some(MeetingStatus { ..status });
        change(&mut meeting);
        self.routes().meetings.put(meeting);
    }

    /// An open room of the meeting on worker `index`, as `change` has it.
    pub(crate) fn put_room(&self, name: &str, index: usize, change: impl FnOnce(&mut BreakoutRoom)) {
        let mut room = super::meetings::plans::tests::room("standup", name);
        room.metadata.resource_version = Some(self.api.next_version());
        let mut room = placed(room, &place(index, 5));
        change(&mut room);
        self.routes().breakouts.put(room);
    }

    /// Somebody joins; their session as the front door and as worker `index` see it.
    pub(crate) async fn join(&self, start: Start, index: usize) -> (Session, Probe) {
        enter(&self.rooms, &self.workers[index], start).await
    }
}

/// Somebody joins by that gateway.
pub(crate) async fn enter(rooms: &ClusterRooms, worker: &Worker, start: Start) -> (Session, Probe) {
    let mut session = rooms.enter(start).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, session.from_worker.recv()).await;
    let first = first.expect("the worker says nothing").unwrap();
    assert_eq!(
        first.frame,
        Some(worker_frame::Frame::Response(b"joined".to_vec()))
    );
    (session, worker.opened().await)
}

/// The same free port on two addresses of this machine.
async fn listeners() -> (Vec<(IpAddr, tokio::net::TcpListener)>, u16) {
    let addresses: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
    loop {
        let first = tokio::net::TcpListener::bind((addresses[0], 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = tokio::net::TcpListener::bind((addresses[1], port)).await {
            return (vec![(addresses[0], first), (addresses[1], second)], port);
        }
    }
}

/// What a front door says of a newcomer.
pub(crate) fn start(room: &str, identity: &str, role: Role) -> Start {
    Start {
        room: room.into(),
        identity: identity.into(),
        name: identity.to_uppercase(),
        role: role.as_str().into(),
        video_grant_json: serde_json::to_string(&role.grant(room)).unwrap(),
        ..Start::default()
    }
}

/// The same for somebody who comes back.
pub(crate) fn resume(room: &str, identity: &str, role: Role) -> Start {
    let request = proto::JoinRequest {
        reconnect: true,
        participant_sid: "PA_x".into(),
        ..Default::default()
    };
    Start {
        join_request: request.encode_to_vec(),
        ..start(room, identity, role)
    }
}
