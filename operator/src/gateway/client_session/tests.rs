//! Sessions of clients against workers' contract: moves, requests, what a client is told.

use plenum_crds::{BreakoutAssignment, MoveDecision, SessionDecisions};
use plenum_errors::Code;
use plenum_join::{Order, Session};
use plenum_token::Role;
use plenum_worker_api::v1::*;
use serde_json::{Value, json};

use crate::gateway::testing::{PATIENCE, Probe, World, enter, resume, start, until};

const MAIN: &str = "demo/standup";
const RED: &str = "demo/standup/red";

fn alice() -> Start {
    start(MAIN, "alice", Role::Participant)
}

fn host() -> Start {
    start(MAIN, "hanna", Role::Host)
}

async fn order(session: &mut Session) -> Order {
    let order = tokio::time::timeout(PATIENCE, session.orders.recv()).await;
    order.expect("nothing was ordered").expect("the session is over")
}

async fn a_move(probe: &mut Probe) -> Move {
    match probe.frame().await {
        client_frame::Frame::Move(order) => order,
        frame => panic!("{frame:?}"),
    }
}

/// A decision of a host about somebody's place.
fn decide(world: &World, identity: &str, room: Option<&str>) {
    world.put_meeting("uid-0", |meeting| {
        let named = world
            .routes()
            .breakouts
            .all()
            .iter()
            .find(|room| room.spec.participants.iter().any(|one| one == identity))
            .and_then(|room| room.metadata.name.clone());
        let status = meeting.status.as_mut().unwrap();
        let session = status.session.get_or_insert_with(SessionDecisions::default);
        let breakouts = session.breakouts.get_or_insert_default();
        breakouts.moves.retain(|one| one.identity != identity);
        breakouts.moves.push(MoveDecision {
            identity: identity.into(),
            room: room.map(str::to_owned),
            named,
        });
    });
}

fn self_select(world: &World) {
    world.put_meeting("uid-0", |meeting| {
        meeting.spec.breakouts.assignment = BreakoutAssignment::SelfSelect;
    });
}

#[tokio::test]
async fn an_applied_room_takes_its_people_after_a_notice() {
    let world = World::new().await;
    let (_session, mut probe) = world.join(alice(), 0).await;
    world.put_room("red", 0, |room| {
        room.spec.participants = vec!["alice".into()];
        room.spec.title = Some("Red room".into());
    });
    let notice = probe.notice("moving").await;
    assert_eq!(
        (&notice["to"], &notice["title"]),
        (&json!("red"), &json!("Red room"))
    );
    assert_eq!(
        notice["at"].as_i64().unwrap() - notice["now"].as_i64().unwrap(),
        5_000
    );
    let order = a_move(&mut probe).await;
    assert_eq!((order.room.as_str(), order.epoch), (RED, 5));
    assert!(order.mute_sources.is_empty());
    assert_eq!(probe.notice("moved").await["to"], "red");
    let told_hub = || {
        let hub = world.workers[0].hub.lock().unwrap();
        hub.here
            .iter()
            .any(|here| here.identity == "alice" && here.room == "red")
    };
    until("the meeting's directory knows of the move", told_hub).await;
}

#[tokio::test]
async fn a_chosen_room_is_gone_to_at_once_and_the_others_are_told() {
    let world = World::new().await;
    self_select(&world);
    world.put_room("red", 0, |_| {});
    let (_session, mut probe) = world.join(alice(), 0).await;
    probe
        .say(worker_frame::Frame::Said(
            json!({"id": 1, "do": "chooseRoom", "room": "red"}).to_string(),
        ))
        .await;
    let order = a_move(&mut probe).await;
    assert_eq!(order.room, RED);
    let until_moved = probe.told_until(|value| value["notice"] == "moved").await;
    assert!(
        until_moved.iter().all(|value| value["notice"] != "moving"),
        "{until_moved:?}"
    );
    let meeting = world.routes().meetings.get("demo", "standup").unwrap();
    let decided = meeting
        .status
        .clone()
        .unwrap()
        .session
        .unwrap()
        .breakouts
        .unwrap();
    assert_eq!(decided.moves[0].room.as_deref(), Some("red"));
    let switched = json!({"signal": "participant-switched", "identity": "alice", "to": "red"});
    let told = || world.workers[0].hub.lock().unwrap().signals().contains(&switched);
    until("the switch is told of", told).await;

    // And back.
    probe
        .say(worker_frame::Frame::Said(
            json!({"id": 2, "do": "returnToMain"}).to_string(),
        ))
        .await;
    let back = a_move(&mut probe).await;
    assert_eq!((back.room.as_str(), back.epoch), (MAIN, 7));
    assert!(back.id > order.id);
}

