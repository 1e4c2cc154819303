//! Clients that lose their connection and come back.

use super::*;

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
