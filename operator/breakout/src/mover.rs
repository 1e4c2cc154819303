//! One client's moves.
//!
//! Owns when somebody is told of a move, when they go, and what becomes of them where they can't
//! (rules 5 and 6 of `docs/breakouts.md`). The gateway that holds the client feeds what happens in and
//! does what comes out. Invariants:
//!
//! * Never two [`Output::Go`] at once: the next comes after [`Input::Done`] at the earliest.
//! * A move is announced [`limits::MOVE_NOTICE`] seconds ahead, unless the person wished it
//!   themselves or their room has just closed after a countdown. Another target starts the notice
//!   anew. A room is announced only once it can be entered.
//! * A move that failed, or was refused, is not tried again until something is said anew about the
//!   person or that room. Two exceptions: a room that was full is asked three times more within
//!   seven seconds, because people may be on their way out of it; and the main room is asked again
//!   and again while there is no other place to be.
//! * Who is in a room because they were said to belong there, and of whom nothing is said any more,
//!   goes back to the main room. Who came there by a token of their own stays.
//! * Who may not stay where they are goes to the room they belong to, else to the main room; to that
//!   at once where the announced move has just failed.
//! * What was announced ends with a `moved`, `moveFailed`, `notMoving` or another notice.

use std::sync::Arc;

use plenum_errors::Code;
use plenum_protocol::{BreakoutMessage, Notice, limits};

use crate::plan::{Plan, Wish};

/// How long an own wish may take to show in the plan.
const EXPECTED_MS: i64 = 10_000;
/// A full room is asked again after this long, then twice and four times this long.
const AGAIN_MS: i64 = 1_000;
const AGAIN_TIMES: u32 = 3;
/// How often the main room is asked again by somebody who has no other place.
const MAIN_AGAIN_MS: i64 = 5_000;

/// What happens to a client.
#[derive(Debug, Clone)]
pub enum Input {
    /// The objects changed.
    Plan(Arc<Plan>),
    /// Time passed: due at [`Mover::deadline`], harmless at any time.
    Tick,
    /// The person refuses the move that was announced.
    Cancelled,
    /// The person chose to go there; the decision is written, or is about to be.
    Expect(Option<String>),
    /// The move that [`Output::Go`] asked for is over: the room they are in now, or why they are
    /// still where they were.
    Done(Result<Option<String>, Code>),
    /// The worker took the client elsewhere by itself.
    Relocated(Option<String>),
    /// They could not be let in to that room when they came, and are elsewhere for that reason.
    Refused(Option<String>, Code),
}

/// What the gateway has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell the client.
    Notice(Notice),
    /// Take the client there (`None` = the main room), then say [`Input::Done`].
    Go {
        /// Name of the room.
        to: Option<String>,
        /// There was no notice of this move.
        quiet: bool,
    },
    /// Nothing is under way, and the client is where they should be or have to stay.
    Settled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Resting,
    Noticed {
        to: Option<String>,
        at: i64,
    },
    Going {
        to: Option<String>,
        own: bool,
        print: Print,
    },
}

/// What was said about a person and a room; another print means that something was said anew.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Print {
    decided: Option<Option<String>>,
    named: Option<String>,
    room: Option<RoomPrint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct RoomPrint {
    generation: i64,
    epoch: Option<i64>,
    open: bool,
    ready: bool,
    max_participants: Option<u32>,
}

/// A target that is not tried for now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Blocked {
    to: Option<String>,
    /// Unknown until there is a plan.
    print: Option<Print>,
    /// When to try again all the same.
    again: Option<i64>,
    tries: u32,
    /// Why, where the client has not been told yet.
    untold: Option<Code>,
    /// It may still work out: the client is told when it has not.
    patient: bool,
}

/// Where to go now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Aim {
    to: Option<String>,
    quiet: bool,
}

