//! A client's data channels, on the library's SCTP alone: what goes over DTLS is its own business.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rtc::datachannel::message::Message;
use rtc::datachannel::message::message_channel_ack::DataChannelAck;
use rtc::datachannel::message::message_channel_open::{ChannelType, DataChannelOpen};
use rtc::sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppi, ServerConfig, StreamEvent, TransportConfig,
};
use rtc::shared::TransportProtocol;
use rtc::shared::marshal::{Marshal, Unmarshal};

use super::PEER;

/// Streams of `_reliable` and `_lossy`.
pub const RELIABLE: u16 = 0;
pub const LOSSY: u16 = 2;

/// An association with both channels.
pub struct Channels {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    /// Opens the channels in band; else the other side knows of them.
    announces: bool,
    opened: bool,
    readable: BTreeSet<u16>,
    /// Channels that are closed here, which the other side doesn't know.
    pub closed: BTreeSet<u16>,
    pub received: Vec<(u16, Vec<u8>)>,
    /// Streams that the other side said something about opening on.
    pub acknowledged: BTreeSet<u16>,
}

impl Channels {
    /// `begins`: it sends the first INIT.
    pub fn new(begins: bool, announces: bool) -> Channels {
        let peer: SocketAddr = PEER.parse().unwrap();
        let config = Arc::new(EndpointConfig::default());
        let server = (!begins).then(|| Arc::new(ServerConfig::new(TransportConfig::default())));
        let mut endpoint = Endpoint::new(peer, TransportProtocol::UDP, config, server);
        let client = ClientConfig::new(TransportConfig::default());
        let association = begins.then(|| endpoint.connect(Instant::now(), client, peer).unwrap());
        Channels {
            endpoint,
            association,
            announces,
            opened: false,
            readable: BTreeSet::new(),
            closed: BTreeSet::new(),
            received: Vec::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    pub fn read(&mut self, packet: BytesMut) {
        let peer: SocketAddr = PEER.parse().unwrap();
        if let Some((handle, event)) = self.endpoint.handle(Instant::now(), peer, None, packet.freeze()) {
            match (event, &mut self.association) {
                (DatagramEvent::NewAssociation(a), None) => self.association = Some((handle, a)),
                (DatagramEvent::AssociationEvent(e), Some((own, a))) if *own == handle => a.handle_event(e),
                _ => {}
            }
        }
    }

    /// What is to be sent.
    pub fn run(&mut self) -> Vec<Bytes> {
        let now = Instant::now();
        let mut out = Vec::new();
        let Some((_, a)) = &mut self.association else {
            return out;
        };
        if a.poll_timeout().is_some_and(|at| now >= at) {
            a.handle_timeout(now);
        }
        let mut connected = false;
        while let Some(event) = a.poll() {
            match event {
                Event::Connected => connected = true,
                Event::Stream(StreamEvent::Readable { id }) => {
                    self.readable.insert(id);
                }
                _ => {}
            }
        }
        if connected {
            for (id, label) in [(RELIABLE, "_reliable"), (LOSSY, "_lossy")] {
                let _ = a.open_stream(id, Ppi::Binary);
                if self.announces {
                    let open = Message::DataChannelOpen(DataChannelOpen {
                        channel_type: ChannelType::Reliable,
                        priority: 256,
                        reliability_parameter: 0,
                        label: label.into(),
                        protocol: Vec::new(),
                    });
                    let mut stream = a.stream(id).unwrap();
                    stream
                        .write_with_ppi(now, &open.marshal().unwrap(), Ppi::Dcep)
                        .unwrap();
                }
            }
            self.opened = true;
        }
        for id in std::mem::take(&mut self.readable) {
            let Ok(mut stream) = a.stream(id) else { continue };
            while let Ok(Some(chunks)) = stream.read_sctp() {
                let payload = chunks.to_payload(100_000).unwrap().to_vec();
                if chunks.ppi != Ppi::Dcep {
                    self.received.push((id, payload));
                    continue;
                }
                match Message::unmarshal(&mut &payload[..]).unwrap() {
                    // As browsers do: a stream that is in use is not opened again.
                    Message::DataChannelOpen(_) if !self.closed.contains(&id) => {}
                    Message::DataChannelOpen(_) => {
                        let ack = Message::DataChannelAck(DataChannelAck {});
                        let raw = ack.marshal().unwrap();
                        stream.write_with_ppi(now, &raw, Ppi::Dcep).unwrap();
                    }
                    _ => {
                        self.acknowledged.insert(id);
                    }
                }
            }
        }
        while let Some(transmit) = a.poll_transmit(now) {
            if let Payload::RawEncode(packets) = transmit.message {
                out.extend(packets);
            }
        }
        out
    }

    /// Can it send?
    pub fn open(&self) -> bool {
        self.opened
    }

    pub fn send(&mut self, id: u16, payload: &[u8]) {
        let (_, a) = self.association.as_mut().unwrap();
        let mut stream = a.stream(id).unwrap();
        stream
            .write_chunk_with_ppi(Instant::now(), &Bytes::copy_from_slice(payload), Ppi::Binary)
            .unwrap();
    }
}
