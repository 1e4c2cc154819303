//! An RTP packet seen once.
//!
//! Owns the one parse of every packet: [`Header`] holds offsets into the datagram and copies nothing.
//! Invariant: a `Header` made by [`Header::parse`] describes offsets that lie inside the bytes it was
//! parsed from, and `header_len` is a multiple of four (RFC 3550 section 5.1, RFC 8285).

/// Fixed part of the header.
const FIXED: usize = 12;
/// RFC 8285 section 4.2.
const ONE_BYTE_PROFILE: u16 = 0xBEDE;
/// RFC 8285 section 4.3, the low four bits are application bits.
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// Offsets and fields of one RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    /// Where the payload starts, in SRTP and in plain text alike.
    pub(crate) header_len: usize,
    padding: bool,
    extension_profile: u16,
    extension_start: usize,
    extension_end: usize,
}

impl Header {
    /// Parses the clear part of a packet; `None` if it isn't RTP version 2 or is cut short.
    pub(crate) fn parse(packet: &[u8]) -> Option<Header> {
        let fixed = packet.get(..FIXED)?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let csrc_end = FIXED + usize::from(fixed[0] & 0x0F) * 4;
        let mut header_len = csrc_end;
        let (mut profile, mut start, mut end) = (0, csrc_end, csrc_end);
        if fixed[0] & 0x10 != 0 {
            let head = packet.get(csrc_end..csrc_end + 4)?;
            profile = u16::from_be_bytes([head[0], head[1]]);
            start = csrc_end + 4;
            end = start + usize::from(u16::from_be_bytes([head[2], head[3]])) * 4;
            header_len = end;
        }
        if packet.len() < header_len {
            return None;
        }
        Some(Header {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7F,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            header_len,
            padding: fixed[0] & 0x20 != 0,
            extension_profile: profile,
            extension_start: start,
            extension_end: end,
        })
    }

    /// The payload of the decrypted packet without its padding (RFC 3550 section 5.1); empty for a
    /// packet that is padding alone, `None` where the padding count is impossible.
    pub(crate) fn payload<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let body = packet.get(self.header_len..)?;
        if !self.padding {
            return Some(body);
        }
        let count = usize::from(*body.last()?);
        if count == 0 || count > body.len() {
            return None;
        }
        body.get(..body.len() - count)
    }

    /// The header extensions in order, id and bytes.
    pub(crate) fn extensions<'a>(&self, packet: &'a [u8]) -> Extensions<'a> {
        let block = packet
            .get(self.extension_start..self.extension_end)
            .unwrap_or_default();
        let form = match self.extension_profile {
            ONE_BYTE_PROFILE => Form::OneByte,
            p if p & 0xFFF0 == TWO_BYTE_PROFILE => Form::TwoByte,
            _ => Form::Unknown,
        };
        Extensions {
            block,
            form,
            end: self.extension_end,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    OneByte,
    TwoByte,
    Unknown,
}

/// Iterator over RFC 8285 elements; ends early on a malformed block.
#[derive(Debug, Clone)]
pub(crate) struct Extensions<'a> {
    block: &'a [u8],
    form: Form,
    end: usize,
}

impl Extensions<'_> {
    /// Where the element that came last ends in the packet.
    pub(crate) fn position(&self) -> usize {
        self.end - self.block.len()
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.block.split_first()?;
            if first == 0 {
                self.block = rest; // padding between elements
                continue;
            }
            let (id, len, rest) = match self.form {
                Form::Unknown => return None,
                // Id 15 stops processing, RFC 8285 section 4.2.
                Form::OneByte if first >> 4 == 15 => return None,
                Form::OneByte => (first >> 4, usize::from(first & 0x0F) + 1, rest),
                Form::TwoByte => {
                    let (&len, rest) = rest.split_first()?;
                    (first, usize::from(len), rest)
                }
            };
            if rest.len() < len {
                self.block = &[];
                return None;
            }
            let (value, rest) = rest.split_at(len);
            self.block = rest;
            return Some((id, value));
        }
    }
}

/// What goes into a rewritten header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rewrite {
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
}

/// Appends a fixed header to `out`; no CSRC, no padding.
pub(crate) fn write_header(out: &mut Vec<u8>, head: &Rewrite) {
    let [s0, s1] = head.sequence.to_be_bytes();
    let [t0, t1, t2, t3] = head.timestamp.to_be_bytes();
    let [r0, r1, r2, r3] = head.ssrc.to_be_bytes();
    let kind = u8::from(head.marker) << 7 | (head.payload_type & 0x7F);
    // In one piece: this is done for every packet and subscriber.
    let fixed: [u8; FIXED] = [0x80, kind, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3];
    out.extend_from_slice(&fixed);
}

/// Appends an RFC 8285 block right after a header made by [`write_header`] and sets its X bit.
#[derive(Debug)]
pub(crate) struct ExtensionWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    two_byte: bool,
}