#[tokio::test]
async fn a_refused_move_leaves_people_where_they_are_and_says_why() {
    let world = World::new().await;
    self_select(&world);
    world.put_room("red", 0, |_| {});
    world.workers[0].refuse(RED, Code::MeetingFull);
    let (session, mut probe) = world.join(alice(), 0).await;
    let asked = json!({"id": 1, "do": "chooseRoom", "room": "red"});
    probe.request(&asked).await;
    a_move(&mut probe).await;
    let failed = probe.notice("move-failed").await;
    assert_eq!(
        (&failed["to"], &failed["code"]),
        (&json!("red"), &json!("MeetingFull"))
    );
    assert!(session.orders.is_empty());
    let switched = json!({
        "signal": "participant-switched", "identity": "alice", "failed": "MeetingFull",
    });
    let told = || world.workers[0].hub.lock().unwrap().signals().contains(&switched);
    until("hosts are told of the failure", told).await;
}

#[tokio::test]
async fn a_worker_that_moves_people_by_itself_is_believed() {
    let world = World::new().await;
    world.put_room("red", 0, |_| {});
    let (_session, mut probe) = world.join(start(RED, "alice", Role::Participant), 0).await;
    probe
        .say(worker_frame::Frame::Relocated(Moved {
            room: MAIN.into(),
            ..Moved::default()
        }))
        .await;
    let moved = probe.notice("moved").await;
    assert!(moved.get("to").is_none(), "{moved}");
    let state = probe.ask(json!({"id": 1, "do": "hello"})).await;
    assert!(state["result"]["me"].get("room").is_none());
}

#[tokio::test]
async fn a_room_on_another_worker_is_reserved_before_the_client_is_sent_there() {
    let world = World::new().await;
    self_select(&world);
    world.put_room("red", 1, |_| {});
    let (mut session, mut probe) = world.join(alice(), 0).await;
    let asked = json!({"id": 1, "do": "chooseRoom", "room": "red"});
    probe.request(&asked).await;
    assert!(matches!(probe.frame().await, client_frame::Frame::HandOver(_)));
    let sent = Order::Elsewhere {
        room: RED.into(),
        may_resume: true,
    };
    assert_eq!(order(&mut session).await, sent);
    let reserved = world.workers[1].reserved.lock().unwrap().clone();
    assert_eq!((reserved[0].room.as_str(), reserved[0].epoch), (RED, 5));
    assert_eq!(reserved[0].handover, b"state");
    assert!(reserved[0].takes_a_place && reserved[0].ttl_ms <= 30_000);
    // The front door hangs up the old session, the client comes to the other worker.
    let hangup = client_frame::Frame::Hangup(Hangup { may_resume: false });
    session
        .to_worker
        .send(ClientFrame {
            seq: 2,
            frame: Some(hangup.clone()),
        })
        .await
        .unwrap();
    assert_eq!(probe.frame().await, hangup);
    let returning = resume(RED, "alice", Role::Participant);
    let (_session, mut probe) = enter(&world.rooms, &world.workers[1], returning).await;
    let state = probe.ask(json!({"id": 1, "do": "hello"})).await;
    assert_eq!(state["result"]["me"]["room"], "red");
    let switched = json!({"signal": "participant-switched", "identity": "alice", "to": "red"});
    let told = || world.workers[0].hub.lock().unwrap().signals().contains(&switched);
    until("the switch is told of", told).await;
}

