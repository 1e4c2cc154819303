use std::time::Duration;

use plenum_protocol::{Audience, BreakoutMessage, Mode, Signal};
use plenum_worker_api::v1::{BreakoutEntry, Breakouts};

use super::super::journal::AGE_MS;
use super::super::state::LISTEN;
use super::*;

fn message(signals: &[Signal]) -> Option<BreakoutMessage> {
    match signals {
        [Signal::BreakoutRoom { message, .. }] => Some(*message),
        _ => None,
    }
}

#[test]
fn each_change_is_told_by_its_message() {
    use BreakoutMessage::{AllRoomRemoved, RoomChanged, RoomCreated};
    let named = |title: &str| BreakoutEntry {
        title: title.into(),
        ..room("red", true)
    };
    let with = |who: &str| BreakoutEntry {
        participants: vec![who.into()],
        ..named("Red")
    };
    let smaller = BreakoutEntry {
        max_participants: 3,
        ..with("bob")
    };
    let mut bench = Bench::settled();
    for (rooms, expected) in [
        (vec![room("red", false)], Some(RoomCreated)),
        (vec![room("red", false)], None),
        (vec![room("red", true)], Some(RoomCreated)),
        (vec![room("red", true), room("blue", true)], Some(RoomCreated)),
        (vec![room("blue", true), room("red", true)], None),
        (vec![named("Red"), room("blue", true)], Some(RoomChanged)),
        (vec![with("bob"), room("blue", true)], Some(RoomChanged)),
        (vec![smaller.clone(), room("blue", true)], Some(RoomChanged)),
        (vec![smaller.clone(), room("blue", false)], Some(RoomChanged)),
        (vec![smaller.clone()], Some(RoomChanged)),
        (vec![room("red", false)], Some(AllRoomRemoved)),
        (vec![], Some(RoomChanged)),
        (vec![room("red", true)], Some(RoomCreated)),
        (vec![], Some(AllRoomRemoved)),
        (vec![], None),
    ] {
        bench.assign(rooms.clone());
        let sent = bench.take(A);
        assert_eq!(message(&sent.signals()), expected, "{rooms:?}");
        if let [
            Signal::BreakoutRoom {
                rooms: told, mode, ..
            },
        ] = &sent.signals()[..]
        {
            assert_eq!((told.len(), *mode), (rooms.len(), Mode::Automatic));
            assert_eq!(sent.audiences(), [Audience::Everyone]);
        } else {
            assert!(sent.entries.is_empty());
        }
    }
}

#[test]
fn a_change_of_rules_is_a_change_where_there_are_rooms() {
    let mut bench = Bench::settled();
    let mut assign = |mode: &str, allow_cancel: bool, rooms: Vec<BreakoutEntry>| {
        let breakouts = Breakouts {
            mode: mode.into(),
            rooms,
            allow_return_to_main: true,
            allow_cancel,
        };
        bench.run(|hub, now, out| hub.assign(breakouts, now, out));
        bench.take(A).signals()
    };
    assert!(assign("selfSelect", false, vec![]).is_empty());
    let told = assign("selfSelect", false, vec![room("red", true)]);
    assert!(matches!(
        told[..],
        [Signal::BreakoutRoom {
            mode: Mode::SelfSelect,
            ..
        }]
    ));
    let told = assign("not a mode", false, vec![room("red", true)]);
    assert!(matches!(
        told[..],
        [Signal::BreakoutRoom {
            mode: Mode::Manual,
            message: BreakoutMessage::RoomChanged,
            allow_return_to_main: true,
            allow_cancel: false,
            ..
        }]
    ));
    let told = assign("manual", true, vec![room("red", true)]);
    assert!(matches!(
        told[..],
        [Signal::BreakoutRoom {
            message: BreakoutMessage::RoomChanged,
            allow_return_to_main: true,
            allow_cancel: true,
            ..
        }]
    ));
    assert!(assign("manual", true, vec![room("red", true)]).is_empty());
}

fn timed(id: &str, closes_at_ms: i64) -> BreakoutEntry {
    BreakoutEntry {
        closes_at_ms,
        ..room(id, true)
    }
}

fn timers(sent: &Sent) -> Vec<(i64, u32, Vec<String>)> {
    let timers = sent.signals().into_iter().filter_map(|s| match s {
        Signal::CountDownTimer {
            closes_at,
            period,
            rooms,
            ..
        } => Some((closes_at, period, rooms)),
        _ => None,
    });
    timers.collect()
}

