//! When a breakout room opens and closes.
//!
//! Pure: what is wanted and what stands in the status in, the stage of the room's life out.
//! Invariants: a countdown is set once and is not prolonged by looking again, nor does it outlast a
//! timer that ran before; gateways bring people back when the time is over, and the worker is made
//! to end the room once they are gone, or after [`GRACE`].

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use plenum_breakout::Effective;
use plenum_crds::{BreakoutRoomStatus, ConditionType, Reason};

use super::status::reason_of;

/// People who are still in a room this long after its time are sent back by its worker.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// Where a room stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// People may come.
    Open {
        /// When it closes by itself.
        closes_at: Option<Timestamp>,
    },
    /// A countdown runs: people may stay, nobody comes.
    Closing { closes_at: Timestamp },
    /// Its time is over, and people are on their way back.
    Leaving { closed_at: Timestamp },
    /// Nobody is in it any more, or should be.
    Closed { closed_at: Option<Timestamp> },
}

/// The stage of a room. `people`: how many are in it, where its worker is known to say so.
pub(crate) fn stage(
    wanted: &Effective,
    before: &BreakoutRoomStatus,
    countdown: Duration,
    people: Option<u32>,
    now: Timestamp,
) -> Stage {
    let written = before.closes_at.as_ref().map(|at| at.0);
    let closing = reason_of(&before.conditions, ConditionType::Ready) == Some(Reason::Closing.as_str());
    let timer = wanted
        .closes_at_ms
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let closes_at = if wanted.countdown_due {
        // Objects carry whole seconds; nobody gets less than the countdown for it.
        let end = ceil(later(now, countdown));
        let ran = written.filter(|at| closing || *at > now);
        Some(ran.map_or(end, |at| at.min(end)))
    } else if wanted.open || timer.is_some() {
        timer
    } else {
        // At once; a look at it later finds the end in the status.
        Some(written.filter(|at| closing && *at <= now).unwrap_or(floor(now)))
    };
    match closes_at {
        None => Stage::Open { closes_at: None },
        Some(at) if at > now && wanted.open => Stage::Open { closes_at },
        Some(_) if before.assignment.is_none() => Stage::Closed {
            closed_at: closes_at.filter(|_| wanted.open),
        },
        Some(at) if at > now => Stage::Closing { closes_at: at },
        Some(at) if people == Some(0) || now >= later(at, GRACE) => Stage::Closed { closed_at: Some(at) },
        Some(at) => Stage::Leaving { closed_at: at },
    }
}

/// That much later, at most the end of time.
pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn floor(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn ceil(at: Timestamp) -> Timestamp {
    let whole = floor(at);
    if whole < at {
        Timestamp::from_second(at.as_second() + 1).unwrap_or(at)
    } else {
        at
    }
}

#[cfg(test)]
#[path = "closing_tests.rs"]
mod tests;
