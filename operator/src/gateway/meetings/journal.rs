//! What a meeting was told lately, and what stands, as its hub numbered it.
//!
//! Owns the tail of the hub's journal and its standing in this gateway: what clients are given, what
//! a client that comes back is given again, and what a hub that starts anew is seeded with.
//! Invariants: entries are in the order of their numbers and none is there twice; the tail is
//! bounded; what this version does not understand is passed on as it came.

use std::collections::VecDeque;
use std::sync::Arc;

use plenum_protocol::{Audience, Standing};
use plenum_token::Role;
use plenum_worker_api::v1::MeetingEntry;
use serde_json::Value;

/// The tail's bounds: as much as a hub remembers.
const MAX_ENTRIES: usize = 1_000;
const MAX_BYTES: usize = 1024 * 1024;

/// One entry.
#[derive(Debug)]
pub(crate) struct Kept {
    /// As the hub sent it.
    entry: MeetingEntry,
    audience: Audience,
    /// As clients are given it.
    pub(crate) text: Arc<str>,
}

impl Kept {
    /// Its number.
    pub(crate) fn seq(&self) -> u64 {
        self.entry.seq
    }

    fn read(entry: MeetingEntry) -> Option<Kept> {
        let audience = serde_json::from_str(&entry.audience_json).ok()?;
        let Ok(Value::Object(mut signal)) = serde_json::from_str(&entry.signal_json) else {
            return None;
        };
        signal.insert("seq".into(), entry.seq.into());
        signal.insert("at".into(), entry.at_ms.into());
        Some(Kept {
            text: Value::Object(signal).to_string().into(),
            audience,
            entry,
        })
    }

    fn size(&self) -> usize {
        self.text.len() + self.entry.signal_json.len() + self.entry.audience_json.len()
    }

    /// Is it for somebody of that role in that room?
    pub(crate) fn is_for(&self, role: Role, room: Option<&str>) -> bool {
        hears(&self.audience, role, room)
    }
}

/// Does `audience` include somebody of that role in that room (`None` = the main room)?
pub(crate) fn hears(audience: &Audience, role: Role, room: Option<&str>) -> bool {
    match audience {
        Audience::Everyone => true,
        Audience::Hosts => role >= Role::Cohost,
        Audience::Rooms(rooms) => {
            role >= Role::Cohost || rooms.iter().any(|one| one == room.unwrap_or_default())
        }
    }
}

/// The tail of the journal and the standing.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: VecDeque<Arc<Kept>>,
    bytes: usize,
    /// The last number, whatever became of its entry.
    last: u64,
    standing: Standing,
    standing_json: String,
}

impl Journal {
    /// The last number.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// What stands.
    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// What stands, as the hub said it; empty where it said nothing yet.
    pub(crate) fn standing_json(&self) -> &str {
        &self.standing_json
    }

    /// Every entry as the hub sent it, oldest first.
    pub(crate) fn tail(&self) -> Vec<MeetingEntry> {
        self.entries.iter().map(|kept| kept.entry.clone()).collect()
    }

    /// Entries with a number above `cursor`, oldest first.
    pub(crate) fn after(&self, cursor: u64) -> impl Iterator<Item = &Arc<Kept>> {
        let from = self.entries.partition_point(|kept| kept.seq() <= cursor);
        self.entries.range(from..)
    }

