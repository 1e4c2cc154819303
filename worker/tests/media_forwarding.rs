//! Real packets through a running engine, single topology: audio, simulcast, repair, keys, moves.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::time::Duration;

use media_support::*;
use plenum_worker::session::api::{
    Command, Event, MediaKind, Quality, SessionId, Topology, TrackSid, TransportEnd,
};

const MS: Duration = Duration::from_millis(1);

struct Pair {
    server: Server,
    alice: Client,
    bob: Client,
    alice_id: SessionId,
    bob_id: SessionId,
    bob_answer: String,
}

/// Alice publishes one section, Bob subscribes to it with a placeholder, both connected.
fn pair(section: impl Fn(&str, Option<&str>) -> String, kind: MediaKind) -> Pair {
    let mut server = Server::start();
    let (mut alice, mut bob) = (Client::new("alice"), Client::new("bob"));
    let (alice_id, bob_id) = (server.open(Topology::Single), server.open(Topology::Single));
    server.expect(alice_id, "cid", "TR_a", kind);
    let offer = alice.describe("actpass", &[application(), section("sendonly", Some("cid"))]);
    let answer = server.answer(alice_id, 1, offer);
    assert!(answer.contains("a=recvonly"), "{answer}");
    server.event("live", |e| {
        matches!(e, Event::TrackLive { session, .. } if *session == alice_id).then_some(())
    });
    alice.connect(&answer);

    let placeholders = [
        application(),
        audio("recvonly", None),
        video("recvonly", None, &[]),
    ];
    let first = server.answer(bob_id, 1, bob.describe("actpass", &placeholders));
    assert_eq!(
        first.matches("a=inactive").count(),
        2,
        "unused placeholders are inactive: {first}"
    );
    bob.connect(&first);
    server.subscribe(bob_id, "TR_a");
    let need = server.event("need", |e| match e {
        Event::NeedSections {
            session,
            audios,
            videos,
        } if *session == bob_id => Some((*audios, *videos)),
        _ => None,
    });
    assert_eq!(need, (0, 0), "a placeholder is free");
    let bob_answer = server.answer(bob_id, 2, bob.describe("actpass", &placeholders));
    assert!(bob_answer.contains("a=msid:PA_x|TR_a TR_a"), "{bob_answer}");
    server.event("bound", |e| {
        matches!(e, Event::SubscriptionBound { session, .. } if *session == bob_id).then_some(())
    });
    for (who, name) in [(alice_id, "alice"), (bob_id, "bob")] {
        server.event(name, |e| {
            matches!(e, Event::Connected { session, .. } if *session == who).then_some(())
        });
    }
    Pair {
        server,
        alice,
        bob,
        alice_id,
        bob_id,
        bob_answer,
    }
}

#[test]
fn audio_is_forwarded_and_its_level_told() {
    let mut p = pair(audio, MediaKind::Audio);
    for i in 0..20u16 {
        let ext: [(u8, &[u8]); 2] = [(4, b"1"), (1, &[20])];
        p.alice.send_rtp(&packet(
            111,
            77,
            100 + i,
            u32::from(i) * 960,
            &ext,
            &[i as u8; 30],
        ));
        p.bob.pump(8 * MS);
    }
    p.bob.pump(50 * MS);
    assert_eq!(p.bob.rtp.len(), 20);
    let ssrc: u32 = line(&p.bob_answer, "a=ssrc:")
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    for (i, w) in p.bob.rtp.windows(2).enumerate() {
        assert_eq!(w[0].header.ssrc, ssrc);
        assert_eq!(
            w[1].header.sequence_number,
            w[0].header.sequence_number.wrapping_add(1)
        );
        assert_eq!(w[1].header.timestamp.wrapping_sub(w[0].header.timestamp), 960);
        assert_eq!(w[0].payload[0], i as u8);
        // The subscriber's MID, and the level passed on.
        assert_eq!(&w[0].header.get_extension(4).unwrap()[..], b"1");
        assert_eq!(&w[0].header.get_extension(1).unwrap()[..], &[20]);
    }
    let level = p.server.event("levels", |e| match e {
        Event::Levels { levels } => levels.first().cloned(),
        _ => None,
    });
    assert_eq!(
        (level.session, &*level.sid, level.level_dbov),
        (p.alice_id, "TR_a", 20)
    );

    // Muted: nothing goes. Unmuted: the numbers run on.
    let last = p.bob.rtp.last().unwrap().header.sequence_number;
    p.server.media.send(Command::Mute {
        session: p.alice_id,
        sid: TrackSid::from("TR_a"),
        muted: true,
    });
    std::thread::sleep(30 * MS);
    p.bob.rtp.clear();
    for i in 20..25u16 {
        p.alice
            .send_rtp(&packet(111, 77, 100 + i, u32::from(i) * 960, &[], &[1; 30]));
    }
    p.bob.pump(60 * MS);
    assert!(p.bob.rtp.is_empty());
    p.server.media.send(Command::Mute {
        session: p.alice_id,
        sid: TrackSid::from("TR_a"),
        muted: false,
    });
    std::thread::sleep(30 * MS);
    p.alice.send_rtp(&packet(111, 77, 125, 25 * 960, &[], &[1; 30]));
    p.bob.pump(60 * MS);
    assert_eq!(p.bob.rtp[0].header.sequence_number, last.wrapping_add(1));
}

