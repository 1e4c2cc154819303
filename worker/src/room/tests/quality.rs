//! How well people's connections serve them, as everybody is told, and what rooms know of streams.

use livekit_protocol as lk;
use livekit_protocol::ConnectionQuality::{self, Excellent, Lost, Poor};

use super::{ROOM, Stage, audio, entry, full_grant, video};
use crate::quality::tracker::Facts;
use crate::room::{Action, Notice, Outbox, RoomName, RoomSpec, Transfer};
use crate::session::api::{Quality, SessionId};

/// A round of statistics; who was told what about whom.
fn round(stage: &mut Stage, measured: &[(SessionId, ConnectionQuality)]) {
    let measured: Vec<(SessionId, ConnectionQuality, f32)> =
        measured.iter().map(|(s, q)| (*s, *q, 4.0)).collect();
    let mut out = Outbox::default();
    stage.clear();
    stage.hall.qualities(&measured, &mut out);
    stage.out.extend(out.0);
}

fn told(stage: &Stage, session: SessionId) -> Vec<(String, i32)> {
    let mut told: Vec<(String, i32)> = stage
        .told(session)
        .into_iter()
        .filter_map(|n| match n {
            Notice::Quality(infos) => Some(infos),
            _ => None,
        })
        .flatten()
        .map(|info| (info.participant_sid, info.quality))
        .collect();
    told.sort();
    told
}

fn sid(stage: &Stage, room: &str, identity: &str) -> String {
    stage
        .hall
        .room(room)
        .unwrap()
        .participant(identity)
        .unwrap()
        .sid
        .to_string()
}

fn expected(mut list: Vec<(String, ConnectionQuality)>) -> Vec<(String, i32)> {
    list.sort();
    list.into_iter()
        .map(|(sid, quality)| (sid, quality as i32))
        .collect()
}

#[test]
fn everybody_sees_everybodys() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let (a, b) = (sid(&stage, ROOM, "alice"), sid(&stage, ROOM, "bob"));
    round(&mut stage, &[(alice, Excellent), (bob, Poor)]);
    let both = expected(vec![(a.clone(), Excellent), (b.clone(), Poor)]);
    for session in [alice, bob] {
        assert_eq!(told(&stage, session), both);
    }
    // The same again is no news; a change is told at the next round.
    round(&mut stage, &[(alice, Excellent), (bob, Poor)]);
    assert!(stage.out.is_empty());
    round(&mut stage, &[(alice, Excellent), (bob, Lost)]);
    for session in [alice, bob] {
        assert_eq!(told(&stage, session), expected(vec![(b.clone(), Lost)]));
    }
    // A newcomer is told all, though nothing has changed; the unseen are not told of.
    let carol = stage.join("carol");
    let ghost = stage.join_as(super::Entry {
        grant: crate::room::Grant {
            hidden: true,
            ..full_grant()
        },
        ..entry("ghost")
    });
    round(&mut stage, &[(alice, Excellent), (bob, Lost), (ghost, Poor)]);
    assert_eq!(told(&stage, alice), []);
    let all = expected(vec![(a.clone(), Excellent), (b.clone(), Lost)]);
    assert_eq!(told(&stage, carol), all);
    assert_eq!(told(&stage, ghost), all);
}

#[test]
fn whoever_moves_sees_the_others_there_and_is_seen() {
    const RED: &str = "team/standup/red";
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    stage.assign(RoomSpec::open(RoomName::from(RED)));
    round(&mut stage, &[(alice, Excellent), (bob, Excellent)]);
    for who in [alice, bob] {
        let order = Transfer {
            room: RoomName::from(RED),
            epoch: 0,
            mute_sources: Vec::new(),
        };
        let mut out = Outbox::default();
        stage.hall.transfer(who, &order, stage.now, &mut out).unwrap();
    }
    round(&mut stage, &[(alice, Excellent), (bob, Excellent)]);
    let both = expected(vec![
        (sid(&stage, RED, "alice"), Excellent),
        (sid(&stage, RED, "bob"), Excellent),
    ]);
    for who in [alice, bob] {
        assert_eq!(told(&stage, who), both);
    }
}

#[test]
fn streams_are_judged_by_what_was_announced_and_asked_for() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let mut request = video("cam");
    for (layer, bitrate) in request.layers.iter_mut().zip([150_000, 500_000, 1_700_000]) {
        layer.bitrate = bitrate;
    }
    let sid = stage.publish(alice, request);
    let known = |stage: &Stage| stage.hall.published(alice, &sid).unwrap();
    assert_eq!(
        (known(&stage).camera, known(&stage).muted, known(&stage).wanted),
        (true, false, Some(Quality::High))
    );
    assert_eq!(known(&stage).bitrate, Some(2_350_000));
    assert_eq!(stage.hall.asked(bob, &sid), Some(Quality::High));
    // Bob asks for less, and after a while Alice sends less.
    let settings = |quality: lk::VideoQuality, disabled| {
        Action::TrackSettings(lk::UpdateTrackSettings {
            track_sids: vec![sid.to_string()],
            quality: quality as i32,
            disabled,
            ..Default::default()
        })
    };
    stage.act(bob, settings(lk::VideoQuality::Medium, false));
    assert_eq!(stage.hall.asked(bob, &sid), Some(Quality::Medium));
    assert_eq!(known(&stage).wanted, Some(Quality::High));
    stage.pass(std::time::Duration::from_secs(6));
    assert_eq!(known(&stage).wanted, Some(Quality::Medium));
    assert_eq!(known(&stage).bitrate, Some(650_000));
    stage.act(bob, settings(lk::VideoQuality::High, true));
    assert_eq!(stage.hall.asked(bob, &sid), None);
    stage.act(
        alice,
        Action::Mute {
            sid: sid.clone(),
            muted: true,
        },
    );
    assert!(known(&stage).muted);
    // Nothing is expected of what is not there, or not received.
    assert_eq!(stage.hall.published(alice, "TR_none"), None);
    assert_eq!(stage.hall.asked(alice, &sid), None);
    assert_eq!(stage.hall.published(SessionId(99), &sid), None);
    // A camera of two layers has no third one to miss.
    let mut small = video("small");
    small.layers.truncate(2);
    let small = stage.publish(alice, small);
    assert_eq!(
        stage.hall.published(alice, &small).unwrap().wanted,
        Some(Quality::Medium)
    );
    assert_eq!(stage.hall.asked(bob, &small), Some(Quality::Medium));
    let mic = stage.publish(alice, audio("mic"));
    assert!(!stage.hall.published(alice, &mic).unwrap().camera);
}
