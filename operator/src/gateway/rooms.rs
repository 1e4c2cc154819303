//! The rooms of this cluster, for the front door: route, key and worker behind one interface.
//!
//! Owns what a Meeting's object decides about a joining client (bans, co-hosts) and the two ends of
//! a session's stream. Invariants: a session runs under the epoch its route had; a stream that ends
//! without a Closed frame is a lost worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use plenum_crds::Meeting;
use plenum_errors::{Code, PublicError};
use plenum_join::{Rooms, Session};
use plenum_token::{Role, VideoGrant};
use plenum_worker_api::v1::{ClientFrame, Start, client_frame, worker_frame};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::keys::Keys;
use super::route::{RoomName, Routes};
use super::workers::{Workers, refused};

/// Frames under way in one direction of one session.
const QUEUE: usize = 64;
/// How long a worker may take to answer a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a join waits for a meeting that is getting ready, and a client whose worker was lost
/// for the next one. Waiting here brings the client back sooner than its own growing pauses would;
/// stock clients give a WebSocket 15 s to open.
const PATIENCE: Duration = Duration::from_secs(4);
const RECONNECT_PATIENCE: Duration = Duration::from_secs(8);
const RETRY: Duration = Duration::from_millis(150);

/// [`Rooms`] over the contract with the workers.
pub(crate) struct ClusterRooms {
    pub(crate) routes: Arc<Routes>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) keys: Arc<Keys>,
}

#[async_trait::async_trait]
impl Rooms for ClusterRooms {
    async fn api_secret(&self, api_key: &str, room: &str) -> Option<String> {
        let meeting = match RoomName::parse(room) {
            Some(name) => self.routes.meeting(name.namespace, name.meeting).await.ok(),
            None => None,
        };
        // Where there is no such meeting, the token is checked all the same: who holds a good one
        // is told that the meeting does not exist, who holds a bad one is told nothing of meetings.
        let key = match meeting {
            Some(meeting) => self.keys.of_meeting(&meeting).await.ok(),
            None => self.keys.default_key(),
        }?;
        (key.key == api_key).then(|| key.secret.clone())
    }

    async fn check(&self, start: &Start) -> Result<(), PublicError> {
        let mut changed = self.routes.changes();
        let reconnects = proto::JoinRequest::decode(start.join_request.as_slice()).is_ok_and(|r| r.reconnect);
        let patience = if reconnects { RECONNECT_PATIENCE } else { PATIENCE };
        let deadline = Instant::now() + patience;
        loop {
            // What was waited for in vain a moment ago is answered at once: a stock client asks
            // `validate` right after a failed join, with a deadline of three seconds.
            let waited = self.routes.waited_lately(&start.room);
            let error = match self.check_once(start.clone()).await {
                Err(error) if passes(error.code) && !waited => error,
                outcome => return outcome,
            };
            tokio::select! {
                () = changed.next() => {}
                // The worker may be told of its room without a change of any object.
                () = tokio::time::sleep(RETRY) => {}
            }
            if Instant::now() >= deadline {
                self.routes.remember_wait(&start.room);
                return Err(error);
            }
        }
    }

    async fn enter(&self, start: Start) -> Result<Session, PublicError> {
        let (start, lease) = self.prepare(start).await?;
        let room = start.room.clone();
        let (to_worker, requests) = mpsc::channel(QUEUE);
        let (to_client, from_worker) = mpsc::channel(QUEUE);
        let first = ClientFrame {
            seq: 1,
            frame: Some(client_frame::Frame::Start(start)),
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
        tokio::spawn(async move {
            // The lease counts as a user of its connection until the session is over.
            let _lease = lease;
            loop {
                match frames.message().await {
                    Ok(Some(frame)) => {
                        let last = matches!(frame.frame, Some(worker_frame::Frame::Closed(_)));
                        if to_client.send(frame).await.is_err() || last {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(status) => {
                        tracing::info!(grpc = ?status.code(), "a session's worker was lost");
                        return;
                    }
                }
            }
        });
        Ok(Session::new(room, to_worker, from_worker))
    }
}

impl ClusterRooms {
    /// Asks the worker that holds the room now.
    async fn check_once(&self, start: Start) -> Result<(), PublicError> {
        let (start, lease) = self.prepare(start).await?;
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

    /// The route of a session, and its Start as the worker must see it.
    async fn prepare(&self, mut start: Start) -> Result<(Start, super::workers::Lease), PublicError> {
        let route = self.routes.find(&start.room).await?;
        if let Some(name) = RoomName::parse(&start.room)
            && let Some(meeting) = self.routes.meetings.get(name.namespace, name.meeting)
        {
            by_the_meeting(&meeting, &mut start)?;
        }
        start.epoch = route.epoch;
        Ok((start, self.workers.lease(&route.worker)?))
    }
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
fn by_the_meeting(meeting: &Meeting, start: &mut Start) -> Result<(), PublicError> {
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