#[test]
fn reports_and_transport_feedback_reach_the_publisher() {
    let mut p = pair(|d, c| video(d, c, &[]), MediaKind::Video);
    for i in 0..60u16 {
        let wide = i.to_be_bytes();
        let ext: [(u8, &[u8]); 2] = [(4, b"1"), (5, &wide)];
        p.alice
            .send_rtp(&packet(96, 77, i, u32::from(i) * 3000, &ext, &vp8(i, i == 0, 1)));
        p.alice.pump(20 * MS);
    }
    p.alice.pump(100 * MS);
    let wide = feedback(&p.alice, 205, 15);
    let reported: usize = wide
        .iter()
        .map(|f| usize::from(u16::from_be_bytes([f[14], f[15]])))
        .sum();
    assert_eq!(reported, 60, "every packet is reported once");
    assert!(!feedback(&p.alice, 201, 0).is_empty(), "receiver reports");
    p.bob.pump(20 * MS);
    assert!(!feedback(&p.bob, 200, 0).is_empty(), "sender reports");
    assert_eq!(p.bob.rtp.len(), 60);
    p.server.media.send(Command::Statistics);
    let statistics = p.server.event("statistics", |e| match e {
        Event::Statistics { sessions } => Some(sessions.clone()),
        _ => None,
    });
    let of = |id| statistics.iter().find(|s| s.session == Some(id)).unwrap();
    assert_eq!(
        (
            of(p.alice_id).published[0].packets,
            of(p.bob_id).subscribed[0].packets
        ),
        (60, 60)
    );
    assert_eq!(of(p.bob_id).remote, Some(p.bob.socket.local_addr().unwrap()));
}

