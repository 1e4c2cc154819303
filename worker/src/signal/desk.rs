//! Everything the hub knows and does, without the task around it.
//!
//! Owns the hall and the way to each client. Invariants: outputs of the hall are carried out in
//! order; a frame counts only if it came over its session's present connection; every session of the
//! hall has an entry here and the other way round.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use livekit_protocol as lk;
use livekit_protocol::leave_request::Action as LeaveAction;
use livekit_protocol::signal_response::Message as Response;
use plenum_errors::{Code, PublicError};
use plenum_worker_api::v1::{ClientFrame, Closed, Moved, Start, WorkerFrame, client_frame, worker_frame};
use tokio::sync::mpsc;

use super::hub::{Connection, HubConfig, MediaPort, RoomSummary, Snapshot};
use super::outbound::{Allowance, Outbound};
use super::request::{self, Incoming};
use super::{limits, response, start};
use crate::quality::load::Load;
use crate::quality::metrics::Direction;
use crate::quality::{Metrics, Tracker};
use crate::room::{Entered, Goodbye, Hall, Notice, Now, Outbox, Output, RoomName, RoomSpec, Sids, Worth};
use crate::session::api::{Command, Event, SessionId};

/// How often media is asked for statistics.
const STATISTICS_EVERY: Duration = Duration::from_secs(5);
/// How often the process's load is read.
const LOAD_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Client {
    connection: Option<Connection>,
    pub(super) out: Outbound,
    allowance: Allowance,
    /// Of what it says on the reserved data topic.
    pub(super) said_allowance: Allowance,
    /// Highest `ClientFrame.seq` that was acted on.
    last_heard: u64,
    /// The answer to the latest Move.
    pub(super) last_move: Option<Moved>,
    /// Number of the frame that told the client of its latest move; 0 = it was never moved.
    told_of_move: u64,
}

pub(super) struct Desk {
    pub(super) hall: Hall,
    pub(super) clients: HashMap<SessionId, Client>,
    connections: HashMap<Connection, SessionId>,
    next_connection: u64,
    media: Box<dyn MediaPort>,
    pub(super) metrics: Arc<Metrics>,
    config: HubConfig,
    server: response::Identity,
    tracker: Tracker,
    load: Load,
    cpu_permille: u32,
    egress_bits_per_second: u64,
    asked_statistics: Duration,
    read_load: Duration,
}

impl Desk {
    pub(super) fn new(
        config: HubConfig,
        media: Box<dyn MediaPort>,
        metrics: Arc<Metrics>,
        mut sids: Sids,
    ) -> Self {
        let mut sif_trailer = sids.next_u64().to_be_bytes().to_vec();
        sif_trailer.extend_from_slice(&sids.next_u64().to_be_bytes());
        let server = response::Identity {
            region: config.region.clone(),
            node_id: if config.node_id.is_empty() {
                sids.sid("ND").to_string()
            } else {
                config.node_id.clone()
            },
            sif_trailer,
        };
        let mut hall = Hall::new(sids);
        hall.limit_sessions(config.max_sessions);
        Self {
            hall,
            clients: HashMap::new(),
            connections: HashMap::new(),
            next_connection: 1,
            media,
            metrics,
            config,
            server,
            tracker: Tracker::default(),
            load: Load::default(),
            cpu_permille: 0,
            egress_bits_per_second: 0,
            asked_statistics: Duration::ZERO,
            read_load: Duration::ZERO,
        }
    }

    /// A client at the door; the connection it got and its frames.
    pub(super) fn enter(
        &mut self,
        start: &Start,
        now: Now,
    ) -> Result<(Connection, mpsc::Receiver<WorkerFrame>), PublicError> {
        let result = self.try_enter(start, now);
        match &result {
            Ok(_) => {}
            Err(error) => self.metrics.entered(error.code.as_str()),
        }
        result
    }

