//! What is said about the packets: RTCP in and out, and the timers behind it.
//!
//! Owns the schedule of reports, feedback and key-frame requests. Invariants: everything here is driven
//! by [`Forwarder::tick`] and by RTCP that was authenticated; a tick looks at nothing that isn't due, so
//! that it costs nothing how many tracks and legs there are.

use std::time::{Duration, Instant};

use super::arrive::reason_of;
use super::drops::Drop;
use super::peer::Source;
use super::rtcp::{self, Item, ReportBlock};
use super::{Forwarder, LegKey, TrackKey};
use crate::net::SendBatch;
use crate::session::api::{AudioLevel, MediaKind, SessionId, TrackStatistics};

/// Resolution of every timer here.
const TICK: Duration = Duration::from_millis(20);
const LEVELS: Duration = Duration::from_millis(100);
/// Long enough to be cheap, short enough for the sender's estimator.
pub(super) const TWCC_INTERVAL: Duration = Duration::from_millis(60);
const REPORTS: Duration = Duration::from_secs(1);
/// A missing packet isn't asked for before; it may only be late.
pub(super) const REORDER: Duration = Duration::from_millis(5);
/// Offered to a publisher that can't do transport-wide feedback, per video track.
const REMB_BITRATE: u64 = 2_500_000;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    /// A track's levels, layers, key-frame requests and missing packets.
    Track(TrackKey),
    /// Transport-wide feedback to a publisher.
    Feedback(LegKey),
    /// Receiver reports to a publisher.
    Report(LegKey),
    /// A sender report to a subscriber.
    Describe(TrackKey, usize),
    /// The sharing of what a subscriber's path carries.
    Path(LegKey),
}

impl Forwarder {
    /// One RTCP datagram of a leg.
    pub(crate) fn rtcp(&mut self, leg: LegKey, datagram: &mut [u8], now: Instant, batch: &mut SendBatch) {
        let opened = match self.peer(leg) {
            None => Err(Drop::UnknownPeer),
            Some(peer) => match &mut peer.srtp {
                None => Err(Drop::NoKeys),
                Some(srtp) => srtp.open_rtcp(datagram).map_err(reason_of),
            },
        };
        match opened {
            Err(reason) => self.drops.count(reason),
            Ok(len) => {
                let clear = datagram.get(..len).unwrap_or_default();
                if !rtcp::well_formed(clear) {
                    return self.drops.count(Drop::BadRtcp);
                }
                for item in rtcp::parse(clear) {
                    self.rtcp_item(leg, item, now, batch);
                }
                for said in rtcp::paths(clear) {
                    self.said_of_path(leg, said, now);
                }
            }
        }
    }

    fn rtcp_item(&mut self, leg: LegKey, item: Item, now: Instant, batch: &mut SendBatch) {
        let Some(peer) = self.peers.get_mut(leg.0).and_then(Option::as_mut) else {
            return;
        };
        match item {
            Item::SenderReport { ssrc, ntp, rtp } => {
                if let Some(Source::Media { track, layer }) = peer.sources.get(&ssrc).copied()
                    && let Some(l) = self.track(track).and_then(|t| t.layers.get_mut(layer))
                {
                    l.receiver.sender_report(ntp, rtp, now);
                }
            }
            Item::Report(block) => {
                let Some((track, at)) = peer.sending.get(&block.ssrc).copied() else {
                    return;
                };
                let Some(Some(track)) = self.tracks.get_mut(track.0) else {
                    return;
                };
                let rate = track.spec.codecs.first().map_or(90_000, |(_, c)| c.clock_rate());
                let Some(Some(s)) = track.subscriptions.get_mut(at) else {
                    return;
                };
                if s.binding.ssrc == block.ssrc {
                    s.lost = u64::from(block.total_lost);
                    s.demand.report(block.fraction_lost, now);
                    s.jitter = Duration::from_secs_f64(f64::from(block.jitter) / f64::from(rate));
                    if let Some(rtt) = s.round_trip(block.last_sr, block.delay, now) {
                        peer.note_rtt(rtt);
                    }
                }
            }
            Item::Nack { media, sequences } => self.resend(leg, media, &sequences, now, batch),
            Item::Pli { media } | Item::Fir { media } => {
                let Some((key, at)) = peer.sending.get(&media).copied() else {
                    return;
                };
                let rtt = peer.rtt();
                let path = self.path_state(leg, now);
                let Some(track) = self.track(key) else { return };
                let Some(Some(s)) = track.subscriptions.get_mut(at) else {
                    return;
                };
                s.plis += 1;
                // Another one would only stand in the way of the one that is awaited.
                if path.is_some_and(|path| s.key_frame_is_under_way(path, rtt, now)) {
                    return;
                }
                if track.begin_again(at, now) {
                    // What waits of the first beginning would only stand before this one.
                    if let Some(path) = self.peer(leg).and_then(|p| p.outgoing.path.as_mut()) {
                        path.give_up(key, at);
                    }
                    self.begin_soon(key);
                    return;
                }
                let Some(Some(s)) = track.subscriptions.get(at) else {
                    return;
                };
                if let Some(layer) = s.current.or(s.target) {
                    track.want_key_frame(layer);
                    self.send_key_frame_requests(key.0, now, batch);
                }
            }
            Item::Bye { ssrc } => {
                peer.sources.remove(&ssrc);
            }
        }
    }

