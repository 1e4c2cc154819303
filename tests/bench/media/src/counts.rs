//! Where packets went.
//!
//! Owns the counts of one moment on the way from publishers to subscribers, and what they say between two.
//! Pure but for [`Counts::read`]. Invariant: what is missing is told by the numbers of what arrived; a packet
//! that a socket's full queue threw away is the machine's loss and is told apart; the rest is the server's.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::error::BenchError;
use crate::load::Load;
use crate::process::overflows;
use crate::server::Server;

const PACKETS: &str = "plenum_worker_rtp_packets_total";

/// So far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// By publishers.
    pub(crate) sent: u64,
    /// By the server, as it counts itself.
    pub(crate) taken: u64,
    pub(crate) forwarded: u64,
    /// By subscribers: of the streams, and others.
    pub(crate) arrived: u64,
    pub(crate) others: u64,
    /// Holes in the numbers of what arrived.
    pub(crate) missing: u64,
    /// Datagrams that found the queue of the server's socket full.
    pub(crate) server_overflows: u64,
    /// The same of subscribers' sockets.
    pub(crate) client_overflows: u64,
}

impl Counts {
    /// Whole only some seconds after media went silent: the server brings its counts up to date now and
    /// then.
    pub(crate) async fn read(server: &Server, load: &Load) -> Result<Counts, BenchError> {
        let of = |direction: &str| server.count(PACKETS, &format!("direction=\"{direction}\""));
        let seen = load.snapshot().await?;
        let overflows: HashMap<u16, u64> = overflows()?;
        let at = |port: u16| overflows.get(&port).copied().unwrap_or(0);
        Ok(Counts {
            sent: load.sent(),
            taken: of("in")?,
            forwarded: of("out")?,
            arrived: seen.received,
            others: seen.other,
            missing: seen.expected.saturating_sub(seen.received),
            server_overflows: at(server.port()),
            client_overflows: seen.ports.iter().map(|port| at(*port)).sum(),
        })
    }

    /// What was added since.
    pub(crate) fn since(&self, before: &Counts) -> Counts {
        Counts {
            sent: self.sent - before.sent,
            taken: self.taken.saturating_sub(before.taken),
            forwarded: self.forwarded.saturating_sub(before.forwarded),
            arrived: self.arrived - before.arrived,
            others: self.others - before.others,
            missing: self.missing.saturating_sub(before.missing),
            server_overflows: self.server_overflows.saturating_sub(before.server_overflows),
            client_overflows: self.client_overflows.saturating_sub(before.client_overflows),
        }
    }

    /// Packets that should have arrived at subscribers, of whom each publisher has so many.
    pub(crate) fn due(&self, people: usize) -> u64 {
        self.sent * people as u64
    }

    /// What of what did not arrive no full queue explains: the server's own loss.
    pub(crate) fn lost_by_server(&self, people: usize) -> u64 {
        // A datagram that the server's queue threw away was a packet for each, or a report.
        let queues = self.server_overflows * people as u64 + self.client_overflows;
        self.missing.saturating_sub(queues)
    }

    /// What the server never meant to send: paused for lack of bandwidth.
    pub(crate) fn withheld(&self, people: usize) -> u64 {
        self.due(people).saturating_sub(self.arrived + self.missing)
    }

    pub(crate) fn json(&self, people: usize) -> Value {
        json!({
            "due": self.due(people),
            "sent": self.sent,
            "taken": self.taken,
            "forwarded": self.forwarded,
            "arrived": self.arrived,
            "others": self.others,
            "missing": self.missing,
            "overflows_of_server": self.server_overflows,
            "overflows_of_clients": self.client_overflows,
            "lost_by_server": self.lost_by_server(people),
            "withheld": self.withheld(people),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_full_queues_threw_away_is_not_the_servers() {
        let before = Counts {
            sent: 5,
            arrived: 49,
            missing: 1,
            ..Counts::default()
        };
        let after = Counts {
            sent: 105,
            arrived: 1022,
            missing: 25,
            server_overflows: 2,
            client_overflows: 3,
            ..Counts::default()
        };
        let added = after.since(&before);
        assert_eq!((added.due(10), added.missing, added.withheld(10)), (1000, 24, 3));
        assert_eq!(added.lost_by_server(10), 1);
        let more = Counts {
            client_overflows: 8,
            ..added
        };
        assert_eq!(more.lost_by_server(10), 0);
    }
}
