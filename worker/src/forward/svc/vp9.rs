//! The VP9 payload descriptor, RFC 9628 section 4.2.
//!
//! Owns its parsing and the rewriting of its running numbers. Invariant: parsing is total and bounded by
//! the payload.

/// A descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vp9 {
    /// P: refers to earlier pictures.
    pub(crate) inter_picture: bool,
    /// F
    pub(crate) flexible: bool,
    /// B and E
    pub(crate) first: bool,
    pub(crate) last: bool,
    /// Z: no higher spatial layer of the picture needs it.
    pub(crate) not_for_upper: bool,
    /// Value and whether it has 15 bits.
    pub(crate) picture_id: Option<(u16, bool)>,
    /// L: the four below are there.
    pub(crate) layered: bool,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// U: higher temporal layers may be entered here.
    pub(crate) switching_up: bool,
    /// D: needs the spatial layer below, of the same picture.
    pub(crate) inter_layer: bool,
    pub(crate) tl0_index: Option<u8>,
    /// Distances to the pictures it refers to; flexible mode only, 0: none.
    pub(crate) differences: [u8; 3],
    /// Spatial layers by the scalability structure, where the packet carries one.
    pub(crate) spatial_layers: Option<u8>,
    picture_at: usize,
    tl0_at: usize,
}

impl Vp9 {
    /// `None` where the payload is shorter than its descriptor says.
    pub(crate) fn parse(payload: &[u8]) -> Option<Vp9> {
        let b0 = *payload.first()?;
        let bit = |mask: u8| b0 & mask != 0;
        let mut out = Vp9 {
            inter_picture: bit(0x40),
            layered: bit(0x20),
            flexible: bit(0x10),
            first: bit(0x08),
            last: bit(0x04),
            not_for_upper: bit(0x01),
            picture_id: None,
            spatial: 0,
            temporal: 0,
            switching_up: false,
            inter_layer: false,
            tl0_index: None,
            differences: [0; 3],
            spatial_layers: None,
            picture_at: 0,
            tl0_at: 0,
        };
        let mut at = 1;
        if bit(0x80) {
            let first = *payload.get(at)?;
            out.picture_at = at;
            at += 1;
            out.picture_id = Some(if first & 0x80 != 0 {
                let second = *payload.get(at)?;
                at += 1;
                (u16::from(first & 0x7F) << 8 | u16::from(second), true)
            } else {
                (u16::from(first), false)
            });
        }
        if out.layered {
            let layer = *payload.get(at)?;
            at += 1;
            out.temporal = layer >> 5;
            out.switching_up = layer & 0x10 != 0;
            out.spatial = layer >> 1 & 7;
            out.inter_layer = layer & 1 != 0;
            if !out.flexible {
                out.tl0_at = at;
                out.tl0_index = Some(*payload.get(at)?);
                at += 1;
            }
        }
        if out.flexible && out.inter_picture {
            for slot in &mut out.differences {
                let byte = *payload.get(at)?;
                at += 1;
                *slot = byte >> 1;
                if byte & 1 == 0 {
                    break;
                }
            }
        }
        if bit(0x02) {
            out.spatial_layers = Some(skip_structure(payload, &mut at)?);
        }
        Some(out)
    }

    /// Decoding of the lowest spatial layer can start at this packet.
    pub(crate) fn key_frame(&self) -> bool {
        !self.inter_picture && self.first && self.spatial == 0
    }

    /// Writes the running numbers over those of the payload this was parsed from. Widths are kept.
    pub(crate) fn rewrite(&self, payload: &mut [u8], picture_id: u16, tl0_index: u8) {
        match self.picture_id {
            Some((_, true)) => {
                if let Some([high, low]) = payload.get_mut(self.picture_at..self.picture_at + 2) {
                    *high = 0x80 | (picture_id >> 8) as u8 & 0x7F;
                    *low = picture_id as u8;
                }
            }
            Some((_, false)) => {
                if let Some(p) = payload.get_mut(self.picture_at) {
                    *p = picture_id as u8 & 0x7F;
                }
            }
            None => {}
        }
        if self.tl0_index.is_some()
            && let Some(p) = payload.get_mut(self.tl0_at)
        {
            *p = tl0_index;
        }
    }
}

