//! What payloads say about themselves: key frames, and the VP8 descriptor that a switch rewrites.
//!
//! Owns payload parsing of VP8 (RFC 7741), H264 (RFC 6184), H265 (RFC 7798) and AV1's aggregation header;
//! VP9's descriptor is in [`super::svc::vp9`]. Every function is total: a malformed payload is "not a key
//! frame" or no descriptor. Nothing behind a codec's clear header is read, since frames may be encrypted
//! end to end.

use super::svc::vp9::Vp9;

const ALL: [Codec; 6] = [
    Codec::Opus,
    Codec::Vp8,
    Codec::H264,
    Codec::H265,
    Codec::Vp9,
    Codec::Av1,
];

/// Codecs this worker forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Codec {
    Opus,
    Vp8,
    H264,
    H265,
    Vp9,
    Av1,
}

impl Codec {
    /// By rtpmap encoding name, any case.
    pub(crate) fn from_name(name: &str) -> Option<Codec> {
        ALL.into_iter().find(|c| c.name().eq_ignore_ascii_case(name))
    }

    /// The rtpmap encoding name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Codec::Opus => "opus",
            Codec::Vp8 => "VP8",
            Codec::H264 => "H264",
            Codec::H265 => "H265",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
        }
    }

    /// As LiveKit writes it in TrackInfo.
    pub(crate) fn mime_type(self) -> &'static str {
        match self {
            Codec::Opus => "audio/opus",
            Codec::Vp8 => "video/VP8",
            Codec::H264 => "video/H264",
            Codec::H265 => "video/H265",
            Codec::Vp9 => "video/VP9",
            Codec::Av1 => "video/AV1",
        }
    }

    /// RTP clock.
    pub(crate) fn clock_rate(self) -> u32 {
        match self {
            Codec::Opus => 48_000,
            _ => 90_000,
        }
    }

    /// Whether decoding can start at this payload. Audio always can.
    pub(crate) fn starts_key_frame(self, payload: &[u8]) -> bool {
        match self {
            Codec::Opus => true,
            Codec::Vp8 => Vp8::parse(payload).is_some_and(|d| d.key_frame),
            Codec::H264 => h264_key_frame(payload),
            Codec::H265 => h265_key_frame(payload),
            Codec::Vp9 => Vp9::parse(payload).is_some_and(|d| d.key_frame()),
            // N bit: first packet of a coded video sequence.
            Codec::Av1 => payload.first().is_some_and(|b| b & 0x08 != 0),
        }
    }
}

/// SPS or IDR, alone, aggregated or as a first fragment.
fn h264_key_frame(payload: &[u8]) -> bool {
    let is_start = |nal: u8| matches!(nal & 0x1F, 5 | 7);
    let Some(&first) = payload.first() else {
        return false;
    };
    match first & 0x1F {
        24 => {
            let mut rest = payload.get(1..).unwrap_or_default();
            while let [hi, lo, nal @ ..] = rest {
                let len = usize::from(u16::from_be_bytes([*hi, *lo]));
                if nal.first().is_some_and(|n| is_start(*n)) {
                    return true;
                }
                rest = nal.get(len..).unwrap_or_default();
            }
            false
        }
        // FU-A: only the fragment with the start bit.
        28 => payload.get(1).is_some_and(|fu| fu & 0x80 != 0 && is_start(*fu)),
        _ => is_start(first),
    }
}

/// A parameter set or a picture of random access (types 16 to 23), alone, aggregated or as a first
/// fragment.
fn h265_key_frame(payload: &[u8]) -> bool {
    let is_start = |nal: u8| matches!(nal, 16..=23 | 32..=34);
    let kind = |first: u8| first >> 1 & 0x3F;
    let Some(&first) = payload.first() else {
        return false;
    };
    match kind(first) {
        48 => {
            let mut rest = payload.get(2..).unwrap_or_default();
            while let [hi, lo, nal @ ..] = rest {
                let len = usize::from(u16::from_be_bytes([*hi, *lo]));
                if nal.first().is_some_and(|n| is_start(kind(*n))) {
                    return true;
                }
                rest = nal.get(len..).unwrap_or_default();
            }
            false
        }
        // Only the fragment with the start bit.
        49 => payload
            .get(2)
            .is_some_and(|fu| fu & 0x80 != 0 && is_start(fu & 0x3F)),
        nal => is_start(nal),
    }
}

