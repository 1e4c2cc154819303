//! People change rooms while their packets flow: a hub and an engine, and clients on the wire.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as lk;
use livekit_protocol::data_packet::Value;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use media_support::channels::{Channels, RELIABLE};
use media_support::*;
use plenum_token::Role;
use plenum_worker::quality::Metrics;
use plenum_worker::room::{RoomName, RoomSpec};
use plenum_worker::session::MediaConfig;
use plenum_worker::signal::{Hub, HubConfig, HubHandle, Session};
use plenum_worker_api::v1::{ClientFrame, Move, Moved, Start, client_frame, worker_frame};
use prost::Message as _;
use tokio::runtime::Runtime;

const MAIN: &str = "team/standup";
const RED: &str = "team/standup/red";
const MS: Duration = Duration::from_millis(1);

struct Worker {
    runtime: Runtime,
    hub: HubHandle,
}

impl Worker {
    fn start() -> Worker {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (media, events, _) = plenum_worker::session::start(MediaConfig {
            udp: "127.0.0.1:0".parse().unwrap(),
            ..MediaConfig::default()
        })
        .unwrap();
        let metrics = Arc::new(Metrics::new("dev", None).unwrap());
        let (hub, handle) = Hub::new(HubConfig::default(), media, events, metrics);
        runtime.spawn(hub.run());
        for room in [MAIN, RED] {
            runtime
                .block_on(handle.assign(RoomSpec::open(RoomName::from(room))))
                .unwrap();
        }
        Worker { runtime, hub: handle }
    }
}

/// Somebody in a room, with one peer connection.
struct Guest {
    media: Client,
    hub: HubHandle,
    session: Session,
    seq: u64,
    offers: u32,
    /// Of its description, in their order.
    sections: Vec<String>,
    /// The last answer.
    answer: String,
    /// It may not offer again before the answer, and will afterwards.
    awaits: bool,
    asked: bool,
    /// Rounds since the last move.
    rounds: u32,
    moved: Option<lk::RoomMovedResponse>,
    answered: Option<Moved>,
    said: Vec<String>,
    /// What it knows of others.
    known: std::collections::BTreeMap<String, lk::ParticipantInfo>,
}

fn recvonly(audios: u32, videos: u32) -> impl Iterator<Item = String> {
    let audios = (0..audios).map(|_| audio("recvonly", None));
    audios.chain((0..videos).map(|_| video("recvonly", None, &[])))
}

fn description(id: u32, sdp: String) -> lk::SessionDescription {
    lk::SessionDescription {
        r#type: "offer".into(),
        sdp,
        id,
        ..Default::default()
    }
}

impl Guest {
    /// Joins with its tracks, placeholders of either kind and data channels, and is connected.
    fn join(
        worker: &Worker,
        room: &str,
        identity: &str,
        tracks: Vec<(lk::AddTrackRequest, String)>,
    ) -> Guest {
        let mut media = Client::new(identity);
        let mut sections = vec![application()];
        let (requests, published): (Vec<_>, Vec<_>) = tracks.into_iter().unzip();
        sections.extend(published);
        sections.extend(recvonly(1, 1));
        let request = lk::JoinRequest {
            publisher_offer: Some(description(1, media.describe("actpass", &sections))),
            add_track_requests: requests,
            ..Default::default()
        };
        media.data = Some(Channels::new(true, true));
        let start = Start {
            room: room.into(),
            identity: identity.into(),
            video_grant_json: serde_json::to_string(&Role::Participant.grant(MAIN)).unwrap(),
            role: "participant".into(),
            join_request: request.encode_to_vec(),
            ..Default::default()
        };
        let session = worker.runtime.block_on(worker.hub.enter(start, 1)).unwrap();
        let mut guest = Guest {
            media,
            hub: worker.hub.clone(),
            session,
            seq: 1,
            offers: 1,
            sections,
            answer: String::new(),
            awaits: true,
            asked: false,
            rounds: 0,
            moved: None,
            answered: None,
            said: Vec::new(),
            known: std::collections::BTreeMap::new(),
        };
        guest.until(worker, "an answer", |g| !g.answer.is_empty());
        let answer = guest.answer.clone();
        guest.media.connect(&answer);
        guest
    }

