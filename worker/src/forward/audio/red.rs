//! Redundant audio data, RFC 2198: a packet that carries the ones before it along.
//!
//! Owns the format, both ways. Invariants: reading is total and bounded, whatever the bytes; what is
//! written is no longer than [`MAX_BYTES`], or nothing is written.

/// Redundant blocks of one packet; libwebrtc sends one or two and never more than nine.
pub(crate) const MAX_BLOCKS: usize = 9;
/// Redundant blocks that we write.
pub(crate) const MAX_LEVELS: usize = 2;
/// A payload of ours that fits a path of 1,200 bytes, with headers, extensions and authentication tag.
pub(crate) const MAX_BYTES: usize = 1_100;
/// The offset has 14 bits, the length 10.
const MAX_OFFSET: u32 = 1 << 14;
const MAX_LENGTH: usize = 1 << 10;
/// Bytes before the primary's own: its payload type.
const LAST_HEADER: usize = 1;
const HEADER: usize = 4;
/// Another header follows.
const FOLLOWS: u8 = 0x80;

/// A redundant block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Block<'a> {
    pub(crate) payload_type: u8,
    /// Its timestamp is that of the packet less this; not 0.
    pub(crate) offset: u16,
    /// Where in the payload it is.
    pub(crate) start: usize,
    /// Not empty.
    pub(crate) data: &'a [u8],
}

/// A packet taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Red<'a> {
    blocks: [Block<'a>; MAX_BLOCKS],
    count: usize,
    pub(crate) payload_type: u8,
    /// The packet's own content.
    pub(crate) primary: &'a [u8],
}

