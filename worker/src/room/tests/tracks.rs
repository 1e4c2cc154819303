//! Publishing and subscribing.

use std::sync::Arc;

use livekit_protocol as lk;
use livekit_protocol::request_response::Reason;

use super::{ROOM, Stage, audio, entry, video};
use crate::room::{Action, Notice, Publishing, RoomName, RoomSpec, limits};
use crate::session::api::{Command, Event, Quality, SessionId, SpeakerPolicy, TrackSid};

fn subscribed(stage: &Stage, session: SessionId, sid: &TrackSid) -> Option<bool> {
    stage.commands().into_iter().rev().find_map(|c| match c {
        Command::Subscribe {
            session: s, sid: t, ..
        } if *s == session && t == sid => Some(true),
        Command::Unsubscribe { session: s, sid: t } if *s == session && t == sid => Some(false),
        _ => None,
    })
}

#[test]
fn a_track_is_announced_filled_in_and_shown_once_live() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    stage.clear();
    stage.act(alice, Action::AddTrack(Box::new(video("cam-1"))));
    let told = stage.told(alice);
    let [Notice::TrackPublished { cid, track }] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(cid, "cam-1");
    assert!(track.sid.starts_with("TR_V"));
    assert_eq!(
        (track.stream.as_str(), track.mime_type.as_str()),
        ("camera", "video/VP8")
    );
    assert_eq!(track.codecs[0].layers.len(), 3);
    assert!(stage.told(bob).is_empty(), "not live yet");
    let commands = stage.commands();
    let [Command::ExpectTrack { track: expected, .. }] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!(
        (expected.cid.as_str(), &*expected.sid, expected.codec.as_str()),
        ("cam-1", track.sid.as_str(), "vp8")
    );
    let sid = TrackSid::from(track.sid.as_str());
    let before = stage
        .hall
        .room(ROOM)
        .unwrap()
        .participant("alice")
        .unwrap()
        .info()
        .version;
    stage.media(Event::TrackLive {
        session: alice,
        sid: Arc::clone(&sid),
        mid: "4".into(),
        mime_type: "video/VP8".into(),
        simulcast: true,
    });
    let info = stage.last_info(bob, "alice").unwrap();
    assert!(info.version > before && info.is_publisher);
    assert_eq!(
        (info.tracks[0].mid.as_str(), info.tracks[0].codecs[0].mid.as_str()),
        ("4", "4")
    );
    assert!(
        stage
            .told(alice)
            .iter()
            .all(|n| !matches!(n, Notice::Participants(_))),
        "not to itself"
    );
    assert_eq!(subscribed(&stage, bob, &sid), Some(true));
    // Bob is told of the track before media asks him for sections: the commands come after.
    stage.media(Event::SubscriptionBound {
        session: bob,
        sid: Arc::clone(&sid),
    });
    stage.media(Event::SubscriptionBound { session: bob, sid });
    let firsts = stage
        .told(alice)
        .iter()
        .filter(|n| matches!(n, Notice::TrackSubscribed { .. }))
        .count();
    assert_eq!(firsts, 1);
}

#[test]
fn a_late_joiner_is_subscribed_to_what_is_there() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let sid = stage.publish(alice, audio("mic"));
    stage.clear();
    let bob = stage.join("bob");
    assert_eq!(subscribed(&stage, bob, &sid), Some(true));
    let by_hand = stage.join_as(super::Entry {
        auto_subscribe: false,
        ..entry("carol")
    });
    assert_eq!(subscribed(&stage, by_hand, &sid), None);
    stage.act(
        by_hand,
        Action::Subscribe {
            sids: vec![Arc::clone(&sid)],
            on: true,
        },
    );
    assert_eq!(subscribed(&stage, by_hand, &sid), Some(true));
    stage.act(
        by_hand,
        Action::Subscribe {
            sids: vec![Arc::clone(&sid)],
            on: false,
        },
    );
    assert_eq!(subscribed(&stage, by_hand, &sid), Some(false));
}