    fn try_enter(
        &mut self,
        start: &Start,
        now: Now,
    ) -> Result<(Connection, mpsc::Receiver<WorkerFrame>), PublicError> {
        let entry = start::entry(start)?;
        let mut rooms = vec![entry.room.clone()];
        rooms.extend(self.hall.moved_on(&entry));
        let room = entry.room.clone();
        if self.config.rooms_on_demand && rooms.len() == 1 && self.hall.room(room.as_str()).is_none() {
            self.hall.vacancy()?;
            let mut out = Outbox::default();
            self.hall.assign(RoomSpec::open(room.clone()), now, &mut out)?;
            self.carry_out(out, now);
        }
        let reattached = start::reattaches(start, &entry);
        let mut out = Outbox::default();
        let entered = match self.guarded(&rooms, |hall| hall.enter(entry, now, &mut out)) {
            Some(entered) => entered?,
            None => return Err(PublicError::new(Code::Internal, "the room failed")),
        };
        let connection = Connection(self.next_connection);
        self.next_connection += 1;
        let (sender, receiver) = mpsc::channel(limits::OUTBOUND_FRAMES);
        match entered {
            Entered::Stale => {
                self.metrics.entered("stale");
                self.turn_away(&sender);
                return Ok((connection, receiver));
            }
            Entered::Anew(session) => {
                self.metrics.entered("ok");
                let mut out_way = Outbound::default();
                out_way.connect(sender);
                self.clients.insert(
                    session,
                    Client {
                        connection: Some(connection),
                        out: out_way,
                        allowance: Allowance::new(now.since_start),
                        said_allowance: Allowance::new(now.since_start),
                        last_heard: 0,
                        last_move: None,
                        told_of_move: 0,
                    },
                );
                self.connections.insert(connection, session);
            }
            Entered::Resumed(session) => {
                self.metrics.entered("resumed");
                let (up_to, heard_of_move) = match self.clients.get_mut(&session) {
                    Some(client) => {
                        if let Some(old) = client.connection.replace(connection) {
                            self.connections.remove(&old);
                        }
                        client.out.connect(sender);
                        client.allowance = Allowance::new(now.since_start);
                        let heard_of_move = client.told_of_move <= start.last_seen_seq
                            || client.out.keeps(client.told_of_move);
                        (client.out.last_seq(), heard_of_move)
                    }
                    None => return Err(PublicError::new(Code::Internal, "session without a client")),
                };
                self.connections.insert(connection, session);
                if reattached {
                    // Its socket never broke: a greeting would make it think otherwise, and a move that it
                    // heard of, or is about to, would be a second one.
                    out.0.retain(|o| match o {
                        Output::Tell { notice, .. } => match notice {
                            Notice::WelcomeBack { .. } => false,
                            Notice::RoomMoved(_) => !heard_of_move,
                            _ => true,
                        },
                        _ => true,
                    });
                }
                self.carry_out(out, now);
                if let Some(client) = self.clients.get_mut(&session) {
                    let _ = client.out.replay(start.last_seen_seq, up_to, reattached);
                }
                return Ok((connection, receiver));
            }
        }
        self.carry_out(out, now);
        Ok((connection, receiver))
    }

    /// The first frame of a resume must be Reconnect or Leave.
    fn turn_away(&self, sender: &mpsc::Sender<WorkerFrame>) {
        let leave = response::leave(Goodbye {
            reason: lk::DisconnectReason::StateMismatch,
            action: LeaveAction::Reconnect,
        });
        let frames = [
            worker_frame::Frame::Response(response::encode_message(Response::Leave(leave))),
            worker_frame::Frame::Closed(Closed {
                code: Code::ParticipantNotFound.as_str().to_owned(),
                detail: "nothing to resume".to_owned(),
            }),
        ];
        for (seq, frame) in (1..).zip(frames) {
            let _ = sender.try_send(WorkerFrame {
                seq,
                frame: Some(frame),
            });
        }
    }

    pub(super) fn check(&self, start: &Start) -> Result<(), PublicError> {
        let entry = start::entry(start)?;
        if self.config.rooms_on_demand && self.hall.room(entry.room.as_str()).is_none() {
            return if entry.grant.join {
                self.hall.vacancy()
            } else {
                Err(PublicError::new(Code::NotPermitted, "roomJoin"))
            };
        }
        self.hall.check(&entry)
    }

