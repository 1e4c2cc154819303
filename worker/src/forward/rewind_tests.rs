//! A track with its subscriptions in virtual time, without keys or sockets.

use std::time::Duration;

use super::super::audio::{Part, SoundSpec};
use super::super::extension::Outgoing;
use super::super::packet::{ExtensionWriter, Rewrite, write_header};
use super::super::receive::SenderClock;
use super::super::subscription::Binding;
use super::super::svc::dependency_descriptor::DescriptorStream;
use super::super::svc::dependency_descriptor::tests::{Written, l2t2_key};
use super::super::track::{Track, TrackSpec};
use super::super::{LegKey, PayloadMap};
use super::*;
use crate::session::api::{MediaKind, Quality, SessionId};

const DESCRIPTOR: u8 = 12;

struct Call {
    track: Track,
    ids: Incoming,
    start: Instant,
    next: Vec<u16>,
    now: Instant,
}

fn spec(codec: Codec, rids: &[&str]) -> TrackSpec {
    TrackSpec {
        sid: "TR_a".into(),
        session: SessionId(1),
        leg: LegKey(0),
        mid: "0".to_owned(),
        kind: MediaKind::Video,
        codecs: vec![(96, codec)],
        repairs: Vec::new(),
        rids: rids.iter().map(|r| (*r).to_owned()).collect(),
        max_bitrate: None,
        ssrcs: Vec::new(),
        nack: true,
        sound: SoundSpec::default(),
    }
}

fn vp8(picture: u16, key: bool) -> Vec<u8> {
    let mut p = vec![
        0x90,
        0x80,
        0x80 | (picture >> 8) as u8,
        picture as u8,
        u8::from(!key),
    ];
    // As opaque as an encrypted frame.
    p.extend((0..40u16).map(|i| (picture.wrapping_mul(31).wrapping_add(i * 7) >> 1) as u8));
    p
}

impl Call {
    fn new(codec: Codec, rids: &[&str]) -> Call {
        let mut ids = Incoming::default();
        ids.set(DESCRIPTOR, Extension::DependencyDescriptor);
        let now = Instant::now();
        Call {
            track: Track::new(spec(codec, rids)),
            ids,
            start: now,
            now,
            next: vec![500; rids.len().max(1)],
        }
    }

    /// A packet of `layer` comes in `ms` after the start.
    fn arrive(&mut self, layer: usize, payload: &[u8], descriptor: Option<&[u8]>, ms: u64) {
        let sequence = self.next[layer];
        self.next[layer] += 1;
        let mut bytes = Vec::new();
        let head = Rewrite {
            marker: true,
            payload_type: 96,
            sequence,
            timestamp: 90 * ms as u32,
            ssrc: 7,
        };
        write_header(&mut bytes, &head);
        let mut w = ExtensionWriter::new(&mut bytes, true);
        if let Some(d) = descriptor {
            w.push(DESCRIPTOR, d);
        }
        w.finish();
        bytes.extend_from_slice(payload);
        let now = self.start + Duration::from_millis(ms);
        self.now = now;
        let header = Header::parse(&bytes).unwrap();
        let codec = self.track.codec(96).unwrap();
        let passed = Passed::find(&header, &bytes, &self.ids);
        let l = &mut self.track.layers[layer];
        let arrival = l
            .receiver
            .packet(sequence, header.timestamp, payload.len(), false, now);
        l.last_packet = Some(now);
        l.buffer.insert(arrival.sequence, &bytes, now);
        let parts = Parts {
            codec,
            payload,
            descriptor,
        };
        let (described, starts) =
            l.source
                .arrive(parts, arrival.sequence, header.timestamp, arrival.newest, now);
        self.track.pending.push(Pending {
            header,
            passed,
            codec,
            described,
            layer,
            sequence: arrival.sequence,
            payload_len: payload.len(),
            newest: arrival.newest,
            starts,
            padding: Padding::default(),
            part: Part::Whole,
            voice: None,
            now,
        });
    }

    fn join(&mut self, wanted: Quality) -> usize {
        let mut extensions = Outgoing::default();
        extensions.set(Extension::DependencyDescriptor, 5);
        let binding = Binding {
            session: SessionId(2),
            leg: LegKey(1),
            mid: "3".to_owned(),
            ssrc: 0xAAAA,
            rtx_ssrc: 0xBBBB,
            payloads: PayloadMap {
                entries: vec![(96, 102, None)],
                ..PayloadMap::default()
            },
            extensions,
            mixed: true,
            wide: false,
            wanted: Some(wanted),
        };
        let at = self.track.vacancy();
        let s = Subscription::new(binding, true, 0x0123_4567);
        self.track.attach(s);
        self.track.reselect(at);
        at
    }