impl<'a> Red<'a> {
    /// `None`: cut short, more blocks than anybody sends, or no content.
    pub(crate) fn parse(payload: &'a [u8]) -> Option<Red<'a>> {
        let mut heads = [(0u8, 0u16, 0usize); MAX_BLOCKS];
        let mut count = 0;
        let mut rest = payload;
        let payload_type = loop {
            let (&first, tail) = rest.split_first()?;
            if first & FOLLOWS == 0 {
                rest = tail;
                break first;
            }
            let (head, tail) = rest.split_first_chunk::<HEADER>()?;
            let word = u32::from_be_bytes(*head);
            let offset = (word >> 10) & (MAX_OFFSET - 1);
            *heads.get_mut(count)? = (first & !FOLLOWS, offset as u16, word as usize & (MAX_LENGTH - 1));
            count += 1;
            rest = tail;
        };
        let mut blocks = [Block::default(); MAX_BLOCKS];
        for (block, (payload_type, offset, length)) in blocks.iter_mut().zip(heads).take(count) {
            let start = payload.len() - rest.len();
            let (data, tail) = rest.split_at_checked(length)?;
            rest = tail;
            *block = Block {
                payload_type,
                offset,
                start,
                data,
            };
        }
        (!rest.is_empty()).then_some(Red {
            blocks,
            count,
            payload_type,
            primary: rest,
        })
    }

    /// What came 1, 2, … packets earlier, by how many. Blocks that say nothing are left out.
    pub(crate) fn earlier(&self) -> impl Iterator<Item = (u64, &Block<'a>)> {
        let blocks = self.blocks.get(..self.count).unwrap_or_default();
        (1..)
            .zip(blocks.iter().rev())
            .filter(|(_, b)| !b.data.is_empty() && b.offset > 0)
    }
}

/// Renames payload type `from` to `to` in the headers. Of what isn't redundant audio data, as much is
/// changed as looks like it.
pub(crate) fn translate(payload: &mut [u8], from: u8, to: u8) {
    let mut rest = payload;
    while let Some((first, tail)) = rest.split_first_mut() {
        if *first & !FOLLOWS == from {
            *first = (*first & FOLLOWS) | (to & !FOLLOWS);
        }
        if *first & FOLLOWS == 0 {
            return;
        }
        rest = tail.get_mut(HEADER - 1..).unwrap_or_default();
    }
}

/// What goes along with a packet: the ones before it, latest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Redundancy<'a> {
    blocks: [(u16, &'a [u8]); MAX_LEVELS],
    count: usize,
}

impl<'a> Redundancy<'a> {
    /// Takes of `earlier` (timestamp and payload, latest first, without a gap) what fits with `primary`.
    pub(crate) fn collect(
        timestamp: u32,
        primary: &[u8],
        levels: usize,
        earlier: impl Iterator<Item = (u32, &'a [u8])>,
    ) -> Self {
        let mut out = Redundancy::default();
        let mut bytes = LAST_HEADER + primary.len();
        for ((then, data), slot) in earlier.take(levels).zip(&mut out.blocks) {
            let offset = timestamp.wrapping_sub(then);
            bytes += HEADER + data.len();
            if offset == 0
                || offset >= MAX_OFFSET
                || data.is_empty()
                || data.len() >= MAX_LENGTH
                || bytes > MAX_BYTES
            {
                break;
            }
            *slot = (offset as u16, data);
            out.count += 1;
        }
        out
    }

    fn blocks(&self) -> impl Iterator<Item = &(u16, &'a [u8])> {
        // On the wire the oldest comes first.
        self.blocks.get(..self.count).unwrap_or_default().iter().rev()
    }

    /// There is nothing to go along.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends the payload.
    pub(crate) fn write(&self, payload_type: u8, primary: &[u8], out: &mut Vec<u8>) {
        for (offset, data) in self.blocks() {
            let word = u32::from(FOLLOWS | payload_type) << 24 | u32::from(*offset) << 10 | data.len() as u32;
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.push(payload_type & !FOLLOWS);
        for (_, data) in self.blocks() {
            out.extend_from_slice(data);
        }
        out.extend_from_slice(primary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(timestamp: u32, primary: &[u8], levels: usize, earlier: &[(u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        Redundancy::collect(timestamp, primary, levels, earlier.iter().copied())
            .write(111, primary, &mut out);
        out
    }

    #[test]
    fn as_the_rfc_draws_it() {
        let bytes = written(1920, b"now", 2, &[(960, b"one"), (0, b"two!")]);
        let expected: &[u8] = &[
            0x80 | 111,
            0x1E,
            0x00,
            4, // offset 1920 << 10 | 4
            0x80 | 111,
            0x0F,
            0x00,
            3, // offset 960 << 10 | 3
            111,
        ];
        assert_eq!(bytes.get(..9), Some(expected));
        assert_eq!(bytes.get(9..), Some(&b"two!onenow"[..]));
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = written(5000, b"primary", 2, &[(4040, b"a"), (3080, b"bb")]);
        let red = Red::parse(&bytes).unwrap();
        assert_eq!((red.payload_type, red.primary), (111, &b"primary"[..]));
        assert!(
            red.earlier()
                .all(|(_, b)| bytes.get(b.start..b.start + b.data.len()) == Some(b.data))
        );
        let got: Vec<_> = red
            .earlier()
            .map(|(n, b)| (n, b.payload_type, b.offset, b.data))
            .collect();
        assert_eq!(got, vec![(1, 111, 960, &b"a"[..]), (2, 111, 1920, &b"bb"[..])]);
        let alone = written(5000, b"primary", 2, &[]);
        assert_eq!(alone.len(), 8);
        assert_eq!(Red::parse(&alone).unwrap().earlier().count(), 0);
    }

    #[test]
    fn levels_distance_and_size_are_limited() {
        let count = |timestamp, primary: &[u8], levels, earlier: &[(u32, &[u8])]| {
            Redundancy::collect(timestamp, primary, levels, earlier.iter().copied()).count
        };
        let near: [(u32, &[u8]); 3] = [(19_000, b"a"), (18_040, b"b"), (17_080, b"c")];
        assert_eq!(count(19_960, b"x", 3, &near), 2);
        assert_eq!(count(19_960, b"x", 1, &near), 1);
        assert_eq!(count(19_960, b"x", 0, &near), 0);
        assert_eq!(
            count(19_000 + (1 << 14), b"x", 2, &near),
            0,
            "the offset has 14 bits"
        );
        assert_eq!(count(18_040 + (1 << 14), b"x", 2, &near), 1);
        assert_eq!(count(18_999, b"x", 2, &near), 0, "not from the future");
        let long = [7; 1_023];
        let longer = [7; 1_024];
        assert_eq!(count(960, b"x", 1, &[(0, &long)]), 1);
        assert_eq!(count(960, b"x", 1, &[(0, &longer)]), 0, "the length has 10 bits");
        assert_eq!(
            count(960, &[1; 100], 1, &[(0, &long)]),
            0,
            "too long for the path"
        );
        assert_eq!(count(960, b"x", 1, &[(0, b"")]), 0);
        let bytes = written(1920, &[1; 366], 2, &[(960, &[2; 360]), (0, &[3; 365])]);
        assert_eq!(bytes.len(), MAX_BYTES);
    }

    #[test]
    fn payload_types_are_renamed_in_headers_alone() {
        let mut bytes = written(1920, &[111, 111], 2, &[(960, &[111, 0xEF]), (0, &[111])]);
        translate(&mut bytes, 111, 96);
        let red = Red::parse(&bytes).unwrap();
        assert_eq!((red.payload_type, red.primary), (96, &[111u8, 111][..]));
        assert!(
            red.earlier()
                .all(|(_, b)| b.payload_type == 96 && b.data[0] == 111)
        );
        translate(&mut bytes, 111, 5);
        assert_eq!(Red::parse(&bytes).unwrap().payload_type, 96);
    }

    #[test]
    fn nothing_that_arrives_panics() {
        let good = written(1920, b"primary", 2, &[(960, b"one"), (0, b"two!")]);
        for end in 0..good.len() {
            if let Some(red) = Red::parse(&good[..end]) {
                assert!(!red.primary.is_empty() && end < good.len());
            }
        }
        assert_eq!(Red::parse(&good[..16]), None, "no content is left");
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                if let Some(red) = Red::parse(&bytes) {
                    let all = red.primary.len() + red.earlier().map(|(_, b)| b.data.len()).sum::<usize>();
                    assert!(all < bytes.len());
                }
                translate(&mut bytes, 111, 5);
            }
        }
        // More blocks than are taken.
        let mut many = [0x80 | 111, 0x0F, 0, 0].repeat(MAX_BLOCKS);
        many.extend_from_slice(&[111, 1]);
        assert!(Red::parse(&many).is_some());
        many.splice(0..0, [0x80 | 111, 0x0F, 0, 0]);
        assert_eq!(Red::parse(&many), None);
        for n in 0..64 {
            assert_eq!(Red::parse(&vec![0xFF; n]), None);
        }
    }

    #[test]
    fn any_bytes_are_read_to_within_themselves() {
        // A linear congruence: any sequence will do, and this one is the same every time.
        let mut x = 1u32;
        let mut byte = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 24) as u8
        };
        let mut parsed = 0;
        for len in (0..40).cycle().take(20_000) {
            let bytes: Vec<u8> = (0..len).map(|_| byte()).collect();
            if let Some(red) = Red::parse(&bytes) {
                parsed += 1;
                let data: usize = red.earlier().map(|(_, b)| b.data.len()).sum();
                assert!(data + red.primary.len() < bytes.len());
            }
        }
        assert!(parsed > 1_000, "{parsed}");
    }
}
