//! Two workers but for their gRPC side, and clients on them that do what stock ones do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as lk;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use plenum_token::Role;
use plenum_worker::control::convert;
use plenum_worker::quality::Metrics;
use plenum_worker::room::{RoomName, RoomSpec};
use plenum_worker::session::{MediaConfig, start};
use plenum_worker::signal::{Hub, HubConfig, HubHandle, Session};
use plenum_worker_api::v1::{self, ClientFrame, Start, client_frame, worker_frame};
use prost::Message as _;
use tokio::runtime::Runtime;

use super::channels::Channels;
use super::{Client, PATIENCE, application, audio, packet, video, vp8};

pub const MS: Duration = Duration::from_millis(1);
pub const OLD: &str = "team/standup";
pub const NEWS: &str = r#"{"at":1}"#;
pub const NEW: &str = "team/standup/red";

/// Two workers, each with a room.
pub struct Cluster {
    pub runtime: Runtime,
    pub old: HubHandle,
    pub new: HubHandle,
}

impl Cluster {
    pub fn start() -> Cluster {
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

    pub fn reserve(&self, identity: &str, handover: Vec<u8>) -> bool {
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

    pub fn people(&self, hub: &HubHandle) -> Vec<String> {
        let listed = self.runtime.block_on(hub.list(None)).unwrap();
        listed.into_iter().map(|l| l.info.identity).collect()
    }
}

/// A client as a whole.
pub struct Person<'a> {
    pub cluster: &'a Cluster,
    pub hub: HubHandle,
    pub identity: String,
    pub session: Session,
    pub seq: u64,
    pub sid: String,
    pub client: Client,
    pub sections: Vec<String>,
    pub offers: u32,
    /// Answers by the id of their offer.
    pub answers: Vec<(u32, String)>,
    pub told: Vec<Response>,
    pub frames: Vec<worker_frame::Frame>,
}

pub fn start_frame(room: &str, identity: &str, request: &lk::JoinRequest, dual: bool) -> Start {
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

pub fn rids() -> [&'static str; 3] {
    ["q", "h", "f"]
}

impl<'a> Person<'a> {
    /// Comes in, with media and data up. `publishes`: a microphone and a camera with three layers.
    pub fn join(cluster: &'a Cluster, room: &str, identity: &str, publishes: bool) -> Person<'a> {
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

    pub fn frame(&mut self, frame: client_frame::Frame) {
        self.seq += 1;
        let frame = ClientFrame {
            seq: self.seq,
            frame: Some(frame),
        };
        let connection = self.session.connection;
        self.cluster.runtime.block_on(self.hub.frame(connection, frame));
    }

    pub fn request(&mut self, message: Request) {
        let request = lk::SignalRequest {
            message: Some(message),
        };
        self.frame(client_frame::Frame::Request(request.encode_to_vec()));
    }

    pub fn offer(&mut self) -> u32 {
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

    pub fn answer(&mut self, id: u32) -> String {
        self.until("answer", |p| p.answers.iter().any(|(of, _)| *of == id));
        self.answers.iter().find(|(of, _)| *of == id).unwrap().1.clone()
    }

    /// Takes what came: offers again where it is asked to, and keeps the rest.
    pub fn hear(&mut self) {
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

    pub fn run(&mut self, time: Duration) {
        self.client.pump(time);
        self.hear();
    }

    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
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

    pub fn response<T>(&mut self, what: &str, pick: impl Fn(&Response) -> Option<T>) -> T {
        let mut found = None;
        self.until(what, |p| {
            found = p.told.iter().find_map(&pick);
            found.is_some()
        });
        found.unwrap()
    }

    /// The live state for the next worker.
    pub fn hand_over(&mut self) -> Vec<u8> {
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

    pub fn hang_up(&mut self) {
        self.frame(client_frame::Frame::Hangup(v1::Hangup { may_resume: false }));
    }

    /// Connects its signalling to the new worker as a stock client does that was told to resume.
    pub fn resume_elsewhere(&mut self) {
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
    pub fn talk(&mut self, at: u16, names: bool) {
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

    pub fn heard(&self) -> bool {
        self.client.rtp.iter().any(|p| p.header.payload_type == 111)
    }

    /// Sees a layer.
    pub fn saw(&self, layer: u8) -> bool {
        let mut pictures = self.client.rtp.iter().filter(|p| p.header.payload_type == 96);
        pictures.any(|p| p.payload.last() == Some(&layer))
    }

    pub fn told_data(&self, id: u16, text: &str) -> bool {
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

    pub fn say(&mut self, id: u16, text: &str, sequence: u32) {
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