    /// The end of a turn: what leaves for one subscription.
    fn deliver(&mut self, at: usize) -> Vec<Vec<u8>> {
        let now = self.now;
        let Track {
            layers,
            pending,
            subscriptions,
            spec,
            ..
        } = &mut self.track;
        let s = subscriptions[at].as_mut().unwrap();
        let no_clock = |_: usize| None::<SenderClock>;
        let mut left = Vec::new();
        let mut out = Vec::new();
        if let Some(rewind) = Rewind::find(layers, pending, s, now) {
            for sequence in rewind.sequences() {
                let Some(p) = rewind.read(sequence, &self.ids, &spec.codecs) else {
                    s.skip(sequence);
                    continue;
                };
                out.clear();
                if s.forward(&rewind.arrived(sequence, &p), &no_clock, 0, &mut out)
                    .is_some()
                {
                    left.push(out.clone());
                }
            }
        }
        for p in pending.iter() {
            let layer = &layers[p.layer];
            let bytes = layer.buffer.get(p.sequence).unwrap();
            let arrived = Arrived {
                bytes,
                header: &p.header,
                payload: p.header.payload(bytes).unwrap(),
                passed: &p.passed,
                codec: p.codec,
                layering: layer.source.layering(&p.described),
                layer: p.layer,
                sequence: p.sequence,
                newest: p.newest,
                starts: p.starts,
                padding: p.padding,
                payload_type: p.header.payload_type,
                redundancy: Redundancy::default(),
                restored: false,
                now: p.now,
            };
            out.clear();
            if s.forward(&arrived, &no_clock, 0, &mut out).is_some() {
                left.push(out.clone());
            }
        }
        left
    }

    /// The turn is over.
    fn turn(&mut self) {
        self.track.pending.clear();
    }

    fn sub(&self, at: usize) -> &Subscription {
        self.track.subscriptions[at].as_ref().unwrap()
    }
}

fn heads(packets: &[Vec<u8>]) -> Vec<Header> {
    packets.iter().map(|p| Header::parse(p).unwrap()).collect()
}

fn key_of(packet: &[u8]) -> bool {
    let h = Header::parse(packet).unwrap();
    Codec::Vp8.starts_key_frame(h.payload(packet).unwrap())
}

/// A key frame at 0 ms and a picture every 40 ms until 400 ms.
fn running() -> Call {
    let mut call = Call::new(Codec::Vp8, &[]);
    call.arrive(0, &vp8(100, true), None, 0);
    for i in 1..=10 {
        call.arrive(0, &vp8(100 + i, false), None, 40 * u64::from(i));
    }
    call.turn();
    call
}

#[test]
fn a_join_after_a_key_frame_has_its_picture_at_once_and_goes_on_without_a_seam() {
    let mut call = running();
    let at = call.join(Quality::High);
    let first = call.deliver(at);
    assert_eq!(first.len(), 11, "nothing had to come in");
    assert!(key_of(&first[0]));
    assert!(!call.sub(at).waits_for_key_frame(), "no key frame is asked for");
    let h = heads(&first);
    for pair in h.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence + 1);
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!((1..=240).contains(&step), "{step}: the past is pressed together");
    }
    call.arrive(0, &vp8(111, false), None, 440);
    let live = heads(&call.deliver(at));
    assert_eq!(live.len(), 1);
    assert_eq!(live[0].sequence, h[10].sequence + 1);
    assert_eq!(
        live[0].timestamp.wrapping_sub(h[10].timestamp),
        3600,
        "the present has its own pace"
    );
}

#[test]
fn a_replay_ends_before_what_is_pending() {
    let mut call = running();
    call.arrive(0, &vp8(111, false), None, 440);
    let at = call.join(Quality::High);
    let out = heads(&call.deliver(at));
    assert_eq!(out.len(), 12);
    let distinct: std::collections::HashSet<u16> = out.iter().map(|h| h.sequence).collect();
    assert_eq!(distinct.len(), 12, "no number leaves twice");
}

#[test]
fn nothing_is_replayed_across_a_gap_or_from_a_muted_track_or_from_long_ago() {
    let mut call = running();
    call.next[0] += 1; // lost
    call.arrive(0, &vp8(112, false), None, 480);
    call.turn();
    let at = call.join(Quality::High);
    assert!(call.deliver(at).is_empty());
    assert!(call.sub(at).waits_for_key_frame());

    let mut call = running();
    call.track.forget_pictures();
    let at = call.join(Quality::High);
    assert!(call.deliver(at).is_empty());

    let mut call = running();
    call.now += Duration::from_millis(700);
    let at = call.join(Quality::High);
    assert!(
        call.deliver(at).is_empty(),
        "a stream that stopped shows nothing old"
    );

    let mut call = running();
    for i in 0..20 {
        call.arrive(0, &vp8(111 + i, false), None, 440 + 40 * u64::from(i));
    }
    call.turn();
    let at = call.join(Quality::High);
    assert!(call.deliver(at).is_empty());
    call.arrive(0, &vp8(131, true), None, 1240);
    assert!(key_of(&call.deliver(at)[0]), "the next key frame does");
}

