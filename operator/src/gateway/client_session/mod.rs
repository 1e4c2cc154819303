//! One client's session, between the front door and the worker that holds its room.
//!
//! Owns the worker's stream of one client, where the client is, and its moves: frames pass both ways
//! as they are; between them this side says Move, Standing and Tell, and hears Moved, Relocated and
//! Said, of which the client sees nothing. Invariants: neither side ever waits for the other; one
//! move at a time; the room, the meeting's directory and the client's token agree once a move is
//! over; a request that was begun is finished, whatever becomes of the client.

mod crossing;
mod moves;
mod outbox;
mod requests;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use plenum_breakout::{Input, Mover, Output};
use plenum_errors::Code;
use plenum_join::{Order, Session};
use plenum_protocol::{Answer, Notice};
use plenum_token::Role;
use plenum_worker_api::v1::{ClientFrame, Closed, Standing, Start, WorkerFrame, client_frame, worker_frame};
use serde::Serialize;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::meetings::plans::View;
use super::meetings::{Meetings, Presence, now_ms};
use super::rooms::by_the_meeting;
use super::workers::Lease;
use moves::{Going, Stage};
use outbox::Outbox;
use requests::Desk;

/// Frames under way in one direction.
const QUEUE: usize = 64;
/// Frames that wait here before the other side is asked for no more.
const BACKLOG: usize = 64;
/// How long the front door may take to end a session that was told to end.
const PARTING: Duration = Duration::from_secs(15);

/// How long a worker may take to end a stream that was hung up.
const FAREWELL: Duration = Duration::from_secs(5);

/// A worker's stream that has been opened, and what led to it.
pub(super) struct Opened {
    /// To the worker; the Start has been sent.
    pub(super) to_worker: mpsc::Sender<ClientFrame>,
    pub(super) from_worker: Streaming<WorkerFrame>,
    /// What came while it was found out whether the worker lets the client in.
    pub(super) first: Vec<WorkerFrame>,
    pub(super) lease: Lease,
    /// UID of the worker's pod.
    pub(super) worker_uid: String,
    /// As the token says it: before the Meeting's word on co-hosts.
    pub(super) by_token: Start,
    /// The role that the worker was told.
    pub(super) role: Role,
    /// The breakout room; `None` = the main room.
    pub(super) room: Option<String>,
    /// A room that should have been entered and could not be.
    pub(super) refused: Option<(Option<String>, Code)>,
    pub(super) takes_part: bool,
    pub(super) presence: Presence,
}

/// What happens beside the streams.
enum Event {
    /// The other worker keeps a place, or not.
    Reserved(u64, Result<crossing::Place, Code>),
    /// A request was carried out.
    Answered(Answer),
    /// The client is about to go somewhere by its own wish.
    Expects(Option<String>),
    /// The client asked for the state, and it is as complete as it gets.
    Greets { id: u64, since: Option<u64> },
}

/// Why a session ended.
enum End {
    /// The client's side is gone.
    Client,
    /// The worker's stream is over.
    Worker,
}

struct ClientSession {
    meetings: Arc<Meetings>,
    presence: Presence,
    by_token: Start,
    role: Role,
    room: Option<String>,
    worker_uid: String,
    takes_part: bool,
    mover: Mover,
    going: Option<Going>,
    /// Messages for the client so far.
    responses: u64,
    /// Number of the last move.
    moves: u64,
    /// The number of the last signal the client was given; `None` until it says hello.
    cursor: Option<u64>,
    behind: bool,
    desk: Desk,
    up: Outbox<ClientFrame>,
    down: Outbox<WorkerFrame>,
    orders: mpsc::Sender<Order>,
    events: mpsc::UnboundedSender<Event>,
    /// The front door was told to end the session.
    parting: Option<Instant>,
}

/// Starts the task, and gives the front door its end of the session.
pub(super) fn spawn(meetings: Arc<Meetings>, opened: Opened) -> Session {
    let (to_session, from_client) = mpsc::channel(QUEUE);
    let (to_client, from_session) = mpsc::channel(QUEUE);
    let (orders, asked) = mpsc::channel(1);
    let (events, happened) = mpsc::unbounded_channel();
    let room = opened.presence.meeting.room(opened.room.as_deref());
    let mut mover = Mover::new(opened.by_token.identity.clone(), opened.room.clone());
    mover.set_host(opened.role >= Role::Cohost);
    let session = ClientSession {
        meetings,
        presence: opened.presence,
        by_token: opened.by_token,
        role: opened.role,
        room: opened.room,
        worker_uid: opened.worker_uid,
        takes_part: opened.takes_part,
        mover,
        going: None,
        responses: 0,
        // A session that is resumed goes on counting where others left off, at other gateways too.
        moves: u64::try_from(now_ms()).unwrap_or_default(),
        cursor: None,
        behind: false,
        desk: Desk::new(),
        up: Outbox::new(opened.to_worker),
        down: Outbox::new(to_client),
        orders,
        events,
        parting: None,
    };
    tokio::spawn(session.run(
        from_client,
        opened.first,
        opened.from_worker,
        happened,
        opened.lease,
        opened.refused,
    ));
    Session {
        orders: asked,
        ..Session::new(room, to_session, from_session)
    }
}

