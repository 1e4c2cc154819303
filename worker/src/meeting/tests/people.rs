use super::super::directory::GRACE;
use super::super::state::{LINGER, LISTEN};
use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn hands_go_up_and_down_and_keep_their_order() {
    let mut bench = Bench::settled();
    bench.here(A, "bob", "b", "", "participant");
    bench.here(A, "eve", "e", "red", "participant");
    bench.post(&hand("bob", "", true), &Audience::Everyone);
    let first = bench.take(A);
    assert_eq!(first.hands(), [pair("bob", "")]);
    let since = first.standing.unwrap().hands[0].since;
    assert_eq!(since, bench.now.unix_ms);
    bench.pass(MILLISECOND);
    bench.post(&hand("eve", "red", true), &Audience::Everyone);
    bench.post(&hand("bob", "", true), &Audience::Everyone);
    let sent = bench.take(A);
    assert_eq!(sent.hands(), [pair("bob", ""), pair("eve", "red")]);
    assert_eq!(sent.standing.unwrap().hands[0].since, since);
    bench.post(&hand("bob", "", false), &Audience::Everyone);
    assert_eq!(bench.take(A).hands(), [pair("eve", "red")]);
    // Lowered again: numbered, but nothing else stands.
    bench.post(&hand("bob", "", false), &Audience::Everyone);
    let sent = bench.take(A);
    assert_eq!((sent.entries.len(), sent.standing), (1, None));
}

#[test]
fn a_hand_follows_its_owner_and_goes_down_when_they_leave() {
    let mut bench = Bench::settled();
    bench.here(A, "bob", "b", "", "participant");
    bench.post(&hand("bob", "", true), &Audience::Everyone);
    bench.take(A);
    bench.here(A, "bob", "b", "red", "participant");
    let sent = bench.take(A);
    assert_eq!(sent.hands(), [pair("bob", "red")]);
    assert!(
        matches!(&sent.signals()[..], [Signal::RaiseHand { who, up: true }]
        if who.room.as_deref() == Some("red") && who.since > 0)
    );
    assert_eq!(
        sent.audiences(),
        [Audience::Rooms(vec![String::new(), "red".into()])]
    );
    // Told again without a move: nothing.
    bench.here(A, "bob", "b", "red", "participant");
    assert!(bench.take(A).entries.is_empty());
    bench.gone("bob", "b");
    bench.pass(LINGER - MILLISECOND);
    assert!(bench.take(A).entries.is_empty());
    bench.pass(MILLISECOND);
    let sent = bench.take(A);
    assert_eq!(sent.hands(), []);
    assert!(matches!(
        &sent.signals()[..],
        [Signal::RaiseHand { up: false, .. }]
    ));
    assert_eq!(sent.audiences(), [Audience::Rooms(vec!["red".into()])]);
}

#[test]
fn help_ends_with_a_move_a_departure_or_a_host() {
    for end in 0..5 {
        let mut bench = Bench::settled();
        bench.here(A, "bob", "b", "red", "participant");
        bench.here(A, "alice", "a", "", "host");
        bench.here(A, "carol", "c", "red", "participant");
        bench.post(&help("bob", "red", true), &Audience::Hosts);
        assert_eq!(bench.take(A).help(), [pair("bob", "red")]);
        // Neither a participant nor a host of another room ends it.
        bench.here(A, "dave", "d", "red", "participant");
        bench.here(A, "erin", "e", "blue", "cohost");
        assert!(bench.take(A).entries.is_empty());
        match end {
            0 => bench.here(A, "bob", "b", "blue", "participant"),
            1 => {
                bench.gone("bob", "b");
                bench.pass(LINGER);
            }
            2 => bench.here(A, "alice", "a", "red", "host"),
            3 => bench.here(A, "frank", "f", "red", "cohost"),
            _ => bench.here(A, "carol", "c", "red", "cohost"),
        }
        let sent = bench.take(A);
        assert_eq!(sent.help(), [], "{end}");
        assert!(
            matches!(&sent.signals()[..], [Signal::AskForHelp { on: false, .. }]),
            "{end}"
        );
        assert_eq!(sent.audiences(), [Audience::Rooms(vec!["red".into()])]);
    }
}

