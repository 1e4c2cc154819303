//! From counters since the beginning to what happened since the last round.
//!
//! Owns the previous counters of every session. Invariant: a counter that falls (a track that was
//! bound anew) counts as begun from zero, never as a negative difference.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use livekit_protocol::ConnectionQuality;

use super::metrics::{Direction, Metrics};
use super::score::{self, Interval};
use crate::session::api::{MediaKind, SessionId, SessionStatistics, TrackSid, TrackStatistics};

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    packets: u64,
    bytes: u64,
    lost: u64,
    nacks: u64,
    plis: u64,
}

#[derive(Debug, Default)]
struct Known {
    tracks: HashMap<(Direction, TrackSid), Counters>,
    score: Option<f32>,
    /// Statistics came before, so that a silence means something.
    received_before: bool,
}

/// What a round of statistics showed.
#[derive(Debug, Default)]
pub struct Round {
    /// Word and opinion score of each session.
    pub qualities: Vec<(SessionId, ConnectionQuality, f32)>,
    /// Sent to clients, all sessions.
    pub egress_bits_per_second: u64,
}

/// The counters of the last round.
#[derive(Debug, Default)]
pub struct Tracker {
    sessions: BTreeMap<SessionId, Known>,
    at: Option<Duration>,
}

impl Tracker {
    /// A round of statistics at `now` (since start).
    pub fn round(&mut self, statistics: &[SessionStatistics], now: Duration, metrics: &Metrics) -> Round {
        let elapsed = self.at.map(|at| now.saturating_sub(at));
        self.at = Some(now);
        let mut round = Round::default();
        let mut egress_bytes = 0;
        let mut seen: BTreeMap<SessionId, Known> = BTreeMap::new();
        for session in statistics {
            let Some(id) = session.session else { continue };
            let mut known = self.sessions.remove(&id).unwrap_or_default();
            let mut next = HashMap::new();
            let up = interval(
                Direction::In,
                &session.published,
                &known,
                &mut next,
                metrics,
                &mut 0,
            );
            let down = interval(
                Direction::Out,
                &session.subscribed,
                &known,
                &mut next,
                metrics,
                &mut egress_bytes,
            );
            known.tracks = next;
            if let Some(rtt) = session.rtt {
                metrics.round_trip(rtt);
            }
            let score = score::of_interval(&up, session.rtt).min(score::of_interval(&down, session.rtt));
            let score = score::smoothed(known.score, score);
            known.score = Some(score);
            if known.received_before {
                metrics.quality(score / 100.0);
                round
                    .qualities
                    .push((id, score::word(score), score::opinion(score)));
            }
            known.received_before = true;
            seen.insert(id, known);
        }
        // Sessions that are gone are forgotten.
        self.sessions = seen;
        if let Some(elapsed) = elapsed.filter(|e| !e.is_zero()) {
            round.egress_bits_per_second = (egress_bytes as f64 * 8.0 / elapsed.as_secs_f64()) as u64;
        }
        round
    }
}

fn interval(
    direction: Direction,
    tracks: &[TrackStatistics],
    known: &Known,
    next: &mut HashMap<(Direction, TrackSid), Counters>,
    metrics: &Metrics,
    bytes: &mut u64,
) -> Interval {
    let mut interval = Interval::default();
    for track in tracks {
        let key = (direction, TrackSid::clone(&track.sid));
        let before = known.tracks.get(&key).copied().unwrap_or_default();
        let before = if track.packets < before.packets {
            Counters::default()
        } else {
            before
        };
        let packets = track.packets - before.packets;
        let lost = track.lost.saturating_sub(before.lost);
        let track_bytes = track.bytes.saturating_sub(before.bytes);
        *bytes += track_bytes;
        metrics.rtp(direction, track.kind, packets, track_bytes, lost);
        metrics.repair(
            direction,
            track.kind,
            track.nacks.saturating_sub(before.nacks),
            track.plis.saturating_sub(before.plis),
        );
        if packets > 0 {
            metrics.jitter(direction, track.kind, track.jitter);
            interval.jitter = interval.jitter.max(track.jitter);
        }
        // What we send and the client misses is among what we sent; what it sends and we miss is not
        // among what we received.
        let expected = if direction == Direction::In {
            packets + lost
        } else {
            packets
        };
        if expected > 0 {
            // Reports of loss may outlive the packets that they are about.
            metrics.loss(direction, track.kind, (lost as f64 / expected as f64).min(1.0));
        }
        match track.kind {
            MediaKind::Audio => {
                interval.audio_expected += expected;
                interval.audio_lost += lost;
            }
            MediaKind::Video => {
                interval.video_expected += expected;
                interval.video_lost += lost;
            }
        }
        next.insert(
            key,
            Counters {
                packets: track.packets,
                bytes: track.bytes,
                lost: track.lost,
                nacks: track.nacks,
                plis: track.plis,
            },
        );
    }
    interval
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(packets: u64, lost: u64) -> Vec<SessionStatistics> {
        vec![SessionStatistics {
            session: Some(SessionId(1)),
            rtt: Some(Duration::from_millis(20)),
            published: vec![TrackStatistics {
                sid: "TR_1".into(),
                kind: MediaKind::Video,
                packets,
                bytes: packets * 1000,
                lost,
                jitter: Duration::from_millis(2),
                nacks: 0,
                plis: 0,
            }],
            ..SessionStatistics::default()
        }]
    }

    #[test]
    fn only_the_difference_counts() {
        let metrics = Metrics::new("dev", None).unwrap();
        let mut tracker = Tracker::default();
        let at = Duration::from_secs;
        assert!(
            tracker
                .round(&statistics(1000, 500), at(5), &metrics)
                .qualities
                .is_empty()
        );
        for second in 2..8 {
            let round = tracker.round(&statistics(1000 * second, 500), at(5 * second), &metrics);
            let (_, word, _) = round.qualities[0];
            if second == 7 {
                assert_eq!(word, ConnectionQuality::Excellent);
            }
        }
        // Bound anew: begins from zero, without a panic and without a bad score.
        let round = tracker.round(&statistics(10, 0), at(50), &metrics);
        assert_eq!(round.qualities[0].1, ConnectionQuality::Excellent);
        let text = metrics.render();
        let labels = "direction=\"in\",kind=\"video\",pool=\"dev\"";
        assert!(text.contains(&format!("plenum_worker_rtp_packets_total{{{labels}}} 7010")));
        // One round of eight lost a third.
        let loss = format!("plenum_worker_rtp_loss_ratio_bucket{{{labels}");
        assert!(text.contains(&format!("{loss},le=\"0.2\"}} 7")), "{text}");
        assert!(text.contains(&format!("{loss},le=\"0.5\"}} 8")), "{text}");
    }
}