    /// A frame of a client.
    pub(super) fn frame(&mut self, connection: Connection, frame: ClientFrame, now: Now) {
        let Some(session) = self.connections.get(&connection).copied() else {
            return;
        };
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let heard = frame.seq > 0 && frame.seq <= client.last_heard;
        client.last_heard = client.last_heard.max(frame.seq);
        match frame.frame {
            // A resumed stream says again what may not have arrived.
            Some(
                client_frame::Frame::Request(_)
                | client_frame::Frame::RestartIce(_)
                | client_frame::Frame::Tell(_)
                | client_frame::Frame::Standing(_),
            ) if heard => {}
            Some(client_frame::Frame::Request(bytes)) => {
                if !client.allowance.take(now.since_start) {
                    let error = PublicError::new(Code::RateLimited, "signal messages");
                    self.drop_client(session, &error, now);
                    return;
                }
                self.request(session, &bytes, now);
            }
            Some(client_frame::Frame::RestartIce(restart)) => {
                let action = crate::room::Action::OfferAgain {
                    id: restart.id,
                    credentials: (!restart.ufrag.is_empty()).then_some((restart.ufrag, restart.pwd)),
                };
                self.act(session, action, now);
            }
            Some(client_frame::Frame::Hangup(hangup)) => {
                if hangup.may_resume {
                    self.disconnected(connection, now);
                } else {
                    self.act(session, crate::room::Action::Leave, now);
                }
            }
            Some(client_frame::Frame::Start(_)) => {
                let error = PublicError::new(Code::RequestMalformed, "a second Start");
                self.drop_client(session, &error, now);
            }
            Some(client_frame::Frame::Move(order)) => self.move_client(session, &order, now),
            Some(client_frame::Frame::Tell(json)) => {
                self.in_room_of(session, now, |hall, out| hall.tell(session, json, out));
            }
            Some(client_frame::Frame::Standing(standing)) => self.stand(session, &standing, now),
            Some(client_frame::Frame::HandOver(_)) => {
                self.in_room_of(session, now, |hall, out| hall.hand_over(session, out));
            }
            None => {}
        }
    }

    /// Begins the count of a connection's frames: see `ClientFrame.seq`.
    pub(super) fn count_from(&mut self, connection: Connection, start_seq: u64) {
        if let Some(client) = self
            .connections
            .get(&connection)
            .and_then(|s| self.clients.get_mut(s))
            && start_seq <= 1
        {
            client.last_heard = start_seq;
            // Another gateway, which numbers its moves anew.
            client.last_move = None;
        }
    }

    fn request(&mut self, session: SessionId, bytes: &[u8], now: Now) {
        match request::decode(bytes) {
            Ok((name, incoming)) => {
                self.metrics.signal(name, Direction::In, 1);
                match incoming {
                    Incoming::Act(action) => self.act(session, action, now),
                    Incoming::Ping { timestamp, new_form } => self.pong(session, timestamp, new_form, now),
                    Incoming::Ignore => {}
                }
            }
            Err(error) => {
                self.metrics.signal("malformed", Direction::In, 1);
                self.drop_client(session, &error, now);
            }
        }
    }

    fn pong(&mut self, session: SessionId, timestamp: i64, new_form: bool, now: Now) {
        let message = if new_form {
            Response::PongResp(lk::Pong {
                last_ping_timestamp: timestamp,
                timestamp: now.unix_ms,
            })
        } else {
            Response::Pong(now.unix_ms)
        };
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        self.metrics.signal("pong", Direction::Out, 1);
        if client.out.say_now(response::encode_message(message)).is_err() {
            self.cut(session, "slow", now);
        }
    }

    fn act(&mut self, session: SessionId, action: crate::room::Action, now: Now) {
        self.in_room_of(session, now, |hall, out| hall.act(session, action, now, out));
    }

    fn drop_client(&mut self, session: SessionId, error: &PublicError, now: Now) {
        tracing::debug!(session = session.0, code = %error.code, detail = error.detail, "client dropped");
        self.in_room_of(session, now, |hall, out| {
            hall.drop_client(session, error, now, out)
        });
    }

