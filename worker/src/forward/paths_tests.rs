//! What subscribers see over links of all kinds.

use super::super::congestion::link::Link;
use super::world::{SUBSCRIBER, World, pair, route};
use crate::session::api::TrackSid;

#[test]
fn a_narrow_path_gets_the_layer_that_fits_and_a_wider_one_more() {
    for seed in 0..4 {
        let mut w = World::new(Link::new(400e3, seed), true, 3);
        w.link.jitter = 2_000;
        w.run(3);
        w.subscribe();
        w.run(6);
        let narrow = w.run(24);
        assert_eq!(w.layer(), Some(0), "{seed}");
        let freeze = w.decoder.freeze(narrow.0, narrow.1);
        assert!(freeze < 500_000, "{seed}: {freeze}");
        assert!(w.sound_share(narrow) > 0.98, "{seed}: {}", w.sound_share(narrow));

        w.link.rate = 5e6;
        let opens = w.run(25);
        assert_eq!(w.layer(), Some(2), "{seed}");
        let freeze = w.decoder.freeze(opens.0, opens.1);
        assert!(freeze < 500_000, "{seed}: {freeze}");

        w.link.rate = 800e3;
        w.run(5);
        let steady = w.run(25);
        assert_eq!(w.layer(), Some(1), "{seed}");
        let freeze = w.decoder.freeze(steady.0, steady.1);
        assert!(freeze < 500_000, "{seed}: {freeze}");
        assert!(w.told.is_empty(), "{seed}: {:?}", w.told);
        assert!(w.padding > 0, "{seed}: nobody probed");
    }
}

#[test]
fn a_wide_path_is_used_within_seconds() {
    for seed in 0..4 {
        let mut w = World::new(Link::new(8e6, seed), true, 3);
        w.run(3);
        w.subscribe();
        let start = w.now;
        w.run(6);
        let high = w.decoder.decoded.iter().find(|d| d.1 == 2).map(|d| d.0 - start);
        assert!(high.is_some_and(|at| at < 4_000_000), "{seed}: {high:?}");
        let (from, to) = w.run(20);
        assert!(w.decoder.freeze(from, to) < 300_000, "{seed}");
        assert!(
            w.decoder.decoded.iter().filter(|d| d.0 > from).all(|d| d.1 == 2),
            "{seed}"
        );
        let padding = w.padding;
        w.run(10);
        assert_eq!(w.padding, padding, "{seed}: there is nothing left to probe for");
    }
}

#[test]
fn what_does_not_fit_at_all_pauses_and_is_told_and_comes_back() {
    for seed in 0..4 {
        let mut w = World::new(Link::new(2e6, seed), true, 1);
        w.run(3);
        w.subscribe();
        w.run(10);
        assert_eq!(w.layer(), Some(0), "{seed}");
        w.link.rate = 100e3;
        w.run(20);
        assert_eq!(
            w.told.iter().map(|t| t.1).collect::<Vec<_>>(),
            [true],
            "{seed}: {:?}",
            w.told
        );
        let paused = w.run(5);
        assert!(w.sound_share(paused) > 0.98, "{seed}: {}", w.sound_share(paused));
        w.link.rate = 2e6;
        w.run(25);
        assert_eq!(w.told.last().map(|t| t.1), Some(false), "{seed}: {:?}", w.told);
        let (from, to) = w.run(2);
        assert!(w.decoder.freeze(from, to) < 300_000, "{seed}");
    }
}

#[test]
fn without_feedback_nothing_is_held_back() {
    let mut w = World::new(Link::new(8e6, 1), false, 3);
    w.run(3);
    w.subscribe();
    w.run(5);
    assert_eq!(w.layer(), Some(2));
    assert_eq!((w.numbered, w.padding), (0, 0));
    assert!(w.f.peer(w.subscriber).unwrap().outgoing.path.is_none());
}

#[test]
fn before_the_keys_are_there_nothing_spins() {
    let mut w = World::new(Link::new(8e6, 1), true, 3);
    w.run(3);
    let late = w.f.add_peer(3);
    w.subscriber = late;
    w.subscribe();
    let mut busy = 0;
    for _ in 0..2_000 {
        w.step();
        let now = w.at(w.now);
        busy += u32::from(w.f.next_timeout().is_some_and(|at| at <= now));
    }
    // The timers of 20 ms are run within the step.
    assert!(busy < 10, "{busy}");
    let (here, receiver) = pair();
    w.receiver = receiver;
    w.f.set_route(late, route(SUBSCRIBER));
    w.f.set_keys(late, here);
    w.run(6);
    assert_eq!(w.layer(), Some(2));
    assert!(w.padding > 0);
}

type Hardship = fn(&mut World);

