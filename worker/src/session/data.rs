//! Data channels of one leg: SCTP on DTLS (RFC 8831, RFC 8832).
//!
//! Owns the association and the channels `_reliable` and `_lossy`, whoever opened them, or had opened
//! them with another engine: a client does not open such a channel again. Invariants: a message is at most
//! [`MAX_MESSAGE`] bytes; at most [`MAX_CHANNELS`] channels; a lossy message is dropped rather than queued
//! behind many others, a reliable one is refused when the queue is full.
//!
//! **A channel that is gone at the client.** Chromium closes a channel for good on which something is sent
//! while it takes a description with another fingerprint, and tells nobody. So inherited channels are
//! announced in band as if they were new: a client whose channel is alive takes no notice of a message
//! that would open its stream again, one whose channel is closed opens another and acknowledges it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::datachannel::message::Message;
use rtc::datachannel::message::message_channel_ack::DataChannelAck;
use rtc::datachannel::message::message_channel_open::{ChannelType, DataChannelOpen};
use rtc::sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ReliabilityType, ServerConfig, Stream, StreamEvent, StreamId, TransportConfig,
};
use rtc::shared::TransportProtocol;
use rtc::shared::marshal::{Marshal, Unmarshal};

use super::api::{ChannelState, Reliability};
use super::dtls::PEER;

/// What we accept, and what `a=max-message-size` says.
pub(crate) const MAX_MESSAGE: usize = 65_536;
/// What we send: a message of the largest size with the sender's name put into it.
const MAX_SENT: usize = MAX_MESSAGE + 4_096;
/// Streams of a client.
const MAX_CHANNELS: usize = 16;
/// Queued for one client before it counts as too slow.
const MAX_RELIABLE_QUEUE: usize = 4 * 1024 * 1024;
/// Queued before lossy messages are dropped.
const MAX_LOSSY_QUEUE: usize = 128 * 1024;

/// A client whose channels are inherited begins the association anew, where its library knows how to. One
/// that goes on with the old association learns of the new one by our INIT (RFC 9260 section 5.2.2).
const BEGIN_AFTER: Duration = Duration::from_secs(1);

/// Associations that the client began and has not confirmed: each INIT makes one, and its answer may be
/// on its way when the next one comes.
const MAX_BEGUN: usize = 8;
/// A channel that went while the connection stays is missed after this: who leaves closes channels first,
/// and some clients put a new one in an old one's place.
const MISSED_AFTER: Duration = Duration::from_secs(1);

/// What a read brought.
#[derive(Debug)]
pub(crate) enum Received {
    Message(Reliability, Bytes),
    /// A channel can be sent on.
    Opened(Reliability),
    /// A channel that the client had is gone for good, and its connection is not.
    Lost,
}

/// Whether a message was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Queued,
    /// No such channel (yet).
    NoChannel,
    /// A lossy one that would have waited too long, or too large.
    Dropped,
    /// The queue of a reliable channel is full.
    TooSlow,
}

#[derive(Debug)]
struct Channel {
    reliability: Option<Reliability>,
    open: bool,
    /// Open with another engine before: acknowledged, it is another one than the client knew.
    inherited: bool,
}

/// The association of a leg.
pub(crate) struct Data {
    endpoint: Endpoint,
    /// Those under way; once one is up, it alone.
    associations: VecDeque<(AssociationHandle, Association)>,
    /// What is under way was begun by us.
    ours: bool,
    connected: bool,
    channels: BTreeMap<StreamId, Channel>,
    /// Channels of ours to open, with their stream.
    to_open: Vec<(StreamId, Reliability)>,
    /// Channels that are open without a word.
    inherited: Vec<ChannelState>,
    /// When we begin the association, if the client did not.
    begin_at: Option<Instant>,
    /// Channels that went, until it has been seen whether others took their place.
    gone: Vec<Reliability>,
    missed_at: Option<Instant>,
    readable: BTreeSet<StreamId>,
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Data")
            .field("connected", &self.connected)
            .field("channels", &self.channels)
            .finish()
    }
}

fn label_of(reliability: Reliability) -> &'static str {
    match reliability {
        Reliability::Reliable => "_reliable",
        Reliability::Lossy => "_lossy",
    }
}

