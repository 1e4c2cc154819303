//! Reports of a client that plays along.
//!
//! Owns the writing of sender and receiver reports and of transport-wide feedback, and the reading of
//! what the publisher must react to. Pure.

use rtc::shared::error::Error;

/// RFC 3550 section 6.4.1, with the name that section 6.5.1 asks for.
pub(crate) fn sender_report(ssrc: u32, ntp: u64, timestamp: u32, packets: u64, octets: u64) -> Vec<u8> {
    let mut out = vec![0x80, 200, 0, 6];
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&ntp.to_be_bytes());
    out.extend_from_slice(&timestamp.to_be_bytes());
    out.extend_from_slice(&(packets as u32).to_be_bytes());
    out.extend_from_slice(&(octets as u32).to_be_bytes());
    out.extend_from_slice(&[0x81, 202, 0, 3]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    // CNAME, and one zero byte to end the chunk.
    out.extend_from_slice(&[1, 5, b'b', b'e', b'n', b'c', b'h', 0]);
    out
}

/// What a receiver report says of one stream.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reception {
    pub(crate) ssrc: u32,
    pub(crate) fraction_lost: u8,
    pub(crate) lost: u32,
    pub(crate) highest: u32,
    pub(crate) jitter: u32,
    /// Middle bits of the last sender report's time, and how long ago that was in 1/65536 s.
    pub(crate) last_report: u32,
    pub(crate) since_report: u32,
}

/// RFC 3550 section 6.4.2; at most 31 blocks.
pub(crate) fn receiver_report(sender: u32, blocks: &[Reception]) -> Vec<u8> {
    let count = blocks.len().min(31) as u8;
    let mut out = vec![0x80 | count, 201, 0, 1 + 6 * count];
    out.extend_from_slice(&sender.to_be_bytes());
    for r in blocks.iter().take(31) {
        out.extend_from_slice(&r.ssrc.to_be_bytes());
        out.extend_from_slice(&(u32::from(r.fraction_lost) << 24 | (r.lost & 0xFF_FFFF)).to_be_bytes());
        for field in [r.highest, r.jitter, r.last_report, r.since_report] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }
    out
}

/// Nanoseconds of a delta of feedback.
const DELTA: i64 = 250_000;
/// Nanoseconds of its reference time.
const REFERENCE: i64 = 64_000_000;

/// Feedback on transport-wide sequence numbers (draft-holmer-rmcat-transport-wide-cc-extensions-01
/// section 3.1). `arrivals`: number and nanoseconds, ascending by (unwrapped) number. `None` for none.
pub(crate) fn transport_feedback(
    sender: u32,
    media: u32,
    count: u8,
    arrivals: &[(u64, u64)],
) -> Option<Vec<u8>> {
    let (first, at) = *arrivals.first()?;
    let mut clock = at as i64 / REFERENCE * REFERENCE;
    let mut symbols: Vec<u8> = Vec::new();
    let mut deltas: Vec<u8> = Vec::new();
    for (number, at) in arrivals {
        let gap = number.checked_sub(first)?;
        if gap > 0xFFF {
            // A report of this many is one of an outage; what follows it makes the next.
            break;
        }
        symbols.resize(gap as usize, 0);
        let delta = (*at as i64 - clock) / DELTA;
        clock += delta * DELTA;
        match u8::try_from(delta) {
            Ok(small) => {
                symbols.push(1);
                deltas.push(small);
            }
            Err(_) => {
                symbols.push(2);
                let large = delta.clamp(i64::from(i16::MIN), i64::from(i16::MAX)) as i16;
                deltas.extend_from_slice(&large.to_be_bytes());
            }
        }
    }
    let mut out = vec![0x8F, 205, 0, 0];
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
    out.extend_from_slice(&(first as u16).to_be_bytes());
    out.extend_from_slice(&(symbols.len() as u16).to_be_bytes());
    let reference = (at as i64 / REFERENCE) as u32;
    out.extend_from_slice(&(reference << 8 | u32::from(count)).to_be_bytes());
    for seven in symbols.chunks(7) {
        let bits = seven
            .iter()
            .enumerate()
            .fold(0xC000, |c, (i, s)| c | u16::from(*s) << (12 - 2 * i));
        out.extend_from_slice(&bits.to_be_bytes());
    }
    out.extend_from_slice(&deltas);
    let padding = out.len().next_multiple_of(4) - out.len();
    if padding > 0 {
        out.resize(out.len() + padding - 1, 0);
        out.push(padding as u8);
        if let Some(head) = out.first_mut() {
            *head |= 0x20;
        }
    }
    let words = (out.len() / 4 - 1) as u16;
    if let Some(length) = out.get_mut(2..4) {
        length.copy_from_slice(&words.to_be_bytes());
    }
    Some(out)
}