#[test]
fn tracks_brought_along_are_published_before_the_first_offer() {
    let mut stage = Stage::new();
    stage.clear();
    let offer = lk::SessionDescription {
        r#type: "offer".into(),
        sdp: "v=0".into(),
        id: 0,
        ..Default::default()
    };
    stage
        .try_enter(super::Entry {
            tracks: vec![audio("mic")],
            offer: Some(offer),
            ..entry("a")
        })
        .unwrap();
    let order: Vec<&str> = stage
        .commands()
        .iter()
        .map(|c| match c {
            Command::Open { .. } => "open",
            Command::ExpectTrack { .. } => "expect",
            Command::Offer { .. } => "offer",
            _ => "other",
        })
        .collect();
    assert_eq!(order, ["open", "expect", "offer"]);
}

#[test]
fn the_same_announcement_twice_is_one_track() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    stage.clear();
    for _ in 0..2 {
        stage.act(alice, Action::AddTrack(Box::new(audio("mic"))));
    }
    let sids: Vec<String> = stage
        .told(alice)
        .into_iter()
        .filter_map(|n| match n {
            Notice::TrackPublished { track, .. } => Some(track.sid),
            _ => None,
        })
        .collect();
    assert_eq!(sids.len(), 2);
    assert_eq!(sids[0], sids[1]);
}

#[test]
fn a_backup_codec_joins_its_track() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let sid = stage.publish(alice, video("cam-vp9"));
    stage.clear();
    let second = lk::AddTrackRequest {
        sid: sid.to_string(),
        cid: "cam-vp8".into(),
        simulcast_codecs: vec![lk::SimulcastCodec {
            codec: "h264".into(),
            cid: "cam-vp8".into(),
            ..Default::default()
        }],
        ..video("cam-vp8")
    };
    stage.act(alice, Action::AddTrack(Box::new(second)));
    let told = stage.told(alice);
    let [Notice::TrackPublished { cid, track }] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(
        (cid.as_str(), track.sid.as_str(), track.codecs.len()),
        ("cam-vp8", &*sid, 2)
    );
    let expects: Vec<String> = stage
        .commands()
        .into_iter()
        .filter_map(|c| match c {
            Command::ExpectTrack { track, .. } => Some(track.codec.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(expects, vec!["h264"]);
}

#[test]
fn limits_hold() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    for i in 0..limits::TRACKS_PER_PARTICIPANT {
        stage.publish(alice, audio(&format!("mic{i}")));
    }
    stage.clear();
    stage.act(alice, Action::AddTrack(Box::new(audio("one more"))));
    let told = stage.told(alice);
    assert!(matches!(told.as_slice(), [Notice::Request(f)] if f.reason == Reason::LimitExceeded));
    let long = lk::AddTrackRequest {
        name: "x".repeat(513),
        ..audio("long")
    };
    let bob = stage.join("bob");
    stage.clear();
    stage.act(bob, Action::AddTrack(Box::new(long)));
    assert!(matches!(stage.told(bob).as_slice(), [Notice::Request(f)] if f.reason == Reason::InvalidRequest));
}

#[test]
fn codecs_the_meeting_does_not_allow_are_refused() {
    let spec = RoomSpec {
        codecs: vec!["opus".into(), "h264".into()],
        ..RoomSpec::open(RoomName::from(ROOM))
    };
    let mut stage = Stage::with(spec);
    let alice = stage.join("alice");
    let Some(Notice::Welcome(welcome)) = stage.told(alice).into_iter().next() else {
        panic!()
    };
    assert!(
        welcome.codecs.iter().any(|c| c == "video/H264") && !welcome.codecs.iter().any(|c| c == "video/VP8")
    );
    stage.clear();
    stage.act(alice, Action::AddTrack(Box::new(video("cam"))));
    assert!(
        matches!(stage.told(alice).as_slice(), [Notice::Request(f)] if f.message.starts_with("CodecNotAllowed: "))
    );
}

#[test]
fn muting_reaches_media_and_the_others() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let sid = stage.publish(alice, audio("mic"));
    stage.clear();
    for muted in [true, true, false] {
        stage.act(
            alice,
            Action::Mute {
                sid: Arc::clone(&sid),
                muted,
            },
        );
    }
    let commands: Vec<bool> = stage
        .commands()
        .iter()
        .filter_map(|c| match c {
            Command::Mute { muted, .. } => Some(*muted),
            _ => None,
        })
        .collect();
    assert_eq!(commands, [true, false], "the second one changes nothing");
    assert!(!stage.last_info(bob, "alice").unwrap().tracks[0].muted);
    // Not one's own track.
    stage.clear();
    stage.act(bob, Action::Mute { sid, muted: true });
    assert!(stage.out.is_empty());
}

