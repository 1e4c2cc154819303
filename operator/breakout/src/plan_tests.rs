use plenum_crds::{BreakoutRoomStatus, Duration};

use super::*;
use crate::testing::{
    NOW, about, at, closed, deleting, goes, made_here, meeting, moves_decided, named, plan, room,
    rooms_decided, set_ready, with,
};

fn to(id: &str) -> Wish {
    Wish::Room(id.into())
}

#[test]
fn without_decisions_the_spec_stands() {
    let mut room = room("a");
    let plain = effective(&room, None);
    assert_eq!(
        plain,
        Effective {
            open: true,
            closes_at_ms: None,
            countdown_due: false,
            title: "a".into()
        }
    );
    room.spec.title = Some("Blue".into());
    room.spec.close_after = Some(Duration::from_secs(90));
    let timed = effective(&room, None);
    assert_eq!(
        (timed.title.as_str(), timed.closes_at_ms),
        ("Blue", Some(NOW + 40_000))
    );
    room.spec.close_after = Some(Duration::from_secs(0));
    assert_eq!(effective(&room, None).closes_at_ms, None);
    room.spec.close_after = Some(Duration::from_secs(90));
    room.status.as_mut().unwrap().opened_at = None;
    assert_eq!(
        effective(&room, None).closes_at_ms,
        None,
        "it counts from the opening"
    );
    room.spec.close_after = None;
    room.spec.close_at = Some(at(NOW + 7_000));
    assert_eq!(effective(&room, None).closes_at_ms, Some(NOW + 7_000));
}

#[test]
fn the_newest_word_about_a_room_wins_whoever_spoke_it() {
    let decision = RoomDecision {
        open: Some(false),
        closes_at: Some(at(NOW + 30_000)),
        title: Some("Red".into()),
        ..about("a")
    };
    let decisions = rooms_decided(vec![decision]);
    let mut room = room("a");
    room.spec.title = Some("Blue".into());
    // The host spoke last.
    let decided = effective(&room, Some(&decisions));
    assert_eq!(
        (decided.open, decided.closes_at_ms, decided.title.as_str()),
        (false, Some(NOW + 30_000), "Red")
    );
    // Git speaks after that, even if not about the same thing.
    room.metadata.generation = Some(2);
    let applied = effective(&room, Some(&decisions));
    assert_eq!(
        (applied.open, applied.closes_at_ms, applied.title.as_str()),
        (true, None, "Blue")
    );
    // And the host again.
    let later = rooms_decided(vec![RoomDecision {
        generation: 2,
        open: Some(false),
        ..about("a")
    }]);
    assert!(!effective(&room, Some(&later)).open);
}

#[test]
fn a_decision_speaks_of_what_it_names_only() {
    let mut room = room("a");
    room.spec.title = Some("Blue".into());
    room.spec.close_at = Some(at(NOW + 9_000));
    let renamed = rooms_decided(vec![RoomDecision {
        title: Some("Red".into()),
        ..about("a")
    }]);
    let decided = effective(&room, Some(&renamed));
    assert_eq!((decided.open, decided.closes_at_ms), (true, Some(NOW + 9_000)));
    let extended = rooms_decided(vec![RoomDecision {
        closes_at: Some(at(NOW + 19_000)),
        ..about("a")
    }]);
    let decided = effective(&room, Some(&extended));
    assert_eq!(
        (decided.open, decided.closes_at_ms, decided.title.as_str()),
        (true, Some(NOW + 19_000), "Blue")
    );
    // Opening brings its own timer or none: a closeAt of the past would close the room again.
    room.spec.close_at = Some(at(NOW - 9_000));
    let opened = rooms_decided(vec![RoomDecision {
        open: Some(true),
        ..about("a")
    }]);
    assert_eq!(effective(&room, Some(&opened)).closes_at_ms, None);
    assert_eq!(
        effective(&room, Some(&rooms_decided(vec![about("b")]))).closes_at_ms,
        Some(NOW - 9_000)
    );
}

