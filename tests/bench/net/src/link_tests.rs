use std::time::Duration;

use super::{Counters, Link};
use crate::control::Command;

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn link(line: &str) -> Link {
    let mut link = Link::new(fastrand::Rng::with_seed(7));
    tell(&mut link, ms(0), line);
    link
}

fn tell(link: &mut Link, now: Duration, line: &str) {
    match line.parse() {
        Ok(Command::Set { change, .. }) => link.change(now, &change),
        other => panic!("{line}: {other:?}"),
    }
}

/// A packet that says its number, `bytes` long.
fn packet(number: u32, bytes: usize) -> Vec<u8> {
    let mut packet = vec![0; bytes];
    packet[..4].copy_from_slice(&number.to_be_bytes());
    packet
}

/// Everything that leaves until the link is empty: when, and which.
fn drain(link: &mut Link) -> Vec<(Duration, u32)> {
    let mut out = Vec::new();
    while let Some(at) = link.next() {
        while let Some(packet) = link.pop(at) {
            let number = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]);
            out.push((at, number));
        }
    }
    out
}

#[test]
fn a_clear_link_passes_everything_at_once_and_in_order() {
    let mut link = link("down clear");
    for number in 0..100 {
        link.push(ms(5), packet(number, 1500));
    }
    let out = drain(&mut link);
    assert_eq!(out, (0..100).map(|n| (ms(5), n)).collect::<Vec<_>>());
    assert_eq!(
        link.counters(),
        Counters {
            offered: 100,
            passed: 100,
            passed_bytes: 150_000,
            ..Counters::default()
        }
    );
}

#[test]
fn delay_is_the_same_for_all() {
    let mut link = link("down delay=100ms");
    link.push(ms(0), packet(0, 100));
    assert_eq!(link.pop(ms(99)), None);
    link.push(ms(99), packet(1, 100));
    assert_eq!(drain(&mut link), [(ms(100), 0), (ms(199), 1)]);
}

#[test]
fn a_rate_spaces_packets_and_an_idle_line_saves_nothing_up() {
    // 1,000 bytes take 8 ms.
    let mut link = link("down rate=1M");
    for number in 0..3 {
        link.push(ms(0), packet(number, 1000));
    }
    assert_eq!(drain(&mut link), [(ms(8), 0), (ms(16), 1), (ms(24), 2)]);
    link.push(ms(1000), packet(3, 1000));
    link.push(ms(1000), packet(4, 1000));
    assert_eq!(drain(&mut link), [(ms(1008), 3), (ms(1016), 4)]);
}

#[test]
fn a_full_queue_drops_the_last_to_come() {
    // 100 ms at 1 Mbit/s are 12,500 bytes: twelve packets, the one being sent included.
    let mut link = link("down rate=1M queue=100ms");
    for number in 0..20 {
        link.push(ms(0), packet(number, 1000));
    }
    // One has left by then: there is room for one more.
    link.push(ms(8), packet(20, 1000));
    link.push(ms(8), packet(21, 1000));
    let out: Vec<u32> = drain(&mut link).into_iter().map(|(_, n)| n).collect();
    assert_eq!(out, (0..12).chain([20]).collect::<Vec<_>>());
    assert_eq!((link.counters().full, link.counters().passed), (9, 13));
}

#[test]
fn a_slow_line_with_a_short_queue_still_passes_a_packet() {
    let mut link = link("down rate=8k queue=10ms");
    link.push(ms(0), packet(0, 1500));
    assert_eq!(drain(&mut link), [(ms(1500), 0)]);
}

#[test]
fn a_change_of_the_rate_holds_for_those_who_wait() {
    let mut link = link("down rate=1M");
    link.push(ms(0), packet(0, 1000));
    link.push(ms(0), packet(1, 1000));
    // Half of the first is sent; the other half takes ten times as long.
    tell(&mut link, ms(4), "down rate=100k");
    assert_eq!(link.next(), Some(ms(44)));
    tell(&mut link, ms(44), "down rate=1M");
    assert_eq!(drain(&mut link), [(ms(44), 0), (ms(52), 1)]);
    link.push(ms(100), packet(2, 1000));
    tell(&mut link, ms(101), "down rate=none");
    assert_eq!(drain(&mut link), [(ms(101), 2)]);
}

