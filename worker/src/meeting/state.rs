//! One meeting's hub, in virtual time.
//!
//! Owns what a hub does with each frame and each moment. Invariants:
//!
//! * A hub that has just been made listens first: until a second after the first gateway attached it
//!   numbers nothing, takes over what gateways have of former hubs, and keeps what is posted.
//! * Each gateway gets entries with rising numbers; what it had before attaching is not sent again.
//! * A change of what stands is numbered like everything else, and then told as a whole.
//! * Who comes back within ten seconds, by whatever connection, has not left: their hand stays up.
//! * `breakout-room` and `count-down-timer` are the hub's own; everything else is its gateways'.

use std::collections::BTreeMap;
use std::time::Duration;

use plenum_protocol::{Asking, Audience, Signal, limits};
use plenum_worker_api::v1::meeting_down::Frame;
use plenum_worker_api::v1::{Attach, Breakouts, Gone, Here, Post, Superseded};

use super::GatewayId;
use super::breakouts::{Announced, View};
use super::directory::{Directory, GRACE};
use super::journal::Journal;
use super::standing::Board;
use crate::room::Now;

/// How long a new hub listens for what gateways know, from the first of them on.
pub(super) const LISTEN: Duration = Duration::from_secs(1);
/// Posts kept while listening.
pub(super) const HELD: usize = 256;
/// The largest signal that may be posted: the longest text with every byte escaped, and its frame.
pub(super) const MAX_SIGNAL: usize = 32 * 1024;
/// The largest audience: every room's name.
pub(super) const MAX_AUDIENCE: usize = 16 * 1024;
/// How long after the end of somebody's connection they may come back by another: a client resumes within
/// five seconds, and goes to another worker in two.
pub(super) const LINGER: Duration = Duration::from_secs(10);
/// How often what is too old is looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// Why a post was not numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Over the size limit.
    TooLarge,
    /// Not a signal.
    Signal,
    /// Not an audience.
    Audience,
    /// One of those that only the hub makes.
    HubsOwn,
    /// Too many while the hub listens, or no numbers left.
    TooMany,
    /// Attach in the middle of a stream, or an empty frame.
    OutOfPlace,
}

impl Refusal {
    /// Every reason.
    pub(super) const ALL: [Refusal; 6] = [
        Refusal::TooLarge,
        Refusal::Signal,
        Refusal::Audience,
        Refusal::HubsOwn,
        Refusal::TooMany,
        Refusal::OutOfPlace,
    ];

    /// Label value.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Refusal::TooLarge => "too_large",
            Refusal::Signal => "signal",
            Refusal::Audience => "audience",
            Refusal::HubsOwn => "hubs_own",
            Refusal::TooMany => "too_many",
            Refusal::OutOfPlace => "out_of_place",
        }
    }
}

/// Something to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// A signal of that kind got a number.
    Numbered(&'static str),
    /// So many entries were sent again.
    Replayed(u64),
    /// A frame of a gateway had no effect.
    Refused(Refusal),
}

/// What must be done, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) tell: Vec<(GatewayId, Frame)>,
    pub(super) counts: Vec<Count>,
}

impl Outbox {
    fn tell(&mut self, to: GatewayId, frame: Frame) {
        self.tell.push((to, frame));
    }

    pub(super) fn refuse(&mut self, reason: Refusal) {
        self.counts.push(Count::Refused(reason));
    }
}

/// A signal that waits for its number.
struct Unnumbered {
    signal: Signal,
    signal_json: String,
    audience_json: String,
}

/// A meeting whose main room is on this worker.
pub(super) struct Meeting {
    epoch: u64,
    journal: Journal,
    board: Board,
    directory: Directory,
    rooms: View,
    announced: Announced,
    /// Gateways, with the highest number each has.
    gateways: BTreeMap<GatewayId, u64>,
    /// Numbers are given. Before: listening.
    settled: bool,
    settles_at: Option<Duration>,
    /// What stands according to the gateway that had heard most, and how much that was.
    seed: Option<(u64, Board)>,
    held: Vec<Unnumbered>,
    /// When people who stand on the board without being anywhere are taken off it.
    sweep_at: Option<Duration>,
    /// People on the board who are nowhere, and until when they may come back.
    leaving: BTreeMap<String, Duration>,
    tidy_at: Duration,
}

