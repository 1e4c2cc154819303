//! Which shard serves whom.
//!
//! Owns the shard of every session. Invariants: every command of a session goes to the shard that opened
//! it; sessions of one home share a shard for as long as one of them lives; there are never more sessions
//! than there may be, over all shards.

use std::collections::HashMap;

use super::api::{Command, Home, SessionId};
use crate::net::Shard;

/// What is to be done with a command.
#[derive(Debug)]
pub(super) enum Routed {
    /// Sent to one shard.
    To(Shard, Command),
    /// Sent in parts.
    Parts(Vec<(Shard, Command)>),
    /// Asked of every shard: it is [`Command::Statistics`].
    Everybody,
    /// Not sent: a session too many.
    Refused(SessionId),
}

/// A home with sessions.
#[derive(Debug)]
struct Household {
    shard: Shard,
    sessions: usize,
}

/// What one shard has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    sessions: usize,
    homes: usize,
}

/// The table.
#[derive(Debug)]
pub(super) struct Placement {
    most: usize,
    sessions: HashMap<SessionId, (Shard, Home)>,
    homes: HashMap<Home, Household>,
    loads: Vec<Load>,
}

impl Placement {
    /// Of so many shards, for `most` sessions.
    pub(super) fn new(shards: usize, most: usize) -> Placement {
        Placement {
            most,
            sessions: HashMap::new(),
            homes: HashMap::new(),
            loads: vec![Load::default(); shards],
        }
    }

    /// Sessions of each shard.
    pub(super) fn sessions(&self) -> impl Iterator<Item = usize> {
        self.loads.iter().map(|load| load.sessions)
    }

    /// Finds whom a command concerns.
    pub(super) fn route(&mut self, command: Command) -> Routed {
        let shard = match &command {
            Command::Open { session, home, .. } | Command::Adopt { session, home, .. } => {
                match self.open(*session, home) {
                    Some(shard) => shard,
                    None => return Routed::Refused(*session),
                }
            }
            Command::Close { session } => self.close(*session),
            Command::HandOver { session }
            | Command::Hear { session, .. }
            | Command::OffersOnce { session }
            | Command::OfferAgain { session, .. }
            | Command::Offer { session, .. }
            | Command::Answer { session, .. }
            | Command::ExpectTrack { session, .. }
            | Command::RemoveTrack { session, .. }
            | Command::Mute { session, .. }
            | Command::Subscribe { session, .. }
            | Command::Unsubscribe { session, .. }
            | Command::SetLayer { session, .. }
            | Command::Prefer { session, .. }
            | Command::KeyFrame { session, .. }
            | Command::RestartIce { session } => self.shard_of(*session),
            Command::SendData { .. } => return self.data(command),
            Command::Statistics => return Routed::Everybody,
        };
        Routed::To(shard, command)
    }

    /// What concerns a session that isn't open goes to the first shard, which refuses it where an answer
    /// is owed.
    fn shard_of(&self, session: SessionId) -> Shard {
        self.sessions
            .get(&session)
            .map_or_else(Shard::default, |(shard, _)| *shard)
    }

    fn open(&mut self, session: SessionId, home: &Home) -> Option<Shard> {
        if let Some((shard, _)) = self.sessions.get(&session) {
            return Some(*shard);
        }
        if self.sessions.len() >= self.most {
            return None;
        }
        let shard = match self.homes.get(home) {
            Some(household) => household.shard,
            None => self.emptiest(),
        };
        let household = self
            .homes
            .entry(home.clone())
            .or_insert(Household { shard, sessions: 0 });
        if let Some(load) = self.loads.get_mut(shard.index()) {
            load.sessions += 1;
            load.homes += usize::from(household.sessions == 0);
        }
        household.sessions += 1;
        self.sessions.insert(session, (shard, home.clone()));
        Some(shard)
    }

    /// The shard with the fewest sessions. Of those the one with the fewest homes: each may grow.
    fn emptiest(&self) -> Shard {
        let loads = Shard::all(self.loads.len()).zip(&self.loads);
        loads
            .min_by_key(|(_, load)| (load.sessions, load.homes))
            .map_or_else(Shard::default, |(shard, _)| shard)
    }

    fn close(&mut self, session: SessionId) -> Shard {
        let Some((shard, home)) = self.sessions.remove(&session) else {
            return Shard::default();
        };
        let last = self.homes.get_mut(&home).is_none_or(|household| {
            household.sessions -= 1;
            household.sessions == 0
        });
        if last {
            self.homes.remove(&home);
        }
        if let Some(load) = self.loads.get_mut(shard.index()) {
            load.sessions -= 1;
            load.homes -= usize::from(last);
        }
        shard
    }

