//! Remembered packets: what was lost is sent again, what had to wait is sent at last.
//!
//! Owns the answer to a NACK and the one way from a record of a subscription back to a packet. Invariant:
//! what isn't in the layer's buffer any more isn't sent.

use std::sync::Arc;
use std::time::Instant;

use super::subscription::Resend;
use super::{Forwarder, LegKey, TrackKey};
use crate::net::SendBatch;

impl Forwarder {
    /// A subscription's leg and SSRC.
    pub(super) fn ssrc(&self, key: TrackKey, place: usize) -> Option<(LegKey, u32)> {
        let track = self.tracks.get(key.0)?.as_ref()?;
        let binding = &track.subscriptions.get(place)?.as_ref()?.binding;
        Some((binding.leg, binding.ssrc))
    }

    /// A receiver lacks packets of ours.
    pub(super) fn resend(
        &mut self,
        leg: LegKey,
        media: u32,
        sequences: &[u16],
        now: Instant,
        batch: &mut SendBatch,
    ) {
        let Some(Some(peer)) = self.peers.get(leg.0) else {
            return;
        };
        let Some((key, at)) = peer.sending.get(&media).copied() else {
            return;
        };
        let rtt = peer.rtt();
        for out in sequences {
            let (Some(Some(track)), Some(Some(peer))) =
                (self.tracks.get_mut(key.0), self.peers.get_mut(leg.0))
            else {
                return;
            };
            let Some(Some(s)) = track.subscriptions.get_mut(at) else {
                return;
            };
            let Some(what) = s.resend(*out, rtt, now) else {
                continue;
            };
            let layer = track.layers.get(what.layer);
            let Some(packet) = layer.and_then(|l| l.buffer.get(what.sequence)) else {
                continue;
            };
            if let Some(path) = &mut peer.outgoing.path
                && !path.repeats(s, (key, at), &what, packet.len(), now)
            {
                path.set_pace(leg, &mut self.pace);
                continue;
            }
            self.send_again((key, at), &what, true, now, batch);
        }
    }

    /// Writes and seals a packet that a subscription remembers.
    pub(super) fn send_again(
        &mut self,
        (key, place): (TrackKey, usize),
        what: &Resend,
        repair: bool,
        now: Instant,
        batch: &mut SendBatch,
    ) {
        let Some(Some(track)) = self.tracks.get_mut(key.0) else {
            return;
        };
        let Some(Some(publisher)) = self.peers.get(track.spec.leg.0) else {
            return;
        };
        let extensions = Arc::clone(&publisher.extensions);
        let codecs = &track.spec.codecs;
        let codec_of = |pt: u8| codecs.iter().find(|(p, _)| *p == pt).map(|(_, c)| *c);
        let layer = track.layers.get(what.layer);
        let Some(packet) = layer.and_then(|l| l.buffer.get(what.sequence)) else {
            return;
        };
        let Some(Some(s)) = track.subscriptions.get_mut(place) else {
            return;
        };
        let Some(Some(peer)) = self.peers.get_mut(s.binding.leg.0) else {
            return;
        };
        let start = batch.begin();
        let number = peer.outgoing.number();
        match s.repeat(what, packet, &extensions, &codec_of, number, batch.buffer()) {
            Some(dressed) => peer.seal(batch, start, &dressed, repair, now),
            None => batch.abort(start),
        }
    }
}
