//! Clients that make one offer: what they receive comes and goes without another.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::time::Duration;

use media_support::*;
use plenum_worker::session::api::{Command, Event, MediaKind, SessionId, Topology, TrackSid};

const MS: Duration = Duration::from_millis(1);

/// Somebody who publishes a camera.
struct Publisher {
    client: Client,
    session: SessionId,
    ssrc: u32,
    sent: u16,
}

impl Publisher {
    fn start(server: &mut Server, name: &str, sid: &str, ssrc: u32) -> Publisher {
        let session = server.open(Topology::Single);
        let mut client = Client::new(name);
        server.expect(session, "cid", sid, MediaKind::Video);
        let sections = [application(), video("sendonly", Some("cid"), &[])];
        let answer = server.answer(session, 1, client.describe("actpass", &sections));
        client.connect(&answer);
        connected(server, session);
        Publisher {
            client,
            session,
            ssrc,
            sent: 0,
        }
    }

    /// Frames until the viewer has got so many more.
    fn send_until(&mut self, viewer: &mut Client, more: usize) {
        let wanted = viewer.rtp.len() + more;
        for _ in 0..2_000 {
            if viewer.rtp.len() >= wanted {
                return;
            }
            let at = self.sent;
            self.sent += 1;
            let frame = vp8(500 + at, true, 1);
            let timestamp = self
                .ssrc
                .wrapping_mul(1_000_003)
                .wrapping_add(u32::from(at) * 3000);
            self.client
                .send_rtp(&packet(96, self.ssrc, 100 + at, timestamp, &[(4, b"1")], &frame));
            viewer.pump(5 * MS);
        }
        panic!("the viewer gets nothing");
    }
}

fn connected(server: &mut Server, session: SessionId) {
    server.event("connected", |e| {
        matches!(e, Event::Connected { session: s, .. } if *s == session).then_some(())
    });
}

fn bound(server: &mut Server, session: SessionId, sid: &str) {
    server.event("bound", |e| {
        matches!(e, Event::SubscriptionBound { session: s, sid: t } if *s == session && &**t == sid)
            .then_some(())
    });
}

fn viewer(server: &mut Server) -> (Client, SessionId, String) {
    let session = server.open(Topology::Single);
    server.media.send(Command::OffersOnce { session });
    let client = Client::new("viewer");
    let sections = [audio("recvonly", None), video("recvonly", None, &[])];
    let answer = server.answer(session, 1, client.describe("actpass", &sections));
    (client, session, answer)
}

fn ssrc_of(answer: &str, kind: &str) -> u32 {
    let section = answer.split("m=").find(|s| s.starts_with(kind)).unwrap();
    let text = line(section, "a=ssrc:").split(' ').next().unwrap();
    text.parse().unwrap()
}

#[test]
fn sections_are_promised_at_once_and_filled_as_tracks_come_and_go() {
    let mut server = Server::start();
    let (mut bob, bob_id, answer) = viewer(&mut server);
    assert_eq!(answer.matches("a=sendonly").count(), 2, "{answer}");
    for msid in ["plenum-0 plenum-audio-0", "plenum-0 plenum-video-0"] {
        assert!(answer.contains(&format!("a=msid:{msid}\r\n")), "{answer}");
    }
    let ssrc = ssrc_of(&answer, "video");
    assert_ne!(ssrc, ssrc_of(&answer, "audio"));
    bob.connect(&answer);
    connected(&mut server, bob_id);

    let mut alice = Publisher::start(&mut server, "alice", "TR_a", 7);
    let mut carol = Publisher::start(&mut server, "carol", "TR_c", 9);
    server.subscribe(bob_id, "TR_a");
    bound(&mut server, bob_id, "TR_a");
    alice.send_until(&mut bob, 5);
    // By choice, then because the track is over: the next takes its place, to the viewer the same stream.
    server.media.send(Command::Unsubscribe {
        session: bob_id,
        sid: TrackSid::from("TR_a"),
    });
    server.subscribe(bob_id, "TR_c");
    bound(&mut server, bob_id, "TR_c");
    carol.send_until(&mut bob, 5);
    server.subscribe(bob_id, "TR_a");
    assert!(!server.has(|e| matches!(e, Event::SubscriptionBound { .. })));
    server.media.send(Command::RemoveTrack {
        session: carol.session,
        sid: TrackSid::from("TR_c"),
    });
    bound(&mut server, bob_id, "TR_a");
    alice.send_until(&mut bob, 5);
    assert!(
        !server.has(|e| matches!(e, Event::NeedSections { session, .. } if *session == bob_id)),
        "it can't be asked for more"
    );
    for pair in bob.rtp.windows(2) {
        let (a, b) = (&pair[0].header, &pair[1].header);
        assert_eq!((a.ssrc, b.ssrc), (ssrc, ssrc));
        assert_eq!(b.sequence_number, a.sequence_number.wrapping_add(1));
        let ticks = b.timestamp.wrapping_sub(a.timestamp);
        assert!(ticks > 0 && ticks < 60 * 90_000, "{ticks}");
        let picture = |p: &rtc::rtp::Packet| u16::from_be_bytes([p.payload[2], p.payload[3]]) & 0x7FFF;
        assert_eq!(picture(&pair[1]), (picture(&pair[0]) + 1) & 0x7FFF);
    }
}

#[test]
fn its_one_offer_counts_again_when_it_restarts_ice() {
    let mut server = Server::start();
    let (mut bob, bob_id, first) = viewer(&mut server);
    bob.connect(&first);
    connected(&mut server, bob_id);
    let mut again = |id: u32, credentials: Option<(String, String)>| {
        server.media.send(Command::OfferAgain {
            session: bob_id,
            id,
            credentials,
        });
        server.event("answer", |e| match e {
            Event::Answer {
                session, id: i, sdp, ..
            } if *session == bob_id && *i == id => Some(sdp.clone()),
            _ => None,
        })
    };
    let ufrag = |sdp: &str| line(sdp, "a=ice-ufrag:").to_owned();
    let same = again(2, None);
    assert_eq!(ufrag(&same), ufrag(&first));
    let fresh = ("another".to_owned(), "another-password-of-some-length".to_owned());
    let restarted = again(3, Some(fresh.clone()));
    assert_ne!(ufrag(&restarted), ufrag(&first));
    assert_eq!(ufrag(&again(4, None)), ufrag(&restarted));
    assert_eq!(ufrag(&again(5, Some(fresh))), ufrag(&restarted));
    for kind in ["audio", "video"] {
        assert_eq!(ssrc_of(&restarted, kind), ssrc_of(&first, kind));
    }
    // Somebody who never made an offer has none to make again.
    let other = server.open(Topology::Single);
    server.media.send(Command::OffersOnce { session: other });
    server.media.send(Command::OfferAgain {
        session: other,
        id: 1,
        credentials: None,
    });
    server.event("refused", |e| {
        matches!(e, Event::Refused { session, id: 1, .. } if *session == other).then_some(())
    });
}
