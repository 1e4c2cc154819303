//! The rooms of this cluster, for the front door: route, key and worker behind one interface.
//!
//! Owns what a Meeting's object decides about a joining client (bans, co-hosts) and the two ends of
//! a session's stream. Invariants: a session runs under the epoch its route had; a stream that ends
//! without a Closed frame is a lost worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use plenum_breakout::Wish;
use plenum_crds::Meeting;
use plenum_errors::{Code, PublicError};
use plenum_join::{Order, Rooms, Session};
use plenum_token::{Role, VideoGrant};
use plenum_worker_api::v1::{ClientFrame, Start, WorkerFrame, client_frame, worker_frame};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::client_session::{self, Opened};
use super::meetings::{LiveMeeting, Meetings, now_ms};
use super::route::{RoomName, Route};
use super::workers::{Lease, refused};

/// Frames under way to a worker.
const QUEUE: usize = 64;
/// How long a worker may take to answer a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a Closed frame may lag behind the Leave that announces it.
const CLOSED_AFTER_LEAVE: Duration = Duration::from_millis(200);
/// How long a join waits for a meeting that is getting ready, and a client whose worker was lost
/// for the next one. Waiting here brings the client back sooner than its own growing pauses would;
/// stock clients give a WebSocket 15 s to open.
const PATIENCE: Duration = Duration::from_secs(4);
const RECONNECT_PATIENCE: Duration = Duration::from_secs(8);
const RETRY: Duration = Duration::from_millis(150);

/// [`Rooms`] over the contract with the workers.
pub(crate) struct ClusterRooms {
    pub(crate) meetings: Arc<Meetings>,
}

#[async_trait::async_trait]
impl Rooms for ClusterRooms {
    async fn api_secret(&self, api_key: &str, room: &str) -> Option<String> {
        let reach = &self.meetings.reach;
        let meeting = match RoomName::parse(room) {
            Some(name) => reach.routes.meeting(name.namespace, name.meeting).await.ok(),
            None => None,
        };
        // Where there is no such meeting, the token is checked all the same: who holds a good one
        // is told that the meeting does not exist, who holds a bad one is told nothing of meetings.
        let key = match meeting {
            Some(meeting) => reach.keys.of_meeting(&meeting).await.ok(),
            None => reach.keys.default_key(),
        }?;
        (key.key == api_key).then(|| key.secret.clone())
    }