#[test]
fn a_repeat_of_a_replayed_packet_is_the_same_packet() {
    let mut call = running();
    let at = call.join(Quality::High);
    let first = call.deliver(at);
    let out = heads(&first)[4].sequence;
    let now = call.start + Duration::from_millis(450);
    let s = call.track.subscriptions[at].as_mut().unwrap();
    let what = s.resend(out, Duration::from_millis(20), now).unwrap();
    let packet = call.track.layers[0].buffer.get(what.sequence).unwrap();
    let mut again = Vec::new();
    s.repeat(&what, packet, &call.ids, &|_| Some(Codec::Vp8), 0, &mut again)
        .unwrap();
    assert_eq!(again, first[4]);
}

#[test]
fn simulcast_begins_with_the_lowest_and_goes_up() {
    let mut call = Call::new(Codec::Vp8, &["q", "h", "f"]);
    for ms in [0, 40, 80] {
        for layer in 0..3 {
            call.arrive(layer, &vp8(10 + ms as u16 / 40, ms == 0), None, ms);
        }
    }
    call.turn();
    let at = call.join(Quality::High);
    assert_eq!(call.deliver(at).len(), 3, "one encoding, from its key frame on");
    assert_eq!(call.sub(at).current, Some(0));
    assert!(call.sub(at).waits_for_key_frame(), "of the wanted one");
    call.track.reselect(at);
    call.arrive(1, &vp8(13, true), None, 120);
    assert_eq!(call.deliver(at).len(), 1);
    assert_eq!(call.sub(at).current, Some(1), "what comes first on the way");
    call.turn();
    call.track.reselect(at);
    call.arrive(0, &vp8(14, true), None, 160);
    call.arrive(2, &vp8(14, true), None, 160);
    call.deliver(at);
    assert_eq!(call.sub(at).current, Some(2));
    assert!(!call.sub(at).waits_for_key_frame());
}

#[test]
fn without_a_replay_the_first_key_frame_that_comes_begins() {
    let mut call = Call::new(Codec::Vp8, &["q", "h", "f"]);
    for layer in 0..3 {
        call.arrive(layer, &vp8(1, false), None, 0);
    }
    call.turn();
    let low = call.join(Quality::Low);
    let high = call.join(Quality::High);
    call.arrive(1, &vp8(2, true), None, 40);
    assert!(call.deliver(low).is_empty(), "more than it wants");
    assert_eq!(call.deliver(high).len(), 1);
    assert_eq!(call.sub(high).current, Some(1));
}

fn described(template: u8, number: u16, structured: bool) -> Vec<u8> {
    Written {
        first: true,
        last: true,
        template,
        number,
        structure: structured.then(|| l2t2_key(0)),
        targets: 4,
        ..Written::default()
    }
    .bytes()
}

#[test]
fn a_lower_layer_of_one_stream_leaves_no_hole_and_is_marked_and_told() {
    let mut call = Call::new(Codec::Av1, &[]);
    let at = call.join(Quality::Low);
    // Key picture, then one of the lower and one of the upper layer.
    let packets = [
        (0, 10, true),
        (3, 11, false),
        (2, 12, false),
        (5, 13, false),
        (1, 14, false),
        (4, 15, false),
    ];
    for (i, (template, number, structured)) in packets.into_iter().enumerate() {
        let payload = [if structured { 0x18 } else { 0x10 }, 1, 2, 3];
        let descriptor = described(template, number, structured);
        call.arrive(0, &payload, Some(&descriptor), 40 * (i as u64 / 2));
        call.track.reselect(at);
    }
    let out = call.deliver(at);
    let h = heads(&out);
    assert_eq!(out.len(), 3);
    assert!(h.windows(2).all(|w| w[1].sequence == w[0].sequence + 1));
    assert!(
        h.iter().all(|h| h.marker),
        "the last packet of the highest layer that left"
    );
    let mut receiver = DescriptorStream::default();
    for (p, h) in out.iter().zip(&h) {
        let (_, value) = h.extensions(p).find(|(id, _)| *id == 5).unwrap();
        let frame = receiver.read(value, true).unwrap();
        assert_eq!(frame.spatial, 0);
    }
    assert_eq!(
        receiver.structure().unwrap().1,
        0b0011,
        "the decode targets that it gets"
    );

    // Sealed again under its old number, it must be what it was.
    let now = call.start + Duration::from_millis(100);
    let s = call.track.subscriptions[at].as_mut().unwrap();
    for (p, h) in out.iter().zip(&h) {
        let what = s.resend(h.sequence, Duration::from_millis(20), now).unwrap();
        let packet = call.track.layers[0].buffer.get(what.sequence).unwrap();
        let mut again = Vec::new();
        s.repeat(&what, packet, &call.ids, &|_| Some(Codec::Av1), 0, &mut again)
            .unwrap();
        assert_eq!(&again, p);
    }
}