#[test]
fn jitter_stays_within_bounds_and_keeps_the_order() {
    let mut link = link("down delay=100ms jitter=30ms");
    for number in 0..1000 {
        link.push(ms(20 * u64::from(number)), packet(number, 100));
    }
    let out = drain(&mut link);
    assert!(out.iter().map(|(_, n)| *n).eq(0..1000));
    let delays: Vec<Duration> = out.iter().map(|(at, n)| *at - ms(20 * u64::from(*n))).collect();
    assert!(delays.iter().all(|d| (ms(70)..=ms(130)).contains(d)));
    let (least, most) = (delays.iter().min(), delays.iter().max());
    assert!(
        least < Some(&ms(90)) && most > Some(&ms(125)),
        "{least:?} {most:?}"
    );
}

#[test]
fn jitter_overtakes_where_it_may() {
    let mut link = link("down delay=100ms jitter=30ms reorder=on");
    for number in 0..1000 {
        link.push(ms(u64::from(number)), packet(number, 100));
    }
    let out = drain(&mut link);
    assert_eq!(out.len(), 1000);
    assert!(out.windows(2).any(|pair| pair[0].1 > pair[1].1));
    // Both ends of the range are reached, since nobody waits for others.
    let early = |(at, n): &(Duration, u32)| *at - ms(u64::from(*n)) < ms(72);
    assert!(out.iter().any(early));
}

#[test]
fn a_shorter_delay_lets_nobody_overtake() {
    let mut link = link("down delay=100ms");
    link.push(ms(0), packet(0, 100));
    tell(&mut link, ms(10), "down delay=0ms");
    link.push(ms(10), packet(1, 100));
    assert_eq!(drain(&mut link), [(ms(100), 0), (ms(100), 1)]);
}

/// Which of `count` packets were lost.
fn losses(line: &str, count: u32) -> Vec<bool> {
    let mut link = link(line);
    (0..count)
        .map(|number| {
            let before = link.counters().lost;
            link.push(ms(0), packet(number, 100));
            assert!(link.pop(ms(0)).is_some() != (link.counters().lost > before));
            link.counters().lost > before
        })
        .collect()
}

/// The share of packets lost, and the mean length of a loss.
fn shape(losses: &[bool]) -> (f64, f64) {
    let lost = losses.iter().filter(|lost| **lost).count();
    let begun = losses.windows(2).filter(|pair| !pair[0] && pair[1]).count();
    (lost as f64 / losses.len() as f64, lost as f64 / begun as f64)
}

#[test]
fn random_loss_has_its_share_and_no_memory() {
    let (share, length) = shape(&losses("down loss=10%", 100_000));
    assert!((share - 0.1).abs() < 0.005, "{share}");
    // Without memory a loss is 1/(1 - share) long.
    assert!((length - 1.0 / 0.9).abs() < 0.05, "{length}");
}

#[test]
fn burst_loss_has_its_share_and_its_length() {
    let (share, length) = shape(&losses("down loss=10% burst=5", 400_000));
    assert!((share - 0.1).abs() < 0.01, "{share}");
    assert!((length - 5.0).abs() < 0.3, "{length}");
}

#[test]
fn no_loss_loses_nothing_and_full_loss_everything() {
    assert!(!losses("down burst=5", 1000).contains(&true));
    assert!(!losses("down loss=100%", 1000).contains(&false));
    assert!(!losses("down loss=100% burst=5", 1000).contains(&false));
}

#[test]
fn the_same_seed_loses_the_same() {
    assert_eq!(
        losses("down loss=20% burst=2", 1000),
        losses("down loss=20% burst=2", 1000)
    );
}

#[test]
fn a_lost_packet_takes_no_room_on_the_line() {
    let mut link = link("down loss=100% rate=1M");
    link.push(ms(0), packet(0, 1000));
    tell(&mut link, ms(0), "down loss=0%");
    link.push(ms(0), packet(1, 1000));
    assert_eq!(drain(&mut link), [(ms(8), 1)]);
}
