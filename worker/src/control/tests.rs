//! The control port over real mutual TLS, with a scripted media engine.

mod meeting;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plenum_token::Role;
use plenum_worker_api::v1::control_client::ControlClient;
use plenum_worker_api::v1::signal_client::SignalClient;
use plenum_worker_api::v1::{self, client_frame, worker_frame};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::authority::{CONTROLLER_NAME, GATEWAY_NAME, WORKER_NAME};
use super::report::Fixed;
use super::serve::server;
use super::service::Services;
use super::tls;
use crate::meeting::Meetings;
use crate::quality::Metrics;
use crate::quality::http::Health;
use crate::session::api::{Command, Event};
use crate::signal::{Hub, HubConfig};

/// Open calls of one connection.
const STREAMS: usize = 500;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (
            params.signed_by(&key, &self.0).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

struct Pod {
    authority: Authority,
    address: SocketAddr,
    health: Arc<Health>,
    advertised: Arc<Mutex<Vec<SocketAddr>>>,
    _events: mpsc::UnboundedSender<Event>,
    _commands: mpsc::UnboundedReceiver<Command>,
    _directory: Directory,
}

/// Removed with the test.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> Self {
        let unique = crate::room::Sids::random().sid("plenum-control");
        let path = std::env::temp_dir().join(&*unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write(directory: &Path, authority: &Authority) {
    let (certificate, key) = authority.issue(WORKER_NAME);
    std::fs::write(directory.join("tls.crt"), certificate).unwrap();
    std::fs::write(directory.join("tls.key"), key).unwrap();
    std::fs::write(directory.join("ca.crt"), authority.0.pem()).unwrap();
}

async fn pod() -> Pod {
    let authority = Authority::new();
    let directory = Directory::new();
    write(&directory.0, &authority);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (commands_in, commands) = mpsc::unbounded_channel::<Command>();
    let (events, events_out) = mpsc::unbounded_channel();
    let metrics = Arc::new(Metrics::new("dev", None).unwrap());
    let (meetings, meetings_handle) = Meetings::new(&metrics).unwrap();
    tokio::spawn(meetings.run());
    let (hub, handle) = Hub::new(HubConfig::default(), commands_in, events_out, metrics);
    tokio::spawn(hub.run());
    let advertised = Arc::new(Mutex::new(Vec::new()));
    let health = Arc::new(Health::default());
    let told = Arc::clone(&advertised);
    let services = Services {
        hub: handle,
        meetings: meetings_handle,
        fixed: Fixed {
            worker_uid: "uid-1".into(),
            media_port: 7882,
        },
        set_advertise: Arc::new(move |addresses| *told.lock().unwrap() = addresses),
        health: Arc::clone(&health),
    };
    let (to, incoming) = mpsc::channel(4);
    let config = tls::load(&directory.0).unwrap();
    tokio::spawn(tls::accept(listener, directory.0.clone(), config, to));
    tokio::spawn(server(
        services,
        ReceiverStream::new(incoming),
        STREAMS,
        std::future::pending(),
    ));
    Pod {
        authority,
        address,
        health,
        advertised,
        _events: events,
        _commands: commands,
        _directory: directory,
    }
}

impl Pod {
    async fn channel(
        &self,
        authority: &Authority,
        name: Option<&str>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.0.pem()))
            .domain_name(WORKER_NAME);
        if let Some(name) = name {
            let (certificate, key) = authority.issue(name);
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        Endpoint::from_shared(format!("https://{}", self.address))
            .unwrap()
            .tls_config(tls)?
            .connect()
            .await
    }

    async fn control(&self, name: &str) -> ControlClient<Channel> {
        ControlClient::new(self.channel(&self.authority, Some(name)).await.unwrap())
    }

    async fn signal(&self, name: &str) -> SignalClient<Channel> {
        SignalClient::new(self.channel(&self.authority, Some(name)).await.unwrap())
    }
}

fn room(epoch: u64) -> v1::AssignRoomRequest {
    v1::AssignRoomRequest {
        room: Some(v1::RoomSpec {
            name: "team/standup".into(),
            epoch,
            ..Default::default()
        }),
    }
}

fn start(identity: &str, epoch: u64) -> v1::Start {
    v1::Start {
        room: "team/standup".into(),
        epoch,
        identity: identity.into(),
        video_grant_json: serde_json::to_string(&Role::Participant.grant("team/standup")).unwrap(),
        role: "participant".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn each_caller_may_do_its_own_part_only() {
    let pod = pod().await;
    let mut controller = pod.control(CONTROLLER_NAME).await;
    let mut gateway = pod.control(GATEWAY_NAME).await;
    controller.assign_room(room(1)).await.unwrap();
    gateway.watch(v1::WatchRequest {}).await.unwrap();
    let denied = [
        gateway.assign_room(room(1)).await.map(drop),
        gateway
            .release_room(v1::ReleaseRoomRequest::default())
            .await
            .map(drop),
        gateway
            .set_draining(v1::SetDrainingRequest { draining: true })
            .await
            .map(drop),
        gateway.configure(v1::ConfigureRequest::default()).await.map(drop),
        pod.signal(CONTROLLER_NAME)
            .await
            .check(start("a", 1))
            .await
            .map(drop),
        pod.signal(CONTROLLER_NAME)
            .await
            .list_participants(v1::ListParticipantsRequest::default())
            .await
            .map(drop),
        pod.signal("stranger.plenum.internal")
            .await
            .check(start("a", 1))
            .await
            .map(drop),
        pod.control("stranger.plenum.internal")
            .await
            .watch(v1::WatchRequest {})
            .await
            .map(drop),
        // A worker's own certificate opens no other worker.
        pod.control(WORKER_NAME)
            .await
            .assign_room(room(1))
            .await
            .map(drop),
    ];
    for result in denied {
        assert_eq!(result.unwrap_err().code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn no_certificate_or_a_foreign_one_gets_nowhere() {
    let pod = pod().await;
    let stranger = Authority::new();
    for channel in [
        pod.channel(&pod.authority, None).await,
        pod.channel(&stranger, Some(CONTROLLER_NAME)).await,
    ] {
        // With TLS 1.3 the refusal may come only with the first call.
        let Ok(channel) = channel else { continue };
        assert!(ControlClient::new(channel).assign_room(room(1)).await.is_err());
    }
}

#[tokio::test]
async fn it_is_ready_once_it_knows_its_addresses() {
    let pod = pod().await;
    let mut controller = pod.control(CONTROLLER_NAME).await;
    assert!(!pod.health.ready());
    for bad in [vec![], vec!["not an address".to_owned()]] {
        let error = controller
            .configure(v1::ConfigureRequest { advertise: bad })
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
    assert!(!pod.health.ready());
    let addresses = vec!["192.0.2.1:30000".to_owned(), "[2001:db8::1]:30000".to_owned()];
    let answer = controller
        .configure(v1::ConfigureRequest { advertise: addresses })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.worker_uid.as_str(), answer.media_port), ("uid-1", 7882));
    assert!(pod.health.ready());
    assert_eq!(pod.advertised.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn epochs_and_draining_are_kept() {
    let pod = pod().await;
    let mut controller = pod.control(CONTROLLER_NAME).await;
    let assigned = controller.assign_room(room(5)).await.unwrap().into_inner();
    assert_eq!(assigned.epoch, 5);
    assert_eq!(
        controller.assign_room(room(5)).await.unwrap().into_inner().sid,
        assigned.sid
    );
    let error = controller.assign_room(room(4)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().starts_with("EpochStale"));
    controller
        .set_draining(v1::SetDrainingRequest { draining: true })
        .await
        .unwrap();
    let mut other = room(1);
    if let Some(room) = &mut other.room {
        room.name = "team/other".into();
    }
    assert!(
        controller
            .assign_room(other)
            .await
            .unwrap_err()
            .message()
            .starts_with("WorkerDraining")
    );
}

#[tokio::test]
async fn a_session_streams_and_ends_with_closed() {
    let pod = pod().await;
    let mut controller = pod.control(CONTROLLER_NAME).await;
    controller.assign_room(room(1)).await.unwrap();
    let mut gateway = pod.signal(GATEWAY_NAME).await;
    assert_eq!(
        gateway.check(start("alice", 9)).await.unwrap().into_inner().code,
        "EpochStale"
    );
    assert!(
        gateway
            .check(start("alice", 1))
            .await
            .unwrap()
            .into_inner()
            .code
            .is_empty()
    );

    let (to_worker, frames) = mpsc::channel(8);
    let first = v1::ClientFrame {
        seq: 1,
        frame: Some(client_frame::Frame::Start(Box::new(start("alice", 1)))),
    };
    to_worker.send(first).await.unwrap();
    let mut stream = gateway
        .session(ReceiverStream::new(frames))
        .await
        .unwrap()
        .into_inner();
    let frame = stream.message().await.unwrap().unwrap();
    let Some(worker_frame::Frame::Response(bytes)) = frame.frame else {
        panic!("{frame:?}")
    };
    let greeting = livekit_protocol::SignalResponse::decode(bytes.as_slice())
        .unwrap()
        .message;
    assert!(matches!(
        greeting,
        Some(livekit_protocol::signal_response::Message::Join(_))
    ));

    let listed = gateway
        .list_participants(v1::ListParticipantsRequest {
            room: "team/standup".into(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (listed.participants.len(), listed.participants[0].role.as_str()),
        (1, "participant")
    );

    let request = v1::RemoveParticipantRequest {
        room: "team/standup".into(),
        identity: "alice".into(),
        revoke: true,
    };
    assert!(
        gateway
            .remove_participant(request)
            .await
            .unwrap()
            .into_inner()
            .found
    );
    let closed = loop {
        let frame = stream.message().await.unwrap().expect("ended without Closed");
        if let Some(worker_frame::Frame::Closed(closed)) = frame.frame {
            break closed;
        }
    };
    assert_eq!(closed.code, "ParticipantRemoved");
    assert!(stream.message().await.unwrap().is_none());
    assert_eq!(
        gateway.check(start("alice", 1)).await.unwrap().into_inner().code,
        "TokenRevoked"
    );
}

#[tokio::test]
async fn a_refused_session_is_one_closed_frame() {
    let pod = pod().await;
    let mut gateway = pod.signal(GATEWAY_NAME).await;
    for (frame, code) in [
        (
            client_frame::Frame::Start(Box::new(start("alice", 1))),
            "RoomNotFound",
        ),
        (
            client_frame::Frame::Hangup(v1::Hangup::default()),
            "RequestMalformed",
        ),
    ] {
        let frames = tokio_stream::once(v1::ClientFrame {
            seq: 1,
            frame: Some(frame),
        });
        let mut stream = gateway.session(frames).await.unwrap().into_inner();
        let Some(worker_frame::Frame::Closed(closed)) = stream.message().await.unwrap().unwrap().frame else {
            panic!("not Closed")
        };
        assert_eq!(closed.code, code);
        assert!(stream.message().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn reports_come_at_once_and_keep_coming() {
    let pod = pod().await;
    let mut controller = pod.control(CONTROLLER_NAME).await;
    let mut reports = controller.watch(v1::WatchRequest {}).await.unwrap().into_inner();
    let first = reports.message().await.unwrap().unwrap();
    assert!(!first.partial && first.worker_uid == "uid-1" && first.rooms.is_empty());
    controller.assign_room(room(3)).await.unwrap();
    let (mut heartbeats, mut told) = (0, false);
    let until = tokio::time::Instant::now() + Duration::from_secs(2);
    while let Ok(Ok(Some(report))) = tokio::time::timeout_at(until, reports.message()).await {
        heartbeats += usize::from(report.partial);
        told |= report
            .rooms
            .iter()
            .any(|r| r.name == "team/standup" && r.epoch == 3);
    }
    assert!(told && heartbeats >= 2, "{told} {heartbeats}");
}

#[tokio::test]
async fn one_connection_carries_as_many_calls_as_it_was_told() {
    let pod = pod().await;
    let gateway = pod.control(GATEWAY_NAME).await;
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let mut gateway = gateway.clone();
        let watch = gateway.watch(v1::WatchRequest {});
        let answer = tokio::time::timeout(Duration::from_secs(5), watch).await;
        open.push(answer.expect("no stream left").unwrap().into_inner());
    }
    let mut gateway = gateway.clone();
    let one_more = gateway.watch(v1::WatchRequest {});
    assert!(
        tokio::time::timeout(Duration::from_millis(300), one_more)
            .await
            .is_err()
    );
}
