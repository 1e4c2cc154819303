//! Which layers are wanted, by one and by all.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;

use super::{ROOM, Stage, audio, entry, video};
use crate::room::{Action, Moderation, Notice, RoomName, RoomSpec, Transfer, WantedCodec};
use crate::session::api::{Command, Event, Quality, SessionId, TrackSid};

const SOON: Duration = Duration::from_millis(4_800);
const A_WHILE: Duration = Duration::from_millis(5_200);

/// Every wish that a publisher was told since the last look.
fn wishes(stage: &mut Stage, publisher: SessionId) -> Vec<Option<Quality>> {
    let told = stage.told(publisher);
    stage.clear();
    told.into_iter()
        .filter_map(|n| match n {
            Notice::WantedLayers { highest, .. } => Some(highest),
            _ => None,
        })
        .collect()
}

fn settings(sid: &TrackSid) -> lk::UpdateTrackSettings {
    lk::UpdateTrackSettings {
        track_sids: vec![sid.to_string()],
        quality: lk::VideoQuality::High as i32,
        ..Default::default()
    }
}

fn set(stage: &mut Stage, session: SessionId, sid: &TrackSid, quality: lk::VideoQuality) {
    let settings = lk::UpdateTrackSettings {
        quality: quality as i32,
        ..settings(sid)
    };
    stage.act(session, Action::TrackSettings(settings));
}

fn disable(stage: &mut Stage, session: SessionId, sid: &TrackSid, disabled: bool) {
    let settings = lk::UpdateTrackSettings {
        disabled,
        ..settings(sid)
    };
    stage.act(session, Action::TrackSettings(settings));
}

fn audience(stage: &mut Stage, publisher: SessionId, who: &[&str]) {
    let permission = lk::SubscriptionPermission {
        all_participants: false,
        track_permissions: who
            .iter()
            .map(|identity| lk::TrackPermission {
                participant_identity: (*identity).to_owned(),
                all_tracks: true,
                ..Default::default()
            })
            .collect(),
    };
    stage.act(publisher, Action::Audience(permission));
}

/// Alice publishes a camera that Bob and Carol receive.
fn watched() -> (Stage, SessionId, [SessionId; 2], TrackSid) {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let viewers = [stage.join("bob"), stage.join("carol")];
    let sid = stage.publish(alice, video("cam"));
    stage.clear();
    (stage, alice, viewers, sid)
}

#[test]
fn the_highest_wish_of_all_counts() {
    let (mut stage, alice, [bob, carol], sid) = watched();
    set(&mut stage, bob, &sid, lk::VideoQuality::Low);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [], "Carol wants all of it");
    set(&mut stage, carol, &sid, lk::VideoQuality::Medium);
    stage.pass(SOON);
    assert_eq!(wishes(&mut stage, alice), [], "people toggle views");
    stage.pass(A_WHILE - SOON);
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::Medium)]);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [], "told once");
}

#[test]
fn more_is_told_at_once() {
    let (mut stage, alice, [bob, carol], sid) = watched();
    set(&mut stage, bob, &sid, lk::VideoQuality::Low);
    set(&mut stage, carol, &sid, lk::VideoQuality::Low);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::Low)]);
    // No time passes from here.
    set(&mut stage, bob, &sid, lk::VideoQuality::Medium);
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::Medium)]);
    stage.join("dave");
    assert_eq!(
        wishes(&mut stage, alice),
        [Some(Quality::High)],
        "a newcomer wants all of it"
    );
}

#[test]
fn a_wish_that_comes_back_in_time_changes_nothing() {
    let (mut stage, alice, [bob, carol], sid) = watched();
    stage.act(carol, Action::Leave);
    for _ in 0..3 {
        disable(&mut stage, bob, &sid, true);
        stage.pass(SOON);
        disable(&mut stage, bob, &sid, false);
        stage.pass(SOON);
    }
    assert_eq!(wishes(&mut stage, alice), []);
}

#[test]
fn a_track_that_nobody_watches_is_not_sent() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let sid = stage.publish(alice, video("cam"));
    stage.clear();
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [None]);
    let bob = stage.join("bob");
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::High)]);
    // Not subscribed, paused, not allowed, gone: nobody watches.
    let sids = vec![Arc::clone(&sid)];
    stage.act(
        bob,
        Action::Subscribe {
            sids: sids.clone(),
            on: false,
        },
    );
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [None]);
    stage.act(bob, Action::Subscribe { sids, on: true });
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::High)]);
    disable(&mut stage, bob, &sid, true);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [None]);
    disable(&mut stage, bob, &sid, false);
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::High)]);
    audience(&mut stage, alice, &["carol"]);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [None]);
    audience(&mut stage, alice, &["bob"]);
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::High)]);
    stage.act(bob, Action::Leave);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [None]);
}

