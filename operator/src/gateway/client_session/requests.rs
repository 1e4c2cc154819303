//! What a client asks for on the reserved data topic.
//!
//! Owns the reading of requests, their rate and order, and those that concern the hub or this
//! session alone; what concerns objects goes to the meeting's desk. Invariants: every request that
//! can be read is answered once, in the order of asking where it writes; nobody asks more often than
//! the limit; what is logged is who asked what kind of thing, never what they wrote.

use std::collections::VecDeque;
use std::time::Instant;

use plenum_breakout::{Actor, Input, Output};
use plenum_errors::{Code, PublicError};
use plenum_join::Bucket;
use plenum_protocol::{Answer, Asking, Audience, Command, Failure, Notice, Request, Signal};
use plenum_token::Role;
use serde_json::Value;

use super::{ClientSession, Event};
use crate::gateway::meetings::desk::{self, Asker};
use crate::gateway::meetings::now_ms;

/// Requests of one client: so many a second in the long run, and so many at once.
const PER_SECOND: u32 = 10;
const BURST: u32 = 40;
/// Requests that write, waiting for those before them.
const MAX_WAITING: usize = 32;

/// One client's requests.
pub(super) struct Desk {
    waiting: VecDeque<Request>,
    busy: bool,
    bucket: Bucket,
    /// The client gets the overview.
    pub(super) watches: bool,
}

impl Desk {
    pub(super) fn new() -> Desk {
        Desk {
            waiting: VecDeque::new(),
            busy: false,
            bucket: Bucket::new(PER_SECOND, BURST, Instant::now()),
            watches: false,
        }
    }

    /// The request under way was answered.
    pub(super) fn finished(&mut self) {
        self.busy = false;
    }
}

impl ClientSession {
    /// The client said something.
    pub(super) fn hear_client(&mut self, json: &str) {
        let in_time = self.desk.bucket.take(Instant::now());
        let request = match serde_json::from_str::<Request>(json) {
            Ok(request) => request,
            Err(error) => {
                let Some(id) = id_of(json) else {
                    self.meetings
                        .reach
                        .metrics
                        .command("unreadable", Code::RequestMalformed.as_str());
                    return;
                };
                let refused = if in_time {
                    // The text of the error names positions and known kinds, not what was sent.
                    tracing::debug!(%error, "a request cannot be read");
                    PublicError::new(Code::RequestMalformed, "no such command, or not in this form")
                } else {
                    Code::RateLimited.into()
                };
                return self.answer(id, "unreadable", Err(refused));
            }
        };
        let kind = request.command.kind();
        if !in_time {
            return self.answer(request.id, kind, Err(Code::RateLimited.into()));
        }
        if !self.takes_part && !matches!(request.command, Command::Hello { .. }) {
            let error = PublicError::new(Code::NotPermitted, "this connection only listens");
            return self.answer(request.id, kind, Err(error));
        }
        let id = request.id;
        let outcome = match &request.command {
            Command::Hello { since } => return self.hello(id, *since),
            Command::Overview { watch } => self.checked(&request.command).map(|()| {
                self.watch(*watch);
                let shown = self.presence.meeting.overview().borrow().clone();
                if let Some(shown) = shown.filter(|_| *watch) {
                    self.tell(&Notice::Overview((*shown).clone()));
                }
            }),
            Command::RaiseHand { up } => self.raise_hand(*up),
            Command::LowerHand { identity } => self
                .checked(&request.command)
                .and_then(|()| self.lower_hand(identity)),
            Command::AskForHelp { on } => self.ask_for_help(*on),
            Command::MessageHosts { text } => self
                .checked(&request.command)
                .and_then(|()| self.message_hosts(text)),
            Command::Broadcast { text, rooms } => self
                .checked(&request.command)
                .and_then(|()| self.broadcast(text, rooms)),
            _ => {
                if let Command::CancelMove {} = request.command {
                    // At once: the write may come after the move.
                    self.refuse_move();
                }
                if self.desk.waiting.len() < MAX_WAITING {
                    self.desk.waiting.push_back(request);
                    return;
                }
                Err(Code::RateLimited.into())
            }
        };
        self.answer(id, kind, outcome.map(|()| Value::Null));
    }

