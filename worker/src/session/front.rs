//! The way into the running engine, which is one engine per shard.
//!
//! Owns the sending side: which shard a command goes to is decided here, when it is sent. Invariants:
//! commands of a session arrive in the order in which they were sent; a question to everybody gets one
//! answer, by the last who was asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::api::{Command, SessionStatistics};
use super::placement::{Placement, Routed};
use super::routes::News;
use crate::forward::drops::DropCounters;
use crate::net::Shard;
use crate::net::tcp::Accepted;

/// What a shard takes, from whomever.
#[derive(Debug)]
pub(super) enum Input {
    Command(Command),
    Advertise(Vec<SocketAddr>),
    /// To be answered by whoever is the last.
    Statistics(Arc<Gathering>),
    /// Of another shard.
    News(Shard, News),
    /// One for this shard.
    Connection(Accepted),
    /// Another shard has.
    Failed,
}

/// Answers of several shards on their way to being one.
#[derive(Debug)]
pub(super) struct Gathering {
    missing: AtomicUsize,
    sessions: Mutex<Vec<SessionStatistics>>,
}

impl Gathering {
    fn of(shards: usize) -> Arc<Gathering> {
        Arc::new(Gathering {
            missing: AtomicUsize::new(shards),
            sessions: Mutex::default(),
        })
    }

    /// Adds an answer; the last one to do so gets all of them.
    pub(super) fn add(&self, answer: Vec<SessionStatistics>) -> Option<Vec<SessionStatistics>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.extend(answer);
        let last = self.missing.fetch_sub(1, Ordering::AcqRel) == 1;
        last.then(|| std::mem::take(&mut *sessions))
    }
}

/// A shard as its handle sees it.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) input: mpsc::UnboundedSender<Input>,
    pub(super) drops: Arc<DropCounters>,
    /// Datagrams that it took and another one needed.
    pub(super) handed_over: Arc<AtomicU64>,
}

/// What one shard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardLoad {
    /// Open sessions.
    pub sessions: usize,
    /// Datagrams that it received for other shards, since the start.
    pub handed_over: u64,
}

/// The way into a running engine, which ends with the last of them.
#[derive(Clone)]
pub struct MediaHandle {
    shards: Arc<[Entrance]>,
    placement: Arc<Mutex<Placement>>,
}

impl std::fmt::Debug for MediaHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaHandle")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl MediaHandle {
    pub(super) fn new(shards: Vec<Entrance>, max_sessions: usize) -> MediaHandle {
        let placement = Placement::new(shards.len(), max_sessions);
        MediaHandle {
            shards: shards.into(),
            placement: Arc::new(Mutex::new(placement)),
        }
    }

    /// Sends a command. Lost if the engine has ended, which only happens when it panicked.
    pub fn send(&self, command: Command) {
        // Held while sending: another handle could overtake.
        let mut placement = self.placement.lock().unwrap_or_else(PoisonError::into_inner);
        match placement.route(command) {
            Routed::To(shard, command) => self.give(shard, Input::Command(command)),
            Routed::Parts(parts) => {
                for (shard, command) in parts {
                    self.give(shard, Input::Command(command));
                }
            }
            Routed::Everybody => {
                let gathering = Gathering::of(self.shards.len());
                self.give_all(|| Input::Statistics(Arc::clone(&gathering)));
            }
            Routed::Refused(session) => {
                // Rooms refuse first, so that this is their fault.
                tracing::error!(session = session.0, "no room for another session");
            }
        }
    }

    /// Candidates for descriptions from now on; empty as in [`super::MediaConfig::advertise`].
    pub fn set_advertise(&self, addresses: Vec<SocketAddr>) {
        self.give_all(|| Input::Advertise(addresses.clone()));
    }

    fn give(&self, shard: Shard, input: Input) {
        if let Some(to) = self.shards.get(shard.index()) {
            let _ = to.input.send(input);
        }
    }

    fn give_all(&self, input: impl Fn() -> Input) {
        for to in self.shards.iter() {
            let _ = to.input.send(input());
        }
    }

    /// Packets that ended here, by reason.
    pub fn drops(&self) -> DropCounters {
        DropCounters::sum(self.shards.iter().map(|s| &*s.drops))
    }

    /// How the work is shared.
    pub fn loads(&self) -> Vec<ShardLoad> {
        let placement = self.placement.lock().unwrap_or_else(PoisonError::into_inner);
        let shards = self.shards.iter().zip(placement.sessions());
        shards
            .map(|(shard, sessions)| ShardLoad {
                sessions,
                handed_over: shard.handed_over.load(Ordering::Relaxed),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_brings_all() {
        let answer = || vec![SessionStatistics::default()];
        let gathering = Gathering::of(3);
        assert!(gathering.add(answer()).is_none());
        assert!(gathering.add(Vec::new()).is_none());
        assert_eq!(gathering.add(answer()).unwrap().len(), 2);
    }
}
