//! Packets that nobody should send, through a running engine: each is counted by its reason, changes
//! nothing, and those who behave go on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use media_support::call::Call;
use media_support::*;
use plenum_worker::session::api::{Command, Event, Leg, SdpError, SessionId, Topology, TransportEnd};

const MS: Duration = Duration::from_millis(1);
const MEDIA: u32 = 77;

#[test]
fn what_is_forged_cut_or_replayed_is_counted_and_changes_nothing() {
    let mut call = Call::start();

    let picture = call.picture();
    let sealed = call.alice.seal_rtp(&picture);
    call.alice.send_raw(&sealed);
    let seen = call.counted(3, |c| (0..3).for_each(|_| c.alice.send_raw(&sealed)));
    assert_eq!(seen, [("replayed", 3)]);

    // A tag, the payload, and each field of the header.
    let picture = call.picture();
    let sealed = call.alice.seal_rtp(&picture);
    let places = [sealed.len() - 1, sealed.len() - 20, 1, 2, 4, 8, 17];
    let seen = call.counted(places.len() as u64, |c| {
        for at in places {
            let mut forged = sealed.to_vec();
            forged[at] ^= 1;
            c.alice.send_raw(&forged);
        }
    });
    assert_eq!(seen, [("not_authentic", places.len() as u64)]);

    // Every length but the right one; one byte alone can't be told from anything else.
    let lengths = sealed.len() as u64 - 1;
    let seen = call.counted(lengths, |c| {
        (1..sealed.len()).for_each(|end| c.alice.send_raw(&sealed[..end]))
    });
    assert_eq!(seen.iter().map(|(_, n)| n).sum::<u64>(), lengths, "{seen:?}");
    let of_cut = ["not_ours", "bad_rtp", "not_authentic"];
    assert!(seen.iter().all(|(reason, _)| of_cut.contains(reason)), "{seen:?}");

    // Longer than any packet of ours: it ends where the socket is read.
    for size in [3_000, 60_000] {
        let mut large = sealed.to_vec();
        large.resize(size, 7);
        call.alice.send_raw(&large);
    }
    // The one that all of these were made of is as good as new.
    call.alice.send_raw(&sealed);
    call.goes_on();

    // Authentic, and yet nothing that was agreed on.
    let seen = call.counted(3, |c| {
        let at = c.at + 100;
        c.alice
            .send_rtp(&packet(50, MEDIA, at, 0, &[(4, b"1")], &[1; 20]));
        c.alice.send_rtp(&packet(50, 4_000, at, 0, &[], &[1; 20]));
        c.alice
            .send_rtp(&packet(96, 4_001, at, 0, &[(4, b"9"), (10, b"zz")], &[1; 20]));
    });
    assert_eq!(seen, [("unknown_source", 2), ("unknown_payload", 1)]);
    call.at += 100;

    // Whoever passed no check reaches nothing, and neither does what is no protocol of ours.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let seen = call.counted(1, |c| {
        stranger.send_to(&sealed, c.server.address).unwrap();
    });
    assert_eq!(seen, [("unknown_peer", 1)]);
    let seen = call.counted(3, |c| {
        for first in [70, 120, 255] {
            c.alice.send_raw(&[first; 40]);
        }
    });
    assert_eq!(seen, [("not_ours", 3)]);
    // A record of the connection that is up, without its keys.
    call.alice
        .send_raw(&[23, 254, 253, 0, 1, 0, 0, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]);
    call.goes_on();
}

