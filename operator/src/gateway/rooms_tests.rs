//! Joins against a worker's contract, over real mutual TLS.

use plenum_crds::MeetingSpec;
use plenum_join::Order;
use plenum_worker_api::v1::*;

use super::super::testing::{PATIENCE, World, authority, resume, start};
use super::*;

const MAIN: &str = "demo/standup";
const RED: &str = "demo/standup/red";

fn alice() -> Start {
    start(MAIN, "alice", Role::Participant)
}

#[tokio::test]
async fn a_session_carries_the_epoch_and_frames_both_ways() {
    let world = World::new().await;
    // The first answer is "no such room": waited out, since the object says otherwise.
    world.workers[0]
        .checks
        .lock()
        .unwrap()
        .push_back(Code::RoomNotFound);
    world.rooms.check(&alice()).await.unwrap();
    assert_eq!(*world.workers[0].asked.lock().unwrap(), 2);
    let (mut session, probe) = world.join(alice(), 0).await;
    let frame = |seq, frame| ClientFrame {
        seq,
        frame: Some(frame),
    };
    session
        .to_worker
        .send(frame(2, client_frame::Frame::Request(b"hi".to_vec())))
        .await
        .unwrap();
    let echoed = session.from_worker.recv().await.unwrap();
    assert_eq!(
        (echoed.seq, echoed.frame),
        (2, Some(worker_frame::Frame::Response(b"hi".to_vec())))
    );
    let hangup = client_frame::Frame::Hangup(Hangup { may_resume: false });
    session.to_worker.send(frame(3, hangup.clone())).await.unwrap();
    let mut probe = probe;
    assert!(matches!(probe.frame().await, client_frame::Frame::Request(_)));
    assert_eq!(probe.frame().await, hangup);
    assert_eq!(probe.start.epoch, 7);
}

#[tokio::test]
async fn the_workers_last_word_reaches_the_client() {
    let world = World::new().await;
    let (mut session, probe) = world.join(alice(), 0).await;
    probe.close(Code::ParticipantRemoved).await;
    let last = session.from_worker.recv().await.unwrap();
    assert!(matches!(last.frame, Some(worker_frame::Frame::Closed(_))));
    assert!(session.from_worker.recv().await.is_none());
    assert!(session.orders.recv().await.is_none());
}

#[tokio::test]
async fn a_socket_that_broke_leaves_the_session_to_be_resumed() {
    let world = World::new().await;
    let (session, mut probe) = world.join(alice(), 0).await;
    let hangup = client_frame::Frame::Hangup(Hangup { may_resume: true });
    session
        .to_worker
        .send(ClientFrame {
            seq: 2,
            frame: Some(hangup.clone()),
        })
        .await
        .unwrap();
    assert_eq!(probe.frame().await, hangup);
    // At another gateway.
    let again = world.gateway();
    let returning = resume(MAIN, "alice", Role::Participant);
    again.check(&returning).await.unwrap();
    let (_session, probe) = super::super::testing::enter(&again, &world.workers[0], returning.clone()).await;
    assert_eq!(probe.start.join_request, returning.join_request);
}

