//! One WHIP or WHEP session: the client's side of LiveKit's signalling, spoken for a client that has none.
//!
//! Owns the session with the worker from the offer to the end, or from the moment on at which another
//! gateway's session is asked for here. Invariants: one task per session, so that requests about it are
//! carried out one after the other; when the task ends, either the worker was told that the client has
//! left, or the worker knows by itself, or (at a shutdown) any other gateway can go on with it.

mod begin;

use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use plenum_errors::{Code, PublicError};
use plenum_worker_api::v1::{ClientFrame, Hangup, RestartIce, WorkerFrame, client_frame, worker_frame};
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Protocol;
use super::choice::{Change, Choice};
use super::fragment::{self, Fragment};
use crate::admit::Front;
use crate::rate::Bucket;
use crate::relay::shutting_down;
use crate::{Direction, Observer, Order, Rooms, Session};

pub(crate) use begin::{Beginning, Created, begin, take_over};

/// How long a worker may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a Closed frame may lag behind the Leave that announces it.
const CLOSED_AFTER_LEAVE: Duration = Duration::from_millis(500);
/// Number of the offer that came with the join; restarts follow.
pub(super) const OFFER_ID: u32 = 1;
/// The Start frame is number 1.
const FIRST_REQUEST_SEQ: u64 = 2;

/// What a request asks of the session.
pub(crate) enum Ask {
    Patch {
        precondition: Precondition,
        fragment: Fragment,
        reply: oneshot::Sender<Result<Patched, PublicError>>,
    },
    Delete {
        reply: oneshot::Sender<Result<(), PublicError>>,
    },
}

/// If-Match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    Any,
    OneOf(Vec<String>),
}

/// What became of a PATCH.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Patched {
    /// Candidates were taken note of.
    Trickled,
    /// ICE restarts: the new entity tag, and the server's side.
    Restarted { etag: String, fragment: String },
}

struct Speaker<R> {
    front: Arc<Front<R>>,
    protocol: Protocol,
    session: Session,
    seq: u64,
    identity: String,
    participant_sid: String,
    /// The client's ICE user name; unknown where another gateway took the offer.
    remote_ufrag: Option<String>,
    etag: String,
    choice: Option<Choice>,
    last_offer: u32,
    restart: Option<Restart>,
    /// Of requests about it.
    bucket: Bucket,
    _permit: OwnedSemaphorePermit,
}

/// An ICE restart under way.
struct Restart {
    id: u32,
    ufrag: String,
    reply: oneshot::Sender<Result<Patched, PublicError>>,
}

/// Why a session is over.
#[derive(Debug)]
enum End {
    /// The client asked for it.
    Deleted(oneshot::Sender<Result<(), PublicError>>),
    /// The worker says so.
    Closed(Option<PublicError>),
    /// The worker is lost, or another gateway goes on with it.
    Detached,
    /// It would go on in a room that this client can't be told of.
    Elsewhere,
    /// This process ends.
    Shutdown,
}

impl Ask {
    fn refuse(self, error: PublicError) {
        match self {
            Ask::Patch { reply, .. } => drop(reply.send(Err(error))),
            Ask::Delete { reply } => drop(reply.send(Err(error))),
        }
    }
}

impl<R: Rooms> Speaker<R> {
    async fn run(mut self, name: String, mut asked: mpsc::Receiver<Ask>) {
        let observer = self.front.config.observer.clone();
        observer.http_session(self.protocol.as_str(), 1);
        tracing::info!(
            protocol = self.protocol.as_str(),
            identity = self.identity,
            room = self.session.room,
            participant = self.participant_sid,
            "session begins"
        );
        let end = self.until_the_end(&mut asked).await;
        self.front.sessions_by_name.remove(&name);
        let (reason, code) = match &end {
            End::Deleted(_) => ("deleted", ""),
            End::Closed(None) => ("client_left", ""),
            End::Closed(Some(error)) => ("closed", error.code.as_str()),
            End::Detached => ("detached", ""),
            End::Elsewhere => ("elsewhere", ""),
            End::Shutdown => ("shutdown", ""),
        };
        tracing::info!(
            protocol = self.protocol.as_str(),
            identity = self.identity,
            room = self.session.room,
            participant = self.participant_sid,
            reason,
            code,
            "session ends"
        );
        if let Some(restart) = self.restart.take() {
            let _ = restart.reply.send(Err(Code::SessionNotFound.into()));
        }
        match end {
            End::Deleted(reply) => {
                self.leave().await;
                let _ = reply.send(Ok(()));
            }
            End::Elsewhere => self.hang_up(false).await,
            End::Shutdown => self.hang_up(true).await,
            End::Closed(_) | End::Detached => {}
        }
        observer.http_session(self.protocol.as_str(), -1);
        // Requests that came meanwhile: whatever became of the session, it isn't here.
        asked.close();
        while let Some(ask) = asked.recv().await {
            ask.refuse(Code::SessionNotFound.into());
        }
    }

