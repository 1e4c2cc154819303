//! A client goes from one worker to another with the peer connection that it has: two whole workers but
//! for their gRPC side, and clients that do what stock ones do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as lk;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use media_support::channels::{Channels, LOSSY, RELIABLE};
use media_support::*;
use plenum_token::Role;
use plenum_worker::control::convert;
use plenum_worker::quality::Metrics;
use plenum_worker::room::{RoomName, RoomSpec};
use plenum_worker::session::{MediaConfig, start};
use plenum_worker::signal::{Hub, HubConfig, HubHandle, Session};
use plenum_worker_api::v1::{self, ClientFrame, Start, client_frame, worker_frame};
use prost::Message as _;
use tokio::runtime::Runtime;

const MS: Duration = Duration::from_millis(1);
const OLD: &str = "team/standup";
const NEWS: &str = r#"{"at":1}"#;
const NEW: &str = "team/standup/red";

/// Two workers, each with a room.
struct Cluster {
    runtime: Runtime,
    old: HubHandle,
    new: HubHandle,
}

impl Cluster {
    fn start() -> Cluster {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let worker = |room: &str| {
            let (media, events, _) = start(MediaConfig {
                udp: "127.0.0.1:0".parse().unwrap(),
                ..MediaConfig::default()
            })
            .unwrap();
            let metrics = Arc::new(Metrics::new("test", None).unwrap());
            let (hub, handle) = Hub::new(HubConfig::default(), media, events, metrics);
            runtime.spawn(hub.run());
            let spec = RoomSpec::open(RoomName::from(room));
            runtime.block_on(handle.assign(spec)).unwrap();
            handle
        };
        let (old, new) = (worker(OLD), worker(NEW));
        Cluster { runtime, old, new }
    }

    fn reserve(&self, identity: &str, handover: Vec<u8>) -> bool {
        let (room, request) = convert::reservation(v1::ReserveRequest {
            room: NEW.into(),
            epoch: 1,
            identity: identity.into(),
            ttl_ms: 30_000,
            takes_a_place: true,
            handover,
            token_issued_at_ms: 1,
        });
        self.runtime.block_on(self.new.reserve(room, request)).unwrap()
    }

    fn people(&self, hub: &HubHandle) -> Vec<String> {
        let listed = self.runtime.block_on(hub.list(None)).unwrap();
        listed.into_iter().map(|l| l.info.identity).collect()
    }
}

/// A client as a whole.
struct Person<'a> {
    cluster: &'a Cluster,
    hub: HubHandle,
    identity: String,
    session: Session,
    seq: u64,
    sid: String,
    client: Client,
    sections: Vec<String>,
    offers: u32,
    /// Answers by the id of their offer.
    answers: Vec<(u32, String)>,
    told: Vec<Response>,
    frames: Vec<worker_frame::Frame>,
}

fn start_frame(room: &str, identity: &str, request: &lk::JoinRequest, dual: bool) -> Start {
    Start {
        room: room.into(),
        epoch: 1,
        identity: identity.into(),
        name: identity.into(),
        video_grant_json: serde_json::to_string(&Role::Participant.grant(room)).unwrap(),
        role: "participant".into(),
        join_request: request.encode_to_vec(),
        token_issued_at_ms: 1,
        dual_peer_connection: dual,
        ..Default::default()
    }
}

fn rids() -> [&'static str; 3] {
    ["q", "h", "f"]
}

