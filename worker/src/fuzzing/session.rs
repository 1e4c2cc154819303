//! What comes before the keys: descriptions, checks, the first flight.

#![allow(clippy::expect_used, reason = "a broken promise is what fuzzing looks for")]

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use crate::forward::drops::DropCounters;
use crate::net::Route;
use crate::session::api::{
    AudioOptions, Command, Event, ExpectedTrack, Home, Leg, MediaKind, SessionId, Topology, TrackSid,
};
use crate::session::dtls::{Identity, is_client_hello, offers_only_sha1};
use crate::session::engine::Engine;
use crate::session::exchange::Place;
use crate::session::ice::{self, Credentials};
use crate::session::sdp::parse;

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::generate().expect("a certificate"));

pub(super) fn sdp(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(description) = parse(&text) {
        let _ = description.bundle_transport();
        for section in &description.sections {
            let _ = (section.rejected(), section.has_feedback(96, "nack"));
        }
    }
}

/// Offers of one client, each behind a zero byte, through the whole negotiation: each gets one reply.
pub(super) fn offer(data: &[u8]) {
    let now = Instant::now();
    let mut engine = Engine::new(
        IDENTITY.clone(),
        Place::alone(),
        Arc::new(DropCounters::default()),
        now,
    );
    let address = SocketAddr::from(([127, 0, 0, 1], 7));
    engine.set_candidates(vec![address], vec![address]);
    let (publisher, viewer) = (SessionId(1), SessionId(2));
    for (session, topology) in [(publisher, Topology::Single), (viewer, Topology::Dual)] {
        let codecs = Vec::new();
        engine.command(
            Command::Open {
                session,
                home: Home::from("fuzz"),
                topology,
                codecs,
            },
            now,
        );
    }
    for (cid, kind) in [("mic", MediaKind::Audio), ("cam", MediaKind::Video)] {
        let sid = TrackSid::from(cid);
        let track = ExpectedTrack {
            cid: cid.to_owned(),
            sid: sid.clone(),
            kind,
            codec: String::new(),
            simulcast: true,
            max_bitrate: None,
            audio: AudioOptions::default(),
        };
        engine.command(
            Command::ExpectTrack {
                session: publisher,
                track,
            },
            now,
        );
        for session in [publisher, viewer] {
            let publisher_sid = Arc::from("PA_x");
            engine.command(
                Command::Subscribe {
                    session,
                    sid: sid.clone(),
                    publisher_sid,
                },
                now,
            );
        }
    }
    for (id, text) in data.split(|b| *b == 0).enumerate() {
        let sdp = String::from_utf8_lossy(text).into_owned();
        let id = id as u32;
        let leg = Leg::Publisher;
        engine.command(
            Command::Offer {
                session: publisher,
                leg,
                id,
                sdp: sdp.clone(),
            },
            now,
        );
        engine.command(
            Command::Answer {
                session: viewer,
                id: 0,
                sdp,
            },
            now,
        );
        engine.settle(now);
        let replies = engine.take_events().into_iter().filter(|e| match e {
            Event::Answer {
                session, id: of, sdp, ..
            } => {
                assert!(parse(sdp).is_ok(), "our answer is a description");
                *session == publisher && *of == id
            }
            Event::Refused { session, id: of, .. } => *session == publisher && *of == id,
            _ => false,
        });
        assert_eq!(replies.count(), 1);
    }
}

/// Checks, whole engine: no stranger is answered.
pub(super) fn stun(data: &[u8]) {
    let ours = Credentials {
        local_ufrag: "server".to_owned(),
        local_pwd: "a password nobody can guess, for certain".to_owned(),
        remote_ufrag: "client".to_owned(),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 7));
    let answered = ice::read(data).and_then(|r| r.answer(&ours, address, &IDENTITY.provider));
    assert!(answered.is_err(), "not made with the password");
    let now = Instant::now();
    let mut engine = Engine::new(
        IDENTITY.clone(),
        Place::alone(),
        Arc::new(DropCounters::default()),
        now,
    );
    engine.datagram(Route::Udp(address), &mut data.to_vec(), now);
    assert!(engine.batch.is_empty());
}

/// The first flight of DTLS.
pub(super) fn client_hello(data: &[u8]) {
    let _ = (is_client_hello(data), offers_only_sha1(data));
}
