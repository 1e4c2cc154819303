//! From counters since the beginning to what happened since the last round.
//!
//! Owns the previous counters of every session and the smoothed score of every stream. Invariants: a
//! counter that falls (a track that was bound anew) counts as begun from zero, never as a negative
//! difference; a stream that is muted or not wanted says nothing about a connection.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use livekit_protocol::ConnectionQuality;

use super::metrics::{Direction, Metrics, Picture};
use super::score::{self, Interval};
use crate::session::api::{MediaKind, Quality, SessionId, SessionStatistics, TrackSid, TrackStatistics};

/// What rooms know of a published track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// A camera: something moves all the time. A shared screen may stand still.
    pub camera: bool,
    /// By its owner or by a moderator.
    pub muted: bool,
    /// The highest layer that the publisher was asked to send, among those that it announced; `None`:
    /// nobody wants any.
    pub wanted: Option<Quality>,
    /// Bits a second that were announced for that layer and those below it.
    pub bitrate: Option<u64>,
}

/// What rooms know; asked in each round.
pub trait Facts {
    /// Of a track in the room of `session`.
    fn published(&self, session: SessionId, sid: &str) -> Option<Published>;
    /// The layer that a subscriber asked for; `None`: none at the moment.
    fn asked(&self, session: SessionId, sid: &str) -> Option<Quality>;
}

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    packets: u64,
    bytes: u64,
    lost: u64,
    nacks: u64,
    plis: u64,
    gaps: u64,
    gap_time: Duration,
    /// Of the stream, where it had one.
    score: Option<f32>,
    /// It was to flow during the whole round before.
    due: bool,
}