#[test]
fn losses_are_repaired_on_both_sides() {
    let mut p = pair(|d, c| video(d, c, &[]), MediaKind::Video);
    // Bob loses some media packets (never RTX) and asks for them.
    let mut n = 0;
    p.bob.lose = Box::new(move |h| {
        n += 1;
        h.payload_type == 96 && n % 7 == 3
    });
    for i in 0..40u16 {
        let ext: [(u8, &[u8]); 1] = [(4, b"1")];
        // Alice's 10 and 11 never arrive at first.
        if !(10..12).contains(&i) {
            p.alice.send_rtp(&packet(
                96,
                77,
                i,
                u32::from(i) * 3000,
                &ext,
                &vp8(i, i == 0, i as u8),
            ));
        }
        p.bob.pump(5 * MS);
    }
    p.alice.pump(60 * MS);
    let nacks = feedback(&p.alice, 205, 1);
    assert_eq!(&nacks[0][12..16], &[0, 10, 0, 1], "one entry asks for 10 and 11");
    assert_eq!(&nacks[0][8..12], &77u32.to_be_bytes());
    // Alice repairs over RTX, which is matched by MID.
    for i in 10..12u16 {
        let mut payload = i.to_be_bytes().to_vec();
        payload.extend_from_slice(&vp8(i, false, i as u8));
        p.alice.send_rtp(&packet(
            97,
            78,
            500 + i,
            u32::from(i) * 3000,
            &[(4, b"1")],
            &payload,
        ));
    }
    p.bob.pump(60 * MS);
    let media = p.bob.rtp[0].header.ssrc;
    let first = p.bob.rtp[0].header.sequence_number;
    let have: Vec<u16> = p
        .bob
        .rtp
        .iter()
        .map(|r| r.header.sequence_number.wrapping_sub(first))
        .collect();
    assert!(have.contains(&10) && have.contains(&11), "{have:?}");
    let lost: Vec<u16> = (0..40).filter(|i| !have.contains(i)).collect();
    assert!(!lost.is_empty());
    let mut nack = vec![0x81, 205, 0, 0, 0, 0, 0, 1];
    nack.extend_from_slice(&media.to_be_bytes());
    for l in &lost {
        nack.extend_from_slice(&first.wrapping_add(*l).to_be_bytes());
        nack.extend_from_slice(&[0, 0]);
    }
    let words = (nack.len() / 4 - 1) as u16;
    nack[2..4].copy_from_slice(&words.to_be_bytes());
    p.bob.rtp.clear();
    p.bob.send_rtcp(&nack);
    p.bob.pump(80 * MS);
    let repaired: Vec<u16> = p
        .bob
        .rtp
        .iter()
        .filter(|r| r.header.payload_type == 97)
        .map(|r| u16::from_be_bytes([r.payload[0], r.payload[1]]).wrapping_sub(first))
        .collect();
    assert_eq!(repaired, lost);
    assert!(p.bob.rtp.iter().all(|r| r.header.ssrc != media));
    for (r, l) in p.bob.rtp.iter().zip(&lost) {
        assert_eq!(*r.payload.last().unwrap(), *l as u8, "the right packet");
    }
}

/// Sends one frame on each layer; SSRC 100, 101, 102 for q, h, f.
fn layers(p: &mut Pair, frame: u16, key: [bool; 3], on: [bool; 3]) {
    for (i, rid) in ["q", "h", "f"].iter().enumerate() {
        if on[i] {
            let ext: [(u8, &[u8]); 2] = [(4, b"1"), (10, rid.as_bytes())];
            let stamp = u32::from(frame) * 3000 + i as u32 * 1_000_000;
            let payload = vp8(frame + 1000 * i as u16, key[i], i as u8);
            p.alice
                .send_rtp(&packet(96, 100 + i as u32, frame, stamp, &ext, &payload));
        }
    }
    p.bob.pump(15 * MS);
    p.alice.pump(5 * MS);
}

fn last_layer(p: &Pair) -> u8 {
    *p.bob.rtp.last().unwrap().payload.last().unwrap()
}

#[test]
fn layers_change_at_key_frames_and_look_like_one_stream() {
    let mut p = pair(|d, c| video(d, c, &["q", "h", "f"]), MediaKind::Video);
    let all = [true; 3];
    layers(&mut p, 0, [true; 3], all);
    layers(&mut p, 1, [false; 3], all);
    for i in 2..8 {
        layers(&mut p, i, [false; 3], all);
    }
    // The top layer is wanted: its key frame is asked for, and only then it comes.
    let asked: Vec<u32> = feedback(&p.alice, 206, 1)
        .iter()
        .map(|f| u32::from_be_bytes([f[8], f[9], f[10], f[11]]))
        .collect();
    assert!(asked.contains(&102), "{asked:?}");
    layers(&mut p, 8, [false, false, true], all);
    assert_eq!(last_layer(&p), 2);
    p.server.media.send(Command::SetLayer {
        session: p.bob_id,
        sid: TrackSid::from("TR_a"),
        quality: Some(Quality::Low),
    });
    for i in 9..12 {
        layers(&mut p, i, [false; 3], all);
    }
    assert_eq!(
        last_layer(&p),
        2,
        "the old layer runs until the new one's key frame"
    );
    layers(&mut p, 12, [true, false, false], all);
    layers(&mut p, 13, [false; 3], all);
    assert_eq!(last_layer(&p), 0);
    // One stream: numbers without a hole, times and picture ids that rise.
    for w in p.bob.rtp.windows(2) {
        assert_eq!(
            w[1].header.sequence_number,
            w[0].header.sequence_number.wrapping_add(1)
        );
        let step = w[1].header.timestamp.wrapping_sub(w[0].header.timestamp);
        assert!(step > 0 && step < 90_000, "{step}");
        let picture = |r: &rtc::rtp::Packet| u16::from_be_bytes([r.payload[2] & 0x7F, r.payload[3]]);
        assert_eq!(picture(&w[1]), picture(&w[0]) + 1);
        assert_eq!(w[1].header.ssrc, w[0].header.ssrc);
    }
    // Paused, nothing comes.
    p.server.media.send(Command::SetLayer {
        session: p.bob_id,
        sid: TrackSid::from("TR_a"),
        quality: None,
    });
    std::thread::sleep(30 * MS);
    p.bob.rtp.clear();
    layers(&mut p, 14, [true; 3], all);
    assert!(p.bob.rtp.is_empty());
}