#[test]
fn one_timer_for_each_point_in_time_when_it_is_set_or_changes() {
    let mut bench = Bench::settled();
    let now = bench.now.unix_ms;
    let (soon, late) = (now + 60_001, now + 600_000);
    bench.assign(vec![
        timed("red", soon),
        timed("blue", late),
        timed("green", soon),
        room("black", true),
    ]);
    let sent = bench.take(A);
    assert!(matches!(sent.signals()[0], Signal::BreakoutRoom { .. }));
    assert_eq!(
        timers(&sent),
        [
            (soon, 61, vec!["red".to_owned(), "green".to_owned()]),
            (late, 600, vec!["blue".to_owned()]),
        ]
    );
    // Another title: no timer. Another time for one: that time with all rooms it concerns.
    let mut renamed = timed("red", soon);
    renamed.title = "Rouge".into();
    bench.assign(vec![renamed.clone(), timed("blue", late), timed("green", soon)]);
    assert_eq!(timers(&bench.take(A)), []);
    bench.assign(vec![renamed, timed("blue", late), timed("green", late)]);
    assert_eq!(
        timers(&bench.take(A)),
        [(late, 600, vec!["blue".to_owned(), "green".to_owned()])]
    );
    // Stopped and set again; closed and open again: both are news.
    bench.assign(vec![room("blue", true), timed("green", late)]);
    assert_eq!(timers(&bench.take(A)), []);
    bench.assign(vec![timed("blue", late), room("green", false)]);
    assert_eq!(timers(&bench.take(A)), [(late, 600, vec!["blue".to_owned()])]);
    bench.assign(vec![timed("blue", late), timed("green", late)]);
    assert_eq!(timers(&bench.take(A)).len(), 1);
    // A closed room has no timer, and one that is over is none.
    let closed = BreakoutEntry {
        open: false,
        ..timed("green", now + 5_000)
    };
    bench.assign(vec![timed("blue", now), closed]);
    assert_eq!(timers(&bench.take(A)), []);
}

/// Everything a gateway has been sent, as it would attach elsewhere.
fn tail(sent: &[&Sent]) -> Vec<MeetingEntry> {
    sent.iter().flat_map(|s| s.entries.clone()).collect()
}

#[test]
fn a_new_hub_does_not_repeat_what_its_predecessor_said() {
    let mut old = Bench::settled();
    let closes = old.now.unix_ms + 3_600_000;
    let rooms = vec![timed("red", closes), room("blue", true)];
    old.assign(rooms.clone());
    let told = old.take(A);
    assert_eq!(told.entries.len(), 2);

    let mut new = Bench::new(2);
    new.assign(rooms.clone());
    new.attach(A, tail(&[&told]), "");
    new.pass(LISTEN);
    assert!(new.take(A).entries.is_empty());
    // But what has changed in between is told, with higher numbers.
    let mut changed = Bench::new(2);
    changed.assign(vec![timed("red", closes + 1), room("blue", true)]);
    changed.attach(A, tail(&[&told]), "");
    changed.pass(LISTEN);
    let sent = changed.take(A);
    assert_eq!((sent.entries.len(), timers(&sent).len()), (2, 1));
    assert!(sent.seqs()[0] > told.seqs()[1]);
    // The predecessor got no further than the rooms: the timer is still to be told.
    let mut cut = Bench::new(2);
    cut.assign(rooms);
    cut.attach(A, told.entries[..1].to_vec(), "");
    cut.pass(LISTEN);
    assert_eq!(timers(&cut.take(A)).len(), 1);
}

#[test]
fn a_timer_that_was_stopped_and_set_again_is_told_by_the_new_hub_too() {
    let mut old = Bench::settled();
    let closes = old.now.unix_ms + 3_600_000;
    old.assign(vec![timed("red", closes)]);
    old.assign(vec![room("red", true)]);
    let told = old.take(A);
    let mut new = Bench::new(2);
    new.assign(vec![timed("red", closes)]);
    new.attach(A, tail(&[&told]), "");
    new.pass(LISTEN);
    assert_eq!(timers(&new.take(A)).len(), 1);
}

#[test]
fn nor_after_an_hour_in_which_it_said_much_else() {
    let mut old = Bench::settled();
    let closes = old.now.unix_ms + AGE_MS * 10;
    old.assign(vec![timed("red", closes)]);
    for i in 0..1_200 {
        old.post(&broadcast(&i.to_string()), &Audience::Everyone);
    }
    old.pass(Duration::from_millis(AGE_MS as u64 * 5));
    old.take(A);
    old.attach(B, Vec::new(), "");
    let remembered = old.take(B);
    assert_eq!(remembered.entries.len(), 2);

    let mut new = Bench::new(2);
    new.now = old.now;
    new.assign(vec![timed("red", closes)]);
    new.attach(B, remembered.entries, "");
    new.pass(LISTEN);
    assert!(new.take(B).entries.is_empty());
}

#[test]
fn a_list_too_long_for_a_data_message_goes_without_its_people() {
    let mut bench = Bench::settled();
    let crowd = |id: &str, people: usize| BreakoutEntry {
        participants: (0..people).map(|i| format!("somebody-{i}")).collect(),
        ..room(id, true)
    };
    bench.assign(vec![crowd("red", 10)]);
    let people = |sent: &Sent| match &sent.signals()[..] {
        [Signal::BreakoutRoom { rooms, .. }] => rooms.iter().map(|r| r.participants.len()).sum::<usize>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(people(&bench.take(A)), 10);
    bench.assign(vec![crowd("red", 2_000), crowd("blue", 2_000)]);
    let sent = bench.take(A);
    assert_eq!(people(&sent), 0);
    assert!(sent.entries[0].signal_json.len() < 60_000);
}
