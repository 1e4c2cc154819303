//! Data packets: from one participant to the others.
//!
//! Owns the right to send, the sender's stamp, the addressees and the memory of reliable messages.
//! Invariants: whatever a client writes into the sender's fields, receivers read ours; a reliable
//! message (one with a sequence) is passed on once; a packet's other bytes are passed on untouched,
//! kinds that this version does not know included.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use livekit_protocol as lk;
use livekit_protocol::data_packet::Value;
use prost::Message as _;

use super::ids::{Identity, Now, ParticipantSid};
use super::limits;
use super::reserved::{said, text};
use super::state::Room;
use super::vocabulary::{DropReason, Outbox, Output};
use crate::session::api::{Command, Reliability, SessionId};

/// Field numbers of `DataPacket`.
const IDENTITY_FIELD: u64 = 4;
const SID_FIELD: u64 = 17;

/// The last reliable messages, for those whose data channel broke.
#[derive(Debug, Default)]
pub(super) struct ReliableMemory {
    messages: VecDeque<Remembered>,
    bytes: usize,
}

#[derive(Debug)]
struct Remembered {
    at: Duration,
    from: ParticipantSid,
    sequence: u32,
    /// Empty = everyone.
    to: Vec<Identity>,
    payload: Bytes,
}

impl ReliableMemory {
    fn push(&mut self, message: Remembered) {
        self.bytes += message.payload.len();
        self.messages.push_back(message);
        while self.bytes > limits::RELIABLE_MEMORY_BYTES {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.payload.len();
        }
    }

    pub(super) fn forget_old(&mut self, now: Now) {
        while self
            .messages
            .front()
            .is_some_and(|m| now.since(m.at) > limits::RELIABLE_MEMORY)
        {
            self.pop();
        }
    }

    /// Messages of `from` after `sequence` that `identity` was to receive.
    fn after<'a>(
        &'a self,
        from: &'a str,
        sequence: u32,
        identity: &'a Identity,
    ) -> impl Iterator<Item = Bytes> + 'a {
        self.messages
            .iter()
            .filter(move |m| m.from.as_str() == from && m.sequence > sequence)
            .filter(move |m| m.to.is_empty() || m.to.contains(identity))
            .map(|m| m.payload.clone())
    }
}