    async fn check(&self, start: &Start) -> Result<(), PublicError> {
        let routes = &self.meetings.reach.routes;
        let mut changed = routes.changes();
        let resumes = resumes(start);
        let patience = if resumes { RECONNECT_PATIENCE } else { PATIENCE };
        let deadline = Instant::now() + patience;
        loop {
            // What was waited for in vain a moment ago is answered at once: a stock client asks
            // `validate` right after a failed join, with a deadline of three seconds.
            let waited = routes.waited_lately(&start.room);
            let ways = self.ways(start).await?;
            let Err(error) = self.check_once(start, &ways.first).await else {
                return Ok(());
            };
            // Who comes back to a room that has closed is told to start anew, on its socket.
            if resumes && is_gone(error.code) && breakout_of(&start.room).is_some() {
                return Ok(());
            }
            let over = waited || Instant::now() >= deadline;
            if !passes(error.code) || over {
                if passes(error.code) && !waited {
                    routes.remember_wait(&start.room);
                }
                return match ways.instead.filter(|_| gives_way(error.code)) {
                    Some(room) => self.check_once(start, &room).await,
                    None => Err(error),
                };
            }
            tokio::select! {
                () = changed.next() => {}
                // The worker may be told of its room without a change of any object.
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn enter(&self, start: Start) -> Result<Session, PublicError> {
        let ways = self.ways(&start).await?;
        match self.open(&start, &ways.first, None).await {
            Err(error) if resumes(&start) && is_gone(error.code) => match breakout_of(&start.room) {
                Some(_) => Ok(sent_to_the_main_room(&start.room)),
                None => Err(error),
            },
            Err(error) if gives_way(error.code) => match &ways.instead {
                Some(room) => {
                    let wanted = breakout_of(&ways.first).map(str::to_owned);
                    tracing::info!(
                        identity = start.identity, room = ways.first, code = %error.code,
                        "a client lands in the main room instead"
                    );
                    self.open(&start, room, Some((wanted, error.code))).await
                }
                None => Err(error),
            },
            outcome => outcome,
        }
    }
}

/// Where a join may lead.
struct Ways {
    first: String,
    /// Where it leads if it can't lead there: the main room.
    instead: Option<String>,
}

impl ClusterRooms {
    /// Where the meeting wants the client, if it says so; else where its token leads.
    async fn ways(&self, start: &Start) -> Result<Ways, PublicError> {
        let only = |room: &str| Ways {
            first: room.to_owned(),
            instead: None,
        };
        let reach = &self.meetings.reach;
        let Some(name) = RoomName::parse(&start.room) else {
            return Ok(only(&start.room));
        };
        if resumes(start) || !takes_part(start) {
            return Ok(only(&start.room));
        }
        let unknown = |code| matches!(code, Code::MeetingNotFound | Code::RoomNotFound);
        if let Err(error) = reach.routes.lookup(&start.room)
            && unknown(error.code)
        {
            // Objects that were just applied are waited for, here once for all that follows.
            let _ = reach.routes.find(&start.room).await;
        }
        let Some(meeting) = self.meetings.live(name.namespace, name.meeting) else {
            return Ok(only(&start.room));
        };
        let (view, now) = (meeting.view(), now_ms());
        let plan = &view.plan;
        let main = meeting.room(None);
        let first = match plan.wish(&start.identity, now) {
            Wish::Room(id) if plan.enterable(&id, now) => meeting.room(Some(&id)),
            Wish::Main => main.clone(),
            Wish::Room(_) | Wish::NoOpinion => match name.breakout {
                Some(id) if plan.room(id).is_some_and(|room| !room.is_open(now)) => main.clone(),
                // It was there a moment ago.
                Some(id) if plan.room(id).is_none() && meeting.knew(id) => main.clone(),
                Some(id) if plan.room(id).is_none() => return Ok(only(&start.room)),
                _ => start.room.clone(),
            },
        };
        Ok(Ways {
            instead: (first != main).then_some(main),
            first,
        })
    }

    /// As the worker must see the client in `room`, and the route to it.
    async fn prepare(&self, start: &Start, room: &str) -> Result<(Start, Route, Lease), PublicError> {
        let reach = &self.meetings.reach;
        let route = reach.routes.find(room).await?;
        let mut start = Start {
            room: room.to_owned(),
            epoch: route.epoch,
            ..start.clone()
        };
        if let Some(name) = RoomName::parse(room)
            && let Some(meeting) = reach.routes.meetings.get(name.namespace, name.meeting)
        {
            by_the_meeting(&meeting, &mut start)?;
        }
        let lease = reach.workers.lease(&route.worker)?;
        Ok((start, route, lease))
    }

    async fn check_once(&self, start: &Start, room: &str) -> Result<(), PublicError> {
        let (start, _, lease) = self.prepare(start, room).await?;
        let mut client = lease.client.clone();
        match tokio::time::timeout(CALL_TIMEOUT, client.check(start)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                match Code::parse(&answer.code) {
                    Some(code) => Err(not_yet(PublicError::new(code, answer.detail))),
                    None if answer.code.is_empty() => Ok(()),
                    None => Err(PublicError::new(
                        Code::Internal,
                        "the worker refused without a known code",
                    )),
                }
            }
            // A worker of an older version has no Check; it will say what it has to say on entering.
            Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => Ok(()),
            Ok(Err(status)) => Err(not_yet(refused(&status))),
            Err(_) => Err(PublicError::new(Code::WorkerUnreachable, "it does not answer")),
        }
    }

    /// Opens the worker's stream. `refused` is the room that should have been entered.
    async fn open(
        &self,
        by_token: &Start,
        room: &str,
        refused_before: Option<(Option<String>, Code)>,
    ) -> Result<Session, PublicError> {
        let (start, route, lease) = self.prepare(by_token, room).await?;
        let meeting = self.meeting_of(room)?;
        let role = start.role.parse::<Role>().unwrap_or(Role::Viewer);
        let (to_worker, requests) = mpsc::channel(QUEUE);
        let first = ClientFrame {
            seq: 1,
            frame: Some(client_frame::Frame::Start(Box::new(start))),
        };
        to_worker
            .try_send(first)
            .map_err(|_| PublicError::new(Code::Internal, "a new queue is full"))?;
        let mut client = lease.client.clone();
        let call = client.session(ReceiverStream::new(requests));
        let mut frames = match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(not_yet(refused(&status))),
            Err(_) => return Err(PublicError::new(Code::WorkerUnreachable, "it does not answer")),
        };
        let breakout = breakout_of(room).map(str::to_owned);
        // Only where there is another way is the worker's word waited for here.
        let first = if breakout.is_some() {
            first_words(&mut frames).await?
        } else {
            Vec::new()
        };
        let takes_part = takes_part(by_token);
        let presence = meeting.enter(
            &by_token.identity,
            &by_token.name,
            role,
            breakout.as_deref(),
            takes_part,
        );
        let opened = Opened {
            to_worker,
            from_worker: frames,
            first,
            lease,
            worker_uid: route.worker.uid,
            by_token: Start {
                room: room.to_owned(),
                ..by_token.clone()
            },
            role,
            room: breakout,
            refused: refused_before,
            takes_part,
            presence,
        };
        Ok(client_session::spawn(self.meetings.clone(), opened))
    }

    fn meeting_of(&self, room: &str) -> Result<Arc<LiveMeeting>, PublicError> {
        RoomName::parse(room)
            .and_then(|name| self.meetings.live(name.namespace, name.meeting))
            .ok_or_else(|| PublicError::new(Code::MeetingNotFound, room))
    }
}

/// What a worker says first, or its refusal.
async fn first_words(frames: &mut Streaming<WorkerFrame>) -> Result<Vec<WorkerFrame>, PublicError> {
    let mut first = Vec::new();
    let mut wait = CALL_TIMEOUT;
    loop {
        let frame = match tokio::time::timeout(wait, frames.message()).await {
            // Slow, but there.
            Err(_) => return Ok(first),
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None) | Err(_)) => {
                return Err(PublicError::new(
                    Code::WorkerUnreachable,
                    "it hung up during the join",
                ));
            }
        };
        match &frame.frame {
            Some(worker_frame::Frame::Closed(closed)) => {
                let code = Code::parse(&closed.code).unwrap_or(Code::Internal);
                if gives_way(code) || is_gone(code) {
                    return Err(PublicError::new(code, closed.detail.clone()));
                }
                first.push(frame);
                return Ok(first);
            }
            Some(worker_frame::Frame::Response(bytes)) if plenum_join::is_leave(bytes) => {
                wait = CLOSED_AFTER_LEAVE;
                first.push(frame);
            }
            _ => {
                first.push(frame);
                return Ok(first);
            }
        }
    }
}

