//! The participant count as it is written to objects: coarse, so that people coming and going do
//! not become writes.
//!
//! Pure: time is an argument. Invariants: no two writes for the count's sake within [`INTERVAL`]; a
//! small change waits for [`SETTLE`], so that one who goes and comes back costs nothing; what is
//! written is right at the latest [`SETTLE`] after the last change. A status that is written for
//! another reason takes the count along.

use std::time::Duration;

/// No two writes are closer than this.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// A small change is written after this.
pub(crate) const SETTLE: Duration = Duration::from_secs(60);

/// What to do about the written count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It stands.
    Keep,
    /// Write the live count.
    Write,
    /// Look again then.
    Later(Duration),
}

/// What is remembered of a room's count between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// When the count was written.
    pub(crate) written: Option<Duration>,
    /// Since when the written count has been wrong.
    pub(crate) wrong: Option<Duration>,
}

/// Compares the written count with the live one at `now`, a time since any fixed point.
pub(crate) fn decide(written: Option<i32>, live: i32, memory: &mut Memory, now: Duration) -> Decision {
    let Some(written) = written else {
        return Decision::Write;
    };
    if written == live {
        memory.wrong = None;
        return Decision::Keep;
    }
    let wrong = *memory.wrong.get_or_insert(now);
    let settled = (wrong + SETTLE).saturating_sub(now);
    let wait = if big(written, live) {
        Duration::ZERO
    } else {
        settled
    };
    let wait = wait.max(
        memory
            .written
            .map_or(Duration::ZERO, |at| (at + INTERVAL).saturating_sub(now)),
    );
    if wait.is_zero() {
        Decision::Write
    } else {
        Decision::Later(wait)
    }
}

/// Whether somebody who looks at the number would care: empty or not, or a quarter more or less.
fn big(written: i32, live: i32) -> bool {
    (written == 0) != (live == 0) || (written - live).abs() * 4 >= written.max(live)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays changes of the live count in virtual time; returns (second, count) of each write.
    fn play(changes: &[(u64, i32)], until: u64) -> Vec<(u64, i32)> {
        let (mut written, mut live, mut memory, mut writes) = (Some(0), 0, Memory::default(), Vec::new());
        for now in 0..until {
            for (_, count) in changes.iter().filter(|(at, _)| *at == now) {
                live = *count;
            }
            let at = Duration::from_secs(now);
            if decide(written, live, &mut memory, at) == Decision::Write {
                written = Some(live);
                memory = Memory {
                    written: Some(at),
                    wrong: None,
                };
                writes.push((now, live));
            }
        }
        writes
    }

    #[test]
    fn twenty_joins_and_leaves_are_a_handful_of_writes() {
        let joins = (0..20).map(|i| (10 + i, i as i32 + 1));
        let leaves = (0..20).map(|i| (1800 + i, 19 - i as i32));
        let changes: Vec<_> = joins.chain(leaves).collect();
        let writes = play(&changes, 3600);
        assert!(writes.len() <= 7, "{writes:?}");
        assert!(
            writes.windows(2).all(|w| w[1].0 - w[0].0 >= INTERVAL.as_secs()),
            "{writes:?}"
        );
        assert_eq!(writes.last().map(|(_, count)| *count), Some(0));
    }

    #[test]
    fn an_idle_hour_writes_nothing() {
        assert_eq!(play(&[], 3600), []);
    }

    #[test]
    fn flapping_by_one_in_a_large_meeting_is_bounded() {
        let changes: Vec<_> = (0..3600).map(|s| (s, 100 + (s % 2) as i32)).collect();
        assert!(play(&changes, 3600).len() <= 61);
    }
}