/// One client's moves as a state machine.
#[derive(Debug, Clone)]
pub struct Mover {
    identity: String,
    host: bool,
    present: Option<String>,
    plan: Option<Arc<Plan>>,
    state: State,
    expected: Option<(Option<String>, i64)>,
    /// The room that the objects last said they belong to, while they are in it: once nothing is said
    /// of them any more, they are called back from there.
    belonged: Option<String>,
    /// The main room, and one other, at most: what is said about the person is part of each print.
    blocked: Vec<Blocked>,
    settled: bool,
    deadline: Option<i64>,
}

impl Mover {
    /// Of a client that is in `present` (`None` = the main room).
    pub fn new(identity: impl Into<String>, present: Option<String>) -> Mover {
        Mover {
            identity: identity.into(),
            host: false,
            present,
            plan: None,
            state: State::Resting,
            expected: None,
            belonged: None,
            blocked: Vec::new(),
            settled: false,
            deadline: None,
        }
    }

    /// Hosts and co-hosts may refuse any move.
    pub fn set_host(&mut self, host: bool) {
        self.host = host;
    }

    /// The room the client is in, as far as is known.
    pub fn present(&self) -> Option<&str> {
        self.present.as_deref()
    }

    /// Is a move asked for and not yet over?
    pub fn is_going(&self) -> bool {
        matches!(self.state, State::Going { .. })
    }

