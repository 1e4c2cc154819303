//! A hub between scripted clients and a scripted media engine.

mod aside;
mod conversation;
mod resume;

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use plenum_errors::Code;
use plenum_token::Role;
use plenum_worker_api::v1::{ClientFrame, Closed, Hangup, Start, WorkerFrame, client_frame, worker_frame};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Hub, HubConfig, HubHandle, Session, limits};
use crate::quality::Metrics;
use crate::room::{RoomName, RoomSpec};
use crate::session::api::{Command, Event, Leg, SessionId, TrackSid};

const ROOM: &str = "team/standup";

struct Worker {
    hub: HubHandle,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<Event>,
    metrics: Arc<Metrics>,
}

async fn worker() -> Worker {
    worker_with(HubConfig::default()).await
}

async fn worker_with(config: HubConfig) -> Worker {
    let (commands_in, commands) = mpsc::unbounded_channel::<Command>();
    let (events, events_out) = mpsc::unbounded_channel();
    let metrics = Arc::new(Metrics::new("dev", None).unwrap());
    let (hub, handle) = Hub::new(config, commands_in, events_out, Arc::clone(&metrics));
    tokio::spawn(hub.run());
    handle.assign(RoomSpec::open(RoomName::from(ROOM))).await.unwrap();
    Worker {
        hub: handle,
        commands,
        events,
        metrics,
    }
}

fn start(identity: &str, request: &lk::JoinRequest) -> Start {
    Start {
        room: ROOM.into(),
        identity: identity.into(),
        video_grant_json: serde_json::to_string(&Role::Participant.grant(ROOM)).unwrap(),
        role: "participant".into(),
        join_request: request.encode_to_vec(),
        token_issued_at_ms: 1,
        ..Default::default()
    }
}

struct Client {
    hub: HubHandle,
    session: Session,
    seq: u64,
    last: u64,
}

#[allow(clippy::large_enum_variant)] // One at a time, in a test.
enum Got {
    Response(Response),
    Closed(Closed),
    #[allow(dead_code, reason = "read by the tests that wait for such a frame")]
    Other(worker_frame::Frame),
    Cut,
}

impl Worker {
    async fn join(&mut self, identity: &str) -> (Client, lk::JoinResponse) {
        let mut client = self.enter(start(identity, &lk::JoinRequest::default())).await;
        match client.next().await {
            Got::Response(Response::Join(join)) => (client, join),
            _ => panic!("the first message is not a JoinResponse"),
        }
    }

    async fn enter(&self, start: Start) -> Client {
        let session = self.hub.enter(start, 1).await.unwrap();
        Client {
            hub: self.hub.clone(),
            session,
            seq: 1,
            last: 0,
        }
    }

    /// The next command of a kind, skipping others.
    async fn command<T>(&mut self, f: impl Fn(&Command) -> Option<T>) -> T {
        timeout(Duration::from_secs(2), async {
            loop {
                let command = self.commands.recv().await.unwrap();
                if let Some(found) = f(&command) {
                    return found;
                }
            }
        })
        .await
        .unwrap()
    }

    async fn opened(&mut self) -> SessionId {
        self.command(|c| match c {
            Command::Open { session, .. } => Some(*session),
            _ => None,
        })
        .await
    }
}

impl Client {
    async fn next(&mut self) -> Got {
        let frame = timeout(Duration::from_secs(2), self.session.frames.recv())
            .await
            .expect("nothing came");
        let Some(WorkerFrame {
            seq,
            frame: Some(frame),
        }) = frame
        else {
            return Got::Cut;
        };
        assert!(seq > self.last, "frame numbers rise");
        self.last = seq;
        match frame {
            worker_frame::Frame::Response(bytes) => Got::Response(
                lk::SignalResponse::decode(bytes.as_slice())
                    .unwrap()
                    .message
                    .unwrap(),
            ),
            worker_frame::Frame::Closed(closed) => Got::Closed(closed),
            other => Got::Other(other),
        }
    }

    /// The next message that `f` accepts.
    async fn find<T>(&mut self, f: impl Fn(Response) -> Option<T>) -> T {
        loop {
            match self.next().await {
                Got::Response(message) => {
                    if let Some(found) = f(message) {
                        return found;
                    }
                }
                Got::Other(_) => {}
                Got::Closed(closed) => panic!("closed: {closed:?}"),
                Got::Cut => panic!("cut"),
            }
        }
    }

    async fn closed(&mut self) -> (Option<lk::LeaveRequest>, Closed) {
        let mut leave = None;
        loop {
            match self.next().await {
                Got::Response(Response::Leave(l)) => leave = Some(l),
                Got::Response(_) | Got::Other(_) => {}
                Got::Closed(closed) => return (leave, closed),
                Got::Cut => panic!("cut without Closed"),
            }
        }
    }

    async fn send(&mut self, message: Request) {
        self.raw(
            lk::SignalRequest {
                message: Some(message),
            }
            .encode_to_vec(),
        )
        .await;
    }

    async fn raw(&mut self, bytes: Vec<u8>) {
        self.seq += 1;
        let frame = ClientFrame {
            seq: self.seq,
            frame: Some(client_frame::Frame::Request(bytes)),
        };
        self.hub.frame(self.session.connection, frame).await;
    }

    async fn hang_up(&mut self, may_resume: bool) {
        self.seq += 1;
        let frame = ClientFrame {
            seq: self.seq,
            frame: Some(client_frame::Frame::Hangup(Hangup { may_resume })),
        };
        self.hub.frame(self.session.connection, frame).await;
    }
}

fn microphone(cid: &str) -> Request {
    Request::AddTrack(lk::AddTrackRequest {
        cid: cid.into(),
        source: lk::TrackSource::Microphone as i32,
        ..Default::default()
    })
}
