//! Datagrams on their way out, one after the other in one buffer.
//!
//! Owns the buffer in which packets are written and sealed in place. Invariants: entries lie in the buffer
//! in the order in which they were committed, without gaps between them, so that neighbours for one
//! destination can leave in one segmented send; nothing is allocated once the buffer is as long as the
//! longest turn.

use super::Route;

/// A batch this long is sent before more is written: what is sealed is sent while it is in the cache.
const FULL: usize = 512 * 1024;

/// One datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) route: Route,
    pub(super) start: usize,
    pub(super) len: usize,
}

/// Packets to send at the end of a turn.
#[derive(Debug, Default)]
pub(crate) struct SendBatch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl SendBatch {
    /// Queues a copy.
    pub(crate) fn push(&mut self, route: Route, packet: &[u8]) {
        let start = self.begin();
        self.bytes.extend_from_slice(packet);
        self.commit(route, start);
    }

    /// Where a packet begins that is about to be appended to [`Self::buffer`].
    pub(crate) fn begin(&self) -> usize {
        self.bytes.len()
    }

    /// What the packet is appended to. Everything before [`Self::begin`] belongs to others.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What was appended since `start` is a datagram; an empty one is none.
    pub(crate) fn commit(&mut self, route: Route, start: usize) {
        let len = self.bytes.len().saturating_sub(start);
        if len > 0 {
            self.entries.push(Entry { route, start, len });
        }
    }

    /// What was appended since `start` isn't sent.
    pub(crate) fn abort(&mut self, start: usize) {
        self.bytes.truncate(start);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Long enough to be sent before more is written.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bytes of an entry.
    #[cfg(test)]
    pub(crate) fn packet(&self, entry: &Entry) -> &[u8] {
        self.bytes
            .get(entry.start..entry.start + entry.len)
            .unwrap_or_default()
    }

    /// The bytes of neighbouring entries.
    pub(super) fn run(&self, run: &Run) -> &[u8] {
        self.bytes.get(run.start..run.start + run.len).unwrap_or_default()
    }

    /// Cuts the entries into runs of which each can be one segmented send.
    pub(super) fn runs(&self, segmented: bool) -> Runs<'_> {
        Runs {
            rest: &self.entries,
            segmented,
        }
    }
}

/// Datagrams of one length to one destination, the last of which may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) route: Route,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) segment: usize,
    pub(super) count: usize,
}

/// Segments the kernel takes in one send (`UDP_MAX_SEGMENTS` of its older versions).
const MAX_SEGMENTS: usize = 64;
/// Bytes it takes: the largest UDP payload over IPv4, less the room an IPv6 header needs more.
const MAX_RUN: usize = 65_507 - 20;

/// Iterator over [`Run`]s.
#[derive(Debug)]
pub(super) struct Runs<'a> {
    rest: &'a [Entry],
    segmented: bool,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let (first, mut rest) = self.rest.split_first()?;
        let mut run = Run {
            route: first.route,
            start: first.start,
            len: first.len,
            segment: first.len,
            count: 1,
        };
        while self.segmented && run.count < MAX_SEGMENTS {
            let Some((next, after)) = rest.split_first() else {
                break;
            };
            let joins = next.len <= run.segment
                && run.len + next.len <= MAX_RUN
                && next.start == run.start + run.len
                && next.route == run.route;
            if !joins {
                break;
            }
            run.len += next.len;
            run.count += 1;
            rest = after;
            if next.len < run.segment {
                break;
            }
        }
        self.rest = rest;
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn to(port: u16) -> Route {
        Route::Udp(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn shape(batch: &SendBatch) -> Vec<(Route, usize, usize)> {
        batch
            .runs(true)
            .map(|r| (r.route, r.count, batch.run(&r).len()))
            .collect()
    }

    #[test]
    fn equal_neighbours_of_one_destination_make_a_run() {
        let mut b = SendBatch::default();
        for (port, len) in [
            (1, 100),
            (1, 100),
            (1, 60),
            (1, 100),
            (1, 120),
            (2, 120),
            (2, 120),
        ] {
            b.push(to(port), &vec![0; len]);
        }
        assert_eq!(
            shape(&b),
            [(to(1), 3, 260), (to(1), 1, 100), (to(1), 1, 120), (to(2), 2, 240)]
        );
        assert_eq!(b.runs(false).count(), 7);
        b.clear();
        assert!(b.is_empty() && shape(&b).is_empty());
    }

    #[test]
    fn runs_stay_within_what_the_kernel_takes() {
        let mut b = SendBatch::default();
        for _ in 0..130 {
            b.push(to(1), &[0; 10]);
        }
        assert_eq!(shape(&b), [(to(1), 64, 640), (to(1), 64, 640), (to(1), 2, 20)]);
        b.clear();
        for _ in 0..100 {
            b.push(to(1), &[0; 1400]);
        }
        assert!(shape(&b).iter().all(|(_, _, len)| *len <= MAX_RUN));
        assert_eq!(b.runs(true).map(|r| r.count).sum::<usize>(), 100);
    }

    #[test]
    fn what_is_aborted_leaves_no_gap() {
        let mut b = SendBatch::default();
        b.push(to(1), &[1; 10]);
        let start = b.begin();
        b.buffer().extend_from_slice(&[9; 500]);
        b.abort(start);
        b.push(to(1), &[2; 10]);
        assert_eq!(shape(&b), [(to(1), 2, 20)]);
        assert_eq!(b.packet(&b.entries()[1]), &[2; 10]);
        let start = b.begin();
        b.commit(to(1), start);
        assert_eq!(b.entries().len(), 2, "nothing was written");
    }
}
