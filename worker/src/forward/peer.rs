//! One leg as forwarding sees it: keys, a route, and tables of who is who.
//!
//! Owns the SSRC and MID tables. Invariants: an SSRC enters a table only from an authenticated packet or
//! a description; tables are bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TrackKey;
use super::extension::Incoming;
use super::srtp::Srtp;
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
    pub(crate) extensions: Arc<Incoming>,
    pub(crate) sources: HashMap<u32, Source>,
    pub(crate) mids: HashMap<String, TrackKey>,
    /// Ours, media and RTX alike, to (track, place).
    pub(crate) sending: HashMap<u32, (TrackKey, usize)>,
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
            extensions: Arc::default(),
            sources: HashMap::new(),
            mids: HashMap::new(),
            sending: HashMap::new(),
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

    /// Seals and queues RTP. The header is parsed from what is about to leave.
    pub(crate) fn send_rtp(&mut self, packet: &[u8], batch: &mut SendBatch) {
        let (Some(route), Some(srtp)) = (self.route, self.srtp.as_mut()) else {
            return;
        };
        if let Some(header) = super::packet::Header::parse(packet)
            && let Ok(sealed) = srtp.seal_rtp(packet, &header)
        {
            batch.push(route, sealed);
        }
    }

    /// Seals and queues RTCP.
    pub(crate) fn send_rtcp(&mut self, packet: &[u8], batch: &mut SendBatch) {
        let (Some(route), Some(srtp)) = (self.route, self.srtp.as_mut()) else {
            return;
        };
        if let Ok(sealed) = srtp.seal_rtcp(packet) {
            batch.push(route, sealed);
        }
    }
}
