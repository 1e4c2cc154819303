//! Rounds of statistics, by hand.

use super::*;

/// Rooms that say one thing about everything.
#[derive(Clone, Copy)]
struct Rooms {
    published: Published,
    asked: Option<Quality>,
}

impl Facts for Rooms {
    fn published(&self, _: SessionId, _: &str) -> Option<Published> {
        Some(self.published)
    }

    fn asked(&self, _: SessionId, _: &str) -> Option<Quality> {
        self.asked
    }
}

const WATCHED: Rooms = Rooms {
    published: Published {
        camera: true,
        muted: false,
        wanted: Some(Quality::High),
        bitrate: None,
    },
    asked: Some(Quality::High),
};

fn track(sid: &str, packets: u64) -> TrackStatistics {
    TrackStatistics {
        sid: sid.into(),
        kind: MediaKind::Video,
        packets,
        bytes: packets * 1000,
        lost: 0,
        jitter: Duration::from_millis(2),
        nacks: 0,
        plis: 0,
        layer: Some(Quality::High),
        gaps: 0,
        gap_time: Duration::ZERO,
    }
}

fn session(id: u64) -> SessionStatistics {
    SessionStatistics {
        session: Some(SessionId(id)),
        rtt: Some(Duration::from_millis(20)),
        ..SessionStatistics::default()
    }
}

fn publishing(track: TrackStatistics) -> Vec<SessionStatistics> {
    vec![SessionStatistics {
        published: vec![track],
        ..session(1)
    }]
}

/// Alice publishes in `sent`, Bob receives `received` of it.
fn call(packets: u64, sent: Option<Quality>, received: Option<Quality>) -> Vec<SessionStatistics> {
    let published = TrackStatistics {
        layer: sent,
        ..track("TR_1", packets)
    };
    let subscribed = TrackStatistics {
        layer: received,
        ..track("TR_1", packets)
    };
    vec![
        SessionStatistics {
            published: vec![published],
            ..session(1)
        },
        SessionStatistics {
            subscribed: vec![subscribed],
            ..session(2)
        },
    ]
}

fn words(round: &Round) -> Vec<ConnectionQuality> {
    round.qualities.iter().map(|(_, word, _)| *word).collect()
}

/// Rounds of five seconds.
struct Rounds {
    tracker: Tracker,
    metrics: Metrics,
    now: Duration,
}

impl Rounds {
    fn new() -> Self {
        Self {
            tracker: Tracker::default(),
            metrics: Metrics::new("dev", None).unwrap(),
            now: Duration::ZERO,
        }
    }

    fn next(&mut self, statistics: &[SessionStatistics], rooms: Rooms) -> Round {
        self.now += Duration::from_secs(5);
        self.tracker.round(statistics, self.now, &rooms, &self.metrics)
    }
}

use ConnectionQuality::{Excellent, Good, Lost, Poor};

#[test]
fn only_the_difference_counts() {
    let mut rounds = Rounds::new();
    let lossy = |packets| {
        publishing(TrackStatistics {
            lost: 500,
            ..track("TR_1", packets)
        })
    };
    assert!(rounds.next(&lossy(1000), WATCHED).qualities.is_empty());
    for round in 2..8 {
        let word = words(&rounds.next(&lossy(1000 * round), WATCHED));
        if round == 7 {
            assert_eq!(word, [Excellent]);
        }
    }
    // Bound anew: begins from zero, without a panic and without a bad score.
    assert_eq!(
        words(&rounds.next(&publishing(track("TR_1", 10)), WATCHED)),
        [Excellent]
    );
    let text = rounds.metrics.render();
    let labels = "direction=\"in\",kind=\"video\",pool=\"dev\"";
    assert!(text.contains(&format!("plenum_worker_rtp_packets_total{{{labels}}} 7010")));
    // One round of eight lost a third.
    let loss = format!("plenum_worker_rtp_loss_ratio_bucket{{{labels}");
    assert!(text.contains(&format!("{loss},le=\"0.2\"}} 7")), "{text}");
    assert!(text.contains(&format!("{loss},le=\"0.5\"}} 8")), "{text}");
}

