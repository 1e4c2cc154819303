use plenum_protocol::{BreakoutMessage, Mode, Signal};
use plenum_worker_api::v1::MeetingEntry;

use super::super::journal::{AGE_MS, BYTES, ENTRIES, Journal, MAX_SEQ};
use super::{broadcast, entry};

const T: i64 = 1_790_000_000_000;

fn push(journal: &mut Journal, signal: &Signal, now_ms: i64) -> u64 {
    let json = serde_json::to_string(signal).unwrap();
    journal.push(signal, json, "\"everyone\"".into(), now_ms).unwrap()
}

fn rooms() -> Signal {
    Signal::BreakoutRoom {
        message: BreakoutMessage::RoomCreated,
        mode: Mode::Manual,
        allow_return_to_main: true,
        allow_cancel: false,
        rooms: Vec::new(),
    }
}

fn timer(closes_at: i64, rooms: &[&str]) -> Signal {
    Signal::CountDownTimer {
        period: 1,
        closes_at,
        now: T,
        rooms: rooms.iter().map(|&r| r.to_owned()).collect(),
    }
}

fn seqs(journal: &Journal) -> Vec<u64> {
    journal.after(0).map(|e| e.seq).collect()
}

#[test]
fn numbers_begin_with_one_and_each_epoch_begins_above_the_former() {
    let mut first = Journal::new(1);
    assert_eq!(push(&mut first, &broadcast("a"), T), 1);
    assert_eq!(push(&mut first, &broadcast("b"), T), 2);
    let mut second = Journal::new(2);
    assert!(push(&mut second, &broadcast("c"), T) > 2);
    // As 0 is no epoch in force, it needs no numbers of its own.
    assert_eq!(Journal::new(0).last(), 0);
    assert!(push(&mut Journal::new(u64::MAX), &broadcast("d"), T) < MAX_SEQ);
}

#[test]
fn numbering_goes_on_above_what_was_seen() {
    let mut journal = Journal::new(2);
    let base = journal.last();
    assert!(journal.take_over(entry(base + 7, &broadcast("seen"))));
    assert_eq!(push(&mut journal, &broadcast("own"), T), base + 8);
    assert_eq!(seqs(&journal), [base + 7, base + 8]);
}

#[test]
fn the_first_to_claim_a_number_has_it() {
    let mut journal = Journal::new(1);
    assert!(journal.take_over(entry(3, &broadcast("first"))));
    assert!(!journal.take_over(entry(3, &broadcast("second"))));
    let kept: Vec<&MeetingEntry> = journal.after(0).collect();
    assert!(kept.len() == 1 && kept[0].signal_json.contains("first"));
}

#[test]
fn numbers_that_no_hub_gives_are_not_taken() {
    let mut journal = Journal::new(1);
    for seq in [0, MAX_SEQ, u64::MAX] {
        assert!(!Journal::plausible(&entry(seq, &broadcast("x"))));
    }
    assert!(journal.take_over(entry(MAX_SEQ - 1, &broadcast("x"))));
    assert_eq!(push(&mut journal, &broadcast("the last one"), T), MAX_SEQ);
    let signal = broadcast("too late");
    assert!(journal.push(&signal, String::new(), String::new(), T).is_none());
}

#[test]
fn a_signal_of_a_later_version_is_passed_on_as_it_is() {
    let mut journal = Journal::new(1);
    let later = MeetingEntry {
        signal_json: r#"{"signal":"telepathy"}"#.into(),
        ..entry(4, &broadcast(""))
    };
    assert!(journal.take_over(later.clone()));
    assert_eq!(journal.after(0).collect::<Vec<_>>(), [&later]);
    assert_eq!(journal.signals().count(), 0);
}

#[test]
fn count_bytes_and_age_are_bounded() {
    let mut journal = Journal::new(1);
    for _ in 0..ENTRIES + 10 {
        push(&mut journal, &broadcast("x"), T);
    }
    assert_eq!(journal.size().0, ENTRIES);
    assert_eq!(seqs(&journal).first(), Some(&11));

    let mut journal = Journal::new(1);
    let long = broadcast(&"x".repeat(10_000));
    for _ in 0..200 {
        push(&mut journal, &long, T);
    }
    let (count, bytes) = journal.size();
    assert!(
        bytes <= BYTES && bytes > BYTES - 20_000 && count < 110,
        "{count} {bytes}"
    );

    let mut journal = Journal::new(1);
    push(&mut journal, &broadcast("old"), T);
    push(&mut journal, &broadcast("young"), T + 2);
    journal.trim(T + AGE_MS);
    assert_eq!(seqs(&journal), [1, 2]);
    journal.trim(T + AGE_MS + 1);
    assert_eq!(seqs(&journal), [2]);
    // What is forgotten keeps its number.
    journal.trim(T + AGE_MS * 2);
    assert_eq!((journal.last(), push(&mut journal, &broadcast("new"), T)), (2, 3));
}

#[test]
fn what_the_next_hub_must_know_is_kept() {
    let mut journal = Journal::new(1);
    push(&mut journal, &rooms(), T); // 1: not the newest
    push(&mut journal, &rooms(), T); // 2
    push(&mut journal, &timer(T + AGE_MS * 9, &["red"]), T); // 3: red has a newer one
    push(&mut journal, &timer(T + AGE_MS * 9, &["red", "blue"]), T); // 4
    push(&mut journal, &timer(T + AGE_MS, &["green"]), T); // 5: over
    push(&mut journal, &timer(T + AGE_MS * 8, &["blue"]), T); // 6
    push(&mut journal, &broadcast("x"), T); // 7
    journal.trim(T + AGE_MS * 2);
    assert_eq!(seqs(&journal), [2, 4, 6]);
    for _ in 0..ENTRIES * 2 {
        push(&mut journal, &broadcast("x"), T + AGE_MS * 2);
    }
    assert_eq!(seqs(&journal)[..3], [2, 4, 6]);
    assert_eq!(journal.size().0, ENTRIES);
}