#[tokio::test]
async fn without_its_live_state_a_client_starts_anew_at_the_other_worker() {
    for dual in [false, true] {
        let world = World::new().await;
        self_select(&world);
        world.put_room("red", 1, |_| {});
        *world.workers[0].handover.lock().unwrap() = None;
        let newcomer = Start {
            dual_peer_connection: dual,
            ..alice()
        };
        let (mut session, probe) = world.join(newcomer, 0).await;
        let asked = json!({"id": 1, "do": "chooseRoom", "room": "red"});
        probe.request(&asked).await;
        let sent = Order::Elsewhere {
            room: RED.into(),
            may_resume: false,
        };
        assert_eq!(order(&mut session).await, sent);
    }
}

#[tokio::test]
async fn who_gets_no_place_at_another_worker_stays() {
    let world = World::new().await;
    self_select(&world);
    world.put_room("red", 1, |_| {});
    world.workers[1].refuse(RED, Code::MeetingFull);
    let (mut session, mut probe) = world.join(alice(), 0).await;
    let asked = json!({"id": 1, "do": "chooseRoom", "room": "red"});
    probe.request(&asked).await;
    assert_eq!(probe.notice("move-failed").await["code"], "MeetingFull");
    assert!(session.orders.try_recv().is_err());
}

#[tokio::test]
async fn a_room_that_closed_under_its_people_sends_them_to_the_main_room() {
    let world = World::new().await;
    world.put_room("red", 1, |_| {});
    let (mut session, probe) = world.join(start(RED, "alice", Role::Participant), 1).await;
    probe.close(Code::RoomClosed).await;
    let sent = Order::Elsewhere {
        room: MAIN.into(),
        may_resume: false,
    };
    assert_eq!(order(&mut session).await, sent);
    // The front door sees no Closed, which would end the client for good.
    assert!(session.from_worker.recv().await.is_none());
}

#[tokio::test]
async fn a_resumed_session_counts_its_moves_on() {
    let world = World::new().await;
    self_select(&world);
    world.put_room("red", 0, |_| {});
    world.put_room("blue", 0, |_| {});
    let (session, mut probe) = world.join(alice(), 0).await;
    let choose = |room: &str| {
        worker_frame::Frame::Said(json!({"id": 1, "do": "chooseRoom", "room": room}).to_string())
    };
    probe.say(choose("red")).await;
    let first = a_move(&mut probe).await;
    probe.notice("moved").await;
    let other = world.gateway();
    let (_session, mut probe) =
        enter(&other, &world.workers[0], resume(RED, "alice", Role::Participant)).await;
    drop(session);
    probe.say(choose("blue")).await;
    assert!(a_move(&mut probe).await.id > first.id);
}

#[tokio::test]
async fn a_decision_while_somebody_is_away_is_followed_when_they_return() {
    let world = World::new().await;
    world.put_room("red", 0, |_| {});
    decide(&world, "alice", Some("red"));
    // A resume goes where the session is, and the move follows.
    let (_session, mut probe) = world.join(resume(MAIN, "alice", Role::Participant), 0).await;
    assert_eq!(probe.notice("moving").await["to"], "red");
    decide(&world, "alice", None);
    assert_eq!(probe.notice("not-moving").await, json!({"notice": "not-moving"}));
}

#[tokio::test]
async fn a_decision_that_was_overruled_does_not_come_back() {
    let world = World::new().await;
    world.put_room("red", 0, |room| room.spec.participants = vec!["alice".into()]);
    world.put_room("blue", 0, |_| {});
    decide(&world, "alice", None);
    let (_session, _probe) = world.join(alice(), 0).await;
    let moves = || {
        let meeting = world.routes().meetings.get("demo", "standup").unwrap();
        let session = meeting.status.clone().unwrap().session.unwrap();
        session.breakouts.map_or(0, |breakouts| breakouts.moves.len())
    };
    assert_eq!(moves(), 1);
    // Git names another room: the decision, made when it was red, is void.
    world.put_room("red", 0, |_| {});
    world.put_room("blue", 0, |room| room.spec.participants = vec!["alice".into()]);
    until("the decision is gone", || moves() == 0).await;
}

