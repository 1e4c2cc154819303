//! Moves, standing and the reserved data topic as a gateway sees them.

use livekit_protocol::data_packet::Value;
use plenum_worker_api::v1::{Move, Moved, Standing};

use super::*;
use crate::room::EndReason;
use crate::session::api::Reliability;

const RED: &str = "team/standup/red";

async fn worker_with_red() -> Worker {
    let worker = worker().await;
    worker
        .hub
        .assign(RoomSpec::open(RoomName::from(RED)))
        .await
        .unwrap();
    worker
}

fn order(id: u64, room: &str) -> client_frame::Frame {
    client_frame::Frame::Move(Move {
        id,
        room: room.into(),
        epoch: 1,
        mute_sources: Vec::new(),
    })
}

impl Client {
    async fn frame(&mut self, frame: client_frame::Frame) {
        self.seq += 1;
        let frame = ClientFrame {
            seq: self.seq,
            frame: Some(frame),
        };
        self.hub.frame(self.session.connection, frame).await;
    }

    /// The next frame past the client, and whether the client heard of a move before it.
    async fn aside(&mut self) -> (worker_frame::Frame, Option<lk::RoomMovedResponse>) {
        let mut moved = None;
        loop {
            match self.next().await {
                Got::Other(frame) => return (frame, moved),
                Got::Response(Response::RoomMoved(m)) => moved = Some(m),
                Got::Response(_) => {}
                Got::Closed(closed) => panic!("closed: {closed:?}"),
                Got::Cut => panic!("cut"),
            }
        }
    }