    /// Data is for a list of sessions, in nearly all cases of one meeting.
    fn data(&self, command: Command) -> Routed {
        let Command::SendData {
            sessions,
            reliability,
            payload,
        } = command
        else {
            return Routed::To(Shard::default(), command);
        };
        let first = sessions
            .first()
            .map_or_else(Shard::default, |s| self.shard_of(*s));
        let send = |shard: Shard, sessions: Vec<SessionId>| {
            let payload = payload.clone();
            let command = Command::SendData {
                sessions,
                reliability,
                payload,
            };
            (shard, command)
        };
        if sessions.iter().all(|s| self.shard_of(*s) == first) {
            let (shard, command) = send(first, sessions);
            return Routed::To(shard, command);
        }
        let mut parts: Vec<Vec<SessionId>> = vec![Vec::new(); self.loads.len()];
        for session in sessions {
            if let Some(part) = parts.get_mut(self.shard_of(session).index()) {
                part.push(session);
            }
        }
        let parts = Shard::all(parts.len()).zip(parts);
        Routed::Parts(
            parts
                .filter(|(_, part)| !part.is_empty())
                .map(|(shard, part)| send(shard, part))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::api::{PeerState, Reliability, Topology, TrackSid};
    use super::*;

    const SHARDS: usize = 3;

    fn open(session: u64, home: &str) -> Command {
        Command::Open {
            session: SessionId(session),
            home: Home::from(home),
            topology: Topology::Single,
            codecs: Vec::new(),
        }
    }

    fn adopt(session: u64, home: &str) -> Command {
        Command::Adopt {
            session: SessionId(session),
            home: Home::from(home),
            codecs: Vec::new(),
            state: Box::new(PeerState::default()),
        }
    }

    fn close(session: u64) -> Command {
        Command::Close {
            session: SessionId(session),
        }
    }

    fn data(sessions: &[u64]) -> Command {
        Command::SendData {
            sessions: sessions.iter().map(|s| SessionId(*s)).collect(),
            reliability: Reliability::Lossy,
            payload: Bytes::from_static(b"x"),
        }
    }

    fn to(routed: Routed) -> Shard {
        match routed {
            Routed::To(shard, _) => shard,
            other => panic!("{other:?}"),
        }
    }

    /// Whatever is opened and closed in whatever order.
    #[test]
    fn every_command_finds_the_shard_that_opened_its_session() {
        let mut random = crate::room::Sids::seeded(7);
        let mut next = |below: usize| (random.next_u64() % below as u64) as usize;
        for _ in 0..50 {
            let mut table = Placement::new(SHARDS, 40);
            let mut alive: Vec<(u64, usize, Shard)> = Vec::new();
            let mut id = 0;
            for _ in 0..300 {
                match next(5) {
                    0 | 1 => {
                        id += 1;
                        let home = next(6);
                        let name = format!("team/{home}");
                        let command = if next(2) == 0 { open } else { adopt }(id, &name);
                        match table.route(command) {
                            Routed::To(shard, _) => {
                                let mate = alive.iter().find(|(_, h, _)| *h == home);
                                assert!(mate.is_none_or(|(_, _, s)| *s == shard), "a home is on one shard");
                                alive.push((id, home, shard));
                            }
                            Routed::Refused(_) => assert_eq!(alive.len(), 40),
                            other => panic!("{other:?}"),
                        }
                    }
                    2 if !alive.is_empty() => {
                        let (session, _, shard) = alive.swap_remove(next(alive.len()));
                        assert_eq!(to(table.route(close(session))), shard);
                    }
                    _ => {
                        for (session, _, shard) in &alive {
                            let session = SessionId(*session);
                            let sid = TrackSid::from("TR_x");
                            let mute = Command::Mute {
                                session,
                                sid: sid.clone(),
                                muted: true,
                            };
                            assert_eq!(to(table.route(mute)), *shard);
                            assert_eq!(to(table.route(Command::KeyFrame { session, sid })), *shard);
                        }
                    }
                }
                assert_eq!(table.sessions().sum::<usize>(), alive.len());
            }
            for (session, ..) in alive {
                table.route(close(session));
            }
            assert!(table.sessions.is_empty() && table.homes.is_empty());
            assert_eq!(table.loads, [Load::default(); SHARDS]);
        }
    }

    #[test]
    fn a_new_home_gets_the_emptiest_shard() {
        let mut table = Placement::new(SHARDS, 100);
        let mut shards: Vec<usize> = Vec::new();
        for (session, home) in [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "d"), (6, "e")] {
            shards.push(to(table.route(open(session, home))).index());
        }
        assert_eq!(shards, [0, 1, 0, 2, 1, 2]);
        // Sent twice it is no second session.
        table.route(open(6, "e"));
        assert_eq!(table.sessions().collect::<Vec<_>>(), [2, 2, 2]);
    }

    #[test]
    fn data_is_grouped_by_shard() {
        let mut table = Placement::new(SHARDS, 100);
        for (session, home) in [(1, "a"), (2, "b"), (3, "a")] {
            table.route(open(session, home));
        }
        assert_eq!(to(table.route(data(&[1, 3]))).index(), 0);
        let Routed::Parts(parts) = table.route(data(&[3, 2, 1])) else {
            panic!("in parts");
        };
        let parts: Vec<_> = parts
            .iter()
            .map(|(shard, command)| match command {
                Command::SendData { sessions, .. } => (shard.index(), sessions.clone()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            parts,
            [(0, vec![SessionId(3), SessionId(1)]), (1, vec![SessionId(2)])]
        );
        assert!(matches!(table.route(Command::Statistics), Routed::Everybody));
    }
}