fn reliability_of(label: &[u8]) -> Option<Reliability> {
    [Reliability::Reliable, Reliability::Lossy]
        .into_iter()
        .find(|r| label_of(*r).as_bytes() == label)
}

/// Sends the OPEN, which goes ordered and reliably (RFC 8832 section 6), and sets how the rest goes.
fn announce(stream: &mut Stream<'_>, reliability: Reliability, now: Instant) {
    let (unordered, channel_type, kind) = match reliability {
        Reliability::Reliable => (false, ChannelType::Reliable, ReliabilityType::Reliable),
        Reliability::Lossy => (
            true,
            ChannelType::PartialReliableRexmitUnordered,
            ReliabilityType::Rexmit,
        ),
    };
    let open = Message::DataChannelOpen(DataChannelOpen {
        channel_type,
        priority: 256,
        reliability_parameter: 0,
        label: label_of(reliability).as_bytes().to_vec(),
        protocol: Vec::new(),
    });
    if let Ok(raw) = open.marshal() {
        let _ = stream.set_reliability_params(false, ReliabilityType::Reliable, 0);
        let _ = stream.write_with_ppi(now, &raw, PayloadProtocolIdentifier::Dcep);
    }
    let _ = stream.set_reliability_params(unordered, kind, 0);
}

fn transport() -> TransportConfig {
    TransportConfig::default().with_max_message_size(MAX_SENT as u32)
}

