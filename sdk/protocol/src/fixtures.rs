//! One example and more of everything that is said: `fixtures.json`.
//!
//! Owns the examples. `PLENUM_GENERATE=1` writes the file; without it the tests hold file, types and
//! `docs/signals.md` together. The SDK's tests read the same file.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures.json");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/signals.md");
/// 2026-09-21T14:13:20Z.
const T: i64 = 1_790_000_000_000;

/// The file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Fixtures {
    topic: String,
    requests: Vec<Request>,
    answers: Vec<Answer>,
    entries: Vec<Entry>,
    notices: Vec<Notice>,
    states: Vec<State>,
    audiences: Vec<Audience>,
    standings: Vec<Standing>,
}

fn red() -> RoomView {
    RoomView {
        id: "red".into(),
        title: "Red room".into(),
        max_participants: 12,
        open: true,
        closes_at: Some(T + 600_000),
        participants: vec!["alice".into(), "bob".into()],
    }
}

fn blue() -> RoomView {
    RoomView {
        id: "blue".into(),
        title: "Blue room".into(),
        ..RoomView::default()
    }
}

fn bob(room: Option<&str>) -> Asking {
    Asking {
        identity: "bob".into(),
        name: "Bob".into(),
        room: room.map(Into::into),
        since: T,
    }
}

fn requests() -> Vec<Request> {
    let commands = vec![
        Command::Hello { since: None },
        Command::Hello { since: Some(41) },
        Command::CreateRooms {
            rooms: vec![
                NewRoom {
                    title: Some("Red room".into()),
                    max_participants: Some(12),
                    participants: vec!["alice".into(), "bob".into()],
                },
                NewRoom::default(),
            ],
            mode: Some(Mode::Automatic),
            how: How::Random,
            duration: Some(600),
            open: true,
        },
        Command::CreateRooms {
            rooms: vec![NewRoom::default()],
            mode: None,
            how: How::Even,
            duration: None,
            open: false,
        },
        Command::RemoveRoom { room: "red".into() },
        Command::RenameRoom {
            room: "red".into(),
            title: "Crimson room".into(),
        },
        Command::OpenRooms {
            rooms: vec!["red".into()],
            duration: Some(600),
        },
        Command::OpenRooms {
            rooms: Vec::new(),
            duration: None,
        },
        Command::CloseRooms {
            rooms: vec!["red".into()],
            countdown: Some(30),
        },
        Command::CloseRooms {
            rooms: Vec::new(),
            countdown: None,
        },
        Command::Extend { seconds: 300 },
        Command::Assign {
            moves: vec![
                Placement {
                    identity: "bob".into(),
                    room: Some("red".into()),
                },
                Placement {
                    identity: "carol".into(),
                    room: None,
                },
            ],
        },
        Command::Shuffle { how: How::Random },
        Command::Settings {
            mode: Some(Mode::SelfSelect),
            allow_return_to_main: Some(true),
            allow_cancel: None,
        },
        Command::Broadcast {
            text: "Five more minutes".into(),
            rooms: vec![String::new(), "red".into()],
        },
        Command::Cohost {
            identity: "bob".into(),
            on: true,
        },
        Command::Mute {
            identity: "bob".into(),
            track: Some("TR_AMdGhJ8kXn".into()),
            on: true,
        },
        Command::Mute {
            identity: "bob".into(),
            track: None,
            on: false,
        },
        Command::Unpublish {
            identity: "bob".into(),
            track: Some("TR_VCq3vTy7mZ".into()),
        },
        Command::Unpublish {
            identity: "bob".into(),
            track: None,
        },
        Command::Overview { watch: true },
        Command::Listen { room: "red".into() },
        Command::Speak {},
        Command::LowerHand {
            identity: "bob".into(),
        },
        Command::ChooseRoom { room: "blue".into() },
        Command::ReturnToMain {},
        Command::CancelMove {},
        Command::RaiseHand { up: true },
        Command::AskForHelp { on: true },
        Command::MessageHosts {
            text: "The link does not work".into(),
        },
    ];
    (1..)
        .zip(commands)
        .map(|(id, command)| Request { id, command })
        .collect()
}