    fn send_key_frame_requests(&mut self, key: usize, now: Instant, batch: &mut SendBatch) {
        let Some(Some(track)) = self.tracks.get_mut(key) else {
            return;
        };
        let Some(Some(peer)) = self.peers.get_mut(track.spec.leg.0) else {
            return;
        };
        // A request that can't leave would only delay the next one.
        if peer.srtp.is_none() {
            return;
        }
        let due = track.due_key_frames(now);
        for ssrc in due {
            self.scratch.clear();
            rtcp::pli(&mut self.scratch, peer.feedback_ssrc, ssrc);
            peer.send_rtcp(&self.scratch, batch);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.tracks.iter().all(Option::is_none) {
            return None;
        }
        let paced = self.pace.next().unwrap_or(self.next_tick);
        Some(self.next_tick.min(paced))
    }

    /// Looks at a track at the next tick.
    pub(super) fn look_soon(&mut self, key: TrackKey) {
        self.look_at(key, self.next_tick);
    }

    /// Looks at a track then, if not before.
    pub(super) fn look_at(&mut self, key: TrackKey, at: Instant) {
        if let Some(Some(track)) = self.tracks.get_mut(key.0)
            && track.due.is_none_or(|due| at < due)
        {
            track.due = Some(at);
            self.timers.set(at, Job::Track(key));
        }
    }

    /// Begins to report to a publisher.
    pub(super) fn report_soon(&mut self, leg: LegKey) {
        let at = self.next_tick;
        if let Some(peer) = self.peer(leg)
            && peer.next_report.is_none()
        {
            peer.next_report = Some(at);
            self.timers.set(at, Job::Report(leg));
        }
    }

    /// The first of the moments after `now` at which every track's levels are told.
    fn next_levels(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.start).as_nanos();
        let periods = (since / LEVELS.as_nanos()) as u32 + 1;
        self.start + LEVELS * periods
    }

    /// Runs the timers. `wall_ntp` is the wall clock as NTP. Returns audio levels when they are due.
    pub(crate) fn tick(&mut self, wall_ntp: u64, now: Instant, batch: &mut SendBatch) -> Vec<AudioLevel> {
        self.release_due(now, batch);
        if now < self.next_tick {
            return Vec::new();
        }
        self.next_tick = now + TICK;
        self.count_speakers(now);
        let mut levels = Vec::new();
        while let Some((at, job)) = self.timers.due(now) {
            match job {
                Job::Track(key) => levels.extend(self.look(key, at, now, batch)),
                Job::Feedback(leg) => self.feedback(leg, at, batch),
                Job::Report(leg) => self.report_to_publisher(leg, at, now, batch),
                Job::Describe(key, place) => self.report_to_subscriber(key, place, at, wall_ntp, now, batch),
                Job::Path(leg) => self.look_at_path_now(leg, at, now),
            }
        }
        levels
    }