impl<'a> Person<'a> {
    /// Comes in, with media and data up. `publishes`: a microphone and a camera with three layers.
    fn join(cluster: &'a Cluster, room: &str, identity: &str, publishes: bool) -> Person<'a> {
        let hub = if room == OLD { &cluster.old } else { &cluster.new };
        let request = lk::JoinRequest::default();
        let start = start_frame(room, identity, &request, false);
        let session = cluster.runtime.block_on(hub.enter(start, 1)).unwrap();
        let mut client = Client::new(identity);
        client.data = Some(Channels::new(true, true));
        let mut person = Person {
            cluster,
            hub: hub.clone(),
            identity: identity.into(),
            session,
            seq: 1,
            sid: String::new(),
            client,
            sections: vec![application()],
            offers: 0,
            answers: Vec::new(),
            told: Vec::new(),
            frames: Vec::new(),
        };
        let join = person.response("join", |r| match r {
            Response::Join(join) => Some(join.clone()),
            _ => None,
        });
        person.sid = join.participant.unwrap().sid;
        if publishes {
            person.request(Request::AddTrack(lk::AddTrackRequest {
                cid: "mic".into(),
                r#type: lk::TrackType::Audio as i32,
                source: lk::TrackSource::Microphone as i32,
                ..Default::default()
            }));
            person.request(Request::AddTrack(lk::AddTrackRequest {
                cid: "cam".into(),
                r#type: lk::TrackType::Video as i32,
                source: lk::TrackSource::Camera as i32,
                width: 1280,
                height: 720,
                ..Default::default()
            }));
            person.sections.push(audio("sendonly", Some("mic")));
            person.sections.push(video("sendonly", Some("cam"), &rids()));
        }
        person.sections.push(audio("recvonly", None));
        person.sections.push(video("recvonly", None, &[]));
        let id = person.offer();
        let answer = person.answer(id);
        person.client.connect(&answer);
        person.until("channels", |p| {
            p.client.data.as_ref().unwrap().acknowledged.len() == 2
        });
        person
    }

    fn frame(&mut self, frame: client_frame::Frame) {
        self.seq += 1;
        let frame = ClientFrame {
            seq: self.seq,
            frame: Some(frame),
        };
        let connection = self.session.connection;
        self.cluster.runtime.block_on(self.hub.frame(connection, frame));
    }

    fn request(&mut self, message: Request) {
        let request = lk::SignalRequest {
            message: Some(message),
        };
        self.frame(client_frame::Frame::Request(request.encode_to_vec()));
    }

    fn offer(&mut self) -> u32 {
        self.offers += 1;
        let id = self.offers;
        self.request(Request::Offer(lk::SessionDescription {
            r#type: "offer".into(),
            sdp: self.client.describe("actpass", &self.sections),
            id,
            ..Default::default()
        }));
        id
    }

    fn answer(&mut self, id: u32) -> String {
        self.until("answer", |p| p.answers.iter().any(|(of, _)| *of == id));
        self.answers.iter().find(|(of, _)| *of == id).unwrap().1.clone()
    }

    /// Takes what came: offers again where it is asked to, and keeps the rest.
    fn hear(&mut self) {
        while let Ok(frame) = self.session.frames.try_recv() {
            let frame = frame.frame.unwrap();
            let worker_frame::Frame::Response(bytes) = frame else {
                self.frames.push(frame);
                continue;
            };
            match lk::SignalResponse::decode(bytes.as_slice())
                .unwrap()
                .message
                .unwrap()
            {
                Response::Answer(answer) => self.answers.push((answer.id, answer.sdp)),
                Response::MediaSectionsRequirement(needed) => {
                    for _ in 0..needed.num_audios {
                        self.sections.push(audio("recvonly", None));
                    }
                    for _ in 0..needed.num_videos {
                        self.sections.push(video("recvonly", None, &[]));
                    }
                    self.offer();
                }
                other => self.told.push(other),
            }
        }
    }

    fn run(&mut self, time: Duration) {
        self.client.pump(time);
        self.hear();
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(
                Instant::now() < end,
                "{} waits for {what}; was told {:#?}, {:?}",
                self.identity,
                self.told,
                self.frames
            );
            self.run(5 * MS);
        }
    }

    fn response<T>(&mut self, what: &str, pick: impl Fn(&Response) -> Option<T>) -> T {
        let mut found = None;
        self.until(what, |p| {
            found = p.told.iter().find_map(&pick);
            found.is_some()
        });
        found.unwrap()
    }

    /// The live state for the next worker.
    fn hand_over(&mut self) -> Vec<u8> {
        self.frame(client_frame::Frame::HandOver(v1::HandOver {}));
        let mut state = None;
        self.until("handed over", |p| {
            state = p.frames.iter().find_map(|f| match f {
                worker_frame::Frame::HandedOver(state) => Some(state.clone()),
                _ => None,
            });
            state.is_some()
        });
        state.unwrap()
    }

    fn hang_up(&mut self) {
        self.frame(client_frame::Frame::Hangup(v1::Hangup { may_resume: false }));
    }

    /// Connects its signalling to the new worker as a stock client does that was told to resume.
    fn resume_elsewhere(&mut self) {
        let request = lk::JoinRequest {
            reconnect: true,
            participant_sid: self.sid.clone(),
            ..Default::default()
        };
        let start = start_frame(NEW, &self.identity, &request, false);
        self.hub = self.cluster.new.clone();
        self.session = self.cluster.runtime.block_on(self.hub.enter(start, 1)).unwrap();
        self.seq = 1;
        self.told.clear();
        self.frames.clear();
        self.answers.clear();
    }