/// Where the fields of a VP8 payload descriptor are, and their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vp8 {
    pub(crate) key_frame: bool,
    /// Value and whether it has 15 bits.
    pub(crate) picture_id: Option<(u16, bool)>,
    pub(crate) tl0_index: Option<u8>,
    pub(crate) key_index: Option<u8>,
    /// Temporal layer, and whether the picture refers to the lowest one alone (Y).
    pub(crate) temporal: Option<(u8, bool)>,
    picture_at: usize,
    tl0_at: usize,
    key_at: usize,
}

impl Vp8 {
    /// RFC 7741 section 4.2.
    pub(crate) fn parse(payload: &[u8]) -> Option<Vp8> {
        let b0 = *payload.first()?;
        let mut at = 1;
        let mut out = Vp8 {
            key_frame: false,
            picture_id: None,
            tl0_index: None,
            key_index: None,
            temporal: None,
            picture_at: 0,
            tl0_at: 0,
            key_at: 0,
        };
        if b0 & 0x80 != 0 {
            let x = *payload.get(1)?;
            at = 2;
            if x & 0x80 != 0 {
                let first = *payload.get(at)?;
                out.picture_at = at;
                if first & 0x80 != 0 {
                    let second = *payload.get(at + 1)?;
                    out.picture_id = Some((u16::from(first & 0x7F) << 8 | u16::from(second), true));
                    at += 2;
                } else {
                    out.picture_id = Some((u16::from(first), false));
                    at += 1;
                }
            }
            if x & 0x40 != 0 {
                out.tl0_at = at;
                out.tl0_index = Some(*payload.get(at)?);
                at += 1;
            }
            if x & 0x30 != 0 {
                let byte = *payload.get(at)?;
                if x & 0x20 != 0 {
                    out.temporal = Some((byte >> 6, byte & 0x20 != 0));
                }
                if x & 0x10 != 0 {
                    out.key_at = at;
                    out.key_index = Some(byte & 0x1F);
                }
                at += 1;
            }
        }
        // S bit with partition 0: the first byte of the frame's own header follows, P = 0 for key.
        let starts = b0 & 0x10 != 0 && b0 & 0x07 == 0;
        out.key_frame = starts && payload.get(at).is_some_and(|b| b & 0x01 == 0);
        Some(out)
    }

    /// Its running numbers; 0 where it has none.
    pub(crate) fn numbers(&self) -> Vp8Numbers {
        Vp8Numbers {
            picture_id: self.picture_id.map_or(0, |p| p.0),
            tl0_index: self.tl0_index.unwrap_or(0),
            key_index: self.key_index.unwrap_or(0),
        }
    }

    /// Writes the numbers of `to` over those of the payload this was parsed from. Widths are kept.
    pub(crate) fn rewrite(&self, payload: &mut [u8], to: &Vp8Numbers) {
        match self.picture_id {
            Some((_, true)) => {
                if let Some(p) = payload.get_mut(self.picture_at..self.picture_at + 2) {
                    p[0] = 0x80 | ((to.picture_id >> 8) as u8 & 0x7F);
                    p[1] = to.picture_id as u8;
                }
            }
            Some((_, false)) => {
                if let Some(p) = payload.get_mut(self.picture_at) {
                    *p = to.picture_id as u8 & 0x7F;
                }
            }
            None => {}
        }
        if self.tl0_index.is_some()
            && let Some(p) = payload.get_mut(self.tl0_at)
        {
            *p = to.tl0_index;
        }
        if self.key_index.is_some()
            && let Some(p) = payload.get_mut(self.key_at)
        {
            *p = (*p & 0xE0) | (to.key_index & 0x1F);
        }
    }
}

/// The three running numbers of a VP8 stream as it leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Vp8Numbers {
    pub(crate) picture_id: u16,
    pub(crate) tl0_index: u8,
    pub(crate) key_index: u8,
}

/// Pictures held back that late packets are told apart by.
const DROPPED: usize = 32;