    /// When [`Input::Tick`] is due, whatever else happens.
    pub fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    /// Takes in what happened at `now`.
    pub fn step(&mut self, now: i64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Plan(plan) => self.plan = Some(plan),
            Input::Tick => {}
            Input::Cancelled => self.cancel(now, &mut out),
            Input::Expect(to) => self.expected = Some((to, now.saturating_add(EXPECTED_MS))),
            Input::Done(outcome) => self.done(now, outcome, &mut out),
            Input::Relocated(room) => self.arrived(now, room, &mut out),
            Input::Refused(to, code) => {
                out.push(self.failed_notice(to.clone(), code));
                self.block(to, None, 0, None);
            }
        }
        self.evaluate(now, &mut out);
        self.deadline = self.next_deadline(now);
        out
    }

    fn cancel(&mut self, now: i64, out: &mut Vec<Output>) {
        let State::Noticed { to, .. } = &self.state else {
            return;
        };
        if !self.may_refuse(now) {
            return;
        }
        self.block(to.clone(), None, 0, None);
        self.state = State::Resting;
        out.push(Output::Notice(Notice::NotMoving {}));
    }

    /// Keeps `to` from being tried until something is said anew, or `again` has come.
    fn block(&mut self, to: Option<String>, again: Option<i64>, tries: u32, untold: Option<Code>) {
        let print = self.plan.is_some().then(|| self.print(to.as_deref()));
        self.blocked.retain(|blocked| blocked.to != to);
        self.blocked.push(Blocked {
            to,
            print,
            again,
            tries,
            untold,
            patient: false,
        });
    }

    fn may_refuse(&self, now: i64) -> bool {
        self.plan
            .as_deref()
            .is_some_and(|plan| (plan.allow_cancel || self.host) && plan.may_stay(self.present(), now))
    }

    fn done(&mut self, now: i64, outcome: Result<Option<String>, Code>, out: &mut Vec<Output>) {
        let State::Going { to, own, print } = std::mem::replace(&mut self.state, State::Resting) else {
            // Nobody asked: an answer that comes twice, or to a request of another time.
            return;
        };
        match outcome {
            Ok(room) => self.arrived(now, room, out),
            // The worker brought them there by itself in the meantime.
            Err(_) if to == self.present => {}
            Err(code) => self.failed(now, to, own, print, code),
        }
    }

    fn failed(&mut self, now: i64, to: Option<String>, own: bool, print: Print, code: Code) {
        let before = self.blocked.iter().find(|blocked| blocked.to == to);
        let tries = before.map_or(0, |blocked| blocked.tries) + 1;
        let full = code == Code::MeetingFull && !own && tries <= AGAIN_TIMES;
        let may_stay = self
            .plan
            .as_deref()
            .is_none_or(|plan| plan.may_stay(self.present(), now));
        let no_other_place = to.is_none() && !may_stay;
        let again = if no_other_place {
            Some(now.saturating_add(MAIN_AGAIN_MS))
        } else if full {
            Some(now.saturating_add(AGAIN_MS << (tries - 1)))
        } else {
            None
        };
        // Of a main room that is asked again and again, once.
        let untold = (!no_other_place || tries == 1).then_some(code);
        self.block(to, again, tries, untold);
        if let Some(blocked) = self.blocked.last_mut() {
            blocked.patient = full && !no_other_place;
            // What was said since the move began is said anew.
            blocked.print = Some(print);
        }
    }

    /// The client is in `room` now.
    fn arrived(&mut self, now: i64, room: Option<String>, out: &mut Vec<Output>) {
        let moved = self.present != room;
        self.present = room;
        self.blocked.retain(|blocked| blocked.to != self.present);
        if !self.tell_failures(now, out) && moved {
            out.push(Output::Notice(Notice::Moved {
                to: self.present.clone(),
                title: self.title(self.present()),
            }));
        }
        // What was announced has happened, or is announced anew from where they are now.
        if moved && matches!(self.state, State::Noticed { .. }) {
            self.state = State::Resting;
        }
        if self.expected.as_ref().is_some_and(|(to, _)| *to == self.present) {
            self.expected = None;
        }
    }

    fn failed_notice(&self, to: Option<String>, code: Code) -> Output {
        Output::Notice(Notice::MoveFailed {
            to,
            landed: self.present.clone(),
            code: code.as_str().to_owned(),
        })
    }

    fn title(&self, room: Option<&str>) -> String {
        self.plan
            .as_deref()
            .map(|plan| plan.title(room))
            .unwrap_or_default()
    }

    fn evaluate(&mut self, now: i64, out: &mut Vec<Output>) {
        if self.is_going() {
            return;
        }
        let Some(plan) = self.plan.clone() else { return };
        self.lift_blocks(out);
        if self.expected.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.expected = None;
        }
        match plan.wish(&self.identity, now) {
            Wish::NoOpinion if self.belonged == self.present => {}
            Wish::Room(id) if self.present() == Some(&id) => self.belonged = Some(id),
            _ => self.belonged = None,
        }
        match self.aim(&plan, now) {
            None => self.rest(now, out),
            Some(aim) => self.go_or_announce(&plan, aim, now, out),
        }
    }

    /// Forgets what failed before something was said anew.
    fn lift_blocks(&mut self, out: &mut Vec<Output>) {
        let mut blocks = std::mem::take(&mut self.blocked);
        blocks.retain_mut(|blocked| {
            let print = self.print(blocked.to.as_deref());
            let stands = *blocked.print.get_or_insert_with(|| print.clone()) == print;
            if let Some(code) = blocked.untold.take_if(|_| !stands) {
                out.push(self.failed_notice(blocked.to.clone(), code));
            }
            stands
        });
        self.blocked = blocks;
    }

    /// Says what failed, once it is known where the person is left.
    fn tell_failures(&mut self, now: i64, out: &mut Vec<Output>) -> bool {
        let untold: Vec<(Option<String>, Code)> = self
            .blocked
            .iter_mut()
            .filter(|blocked| !blocked.patient || blocked.again.is_none_or(|at| at <= now))
            .filter_map(|blocked| Some((blocked.to.clone(), blocked.untold.take()?)))
            .collect();
        let any = !untold.is_empty();
        out.extend(untold.into_iter().map(|(to, code)| self.failed_notice(to, code)));
        any
    }

    fn rest(&mut self, now: i64, out: &mut Vec<Output>) {
        self.tell_failures(now, out);
        if matches!(self.state, State::Noticed { .. }) {
            out.push(Output::Notice(Notice::NotMoving {}));
            self.settled = false;
        }
        self.state = State::Resting;
        let tries_again = self
            .blocked
            .iter()
            .any(|blocked| blocked.again.is_some_and(|at| at > now));
        if !self.settled && !tries_again {
            self.settled = true;
            out.push(Output::Settled);
        }
    }

    fn go_or_announce(&mut self, plan: &Plan, aim: Aim, now: i64, out: &mut Vec<Output>) {
        self.settled = false;
        let own = self.expected.as_ref().is_some_and(|(to, _)| *to == aim.to);
        let due = matches!(&self.state, State::Noticed { to, at } if *to == aim.to && *at <= now);
        if own || aim.quiet || due {
            if own {
                self.expected = None;
            }
            self.state = State::Going {
                to: aim.to.clone(),
                own,
                print: self.print(aim.to.as_deref()),
            };
            out.push(Output::Go {
                to: aim.to,
                quiet: !due,
            });
            return;
        }
        if matches!(&self.state, State::Noticed { to, .. } if *to == aim.to) {
            return;
        }
        let at = now.saturating_add(i64::from(limits::MOVE_NOTICE) * 1_000);
        out.push(Output::Notice(Notice::Moving {
            message: BreakoutMessage::ParticipantMoved,
            title: plan.title(aim.to.as_deref()),
            to: aim.to.clone(),
            at,
            now,
            seconds: limits::MOVE_NOTICE,
            cancellable: self.may_refuse(now),
        }));
        self.state = State::Noticed { to: aim.to, at };
    }

    /// Where to go, or `None` to stay for now.
    fn aim(&self, plan: &Plan, now: i64) -> Option<Aim> {
        let may_stay = plan.may_stay(self.present(), now);
        let belongs = match plan.wish(&self.identity, now) {
            Wish::NoOpinion if self.belonged.is_some() => Some(None),
            Wish::NoOpinion => None,
            Wish::Room(id) => (plan.enterable(&id, now) || self.present() == Some(&id)).then_some(Some(id)),
            // Who is in the closing room that was decided on stays till it closes.
            Wish::Main if may_stay && plan.decided(&self.identity).flatten() == self.present() => None,
            Wish::Main => Some(None),
        };
        let wanted = belongs.filter(|to| self.tries(to, now));
        let to = match wanted {
            Some(to) => to,
            None if may_stay => return None,
            // Never nowhere.
            None if self.tries(&None, now) => None,
            None => return None,
        };
        if to == self.present {
            return None;
        }
        let again = self.blocked.iter().any(|blocked| blocked.to == to);
        // They were told to go, and what was announced has just failed.
        let instead =
            !may_stay && to.is_none() && self.blocked.iter().any(|blocked| blocked.untold.is_some());
        Some(Aim {
            quiet: again || instead || self.closed_by_time(plan, now),
            to,
        })
    }

    /// May this target be tried now?
    fn tries(&self, to: &Option<String>, now: i64) -> bool {
        self.blocked
            .iter()
            .filter(|blocked| blocked.to == *to)
            .all(|blocked| blocked.again.is_some_and(|at| at <= now))
    }

    /// Did the room the client is in close after a countdown or by its timer?
    fn closed_by_time(&self, plan: &Plan, now: i64) -> bool {
        self.present()
            .and_then(|id| plan.room(id))
            .is_some_and(|room| !room.deleting && !room.may_stay(now))
    }

    fn print(&self, to: Option<&str>) -> Print {
        let plan = self.plan.as_deref();
        let decided = plan.and_then(|plan| plan.decided(&self.identity));
        Print {
            decided: decided.map(|room| room.map(str::to_owned)),
            named: plan
                .and_then(|plan| plan.named(&self.identity))
                .map(str::to_owned),
            room: to
                .and_then(|id| plan.and_then(|plan| plan.room(id)))
                .map(|room| RoomPrint {
                    generation: room.generation,
                    epoch: room.epoch,
                    open: room.open && !room.deleting,
                    ready: room.ready,
                    max_participants: room.max_participants,
                }),
        }
    }

    fn next_deadline(&self, now: i64) -> Option<i64> {
        let notice = match &self.state {
            State::Going { .. } => return None,
            State::Noticed { at, .. } => Some(*at),
            State::Resting => None,
        };
        let again = self
            .blocked
            .iter()
            .filter_map(|blocked| blocked.again)
            .filter(|at| *at > now)
            .min();
        let change = self.plan.as_deref().and_then(|plan| plan.next_change(now));
        [notice, again, change]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }
}

#[cfg(test)]
#[path = "mover_tests.rs"]
mod tests;