fn answers() -> Vec<Answer> {
    let access = Access {
        token: "eyJhbGciOiJIUzI1NiJ9.e30.c2ln".into(),
        url: "wss://meet.example.com".into(),
    };
    vec![
        Answer::done(1, result(states().swap_remove(0))),
        Answer::done(
            3,
            result(Created {
                rooms: vec!["red".into(), "room-2".into()],
            }),
        ),
        Answer::done(11, Value::Null),
        Answer::done(18, result(access.clone())),
        Answer::done(
            19,
            result(Sessions {
                sessions: vec![access],
            }),
        ),
        Answer::failed(
            21,
            Failure {
                code: "RoomClosed".into(),
                cause: "the breakout room is closed, or about to close".into(),
                remedy: "ask a host to open it, or set spec.open of the BreakoutRoom".into(),
                detail: "blue".into(),
            },
        ),
        Answer::failed(
            22,
            Failure {
                code: "NotPermitted".into(),
                cause: "the token's grant does not allow this action".into(),
                remedy: "mint a token whose role or video grant includes the action".into(),
                detail: String::new(),
            },
        ),
    ]
}

/// A value as JSON.
fn result<T: Serialize>(value: T) -> Value {
    serde_json::to_value(value).unwrap()
}

fn entries() -> Vec<Entry> {
    let rooms = |message, mode, rooms| Signal::BreakoutRoom {
        message,
        mode,
        allow_return_to_main: true,
        allow_cancel: false,
        rooms,
    };
    let signals = vec![
        rooms(BreakoutMessage::RoomCreated, Mode::Automatic, vec![red(), blue()]),
        rooms(BreakoutMessage::RoomCreated, Mode::SelfSelect, vec![red()]),
        rooms(BreakoutMessage::RoomChanged, Mode::Manual, vec![red(), blue()]),
        rooms(BreakoutMessage::AllRoomRemoved, Mode::Manual, vec![blue()]),
        Signal::CountDownTimer {
            period: 600,
            closes_at: T + 600_000,
            now: T,
            rooms: vec!["red".into()],
        },
        Signal::ParticipantSwitched {
            identity: "bob".into(),
            from: None,
            to: Some("red".into()),
            failed: None,
        },
        Signal::ParticipantSwitched {
            identity: "bob".into(),
            from: Some("red".into()),
            to: None,
            failed: Some("RoomClosed".into()),
        },
        Signal::RaiseHand {
            who: bob(None),
            up: true,
        },
        Signal::RaiseHand {
            who: bob(Some("red")),
            up: false,
        },
        Signal::AskForHelp {
            who: bob(Some("red")),
            on: true,
        },
        Signal::Broadcast {
            from: "alice".into(),
            name: "Alice".into(),
            text: "Five more minutes".into(),
        },
        Signal::MessageToHosts {
            who: bob(Some("red")),
            text: "The link does not work".into(),
        },
    ];
    (1..)
        .zip(signals)
        .map(|(seq, signal)| Entry { seq, at: T, signal })
        .collect()
}

fn notices() -> Vec<Notice> {
    vec![
        Notice::Moving {
            message: BreakoutMessage::ParticipantMoved,
            to: Some("red".into()),
            title: "Red room".into(),
            at: T + 5_000,
            now: T,
            seconds: 5,
            cancellable: true,
        },
        Notice::Moving {
            message: BreakoutMessage::ParticipantMoved,
            to: None,
            title: "Standup".into(),
            at: T + 5_000,
            now: T,
            seconds: 5,
            cancellable: false,
        },
        Notice::NotMoving {},
        Notice::Moved {
            to: Some("red".into()),
            title: "Red room".into(),
        },
        Notice::MoveFailed {
            to: Some("red".into()),
            landed: None,
            code: "MeetingFull".into(),
        },
        Notice::Role {
            role: "cohost".into(),
        },
        Notice::Overview(Overview {
            rooms: vec![
                Occupied {
                    id: String::new(),
                    title: "Standup".into(),
                    open: true,
                    participants: vec![Occupant {
                        identity: "alice".into(),
                        name: "Alice".into(),
                        role: "host".into(),
                        since: T,
                        speaking: true,
                        ..Occupant::default()
                    }],
                },
                Occupied {
                    id: "red".into(),
                    title: "Red room".into(),
                    open: true,
                    participants: vec![Occupant {
                        identity: "bob".into(),
                        name: "Bob".into(),
                        role: "participant".into(),
                        since: T,
                        speaking: false,
                        hand: true,
                        help: true,
                    }],
                },
            ],
        }),
    ]
}