impl ClientSession {
    async fn run(
        mut self,
        mut from_client: mpsc::Receiver<ClientFrame>,
        first: Vec<WorkerFrame>,
        mut from_worker: Streaming<WorkerFrame>,
        mut happened: mpsc::UnboundedReceiver<Event>,
        // Counts as a user of its connection until the session is over.
        _lease: Lease,
        refused: Option<(Option<String>, Code)>,
    ) {
        let mut views = self.presence.meeting.views();
        let mut news = self.presence.meeting.news();
        let mut overview = self.presence.meeting.overview();
        views.mark_changed();
        let mut refused = refused;
        let mut over = false;
        for frame in first {
            over |= self.hear(frame);
        }
        let end = loop {
            if over {
                break End::Worker;
            }
            self.deliver();
            self.start_next();
            let due = self.deadline();
            tokio::select! {
                frame = from_client.recv(), if self.up.len() < BACKLOG => {
                    let Some(frame) = frame else { break End::Client };
                    let last = matches!(frame.frame, Some(client_frame::Frame::Hangup(_)));
                    self.up.push(frame);
                    if last { break End::Client }
                }
                frame = from_worker.message(), if self.down.len() < BACKLOG => match frame {
                    Ok(Some(frame)) => if self.hear(frame) { break End::Worker },
                    Ok(None) => break End::Worker,
                    Err(status) => {
                        tracing::info!(grpc = ?status.code(), "a session's worker was lost");
                        break End::Worker;
                    }
                },
                sent = self.up.flush_one(), if !self.up.is_empty() => {
                    // The worker's last words, a Closed frame, may still be on their way.
                    if sent.is_err() { self.up = Outbox::new(mpsc::channel(1).0); }
                }
                sent = self.down.flush_one(), if !self.down.is_empty() => {
                    if sent.is_err() { break End::Client }
                }
                Ok(()) = views.changed() => {
                    let view = views.borrow_and_update().clone();
                    self.look(&view, refused.take());
                }
                Ok(()) = news.changed() => self.behind = true,
                Ok(()) = overview.changed() => {
                    let shown = overview.borrow_and_update().clone();
                    if let Some(shown) = shown && self.desk.watches {
                        self.tell(&Notice::Overview((*shown).clone()));
                    }
                }
                Some(event) = happened.recv() => self.happen(event),
                () = self.presence.superseded() => {
                    tracing::info!(identity = self.by_token.identity, "a newer connection took this one's place");
                    self.part(Order::Close(closed(Code::DuplicateIdentity)));
                }
                () = at(due) => self.tick(),
            }
            if self.parting.is_some_and(|since| since.elapsed() > PARTING) {
                break End::Client;
            }
        };
        match end {
            End::Client => {
                let _ = tokio::time::timeout(PARTING, self.up.flush()).await;
                // Gone for the meeting; the worker's stream is let go once the worker has heard why.
                drop(self);
                let rest = async { while let Ok(Some(_)) = from_worker.message().await {} };
                let _ = tokio::time::timeout(FAREWELL, rest).await;
            }
            End::Worker => {
                let _ = tokio::time::timeout(PARTING, self.down.flush()).await;
            }
        }
    }

    /// One frame of the worker; true = the last one.
    fn hear(&mut self, frame: WorkerFrame) -> bool {
        match frame.frame {
            Some(worker_frame::Frame::Moved(moved)) => self.moved(&moved),
            Some(worker_frame::Frame::Relocated(moved)) => self.relocated(&moved),
            Some(worker_frame::Frame::HandedOver(state)) => self.handed_over(state),
            Some(worker_frame::Frame::Said(json)) => self.hear_client(&json),
            Some(worker_frame::Frame::Closed(ref closed)) => {
                let room_closed = closed.code == Code::RoomClosed.as_str();
                if room_closed && self.room.is_some() && self.takes_part {
                    // Its people are at home in the main room, which is on another worker.
                    self.report_move(None, "reconnect", "ok", Duration::ZERO);
                    self.announce(None);
                    self.part(Order::Elsewhere {
                        room: self.presence.meeting.room(None),
                        may_resume: false,
                    });
                } else {
                    self.down.push(frame);
                }
                return true;
            }
            Some(worker_frame::Frame::Response(ref bytes)) => {
                self.responses = self.responses.saturating_add(1);
                let arrives = self.responses == 2 && plenum_join::is_room_moved(bytes);
                self.down.push(frame);
                if arrives {
                    self.tell_arrival();
                }
            }
            _ => self.down.push(frame),
        }
        false
    }