    /// A track's turn; its level, if that is due and it was audible.
    fn look(
        &mut self,
        key: TrackKey,
        at: Instant,
        now: Instant,
        batch: &mut SendBatch,
    ) -> Option<AudioLevel> {
        let next_slow = self.next_levels(now);
        let Some(Some(track)) = self.tracks.get_mut(key.0) else {
            return None;
        };
        if track.due != Some(at) {
            return None;
        }
        track.due = None;
        if track.begins {
            // Before that nobody knows whether a key frame has to be asked for.
            self.look_soon(key);
            return None;
        }
        let mut level = None;
        if track.next_slow.is_none_or(|slow| now >= slow) {
            track.next_slow = Some(next_slow);
            track.note_costs(now);
            track.note_steadiness(now);
            track.renew_requests();
            level = track.levels.take().filter(|_| !track.muted);
        }
        let level = level.map(|(level_dbov, active_ratio)| AudioLevel {
            session: track.spec.session,
            sid: track.spec.sid.clone(),
            level_dbov,
            active_ratio,
        });
        let active = track.is_active(now);
        let next = track.next_slow;
        let missing = track.layers.iter().any(|l| l.receiver.has_missing());
        self.send_key_frame_requests(key.0, now, batch);
        self.ask_for_missing(key.0, now, batch);
        if missing {
            self.look_at(key, self.next_tick);
        } else if active && let Some(next) = next {
            self.look_at(key, next);
        }
        level
    }

    fn ask_for_missing(&mut self, key: usize, now: Instant, batch: &mut SendBatch) {
        let Some(Some(track)) = self.tracks.get_mut(key) else {
            return;
        };
        if !track.spec.nack || track.muted {
            return;
        }
        let Some(Some(peer)) = self.peers.get_mut(track.spec.leg.0) else {
            return;
        };
        let rtt = peer.rtt();
        for layer in &mut track.layers {
            let Some(ssrc) = layer.ssrc.filter(|_| layer.receiver.has_missing()) else {
                continue;
            };
            let due = layer.receiver.due_nacks(rtt, now);
            if !due.is_empty() {
                self.scratch.clear();
                rtcp::nack(&mut self.scratch, peer.feedback_ssrc, ssrc, &due);
                peer.send_rtcp(&self.scratch, batch);
            }
        }
    }

    fn report_to_subscriber(
        &mut self,
        key: TrackKey,
        place: usize,
        at: Instant,
        wall_ntp: u64,
        now: Instant,
        batch: &mut SendBatch,
    ) {
        let Some(Some(track)) = self.tracks.get_mut(key.0) else {
            return;
        };
        let rate = track.spec.codecs.first().map_or(90_000, |(_, c)| c.clock_rate());
        let Some(Some(s)) = track.subscriptions.get_mut(place) else {
            return;
        };
        if s.next_report != Some(at) {
            return;
        }
        // Begins again with the next packet.
        s.next_report = None;
        if s.current.is_none() {
            return;
        }
        let clock = s
            .clock_layer()
            .and_then(|l| track.layers.get(l))
            .and_then(|l| l.receiver.clock);
        let Some((ntp, rtp)) = s.sender_clock(clock, rate, wall_ntp, now) else {
            return;
        };
        let next = now + REPORTS;
        s.next_report = Some(next);
        self.timers.set(next, Job::Describe(key, place));
        self.scratch.clear();
        let (packets, bytes) = (s.packets as u32, s.bytes as u32);
        rtcp::sender_report(&mut self.scratch, s.binding.ssrc, ntp, rtp, packets, bytes);
        rtcp::source_description(&mut self.scratch, s.binding.ssrc, &track.cname);
        if let Some(Some(peer)) = self.peers.get_mut(s.binding.leg.0) {
            peer.send_rtcp(&self.scratch, batch);
        }
    }

    fn feedback(&mut self, leg: LegKey, at: Instant, batch: &mut SendBatch) {
        let Some(Some(peer)) = self.peers.get_mut(leg.0) else {
            return;
        };
        if peer.next_twcc != Some(at) {
            return;
        }
        peer.next_twcc = None;
        let media = peer.sources.keys().next().copied().unwrap_or(0);
        let sender = peer.feedback_ssrc;
        while let Some(packet) = peer.twcc.as_mut().and_then(|r| r.feedback(sender, media)) {
            peer.send_rtcp(&packet, batch);
        }
    }

