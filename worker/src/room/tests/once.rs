//! Clients that make one offer: they stay and go with their media.

use std::time::Duration;

use livekit_protocol as lk;
use plenum_errors::Code;

use super::super::limits;
use super::{ROOM, Stage, audio, entry};
use crate::room::{Action, Entry, RoomName, RoomSpec};
use crate::session::api::{Command, Event, Leg, SessionId, TransportEnd};

fn encoder(identity: &str) -> Entry {
    Entry {
        kind: lk::participant_info::Kind::Ingress,
        offers_once: true,
        ..entry(identity)
    }
}

fn connected(stage: &mut Stage, session: SessionId) {
    stage.media(Event::Connected {
        session,
        leg: Leg::Publisher,
        since_open: Duration::ZERO,
    });
}

#[test]
fn media_is_told_before_the_offer_and_of_restarts() {
    let mut stage = Stage::new();
    let camera = stage.join_as(Entry {
        offer: Some(lk::SessionDescription {
            sdp: "v=0".into(),
            id: 1,
            ..Default::default()
        }),
        ..encoder("camera")
    });
    let order: Vec<&str> = stage
        .commands()
        .into_iter()
        .filter_map(|c| match c {
            Command::Open { .. } => Some("open"),
            Command::OffersOnce { .. } => Some("once"),
            Command::Offer { .. } => Some("offer"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["open", "once", "offer"]);
    let again = || Action::OfferAgain {
        id: 2,
        credentials: None,
    };
    let told = |stage: &Stage| {
        let mut commands = stage.commands().into_iter();
        commands.any(|c| matches!(c, Command::OfferAgain { id: 2, .. }))
    };
    let alice = stage.join("alice");
    stage.act(alice, again());
    assert!(!told(&stage));
    stage.act(camera, again());
    assert!(told(&stage));
}

#[test]
fn it_needs_nobody_to_speak_for_it_while_its_media_lives() {
    let mut stage = Stage::new();
    let (camera, stock) = (stage.join_as(encoder("camera")), stage.join("stock"));
    connected(&mut stage, camera);
    let mic = stage.publish(camera, audio("mic"));
    stage.lose(camera);
    stage.lose(stock);
    stage.pass(limits::RESUME_GRACE * 3);
    assert_eq!(stage.ended(camera), None);
    assert_eq!(stage.ended(stock), Some(Some(Code::ConnectionTimeout)));
    // Whoever comes to speak for it finds it, with its tracks.
    let room = stage.hall.room(ROOM).unwrap();
    let sid = room.participant("camera").unwrap().sid.to_string();
    let resumed = stage.try_enter(Entry {
        resume: Some(sid),
        ..encoder("camera")
    });
    assert!(resumed.is_ok());
    let info = stage
        .hall
        .room(ROOM)
        .unwrap()
        .participant("camera")
        .unwrap()
        .info();
    assert_eq!(info.tracks.len(), 1);
    assert_eq!(info.tracks[0].sid, &*mic);
}

#[test]
fn it_leaves_with_its_media() {
    for (away, reason, code) in [
        (false, TransportEnd::Closed, None),
        (true, TransportEnd::Closed, None),
        (false, TransportEnd::ConsentLost, Some(Code::ConnectionTimeout)),
        (true, TransportEnd::ConsentLost, Some(Code::ConnectionTimeout)),
        (false, TransportEnd::ConnectTimeout, Some(Code::ConnectionTimeout)),
    ] {
        let mut stage = Stage::new();
        let (alice, camera) = (stage.join("alice"), stage.join_as(encoder("camera")));
        connected(&mut stage, camera);
        if away {
            stage.lose(camera);
        }
        stage.media(Event::Disconnected {
            session: camera,
            leg: Leg::Publisher,
            reason: reason.clone(),
        });
        assert_eq!(stage.ended(camera), Some(code), "{reason}");
        let info = stage.last_info(alice, "camera").unwrap();
        assert_eq!(info.state, lk::participant_info::State::Disconnected as i32);
    }
}

#[test]
fn who_watches_takes_a_place() {
    let player = |identity: &str, offers_once| Entry {
        kind: lk::participant_info::Kind::Egress,
        offers_once,
        ..entry(identity)
    };
    let mut stage = Stage::with(RoomSpec {
        max_participants: Some(1),
        ..RoomSpec::open(RoomName::from(ROOM))
    });
    let program = |identity| Entry {
        epoch: 0,
        ..player(identity, false)
    };
    let viewer = |identity| Entry {
        epoch: 0,
        ..player(identity, true)
    };
    stage.join_as(program("recorder"));
    stage.join_as(viewer("one"));
    let refused = stage.try_enter(viewer("two")).unwrap_err();
    assert_eq!(refused.code, Code::MeetingFull);
}
