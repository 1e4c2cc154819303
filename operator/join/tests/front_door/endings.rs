//! How sessions end, and what a client is told to do.

use futures::SinkExt;
use livekit_protocol as proto;
use plenum_errors::Code;
use plenum_join::Order;
use plenum_worker_api::v1::{Closed, WorkerFrame, client_frame};
use prost::Message as _;
use proto::leave_request::Action;
use proto::signal_response::Message as Response;
use tokio_tungstenite::tungstenite::Message;

use crate::double::*;

#[tokio::test]
async fn a_leave_is_for_good_and_a_broken_socket_may_resume() {
    let mut world = plain_world().await;
    for leaves in [true, false] {
        let (mut socket, mut opened) = joined(&mut world).await;
        if leaves {
            let leave = proto::signal_request::Message::Leave(Default::default());
            let bytes = proto::SignalRequest { message: Some(leave) }.encode_to_vec();
            socket.send(Message::Binary(bytes.into())).await.unwrap();
            assert!(matches!(
                opened.from_client.recv().await.unwrap().frame,
                Some(client_frame::Frame::Request(_))
            ));
        }
        drop(socket);
        match opened.from_client.recv().await.unwrap().frame {
            Some(client_frame::Frame::Hangup(hangup)) => assert_eq!(hangup.may_resume, !leaves),
            other => panic!("{other:?}"),
        }
        assert!(opened.from_client.recv().await.is_none());
    }
}

#[tokio::test]
async fn a_resume_that_the_worker_knows_nothing_of_hears_so_on_the_socket() {
    let world = plain_world().await;
    world
        .double
        .first
        .lock()
        .unwrap()
        .insert("demo/standup".into(), vec![closed(Code::ParticipantNotFound)]);
    let path = format!("/rtc?reconnect=1&sid=PA_x&access_token={}", token("demo/standup"));
    let mut socket = connect(&world, &path, &[]).await.unwrap();
    let Response::Leave(leave) = next(&mut socket).await else {
        panic!()
    };
    assert_eq!(leave.action(), Action::Reconnect);
    assert_eq!(
        close_code(&mut socket).await,
        (4404, "ParticipantNotFound".to_owned())
    );
}

#[tokio::test]
async fn a_closed_session_ends_with_a_leave_and_a_close_code() {
    let mut world = plain_world().await;
    let (mut socket, opened) = joined(&mut world).await;
    opened
        .to_client
        .send(WorkerFrame {
            seq: 2,
            frame: Some(closed(Code::ParticipantRemoved)),
        })
        .await
        .unwrap();
    assert!(matches!(next(&mut socket).await, Response::Join(_)));
    assert!(matches!(next(&mut socket).await, Response::RefreshToken(_)));
    let Response::Leave(leave) = next(&mut socket).await else {
        panic!()
    };
    assert_eq!(leave.action(), Action::Disconnect);
    assert_eq!(leave.reason(), proto::DisconnectReason::ParticipantRemoved);
    assert_eq!(
        close_code(&mut socket).await,
        (4403, "ParticipantRemoved".to_owned())
    );
}

#[tokio::test]
async fn a_lost_worker_and_a_shutdown_ask_the_client_to_resume() {
    let mut world = plain_world().await;
    let (mut socket, opened) = joined(&mut world).await;
    let (mut other, mut other_opened) = joined(&mut world).await;
    drop(opened);
    let leave = loop {
        if let Response::Leave(leave) = next(&mut socket).await {
            break leave;
        }
    };
    assert_eq!(leave.action(), Action::Resume);
    assert_eq!(close_code(&mut socket).await.0, 1012);

    world.stop.send(true).unwrap();
    let leave = loop {
        if let Response::Leave(leave) = next(&mut other).await {
            break leave;
        }
    };
    assert_eq!(leave.action(), Action::Resume);
    match other_opened.from_client.recv().await.unwrap().frame {
        Some(client_frame::Frame::Hangup(hangup)) => assert!(hangup.may_resume),
        frame => panic!("{frame:?}"),
    }
}

#[tokio::test]
async fn a_session_may_be_ended_from_outside_its_worker() {
    let mut world = plain_world().await;
    let (mut socket, opened) = joined(&mut world).await;
    let closed = Closed {
        code: Code::DuplicateIdentity.as_str().into(),
        detail: String::new(),
    };
    opened.orders.send(Order::Close(closed)).await.unwrap();
    let leave = loop {
        if let Response::Leave(leave) = next(&mut socket).await {
            break leave;
        }
    };
    assert_eq!(leave.action(), Action::Disconnect);
    assert_eq!(leave.reason(), proto::DisconnectReason::DuplicateIdentity);
}
