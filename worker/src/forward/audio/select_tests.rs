//! Whole rooms in virtual time, a packet per track each 20 ms.

use super::*;

const FRAME: Duration = Duration::from_millis(20);
const POLICY: SpeakerPolicy = SpeakerPolicy {
    speakers: 3,
    from: 10,
};

struct Room {
    now: Instant,
    stage: Stage,
    voices: Vec<(Loudness, u8)>,
}

impl Room {
    fn new(tracks: usize) -> Room {
        let mut stage = Stage::default();
        stage.resize(tracks, POLICY);
        Room {
            now: Instant::now(),
            stage,
            voices: vec![(Loudness::default(), 127); tracks],
        }
    }

    fn say(&mut self, track: usize, dbov: u8) {
        self.voices[track].1 = dbov;
    }

    /// One packet of everybody; who passes.
    fn frame(&mut self) -> Vec<usize> {
        self.now += FRAME;
        let mut passed = Vec::new();
        for (track, (loudness, dbov)) in self.voices.iter_mut().enumerate() {
            let voice = loudness.note(*dbov);
            let admitted = self.stage.admit(TrackKey(track), voice, self.now);
            if self.stage.chooses() {
                assert_eq!(
                    admitted,
                    self.stage.places.iter().any(|p| p.track == TrackKey(track))
                );
                assert!(self.stage.places.len() <= POLICY.speakers);
            }
            if admitted {
                passed.push(track);
            }
        }
        passed
    }

    fn frames(&mut self, time: Duration) -> Vec<Vec<usize>> {
        let count = time.as_millis() / FRAME.as_millis();
        (0..count).map(|_| self.frame()).collect()
    }

    fn settled(&mut self, time: Duration) -> Vec<usize> {
        self.frames(time).pop().unwrap_or_default()
    }
}

fn seconds(n: f64) -> Duration {
    Duration::from_secs_f64(n)
}

#[test]
fn small_rooms_hear_everything() {
    let mut room = Room::new(9);
    assert_eq!(room.frame().len(), 9, "even the silent");
    room.stage.resize(10, POLICY);
    assert_eq!(room.frame().len(), 0);
    room.stage.resize(8, POLICY);
    assert!(room.stage.chooses(), "no flapping at the border");
    room.stage.resize(7, POLICY);
    assert_eq!(room.frame().len(), 9);
    for policy in [
        SpeakerPolicy {
            speakers: 0,
            ..POLICY
        },
        SpeakerPolicy {
            speakers: 100,
            from: 0,
        },
    ] {
        room.stage.resize(100, policy);
        assert!(!room.stage.chooses(), "{policy:?}");
    }
    room.stage.resize(4, SpeakerPolicy { speakers: 3, from: 0 });
    assert!(room.stage.chooses());
    room.stage.resize(3, SpeakerPolicy { speakers: 3, from: 0 });
    assert!(!room.stage.chooses(), "as many places as there are tracks");
}

#[test]
fn a_speaker_is_heard_from_the_first_packet_on() {
    let mut room = Room::new(50);
    assert_eq!(room.settled(seconds(2.0)), Vec::<usize>::new());
    for track in [7, 20, 31] {
        room.say(track, 50);
        assert!(room.frame().contains(&track), "a quiet onset into a free place");
        room.say(track, 30);
        room.frames(seconds(0.5));
    }
    // All three fall silent; they stay until others come, who come in at once.
    for track in [7, 20, 31] {
        room.say(track, 127);
    }
    assert_eq!(room.settled(seconds(5.0)), vec![7, 20, 31]);
    room.say(3, 50);
    assert!(room.frame().contains(&3));
    assert_eq!(room.frame().len(), 3);
}

#[test]
fn a_pause_does_not_cost_the_place() {
    let mut room = Room::new(50);
    for track in [1, 2, 3] {
        room.say(track, 25);
    }
    room.frames(seconds(2.0));
    room.say(2, 127);
    room.frames(seconds(0.5));
    room.say(4, 26);
    let during = room.frames(seconds(0.4));
    assert!(during.iter().all(|passed| *passed == [1, 2, 3]));
    // After a second of silence somebody who speaks is let in at once.
    room.frames(seconds(0.2));
    assert_eq!(room.frame(), vec![1, 3, 4]);
}