    fn frame(&mut self, worker: &Worker, frame: client_frame::Frame) {
        self.seq += 1;
        let frame = ClientFrame {
            seq: self.seq,
            frame: Some(frame),
        };
        worker
            .runtime
            .block_on(self.hub.frame(self.session.connection, frame));
    }

    /// Reads what came, as a client does: it offers whenever it is asked to.
    fn read(&mut self, worker: &Worker) {
        while let Ok(frame) = self.session.frames.try_recv() {
            let message = match frame.frame.unwrap() {
                worker_frame::Frame::Response(bytes) => lk::SignalResponse::decode(bytes.as_slice())
                    .unwrap()
                    .message
                    .unwrap(),
                worker_frame::Frame::Moved(moved) => {
                    self.answered = Some(moved);
                    continue;
                }
                worker_frame::Frame::Said(json) => {
                    self.said.push(json);
                    continue;
                }
                other => panic!("{other:?}"),
            };
            match message {
                Response::Answer(answer) => {
                    assert_eq!(answer.id, self.offers, "answers come in order");
                    self.answer = answer.sdp;
                    self.awaits = false;
                }
                Response::MediaSectionsRequirement(need) => {
                    self.sections.extend(recvonly(need.num_audios, need.num_videos));
                    self.asked = true;
                }
                Response::RoomMoved(moved) => {
                    self.known.clear();
                    for info in &moved.other_participants {
                        self.known.insert(info.identity.clone(), info.clone());
                    }
                    self.moved = Some(moved);
                    self.rounds = 0;
                }
                Response::Update(update) => {
                    for info in update.participants {
                        self.known.insert(info.identity.clone(), info);
                    }
                }
                Response::Join(join) => {
                    for info in join.other_participants {
                        self.known.insert(info.identity.clone(), info);
                    }
                }
                Response::Leave(leave) => panic!("{leave:?}"),
                _ => {}
            }
        }
        if self.asked && !self.awaits {
            (self.asked, self.awaits) = (false, true);
            self.offers += 1;
            self.rounds += 1;
            let sdp = self.media.describe("actpass", &self.sections);
            let offer = lk::SignalRequest {
                message: Some(Request::Offer(description(self.offers, sdp))),
            };
            self.frame(worker, client_frame::Frame::Request(offer.encode_to_vec()));
        }
    }

    fn until(&mut self, worker: &Worker, what: &str, done: impl Fn(&Guest) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "{what}: {}", self.answer);
            self.media.pump(5 * MS);
            self.read(worker);
        }
    }

    fn go(&mut self, worker: &Worker, id: u64, room: &str) {
        self.moved = None;
        self.frame(
            worker,
            client_frame::Frame::Move(Move {
                id,
                room: room.into(),
                ..Default::default()
            }),
        );
        self.until(worker, "the answer to a move", |g| {
            g.answered.as_ref().is_some_and(|m| m.id == id)
        });
        let answered = self.answered.clone().unwrap();
        assert_eq!((answered.room.as_str(), answered.code.as_str()), (room, ""));
        assert_eq!(self.moved.as_ref().unwrap().room.as_ref().unwrap().name, room);
    }

    fn sid(&self, identity: &str) -> &str {
        &self.known[identity].sid
    }
}

fn camera() -> (lk::AddTrackRequest, String) {
    let request = lk::AddTrackRequest {
        cid: "camera".into(),
        r#type: lk::TrackType::Video as i32,
        source: lk::TrackSource::Camera as i32,
        width: 640,
        height: 360,
        ..Default::default()
    };
    (request, video("sendonly", Some("camera"), &[]))
}

