//! Data packets.

use bytes::Bytes;
use livekit_protocol as lk;
use livekit_protocol::data_packet::Value;
use prost::Message as _;

use super::{Stage, entry, full_grant};
use crate::room::{Action, DropReason, Grant, Output};
use crate::session::api::{Command, Event, Reliability, SessionId};

fn user(text: &str) -> lk::DataPacket {
    let user = lk::UserPacket {
        payload: text.as_bytes().to_vec(),
        ..Default::default()
    };
    lk::DataPacket {
        value: Some(Value::User(user)),
        ..Default::default()
    }
}

fn send(stage: &mut Stage, session: SessionId, payload: impl Into<Bytes>) {
    stage.clear();
    stage.media(Event::Data {
        session,
        reliability: Reliability::Reliable,
        payload: payload.into(),
    });
}

fn sent(stage: &Stage) -> Option<(Vec<SessionId>, lk::DataPacket)> {
    stage.commands().into_iter().find_map(|c| match c {
        Command::SendData {
            sessions, payload, ..
        } => Some((sessions.clone(), lk::DataPacket::decode(payload.clone()).unwrap())),
        _ => None,
    })
}

fn dropped(stage: &Stage) -> Option<DropReason> {
    stage.out.iter().find_map(|o| match o {
        Output::DataDropped(reason) => Some(*reason),
        _ => None,
    })
}

#[test]
fn a_packet_goes_to_all_others_with_our_stamp() {
    let mut stage = Stage::new();
    let (alice, bob, carol) = (stage.join("alice"), stage.join("bob"), stage.join("carol"));
    #[allow(deprecated, reason = "older clients still read and send the old fields")]
    let forged = lk::DataPacket {
        participant_identity: "bob".into(),
        participant_sid: "PA_bob".into(),
        sequence: 1,
        value: Some(Value::User(lk::UserPacket {
            participant_identity: "bob".into(),
            participant_sid: "PA_bob".into(),
            payload: b"hi".to_vec(),
            topic: Some("t".into()),
            ..Default::default()
        })),
        ..Default::default()
    };
    send(&mut stage, alice, forged.encode_to_vec());
    let (to, packet) = sent(&stage).unwrap();
    assert_eq!(to, [bob, carol]);
    assert_eq!(
        (packet.participant_identity.as_str(), packet.sequence),
        ("alice", 1)
    );
    assert!(packet.participant_sid.starts_with("PA_") && packet.participant_sid != "PA_bob");
    let Some(Value::User(user)) = packet.value else {
        panic!()
    };
    #[allow(deprecated, reason = "older clients still read and send the old fields")]
    {
        assert_eq!(
            (user.participant_identity.as_str(), user.payload.as_slice()),
            ("alice", &b"hi"[..])
        );
    }
    assert_eq!(user.topic.as_deref(), Some("t"));
}

#[test]
fn kinds_we_do_not_know_pass_untouched_but_stamped() {
    let mut stage = Stage::new();
    let (alice, _bob) = (stage.join("alice"), stage.join("bob"));
    // Field 99, length-delimited: something of a later version.
    let mut raw = lk::DataPacket {
        participant_identity: "bob".into(),
        ..Default::default()
    }
    .encode_to_vec();
    raw.extend_from_slice(&[0x9a, 0x06, 3, 1, 2, 3]);
    send(&mut stage, alice, raw);
    let payload = stage
        .commands()
        .into_iter()
        .find_map(|c| match c {
            Command::SendData { payload, .. } => Some(payload.clone()),
            _ => None,
        })
        .unwrap();
    assert!(payload.windows(6).any(|w| w == [0x9a, 0x06, 3, 1, 2, 3]));
    assert_eq!(
        lk::DataPacket::decode(payload).unwrap().participant_identity,
        "alice"
    );
}

#[test]
fn named_receivers_only() {
    let mut stage = Stage::new();
    let (alice, bob, _carol) = (stage.join("alice"), stage.join("bob"), stage.join("carol"));
    let packet = lk::DataPacket {
        destination_identities: vec!["bob".into(), "nobody".into()],
        ..user("psst")
    };
    send(&mut stage, alice, packet.encode_to_vec());
    assert_eq!(sent(&stage).unwrap().0, [bob]);
}

#[test]
fn whoever_has_no_media_yet_gets_nothing_and_breaks_nothing() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    stage.try_enter(entry("joining")).unwrap();
    send(&mut stage, alice, user("hello").encode_to_vec());
    assert!(sent(&stage).is_none());
}

#[test]
fn what_must_not_pass_does_not() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let mute = stage.join_as(super::Entry {
        grant: Grant {
            publish_data: false,
            ..full_grant()
        },
        ..entry("m")
    });
    send(&mut stage, mute, user("x").encode_to_vec());
    assert_eq!(dropped(&stage), Some(DropReason::NotPermitted));
    send(&mut stage, alice, vec![0xff; 40]);
    assert_eq!(dropped(&stage), Some(DropReason::Malformed));
    send(&mut stage, alice, vec![0; 65_537]);
    assert_eq!(dropped(&stage), Some(DropReason::TooLarge));
    #[allow(deprecated, reason = "older clients still read and send the old fields")]
    let speaker = lk::DataPacket {
        value: Some(Value::Speaker(lk::ActiveSpeakerUpdate::default())),
        ..Default::default()
    };
    send(&mut stage, alice, speaker.encode_to_vec());
    assert_eq!(dropped(&stage), Some(DropReason::Unsupported));
    assert!(sent(&stage).is_none());
}

#[test]
fn a_reliable_message_sent_again_after_a_resume_passes_once() {
    let mut stage = Stage::new();
    let (alice, _bob) = (stage.join("alice"), stage.join("bob"));
    for (sequence, passes) in [(1, true), (2, true), (2, false), (1, false), (3, true)] {
        send(
            &mut stage,
            alice,
            lk::DataPacket {
                sequence,
                ..user("m")
            }
            .encode_to_vec(),
        );
        assert_eq!(sent(&stage).is_some(), passes, "{sequence}");
    }
}

#[test]
fn a_client_that_says_what_it_has_gets_the_rest() {
    let mut stage = Stage::new();
    let (alice, bob, carol) = (stage.join("alice"), stage.join("bob"), stage.join("carol"));
    for sequence in 1..=4 {
        let to = if sequence == 3 {
            vec!["carol".to_owned()]
        } else {
            Vec::new()
        };
        let packet = lk::DataPacket {
            sequence,
            destination_identities: to,
            ..user("m")
        };
        send(&mut stage, alice, packet.encode_to_vec());
    }
    let sid = stage
        .hall
        .room(super::ROOM)
        .unwrap()
        .participant("alice")
        .unwrap()
        .sid
        .to_string();
    let has = |last_seq| lk::SyncState {
        datachannel_receive_states: vec![lk::DataChannelReceiveState {
            publisher_sid: sid.clone(),
            last_seq,
        }],
        ..Default::default()
    };
    for (session, expected) in [(bob, vec![2, 4]), (carol, vec![2, 3, 4])] {
        stage.clear();
        stage.act(session, Action::Sync(Box::new(has(1))));
        let got: Vec<u32> = stage
            .commands()
            .into_iter()
            .filter_map(|c| match c {
                Command::SendData {
                    sessions, payload, ..
                } if sessions == &[session] => {
                    Some(lk::DataPacket::decode(payload.clone()).unwrap().sequence)
                }
                _ => None,
            })
            .collect();
        assert_eq!(got, expected);
    }
}