#[derive(Debug, Default)]
struct Known {
    streams: HashMap<(Direction, TrackSid), Counters>,
    /// Of the connection, whatever flows over it.
    connection: Option<f32>,
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

/// What a stream's score is made of, besides its counters.
#[derive(Debug, Clone, Copy, Default)]
struct Expectation {
    /// Neither muted nor unwanted.
    due: bool,
    camera: bool,
    missed_layers: u8,
    bitrate: Option<u64>,
}

impl Tracker {
    /// A round of statistics at `now` (since start).
    pub fn round(
        &mut self,
        statistics: &[SessionStatistics],
        now: Duration,
        facts: &dyn Facts,
        metrics: &Metrics,
    ) -> Round {
        let elapsed = self.at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        self.at = Some(now);
        let mut round = Round::default();
        let mut egress_bytes = 0;
        let mut seen: BTreeMap<SessionId, Known> = BTreeMap::new();
        let mut pictures = [0; Picture::ALL.len()];
        // What publishers send: less than that is not the fault of those who receive it.
        let sent: HashMap<&str, Option<Quality>> = statistics
            .iter()
            .flat_map(|s| &s.published)
            .map(|track| (&*track.sid, track.layer))
            .collect();
        for session in statistics {
            let Some(id) = session.session else { continue };
            let mut known = self.sessions.remove(&id).unwrap_or_default();
            let mut next = HashMap::new();
            let mut stream = |direction, track: &TrackStatistics, expectation: Expectation| {
                let key = (direction, TrackSid::clone(&track.sid));
                let before = known.streams.get(&key).copied().unwrap_or_default();
                let (counters, bytes) = step(
                    direction,
                    track,
                    before,
                    expectation,
                    elapsed,
                    session.rtt,
                    metrics,
                );
                if direction == Direction::Out {
                    egress_bytes += bytes;
                }
                next.insert(key, counters);
            };
            for track in &session.published {
                stream(Direction::In, track, upward(id, track, facts));
            }
            for track in &session.subscribed {
                let (expectation, picture) = downward(id, track, &sent, facts);
                if let Some(picture) = picture {
                    pictures[picture as usize] += 1;
                }
                stream(Direction::Out, track, expectation);
            }
            if let Some(rtt) = session.rtt {
                metrics.round_trip(rtt);
            }
            if let Some(estimate) = session.estimate_bps {
                metrics.estimate(estimate);
            }
            let connection = score::smoothed(known.connection, score::of_connection(session.rtt));
            known.connection = Some(connection);
            // Each stream was smoothed by itself.
            let streams = next.values().filter(|c| c.due).filter_map(|c| c.score);
            let score = score::of_participant(connection, streams);
            known.streams = next;
            if known.received_before {
                metrics.quality(score / 100.0);
                round
                    .qualities
                    .push((id, score::word(score), score::opinion(score)));
            }
            known.received_before = true;
            seen.insert(id, known);
        }
        metrics.pictures(&pictures);
        // Sessions that are gone are forgotten.
        self.sessions = seen;
        if !elapsed.is_zero() {
            round.egress_bits_per_second = (egress_bytes as f64 * 8.0 / elapsed.as_secs_f64()) as u64;
        }
        round
    }
}

/// What should come of a published track.
fn upward(session: SessionId, track: &TrackStatistics, facts: &dyn Facts) -> Expectation {
    let Some(known) = facts.published(session, &track.sid) else {
        return Expectation::default();
    };
    Expectation {
        due: !known.muted && known.wanted.is_some(),
        camera: known.camera,
        missed_layers: score::steps_below(known.wanted, track.layer.or(known.wanted)),
        bitrate: known.bitrate.filter(|_| known.camera),
    }
}

/// What should go to a subscriber, and what of video does.
fn downward(
    session: SessionId,
    track: &TrackStatistics,
    sent: &HashMap<&str, Option<Quality>>,
    facts: &dyn Facts,
) -> (Expectation, Option<Picture>) {
    let Some(known) = facts.published(session, &track.sid) else {
        return (Expectation::default(), None);
    };
    let asked = facts.asked(session, &track.sid);
    let due = !known.muted && asked.is_some();
    let picture = (track.kind == MediaKind::Video).then_some(match (due, track.layer) {
        (false, _) => Picture::Off,
        (true, None) => Picture::Waiting,
        (true, Some(Quality::Low)) => Picture::Low,
        (true, Some(Quality::Medium)) => Picture::Medium,
        (true, Some(Quality::High)) => Picture::High,
    });
    let there_is = sent.get(&*track.sid).copied().flatten();
    let expectation = Expectation {
        due,
        camera: known.camera,
        missed_layers: score::steps_below(asked.min(there_is), track.layer),
        bitrate: None,
    };
    (expectation, picture)
}

/// One stream's counters after the round, and its bytes in it.
fn step(
    direction: Direction,
    track: &TrackStatistics,
    before: Counters,
    expectation: Expectation,
    elapsed: Duration,
    rtt: Option<Duration>,
    metrics: &Metrics,
) -> (Counters, u64) {
    let base = if track.packets < before.packets {
        Counters::default()
    } else {
        before
    };
    let packets = track.packets - base.packets;
    let lost = track.lost.saturating_sub(base.lost);
    let bytes = track.bytes.saturating_sub(base.bytes);
    metrics.rtp(direction, track.kind, packets, bytes, lost);
    metrics.repair(
        direction,
        track.kind,
        track.nacks.saturating_sub(base.nacks),
        track.plis.saturating_sub(base.plis),
    );
    if expectation.camera && track.kind == MediaKind::Video {
        metrics.gaps(
            direction,
            track.gaps.saturating_sub(base.gaps),
            track.gap_time.saturating_sub(base.gap_time),
        );
    }
    if packets > 0 {
        metrics.jitter(direction, track.kind, track.jitter);
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
    let score = if expectation.due {
        // What began within the round may still be on its way up.
        let settled = before.due && !elapsed.is_zero();
        let rate = (bytes as f64 * 8.0 / elapsed.as_secs_f64().max(0.001)) as u64;
        let interval = Interval {
            kind: track.kind,
            expected,
            lost,
            jitter: if packets > 0 { track.jitter } else { Duration::ZERO },
            bitrate: expectation
                .bitrate
                .filter(|_| settled)
                .map(|announced| (announced, rate)),
            missed_layers: if settled { expectation.missed_layers } else { 0 },
            silent: settled
                && packets == 0
                && direction == Direction::In
                && expectation.camera
                && track.kind == MediaKind::Video,
        };
        let score = score::smoothed(before.score, score::of_stream(&interval, rtt));
        metrics.stream_quality(direction, track.kind, score / 100.0);
        Some(score)
    } else {
        before.score
    };
    let counters = Counters {
        packets: track.packets,
        bytes: track.bytes,
        lost: track.lost,
        nacks: track.nacks,
        plis: track.plis,
        gaps: track.gaps,
        gap_time: track.gap_time,
        score,
        due: expectation.due,
    };
    (counters, bytes)
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