/// What a client reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// PLI or FIR.
    KeyFrame,
    /// A sender report of this source, with the middle bits of its time.
    Report { ssrc: u32, ntp: u32 },
}

/// Reads a compound.
pub(crate) fn read(compound: &[u8]) -> Result<Vec<Heard>, Error> {
    let mut heard = Vec::new();
    let mut rest = compound;
    while let [b0, kind, l0, l1, ..] = rest {
        let len = (usize::from(u16::from_be_bytes([*l0, *l1])) + 1) * 4;
        let (one, tail) = rest.split_at_checked(len).ok_or(Error::PacketTooShort)?;
        match (kind, b0 & 31) {
            (206, 1 | 4) => heard.push(Heard::KeyFrame),
            (200, _) => {
                let word = |at: usize| Some(u32::from_be_bytes(*one.get(at..)?.first_chunk()?));
                if let (Some(ssrc), Some(high), Some(low)) = (word(4), word(8), word(12)) {
                    let ntp = high << 16 | low >> 16;
                    heard.push(Heard::Report { ssrc, ntp });
                }
            }
            _ => {}
        }
        rest = tail;
    }
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::rtcp::receiver_report::ReceiverReport;
    use rtc::rtcp::sender_report::SenderReport;
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
    use rtc::shared::marshal::Unmarshal;

    #[test]
    fn another_reader_understands_the_reports() {
        let sr = sender_report(7, 0x0001_0002_0003_0004, 90, 5, 50);
        assert_eq!(
            read(&sr).unwrap(),
            [Heard::Report {
                ssrc: 7,
                ntp: 0x0002_0003
            }]
        );
        let parsed = SenderReport::unmarshal(&mut &sr[..28]).unwrap();
        assert_eq!((parsed.ssrc, parsed.packet_count, parsed.octet_count), (7, 5, 50));
        let r = Reception {
            ssrc: 7,
            lost: 3,
            highest: 70_000,
            jitter: 9,
            ..Default::default()
        };
        let parsed = ReceiverReport::unmarshal(&mut &receiver_report(1, &[r; 2])[..]).unwrap();
        assert_eq!(parsed.reports.len(), 2);
        let block = &parsed.reports[1];
        assert_eq!((block.ssrc, block.total_lost, block.jitter), (7, 3, 9));
        assert_eq!(block.last_sequence_number, 70_000);
    }

    #[test]
    fn feedback_tells_what_came_and_when() {
        let start = 10 * REFERENCE as u64;
        // The second is missing, the fourth came late enough for a long delta.
        let arrivals = [
            (65_534, start + 1_000_000),
            (65_536, start + 2_000_000),
            (65_537, start + 90_000_000),
            (65_538, start + 90_000_000),
        ];
        let raw = transport_feedback(1, 2, 3, &arrivals).unwrap();
        assert_eq!(raw.len() % 4, 0);
        let parsed = TransportLayerCc::unmarshal(&mut &raw[..]).unwrap();
        assert_eq!(
            (parsed.base_sequence_number, parsed.packet_status_count),
            (65_534, 5)
        );
        assert_eq!((parsed.reference_time, parsed.fb_pkt_count), (10, 3));
        let deltas: Vec<i64> = parsed.recv_deltas.iter().map(|d| d.delta).collect();
        assert_eq!(deltas, [1000, 1000, 88_000, 0], "microseconds");
        assert_eq!(transport_feedback(1, 2, 3, &[]), None);
    }

    #[test]
    fn requests_for_key_frames_are_heard_and_nonsense_is_not() {
        let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(read(&pli).unwrap(), [Heard::KeyFrame]);
        assert!(read(&pli[..8]).is_err());
        assert!(read(&[0x81, 200, 0, 0]).unwrap().is_empty());
    }
}
