use super::super::codec::Vp8;
use super::super::extension::Incoming;
use super::super::packet::{Header, Rewrite, write_header};
use super::*;

fn binding(rtx: bool) -> Binding {
    let mut extensions = Outgoing::default();
    extensions.set(Extension::Mid, 4);
    Binding {
        session: SessionId(1),
        leg: LegKey(0),
        mid: "7".to_owned(),
        ssrc: 0xAAAA,
        rtx_ssrc: 0xBBBB,
        payloads: PayloadMap {
            red_from: None,
            red_to: None,
            entries: vec![(96, 102, rtx.then_some(103))],
        },
        extensions,
        mixed: false,
        wide: false,
        wanted: Some(Quality::High),
    }
}

fn vp8(picture: u16, key: bool) -> Vec<u8> {
    vec![
        0x90,
        0xC0,
        0x80 | (picture >> 8) as u8,
        picture as u8,
        9,
        u8::from(!key),
        1,
        2,
        3,
    ]
}

struct Feed {
    sub: Subscription,
    clocks: [Option<SenderClock>; 2],
    start: Instant,
    ids: Incoming,
    number: u16,
    padding: Padding,
    /// Of the last packet that left.
    index: u64,
}

impl Feed {
    fn new(rtx: bool) -> Feed {
        let mut sub = Subscription::new(binding(rtx), true, 0x1234_5678);
        sub.target = Some(0);
        Feed {
            sub,
            clocks: [None; 2],
            start: Instant::now(),
            ids: Incoming::default(),
            number: 0,
            padding: Padding::default(),
            index: 0,
        }
    }

    /// What leaves: (header, payload).
    fn send(&mut self, layer: usize, sequence: u16, stamp: u32, payload: &[u8], ms: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let head = Rewrite {
            marker: true,
            payload_type: 96,
            sequence,
            timestamp: stamp,
            ssrc: layer as u32,
        };
        write_header(&mut bytes, &head);
        bytes.extend_from_slice(payload);
        let header = Header::parse(&bytes).unwrap();
        let vp8 = Vp8::parse(payload);
        let passed = Passed::find(&header, &bytes, &self.ids);
        let clocks = self.clocks;
        let p = Arrived {
            bytes: &bytes,
            header: &header,
            payload,
            passed: &passed,
            codec: Codec::Vp8,
            layering: vp8.map_or(Layering::Plain, Layering::Vp8),
            layer,
            sequence: u64::from(sequence),
            newest: true,
            starts: vp8.is_some_and(|d| d.key_frame),
            padding: self.padding,
            payload_type: 96,
            redundancy: Redundancy::default(),
            restored: false,
            now: self.start + Duration::from_millis(ms),
        };
        // What others wrote before it is theirs.
        let mut out = b"before".to_vec();
        let dressed = self.sub.forward(&p, &|i| clocks[i], self.number, &mut out);
        assert_eq!(&out[..6], b"before");
        let out = out.split_off(6);
        let Some(dressed) = dressed else {
            assert!(out.is_empty());
            return None;
        };
        let h = Header::parse(&out).unwrap();
        assert_eq!(
            (dressed.ssrc, dressed.index as u16, dressed.header_len),
            (h.ssrc, h.sequence, h.header_len)
        );
        self.index = dressed.index;
        Some(out)
    }
}

fn head(p: &[u8]) -> Header {
    Header::parse(p).unwrap()
}

#[test]
fn nothing_leaves_before_a_key_frame() {
    let mut f = Feed::new(true);
    assert!(f.send(0, 1, 0, &vp8(1, false), 0).is_none());
    assert!(f.sub.waits_for_key_frame());
    let out = f.send(0, 2, 3000, &vp8(2, true), 33).unwrap();
    let h = head(&out);
    assert_eq!((h.payload_type, h.ssrc, h.marker), (102, 0xAAAA, true));
    assert_eq!(h.extensions(&out).next(), Some((4, &b"7"[..])));
    assert!(!f.sub.waits_for_key_frame());
}

