//! Dual topology: the client offers on one leg, the server on the other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::time::Duration;

use media_support::*;
use plenum_worker::session::api::{Command, Event, Leg, MediaKind, SessionId, Topology, TrackSid};

const MS: Duration = Duration::from_millis(1);

fn server_offer(server: &mut Server, session: SessionId) -> (u32, String) {
    server.event("offer", |e| match e {
        Event::Offer {
            session: s, id, sdp, ..
        } if *s == session => Some((*id, sdp.clone())),
        _ => None,
    })
}

fn is_bound(server: &mut Server, session: SessionId, sid: &str) {
    server.event("bound", |e| match e {
        Event::SubscriptionBound { session: s, sid: t } if *s == session && &**t == sid => Some(()),
        _ => None,
    });
}

/// RFC 8445 section 7.3: checks may overtake the description of who makes them.
#[test]
fn a_client_may_begin_before_its_answer_has_come() {
    let mut server = Server::start();
    let session = server.open(Topology::Dual);
    let mut bob = Client::new("bob");
    let (id, offer) = server_offer(&mut server, session);
    bob.ice(&offer);
    let (media, sdp) = (server.media.clone(), bob.describe("active", &[application()]));
    let late = std::thread::spawn(move || {
        std::thread::sleep(100 * MS);
        media.send(Command::Answer { session, id, sdp });
    });
    assert!(bob.dtls(), "DTLS: {:?}", bob.dtls_error);
    late.join().unwrap();
    server.event("connected", |e| match e {
        Event::Connected { session: s, .. } if *s == session => Some(()),
        _ => None,
    });
}

#[test]
fn media_goes_from_a_publisher_leg_to_a_subscriber_leg() {
    let mut server = Server::start();
    let (alice_id, bob_id) = (server.open(Topology::Dual), server.open(Topology::Dual));
    let (mut alice, mut bob) = (Client::new("alice"), Client::new("bob"));

    // The server speaks first on the subscriber leg, with data alone.
    let (id, offer) = server_offer(&mut server, bob_id);
    assert!(
        offer.contains("m=application") && !offer.contains("m=audio"),
        "{offer}"
    );
    assert_eq!(line(&offer, "a=setup:"), "actpass");
    server.media.send(Command::Answer {
        session: bob_id,
        id,
        sdp: bob.describe("active", &[application()]),
    });
    bob.connect(&offer);
    server.event("connected", |e| match e {
        Event::Connected {
            session,
            leg: Leg::Subscriber,
            ..
        } if *session == bob_id => Some(()),
        _ => None,
    });

    server.expect(alice_id, "mic", "TR_mic", MediaKind::Audio);
    server.expect(alice_id, "cam", "TR_cam", MediaKind::Video);
    server.subscribe(bob_id, "TR_mic");
    server.subscribe(bob_id, "TR_cam");
    let sections = [
        audio("sendonly", Some("mic")),
        video("sendonly", Some("cam"), &[]),
    ];
    let answer = server.answer(alice_id, 1, alice.describe("actpass", &sections));
    alice.connect(&answer);

    // Both in one offer, since both became live at once.
    let (id, offer) = server_offer(&mut server, bob_id);
    assert_eq!(offer.matches("a=sendonly").count(), 2, "{offer}");
    assert!(offer.contains("a=msid:PA_x|TR_mic TR_mic") && offer.contains("a=msid:PA_x|TR_cam TR_cam"));
    let answer = bob.describe(
        "active",
        &[
            application(),
            audio("recvonly", None),
            video("recvonly", None, &[]),
        ],
    );
    server.media.send(Command::Answer {
        session: bob_id,
        id,
        sdp: answer,
    });
    is_bound(&mut server, bob_id, "TR_mic");
    is_bound(&mut server, bob_id, "TR_cam");

    for i in 0..10u16 {
        alice.send_rtp(&packet(111, 1, i, u32::from(i) * 960, &[(4, b"0")], &[7; 20]));
        alice.send_rtp(&packet(
            96,
            2,
            i,
            u32::from(i) * 3000,
            &[(4, b"1")],
            &vp8(i, i == 0, 9),
        ));
        bob.pump(10 * MS);
    }
    bob.pump(40 * MS);
    let count = |pt| bob.rtp.iter().filter(|p| p.header.payload_type == pt).count();
    assert_eq!((count(111), count(96)), (10, 10));

    // Unsubscribed, the section goes inactive, and is taken by the next track.
    server.media.send(Command::Unsubscribe {
        session: bob_id,
        sid: TrackSid::from("TR_mic"),
    });
    let (id, offer) = server_offer(&mut server, bob_id);
    assert_eq!(
        (
            offer.matches("a=sendonly").count(),
            offer.matches("a=inactive").count()
        ),
        (1, 1)
    );
    let answer = bob.describe(
        "active",
        &[
            application(),
            audio("inactive", None),
            video("recvonly", None, &[]),
        ],
    );
    server.media.send(Command::Answer {
        session: bob_id,
        id,
        sdp: answer,
    });
    server.subscribe(bob_id, "TR_mic");
    let (id, offer) = server_offer(&mut server, bob_id);
    assert_eq!(
        (
            offer.matches("m=audio").count(),
            offer.matches("a=sendonly").count()
        ),
        (1, 2)
    );
    let answer = bob.describe(
        "active",
        &[
            application(),
            audio("recvonly", None),
            video("recvonly", None, &[]),
        ],
    );
    server.media.send(Command::Answer {
        session: bob_id,
        id,
        sdp: answer,
    });
    is_bound(&mut server, bob_id, "TR_mic");
    bob.rtp.clear();
    alice.send_rtp(&packet(111, 1, 50, 50 * 960, &[(4, b"0")], &[7; 20]));
    bob.pump(40 * MS);
    assert_eq!(bob.rtp.len(), 1);
}

