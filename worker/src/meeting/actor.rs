//! The task for all meetings of the worker, and gateways' streams to it.
//!
//! Owns the mailbox, the clock and the queues. Invariants: nothing here waits for a gateway: one whose
//! queue is full loses its stream, attaches anew and gets what it lacks; a stream ends when its meeting
//! goes elsewhere.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plenum_errors::{Code, PublicError};
use plenum_worker_api::v1::{Attach, Breakouts, MeetingDown, MeetingUp, meeting_up};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::GatewayId;
use super::state::{Meeting, Outbox, Refusal};
use super::stats::Stats;
use crate::quality::Metrics;
use crate::room::Now;

/// Frames and calls that wait. Beyond it senders wait.
const MAILBOX: usize = 1_024;
/// Frames to one gateway: twice what a whole journal takes.
pub(super) const QUEUE: usize = 2_500;
/// The grain of all timers.
const TICK: Duration = Duration::from_millis(100);

enum Message {
    Assign {
        name: String,
        epoch: u64,
        breakouts: Breakouts,
    },
    Release {
        name: String,
        epoch: u64,
    },
    Attach {
        attach: Box<Attach>,
        reply: oneshot::Sender<Result<Attached, PublicError>>,
    },
    Frame {
        id: GatewayId,
        frame: MeetingUp,
    },
    Detach {
        id: GatewayId,
    },
    Close,
}

/// A gateway's way in and out.
#[derive(Debug)]
pub struct Attached {
    /// Names the stream in [`MeetingsHandle::frame`].
    pub id: GatewayId,
    /// To the gateway; ends where the meeting goes elsewhere or the gateway did not keep up.
    pub frames: mpsc::Receiver<MeetingDown>,
    /// Completes when the stream has ended.
    pub over: oneshot::Receiver<()>,
}

/// Talks to the task.
#[derive(Clone)]
pub struct MeetingsHandle {
    mailbox: mpsc::Sender<Message>,
}

fn stopping() -> PublicError {
    PublicError::new(Code::Internal, "the worker is stopping")
}

/// NAMESPACE/MEETING is a main room, NAMESPACE/MEETING/ROOM is not.
fn is_main_room(name: &str) -> bool {
    name.matches('/').count() == 1
}

impl MeetingsHandle {
    async fn tell(&self, message: Message) {
        // The task ends with the process only.
        let _ = self.mailbox.send(message).await;
    }

    /// The worker has accepted this room. Rooms that are no main room are nobody's hub.
    pub async fn assign(&self, name: String, epoch: u64, breakouts: Option<Breakouts>) {
        if is_main_room(&name) {
            self.tell(Message::Assign {
                name,
                epoch,
                breakouts: breakouts.unwrap_or_default(),
            })
            .await;
        }
    }

    /// The worker has given up this room, if it is not of a higher epoch. 0 = of whatever epoch.
    pub async fn release(&self, name: String, epoch: u64) {
        self.tell(Message::Release { name, epoch }).await;
    }

    /// A gateway begins.
    pub async fn attach(&self, attach: Attach) -> Result<Attached, PublicError> {
        let (reply, answer) = oneshot::channel();
        let attach = Box::new(attach);
        self.tell(Message::Attach { attach, reply }).await;
        answer.await.map_err(|_| stopping())?
    }

    /// A frame after Attach.
    pub async fn frame(&self, id: GatewayId, frame: MeetingUp) {
        self.tell(Message::Frame { id, frame }).await;
    }

    /// The gateway's stream is gone.
    pub async fn detach(&self, id: GatewayId) {
        self.tell(Message::Detach { id }).await;
    }

    /// Ends every stream.
    pub async fn close(&self) {
        self.tell(Message::Close).await;
    }
}

struct Link {
    meeting: String,
    frames: mpsc::Sender<MeetingDown>,
    /// Dropped with the link.
    _over: oneshot::Sender<()>,
}

/// All hubs of the worker, to be spawned.
pub struct Meetings {
    mailbox: mpsc::Receiver<Message>,
    meetings: HashMap<String, Meeting>,
    links: HashMap<GatewayId, Link>,
    next: u64,
    stats: Stats,
    began: Instant,
}

impl Meetings {
    /// No meeting yet.
    pub fn new(metrics: &Metrics) -> Result<(Self, MeetingsHandle), prometheus::Error> {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let meetings = Self {
            mailbox,
            meetings: HashMap::new(),
            links: HashMap::new(),
            next: 1,
            stats: Stats::new(metrics)?,
            began: Instant::now(),
        };
        Ok((meetings, MeetingsHandle { mailbox: sender }))
    }

