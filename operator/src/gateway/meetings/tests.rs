//! What the clients of a meeting share: the hub's signals, the overview, places in automatic mode.

use plenum_crds::BreakoutAssignment;
use plenum_join::Rooms as _;
use plenum_token::Role;
use plenum_worker_api::v1::*;
use serde_json::{Value, json};

use crate::gateway::testing::{World, enter, place, start, until};

const MAIN: &str = "demo/standup";
const RED: &str = "demo/standup/red";

fn participant(identity: &str) -> Start {
    start(MAIN, identity, Role::Participant)
}

fn texts(told: &[Value]) -> Vec<&str> {
    told.iter().filter_map(|value| value["text"].as_str()).collect()
}

#[tokio::test]
async fn signals_reach_those_they_are_for_at_every_gateway_once() {
    let world = World::new().await;
    world.put_room("red", 1, |_| {});
    let other = world.gateway();
    let (_s1, mut hanna) = world.join(start(MAIN, "hanna", Role::Host), 0).await;
    let (_s2, mut bob) = world.join(start(RED, "bob", Role::Participant), 1).await;
    let (_s3, mut cid) = enter(&other, &world.workers[0], participant("cid")).await;
    for probe in [&mut hanna, &mut bob, &mut cid] {
        let hello = probe.ask(json!({"id": 1, "do": "hello"})).await;
        assert_eq!(hello["ok"], true);
    }
    let say =
        |id, text: &str, rooms: Value| json!({"id": id, "do": "broadcast", "text": text, "rooms": rooms});
    hanna.ask(say(2, "to red", json!(["red"]))).await;
    hanna.ask(say(3, "to main", json!([""]))).await;
    let unknown = hanna.ask(say(4, "nobody", json!(["blue"]))).await;
    assert_eq!(unknown["error"]["code"], "RoomNotFound");
    cid.ask(json!({"id": 2, "do": "messageHosts", "text": "psst"}))
        .await;
    hanna.ask(say(5, "to all", json!([]))).await;
    let last = |value: &Value| value["text"] == "to all";
    assert_eq!(texts(&bob.told_until(last).await), ["to red", "to all"]);
    assert_eq!(texts(&cid.told_until(last).await), ["to main", "to all"]);
    let told = hanna.told_until(last).await;
    assert_eq!(texts(&told), ["to red", "to main", "psst", "to all"]);
    let message = told
        .iter()
        .find(|value| value["signal"] == "message-to-hosts")
        .unwrap();
    assert_eq!(
        (&message["identity"], &message["name"]),
        (&json!("cid"), &json!("CID"))
    );
    let numbers: Vec<u64> = told.iter().filter_map(|value| value["seq"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[tokio::test]
async fn hello_tells_the_state_and_what_was_missed() {
    let world = World::new().await;
    world.put_room("red", 0, |room| {
        room.spec.participants = vec!["dan".into(), "eve".into()];
    });
    world.workers[0].hub.lock().unwrap().standing =
        r#"{"hands":[{"identity":"eve","room":"red"}],"help":[{"identity":"eve","room":"red"}]}"#.into();
    let (_s1, mut hanna) = world.join(start(MAIN, "hanna", Role::Host), 0).await;
    let (_s2, mut bob) = world.join(participant("bob"), 0).await;
    let hosts = hanna.ask(json!({"id": 1, "do": "hello"})).await;
    assert_eq!(hosts["result"]["rooms"][0]["participants"], json!(["dan", "eve"]));
    assert_eq!(hosts["result"]["help"][0]["identity"], "eve");
    assert_eq!(hosts["result"]["me"]["role"], "host");
    for text in ["one", "two", "three"] {
        hanna.ask(json!({"id": 2, "do": "broadcast", "text": text})).await;
    }
    hanna.told(|value| value["text"] == "three").await;
    // Nothing before hello; then what was missed, then what comes.
    bob.say(worker_frame::Frame::Said(
        json!({"id": 1, "do": "hello", "since": 1}).to_string(),
    ))
    .await;
    hanna
        .ask(json!({"id": 3, "do": "broadcast", "text": "four"}))
        .await;
    let told = bob.told_until(|value| value["text"] == "four").await;
    assert_eq!(texts(&told), ["two", "three", "four"]);
    let state = &told.iter().find(|value| value["re"] == 1).unwrap()["result"];
    assert!(state["seq"].as_u64().unwrap() >= 3 && state["now"].as_i64().unwrap() > 0);
    assert!(state["rooms"][0].get("participants").is_none());
    assert_eq!((&state["hands"], &state["help"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn the_link_follows_the_main_room_and_seeds_its_new_hub() {
    let world = World::new().await;
    let (_s1, mut hanna) = world.join(start(MAIN, "hanna", Role::Host), 0).await;
    hanna.ask(json!({"id": 1, "do": "hello"})).await;
    hanna
        .ask(json!({"id": 2, "do": "broadcast", "text": "before"}))
        .await;
    hanna.told(|value| value["text"] == "before").await;
    let standing = r#"{"hands":[{"identity":"bob"}],"help":[]}"#;
    world.workers[0]
        .hub
        .lock()
        .unwrap()
        .send(meeting_down::Frame::StandingJson(standing.into()));
    let meeting = world.rooms.meetings.live("demo", "standup").unwrap();
    until("the standing is known", || {
        meeting.journal().standing_json() == standing
    })
    .await;

    // The main room moves. What is said meanwhile waits.
    world.put_meeting("nobody", |_| {});
    world.workers[0].hub.lock().unwrap().cut();
    let answer = hanna
        .ask(json!({"id": 3, "do": "broadcast", "text": "meanwhile"}))
        .await;
    assert_eq!(answer["ok"], true);
    world.put_meeting("uid-1", |meeting| {
        meeting.status.as_mut().unwrap().assignment = Some(place(1, 8));
    });
    let hub = &world.workers[1].hub;
    until("it is attached to the new hub", || {
        !hub.lock().unwrap().attached.is_empty()
    })
    .await;
    let attach = hub.lock().unwrap().attached[0].clone();
    assert_eq!((attach.meeting.as_str(), attach.epoch), (MAIN, 8));
    assert_eq!((attach.tail.len(), attach.standing_json.as_str()), (1, standing));
    until("it is told who is here", || {
        hub.lock()
            .unwrap()
            .here
            .iter()
            .any(|here| here.identity == "hanna")
    })
    .await;
    until("what waited is posted", || {
        hub.lock()
            .unwrap()
            .signals()
            .iter()
            .any(|signal| signal["text"] == "meanwhile")
    })
    .await;
}

#[tokio::test]
async fn the_hub_is_told_who_leaves() {
    let world = World::new().await;
    let (session, _probe) = world.join(participant("bob"), 0).await;
    let hub = &world.workers[0].hub;
    until("it knows who came", || hub.lock().unwrap().here.len() == 1).await;
    let here = hub.lock().unwrap().here[0].clone();
    assert_eq!(
        (here.identity.as_str(), here.name.as_str(), here.role.as_str()),
        ("bob", "BOB", "participant")
    );
    drop(session);
    until("it knows who left", || hub.lock().unwrap().gone.len() == 1).await;
    assert_eq!(hub.lock().unwrap().gone[0].nonce, here.nonce);
}

#[tokio::test]
async fn hands_and_calls_for_help_say_who_and_where() {
    let world = World::new().await;
    world.put_room("red", 0, |_| {});
    let (_session, mut bob) = world.join(start(RED, "bob", Role::Participant), 0).await;
    bob.ask(json!({"id": 1, "do": "raiseHand", "up": true})).await;
    bob.ask(json!({"id": 2, "do": "askForHelp", "on": true})).await;
    let hub = &world.workers[0].hub;
    until("both are posted", || hub.lock().unwrap().entries.len() == 2).await;
    let entries = hub.lock().unwrap().entries.clone();
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (entry, signal, audience) in [
        (&entries[0], "raise-hand", json!({"rooms": ["red"]})),
        (&entries[1], "ask-for-help", json!("hosts")),
    ] {
        let said = parsed(&entry.signal_json);
        assert_eq!(
            (&said["signal"], &said["identity"]),
            (&json!(signal), &json!("bob"))
        );
        assert_eq!((&said["name"], &said["room"]), (&json!("BOB"), &json!("red")));
        assert!(said["since"].as_i64().unwrap() > 0);
        assert_eq!(parsed(&entry.audience_json), audience);
    }
}

#[tokio::test]
async fn in_automatic_mode_people_without_a_place_are_spread_at_once() {
    let world = World::new().await;
    world.put_meeting("uid-0", |meeting| {
        meeting.spec.breakouts.assignment = BreakoutAssignment::Automatic;
    });
    let (_h, _hanna) = world.join(start(MAIN, "hanna", Role::Host), 0).await;
    let mut sessions = Vec::new();
    for identity in ["p1", "p2", "p3", "p4"] {
        world.workers[0].person(MAIN, identity, Role::Participant);
        sessions.push(world.join(participant(identity), 0).await);
    }
    world.workers[0].person(MAIN, "hanna", Role::Host);
    // Somebody at another gateway is placed together with them.
    world.workers[0].person(MAIN, "stranger", Role::Participant);
    world.put_room("red", 0, |_| {});
    world.put_room("blue", 0, |_| {});
    for (_session, probe) in &mut sessions {
        let notice = probe.notice("moving").await;
        assert!(notice["to"] == "red" || notice["to"] == "blue");
    }
    let meeting = world.routes().meetings.get("demo", "standup").unwrap();
    let breakouts = meeting
        .status
        .clone()
        .unwrap()
        .session
        .unwrap()
        .breakouts
        .unwrap();
    let in_room = |room: &str| {
        let moves = breakouts.moves.iter();
        moves.filter(|one| one.room.as_deref() == Some(room)).count()
    };
    assert_eq!(breakouts.moves.len(), 5);
    assert_eq!(in_room("red").abs_diff(in_room("blue")), 1);
}

#[tokio::test]
async fn hosts_who_watch_see_all_rooms_and_nobody_is_asked_otherwise() {
    let world = World::new().await;
    world.put_room("red", 1, |room| room.spec.title = Some("Red".into()));
    world.workers[0].person(MAIN, "hanna", Role::Host);
    world.workers[1].person(RED, "bob", Role::Participant);
    let (_session, mut hanna) = world.join(start(MAIN, "hanna", Role::Host), 0).await;
    hanna.ask(json!({"id": 1, "do": "hello"})).await;
    assert_eq!(*world.workers[1].lists.lock().unwrap(), 0);
    hanna.ask(json!({"id": 2, "do": "overview", "watch": true})).await;
    let shown = hanna.notice("overview").await;
    assert_eq!(
        (&shown["rooms"][0]["id"], &shown["rooms"][1]["title"]),
        (&json!(""), &json!("Red"))
    );
    assert_eq!(shown["rooms"][1]["participants"][0]["identity"], "bob");
    world.workers[1].person(RED, "cid", Role::Participant);
    let shown = hanna.notice("overview").await;
    assert_eq!(shown["rooms"][1]["participants"].as_array().unwrap().len(), 2);
    hanna
        .ask(json!({"id": 3, "do": "overview", "watch": false}))
        .await;
    let meeting = world.rooms.meetings.live("demo", "standup").unwrap();
    until("the poll has stopped", || meeting.overview().borrow().is_none()).await;
}

#[tokio::test]
async fn a_burst_of_changes_is_one_view_and_others_keep_theirs() {
    let world = World::new().await;
    world.rooms.check(&participant("bob")).await.unwrap();
    let meeting = world.rooms.meetings.live("demo", "standup").unwrap();
    let mut views = meeting.views();
    views.mark_unchanged();
    let before = meeting.view();
    // A room of another meeting is none of its business.
    let mut foreign = super::plans::tests::room("retro", "foreign");
    foreign.metadata.namespace = Some("demo".into());
    world.routes().breakouts.put(foreign);
    super::plans::refresh(&world.rooms.meetings);
    assert!(std::sync::Arc::ptr_eq(&before, &meeting.view()));
    for index in 0..50 {
        world.put_room(&format!("r{index}"), 0, |_| {});
    }
    super::plans::refresh(&world.rooms.meetings);
    assert_eq!(meeting.view().plan.rooms.len(), 50);
}

#[tokio::test]
async fn hosts_silence_and_take_down_tracks_where_their_owner_is() {
    let world = World::new().await;
    world.put_room("red", 1, |_| {});
    world.workers[0].person(MAIN, "cid", Role::Participant);
    world.workers[1].person(RED, "bob", Role::Participant);
    let (_s1, mut hanna) = world.join(start(MAIN, "hanna", Role::Host), 0).await;
    let (_s2, mut mallory) = world.join(participant("mallory"), 0).await;
    for probe in [&mut hanna, &mut mallory] {
        probe.ask(json!({"id": 1, "do": "hello"})).await;
    }
    let mute =
        |identity: &str| json!({"id": 2, "do": "mute", "identity": identity, "track": "TR_1", "on": true});
    assert_eq!(mallory.ask(mute("bob")).await["error"]["code"], "NotPermitted");
    assert_eq!(
        hanna.ask(mute("nobody")).await["error"]["code"],
        "ParticipantNotFound"
    );
    assert!(
        world
            .workers
            .iter()
            .all(|worker| worker.moderated.lock().unwrap().is_empty())
    );

    assert_eq!(hanna.ask(mute("bob")).await["ok"], true);
    let down = json!({"id": 3, "do": "unpublish", "identity": "cid"});
    assert_eq!(hanna.ask(down).await["ok"], true);
    let taken = |at: usize| std::mem::take(&mut *world.workers[at].moderated.lock().unwrap());
    assert_eq!(
        taken(1),
        [ModerateRequest {
            room: RED.into(),
            identity: "bob".into(),
            action: Some(moderate_request::Action::Mute(Mute {
                track_sid: "TR_1".into(),
                muted: true,
            })),
        }]
    );
    assert_eq!(
        taken(0),
        [ModerateRequest {
            room: MAIN.into(),
            identity: "cid".into(),
            action: Some(moderate_request::Action::Unpublish(Unpublish::default())),
        }]
    );
    // What the worker says, the host is told.
    world.workers[1].refuse(RED, plenum_errors::Code::TrackNotFound);
    assert_eq!(hanna.ask(mute("bob")).await["error"]["code"], "TrackNotFound");
}
