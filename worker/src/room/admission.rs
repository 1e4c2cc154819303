//! Who may enter.
//!
//! Owns the verdict on a client at the door and the tokens that were revoked. Invariant: nothing here
//! lets anybody in; a verdict changes nothing.

use plenum_errors::{Code, PublicError};
use plenum_token::Role;

use super::entry::{Admission, Entry};
use super::ids::{Identity, Now};
use super::limits;
use super::participant::takes_a_place;
use super::state::Room;

impl Room {
    /// May this client enter, and how?
    pub fn admit(&self, entry: &Entry) -> Result<Admission, PublicError> {
        self.check_epoch(entry.epoch)?;
        let identity = entry.identity.as_str();
        if identity.is_empty() || identity.len() > limits::IDENTITY {
            return Err(Code::IdentityMissing.into());
        }
        if !entry.grant.join {
            return Err(PublicError::new(Code::NotPermitted, "roomJoin"));
        }
        self.check_revoked(&entry.identity, entry.token_issued_at_ms)?;
        self.check_running()?;
        let present = self.by_identity.get(&entry.identity).copied();
        if let Some(sid) = &entry.resume {
            let same = present
                .and_then(|session| self.participants.get(&session))
                .filter(|p| (sid.is_empty() || p.known_as(sid)) && !p.media_lost);
            return Ok(match same {
                Some(p) => Admission::Resumes(p.session),
                None if self.reserved.expects(entry, sid) => Admission::TakesOver,
                None => Admission::Unknown,
            });
        }
        if let Some(session) = present {
            return Ok(Admission::Replaces(session));
        }
        if self.reserved.holds(&entry.identity) {
            return Ok(Admission::New);
        }
        if self.spec.locked && entry.role < Role::Cohost {
            return Err(Code::MeetingLocked.into());
        }
        if takes_a_place(entry.kind, &entry.grant, entry.offers_once) {
            self.check_places(&entry.identity)?;
        }
        Ok(Admission::New)
    }

    /// Its time is not over?
    pub(super) fn check_running(&self) -> Result<(), PublicError> {
        match (self.over, self.spec.name.is_breakout()) {
            (false, _) => Ok(()),
            (true, false) => Err(Code::MeetingEnded.into()),
            (true, true) => Err(Code::RoomClosed.into()),
        }
    }

    /// 0 = whatever is held.
    pub(super) fn check_epoch(&self, epoch: u64) -> Result<(), PublicError> {
        if epoch != 0 && epoch != self.spec.epoch {
            return Err(PublicError::new(
                Code::EpochStale,
                format!("room is at epoch {}", self.spec.epoch),
            ));
        }
        Ok(())
    }

    pub(super) fn check_revoked(&self, identity: &Identity, issued_at_ms: i64) -> Result<(), PublicError> {
        match self.revoked.iter().find(|(who, _)| who == identity) {
            Some((_, before)) if issued_at_ms < *before => Err(Code::TokenRevoked.into()),
            _ => Ok(()),
        }
    }

    /// Is there a place for one who is not here yet?
    pub(super) fn check_places(&self, identity: &Identity) -> Result<(), PublicError> {
        match self.spec.max_participants {
            Some(most) if self.places_taken(identity) >= most as usize => Err(PublicError::new(
                Code::MeetingFull,
                format!("{most} participants"),
            )),
            _ => Ok(()),
        }
    }

    /// Refuse this identity's tokens issued before now.
    pub(super) fn revoke(&mut self, identity: &Identity, now: Now) {
        self.revoked.retain(|(who, _)| who != identity);
        if self.revoked.len() >= limits::REVOCATIONS {
            self.revoked.pop_front();
        }
        // JWT times are whole seconds: a token of this very second counts as issued before.
        self.revoked
            .push_back((identity.clone(), now.unix_ms.saturating_add(1)));
    }
}