    /// The client has come with the connection that it had with another worker: its first message was that
    /// it is back, the second that it is in another room. Before its data channel is open again it had
    /// better say nothing, and this shows that it is.
    fn tell_arrival(&mut self) {
        let title = self.presence.meeting.view().plan.title(self.room.as_deref());
        self.tell(&Notice::Moved {
            to: self.room.clone(),
            title,
        });
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Reserved(id, outcome) => self.reserved(id, outcome),
            Event::Answered(answer) => {
                self.desk.finished();
                self.tell(&answer);
            }
            Event::Expects(to) => self.step(Input::Expect(to)),
            Event::Greets { id, since } => self.greet(id, since),
        }
    }

    /// The objects changed.
    fn look(&mut self, view: &Arc<View>, refused: Option<(Option<String>, Code)>) {
        self.stand(view);
        if !self.takes_part {
            return;
        }
        if let Some((to, code)) = refused {
            self.announce_failure(code);
            // Before the plan, by which it would be tried again at once.
            self.step(Input::Refused(to, code));
        }
        self.step(Input::Plan(view.plan.clone()));
    }

    /// The role in force, by the token and the Meeting of now.
    fn stand(&mut self, view: &View) {
        let mut start = Start {
            room: self.presence.meeting.room(self.room.as_deref()),
            ..self.by_token.clone()
        };
        // Who was barred stays until removed: a bar is about coming back.
        if by_the_meeting(&view.meeting, &mut start).is_err() {
            return;
        }
        let role = start.role.parse().unwrap_or(Role::Viewer);
        if role == self.role {
            return;
        }
        tracing::info!(identity = self.by_token.identity, role = %role, "a client's role has changed");
        self.role = role;
        self.presence.stands(role);
        self.mover.set_host(role >= Role::Cohost);
        if role < Role::Cohost {
            self.watch(false);
        }
        self.send(client_frame::Frame::Standing(Standing {
            role: start.role,
            video_grant_json: start.video_grant_json,
        }));
        self.tell(&Notice::Role {
            role: role.as_str().to_owned(),
        });
    }

    fn step(&mut self, input: Input) {
        if self.parting.is_none() {
            let outputs = self.mover.step(now_ms(), input);
            self.carry_out(outputs);
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Notice(notice) => self.tell(&notice),
                Output::Go { to, .. } => self.go(to),
                Output::Settled => {}
            }
        }
    }

    /// Asks the front door to end the session.
    fn part(&mut self, order: Order) {
        if self.parting.is_none() {
            self.parting = Some(Instant::now());
            let _ = self.orders.try_send(order);
        }
    }

    /// When `tick` is due.
    fn deadline(&self) -> Option<i64> {
        if self.parting.is_some() {
            return Some(now_ms() + 1_000);
        }
        let answer = self.going.as_ref().and_then(|going| {
            let left = going.stage.patience()?.saturating_sub(going.began.elapsed());
            Some(now_ms().saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX)))
        });
        [self.mover.deadline(), answer].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let late = self.going.as_ref().is_some_and(|going| {
            let patience = going.stage.patience();
            patience.is_some_and(|patience| going.began.elapsed() >= patience)
        });
        match self.going.as_ref().map(|going| &going.stage) {
            Some(Stage::Moved) if late => self.arrive(Err(Code::WorkerUnreachable)),
            Some(Stage::HandedOver(_)) if late => self.handed_over(Vec::new()),
            _ if self.takes_part => self.step(Input::Tick),
            _ => {}
        }
    }

    /// Gives the client the signals that are for it, as fast as they are taken.
    fn deliver(&mut self) {
        let Some(mut cursor) = self.cursor.filter(|_| self.behind) else {
            return;
        };
        let mut texts = Vec::new();
        self.behind = false;
        {
            let journal = self.presence.meeting.journal();
            for kept in journal.after(cursor) {
                if self.up.len() + texts.len() >= BACKLOG {
                    self.behind = true;
                    break;
                }
                cursor = kept.seq();
                if kept.is_for(self.role, self.room.as_deref()) {
                    texts.push(kept.text.clone());
                }
            }
            if !self.behind {
                cursor = journal.last();
            }
        }
        self.cursor = Some(cursor);
        for text in texts {
            self.send(client_frame::Frame::Tell(text.to_string()));
        }
    }

    fn tell(&mut self, what: &impl Serialize) {
        match serde_json::to_string(what) {
            Ok(json) => self.send(client_frame::Frame::Tell(json)),
            Err(error) => tracing::error!(%error, "a message to a client cannot be written"),
        }
    }

    /// A frame of this side. It has no number: those are the client's own.
    fn send(&mut self, frame: client_frame::Frame) {
        self.up.push(ClientFrame {
            seq: 0,
            frame: Some(frame),
        });
    }

    fn watch(&mut self, on: bool) {
        self.desk.watches = on;
        self.presence.watches(on);
    }
}

fn closed(code: Code) -> Closed {
    Closed {
        code: code.as_str().to_owned(),
        detail: String::new(),
    }
}

/// Completes at that time by the wall clock, or never.
async fn at(time: Option<i64>) {
    match time {
        Some(time) => {
            let left = time.saturating_sub(now_ms()).max(0);
            tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0))).await;
        }
        None => std::future::pending().await,
    }
}
