//! Selection of VP9 layers by the payload descriptor alone, for streams or subscribers without a
//! dependency descriptor.
//!
//! Owns which spatial and temporal layer one subscriber has. Invariants: up in space at key pictures and at
//! frames that refer to nothing but the layer below; down between pictures, to a layer that was forwarded
//! without a hole (with K-SVC there is none, so a key picture is awaited and the frame rate lowered
//! meanwhile); up in time at switching points only.

use super::log::{Fate, FrameLog};
use super::vp9::Vp9;
use super::{Decision, Position, Target};

/// RFC 9628 has three bits for it.
const LAYERS: usize = 8;

/// One subscriber's layers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vp9Layers {
    current: Option<Target>,
    /// By picture and spatial layer.
    log: FrameLog,
    picture: Option<u64>,
    /// Everything of the spatial layer's lowest temporal layer left since it last began anew.
    whole: [bool; LAYERS],
    waits: bool,
}

impl Vp9Layers {
    pub(crate) fn layers(&self) -> Option<Target> {
        self.current
    }

    pub(crate) fn waits_for_key_frame(&self) -> bool {
        self.waits
    }

    /// Decides about a packet.
    pub(crate) fn select(&mut self, d: &Vp9, wanted: Target, at: Position) -> Decision {
        let picture = self.extend(d, at);
        let key = picture * LAYERS as u64 + u64::from(d.spatial);
        let forward = match self.log.get(key) {
            Fate::Unknown => {
                let newest = self.picture.is_none_or(|p| picture >= p)
                    && self.log.newest().is_none_or(|n| key > n)
                    && at.newest;
                if newest {
                    if self.picture != Some(picture) {
                        self.turn(d, picture, wanted);
                    }
                    self.picture = Some(picture);
                    self.climb(d, picture, wanted);
                }
                let forward = self.needed(d, picture);
                if newest {
                    self.account(d, forward);
                }
                self.log.set(key, forward);
                forward
            }
            fate => fate == Fate::Forwarded,
        };
        if !forward {
            return Decision::Drop;
        }
        let top = self.current.is_some_and(|c| c.spatial == d.spatial);
        Decision::Forward {
            marker: at.marker || (d.last && top),
        }
    }

    /// Pictures by their id; without one every timestamp would need a memory of its own, so that such a
    /// stream counts as one picture per packet that begins a lowest layer.
    fn extend(&self, d: &Vp9, at: Position) -> u64 {
        let Some((id, wide)) = d.picture_id else {
            let now = self.picture.unwrap_or(1 << 20);
            return if d.first && d.spatial == 0 && at.newest {
                now + 1
            } else {
                now
            };
        };
        let bits = if wide { 15 } else { 7 };
        let Some(before) = self.picture else {
            return (1 << 20) + u64::from(id);
        };
        let span = 1u64 << bits;
        let ahead = u64::from(id).wrapping_sub(before) % span;
        if ahead < span / 2 {
            before + ahead
        } else {
            (before + ahead).saturating_sub(span)
        }
    }

    /// A new picture begins.
    fn turn(&mut self, d: &Vp9, picture: u64, wanted: Target) {
        if d.key_frame() {
            let most = d.spatial_layers.map_or(u8::MAX, |n| n - 1);
            self.current = Some(Target {
                spatial: wanted.spatial.min(most).min(LAYERS as u8 - 1),
                temporal: wanted.temporal,
            });
            self.whole = [false; LAYERS];
            self.waits = false;
            return;
        }
        let Some(mut now) = self.current else {
            self.waits = true;
            return;
        };
        let whole = |s: u8| self.whole.get(usize::from(s)).copied().unwrap_or(false);
        if wanted.spatial < now.spatial && whole(wanted.spatial) {
            now.spatial = wanted.spatial;
        }
        if wanted.temporal < now.temporal {
            now.temporal = wanted.temporal;
        } else if d.switching_up && wanted.temporal > now.temporal {
            // What follows refers to nothing above this picture's layer from before it.
            if d.temporal <= now.temporal {
                now.temporal = wanted.temporal;
            } else if d.temporal == now.temporal + 1 && self.references_left(d, picture) {
                now.temporal = d.temporal;
            }
        }
        self.waits = wanted.spatial != now.spatial;
        if wanted.spatial < now.spatial {
            now.temporal = 0;
        }
        self.current = Some(now);
    }

    /// A frame of flexible mode names the pictures it refers to; others are trusted.
    fn references_left(&self, d: &Vp9, picture: u64) -> bool {
        d.differences.iter().filter(|d| **d != 0).all(|back| {
            picture
                .checked_sub(u64::from(*back))
                .is_some_and(|p| self.log.get(p * LAYERS as u64 + u64::from(d.spatial)) != Fate::Dropped)
        })
    }

    /// Up to a layer that refers to nothing but the one below, which left.
    fn climb(&mut self, d: &Vp9, picture: u64, wanted: Target) {
        if let Some(now) = &mut self.current
            && d.spatial == now.spatial + 1
            && d.spatial <= wanted.spatial
            && !d.inter_picture
            && d.inter_layer
            && self.log.get(picture * LAYERS as u64 + u64::from(now.spatial)) == Fate::Forwarded
        {
            now.spatial = d.spatial;
            self.waits = wanted.spatial != now.spatial;
        }
    }

    fn needed(&self, d: &Vp9, picture: u64) -> bool {
        let Some(now) = self.current else { return false };
        if d.temporal > now.temporal || d.spatial > now.spatial {
            return false;
        }
        if d.spatial < now.spatial && d.not_for_upper {
            return false;
        }
        let whole = self.whole.get(usize::from(d.spatial)).copied().unwrap_or(false);
        if d.inter_picture && !whole {
            return false;
        }
        let below = || {
            d.spatial
                .checked_sub(1)
                .is_none_or(|s| self.log.get(picture * LAYERS as u64 + u64::from(s)) != Fate::Dropped)
        };
        !d.inter_layer || below()
    }

    fn account(&mut self, d: &Vp9, forward: bool) {
        let Some(now) = self.current else { return };
        let Some(whole) = self.whole.get_mut(usize::from(d.spatial)) else {
            return;
        };
        if forward {
            *whole = *whole || !d.inter_picture;
        } else if d.temporal <= now.temporal {
            // Held back for another reason than its temporal layer.
            *whole = false;
            if d.spatial == now.spatial {
                self.current = None;
                self.waits = true;
            }
        }
    }
}
