//! Meetings that take only what is encrypted end to end.

use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::data_packet::Value;
use livekit_protocol::encryption::Type as Encryption;
use livekit_protocol::request_response::{Reason, Request};
use prost::Message as _;

use super::{ROOM, Stage, audio, video};
use crate::room::{
    Action, DropReason, Encrypted, Notice, Output, RequestFailure, RoomName, RoomSpec, Transfer,
};
use crate::session::api::{Command, Event, Reliability, SessionId};

fn spec(name: &str, tracks: bool, data: bool) -> RoomSpec {
    RoomSpec {
        encrypted: Encrypted { tracks, data },
        ..RoomSpec::open(RoomName::from(name))
    }
}

fn sealed(request: lk::AddTrackRequest, encryption: Encryption) -> lk::AddTrackRequest {
    lk::AddTrackRequest {
        encryption: encryption as i32,
        ..request
    }
}

fn refusal(stage: &Stage, session: SessionId) -> Option<RequestFailure> {
    stage.told(session).into_iter().find_map(|n| match n {
        Notice::Request(failure) => Some(*failure),
        _ => None,
    })
}

fn send(stage: &mut Stage, session: SessionId, value: Value) {
    let packet = lk::DataPacket {
        value: Some(value),
        ..Default::default()
    };
    stage.media(Event::Data {
        session,
        reliability: Reliability::Lossy,
        payload: packet.encode_to_vec().into(),
    });
}

fn user(topic: &str) -> Value {
    Value::User(lk::UserPacket {
        payload: b"{}".to_vec(),
        topic: Some(topic.to_owned()),
        ..Default::default()
    })
}

fn secret(encryption: Encryption) -> Value {
    Value::EncryptedPacket(lk::EncryptedPacket {
        encryption_type: encryption as i32,
        encrypted_value: vec![7; 32],
        ..Default::default()
    })
}

/// What happened to the last packet: passed on, or thrown away.
fn fate(stage: &mut Stage) -> Result<(), DropReason> {
    let fate = stage.out.iter().rev().find_map(|o| match o {
        Output::Media(Command::SendData { .. }) => Some(Ok(())),
        Output::DataDropped(reason) => Some(Err(*reason)),
        _ => None,
    });
    stage.out.retain(|o| matches!(o, Output::Tell { .. }));
    fate.expect("nothing became of it")
}

#[test]
fn a_track_in_the_clear_is_refused_with_code_cause_and_remedy() {
    let mut stage = Stage::with(spec(ROOM, true, false));
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    stage.clear();
    let request = audio("mic");
    stage.act(alice, Action::AddTrack(Box::new(request.clone())));
    let failure = refusal(&stage, alice).unwrap();
    assert_eq!(failure.reason, Reason::NotAllowed);
    assert!(
        failure
            .message
            .starts_with("EncryptionRequired: the meeting takes only"),
        "{}",
        failure.message
    );
    assert!(failure.message.contains("switch end-to-end encryption on"));
    assert_eq!(failure.request, Some(Request::AddTrack(request)));
    assert!(stage.commands().is_empty(), "media expects nothing");
    for (cid, encryption) in [("mic", Encryption::Gcm), ("mic2", Encryption::Custom)] {
        stage.publish(alice, sealed(audio(cid), encryption));
    }
    let tracks = stage.last_info(bob, "alice").unwrap().tracks;
    assert_eq!(tracks.len(), 2);
    assert_eq!(
        tracks[0].encryption,
        Encryption::Gcm as i32,
        "subscribers must know"
    );
    // A further codec of an encrypted track is no way around it.
    stage.clear();
    let sid = stage.publish(alice, sealed(video("cam"), Encryption::Gcm));
    stage.clear();
    let second = lk::AddTrackRequest {
        sid: sid.to_string(),
        ..video("cam-too")
    };
    stage.act(alice, Action::AddTrack(Box::new(second)));
    assert!(refusal(&stage, alice).is_some() && stage.commands().is_empty());
}