#[test]
fn a_host_who_is_there_already_may_be_asked() {
    let mut bench = Bench::settled();
    bench.here(A, "alice", "a", "", "host");
    bench.here(A, "bob", "b", "", "participant");
    bench.post(&help("bob", "", true), &Audience::Hosts);
    bench.here(A, "alice", "a", "", "host");
    assert_eq!(bench.take(A).help(), [pair("bob", "")]);
}

#[test]
fn a_newer_connection_in_another_room_supersedes_the_older() {
    let mut bench = Bench::settled();
    bench.attach(B, Vec::new(), "");
    bench.here(A, "bob", "old", "", "participant");
    bench.here(B, "bob", "new", "red", "participant");
    assert_eq!(bench.take(A).superseded, [pair("bob", "old")]);
    assert!(bench.take(B).superseded.is_empty());
    // The older says itself again, moved or not: it is over.
    bench.here(A, "bob", "old", "blue", "participant");
    assert_eq!(bench.take(A).superseded, [pair("bob", "old")]);
    bench.post(&hand("bob", "red", true), &Audience::Everyone);
    // Its end ends nothing else.
    bench.gone("bob", "old");
    bench.pass(GRACE * 2);
    assert_eq!(bench.take(B).hands(), [pair("bob", "red")]);
    bench.gone("bob", "new");
    bench.pass(LINGER);
    assert_eq!(bench.take(B).hands(), []);
}

#[test]
fn who_comes_back_at_once_has_not_left() {
    let mut bench = Bench::settled();
    bench.here(A, "bob", "b1", "", "participant");
    bench.post(&hand("bob", "", true), &Audience::Everyone);
    bench.post(&help("bob", "", true), &Audience::Hosts);
    bench.take(A);
    // The socket broke and came back.
    bench.gone("bob", "b1");
    bench.pass(LINGER / 2);
    bench.here(A, "bob", "b2", "", "participant");
    bench.pass(LINGER * 2);
    assert!(bench.take(A).entries.is_empty());
    // A move to another worker: the old connection ends before the new one begins.
    bench.gone("bob", "b2");
    bench.pass(LINGER / 2);
    bench.here(A, "bob", "b3", "red", "participant");
    let sent = bench.take(A);
    assert_eq!((sent.hands(), sent.help()), (vec![pair("bob", "red")], vec![]));
    bench.pass(LINGER * 2);
    assert!(bench.take(A).entries.is_empty());
}

#[test]
fn a_new_hub_is_told_of_connections_in_no_order() {
    for (first, second) in [("0001-x", "0002-y"), ("0002-y", "0001-x")] {
        let mut bench = Bench::new(2);
        bench.attach(A, Vec::new(), "");
        bench.attach(B, Vec::new(), "");
        bench.here(A, "bob", first, "", "participant");
        bench.here(B, "bob", second, "red", "participant");
        let told = [bench.take(A).superseded, bench.take(B).superseded];
        assert_eq!(told.concat(), [pair("bob", "0001-x")]);
        // In the same room its worker has seen to it, but the older does not come back.
        bench.here(A, "eve", &format!("{first}e"), "", "participant");
        bench.here(B, "eve", &format!("{second}e"), "", "participant");
        let told = [bench.take(A).superseded, bench.take(B).superseded];
        assert!(told.concat().is_empty());
        bench.pass(LISTEN);
        bench.here(B, "eve", "0001-xe", "red", "participant");
        assert_eq!(bench.take(B).superseded, [pair("eve", "0001-xe")]);
    }
}

#[test]
fn in_the_same_room_the_worker_itself_replaces() {
    let mut bench = Bench::settled();
    bench.attach(B, Vec::new(), "");
    bench.here(A, "bob", "old", "red", "participant");
    bench.here(B, "bob", "new", "red", "participant");
    bench.here(A, "eve", "e", "", "participant");
    assert!(bench.take(A).superseded.is_empty() && bench.take(B).superseded.is_empty());
    // The one that counts is the new.
    bench.here(A, "bob", "newest", "", "participant");
    assert_eq!(bench.take(B).superseded, [pair("bob", "new")]);
}

#[test]
fn a_move_supersedes_nobody() {
    let mut bench = Bench::settled();
    bench.here(A, "bob", "b", "", "participant");
    bench.here(A, "bob", "b", "red", "participant");
    // The same connection by another gateway's stream.
    bench.attach(B, Vec::new(), "");
    bench.here(B, "bob", "b", "blue", "participant");
    assert!(bench.take(A).superseded.is_empty() && bench.take(B).superseded.is_empty());
}

