//! The task that drives all rooms.
//!
//! Owns the mailbox and the clock. One task for all rooms: a meeting's signalling is a few messages a
//! second, moving people between rooms needs no handshake, and a room that fails is caught. Media
//! events and client frames come in over channels; nothing here waits for a client or for media.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use livekit_protocol as lk;
use plenum_errors::{Code, PublicError};
use plenum_worker_api::v1::{ClientFrame, Start, WorkerFrame};
use tokio::sync::{mpsc, oneshot, watch};

use super::desk::Desk;
use crate::quality::Metrics;
use crate::room::{
    EndReason, Identity, Moderation, Now, Reserve, RoomName, RoomSid, RoomSpec, RoomStanding, Sids,
};
use crate::session::ShardLoad;
use crate::session::api::{Command, Event};

/// Where commands to media go. Must not block.
pub trait MediaPort: Send + 'static {
    /// Passes it on.
    fn send(&self, command: Command);

    /// Packets that media threw away since it began, by reason.
    fn dropped(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// How media's threads share the work.
    fn loads(&self) -> Vec<ShardLoad> {
        Vec::new()
    }
}

impl MediaPort for mpsc::UnboundedSender<Command> {
    fn send(&self, command: Command) {
        // Media is gone only when the process ends.
        let _ = mpsc::UnboundedSender::send(self, command);
    }
}

/// How the hub behaves.
#[derive(Debug, Clone, Default)]
pub struct HubConfig {
    /// Dev mode: a room exists from its first join to its end.
    pub rooms_on_demand: bool,
    /// Clients beyond this are refused; `None` = never.
    pub max_sessions: Option<usize>,
    /// Told to clients.
    pub region: String,
    /// Told to clients; empty = made up.
    pub node_id: String,
}

/// One signalling connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connection(pub(super) u64);

/// A client's way in and out.
pub struct Session {
    /// Names the connection in [`HubHandle::frame`].
    pub connection: Connection,
    /// To the client; ends after a Closed frame, or without one where the connection was cut.
    pub frames: mpsc::Receiver<WorkerFrame>,
}

/// One room, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSummary {
    /// Its name.
    pub name: RoomName,
    /// Its epoch.
    pub epoch: u64,
    /// Its people.
    pub standing: RoomStanding,
}

/// The worker as a whole, for reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Takes no new rooms.
    pub draining: bool,
    /// In all rooms.
    pub participants: u32,
    /// The busiest thread.
    pub cpu_permille: u32,
    /// To clients.
    pub egress_bits_per_second: u64,
    /// Every room.
    pub rooms: Vec<RoomSummary>,
}

/// One participant, for lists.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Where.
    pub room: RoomName,
    /// Standing.
    pub role: &'static str,
    /// As clients see it.
    pub info: lk::ParticipantInfo,
    /// Of its connection.
    pub quality: &'static str,
    /// Is heard now.
    pub speaking: bool,
    /// Unix milliseconds at which it came into the room.
    pub since_ms: i64,
}

type Reply<T> = oneshot::Sender<Result<T, PublicError>>;

enum Message {
    Enter {
        start: Box<Start>,
        seq: u64,
        reply: Reply<Session>,
    },
    Check {
        start: Box<Start>,
        reply: Reply<()>,
    },
    Frame {
        connection: Connection,
        frame: Box<ClientFrame>,
    },
    Disconnected {
        connection: Connection,
    },
    Assign {
        spec: Box<RoomSpec>,
        reply: Reply<RoomSid>,
    },
    Release {
        name: RoomName,
        epoch: u64,
        reason: EndReason,
        reply: Reply<()>,
    },
    SetDraining {
        draining: bool,
        reply: Reply<()>,
    },
    List {
        room: Option<RoomName>,
        reply: Reply<Vec<Listed>>,
    },
    Expel {
        room: RoomName,
        identity: Identity,
        revoke: bool,
        reply: Reply<bool>,
    },
    Moderate {
        room: RoomName,
        what: Moderation,
        reply: Reply<Option<lk::ParticipantInfo>>,
    },
    Reserve {
        room: RoomName,
        request: Box<Reserve>,
        reply: Reply<bool>,
    },
    Shutdown {
        reply: Reply<()>,
    },
}