    async fn until_the_end(&mut self, asked: &mut mpsc::Receiver<Ask>) -> End {
        let mut shutdown = self.front.config.shutdown.clone();
        loop {
            tokio::select! {
                Some(order) = self.session.orders.recv() => return after(&order),
                frame = self.session.from_worker.recv() => {
                    let Some(frame) = frame else {
                        return match self.session.orders.try_recv() {
                            Ok(order) => after(&order),
                            Err(_) => End::Detached,
                        };
                    };
                    if let Some(end) = self.heard(frame).await {
                        return end;
                    }
                }
                ask = asked.recv() => match ask {
                    Some(Ask::Patch { precondition, fragment, reply }) => {
                        self.patch(&precondition, fragment, reply).await;
                    }
                    Some(Ask::Delete { reply }) => return End::Deleted(reply),
                    // Its entry in the table is a sender: not before the end.
                    None => return End::Detached,
                },
                () = shutting_down(&mut shutdown) => return End::Shutdown,
            }
        }
    }

    async fn heard(&mut self, frame: WorkerFrame) -> Option<End> {
        let response = match frame.frame {
            Some(worker_frame::Frame::Closed(closed)) => return Some(closed_by(&closed)),
            Some(worker_frame::Frame::Response(bytes)) => decoded(&self.front.config.observer, &bytes),
            _ => None,
        };
        match response? {
            Response::Answer(answer) => self.restarted(&answer),
            Response::Update(update) => {
                if let Some(choice) = &mut self.choice {
                    choice.update(&update.participants);
                    self.show().await;
                }
            }
            Response::SubscriptionPermissionUpdate(update) => {
                if let Some(choice) = &mut self.choice {
                    choice.allow(&update.track_sid, update.allowed);
                    self.show().await;
                }
            }
            Response::RoomMoved(moved) => {
                self.session.room = moved.room.unwrap_or_default().name;
                if let Some(choice) = &mut self.choice {
                    choice.moved(&moved.other_participants);
                    self.show().await;
                }
            }
            Response::Leave(_) => {
                // The reason follows. Whatever a client should do now, this one can't be told.
                let rest = async {
                    while let Some(frame) = self.session.from_worker.recv().await {
                        if let Some(worker_frame::Frame::Closed(closed)) = frame.frame {
                            return Some(closed_by(&closed));
                        }
                    }
                    None
                };
                let end = tokio::time::timeout(CLOSED_AFTER_LEAVE, rest).await;
                return Some(end.ok().flatten().unwrap_or(End::Elsewhere));
            }
            _ => {}
        }
        None
    }

    /// Brings what a viewer receives in line with the choice.
    async fn show(&mut self) {
        let Some(choice) = &mut self.choice else { return };
        let Change {
            subscribe,
            unsubscribe,
        } = choice.choose();
        // Room first: sections are few.
        self.subscribe(unsubscribe, false).await;
        self.subscribe(subscribe, true).await;
    }

    async fn subscribe(&mut self, track_sids: Vec<String>, subscribe: bool) {
        if !track_sids.is_empty() {
            self.say(Request::Subscription(proto::UpdateSubscription {
                track_sids,
                subscribe,
                participant_tracks: Vec::new(),
            }))
            .await;
        }
    }