#[test]
fn a_spec_that_closes_waits_for_the_countdown_that_the_controller_sets() {
    let mut room = room("a");
    let status = room.status.as_mut().unwrap();
    status.closes_at = Some(at(NOW + 3_600_000));
    room.metadata.generation = Some(2);
    room.spec.open = false;
    // The status is of the timer that ran before, not of a countdown.
    let fresh = effective(&room, None);
    assert_eq!(
        (fresh.open, fresh.closes_at_ms, fresh.countdown_due),
        (false, None, true)
    );
    let before = plan(&meeting(), std::slice::from_ref(&room));
    let a = before.room("a").unwrap();
    assert!(a.may_stay(NOW) && !a.is_enterable(NOW) && !a.is_open(NOW));
    // The controller has seen it.
    let status = room.status.as_mut().unwrap();
    status.observed_generation = 2;
    status.closes_at = Some(at(NOW + 60_000));
    let seen = plan(&meeting(), std::slice::from_ref(&room));
    let a = seen.room("a").unwrap();
    assert!(!a.countdown_due && a.may_stay(NOW + 59_999) && !a.may_stay(NOW + 60_000));
    assert_eq!(seen.next_change(NOW), Some(NOW + 60_000));
    assert_eq!(seen.next_change(NOW + 60_000), None);
    // Who was never placed has nobody in it.
    room.status = Some(BreakoutRoomStatus::default());
    assert!(!effective(&room, None).countdown_due);
}

#[test]
fn a_life_in_time() {
    let mut room = room("a");
    room.spec.close_at = Some(at(NOW + 1_000));
    let open = plan(&meeting(), std::slice::from_ref(&room));
    let a = open.room("a").unwrap();
    assert!(a.is_enterable(NOW) && a.is_enterable(NOW + 999) && !a.is_enterable(NOW + 1_000));
    assert!(!a.may_stay(NOW + 1_000));
    assert!(!open.enterable("b", NOW));
    assert!(open.may_stay(None, NOW) && !open.may_stay(Some("b"), NOW));
    set_ready(room.status.as_mut().unwrap(), false);
    let starting = plan(&meeting(), std::slice::from_ref(&room));
    assert!(starting.room("a").unwrap().is_open(NOW) && !starting.enterable("a", NOW));
    let going = plan(&meeting(), &[deleting(room)]);
    assert!(!going.may_stay(Some("a"), NOW) && going.views(NOW).is_empty());
}

#[test]
fn the_open_room_that_names_somebody_is_theirs() {
    let mut young = named(room("a"), &["alice"]);
    young.metadata.creation_timestamp = Some(at(NOW - 10_000));
    let old = named(room("z"), &["alice"]);
    let both = plan(&meeting(), &[old.clone(), young.clone()]);
    assert_eq!(both.wish("alice", NOW), to("a"), "the youngest");
    assert_eq!(both.wish("bob", NOW), Wish::NoOpinion);
    // Equally old: the name that sorts last.
    young
        .metadata
        .creation_timestamp
        .clone_from(&old.metadata.creation_timestamp);
    assert_eq!(
        plan(&meeting(), &[young.clone(), old.clone()]).wish("alice", NOW),
        to("z")
    );
    // A closed one does not count, but keeps its people for the next opening.
    let half = plan(&meeting(), &[closed(old.clone()), young.clone()]);
    assert_eq!(half.wish("alice", NOW), to("a"));
    assert_eq!(half.assigned("alice"), Some("a"));
    let none = plan(&meeting(), &[closed(old), closed(young)]);
    assert_eq!(none.wish("alice", NOW), Wish::NoOpinion);
    assert_eq!(none.assigned("alice"), Some("z"));
    assert_eq!(none.room("z").unwrap().participants, ["alice"]);
    assert!(none.room("a").unwrap().participants.is_empty());
}

#[test]
fn the_newest_word_about_a_person_wins_whoever_spoke_it() {
    let rooms = [named(room("a"), &["alice"]), room("b"), room("c")];
    // Host after Git.
    let decided = with(
        meeting(),
        moves_decided(vec![goes("alice", Some("b"), Some("a"))]),
    );
    let host = plan(&decided, &rooms);
    assert_eq!(host.wish("alice", NOW), to("b"));
    assert_eq!(host.room("b").unwrap().participants, ["alice"]);
    assert!(host.room("a").unwrap().participants.is_empty());
    // Git again: another room names her.
    let elsewhere = [room("a"), room("b"), named(room("c"), &["alice"])];
    assert_eq!(plan(&decided, &elsewhere).wish("alice", NOW), to("c"));
    // Git again: none names her any more.
    let nowhere = [room("a"), room("b"), room("c")];
    assert_eq!(plan(&decided, &nowhere).wish("alice", NOW), Wish::NoOpinion);
    // An edit of the room that still names her says nothing new about her.
    let mut edited = rooms.clone();
    edited[0].metadata.generation = Some(9);
    edited[0].spec.participants.push("bob".into());
    assert_eq!(plan(&decided, &edited).wish("alice", NOW), to("b"));
    // Nor does closing it.
    edited[0] = closed(edited[0].clone());
    assert_eq!(plan(&decided, &edited).wish("alice", NOW), to("b"));
}

