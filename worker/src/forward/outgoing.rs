//! What leaves on one leg, in the order in which it leaves.
//!
//! Owns the leg's transport-wide numbers (draft-holmer-rmcat-transport-wide-cc-extensions-01). This is where
//! congestion control joins: [`Outgoing::number`] is written into a packet while it is dressed, and
//! [`Outgoing::left`] is told of every RTP packet once it is sealed, with its size on the wire and the
//! moment, so an estimator sees exactly what the feedback will be about. A pacer stands before it: a
//! video packet that has to wait isn't written, but kept as what finds it again
//! ([`super::subscription::Resend`]), and takes its number when it leaves; sound doesn't wait.
//!
//! Invariant: a number is used once, and only by a packet that was handed to the socket.

use std::time::Instant;

use super::paths::Path;

/// One packet that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Departure {
    /// Its transport-wide number, where it carries one for the first time.
    pub(crate) number: Option<u16>,
    /// Bytes of the sealed packet.
    pub(crate) size: usize,
    /// Sent again, over RTX or as it was.
    pub(crate) repair: bool,
    pub(crate) at: Instant,
}

/// A leg's departures.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    next: u16,
    last: Option<Departure>,
    /// Where the leg's receiver tells of its path.
    pub(crate) path: Option<Box<Path>>,
}

impl Outgoing {
    /// The number of the next packet that carries one.
    pub(crate) fn number(&self) -> u16 {
        self.next
    }

    /// A packet was sealed and queued.
    pub(crate) fn left(&mut self, departure: Departure) {
        if departure.number.is_some() {
            self.next = self.next.wrapping_add(1);
        }
        if let Some(path) = &mut self.path {
            path.congestion
                .left(departure.number, departure.size, departure.at);
        }
        self.last = Some(departure);
    }

    /// When something last left.
    #[cfg_attr(not(test), allow(dead_code, reason = "for a pacer"))]
    pub(crate) fn last_at(&self) -> Option<Instant> {
        self.last.map(|d| d.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_carries_a_number_uses_one() {
        let at = Instant::now();
        let mut o = Outgoing::default();
        let packet = |number, repair| Departure {
            number,
            size: 100,
            repair,
            at,
        };
        assert_eq!(o.last_at(), None);
        for _ in 0..0x1_0000 {
            let number = o.number();
            o.left(packet(Some(number), false));
        }
        assert_eq!(o.number(), 0, "round once");
        o.left(packet(None, true));
        assert_eq!(o.number(), 0);
        assert_eq!(o.last_at(), Some(at));
    }
}