    /// Runs until every handle is dropped.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                message = self.mailbox.recv() => {
                    let Some(message) = message else { return };
                    self.message(message);
                }
                _ = ticks.tick() => self.tick(),
            }
            self.stats.gateways(self.links.len());
        }
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            since_start: self.began.elapsed(),
            unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Assign {
                name,
                epoch,
                breakouts,
            } => self.assign(name, epoch, breakouts),
            Message::Release { name, epoch } => {
                if self
                    .meetings
                    .get(&name)
                    .is_some_and(|m| epoch == 0 || epoch >= m.epoch())
                {
                    self.drop_meeting(&name);
                }
            }
            Message::Attach { attach, reply } => self.attach(*attach, reply),
            Message::Frame { id, frame } => self.frame(id, frame),
            Message::Detach { id } => self.unlink(id),
            Message::Close => {
                self.meetings.clear();
                self.links.clear();
            }
        }
    }

    fn assign(&mut self, name: String, epoch: u64, breakouts: Breakouts) {
        match self.meetings.get(&name).map(Meeting::epoch) {
            Some(held) if held > epoch => return,
            Some(held) if held < epoch => self.drop_meeting(&name),
            _ => {}
        }
        let now = self.now();
        let mut out = Outbox::default();
        self.meetings
            .entry(name)
            .or_insert_with(|| Meeting::new(epoch))
            .assign(breakouts, now, &mut out);
        self.flush(out);
    }

    /// The hub is no more here; gateways look for it elsewhere.
    fn drop_meeting(&mut self, name: &str) {
        if let Some(meeting) = self.meetings.remove(name) {
            for id in meeting.gateways() {
                self.links.remove(&id);
            }
        }
    }

    fn attach(&mut self, attach: Attach, reply: oneshot::Sender<Result<Attached, PublicError>>) {
        let now = self.now();
        let name = attach.meeting.clone();
        let Some(meeting) = self.meetings.get_mut(&name) else {
            let error = PublicError::new(Code::RoomNotFound, "no main room of that name");
            let _ = reply.send(Err(error));
            return;
        };
        if attach.epoch != meeting.epoch() {
            let error = PublicError::new(
                Code::EpochStale,
                format!("the main room is at epoch {}", meeting.epoch()),
            );
            let _ = reply.send(Err(error));
            return;
        }
        let id = GatewayId(self.next);
        self.next += 1;
        let (frames, receiver) = mpsc::channel(QUEUE);
        let (open, over) = oneshot::channel();
        let attached = Attached {
            id,
            frames: receiver,
            over,
        };
        if reply.send(Ok(attached)).is_err() {
            return;
        }
        let mut out = Outbox::default();
        meeting.attach(id, attach, now, &mut out);
        let link = Link {
            meeting: name,
            frames,
            _over: open,
        };
        self.links.insert(id, link);
        self.flush(out);
    }

    fn frame(&mut self, id: GatewayId, frame: MeetingUp) {
        let now = self.now();
        // Frames of a stream that has ended may still be on the way.
        let Some(meeting) = self
            .links
            .get(&id)
            .and_then(|link| self.meetings.get_mut(&link.meeting))
        else {
            return;
        };
        let mut out = Outbox::default();
        match frame.frame {
            Some(meeting_up::Frame::Post(post)) => meeting.post(post, now, &mut out),
            Some(meeting_up::Frame::Here(here)) => meeting.here(id, &here, now, &mut out),
            Some(meeting_up::Frame::Gone(gone)) => meeting.gone(&gone, now),
            Some(meeting_up::Frame::Attach(_)) | None => out.refuse(Refusal::OutOfPlace),
        }
        self.flush(out);
    }

    fn unlink(&mut self, id: GatewayId) {
        let now = self.now();
        if let Some(link) = self.links.remove(&id)
            && let Some(meeting) = self.meetings.get_mut(&link.meeting)
        {
            meeting.detach(id, now);
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        let mut out = Outbox::default();
        for meeting in self.meetings.values_mut() {
            meeting.tick(now, &mut out);
        }
        self.flush(out);
    }

    fn flush(&mut self, out: Outbox) {
        for count in out.counts {
            self.stats.count(count);
        }
        for (id, frame) in out.tell {
            let Some(link) = self.links.get(&id) else { continue };
            match link.frames.try_send(MeetingDown { frame: Some(frame) }) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::warn!(
                        meeting = link.meeting,
                        "a gateway does not keep up with the meeting's signals"
                    );
                    self.stats.cut();
                    self.unlink(id);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => self.unlink(id),
            }
        }
    }
}