#[tokio::test]
async fn a_decision_about_a_room_that_the_watch_has_not_told_of_is_kept() {
    let world = World::new().await;
    let room = crate::gateway::meetings::plans::tests::room("standup", "red");
    world.api.unseen.lock().unwrap().push(room);
    decide(&world, "alice", Some("red"));
    let (_session, mut probe) = world.join(host(), 0).await;
    let answer = probe
        .ask(json!({"id": 1, "do": "settings", "allowCancel": true}))
        .await;
    assert_eq!(answer["ok"], true);
    let meeting = world.routes().meetings.get("demo", "standup").unwrap();
    let breakouts = meeting
        .status
        .clone()
        .unwrap()
        .session
        .unwrap()
        .breakouts
        .unwrap();
    assert_eq!(breakouts.allow_cancel, Some(true));
    assert_eq!(breakouts.moves[0].room.as_deref(), Some("red"));
}

#[tokio::test]
async fn only_hosts_change_rooms_and_everything_is_answered() {
    let world = World::new().await;
    let (_session, mut probe) = world.join(alice(), 0).await;
    for (request, code) in [
        (
            json!({"id": 1, "do": "createRooms", "rooms": [{}]}),
            "NotPermitted",
        ),
        (json!({"id": 2, "do": "overview", "watch": true}), "NotPermitted"),
        (json!({"id": 3, "do": "fly"}), "RequestMalformed"),
        (json!({"id": 4}), "RequestMalformed"),
        (
            json!({"id": 5, "do": "chooseRoom", "room": "nowhere"}),
            "RoomNotFound",
        ),
        (json!({"id": 6, "do": "broadcast", "text": "hi"}), "NotPermitted"),
        (
            json!({"id": 7, "do": "lowerHand", "identity": "bob"}),
            "NotPermitted",
        ),
        (
            json!({"id": 8, "do": "messageHosts", "text": "x".repeat(5_000)}),
            "MessageTooLarge",
        ),
        (json!({"id": 9, "do": "listen", "room": "red"}), "NotPermitted"),
    ] {
        let answer = probe.ask(request.clone()).await;
        assert_eq!(
            (&answer["ok"], &answer["error"]["code"]),
            (&json!(false), &json!(code)),
            "{request}"
        );
        assert!(!answer["error"]["remedy"].as_str().unwrap().is_empty());
    }
    assert!(world.api.writes.lock().unwrap().is_empty());
    // What cannot be read at all is no reason to end anything.
    probe.say(worker_frame::Frame::Said("{".into())).await;
    let answer = probe.ask(json!({"id": 10, "do": "raiseHand", "up": true})).await;
    assert_eq!(answer, json!({"re": 10, "ok": true}));
}

#[tokio::test]
async fn who_asks_too_often_is_told_so() {
    let world = World::new().await;
    let (_session, mut probe) = world.join(alice(), 0).await;
    for id in 1..=60 {
        let asked = json!({"id": id, "do": "raiseHand", "up": true});
        probe.request(&asked).await;
    }
    let answers = probe.told_until(|value| value["re"] == 60).await;
    let refused = |value: &&Value| value["error"]["code"] == "RateLimited";
    assert!(answers.iter().any(|value| value["ok"] == true));
    assert!(answers.iter().filter(refused).count() > 0);
}