    /// One round of a talking head: all layers, each frame a key frame. `names`: says which is which, as
    /// senders do until they are heard.
    fn talk(&mut self, at: u16, names: bool) {
        let mic: &[(u8, &[u8])] = if names { &[(4, b"1")] } else { &[] };
        let sound = packet(111, 10, at, u32::from(at) * 960, mic, &[7; 20]);
        self.client.send_rtp(&sound);
        for (layer, rid) in rids().into_iter().enumerate() {
            let ssrc = 21 + layer as u32;
            let named: &[(u8, &[u8])] = if names {
                &[(4, b"2"), (10, rid.as_bytes())]
            } else {
                &[]
            };
            let picture = packet(
                96,
                ssrc,
                at,
                u32::from(at) * 3000,
                named,
                &vp8(at, true, layer as u8),
            );
            self.client.send_rtp(&picture);
        }
    }

    fn heard(&self) -> bool {
        self.client.rtp.iter().any(|p| p.header.payload_type == 111)
    }

    /// Sees a layer.
    fn saw(&self, layer: u8) -> bool {
        let mut pictures = self.client.rtp.iter().filter(|p| p.header.payload_type == 96);
        pictures.any(|p| p.payload.last() == Some(&layer))
    }

    fn told_data(&self, id: u16, text: &str) -> bool {
        let data = self.client.data.as_ref().unwrap();
        data.received.iter().any(|(of, raw)| {
            let Some(lk::data_packet::Value::User(user)) =
                lk::DataPacket::decode(raw.as_slice()).unwrap().value
            else {
                return false;
            };
            *of == id && user.payload == text.as_bytes()
        })
    }

