//! Whom a room is told of, and when.

use std::time::Duration;

use livekit_protocol as lk;

use super::{Stage, audio, entry};
use crate::room::{Action, Entered, Notice};
use crate::session::api::{Event, Leg, Reliability, SessionId};

const SECOND: Duration = Duration::from_secs(1);

/// A room of so many, all of whom are told of all.
fn crowd(stage: &mut Stage, people: usize) -> Vec<SessionId> {
    let all = (0..people).map(|i| stage.join(&format!("p{i}"))).collect();
    stage.pass(SECOND * 2);
    stage.clear();
    all
}

fn updates(stage: &Stage, session: SessionId) -> Vec<Vec<lk::ParticipantInfo>> {
    let told = stage.told(session).into_iter();
    told.filter_map(|n| match n {
        Notice::Participants(infos) => Some(infos),
        _ => None,
    })
    .collect()
}

fn active(stage: &Stage, session: SessionId, identity: &str) -> bool {
    stage
        .last_info(session, identity)
        .is_some_and(|i| i.state == lk::participant_info::State::Active as i32)
}

#[test]
fn a_small_room_is_told_of_each_newcomer_at_once() {
    let mut stage = Stage::new();
    let all = crowd(&mut stage, 10);
    stage.join("late");
    // Of its coming, and of its media.
    assert_eq!(updates(&stage, all[0]).len(), 2);
    assert!(active(&stage, all[0], "late"));
}

#[test]
fn a_large_room_is_told_of_those_who_come_together_in_one_message() {
    let mut stage = Stage::new();
    let all = crowd(&mut stage, 100);
    let late: Vec<SessionId> = (0..50).map(|i| stage.join(&format!("late{i}"))).collect();
    // The first at once, for nobody was told of anything lately; the others when it is time.
    assert_eq!(updates(&stage, all[0]).len(), 1);
    stage.pass(SECOND);
    assert_eq!(updates(&stage, all[0]).len(), 2);
    for session in [all[0], all[99], late[0], late[49]] {
        for i in 0..50 {
            let identity = format!("late{i}");
            assert!(active(&stage, session, &identity), "{session:?} of {identity}");
        }
    }
    stage.clear();
    stage.pass(SECOND * 2);
    assert!(updates(&stage, all[0]).is_empty(), "told once");
}

#[test]
fn those_who_still_connect_are_told_of_each_other_and_not_of_themselves() {
    let mut stage = Stage::new();
    let all = crowd(&mut stage, 50);
    let mut enter = |who: &str| match stage.try_enter(entry(who)) {
        Ok(Entered::Anew(session)) => session,
        other => panic!("{other:?}"),
    };
    let (first, second, third) = (enter("first"), enter("second"), enter("third"));
    stage.pass(SECOND);
    assert!(stage.last_info(first, "second").is_some() && stage.last_info(first, "third").is_some());
    assert!(stage.last_info(second, "third").is_some());
    for (session, identity) in [(first, "first"), (second, "second"), (third, "third")] {
        assert!(stage.last_info(all[0], identity).is_some());
        assert!(
            stage.last_info(session, identity).is_none(),
            "less than it was welcomed as"
        );
    }
    // It hears at once that it is up, whatever the others hear when.
    stage.clear();
    for session in [first, second] {
        stage.media(Event::Connected {
            session,
            leg: Leg::Publisher,
            since_open: SECOND,
        });
    }
    assert!(active(&stage, first, "first") && active(&stage, second, "second"));
    assert!(stage.last_info(all[0], "second").is_none());
}

#[test]
fn whoever_shows_or_says_something_is_announced_at_once() {
    let mut stage = Stage::new();
    let all = crowd(&mut stage, 50);
    stage.join("first");
    let (speaker, writer) = (stage.join("speaker"), stage.join("writer"));
    assert!(stage.last_info(all[0], "speaker").is_none());
    stage.publish(speaker, audio("mic"));
    let info = stage.last_info(all[0], "speaker").unwrap();
    assert_eq!(info.tracks.len(), 1);
    assert!(stage.last_info(all[0], "writer").is_none());
    stage.media(Event::Data {
        session: writer,
        reliability: Reliability::Reliable,
        payload: Vec::new().into(),
    });
    assert!(active(&stage, all[0], "writer"));
    // And neither again.
    stage.clear();
    stage.pass(SECOND * 2);
    assert!(active(&stage, all[0], "first"));
    for identity in ["speaker", "writer"] {
        assert!(stage.last_info(all[0], identity).is_none());
    }
}

#[test]
fn whoever_leaves_before_the_room_was_told_is_not_announced_afterwards() {
    let mut stage = Stage::new();
    let all = crowd(&mut stage, 50);
    stage.join("first");
    let brief = stage.join("brief");
    stage.act(brief, Action::Leave);
    stage.pass(SECOND * 2);
    let info = stage.last_info(all[0], "brief").unwrap();
    assert_eq!(info.state, lk::participant_info::State::Disconnected as i32);
}