#[test]
fn a_layer_that_stops_is_left() {
    let mut p = pair(|d, c| video(d, c, &["q", "h", "f"]), MediaKind::Video);
    for i in 0..6 {
        layers(&mut p, i, [true; 3], [true; 3]);
    }
    assert_eq!(last_layer(&p), 2);
    for i in 6..80 {
        layers(&mut p, i, [i % 10 == 0, i % 10 == 0, false], [true, true, false]);
    }
    assert_eq!(last_layer(&p), 1, "the next one below");
}

#[test]
fn a_picture_is_asked_for_when_the_subscriber_can_receive_it() {
    let mut server = Server::start();
    let (mut alice, mut bob) = (Client::new("alice"), Client::new("bob"));
    let (alice_id, bob_id) = (server.open(Topology::Single), server.open(Topology::Single));
    server.expect(alice_id, "cid", "TR_a", MediaKind::Video);
    let sections = [application(), video("sendonly", Some("cid"), &[])];
    let answer = server.answer(alice_id, 1, alice.describe("actpass", &sections));
    alice.connect(&answer);
    // Bob's section is bound by the first answer, before his connection is up.
    server.subscribe(bob_id, "TR_a");
    let sections = [application(), video("recvonly", None, &[])];
    let answer = server.answer(bob_id, 1, bob.describe("actpass", &sections));
    assert!(answer.contains("a=msid:PA_x|TR_a TR_a"), "{answer}");
    let picture = |at: u16| packet(96, 7, at, u32::from(at) * 3000, &[(4, b"1")], &vp8(at, true, 9));
    for at in 0..10 {
        alice.send_rtp(&picture(at));
        alice.pump(10 * MS);
    }
    // By then the last key frame is too old to begin with.
    alice.pump(1200 * MS);
    alice.rtcp.clear();
    bob.connect(&answer);
    let end = std::time::Instant::now() + PATIENCE;
    while feedback(&alice, 206, 1).is_empty() {
        assert!(std::time::Instant::now() < end, "no key frame is asked for");
        alice.pump(10 * MS);
    }
    for at in 10..20 {
        alice.send_rtp(&picture(at));
        bob.pump(10 * MS);
    }
    bob.pump(40 * MS);
    assert_eq!(bob.rtp.len(), 10, "nothing is sent to who is not there yet");
}