    fn report_to_publisher(&mut self, leg: LegKey, at: Instant, now: Instant, batch: &mut SendBatch) {
        let Some(Some(peer)) = self.peers.get_mut(leg.0) else {
            return;
        };
        if peer.next_report != Some(at) {
            return;
        }
        // Begins again with the next source.
        peer.next_report = None;
        if peer.sources.is_empty() {
            return;
        }
        let next = now + REPORTS;
        peer.next_report = Some(next);
        self.timers.set(next, Job::Report(leg));
        let mut blocks: Vec<ReportBlock> = Vec::new();
        let mut videos = Vec::new();
        let mut bound: Option<u64> = None;
        for (ssrc, source) in &peer.sources {
            let Source::Media { track, layer } = source else {
                continue;
            };
            let Some(Some(track)) = self.tracks.get_mut(track.0) else {
                continue;
            };
            if track.spec.kind == MediaKind::Video {
                videos.push(*ssrc);
                bound = [bound, track.spec.max_bitrate].into_iter().flatten().min();
            }
            if let Some(l) = track.layers.get_mut(*layer) {
                blocks.extend(l.receiver.report(*ssrc, now));
            }
        }
        for part in blocks.chunks(31) {
            self.scratch.clear();
            rtcp::receiver_report(&mut self.scratch, peer.feedback_ssrc, part);
            peer.send_rtcp(&self.scratch, batch);
        }
        // Without transport-wide feedback it has nothing else to go by; with it, the bound holds beside
        // what its own estimator finds.
        let offered = peer.twcc.is_none().then(|| REMB_BITRATE * videos.len() as u64);
        let bitrate = [bound, offered].into_iter().flatten().min();
        if let Some(bitrate) = bitrate.filter(|_| !videos.is_empty()) {
            self.scratch.clear();
            // Compound, led by a report as RFC 3550 asks.
            rtcp::receiver_report(&mut self.scratch, peer.feedback_ssrc, &[]);
            rtcp::remb(&mut self.scratch, peer.feedback_ssrc, bitrate, &videos);
            peer.send_rtcp(&self.scratch, batch);
        }
    }

    /// When something authentic of a publisher's media last came.
    pub(crate) fn last_packet(&self, session: SessionId) -> Option<Instant> {
        let tracks = self.tracks.iter().flatten();
        let own = tracks.filter(|track| track.spec.session == session);
        own.flat_map(|track| &track.layers)
            .filter_map(|layer| layer.last_packet)
            .max()
    }

    /// Counters of a session's published tracks and of its subscriptions.
    pub(crate) fn statistics(&self, session: SessionId) -> (Vec<TrackStatistics>, Vec<TrackStatistics>) {
        let mut published = Vec::new();
        let mut subscribed = Vec::new();
        for track in self.tracks.iter().flatten() {
            if track.spec.session == session {
                let sum = |f: &dyn Fn(&super::track::Layer) -> u64| track.layers.iter().map(f).sum();
                published.push(TrackStatistics {
                    sid: track.spec.sid.clone(),
                    kind: track.spec.kind,
                    packets: sum(&|l| l.receiver.packets),
                    bytes: sum(&|l| l.receiver.bytes),
                    lost: sum(&|l| l.receiver.lost()),
                    jitter: track
                        .layers
                        .iter()
                        .map(|l| l.receiver.jitter())
                        .max()
                        .unwrap_or_default(),
                    nacks: sum(&|l| l.receiver.nacks),
                    plis: sum(&|l| l.plis),
                    layer: track.highest_live(),
                    gaps: track.gaps.count,
                    gap_time: track.gaps.time,
                });
            }
            if let Some(Some(s)) = track.position(session).and_then(|at| track.subscriptions.get(at)) {
                subscribed.push(TrackStatistics {
                    sid: track.spec.sid.clone(),
                    kind: track.spec.kind,
                    packets: s.packets,
                    bytes: s.bytes,
                    lost: s.lost,
                    jitter: s.jitter,
                    nacks: s.nacks,
                    plis: s.plis,
                    layer: s
                        .current
                        .filter(|_| track.video())
                        .and_then(|at| track.layers.get(at))
                        .map(|layer| layer.quality),
                    gaps: s.gaps.count,
                    gap_time: s.gaps.time,
                });
            }
        }
        (published, subscribed)
    }
}
