//! Bits of a header extension, most significant first.
//!
//! Owns reading and writing at bit positions. Invariant: both are total; past the end there is nothing.

/// Reads bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, at: 0 }
    }

    /// Bits read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn bit(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// `count` bits, at most 32.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.bit()?);
        }
        Some(value)
    }

    /// A value below `n` in the non-symmetric code of the AV1 RTP specification, appendix A.8.1.
    pub(crate) fn non_symmetric(&mut self, n: u32) -> Option<u32> {
        let width = n.checked_ilog2()? + 1;
        let short = (1u32 << width).wrapping_sub(n);
        let value = self.bits(width - 1)?;
        if value < short {
            return Some(value);
        }
        Some((value << 1) - short + u32::from(self.bit()?))
    }
}

/// Longest value of a header extension, RFC 8285 section 4.3.
pub(crate) const MAX_EXTENSION: usize = 255;

/// Writes bits into a value of a header extension.
#[derive(Debug, Clone)]
pub(crate) struct BitWriter {
    bytes: [u8; MAX_EXTENSION],
    at: usize,
}

impl Default for BitWriter {
    fn default() -> Self {
        BitWriter {
            bytes: [0; MAX_EXTENSION],
            at: 0,
        }
    }
}

impl BitWriter {
    /// `None` if there is no room.
    pub(crate) fn bit(&mut self, bit: bool) -> Option<()> {
        let byte = self.bytes.get_mut(self.at / 8)?;
        *byte |= u8::from(bit) << (7 - self.at % 8);
        self.at += 1;
        Some(())
    }

    /// The low `count` bits of `value`.
    pub(crate) fn bits(&mut self, value: u32, count: u32) -> Option<()> {
        for i in (0..count).rev() {
            self.bit(value >> i & 1 == 1)?;
        }
        Some(())
    }

    /// `count` bits of `from`.
    pub(crate) fn copy(&mut self, from: &mut BitReader<'_>, count: usize) -> Option<()> {
        for _ in 0..count {
            self.bit(from.bit()?)?;
        }
        Some(())
    }

    /// What was written, the last byte filled with zeros.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.at.div_ceil(8)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut w = BitWriter::default();
        w.bits(5, 3).unwrap();
        w.bits(0xABCD, 16).unwrap();
        w.bit(true).unwrap();
        assert_eq!(w.bytes().len(), 3);
        let mut r = BitReader::new(w.bytes());
        assert_eq!(
            (r.bits(3), r.bits(16), r.bit()),
            (Some(5), Some(0xABCD), Some(true))
        );
        assert_eq!(r.bits(4), Some(0), "the fill");
        assert_eq!(r.bit(), None);
    }

    #[test]
    fn non_symmetric_values_of_the_specification() {
        // n = 5: 0, 1, 2 in two bits, 3 and 4 in three.
        let read = |bits: u8| BitReader::new(&[bits]).non_symmetric(5);
        assert_eq!(read(0b0000_0000), Some(0));
        assert_eq!(read(0b0100_0000), Some(1));
        assert_eq!(read(0b1000_0000), Some(2));
        assert_eq!(read(0b1100_0000), Some(3));
        assert_eq!(read(0b1110_0000), Some(4));
        assert_eq!(
            BitReader::new(&[]).non_symmetric(1),
            Some(0),
            "one value needs no bit"
        );
        assert_eq!(BitReader::new(&[0xFF]).non_symmetric(0), None);
    }

    #[test]
    fn a_full_writer_refuses() {
        let mut w = BitWriter::default();
        for _ in 0..MAX_EXTENSION {
            w.bits(1, 8).unwrap();
        }
        assert_eq!(w.bit(true), None);
        assert_eq!(w.bytes().len(), MAX_EXTENSION);
    }
}