fn states() -> Vec<State> {
    vec![
        State {
            me: Me {
                identity: "bob".into(),
                role: "participant".into(),
                room: Some("red".into()),
                assigned: Some("red".into()),
            },
            mode: Mode::Automatic,
            rooms: vec![red(), blue()],
            allow_return_to_main: true,
            allow_cancel: false,
            hands: vec![bob(Some("red"))],
            help: vec![bob(Some("red"))],
            seq: 41,
            now: T,
        },
        State {
            me: Me {
                identity: "alice".into(),
                role: "host".into(),
                ..Me::default()
            },
            now: T,
            ..State::default()
        },
    ]
}

fn fixtures() -> Fixtures {
    Fixtures {
        topic: TOPIC.into(),
        requests: requests(),
        answers: answers(),
        entries: entries(),
        notices: notices(),
        states: states(),
        audiences: vec![
            Audience::Everyone,
            Audience::Hosts,
            Audience::Rooms(vec![String::new(), "red".into()]),
        ],
        standings: vec![
            Standing::default(),
            Standing {
                hands: vec![bob(None)],
                help: vec![bob(Some("red"))],
            },
        ],
    }
}

#[test]
fn the_file_is_current_and_reads_back() {
    let text = serde_json::to_string_pretty(&fixtures()).unwrap() + "\n";
    if std::env::var_os("PLENUM_GENERATE").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let file = std::fs::read_to_string(FILE).unwrap();
    assert_eq!(file, text, "run `make generate`");
    assert_eq!(serde_json::from_str::<Fixtures>(&file).unwrap(), fixtures());
}

fn kinds(values: &[Value], key: &str) -> BTreeSet<String> {
    values
        .iter()
        .map(|v| v[key].as_str().unwrap().to_owned())
        .collect()
}

/// The word that serialises is the word that [`Command::kind`] and its like say, and all are there.
#[test]
fn every_kind_has_an_example() {
    let file: Value = serde_json::to_value(fixtures()).unwrap();
    let list = |name: &str| file[name].as_array().unwrap().clone();
    for (values, key, all) in [
        (list("requests"), "do", Command::KINDS.as_slice()),
        (list("entries"), "signal", &Signal::KINDS),
        (list("notices"), "notice", &Notice::KINDS),
    ] {
        let all: BTreeSet<String> = all.iter().map(|&k| k.to_owned()).collect();
        assert_eq!(kinds(&values, key), all);
    }
    for (value, request) in list("requests").iter().zip(requests()) {
        assert_eq!(value["do"], request.command.kind());
    }
    for (value, entry) in list("entries").iter().zip(entries()) {
        assert_eq!(value["signal"], entry.signal.kind());
    }
    for (value, notice) in list("notices").iter().zip(notices()) {
        assert_eq!(value["notice"], notice.kind());
    }
    let oks: BTreeSet<bool> = answers().iter().map(|a| a.ok).collect();
    assert_eq!(oks.len(), 2);
}

/// Field by field: what an object lacks and what it has too much must not matter.
#[test]
fn a_receiver_ignores_what_it_does_not_know() {
    fn with_more<T: DeserializeOwned + PartialEq + std::fmt::Debug + Serialize>(value: &T) {
        let mut json = serde_json::to_value(value).unwrap();
        json["later"] = json!({"deep": [1, 2]});
        assert_eq!(&serde_json::from_value::<T>(json).unwrap(), value);
    }
    requests().iter().for_each(with_more);
    answers().iter().for_each(with_more);
    entries().iter().for_each(with_more);
    notices().iter().for_each(with_more);
    states().iter().for_each(with_more);
}