impl Data {
    /// `client`: we are the DTLS client, so the association is ours to begin. `open_ours`: open both
    /// channels ourselves (the subscriber leg of the dual topology). `inherited`: the client has these.
    pub(crate) fn new(client: bool, open_ours: bool, inherited: Vec<ChannelState>, now: Instant) -> Data {
        let transport = transport();
        let config = Arc::new(EndpointConfig::default());
        let server = (!client).then(|| Arc::new(ServerConfig::new(transport.clone())));
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, config, server);
        let begun = client
            .then(|| endpoint.connect(now, ClientConfig::new(transport), PEER).ok())
            .flatten();
        // The DTLS client uses even stream ids, the server odd ones (RFC 8832 section 6).
        let first = u16::from(!client);
        let to_open = if open_ours {
            vec![(first, Reliability::Reliable), (first + 2, Reliability::Lossy)]
        } else {
            Vec::new()
        };
        Data {
            endpoint,
            associations: begun.into_iter().collect(),
            ours: client,
            connected: false,
            channels: BTreeMap::new(),
            to_open,
            begin_at: (!client && !inherited.is_empty()).then(|| now + BEGIN_AFTER),
            inherited,
            gone: Vec::new(),
            missed_at: None,
            readable: BTreeSet::new(),
        }
    }

    /// The association that is up.
    fn up(&mut self) -> Option<&mut Association> {
        let (_, a) = self.associations.front_mut().filter(|_| self.connected)?;
        Some(a)
    }

    /// Channels that a message could go over now.
    pub(crate) fn channels(&self) -> Vec<ChannelState> {
        let open = self.channels.iter().filter(|(_, c)| c.open);
        open.filter_map(|(id, c)| {
            Some(ChannelState {
                id: *id,
                reliability: c.reliability?,
            })
        })
        .collect()
    }

    /// Takes one decrypted packet.
    pub(crate) fn read(&mut self, packet: BytesMut, now: Instant) -> Vec<Received> {
        if let Some((handle, event)) = self.endpoint.handle(now, PEER, None, packet.freeze()) {
            match event {
                DatagramEvent::NewAssociation(_) if self.connected => {}
                DatagramEvent::NewAssociation(a) => {
                    // Both began at once: the client's counts.
                    if std::mem::take(&mut self.ours) {
                        self.associations.clear();
                    }
                    // An INIT that is repeated: the client may yet confirm what the first one was answered.
                    if self.associations.len() >= MAX_BEGUN {
                        self.associations.pop_front();
                    }
                    self.associations.push_back((handle, a));
                }
                DatagramEvent::AssociationEvent(e) => {
                    if let Some((_, a)) = self.associations.iter_mut().find(|(own, _)| *own == handle) {
                        a.handle_event(e);
                    }
                }
                _ => {}
            }
        }
        self.poll(now)
    }

    fn poll(&mut self, now: Instant) -> Vec<Received> {
        let mut received = Vec::new();
        let (mut up, mut drained, mut gone) = (None, Vec::new(), Vec::new());
        for (handle, a) in &mut self.associations {
            while let Some(event) = a.poll() {
                match event {
                    Event::Connected => up = Some(*handle),
                    Event::HandshakeFailed { .. } => {
                        gone.extend(self.inherited.iter().map(|c| c.reliability))
                    }
                    Event::AssociationLost { id, .. } => {
                        gone.extend(self.channels.remove(&id).and_then(|c| c.reliability));
                    }
                    Event::Stream(StreamEvent::Readable { id }) => {
                        self.readable.insert(id);
                    }
                    _ => {}
                }
            }
            while let Some(event) = a.poll_endpoint_event() {
                drained.push((*handle, event));
            }
        }
        if let Some(handle) = up {
            self.connected = true;
            self.begin_at = None;
            self.associations.retain(|(own, _)| *own == handle);
        }
        for (handle, event) in drained {
            self.endpoint.handle_event(handle, event);
            self.associations.retain(|(own, _)| *own != handle);
            let channels = std::mem::take(&mut self.channels);
            gone.extend(channels.into_values().filter_map(|c| c.reliability));
        }
        if !gone.is_empty() {
            self.gone.append(&mut gone);
            self.missed_at.get_or_insert(now + MISSED_AFTER);
        }
        if self.connected {
            self.open_inherited(&mut received, now);
            self.open_ours(now);
            for id in std::mem::take(&mut self.readable) {
                self.drain(id, now, &mut received);
            }
        }
        received
    }

    fn open_inherited(&mut self, received: &mut Vec<Received>, now: Instant) {
        for ChannelState { id, reliability } in std::mem::take(&mut self.inherited) {
            let Some(a) = self.up() else { return };
            // The client may have been the first to use it.
            let _ = a.open_stream(id, PayloadProtocolIdentifier::Binary);
            let Ok(mut stream) = a.stream(id) else { continue };
            announce(&mut stream, reliability, now);
            let channel = Channel {
                reliability: Some(reliability),
                open: true,
                inherited: true,
            };
            self.channels.insert(id, channel);
            received.push(Received::Opened(reliability));
        }
    }

    fn open_ours(&mut self, now: Instant) {
        for (id, reliability) in std::mem::take(&mut self.to_open) {
            let Some(a) = self.up() else { return };
            let Ok(mut stream) = a.open_stream(id, PayloadProtocolIdentifier::Binary) else {
                continue;
            };
            announce(&mut stream, reliability, now);
            let channel = Channel {
                reliability: Some(reliability),
                open: false,
                inherited: false,
            };
            self.channels.insert(id, channel);
        }
    }

    fn drain(&mut self, id: StreamId, now: Instant, received: &mut Vec<Received>) {
        while let Some(a) = self.up() {
            let Ok(mut stream) = a.stream(id) else { return };
            let Ok(Some(chunks)) = stream.read_sctp() else {
                return;
            };
            let Ok(payload) = chunks.to_payload(MAX_MESSAGE) else {
                continue;
            };
            if chunks.ppi == PayloadProtocolIdentifier::Dcep {
                match Message::unmarshal(&mut &payload[..]) {
                    Ok(Message::DataChannelOpen(open)) => {
                        received.extend(self.accept(id, &open, now).map(Received::Opened));
                    }
                    Ok(Message::DataChannelAck(_)) => received.extend(self.acknowledged(id)),
                    _ => {}
                }
                continue;
            }
            let payload = match chunks.ppi {
                PayloadProtocolIdentifier::StringEmpty | PayloadProtocolIdentifier::BinaryEmpty => {
                    Bytes::new()
                }
                _ => payload.freeze(),
            };
            if let Some(reliability) = self.channels.get(&id).and_then(|c| c.reliability) {
                received.push(Received::Message(reliability, payload));
            }
        }
    }

    /// The client has opened what we announced.
    fn acknowledged(&mut self, id: StreamId) -> Option<Received> {
        let channel = self.channels.get_mut(&id)?;
        let reliability = channel.reliability?;
        if std::mem::take(&mut channel.inherited) {
            return Some(Received::Lost);
        }
        (!std::mem::replace(&mut channel.open, true)).then_some(Received::Opened(reliability))
    }

    /// The client opened a channel; which, if it is one of the two.
    fn accept(&mut self, id: StreamId, open: &DataChannelOpen, now: Instant) -> Option<Reliability> {
        if self.channels.len() >= MAX_CHANNELS && !self.channels.contains_key(&id) {
            return None;
        }
        let a = self.up()?;
        let mut stream = a.stream(id).ok()?;
        if let Ok(ack) = Message::DataChannelAck(DataChannelAck {}).marshal() {
            let _ = stream.write_with_ppi(now, &ack, PayloadProtocolIdentifier::Dcep);
        }
        let (unordered, kind) =
            rtc::datachannel::data_channel::DataChannel::get_reliability_params(open.channel_type);
        let _ = stream.set_reliability_params(unordered, kind, open.reliability_parameter);
        let reliability = reliability_of(&open.label);
        self.channels.insert(
            id,
            Channel {
                reliability,
                open: true,
                inherited: false,
            },
        );
        reliability
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, reliability: Reliability, payload: &Bytes, now: Instant) -> Sent {
        if payload.len() > MAX_SENT {
            return Sent::Dropped;
        }
        // The latest channel of that label: a client that reopened one listens there.
        let found = self
            .channels
            .iter()
            .filter(|(_, c)| c.open && c.reliability == Some(reliability));
        let Some(id) = found.map(|(id, _)| *id).next_back() else {
            return Sent::NoChannel;
        };
        let Some(a) = self.up() else {
            return Sent::NoChannel;
        };
        let Ok(mut stream) = a.stream(id) else {
            return Sent::NoChannel;
        };
        let queued = stream.buffered_amount().unwrap_or(0);
        match reliability {
            Reliability::Lossy if queued + payload.len() > MAX_LOSSY_QUEUE => return Sent::Dropped,
            Reliability::Reliable if queued + payload.len() > MAX_RELIABLE_QUEUE => return Sent::TooSlow,
            _ => {}
        }
        let result = if payload.is_empty() {
            stream.write_chunk_with_ppi(
                now,
                &Bytes::from_static(&[0]),
                PayloadProtocolIdentifier::BinaryEmpty,
            )
        } else {
            stream.write_chunk_with_ppi(now, payload, PayloadProtocolIdentifier::Binary)
        };
        if result.is_ok() {
            Sent::Queued
        } else {
            Sent::Dropped
        }
    }

    /// The next packets for DTLS.
    pub(crate) fn transmit(&mut self, now: Instant) -> Option<Vec<Bytes>> {
        self.associations
            .iter_mut()
            .find_map(|(_, a)| match a.poll_transmit(now)?.message {
                Payload::RawEncode(packets) => Some(packets),
                _ => None,
            })
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        let associations = self.associations.iter().filter_map(|(_, a)| a.poll_timeout());
        let own = [self.begin_at, self.missed_at].into_iter().flatten();
        associations.chain(own).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Received> {
        if self.begin_at.is_some_and(|at| now >= at) {
            self.begin_at = None;
            if self.associations.is_empty() {
                let begun = self.endpoint.connect(now, ClientConfig::new(transport()), PEER);
                self.associations.extend(begun.ok());
                self.ours = true;
            }
        }
        for (_, a) in &mut self.associations {
            a.handle_timeout(now);
        }
        let mut received = self.poll(now);
        if self.missed_at.is_some_and(|at| now >= at) {
            self.missed_at = None;
            let replaced = |r: &Reliability| self.channels.values().any(|c| c.reliability == Some(*r));
            if !std::mem::take(&mut self.gone).iter().all(replaced) {
                received.push(Received::Lost);
            }
        }
        received
    }

    /// The association's round trip, once measured.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.associations
            .front()
            .filter(|_| self.connected)
            .map(|(_, a)| a.rtt())
            .filter(|d| !d.is_zero())
    }
}

#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