#[test]
fn the_right_to_receive_counts() {
    let (mut stage, alice, [_, carol], sid) = watched();
    set(&mut stage, carol, &sid, lk::VideoQuality::Low);
    stage.clear();
    let update = Moderation::Update {
        identity: "bob".into(),
        update: Box::new(lk::UpdateParticipantRequest {
            permission: Some(lk::ParticipantPermission {
                can_subscribe: false,
                ..Default::default()
            }),
            ..Default::default()
        }),
    };
    let mut out = crate::room::Outbox::default();
    stage
        .hall
        .moderate(&RoomName::from(ROOM), update, stage.now, &mut out)
        .unwrap();
    stage.out.extend(out.0);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::Low)]);
}

#[test]
fn muting_is_no_wish_and_takes_none_away() {
    let (mut stage, alice, [bob, carol], sid) = watched();
    let mute = |stage: &mut Stage, muted| {
        let sid = Arc::clone(&sid);
        stage.act(alice, Action::Mute { sid, muted });
    };
    mute(&mut stage, true);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [], "it comes back with all its layers");
    for viewer in [bob, carol] {
        set(&mut stage, viewer, &sid, lk::VideoQuality::Low);
    }
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::Low)]);
    mute(&mut stage, false);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [], "told already");
}

#[test]
fn sound_has_no_layers() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    stage.publish(alice, audio("mic"));
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), []);
}

#[test]
fn a_codec_that_nobody_is_given_is_not_wanted() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let request = lk::AddTrackRequest {
        simulcast_codecs: vec![
            lk::SimulcastCodec {
                codec: "vp9".into(),
                cid: "cam".into(),
                ..Default::default()
            },
            lk::SimulcastCodec {
                codec: "vp8".into(),
                ..Default::default()
            },
        ],
        ..video("cam")
    };
    stage.act(alice, Action::AddTrack(Box::new(request)));
    let Some(sid) = stage.told(alice).into_iter().find_map(|n| match n {
        Notice::TrackPublished { track, .. } => Some(TrackSid::from(track.sid)),
        _ => None,
    }) else {
        panic!("not published")
    };
    stage.media(Event::TrackLive {
        session: alice,
        sid,
        mid: "3".into(),
        mime_type: "video/VP9".into(),
        simulcast: false,
    });
    let codecs = |stage: &mut Stage| {
        let told = stage.told(alice).into_iter().rev().find_map(|n| match n {
            Notice::WantedLayers { codecs, .. } => Some(codecs),
            _ => None,
        });
        stage.clear();
        told
    };
    let wanted = |name: &str, highest| WantedCodec {
        name: name.to_owned(),
        highest,
    };
    stage.pass(A_WHILE);
    assert_eq!(
        codecs(&mut stage),
        Some(vec![wanted("vp9", None), wanted("vp8", None)])
    );
    stage.join("bob");
    assert_eq!(
        codecs(&mut stage),
        Some(vec![wanted("vp9", Some(Quality::High)), wanted("vp8", None)])
    );
}

#[test]
fn whoever_moves_takes_the_wishes_along() {
    let (mut stage, alice, [bob, _], sid) = watched();
    stage.assign(RoomSpec::open(RoomName::from("team/standup/red")));
    let go = |stage: &mut Stage, who, room: &str| {
        let order = Transfer {
            room: RoomName::from(room),
            epoch: 0,
            mute_sources: Vec::new(),
        };
        let mut out = crate::room::Outbox::default();
        stage.hall.transfer(who, &order, stage.now, &mut out).unwrap();
        stage.out.extend(out.0);
    };
    go(&mut stage, alice, "team/standup/red");
    stage.pass(SOON);
    assert_eq!(wishes(&mut stage, alice), []);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [None], "nobody is there");
    go(&mut stage, bob, "team/standup/red");
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::High)]);
    set(&mut stage, bob, &sid, lk::VideoQuality::Low);
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::Low)]);
    // Carol stayed in the main room.
    go(&mut stage, alice, ROOM);
    assert_eq!(wishes(&mut stage, alice), [Some(Quality::High)]);
}

/// The layer that a subscriber was given for what it asked, if anything changed.
fn given(stage: &mut Stage, session: SessionId) -> Option<Option<Quality>> {
    let layer = stage.commands().into_iter().rev().find_map(|c| match c {
        Command::SetLayer {
            session: s, quality, ..
        } if *s == session => Some(*quality),
        _ => None,
    });
    stage.clear();
    layer
}

