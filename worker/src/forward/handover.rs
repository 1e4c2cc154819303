//! Incoming streams from one engine to the next.
//!
//! A sender names section and layer of a stream only until it is heard (RFC 8843 section 9.2), so whoever
//! goes on receiving it must be told which stream is which.

use super::peer::Source;
use super::{Forwarder, LegKey};
use crate::session::api::{SourceState, TrackSid};

impl Forwarder {
    /// Every stream that a leg sends, as far as it is known.
    pub(crate) fn sources(&mut self, leg: LegKey) -> Vec<SourceState> {
        let Some(peer) = self.peers.get(leg.0).and_then(Option::as_ref) else {
            return Vec::new();
        };
        let mut found: Vec<(bool, SourceState)> = Vec::new();
        for (ssrc, source) in &peer.sources {
            let (key, layer, repair) = match source {
                Source::Media { track, layer } => (*track, *layer, false),
                Source::Repair { track, layer } => (*track, *layer, true),
            };
            let Some(Some(track)) = self.tracks.get(key.0) else {
                continue;
            };
            let Some(layer) = track.layers.get(layer) else {
                continue;
            };
            let state = SourceState {
                ssrc: *ssrc,
                sid: track.spec.sid.clone(),
                rid: layer.rid.clone(),
                repair,
            };
            found.push((layer.ssrc == Some(*ssrc), state));
        }
        // The present stream of a layer after those that it had before: the last one counts.
        found.sort_by_key(|(present, state)| (*present, state.ssrc));
        found.into_iter().map(|(_, state)| state).collect()
    }

    /// Learns the streams of a published track from another engine.
    pub(crate) fn inherit(&mut self, sid: &TrackSid, sources: &[SourceState]) {
        let Some(key) = self.by_sid.get(sid).copied() else {
            return;
        };
        let Some(Some(track)) = self.tracks.get_mut(key.0) else {
            return;
        };
        let leg = track.spec.leg;
        let mut learned = Vec::new();
        for source in sources.iter().filter(|s| s.sid == *sid) {
            let Some(at) = track.layer_of(source.rid.as_bytes()) else {
                continue;
            };
            if source.repair {
                learned.push((
                    source.ssrc,
                    Source::Repair {
                        track: key,
                        layer: at,
                    },
                ));
            } else {
                if let Some(layer) = track.layers.get_mut(at) {
                    layer.ssrc = Some(source.ssrc);
                }
                learned.push((
                    source.ssrc,
                    Source::Media {
                        track: key,
                        layer: at,
                    },
                ));
            }
        }
        if let Some(peer) = self.peer(leg) {
            for (ssrc, source) in learned {
                peer.learn(ssrc, source);
            }
        }
    }
}