/// The session of a client that comes back to a breakout room which has closed meanwhile.
fn sent_to_the_main_room(room: &str) -> Session {
    let (orders, asked) = mpsc::channel(1);
    let (to_worker, _) = mpsc::channel(1);
    let (_, from_worker) = mpsc::channel(1);
    let main = match RoomName::parse(room) {
        Some(name) => format!("{}/{}", name.namespace, name.meeting),
        None => room.to_owned(),
    };
    // The queue is new and has a place for it.
    let _ = orders.try_send(Order::Elsewhere {
        room: main,
        may_resume: false,
    });
    Session {
        orders: asked,
        ..Session::new(room, to_worker, from_worker)
    }
}

/// Does the client come back to a session that it has?
fn resumes(start: &Start) -> bool {
    start.last_seen_seq > 0
        || proto::JoinRequest::decode(start.join_request.as_slice()).is_ok_and(|request| request.reconnect)
}

/// Is it somebody in the meeting, not a program or an unseen listener?
pub(crate) fn takes_part(start: &Start) -> bool {
    let grant: VideoGrant = serde_json::from_str(&start.video_grant_json).unwrap_or_default();
    let person = matches!(start.kind.as_str(), "" | "standard" | "sip");
    person && !grant.hidden && !grant.recorder && !grant.agent
}