/// Keeps a subscriber's VP8 numbers running across switches of layer and pictures held back.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Vp8Munger {
    offset: Vp8Numbers,
    last: Option<Vp8Numbers>,
    /// Ids of pictures held back since the last switch, as they came; a ring.
    dropped: [Option<u16>; DROPPED],
    next_drop: usize,
}

impl Vp8Munger {
    /// The source changes at a packet with these numbers: they follow on from the last.
    pub(crate) fn switch_to(&mut self, input: Vp8Numbers) {
        self.dropped = [None; DROPPED];
        let Some(last) = self.last else { return };
        self.offset = Vp8Numbers {
            picture_id: last.picture_id.wrapping_add(1).wrapping_sub(input.picture_id),
            tl0_index: last.tl0_index.wrapping_add(1).wrapping_sub(input.tl0_index),
            key_index: last.key_index.wrapping_add(1).wrapping_sub(input.key_index),
        };
    }

    /// A new picture isn't forwarded: the ids of those after it close up. Called for every packet of it.
    pub(crate) fn drop_picture(&mut self, packet: &Vp8) {
        let Some((id, _)) = packet.picture_id else { return };
        if self.dropped.contains(&Some(id)) {
            return;
        }
        if let Some(slot) = self.dropped.get_mut(self.next_drop % DROPPED) {
            *slot = Some(id);
        }
        self.next_drop = (self.next_drop + 1) % DROPPED;
        self.offset.picture_id = self.offset.picture_id.wrapping_sub(1);
    }

    /// The numbers a packet leaves with; `newest` where it isn't a late one, `wide` where its picture id
    /// has 15 bits.
    pub(crate) fn map_numbers(&mut self, input: Vp8Numbers, wide: bool, newest: bool) -> Vp8Numbers {
        let mask = if wide { 0x7FFF } else { 0x7F };
        let mut offset = self.offset.picture_id;
        if !newest {
            // Pictures held back after this one don't move it.
            let later = |d: &&u16| {
                let ahead = d.wrapping_sub(input.picture_id) & mask;
                ahead != 0 && ahead <= mask / 2
            };
            offset = offset.wrapping_add(self.dropped.iter().flatten().filter(later).count() as u16);
        }
        let out = Vp8Numbers {
            picture_id: input.picture_id.wrapping_add(offset) & mask,
            tl0_index: input.tl0_index.wrapping_add(self.offset.tl0_index),
            key_index: input.key_index.wrapping_add(self.offset.key_index) & 0x1F,
        };
        if newest {
            self.last = Some(out);
        }
        out
    }

    /// As [`Self::switch_to`], from a descriptor.
    pub(crate) fn switch(&mut self, first: &Vp8) {
        self.switch_to(first.numbers());
    }

