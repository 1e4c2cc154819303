//! The Prometheus metrics of a worker.
//!
//! Owns the registry and every series in it. Invariants: names begin with `plenum_worker_`, units are
//! base units, label values come from closed sets; every series names the worker's pool; per-room series exist only where they were asked
//! for, and never more than the cap.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use prometheus::{
    CounterVec, Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::room::DropReason;
use crate::session::ShardLoad;
use crate::session::api::MediaKind;

/// Seen from the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From clients.
    In,
    /// To clients.
    Out,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
        }
    }
}

/// What of a video subscription flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picture {
    /// Muted, or not wanted by the subscriber at the moment.
    Off,
    /// Wanted, and nothing flows: the network, or the first key frame, is awaited.
    Waiting,
    /// The lowest layer.
    Low,
    /// The middle one.
    Medium,
    /// The highest, or all there is.
    High,
}

impl Picture {
    /// In the order of their numbers.
    pub const ALL: [Picture; 5] = [
        Picture::Off,
        Picture::Waiting,
        Picture::Low,
        Picture::Medium,
        Picture::High,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Picture::Off => "off",
            Picture::Waiting => "waiting",
            Picture::Low => "low",
            Picture::Medium => "medium",
            Picture::High => "high",
        }
    }
}

fn kind(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Audio => "audio",
        MediaKind::Video => "video",
    }
}

/// Codecs that have a label value of their own; clients can't invent others.
const CODECS: [&str; 7] = ["opus", "red", "vp8", "vp9", "h264", "h265", "av1"];

fn codec(mime_type: &str) -> &'static str {
    let name = mime_type.rsplit('/').next().unwrap_or_default();
    CODECS
        .iter()
        .find(|c| c.eq_ignore_ascii_case(name))
        .copied()
        .unwrap_or("other")
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    rooms: IntGauge,
    participants: IntGauge,
    tracks: IntGaugeVec,
    packets: IntCounterVec,
    bytes: IntCounterVec,
    lost: IntCounterVec,
    nacks: IntCounterVec,
    key_frames: IntCounterVec,
    loss: HistogramVec,
    jitter: HistogramVec,
    rtt: Histogram,
    quality: Histogram,
    stream_quality: HistogramVec,
    pictures: IntGaugeVec,
    gaps: IntCounterVec,
    gap_seconds: CounterVec,
    estimate: Histogram,
    join: Histogram,
    joins: IntCounterVec,
    moves: IntCounterVec,
    data_dropped: IntCounterVec,
    packets_dropped: IntCounterVec,
    shard_sessions: IntGaugeVec,
    handed_over: IntCounterVec,
    signal: IntCounterVec,
    ended: IntCounterVec,
    connections_cut: IntCounterVec,
    panics: IntCounter,
    draining: IntGauge,
    room_participants: Option<IntGaugeVec>,
    room_cap: usize,
    shown_rooms: Mutex<BTreeSet<String>>,
}

