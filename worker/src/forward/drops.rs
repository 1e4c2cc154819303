//! Why packets were not forwarded.
//!
//! Owns one counter per reason, of one thread, shared with whoever exports metrics. Invariant: every packet that ends
//! inside the worker is counted here once.

use std::sync::atomic::{AtomicU64, Ordering};

/// A reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Drop {
    /// Neither STUN, DTLS, RTP nor RTCP (RFC 7983).
    NotOurs,
    /// From an address that never passed a STUN check.
    UnknownPeer,
    /// STUN that is malformed, for no leg of ours, or not authentic.
    BadStun,
    /// DTLS that the handshake refused.
    BadDtls,
    /// RTP that cannot be parsed.
    BadRtp,
    /// RTCP whose parts are not as long as they say.
    BadRtcp,
    /// Before the keys are known.
    NoKeys,
    /// Failed authentication.
    NotAuthentic,
    /// Seen before.
    Replayed,
    /// More SSRCs than a leg may have.
    TooManySources,
    /// No section claims this SSRC.
    UnknownSource,
    /// A payload type that wasn't negotiated.
    UnknownPayload,
    /// Redundant audio data that cannot be taken apart.
    BadRed,
    /// Retransmission of nothing known.
    BadRepair,
    /// The socket was full or the path refused.
    SendFailed,
    /// For a thread that had too much of it waiting.
    HandOverFull,
}

/// How many reasons there are.
pub(crate) const REASONS: usize = 16;

const ALL: [(Drop, &str); REASONS] = [
    (Drop::NotOurs, "not_ours"),
    (Drop::UnknownPeer, "unknown_peer"),
    (Drop::BadStun, "bad_stun"),
    (Drop::BadDtls, "bad_dtls"),
    (Drop::BadRtp, "bad_rtp"),
    (Drop::BadRtcp, "bad_rtcp"),
    (Drop::NoKeys, "no_keys"),
    (Drop::NotAuthentic, "not_authentic"),
    (Drop::Replayed, "replayed"),
    (Drop::TooManySources, "too_many_sources"),
    (Drop::UnknownSource, "unknown_source"),
    (Drop::UnknownPayload, "unknown_payload"),
    (Drop::BadRed, "bad_red"),
    (Drop::BadRepair, "bad_repair"),
    (Drop::SendFailed, "send_failed"),
    (Drop::HandOverFull, "hand_over_full"),
];

/// The counters.
#[derive(Debug, Default)]
pub struct DropCounters {
    counts: [AtomicU64; REASONS],
}

impl DropCounters {
    pub(crate) fn count(&self, reason: Drop) {
        if let Some(c) = self.counts.get(reason as usize) {
            c.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of these together.
    pub(crate) fn sum<'a>(all: impl Iterator<Item = &'a DropCounters>) -> DropCounters {
        let sum = DropCounters::default();
        for counters in all {
            for (to, from) in sum.counts.iter().zip(&counters.counts) {
                to.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        sum
    }

    /// Each reason's label and count.
    pub fn read(&self) -> [(&'static str, u64); REASONS] {
        ALL.map(|(reason, label)| {
            (
                label,
                self.counts
                    .get(reason as usize)
                    .map_or(0, |c| c.load(Ordering::Relaxed)),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let d = DropCounters::default();
        for (i, (reason, _)) in ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            d.count(*reason);
        }
        assert!(d.read().iter().all(|(_, n)| *n == 1));
        let sum = DropCounters::sum([&d, &d].into_iter());
        assert!(sum.read().iter().all(|(_, n)| *n == 2));
    }
}