    /// Takes in what the hub sent. False where it was known.
    pub(crate) fn push(&mut self, entry: MeetingEntry) -> bool {
        if entry.seq <= self.last {
            return false;
        }
        self.last = entry.seq;
        match Kept::read(entry) {
            Some(kept) => {
                self.bytes += kept.size();
                self.entries.push_back(Arc::new(kept));
            }
            None => tracing::debug!("a signal that this version does not know is not passed on"),
        }
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.size();
        }
        true
    }

    /// The hub has sent all that it remembers. One that is behind this tail lost its memory and was
    /// seeded by nobody: its numbers count from now on.
    pub(crate) fn caught_up(&mut self, last: u64) {
        if last < self.last {
            self.entries.clear();
            self.bytes = 0;
        }
        self.last = last;
    }

    /// What stands from now on.
    pub(crate) fn stand(&mut self, json: String) {
        match serde_json::from_str(&json) {
            Ok(standing) => {
                self.standing = standing;
                self.standing_json = json;
            }
            Err(error) => tracing::debug!(%error, "a standing that this version does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plenum_protocol::{Entry, Signal};

    fn entry(seq: u64, audience: &Audience) -> MeetingEntry {
        let signal = Signal::Broadcast {
            from: "ann".into(),
            name: "Ann".into(),
            text: format!("number {seq}"),
        };
        MeetingEntry {
            seq,
            at_ms: 5,
            signal_json: serde_json::to_string(&signal).unwrap(),
            audience_json: serde_json::to_string(audience).unwrap(),
        }
    }

    #[test]
    fn entries_reach_their_audience_in_order_and_once() {
        let mut journal = Journal::default();
        assert!(journal.push(entry(1, &Audience::Everyone)));
        assert!(journal.push(entry(2, &Audience::Hosts)));
        assert!(!journal.push(entry(2, &Audience::Everyone)));
        assert!(journal.push(entry(5, &Audience::Rooms(vec!["red".into()]))));
        let heard = |role, room: Option<&str>, cursor| -> Vec<u64> {
            journal
                .after(cursor)
                .filter(|kept| kept.is_for(role, room))
                .map(|kept| kept.seq())
                .collect()
        };
        assert_eq!(heard(Role::Participant, None, 0), [1]);
        assert_eq!(heard(Role::Participant, Some("red"), 0), [1, 5]);
        assert_eq!(heard(Role::Cohost, None, 0), [1, 2, 5]);
        assert_eq!(heard(Role::Host, Some("blue"), 2), [5]);
        let text: Entry = serde_json::from_str(&journal.after(4).next().unwrap().text).unwrap();
        assert_eq!((text.seq, text.at), (5, 5));
        let main = Audience::Rooms(vec![String::new()]);
        assert!(hears(&main, Role::Viewer, None) && !hears(&main, Role::Viewer, Some("red")));
    }

    #[test]
    fn the_tail_is_bounded_and_a_hub_without_memory_starts_a_new_count() {
        let mut journal = Journal::default();
        for seq in 1..=1500 {
            journal.push(entry(seq, &Audience::Everyone));
        }
        let tail = journal.tail();
        assert_eq!(
            (tail.len(), tail[0].seq, journal.last()),
            (MAX_ENTRIES, 501, 1500)
        );
        journal.caught_up(1500);
        assert_eq!(journal.tail().len(), MAX_ENTRIES);
        journal.caught_up(3);
        assert!(journal.tail().is_empty());
        assert!(journal.push(entry(4, &Audience::Everyone)));
    }

    #[test]
    fn what_is_not_understood_is_counted_and_left_out() {
        let mut journal = Journal::default();
        journal.push(MeetingEntry {
            seq: 1,
            signal_json: "[]".into(),
            ..entry(1, &Audience::Everyone)
        });
        assert_eq!((journal.last(), journal.tail().len()), (1, 0));
        // A signal of a newer hub is passed on as it is.
        journal.push(MeetingEntry {
            signal_json: r#"{"signal":"newer","x":1}"#.into(),
            ..entry(2, &Audience::Everyone)
        });
        let text = &journal.after(0).next().unwrap().text;
        assert_eq!(&**text, r#"{"at":5,"seq":2,"signal":"newer","x":1}"#);
        journal.stand("nonsense".into());
        assert_eq!(journal.standing(), &Standing::default());
        journal.stand(r#"{"hands":[{"identity":"bob"}]}"#.into());
        assert_eq!(journal.standing().hands[0].identity, "bob");
    }
}