#[test]
fn time_runs_on_over_a_switch_by_the_senders_clock() {
    let mut f = Feed::new(true);
    let second = 1u64 << 32;
    // Layer 1's clock is 500,000 ticks ahead of layer 0's at the same moment.
    f.clocks = [
        Some(SenderClock {
            ntp: 10 * second,
            rtp: 1000,
            at: f.start,
        }),
        Some(SenderClock {
            ntp: 11 * second,
            rtp: 1000 + 500_000 + 90_000,
            at: f.start,
        }),
    ];
    let a = head(&f.send(0, 1, 1000, &vp8(1, true), 0).unwrap());
    let b = head(&f.send(0, 2, 4000, &vp8(2, false), 33).unwrap());
    f.sub.target = Some(1);
    // Sent at the moment that is 7000 on layer 0, arriving late by 20 ms of jitter.
    let c = head(&f.send(1, 900, 507_000, &vp8(50, true), 86).unwrap());
    assert_eq!(b.timestamp.wrapping_sub(a.timestamp), 3000);
    assert_eq!(
        c.timestamp.wrapping_sub(b.timestamp),
        3000,
        "the report, not the arrival"
    );
    assert_eq!(c.sequence, b.sequence.wrapping_add(1));
    assert!(
        f.send(0, 3, 7000, &vp8(3, false), 90).is_none(),
        "the old layer is left"
    );
}

#[test]
fn without_reports_time_runs_on_by_arrival() {
    let mut f = Feed::new(true);
    let a = head(&f.send(0, 1, 1000, &vp8(1, true), 0).unwrap());
    f.sub.target = Some(1);
    let b = head(&f.send(1, 900, 777, &vp8(50, true), 100).unwrap());
    assert_eq!(b.timestamp.wrapping_sub(a.timestamp), 9000);
}

#[test]
fn a_resend_is_the_same_packet_at_most_thrice_and_not_at_once() {
    for rtx in [false, true] {
        let mut f = Feed::new(rtx);
        let sent = f.send(0, 1, 1000, &vp8(1, true), 0).unwrap();
        let number = head(&sent).sequence;
        let now = f.start + Duration::from_millis(50);
        let rtt = Duration::from_millis(20);
        let mut original = Vec::new();
        write_header(
            &mut original,
            &Rewrite {
                marker: true,
                payload_type: 96,
                sequence: 1,
                timestamp: 1000,
                ssrc: 0,
            },
        );
        original.extend_from_slice(&vp8(1, true));
        let what = f.sub.resend(number, rtt, now).unwrap();
        assert_eq!((what.layer, what.sequence), (0, 1));
        let mut out = Vec::new();
        let codec_of = |_| Some(Codec::Vp8);
        let ids = Incoming::default();
        let dressed = f
            .sub
            .repeat(&what, &original, &ids, &codec_of, 9, &mut out)
            .unwrap();
        assert_eq!(dressed.header_len, head(&out).header_len);
        if rtx {
            let h = head(&out);
            assert_eq!((h.payload_type, h.ssrc), (103, 0xBBBB));
            let payload = h.payload(&out).unwrap();
            assert_eq!(payload[..2], number.to_be_bytes());
            assert_eq!(&payload[2..], head(&sent).payload(&sent).unwrap());
        } else {
            assert_eq!(out, sent, "the same bytes under the same nonce");
        }
        assert!(
            f.sub
                .resend(number, rtt, now + Duration::from_millis(14))
                .is_none()
        );
        assert!(
            f.sub
                .resend(number, rtt, now + Duration::from_millis(15))
                .is_some()
        );
        assert!(
            f.sub
                .resend(number, rtt, now + Duration::from_millis(90))
                .is_some()
        );
        assert!(
            f.sub
                .resend(number, rtt, now + Duration::from_millis(500))
                .is_none()
        );
        assert!(f.sub.resend(number.wrapping_add(1), rtt, now).is_none());
    }
}

