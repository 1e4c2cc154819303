//! Sessions against a worker's contract, over real mutual TLS.

use std::sync::Mutex;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::jiff::Timestamp;
use plenum_crds::{Assignment, MeetingSpec, MeetingStatus};
use plenum_worker_api::v1::signal_server::{Signal, SignalServer};
use plenum_worker_api::v1::*;
use tokio::sync::watch;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::super::material::{ApiKey, Certificates};
use super::super::metrics::Metrics;
use super::super::mirror::Mirror;
use super::*;
use crate::pki::{Authority, GATEWAY, WORKER};

/// A worker that knows its room only from the second question on.
#[derive(Default)]
struct Worker {
    asked: Mutex<u32>,
    started: Mutex<Vec<Start>>,
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
        self.0.started.lock().unwrap().push(start);
        let (sender, receiver) = mpsc::channel(8);
        tokio::spawn(async move {
            // Says everything back, and hangs up on Hangup.
            while let Ok(Some(frame)) = frames.message().await {
                let answer = match frame.frame {
                    Some(client_frame::Frame::Request(bytes)) => worker_frame::Frame::Response(bytes),
                    _ => worker_frame::Frame::Closed(Closed::default()),
                };
                let _ = sender
                    .send(Ok(WorkerFrame {
                        seq: frame.seq,
                        frame: Some(answer),
                    }))
                    .await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn check(&self, request: Request<Start>) -> Result<Response<CheckResponse>, Status> {
        let mut asked = self.0.asked.lock().unwrap();
        *asked += 1;
        let code = match (request.into_inner().identity.as_str(), *asked) {
            ("locked-out", _) => "MeetingLocked",
            (_, 1) => "RoomNotFound",
            _ => "",
        };
        Ok(Response::new(CheckResponse {
            code: code.into(),
            detail: String::new(),
        }))
    }

    async fn list_participants(
        &self,
        _: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        Err(Status::unimplemented(""))
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

    async fn reserve(&self, _: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type MeetingStream = ReceiverStream<Result<MeetingDown, Status>>;

    async fn meeting(
        &self,
        _: Request<Streaming<MeetingUp>>,
    ) -> Result<Response<Self::MeetingStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A worker under `trusted`, and the rooms of a gateway whose certificate `own` signed.
async fn world(trusted: &Authority, own: &Authority) -> (Arc<Worker>, ClusterRooms) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let now = Timestamp::now();
    let leaf = trusted.server(vec![WORKER.into()], now).unwrap();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&leaf.certificate, &leaf.key))
        .client_ca_root(Certificate::from_pem(trusted.certificate()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let worker = Arc::new(Worker::default());
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(
        Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(SignalServer::new(Service(worker.clone())))
            .serve_with_incoming(incoming),
    );

    let client = own.client(GATEWAY, now).unwrap();
    let certificates = Certificates {
        client_certificate: client.certificate,
        client_key: client.key,
        authority: trusted.certificate().to_owned(),
        live_certificate: String::new(),
        live_key: String::new(),
    };
    let routes = Arc::new(Routes {
        meetings: Mirror::new(),
        breakouts: Mirror::new(),
        pods: Mirror::new(),
        metrics: Metrics::new().unwrap(),
        waited: Mutex::default(),
    });
    let mut pod = Pod {
        status: Some(PodStatus {
            pod_ip: Some("127.0.0.1".into()),
            ..PodStatus::default()
        }),
        ..Pod::default()
    };
    pod.metadata.name = Some("w1".into());
    pod.metadata.namespace = Some("plenum".into());
    pod.metadata.uid = Some("uid-1".into());
    routes.pods.put(pod);
    put_meeting(&routes, "uid-1");

    let key = ApiKey {
        key: "k".into(),
        secret: "s".repeat(32),
    };
    let offline = kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let keys = Arc::new(Keys::new(offline, watch::channel(Some(Arc::new(key))).1));
    let workers = Arc::new(Workers::on_port(
        watch::channel(Some(Arc::new(certificates))).1,
        port,
    ));
    (
        worker,
        ClusterRooms {
            routes,
            workers,
            keys,
        },
    )
}

fn put_meeting(routes: &Routes, worker_uid: &str) {
    let mut meeting = Meeting::new("standup", MeetingSpec::default());
    meeting.metadata.namespace = Some("demo".into());
    meeting.status = Some(MeetingStatus {
        assignment: Some(Assignment {
            worker: "w1".into(),
            worker_uid: worker_uid.into(),
            worker_namespace: "plenum".into(),
            epoch: 7,
        }),
        ..MeetingStatus::default()
    });
    routes.meetings.put(meeting);
}

fn authority() -> Authority {
    let (certificate, key) = Authority::generate(Timestamp::now()).unwrap();
    Authority::load(&certificate, &key).unwrap()
}

fn start(identity: &str) -> Start {
    Start {
        room: "demo/standup".into(),
        identity: identity.into(),
        role: "host".into(),
        ..Start::default()
    }
}

#[tokio::test]
async fn a_session_carries_the_epoch_and_frames_both_ways() {
    let authority = authority();
    let (worker, rooms) = world(&authority, &authority).await;
    // The first answer is "no such room": waited out, since the object says otherwise.
    rooms.check(&start("alice")).await.unwrap();
    assert_eq!(*worker.asked.lock().unwrap(), 2);
    let mut session = rooms.enter(start("alice")).await.unwrap();
    let frame = |seq, frame| ClientFrame {
        seq,
        frame: Some(frame),
    };
    session
        .to_worker
        .send(frame(2, client_frame::Frame::Request(b"hi".to_vec())))
        .await
        .unwrap();
    let echoed = session.from_worker.recv().await.unwrap();
    assert_eq!(
        (echoed.seq, echoed.frame),
        (2, Some(worker_frame::Frame::Response(b"hi".to_vec())))
    );
    let hangup = client_frame::Frame::Hangup(Hangup { may_resume: false });
    session.to_worker.send(frame(3, hangup)).await.unwrap();
    assert!(matches!(
        session.from_worker.recv().await.unwrap().frame,
        Some(worker_frame::Frame::Closed(_))
    ));
    assert!(session.from_worker.recv().await.is_none());
    assert_eq!(worker.started.lock().unwrap()[0].epoch, 7);
}

#[tokio::test]
async fn a_final_refusal_is_not_waited_out() {
    let authority = authority();
    let (_worker, rooms) = world(&authority, &authority).await;
    let began = Instant::now();
    assert_eq!(
        rooms.check(&start("locked-out")).await.unwrap_err().code,
        Code::MeetingLocked
    );
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_gateway_of_another_authority_is_turned_away() {
    let (worker, rooms) = world(&authority(), &authority()).await;
    let refused = rooms.enter(start("alice")).await.err().unwrap();
    assert_eq!(refused.code, Code::WorkerUnreachable);
    assert!(worker.started.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_pod_of_the_same_name_is_another_worker() {
    let authority = authority();
    let (_worker, rooms) = world(&authority, &authority).await;
    put_meeting(&rooms.routes, "uid-of-its-predecessor");
    assert_eq!(
        rooms.routes.lookup("demo/standup").unwrap_err().code,
        Code::MeetingNotReady
    );
    assert_eq!(
        rooms.routes.lookup("demo/standup/red").unwrap_err().code,
        Code::RoomNotFound
    );
    assert_eq!(
        rooms.routes.lookup("other/standup").unwrap_err().code,
        Code::MeetingNotFound
    );
    for name in ["", "x", "/", "a//b", "demo/standup/", "demo/standup/red/x"] {
        assert_eq!(
            rooms.routes.lookup(name).unwrap_err().code,
            Code::MeetingNotFound,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_key_is_good_for_its_own_meetings_alone() {
    let authority = authority();
    let (_worker, rooms) = world(&authority, &authority).await;
    assert!(rooms.api_secret("k", "demo/standup").await.is_some());
    assert!(rooms.api_secret("other", "demo/standup").await.is_none());
    let spec = MeetingSpec {
        key_secret_ref: Some(plenum_crds::SecretRef { name: "own".into() }),
        ..MeetingSpec::default()
    };
    let mut meeting = Meeting::new("private", spec);
    meeting.metadata.namespace = Some("demo".into());
    rooms.routes.meetings.put(meeting);
    // The Secret cannot be read here, and the installation's key does not stand in for it.
    assert!(rooms.api_secret("k", "demo/private").await.is_none());
}
