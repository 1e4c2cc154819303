use plenum_crds::{BreakoutDecisions, BreakoutRoom, MoveDecision};

use super::*;
use crate::testing::{
    NOW, at, closed, deleting, goes, meeting, moves_decided, named, plan, room, set_ready, with,
};

fn planned(rooms: &[BreakoutRoom], moves: Vec<MoveDecision>) -> Input {
    Input::Plan(Arc::new(plan(&with(meeting(), moves_decided(moves)), rooms)))
}

/// The same, in a meeting where moves may be refused.
fn refusable(rooms: &[BreakoutRoom], moves: Vec<MoveDecision>) -> Input {
    let decisions = BreakoutDecisions {
        allow_cancel: Some(true),
        ..moves_decided(moves)
    };
    Input::Plan(Arc::new(plan(&with(meeting(), decisions), rooms)))
}

fn some(id: &str) -> Option<String> {
    Some(id.into())
}

fn go(to: Option<&str>, quiet: bool) -> Output {
    Output::Go {
        to: to.map(str::to_owned),
        quiet,
    }
}

fn moving(to: Option<&str>, now: i64, cancellable: bool) -> Output {
    Output::Notice(Notice::Moving {
        message: BreakoutMessage::ParticipantMoved,
        to: to.map(str::to_owned),
        title: to.unwrap_or("standup").to_owned(),
        at: now + 5_000,
        now,
        seconds: 5,
        cancellable,
    })
}

fn moved(to: Option<&str>) -> Output {
    Output::Notice(Notice::Moved {
        to: to.map(str::to_owned),
        title: to.unwrap_or("standup").to_owned(),
    })
}

fn not_moving() -> Output {
    Output::Notice(Notice::NotMoving {})
}

fn move_failed(to: Option<&str>, landed: Option<&str>, code: &str) -> Output {
    Output::Notice(Notice::MoveFailed {
        to: to.map(str::to_owned),
        landed: landed.map(str::to_owned),
        code: code.into(),
    })
}

#[test]
fn a_move_is_announced_five_seconds_ahead() {
    let mut alice = Mover::new("alice", None);
    let input = planned(&[room("a")], vec![goes("alice", Some("a"), None)]);
    assert_eq!(alice.step(NOW, input.clone()), [moving(Some("a"), NOW, false)]);
    assert_eq!(alice.deadline(), Some(NOW + 5_000));
    // Nothing new is said by the same plan, nor before it is time.
    assert_eq!(alice.step(NOW + 1_000, input), []);
    assert_eq!(alice.step(NOW + 4_999, Input::Tick), []);
    assert_eq!(alice.step(NOW + 5_000, Input::Tick), [go(Some("a"), false)]);
    assert!(alice.is_going() && alice.deadline().is_none());
    assert_eq!(alice.step(NOW + 5_100, Input::Tick), []);
    assert_eq!(
        alice.step(NOW + 5_200, Input::Done(Ok(some("a")))),
        [moved(Some("a")), Output::Settled]
    );
    assert_eq!(alice.present(), Some("a"));
}

#[test]
fn who_is_where_they_belong_is_left_alone() {
    for (present, moves) in [
        (None, vec![]),
        (some("a"), vec![]),
        (some("a"), vec![goes("alice", Some("a"), None)]),
        (None, vec![goes("alice", None, None)]),
    ] {
        let mut alice = Mover::new("alice", present);
        let input = planned(&[room("a")], moves);
        assert_eq!(alice.step(NOW, input.clone()), [Output::Settled]);
        assert_eq!(alice.step(NOW + 1, input), []);
    }
}

#[test]
fn an_own_wish_needs_no_notice_whichever_comes_first() {
    let input = planned(&[room("a")], vec![goes("alice", Some("a"), None)]);
    let mut early = Mover::new("alice", None);
    early.step(NOW, planned(&[room("a")], vec![]));
    assert_eq!(early.step(NOW, Input::Expect(some("a"))), []);
    assert_eq!(early.step(NOW + 300, input.clone()), [go(Some("a"), true)]);

    let mut late = Mover::new("alice", None);
    late.step(NOW, input.clone());
    assert_eq!(
        late.step(NOW + 300, Input::Expect(some("a"))),
        [go(Some("a"), true)]
    );

    // Somebody else's decision in between is announced, and the wish is forgotten with time.
    let mut other = Mover::new("alice", None);
    other.step(NOW, planned(&[room("a"), room("b")], vec![]));
    other.step(NOW, Input::Expect(some("a")));
    let host = planned(&[room("a"), room("b")], vec![goes("alice", Some("b"), None)]);
    assert_eq!(other.step(NOW + 300, host), [moving(Some("b"), NOW + 300, false)]);
    let mut slow = Mover::new("alice", None);
    slow.step(NOW, planned(&[room("a")], vec![]));
    slow.step(NOW, Input::Expect(some("a")));
    assert_eq!(
        slow.step(NOW + 10_000, input),
        [moving(Some("a"), NOW + 10_000, false)]
    );
}