#[test]
fn whose_fault_a_missing_layer_is() {
    use Quality::{High, Low, Medium};
    let told = |sent, received| {
        let mut rounds = Rounds::new();
        for round in 1..6 {
            rounds.next(&call(1000 * round, sent, received), WATCHED);
        }
        words(&rounds.next(&call(6000, sent, received), WATCHED))
    };
    assert_eq!(told(Some(High), Some(High)), [Excellent, Excellent]);
    // The receiver's network takes less than there is.
    assert_eq!(told(Some(High), Some(Medium)), [Excellent, Good]);
    assert_eq!(told(Some(High), Some(Low)), [Excellent, Poor]);
    assert_eq!(told(Some(High), None), [Excellent, Poor]);
    // The sender's does.
    assert_eq!(told(Some(Low), Some(Low)), [Poor, Excellent]);
    // Nothing is known of the layers.
    assert_eq!(told(None, None), [Excellent, Excellent]);
}

#[test]
fn what_is_asked_for_is_enough() {
    let rooms = Rooms {
        published: Published {
            wanted: Some(Quality::Low),
            ..WATCHED.published
        },
        asked: Some(Quality::Low),
    };
    let mut rounds = Rounds::new();
    for round in 1..4 {
        rounds.next(&call(1000 * round, Some(Quality::Low), Some(Quality::Low)), rooms);
    }
    let last = rounds.next(&call(4000, Some(Quality::Low), Some(Quality::Low)), rooms);
    assert_eq!(words(&last), [Excellent, Excellent]);
}

#[test]
fn a_camera_that_falls_silent_is_lost_unless_it_may() {
    let told = |rooms| {
        let mut rounds = Rounds::new();
        for packets in [1000, 2000, 2000, 2000] {
            rounds.next(&publishing(track("TR_1", packets)), rooms);
        }
        words(&rounds.next(&publishing(track("TR_1", 2000)), rooms))
    };
    let with = |change: fn(&mut Published)| {
        let mut rooms = WATCHED;
        change(&mut rooms.published);
        rooms
    };
    assert_eq!(told(WATCHED), [Lost]);
    assert_eq!(told(with(|p| p.muted = true)), [Excellent]);
    assert_eq!(told(with(|p| p.wanted = None)), [Excellent]);
    assert_eq!(
        told(with(|p| p.camera = false)),
        [Excellent],
        "a screen may stand still"
    );
}

#[test]
fn a_trickle_is_no_picture() {
    let rooms = Rooms {
        published: Published {
            bitrate: Some(1_700_000),
            ..WATCHED.published
        },
        ..WATCHED
    };
    // 40 packets of 1,000 bytes in five seconds are 64 kbit/s.
    let mut rounds = Rounds::new();
    for round in 1..6 {
        rounds.next(&publishing(track("TR_1", 40 * round)), rooms);
    }
    assert_eq!(
        words(&rounds.next(&publishing(track("TR_1", 240)), rooms)),
        [Good]
    );
    // What is new has the time to grow.
    let mut rounds = Rounds::new();
    rounds.next(&[session(1)], rooms);
    assert_eq!(
        words(&rounds.next(&publishing(track("TR_1", 40)), rooms)),
        [Excellent]
    );
}

#[test]
fn metrics_show_layers_gaps_and_bandwidth() {
    let mut rounds = Rounds::new();
    let mut sessions = call(1000, Some(Quality::High), Some(Quality::Medium));
    sessions[1].estimate_bps = Some(2_000_000);
    rounds.next(&sessions, WATCHED);
    sessions[1].subscribed[0].gaps = 2;
    sessions[1].subscribed[0].gap_time = Duration::from_millis(3_500);
    rounds.next(&sessions, WATCHED);
    let text = rounds.metrics.render();
    for line in [
        "plenum_worker_video_subscriptions{layer=\"medium\",pool=\"dev\"} 1",
        "plenum_worker_video_subscriptions{layer=\"high\",pool=\"dev\"} 0",
        "plenum_worker_video_gaps_total{direction=\"out\",pool=\"dev\"} 2",
        "plenum_worker_video_gap_seconds_total{direction=\"out\",pool=\"dev\"} 3.5",
        "plenum_worker_estimated_bandwidth_bytes_per_second_bucket{pool=\"dev\",le=\"250000\"} 2",
        "plenum_worker_estimated_bandwidth_bytes_per_second_sum{pool=\"dev\"} 500000",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.contains("plenum_worker_stream_quality_score_ratio_count{direction=\"out\",kind=\"video\""));
    // Muted, it is not shown as waiting.
    let muted = Rooms {
        published: Published {
            muted: true,
            ..WATCHED.published
        },
        ..WATCHED
    };
    rounds.next(&call(1000, None, None), muted);
    let text = rounds.metrics.render();
    assert!(text.contains("plenum_worker_video_subscriptions{layer=\"off\",pool=\"dev\"} 1"));
    assert!(text.contains("plenum_worker_video_subscriptions{layer=\"waiting\",pool=\"dev\"} 0"));
}
