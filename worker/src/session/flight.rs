//! Our last handshake flight, for a peer that repeats its own.
//!
//! The library's timer ends with every handshake record that comes, also one that brings it no further: the
//! first part of a flight, or a repetition. If what we sent last was lost, both sides would then wait for
//! ever. Owns the datagrams of that flight and when they leave again (RFC 6347 section 4.2.4). Pure: takes
//! `now`. Invariants: nothing is kept after the handshake, and a flight is repeated at most [`MOST`] times.
//!
//! Owns the numbers of records before encryption, too, which are part of no signature: a repetition needs
//! new ones, or the peer takes it for a copy that the network made.

use std::time::{Duration, Instant};

use bytes::BytesMut;

/// A flight comes in several datagrams: its parts must not each be answered.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);
const MOST: u32 = 10;

/// What was sent last.
#[derive(Debug, Default)]
pub(super) struct Flight {
    datagrams: Vec<BytesMut>,
    due: Option<Instant>,
    repeats: u32,
}

impl Flight {
    /// A new flight left.
    pub(super) fn sent(&mut self, datagrams: &[BytesMut]) {
        *self = Flight {
            datagrams: datagrams.to_vec(),
            ..Flight::default()
        };
    }

    /// The peer said something that brought nothing new.
    pub(super) fn stalled(&mut self, now: Instant) {
        if self.due.is_none() && !self.datagrams.is_empty() && self.repeats < MOST {
            self.due = Some(now + (FIRST * (1 << self.repeats)).min(LONGEST));
        }
    }

    /// The handshake is over.
    pub(super) fn done(&mut self) {
        *self = Flight::default();
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is to leave again now.
    pub(super) fn again(&mut self, now: Instant) -> &[BytesMut] {
        if self.due.is_none_or(|due| now < due) {
            return &[];
        }
        self.due = None;
        self.repeats += 1;
        // Nobody may say anything more.
        self.stalled(now);
        &self.datagrams
    }
}

/// Numbers of unencrypted records, RFC 6347 section 4.1.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    next: u64,
}

/// Type, version, epoch, number, length.
const HEADER: usize = 13;

impl Numbers {
    /// Gives each record of epoch 0 its own number.
    pub(super) fn stamp(&mut self, mut datagram: &mut [u8]) {
        while let Some((header, rest)) = datagram.split_at_mut_checked(HEADER) {
            let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
            if header[3..5] == [0, 0] {
                header[5..11].copy_from_slice(&self.next.to_be_bytes()[2..]);
                self.next += 1;
            }
            let Some((_, rest)) = rest.split_at_mut_checked(length) else {
                return;
            };
            datagram = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_before_encryption_are_numbered_and_others_left_alone() {
        let record = |kind: u8, epoch: u8, body: &[u8]| {
            let mut r = vec![kind, 254, 253, 0, epoch, 9, 9, 9, 9, 9, 9, 0, body.len() as u8];
            r.extend_from_slice(body);
            r
        };
        let number = |r: &[u8]| r[5..11].to_vec();
        let mut numbers = Numbers::default();
        let mut datagram = [record(22, 0, b"abc"), record(20, 0, b""), record(22, 1, b"xyz")].concat();
        numbers.stamp(&mut datagram);
        assert_eq!(number(&datagram), [0; 6]);
        assert_eq!(number(&datagram[16..]), [0, 0, 0, 0, 0, 1]);
        assert_eq!(number(&datagram[29..]), [9; 6]);
        assert_eq!((&datagram[13..16], &datagram[42..]), (&b"abc"[..], &b"xyz"[..]));
        numbers.stamp(&mut datagram);
        assert_eq!(number(&datagram), [0, 0, 0, 0, 0, 2]);
        for end in 0..datagram.len() {
            numbers.stamp(&mut datagram.clone()[..end]);
        }
    }

    #[test]
    fn a_flight_is_repeated_ever_more_rarely_and_not_for_ever() {
        let mut now = Instant::now();
        let start = now;
        let mut f = Flight::default();
        f.stalled(now);
        assert_eq!(f.due(), None, "there is nothing to repeat");
        f.sent(&[BytesMut::from(&b"a"[..]), BytesMut::from(&b"b"[..])]);
        assert_eq!(f.due(), None, "the library's own timer runs");
        f.stalled(now);
        f.stalled(now + Duration::from_millis(50));
        assert!(f.again(now + Duration::from_millis(99)).is_empty());
        let mut waits = Vec::new();
        while let Some(due) = f.due() {
            waits.push((due - now).as_millis());
            now = due;
            assert_eq!(f.again(now).len(), 2);
        }
        assert_eq!(waits[..5], [100, 200, 400, 800, 1000]);
        assert_eq!(waits.len(), MOST as usize);
        assert!(now - start < Duration::from_secs(15));
        f.stalled(now);
        assert_eq!(f.due(), None);
        f.sent(&[BytesMut::from(&b"c"[..])]);
        f.stalled(now);
        assert!(f.due().is_some(), "a new flight begins anew");
        f.done();
        assert_eq!(f.due(), None);
        assert!(f.again(now + LONGEST).is_empty());
    }
}