impl<'a> ExtensionWriter<'a> {
    /// `two_byte` where an element is longer than 16 bytes, empty, or its id is above 14.
    pub(crate) fn new(out: &'a mut Vec<u8>, two_byte: bool) -> Self {
        let start = out.len();
        let profile = if two_byte {
            TWO_BYTE_PROFILE
        } else {
            ONE_BYTE_PROFILE
        };
        let [p0, p1] = profile.to_be_bytes();
        out.extend_from_slice(&[p0, p1, 0, 0]);
        ExtensionWriter { out, start, two_byte }
    }

    /// Adds one element; one that doesn't fit the form is left out.
    pub(crate) fn push(&mut self, id: u8, value: &[u8]) {
        if self.two_byte {
            if value.len() <= 255 {
                self.out.extend_from_slice(&[id, value.len() as u8]);
                self.out.extend_from_slice(value);
            }
        } else if (1..=14).contains(&id) && (1..=16).contains(&value.len()) {
            self.out.push(id << 4 | (value.len() as u8 - 1));
            self.out.extend_from_slice(value);
        }
    }

    /// Adds padding between elements, where there are any.
    pub(crate) fn fill(&mut self, bytes: usize) {
        if self.out.len() > self.start + 4 {
            self.out.resize(self.out.len() + bytes, 0);
        }
    }

    /// Pads, writes the length; takes an empty block back.
    pub(crate) fn finish(self) {
        let body = self.out.len() - self.start - 4;
        if body == 0 {
            self.out.truncate(self.start);
            return;
        }
        let padded = body.next_multiple_of(4);
        self.out.resize(self.start + 4 + padded, 0);
        let words = (padded / 4) as u16;
        if let Some(length) = self.out.get_mut(self.start + 2..self.start + 4) {
            length.copy_from_slice(&words.to_be_bytes());
        }
        if let Some(first) = self.out.get_mut(self.start.wrapping_sub(FIXED)) {
            *first |= 0x10;
        }
    }
}

/// Extends 16-bit sequence numbers to 64 bits around the highest seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unwrapper {
    highest: Option<u64>,
}

impl Unwrapper {
    /// The extended number of `sequence`; the first is moved up one cycle so that older ones fit.
    pub(crate) fn unwrap(&mut self, sequence: u16) -> u64 {
        let extended = self.peek(sequence);
        if self.highest.is_none_or(|h| extended > h) {
            self.highest = Some(extended);
        }
        extended
    }

    /// As [`Self::unwrap`], without moving the highest.
    pub(crate) fn peek(&self, sequence: u16) -> u64 {
        let Some(highest) = self.highest else {
            return 0x1_0000 + u64::from(sequence);
        };
        let delta = sequence.wrapping_sub(highest as u16) as i16;
        highest.saturating_add_signed(i64::from(delta))
    }

    /// The highest seen so far.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(two_byte: bool) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(
            &mut out,
            &Rewrite {
                marker: true,
                payload_type: 96,
                sequence: 7,
                timestamp: 9,
                ssrc: 0xABCD,
            },
        );
        let mut w = ExtensionWriter::new(&mut out, two_byte);
        w.push(1, b"mid");
        w.push(4, &[1, 2]);
        w.finish();
        out.extend_from_slice(b"payload");
        out
    }

    #[test]
    fn what_is_written_is_read() {
        for form in [false, true] {
            let p = sample(form);
            let h = Header::parse(&p).unwrap();
            assert_eq!(
                (h.marker, h.payload_type, h.sequence, h.timestamp, h.ssrc),
                (true, 96, 7, 9, 0xABCD)
            );
            let got: Vec<_> = h.extensions(&p).collect();
            assert_eq!(got, vec![(1, &b"mid"[..]), (4, &[1u8, 2][..])]);
            assert_eq!(h.payload(&p).unwrap(), b"payload");
            assert_eq!(h.header_len % 4, 0);
        }
    }

    #[test]
    fn no_prefix_and_no_flip_of_a_packet_panics() {
        let p = sample(false);
        for end in 0..p.len() {
            if let Some(h) = Header::parse(&p[..end]) {
                let _ = h.extensions(&p[..end]).count();
                let _ = h.payload(&p[..end]);
            }
        }
        for i in 0..p.len() {
            for bit in 0..8 {
                let mut q = p.clone();
                q[i] ^= 1 << bit;
                if let Some(h) = Header::parse(&q) {
                    let _ = h.extensions(&q).count();
                    let _ = h.payload(&q);
                }
            }
        }
    }

    #[test]
    fn padding_is_cut_and_impossible_padding_refused() {
        let mut p = sample(false);
        p[0] |= 0x20;
        p.extend_from_slice(&[0, 0, 3]);
        let h = Header::parse(&p).unwrap();
        assert_eq!(h.payload(&p).unwrap(), b"payload");
        let last = p.len() - 1;
        p[last] = 200;
        assert_eq!(h.payload(&p), None);
    }

    #[test]
    fn sequence_numbers_unwrap_both_ways() {
        let mut u = Unwrapper::default();
        let a = u.unwrap(65_534);
        assert_eq!(u.unwrap(1), a + 3);
        assert_eq!(u.unwrap(65_535), a + 1);
        assert_eq!(u.highest(), Some(a + 3));
    }
}