    async fn patch(
        &mut self,
        precondition: &Precondition,
        fragment: Fragment,
        reply: oneshot::Sender<Result<Patched, PublicError>>,
    ) {
        if !self.bucket.take(Instant::now()) {
            let _ = reply.send(Err(Code::RateLimited.into()));
            return;
        }
        let meets = match precondition {
            Precondition::Any => true,
            Precondition::OneOf(tags) => tags.contains(&self.etag),
        };
        if !meets {
            let _ = reply.send(Err(Code::PreconditionFailed.into()));
            return;
        }
        let Some((ufrag, pwd)) = fragment
            .credentials
            .filter(|(ufrag, _)| self.remote_ufrag.as_ref() != Some(ufrag))
        else {
            let _ = reply.send(Ok(Patched::Trickled));
            return;
        };
        if self.restart.is_some() {
            let error = PublicError::new(Code::RateLimited, "an ICE restart is under way");
            let _ = reply.send(Err(error));
            return;
        }
        self.last_offer += 1;
        let id = self.last_offer;
        self.restart_ice(id, &ufrag, &pwd).await;
        self.restart = Some(Restart { id, ufrag, reply });
    }

    async fn restart_ice(&mut self, id: u32, ufrag: &str, pwd: &str) {
        self.send(client_frame::Frame::RestartIce(RestartIce {
            id,
            ufrag: ufrag.to_owned(),
            pwd: pwd.to_owned(),
        }))
        .await;
    }

    fn restarted(&mut self, answer: &proto::SessionDescription) {
        let Some(restart) = self.restart.take_if(|restart| restart.id == answer.id) else {
            return;
        };
        let outcome = etag_of(&answer.sdp).map(|etag| {
            self.remote_ufrag = Some(restart.ufrag);
            if etag == self.etag {
                // The credentials were not new after all.
                return Patched::Trickled;
            }
            self.etag.clone_from(&etag);
            Patched::Restarted {
                etag,
                fragment: fragment::of_answer(&answer.sdp),
            }
        });
        let _ = restart.reply.send(outcome);
    }

    /// Says Leave, and waits until the worker has heard it.
    async fn leave(&mut self) {
        self.say(Request::Leave(proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated as i32,
            ..proto::LeaveRequest::default()
        }))
        .await;
        let closed = async {
            while let Some(frame) = self.session.from_worker.recv().await {
                if matches!(frame.frame, Some(worker_frame::Frame::Closed(_))) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(ANSWER, closed).await;
    }

    async fn hang_up(&mut self, may_resume: bool) {
        self.send(client_frame::Frame::Hangup(Hangup { may_resume }))
            .await;
    }

    async fn say(&mut self, message: Request) {
        let bytes = proto::SignalRequest {
            message: Some(message),
        }
        .encode_to_vec();
        self.front.config.observer.message(Direction::Up, bytes.len());
        self.send(client_frame::Frame::Request(bytes)).await;
    }

    /// A worker that takes nothing is lost, which its own stream will tell.
    async fn send(&mut self, frame: client_frame::Frame) {
        let frame = ClientFrame {
            seq: self.seq,
            frame: Some(frame),
        };
        self.seq += 1;
        let _ = tokio::time::timeout(ANSWER, self.session.to_worker.send(frame)).await;
    }
}

fn decoded(observer: &Arc<dyn Observer>, bytes: &[u8]) -> Option<Response> {
    observer.message(Direction::Down, bytes.len());
    proto::SignalResponse::decode(bytes).ok()?.message
}

/// The entity tag names the ICE session, and so does the server's user name in it.
fn etag_of(answer: &str) -> Result<String, PublicError> {
    let ufrag =
        fragment::ufrag(answer).ok_or_else(|| PublicError::new(Code::Internal, "an answer without ICE"))?;
    Ok(format!("\"{ufrag}\""))
}

fn closed_by(closed: &plenum_worker_api::v1::Closed) -> End {
    if closed.code.is_empty() {
        return End::Closed(None);
    }
    let code = Code::parse(&closed.code).unwrap_or(Code::Internal);
    End::Closed(Some(PublicError::new(code, closed.detail.clone())))
}

fn after(order: &Order) -> End {
    match order {
        Order::Elsewhere { .. } => End::Elsewhere,
        Order::Close(closed) => closed_by(closed),
    }
}
