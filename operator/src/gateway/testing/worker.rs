//! A worker that does as it is told.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use livekit_protocol as proto;
use plenum_errors::Code;
use plenum_token::Role;
use plenum_worker_api::v1::signal_server::Signal;
use plenum_worker_api::v1::*;
use prost::Message as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::PATIENCE;

/// A worker's session as the worker sees it.
pub(crate) struct Probe {
    pub(crate) start: Start,
    heard: mpsc::UnboundedReceiver<ClientFrame>,
    say: mpsc::Sender<Result<WorkerFrame, Status>>,
    /// What the client was told and the test did not look at yet.
    kept: VecDeque<Value>,
}

impl Probe {
    /// The next frame that is not a Tell.
    pub(crate) async fn frame(&mut self) -> client_frame::Frame {
        loop {
            match self.any().await {
                client_frame::Frame::Tell(json) => self.kept.push_back(serde_json::from_str(&json).unwrap()),
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

    async fn next_told(&mut self) -> Value {
        loop {
            if let client_frame::Frame::Tell(json) = self.any().await {
                return serde_json::from_str(&json).unwrap();
            }
        }
    }

    /// The next message to the client that `wanted` accepts; those before it are passed over.
    pub(crate) async fn told(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let value = match self.kept.pop_front() {
                Some(value) => value,
                None => self.next_told().await,
            };
            if wanted(&value) {
                return value;
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

    /// The client asks for something; its answer. What it was told before is kept.
    pub(crate) async fn ask(&mut self, request: Value) -> Value {
        self.request(&request).await;
        loop {
            let value = self.next_told().await;
            if value["re"] == request["id"] {
                return value;
            }
            self.kept.push_back(value);
        }
    }

    /// The client asks for something.
    pub(crate) async fn request(&self, request: &Value) {
        self.say(worker_frame::Frame::Said(request.to_string())).await;
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
    /// What hosts wanted of people's tracks.
    pub(crate) moderated: Mutex<Vec<ModerateRequest>>,
    pub(crate) people: Mutex<Vec<ParticipantEntry>>,
    pub(crate) lists: Mutex<u32>,
    pub(crate) hub: Mutex<Hub>,
    /// What it gives for another worker; `None` = nothing, not even an answer.
    pub(crate) handover: Mutex<Option<Vec<u8>>>,
    sessions: mpsc::UnboundedSender<Probe>,
    opened: tokio::sync::Mutex<mpsc::UnboundedReceiver<Probe>>,
}

impl Worker {
    pub(super) fn new() -> Arc<Worker> {
        let (sessions, opened) = mpsc::unbounded_channel();
        Arc::new(Worker {
            checks: Mutex::default(),
            asked: Mutex::default(),
            refuses: Mutex::default(),
            reserved: Mutex::default(),
            people: Mutex::default(),
            lists: Mutex::default(),
            moderated: Mutex::default(),
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

pub(super) struct Service(pub(super) Arc<Worker>);

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
            start: *start,
            heard,
            say: say.clone(),
            kept: VecDeque::new(),
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

    async fn moderate(
        &self,
        request: Request<ModerateRequest>,
    ) -> Result<Response<ModerateResponse>, Status> {
        let request = request.into_inner();
        let code = self.0.refusal(&request.room);
        self.0.moderated.lock().unwrap().push(request);
        Ok(Response::new(ModerateResponse {
            code: code.map(|code| code.as_str().into()).unwrap_or_default(),
            ..ModerateResponse::default()
        }))
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
