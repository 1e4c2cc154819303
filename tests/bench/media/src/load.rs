//! Rooms under load.
//!
//! Owns the clients of one server, all alike: rooms of one publisher and some subscribers. Invariants:
//! people are in before there is media; publishers' frames are spread over the interval between two, as
//! those of unrelated meetings are.

use std::time::Duration;

use crate::error::BenchError;
use crate::front::{Guest, Part, Seat};
use crate::pace::Mode;
use crate::publisher::{Publisher, SSRC};
use crate::server::Server;
use crate::subscribers::{Manners, Snapshot, Subscribers};
use crate::transport::Identity;

const PATIENCE: Duration = Duration::from_secs(60);
/// Until what a join leaves to do is done.
pub(crate) const SETTLE: Duration = Duration::from_millis(1200);

/// The shape of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) rooms: usize,
    /// Subscribers of each.
    pub(crate) people: usize,
    pub(crate) manners: Manners,
}

/// Everybody.
pub(crate) struct Load {
    publishers: Vec<Publisher>,
    subscribers: Subscribers,
    seats: Vec<Seat>,
}

impl Load {
    /// The publishers of so many rooms, still silent, and nobody else.
    pub(crate) async fn open(
        server: &Server,
        identity: &Identity,
        crowd: &Crowd,
    ) -> Result<Load, BenchError> {
        let mut load = Load {
            publishers: Vec::new(),
            subscribers: Subscribers::start(identity, crowd.manners)?,
            seats: Vec::new(),
        };
        for (room, ssrc) in (0..crowd.rooms).zip(SSRC..) {
            let phase = room as f64 / crowd.rooms as f64;
            let (publisher, link) = Publisher::start(identity, &server.front.publisher_mid(), phase)?;
            load.publishers.push(publisher);
            let guest = Guest {
                room: name(room),
                identity: "publisher".to_owned(),
                part: Part::Publisher { ssrc },
            };
            load.seats.push(server.front.enter(guest, link).await?);
        }
        Ok(load)
    }

    /// One more subscriber of a room.
    pub(crate) async fn join(
        &mut self,
        server: &Server,
        room: usize,
        person: usize,
    ) -> Result<(), BenchError> {
        let Some(publisher) = self.publishers.get(room) else {
            return Ok(());
        };
        let link = self.subscribers.add(&publisher.departures)?;
        let guest = Guest {
            room: name(room),
            identity: format!("subscriber-{person}"),
            part: Part::Subscriber,
        };
        self.seats.push(server.front.enter(guest, link).await?);
        Ok(())
    }

    /// The same with all its subscribers.
    pub(crate) async fn gather(
        server: &Server,
        identity: &Identity,
        crowd: &Crowd,
    ) -> Result<Load, BenchError> {
        let mut load = Load::open(server, identity, crowd).await?;
        for room in 0..crowd.rooms {
            for person in 0..crowd.people {
                load.join(server, room, person).await?;
            }
        }
        tokio::time::sleep(SETTLE).await;
        Ok(load)
    }

    /// Every publisher sends so many thousandths of a frame per second from now on; 0: nothing.
    pub(crate) fn send(&self, millihertz: u64) {
        for publisher in &self.publishers {
            // Whoever is silent keeps its rate: its phase is a part of the interval.
            if millihertz > 0 {
                publisher.rate(millihertz);
            }
            publisher.pace((millihertz > 0).then_some(Mode::Frames));
        }
    }

    /// Packets sent to the server.
    pub(crate) fn sent(&self) -> u64 {
        self.publishers.iter().map(Publisher::sent).sum()
    }

    /// Waits until everybody has got so many packets more.
    pub(crate) async fn receiving(&self, packets: u64) -> Result<(), BenchError> {
        self.subscribers.receiving(packets, PATIENCE).await
    }

    pub(crate) async fn snapshot(&self) -> Result<Snapshot, BenchError> {
        self.subscribers.snapshot().await
    }

    /// Ends it, and tells what went wrong in it: that explains what was waited for in vain.
    pub(crate) fn stop<T>(self, outcome: Result<T, BenchError>) -> Result<T, BenchError> {
        drop(self.seats);
        let mut stopped = self.subscribers.stop();
        for publisher in self.publishers {
            let ended = publisher.stop();
            stopped = stopped.and(ended);
        }
        match (stopped, outcome) {
            (Err(e @ BenchError::Transport { .. }), _) => Err(e),
            (stopped, outcome) => outcome.and_then(|value| stopped.map(|()| value)),
        }
    }
}

fn name(room: usize) -> String {
    format!("room-{room}")
}