/// Waiting client frames and calls. Beyond it senders wait: that is the back-pressure on sockets.
const MAILBOX: usize = 4_096;
/// The grain of all timers.
const TICK: Duration = Duration::from_millis(100);
/// Events or messages handled before the other kind gets its turn.
const BATCH: usize = 256;

/// Talks to the hub.
#[derive(Clone)]
pub struct HubHandle {
    mailbox: mpsc::Sender<Message>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

fn gone() -> PublicError {
    PublicError::new(Code::Internal, "the worker is stopping")
}

impl HubHandle {
    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, PublicError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(message(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// A client enters or comes back. `seq` is the Start frame's number.
    pub async fn enter(&self, start: Start, seq: u64) -> Result<Session, PublicError> {
        self.ask(|reply| Message::Enter {
            start: Box::new(start),
            seq,
            reply,
        })
        .await
    }

    /// Would it get in?
    pub async fn check(&self, start: Start) -> Result<(), PublicError> {
        self.ask(|reply| Message::Check {
            start: Box::new(start),
            reply,
        })
        .await
    }

    /// A frame of a client.
    pub async fn frame(&self, connection: Connection, frame: ClientFrame) {
        let _ = self
            .mailbox
            .send(Message::Frame {
                connection,
                frame: Box::new(frame),
            })
            .await;
    }

    /// A client's connection is gone.
    pub async fn disconnected(&self, connection: Connection) {
        let _ = self.mailbox.send(Message::Disconnected { connection }).await;
    }

    /// Creates or updates a room.
    pub async fn assign(&self, spec: RoomSpec) -> Result<RoomSid, PublicError> {
        self.ask(|reply| Message::Assign {
            spec: Box::new(spec),
            reply,
        })
        .await
    }

    /// Ends a room.
    pub async fn release(&self, name: RoomName, epoch: u64, reason: EndReason) -> Result<(), PublicError> {
        self.ask(|reply| Message::Release {
            name,
            epoch,
            reason,
            reply,
        })
        .await
    }

    /// Refuses new rooms, or takes them again.
    pub async fn set_draining(&self, draining: bool) -> Result<(), PublicError> {
        self.ask(|reply| Message::SetDraining { draining, reply }).await
    }

    /// Who is there.
    pub async fn list(&self, room: Option<RoomName>) -> Result<Vec<Listed>, PublicError> {
        self.ask(|reply| Message::List { room, reply }).await
    }

    /// Removes a participant.
    pub async fn expel(&self, room: RoomName, identity: Identity, revoke: bool) -> Result<bool, PublicError> {
        self.ask(|reply| Message::Expel {
            room,
            identity,
            revoke,
            reply,
        })
        .await
    }

    /// A moderator decides.
    pub async fn moderate(
        &self,
        room: RoomName,
        what: Moderation,
    ) -> Result<Option<lk::ParticipantInfo>, PublicError> {
        self.ask(|reply| Message::Moderate { room, what, reply }).await
    }

    /// Keeps a place for somebody on the way from another worker. True: its client may resume here.
    pub async fn reserve(&self, room: RoomName, request: Reserve) -> Result<bool, PublicError> {
        let request = Box::new(request);
        self.ask(|reply| Message::Reserve { room, request, reply }).await
    }

    /// Tells every client to connect elsewhere.
    pub async fn shutdown(&self) {
        let _ = self.ask(|reply| Message::Shutdown { reply }).await;
    }

    /// The worker as it was at the last tick, and its changes.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }
}

/// The hub, to be spawned.
pub struct Hub {
    desk: Desk,
    mailbox: mpsc::Receiver<Message>,
    events: mpsc::UnboundedReceiver<Event>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    began: Instant,
}

impl Hub {
    /// A hub between clients and media.
    pub fn new(
        config: HubConfig,
        media: impl MediaPort,
        events: mpsc::UnboundedReceiver<Event>,
        metrics: Arc<Metrics>,
    ) -> (Self, HubHandle) {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let (snapshots, watching) = watch::channel(Arc::new(Snapshot::default()));
        let desk = Desk::new(config, Box::new(media), metrics, Sids::random());
        let hub = Self {
            desk,
            mailbox,
            events,
            snapshots,
            began: Instant::now(),
        };
        (
            hub,
            HubHandle {
                mailbox: sender,
                snapshots: watching,
            },
        )
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            since_start: self.began.elapsed(),
            unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Runs until every handle is dropped or media stops.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut messages, mut events) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        loop {
            tokio::select! {
                count = self.mailbox.recv_many(&mut messages, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    for message in messages.drain(..) {
                        let now = self.now();
                        self.message(message, now);
                    }
                }
                count = self.events.recv_many(&mut events, BATCH) => {
                    if count == 0 {
                        tracing::error!("media has stopped");
                        return;
                    }
                    for event in events.drain(..) {
                        let now = self.now();
                        self.desk.event(event, now);
                    }
                }
                _ = ticks.tick() => {
                    let now = self.now();
                    self.desk.tick(now);
                    self.publish();
                }
            }
        }
    }

    fn publish(&self) {
        let snapshot = self.desk.snapshot();
        self.snapshots.send_if_modified(|current| {
            let changed = **current != snapshot;
            if changed {
                *current = Arc::new(snapshot);
            }
            changed
        });
    }

    fn message(&mut self, message: Message, now: Now) {
        // Whoever asked may have gone away: then nobody misses the answer.
        match message {
            Message::Enter { start, seq, reply } => {
                let entered = self.desk.enter(&start, now).map(|(connection, frames)| {
                    self.desk.count_from(connection, seq);
                    Session { connection, frames }
                });
                if let Err(Ok(session)) = reply.send(entered) {
                    self.desk.disconnected(session.connection, now);
                }
            }
            Message::Check { start, reply } => drop(reply.send(self.desk.check(&start))),
            Message::Frame { connection, frame } => self.desk.frame(connection, *frame, now),
            Message::Disconnected { connection } => self.desk.disconnected(connection, now),
            Message::Assign { spec, reply } => {
                let name = spec.name.clone();
                let sid = self
                    .desk
                    .administer(&name, now, |hall, out| hall.assign(*spec, now, out));
                let _ = reply.send(sid.unwrap_or_else(|| Err(failed())));
                self.publish();
            }
            Message::Release {
                name,
                epoch,
                reason,
                reply,
            } => {
                let rooms = self.desk.hall.concerned_by_end(&name);
                let done = self.desk.administer_all(&rooms, now, |hall, out| {
                    hall.release(&name, epoch, reason, now, out)
                });
                let _ = reply.send(done.unwrap_or(Ok(())));
                self.publish();
            }
            Message::SetDraining { draining, reply } => {
                self.desk.hall.set_draining(draining);
                let _ = reply.send(Ok(()));
                self.publish();
            }
            Message::List { room, reply } => {
                let listed = self.list(room.as_ref());
                let _ = reply.send(Ok(listed));
            }
            Message::Expel {
                room,
                identity,
                revoke,
                reply,
            } => {
                let found = self.desk.administer(&room, now, |hall, out| {
                    hall.expel(&room, &identity, revoke, now, out)
                });
                let _ = reply.send(found.unwrap_or_else(|| Err(failed())));
            }
            Message::Moderate { room, what, reply } => {
                let done = self
                    .desk
                    .administer(&room, now, |hall, out| hall.moderate(&room, what, now, out));
                let _ = reply.send(done.unwrap_or_else(|| Err(failed())));
            }
            Message::Reserve { room, request, reply } => {
                let done = self
                    .desk
                    .administer(&room, now, |hall, _| hall.reserve(&room, *request, now));
                let done = done.unwrap_or_else(|| Err(failed()));
                let _ = reply.send(done);
            }
            Message::Shutdown { reply } => {
                let names: Vec<RoomName> = self.desk.hall.rooms().map(|r| r.spec().name.clone()).collect();
                for name in names {
                    self.desk.administer(&name, now, |hall, out| {
                        hall.remove(&name, EndReason::Shutdown, now, out);
                    });
                }
                let _ = reply.send(Ok(()));
                self.publish();
            }
        }
    }

    fn list(&self, room: Option<&RoomName>) -> Vec<Listed> {
        self.desk
            .hall
            .rooms()
            .filter(|r| room.is_none_or(|name| r.spec().name == *name))
            .flat_map(|r| r.participants().map(move |p| (r, p)))
            .map(|(r, p)| Listed {
                room: r.spec().name.clone(),
                role: p.role.as_str(),
                info: p.info(),
                quality: p.quality_text(),
                speaking: r.speaks(p),
                since_ms: p.joined_at_ms(),
            })
            .collect()
    }
}

fn failed() -> PublicError {
    PublicError::new(Code::Internal, "the room failed")
}
