//! Temporal layers of VP8, RFC 7741 section 4.2.
//!
//! Owns which temporal layer one subscriber has. Invariants: the lowest layer always leaves; up one layer
//! at a time, at a frame that refers to the lowest layer alone (Y), or all the way at a key frame; the
//! packets of a picture share one decision.

use super::log::{Fate, FrameLog};
use super::{Decision, Position, Target};
use crate::forward::codec::Vp8;

/// One subscriber's temporal layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vp8Layers {
    current: Option<u8>,
    log: FrameLog,
    picture: Option<u64>,
}

impl Vp8Layers {
    pub(crate) fn layers(&self) -> Option<Target> {
        self.current.map(|temporal| Target { spatial: 0, temporal })
    }

    /// Decides about a packet.
    pub(crate) fn select(&mut self, d: &Vp8, wanted: Target, at: Position) -> Decision {
        let forward = Decision::Forward { marker: at.marker };
        let (Some((id, wide)), Some((temporal, sync))) = (d.picture_id, d.temporal) else {
            return forward; // no layers to tell apart
        };
        let picture = self.extend(id, wide);
        match self.log.get(picture) {
            Fate::Forwarded => return forward,
            Fate::Dropped => return Decision::Drop,
            Fate::Unknown => {}
        }
        if at.newest && self.picture.is_none_or(|p| picture > p) {
            self.picture = Some(picture);
            let now = self.current.unwrap_or(wanted.temporal).min(wanted.temporal);
            self.current = Some(if d.key_frame {
                wanted.temporal
            } else if sync && temporal <= wanted.temporal && temporal == now.saturating_add(1) {
                temporal
            } else {
                now
            });
        }
        let leaves = self.current.is_none_or(|c| temporal <= c);
        self.log.set(picture, leaves);
        if leaves { forward } else { Decision::Drop }
    }

    fn extend(&self, id: u16, wide: bool) -> u64 {
        let Some(before) = self.picture else {
            return (1 << 20) + u64::from(id);
        };
        let span = if wide { 1u64 << 15 } else { 1 << 7 };
        let ahead = u64::from(id).wrapping_sub(before) % span;
        if ahead < span / 2 {
            before + ahead
        } else {
            (before + ahead).saturating_sub(span)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The usual pattern of three layers: 0 2 1 2, all synchronised but the second 2.
    const PATTERN: [(u8, bool); 4] = [(0, false), (2, true), (1, true), (2, false)];

    fn packet(picture: u16, temporal: u8, sync: bool, key: bool) -> Vp8 {
        let payload = [
            0x90,
            0xE0,
            0x80 | (picture >> 8) as u8,
            picture as u8,
            0,
            temporal << 6 | u8::from(sync) << 5,
            u8::from(!key),
            0,
            0,
        ];
        Vp8::parse(&payload).unwrap()
    }

    fn at(newest: bool) -> Position {
        Position {
            timestamp: 0,
            newest,
            marker: true,
        }
    }

    fn want(temporal: u8) -> Target {
        Target { spatial: 0, temporal }
    }

    fn run(s: &mut Vp8Layers, pictures: std::ops::Range<u16>, wanted: u8) -> Vec<u8> {
        let mut left = Vec::new();
        for i in pictures {
            let (temporal, sync) = PATTERN[usize::from(i) % 4];
            let d = packet(i, temporal, sync, i == 0);
            if s.select(&d, want(wanted), at(true)) != Decision::Drop {
                left.push(temporal);
            }
        }
        left
    }

    #[test]
    fn down_at_once_and_up_at_synchronised_frames() {
        let mut s = Vp8Layers::default();
        assert_eq!(run(&mut s, 0..4, 2), [0, 2, 1, 2]);
        assert_eq!(run(&mut s, 4..8, 0), [0]);
        // The first synchronised 2 comes before a 1 was entered: it is left out.
        assert_eq!(run(&mut s, 8..12, 2), [0, 1]);
        assert_eq!(run(&mut s, 12..16, 2), [0, 2, 1, 2]);
        assert_eq!(run(&mut s, 16..20, 1), [0, 1]);
    }

    #[test]
    fn late_packets_follow_their_picture() {
        let mut s = Vp8Layers::default();
        run(&mut s, 0..4, 2);
        run(&mut s, 4..8, 0);
        let late = packet(3, 2, false, false);
        assert_ne!(s.select(&late, want(0), at(false)), Decision::Drop);
        let late = packet(5, 2, true, false);
        assert_eq!(s.select(&late, want(2), at(false)), Decision::Drop);
    }

    #[test]
    fn a_stream_without_layers_passes() {
        let mut s = Vp8Layers::default();
        let d = Vp8::parse(&[0x90, 0x80, 0x81, 0x02, 1, 0, 0]).unwrap();
        assert_ne!(s.select(&d, want(0), at(true)), Decision::Drop);
    }
}