#[test]
fn what_may_be_left_out_has_the_documented_meaning() {
    let parse = |text: &str| serde_json::from_str::<Request>(text).unwrap().command;
    assert_eq!(
        parse(r#"{"id":1,"do":"createRooms","rooms":[{}]}"#),
        Command::CreateRooms {
            rooms: vec![NewRoom::default()],
            mode: None,
            how: How::Even,
            duration: None,
            open: true,
        }
    );
    assert_eq!(
        parse(r#"{"id":1,"do":"openRooms"}"#),
        Command::OpenRooms {
            rooms: Vec::new(),
            duration: None
        }
    );
    assert_eq!(
        parse(r#"{"id":1,"do":"assign","moves":[{"identity":"bob"}]}"#),
        Command::Assign {
            moves: vec![Placement {
                identity: "bob".into(),
                room: None
            }]
        }
    );
    for refused in [
        r#"{"do":"hello"}"#,
        r#"{"id":1}"#,
        r#"{"id":1,"do":"fly"}"#,
        r#"{"id":-1,"do":"hello"}"#,
        r#"{"id":1,"do":"removeRoom"}"#,
    ] {
        assert!(serde_json::from_str::<Request>(refused).is_err(), "{refused}");
    }
}

/// Names of all fields, at any depth.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                into.insert(name.clone());
                fields(value, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|v| fields(v, into)),
        _ => {}
    }
}

#[test]
fn the_document_names_every_kind_and_every_field() {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let all: Vec<&str> = [Command::KINDS.as_slice(), &Signal::KINDS, &Notice::KINDS].concat();
    for kind in &all {
        // `broadcast` is a request and a signal: one section each.
        let sections = text.matches(&format!("\n### `{kind}`\n")).count();
        assert_eq!(sections, all.iter().filter(|k| *k == kind).count(), "{kind}");
    }
    let mut names = BTreeSet::new();
    let file = serde_json::to_value(fixtures()).unwrap();
    for list in ["requests", "answers", "entries", "notices", "states"] {
        fields(&file[list], &mut names);
    }
    for name in names {
        assert!(
            text.contains(&format!("`{name}`")),
            "the field {name} is not described"
        );
    }
}

/// Each example of the document is what it seems to be.
#[test]
fn the_examples_of_the_document_parse() {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let mut seen = BTreeSet::new();
    for block in text.split("```json\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        for line in block.lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            let (kind, again) = if value.get("do").is_some() {
                ("request", again::<Request>(&value))
            } else if value.get("re").is_some() {
                ("answer", again::<Answer>(&value))
            } else if value.get("notice").is_some() {
                ("notice", again::<Notice>(&value))
            } else {
                ("entry", again::<Entry>(&value))
            };
            assert!(within(&value, &again), "{line}: read as {again}");
            seen.insert(kind);
        }
    }
    assert_eq!(seen.len(), 4);
}

/// Read and written again: fields that the type lacks would be gone.
fn again<T: DeserializeOwned + Serialize>(value: &Value) -> Value {
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{value}: {e}"));
    serde_json::to_value(read).unwrap()
}

/// All of `part` is in `whole`, which may say more: what was left out has a default.
fn within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|w| within(value, w))),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(p, w)| within(p, w))
        }
        _ => part == whole,
    }
}

/// The catalogue of errors that the document names exists, as far as clients can meet it.
#[test]
fn the_errors_of_the_document_are_in_the_catalogue() {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let catalogue =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md")).unwrap();
    let mut named = 0;
    for line in text.lines().filter(|l| l.starts_with("Errors:")) {
        for code in line.split('`').skip(1).step_by(2) {
            assert!(catalogue.contains(&format!("| `{code}` |")), "{code}");
            named += 1;
        }
    }
    assert!(named > 10, "{named}");
}
