//! One leg as forwarding sees it: keys, a route, and tables of who is who.
//!
//! Owns the SSRC and MID tables. Invariants: an SSRC enters a table only from an authenticated packet or
//! a description; tables of what the peer says are bounded; an SSRC that is used again goes on with its
//! numbers, as long as the key is the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TrackKey;
use super::audio::select::{SpeakerPolicy, Stage};
use super::extension::Incoming;
use super::outgoing::{Departure, Outgoing};
use super::srtp::Srtp;
use super::subscription::{Dressed, Subscription, Trail};
use super::twcc::Recorder;
use crate::net::{Route, SendBatch};

/// SSRCs a leg may send on.
const MAX_SOURCES: usize = 512;
/// Round trip assumed until one is measured.
pub(crate) const DEFAULT_RTT: Duration = Duration::from_millis(100);

/// What an incoming SSRC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Media {
        track: TrackKey,
        layer: usize,
    },
    /// RFC 4588, repairs `layer`.
    Repair {
        track: TrackKey,
        layer: usize,
    },
}

/// Media plane of a leg.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) route: Option<Route>,
    pub(crate) srtp: Option<Srtp>,
    /// Whom it hears.
    pub(crate) stage: Stage,
    /// How that is chosen; `None` as for everybody.
    pub(crate) speakers: Option<SpeakerPolicy>,
    /// Microphones that it could hear.
    pub(crate) competing: usize,
    pub(crate) outgoing: Outgoing,
    pub(crate) extensions: Arc<Incoming>,
    pub(crate) sources: HashMap<u32, Source>,
    pub(crate) mids: HashMap<String, TrackKey>,
    /// Ours, media and RTX alike, to (track, place).
    pub(crate) sending: HashMap<u32, (TrackKey, usize)>,
    /// Next numbers of SSRCs of ours that no subscription uses any more.
    spent: HashMap<u32, u64>,
    /// Media SSRCs that the client was promised for good, and where the last stream under them ended.
    promised: HashMap<u32, Option<Trail>>,
    pub(crate) twcc: Option<Recorder>,
    pub(crate) next_twcc: Option<Instant>,
    /// The SSRC our feedback comes from.
    pub(crate) feedback_ssrc: u32,
    pub(crate) rtt: Option<Duration>,
    pub(crate) next_report: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(feedback_ssrc: u32) -> Self {
        Peer {
            route: None,
            srtp: None,
            stage: Stage::default(),
            speakers: None,
            competing: 0,
            outgoing: Outgoing::default(),
            extensions: Arc::default(),
            sources: HashMap::new(),
            mids: HashMap::new(),
            sending: HashMap::new(),
            spent: HashMap::new(),
            promised: HashMap::new(),
            twcc: None,
            next_twcc: None,
            feedback_ssrc,
            rtt: None,
            next_report: None,
        }
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.rtt.unwrap_or(DEFAULT_RTT)
    }

    /// Smooths as RFC 6298 does.
    pub(crate) fn note_rtt(&mut self, sample: Duration) {
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }

    /// Learns an SSRC; `false` if the table is full.
    pub(crate) fn learn(&mut self, ssrc: u32, source: Source) -> bool {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&ssrc) {
            return false;
        }
        self.sources.insert(ssrc, source);
        true
    }

    /// Forgets a track.
    pub(crate) fn forget(&mut self, track: TrackKey) {
        self.sources.retain(|_, s| match s {
            Source::Media { track: t, .. } | Source::Repair { track: t, .. } => *t != track,
        });
        self.mids.retain(|_, t| *t != track);
    }

    /// Takes new keys. Their counters begin anew.
    pub(crate) fn rekey(&mut self, srtp: Srtp) {
        self.srtp = Some(srtp);
        self.spent.clear();
    }

    /// Whatever is sent under this SSRC is one stream to the client.
    pub(crate) fn promise(&mut self, ssrc: u32) {
        self.promised.entry(ssrc).or_default();
    }

    /// A subscription begins: its SSRCs may have been used before.
    pub(crate) fn begin(&mut self, subscription: &mut Subscription, place: (TrackKey, usize)) {
        let (ssrc, rtx) = (subscription.binding.ssrc, subscription.binding.rtx_ssrc);
        subscription.follow(self.spent.remove(&ssrc), self.spent.remove(&rtx));
        if let Some(Some(trail)) = self.promised.get(&ssrc) {
            subscription.go_on(trail);
        }
        self.sending.insert(ssrc, place);
        self.sending.insert(rtx, place);
    }

    /// A subscription is over.
    pub(crate) fn end(&mut self, subscription: &Subscription) {
        let (ssrc, rtx) = (subscription.binding.ssrc, subscription.binding.rtx_ssrc);
        self.sending.remove(&ssrc);
        self.sending.remove(&rtx);
        if let (Some(ended), Some(trail)) = (self.promised.get_mut(&ssrc), subscription.trail()) {
            *ended = Some(trail);
        }
        // Without keys nothing was sealed yet.
        if self.srtp.is_some() {
            let (media_next, rtx_next) = subscription.spent();
            self.spent.insert(ssrc, media_next);
            self.spent.insert(rtx, rtx_next);
        }
    }

    /// Seals and queues the packet that was appended to the batch since `start`; takes it back where that
    /// can't be.
    pub(crate) fn seal(
        &mut self,
        batch: &mut SendBatch,
        start: usize,
        dressed: &Dressed,
        repair: bool,
        now: Instant,
    ) {
        let sealed = match (self.route, self.srtp.as_mut()) {
            (Some(route), Some(srtp)) => srtp
                .seal_rtp(
                    batch.buffer(),
                    start,
                    dressed.header_len,
                    dressed.ssrc,
                    dressed.index,
                )
                .is_ok()
                .then_some(route),
            _ => None,
        };
        let Some(route) = sealed else {
            return batch.abort(start);
        };
        self.outgoing.left(Departure {
            number: dressed.number,
            size: batch.begin() - start,
            repair,
            at: now,
        });
        batch.commit(route, start);
    }

    /// Seals and queues RTCP.
    pub(crate) fn send_rtcp(&mut self, packet: &[u8], batch: &mut SendBatch) {
        let (Some(route), Some(srtp)) = (self.route, self.srtp.as_mut()) else {
            return;
        };
        let start = batch.begin();
        batch.buffer().extend_from_slice(packet);
        if srtp.seal_rtcp(batch.buffer(), start).is_ok() {
            batch.commit(route, start);
        } else {
            batch.abort(start);
        }
    }
}