#[test]
fn another_target_starts_the_notice_anew_and_none_ends_it() {
    let rooms = [room("a"), room("b")];
    let mut alice = Mover::new("alice", None);
    alice.step(NOW, planned(&rooms, vec![goes("alice", Some("a"), None)]));
    let elsewhere = planned(&rooms, vec![goes("alice", Some("b"), None)]);
    assert_eq!(
        alice.step(NOW + 4_000, elsewhere),
        [moving(Some("b"), NOW + 4_000, false)]
    );
    assert_eq!(alice.step(NOW + 5_000, Input::Tick), []);
    assert_eq!(
        alice.step(NOW + 5_500, planned(&rooms, vec![])),
        [not_moving(), Output::Settled]
    );
    assert_eq!(alice.step(NOW + 9_000, Input::Tick), []);
    assert_eq!(alice.deadline(), None);
}

#[test]
fn a_room_is_announced_once_it_can_be_entered() {
    let mut starting = room("a");
    set_ready(starting.status.as_mut().unwrap(), false);
    let mut alice = Mover::new("alice", None);
    let moves = vec![goes("alice", Some("a"), None)];
    assert_eq!(
        alice.step(NOW, planned(&[starting], moves.clone())),
        [Output::Settled]
    );
    assert_eq!(
        alice.step(NOW + 2_000, planned(&[room("a")], moves)),
        [moving(Some("a"), NOW + 2_000, false)]
    );
}

#[test]
fn a_refused_move_is_not_announced_again_until_something_new_is_said() {
    let input = refusable(&[room("a"), room("b")], vec![goes("alice", Some("a"), None)]);
    let mut alice = Mover::new("alice", None);
    assert_eq!(alice.step(NOW, input.clone()), [moving(Some("a"), NOW, true)]);
    assert_eq!(
        alice.step(NOW + 1_000, Input::Cancelled),
        [not_moving(), Output::Settled]
    );
    assert_eq!(alice.step(NOW + 20_000, input.clone()), []);
    // The decision that comes of it says the same; then the host insists.
    let stays = refusable(&[room("a"), room("b")], vec![goes("alice", None, None)]);
    assert_eq!(alice.step(NOW + 21_000, stays), []);
    assert_eq!(
        alice.step(NOW + 22_000, input),
        [moving(Some("a"), NOW + 22_000, true)]
    );

    // Where it is not allowed the move goes on, but for hosts.
    let firm = planned(&[room("a")], vec![goes("alice", Some("a"), None)]);
    let mut alice = Mover::new("alice", None);
    alice.step(NOW, firm.clone());
    assert_eq!(alice.step(NOW, Input::Cancelled), []);
    assert_eq!(alice.step(NOW + 5_000, Input::Tick), [go(Some("a"), false)]);
    let mut host = Mover::new("alice", None);
    host.set_host(true);
    assert_eq!(host.step(NOW, firm), [moving(Some("a"), NOW, true)]);
    assert_eq!(host.step(NOW, Input::Cancelled), [not_moving(), Output::Settled]);
}

#[test]
fn a_room_that_closed_after_its_countdown_is_left_without_another_notice() {
    let mut timed = room("a");
    timed.spec.close_at = Some(at(NOW + 30_000));
    let mut alice = Mover::new("alice", some("a"));
    assert_eq!(
        alice.step(NOW, planned(&[timed], vec![goes("alice", Some("a"), None)])),
        [Output::Settled]
    );
    assert_eq!(alice.deadline(), Some(NOW + 30_000));
    assert_eq!(alice.step(NOW + 30_000, Input::Tick), [go(None, true)]);
    assert_eq!(
        alice.step(NOW + 30_200, Input::Done(Ok(None))),
        [moved(None), Output::Settled]
    );

    let mut closing = room("a");
    closing.spec.open = false;
    closing.status.as_mut().unwrap().closes_at = Some(at(NOW + 60_000));
    // She belongs to it by decision: neither that nor the closing sends her out before its end.
    let mut alice = Mover::new("alice", some("a"));
    let input = planned(&[closing], vec![goes("alice", Some("a"), None)]);
    assert_eq!(alice.step(NOW, input), [Output::Settled]);
    assert_eq!(alice.step(NOW + 60_000, Input::Tick), [go(None, true)]);
}