#[test]
fn an_ended_track_is_gone_for_everyone() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let sid = stage.publish(alice, video("cam"));
    stage.clear();
    stage.media(Event::TrackEnded {
        session: alice,
        sid: Arc::clone(&sid),
    });
    assert!(stage.last_info(bob, "alice").unwrap().tracks.is_empty());
    stage.clear();
    stage.act(
        bob,
        Action::Subscribe {
            sids: vec![Arc::clone(&sid)],
            on: true,
        },
    );
    assert!(matches!(stage.told(bob).as_slice(), [Notice::SubscriptionFailed { sid: s }] if *s == sid));
    // The same camera again is another track.
    assert_ne!(stage.publish(alice, video("cam")), sid);
}

#[test]
fn settings_choose_the_layer() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let sid = stage.publish(alice, video("cam"));
    let settings = |width, height, disabled| lk::UpdateTrackSettings {
        track_sids: vec![sid.to_string()],
        width,
        height,
        disabled,
        quality: lk::VideoQuality::High as i32,
        ..Default::default()
    };
    for (settings, expected) in [
        (settings(320, 180, false), Some(Quality::Low)),
        (settings(340, 190, false), Some(Quality::Low)),
        (settings(480, 270, false), Some(Quality::Medium)),
        (settings(480, 270, true), None),
        (settings(1920, 1080, false), Some(Quality::High)),
        (
            lk::UpdateTrackSettings {
                quality: lk::VideoQuality::Low as i32,
                ..settings(0, 0, false)
            },
            Some(Quality::Low),
        ),
    ] {
        stage.clear();
        stage.act(bob, Action::TrackSettings(settings.clone()));
        let layer = stage.commands().into_iter().find_map(|c| match c {
            Command::SetLayer { session, quality, .. } if *session == bob => Some(*quality),
            _ => None,
        });
        // 340 x 190 is the layer it already has.
        if settings.width != 340 {
            assert_eq!(layer, Some(expected), "{settings:?}");
        } else {
            assert_eq!(layer, None);
        }
    }
}

#[test]
fn settings_made_before_a_subscription_hold_for_it() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let sid = stage.publish(alice, video("cam"));
    let bob = stage.join_as(super::Entry {
        auto_subscribe: false,
        ..entry("bob")
    });
    let settings = lk::UpdateTrackSettings {
        track_sids: vec![sid.to_string()],
        quality: lk::VideoQuality::Low as i32,
        ..Default::default()
    };
    stage.act(bob, Action::TrackSettings(settings));
    stage.clear();
    stage.act(
        bob,
        Action::Subscribe {
            sids: vec![Arc::clone(&sid)],
            on: true,
        },
    );
    let commands = stage.commands();
    assert!(
        matches!(
            commands.as_slice(),
            [
                Command::Subscribe { .. },
                Command::SetLayer {
                    quality: Some(Quality::Low),
                    ..
                }
            ]
        ),
        "{commands:?}"
    );
}

