use super::super::state::{HELD, LISTEN, MAX_SIGNAL};
use super::*;

#[test]
fn all_gateways_get_the_same_in_the_same_order() {
    let mut bench = Bench::settled();
    bench.attach(B, Vec::new(), "");
    let attached = bench.take(B);
    assert_eq!((attached.caught_up, attached.entries.len()), (Some(0), 0));
    for text in ["one", "two", "three"] {
        bench.post(&broadcast(text), &Audience::Rooms(vec!["red".into()]));
    }
    let (a, b) = (bench.take(A), bench.take(B));
    assert_eq!(a.entries, b.entries);
    assert_eq!(a.seqs(), [1, 2, 3]);
    assert_eq!(a.signals()[1], broadcast("two"));
    assert_eq!(a.audiences()[1], Audience::Rooms(vec!["red".into()]));
    assert_eq!(a.entries[0].at_ms, bench.now.unix_ms);
}

#[test]
fn who_attaches_gets_exactly_what_it_lacks() {
    let mut bench = Bench::settled();
    for text in ["one", "two", "three"] {
        bench.post(&broadcast(text), &Audience::Everyone);
    }
    let entries = bench.take(A).entries;
    for has in 0..=3_usize {
        let mut tail = entries[..has].to_vec();
        tail.reverse();
        bench.counts.clear();
        bench.attach(GatewayId(10 + has as u64), tail, "");
        let sent = bench.take(GatewayId(10 + has as u64));
        assert_eq!(sent.entries, entries[has..]);
        assert_eq!(sent.caught_up, Some(3));
        assert!(sent.standing.is_some());
        assert_eq!(bench.counts, [Count::Replayed(3 - has as u64)]);
    }
    assert!(bench.take(A).entries.is_empty());
}

#[test]
fn a_new_hub_listens_before_it_numbers() {
    let mut bench = Bench::new(1);
    bench.assign(vec![room("red", true)]);
    // Nobody is there: nothing to say and nobody to hear.
    bench.pass(LISTEN * 100);
    bench.attach(A, Vec::new(), "");
    bench.post(&broadcast("early"), &Audience::Everyone);
    bench.pass(LISTEN / 2);
    let sent = bench.take(A);
    assert_eq!((sent.entries.len(), sent.caught_up), (0, Some(0)));
    bench.pass(LISTEN / 2);
    let sent = bench.take(A);
    assert_eq!(sent.seqs(), [1, 2]);
    assert!(matches!(sent.signals()[0], Signal::BreakoutRoom { .. }));
    assert_eq!(sent.signals()[1], broadcast("early"));
}

#[test]
fn seeds_are_taken_over_and_everybody_gets_what_the_others_had() {
    let mut bench = Bench::new(2);
    let text = |seq: u64| entry(seq, &broadcast(&seq.to_string()));
    bench.attach(A, vec![text(4), text(5)], "");
    bench.attach(B, vec![text(5), text(6), text(7)], "");
    let a = bench.take(A);
    assert_eq!(a.entries, [text(6), text(7)]);
    let b = bench.take(B);
    assert!(b.entries.is_empty());
    bench.attach(GatewayId(3), Vec::new(), "");
    assert_eq!(bench.take(GatewayId(3)).seqs(), [4, 5, 6, 7]);
    bench.pass(LISTEN);
    bench.post(&broadcast("own"), &Audience::Everyone);
    assert!(bench.take(A).seqs()[0] > 7);
}

#[test]
fn of_two_seeds_that_disagree_the_first_wins() {
    let mut bench = Bench::new(1);
    bench.attach(A, vec![entry(1, &broadcast("first"))], "");
    bench.attach(B, vec![entry(1, &broadcast("second"))], "");
    bench.attach(GatewayId(3), Vec::new(), "");
    let sent = bench.take(GatewayId(3));
    assert_eq!(sent.signals(), [broadcast("first")]);
}