#[test]
fn padding_leaves_no_hole() {
    let mut f = Feed::new(true);
    let a = head(&f.send(0, 1, 0, &vp8(1, true), 0).unwrap());
    assert!(f.send(0, 2, 0, &[], 1).is_none());
    let b = head(&f.send(0, 3, 3000, &vp8(2, false), 33).unwrap());
    assert_eq!(b.sequence, a.sequence.wrapping_add(1));
}

#[test]
fn reports_carry_the_publishers_clock_and_close_round_trips() {
    let mut f = Feed::new(true);
    assert!(
        f.sub.sender_clock(None, 90_000, 5, f.start).is_none(),
        "nothing sent yet"
    );
    let out = head(&f.send(0, 1, 1000, &vp8(1, true), 0).unwrap());
    let clock = SenderClock {
        ntp: 10 << 32,
        rtp: 1000,
        at: f.start,
    };
    let later = f.start + Duration::from_secs(2);
    let (ntp, rtp) = f.sub.sender_clock(Some(clock), 90_000, 5, later).unwrap();
    assert_eq!((ntp, rtp), (12 << 32, out.timestamp.wrapping_add(180_000)));
    let back = later + Duration::from_millis(300);
    let rtt = f.sub.round_trip((ntp >> 16) as u32, 65_536 / 4, back).unwrap();
    assert_eq!(rtt, Duration::from_millis(50));
    assert!(f.sub.round_trip(1, 0, back).is_none());
}

#[test]
fn a_packet_without_rtx_leaves_again_with_its_old_number_and_padding() {
    let mut f = Feed::new(false);
    f.sub.binding.wide = true;
    f.sub.binding.extensions.set(Extension::TransportCc, 5);
    f.number = 500;
    f.padding = Padding { block: 3, payload: 2 };
    let sent = f.send(0, 1, 1000, &vp8(1, true), 0).unwrap();
    let h = head(&sent);
    let got: Vec<_> = h.extensions(&sent).collect();
    assert_eq!(got, [(4, &b"7"[..]), (5, &500_u16.to_be_bytes()[..])]);
    // MID 2, number 3, filling 3: two words and the block's own.
    assert_eq!(h.header_len, 12 + 4 + 8);
    assert_eq!(sent.len(), h.header_len + vp8(1, true).len() + 2);
    assert_eq!(h.payload(&sent).unwrap().len(), vp8(1, true).len());
    let what = f.sub.resend(h.sequence, Duration::ZERO, f.start).unwrap();
    let mut original = Vec::new();
    write_header(
        &mut original,
        &Rewrite {
            marker: true,
            payload_type: 96,
            sequence: 1,
            timestamp: 1000,
            ssrc: 0,
        },
    );
    original.extend_from_slice(&vp8(1, true));
    let mut out = Vec::new();
    let dressed = f
        .sub
        .repeat(&what, &original, &f.ids, &|_| Some(Codec::Vp8), 777, &mut out)
        .unwrap();
    assert_eq!(out, sent, "the same bytes under the same nonce");
    assert_eq!((dressed.index, dressed.number), (f.index, None));
}

#[test]
fn numbers_rise_over_the_life_of_a_key_and_begin_anew_with_the_next() {
    let mut f = Feed::new(true);
    let mut last = None;
    for i in 0..140_000_u64 {
        // Only the edges of the cycles matter.
        if f.send(0, i as u16, 0, &vp8(1, true), 0).is_some() {
            assert!(last.is_none_or(|l| f.index == l + 1), "{i}");
            last = Some(f.index);
        }
        f.sub.restart();
    }
    let (next, _) = f.sub.spent();
    assert!(next > 0x2_0000);
    // Another subscription on the same SSRC.
    let mut again = Feed::new(true);
    again.sub.follow(Some(next), Some(7));
    again.send(0, 1, 0, &vp8(1, true), 0).unwrap();
    assert_eq!((again.index, again.sub.spent().1), (next, 7));
    // A new key: the counter starts at 0, the sequence numbers run on.
    again.sub.rekeyed();
    let out = again.send(0, 2, 0, &vp8(1, false), 0).unwrap();
    assert_eq!(again.index, u64::from(head(&out).sequence));
    assert_eq!(head(&out).sequence, (next + 1) as u16);
}
