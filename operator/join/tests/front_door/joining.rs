//! Joining, and where a join leads.

use futures::SinkExt;
use livekit_protocol as proto;
use plenum_join::Order;
use plenum_worker_api::v1::{WorkerFrame, client_frame};
use prost::Message as _;
use proto::leave_request::Action;
use proto::signal_response::Message as Response;
use tokio_tungstenite::tungstenite::Message;

use crate::double::*;

#[tokio::test]
async fn a_v1_client_joins_and_is_given_a_fresh_token() {
    let mut world = plain_world().await;
    let (mut socket, mut opened) = joined(&mut world).await;
    assert_eq!(
        (opened.start.identity.as_str(), opened.start.role.as_str()),
        ("alice", "host")
    );
    assert_eq!(
        (opened.start.name.as_str(), opened.start.kind.as_str()),
        ("Alice", "standard")
    );
    assert!(!opened.start.dual_peer_connection && opened.start.token_issued_at_ms > 0);
    assert_eq!(opened.start.remote_address, "127.0.0.1");
    let request = proto::JoinRequest::decode(opened.start.join_request.as_slice()).unwrap();
    assert_eq!(request.participant_sid, "PA_x");

    assert!(matches!(next(&mut socket).await, Response::Join(_)));
    let Response::RefreshToken(fresh) = next(&mut socket).await else {
        panic!()
    };
    assert_eq!(plenum_token::peek(&fresh).unwrap().room, "demo/standup");
    assert_ne!(fresh, token("demo/standup"));

    socket
        .send(Message::Binary(vec![0x12, 0x00].into()))
        .await
        .unwrap();
    let frame = opened.from_client.recv().await.unwrap();
    assert_eq!(
        (frame.seq, frame.frame),
        (2, Some(client_frame::Frame::Request(vec![0x12, 0x00])))
    );
    opened
        .to_client
        .send(WorkerFrame {
            seq: 2,
            frame: Some(response(Response::Pong(7))),
        })
        .await
        .unwrap();
    assert!(matches!(next(&mut socket).await, Response::Pong(7)));
}

#[tokio::test]
async fn a_v0_client_joins_with_a_bearer_token() {
    let mut world = plain_world().await;
    let bearer = format!("Bearer {}", token("demo/standup"));
    let path = "/rtc?sdk=python&protocol=15&reconnect=1&sid=PA_y&auto_subscribe=0";
    let _socket = connect(&world, path, &[("authorization", &bearer)])
        .await
        .unwrap();
    let opened = world.opened.recv().await.unwrap();
    assert!(opened.start.dual_peer_connection);
    let request = proto::JoinRequest::decode(opened.start.join_request.as_slice()).unwrap();
    assert!(request.reconnect && request.participant_sid == "PA_y");
}

#[tokio::test]
async fn a_move_to_another_room_carries_a_token_for_it() {
    let mut world = plain_world().await;
    let (mut socket, opened) = joined(&mut world).await;
    let moved = proto::RoomMovedResponse {
        room: Some(proto::Room {
            name: "demo/standup/red".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    opened
        .to_client
        .send(WorkerFrame {
            seq: 2,
            frame: Some(response(Response::RoomMoved(moved))),
        })
        .await
        .unwrap();
    let token = loop {
        if let Response::RoomMoved(moved) = next(&mut socket).await {
            break moved.token;
        }
    };
    assert_eq!(plenum_token::peek(&token).unwrap().room, "demo/standup/red");
}

#[tokio::test]
async fn a_join_that_leads_to_another_room_is_given_a_token_for_it() {
    let mut world = plain_world().await;
    world
        .double
        .leads_to
        .lock()
        .unwrap()
        .insert("demo/standup".into(), "demo/standup/red".into());
    let (mut socket, _opened) = joined(&mut world).await;
    assert!(matches!(next(&mut socket).await, Response::Join(_)));
    let Response::RefreshToken(fresh) = next(&mut socket).await else {
        panic!()
    };
    assert_eq!(plenum_token::peek(&fresh).unwrap().room, "demo/standup/red");
}

#[tokio::test]
async fn a_client_sent_elsewhere_gets_a_token_for_it_and_is_hung_up() {
    for may_resume in [true, false] {
        let mut world = plain_world().await;
        let (mut socket, mut opened) = joined(&mut world).await;
        // Frames that were on their way come first.
        let frame = WorkerFrame {
            seq: 2,
            frame: Some(response(Response::Pong(7))),
        };
        opened.to_client.send(frame).await.unwrap();
        let order = Order::Elsewhere {
            room: "demo/standup/red".into(),
            may_resume,
        };
        opened.orders.send(order).await.unwrap();
        // The session may be gone by the time the relay looks.
        drop(opened.to_client);
        drop(opened.orders);
        let mut ponged = false;
        let mut room = String::new();
        let leave = loop {
            match next(&mut socket).await {
                Response::Leave(leave) => break leave,
                Response::RefreshToken(token) => room = plenum_token::peek(&token).unwrap().room,
                Response::Pong(7) => ponged = true,
                _ => {}
            }
        };
        assert!(ponged);
        assert_eq!(room, "demo/standup/red");
        let expected = if may_resume {
            Action::Resume
        } else {
            Action::Reconnect
        };
        assert_eq!(leave.action(), expected);
        assert_eq!(close_code(&mut socket).await, (1012, "moved".to_owned()));
        match opened.from_client.recv().await.unwrap().frame {
            Some(client_frame::Frame::Hangup(hangup)) => assert!(!hangup.may_resume),
            frame => panic!("{frame:?}"),
        }
    }
}
