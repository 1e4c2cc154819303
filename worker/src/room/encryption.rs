//! Meetings that take only what is encrypted end to end.
//!
//! Owns the rule and what is told to whoever breaks it. A worker has no keys: it goes by what clients
//! announce, and nothing that follows a codec's clear header of an encrypted frame is looked at anywhere.
//! Invariants: where tracks must be encrypted no other one is live, whatever was allowed before; where
//! data must be, no participant's packet is passed on in the clear, of whatever kind.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::data_packet::Value;
use livekit_protocol::encryption::Type as Encryption;
use livekit_protocol::request_response::Reason;
use plenum_errors::Code;

use super::ids::Now;
use super::state::Room;
use super::vocabulary::{Notice, Outbox, RequestFailure};
use crate::session::api::{SessionId, TrackSid};

/// A client that goes on sending data in the clear is told again after this.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Why a request was refused, as stock clients read it: a reason of LiveKit's, and a text that begins
/// with the code of the catalogue.
pub(super) fn refusal(reason: Reason, code: Code) -> (Reason, String) {
    let text = format!("{}: {}; {}", code.as_str(), code.cause(), code.remedy());
    (reason, text)
}

fn encrypts(announced: i32) -> bool {
    announced != Encryption::None as i32
}

impl Room {
    /// May a track announced like this be published?
    pub(super) fn check_encryption(&self, announced: i32) -> Result<(), (Reason, String)> {
        if self.spec.encrypted.tracks && !encrypts(announced) {
            return Err(refusal(Reason::NotAllowed, Code::EncryptionRequired));
        }
        Ok(())
    }

    /// May this packet be passed on?
    pub(super) fn may_pass(&self, packet: &lk::DataPacket) -> bool {
        !self.spec.encrypted.data
            || matches!(&packet.value, Some(Value::EncryptedPacket(p)) if encrypts(p.encryption_type))
    }

    /// Its data was not passed on; what it sent gets no answer otherwise.
    pub(super) fn data_in_the_clear(&mut self, session: SessionId, now: Now, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        if me
            .told_to_encrypt
            .is_some_and(|at| now.since(at) < TELL_AGAIN_AFTER)
        {
            return;
        }
        me.told_to_encrypt = Some(now.since_start);
        let (reason, message) = refusal(Reason::NotAllowed, Code::EncryptionRequired);
        out.tell(
            session,
            Notice::Request(Box::new(RequestFailure {
                request_id: 0,
                reason,
                message,
                request: None,
            })),
        );
    }

    /// The rule is new to this room, or the people are: tracks that break it end.
    pub(super) fn enforce_encryption(&mut self, out: &mut Outbox) {
        if !self.spec.encrypted.tracks {
            return;
        }
        let clear: Vec<(SessionId, TrackSid)> = self
            .participants
            .iter()
            .flat_map(|(session, p)| p.tracks.values().map(|track| (*session, track)))
            .filter(|(_, track)| !encrypts(track.info.encryption))
            .map(|(session, track)| (session, Arc::clone(&track.sid)))
            .collect();
        for (session, sid) in clear {
            self.drop_track(session, &sid, true, out);
        }
    }
}
