//! Data channels, with the library's whole peer connection as the client: it also judges our descriptions.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use media_support::*;
use plenum_worker::session::api::{Command, Event, Leg, Reliability, SessionId, Topology, TransportEnd};
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::ice::candidate::CandidateConfig;
use rtc::ice::candidate::candidate_host::CandidateHostConfig;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::RTCIceCandidate;
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

struct Peer {
    pc: RTCPeerConnection,
    socket: UdpSocket,
    local: SocketAddr,
    open: Vec<RTCDataChannelId>,
    labels: HashMap<RTCDataChannelId, String>,
    received: Vec<(RTCDataChannelId, Vec<u8>)>,
}

impl Peer {
    fn new() -> Peer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let local = socket.local_addr().unwrap();
        let mut pc = RTCPeerConnectionBuilder::new().build(Instant::now()).unwrap();
        let candidate = CandidateHostConfig {
            base_config: CandidateConfig {
                network: "udp".to_owned(),
                address: local.ip().to_string(),
                port: local.port(),
                component: 1,
                ..Default::default()
            },
            ..Default::default()
        }
        .new_candidate_host()
        .unwrap();
        pc.add_local_candidate(RTCIceCandidate::from(&candidate).to_json().unwrap())
            .unwrap();
        Peer {
            pc,
            socket,
            local,
            open: Vec::new(),
            labels: HashMap::new(),
            received: Vec::new(),
        }
    }

    fn channel(&mut self, label: &str, lossy: bool) -> RTCDataChannelId {
        let init = RTCDataChannelInit {
            ordered: !lossy,
            max_retransmits: lossy.then_some(0),
            ..Default::default()
        };
        self.pc.create_data_channel(label, Some(init)).unwrap().id()
    }

    fn send(&mut self, id: RTCDataChannelId, data: &[u8]) {
        self.pc
            .data_channel(id)
            .unwrap()
            .send(Instant::now(), BytesMut::from(data))
            .unwrap();
    }

    /// Runs until `done` or the patience ends.
    fn run(&mut self, what: &str, mut done: impl FnMut(&Peer) -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        while !done(self) {
            assert!(Instant::now() < end, "{what}: {:?}", self.received.len());
            while let Some(m) = self.pc.poll_write() {
                let _ = self.socket.send_to(&m.message, m.transport.peer_addr);
            }
            while let Some(event) = self.pc.poll_event() {
                if let RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(id)) = event {
                    let label = self.pc.data_channel(id).unwrap().label().to_owned();
                    self.labels.insert(id, label);
                    self.open.push(id);
                }
            }
            while let Some(TaggedRTCMessage { message, .. }) = self.pc.poll_read() {
                if let RTCMessage::DataChannelMessage(id, m) = message {
                    self.received.push((id, m.data.to_vec()));
                }
            }
            if let Ok((len, peer_addr)) = self.socket.recv_from(&mut buffer) {
                let transport = TransportContext {
                    local_addr: self.local,
                    peer_addr,
                    ecn: None,
                    transport_protocol: TransportProtocol::UDP,
                };
                let message = BytesMut::from(&buffer[..len]);
                let _ = self.pc.handle_read(TaggedBytesMut {
                    now: Instant::now(),
                    transport,
                    message,
                });
            }
            let _ = self.pc.handle_timeout(Instant::now());
        }
    }
}

fn data(server: &mut Server, session: SessionId) -> (Reliability, Bytes) {
    server.event("data", |e| match e {
        Event::Data {
            session: s,
            reliability,
            payload,
        } if *s == session => Some((*reliability, payload.clone())),
        _ => None,
    })
}

/// A single-topology client with both channels open.
fn single(server: &mut Server) -> (SessionId, Peer, RTCDataChannelId, RTCDataChannelId) {
    let session = server.open(Topology::Single);
    let mut peer = Peer::new();
    let (reliable, lossy) = (peer.channel("_reliable", false), peer.channel("_lossy", true));
    let offer = peer.pc.create_offer(None).unwrap();
    peer.pc
        .set_local_description(Instant::now(), offer.clone())
        .unwrap();
    let answer = server.answer(session, 1, offer.sdp);
    let answer = RTCSessionDescription::answer(answer).unwrap();
    peer.pc.set_remote_description(Instant::now(), answer).unwrap();
    peer.run("both channels open", |p| p.open.len() == 2);
    server.event("the channel towards the client", |e| {
        matches!(e, Event::DataOpen { session: s } if *s == session).then_some(())
    });
    (session, peer, reliable, lossy)
}

