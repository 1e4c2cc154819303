//! What stands until somebody takes it back: raised hands and calls for help.
//!
//! Owns the two lists. Invariants: one hand and one call per person; every change is the effect of a
//! numbered entry, so that the last entry about somebody always says what stands.

use plenum_protocol::{Asking, Signal, Standing};

/// The two lists of a meeting.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Board(Standing);

impl Board {
    /// As a gateway has it. What cannot be read is empty.
    pub(super) fn parse(json: &str) -> Self {
        Self(serde_json::from_str(json).unwrap_or_default())
    }

    /// As gateways are told.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The effect of an entry. True: there is one.
    pub(super) fn apply(&mut self, signal: &Signal, at_ms: i64) -> bool {
        match signal {
            Signal::RaiseHand { who, up } => put(&mut self.0.hands, who, *up, at_ms),
            Signal::AskForHelp { who, on } => put(&mut self.0.help, who, *on, at_ms),
            _ => false,
        }
    }

    pub(super) fn hand(&self, identity: &str) -> Option<&Asking> {
        self.0.hands.iter().find(|a| a.identity == identity)
    }

    pub(super) fn help(&self, identity: &str) -> Option<&Asking> {
        self.0.help.iter().find(|a| a.identity == identity)
    }

    /// Who asks for help in that room (empty = the main room).
    pub(super) fn help_in(&self, room: &str) -> Vec<Asking> {
        self.0
            .help
            .iter()
            .filter(|a| a.room.as_deref().unwrap_or_default() == room)
            .cloned()
            .collect()
    }

    /// Everybody named, perhaps twice.
    pub(super) fn people(&self) -> Vec<String> {
        let all = self.0.hands.iter().chain(&self.0.help);
        all.map(|a| a.identity.clone()).collect()
    }
}

fn put(list: &mut Vec<Asking>, who: &Asking, on: bool, at_ms: i64) -> bool {
    let place = list.iter().position(|a| a.identity == who.identity);
    match (place, on) {
        (Some(at), false) => {
            list.remove(at);
            true
        }
        (None, false) => false,
        (Some(at), true) => {
            // Somebody who asks again, or from another room, has asked since the first time.
            let now = Asking {
                since: list[at].since,
                ..who.clone()
            };
            std::mem::replace(&mut list[at], now) != list[at]
        }
        (None, true) => {
            let since = if who.since > 0 { who.since } else { at_ms };
            let at = list.partition_point(|a| a.since <= since);
            list.insert(at, Asking { since, ..who.clone() });
            true
        }
    }
}