/// Ends and links as they are: frames of all sizes, large key frames, rare feedback, a busy machine, loss.
const HARDSHIPS: [(&str, Hardship); 6] = [
    ("plain", |_| {}),
    ("uneven frames", |w| (w.noise, w.key_size) = (0.6, 8)),
    ("rare feedback", |w| w.feedback = 250_000),
    ("busy machine", |w| w.busy = 60_000),
    ("jitter", |w| w.link.jitter = 30_000),
    ("all of it", |w| {
        (w.noise, w.key_size, w.feedback, w.busy) = (0.6, 8, 100_000, 40_000);
        (w.link.jitter, w.link.loss) = (10_000, 0.01);
    }),
];

#[test]
fn the_only_picture_is_not_taken_from_a_link_that_carries_it() {
    let mut found = String::new();
    for (name, hard) in HARDSHIPS {
        for seed in 0..2 {
            for rate in [300e3, 400e3] {
                let mut w = World::new(Link::new(rate, seed), true, 3);
                hard(&mut w);
                w.rates[0] = 180e3;
                w.run(3);
                w.subscribe();
                w.crowd(30_000);
                w.run(6);
                let (from, to) = w.run(20);
                let freeze = w.decoder.freeze(from, to);
                let sound = w.sound_share((from, to));
                let fps = w.decoder.frames(from, to) as f64 / 20.0;
                if !w.told.is_empty() || freeze > 500_000 || sound < 0.95 || fps < 13.0 {
                    found += &format!("{name}, {rate}, {seed}: {:?} {freeze} {sound} {fps}\n", w.told);
                }
            }
        }
    }
    assert_eq!(found, "");
}

#[test]
fn a_link_that_narrows_is_followed_without_a_pause() {
    let mut found = String::new();
    for (name, hard) in HARDSHIPS {
        for seed in 0..2 {
            let mut w = World::new(Link::new(3e6, seed), true, 3);
            hard(&mut w);
            w.run(3);
            w.subscribe();
            w.run(12);
            let high = w.layer();
            w.link.rate = 400e3;
            let (from, to) = w.run(8);
            let freeze = w.decoder.freeze(from, to);
            let low = w.layer();
            w.link.rate = 3e6;
            let (back, end) = w.run(25);
            let up = w.decoder.decoded.iter().find(|d| d.0 > back && d.1 > 0);
            let up = up.map(|d| d.0 - back);
            let late = w.decoder.freeze(back, end);
            // At once narrow: the queue is full before anybody knows, and a key frame comes behind it.
            let fine = freeze < 1_600_000 && low == Some(0) && late < 500_000 && w.told.is_empty();
            if !fine || up.is_none() {
                found += &format!(
                    "{name}, {seed}: {high:?} {freeze} {low:?} {up:?} {late} {:?}\n",
                    w.told
                );
            }
        }
    }
    assert_eq!(found, "");
}

/// How long after subscribing a subscriber has its first picture.
fn first_picture(w: &mut World) -> i64 {
    let start = w.now;
    w.subscribe();
    w.run(2);
    w.decoder.decoded.first().expect("a picture").0 - start
}

#[test]
fn a_key_frame_comes_while_a_session_negotiates() {
    for seed in 0..4 {
        let first = |anticipates: bool| {
            let mut w = World::new(Link::new(8e6, seed), true, 1);
            w.run(3);
            if anticipates {
                w.f.anticipate(&TrackSid::from("V"), w.subscriber, w.at(w.now));
            }
            w.run_for(120_000);
            let first = first_picture(&mut w);
            assert_eq!(w.requests, 1, "of key frames");
            first
        };
        let (with, without) = (first(true), first(false));
        assert!(with + 30_000 <= without, "{seed}: {with}, {without}");
    }
}

#[test]
fn nothing_is_asked_for_where_there_is_something_to_begin_with() {
    let mut w = World::new(Link::new(8e6, 1), true, 1);
    w.run_for(300_000);
    w.f.anticipate(&TrackSid::from("V"), w.subscriber, w.at(w.now));
    w.run_for(100_000);
    first_picture(&mut w);
    assert_eq!(w.requests, 0, "there was one 0.3 s before");
}

#[test]
fn a_receiver_that_is_set_up_after_the_first_key_frame_gets_it_again() {
    for seed in 0..4 {
        let mut w = World::new(Link::new(8e6, seed), true, 3);
        w.run(1);
        w.subscribe();
        w.run(12);
        w.unsubscribe();
        w.f.anticipate(&TrackSid::from("V"), w.subscriber, w.at(w.now));
        w.run_for(120_000);
        w.deaf = w.now + 90_000;
        let first = first_picture(&mut w);
        // Then a frame that it can make nothing of, there and back.
        let most = 90_000 + 1_000_000 / 15 + 3 * w.link.delay + 20_000;
        assert!(first <= most, "{seed}: {first}, {most}");
    }
}
