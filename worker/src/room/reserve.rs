//! Places kept for people who are on the way from another worker.
//!
//! Owns a room's reservations. Invariants: at most one per identity; it is gone once that identity has
//! entered, once its time is over, and with the room; until then it counts as a participant for
//! everybody else, and opens the door for its owner: neither the lock nor the limits apply. With what
//! another worker gave along, its owner may go on here instead of starting anew.

use std::collections::BTreeMap;
use std::time::Duration;

use plenum_errors::{Code, PublicError};

use super::entry::Entry;
use super::handover::Handover;
use super::ids::{Identity, Now};
use super::limits;
use super::state::Room;
use super::takeover;

/// What a gateway asks to have kept.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// 0 = whatever is held.
    pub epoch: u64,
    /// For whom.
    pub identity: Identity,
    /// How long; cut to [`limits::RESERVATION`].
    pub ttl: Duration,
    /// Programs and recorders take no place.
    pub takes_a_place: bool,
    /// Of the token that the identity will come with, Unix milliseconds; 0 = unknown.
    pub token_issued_at_ms: i64,
    /// What its client goes on with.
    pub handover: Option<Box<Handover>>,
}

#[derive(Debug)]
struct Kept {
    /// `Now::since_start`
    until: Duration,
    takes_a_place: bool,
    handover: Option<Box<Handover>>,
}

/// A room's reservations.
#[derive(Debug, Default)]
pub(super) struct Reservations(BTreeMap<Identity, Kept>);

impl Reservations {
    pub(super) fn holds(&self, identity: &Identity) -> bool {
        self.0.contains_key(identity)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is this the client that was announced?
    pub(super) fn expects(&self, entry: &Entry, sid: &str) -> bool {
        let handover = self
            .0
            .get(&entry.identity)
            .and_then(|kept| kept.handover.as_ref());
        handover.is_some_and(|handed| takeover::resumes(handed, entry, sid))
    }

    pub(super) fn take_handover(&mut self, identity: &Identity) -> Option<Box<Handover>> {
        self.0.get_mut(identity)?.handover.take()
    }

    /// The identity has entered.
    pub(super) fn consume(&mut self, identity: &Identity) {
        self.0.remove(identity);
    }

    /// The room's session is over.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whoever did not come in time has no place any more.
    pub(super) fn expire(&mut self, now: Now) {
        self.0.retain(|_, kept| now.since_start < kept.until);
    }
}

impl Room {
    /// Places that are taken from the point of view of `identity`: people who are here or expected.
    pub(super) fn places_taken(&self, identity: &Identity) -> usize {
        let here = self.participants.values().filter(|p| p.takes_a_place()).count();
        let expected = self.reserved.0.iter().filter(|(who, kept)| {
            kept.takes_a_place && *who != identity && self.session_of(who.as_str()).is_none()
        });
        here + expected.count()
    }

    /// People on the way who have no session here yet.
    pub(super) fn expected(&self) -> usize {
        let expected = self.reserved.0.keys();
        expected
            .filter(|who| self.session_of(who.as_str()).is_none())
            .count()
    }

    /// Could a place be kept?
    pub(super) fn may_reserve(&self, request: &Reserve) -> Result<(), PublicError> {
        self.check_epoch(request.epoch)?;
        let identity = request.identity.as_str();
        if identity.is_empty() || identity.len() > limits::IDENTITY {
            return Err(Code::IdentityMissing.into());
        }
        self.check_revoked(&request.identity, request.token_issued_at_ms)?;
        self.check_running()?;
        let replaces = self.session_of(identity).is_some();
        if request.takes_a_place && !replaces {
            self.check_places(&request.identity)?;
        }
        Ok(())
    }

    /// Keeps a place, after [`Room::may_reserve`].
    pub(super) fn reserve(&mut self, request: Reserve, now: Now) {
        let until = now.since_start + request.ttl.min(limits::RESERVATION);
        self.reserved.0.insert(
            request.identity,
            Kept {
                until,
                takes_a_place: request.takes_a_place,
                handover: request.handover,
            },
        );
    }
}