#[test]
fn between_speakers_the_louder_wins_after_a_while() {
    let mut room = Room::new(50);
    for (track, level) in [(1, 20), (2, 30), (3, 25)] {
        room.say(track, level);
    }
    room.frames(seconds(2.0));
    room.say(9, 29);
    assert_eq!(
        room.settled(seconds(5.0)),
        vec![1, 2, 3],
        "a decibel is not louder"
    );
    room.say(9, 15);
    let after = room.frames(seconds(2.0));
    let wait = after.iter().position(|passed| passed.contains(&9)).unwrap();
    let waited = FRAME * wait as u32;
    assert!(
        (CHALLENGE..CHALLENGE + seconds(0.2)).contains(&waited),
        "{waited:?}"
    );
    assert_eq!(after.last().unwrap(), &vec![1, 3, 9], "the quietest made room");
    // A shout is not a challenge.
    room.say(12, 1);
    let during = room.frames(seconds(0.3));
    assert!(during.iter().all(|passed| !passed.contains(&12)));
    room.say(12, 127);
    assert_eq!(room.settled(seconds(2.0)), vec![1, 3, 9]);
}

#[test]
fn a_fan_makes_room_for_a_speaker_at_once() {
    let mut room = Room::new(50);
    for track in [10, 11, 12, 13, 14] {
        room.say(track, 45);
    }
    let fans = room.settled(seconds(2.0));
    assert_eq!(fans.len(), 3);
    room.say(40, 30);
    assert!(room.frame().contains(&40));
    let passed = room.frame();
    assert!(passed.contains(&40) && passed.len() == 3, "{passed:?}");
    assert_eq!(room.settled(seconds(3.0)), passed, "and fans don't get it back");
}

#[test]
fn two_that_challenge_at_once_do_not_keep_each_other_out() {
    let mut room = Room::new(50);
    for track in [1, 2, 3] {
        room.say(track, 34);
    }
    room.frames(seconds(2.0));
    for turn in 0..200 {
        // Each is the louder one by turns.
        room.say(8, if turn % 2 == 0 { 10 } else { 14 });
        room.say(9, if turn % 2 == 0 { 14 } else { 10 });
        room.frame();
    }
    let passed = room.frame();
    assert!(passed.contains(&8) && passed.contains(&9), "{passed:?}");
}

/// The model: after everybody has kept one level for some seconds, the loudest are heard.
#[test]
fn steady_voices_end_up_ranked() {
    let mut x = 99u64;
    let mut random = |below: u64| {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) % below
    };
    for round in 0..200 {
        let mut room = Room::new(24);
        // Noise of another time first.
        for _ in 0..random(100) {
            let (track, level) = (random(24) as usize, random(128) as u8);
            room.say(track, level);
            room.frame();
        }
        // Distinct levels, apart by more than the margin: 8, 13, 18, … in any order.
        let mut levels: Vec<u8> = (0..24).map(|i| 8 + 5 * i as u8).collect();
        for i in (1..levels.len()).rev() {
            levels.swap(i, random(i as u64 + 1) as usize);
        }
        for (track, level) in levels.iter().enumerate() {
            room.say(track, *level);
        }
        let heard = room.settled(seconds(10.0));
        let mut ranked: Vec<usize> = (0..24).collect();
        ranked.sort_by_key(|t| levels[*t]);
        let mut loudest = ranked[..3].to_vec();
        loudest.sort_unstable();
        assert_eq!(heard, loudest, "round {round}, {levels:?}");
        let stable = room.frames(seconds(3.0));
        assert!(
            stable.iter().all(|passed| *passed == loudest),
            "and nothing flaps"
        );
    }
}

#[test]
fn never_more_than_the_places_whatever_happens() {
    let mut x = 5u64;
    let mut random = |below: u64| {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) % below
    };
    let mut room = Room::new(20);
    let mut changes = 0;
    let mut before = Vec::new();
    for _ in 0..20_000 {
        let (track, level) = (random(20) as usize, random(128) as u8);
        room.say(track, level);
        // Each frame asserts it.
        let holders = room.frame();
        changes += usize::from(holders != before);
        before = holders;
    }
    assert!(changes > 100, "{changes}");
}