    /// As [`Self::map_numbers`], from a descriptor.
    pub(crate) fn map(&mut self, packet: &Vp8, newest: bool) -> Vp8Numbers {
        let wide = packet.picture_id.is_some_and(|p| p.1);
        self.map_numbers(packet.numbers(), wide, newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vp8(picture: u16, tl0: u8, key_index: u8, key: bool) -> Vec<u8> {
        vec![
            0x90,
            0xF0,
            0x80 | (picture >> 8) as u8,
            picture as u8,
            tl0,
            key_index,
            u8::from(!key),
            0,
            0,
        ]
    }

    #[test]
    fn vp8_descriptor_is_read_and_rewritten() {
        let mut p = vp8(0x1234, 7, 3, true);
        let d = Vp8::parse(&p).unwrap();
        assert_eq!(
            (d.key_frame, d.picture_id, d.tl0_index, d.key_index),
            (true, Some((0x1234, true)), Some(7), Some(3))
        );
        d.rewrite(
            &mut p,
            &Vp8Numbers {
                picture_id: 0x7001,
                tl0_index: 200,
                key_index: 31,
            },
        );
        let d = Vp8::parse(&p).unwrap();
        assert_eq!(
            (d.picture_id, d.tl0_index, d.key_index),
            (Some((0x7001, true)), Some(200), Some(31))
        );
        assert!(!Vp8::parse(&vp8(1, 1, 1, false)).unwrap().key_frame);
    }

    #[test]
    fn vp8_numbers_run_on_over_a_switch() {
        let mut m = Vp8Munger::default();
        let a = Vp8::parse(&vp8(100, 10, 1, true)).unwrap();
        assert_eq!(m.map(&a, true).picture_id, 100);
        let b = Vp8::parse(&vp8(0x7FFF, 255, 30, true)).unwrap();
        m.switch(&b);
        assert_eq!(
            m.map(&b, true),
            Vp8Numbers {
                picture_id: 101,
                tl0_index: 11,
                key_index: 2
            }
        );
        let c = Vp8::parse(&vp8(0, 0, 30, false)).unwrap();
        assert_eq!(
            m.map(&c, true),
            Vp8Numbers {
                picture_id: 102,
                tl0_index: 12,
                key_index: 2
            }
        );
    }

    #[test]
    fn pictures_held_back_leave_no_hole() {
        let mut m = Vp8Munger::default();
        let at = |p: u16| Vp8::parse(&vp8(p, 10, 1, p == 100)).unwrap();
        assert_eq!(m.map(&at(100), true).picture_id, 100);
        assert_eq!(m.map(&at(101), true).picture_id, 101);
        for _ in 0..3 {
            m.drop_picture(&at(102)); // three packets of one picture
        }
        m.drop_picture(&at(104));
        assert_eq!(m.map(&at(105), true).picture_id, 103);
        assert_eq!(m.map(&at(103), false).picture_id, 102, "late, between the two");
        assert_eq!(m.map(&at(101), false).picture_id, 101, "late, before both");
        m.switch(&at(5000));
        assert_eq!(m.map(&at(5000), true).picture_id, 104);
    }

    #[test]
    fn vp8_temporal_layer_is_read() {
        let p = [0x90, 0xE0, 0x81, 0x00, 0, 0xA0, 0, 0, 0];
        assert_eq!(Vp8::parse(&p).unwrap().temporal, Some((2, true)));
        assert_eq!(Vp8::parse(&[0x90, 0x80, 0x01, 0]).unwrap().temporal, None);
    }

    #[test]
    fn h265_key_frames() {
        let nal = |kind: u8| [kind << 1, 1, 0xAA];
        for (kind, key) in [
            (1, false),
            (15, false),
            (16, true),
            (19, true),
            (21, true),
            (32, true),
            (33, true),
            (34, true),
            (39, false),
        ] {
            assert_eq!(Codec::H265.starts_key_frame(&nal(kind)), key, "{kind}");
        }
        let aggregate = |first: u8, second: u8| [48 << 1, 1, 0, 2, first << 1, 1, 0, 2, second << 1, 1];
        assert!(Codec::H265.starts_key_frame(&aggregate(39, 32)));
        assert!(!Codec::H265.starts_key_frame(&aggregate(39, 1)));
        assert!(!Codec::H265.starts_key_frame(&[48 << 1, 1, 0xFF, 0xFF, 2]));
        assert!(Codec::H265.starts_key_frame(&[49 << 1, 1, 0x80 | 19]));
        assert!(
            !Codec::H265.starts_key_frame(&[49 << 1, 1, 0x40 | 19]),
            "the last fragment"
        );
        assert!(!Codec::H265.starts_key_frame(&[49 << 1, 1, 0x80 | 1]));
    }

    #[test]
    fn h264_key_frames() {
        assert!(Codec::H264.starts_key_frame(&[0x67, 1]));
        assert!(Codec::H264.starts_key_frame(&[0x65, 1]));
        assert!(!Codec::H264.starts_key_frame(&[0x61, 1]));
        assert!(Codec::H264.starts_key_frame(&[24, 0, 1, 0x09, 0, 2, 0x67, 0]));
        assert!(!Codec::H264.starts_key_frame(&[24, 0, 1, 0x09, 0xFF, 0xFF, 0x61]));
        assert!(Codec::H264.starts_key_frame(&[28, 0x85]));
        assert!(!Codec::H264.starts_key_frame(&[28, 0x05]));
        assert!(!Codec::H264.starts_key_frame(&[]));
    }

    #[test]
    fn short_payloads_never_panic() {
        for c in ALL {
            for b0 in 0..=255u8 {
                for len in 0..5 {
                    let _ = c.starts_key_frame(&vec![b0; len]);
                }
            }
        }
    }
}