#[test]
fn both_kinds_go_both_ways_over_the_clients_channels() {
    let mut server = Server::start();
    let (session, mut peer, reliable, lossy) = single(&mut server);
    peer.send(reliable, b"to the server");
    peer.send(lossy, b"perhaps");
    let sent = Instant::now();
    peer.run("sent", |_| sent.elapsed() > Duration::from_millis(100));
    let mut got = [data(&mut server, session), data(&mut server, session)];
    got.sort_by_key(|(r, _)| *r == Reliability::Lossy);
    assert_eq!(
        got[0],
        (Reliability::Reliable, Bytes::from_static(b"to the server"))
    );
    assert_eq!(got[1], (Reliability::Lossy, Bytes::from_static(b"perhaps")));

    // The largest message, many at once, in order.
    for i in 0..20u8 {
        let payload = Bytes::from(vec![i; if i == 7 { 60_000 } else { 500 }]);
        let sessions = vec![session];
        server.media.send(Command::SendData {
            sessions,
            reliability: Reliability::Reliable,
            payload,
        });
    }
    server.media.send(Command::SendData {
        sessions: vec![session],
        reliability: Reliability::Lossy,
        payload: Bytes::from_static(b"lossy"),
    });
    peer.run("all of them", |p| p.received.len() == 21);
    let ordered: Vec<u8> = peer
        .received
        .iter()
        .filter(|(id, _)| *id == reliable)
        .map(|(_, d)| d[0])
        .collect();
    assert_eq!(ordered, (0..20).collect::<Vec<_>>());
    assert!(peer.received.contains(&(lossy, b"lossy".to_vec())));
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let mut server = Server::start();
    let (session, peer, ..) = single(&mut server);
    // From here on the client is silent: nothing is acknowledged.
    let payload = Bytes::from(vec![1; 60_000]);
    for _ in 0..100 {
        let (sessions, payload) = (vec![session], payload.clone());
        server.media.send(Command::SendData {
            sessions,
            reliability: Reliability::Reliable,
            payload,
        });
    }
    let reason = server.event("slow", |e| match e {
        Event::Disconnected {
            session: s, reason, ..
        } if *s == session => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason, TransportEnd::SlowConsumer);
    drop(peer);
}

#[test]
fn the_servers_channels_carry_data_on_the_subscriber_leg() {
    let mut server = Server::start();
    let session = server.open(Topology::Dual);
    let (id, offer) = server.event("offer", |e| match e {
        Event::Offer {
            session: s, id, sdp, ..
        } if *s == session => Some((*id, sdp.clone())),
        _ => None,
    });
    let mut peer = Peer::new();
    let offer = RTCSessionDescription::offer(offer).unwrap();
    peer.pc.set_remote_description(Instant::now(), offer).unwrap();
    let answer = peer.pc.create_answer(None).unwrap();
    peer.pc
        .set_local_description(Instant::now(), answer.clone())
        .unwrap();
    server.media.send(Command::Answer {
        session,
        id,
        sdp: answer.sdp,
    });
    peer.run("both channels open", |p| p.open.len() == 2);
    let mut labels: Vec<String> = peer.labels.values().cloned().collect();
    labels.sort();
    assert_eq!(labels, ["_lossy", "_reliable"]);
    server.event("connected", |e| {
        matches!(
            e,
            Event::Connected {
                leg: Leg::Subscriber,
                ..
            }
        )
        .then_some(())
    });
    // Its acknowledgement may still be on the way: told when what is sent arrives.
    peer.run("the channel towards the client", |_| {
        server.has(|e| matches!(e, Event::DataOpen { session: s } if *s == session))
    });
    for (reliability, text) in [(Reliability::Reliable, "a"), (Reliability::Lossy, "b")] {
        let payload = Bytes::from_static(text.as_bytes());
        server.media.send(Command::SendData {
            sessions: vec![session],
            reliability,
            payload,
        });
    }
    peer.run("both messages", |p| p.received.len() == 2);
}