#[test]
fn other_meetings_take_both() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    stage.join("bob");
    stage.publish(alice, audio("mic"));
    stage.publish(alice, sealed(video("cam"), Encryption::Gcm));
    send(&mut stage, alice, user("chat"));
    assert_eq!(fate(&mut stage), Ok(()));
    send(&mut stage, alice, secret(Encryption::Gcm));
    assert_eq!(fate(&mut stage), Ok(()));
}

#[test]
fn a_rule_that_comes_later_takes_tracks_down() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let mic = stage.publish(alice, audio("mic"));
    let camera = stage.publish(alice, sealed(video("cam"), Encryption::Gcm));
    stage.clear();
    stage.assign(spec(ROOM, true, false));
    assert!(
        stage
            .told(alice)
            .iter()
            .any(|n| matches!(n, Notice::TrackUnpublished { sid } if *sid == mic))
    );
    let left = stage.last_info(bob, "alice").unwrap().tracks;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].sid, &*camera);
    assert!(
        stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::RemoveTrack { sid, .. } if *sid == mic))
    );
}

#[test]
fn whoever_moves_brings_nothing_in_the_clear() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    stage.publish(alice, audio("mic"));
    stage.assign(spec("team/standup/red", true, false));
    let order = Transfer {
        room: RoomName::from("team/standup/red"),
        epoch: 0,
        mute_sources: Vec::new(),
    };
    let mut out = crate::room::Outbox::default();
    stage.hall.transfer(alice, &order, stage.now, &mut out).unwrap();
    stage.out.extend(out.0);
    let room = stage.hall.room("team/standup/red").unwrap();
    assert!(room.participant("alice").unwrap().info().tracks.is_empty());
}

#[test]
fn data_in_the_clear_goes_nowhere_where_it_must_not() {
    let mut stage = Stage::with(spec(ROOM, false, true));
    let alice = stage.join("alice");
    stage.join("bob");
    stage.clear();
    let in_the_clear = [
        user("chat"),
        Value::ChatMessage(lk::ChatMessage::default()),
        Value::RpcRequest(lk::RpcRequest::default()),
        Value::StreamHeader(lk::data_stream::Header::default()),
        Value::Transcription(lk::Transcription::default()),
        secret(Encryption::None),
    ];
    for value in in_the_clear {
        send(&mut stage, alice, value);
        assert_eq!(fate(&mut stage), Err(DropReason::NotEncrypted));
    }
    // A kind that this version does not know.
    stage.media(Event::Data {
        session: alice,
        reliability: Reliability::Lossy,
        payload: vec![0xf2, 0x01, 0x00].into(),
    });
    assert_eq!(fate(&mut stage), Err(DropReason::NotEncrypted));
    let told = |stage: &Stage| {
        let notices = stage.told(alice).into_iter();
        notices.filter(|n| matches!(n, Notice::Request(_))).count()
    };
    assert_eq!(told(&stage), 1, "once for all of them");
    assert!(
        refusal(&stage, alice)
            .unwrap()
            .message
            .starts_with("EncryptionRequired: ")
    );
    stage.pass(Duration::from_secs(11));
    send(&mut stage, alice, user("chat"));
    assert_eq!(fate(&mut stage), Err(DropReason::NotEncrypted));
    assert_eq!(told(&stage), 2, "a client that goes on is told again");

    send(&mut stage, alice, secret(Encryption::Gcm));
    assert_eq!(fate(&mut stage), Ok(()));
    // What is said to the server is not for participants.
    send(&mut stage, alice, user("plenum.v1"));
    assert!(stage.out.iter().any(|o| matches!(o, Output::Said { .. })));
    // Tracks are another matter.
    stage.publish(alice, audio("mic"));
    let room = stage.hall.room(ROOM).unwrap();
    assert_eq!(room.participant("alice").unwrap().info().tracks.len(), 1);
}