    /// Takes up the next request that writes.
    pub(super) fn start_next(&mut self) {
        if self.desk.busy {
            return;
        }
        let Some(request) = self.desk.waiting.pop_front() else {
            return;
        };
        self.desk.busy = true;
        let asker = Asker {
            actor: self.actor(),
            name: self.by_token.name.clone(),
        };
        let (meetings, meeting) = (self.meetings.clone(), self.presence.meeting.clone());
        let events = self.events.clone();
        // A task of its own: what was begun is finished, whatever becomes of the client.
        tokio::spawn(async move {
            let (id, kind) = (request.id, request.command.kind());
            let identity = asker.actor.identity.clone();
            let (reach, at, expected) = (meetings.reach.clone(), meeting.clone(), events.clone());
            let work = tokio::spawn(async move {
                let expects = |to| drop(expected.send(Event::Expects(to)));
                desk::execute(&request.command, &asker, &at, &reach, expects).await
            });
            // Whatever goes wrong there, the client is answered and its next request taken up.
            let outcome = work.await.unwrap_or_else(|error| {
                tracing::error!(%error, command = kind, "a command failed");
                Err(Code::Internal.into())
            });
            let code = outcome
                .as_ref()
                .map_or_else(|error| error.code.as_str(), |_| "ok");
            tracing::info!(
                identity,
                meeting = meeting.room(None),
                command = kind,
                outcome = code,
                "a command"
            );
            meetings.reach.metrics.command(kind, code);
            let _ = events.send(Event::Answered(answer_of(id, outcome)));
        });
    }

    /// Answers a request that was settled here.
    pub(super) fn answer(&mut self, id: u64, kind: &'static str, outcome: Result<Value, PublicError>) {
        let code = outcome
            .as_ref()
            .map_or_else(|error| error.code.as_str(), |_| "ok");
        self.meetings.reach.metrics.command(kind, code);
        self.tell(&answer_of(id, outcome));
    }

    fn actor(&self) -> Actor {
        Actor {
            identity: self.by_token.identity.clone(),
            role: self.role,
            room: self.room.clone(),
        }
    }

    fn checked(&self, command: &Command) -> Result<(), PublicError> {
        desk::check(command, &self.actor(), &self.presence.meeting.view())
    }

    fn refuse_move(&mut self) {
        if self.parting.is_none() {
            let outputs: Vec<Output> = self.mover.step(now_ms(), Input::Cancelled);
            self.carry_out(outputs);
        }
    }

    fn asking(&self) -> Asking {
        Asking {
            identity: self.by_token.identity.clone(),
            name: self.by_token.name.clone(),
            room: self.room.clone(),
            since: now_ms(),
        }
    }

    fn raise_hand(&self, up: bool) -> Result<(), PublicError> {
        let who = self.asking();
        let audience = Audience::Rooms(vec![who.room.clone().unwrap_or_default()]);
        self.presence
            .meeting
            .post(&Signal::RaiseHand { who, up }, &audience)
    }

    fn lower_hand(&self, identity: &str) -> Result<(), PublicError> {
        let meeting = &self.presence.meeting;
        let raised = meeting
            .journal()
            .standing()
            .hands
            .iter()
            .find(|one| one.identity == identity)
            .cloned();
        // A hand that is down needs no lowering.
        let Some(who) = raised else { return Ok(()) };
        let audience = Audience::Rooms(vec![who.room.clone().unwrap_or_default()]);
        meeting.post(&Signal::RaiseHand { who, up: false }, &audience)
    }

    fn ask_for_help(&self, on: bool) -> Result<(), PublicError> {
        let who = self.asking();
        self.presence
            .meeting
            .post(&Signal::AskForHelp { who, on }, &Audience::Hosts)
    }

    fn message_hosts(&self, text: &str) -> Result<(), PublicError> {
        if self.role < Role::Participant {
            return Err(PublicError::new(Code::NotPermitted, "viewers send no messages"));
        }
        let signal = Signal::MessageToHosts {
            who: self.asking(),
            text: text.to_owned(),
        };
        self.presence.meeting.post(&signal, &Audience::Hosts)
    }

    fn broadcast(&self, text: &str, rooms: &[String]) -> Result<(), PublicError> {
        let signal = Signal::Broadcast {
            from: self.by_token.identity.clone(),
            name: self.by_token.name.clone(),
            text: text.to_owned(),
        };
        let audience = if rooms.is_empty() {
            Audience::Everyone
        } else {
            Audience::Rooms(rooms.to_vec())
        };
        self.presence.meeting.post(&signal, &audience)
    }
}

fn answer_of(id: u64, outcome: Result<Value, PublicError>) -> Answer {
    match outcome {
        Ok(result) => Answer::done(id, result),
        Err(error) => Answer::failed(
            id,
            Failure {
                code: error.code.as_str().to_owned(),
                cause: error.code.cause().to_owned(),
                remedy: error.code.remedy().to_owned(),
                detail: error.detail,
            },
        ),
    }
}

/// The id of a request that cannot be read as a whole.
fn id_of(json: &str) -> Option<u64> {
    serde_json::from_str::<Value>(json).ok()?.get("id")?.as_u64()
}