/// Moves `at` past a scalability structure; returns its number of spatial layers.
fn skip_structure(payload: &[u8], at: &mut usize) -> Option<u8> {
    let head = *payload.get(*at)?;
    *at += 1;
    let layers = (head >> 5) + 1;
    if head & 0x10 != 0 {
        *at += 4 * usize::from(layers);
    }
    if head & 0x08 != 0 {
        let pictures = *payload.get(*at)?;
        *at += 1;
        for _ in 0..pictures {
            let picture = *payload.get(*at)?;
            *at += 1 + usize::from(picture >> 2 & 3);
        }
    }
    (*at <= payload.len()).then_some(layers)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a test wants said.
    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct Spec {
        pub(crate) inter_picture: bool,
        pub(crate) flexible: bool,
        pub(crate) first: bool,
        pub(crate) last: bool,
        pub(crate) not_for_upper: bool,
        pub(crate) picture_id: u16,
        pub(crate) spatial: u8,
        pub(crate) temporal: u8,
        pub(crate) switching_up: bool,
        pub(crate) inter_layer: bool,
        pub(crate) tl0_index: u8,
        pub(crate) differences: [u8; 3],
        pub(crate) spatial_layers: Option<u8>,
    }

    /// Written by the tables of the RFC, not by the parser.
    pub(crate) fn payload(s: &Spec) -> Vec<u8> {
        let flag = |on: bool, mask: u8| if on { mask } else { 0 };
        let mut p = vec![
            0x80 | 0x20
                | flag(s.inter_picture, 0x40)
                | flag(s.flexible, 0x10)
                | flag(s.first, 0x08)
                | flag(s.last, 0x04)
                | flag(s.spatial_layers.is_some(), 0x02)
                | flag(s.not_for_upper, 0x01),
            0x80 | (s.picture_id >> 8) as u8,
            s.picture_id as u8,
            s.temporal << 5 | flag(s.switching_up, 0x10) | s.spatial << 1 | flag(s.inter_layer, 1),
        ];
        if !s.flexible {
            p.push(s.tl0_index);
        }
        if s.flexible && s.inter_picture {
            let used: Vec<u8> = s.differences.iter().copied().filter(|d| *d != 0).collect();
            for (i, d) in used.iter().enumerate() {
                p.push(d << 1 | u8::from(i + 1 < used.len()));
            }
        }
        if let Some(layers) = s.spatial_layers {
            p.push((layers - 1) << 5 | 0x10 | 0x08);
            p.extend(std::iter::repeat_n(1, 4 * usize::from(layers)));
            p.extend_from_slice(&[2, 0x04, 1, 0x38, 1, 2]);
        }
        p.extend_from_slice(&[0xAA; 8]);
        p
    }

    #[test]
    fn every_field_is_read() {
        let spec = Spec {
            inter_picture: true,
            first: true,
            last: true,
            not_for_upper: true,
            picture_id: 0x1234,
            spatial: 2,
            temporal: 1,
            switching_up: true,
            inter_layer: true,
            tl0_index: 77,
            spatial_layers: Some(3),
            ..Spec::default()
        };
        let d = Vp9::parse(&payload(&spec)).unwrap();
        assert!(d.inter_picture && d.first && d.last && d.not_for_upper && d.switching_up && d.inter_layer);
        assert_eq!((d.spatial, d.temporal, d.tl0_index), (2, 1, Some(77)));
        assert_eq!(d.picture_id, Some((0x1234, true)));
        assert_eq!(d.spatial_layers, Some(3));
        assert!(!d.flexible && !d.key_frame());

        let flexible = Spec {
            flexible: true,
            differences: [1, 4, 0],
            spatial_layers: None,
            ..spec
        };
        let d = Vp9::parse(&payload(&flexible)).unwrap();
        assert_eq!((d.differences, d.tl0_index), ([1, 4, 0], None));
    }

    #[test]
    fn numbers_are_rewritten_in_place() {
        let spec = Spec {
            picture_id: 5,
            tl0_index: 9,
            first: true,
            ..Spec::default()
        };
        let mut p = payload(&spec);
        let before = p.clone();
        let d = Vp9::parse(&p).unwrap();
        d.rewrite(&mut p, 0x7ABC, 200);
        let after = Vp9::parse(&p).unwrap();
        assert_eq!(
            (after.picture_id, after.tl0_index),
            (Some((0x7ABC, true)), Some(200))
        );
        d.rewrite(&mut p, 5, 9);
        assert_eq!(p, before);
        assert_eq!(p[0], before[0]);
    }

    #[test]
    fn no_prefix_and_no_flip_panics() {
        let p = payload(&Spec {
            inter_picture: true,
            flexible: true,
            differences: [1, 2, 3],
            spatial_layers: Some(3),
            ..Spec::default()
        });
        let whole = Vp9::parse(&p);
        assert!(whole.is_some());
        for end in 0..p.len() {
            let _ = Vp9::parse(&p[..end]);
        }
        for i in 0..p.len() * 8 {
            let mut q = p.clone();
            q[i / 8] ^= 1 << (i % 8);
            if let Some(d) = Vp9::parse(&q) {
                d.rewrite(&mut q, 1, 1);
            }
        }
    }

    #[test]
    fn key_frames_are_of_the_lowest_layer() {
        let key = Spec {
            first: true,
            ..Spec::default()
        };
        let is = |s: &Spec| Vp9::parse(&payload(s)).unwrap().key_frame();
        assert!(is(&key));
        assert!(!is(&Spec { spatial: 1, ..key }));
        assert!(!is(&Spec { first: false, ..key }));
        assert!(!is(&Spec {
            inter_picture: true,
            ..key
        }));
    }
}
