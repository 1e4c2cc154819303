//! Gateways before the worker itself: rooms, moves and the hub as they are, media as a script.

use livekit_protocol as proto;
use plenum_crds::BreakoutAssignment;
use plenum_join::{Order, Rooms as _, Session};
use plenum_token::Role;
use plenum_worker_api::v1::{Start, worker_frame};
use prost::Message as _;
use proto::signal_response::Message as Response;
use serde_json::json;

use super::testing::{PATIENCE, World, start};

const MAIN: &str = "demo/standup";
const RED: &str = "demo/standup/red";

async fn world(red_is_on: usize) -> (World, Vec<super::testing::RealWorker>) {
    let (world, workers) = World::real().await;
    workers[0].assign(MAIN, 7).await;
    workers[red_is_on].assign(RED, 5).await;
    world.put_room("red", red_is_on, |_| {});
    world.put_meeting("uid-0", |meeting| {
        meeting.spec.breakouts.assignment = BreakoutAssignment::SelfSelect;
    });
    (world, workers)
}

/// The next response that `wanted` accepts.
async fn response<T>(session: &mut Session, wanted: impl Fn(Response) -> Option<T>) -> T {
    loop {
        let frame = tokio::time::timeout(PATIENCE, session.from_worker.recv()).await;
        let frame = frame
            .expect("the worker says nothing")
            .expect("the session is over");
        if let Some(worker_frame::Frame::Response(bytes)) = frame.frame {
            let message = proto::SignalResponse::decode(bytes.as_slice()).unwrap().message;
            if let Some(found) = message.and_then(&wanted) {
                return found;
            }
        }
    }
}

async fn join(world: &World, start: Start) -> (Session, String) {
    let (session, join) = greeted(world, start).await;
    (session, join.room.unwrap().name)
}

async fn greeted(world: &World, start: Start) -> (Session, proto::JoinResponse) {
    world.rooms.check(&start).await.unwrap();
    let mut session = world.rooms.enter(start).await.unwrap();
    let join = response(&mut session, |message| match message {
        Response::Join(join) => Some(join),
        _ => None,
    })
    .await;
    (session, join)
}

fn alice() -> Start {
    start(MAIN, "alice", Role::Participant)
}

#[tokio::test]
async fn a_move_on_the_same_worker_and_the_way_back_when_the_room_closes() {
    let (world, workers) = world(0).await;
    let (mut session, room) = join(&world, alice()).await;
    assert_eq!(room, MAIN);
    workers[0].says(0, &json!({"id": 1, "do": "hello"})).await;
    let state = workers[0].told(0, |value| value["re"] == 1).await;
    assert_eq!(
        (&state["ok"], &state["result"]["rooms"][0]["id"]),
        (&json!(true), &json!("red"))
    );
    workers[0]
        .says(0, &json!({"id": 2, "do": "chooseRoom", "room": "red"}))
        .await;
    let moved = response(&mut session, |message| match message {
        Response::RoomMoved(moved) => Some(moved.room.unwrap().name),
        _ => None,
    })
    .await;
    assert_eq!(moved, RED);
    assert_eq!(workers[0].told(0, |value| value["re"] == 2).await["ok"], true);
    workers[0]
        .told(0, |value| value["notice"] == "moved" && value["to"] == "red")
        .await;
    // By the real hub, numbered.
    let switched = |value: &serde_json::Value| value["signal"] == "participant-switched";
    assert!(workers[0].told(0, switched).await["seq"].as_u64().unwrap() > 0);
    assert_eq!(workers[0].people(RED).await, ["alice"]);

    workers[0].close(RED, 5).await;
    let back = response(&mut session, |message| match message {
        Response::RoomMoved(moved) => Some(moved.room.unwrap().name),
        _ => None,
    })
    .await;
    assert_eq!(back, MAIN);
    workers[0]
        .told(0, |value| value["notice"] == "moved" && value.get("to").is_none())
        .await;
}

