//! Who speaks, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;

use super::{Stage, audio};
use crate::room::{Action, Notice};
use crate::session::api::{AudioLevel, SessionId, TrackSid};

struct Scene {
    stage: Stage,
    alice: SessionId,
    bob: SessionId,
    mic: TrackSid,
}

fn scene() -> Scene {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let mic = stage.publish(alice, audio("mic"));
    stage.pass(Duration::from_secs(1));
    stage.clear();
    Scene {
        stage,
        alice,
        bob,
        mic,
    }
}

impl Scene {
    fn hear(&mut self, reports: usize, level_dbov: u8, active_ratio: f32) {
        for _ in 0..reports {
            let level = AudioLevel {
                session: self.alice,
                sid: Arc::clone(&self.mic),
                level_dbov,
                active_ratio,
            };
            self.stage.hall.levels(vec![level]);
            self.stage.pass(Duration::from_millis(100));
        }
    }

    fn told(&self) -> Vec<lk::SpeakerInfo> {
        self.stage
            .told(self.bob)
            .into_iter()
            .filter_map(|n| match n {
                Notice::Speakers(s) => Some(s),
                _ => None,
            })
            .flatten()
            .collect()
    }
}

#[test]
fn speaking_and_falling_silent_is_told_once_each() {
    let mut scene = scene();
    scene.hear(20, 15, 1.0);
    let told = scene.told();
    assert!(!told.is_empty() && told.len() <= 4, "{told:?}");
    assert!(told.iter().all(|s| s.active && s.level > 0.0));
    scene.stage.clear();
    scene.stage.pass(Duration::from_secs(2));
    let told = scene.told();
    assert_eq!(told.len(), 1);
    assert!(!told[0].active && told[0].level == 0.0);
}

#[test]
fn two_fifths_of_the_time_is_speech() {
    for (share, active) in [(0.39, false), (0.41, true)] {
        let mut scene = scene();
        scene.hear(8, 20, share);
        assert_eq!(scene.told().iter().any(|s| s.active), active, "{share}");
    }
    // The same in one piece: two of four reports.
    let mut scene = scene();
    for _ in 0..3 {
        scene.hear(2, 20, 1.0);
        scene.stage.pass(Duration::from_millis(200));
    }
    assert!(scene.told().iter().any(|s| s.active));
}

#[test]
fn the_level_is_smoothed_over_two_windows_and_told_once_per_window() {
    let mut scene = scene();
    let mut steps = Vec::new();
    for _ in 0..24 {
        scene.hear(1, 7, 1.0);
        let told = scene.told();
        assert!(told.len() <= 1);
        steps.extend(told.iter().map(|s| s.level));
        scene.stage.clear();
    }
    // 0.45 of the amplitude: of the first window perhaps a part, and two thirds of that, in eighths.
    assert!(steps.is_sorted() && steps.len() <= 3, "{steps:?}");
    assert!(steps[0] <= 0.375 && steps.last() == Some(&0.5), "{steps:?}");
    // What is loud half of the time is told as half as loud.
    let mut half = self::scene();
    half.hear(24, 7, 0.5);
    assert_eq!(half.told().last().unwrap().level, 0.25);
}

#[test]
fn what_a_shared_screen_plays_is_nobodys_voice() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let mic = stage.publish(
        alice,
        lk::AddTrackRequest {
            source: lk::TrackSource::ScreenShareAudio as i32,
            ..audio("tab")
        },
    );
    stage.pass(Duration::from_secs(1));
    stage.clear();
    let mut scene = Scene {
        stage,
        alice,
        bob,
        mic,
    };
    scene.hear(20, 6, 1.0);
    assert!(scene.told().is_empty());
}

#[test]
fn a_cough_is_not_speech() {
    let mut scene = scene();
    for _ in 0..5 {
        // 30 % of one report in four: 7.5 % of the window.
        scene.hear(1, 10, 0.3);
        scene.hear(3, 127, 0.0);
    }
    assert!(scene.told().is_empty());
}

#[test]
fn the_muted_and_the_gone_do_not_speak() {
    let mut scene = scene();
    let (alice, mic) = (scene.alice, Arc::clone(&scene.mic));
    scene.stage.act(
        alice,
        Action::Mute {
            sid: mic,
            muted: true,
        },
    );
    scene.hear(8, 5, 1.0);
    assert!(scene.told().is_empty());
    let mic = Arc::clone(&scene.mic);
    scene.stage.act(
        alice,
        Action::Mute {
            sid: mic,
            muted: false,
        },
    );
    scene.hear(8, 5, 1.0);
    assert!(scene.told().last().unwrap().active);
    scene.stage.act(alice, Action::Leave);
    assert!(!scene.told().last().unwrap().active);
}

#[test]
fn louder_is_higher_and_told_in_steps() {
    let mut quiet = scene();
    quiet.hear(20, 30, 1.0);
    let mut loud = scene();
    loud.hear(20, 3, 1.0);
    let (quiet, loud) = (
        quiet.told().last().unwrap().level,
        loud.told().last().unwrap().level,
    );
    assert!(quiet < loud, "{quiet} {loud}");
    assert_eq!((loud * 8.0).fract(), 0.0);
}