fn microphone() -> (lk::AddTrackRequest, String) {
    let request = lk::AddTrackRequest {
        cid: "mic".into(),
        r#type: lk::TrackType::Audio as i32,
        source: lk::TrackSource::Microphone as i32,
        ..Default::default()
    };
    (request, audio("sendonly", Some("mic")))
}

/// A camera that sends a key frame when it is asked to.
struct Camera {
    picture: u16,
    asked: usize,
}

impl Camera {
    fn send(&mut self, guest: &mut Guest) {
        // Picture loss indications so far.
        let asked = feedback(&guest.media, 206, 1).len();
        let key = self.picture == 0 || asked > self.asked;
        self.asked = asked;
        let frame = packet(
            96,
            4711,
            self.picture,
            u32::from(self.picture) * 3000,
            &[(4, b"1")],
            &vp8(self.picture, key, 7),
        );
        guest.media.send_rtp(&frame);
        self.picture += 1;
    }
}

/// Is it a frame to begin with?
fn is_key(packet: &rtc::rtp::Packet) -> bool {
    packet.payload[6] & 1 == 0 || packet.payload[5] == 0
}

#[test]
fn a_publisher_is_seen_where_it_is_and_nowhere_else() {
    let worker = Worker::start();
    let mut alice = Guest::join(&worker, MAIN, "alice", vec![camera()]);
    let mut main = Guest::join(&worker, MAIN, "main", vec![microphone()]);
    let mut red = Guest::join(&worker, RED, "red", vec![microphone()]);
    let mut camera = Camera { picture: 0, asked: 0 };
    let port = alice.media.socket.local_addr().unwrap();

    // Sends and reads until `done`.
    let mut run = |alice: &mut Guest,
                   main: &mut Guest,
                   red: &mut Guest,
                   what: &str,
                   done: &dyn Fn(&Guest, &Guest, &Guest) -> bool| {
        let end = Instant::now() + PATIENCE;
        while !done(alice, main, red) {
            assert!(
                Instant::now() < end,
                "{what}: {}\n{}\n{}",
                alice.answer,
                main.answer,
                red.answer
            );
            camera.send(alice);
            for guest in [&mut *alice, &mut *main, &mut *red] {
                guest.media.pump(5 * MS);
                guest.read(&worker);
            }
        }
    };
    let msid = |guest: &Guest, of: &str| format!("a=msid:{}|TR_", guest.sid(of));

    run(
        &mut alice,
        &mut main,
        &mut red,
        "pictures in the main room",
        &|alice, main, _| main.media.rtp.len() > 5 && alice.answer.contains("|TR_A"),
    );
    assert!(main.answer.contains(&msid(&main, "alice")));
    assert!(alice.answer.contains(&msid(&alice, "main")));
    let first_sid = main.sid("alice").to_owned();
    let track = main.known["alice"].tracks[0].sid.clone();

    // To the breakout room.
    for guest in [&mut main, &mut red] {
        guest.rounds = 0;
    }
    assert!(red.media.rtp.is_empty());
    alice.go(&worker, 1, RED);
    run(
        &mut alice,
        &mut main,
        &mut red,
        "pictures in the breakout room",
        &|alice, main, red| {
            red.media.rtp.len() > 5
                && red.answer.contains(&format!("|{track} {track}"))
                && alice.answer.contains(&msid(alice, "red"))
                && main.answer.matches("a=inactive").count() == 2
        },
    );
    assert!(is_key(&red.media.rtp[0]), "{:?}", red.media.rtp[0]);
    assert_eq!(red.known["alice"].tracks[0].sid, track, "the track is the same");
    assert_ne!(red.sid("alice"), first_sid);
    assert!(red.answer.contains(&msid(&red, "alice")));
    assert_eq!(
        main.known["alice"].state,
        lk::participant_info::State::Disconnected as i32
    );
    // One round was enough for the mover, who was given up one voice for another, and for the viewer.
    assert_eq!((alice.rounds, red.rounds), (1, 1));
    // The old room sees nothing more.
    let seen = main.media.rtp.len();
    let from = red.media.rtp.len();
    run(&mut alice, &mut main, &mut red, "more pictures", &|_, _, red| {
        red.media.rtp.len() > from + 20
    });
    assert_eq!(main.media.rtp.len(), seen);

    // And back, over the section that it had.
    for guest in [&mut main, &mut red] {
        guest.rounds = 0;
        guest.media.rtp.clear();
    }
    let sections = main.sections.len();
    alice.go(&worker, 2, MAIN);
    run(
        &mut alice,
        &mut main,
        &mut red,
        "pictures in the main room again",
        &|alice, main, red| {
            main.media.rtp.len() > 5
                && main.answer.contains(&format!("|{track} {track}"))
                && alice.answer.contains(&msid(alice, "main"))
                && red.answer.matches("a=inactive").count() == 2
        },
    );
    assert!(is_key(&main.media.rtp[0]));
    assert_eq!((main.rounds, main.sections.len()), (1, sections));
    red.media.rtp.clear();
    let from = main.media.rtp.len();
    run(&mut alice, &mut main, &mut red, "more pictures", &|_, main, _| {
        main.media.rtp.len() > from + 20
    });
    assert!(red.media.rtp.is_empty());
    // All that over one connection.
    assert_eq!(alice.media.socket.local_addr().unwrap(), port);
    assert!(!alice.media.closed);
}