#[test]
fn who_is_decided_into_a_closed_or_missing_room_belongs_to_the_main_room() {
    let decided = with(
        meeting(),
        moves_decided(vec![
            goes("alice", Some("a"), None),
            goes("bob", Some("x"), None),
            goes("carol", None, None),
        ]),
    );
    let mut closing = room("a");
    closing.spec.open = false;
    closing.status.as_mut().unwrap().closes_at = Some(at(NOW + 60_000));
    let plan = plan(&decided, &[closing]);
    assert!(plan.may_stay(Some("a"), NOW));
    for identity in ["alice", "bob", "carol"] {
        assert_eq!(plan.wish(identity, NOW), Wish::Main, "{identity}");
    }
    assert_eq!(plan.decided("alice"), Some(Some("a")));
    assert_eq!(plan.decided("carol"), Some(None));
    assert_eq!(plan.decided("dave"), None);
    assert_eq!(plan.room("a").unwrap().participants, ["alice"]);
}

#[test]
fn settings_of_hosts_win_over_the_spec() {
    let mut meeting = meeting();
    meeting.spec.breakouts.closing_countdown = Duration::from_secs(30);
    let spec = plan(&meeting, &[]);
    assert_eq!(
        (spec.mode, spec.allow_return_to_main, spec.allow_cancel),
        (Mode::Manual, true, false)
    );
    assert_eq!(
        (spec.closing_countdown_ms, spec.title(None).as_str()),
        (30_000, "standup")
    );
    let decided = with(
        meeting,
        BreakoutDecisions {
            assignment: Some(BreakoutAssignment::SelfSelect),
            allow_return_to_main: Some(false),
            allow_cancel: Some(true),
            ..BreakoutDecisions::default()
        },
    );
    let host = plan(&decided, &[]);
    assert_eq!(
        (host.mode, host.allow_return_to_main, host.allow_cancel),
        (Mode::SelfSelect, false, true)
    );
}

#[test]
fn views_show_what_clients_need() {
    let mut first = made_here(named(room("standup-2"), &["zoe", "alice"]));
    first.spec.max_participants = Some(4);
    first.spec.close_at = Some(at(NOW + 5_000));
    let mut foreign = room("other");
    foreign.spec.meeting_ref.name = "retro".into();
    let mut apart = room("apart");
    apart.metadata.namespace = Some("elsewhere".into());
    let plan = plan(
        &meeting(),
        &[
            room("standup-10"),
            first,
            foreign,
            apart,
            closed(room("standup-9")),
        ],
    );
    let ids: Vec<_> = plan.rooms.iter().map(|room| room.id.as_str()).collect();
    assert_eq!(ids, ["standup-2", "standup-9", "standup-10"]);
    assert!(
        plan.room("standup-2").unwrap().made_in_meeting && !plan.room("standup-9").unwrap().made_in_meeting
    );
    let views = plan.views(NOW);
    assert_eq!(
        views[0],
        RoomView {
            id: "standup-2".into(),
            title: "standup-2".into(),
            max_participants: 4,
            open: true,
            closes_at: Some(NOW + 5_000),
            participants: vec!["alice".into(), "zoe".into()],
        }
    );
    assert_eq!((views[1].open, views[1].max_participants), (false, 0));
    let later = plan.views(NOW + 5_000);
    assert_eq!((later[0].open, later[0].closes_at), (false, None));
}

#[test]
fn names_sort_as_people_count() {
    let mut names = ["b", "a-10", "a-2", "a-02", "a", "a-2-b", "a-2a"];
    names.sort_by(|a, b| natural(a, b));
    assert_eq!(names, ["a", "a-02", "a-2", "a-2-b", "a-2a", "a-10", "b"]);
}
