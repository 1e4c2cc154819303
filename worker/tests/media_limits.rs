//! What a room asks of publishers: the highest encoding alone, and a bound of the bitrate.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::time::{Duration, Instant};

use media_support::*;
use plenum_worker::session::api::{
    AudioOptions, Command, Event, ExpectedTrack, MediaKind, SessionId, Topology, TrackSid,
};

fn announce(server: &Server, session: SessionId, simulcast: bool, max_bitrate: Option<u64>) {
    server.media.send(Command::ExpectTrack {
        session,
        track: ExpectedTrack {
            cid: "cid".to_owned(),
            sid: TrackSid::from("TR_a"),
            kind: MediaKind::Video,
            codec: String::new(),
            simulcast,
            max_bitrate,
            audio: AudioOptions::default(),
        },
    });
}

fn offer(client: &Client) -> String {
    let camera = video("sendonly", Some("cid"), &["q", "h", "f"]);
    client.describe("actpass", &[application(), camera])
}

#[test]
fn without_simulcast_the_highest_encoding_is_taken() {
    let mut server = Server::start();
    let alice = Client::new("alice");
    for (simulcast, told) in [
        (false, "a=simulcast:recv f\r\n"),
        (true, "a=simulcast:recv q;h;f\r\n"),
    ] {
        let session = server.open(Topology::Single);
        announce(&server, session, simulcast, None);
        let answer = server.answer(session, 1, offer(&alice));
        assert!(answer.contains(told), "{answer}");
        assert_eq!(answer.matches("a=rid:").count(), if simulcast { 3 } else { 1 });
        let layered = server.event("live", |e| match e {
            Event::TrackLive {
                session: s,
                simulcast,
                ..
            } if *s == session => Some(*simulcast),
            _ => None,
        });
        assert_eq!(layered, simulcast);
        server.media.send(Command::Close { session });
    }
}

/// Bits per second, draft-alvestrand-rmcat-remb-03 section 2.2.
fn bitrate(remb: &[u8]) -> u64 {
    assert_eq!(&remb[12..16], b"REMB");
    let word = u32::from_be_bytes(remb[16..20].try_into().unwrap());
    u64::from(word & 0x3_FFFF) << (word >> 18 & 0x3F)
}

#[test]
fn a_bound_of_the_bitrate_is_told_beside_feedback() {
    let mut server = Server::start();
    let mut alice = Client::new("alice");
    let session = server.open(Topology::Single);
    announce(&server, session, true, Some(800_000));
    let answer = server.answer(session, 1, offer(&alice));
    assert!(answer.contains("transport-cc"), "{answer}");
    alice.connect(&answer);
    let end = Instant::now() + PATIENCE;
    let mut number = 0u16;
    // The bound, and the feedback that goes on beside it.
    while feedback(&alice, 206, 15).is_empty() || feedback(&alice, 205, 15).is_empty() {
        assert!(Instant::now() < end, "no bound was told, or no feedback");
        number += 1;
        let at = u32::from(number) * 3000;
        let extensions: [(u8, &[u8]); 3] = [(4, b"1"), (10, b"f"), (5, &number.to_be_bytes())];
        alice.send_rtp(&packet(
            96,
            7,
            number,
            at,
            &extensions,
            &vp8(number, number == 1, 1),
        ));
        alice.pump(Duration::from_millis(20));
    }
    // As exact as 18 bits are.
    let told = bitrate(&feedback(&alice, 206, 15)[0]);
    assert!((799_000..=800_000).contains(&told), "{told}");
}