#[test]
fn media_before_the_keys_is_counted_and_the_handshake_goes_on() {
    let mut server = Server::start();
    let mut client = Client::new("early");
    let session = server.open(Topology::Single);
    let answer = server.answer(session, 1, client.describe("actpass", &[application()]));
    client.ice(&answer);
    let all = |server: &Server| {
        server
            .media
            .drops()
            .read()
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect::<Vec<_>>()
    };
    for i in 0..10u16 {
        client.send_raw(&packet(96, 5, i, 0, &[], &[0; 40]));
        client.send_raw(&[0x80, 200, 0, 6, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    let end = Instant::now() + PATIENCE;
    while all(&server) != [("no_keys", 20)] {
        assert!(Instant::now() < end, "{:?}", all(&server));
        std::thread::sleep(MS);
    }
    assert!(client.dtls(), "{:?}", client.dtls_error);
    server.event("connected", |e| {
        matches!(e, Event::Connected { .. }).then_some(())
    });
}

#[test]
fn a_storm_of_requests_is_bounded() {
    let mut call = Call::start();
    for _ in 0..40 {
        let picture = call.picture();
        call.alice.send_rtp(&picture);
        call.bob.pump(2 * MS);
    }
    call.bob.pump(50 * MS);
    call.bob.rtp.clear();
    call.alice.rtcp.clear();

    // Everything again, two hundred times over.
    let begun = Instant::now();
    let all: Vec<u8> = (0..0x1_0000u32)
        .step_by(17)
        .flat_map(|s| [(s >> 8) as u8, s as u8, 0xFF, 0xFF])
        .collect();
    for _ in 0..10 {
        for part in all.chunks(1_000) {
            let mut nack = vec![0x81, 205];
            nack.extend_from_slice(&((2 + part.len() / 4) as u16).to_be_bytes());
            nack.extend_from_slice(&[0, 0, 0, 9]);
            nack.extend_from_slice(&call.bob_ssrc.to_be_bytes());
            nack.extend_from_slice(part);
            call.bob.send_rtcp(&nack);
        }
        call.bob.pump(5 * MS);
    }
    // And a picture at once, five hundred times.
    for _ in 0..500 {
        let mut pli = vec![0x81, 206, 0, 2, 0, 0, 0, 9];
        pli.extend_from_slice(&call.bob_ssrc.to_be_bytes());
        call.bob.send_rtcp(&pli);
    }
    call.bob.pump(200 * MS);
    call.alice.pump(200 * MS);
    let sent = usize::from(call.at);
    let again = call.bob.rtp.len();
    assert!(again > 0, "some of it was still there");
    assert!(again <= 3 * sent, "{again} packets again of {sent}");
    let asked = feedback(&call.alice, 206, 1).len() as u128;
    let most = begun.elapsed().as_millis() / 250 + 2;
    assert!((1..=most).contains(&asked), "{asked} requests for a picture");
    call.goes_on();
}

#[test]
fn reports_that_make_no_sense_are_harmless() {
    let mut call = Call::start();
    let before = call.bob.rtp.len();
    // Lengths beyond the packet, blocks that aren't there, a hundred reports in one packet, SSRCs of others.
    let mut huge = Vec::new();
    for i in 0..100u32 {
        huge.extend_from_slice(&[0x81, 201, 0, 7]);
        huge.extend_from_slice(&i.to_be_bytes());
        huge.extend_from_slice(&call.bob_ssrc.to_be_bytes());
        huge.extend_from_slice(&[0xFF; 20]);
    }
    huge.truncate(1_900);
    let bad: Vec<Vec<u8>> = vec![
        huge,
        [&[0x9F, 201, 0, 1, 0, 0, 0, 1][..], &[0xFF; 8]].concat(),
        vec![0x81, 205, 0xFF, 0xFF, 0, 0, 0, 1, 0, 0, 0, 2],
        vec![
            0x8F, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0,
        ],
        vec![0x8F, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0],
        vec![0x81, 203, 0, 1, 0, 0, 0, 77],
        vec![0x80, 223, 0, 1, 0, 0, 0, 77],
    ];
    for packet in &bad {
        call.bob.send_rtcp(packet);
        call.alice.send_rtcp(packet);
    }
    let seen = call.counted(1, |c| {
        let mut forged = vec![0x81, 206, 0, 2, 0, 0, 0, 9];
        forged.extend_from_slice(&c.bob_ssrc.to_be_bytes());
        forged.extend_from_slice(&[0; 20]);
        c.bob.send_raw(&forged);
    });
    assert!(seen.contains(&("not_authentic", 1)), "{seen:?}");
    assert!(call.bob.rtp.len() >= before);
    call.goes_on();
}

#[test]
fn checks_with_a_wrong_password_move_nothing_and_keep_nothing_alive() {
    let mut call = Call::start();
    let ufrag = line(&call.answer, "a=ice-ufrag:").to_owned();
    let check = call.alice.check(&call.alice.ufrag, &ufrag, "a guess", true);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_read_timeout(Some(20 * MS)).unwrap();
    for _ in 0..50 {
        let seen = call.counted(200, |c| {
            for _ in 0..100 {
                stranger.send_to(&check, c.server.address).unwrap();
                // From Alice's own address too.
                c.alice.send_raw(&check);
            }
        });
        assert_eq!(seen, [("bad_stun", 200)]);
    }
    let seen = call.counted(check.len() as u64 - 1, |c| {
        for end in 1..check.len() {
            stranger.send_to(&check[..end], c.server.address).unwrap();
        }
    });
    assert_eq!(seen, [("bad_stun", check.len() as u64 - 1)]);
    assert!(
        stranger.recv(&mut [0; 2_000]).is_err(),
        "nobody answers a stranger"
    );
    call.goes_on();
    let alice = call.alice_id;
    assert!(
        !call
            .server
            .has(|e| matches!(e, Event::Disconnected { session, .. } if *session == alice))
    );
}

#[test]
fn a_description_beyond_the_limits_is_refused_and_a_proper_one_taken() {
    let mut call = Call::start();
    let offer = |id: u32, sdp: String| Command::Offer {
        session: SessionId(call.alice_id.0),
        leg: Leg::Publisher,
        id,
        sdp,
    };
    let many = vec![video("sendonly", Some("cid"), &[]); 1_000];
    call.server
        .media
        .send(offer(2, call.alice.describe("actpass", &many)));
    call.server.media.send(offer(3, "v=0\r\n".repeat(100_000)));
    call.server.media.send(offer(4, String::new()));
    for (id, large) in [(2, true), (3, true), (4, false)] {
        let error = call.server.event("refused", |e| match e {
            Event::Refused { id: of, error, .. } if *of == id => Some(error.clone()),
            _ => None,
        });
        assert_eq!(matches!(error, SdpError::TooLarge { .. }), large, "{error}");
    }
    call.goes_on();
    let sections = [application(), video("sendonly", Some("cid"), &[])];
    let again = call.alice.describe("actpass", &sections);
    call.server.answer(call.alice_id, 5, again);
    call.goes_on();
}

/// Anybody can send what looks like a handshake to an address that passed a check.
#[test]
fn garbage_does_not_end_a_handshake() {
    let mut server = Server::start();
    let mut client = Client::new("shaken");
    let session = server.open(Topology::Single);
    let answer = server.answer(session, 1, client.describe("actpass", &[application()]));
    client.ice(&answer);
    for len in 1..200usize {
        let mut record = vec![
            22,
            254,
            253,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            len as u8,
            (len >> 8) as u8,
            len as u8,
        ];
        record.extend((0..len).map(|i| (i * 7 + len) as u8));
        client.send_raw(&record);
    }
    let refused = || {
        let all = server.media.drops().read();
        all.into_iter().find(|(name, _)| *name == "bad_dtls").unwrap().1
    };
    let end = Instant::now() + PATIENCE;
    while refused() < 199 {
        assert!(Instant::now() < end, "{} counted", refused());
        std::thread::sleep(MS);
    }
    assert!(client.dtls(), "{:?}", client.dtls_error);
    assert!(!server.has(|e| matches!(
        e,
        Event::Disconnected {
            reason: TransportEnd::Handshake(_),
            ..
        }
    )));
}