#[tokio::test]
async fn hosts_make_rename_close_and_remove_rooms() {
    let world = World::new().await;
    *world.api.conflicts.lock().unwrap() = 2;
    let (_session, mut probe) = world.join(host(), 0).await;
    let request = json!({
        "id": 1, "do": "createRooms", "mode": "selfSelect", "duration": 600,
        "rooms": [{"title": "Red room", "participants": ["bob"]}, {}],
    });
    let answer = probe.ask(request).await;
    let rooms = answer["result"]["rooms"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"))
        .clone();
    assert_eq!(rooms.len(), 2);
    let made = world
        .routes()
        .breakouts
        .get("demo", rooms[0].as_str().unwrap())
        .unwrap();
    assert_eq!(made.spec.title.as_deref(), Some("Red room"));
    let owner = &made.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.as_str()),
        ("Meeting", "meeting-uid")
    );
    assert!(
        made.metadata
            .labels
            .as_ref()
            .unwrap()
            .contains_key("plenum.dev/made-in-meeting")
    );
    let meeting = world.routes().meetings.get("demo", "standup").unwrap();
    let decided = meeting
        .status
        .clone()
        .unwrap()
        .session
        .unwrap()
        .breakouts
        .unwrap();
    assert_eq!(decided.assignment, Some(BreakoutAssignment::SelfSelect));

    // What was made can be named at once.
    let renamed = json!({"id": 2, "do": "renameRoom", "room": rooms[1], "title": "Blue"});
    assert_eq!(probe.ask(renamed).await["ok"], true);
    let closed = json!({"id": 3, "do": "closeRooms", "rooms": [rooms[1]], "countdown": 30});
    assert_eq!(probe.ask(closed).await["ok"], true);
    let removed = json!({"id": 4, "do": "removeRoom", "room": rooms[0]});
    assert_eq!(probe.ask(removed).await["ok"], true);
    assert!(
        world
            .routes()
            .breakouts
            .get("demo", rooms[0].as_str().unwrap())
            .is_none()
    );
    let state = probe.ask(json!({"id": 5, "do": "hello"})).await;
    let left = state["result"]["rooms"].as_array().unwrap();
    assert_eq!((left.len(), &left[0]["title"]), (1, &json!("Blue")));
    assert!(left[0]["closesAt"].as_i64().is_some());

    // A room from outside is closed, not removed.
    world.put_room("foreign", 0, |_| {});
    let foreign = json!({"id": 6, "do": "removeRoom", "room": "foreign"});
    let answer = probe.ask(foreign).await;
    assert_eq!(answer["error"]["code"], "RoomForeign");
}

