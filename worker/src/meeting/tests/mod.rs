//! Hubs in virtual time.

mod breakouts;
mod hub;
mod journal;
mod people;
mod property;
mod tasks;

use std::time::Duration;

use plenum_protocol::{Asking, Audience, Signal, Standing};
use plenum_worker_api::v1::meeting_down::Frame;
use plenum_worker_api::v1::{Attach, BreakoutEntry, Breakouts, Gone, Here, MeetingEntry, Post};

use super::GatewayId;
use super::state::{Count, LISTEN, Meeting, Outbox, Refusal};
use crate::room::Now;

/// A hub, its time, and what each gateway was sent.
struct Bench {
    hub: Meeting,
    now: Now,
    sent: Vec<(GatewayId, Frame)>,
    counts: Vec<Count>,
}

const A: GatewayId = GatewayId(1);
const B: GatewayId = GatewayId(2);

impl Bench {
    fn new(epoch: u64) -> Self {
        Self {
            hub: Meeting::new(epoch),
            now: Now {
                since_start: Duration::ZERO,
                unix_ms: 1_790_000_000_000,
            },
            sent: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// With gateway A attached, and done with listening.
    fn settled() -> Self {
        let mut bench = Self::new(1);
        bench.attach(A, Vec::new(), "");
        bench.pass(LISTEN);
        bench.take(A);
        bench
    }

    fn run(&mut self, act: impl FnOnce(&mut Meeting, Now, &mut Outbox)) {
        let mut out = Outbox::default();
        act(&mut self.hub, self.now, &mut out);
        self.sent.extend(out.tell);
        self.counts.extend(out.counts);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.run(|hub, now, out| hub.tick(now, out));
    }

    fn attach(&mut self, id: GatewayId, tail: Vec<MeetingEntry>, standing: &str) {
        let attach = Attach {
            tail,
            standing_json: standing.to_owned(),
            ..Attach::default()
        };
        self.run(|hub, now, out| hub.attach(id, attach, now, out));
    }

    fn assign(&mut self, rooms: Vec<BreakoutEntry>) {
        let breakouts = Breakouts {
            mode: "automatic".into(),
            rooms,
            ..Breakouts::default()
        };
        self.run(|hub, now, out| hub.assign(breakouts, now, out));
    }

    fn post(&mut self, signal: &Signal, audience: &Audience) {
        let post = Post {
            signal_json: serde_json::to_string(signal).unwrap(),
            audience_json: serde_json::to_string(audience).unwrap(),
        };
        self.run(|hub, now, out| hub.post(post, now, out));
    }

    fn here(&mut self, id: GatewayId, identity: &str, nonce: &str, room: &str, role: &str) {
        let here = Here {
            identity: identity.into(),
            nonce: nonce.into(),
            room: room.into(),
            role: role.into(),
            ..Here::default()
        };
        self.run(|hub, now, out| hub.here(id, &here, now, out));
    }

    fn gone(&mut self, identity: &str, nonce: &str) {
        let gone = Gone {
            identity: identity.into(),
            nonce: nonce.into(),
        };
        self.run(|hub, now, _| hub.gone(&gone, now));
    }

    /// What a gateway was sent since the last time.
    fn take(&mut self, id: GatewayId) -> Sent {
        let mut sent = Sent::default();
        let mut others = Vec::new();
        for (to, frame) in std::mem::take(&mut self.sent) {
            if to != id {
                others.push((to, frame));
                continue;
            }
            match frame {
                Frame::Entry(entry) => sent.entries.push(entry),
                Frame::StandingJson(json) => sent.standing = Some(serde_json::from_str(&json).unwrap()),
                Frame::Superseded(s) => sent.superseded.push((s.identity, s.nonce)),
                Frame::CaughtUp(seq) => sent.caught_up = Some(seq),
            }
        }
        self.sent = others;
        sent
    }

    fn refused(&self) -> Vec<Refusal> {
        let refused = self.counts.iter().filter_map(|c| match c {
            Count::Refused(reason) => Some(*reason),
            _ => None,
        });
        refused.collect()
    }
}

#[derive(Debug, Default)]
struct Sent {
    entries: Vec<MeetingEntry>,
    standing: Option<Standing>,
    superseded: Vec<(String, String)>,
    caught_up: Option<u64>,
}

impl Sent {
    fn seqs(&self) -> Vec<u64> {
        self.entries.iter().map(|e| e.seq).collect()
    }

    fn signals(&self) -> Vec<Signal> {
        self.entries.iter().map(signal_of).collect()
    }

    fn audiences(&self) -> Vec<Audience> {
        let read = |e: &MeetingEntry| serde_json::from_str(&e.audience_json).unwrap();
        self.entries.iter().map(read).collect()
    }

    /// Identities and rooms of the raised hands.
    fn hands(&self) -> Vec<(String, String)> {
        names(&self.standing.as_ref().expect("no standing was sent").hands)
    }

    fn help(&self) -> Vec<(String, String)> {
        names(&self.standing.as_ref().expect("no standing was sent").help)
    }
}

fn names(list: &[Asking]) -> Vec<(String, String)> {
    list.iter()
        .map(|a| (a.identity.clone(), a.room.clone().unwrap_or_default()))
        .collect()
}

fn pair(identity: &str, room: &str) -> (String, String) {
    (identity.into(), room.into())
}

fn signal_of(entry: &MeetingEntry) -> Signal {
    serde_json::from_str(&entry.signal_json).unwrap()
}

fn broadcast(text: &str) -> Signal {
    Signal::Broadcast {
        from: "alice".into(),
        name: "Alice".into(),
        text: text.into(),
    }
}

fn asking(identity: &str, room: &str) -> Asking {
    Asking {
        identity: identity.into(),
        room: (!room.is_empty()).then(|| room.into()),
        ..Asking::default()
    }
}

fn hand(identity: &str, room: &str, up: bool) -> Signal {
    Signal::RaiseHand {
        who: asking(identity, room),
        up,
    }
}

fn help(identity: &str, room: &str, on: bool) -> Signal {
    Signal::AskForHelp {
        who: asking(identity, room),
        on,
    }
}

fn entry(seq: u64, signal: &Signal) -> MeetingEntry {
    MeetingEntry {
        seq,
        at_ms: 1_790_000_000_000,
        signal_json: serde_json::to_string(signal).unwrap(),
        audience_json: "\"everyone\"".into(),
    }
}

fn room(id: &str, open: bool) -> BreakoutEntry {
    BreakoutEntry {
        id: id.into(),
        title: id.into(),
        open,
        ..BreakoutEntry::default()
    }
}
