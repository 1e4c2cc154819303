//! RTCP as far as a forwarding server needs it.
//!
//! Owns the reading of compound packets into [`Item`]s and the writing of the reports and feedback
//! this worker sends. Total on any input: what is malformed or unknown is skipped, and a list is never
//! longer than the packet that carried it.

/// One thing a peer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// RFC 3550 section 6.4.1, the sender's own clock.
    SenderReport { ssrc: u32, ntp: u64, rtp: u32 },
    /// One report block, of SR or RR.
    Report(ReportBlock),
    /// RFC 4585 section 6.2.1, unpacked.
    Nack { media: u32, sequences: Vec<u16> },
    /// RFC 4585 section 6.3.1
    Pli { media: u32 },
    /// RFC 5104 section 4.3.1, one per entry.
    Fir { media: u32 },
    /// RFC 3550 section 6.6
    Bye { ssrc: u32 },
}

/// RFC 3550 section 6.4.1
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReportBlock {
    pub(crate) ssrc: u32,
    pub(crate) fraction_lost: u8,
    pub(crate) total_lost: u32,
    pub(crate) highest: u32,
    pub(crate) jitter: u32,
    pub(crate) last_sr: u32,
    pub(crate) delay: u32,
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    let b = data.get(at..at + 4)?;
    Some(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// Whether the parts of a compound packet fill it, and their lists fit them (RFC 3550, appendix A.2, without
/// the order that RFC 5506 gave up).
pub(crate) fn well_formed(mut data: &[u8]) -> bool {
    while let [b0, kind, hi, lo, ..] = data {
        let len = (usize::from(u16::from_be_bytes([*hi, *lo])) + 1) * 4;
        let count = usize::from(b0 & 0x1F);
        let least = match kind {
            200 => 28 + count * 24,
            201 => 8 + count * 24,
            203 => 4 + count * 4,
            205 | 206 => 12,
            _ => 4,
        };
        // Padding can only end the whole (section 6.4.1).
        let padded = b0 & 0x20 != 0;
        if b0 >> 6 != 2 || len < least || len > data.len() || (padded && len < data.len()) {
            return false;
        }
        data = data.get(len..).unwrap_or_default();
        if data.is_empty() {
            return true;
        }
    }
    false
}

/// Reads a decrypted compound or reduced-size packet.
pub(crate) fn parse(mut data: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    while data.len() >= 4 && data[0] >> 6 == 2 {
        let len = (usize::from(u16::from_be_bytes([data[2], data[3]])) + 1) * 4;
        let Some(packet) = data.get(..len) else { break };
        parse_one(packet, &mut items);
        data = data.get(len..).unwrap_or_default();
    }
    items
}

/// What a receiver says of the path to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path<'a> {
    /// Transport-wide feedback: the whole packet, unread.
    Feedback(&'a [u8]),
    /// REMB in bits per second, draft-alvestrand-rmcat-remb-03.
    Remb(u64),
}

/// The parts of a compound packet that speak of the path.
pub(crate) fn paths(mut data: &[u8]) -> impl Iterator<Item = Path<'_>> {
    std::iter::from_fn(move || {
        while let [b0, kind, hi, lo, ..] = data {
            let len = (usize::from(u16::from_be_bytes([*hi, *lo])) + 1) * 4;
            let (packet, rest) = data.split_at_checked(len).filter(|_| b0 >> 6 == 2)?;
            let found = match (kind, b0 & 0x1F) {
                (205, 15) => Some(Path::Feedback(packet)),
                (206, 15) => bitrate(packet).map(Path::Remb),
                _ => None,
            };
            data = rest;
            if found.is_some() {
                return found;
            }
        }
        None
    })
}

fn bitrate(p: &[u8]) -> Option<u64> {
    if p.get(12..16)? != b"REMB" {
        return None;
    }
    let word = u32_at(p, 16)?;
    let (exponent, mantissa) = (word >> 18 & 0x3F, u64::from(word & 0x3_FFFF));
    // What is shifted out of the word is more than any path has.
    Some(mantissa.saturating_mul(1_u64.checked_shl(exponent)?))
}

fn parse_one(p: &[u8], items: &mut Vec<Item>) {
    let count = usize::from(p[0] & 0x1F);
    match p[1] {
        200 => {
            if let (Some(ssrc), Some(hi), Some(lo), Some(rtp)) =
                (u32_at(p, 4), u32_at(p, 8), u32_at(p, 12), u32_at(p, 16))
            {
                items.push(Item::SenderReport {
                    ssrc,
                    ntp: u64::from(hi) << 32 | u64::from(lo),
                    rtp,
                });
                parse_blocks(p, 28, count, items);
            }
        }
        201 => parse_blocks(p, 8, count, items),
        203 => {
            items.extend(
                (0..count)
                    .map_while(|i| u32_at(p, 4 + i * 4))
                    .map(|ssrc| Item::Bye { ssrc }),
            );
        }
        205 if count == 1 => {
            let Some(media) = u32_at(p, 8) else { return };
            let mut sequences = Vec::new();
            for entry in p.get(12..).unwrap_or_default().as_chunks::<4>().0 {
                let first = u16::from_be_bytes([entry[0], entry[1]]);
                let mask = u16::from_be_bytes([entry[2], entry[3]]);
                sequences.push(first);
                sequences.extend(
                    (0..16)
                        .filter(|i| mask & (1 << i) != 0)
                        .map(|i| first.wrapping_add(i + 1)),
                );
            }
            items.push(Item::Nack { media, sequences });
        }
        206 if count == 1 => items.extend(u32_at(p, 8).map(|media| Item::Pli { media })),
        206 if count == 4 => {
            for entry in p.get(12..).unwrap_or_default().as_chunks::<8>().0 {
                items.extend(u32_at(entry, 0).map(|media| Item::Fir { media }));
            }
        }
        _ => {}
    }
}

fn parse_blocks(p: &[u8], at: usize, count: usize, items: &mut Vec<Item>) {
    for i in 0..count {
        let Some(b) = p.get(at + i * 24..at + (i + 1) * 24) else {
            return;
        };
        let word = |o| u32_at(b, o).unwrap_or_default();
        items.push(Item::Report(ReportBlock {
            ssrc: word(0),
            fraction_lost: b[4],
            total_lost: word(4) & 0x00FF_FFFF,
            highest: word(8),
            jitter: word(12),
            last_sr: word(16),
            delay: word(20),
        }));
    }
}

fn header(out: &mut Vec<u8>, count: u8, kind: u8, words_after: usize) {
    out.extend_from_slice(&[0x80 | (count & 0x1F), kind]);
    out.extend_from_slice(&(words_after as u16).to_be_bytes());
}

fn write_block(out: &mut Vec<u8>, b: &ReportBlock) {
    out.extend_from_slice(&b.ssrc.to_be_bytes());
    out.push(b.fraction_lost);
    // A signed 24-bit count, clamped rather than wrapped.
    let lost = b.total_lost.min(0x7F_FFFF).to_be_bytes();
    out.extend_from_slice(&lost[1..]);
    for word in [b.highest, b.jitter, b.last_sr, b.delay] {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// A receiver report from `sender` with at most 31 blocks.
pub(crate) fn receiver_report(out: &mut Vec<u8>, sender: u32, blocks: &[ReportBlock]) {
    let blocks = blocks.get(..31).unwrap_or(blocks);
    header(out, blocks.len() as u8, 201, 1 + blocks.len() * 6);
    out.extend_from_slice(&sender.to_be_bytes());
    for b in blocks {
        write_block(out, b);
    }
}

/// A sender report without blocks.
pub(crate) fn sender_report(out: &mut Vec<u8>, ssrc: u32, ntp: u64, rtp: u32, packets: u32, bytes: u32) {
    header(out, 0, 200, 6);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&ntp.to_be_bytes());
    for word in [rtp, packets, bytes] {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// SDES with one CNAME chunk, RFC 3550 section 6.5.
pub(crate) fn source_description(out: &mut Vec<u8>, ssrc: u32, cname: &str) {
    let name = cname.as_bytes();
    let name = name.get(..255).unwrap_or(name);
    // Item, then at least one zero octet up to the next word.
    let chunk = (4 + 2 + name.len() + 1).next_multiple_of(4);
    header(out, 1, 202, chunk / 4);
    let start = out.len();
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&[1, name.len() as u8]);
    out.extend_from_slice(name);
    out.resize(start + chunk, 0);
}

/// Generic NACK for `sequences`, which are in ascending order.
pub(crate) fn nack(out: &mut Vec<u8>, sender: u32, media: u32, sequences: &[u16]) {
    let mut entries: Vec<(u16, u16)> = Vec::new();
    for &s in sequences {
        if let Some((first, mask)) = entries.last_mut() {
            let delta = s.wrapping_sub(*first);
            if delta == 0 {
                continue;
            }
            if delta <= 16 {
                *mask |= 1 << (delta - 1);
                continue;
            }
        }
        entries.push((s, 0));
    }
    header(out, 1, 205, 2 + entries.len());
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
    for (first, mask) in entries {
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&mask.to_be_bytes());
    }
}

/// Picture loss indication.
pub(crate) fn pli(out: &mut Vec<u8>, sender: u32, media: u32) {
    header(out, 1, 206, 2);
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
}

/// Receiver estimated maximum bitrate for `media`, draft-alvestrand-rmcat-remb-03.
pub(crate) fn remb(out: &mut Vec<u8>, sender: u32, bitrate: u64, media: &[u32]) {
    let media = media.get(..255).unwrap_or(media);
    header(out, 15, 206, 4 + media.len());
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(b"REMB");
    let exponent = (64 - bitrate.leading_zeros()).saturating_sub(18);
    let mantissa = (bitrate >> exponent) as u32 & 0x3_FFFF;
    let word = (media.len() as u32) << 24 | exponent << 18 | mantissa;
    out.extend_from_slice(&word.to_be_bytes());
    for m in media {
        out.extend_from_slice(&m.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
    use rtc::shared::marshal::Unmarshal;

    #[test]
    fn what_is_not_as_long_as_it_says_is_told_apart() {
        let mut good = Vec::new();
        receiver_report(&mut good, 1, &[ReportBlock::default(), ReportBlock::default()]);
        nack(&mut good, 1, 2, &[7, 9, 40]);
        remb(&mut good, 1, 900_000, &[2]);
        source_description(&mut good, 1, "name");
        sender_report(&mut good, 1, 2, 3, 4, 5);
        assert!(well_formed(&good));
        for cut in 0..good.len() {
            let whole = well_formed(&good[..cut]);
            // Cut between two parts it is another good packet.
            assert_eq!(whole, [56, 76, 100, 116].contains(&cut), "{cut}");
        }
        let with = |at: usize, value: u8| {
            let mut bad = good.clone();
            bad[at] = value;
            well_formed(&bad)
        };
        assert!(!with(0, 0x83), "a block more than there is room for");
        assert!(!with(0, 0x42), "version 1");
        assert!(!with(0, 0xA2), "padding before the end");
        assert!(!with(57 + 2, 0xFF), "longer than the packet");
    }

    #[test]
    fn what_is_written_is_read() {
        let block = ReportBlock {
            ssrc: 9,
            fraction_lost: 3,
            total_lost: 77,
            highest: 70_000,
            jitter: 5,
            last_sr: 6,
            delay: 7,
        };
        let mut out = Vec::new();
        receiver_report(&mut out, 1, &[block]);
        sender_report(&mut out, 2, 0x1234_5678_9ABC_DEF0, 42, 1, 2);
        source_description(&mut out, 2, "x");
        nack(&mut out, 1, 2, &[65_530, 65_535, 3, 100]);
        pli(&mut out, 1, 5);
        assert_eq!(
            parse(&out),
            vec![
                Item::Report(block),
                Item::SenderReport {
                    ssrc: 2,
                    ntp: 0x1234_5678_9ABC_DEF0,
                    rtp: 42
                },
                Item::Nack {
                    media: 2,
                    sequences: vec![65_530, 65_535, 3, 100]
                },
                Item::Pli { media: 5 },
            ]
        );
    }

    #[test]
    fn the_library_reads_our_bitrate_and_all_packets() {
        let mut out = Vec::new();
        remb(&mut out, 1, 1_500_000, &[7]);
        let got = ReceiverEstimatedMaximumBitrate::unmarshal(&mut &out[..]).unwrap();
        assert_eq!((got.ssrcs, got.bitrate as u64 / 1000), (vec![7], 1500));
        let mut out = Vec::new();
        receiver_report(&mut out, 1, &[ReportBlock::default()]);
        source_description(&mut out, 2, "abc");
        nack(&mut out, 1, 2, &[1, 2, 40]);
        assert_eq!(rtc::rtcp::packet::unmarshal(&mut &out[..]).unwrap().len(), 3);
    }

    #[test]
    fn what_is_said_of_the_path_is_found() {
        let mut out = Vec::new();
        receiver_report(&mut out, 1, &[]);
        remb(&mut out, 1, 1_500_000, &[7, 8]);
        let wide = [0x8F, 205, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8];
        out.extend_from_slice(&wide);
        nack(&mut out, 1, 2, &[3]);
        remb(&mut out, 1, u64::MAX, &[7]);
        let all: Vec<Path<'_>> = paths(&out).collect();
        let [Path::Remb(first), Path::Feedback(second), Path::Remb(third)] = all[..] else {
            panic!("{all:?}")
        };
        assert_eq!((first / 1000, second), (1500, &wide[..]));
        assert!(third > u64::MAX / 2);
        for end in 0..out.len() {
            let _ = paths(&out[..end]).count();
        }
    }

    #[test]
    fn no_prefix_panics() {
        let mut out = Vec::new();
        nack(&mut out, 1, 2, &[1, 2, 3]);
        sender_report(&mut out, 2, 1, 42, 1, 2);
        for end in 0..out.len() {
            let _ = parse(&out[..end]);
        }
        for kind in 0..=255u8 {
            for count in 0..32u8 {
                let _ = parse(&[0x80 | count, kind, 0, 1, 1, 2, 3, 4]);
            }
        }
    }
}