#[test]
fn media_follows_the_nominated_address() {
    let mut p = pair(audio, MediaKind::Audio);
    let ext: [(u8, &[u8]); 1] = [(4, b"1")];
    p.alice.send_rtp(&packet(111, 77, 1, 0, &ext, &[1; 30]));
    p.bob.pump(40 * MS);
    assert_eq!(p.bob.rtp.len(), 1);
    p.bob.move_socket();
    // A packet from an unchecked address changes nothing.
    p.bob.send_raw(&[0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    p.alice.send_rtp(&packet(111, 77, 2, 960, &ext, &[1; 30]));
    p.bob.pump(40 * MS);
    assert_eq!(p.bob.rtp.len(), 1);
    let answer = p.bob_answer.clone();
    p.bob.ice(&answer);
    p.alice.send_rtp(&packet(111, 77, 3, 1920, &ext, &[1; 30]));
    p.bob.pump(40 * MS);
    assert_eq!(p.bob.rtp.len(), 2);
    let drops = p.server.media.drops().read();
    assert_eq!(drops.iter().find(|(l, _)| *l == "unknown_peer").unwrap().1, 1);
}

#[test]
fn an_ice_restart_changes_credentials_and_keeps_the_keys() {
    let mut p = pair(audio, MediaKind::Audio);
    p.bob.ufrag = "restarted".to_owned();
    let sections = [
        application(),
        audio("recvonly", None),
        video("recvonly", None, &[]),
    ];
    let answer = p.server.answer(p.bob_id, 3, p.bob.describe("actpass", &sections));
    assert_ne!(line(&answer, "a=ice-ufrag:"), line(&p.bob_answer, "a=ice-ufrag:"));
    assert_eq!(
        line(&answer, "a=fingerprint:"),
        line(&p.bob_answer, "a=fingerprint:")
    );
    p.bob.move_socket();
    p.bob.ice(&answer);
    p.alice.send_rtp(&packet(111, 77, 1, 0, &[(4, b"1")], &[1; 30]));
    p.bob.pump(40 * MS);
    assert_eq!(p.bob.rtp.len(), 1, "the same keys still fit");
}

#[test]
fn a_track_that_is_no_longer_sent_ends() {
    let mut p = pair(audio, MediaKind::Audio);
    let offer = p
        .alice
        .describe("actpass", &[application(), audio("inactive", None)]);
    p.server.answer(p.alice_id, 2, offer);
    let ended = p.server.event("ended", |e| match e {
        Event::TrackEnded { sid, .. } => Some(sid.clone()),
        _ => None,
    });
    assert_eq!(&*ended, "TR_a");
    // Bob's section is released at his next offer.
    p.server.event("need", |e| {
        matches!(e, Event::NeedSections { session, .. } if *session == p.bob_id).then_some(())
    });
    let sections = [
        application(),
        audio("recvonly", None),
        video("recvonly", None, &[]),
    ];
    let answer = p.server.answer(p.bob_id, 3, p.bob.describe("actpass", &sections));
    assert!(!answer.contains("a=sendonly"), "{answer}");
}

#[test]
fn a_wrong_fingerprint_ends_the_leg() {
    let mut server = Server::start();
    let mut client = Client::new("mallory");
    let session = server.open(Topology::Single);
    let honest = client.fingerprint.clone();
    client.fingerprint = honest.replace(|c: char| c.is_ascii_digit(), "0");
    let answer = server.answer(session, 1, client.describe("actpass", &[application()]));
    client.ice(&answer);
    client.dtls();
    let reason = server.event("disconnected", |e| match e {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(matches!(reason, TransportEnd::Handshake(_)), "{reason:?}");
    assert!(!server.has(|e| matches!(e, Event::Connected { .. })));
}

#[test]
fn nonsense_is_refused_and_counted() {
    let mut server = Server::start();
    let session = server.open(Topology::Single);
    for (id, sdp) in [
        (1, String::new()),
        (2, "v=0\r\n".to_owned()),
        (3, "x".repeat(300_000)),
    ] {
        server.media.send(Command::Offer {
            session,
            leg: plenum_worker::session::api::Leg::Publisher,
            id,
            sdp,
        });
        server.event("refused", |e| {
            matches!(e, Event::Refused { id: i, .. } if *i == id).then_some(())
        });
    }
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for first in 0..=255u8 {
        socket.send_to(&[first; 40], server.address).unwrap();
        socket.send_to(&[], server.address).unwrap();
        // The socket's queue is shorter than all of this.
        std::thread::sleep(MS);
    }
    std::thread::sleep(200 * MS);
    let total: u64 = server.media.drops().read().iter().map(|(_, n)| n).sum();
    assert_eq!(total, 512);
    // And it still works.
    let client = Client::new("c");
    server.answer(session, 9, client.describe("actpass", &[application()]));
}
