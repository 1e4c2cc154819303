//! The packets of one incoming stream that may be asked for again.
//!
//! Owns one buffer per published layer, shared by all its subscribers. Invariant: it holds at most
//! [`CAPACITY`] packets, each found by its own sequence number or not at all.

use bytes::Bytes;

/// About a second of video at 5 Mbit/s; a power of two.
pub(crate) const CAPACITY: usize = 512;

/// A decrypted packet as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) packet: Bytes,
}

/// Ring by sequence number.
#[derive(Debug, Default)]
pub(crate) struct PacketBuffer {
    slots: Vec<Option<Stored>>,
}

impl PacketBuffer {
    /// Keeps a packet, in place of the one a capacity older.
    pub(crate) fn insert(&mut self, sequence: u64, packet: Bytes) {
        if self.slots.is_empty() {
            self.slots.resize_with(CAPACITY, || None);
        }
        let at = sequence as usize % CAPACITY;
        if let Some(slot) = self.slots.get_mut(at)
            && slot.as_ref().is_none_or(|s| s.sequence <= sequence)
        {
            *slot = Some(Stored { sequence, packet });
        }
    }

    /// The packet, if it is still there.
    pub(crate) fn get(&self, sequence: u64) -> Option<&Bytes> {
        let slot = self.slots.get(sequence as usize % CAPACITY)?.as_ref()?;
        (slot.sequence == sequence).then_some(&slot.packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_packets_make_room() {
        let mut b = PacketBuffer::default();
        assert!(b.get(1).is_none());
        b.insert(1, Bytes::from_static(b"a"));
        b.insert(1 + CAPACITY as u64, Bytes::from_static(b"b"));
        assert!(b.get(1).is_none());
        assert_eq!(b.get(1 + CAPACITY as u64).unwrap(), "b");
        b.insert(1, Bytes::from_static(b"late"));
        assert!(b.get(1).is_none(), "a late packet doesn't displace a newer one");
    }
}