#[test]
fn a_deleted_room_is_left_after_the_usual_notice_that_nobody_may_refuse() {
    for rooms in [vec![deleting(room("a"))], vec![]] {
        let mut alice = Mover::new("alice", some("a"));
        assert_eq!(
            alice.step(NOW, refusable(&rooms, vec![])),
            [moving(None, NOW, false)]
        );
        assert_eq!(alice.step(NOW + 1, Input::Cancelled), []);
        assert_eq!(alice.step(NOW + 5_000, Input::Tick), [go(None, false)]);
    }
}

#[test]
fn a_failed_move_leaves_people_where_they_are_if_that_room_is_open() {
    let rooms = [room("a"), room("b")];
    let moves = vec![goes("alice", Some("b"), None)];
    let mut alice = Mover::new("alice", some("a"));
    alice.step(NOW, planned(&rooms, moves.clone()));
    alice.step(NOW + 5_000, Input::Tick);
    let failed = alice.step(NOW + 5_500, Input::Done(Err(Code::WorkerUnreachable)));
    assert_eq!(
        failed,
        [
            move_failed(Some("b"), Some("a"), "WorkerUnreachable"),
            Output::Settled
        ]
    );
    // Neither time nor what does not concern her or the room brings it up again.
    let mut others = rooms.clone();
    others[0].metadata.generation = Some(7);
    assert_eq!(alice.step(NOW + 90_000, planned(&others, moves.clone())), []);
    // The room is on another worker now.
    crate::testing::place(&mut others[1], "w2", 2);
    assert_eq!(
        alice.step(NOW + 91_000, planned(&others, moves)),
        [moving(Some("b"), NOW + 91_000, false)]
    );
}

#[test]
fn a_failed_move_ends_in_the_main_room_if_the_present_one_is_closed() {
    let moves = vec![goes("alice", Some("b"), None)];
    let mut alice = Mover::new("alice", some("a"));
    let input = planned(&[closed(room("a")), room("b")], moves);
    assert_eq!(alice.step(NOW, input), [go(Some("b"), true)]);
    assert_eq!(
        alice.step(NOW + 100, Input::Done(Err(Code::RoomClosed))),
        [go(None, true)]
    );
    let landed = alice.step(NOW + 200, Input::Done(Ok(None)));
    assert_eq!(
        landed,
        [move_failed(Some("b"), None, "RoomClosed"), Output::Settled]
    );
}

#[test]
fn a_deleted_room_is_left_at_once_when_the_announced_move_fails() {
    let rooms = [deleting(room("a")), room("b")];
    for code in [Code::MeetingFull, Code::RoomClosed] {
        let mut alice = Mover::new("alice", some("a"));
        let input = planned(&rooms, vec![goes("alice", Some("b"), None)]);
        assert_eq!(alice.step(NOW, input), [moving(Some("b"), NOW, false)]);
        assert_eq!(alice.step(NOW + 5_000, Input::Tick), [go(Some("b"), false)]);
        assert_eq!(alice.step(NOW + 5_100, Input::Done(Err(code))), [go(None, true)]);
    }
}

#[test]
fn the_main_room_is_asked_again_by_who_has_no_other_place() {
    let mut alice = Mover::new("alice", some("a"));
    assert_eq!(
        alice.step(NOW, planned(&[closed(room("a"))], vec![])),
        [go(None, true)]
    );
    let first = alice.step(NOW + 100, Input::Done(Err(Code::MeetingFull)));
    assert_eq!(first, [move_failed(None, Some("a"), "MeetingFull")]);
    assert_eq!(alice.deadline(), Some(NOW + 5_100));
    assert_eq!(alice.step(NOW + 5_099, Input::Tick), []);
    assert_eq!(alice.step(NOW + 5_100, Input::Tick), [go(None, true)]);
    assert_eq!(alice.step(NOW + 5_200, Input::Done(Err(Code::MeetingFull))), []);
    assert_eq!(alice.step(NOW + 10_200, Input::Tick), [go(None, true)]);
    assert_eq!(
        alice.step(NOW + 10_300, Input::Done(Ok(None))),
        [moved(None), Output::Settled]
    );
}

