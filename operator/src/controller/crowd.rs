//! People who are on their way: how many of them each worker will hold.
//!
//! Rooms are placed before anybody is in them, so a burst of rooms must be spread by the people who
//! are expected. Owns what is expected of each placed room ([`Expectations`]) and, as a pure
//! function of that and of who is where now, the crowd on each worker ([`Crowd`]). Invariants: an
//! expectation counts until the room has been in use for [`SETTLED`], and its share of people that
//! nobody named no longer than that after the placement; the people of one meeting are counted
//! once, though they may be in the main room, in a breakout room or between the two.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::placement::Newcomer;

/// After this long in use, a room's real participants tell more than what was expected.
const SETTLED: Duration = Duration::from_secs(60);

/// How many people are expected in a breakout room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Assigned to it, by its spec and by hosts.
    pub(crate) named: u32,
    /// Its part of the people in the meeting.
    pub(crate) share: u32,
}

impl Expected {
    /// The number that a place is sought for.
    pub(crate) fn people(self) -> u32 {
        self.named.max(self.share)
    }
}

struct Entry {
    expected: Expected,
    since: Instant,
    in_use: Option<Instant>,
}

/// What is expected of the rooms that were placed.
#[derive(Default)]
pub(crate) struct Expectations(HashMap<String, Entry>);

impl Expectations {
    /// A room was placed, or placed anew.
    pub(crate) fn placed(&mut self, room: &str, expected: Expected, now: Instant) {
        let entry = Entry {
            expected,
            since: now,
            in_use: None,
        };
        self.0.insert(room.to_owned(), entry);
    }

    /// Whether anything is expected of the room, or was.
    pub(crate) fn knows(&self, room: &str) -> bool {
        self.0.contains_key(room)
    }

    /// As many are assigned to it now.
    pub(crate) fn named(&mut self, room: &str, named: u32) {
        if let Some(entry) = self.0.get_mut(room) {
            entry.expected.named = named;
        }
    }

    /// Somebody is in it.
    pub(crate) fn in_use(&mut self, room: &str, now: Instant) {
        if let Some(entry) = self.0.get_mut(room) {
            entry.in_use.get_or_insert(now);
        }
    }

    /// The room is gone.
    pub(crate) fn forget(&mut self, room: &str) {
        self.0.remove(room);
    }

    /// How many people are still expected in the room, counting those who are in it.
    pub(crate) fn people(&self, room: &str, now: Instant) -> u32 {
        let Some(entry) = self.0.get(room) else { return 0 };
        if entry
            .in_use
            .is_some_and(|since| now.duration_since(since) >= SETTLED)
        {
            0
        } else if now.duration_since(entry.since) >= SETTLED {
            entry.expected.named
        } else {
            entry.expected.people()
        }
    }
}

/// The crowd of one worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Rooms assigned to it.
    pub(crate) rooms: u32,
    /// People who will come to it.
    pub(crate) coming: u32,
    /// People who will leave it for breakout rooms, those of its own included.
    pub(crate) leaving: u32,
    /// So many more people than are on it now it must be able to hold: those who are expected, and
    /// those who come back to the main room.
    pub(crate) reserve: u32,
}

/// One meeting whose rooms are placed.
#[derive(Debug, Default)]
struct Meeting {
    home: Option<String>,
    main: u32,
    away: u32,
    pending: HashMap<String, u32>,
}

impl Meeting {
    fn pending_at_home(&self) -> u32 {
        let home = self.home.as_ref().and_then(|home| self.pending.get(home));
        home.copied().unwrap_or(0)
    }

    fn all_pending(&self) -> u32 {
        self.pending
            .values()
            .fold(0, |sum, people| sum.saturating_add(*people))
    }

    /// Who comes is in the main room now, as long as there are so many; who is away may come back.
    fn reserve_at_home(&self) -> u32 {
        self.away.max(self.pending_at_home().saturating_sub(self.main))
    }
}

/// Who is expected where.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    loads: HashMap<String, Load>,
    meetings: HashMap<String, Meeting>,
}

impl Crowd {
    /// From the UID of the worker that holds each room, what is expected in a room, and how many
    /// people are in it now.
    pub(crate) fn new(
        holders: &HashMap<String, String>,
        expected: impl Fn(&str) -> u32,
        present: impl Fn(&str, &str) -> u32,
    ) -> Self {
        let mut crowd = Self::default();
        for (room, uid) in holders {
            let rooms = &mut crowd.loads.entry(uid.clone()).or_default().rooms;
            *rooms = rooms.saturating_add(1);
            let Some(name) = meeting_of(room) else { continue };
            let people = present(uid, room);
            let meeting = crowd.meetings.entry(name.to_owned()).or_default();
            let pending = meeting.pending.entry(uid.clone()).or_default();
            *pending = pending.saturating_add(expected(room).saturating_sub(people));
            if holders.get(name) != Some(uid) {
                meeting.away = meeting.away.saturating_add(people);
            }
        }
        for (name, meeting) in &mut crowd.meetings {
            meeting.home = holders.get(name).cloned();
            if let Some(home) = &meeting.home {
                meeting.main = present(home, name);
                let load = crowd.loads.entry(home.clone()).or_default();
                load.leaving = load
                    .leaving
                    .saturating_add(meeting.main.min(meeting.all_pending()));
                load.reserve = load.reserve.saturating_add(meeting.reserve_at_home());
            }
            for (uid, people) in &meeting.pending {
                let load = crowd.loads.entry(uid.clone()).or_default();
                load.coming = load.coming.saturating_add(*people);
                if meeting.home.as_ref() != Some(uid) {
                    load.reserve = load.reserve.saturating_add(*people);
                }
            }
        }
        crowd
    }

    /// The crowd of a worker.
    pub(crate) fn load(&self, uid: &str) -> Load {
        self.loads.get(uid).copied().unwrap_or_default()
    }

    /// A room that is about to be placed, with so many people expected.
    pub(crate) fn newcomer<'a>(
        &self,
        room: &str,
        people: u32,
        home: Option<&'a str>,
        present: impl Fn(&str, &str) -> u32,
    ) -> Newcomer<'a> {
        let (Some(name), Some(uid)) = (meeting_of(room), home) else {
            return Newcomer {
                people,
                home,
                ..Newcomer::default()
            };
        };
        let first = Meeting::default();
        let meeting = self.meetings.get(name).unwrap_or(&first);
        let main = present(uid, name);
        let beyond = meeting.away.max(meeting.pending_at_home().saturating_sub(main));
        Newcomer {
            people,
            home,
            covered: main
                .saturating_add(beyond)
                .saturating_sub(meeting.pending_at_home()),
            leaving: main.saturating_sub(meeting.all_pending()),
        }
    }
}

/// The main room of a breakout room; none for a main room.
fn meeting_of(room: &str) -> Option<&str> {
    let (meeting, _) = room.rsplit_once('/')?;
    meeting.contains('/').then_some(meeting)
}

#[cfg(test)]
#[path = "crowd_tests.rs"]
mod tests;