    /// A client's connection is gone.
    pub(super) fn disconnected(&mut self, connection: Connection, now: Now) {
        let Some(session) = self.connections.remove(&connection) else {
            return;
        };
        if let Some(client) = self.clients.get_mut(&session) {
            client.connection = None;
            client.out.disconnect();
        }
        self.hall.lost(session, now);
    }

    /// Cuts a client's connection; its session stays.
    pub(super) fn cut(&mut self, session: SessionId, reason: &'static str, now: Now) {
        if let Some(connection) = self.clients.get(&session).and_then(|c| c.connection) {
            self.metrics.cut(reason);
            self.disconnected(connection, now);
        }
    }

    /// Media has something to say.
    pub(super) fn event(&mut self, event: Event, now: Now) {
        let session = match &event {
            Event::Answer { session, .. }
            | Event::Offer { session, .. }
            | Event::Refused { session, .. }
            | Event::NeedSections { session, .. }
            | Event::DataOpen { session }
            | Event::DataLost { session }
            | Event::HandedOver { session, .. }
            | Event::Disconnected { session, .. }
            | Event::TrackLive { session, .. }
            | Event::TrackEnded { session, .. }
            | Event::SubscriptionBound { session, .. }
            | Event::StreamState { session, .. }
            | Event::Data { session, .. } => *session,
            Event::Connected {
                session, since_open, ..
            } => {
                self.metrics.connected(*since_open);
                *session
            }
            Event::Levels { .. } => {
                if let Event::Levels { levels } = event {
                    self.hall.levels(levels);
                }
                return;
            }
            Event::Statistics { sessions } => {
                let round = self
                    .tracker
                    .round(sessions, now.since_start, &self.hall, &self.metrics);
                self.egress_bits_per_second = round.egress_bits_per_second;
                self.metrics.packets_dropped(&self.media.dropped());
                self.metrics.shards(&self.media.loads());
                let mut out = Outbox::default();
                self.hall.qualities(&round.qualities, &mut out);
                self.carry_out(out, now);
                return;
            }
        };
        self.in_room_of(session, now, |hall, out| hall.media(session, event, now, out));
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Now) {
        let names: Vec<RoomName> = self.hall.rooms().map(|r| r.spec().name.clone()).collect();
        for name in names {
            let mut out = Outbox::default();
            let rooms = self.hall.concerned_by_tick(&name);
            if self
                .guarded(&rooms, |hall| hall.tick(&name, now, &mut out))
                .is_some()
            {
                self.carry_out(out, now);
            }
            let over = self
                .hall
                .room(name.as_str())
                .is_some_and(|r| r.standing().ended_at_ms != 0 && r.standing().participants == 0);
            if over && self.config.rooms_on_demand {
                let mut out = Outbox::default();
                self.hall
                    .remove(&name, crate::room::EndReason::Closed, now, &mut out);
                self.carry_out(out, now);
            }
        }
        if now.since(self.asked_statistics) >= STATISTICS_EVERY {
            self.asked_statistics = now.since_start;
            self.media.send(Command::Statistics);
        }
        if now.since(self.read_load) >= LOAD_EVERY {
            self.read_load = now.since_start;
            self.cpu_permille = self.load.permille(now.since_start);
            self.metrics.standing(
                self.hall.draining(),
                self.hall
                    .rooms()
                    .map(|r| (r.spec().name.as_str(), r.participants().count())),
                self.hall
                    .rooms()
                    .flat_map(|r| r.participants())
                    .flat_map(|p| p.live_tracks()),
            );
        }
    }