#[test]
fn a_publisher_chooses_its_audience() {
    let mut stage = Stage::new();
    let (alice, bob, carol) = (stage.join("alice"), stage.join("bob"), stage.join("carol"));
    let sid = stage.publish(alice, video("cam"));
    stage.clear();
    let only_bob = lk::SubscriptionPermission {
        all_participants: false,
        track_permissions: vec![lk::TrackPermission {
            participant_identity: "bob".into(),
            all_tracks: true,
            ..Default::default()
        }],
    };
    stage.act(alice, Action::Audience(only_bob));
    assert_eq!(subscribed(&stage, carol, &sid), Some(false));
    assert_eq!(subscribed(&stage, bob, &sid), None);
    assert!(
        stage
            .told(carol)
            .iter()
            .any(|n| matches!(n, Notice::Allowed { allowed: false, .. }))
    );
    // Asking does not help, nor does joining anew.
    stage.clear();
    stage.act(
        carol,
        Action::Subscribe {
            sids: vec![Arc::clone(&sid)],
            on: true,
        },
    );
    let dave = stage.join("dave");
    assert_eq!(subscribed(&stage, carol, &sid), None);
    assert_eq!(subscribed(&stage, dave, &sid), None);
    let everyone = lk::SubscriptionPermission {
        all_participants: true,
        ..Default::default()
    };
    stage.act(alice, Action::Audience(everyone));
    for session in [carol, dave] {
        assert_eq!(subscribed(&stage, session, &sid), Some(true));
        assert!(
            stage
                .told(session)
                .iter()
                .any(|n| matches!(n, Notice::Allowed { allowed: true, .. }))
        );
    }
}

#[test]
fn a_sync_state_restores_choices() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let (one, two) = (
        stage.publish(alice, video("cam")),
        stage.publish(alice, audio("mic")),
    );
    let bob = stage.join("bob");
    stage.clear();
    let sync = lk::SyncState {
        subscription: Some(lk::UpdateSubscription {
            track_sids: vec![one.to_string(), "TR_gone".into()],
            subscribe: false,
            ..Default::default()
        }),
        track_sids_disabled: vec![two.to_string()],
        ..Default::default()
    };
    stage.act(bob, Action::Sync(Box::new(sync)));
    assert_eq!(subscribed(&stage, bob, &one), Some(false));
    assert!(
        stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::SetLayer { quality: None, sid, .. } if *sid == two))
    );
    assert!(stage.told(bob).is_empty(), "nothing to complain about");
}

#[test]
fn publishers_are_asked_for_what_the_meeting_wants() {
    let mut stage = Stage::with(RoomSpec {
        publishing: Publishing {
            simulcast: false,
            red: false,
            dtx: false,
            max_bitrate: Some(1_500_000),
        },
        ..RoomSpec::open(RoomName::from(ROOM))
    });
    let alice = stage.join("alice");
    stage.clear();
    stage.act(alice, Action::AddTrack(Box::new(audio("mic"))));
    stage.act(alice, Action::AddTrack(Box::new(video("cam"))));
    let commands = stage.commands();
    let [
        Command::ExpectTrack { track: mic, .. },
        Command::ExpectTrack { track: cam, .. },
    ] = commands.as_slice()
    else {
        panic!("{commands:?}")
    };
    assert_eq!((mic.audio.red, mic.audio.dtx), (false, false));
    assert!(mic.audio.one_of_many, "its client would have paused in silence");
    assert_eq!((cam.simulcast, cam.max_bitrate), (false, Some(1_500_000)));
}

#[test]
fn whom_people_hear_follows_the_meeting() {
    let choice = |speakers, from| Some(SpeakerPolicy { speakers, from });
    let spec = |speakers| RoomSpec {
        speakers,
        ..RoomSpec::open(RoomName::from(ROOM))
    };
    let told = |stage: &Stage| -> Vec<(SessionId, Option<SpeakerPolicy>)> {
        stage
            .commands()
            .into_iter()
            .filter_map(|c| match c {
                Command::Hear { session, policy } => Some((*session, *policy)),
                _ => None,
            })
            .collect()
    };
    let mut stage = Stage::with(spec(choice(5, 20)));
    let alice = stage.join("alice");
    assert_eq!(told(&stage), vec![(alice, choice(5, 20))]);
    stage.clear();
    stage.assign(spec(None));
    assert_eq!(told(&stage), vec![(alice, None)], "also who is there already");
    stage.clear();
    stage.join("bob");
    assert!(told(&stage).is_empty(), "the worker's own choice needs no word");
}