#[test]
fn people_outlive_their_gateways_stream_for_a_while() {
    let mut bench = Bench::settled();
    bench.here(A, "bob", "b", "", "participant");
    bench.here(A, "eve", "e", "", "participant");
    bench.post(&hand("bob", "", true), &Audience::Everyone);
    bench.post(&help("eve", "", true), &Audience::Hosts);
    bench.attach(B, Vec::new(), "");
    bench.take(B);
    bench.run(|hub, now, _| hub.detach(A, now));
    bench.pass(GRACE - MILLISECOND);
    assert!(bench.take(B).entries.is_empty());
    // One comes back by another stream, the other does not.
    bench.here(B, "bob", "b", "", "participant");
    bench.pass(MILLISECOND);
    let sent = bench.take(B);
    assert_eq!((sent.hands(), sent.help()), (vec![pair("bob", "")], vec![]));
    bench.pass(GRACE * 3);
    assert!(bench.take(B).entries.is_empty());
}

#[test]
fn a_hand_of_nobody_goes_down() {
    let mut bench = Bench::settled();
    bench.pass(GRACE * 2);
    bench.post(&hand("ghost", "", true), &Audience::Everyone);
    bench.pass(GRACE - MILLISECOND);
    assert_eq!(bench.take(A).hands(), [pair("ghost", "")]);
    bench.pass(MILLISECOND);
    assert_eq!(bench.take(A).hands(), []);
}

#[test]
fn a_new_hub_knows_what_stands_and_clears_up() {
    let mut old = Bench::settled();
    for who in ["bob", "eve", "joe"] {
        old.here(A, who, who, "", "participant");
        old.post(&hand(who, "", true), &Audience::Everyone);
    }
    old.post(&help("bob", "", true), &Audience::Hosts);
    let heard = old.take(A);
    let standing = serde_json::to_string(heard.standing.as_ref().unwrap()).unwrap();

    let mut new = Bench::new(2);
    // A gateway that heard less comes first; it still believes that nothing stands.
    new.attach(B, heard.entries[..1].to_vec(), "{}");
    assert_eq!(new.take(B).hands(), [pair("bob", "")]);
    new.attach(A, heard.entries.clone(), &standing);
    let all = vec![pair("bob", ""), pair("eve", ""), pair("joe", "")];
    assert_eq!(new.take(A).hands(), all);
    let caught_up = new.take(B);
    assert_eq!((caught_up.hands(), caught_up.seqs()), (all, vec![2, 3, 4]));
    // While nobody was the hub: bob went to another room, joe went away.
    new.here(A, "bob", "bob", "red", "participant");
    new.here(A, "eve", "eve", "", "participant");
    new.pass(LISTEN);
    let sent = new.take(A);
    assert_eq!(
        sent.hands(),
        [pair("bob", "red"), pair("eve", ""), pair("joe", "")]
    );
    assert_eq!(sent.help(), []);
    new.pass(GRACE);
    assert_eq!(new.take(A).hands(), [pair("bob", "red"), pair("eve", "")]);
}

#[test]
fn what_stands_survives_the_loss_of_its_entries() {
    let mut new = Bench::new(2);
    let standing = Standing {
        hands: vec![asking("bob", "")],
        help: vec![],
    };
    let json = serde_json::to_string(&standing).unwrap();
    new.attach(A, vec![entry(900, &broadcast("x"))], &json);
    assert_eq!(new.take(A).hands(), [pair("bob", "")]);
    // The word of the gateway that has heard most counts, whoever comes first.
    for order in [[A, B], [B, A]] {
        let mut new = Bench::new(2);
        for id in order {
            let (seq, standing) = if id == A {
                (901, json.as_str())
            } else {
                (900, "{}")
            };
            new.attach(id, vec![entry(seq, &broadcast("x"))], standing);
        }
        assert_eq!(new.take(order[1]).hands(), [pair("bob", "")]);
    }
    // Nonsense is no standing.
    let mut new = Bench::new(2);
    new.attach(A, Vec::new(), "not json");
    assert_eq!(new.take(A).hands(), []);
}
