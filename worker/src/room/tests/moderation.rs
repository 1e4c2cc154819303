//! Rights that end, and what moderators do.

use std::sync::Arc;

use livekit_protocol as lk;

use super::{ROOM, Stage, audio, video};
use crate::room::{Action, Identity, Moderation, Notice, Outbox, RoomName};
use crate::session::api::Command;

#[test]
fn rights_taken_away_take_the_tracks_down() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let bob = stage.join("bob");
    let sid = stage.publish(alice, video("camera"));
    stage.clear();
    let update = lk::UpdateParticipantRequest {
        permission: Some(lk::ParticipantPermission {
            can_subscribe: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut out = Outbox::default();
    let what = Moderation::Update {
        identity: Identity::from("alice"),
        update: Box::new(update),
    };
    let info = stage
        .hall
        .moderate(&RoomName::from(ROOM), what, stage.now, &mut out)
        .unwrap()
        .unwrap();
    stage.out.extend(out.0);
    assert!(info.tracks.is_empty() && !info.permission.unwrap().can_publish);
    assert!(
        stage
            .told(alice)
            .iter()
            .any(|n| matches!(n, Notice::TrackUnpublished { sid: s } if *s == sid))
    );
    assert!(stage.last_info(bob, "alice").unwrap().tracks.is_empty());
    assert!(
        stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::RemoveTrack { .. }))
    );
}

#[test]
fn a_censored_track_is_not_unmuted_by_its_owner() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let bob = stage.join("bob");
    let sid = stage.publish(alice, audio("mic"));
    let censor = |stage: &mut Stage, muted| {
        let mut out = Outbox::default();
        let what = Moderation::Mute {
            identity: Identity::from("alice"),
            sid: Some(Arc::clone(&sid)),
            muted,
        };
        stage
            .hall
            .moderate(&RoomName::from(ROOM), what, stage.now, &mut out)
            .unwrap();
        stage.out.extend(out.0);
    };
    stage.clear();
    censor(&mut stage, true);
    assert!(
        stage
            .told(alice)
            .iter()
            .any(|n| matches!(n, Notice::Muted { muted: true, .. }))
    );
    assert!(stage.last_info(bob, "alice").unwrap().tracks[0].muted);
    stage.clear();
    stage.act(
        alice,
        Action::Mute {
            sid: Arc::clone(&sid),
            muted: false,
        },
    );
    assert!(stage.commands().is_empty());
    assert!(
        stage
            .told(alice)
            .iter()
            .any(|n| matches!(n, Notice::Muted { muted: true, .. }))
    );
    // Nobody is made to be heard: the owner may unmute, and is not unmuted.
    stage.clear();
    censor(&mut stage, false);
    assert!(stage.told(alice).is_empty() && stage.commands().is_empty());
    stage.act(
        alice,
        Action::Mute {
            sid: Arc::clone(&sid),
            muted: false,
        },
    );
    assert!(!stage.last_info(bob, "alice").unwrap().tracks[0].muted);
}

#[test]
fn a_moderator_silences_or_takes_down_one_track_or_all() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let mic = stage.publish(alice, audio("mic"));
    let camera = stage.publish(alice, video("cam"));
    let decide = |stage: &mut Stage, what| {
        let mut out = Outbox::default();
        let room = RoomName::from(ROOM);
        let done = stage.hall.moderate(&room, what, stage.now, &mut out);
        stage.out.extend(out.0);
        done
    };
    let identity = || Identity::from("alice");
    let mute = |sid| Moderation::Mute {
        identity: identity(),
        sid,
        muted: true,
    };
    let unpublish = |sid| Moderation::Unpublish {
        identity: identity(),
        sid,
    };
    let info = decide(&mut stage, mute(None)).unwrap().unwrap();
    assert!(info.tracks.len() == 2 && info.tracks.iter().all(|t| t.muted));
    stage.clear();
    // What is muted already is not muted again.
    decide(&mut stage, mute(Some(Arc::clone(&mic)))).unwrap();
    assert!(stage.told(alice).is_empty());

    let info = decide(&mut stage, unpublish(Some(Arc::clone(&camera))))
        .unwrap()
        .unwrap();
    assert_eq!(info.tracks.len(), 1);
    let told = stage.told(alice);
    assert!(
        matches!(told.as_slice(), [Notice::TrackUnpublished { sid }] if *sid == camera),
        "{told:?}"
    );
    assert_eq!(stage.last_info(bob, "alice").unwrap().tracks.len(), 1);
    assert!(
        stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::RemoveTrack { sid, .. } if *sid == camera))
    );
    // Gone is gone, and somebody else's is not theirs.
    let theirs = stage.publish(bob, audio("mic"));
    for sid in [camera, theirs] {
        let refused = decide(&mut stage, unpublish(Some(sid))).unwrap_err();
        assert_eq!(refused.code, plenum_errors::Code::TrackNotFound);
    }
    decide(&mut stage, unpublish(None)).unwrap();
    assert!(stage.last_info(bob, "alice").unwrap().tracks.is_empty());
    decide(&mut stage, unpublish(None)).unwrap();
    // They may publish again.
    stage.publish(alice, audio("mic"));
    assert_eq!(stage.last_info(bob, "alice").unwrap().tracks.len(), 1);
    let refused = decide(
        &mut stage,
        Moderation::Unpublish {
            identity: Identity::from("nobody"),
            sid: None,
        },
    );
    assert_eq!(
        refused.unwrap_err().code,
        plenum_errors::Code::ParticipantNotFound
    );
}
