//! What one subscriber knows of the stream it receives.
//!
//! Owns the counts, and the reports made of them. Pure: headers and times in, RTCP out. Invariant: a
//! packet is counted by what stands in clear in it, so that counting costs no decryption.

use crate::description::VP8;
use crate::packet::Header;
use crate::rtcp::{self, Reception};

const NANOS: u64 = 1_000_000_000;

/// Counts of one subscriber.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    ssrc: Option<u32>,
    /// First and highest sequence number, unwrapped.
    first: u64,
    highest: u64,
    pub(crate) received: u64,
    /// Packets of another kind: retransmissions, probes.
    pub(crate) other: u64,
    jitter: f64,
    last_transit: Option<i64>,
    report: Option<(u32, u64)>,
    /// As of the last report.
    reported: (u64, u64),
    highest_transport: Option<u64>,
    arrivals: Vec<(u64, u64)>,
    feedback_count: u8,
}

/// The number nearest to `near` that ends in these bits.
pub(crate) fn unwrap(near: u64, short: u16) -> u64 {
    let delta = short.wrapping_sub(near as u16) as i16;
    near.wrapping_add_signed(i64::from(delta))
}

impl Stream {
    /// Takes the header of a packet that came `at` (wall clock); whether it is one of the stream.
    pub(crate) fn packet(&mut self, h: &Header, at: u64, feedback: bool) -> bool {
        if feedback && let Some(short) = h.transport {
            // Far from zero, so that one that comes early doesn't pass below it.
            let near = self.highest_transport.unwrap_or(1 << 20 | u64::from(short));
            let number = unwrap(near, short);
            self.highest_transport = Some(near.max(number));
            self.arrivals.push((number, at));
        }
        if h.payload_type != VP8 || self.ssrc.is_some_and(|known| known != h.ssrc) {
            self.other += 1;
            return false;
        }
        if self.ssrc.is_none() {
            self.ssrc = Some(h.ssrc);
            self.first = 1 << 20 | u64::from(h.sequence);
            self.highest = self.first;
        }
        self.highest = self.highest.max(unwrap(self.highest, h.sequence));
        self.received += 1;
        // RFC 3550 appendix A.8
        let transit = (at / 1000 * 9 / 100) as i64 - i64::from(h.timestamp);
        if let Some(last) = self.last_transit.replace(transit) {
            let d = i64::from((transit - last) as i32).unsigned_abs() as f64;
            self.jitter += (d - self.jitter) / 16.0;
        }
        true
    }

    /// Packets there should have been.
    pub(crate) fn expected(&self) -> u64 {
        if self.ssrc.is_some() {
            self.highest - self.first + 1
        } else {
            0
        }
    }

    /// A sender report came.
    pub(crate) fn heard(&mut self, ssrc: u32, ntp: u32, at: u64) {
        if self.ssrc == Some(ssrc) {
            self.report = Some((ntp, at));
        }
    }

    /// A receiver report.
    pub(crate) fn receiver_report(&mut self, sender: u32, now: u64) -> Option<Vec<u8>> {
        let ssrc = self.ssrc?;
        let (expected, received) = (self.expected(), self.received);
        let interval = expected - self.reported.0;
        let lost = interval.saturating_sub(received - self.reported.1);
        self.reported = (expected, received);
        let since = |at: u64| (u128::from(now.saturating_sub(at)) * 65_536 / u128::from(NANOS)) as u32;
        let reception = Reception {
            ssrc,
            fraction_lost: (lost * 256).checked_div(interval).unwrap_or(0).min(255) as u8,
            lost: expected.saturating_sub(received).min(0x7F_FFFF) as u32,
            highest: (self.highest & 0xFFFF_FFFF) as u32,
            jitter: self.jitter as u32,
            last_report: self.report.map_or(0, |(ntp, _)| ntp),
            since_report: self.report.map_or(0, |(_, at)| since(at)),
        };
        Some(rtcp::receiver_report(sender, &[reception]))
    }

    /// Feedback on what came since the last.
    pub(crate) fn feedback(&mut self, sender: u32) -> Option<Vec<u8>> {
        self.arrivals.sort_unstable();
        self.arrivals.dedup_by_key(|(number, _)| *number);
        let out = rtcp::transport_feedback(sender, self.ssrc?, self.feedback_count, &self.arrivals)?;
        self.feedback_count = self.feedback_count.wrapping_add(1);
        self.arrivals.clear();
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sequence: u16, transport: Option<u16>) -> Header {
        Header {
            payload_type: VP8,
            sequence,
            timestamp: 0,
            ssrc: 5,
            transport,
        }
    }

    #[test]
    fn loss_is_a_hole_in_the_numbers_across_the_wrap() {
        let mut s = Stream::default();
        for sequence in [65_533, 65_534, 1, 0, 2] {
            assert!(s.packet(&header(sequence, None), 0, false));
        }
        assert_eq!((s.expected(), s.received), (6, 5));
        let other = Header {
            payload_type: 97,
            ..header(3, None)
        };
        assert!(!s.packet(&other, 0, false));
        assert_eq!((s.expected(), s.other), (6, 1));
        let report = s.receiver_report(1, 0).unwrap();
        // A sixth, in 256ths; one in all.
        assert_eq!(report[12..16], [42, 0, 0, 1]);
        let report = s.receiver_report(1, 0).unwrap();
        assert_eq!(report[12..16], [0, 0, 0, 1]);
    }

    #[test]
    fn a_report_echoes_the_senders() {
        let mut s = Stream::default();
        assert!(s.receiver_report(1, 0).is_none());
        s.packet(&header(1, None), 0, false);
        s.heard(6, 1, 0);
        s.heard(5, 0xAABB_CCDD, NANOS);
        let report = s.receiver_report(1, NANOS * 3 / 2).unwrap();
        assert_eq!(report[24..28], 0xAABB_CCDD_u32.to_be_bytes());
        assert_eq!(report[28..32], 32_768_u32.to_be_bytes());
    }

    #[test]
    fn feedback_covers_each_packet_once() {
        let mut s = Stream::default();
        assert!(s.feedback(1).is_none());
        for (n, t) in [(1, 0), (2, 65_535), (3, 1), (3, 1)] {
            s.packet(&header(n, Some(t)), u64::from(n) * 1_000_000, true);
        }
        let raw = s.feedback(1).unwrap();
        // Base 65,535 and three packets.
        assert_eq!(raw[12..16], [0xFF, 0xFF, 0, 3]);
        assert!(s.feedback(1).is_none());
    }
}