#[test]
fn a_change_of_rooms_is_one_offer() {
    let mut server = Server::start();
    let (bob_id, mut bob) = (server.open(Topology::Dual), Client::new("bob"));
    let (id, offer) = server_offer(&mut server, bob_id);
    server.media.send(Command::Answer {
        session: bob_id,
        id,
        sdp: bob.describe("active", &[application()]),
    });
    bob.connect(&offer);
    // Somebody in either room.
    let mut speakers = Vec::new();
    for (name, sid) in [("alice", "TR_here"), ("carol", "TR_there")] {
        let (session, mut speaker) = (server.open(Topology::Single), Client::new(name));
        server.expect(session, "mic", sid, MediaKind::Audio);
        let answer = server.answer(
            session,
            1,
            speaker.describe("actpass", &[audio("sendonly", Some("mic"))]),
        );
        speaker.connect(&answer);
        speakers.push(speaker);
    }
    server.subscribe(bob_id, "TR_here");
    let (id, _) = server_offer(&mut server, bob_id);
    server.media.send(Command::Answer {
        session: bob_id,
        id,
        sdp: bob.describe("active", &[application(), audio("recvonly", None)]),
    });
    is_bound(&mut server, bob_id, "TR_here");

    server.media.send(Command::Unsubscribe {
        session: bob_id,
        sid: TrackSid::from("TR_here"),
    });
    server.subscribe(bob_id, "TR_there");
    let (id, offer) = server_offer(&mut server, bob_id);
    let directions = |of: &str| offer.matches(of).count();
    assert_eq!(
        (directions("a=inactive"), directions("a=sendonly")),
        (1, 1),
        "{offer}"
    );
    assert!(offer.contains("|TR_there TR_there") && !offer.contains("TR_here"));
    server.media.send(Command::Answer {
        session: bob_id,
        id,
        sdp: bob.describe(
            "active",
            &[application(), audio("inactive", None), audio("recvonly", None)],
        ),
    });
    is_bound(&mut server, bob_id, "TR_there");
    for (speaker, payload) in speakers.iter_mut().zip([1, 2]) {
        speaker.send_rtp(&packet(111, 1, 1, 960, &[(4, b"0")], &[payload; 20]));
    }
    let end = std::time::Instant::now() + PATIENCE;
    while bob.rtp.is_empty() && std::time::Instant::now() < end {
        bob.pump(10 * MS);
    }
    let heard: Vec<u8> = bob.rtp.iter().map(|p| p.payload[0]).collect();
    assert_eq!(heard, [2]);
}

#[test]
fn an_answer_to_nothing_is_refused() {
    let mut server = Server::start();
    let single = server.open(Topology::Single);
    let dual = server.open(Topology::Dual);
    let client = Client::new("c");
    let (id, _) = server_offer(&mut server, dual);
    for (session, id) in [(single, 1), (dual, id + 5), (SessionId(99), 1)] {
        let sdp = client.describe("active", &[application()]);
        server.media.send(Command::Answer { session, id, sdp });
        server.event("refused", |e| {
            matches!(e, Event::Refused { session: s, .. } if *s == session).then_some(())
        });
    }
}

#[test]
fn the_subscriber_leg_restarts_with_new_credentials() {
    let mut server = Server::start();
    let session = server.open(Topology::Dual);
    let mut bob = Client::new("bob");
    let (id, first) = server_offer(&mut server, session);
    server.media.send(Command::Answer {
        session,
        id,
        sdp: bob.describe("active", &[application()]),
    });
    bob.connect(&first);
    server.media.send(Command::RestartIce { session });
    let (id, second) = server_offer(&mut server, session);
    assert_ne!(line(&first, "a=ice-ufrag:"), line(&second, "a=ice-ufrag:"));
    // The old credentials hold until the new ones are used.
    bob.ice(&first);
    bob.ufrag = "again".to_owned();
    server.media.send(Command::Answer {
        session,
        id,
        sdp: bob.describe("active", &[application()]),
    });
    bob.move_socket();
    bob.ice(&second);
    server.media.send(Command::Statistics);
    let remote = server.event("statistics", |e| match e {
        Event::Statistics { sessions } => sessions[0].remote,
        _ => None,
    });
    assert_eq!(remote, bob.socket.local_addr().unwrap());
}
