//! A small installation for tests: workers behind their contract over real mutual TLS, an API server
//! that knows Meetings and BreakoutRooms, and gateways between them.

mod api_server;
mod real;
mod worker;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use livekit_protocol as proto;
use plenum_crds::{Assignment, BreakoutRoom, BreakoutRoomStatus, Meeting, MeetingSpec, MeetingStatus};
use plenum_join::{Rooms as _, Session};
use plenum_token::Role;
use plenum_worker_api::v1::signal_server::SignalServer;
use plenum_worker_api::v1::{Start, worker_frame};
use prost::Message as _;
use tokio::sync::watch;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::Links;
use super::keys::Keys;
use super::material::{ApiKey, Certificates};
use super::meetings::events::Events;
use super::meetings::{Meetings, Reach};
use super::metrics::Metrics;
use super::mirror::Mirror;
use super::rooms::ClusterRooms;
use super::route::Routes;
use super::workers::Workers;
use crate::pki::{Authority, GATEWAY, WORKER};
pub(crate) use api_server::ApiServer;
pub(crate) use real::RealWorker;
use worker::Service;
pub(crate) use worker::{Probe, Worker};

/// Where the workers are: all of it is this machine.
const ADDRESSES: [&str; 2] = ["127.0.0.1", "127.0.0.2"];
/// What a test gives anything that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const SECRET: &str = "a-secret-of-exactly-32-bytes-ok!";

pub(crate) fn authority() -> Authority {
    let (certificate, key) = Authority::generate(Timestamp::now()).unwrap();
    Authority::load(&certificate, &key).unwrap()
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
        let (listeners, port) = listeners().await;
        let mut workers = Vec::new();
        for listener in listeners {
            let leaf = trusted.server(vec![WORKER.into()], Timestamp::now()).unwrap();
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
        }
        World::over(workers, port, trusted, own)
    }

    /// A gateway before real workers with a scripted media engine.
    pub(crate) async fn real() -> (World, Vec<RealWorker>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = authority();
        let (listeners, port) = listeners().await;
        let mut workers = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            workers.push(RealWorker::start(listener, &authority, &format!("uid-{index}")));
        }
        (World::over(Vec::new(), port, &authority, &authority), workers)
    }

    fn over(workers: Vec<Arc<Worker>>, port: u16, trusted: &Authority, own: &Authority) -> World {
        let now = Timestamp::now();
        let routes = Arc::new(Routes {
            meetings: Mirror::new(),
            breakouts: Mirror::new(),
            pods: Mirror::new(),
            metrics: Metrics::new().unwrap(),
            waited: Mutex::default(),
        });
        for (index, address) in ADDRESSES.iter().enumerate() {
            let mut pod = Pod {
                status: Some(PodStatus {
                    pod_ip: Some((*address).into()),
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
            unseen: Arc::default(),
            away: Arc::default(),
            events: Arc::default(),
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
            events: Events::new(client.clone(), "gateway-0"),
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

/// The same free port on all addresses.
async fn listeners() -> (Vec<tokio::net::TcpListener>, u16) {
    loop {
        let first = tokio::net::TcpListener::bind((ADDRESSES[0], 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = tokio::net::TcpListener::bind((ADDRESSES[1], port)).await {
            return (vec![first, second], port);
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