impl Metrics {
    /// Registers everything. `pool`: the worker's, as `NAMESPACE/NAME`. `per_room`: series for that many
    /// rooms, with the room's name as a label.
    pub fn new(pool: &str, per_room: Option<usize>) -> Result<Self, prometheus::Error> {
        let of_pool = HashMap::from([("pool".to_owned(), pool.to_owned())]);
        let registry = Registry::new_custom(None, Some(of_pool))?;
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(counters.clone()))?;
                Ok(counters)
            };
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<Histogram, prometheus::Error> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let of_media = |name: &str, help: &str, buckets: &[f64]| -> Result<HistogramVec, prometheus::Error> {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histograms = HistogramVec::new(options, &["direction", "kind"])?;
            registry.register(Box::new(histograms.clone()))?;
            Ok(histograms)
        };
        let loss = of_media(
            "plenum_worker_rtp_loss_ratio",
            "Share of RTP packets lost from 0 to 1, one observation per stream and round of statistics.",
            &[0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
        )?;
        let jitter = of_media(
            "plenum_worker_rtp_jitter_seconds",
            "Interarrival jitter of RTP streams, one observation per stream and round of statistics.",
            &[0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5],
        )?;
        let scores = [0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 1.0];
        let stream_quality = of_media(
            "plenum_worker_stream_quality_score_ratio",
            "Quality of RTP streams that should flow from 0 to 1, one observation per stream and round of statistics.",
            &scores,
        )?;
        let gap_seconds = CounterVec::new(
            Opts::new(
                "plenum_worker_video_gap_seconds_total",
                "Time that passed in gaps of camera streams: more than a second without a packet, while unmuted and wanted.",
            ),
            &["direction"],
        )?;
        registry.register(Box::new(gap_seconds.clone()))?;
        let build = gauges(
            "plenum_worker_build_info",
            "Constant 1, labelled with the version.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let panics = IntCounter::new(
            "plenum_worker_room_panics_total",
            "Rooms that were closed because their logic failed.",
        )?;
        registry.register(Box::new(panics.clone()))?;
        let media = ["direction", "kind"];
        Ok(Self {
            rooms: gauge("plenum_worker_rooms", "Rooms held by this worker.")?,
            participants: gauge("plenum_worker_participants", "Participants in all rooms.")?,
            tracks: gauges("plenum_worker_tracks", "Published tracks.", &["kind", "codec"])?,
            packets: counters("plenum_worker_rtp_packets_total", "RTP packets.", &media)?,
            bytes: counters("plenum_worker_rtp_bytes_total", "Bytes of RTP payload.", &media)?,
            lost: counters(
                "plenum_worker_rtp_packets_lost_total",
                "RTP packets lost, as the receiver saw it.",
                &media,
            )?,
            nacks: counters(
                "plenum_worker_rtp_retransmissions_requested_total",
                "RTP packets asked for again.",
                &media,
            )?,
            key_frames: counters(
                "plenum_worker_rtp_key_frames_requested_total",
                "Key frames asked for.",
                &media,
            )?,
            loss,
            jitter,
            rtt: histogram(
                "plenum_worker_rtt_seconds",
                "Round trip time to clients, one observation per client and round of statistics.",
                &[0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0],
            )?,
            quality: histogram(
                "plenum_worker_quality_score_ratio",
                "Quality of clients' connections from 0 to 1, one observation per client and round of statistics.",
                &scores,
            )?,
            stream_quality,
            pictures: gauges(
                "plenum_worker_video_subscriptions",
                "Subscriptions of video by the layer that flows; off: muted or not wanted, waiting: wanted and nothing flows.",
                &["layer"],
            )?,
            gaps: counters(
                "plenum_worker_video_gaps_total",
                "Gaps of camera streams: more than a second without a packet, while unmuted and wanted.",
                &["direction"],
            )?,
            gap_seconds,
            estimate: histogram(
                "plenum_worker_estimated_bandwidth_bytes_per_second",
                "Estimated bandwidth towards clients, one observation per client and round of statistics.",
                &[
                    12_500.0,
                    25_000.0,
                    62_500.0,
                    125_000.0,
                    250_000.0,
                    625_000.0,
                    1_250_000.0,
                    2_500_000.0,
                    6_250_000.0,
                ],
            )?,
            join: histogram(
                "plenum_worker_join_duration_seconds",
                "From a client's entry to its connected media.",
                &[
                    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0,
                ],
            )?,
            joins: counters(
                "plenum_worker_joins_total",
                "Attempts to enter a room, by outcome: ok, resumed, or an error code.",
                &["outcome"],
            )?,
            moves: counters(
                "plenum_worker_moves_total",
                "Moves between rooms of this worker, by outcome: ok, or an error code.",
                &["outcome"],
            )?,
            data_dropped: counters(
                "plenum_worker_data_packets_dropped_total",
                "Data packets of clients that were not passed on.",
                &["reason"],
            )?,
            packets_dropped: counters(
                "plenum_worker_packets_dropped_total",
                "Packets on the media port that went no further.",
                &["reason"],
            )?,
            shard_sessions: gauges(
                "plenum_worker_media_sessions",
                "Sessions of one media thread.",
                &["thread"],
            )?,
            handed_over: counters(
                "plenum_worker_media_handed_over_total",
                "Datagrams that one media thread received and another one had to serve.",
                &["thread"],
            )?,
            signal: counters(
                "plenum_worker_signal_messages_total",
                "Signal messages.",
                &["type", "direction"],
            )?,
            ended: counters(
                "plenum_worker_sessions_ended_total",
                "Clients' sessions that ended, by error code; empty where the client left.",
                &["code"],
            )?,
            connections_cut: counters(
                "plenum_worker_signal_connections_cut_total",
                "Signalling connections cut by the worker.",
                &["reason"],
            )?,
            panics,
            draining: gauge("plenum_worker_draining", "1 while the worker takes no new rooms.")?,
            room_participants: match per_room {
                Some(_) => Some(gauges(
                    "plenum_worker_room_participants",
                    "Participants of one room.",
                    &["room"],
                )?),
                None => None,
            },
            room_cap: per_room.unwrap_or(0),
            shown_rooms: Mutex::new(BTreeSet::new()),
            registry,
        })
    }

    /// The registry, for parts that count by themselves.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The exposition format.
    pub fn render(&self) -> String {
        let mut out = Vec::new();
        if TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .is_err()
        {
            return String::new();
        }
        String::from_utf8(out).unwrap_or_default()
    }

    /// RTP since the last round.
    pub fn rtp(&self, direction: Direction, media: MediaKind, packets: u64, bytes: u64, lost: u64) {
        let labels = [direction.as_str(), kind(media)];
        self.packets.with_label_values(&labels).inc_by(packets);
        self.bytes.with_label_values(&labels).inc_by(bytes);
        self.lost.with_label_values(&labels).inc_by(lost);
    }

    /// Repairs since the last round.
    pub fn repair(&self, direction: Direction, media: MediaKind, nacks: u64, plis: u64) {
        let labels = [direction.as_str(), kind(media)];
        self.nacks.with_label_values(&labels).inc_by(nacks);
        self.key_frames.with_label_values(&labels).inc_by(plis);
    }

    /// One stream's loss, 0 to 1.
    pub fn loss(&self, direction: Direction, media: MediaKind, ratio: f64) {
        self.loss
            .with_label_values(&[direction.as_str(), kind(media)])
            .observe(ratio);
    }

    /// One stream's jitter.
    pub fn jitter(&self, direction: Direction, media: MediaKind, jitter: Duration) {
        self.jitter
            .with_label_values(&[direction.as_str(), kind(media)])
            .observe(jitter.as_secs_f64());
    }

    /// One client's round trip.
    pub fn round_trip(&self, rtt: Duration) {
        self.rtt.observe(rtt.as_secs_f64());
    }

    /// One client's quality, 0 to 1.
    pub fn quality(&self, score: f32) {
        self.quality.observe(f64::from(score));
    }

    /// One stream's quality, 0 to 1.
    pub fn stream_quality(&self, direction: Direction, media: MediaKind, score: f32) {
        self.stream_quality
            .with_label_values(&[direction.as_str(), kind(media)])
            .observe(f64::from(score));
    }

    /// How many video subscriptions are in each state, as in [`Picture::ALL`].
    pub fn pictures(&self, counts: &[i64; Picture::ALL.len()]) {
        for (picture, count) in Picture::ALL.iter().zip(counts) {
            self.pictures.with_label_values(&[picture.as_str()]).set(*count);
        }
    }

    /// Gaps of a camera's stream since the last round.
    pub fn gaps(&self, direction: Direction, count: u64, time: Duration) {
        self.gaps.with_label_values(&[direction.as_str()]).inc_by(count);
        self.gap_seconds
            .with_label_values(&[direction.as_str()])
            .inc_by(time.as_secs_f64());
    }

    /// Estimated bandwidth towards one client.
    pub fn estimate(&self, bits_per_second: u64) {
        self.estimate.observe(bits_per_second as f64 / 8.0);
    }

    /// A client's media is up.
    pub fn connected(&self, since_open: Duration) {
        self.join.observe(since_open.as_secs_f64());
    }

    /// Somebody tried to enter.
    pub fn entered(&self, outcome: &'static str) {
        self.joins.with_label_values(&[outcome]).inc();
    }

    /// A move was ordered.
    pub fn moved(&self, outcome: &'static str) {
        self.moves.with_label_values(&[outcome]).inc();
    }

    /// A data packet was thrown away.
    pub fn data_dropped(&self, reason: DropReason) {
        self.data_dropped.with_label_values(&[reason.as_str()]).inc();
    }

    /// Totals by reason, as media counts them.
    pub fn packets_dropped(&self, totals: &[(&'static str, u64)]) {
        for (reason, total) in totals {
            let counter = self.packets_dropped.with_label_values(&[reason]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// How media's threads share the work.
    pub fn shards(&self, loads: &[ShardLoad]) {
        for (thread, load) in loads.iter().enumerate() {
            let thread = thread.to_string();
            let sessions = i64::try_from(load.sessions).unwrap_or(i64::MAX);
            self.shard_sessions.with_label_values(&[&thread]).set(sessions);
            let counter = self.handed_over.with_label_values(&[&thread]);
            counter.inc_by(load.handed_over.saturating_sub(counter.get()));
        }
    }

    /// A signal message of a kind.
    pub fn signal(&self, name: &'static str, direction: Direction, count: u64) {
        self.signal
            .with_label_values(&[name, direction.as_str()])
            .inc_by(count);
    }

    /// A session is over.
    pub fn ended(&self, code: &'static str) {
        self.ended.with_label_values(&[code]).inc();
    }

    /// We cut a signalling connection.
    pub fn cut(&self, reason: &'static str) {
        self.connections_cut.with_label_values(&[reason]).inc();
    }

    /// A room failed.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// What there is now.
    pub fn standing<'a>(
        &self,
        draining: bool,
        rooms: impl Iterator<Item = (&'a str, usize)>,
        tracks: impl Iterator<Item = (MediaKind, &'a str)>,
    ) {
        self.draining.set(i64::from(draining));
        self.tracks.reset();
        for (media, mime_type) in tracks {
            self.tracks
                .with_label_values(&[kind(media), codec(mime_type)])
                .inc();
        }
        let (mut count, mut people) = (0, 0);
        let mut shown = BTreeSet::new();
        for (name, participants) in rooms {
            count += 1;
            people += participants as i64;
            if let Some(gauges) = self
                .room_participants
                .as_ref()
                .filter(|_| shown.len() < self.room_cap)
            {
                gauges.with_label_values(&[name]).set(participants as i64);
                shown.insert(name.to_owned());
            }
        }
        self.rooms.set(count);
        self.participants.set(people);
        if let (Some(gauges), Ok(mut before)) = (&self.room_participants, self.shown_rooms.lock()) {
            for gone in before.difference(&shown) {
                let _ = gauges.remove_label_values(&[gone]);
            }
            *before = shown;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_bounded() {
        let metrics = Metrics::new("plenum-system/default", None).unwrap();
        metrics.standing(
            true,
            [("team/standup", 3)].into_iter(),
            [
                (MediaKind::Video, "video/VP8"),
                (MediaKind::Video, "video/\"evil\""),
            ]
            .into_iter(),
        );
        let text = metrics.render();
        let pool = "pool=\"plenum-system/default\"";
        assert!(text.contains(&format!("plenum_worker_participants{{{pool}}} 3")));
        assert!(text.contains(&format!(
            "plenum_worker_tracks{{codec=\"other\",kind=\"video\",{pool}}} 1"
        )));
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            assert!(line.contains(pool), "{line}");
        }
        assert!(!text.contains("standup") && !text.contains("evil"));
        for line in text.lines().filter(|l| l.starts_with("# HELP")) {
            assert!(line.contains("plenum_worker_"), "{line}");
        }
    }

    #[test]
    fn totals_of_threads_are_not_added_twice() {
        let metrics = Metrics::new("dev", None).unwrap();
        let load = |handed_over| ShardLoad {
            sessions: 3,
            handed_over,
        };
        metrics.shards(&[load(5), load(0)]);
        metrics.shards(&[load(7), load(0)]);
        let text = metrics.render();
        for line in [
            "plenum_worker_media_sessions{thread=\"0\",pool=\"dev\"} 3",
            "plenum_worker_media_handed_over_total{thread=\"0\",pool=\"dev\"} 7",
            "plenum_worker_media_handed_over_total{thread=\"1\",pool=\"dev\"} 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn rooms_are_shown_on_request_and_up_to_the_cap() {
        let metrics = Metrics::new("dev", Some(1)).unwrap();
        metrics.standing(false, [("a", 1), ("b", 2)].into_iter(), std::iter::empty());
        assert!(metrics.render().contains("room=\"a\"") && !metrics.render().contains("room=\"b\""));
        metrics.standing(false, [("b", 2)].into_iter(), std::iter::empty());
        assert!(!metrics.render().contains("room=\"a\"") && metrics.render().contains("room=\"b\""));
    }
}
