//! The reserved data topic.

use livekit_protocol as lk;
use livekit_protocol::data_packet::Value;
use prost::Message as _;

use super::{ROOM, Stage, entry};
use crate::room::{DropReason, Outbox, Output, limits};
use crate::session::api::{Command, Event, Reliability, SessionId, TransportEnd};

fn packet(topic: &str, payload: &[u8], sequence: u32) -> lk::DataPacket {
    lk::DataPacket {
        sequence,
        value: Some(Value::User(lk::UserPacket {
            topic: Some(topic.to_owned()),
            payload: payload.to_vec(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn say(stage: &mut Stage, session: SessionId, packet: &lk::DataPacket) {
    stage.media(Event::Data {
        session,
        reliability: Reliability::Reliable,
        payload: packet.encode_to_vec().into(),
    });
}

fn said(stage: &Stage) -> Vec<&str> {
    let said = stage.out.iter().filter_map(|o| match o {
        Output::Said { json, .. } => Some(json.as_str()),
        _ => None,
    });
    said.collect()
}

fn dropped(stage: &Stage) -> Vec<DropReason> {
    let dropped = stage.out.iter().filter_map(|o| match o {
        Output::DataDropped(reason) => Some(*reason),
        _ => None,
    });
    dropped.collect()
}

fn tell(stage: &mut Stage, session: SessionId, json: &str) {
    let mut out = Outbox::default();
    stage.hall.tell(session, json.to_owned(), &mut out);
    stage.out.extend(out.0);
}

/// What one client was sent on its data channel.
fn received(stage: &Stage, session: SessionId) -> Vec<lk::DataPacket> {
    let packets = stage.commands().into_iter().filter_map(|c| match c {
        Command::SendData {
            sessions,
            reliability,
            payload,
        } if *sessions == [session] => {
            assert_eq!(*reliability, Reliability::Reliable);
            Some(lk::DataPacket::decode(payload.clone()).unwrap())
        }
        _ => None,
    });
    packets.collect()
}

fn payloads(stage: &Stage, session: SessionId) -> Vec<Vec<u8>> {
    let user = |p: lk::DataPacket| match p.value {
        Some(Value::User(user)) => user.payload,
        other => panic!("{other:?}"),
    };
    received(stage, session).into_iter().map(user).collect()
}

#[test]
fn a_reserved_topic_reaches_the_server_and_nobody_else() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    stage.join("bob");
    stage.clear();
    for (sequence, topic) in (1..).zip(["plenum.v1", "plenum.v2", "plenum."]) {
        say(&mut stage, alice, &packet(topic, br#"{"id":1}"#, sequence));
    }
    assert_eq!(said(&stage), [r#"{"id":1}"#; 3]);
    assert!(stage.commands().is_empty());
    // Sent again after a broken channel: said once.
    say(&mut stage, alice, &packet("plenum.v1", b"{}", 3));
    assert_eq!(said(&stage).len(), 3);
    assert_eq!(dropped(&stage), [DropReason::Duplicate]);
    // Other topics are everyone's.
    say(&mut stage, alice, &packet("plenum", b"{}", 4));
    assert_eq!(stage.commands().len(), 1);
    assert_eq!(said(&stage).len(), 3);
}

#[test]
fn who_may_not_send_data_may_speak_to_the_server() {
    let mut stage = Stage::new();
    let mut quiet = entry("alice");
    quiet.grant.publish_data = false;
    let alice = stage.join_as(quiet);
    say(&mut stage, alice, &packet("plenum.v1", b"{}", 0));
    assert_eq!(said(&stage), ["{}"]);
    say(&mut stage, alice, &packet("chat", b"{}", 0));
    assert_eq!(dropped(&stage), [DropReason::NotPermitted]);
}

#[test]
fn what_is_too_large_or_no_text_is_not_passed_on() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    say(
        &mut stage,
        alice,
        &packet("plenum.v1", &vec![b' '; limits::SAID + 1], 0),
    );
    say(&mut stage, alice, &packet("plenum.v1", &[0xff, 0xfe], 0));
    assert_eq!(dropped(&stage), [DropReason::TooLarge, DropReason::Malformed]);
    assert!(said(&stage).is_empty());
    say(
        &mut stage,
        alice,
        &packet("plenum.v1", &vec![b' '; limits::SAID], 0),
    );
    assert_eq!(said(&stage).len(), 1);
}

#[test]
fn what_a_client_is_told_waits_for_its_data_channel() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let bob = stage.join("bob");
    stage.clear();
    tell(&mut stage, alice, "1");
    // Neither the loss of its signalling nor time loses it.
    stage.lose(alice);
    stage.pass(std::time::Duration::from_secs(5));
    tell(&mut stage, alice, "2");
    assert!(received(&stage, alice).is_empty());
    stage.media(Event::DataOpen { session: alice });
    tell(&mut stage, alice, "3");
    assert_eq!(payloads(&stage, alice), [b"1", b"2", b"3"]);
    assert!(received(&stage, bob).is_empty());
    for packet in received(&stage, alice) {
        // From the server: nobody's name is on it.
        assert!(packet.participant_identity.is_empty() && packet.participant_sid.is_empty());
        let Some(Value::User(user)) = packet.value else {
            panic!("not a user packet")
        };
        assert_eq!(user.topic.as_deref(), Some(plenum_protocol::TOPIC));
    }
    // A channel that is gone takes nothing.
    stage.clear();
    stage.media(Event::Disconnected {
        session: alice,
        leg: crate::session::api::Leg::Publisher,
        reason: TransportEnd::ConsentLost,
    });
    tell(&mut stage, alice, "4");
    assert!(received(&stage, alice).is_empty());
}

#[test]
fn a_queue_is_bounded_and_loses_the_oldest() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    for n in 0..limits::WAITING_PACKETS + 3 {
        tell(&mut stage, alice, &n.to_string());
    }
    assert_eq!(dropped(&stage), [DropReason::Overflow; 3]);
    stage.clear();
    stage.media(Event::DataOpen { session: alice });
    let got = payloads(&stage, alice);
    assert_eq!(
        (got.len(), got[0].as_slice()),
        (limits::WAITING_PACKETS, b"3".as_slice())
    );

    let bob = stage.join("bob");
    stage.clear();
    let large = "x".repeat(60_000);
    for _ in 0..20 {
        tell(&mut stage, bob, &large);
    }
    assert!(!dropped(&stage).is_empty());
    stage.media(Event::DataOpen { session: bob });
    let bytes: usize = payloads(&stage, bob).iter().map(Vec::len).sum();
    assert!(bytes <= limits::WAITING_BYTES && bytes > limits::WAITING_BYTES - 70_000);
    stage.clear();
    tell(&mut stage, bob, &"x".repeat(limits::DATA_PACKET));
    assert_eq!(dropped(&stage), [DropReason::TooLarge]);
}

#[test]
fn a_queue_goes_along_with_a_move() {
    let mut stage = Stage::new();
    let red = crate::room::RoomName::from("team/standup/red");
    stage.assign(crate::room::RoomSpec::open(red.clone()));
    let alice = stage.join("alice");
    tell(&mut stage, alice, "1");
    let order = crate::room::Transfer {
        room: red,
        epoch: 0,
        mute_sources: Vec::new(),
    };
    let mut out = Outbox::default();
    stage.hall.transfer(alice, &order, stage.now, &mut out).unwrap();
    assert!(stage.hall.room(ROOM).unwrap().participant("alice").is_none());
    tell(&mut stage, alice, "2");
    stage.clear();
    stage.media(Event::DataOpen { session: alice });
    assert_eq!(payloads(&stage, alice), [b"1", b"2"]);
}
