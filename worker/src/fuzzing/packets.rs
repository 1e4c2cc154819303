//! What arrives on the media port, after its authentication.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a broken promise is what fuzzing looks for"
)]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::shared::marshal::Unmarshal;

use super::parts;
use crate::forward::audio::red::{Red, Redundancy, translate};
use crate::forward::codec::{Codec, Vp8, Vp8Munger, Vp8Numbers};
use crate::forward::congestion::Congestion;
use crate::forward::packet::{ExtensionWriter, Header, Rewrite, write_header};
use crate::forward::rtcp::{self as control, Item};
use crate::forward::svc::dependency_descriptor::{Changes, DescriptorStream, rewrite};
use crate::forward::svc::vp9::Vp9;
use crate::forward::twcc::Recorder;
use crate::net::tcp::next_frame;

/// The header, its extensions, and that what we write of them is read back.
pub(super) fn rtp(data: &[u8]) {
    let Some(header) = Header::parse(data) else { return };
    assert!(header.header_len <= data.len() && header.header_len.is_multiple_of(4));
    if let Some(payload) = header.payload(data) {
        assert!(payload.len() <= data.len() - header.header_len);
    }
    for two_byte in [false, true] {
        let mut out = Vec::new();
        write_header(
            &mut out,
            &Rewrite {
                marker: header.marker,
                payload_type: header.payload_type,
                sequence: header.sequence,
                timestamp: header.timestamp,
                ssrc: header.ssrc,
            },
        );
        let fits = |id: u8, len: usize| id != 0 && (two_byte || (id < 15 && (1..=16).contains(&len)));
        let wanted: Vec<(u8, &[u8])> = header
            .extensions(data)
            .filter(|(id, value)| fits(*id, value.len()))
            .collect();
        let mut writer = ExtensionWriter::new(&mut out, two_byte);
        for (id, value) in &wanted {
            writer.push(*id, value);
        }
        writer.finish();
        let again = Header::parse(&out).expect("what we write is RTP");
        assert_eq!(again.ssrc, header.ssrc);
        assert!(again.extensions(&out).eq(wanted.iter().copied()));
    }
}

/// A compound packet; and that what it says is in proportion to its size.
pub(super) fn rtcp(data: &[u8]) {
    let items = control::parse(data);
    assert!(items.len() <= data.len() / 4);
    for item in &items {
        if let Item::Nack { sequences, .. } = item {
            assert!(sequences.len() <= data.len() / 4 * 17);
        }
    }
}

/// Arrivals, and that the feedback about them is what others read and speaks of each once.
pub(super) fn twcc(data: &[u8]) {
    let start = Instant::now();
    let (mut sequence, mut at) = (0u16, Duration::ZERO);
    let mut recorder = Recorder::new(start);
    let mut written = 0;
    for [jump, wait, then] in data.as_chunks::<3>().0 {
        // Mostly small steps, now and then a far one either way.
        sequence = match jump {
            0..=199 => sequence.wrapping_add(u16::from(*jump) % 8),
            _ => sequence.wrapping_add((i16::from(*jump) - 228).wrapping_mul(700) as u16),
        };
        at += Duration::from_micros(u64::from(*wait).pow(3));
        recorder.record(sequence, start + at);
        if then % 16 == 0 {
            written += read_feedback(&mut recorder);
        }
    }
    read_feedback(&mut recorder);
    assert_eq!(recorder.pending(), 0);
    assert!(written <= data.len() * 2);
}

fn read_feedback(recorder: &mut Recorder) -> usize {
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
    let mut packets = 0;
    while let Some(raw) = recorder.feedback(1, 2) {
        packets += 1;
        assert!(raw.len() % 4 == 0);
        let read = TransportLayerCc::unmarshal(&mut &raw[..]).expect("the library reads our feedback");
        assert!(read.packet_status_count > 0);
    }
    packets
}

/// What a subscriber says of the packets it got: the estimate stays a number.
pub(super) fn feedback(data: &[u8]) {
    let start = Instant::now();
    let mut path: Congestion<()> = Congestion::new(true, start);
    for (at, packet) in data.chunks(64).enumerate() {
        let now = start + Duration::from_millis(20 * at as u64);
        for number in 0..20u16 {
            path.left(Some(number + at as u16 * 20), 1_200, now);
        }
        let _ = path.feedback(packet, now + Duration::from_millis(10));
        // The numbers that were sent, whatever the rest says.
        let mut ours = packet.to_vec();
        if let Some([b0, b1]) = ours.get_mut(..2) {
            (*b0, *b1) = (0x8F, 205);
        }
        if let Some(base) = ours.get_mut(12..14) {
            base.copy_from_slice(&(at as u16 * 20).to_be_bytes());
        }
        let _ = path.feedback(&ours, now + Duration::from_millis(15));
        let _ = path.may_resend(1_200, now);
    }
    let _ = path.feedback(data, start + Duration::from_secs(9));
}