#[test]
fn two_targets_that_fail_are_not_tried_in_turns() {
    let moves = vec![goes("alice", Some("b"), None)];
    let mut alice = Mover::new("alice", some("a"));
    alice.step(NOW, planned(&[closed(room("a")), room("b")], moves));
    assert_eq!(
        alice.step(NOW, Input::Done(Err(Code::RoomClosed))),
        [go(None, true)]
    );
    let stuck = alice.step(NOW, Input::Done(Err(Code::WorkerUnreachable)));
    assert_eq!(
        stuck,
        [
            move_failed(Some("b"), Some("a"), "RoomClosed"),
            move_failed(None, Some("a"), "WorkerUnreachable")
        ]
    );
    assert_eq!(alice.step(NOW + 5_000, Input::Tick), [go(None, true)]);
}

#[test]
fn a_full_room_is_asked_three_times_more() {
    let mut alice = Mover::new("alice", None);
    alice.step(NOW, planned(&[room("a")], vec![goes("alice", Some("a"), None)]));
    let mut now = NOW + 5_000;
    assert_eq!(alice.step(now, Input::Tick), [go(Some("a"), false)]);
    for pause in [1_000, 2_000, 4_000] {
        assert_eq!(alice.step(now, Input::Done(Err(Code::MeetingFull))), []);
        assert_eq!(alice.deadline(), Some(now + pause));
        assert_eq!(alice.step(now + pause - 1, Input::Tick), []);
        now += pause;
        assert_eq!(alice.step(now, Input::Tick), [go(Some("a"), true)]);
    }
    let failed = alice.step(now, Input::Done(Err(Code::MeetingFull)));
    assert_eq!(
        failed,
        [move_failed(Some("a"), None, "MeetingFull"), Output::Settled]
    );
    assert_eq!(alice.deadline(), None);
    // A place more is something new.
    let mut larger = room("a");
    larger.spec.max_participants = Some(20);
    let input = planned(&[larger], vec![goes("alice", Some("a"), None)]);
    assert_eq!(alice.step(now, input), [moving(Some("a"), now, false)]);

    // Called off between two tries, she is told what became of it.
    let mut carol = Mover::new("carol", None);
    carol.step(NOW, planned(&[room("a")], vec![goes("carol", Some("a"), None)]));
    carol.step(NOW + 5_000, Input::Tick);
    assert_eq!(carol.step(NOW + 5_000, Input::Done(Err(Code::MeetingFull))), []);
    assert_eq!(
        carol.step(NOW + 5_500, planned(&[room("a")], vec![])),
        [move_failed(Some("a"), None, "MeetingFull"), Output::Settled]
    );

    // Or when there is a place, nothing but that she was moved.
    let mut dave = Mover::new("dave", None);
    dave.step(NOW, planned(&[room("a")], vec![goes("dave", Some("a"), None)]));
    dave.step(NOW + 5_000, Input::Tick);
    dave.step(NOW + 5_000, Input::Done(Err(Code::MeetingFull)));
    assert_eq!(dave.step(NOW + 6_000, Input::Tick), [go(Some("a"), true)]);
    assert_eq!(
        dave.step(NOW + 6_100, Input::Done(Ok(some("a")))),
        [moved(Some("a")), Output::Settled]
    );

    // Who chose it is told at once.
    let mut bob = Mover::new("bob", None);
    bob.step(NOW, Input::Expect(some("a")));
    bob.step(NOW, planned(&[room("a")], vec![goes("bob", Some("a"), None)]));
    let failed = bob.step(NOW, Input::Done(Err(Code::MeetingFull)));
    assert_eq!(
        failed,
        [move_failed(Some("a"), None, "MeetingFull"), Output::Settled]
    );
}

#[test]
fn what_is_said_during_a_move_counts_after_it() {
    let rooms = [room("a"), room("b")];
    let mut alice = Mover::new("alice", None);
    alice.step(NOW, planned(&rooms, vec![goes("alice", Some("a"), None)]));
    alice.step(NOW + 5_000, Input::Tick);
    let elsewhere = planned(&rooms, vec![goes("alice", Some("b"), None)]);
    assert_eq!(alice.step(NOW + 5_100, elsewhere), []);
    assert_eq!(alice.step(NOW + 5_200, Input::Expect(some("b"))), []);
    let arrived = alice.step(NOW + 5_300, Input::Done(Ok(some("a"))));
    assert_eq!(arrived, [moved(Some("a")), go(Some("b"), true)]);

    // A room that was placed anew while the move to its old worker failed is announced again.
    let mut alice = Mover::new("alice", None);
    alice.step(NOW, planned(&rooms, vec![goes("alice", Some("a"), None)]));
    alice.step(NOW + 5_000, Input::Tick);
    let mut placed = rooms.clone();
    crate::testing::place(&mut placed[0], "w2", 2);
    alice.step(
        NOW + 5_100,
        planned(&placed, vec![goes("alice", Some("a"), None)]),
    );
    let failed = alice.step(NOW + 5_200, Input::Done(Err(Code::EpochStale)));
    assert_eq!(
        failed,
        [
            move_failed(Some("a"), None, "EpochStale"),
            moving(Some("a"), NOW + 5_200, false)
        ]
    );
}