    /// Runs something in a room, or between two. A panic there closes those and no other.
    pub(super) fn guarded<T>(&mut self, rooms: &[RoomName], f: impl FnOnce(&mut Hall) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| f(&mut self.hall))) {
            Ok(value) => Some(value),
            Err(_) => {
                self.metrics.panicked();
                tracing::error!(?rooms, "closed: the logic failed");
                let (reason, action) = crate::room::EndReason::Failed.leave();
                let leave = Bytes::from(response::encode_message(Response::Leave(response::leave(
                    Goodbye { reason, action },
                ))));
                let lost: Vec<SessionId> = rooms.iter().flat_map(|room| self.hall.abandon(room)).collect();
                for session in lost {
                    self.media.send(Command::Close { session });
                    if let Some(client) = self.clients.get_mut(&session) {
                        let _ = client.out.say(leave.clone(), Worth::State);
                    }
                    self.end(session, Code::Internal.as_str(), "the room failed");
                }
                None
            }
        }
    }

    /// Runs something in the room of a session, then does what follows.
    pub(super) fn in_room_of(
        &mut self,
        session: SessionId,
        now: Now,
        f: impl FnOnce(&mut Hall, &mut Outbox),
    ) {
        let Some(room) = self.hall.room_of(session).cloned() else {
            return;
        };
        let mut out = Outbox::default();
        if self.guarded(&[room], |hall| f(hall, &mut out)).is_some() {
            self.carry_out(out, now);
        }
    }

    /// Runs something of a controller or a moderator, then does what follows.
    pub(super) fn administer<T>(
        &mut self,
        room: &RoomName,
        now: Now,
        f: impl FnOnce(&mut Hall, &mut Outbox) -> T,
    ) -> Option<T> {
        self.administer_all(std::slice::from_ref(room), now, f)
    }

    /// The same where more than one room may change.
    pub(super) fn administer_all<T>(
        &mut self,
        rooms: &[RoomName],
        now: Now,
        f: impl FnOnce(&mut Hall, &mut Outbox) -> T,
    ) -> Option<T> {
        let mut out = Outbox::default();
        let value = self.guarded(rooms, |hall| f(hall, &mut out))?;
        self.carry_out(out, now);
        Some(value)
    }

    pub(super) fn carry_out(&mut self, out: Outbox, now: Now) {
        let mut slow: Vec<SessionId> = Vec::new();
        for output in out.0 {
            match output {
                Output::Media(command) => self.media.send(command),
                Output::Tell { to, notice } => {
                    let worth = notice.worth();
                    let moves = matches!(notice, Notice::RoomMoved(_));
                    let (name, bytes) = response::encode(notice, &self.server);
                    let bytes = Bytes::from(bytes);
                    self.metrics.signal(name, Direction::Out, to.len() as u64);
                    for session in to {
                        let Some(client) = self.clients.get_mut(&session) else {
                            continue;
                        };
                        if client.out.say(bytes.clone(), worth).is_err() {
                            slow.push(session);
                        }
                        if moves {
                            client.told_of_move = client.out.last_seq();
                        }
                    }
                }
                Output::End {
                    session,
                    code,
                    detail,
                } => {
                    self.end(session, code.map_or("", Code::as_str), &detail);
                }
                Output::Cut { session } => self.cut(session, "asked", now),
                Output::Relocated { session, room } => {
                    if self.relocated(session, &room).is_err() {
                        slow.push(session);
                    }
                }
                Output::Said { session, json } => {
                    if self.said(session, json, now).is_err() {
                        slow.push(session);
                    }
                }
                Output::HandedOver { session, state } => {
                    if self.handed_over(session, state).is_err() {
                        slow.push(session);
                    }
                }
                Output::DataDropped(reason) => self.metrics.data_dropped(reason),
            }
        }
        for session in slow {
            self.cut(session, "slow", now);
        }
    }

    fn end(&mut self, session: SessionId, code: &'static str, detail: &str) {
        let Some(client) = self.clients.remove(&session) else {
            return;
        };
        if let Some(connection) = client.connection {
            self.connections.remove(&connection);
        }
        self.metrics.ended(code);
        client.out.close(code, detail);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let rooms: Vec<RoomSummary> = self
            .hall
            .rooms()
            .map(|room| RoomSummary {
                name: room.spec().name.clone(),
                epoch: room.spec().epoch,
                standing: room.standing().clone(),
            })
            .collect();
        Snapshot {
            draining: self.hall.draining(),
            participants: rooms.iter().map(|r| r.standing.participants).sum(),
            cpu_permille: self.cpu_permille,
            egress_bits_per_second: self.egress_bits_per_second,
            rooms,
        }
    }
}