fn user(json: &str) -> Vec<u8> {
    lk::DataPacket {
        value: Some(Value::User(lk::UserPacket {
            topic: Some(plenum_protocol::TOPIC.into()),
            payload: json.into(),
            ..Default::default()
        })),
        ..Default::default()
    }
    .encode_to_vec()
}

#[test]
fn client_and_server_speak_on_the_reserved_topic_over_a_move() {
    let worker = Worker::start();
    let mut alice = Guest::join(&worker, MAIN, "alice", Vec::new());
    let mut bob = Guest::join(&worker, RED, "bob", Vec::new());
    // Her channels are not open yet.
    for json in ["1", "2"] {
        alice.frame(&worker, client_frame::Frame::Tell(json.into()));
    }
    alice.go(&worker, 1, RED);
    alice.frame(&worker, client_frame::Frame::Tell("3".into()));
    let received = |guest: &Guest| guest.media.data.as_ref().unwrap().received.clone();
    alice.until(&worker, "what waited", |g| received(g).len() >= 3);
    let expected: Vec<(u16, Vec<u8>)> = ["1", "2", "3"].iter().map(|j| (RELIABLE, user(j))).collect();
    assert_eq!(received(&alice), expected);

    bob.until(&worker, "channels", |g| {
        g.media.data.as_ref().unwrap().acknowledged.contains(&RELIABLE)
    });
    alice
        .media
        .data
        .as_mut()
        .unwrap()
        .send(RELIABLE, &user(r#"{"id":1,"do":"hello"}"#));
    alice.until(&worker, "what she said", |g| !g.said.is_empty());
    assert_eq!(alice.said, [r#"{"id":1,"do":"hello"}"#]);
    // Then something for everyone: had he been sent the first, it would have come before.
    let other = lk::DataPacket {
        value: Some(Value::User(lk::UserPacket {
            payload: b"hi".to_vec(),
            ..Default::default()
        })),
        ..Default::default()
    };
    alice
        .media
        .data
        .as_mut()
        .unwrap()
        .send(RELIABLE, &other.encode_to_vec());
    let end = Instant::now() + PATIENCE;
    while received(&bob).is_empty() {
        assert!(Instant::now() < end, "nothing came");
        alice.media.pump(5 * MS);
        bob.media.pump(5 * MS);
    }
    let first = lk::DataPacket::decode(received(&bob)[0].1.as_slice()).unwrap();
    assert!(matches!(first.value, Some(Value::User(u)) if u.payload == b"hi"));
}