#[tokio::test]
async fn a_final_refusal_is_not_waited_out() {
    let world = World::new().await;
    world.workers[0].refuse(MAIN, Code::MeetingLocked);
    let refused = world.rooms.check(&alice()).await.unwrap_err();
    assert_eq!(refused.code, Code::MeetingLocked);
    assert_eq!(*world.workers[0].asked.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_gateway_of_another_authority_is_turned_away() {
    let world = World::trusting(&authority(), &authority()).await;
    let refused = world.rooms.enter(alice()).await.err().unwrap();
    assert_eq!(refused.code, Code::WorkerUnreachable);
}

#[tokio::test]
async fn a_pod_of_the_same_name_is_another_worker() {
    let world = World::new().await;
    world.put_meeting("uid-of-its-predecessor", |_| {});
    let routes = world.routes();
    let code = |room: &str| routes.lookup(room).unwrap_err().code;
    assert_eq!(code(MAIN), Code::MeetingNotReady);
    assert_eq!(code(RED), Code::RoomNotFound);
    assert_eq!(code("other/standup"), Code::MeetingNotFound);
    for name in ["", "x", "/", "a//b", "demo/standup/", "demo/standup/red/x"] {
        assert_eq!(code(name), Code::MeetingNotFound, "{name}");
    }
}

#[tokio::test]
async fn a_closed_room_is_told_from_one_that_is_not_placed_yet() {
    let world = World::new().await;
    let code = |world: &World| world.routes().lookup(RED).map_err(|error| error.code);
    world.put_room("red", 0, |room| room.status = None);
    assert_eq!(code(&world), Err(Code::MeetingNotReady));
    world.put_room("red", 0, |room| {
        room.status = None;
        room.spec.open = false;
    });
    assert_eq!(code(&world), Err(Code::RoomClosed));
    // While its people are still in it, it has a worker.
    world.put_room("red", 1, |room| room.spec.open = false);
    assert_eq!(code(&world).unwrap().worker.uid, "uid-1");
}

#[tokio::test]
async fn a_key_is_good_for_its_own_meetings_alone() {
    let world = World::new().await;
    assert!(world.rooms.api_secret("k", MAIN).await.is_some());
    assert!(world.rooms.api_secret("other", MAIN).await.is_none());
    let spec = MeetingSpec {
        key_secret_ref: Some(plenum_crds::SecretRef { name: "own".into() }),
        ..MeetingSpec::default()
    };
    let mut meeting = Meeting::new("private", spec);
    meeting.metadata.namespace = Some("demo".into());
    world.routes().meetings.put(meeting);
    // The Secret cannot be read here, and the installation's key does not stand in for it.
    assert!(world.rooms.api_secret("k", "demo/private").await.is_none());
}

#[tokio::test]
async fn newcomers_go_where_they_belong_and_to_the_main_room_where_that_is_full() {
    let world = World::new().await;
    world.put_room("red", 1, |room| room.spec.participants = vec!["alice".into()]);
    world.rooms.check(&alice()).await.unwrap();
    let (session, probe) = world.join(alice(), 1).await;
    assert_eq!((session.room.as_str(), probe.start.room.as_str()), (RED, RED));
    assert_eq!(probe.start.epoch, 5);
    // Whom nobody said anything about goes where the token leads.
    let (session, _probe) = world.join(start(RED, "bob", Role::Participant), 1).await;
    assert_eq!(session.room, RED);
    let (session, _probe) = world.join(start(MAIN, "bob", Role::Participant), 0).await;
    assert_eq!(session.room, MAIN);

    world.workers[1].refuse(RED, Code::MeetingFull);
    for (identity, room) in [("alice", MAIN), ("bob", RED)] {
        let newcomer = start(room, identity, Role::Participant);
        world.rooms.check(&newcomer).await.unwrap();
        let (session, mut probe) = world.join(newcomer, 0).await;
        assert_eq!((session.room.as_str(), probe.start.room.as_str()), (MAIN, MAIN));
        let failed = probe.notice("move-failed").await;
        assert_eq!(
            (&failed["to"], &failed["code"]),
            (&"red".into(), &"MeetingFull".into())
        );
        assert!(failed.get("landed").is_none());
    }
}

#[tokio::test]
async fn a_room_that_closed_lets_nobody_in_and_one_that_never_was_is_not_found() {
    let world = World::new().await;
    world.put_room("red", 1, |room| room.spec.open = false);
    let newcomer = start(RED, "bob", Role::Participant);
    world.rooms.check(&newcomer).await.unwrap();
    let (session, _probe) = world.join(newcomer, 0).await;
    assert_eq!(session.room, MAIN);
    let stranger = start("demo/standup/blue", "bob", Role::Participant);
    assert_eq!(
        world.rooms.check(&stranger).await.unwrap_err().code,
        Code::RoomNotFound
    );
    assert_eq!(
        world.rooms.enter(stranger).await.err().unwrap().code,
        Code::RoomNotFound
    );
    // A room that was there a moment ago has people on their way back to it.
    world.routes().breakouts.remove("demo", "red");
    super::super::meetings::plans::refresh(&world.rooms.meetings);
    let (session, _probe) = world.join(start(RED, "cid", Role::Participant), 0).await;
    assert_eq!(session.room, MAIN);
}

#[tokio::test]
async fn who_comes_back_to_a_closed_room_is_sent_to_the_main_room() {
    let world = World::new().await;
    let returning = resume(RED, "alice", Role::Participant);
    world.put_room("red", 1, |room| {
        room.spec.open = false;
        room.status = None;
    });
    for case in ["by the objects", "by the worker"] {
        if case == "by the worker" {
            world.put_room("red", 1, |_| {});
            world.workers[1].refuse(RED, Code::RoomClosed);
        }
        world.rooms.check(&returning).await.unwrap();
        let mut session = world.rooms.enter(returning.clone()).await.unwrap();
        let order = tokio::time::timeout(PATIENCE, session.orders.recv())
            .await
            .unwrap();
        let main = Order::Elsewhere {
            room: MAIN.into(),
            may_resume: false,
        };
        assert_eq!(order, Some(main), "{case}");
        assert!(session.from_worker.recv().await.is_none());
    }
}

#[tokio::test]
async fn listeners_and_programs_go_where_their_tokens_say() {
    let world = World::new().await;
    world.put_room("red", 1, |room| {
        room.spec.participants = vec!["alice~listen".into(), "robot".into()];
    });
    let grant = VideoGrant {
        hidden: true,
        ..Role::Viewer.grant(MAIN)
    };
    let unseen = Start {
        video_grant_json: serde_json::to_string(&grant).unwrap(),
        ..start(MAIN, "alice~listen", Role::Viewer)
    };
    let program = Start {
        kind: "agent".into(),
        ..start(MAIN, "robot", Role::Participant)
    };
    for one in [unseen, program] {
        let (session, _probe) = world.join(one, 0).await;
        assert_eq!(session.room, MAIN);
    }
    // Nor are they at home in the main room.
    world.workers[1].refuse(RED, Code::RoomClosed);
    let mut unseen = start(RED, "alice~listen", Role::Viewer);
    unseen.video_grant_json = serde_json::to_string(&grant).unwrap();
    assert_eq!(
        world.rooms.check(&unseen).await.unwrap_err().code,
        Code::RoomClosed
    );
}