#[test]
fn the_worker_may_bring_people_back_by_itself() {
    let mut alice = Mover::new("alice", some("a"));
    alice.step(NOW, planned(&[deleting(room("a"))], vec![]));
    // It was announced, so it is not called off.
    assert_eq!(
        alice.step(NOW + 3_000, Input::Relocated(None)),
        [moved(None), Output::Settled]
    );
    assert_eq!(alice.deadline(), None);

    // From the main room the move to another one is announced anew.
    let mut carol = Mover::new("carol", some("a"));
    let rooms = [deleting(room("a")), room("b")];
    let moves = vec![goes("carol", Some("b"), None)];
    assert_eq!(
        carol.step(NOW, planned(&rooms, moves)),
        [moving(Some("b"), NOW, false)]
    );
    assert_eq!(
        carol.step(NOW + 3_000, Input::Relocated(None)),
        [moved(None), moving(Some("b"), NOW + 3_000, false)]
    );

    let mut bob = Mover::new("bob", some("a"));
    bob.step(NOW, planned(&[closed(room("a"))], vec![]));
    assert!(bob.is_going());
    // The worker was quicker; what it answers to the request is of no account any more.
    assert_eq!(bob.step(NOW, Input::Relocated(None)), [moved(None)]);
    assert_eq!(
        bob.step(NOW, Input::Done(Err(Code::RoomNotFound))),
        [Output::Settled]
    );
}

#[test]
fn who_was_not_let_in_is_told_and_not_sent_again() {
    let rooms = [named(room("a"), &["alice"])];
    for refused_first in [true, false] {
        let mut alice = Mover::new("alice", None);
        let refused = Input::Refused(some("a"), Code::MeetingFull);
        let told = move_failed(Some("a"), None, "MeetingFull");
        if refused_first {
            assert_eq!(alice.step(NOW, refused), [told]);
            assert_eq!(alice.step(NOW, planned(&rooms, vec![])), [Output::Settled]);
        } else {
            assert_eq!(
                alice.step(NOW, planned(&rooms, vec![])),
                [moving(Some("a"), NOW, false)]
            );
            assert_eq!(alice.step(NOW, refused), [told, not_moving(), Output::Settled]);
        }
        assert_eq!(alice.step(NOW + 60_000, planned(&rooms, vec![])), []);
    }
}

#[test]
fn an_answer_nobody_waits_for_changes_nothing() {
    let mut alice = Mover::new("alice", None);
    alice.step(NOW, planned(&[room("a")], vec![]));
    assert_eq!(alice.step(NOW, Input::Done(Ok(some("a")))), []);
    assert_eq!(alice.step(NOW, Input::Done(Err(Code::Internal))), []);
    assert_eq!(alice.present(), None);
}

#[test]
fn taken_off_the_list_they_are_called_back_and_a_token_of_their_own_is_not() {
    let listed = [named(room("red"), &["ann"])];
    let unlisted = [room("red")];
    let mut ann = Mover::new("ann", some("red"));
    ann.step(NOW, planned(&listed, Vec::new()));
    let out = ann.step(NOW, planned(&unlisted, Vec::new()));
    assert_eq!(out, [moving(None, NOW, false)]);
    let out = ann.step(NOW + 5_000, Input::Tick);
    assert_eq!(out, [go(None, false)]);
    // Back on the list within the notice: nothing happens.
    let mut bea = Mover::new("ann", some("red"));
    bea.step(NOW, planned(&listed, Vec::new()));
    bea.step(NOW, planned(&unlisted, Vec::new()));
    let out = bea.step(NOW, planned(&listed, Vec::new()));
    assert_eq!(out.first(), Some(&not_moving()));
    let mut guest = Mover::new("guest", some("red"));
    let out = guest.step(NOW, planned(&unlisted, Vec::new()));
    assert_eq!(out, [Output::Settled]);
}
