//! What is said about the breakout rooms.
//!
//! Owns the comparison of what the meeting was told with what the controller says now. Invariants:
//! nothing is said where nothing changed, whichever hub said it last; a timer is said for each point
//! in time when that is set or changes; each said list of rooms fits a data message.

use std::collections::{BTreeMap, BTreeSet};

use plenum_protocol::{BreakoutMessage, Mode, RoomView, Signal};
use plenum_worker_api::v1;

/// Bytes of a list of rooms beyond which the people assigned to them are left out: a reliable data
/// packet carries 64 KiB.
const MAX_LIST: usize = 48 * 1024;

/// What holds for all rooms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rules {
    mode: Mode,
    allow_return_to_main: bool,
    allow_cancel: bool,
}

/// All rooms, as clients see them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    rules: Rules,
    rooms: Vec<RoomView>,
}

impl View {
    /// Of what the controller says. A mode that is not known counts as manual: wait for the host.
    pub(super) fn new(breakouts: v1::Breakouts) -> Self {
        let rules = Rules {
            mode: serde_json::from_value(serde_json::Value::String(breakouts.mode)).unwrap_or_default(),
            allow_return_to_main: breakouts.allow_return_to_main,
            allow_cancel: breakouts.allow_cancel,
        };
        let mut rooms: Vec<RoomView> = breakouts
            .rooms
            .into_iter()
            .map(|room| RoomView {
                id: room.id,
                title: room.title,
                max_participants: room.max_participants,
                open: room.open,
                closes_at: (room.closes_at_ms > 0).then_some(room.closes_at_ms),
                participants: room.participants,
            })
            .collect();
        let bytes = serde_json::to_vec(&rooms).map_or(0, |json| json.len());
        if bytes > MAX_LIST {
            for room in &mut rooms {
                room.participants = Vec::new();
            }
        }
        Self { rules, rooms }
    }

    fn room(&self, id: &str) -> Option<&RoomView> {
        self.rooms.iter().find(|r| r.id == id)
    }

    fn is_open(&self, id: &str) -> bool {
        self.room(id).is_some_and(|r| r.open)
    }

    fn any_open(&self) -> bool {
        self.rooms.iter().any(|r| r.open)
    }

    /// The same but for the order of the rooms.
    fn same(&self, other: &Self) -> bool {
        // Without rooms the rules are nobody's concern.
        (self.rules == other.rules || self.rooms.is_empty())
            && self.rooms.len() == other.rooms.len()
            && self.rooms.iter().all(|r| other.room(&r.id) == Some(r))
    }
}

/// What the meeting was told.
#[derive(Debug, Default)]
pub(super) struct Announced {
    view: View,
    /// Room to the end of its timer.
    timers: BTreeMap<String, i64>,
}

impl Announced {
    /// By this hub or former ones.
    pub(super) fn from_signals(signals: impl Iterator<Item = Signal>) -> Self {
        let mut announced = Self::default();
        for signal in signals {
            match signal {
                Signal::BreakoutRoom {
                    mode,
                    allow_return_to_main,
                    allow_cancel,
                    rooms,
                    ..
                } => {
                    let rules = Rules {
                        mode,
                        allow_return_to_main,
                        allow_cancel,
                    };
                    announced.view = View { rules, rooms };
                }
                Signal::CountDownTimer { closes_at, rooms, .. } => {
                    for room in rooms {
                        announced.timers.insert(room, closes_at);
                    }
                }
                _ => {}
            }
        }
        announced.forget_timers();
        announced
    }

    /// A timer stands only while its room is open and names it.
    fn forget_timers(&mut self) {
        let view = &self.view;
        self.timers.retain(|id, closes_at| {
            view.room(id)
                .is_some_and(|r| r.open && r.closes_at == Some(*closes_at))
        });
    }

    /// What is to be said so that the meeting knows `now`, in order.
    pub(super) fn catch_up(&mut self, view: &View, now_ms: i64) -> Vec<Signal> {
        let mut signals = Vec::new();
        if !self.view.same(view) {
            signals.push(Signal::BreakoutRoom {
                message: self.message(view),
                mode: view.rules.mode,
                allow_return_to_main: view.rules.allow_return_to_main,
                allow_cancel: view.rules.allow_cancel,
                rooms: view.rooms.clone(),
            });
            self.view = view.clone();
            self.forget_timers();
        }
        let timed = |r: &RoomView| r.closes_at.filter(|&at| r.open && at > now_ms);
        let due: BTreeSet<i64> = view
            .rooms
            .iter()
            .filter_map(|r| timed(r).filter(|at| self.timers.get(&r.id) != Some(at)))
            .collect();
        for closes_at in due {
            let rooms: Vec<String> = view
                .rooms
                .iter()
                .filter(|r| timed(r) == Some(closes_at))
                .map(|r| r.id.clone())
                .collect();
            for room in &rooms {
                self.timers.insert(room.clone(), closes_at);
            }
            let left = closes_at.saturating_sub(now_ms).saturating_add(999) / 1000;
            signals.push(Signal::CountDownTimer {
                period: u32::try_from(left).unwrap_or(u32::MAX),
                closes_at,
                now: now_ms,
                rooms,
            });
        }
        signals
    }

    fn message(&self, view: &View) -> BreakoutMessage {
        let is_new = |r: &RoomView| self.view.room(&r.id).is_none() || (r.open && !self.view.is_open(&r.id));
        if self.view.any_open() && !view.any_open() {
            BreakoutMessage::AllRoomRemoved
        } else if view.rooms.iter().any(is_new) {
            BreakoutMessage::RoomCreated
        } else {
            BreakoutMessage::RoomChanged
        }
    }
}