fn size(stage: &mut Stage, session: SessionId, sid: &TrackSid, (width, height): (u32, u32)) {
    let settings = lk::UpdateTrackSettings {
        width,
        height,
        ..settings(sid)
    };
    stage.act(session, Action::TrackSettings(settings));
}

fn layered(sizes: &[(lk::VideoQuality, u32, u32)]) -> lk::AddTrackRequest {
    let (_, width, height) = sizes[sizes.len() - 1];
    lk::AddTrackRequest {
        width,
        height,
        layers: sizes
            .iter()
            .map(|(quality, width, height)| lk::VideoLayer {
                quality: *quality as i32,
                width: *width,
                height: *height,
                ..Default::default()
            })
            .collect(),
        ..video("cam")
    }
}

#[test]
fn a_size_gets_the_smallest_layer_that_fills_it() {
    use lk::VideoQuality::{High, Low, Medium};
    let landscape = layered(&[(Low, 320, 180), (Medium, 640, 360), (High, 1280, 720)]);
    let portrait = layered(&[(Low, 180, 320), (Medium, 360, 640), (High, 720, 1280)]);
    let two = layered(&[(Low, 320, 180), (Medium, 640, 360)]);
    let screen = layered(&[(Low, 1920, 1080), (Medium, 1920, 1080)]);
    let unnamed = layered(&[(Low, 0, 0), (Medium, 0, 0), (High, 1280, 720)]);
    let one = layered(&[(High, 1280, 720)]);
    let cases: [(&lk::AddTrackRequest, (u32, u32), Quality); 16] = [
        (&landscape, (100, 56), Quality::Low),
        (&landscape, (320, 180), Quality::Low),
        (&landscape, (355, 200), Quality::Low),
        (&landscape, (358, 201), Quality::Medium),
        // A tall element shows a strip of a wide picture.
        (&landscape, (100, 300), Quality::Medium),
        (&landscape, (641, 401), Quality::High),
        (&landscape, (3840, 2160), Quality::High),
        (&portrait, (180, 320), Quality::Low),
        (&portrait, (300, 320), Quality::Medium),
        (&portrait, (720, 100), Quality::High),
        (&two, (300, 170), Quality::Low),
        (&two, (640, 360), Quality::Medium),
        // Layers of one size differ in their frames: more of them is better.
        (&screen, (400, 200), Quality::Medium),
        (&unnamed, (320, 180), Quality::Low),
        (&unnamed, (640, 360), Quality::Medium),
        (&one, (100, 56), Quality::High),
    ];
    for (request, asked, expected) in cases {
        let mut stage = Stage::new();
        let (alice, bob) = (stage.join("alice"), stage.join("bob"));
        let sid = stage.publish(alice, request.clone());
        stage.clear();
        size(&mut stage, bob, &sid, asked);
        let got = given(&mut stage, bob).unwrap_or(Some(Quality::High));
        assert_eq!(got, Some(expected), "{asked:?} of {:?}", request.layers);
    }
}

#[test]
fn a_picture_that_changes_its_size_has_other_layers() {
    let (mut stage, alice, [bob, carol], sid) = watched();
    size(&mut stage, bob, &sid, (640, 360));
    assert_eq!(given(&mut stage, bob), Some(Some(Quality::Medium)));
    let resize = |stage: &mut Stage, width, height| {
        let update = lk::UpdateLocalVideoTrack {
            track_sid: sid.to_string(),
            width,
            height,
        };
        stage.act(alice, Action::VideoTrack(update));
    };
    // The phone is turned: what was 640 x 360 is 360 x 640, which a box of 640 x 360 does not need.
    resize(&mut stage, 720, 1280);
    let track = stage.last_info(carol, "alice").unwrap().tracks.remove(0);
    let layers: Vec<(u32, u32)> = track.codecs[0]
        .layers
        .iter()
        .map(|l| (l.width, l.height))
        .collect();
    assert_eq!(layers, [(180, 320), (360, 640), (720, 1280)]);
    assert_eq!(
        given(&mut stage, bob),
        Some(Some(Quality::High)),
        "640 of 720 in width"
    );
    // A smaller window is shared: its top layer is what the middle one was.
    resize(&mut stage, 640, 360);
    assert_eq!(given(&mut stage, bob), Some(Some(Quality::High)));
    resize(&mut stage, 2560, 1440);
    assert_eq!(given(&mut stage, bob), Some(Some(Quality::Low)));
    // Nonsense does no harm.
    resize(&mut stage, 0, 0);
    resize(&mut stage, u32::MAX, u32::MAX);
    resize(&mut stage, 1280, 720);
}

