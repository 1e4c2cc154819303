//! When the others are told of somebody.
//!
//! Owns announcements, and the newcomers that a large room is told of together: each costs a message to
//! everyone, and everyone comes at once when a meeting begins. Invariants: infos are made when they are
//! told, so that none is older than one told before; whoever shows, says or changes something is announced
//! at once; nobody is told by a room that it is less than it was welcomed as.

use std::collections::BTreeSet;
use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::participant_info::State;

use super::ids::Now;
use super::state::Room;
use super::vocabulary::{Notice, Outbox};
use crate::session::api::SessionId;

/// A room of so many is told of each newcomer at once.
const FEW: usize = 16;
/// Between two announcements of newcomers, by people in a larger room: it is told as many messages a second
/// whatever its size.
const PER_PERSON: Duration = Duration::from_millis(2);
/// The longest that it takes.
const LONGEST: Duration = Duration::from_secs(1);

/// People that the others have yet to be told of, or that their media is up.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    waiting: BTreeSet<SessionId>,
    /// `Now::since_start` of the last announcement.
    told: Duration,
}

impl Newcomers {
    pub(super) fn forget(&mut self, session: SessionId) {
        self.waiting.remove(&session);
    }
}

/// Between two announcements in a room of so many.
fn pause(people: usize) -> Duration {
    if people <= FEW {
        return Duration::ZERO;
    }
    u32::try_from(people).map_or(LONGEST, |people| (PER_PERSON * people).min(LONGEST))
}

impl Room {
    /// Tell the others of somebody who has come, or whose media came up. It is itself told at once of the
    /// latter.
    pub(super) fn announce_newcomer(&mut self, session: SessionId, now: Now, out: &mut Outbox) {
        let Some(me) = self.participants.get(&session) else {
            return;
        };
        let up = me.state == State::Active;
        if me.grant.hidden {
            if up {
                out.tell(session, Notice::Participants(vec![me.info()]));
            }
            return;
        }
        self.newcomers.waiting.insert(session);
        if self.announce_newcomers(now, out) || !up {
            return;
        }
        if let Some(me) = self.participants.get(&session) {
            out.tell(session, Notice::Participants(vec![me.info()]));
        }
    }

    /// Tells of those who wait for it, if it is time. True: told.
    pub(super) fn announce_newcomers(&mut self, now: Now, out: &mut Outbox) -> bool {
        let people = self.participants.len();
        if self.newcomers.waiting.is_empty() || now.since(self.newcomers.told) < pause(people) {
            return false;
        }
        self.newcomers.told = now.since_start;
        let waiting = std::mem::take(&mut self.newcomers.waiting);
        let came = || {
            waiting
                .iter()
                .filter_map(|session| self.participants.get(session))
        };
        // Welcomed as active, which some wait for before they publish, though they aren't yet.
        let joining: Vec<SessionId> = came()
            .filter(|p| p.state != State::Active)
            .map(|p| p.session)
            .collect();
        for session in &joining {
            let others: Vec<lk::ParticipantInfo> = came()
                .filter(|p| p.session != *session)
                .map(|p| p.info())
                .collect();
            if !others.is_empty() {
                out.tell(*session, Notice::Participants(others));
            }
        }
        let to = self
            .participants
            .keys()
            .filter(|session| joining.binary_search(session).is_err())
            .copied()
            .collect();
        out.tell_all(to, Notice::Participants(came().map(|p| p.info()).collect()));
        true
    }

    /// Tells of somebody who waits for it: it is about to be heard of by other means.
    pub(super) fn introduce(&mut self, session: SessionId, out: &mut Outbox) {
        if self.newcomers.waiting.contains(&session) {
            self.announce(session, out);
        }
    }

    /// Tell the others (and not itself) how `session` is now.
    pub(super) fn announce(&mut self, session: SessionId, out: &mut Outbox) {
        self.newcomers.forget(session);
        if let Some(me) = self.participants.get(&session).filter(|p| !p.grant.hidden) {
            out.tell_all(self.everyone_but(session), Notice::Participants(vec![me.info()]));
        }
    }

    /// Tell the others and itself how `session` is now.
    pub(super) fn announce_to_all(&mut self, session: SessionId, out: &mut Outbox) {
        self.newcomers.forget(session);
        let Some(me) = self.participants.get(&session) else {
            return;
        };
        if me.grant.hidden {
            out.tell(session, Notice::Participants(vec![me.info()]));
        } else {
            let to = self.participants.keys().copied().collect();
            out.tell_all(to, Notice::Participants(vec![me.info()]));
        }
    }

    pub(super) fn everyone_but(&self, session: SessionId) -> Vec<SessionId> {
        self.participants
            .keys()
            .copied()
            .filter(|s| *s != session)
            .collect()
    }
}