fn breakout_of(room: &str) -> Option<&str> {
    RoomName::parse(room)?.breakout
}

/// The room is closed or is no more.
fn is_gone(code: Code) -> bool {
    matches!(code, Code::RoomClosed | Code::RoomNotFound)
}

/// Reasons for which a breakout room gives way to the main room: rule 6 of `docs/breakouts.md`.
fn gives_way(code: Code) -> bool {
    is_gone(code) || passes(code) || code == Code::MeetingFull
}

/// A worker that does not know a room which its object says it holds has not been told yet, or
/// holds it under an epoch that is about to change. Telling the client that there is no such room
/// would end its attempts for good.
fn not_yet(error: PublicError) -> PublicError {
    match error.code {
        Code::RoomNotFound | Code::EpochStale => {
            PublicError::new(Code::MeetingNotReady, "its worker is being told of it")
        }
        _ => error,
    }
}

/// States that pass by themselves, soon.
fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::MeetingNotReady | Code::WorkerUnreachable | Code::WorkerDraining
    )
}

/// What the Meeting's object says of this identity.
pub(crate) fn by_the_meeting(meeting: &Meeting, start: &mut Start) -> Result<(), PublicError> {
    let session = meeting.status.as_ref().and_then(|status| status.session.as_ref());
    if session.is_some_and(|session| session.banned.contains(&start.identity)) {
        return Err(PublicError::new(
            Code::ParticipantRemoved,
            "a host barred this identity from the meeting",
        ));
    }
    let named = meeting.spec.co_hosts.contains(&start.identity)
        || session.is_some_and(|session| session.co_hosts.contains(&start.identity));
    let role = start.role.parse::<Role>().unwrap_or(Role::Viewer);
    if named && role < Role::Cohost {
        let grant: VideoGrant = serde_json::from_str(&start.video_grant_json)
            .map_err(|_| PublicError::new(Code::Internal, "the grant cannot be read back"))?;
        let raised = VideoGrant {
            hidden: grant.hidden,
            recorder: grant.recorder,
            agent: grant.agent,
            other: grant.other,
            ..Role::Cohost.grant(&start.room)
        };
        start.video_grant_json = serde_json::to_string(&raised).unwrap_or_default();
        start.role = Role::Cohost.as_str().to_owned();
    }
    Ok(())
}

#[cfg(test)]
#[path = "rooms_tests.rs"]
mod session_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use plenum_crds::{MeetingSpec, MeetingStatus, SessionDecisions};

    fn start(role: Role) -> Start {
        Start {
            room: "demo/standup".into(),
            identity: "alice".into(),
            role: role.as_str().into(),
            video_grant_json: serde_json::to_string(&role.grant("demo/standup")).unwrap(),
            ..Start::default()
        }
    }

    #[test]
    fn named_co_hosts_are_raised_and_hosts_stay_hosts() {
        let spec = MeetingSpec {
            co_hosts: vec!["alice".into()],
            ..MeetingSpec::default()
        };
        let meeting = Meeting::new("standup", spec);
        for (role, becomes) in [
            (Role::Viewer, "cohost"),
            (Role::Participant, "cohost"),
            (Role::Host, "host"),
        ] {
            let mut start = start(role);
            by_the_meeting(&meeting, &mut start).unwrap();
            assert_eq!(start.role, becomes);
            let grant: VideoGrant = serde_json::from_str(&start.video_grant_json).unwrap();
            assert!(grant.room_admin && grant.can_publish == Some(true));
        }
        let mut other = Start {
            identity: "bob".into(),
            ..start(Role::Participant)
        };
        by_the_meeting(&meeting, &mut other).unwrap();
        assert_eq!(other.role, "participant");
    }

    #[test]
    fn the_banned_stay_out() {
        let mut meeting = Meeting::new("standup", MeetingSpec::default());
        let session = SessionDecisions {
            banned: vec!["alice".into()],
            ..SessionDecisions::default()
        };
        meeting.status = Some(MeetingStatus {
            session: Some(session),
            ..MeetingStatus::default()
        });
        let refused = by_the_meeting(&meeting, &mut start(Role::Host)).unwrap_err();
        assert_eq!(refused.code, Code::ParticipantRemoved);
    }
}