/// Redundant audio: what is taken apart, renamed and put together again is the same.
pub(super) fn red(data: &[u8]) {
    let mut renamed = data.to_vec();
    translate(&mut renamed, 111, 63);
    assert_eq!(renamed.len(), data.len());
    let Some(red) = Red::parse(data) else { return };
    assert!(red.primary.len() < data.len());
    let earlier: Vec<(u32, &[u8])> = red
        .earlier()
        .map(|(_, block)| (1_000_000 - u32::from(block.offset), block.data))
        .collect();
    let mut out = Vec::new();
    let taken = Redundancy::collect(1_000_000, red.primary, 2, earlier.iter().copied());
    taken.write(111, red.primary, &mut out);
    let again = Red::parse(&out).expect("what we write is read");
    assert_eq!((again.payload_type, again.primary), (111, red.primary));
    for ((_, block), (then, data)) in again.earlier().zip(&earlier) {
        assert_eq!((1_000_000 - u32::from(block.offset), block.data), (*then, *data));
    }
}

/// A stream of frames comes apart in the same places however it was cut on the way.
pub(super) fn frames(data: &[u8]) {
    let mut whole = BytesMut::from(data);
    let mut pieces = BytesMut::new();
    let mut rest = data;
    loop {
        let expected = next_frame(&mut whole);
        let found = loop {
            match next_frame(&mut pieces) {
                Ok(None) => {}
                found => break found,
            }
            let Some((byte, tail)) = rest.split_first() else {
                break Ok(None);
            };
            pieces.extend_from_slice(&[*byte]);
            rest = tail;
        };
        match (expected, found) {
            (Ok(Some(a)), Ok(Some(b))) => assert_eq!(a, b),
            (Ok(None), Ok(None)) | (Err(_), Err(_)) => return,
            (a, b) => panic!("{a:?} in one piece, {b:?} in many"),
        }
    }
}

/// The first bytes of payloads, in every codec.
pub(super) fn codec(data: &[u8]) {
    for codec in [Codec::Opus, Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1] {
        let _ = codec.starts_key_frame(data);
    }
}

/// VP8 descriptors of one stream, and what a subscriber's numbers make of them.
pub(super) fn vp8(data: &[u8]) {
    let mut munger = Vp8Munger::default();
    for (at, payload) in parts(data).enumerate() {
        let Some(d) = Vp8::parse(payload) else { continue };
        let input = Vp8Numbers {
            picture_id: d.picture_id.map_or(0, |p| p.0),
            tl0_index: d.tl0_index.unwrap_or(0),
            key_index: d.key_index.unwrap_or(0),
        };
        if at % 5 == 4 {
            munger.switch_to(input);
        } else if at % 7 == 6 {
            munger.drop_picture(&d);
        }
        let wide = d.picture_id.is_some_and(|p| p.1);
        let numbers = munger.map_numbers(input, wide, at % 3 != 0);
        let mut out = payload.to_vec();
        d.rewrite(&mut out, &numbers);
        let again = Vp8::parse(&out).expect("a rewritten descriptor is one");
        assert_eq!(out.len(), payload.len());
        assert_eq!(again.key_frame, d.key_frame);
        if d.picture_id.is_some() {
            assert_eq!(again.picture_id.map(|p| p.0), Some(numbers.picture_id));
        }
        assert_eq!(again.tl0_index, d.tl0_index.map(|_| numbers.tl0_index));
        assert_eq!(again.key_index, d.key_index.map(|_| numbers.key_index));
    }
}

/// VP9 descriptors.
pub(super) fn vp9(data: &[u8]) {
    let Some(d) = Vp9::parse(data) else { return };
    let mut out = data.to_vec();
    d.rewrite(&mut out, 0x1234, 0x56);
    let again = Vp9::parse(&out).expect("a rewritten descriptor is one");
    assert_eq!(again.key_frame(), d.key_frame());
}

/// The dependency descriptors of one stream. A descriptor that is passed on differs in what was to change.
pub(super) fn dependency_descriptor(data: &[u8]) {
    let mut stream = DescriptorStream::default();
    let mut late = DescriptorStream::default();
    for (at, bytes) in parts(data).enumerate() {
        let newest = at % 4 != 3;
        let frame = stream.read(bytes, newest);
        let _ = late.read(bytes, !newest);
        if frame.is_some() {
            let _ = stream.read_again(bytes);
        }
        let targets = stream.structure().map_or(0, |(s, _)| s.targets());
        for targets in [0, targets] {
            let changes = Changes {
                number: at as u16,
                active: 1,
                targets,
            };
            let Some(changed) = rewrite(bytes, &changes) else {
                continue;
            };
            if let (Some(frame), true) = (&frame, changes.is_none())
                && let Some(again) = stream.read_again(changed.bytes())
            {
                assert_eq!((again.spatial, again.temporal), (frame.spatial, frame.temporal));
            }
        }
    }
}