impl Meeting {
    /// A hub that has heard of nothing yet.
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            journal: Journal::new(epoch),
            board: Board::default(),
            directory: Directory::default(),
            rooms: View::default(),
            announced: Announced::default(),
            gateways: BTreeMap::new(),
            settled: false,
            settles_at: None,
            seed: None,
            held: Vec::new(),
            sweep_at: None,
            leaving: BTreeMap::new(),
            tidy_at: Duration::ZERO,
        }
    }

    /// Of the main room.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Those attached.
    pub(super) fn gateways(&self) -> impl Iterator<Item = GatewayId> + '_ {
        self.gateways.keys().copied()
    }

    /// The controller says how the rooms are.
    pub(super) fn assign(&mut self, breakouts: Breakouts, now: Now, out: &mut Outbox) {
        self.rooms = View::new(breakouts);
        if self.settled {
            self.announce(now, out);
        }
    }

    /// A gateway begins.
    pub(super) fn attach(&mut self, id: GatewayId, attach: Attach, now: Now, out: &mut Outbox) {
        let mut tail = attach.tail;
        tail.retain(Journal::plausible);
        tail.sort_by_key(|entry| entry.seq);
        let has = tail.last().map_or(0, |entry| entry.seq);
        let mut news = false;
        for entry in tail {
            news |= self.journal.take_over(entry);
        }
        self.journal.trim(now.unix_ms);
        if !self.settled {
            self.settles_at.get_or_insert(now.since_start + LISTEN);
            let best = self.seed.as_ref().map(|(heard, _)| *heard);
            if best.is_none_or(|best| has > best) {
                self.seed = Some((has, Board::parse(&attach.standing_json)));
            }
            self.board = self.seeded_board();
        } else if news {
            // Late, but the last word about somebody counts.
            self.board = self.replayed(self.board.clone());
        }
        let lacks = self.journal.after(has).count();
        out.counts.push(Count::Replayed(lacks as u64));
        self.gateways.insert(id, has);
        self.pump(out);
        if news {
            self.tell_standing(out);
        } else {
            out.tell(id, Frame::StandingJson(self.board.json()));
        }
        out.tell(id, Frame::CaughtUp(self.journal.last()));
    }

    fn seeded_board(&self) -> Board {
        self.replayed(
            self.seed
                .as_ref()
                .map(|(_, board)| board.clone())
                .unwrap_or_default(),
        )
    }

    /// `board` after everything in the journal.
    fn replayed(&self, mut board: Board) -> Board {
        for (at_ms, signal) in self.journal.signals() {
            board.apply(&signal, at_ms);
        }
        board
    }

    /// The stream of a gateway is over.
    pub(super) fn detach(&mut self, id: GatewayId, now: Now) {
        self.gateways.remove(&id);
        self.directory.lost(id, now.since_start);
    }

    /// Something to be numbered and told.
    pub(super) fn post(&mut self, post: Post, now: Now, out: &mut Outbox) {
        match read(post) {
            Ok(unnumbered) if self.settled => {
                self.number(unnumbered, now, out);
                self.pump(out);
            }
            Ok(unnumbered) if self.held.len() < HELD => self.held.push(unnumbered),
            Ok(_) => out.refuse(Refusal::TooMany),
            Err(reason) => out.refuse(reason),
        }
    }

    /// A client is in a room.
    pub(super) fn here(&mut self, id: GatewayId, here: &Here, now: Now, out: &mut Outbox) {
        let arrival = self.directory.here(id, here, !self.settled, now.since_start);
        if let Some((gateway, nonce)) = arrival.superseded
            && self.gateways.contains_key(&gateway)
        {
            let superseded = Superseded {
                identity: here.identity.clone(),
                nonce,
            };
            out.tell(gateway, Frame::Superseded(superseded));
        }
        if !arrival.counted || !self.settled {
            return;
        }
        self.leaving.remove(&here.identity);
        self.follow(&here.identity, now, out);
        if arrival.host_came {
            for asking in self.board.help_in(&here.room) {
                self.end_help(asking, now, out);
            }
        }
        self.pump(out);
    }

    /// A client's connection is over.
    pub(super) fn gone(&mut self, gone: &Gone, now: Now) {
        let stands = self.board.hand(&gone.identity).is_some() || self.board.help(&gone.identity).is_some();
        if self.directory.gone(&gone.identity, &gone.nonce) && self.settled && stands {
            let until = now.since_start + LINGER;
            self.leaving.insert(gone.identity.clone(), until);
        }
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: Now, out: &mut Outbox) {
        let t = now.since_start;
        if !self.settled && self.settles_at.is_some_and(|at| t >= at) {
            self.settle(now, out);
        }
        let mut gone = self.directory.expire(t);
        self.leaving.retain(|identity, until| {
            let over = t >= *until;
            if over {
                gone.push(identity.clone());
            }
            !over
        });
        if self.settled {
            for identity in gone {
                self.depart(&identity, now, out);
            }
            if self.sweep_at.is_some_and(|at| t >= at) {
                self.sweep_at = None;
                for identity in self.board.people() {
                    if self.directory.room(&identity).is_none() && !self.leaving.contains_key(&identity) {
                        self.depart(&identity, now, out);
                    }
                }
            }
        }
        if t >= self.tidy_at {
            self.tidy_at = t + HOUSEKEEPING;
            self.journal.trim(now.unix_ms);
        }
        self.pump(out);
    }

    /// Enough was heard: from now on it speaks.
    fn settle(&mut self, now: Now, out: &mut Outbox) {
        self.settled = true;
        self.seed = None;
        self.announced = Announced::from_signals(self.journal.signals().map(|(_, signal)| signal));
        self.announce(now, out);
        for unnumbered in std::mem::take(&mut self.held) {
            self.number(unnumbered, now, out);
        }
        // Who moved or left while nobody was the hub.
        for identity in self.board.people() {
            self.follow(&identity, now, out);
        }
        self.sweep_at = Some(now.since_start + GRACE);
    }

    fn announce(&mut self, now: Now, out: &mut Outbox) {
        for signal in self.announced.catch_up(&self.rooms, now.unix_ms) {
            self.say(signal, &Audience::Everyone, now, out);
        }
        self.pump(out);
    }

    /// Numbers what the hub itself has to say.
    fn say(&mut self, signal: Signal, audience: &Audience, now: Now, out: &mut Outbox) {
        let (Ok(signal_json), Ok(audience_json)) =
            (serde_json::to_string(&signal), serde_json::to_string(audience))
        else {
            return;
        };
        let unnumbered = Unnumbered {
            signal,
            signal_json,
            audience_json,
        };
        self.number(unnumbered, now, out);
    }

    fn number(&mut self, unnumbered: Unnumbered, now: Now, out: &mut Outbox) {
        let Unnumbered {
            signal,
            signal_json,
            audience_json,
        } = unnumbered;
        let numbered = self
            .journal
            .push(&signal, signal_json, audience_json, now.unix_ms);
        if numbered.is_none() {
            out.refuse(Refusal::TooMany);
            return;
        }
        out.counts.push(Count::Numbered(signal.kind()));
        if !self.board.apply(&signal, now.unix_ms) {
            return;
        }
        self.pump(out);
        self.tell_standing(out);
        if let Signal::RaiseHand { who, up: true } | Signal::AskForHelp { who, on: true } = &signal
            && self.directory.room(&who.identity).is_none()
        {
            self.sweep_at.get_or_insert(now.since_start + GRACE);
        }
    }

    /// Each gateway gets what it lacks.
    fn pump(&mut self, out: &mut Outbox) {
        for (id, has) in &mut self.gateways {
            for entry in self.journal.after(*has) {
                out.tell.push((*id, Frame::Entry(entry.clone())));
                *has = entry.seq;
            }
        }
    }

    fn tell_standing(&self, out: &mut Outbox) {
        let json = self.board.json();
        for id in self.gateways.keys() {
            out.tell(*id, Frame::StandingJson(json.clone()));
        }
    }

    /// Somebody is where the directory says: the hand goes with them, help was asked for elsewhere.
    fn follow(&mut self, identity: &str, now: Now, out: &mut Outbox) {
        let Some(room) = self.directory.room(identity) else {
            return;
        };
        let room = (!room.is_empty()).then(|| room.to_owned());
        if let Some(hand) = self.board.hand(identity).filter(|a| a.room != room).cloned() {
            let rooms = [&hand.room, &room].map(|r| r.clone().unwrap_or_default());
            let who = Asking {
                room: room.clone(),
                ..hand
            };
            let audience = Audience::Rooms(rooms.into());
            self.say(Signal::RaiseHand { who, up: true }, &audience, now, out);
        }
        if let Some(asking) = self.board.help(identity).filter(|a| a.room != room).cloned() {
            self.end_help(asking, now, out);
        }
    }

    /// Somebody is nowhere in the meeting any more.
    fn depart(&mut self, identity: &str, now: Now, out: &mut Outbox) {
        if let Some(who) = self.board.hand(identity).cloned() {
            let audience = Audience::Rooms(vec![who.room.clone().unwrap_or_default()]);
            self.say(Signal::RaiseHand { who, up: false }, &audience, now, out);
        }
        if let Some(asking) = self.board.help(identity).cloned() {
            self.end_help(asking, now, out);
        }
    }

    /// The room is told too: there it was asked for.
    fn end_help(&mut self, who: Asking, now: Now, out: &mut Outbox) {
        let audience = Audience::Rooms(vec![who.room.clone().unwrap_or_default()]);
        self.say(Signal::AskForHelp { who, on: false }, &audience, now, out);
    }
}

/// A post, if it is one that gateways may make.
fn read(post: Post) -> Result<Unnumbered, Refusal> {
    let Post {
        signal_json,
        audience_json,
    } = post;
    if signal_json.len() > MAX_SIGNAL || audience_json.len() > MAX_AUDIENCE {
        return Err(Refusal::TooLarge);
    }
    let signal: Signal = serde_json::from_str(&signal_json).map_err(|_| Refusal::Signal)?;
    serde_json::from_str::<Audience>(&audience_json).map_err(|_| Refusal::Audience)?;
    match &signal {
        Signal::BreakoutRoom { .. } | Signal::CountDownTimer { .. } => return Err(Refusal::HubsOwn),
        Signal::Broadcast { text, .. } | Signal::MessageToHosts { text, .. } if text.len() > limits::TEXT => {
            return Err(Refusal::TooLarge);
        }
        _ => {}
    }
    Ok(Unnumbered {
        signal,
        signal_json,
        audience_json,
    })
}