/// What media was told of a subscriber's other wishes.
fn preferences(stage: &mut Stage, session: SessionId) -> Vec<(Option<u32>, u32)> {
    let preferences = stage
        .commands()
        .into_iter()
        .filter_map(|c| match c {
            Command::Prefer {
                session: s,
                fps,
                priority,
                ..
            } if *s == session => Some((*fps, *priority)),
            _ => None,
        })
        .collect();
    stage.clear();
    preferences
}

#[test]
fn frames_and_priority_reach_media() {
    let (mut stage, _, [bob, carol], sid) = watched();
    let wish = |fps, priority| lk::UpdateTrackSettings {
        fps,
        priority,
        ..settings(&sid)
    };
    for (asked, told) in [
        (wish(15, 0), vec![(Some(15), 0)]),
        (wish(15, 0), vec![]),
        (wish(15, 1), vec![(Some(15), 1)]),
        (wish(0, 0), vec![(None, 0)]),
    ] {
        stage.act(bob, Action::TrackSettings(asked));
        assert!(
            !stage
                .commands()
                .iter()
                .any(|c| matches!(c, Command::Prefer { session, .. } if *session == carol))
        );
        assert_eq!(preferences(&mut stage, bob), told);
    }
    // A shared screen comes first where nothing else is said.
    let alice = stage
        .hall
        .room(ROOM)
        .unwrap()
        .participant("alice")
        .unwrap()
        .session;
    let screen = stage.publish(
        alice,
        lk::AddTrackRequest {
            source: lk::TrackSource::ScreenShare as i32,
            ..video("screen")
        },
    );
    assert_eq!(preferences(&mut stage, bob), [(None, 1)]);
    let later = lk::UpdateTrackSettings {
        track_sids: vec![screen.to_string()],
        ..wish(0, 3)
    };
    stage.act(bob, Action::TrackSettings(later));
    assert_eq!(preferences(&mut stage, bob), [(None, 3)]);
    // Said before the subscription, it holds for it.
    let dave = stage.join_as(super::Entry {
        auto_subscribe: false,
        ..entry("dave")
    });
    stage.act(dave, Action::TrackSettings(wish(7, 2)));
    assert_eq!(preferences(&mut stage, dave), []);
    stage.act(
        dave,
        Action::Subscribe {
            sids: vec![Arc::clone(&sid)],
            on: true,
        },
    );
    assert_eq!(preferences(&mut stage, dave), [(Some(7), 2)]);
}

#[test]
fn what_the_network_does_not_let_through_is_told_once_and_to_whom_it_concerns() {
    let (mut stage, alice, [bob, carol], sid) = watched();
    let states = |stage: &mut Stage, session| {
        let states: Vec<bool> = stage
            .told(session)
            .into_iter()
            .filter_map(|n| match n {
                Notice::StreamState { paused, .. } => Some(paused),
                _ => None,
            })
            .collect();
        states
    };
    let say = |stage: &mut Stage, session, paused| {
        let sid = Arc::clone(&sid);
        stage.media(Event::StreamState { session, sid, paused });
    };
    say(&mut stage, bob, false);
    say(&mut stage, bob, true);
    say(&mut stage, bob, true);
    assert_eq!(states(&mut stage, bob), [true]);
    let Some(Notice::StreamState {
        publisher, sid: told, ..
    }) = stage.told(bob).pop()
    else {
        panic!("no state")
    };
    let alice_sid = stage
        .hall
        .room(ROOM)
        .unwrap()
        .participant("alice")
        .unwrap()
        .sid
        .clone();
    assert_eq!((&*publisher, told), (alice_sid.as_str(), Arc::clone(&sid)));
    say(&mut stage, bob, false);
    assert_eq!(states(&mut stage, bob), [true, false]);
    assert!(states(&mut stage, carol).is_empty());
    assert!(states(&mut stage, alice).is_empty());
    // The client's wish stays what it is: the layer is tried again.
    say(&mut stage, bob, true);
    stage.act(carol, Action::Leave);
    stage.clear();
    stage.pass(A_WHILE);
    assert_eq!(wishes(&mut stage, alice), []);
    // A subscription that begins anew begins unpaused.
    for on in [false, true] {
        let sids = vec![Arc::clone(&sid)];
        stage.act(bob, Action::Subscribe { sids, on });
    }
    stage.clear();
    say(&mut stage, bob, true);
    assert_eq!(states(&mut stage, bob), [true]);
    // Of what is gone nothing is told.
    stage.media(Event::TrackEnded {
        session: alice,
        sid: Arc::clone(&sid),
    });
    stage.clear();
    say(&mut stage, bob, false);
    assert!(states(&mut stage, bob).is_empty());
}