#[test]
fn a_late_seed_is_remembered_without_disturbing_the_order() {
    let mut bench = Bench::new(2);
    bench.attach(A, vec![entry(4, &broadcast("4"))], "");
    bench.pass(LISTEN);
    bench.post(&broadcast("own"), &Audience::Everyone);
    let own = bench.take(A).seqs()[0];
    bench.attach(B, vec![entry(5, &broadcast("5"))], "");
    assert_eq!(bench.take(B).seqs(), [own]);
    assert!(bench.take(A).entries.is_empty());
    // Whoever attaches anew gets all of it.
    bench.attach(GatewayId(3), Vec::new(), "");
    assert_eq!(bench.take(GatewayId(3)).seqs(), [4, 5, own]);
}

#[test]
fn a_gateway_ahead_of_a_hub_that_has_spoken_pulls_the_numbers_up() {
    // The process was started anew at the same epoch, and one gateway came late.
    let mut bench = Bench::settled();
    bench.post(&broadcast("own"), &Audience::Everyone);
    bench.take(A);
    bench.attach(B, vec![entry(8, &broadcast("8"))], "");
    assert_eq!(bench.take(A).seqs(), [8]);
    bench.post(&broadcast("next"), &Audience::Everyone);
    assert_eq!((bench.take(A).seqs(), bench.take(B).seqs()), (vec![9], vec![9]));
}

#[test]
fn what_is_no_post_is_counted_and_nothing_else() {
    let mut bench = Bench::settled();
    let post = |signal: &str, audience: &str| Post {
        signal_json: signal.into(),
        audience_json: audience.into(),
    };
    let good = serde_json::to_string(&broadcast("x")).unwrap();
    let long = serde_json::to_string(&broadcast(&"x".repeat(4_001))).unwrap();
    let rooms = r#"{"signal":"breakout-room","message":"roomCreated","mode":"manual","rooms":[]}"#;
    let timer = r#"{"signal":"count-down-timer","period":1,"closesAt":1,"now":0,"rooms":[]}"#;
    let cases = [
        (post("", "\"everyone\""), Refusal::Signal),
        (post(r#"{"signal":"telepathy"}"#, "\"everyone\""), Refusal::Signal),
        (post(&good, ""), Refusal::Audience),
        (post(&good, "\"nobody\""), Refusal::Audience),
        (post(rooms, "\"everyone\""), Refusal::HubsOwn),
        (post(timer, "\"everyone\""), Refusal::HubsOwn),
        (post(&long, "\"everyone\""), Refusal::TooLarge),
        (
            post(&" ".repeat(MAX_SIGNAL + 1), "\"everyone\""),
            Refusal::TooLarge,
        ),
        (post(&good, &" ".repeat(MAX_SIGNAL)), Refusal::TooLarge),
    ];
    for (post, reason) in cases {
        bench.counts.clear();
        bench.run(|hub, now, out| hub.post(post, now, out));
        assert_eq!(bench.refused(), [reason]);
        assert!(bench.take(A).entries.is_empty());
    }
    let all = [
        broadcast(&"\u{1}".repeat(4_000)),
        hand("a", "", true),
        help("a", "", true),
        Signal::MessageToHosts {
            who: asking("a", ""),
            text: "x".into(),
        },
        Signal::ParticipantSwitched {
            identity: "a".into(),
            from: None,
            to: None,
            failed: None,
        },
    ];
    bench.counts.clear();
    for signal in &all {
        bench.post(signal, &Audience::Everyone);
    }
    assert_eq!(bench.take(A).signals(), all);
    assert!(bench.refused().is_empty());
    let kinds: Vec<Count> = all.iter().map(|s| Count::Numbered(s.kind())).collect();
    assert_eq!(bench.counts, kinds);
}

#[test]
fn only_so_much_is_kept_while_listening() {
    let mut bench = Bench::new(1);
    bench.attach(A, Vec::new(), "");
    for _ in 0..HELD + 5 {
        bench.post(&broadcast("x"), &Audience::Everyone);
    }
    assert_eq!(bench.refused(), [Refusal::TooMany; 5]);
    bench.pass(LISTEN);
    assert_eq!(bench.take(A).entries.len(), HELD);
}