#[tokio::test]
async fn what_hosts_decide_is_told_by_events_one_for_each_decision() {
    let world = World::new().await;
    let (_session, mut probe) = world.join(host(), 0).await;
    let make = json!({"id": 1, "do": "createRooms", "rooms": [{"participants": ["bob", "cid"]}, {}]});
    assert_eq!(probe.ask(make).await["ok"], true);
    let event = |reason: &str| {
        let events = world.api.events.lock().unwrap();
        let mut found = events.values().filter(|event| event["reason"] == reason);
        let event = found.next().cloned();
        assert!(found.next().is_none(), "{events:?}");
        event
    };
    until("the rooms are told of", || event("BreakoutRoomsOpened").is_some()).await;
    let opened = event("BreakoutRoomsOpened").unwrap();
    assert_eq!(opened["note"], "hanna made and opened 2 breakout rooms");
    assert_eq!(
        (&opened["regarding"]["kind"], &opened["regarding"]["name"]),
        (&json!("Meeting"), &json!("standup"))
    );
    // Who clicks fast makes a series.
    for id in 2..6 {
        let recall = json!({"id": id, "do": "closeRooms", "countdown": 30 + id});
        assert_eq!(probe.ask(recall).await["ok"], true);
        let told = || event("BreakoutRoomsRecalled").is_some();
        until("the recall is told of", told).await;
    }
    let counted = || event("BreakoutRoomsRecalled").unwrap()["series"]["count"] == 4;
    until("all of them are counted", counted).await;
    // What was refused is no decision.
    let unknown = json!({"id": 9, "do": "removeRoom", "room": "none"});
    assert_eq!(probe.ask(unknown).await["ok"], false);
    assert_eq!(world.api.events.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn endless_conflicts_end_with_an_error() {
    let world = World::new().await;
    *world.api.conflicts.lock().unwrap() = 100;
    let (_session, mut probe) = world.join(host(), 0).await;
    let answer = probe
        .ask(json!({"id": 1, "do": "settings", "mode": "automatic"}))
        .await;
    assert_eq!(answer["error"]["code"], "WriteConflict");
    assert_eq!(*world.api.conflicts.lock().unwrap(), 95);
}

#[tokio::test]
async fn while_the_api_server_is_away_decisions_are_refused_and_signals_are_not() {
    let world = World::new().await;
    let (_session, mut probe) = world.join(host(), 0).await;
    *world.api.away.lock().unwrap() = true;
    let answer = probe
        .ask(json!({"id": 1, "do": "settings", "mode": "automatic"}))
        .await;
    assert_eq!(answer["error"]["code"], "DecisionNotWritten");
    let told = probe.ask(json!({"id": 2, "do": "broadcast", "text": "hi"})).await;
    assert_eq!(told["ok"], true);
    *world.api.away.lock().unwrap() = false;
    let answer = probe
        .ask(json!({"id": 3, "do": "settings", "mode": "automatic"}))
        .await;
    assert_eq!(answer["ok"], true);
}

#[tokio::test]
async fn a_co_host_is_raised_at_once_and_falls_again() {
    let world = World::new().await;
    let (_session, mut hanna) = world.join(host(), 0).await;
    let (_session, mut bob) = world.join(start(MAIN, "bob", Role::Participant), 0).await;
    world.workers[0].person(MAIN, "bob", Role::Participant);
    for (id, on, role) in [(1, true, "cohost"), (2, false, "participant")] {
        let request = json!({"id": id, "do": "cohost", "identity": "bob", "on": on});
        assert_eq!(hanna.ask(request).await["ok"], true);
        match bob.frame().await {
            client_frame::Frame::Standing(standing) => {
                assert_eq!(standing.role, role);
                let grant: Value = serde_json::from_str(&standing.video_grant_json).unwrap();
                assert_eq!(grant.get("roomAdmin").is_some(), on);
            }
            frame => panic!("{frame:?}"),
        }
        assert_eq!(bob.notice("role").await["role"], role);
        // With the rights that go with it.
        let overview = bob.ask(json!({"id": id, "do": "overview", "watch": true})).await;
        assert_eq!(overview["ok"], on);
    }
}

#[tokio::test]
async fn a_host_listens_unseen() {
    let world = World::new().await;
    world.put_room("red", 1, |_| {});
    let (_session, mut probe) = world.join(host(), 0).await;
    let answer = probe.ask(json!({"id": 1, "do": "listen", "room": "red"})).await;
    assert_eq!(answer["result"]["url"], "wss://meet.test");
    let token = answer["result"]["token"].as_str().unwrap();
    let now = u64::try_from(super::now_ms() / 1000).unwrap();
    let claims = plenum_token::verify(token, "k", crate::gateway::testing::SECRET, now).unwrap();
    assert_eq!(
        (claims.sub.as_str(), claims.video.room.as_str()),
        ("hanna~listen", RED)
    );
    assert!(claims.video.hidden && claims.video.can_publish == Some(false));
    assert!(claims.video.can_subscribe == Some(true) && !claims.video.room_admin);
    world.put_room("red", 1, |room| room.spec.open = false);
    let state = || world.rooms.meetings.live("demo", "standup").unwrap().view();
    until("the closing is known", || !state().plan.rooms[0].open).await;
    let refused = probe.ask(json!({"id": 2, "do": "listen", "room": "red"})).await;
    assert_eq!(refused["error"]["code"], "RoomClosed");
}

#[tokio::test]
async fn a_connection_that_was_taken_over_ends() {
    let world = World::new().await;
    let (mut session, _probe) = world.join(alice(), 0).await;
    let hub = &world.workers[0].hub;
    until("the hub knows", || !hub.lock().unwrap().here.is_empty()).await;
    let here = hub.lock().unwrap().here[0].clone();
    hub.lock()
        .unwrap()
        .send(meeting_down::Frame::Superseded(Superseded {
            identity: here.identity,
            nonce: here.nonce,
        }));
    match order(&mut session).await {
        Order::Close(closed) => assert_eq!(closed.code, Code::DuplicateIdentity.as_str()),
        order => panic!("{order:?}"),
    }
}

#[tokio::test]
async fn a_request_under_way_outlives_its_client() {
    let world = World::new().await;
    let (session, probe) = world.join(host(), 0).await;
    let request = json!({"id": 1, "do": "createRooms", "rooms": [{}, {}, {}]});
    probe.request(&request).await;
    let began = || !world.api.writes.lock().unwrap().is_empty();
    until("it was begun", began).await;
    drop(session);
    until("it was finished", || world.routes().breakouts.all().len() == 3).await;
}