#[tokio::test]
async fn a_move_to_another_worker_takes_the_peer_connection_along() {
    let (world, workers) = world(1).await;
    let (mut session, greeting) = greeted(&world, alice()).await;
    workers[0]
        .says(0, &json!({"id": 1, "do": "chooseRoom", "room": "red"}))
        .await;
    let order = tokio::time::timeout(PATIENCE, session.orders.recv())
        .await
        .unwrap();
    let sent = Order::Elsewhere {
        room: RED.into(),
        may_resume: true,
    };
    assert_eq!(order, Some(sent));
    drop(session);
    let request = proto::JoinRequest {
        reconnect: true,
        participant_sid: greeting.participant.unwrap().sid,
        ..Default::default()
    };
    let returning = Start {
        join_request: request.encode_to_vec(),
        ..start(RED, "alice", Role::Participant)
    };
    world.rooms.check(&returning).await.unwrap();
    let mut session = world.rooms.enter(returning).await.unwrap();
    response(&mut session, |message| {
        matches!(message, Response::Reconnect(_)).then_some(())
    })
    .await;
    assert_eq!(workers[1].people(RED).await, ["alice"]);
    // The first word is the server's: what the client says may come before its data channel is open again.
    workers[1]
        .told(0, |value| value["notice"] == "moved" && value["to"] == "red")
        .await;
    workers[1].says(0, &json!({"id": 2, "do": "hello"})).await;
    let state = workers[1].told(0, |value| value["re"] == 2).await;
    assert_eq!(state["result"]["me"]["room"], "red");
}

#[tokio::test]
async fn a_move_to_another_worker_and_the_way_back_when_the_room_closes() {
    let (world, workers) = world(1).await;
    // Two peer connections can't be taken along.
    let newcomer = Start {
        dual_peer_connection: true,
        ..alice()
    };
    let (mut session, _) = join(&world, newcomer).await;
    workers[0]
        .says(0, &json!({"id": 1, "do": "chooseRoom", "room": "red"}))
        .await;
    let order = tokio::time::timeout(PATIENCE, session.orders.recv())
        .await
        .unwrap();
    let sent = Order::Elsewhere {
        room: RED.into(),
        may_resume: false,
    };
    assert_eq!(order, Some(sent));
    drop(session);
    // The token is for that room now.
    let (mut session, room) = join(&world, start(RED, "alice", Role::Participant)).await;
    assert_eq!(room, RED);
    assert_eq!(workers[1].people(RED).await, ["alice"]);
    workers[1].close(RED, 5).await;
    let order = tokio::time::timeout(PATIENCE, session.orders.recv())
        .await
        .unwrap();
    let sent = Order::Elsewhere {
        room: MAIN.into(),
        may_resume: false,
    };
    assert_eq!(order, Some(sent));
}

#[tokio::test]
async fn a_newer_connection_in_another_room_ends_the_older() {
    let (world, _workers) = world(1).await;
    let (mut older, _) = join(&world, start(RED, "alice", Role::Participant)).await;
    let (newer, room) = join(&world, start(MAIN, "alice", Role::Participant)).await;
    assert_eq!(room, MAIN);
    match tokio::time::timeout(PATIENCE, older.orders.recv()).await.unwrap() {
        Some(Order::Close(closed)) => assert_eq!(closed.code, "DuplicateIdentity"),
        other => panic!("{other:?}"),
    }
    assert!(newer.orders.is_empty());
}

#[tokio::test]
async fn hands_stand_at_the_real_hub() {
    let (world, workers) = world(0).await;
    let (_alice, _) = join(&world, alice()).await;
    workers[0].says(0, &json!({"id": 1, "do": "hello"})).await;
    workers[0].told(0, |value| value["re"] == 1).await;
    workers[0]
        .says(0, &json!({"id": 2, "do": "raiseHand", "up": true}))
        .await;
    workers[0]
        .told(0, |value| value["signal"] == "raise-hand" && value["up"] == true)
        .await;
    // Whoever comes later is told in the state.
    let (_bob, _) = join(&world, start(MAIN, "bob", Role::Participant)).await;
    let meeting = world.rooms.meetings.live("demo", "standup").unwrap();
    super::testing::until("the hand stands", || {
        !meeting.journal().standing().hands.is_empty()
    })
    .await;
    workers[0].says(1, &json!({"id": 1, "do": "hello"})).await;
    let state = workers[0].told(1, |value| value["re"] == 1).await;
    assert_eq!(state["result"]["hands"][0]["identity"], "alice");
}