    fn say(&mut self, id: u16, text: &str, sequence: u32) {
        let packet = lk::DataPacket {
            sequence,
            value: Some(lk::data_packet::Value::User(lk::UserPacket {
                payload: text.into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let data = self.client.data.as_mut().unwrap();
        data.send(id, &packet.encode_to_vec());
    }
}

/// The direction of a section of a description.
fn direction(sdp: &str, mid: usize) -> String {
    let section = sdp.split("\r\nm=").nth(mid + 1).unwrap();
    let found = ["sendrecv", "sendonly", "recvonly", "inactive"]
        .into_iter()
        .find(|d| section.contains(&format!("a={d}\r\n")));
    found.unwrap().to_owned()
}

/// Runs both until `done`; `each` goes before every round.
fn both<'a>(
    what: &str,
    (one, other): (&mut Person<'a>, &mut Person<'a>),
    mut each: impl FnMut(&mut Person<'a>, &mut Person<'a>, u16),
    done: impl Fn(&Person<'a>, &Person<'a>) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    let mut round = 0;
    while !done(one, other) {
        assert!(
            Instant::now() < end,
            "{what}: {} got {} packets, {} got {}; told {:#?} and {:#?}",
            one.identity,
            one.client.rtp.len(),
            other.identity,
            other.client.rtp.len(),
            one.told,
            other.told
        );
        round += 1;
        each(one, other, round);
        one.run(10 * MS);
        other.run(10 * MS);
    }
}

/// Bob leaves Alice on the old worker for Carol on the new one. `begins`: his data channels begin a new
/// association, else he waits for the server's.
fn takeover(begins: bool) {
    let cluster = Cluster::start();
    let mut alice = Person::join(&cluster, OLD, "alice", true);
    let mut bob = Person::join(&cluster, OLD, "bob", true);
    both(
        "before",
        (&mut alice, &mut bob),
        |alice, bob, round| {
            alice.talk(round, true);
            bob.talk(round, true);
        },
        |alice, bob| [alice, bob].iter().all(|p| p.heard() && p.saw(2)),
    );
    let receiving = (direction(&bob.answers.last().unwrap().1, 3), 3);
    assert_eq!(receiving.0, "sendonly", "Alice's voice");

    let mut carol = Person::join(&cluster, NEW, "carol", true);
    let state = bob.hand_over();
    assert!(!state.is_empty());
    assert!(cluster.reserve("bob", state));
    bob.hang_up();
    alice.until("Bob is gone", |alice| {
        alice.told.iter().any(|r| match r {
            Response::Update(update) => update
                .participants
                .iter()
                .any(|p| p.identity == "bob" && p.state == lk::participant_info::State::Disconnected as i32),
            _ => false,
        })
    });
    bob.run(50 * MS);
    assert!(!bob.client.closed, "his transport is in use elsewhere");
    assert_eq!(cluster.people(&cluster.old), ["alice"]);

    // The first message is that of a resume, the second says where.
    bob.resume_elsewhere();
    bob.until("greeting", |p| p.told.len() >= 2);
    assert!(matches!(bob.told[0], Response::Reconnect(_)), "{:?}", bob.told[0]);
    let Response::RoomMoved(moved) = bob.told[1].clone() else {
        panic!("{:?}", bob.told[1])
    };
    assert_eq!(moved.room.unwrap().name, NEW);
    let others: Vec<String> = moved.other_participants.into_iter().map(|p| p.identity).collect();
    assert_eq!(others, ["carol"]);

    // What the gateway says waits for his data channel.
    bob.frame(client_frame::Frame::Tell(NEWS.into()));

    // All sections, an ICE restart, and silence about which stream is which; a section may have lost the
    // name that its track had at first.
    bob.client.restart("bob2");
    bob.sections[1] = audio("sendonly", Some("another-microphone"));
    bob.client.rtp.clear();
    bob.client.rtcp.clear();
    bob.client.data = Some(Channels::new(begins, false));
    carol.client.rtp.clear();
    let id = bob.offer();
    let answer = bob.answer(id);
    assert_eq!(
        (direction(&answer, 1), direction(&answer, 2)),
        ("recvonly".into(), "recvonly".into())
    );
    for mid in [3, 4] {
        assert_eq!(
            direction(&answer, mid),
            "inactive",
            "what carried Alice must be seen to end"
        );
    }
    bob.client.connect(&answer);

    both(
        "after",
        (&mut bob, &mut carol),
        |bob, carol, round| {
            bob.talk(1_000 + round, false);
            carol.talk(round, true);
        },
        |bob, carol| [bob, carol].iter().all(|p| p.heard() && p.saw(2)),
    );
    let answer = bob.answers.last().unwrap().1.clone();
    assert_eq!(direction(&answer, 3), "sendonly", "and is used for Carol");
    assert_eq!(answer.matches("m=").count(), bob.sections.len());

    both(
        "channels",
        (&mut bob, &mut carol),
        |_, _, _| {},
        |bob, _| bob.client.data.as_ref().unwrap().open(),
    );
    bob.until("told", |bob| bob.told_data(RELIABLE, NEWS));
    bob.say(RELIABLE, "hello", 8);
    both(
        "data",
        (&mut bob, &mut carol),
        |bob, carol, round| {
            bob.say(LOSSY, "perhaps", 0);
            carol.say(LOSSY, "perhaps", 0);
            if round == 1 {
                carol.say(RELIABLE, "welcome", 1);
            }
        },
        |bob, carol| {
            carol.told_data(RELIABLE, "hello")
                && carol.told_data(LOSSY, "perhaps")
                && bob.told_data(RELIABLE, "welcome")
                && bob.told_data(LOSSY, "perhaps")
        },
    );
    let data = bob.client.data.as_ref().unwrap();
    assert!(data.acknowledged.is_empty(), "nobody opened a channel");
    assert_eq!(cluster.people(&cluster.new), ["carol", "bob"]);

    // Where it came from nothing is left, and it can go on for long: Alice is alone and well.
    bob.hang_up();
    carol.until("Bob is gone", |_| cluster.people(&cluster.new) == ["carol"]);
}

#[test]
fn a_client_goes_to_another_worker_with_its_connection() {
    takeover(true);
}

#[test]
fn data_goes_on_where_the_client_does_not_begin_the_association() {
    takeover(false);
}

#[test]
fn pictures_are_asked_for_until_they_come() {
    let cluster = Cluster::start();
    let mut bob = Person::join(&cluster, OLD, "bob", true);
    let mut carol = Person::join(&cluster, NEW, "carol", false);
    for round in 0..20 {
        bob.talk(round, true);
        bob.run(10 * MS);
    }
    let state = bob.hand_over();
    assert!(cluster.reserve("bob", state));
    bob.hang_up();
    bob.resume_elsewhere();
    bob.client.restart("bob2");
    bob.client.rtcp.clear();
    bob.client.data = Some(Channels::new(true, false));
    let id = bob.offer();
    let answer = bob.answer(id);
    bob.client.connect(&answer);
    // He sends nothing, and is asked for what he has not named here.
    let asked = |bob: &Person<'_>| -> Vec<u32> {
        let asked = feedback(&bob.client, 206, 1);
        let media = asked
            .iter()
            .map(|p| u32::from_be_bytes([p[8], p[9], p[10], p[11]]));
        media.collect()
    };
    both(
        "asked twice",
        (&mut bob, &mut carol),
        |_, _, _| {},
        |bob, _| asked(bob).len() > 1,
    );
    assert!(asked(&bob).iter().all(|ssrc| (21..=23).contains(ssrc)));
    both(
        "a picture",
        (&mut bob, &mut carol),
        |bob, _, round| bob.talk(1_000 + round, false),
        |_, carol| carol.saw(2),
    );
}

#[test]
fn who_is_muted_stays_so() {
    let cluster = Cluster::start();
    let mut bob = Person::join(&cluster, OLD, "bob", true);
    let mut carol = Person::join(&cluster, NEW, "carol", false);
    let mic = bob.response("microphone", |r| match r {
        Response::TrackPublished(published) if published.cid == "mic" => published.track.clone(),
        _ => None,
    });
    let mute = |muted| {
        Request::Mute(lk::MuteTrackRequest {
            sid: mic.sid.clone(),
            muted,
        })
    };
    bob.request(mute(true));
    bob.talk(1, true);
    let state = bob.hand_over();
    assert!(cluster.reserve("bob", state));
    bob.hang_up();
    bob.resume_elsewhere();
    bob.client.restart("bob2");
    bob.client.data = None;
    let id = bob.offer();
    let answer = bob.answer(id);
    bob.client.connect(&answer);
    let talk = |bob: &mut Person<'_>, _: &mut Person<'_>, round| bob.talk(1_000 + round, true);
    both("a picture", (&mut bob, &mut carol), talk, |_, carol| carol.saw(2));
    for round in 0..20 {
        talk(&mut bob, &mut carol, 2_000 + round);
        carol.run(10 * MS);
    }
    assert!(!carol.heard(), "microphones are not opened by a move");
    bob.request(mute(false));
    let talk = |bob: &mut Person<'_>, _: &mut Person<'_>, round| bob.talk(4_000 + round, true);
    both("sound", (&mut bob, &mut carol), talk, |_, carol| carol.heard());
}

#[test]
fn what_cannot_be_taken_over_is_said_to_be_so() {
    let cluster = Cluster::start();
    // Two peer connections: nothing is handed over.
    let request = lk::JoinRequest::default();
    let start = start_frame(OLD, "dual", &request, true);
    let mut session = cluster.runtime.block_on(cluster.old.enter(start, 1)).unwrap();
    let frame = ClientFrame {
        seq: 2,
        frame: Some(client_frame::Frame::HandOver(v1::HandOver {})),
    };
    cluster
        .runtime
        .block_on(cluster.old.frame(session.connection, frame));
    let state = cluster.runtime.block_on(async {
        loop {
            let frame = session.frames.recv().await.unwrap();
            if let Some(worker_frame::Frame::HandedOver(state)) = frame.frame {
                return state;
            }
        }
    });
    assert!(state.is_empty());
    assert!(!cluster.reserve("dual", state));

    // Nor is somebody else's state, damaged state, or nonsense taken; the place is kept all the same.
    let mut bob = Person::join(&cluster, OLD, "bob", true);
    let state = bob.hand_over();
    assert!(!cluster.reserve("mallory", state.clone()));
    assert!(!cluster.reserve("bob", b"no handover".to_vec()));
    let mut newer = v1::Handover::decode(state.as_slice()).unwrap();
    newer.version += 1;
    assert!(!cluster.reserve("bob", newer.encode_to_vec()));
    let mut cut = state.clone();
    cut.truncate(state.len() / 2);
    assert!(!cluster.reserve("bob", cut));
    // The client starts anew, which is what it is told then.
    let carol = Person::join(&cluster, NEW, "bob", true);
    assert_eq!(cluster.people(&cluster.new), ["bob"]);
    drop(carol);
}

#[test]
fn a_client_that_stays_after_all_goes_on() {
    let cluster = Cluster::start();
    let mut alice = Person::join(&cluster, OLD, "alice", false);
    let mut bob = Person::join(&cluster, OLD, "bob", true);
    let state = bob.hand_over();
    assert!(cluster.reserve("bob", state));
    both(
        "he is seen",
        (&mut bob, &mut alice),
        |bob, _, round| bob.talk(round, true),
        |_, alice| alice.heard() && alice.saw(2),
    );
    // Nobody came: the new worker shows nobody.
    assert!(cluster.people(&cluster.new).is_empty());
}
