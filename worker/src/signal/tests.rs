//! A hub between scripted clients and a scripted media engine.

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
                Got::Response(_) => {}
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

#[tokio::test]
async fn a_join_is_answered_in_full() {
    let mut worker = worker().await;
    let offer = lk::SessionDescription {
        r#type: "offer".into(),
        sdp: "v=0".into(),
        id: 7,
        ..Default::default()
    };
    let request = lk::JoinRequest {
        publisher_offer: Some(offer),
        ..Default::default()
    };
    let mut alice = worker.enter(start("alice", &request)).await;
    let join = alice
        .find(|m| match m {
            Response::Join(join) => Some(join),
            _ => None,
        })
        .await;
    assert_eq!(
        (join.ping_interval, join.ping_timeout, join.subscriber_primary),
        (5, 15, false)
    );
    let server = join.server_info.unwrap();
    assert!(server.protocol >= 16 && !server.version.is_empty() && join.sif_trailer.len() == 16);
    assert!(join.enabled_publish_codecs.iter().any(|c| c.mime == "video/VP8"));
    let me = join.participant.unwrap();
    assert_eq!(me.state, lk::participant_info::State::Active as i32);
    // The offer goes to media, its answer comes back with the same number.
    let (session, id) = worker
        .command(|c| match c {
            Command::Offer {
                session,
                id,
                leg: Leg::Publisher,
                ..
            } => Some((*session, *id)),
            _ => None,
        })
        .await;
    let mid_to_track = [("0".to_owned(), "TR_x".to_owned())].into();
    let answer = Event::Answer {
        session,
        leg: Leg::Publisher,
        id,
        sdp: "v=0 answer".into(),
        mid_to_track,
    };
    worker.events.send(answer).unwrap();
    let answer = alice
        .find(|m| match m {
            Response::Answer(d) => Some(d),
            _ => None,
        })
        .await;
    assert_eq!((answer.id, answer.r#type.as_str()), (7, "answer"));
    assert_eq!(answer.mid_to_track_id["0"], "TR_x");
    worker
        .events
        .send(Event::NeedSections {
            session,
            audios: 1,
            videos: 2,
        })
        .unwrap();
    let need = alice
        .find(|m| match m {
            Response::MediaSectionsRequirement(r) => Some(r),
            _ => None,
        })
        .await;
    assert_eq!((need.num_audios, need.num_videos), (1, 2));
}

#[tokio::test]
async fn both_pings_are_answered() {
    let mut worker = worker().await;
    let (mut alice, _) = worker.join("alice").await;
    alice.send(Request::Ping(5)).await;
    alice
        .send(Request::PingReq(lk::Ping {
            timestamp: 77,
            rtt: 1,
        }))
        .await;
    let old = alice
        .find(|m| match m {
            Response::Pong(at) => Some(at),
            _ => None,
        })
        .await;
    assert!(old > 1_600_000_000_000);
    let new = alice
        .find(|m| match m {
            Response::PongResp(pong) => Some(pong),
            _ => None,
        })
        .await;
    assert_eq!(new.last_ping_timestamp, 77);
}

#[tokio::test]
async fn nonsense_costs_its_sender_the_session_and_nobody_else() {
    let mut worker = worker().await;
    let (mut bob, _) = worker.join("bob").await;
    let no_sdp = Request::Offer(lk::SessionDescription::default());
    let bad: [(Vec<u8>, Code); 3] = [
        (vec![0xff; 10], Code::RequestMalformed),
        (vec![0; limits::MESSAGE_BYTES + 1], Code::MessageTooLarge),
        (
            lk::SignalRequest {
                message: Some(no_sdp),
            }
            .encode_to_vec(),
            Code::SdpInvalid,
        ),
    ];
    for (bytes, code) in bad {
        let (mut alice, _) = worker.join("alice").await;
        alice.raw(bytes).await;
        let (leave, closed) = alice.closed().await;
        assert_eq!(
            leave.unwrap().action,
            lk::leave_request::Action::Disconnect as i32
        );
        assert_eq!(closed.code, code.as_str());
    }
    bob.send(Request::Ping(1)).await;
    bob.find(|m| matches!(m, Response::Pong(_)).then_some(())).await;
    assert_eq!(worker.hub.list(None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_unknown_message_is_ignored() {
    let mut worker = worker().await;
    let (mut alice, _) = worker.join("alice").await;
    // Field 200, as a later client may send.
    alice.raw(vec![0xc2, 0x0c, 0x00]).await;
    alice.send(Request::Ping(1)).await;
    alice.find(|m| matches!(m, Response::Pong(_)).then_some(())).await;
}

#[tokio::test]
async fn a_flood_ends_the_session() {
    let mut worker = worker().await;
    let (mut alice, _) = worker.join("alice").await;
    for _ in 0..700 {
        alice.send(Request::Ping(1)).await;
    }
    assert_eq!(alice.closed().await.1.code, Code::RateLimited.as_str());
}

#[tokio::test]
async fn a_resume_begins_with_reconnect_and_says_again_what_was_said_once() {
    let mut worker = worker().await;
    let (mut alice, join) = worker.join("alice").await;
    let sid = join.participant.unwrap().sid;
    worker.opened().await;
    alice.hang_up(true).await;
    let mut cut = worker.enter(start("bob", &lk::JoinRequest::default())).await;
    cut.hang_up(false).await;
    // Her track is bound and heard while she is away.
    let request = lk::JoinRequest {
        reconnect: true,
        participant_sid: sid.clone(),
        ..Default::default()
    };
    let mut again = worker.enter(start("alice", &request)).await;
    assert!(matches!(
        again.next().await,
        Got::Response(Response::Reconnect(_))
    ));
    again.send(microphone("mic")).await;
    let published = again
        .find(|m| match m {
            Response::TrackPublished(t) => t.track,
            _ => None,
        })
        .await;
    again.hang_up(true).await;
    let mut third = worker.enter(start("alice", &request)).await;
    assert!(matches!(
        third.next().await,
        Got::Response(Response::Reconnect(_))
    ));
    let repeated = third
        .find(|m| match m {
            Response::TrackPublished(t) => t.track,
            _ => None,
        })
        .await;
    assert_eq!(published.sid, repeated.sid);
    // One that says what it has seen is not told twice.
    let seen = third.last;
    third.hang_up(true).await;
    let mut fourth = worker
        .enter(Start {
            last_seen_seq: seen,
            ..start("alice", &request)
        })
        .await;
    fourth.last = seen;
    fourth.send(Request::Ping(1)).await;
    loop {
        match fourth.next().await {
            Got::Response(Response::TrackPublished(_)) => panic!("said twice"),
            Got::Response(Response::Pong(_)) => break,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_reattached_client_is_not_greeted_and_misses_nothing() {
    let mut worker = worker().await;
    let (mut alice, join) = worker.join("alice").await;
    let sid = join.participant.unwrap().sid;
    alice.send(microphone("mic")).await;
    let seen = alice.last;
    // The gateway's stream breaks; the answer above was on its way.
    worker.hub.disconnected(alice.session.connection).await;
    let (_bob, _) = worker.join("bob").await;
    let request = lk::JoinRequest {
        participant_sid: sid,
        ..Default::default()
    };
    let session = worker
        .hub
        .enter(
            Start {
                last_seen_seq: seen,
                ..start("alice", &request)
            },
            alice.seq + 1,
        )
        .await
        .unwrap();
    let mut again = Client {
        hub: worker.hub.clone(),
        session,
        seq: alice.seq - 1,
        last: seen,
    };
    let (mut published, mut bob) = (false, false);
    while !(published && bob) {
        match again.next().await {
            Got::Response(Response::TrackPublished(_)) => published = true,
            Got::Response(Response::Update(u)) => bob |= u.participants.iter().any(|p| p.identity == "bob"),
            Got::Response(Response::Reconnect(_) | Response::Join(_)) => panic!("greeted"),
            _ => {}
        }
    }
    // A frame the worker has already acted on is not acted on again.
    again.send(Request::Leave(lk::LeaveRequest::default())).await;
    again
        .raw(
            lk::SignalRequest {
                message: Some(Request::Ping(1)),
            }
            .encode_to_vec(),
        )
        .await;
    again.find(|m| matches!(m, Response::Pong(_)).then_some(())).await;
}

#[tokio::test]
async fn a_resume_of_nothing_is_told_to_start_anew() {
    let worker = worker().await;
    let request = lk::JoinRequest {
        reconnect: true,
        participant_sid: "PA_x".into(),
        ..Default::default()
    };
    let mut alice = worker.enter(start("alice", &request)).await;
    let (leave, closed) = alice.closed().await;
    let leave = leave.unwrap();
    assert_eq!(leave.action, lk::leave_request::Action::Reconnect as i32);
    assert_eq!(leave.reason, lk::DisconnectReason::StateMismatch as i32);
    assert_eq!(closed.code, Code::ParticipantNotFound.as_str());
}

#[tokio::test]
async fn a_leave_is_closed_without_a_code() {
    let mut worker = worker().await;
    let (mut alice, _) = worker.join("alice").await;
    alice.send(Request::Leave(lk::LeaveRequest::default())).await;
    let (leave, closed) = alice.closed().await;
    assert!(leave.is_none() && closed.code.is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_may_come_back() {
    let mut worker = worker().await;
    let (alice, join) = worker.join("alice").await;
    let sid = join.participant.unwrap().sid;
    let (mut bob, _) = worker.join("bob").await;
    for round in 0..(limits::OUTBOUND_FRAMES + 50) {
        let update = lk::UpdateParticipantMetadata {
            metadata: format!("{round}"),
            ..Default::default()
        };
        bob.send(Request::UpdateMetadata(update)).await;
        bob.find(|m| matches!(m, Response::RequestResponse(_)).then_some(()))
            .await;
        if round % 150 == 149 {
            tokio::time::sleep(Duration::from_millis(800)).await;
        }
    }
    assert!(
        worker
            .metrics
            .render()
            .contains("plenum_worker_signal_connections_cut_total{reason=\"slow\",pool=\"dev\"} 1")
    );
    drop(alice);
    let request = lk::JoinRequest {
        reconnect: true,
        participant_sid: sid,
        ..Default::default()
    };
    let mut again = worker.enter(start("alice", &request)).await;
    assert!(matches!(
        again.next().await,
        Got::Response(Response::Reconnect(_))
    ));
}

#[tokio::test]
async fn a_published_track_reaches_the_other_before_its_sections() {
    let mut worker = worker().await;
    let (mut alice, _) = worker.join("alice").await;
    let publisher = worker.opened().await;
    let (mut bob, _) = worker.join("bob").await;
    let subscriber = worker.opened().await;
    alice.send(microphone("mic")).await;
    let sid = worker
        .command(|c| match c {
            Command::ExpectTrack { track, .. } => Some(TrackSid::clone(&track.sid)),
            _ => None,
        })
        .await;
    let live = Event::TrackLive {
        session: publisher,
        sid: TrackSid::clone(&sid),
        mid: "0".into(),
        mime_type: "audio/opus".into(),
        simulcast: false,
    };
    worker.events.send(live).unwrap();
    let wanted = worker
        .command(|c| match c {
            Command::Subscribe { session, sid, .. } => Some((*session, TrackSid::clone(sid))),
            _ => None,
        })
        .await;
    assert_eq!(wanted, (subscriber, TrackSid::clone(&sid)));
    worker
        .events
        .send(Event::NeedSections {
            session: subscriber,
            audios: 1,
            videos: 0,
        })
        .unwrap();
    let mut known = false;
    loop {
        match bob.next().await {
            Got::Response(Response::Update(u)) => {
                known |= u
                    .participants
                    .iter()
                    .any(|p| p.tracks.iter().any(|t| *t.sid == *sid));
            }
            Got::Response(Response::MediaSectionsRequirement(_)) => break,
            _ => {}
        }
    }
    assert!(known, "sections were asked for before the track was known");
}

#[tokio::test]
async fn reports_count_people() {
    let mut worker = worker().await;
    let (_alice, _) = worker.join("alice").await;
    let mut snapshots = worker.hub.snapshots();
    let seen = timeout(
        Duration::from_secs(2),
        snapshots.wait_for(|s| s.participants == 1),
    )
    .await;
    let snapshot = Arc::clone(&seen.unwrap().unwrap());
    assert_eq!(snapshot.rooms[0].name.as_str(), ROOM);
    assert!(snapshot.rooms[0].standing.active_since_ms > 0);
}

#[tokio::test]
async fn a_refusal_has_a_catalogue_code() {
    let worker = worker().await;
    let mut elsewhere = start("alice", &lk::JoinRequest::default());
    elsewhere.room = "team/other".into();
    assert_eq!(
        worker.hub.check(elsewhere.clone()).await.unwrap_err().code,
        Code::RoomNotFound
    );
    assert_eq!(
        worker.hub.enter(elsewhere, 1).await.err().unwrap().code,
        Code::RoomNotFound
    );
    let mut nonsense = start("alice", &lk::JoinRequest::default());
    nonsense.video_grant_json = "{".into();
    assert_eq!(
        worker.hub.check(nonsense).await.unwrap_err().code,
        Code::RequestMalformed
    );
}

#[tokio::test]
async fn a_full_worker_refuses_whoever_is_new() {
    for rooms_on_demand in [false, true] {
        let config = HubConfig {
            max_sessions: Some(2),
            rooms_on_demand,
            ..HubConfig::default()
        };
        let mut worker = worker_with(config).await;
        let (alice, join) = worker.join("alice").await;
        let _bob = worker.join("bob").await;
        let carol = start("carol", &lk::JoinRequest::default());
        let elsewhere = Start {
            room: "team/other".into(),
            video_grant_json: serde_json::to_string(&Role::Participant.grant("team/other")).unwrap(),
            ..carol.clone()
        };
        let expected = if rooms_on_demand {
            Code::NoCapacity
        } else {
            Code::RoomNotFound
        };
        for (start, code) in [(&carol, Code::NoCapacity), (&elsewhere, expected)] {
            assert_eq!(worker.hub.check(start.clone()).await.unwrap_err().code, code);
            let refused = worker.hub.enter(start.clone(), 1).await;
            assert_eq!(refused.err().map(|e| e.code), Some(code));
        }
        // Publishes a snapshot: no room was made for those who were refused.
        worker.hub.set_draining(false).await.unwrap();
        assert_eq!(worker.hub.snapshots().borrow().rooms.len(), 1);

        // Who is there may come back, and once more under the same name.
        let again = lk::JoinRequest {
            reconnect: true,
            participant_sid: join.participant.unwrap().sid,
            ..Default::default()
        };
        drop(alice);
        let mut alice = worker.enter(start("alice", &again)).await;
        assert!(matches!(
            alice.next().await,
            Got::Response(Response::Reconnect(_))
        ));
        let (alice, _) = worker.join("alice").await;
        assert_eq!(
            worker.hub.check(carol.clone()).await.unwrap_err().code,
            Code::NoCapacity
        );

        // A place is free once somebody has left.
        alice.hub.expel(ROOM.into(), "alice".into(), false).await.unwrap();
        worker.hub.check(carol.clone()).await.unwrap();
        worker.join("carol").await;
    }
}
