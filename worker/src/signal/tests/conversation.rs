//! What is said in a session, and what ends one.

use super::*;

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
async fn a_leave_is_closed_without_a_code() {
    let mut worker = worker().await;
    let (mut alice, _) = worker.join("alice").await;
    alice.send(Request::Leave(lk::LeaveRequest::default())).await;
    let (leave, closed) = alice.closed().await;
    assert!(leave.is_none() && closed.code.is_empty());
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
