//! Kubernetes Events about what hosts decided, on the Meeting: for people who describe it.
//!
//! Owns their words. Invariants: one Event for a decision, however many rooms and people it concerns; what
//! the same host decides again and again within minutes is one series; best effort, and nothing waits for
//! it. Texts and titles of rooms are not in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use plenum_protocol::Command;

/// Hosts whose series are known.
const MAX_HOSTS: usize = 1_000;
/// Names in a note, which takes 1,024 bytes.
const NAMES: usize = 10;

/// One Event after the other, or two could begin the same series.
type Host = Arc<tokio::sync::Mutex<Recorder>>;

/// Writes Events.
#[derive(Clone)]
pub(crate) struct Events {
    client: Client,
    reporter: Reporter,
    /// A series has one note, and the note says who: so each host has a recorder.
    recorders: Arc<Mutex<HashMap<String, Host>>>,
}

impl Events {
    /// Events of this gateway instance.
    pub(crate) fn new(client: Client, instance: &str) -> Self {
        Self {
            client,
            reporter: Reporter {
                controller: "plenum-gateway".into(),
                instance: Some(instance.to_owned()),
            },
            recorders: Arc::default(),
        }
    }

    /// `host` has decided, and it is written down.
    pub(crate) fn decided(&self, command: &Command, host: &str, meeting: ObjectReference) {
        let Some((reason, action, note)) = words(command, host) else {
            return;
        };
        let event = Event {
            type_: EventType::Normal,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        let recorder = self.recorder(host);
        tokio::spawn(async move {
            if let Err(error) = recorder.lock().await.publish(&event, &meeting).await {
                tracing::debug!(%error, "event not written");
            }
        });
    }

    fn recorder(&self, host: &str) -> Host {
        let anew = || Host::new(Recorder::new(self.client.clone(), self.reporter.clone()).into());
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        if recorders.len() >= MAX_HOSTS {
            recorders.clear();
        }
        recorders.entry(host.to_owned()).or_insert_with(anew).clone()
    }
}

/// Reason, action and note; `None` for what is no decision about rooms or people.
fn words(command: &Command, host: &str) -> Option<(&'static str, &'static str, String)> {
    let timed = |seconds: &Option<u32>| seconds.map_or(String::new(), |s| format!(" for {s} s"));
    Some(match command {
        Command::CreateRooms {
            rooms,
            open: true,
            duration,
            ..
        } => (
            "BreakoutRoomsOpened",
            "OpenBreakoutRooms",
            format!(
                "{host} made and opened {}{}",
                rooms_of(rooms.len()),
                timed(duration)
            ),
        ),
        Command::CreateRooms { rooms, .. } => (
            "BreakoutRoomsPrepared",
            "PrepareBreakoutRooms",
            format!("{host} prepared {}", rooms_of(rooms.len())),
        ),
        Command::OpenRooms { rooms, duration } => (
            "BreakoutRoomsOpened",
            "OpenBreakoutRooms",
            format!("{host} opened {}{}", named(rooms), timed(duration)),
        ),
        Command::CloseRooms { rooms, countdown } => {
            let when = match countdown {
                Some(0) => "at once".to_owned(),
                Some(seconds) => format!("in {seconds} s"),
                None => "after the usual countdown".to_owned(),
            };
            // Everyone is called back.
            let (reason, action) = if rooms.is_empty() {
                ("BreakoutRoomsRecalled", "RecallBreakoutRooms")
            } else {
                ("BreakoutRoomsClosed", "CloseBreakoutRooms")
            };
            (reason, action, format!("{host} closes {} {when}", named(rooms)))
        }
        Command::RemoveRoom { room } => (
            "BreakoutRoomRemoved",
            "RemoveBreakoutRoom",
            format!("{host} removed the breakout room {room}"),
        ),
        Command::Extend { seconds } => (
            "BreakoutRoomsExtended",
            "ExtendBreakoutRooms",
            format!("{host} keeps the breakout rooms open for {seconds} s more"),
        ),
        Command::Assign { moves } => (
            "ParticipantsMoved",
            "MoveParticipants",
            match moves.len() {
                1 => format!("{host} assigned 1 participant"),
                n => format!("{host} assigned {n} participants"),
            },
        ),
        Command::Shuffle { .. } => (
            "ParticipantsMoved",
            "MoveParticipants",
            format!("{host} spread everyone over the breakout rooms"),
        ),
        _ => return None,
    })
}

fn rooms_of(count: usize) -> String {
    match count {
        1 => "1 breakout room".to_owned(),
        n => format!("{n} breakout rooms"),
    }
}

/// Rooms by their ids; none: all.
fn named(rooms: &[String]) -> String {
    if rooms.is_empty() {
        return "all breakout rooms".to_owned();
    }
    let mut names = rooms.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    if rooms.len() > NAMES {
        names += ", ...";
    }
    format!("{}: {names}", rooms_of(rooms.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_have_words_and_signals_have_none() {
        let of = |json: serde_json::Value| words(&serde_json::from_value(json).unwrap(), "hal");
        let (reason, action, note) = of(serde_json::json!({"do": "closeRooms", "countdown": 30})).unwrap();
        assert_eq!((reason, action), ("BreakoutRoomsRecalled", "RecallBreakoutRooms"));
        assert_eq!(note, "hal closes all breakout rooms in 30 s");
        let close = serde_json::json!({"do": "closeRooms", "rooms": ["red", "blue"], "countdown": 0});
        let (reason, _, note) = of(close).unwrap();
        assert_eq!(
            (reason, note.as_str()),
            (
                "BreakoutRoomsClosed",
                "hal closes 2 breakout rooms: red, blue at once"
            )
        );
        let many: Vec<String> = (0..200).map(|n| format!("{n:0>63}")).collect();
        let (_, _, note) = of(serde_json::json!({"do": "openRooms", "rooms": many})).unwrap();
        assert!(note.len() <= 1_024 && note.ends_with("..."), "{note}");
        for signal in ["hello", "cancelMove", "returnToMain"] {
            assert!(of(serde_json::json!({"do": signal})).is_none(), "{signal}");
        }
    }
}
