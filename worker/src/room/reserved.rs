//! The reserved data topic: what a client says to the server and is told by it.
//!
//! Owns the way of those packets out of the stream of data and the queue of what waits for a client's
//! data channel. Invariants: a packet on a reserved topic reaches no other client; what a client is
//! told arrives in order, and the oldest is given up first where too much waits.

use std::collections::VecDeque;

use bytes::Bytes;
use livekit_protocol as lk;
use livekit_protocol::data_packet::Value;
use prost::Message as _;

use super::limits;
use super::state::Room;
use super::vocabulary::{DropReason, Outbox, Output};
use crate::session::api::{Command, Reliability, SessionId};

/// Packets that wait for a data channel.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    packets: VecDeque<Bytes>,
    bytes: usize,
}

impl Waiting {
    /// Adds one; how many had to make room.
    fn push(&mut self, packet: Bytes) -> usize {
        self.bytes += packet.len();
        self.packets.push_back(packet);
        let mut lost = 0;
        while self.packets.len() > limits::WAITING_PACKETS || self.bytes > limits::WAITING_BYTES {
            let Some(old) = self.packets.pop_front() else {
                break;
            };
            self.bytes -= old.len();
            lost += 1;
        }
        lost
    }

    fn take(&mut self) -> VecDeque<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.packets)
    }
}

/// The user packet in it, if that is on a reserved topic.
pub(super) fn said(packet: &lk::DataPacket) -> Option<&lk::UserPacket> {
    match &packet.value {
        Some(Value::User(user)) => user
            .topic
            .as_deref()
            .is_some_and(|t| t.starts_with(plenum_protocol::RESERVED))
            .then_some(user),
        _ => None,
    }
}

/// The text of what was said.
pub(super) fn text(user: &lk::UserPacket) -> Result<String, DropReason> {
    if user.payload.len() > limits::SAID {
        return Err(DropReason::TooLarge);
    }
    String::from_utf8(user.payload.clone()).map_err(|_| DropReason::Malformed)
}

impl Room {
    /// JSON for one client, once its data channel is open.
    pub(super) fn tell_client(&mut self, session: SessionId, json: String, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        let packet: Bytes = lk::DataPacket {
            value: Some(Value::User(lk::UserPacket {
                payload: json.into_bytes(),
                topic: Some(plenum_protocol::TOPIC.to_owned()),
                ..Default::default()
            })),
            ..Default::default()
        }
        .encode_to_vec()
        .into();
        if packet.len() > limits::DATA_PACKET {
            out.0.push(Output::DataDropped(DropReason::TooLarge));
            return;
        }
        if me.data_open {
            out.media(Command::SendData {
                sessions: vec![session],
                reliability: Reliability::Reliable,
                payload: packet,
            });
            return;
        }
        for _ in 0..me.waiting.push(packet) {
            out.0.push(Output::DataDropped(DropReason::Overflow));
        }
    }

    /// Its reliable channel is open: what waited goes.
    pub(super) fn data_open(&mut self, session: SessionId, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        me.data_open = true;
        for payload in me.waiting.take() {
            out.media(Command::SendData {
                sessions: vec![session],
                reliability: Reliability::Reliable,
                payload,
            });
        }
    }
}
