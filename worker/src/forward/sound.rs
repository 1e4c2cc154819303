//! Sound on its way through the forwarder.
//!
//! Owns where the packets that [`super::audio`] restores join the others, what redundant data is made of,
//! and the count behind the choice of speakers.

use std::time::{Duration, Instant};

use super::Forwarder;
use super::audio::Part;
use super::audio::red::{Red, Redundancy};
use super::audio::select::SpeakerPolicy;
use super::extension::Passed;
use super::packet::Header;
use super::subscription::Padding;
use super::svc::Described;
use super::track::{Layer, Pending, Track};

/// Who takes part in the choice of speakers is counted this often.
const COUNT: Duration = Duration::from_millis(500);

impl Track {
    /// Earlier packets that number `sequence` brings along and that never came: they are pending before
    /// it, in their order.
    pub(super) fn restore(
        &mut self,
        red: &Red<'_>,
        header: &Header,
        layer: usize,
        sequence: u64,
        now: Instant,
    ) {
        let Some((_, inner)) = self.spec.sound.red else {
            return;
        };
        let first = self.pending.len();
        for (behind, block) in red.earlier() {
            let (Some(lost), Some(state)) = (sequence.checked_sub(behind), self.layers.get_mut(layer)) else {
                break;
            };
            if block.payload_type != inner || !state.receiver.lacks(lost) {
                continue;
            }
            let timestamp = header.timestamp.wrapping_sub(u32::from(block.offset));
            // A sender may leave packets out. Then the count is wrong, which its clock shows.
            let before = state.buffer.get(lost.wrapping_sub(1)).and_then(Header::parse);
            if before.is_some_and(|b| timestamp.wrapping_sub(b.timestamp) as i32 <= 0)
                || !self.sound.restored.insert(lost)
            {
                continue;
            }
            state.receiver.forgo(lost);
            let mut of_its_own = *header;
            of_its_own.marker = false;
            of_its_own.payload_type = inner;
            of_its_own.timestamp = timestamp;
            self.pending.push(Pending {
                header: of_its_own,
                passed: Passed::none(),
                codec: super::codec::Codec::Opus,
                described: Described::Plain,
                layer,
                sequence: lost,
                payload_len: block.data.len(),
                newest: false,
                starts: true,
                padding: Padding::default(),
                part: Part::Restored {
                    carrier: sequence,
                    start: header.header_len + block.start,
                    len: block.data.len(),
                },
                voice: None,
                now,
            });
        }
        if let Some(restored) = self.pending.get_mut(first..) {
            restored.reverse();
        }
    }
}

/// What goes along with `primary`, the payload of `p`: the packets just before it, as long as they are
/// all there.
pub(super) fn redundancy<'a>(
    p: &Pending,
    layers: &'a [Layer],
    primary: &[u8],
    levels: usize,
) -> Redundancy<'a> {
    let Some(layer) = layers
        .get(p.layer)
        .filter(|_| levels > 0 && p.part == Part::Whole)
    else {
        return Redundancy::default();
    };
    let earlier = (1..).map_while(|behind| {
        let packet = layer.buffer.get(p.sequence.checked_sub(behind)?)?;
        let header = Header::parse(packet)?;
        Some((header.timestamp, header.payload(packet)?))
    });
    Redundancy::collect(p.header.timestamp, primary, levels, earlier)
}

impl Forwarder {
    /// Whom large rooms hear, from now on.
    pub(crate) fn set_speakers(&mut self, policy: SpeakerPolicy) {
        self.speakers = policy;
    }

    /// Counts for everybody how many microphones they could hear.
    pub(super) fn count_speakers(&mut self, now: Instant) {
        if now < self.next_count {
            return;
        }
        self.next_count = now + COUNT;
        for peer in self.peers.iter_mut().flatten() {
            peer.competing = 0;
        }
        let competing = |t: &&Track| t.spec.sound.competes && !t.muted;
        for track in self.tracks.iter().flatten().filter(competing) {
            for subscription in track.subscriptions.iter().flatten() {
                if let Some(Some(peer)) = self.peers.get_mut(subscription.binding.leg.0) {
                    peer.competing += 1;
                }
            }
        }
        let policy = self.speakers;
        for peer in self.peers.iter_mut().flatten() {
            peer.stage.resize(peer.competing, peer.speakers.unwrap_or(policy));
        }
    }
}