    async fn moved(&mut self) -> (Moved, Option<lk::RoomMovedResponse>) {
        match self.aside().await {
            (worker_frame::Frame::Moved(moved), told) => (moved, told),
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_move_is_told_to_the_client_and_answered_once_for_all() {
    let mut worker = worker_with_red().await;
    let (mut alice, join) = worker.join("alice").await;
    alice.frame(order(1, RED)).await;
    let (answer, told) = alice.moved().await;
    assert_eq!(
        (answer.id, answer.room.as_str(), answer.code.as_str()),
        (1, RED, "")
    );
    let told = told.unwrap();
    assert_eq!(told.room.unwrap().name, RED);
    assert_eq!(told.token, "");
    let me = told.participant.unwrap();
    assert_eq!(me.identity, "alice");
    assert_ne!(me.sid, join.participant.unwrap().sid);
    // The same order again: the same answer, no second move.
    alice.frame(order(1, ROOM)).await;
    let (again, told) = alice.moved().await;
    assert_eq!((again, told), (answer, None));
    // One that cannot be carried out.
    alice.frame(order(2, "team/standup/blue")).await;
    let (refused, told) = alice.moved().await;
    assert_eq!((refused.id, refused.room.as_str()), (2, RED));
    assert_eq!(refused.code, Code::RoomNotFound.as_str());
    assert!(told.is_none());
    // One that was overtaken.
    alice.frame(order(1, ROOM)).await;
    assert_eq!(alice.moved().await.0.code, Code::RequestMalformed.as_str());
    alice.frame(order(3, ROOM)).await;
    assert_eq!(alice.moved().await.0.room, ROOM);
    let text = worker.metrics.render();
    assert!(
        text.contains(r#"plenum_worker_moves_total{outcome="ok",pool="dev"} 2"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_reattached_stream_hears_of_a_move_once() {
    let mut worker = worker_with_red().await;
    let (mut alice, join) = worker.join("alice").await;
    let sid = join.participant.unwrap().sid;
    let before = alice.last;
    alice.frame(order(1, RED)).await;
    let (_, told) = alice.moved().await;
    assert!(told.is_some());
    let after = alice.last;
    worker.hub.disconnected(alice.session.connection).await;
    let request = lk::JoinRequest {
        participant_sid: sid,
        ..Default::default()
    };
    for (seen, times) in [(before, 1), (after, 0)] {
        // It was routed to the room it knows.
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
            seq: alice.seq,
            last: seen,
        };
        // A move that is ordered again ends what is to be read.
        again.frame(order(1, RED)).await;
        let mut moves = 0;
        let (mut answers, mut relocated) = (0, 0);
        while answers < 1 + times {
            match again.next().await {
                Got::Response(Response::RoomMoved(_)) => moves += 1,
                Got::Other(worker_frame::Frame::Moved(moved)) => {
                    assert_eq!((moved.id, moved.room.as_str()), (1, RED));
                    answers += 1;
                }
                Got::Other(worker_frame::Frame::Relocated(moved)) => {
                    assert_eq!(moved.room, RED);
                    relocated += 1;
                }
                Got::Response(_) => {}
                _ => panic!("ended"),
            }
        }
        assert_eq!(moves, times);
        assert!(relocated >= 1, "it named another room");
        worker.hub.disconnected(again.session.connection).await;
    }
}

#[tokio::test]
async fn a_closed_breakout_room_relocates_its_people() {
    let mut worker = worker_with_red().await;
    let request = lk::JoinRequest::default();
    let mut alice = worker
        .enter(Start {
            room: RED.into(),
            ..start("alice", &request)
        })
        .await;
    worker.opened().await;
    worker
        .hub
        .release(RoomName::from(RED), 1, EndReason::Closed)
        .await
        .unwrap();
    let (frame, told) = alice.aside().await;
    assert!(told.is_none(), "first whoever speaks for it, then the client");
    assert!(matches!(frame, worker_frame::Frame::Relocated(m) if m.room == ROOM));
    let told = alice
        .find(|m| match m {
            Response::RoomMoved(m) => Some(m),
            _ => None,
        })
        .await;
    assert_eq!(told.room.unwrap().name, ROOM);
    // Without a main room here the stream ends, and the client is told nothing.
    worker
        .hub
        .assign(RoomSpec::open(RoomName::from(RED)))
        .await
        .unwrap();
    alice.frame(order(1, RED)).await;
    assert_eq!(alice.moved().await.0.room, RED);
    for room in [ROOM, RED] {
        worker
            .hub
            .release(RoomName::from(room), 1, EndReason::Closed)
            .await
            .unwrap();
    }
    let (leave, closed) = alice.closed().await;
    assert!(leave.is_none());
    assert_eq!(closed.code, Code::RoomClosed.as_str());
}

#[tokio::test]
async fn who_comes_back_to_a_closed_room_goes_on_in_the_main_room() {
    let worker = worker_with_red().await;
    let in_red = |request: &lk::JoinRequest| Start {
        room: RED.into(),
        epoch: 1,
        ..start("alice", request)
    };
    let mut alice = worker.enter(in_red(&lk::JoinRequest::default())).await;
    let Got::Response(Response::Join(join)) = alice.next().await else {
        panic!("no JoinResponse")
    };
    alice.hang_up(true).await;
    worker
        .hub
        .release(RoomName::from(RED), 1, EndReason::Closed)
        .await
        .unwrap();
    let back = in_red(&lk::JoinRequest {
        reconnect: true,
        participant_sid: join.participant.unwrap().sid,
        ..Default::default()
    });
    worker.hub.check(back.clone()).await.unwrap();
    let mut again = worker.enter(back).await;
    assert!(matches!(
        again.next().await,
        Got::Response(Response::Reconnect(_))
    ));
    let (frame, told) = again.aside().await;
    assert!(matches!(frame, worker_frame::Frame::Relocated(m) if m.room == ROOM));
    assert_eq!(told.unwrap().room.unwrap().name, ROOM);
}

fn data(json: &[u8]) -> bytes::Bytes {
    lk::DataPacket {
        value: Some(Value::User(lk::UserPacket {
            topic: Some(plenum_protocol::TOPIC.into()),
            payload: json.to_vec(),
            ..Default::default()
        })),
        ..Default::default()
    }
    .encode_to_vec()
    .into()
}

#[tokio::test]
async fn what_is_told_waits_for_the_data_channel() {
    let mut worker = worker_with_red().await;
    let (mut alice, _) = worker.join("alice").await;
    let session = worker.opened().await;
    for json in [r#"{"seq":1}"#, r#"{"seq":2}"#] {
        alice.frame(client_frame::Frame::Tell(json.into())).await;
    }
    alice.frame(order(1, RED)).await;
    alice.moved().await;
    // What a resumed stream repeats is not told again.
    let frame = ClientFrame {
        seq: alice.seq,
        frame: Some(client_frame::Frame::Tell("again".into())),
    };
    worker.hub.frame(alice.session.connection, frame).await;
    worker.events.send(Event::DataOpen { session }).unwrap();
    for json in [r#"{"seq":1}"#, r#"{"seq":2}"#] {
        let (sessions, payload) = worker
            .command(|c| match c {
                Command::SendData {
                    sessions, payload, ..
                } => Some((sessions.clone(), payload.clone())),
                _ => None,
            })
            .await;
        assert_eq!(sessions, [session]);
        assert_eq!(payload, data(json.as_bytes()));
    }
    alice.frame(client_frame::Frame::Tell("3".into())).await;
    let payload = worker
        .command(|c| match c {
            Command::SendData { payload, .. } => Some(payload.clone()),
            _ => None,
        })
        .await;
    assert_eq!(payload, data(b"3"));
}

#[tokio::test]
async fn what_clients_say_comes_up_even_after_a_pause() {
    let mut worker = worker().await;
    let (mut alice, join) = worker.join("alice").await;
    let session = worker.opened().await;
    let say = |worker: &Worker, n: usize| {
        let event = Event::Data {
            session,
            reliability: Reliability::Reliable,
            payload: data(n.to_string().as_bytes()),
        };
        worker.events.send(event).unwrap();
    };
    say(&worker, 1);
    assert_eq!(alice.aside().await.0, worker_frame::Frame::Said("1".into()));
    // Said while nobody speaks for it: the next one hears it, once.
    alice.hang_up(true).await;
    worker.hub.list(None).await.unwrap();
    say(&worker, 2);
    let request = lk::JoinRequest {
        reconnect: true,
        participant_sid: join.participant.unwrap().sid,
        ..Default::default()
    };
    // Events are taken in their order: what comes after it and can be seen says that it was.
    let connected = Event::Connected {
        session,
        leg: Leg::Publisher,
        since_open: Duration::ZERO,
    };
    worker.events.send(connected).unwrap();
    let active = lk::participant_info::State::Active as i32;
    while worker.hub.list(None).await.unwrap()[0].info.state != active {
        tokio::task::yield_now().await;
    }
    let mut again = worker.enter(start("alice", &request)).await;
    assert_eq!(again.aside().await.0, worker_frame::Frame::Said("2".into()));
    // Too fast: the rest is dropped and counted, the session stays.
    for n in 0..2 * limits::MESSAGE_BURST as usize {
        say(&worker, n);
    }
    let mut heard = 0;
    again.send(Request::Ping(1)).await;
    let dropped = r#"plenum_worker_data_packets_dropped_total{reason="rate_limited""#;
    loop {
        match again.next().await {
            Got::Other(_) => heard += 1,
            Got::Response(Response::Pong(_)) if worker.metrics.render().contains(dropped) => break,
            Got::Response(Response::Pong(_)) => again.send(Request::Ping(1)).await,
            Got::Response(_) => {}
            _ => panic!("ended"),
        }
    }
    assert!(heard < 2 * limits::MESSAGE_BURST as usize);
}

#[tokio::test]
async fn a_new_standing_is_seen_by_all() {
    let mut worker = worker().await;
    let (mut alice, _) = worker.join("alice").await;
    let (mut bob, _) = worker.join("bob").await;
    let standing = |role: &str| {
        client_frame::Frame::Standing(Standing {
            role: role.into(),
            video_grant_json: serde_json::to_string(&Role::Cohost.grant(ROOM)).unwrap(),
        })
    };
    // One that makes no sense changes nothing.
    alice.frame(standing("emperor")).await;
    alice.frame(standing("cohost")).await;
    let role = bob
        .find(|m| match m {
            Response::Update(u) => u
                .participants
                .into_iter()
                .find(|p| p.identity == "alice" && p.version > 1)
                .map(|p| p.attributes[plenum_protocol::ROLE_ATTRIBUTE].clone()),
            _ => None,
        })
        .await;
    assert_eq!(role, "cohost");
    let listed = worker.hub.list(None).await.unwrap();
    assert_eq!(
        listed.iter().find(|l| l.info.identity == "alice").unwrap().role,
        "cohost"
    );
}
