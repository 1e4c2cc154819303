//! The process of a pod, and its end by SIGTERM.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use livekit_protocol::signal_response::Message;
use livekit_protocol::{SignalResponse, leave_request};
use plenum_token::Role;
use plenum_worker::control::authority::{CONTROLLER_NAME, GATEWAY_NAME, WORKER_NAME};
use plenum_worker_api::v1::control_client::ControlClient;
use plenum_worker_api::v1::signal_client::SignalClient;
use plenum_worker_api::v1::{self, client_frame, worker_frame};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const ROOM: &str = "team/standup";
/// What SIGTERM waits here for rooms to be moved.
const GRACE: Duration = Duration::from_secs(2);

/// Ports that differ; free for UDP too, as the media port needs both.
fn free_ports<const N: usize>() -> [u16; N] {
    let mut held = Vec::new();
    while held.len() < N {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if UdpSocket::bind(("0.0.0.0", tcp.local_addr().unwrap().port())).is_ok() {
            held.push(tcp);
        }
    }
    std::array::from_fn(|at| held[at].local_addr().unwrap().port())
}

/// A worker's process and its authority; both end with the test.
struct Pod {
    process: Child,
    authority: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
    control: SocketAddr,
    health: SocketAddr,
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Pod {
    async fn start(name: &str, grace: Duration) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = std::env::temp_dir().join(format!("plenum-stop-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (certificate, key) = issue(&authority, WORKER_NAME);
        write(&directory, "tls.crt", &certificate);
        write(&directory, "tls.key", &key);
        write(&directory, "ca.crt", &authority.pem());
        let [control, health, media] = free_ports();
        let control = SocketAddr::from(([127, 0, 0, 1], control));
        let health = SocketAddr::from(([127, 0, 0, 1], health));
        let process = Command::new(env!("CARGO_BIN_EXE_plenum-worker"))
            .arg("serve")
            .arg(format!("--control-listen={control}"))
            .arg(format!("--metrics-listen={health}"))
            .arg(format!("--media-port={media}"))
            .arg(format!("--tls-dir={}", directory.display()))
            .arg("--worker-uid=uid-1")
            .arg(format!("--shutdown-grace={}", grace.as_secs()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut pod = Self {
            process,
            authority,
            directory,
            control,
            health,
        };
        pod.until_ready_answers(503).await;
        pod
    }

    async fn channel(&self, name: &str) -> Channel {
        let (certificate, key) = issue(&self.authority, name);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .domain_name(WORKER_NAME)
            .identity(Identity::from_pem(certificate, key));
        let endpoint = Endpoint::from_shared(format!("https://{}", self.control)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    async fn ready(&self) -> Option<u16> {
        let mut stream = tokio::net::TcpStream::connect(self.health).await.ok()?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")
            .await
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    async fn until_ready_answers(&mut self, status: u16) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.ready().await != Some(status) {
            if let Some(ended) = self.process.try_wait().unwrap() {
                panic!("the worker ended: {ended}");
            }
            assert!(Instant::now() < until, "/readyz never answers {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn terminate(&self) {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    async fn exit(&mut self, within: Duration) -> ExitStatus {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the process does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn issue(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (
        params.signed_by(&key, authority).unwrap().pem(),
        key.serialize_pem(),
    )
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).unwrap();
}

fn advertise() -> v1::ConfigureRequest {
    v1::ConfigureRequest {
        advertise: vec!["192.0.2.1:30000".to_owned()],
    }
}

#[tokio::test]
async fn whoever_is_left_is_sent_elsewhere_and_the_process_ends_well() {
    let mut pod = Pod::start("left", GRACE).await;
    let mut controller = ControlClient::new(pod.channel(CONTROLLER_NAME).await);
    controller.configure(advertise()).await.unwrap();
    pod.until_ready_answers(200).await;
    let room = v1::RoomSpec {
        name: ROOM.into(),
        epoch: 1,
        ..Default::default()
    };
    controller
        .assign_room(v1::AssignRoomRequest { room: Some(room) })
        .await
        .unwrap();
    // Never read to its end: such a call is what controller and gateways always have open.
    let _reports = controller.watch(v1::WatchRequest {}).await.unwrap();
    let (to_worker, frames) = tokio::sync::mpsc::channel(8);
    let start = v1::Start {
        room: ROOM.into(),
        epoch: 1,
        identity: "alice".into(),
        video_grant_json: serde_json::to_string(&Role::Participant.grant(ROOM)).unwrap(),
        role: "participant".into(),
        ..Default::default()
    };
    to_worker
        .send(v1::ClientFrame {
            seq: 1,
            frame: Some(client_frame::Frame::Start(Box::new(start))),
        })
        .await
        .unwrap();
    let mut session = SignalClient::new(pod.channel(GATEWAY_NAME).await)
        .session(ReceiverStream::new(frames))
        .await
        .unwrap()
        .into_inner();
    // The hub's count of people follows within a tick or two.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let told = Instant::now();
    pod.terminate();
    pod.until_ready_answers(503).await;
    // The controller may still speak to it, but not make it ready again.
    controller.configure(advertise()).await.unwrap();
    assert_eq!(pod.ready().await, Some(503));
    let mut leave = None;
    let closed = loop {
        match session.message().await.unwrap().unwrap().frame {
            Some(worker_frame::Frame::Response(bytes)) => {
                let message = SignalResponse::decode(bytes.as_slice()).unwrap().message;
                if let Some(Message::Leave(said)) = message {
                    leave = Some(said);
                }
            }
            Some(worker_frame::Frame::Closed(closed)) => break closed,
            other => panic!("unexpected frame: {other:?}"),
        }
    };
    assert!(told.elapsed() >= GRACE, "nobody waited for the room to be moved");
    assert_eq!(closed.code, "WorkerDraining");
    assert_eq!(leave.unwrap().action(), leave_request::Action::Reconnect);
    assert!(pod.exit(Duration::from_secs(5)).await.success());
}

#[tokio::test]
async fn an_empty_worker_ends_at_once() {
    let mut pod = Pod::start("empty", Duration::from_secs(60)).await;
    let mut controller = ControlClient::new(pod.channel(CONTROLLER_NAME).await);
    let _reports = controller.watch(v1::WatchRequest {}).await.unwrap();
    pod.terminate();
    assert!(pod.exit(Duration::from_secs(5)).await.success());
}