fn put_text_field(out: &mut Vec<u8>, field: u64, text: &str) {
    prost::encoding::encode_varint(field << 3 | 2, out);
    prost::encoding::encode_varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// The packet with our sender fields. Of a scalar field that occurs twice the last one counts, so
/// appending is enough, and keeps what we don't know.
fn stamp(raw: &[u8], packet: &lk::DataPacket, identity: &Identity, sid: &ParticipantSid) -> Bytes {
    let mut out = match &packet.value {
        // The old place of the sender's name is inside the user packet.
        Some(Value::User(user)) => {
            #[allow(deprecated, reason = "older clients still read and send the old fields")]
            let user = lk::UserPacket {
                participant_identity: identity.to_string(),
                participant_sid: sid.to_string(),
                ..user.clone()
            };
            lk::DataPacket {
                value: Some(Value::User(user)),
                ..packet.clone()
            }
            .encode_to_vec()
        }
        _ => raw.to_vec(),
    };
    put_text_field(&mut out, IDENTITY_FIELD, identity.as_str());
    put_text_field(&mut out, SID_FIELD, sid.as_str());
    out.into()
}

impl Room {
    /// A packet from `session`.
    pub(super) fn data(
        &mut self,
        session: SessionId,
        reliability: Reliability,
        payload: &Bytes,
        now: Now,
        out: &mut Outbox,
    ) {
        if let Err(reason) = self.try_data(session, reliability, payload, now, out) {
            out.0.push(Output::DataDropped(reason));
        }
    }

    fn try_data(
        &mut self,
        session: SessionId,
        reliability: Reliability,
        payload: &Bytes,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let Some(me) = self.participants.get_mut(&session) else {
            return Ok(());
        };
        if payload.len() > limits::DATA_PACKET {
            return Err(DropReason::TooLarge);
        }
        let packet = lk::DataPacket::decode(payload.clone()).map_err(|_| DropReason::Malformed)?;
        #[allow(deprecated, reason = "older clients still read and send the old fields")]
        match &packet.value {
            // Only servers say who speaks.
            Some(Value::Speaker(_)) => return Err(DropReason::Unsupported),
            // Measurements are for those who may read them; nobody can yet.
            Some(Value::Metrics(_)) => return Ok(()),
            _ => {}
        }
        let said = said(&packet).map(text).transpose()?;
        if said.is_none() && !me.grant.publish_data {
            return Err(DropReason::NotPermitted);
        }
        if reliability == Reliability::Reliable && packet.sequence > 0 {
            if packet.sequence <= me.last_reliable {
                return Err(DropReason::Duplicate);
            }
            me.last_reliable = packet.sequence;
        }
        if let Some(json) = said {
            out.0.push(Output::Said { session, json });
            return Ok(());
        }
        let (identity, sid) = (me.identity.clone(), me.sid.clone());
        if !self.may_pass(&packet) {
            self.data_in_the_clear(session, now, out);
            return Err(DropReason::NotEncrypted);
        }
        let to = addressees(&packet);
        let sids = addressed_sids(&packet);
        let stamped = stamp(payload, &packet, &identity, &sid);
        let everyone = to.is_empty() && sids.is_empty();
        let sessions: Vec<SessionId> = self
            .participants
            .values()
            .filter(|p| p.session != session && p.connected)
            .filter(|p| everyone || to.contains(&p.identity) || sids.iter().any(|s| s == p.sid.as_str()))
            .map(|p| p.session)
            .collect();
        if reliability == Reliability::Reliable && packet.sequence > 0 && sids.is_empty() {
            self.reliable.push(Remembered {
                at: now.since_start,
                from: sid,
                sequence: packet.sequence,
                to,
                payload: stamped.clone(),
            });
        }
        if !sessions.is_empty() {
            out.media(Command::SendData {
                sessions,
                reliability,
                payload: stamped,
            });
        }
        Ok(())
    }

    /// From a server: to the named, or to all.
    pub(super) fn data_from_server(&mut self, packet: &lk::DataPacket, lossy: bool, out: &mut Outbox) {
        let to = addressees(packet);
        let sessions: Vec<SessionId> = self
            .participants
            .values()
            .filter(|p| p.connected && (to.is_empty() || to.contains(&p.identity)))
            .map(|p| p.session)
            .collect();
        let reliability = if lossy {
            Reliability::Lossy
        } else {
            Reliability::Reliable
        };
        if !sessions.is_empty() {
            out.media(Command::SendData {
                sessions,
                reliability,
                payload: packet.encode_to_vec().into(),
            });
        }
    }

    /// What `session` says it has of others' reliable messages; it gets the rest.
    pub(super) fn catch_up(
        &mut self,
        session: SessionId,
        has: &[lk::DataChannelReceiveState],
        out: &mut Outbox,
    ) {
        let Some(me) = self.participants.get(&session) else {
            return;
        };
        for state in has {
            for payload in self
                .reliable
                .after(&state.publisher_sid, state.last_seq, &me.identity)
            {
                out.media(Command::SendData {
                    sessions: vec![session],
                    reliability: Reliability::Reliable,
                    payload,
                });
            }
        }
    }
}

fn addressees(packet: &lk::DataPacket) -> Vec<Identity> {
    #[allow(deprecated, reason = "older clients still read and send the old fields")]
    let old: &[String] = match &packet.value {
        Some(Value::User(user)) => &user.destination_identities,
        _ => &[],
    };
    packet
        .destination_identities
        .iter()
        .chain(old)
        .map(|i| Identity::from(i.as_str()))
        .collect()
}

fn addressed_sids(packet: &lk::DataPacket) -> Vec<String> {
    #[allow(deprecated, reason = "older clients still read and send the old fields")]
    match &packet.value {
        Some(Value::User(user)) => user.destination_sids.clone(),
        _ => Vec::new(),
    }
}
