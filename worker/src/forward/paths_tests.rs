//! The real forwarder between a publisher of three layers and a subscriber behind a simulated link.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use rtc::srtp::protection_profile::ProtectionProfile;

use super::super::audio::SoundSpec;
use super::super::codec::Codec;
use super::super::congestion::Micros;
use super::super::congestion::link::{Link, Wire};
use super::super::extension::{Extension, Outgoing};
use super::super::packet::{ExtensionWriter, Header, Rewrite, Unwrapper, write_header};
use super::super::rtcp::{self, Item};
use super::super::srtp::{Keys, Srtp};
use super::super::subscription::Binding;
use super::super::track::TrackSpec;
use super::super::twcc::Recorder;
use super::super::{Forwarder, LegKey, PayloadMap};
use super::*;
use crate::forward::drops::DropCounters;
use crate::net::Route;
use crate::session::api::MediaKind;

const STEP: Micros = 1_000;
const PUBLISHER: u16 = 1;
const SUBSCRIBER: u16 = 2;
const VIDEO: u32 = 0xAAAA;
const REPAIR: u32 = 0xBBBB;
const SOUND: u32 = 0xCCCC;
/// Name, bits per second, frames per second.
const LAYERS: [(&str, f64, i64); 3] = [("q", 150e3, 15), ("h", 500e3, 30), ("f", 1.7e6, 30)];

fn pair() -> (Srtp, Srtp) {
    let profile = ProtectionProfile::AeadAes128Gcm;
    let side = |local: u8, remote: u8| Keys {
        profile,
        local_key: vec![local; 16],
        local_salt: vec![local; 12],
        remote_key: vec![remote; 16],
        remote_salt: vec![remote; 12],
    };
    let provider = rtc::crypto::default_provider().unwrap();
    (
        Srtp::new(side(1, 2), provider.clone()).unwrap(),
        Srtp::new(side(2, 1), provider).unwrap(),
    )
}

fn route(port: u16) -> Route {
    Route::Udp(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Frames as a decoder takes them: whole, in order, each after the one it builds upon.
#[derive(Debug, Default)]
struct Decoder {
    /// By number as sent to us: layer, frame, key, packets there and in all.
    frames: BTreeMap<(u8, u32), (bool, HashSet<u16>, u16)>,
    last: Option<(u8, u32)>,
    decoded: Vec<(Micros, u8)>,
}

impl Decoder {
    fn packet(&mut self, payload: &[u8], now: Micros) {
        let [_, kind, layer, f0, f1, f2, f3, i0, i1, n0, n1, ..] = payload else {
            panic!("short payload")
        };
        let number = u32::from_be_bytes([*f0, *f1, *f2, *f3]);
        let count = u16::from_be_bytes([*n0, *n1]);
        let frame = self
            .frames
            .entry((*layer, number))
            .or_insert((kind & 1 == 0, HashSet::new(), count));
        frame.1.insert(u16::from_be_bytes([*i0, *i1]));
        loop {
            let next = match self.last {
                Some((layer, number)) => self.ready((layer, number + 1)),
                None => None,
            };
            // A key frame of any layer may come next.
            let key = || {
                self.frames
                    .iter()
                    .filter(|(at, (key, got, n))| {
                        *key && got.len() == usize::from(*n)
                            && self.last.is_none_or(|l| at.0 != l.0 || at.1 > l.1)
                    })
                    .map(|(at, _)| *at)
                    .next_back()
            };
            let Some(at) = next.or_else(key) else { return };
            if self.last.is_some_and(|l| l.0 != at.0) {
                self.frames.retain(|f, _| f.0 == at.0);
            }
            self.frames.retain(|f, _| f.0 != at.0 || f.1 > at.1);
            self.last = Some(at);
            self.decoded.push((now, at.0));
        }
    }

    fn ready(&self, at: (u8, u32)) -> Option<(u8, u32)> {
        let (_, got, n) = self.frames.get(&at)?;
        (got.len() == usize::from(*n)).then_some(at)
    }

    /// The longest time without a decoded frame.
    fn freeze(&self, from: Micros, to: Micros) -> Micros {
        let mut last = from;
        let mut most = 0;
        for (at, _) in self.decoded.iter().filter(|(at, _)| (from..=to).contains(at)) {
            most = most.max(at - last);
            last = *at;
        }
        most.max(to - last)
    }
}

struct World {
    t0: Instant,
    now: Micros,
    f: Forwarder,
    batch: SendBatch,
    publisher: LegKey,
    subscriber: LegKey,
    /// The clients' ends.
    sender: Srtp,
    receiver: Srtp,
    link: Link,
    forth: Wire<Vec<u8>>,
    back: Wire<Vec<u8>>,
    recorder: Recorder,
    decoder: Decoder,
    /// Next sequence number and frame of each layer; whether a key frame is asked for.
    layers: [(u64, u32, bool); 3],
    active: usize,
    sound: u64,
    sound_got: Vec<(u64, Micros)>,
    media: Unwrapper,
    got: HashSet<u64>,
    /// Missing numbers and when they were asked for.
    missing: HashMap<u64, (u8, Micros)>,
    highest: Option<u64>,
    last_pli: Micros,
    padding: u64,
    numbered: u64,
    told: Vec<(Micros, bool)>,
    wide: bool,
}

impl World {
    fn new(link: Link, wide: bool, active: usize) -> World {
        let t0 = Instant::now();
        let mut f = Forwarder::new(Arc::new(DropCounters::default()), t0);
        let (publisher, subscriber) = (f.add_peer(1), f.add_peer(2));
        let (sender, here) = pair();
        f.set_route(publisher, route(PUBLISHER));
        f.set_keys(publisher, here);
        let (here, receiver) = pair();
        f.set_route(subscriber, route(SUBSCRIBER));
        f.set_keys(subscriber, here);
        let ids = Arc::make_mut(&mut f.peer(publisher).unwrap().extensions);
        ids.set(1, Extension::Mid);
        ids.set(2, Extension::Rid);
        let spec = |sid: &str, kind, codecs, rids: Vec<String>| TrackSpec {
            sid: TrackSid::from(sid),
            session: SessionId(1),
            leg: publisher,
            mid: sid.to_owned(),
            kind,
            codecs,
            repairs: Vec::new(),
            rids,
            max_bitrate: None,
            ssrcs: Vec::new(),
            nack: false,
            sound: SoundSpec::default(),
        };
        let rids = LAYERS.iter().map(|l| l.0.to_owned()).collect();
        f.publish(spec("V", MediaKind::Video, vec![(96, Codec::Vp8)], rids));
        f.publish(spec("A", MediaKind::Audio, vec![(111, Codec::Opus)], Vec::new()));
        World {
            t0,
            now: 0,
            f,
            batch: SendBatch::default(),
            publisher,
            subscriber,
            sender,
            receiver,
            link,
            forth: Wire::new(),
            back: Wire::new(),
            recorder: Recorder::new(t0),
            decoder: Decoder::default(),
            layers: [(100, 0, true); 3],
            active,
            sound: 100,
            sound_got: Vec::new(),
            media: Unwrapper::default(),
            got: HashSet::new(),
            missing: HashMap::new(),
            highest: None,
            last_pli: 0,
            padding: 0,
            numbered: 0,
            told: Vec::new(),
            wide,
        }
    }

    fn subscribe(&mut self) {
        let mut extensions = Outgoing::default();
        extensions.set(Extension::Mid, 4);
        extensions.set(Extension::TransportCc, 7);
        let binding = |ssrc, rtx_ssrc, pt, rtx, wide| Binding {
            session: SessionId(2),
            leg: self.subscriber,
            mid: "0".to_owned(),
            ssrc,
            rtx_ssrc,
            payloads: PayloadMap {
                entries: vec![(pt, pt, rtx)],
                ..PayloadMap::default()
            },
            extensions,
            mixed: false,
            wide,
            wanted: Some(Quality::High),
        };
        let video = binding(VIDEO, REPAIR, 96, Some(97), self.wide);
        let sound = binding(SOUND, SOUND + 1, 111, None, false);
        assert!(self.f.bind(&TrackSid::from("V"), video, 7));
        assert!(self.f.bind(&TrackSid::from("A"), sound, 9));
    }

    fn at(&self, at: Micros) -> Instant {
        self.t0 + Duration::from_micros(at as u64)
    }

    fn run(&mut self, seconds: i64) -> (Micros, Micros) {
        let from = self.now;
        while self.now < from + seconds * 1_000_000 {
            self.step();
        }
        (from, self.now)
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.at(self.now);
        self.publish(now);
        if self.f.next_timeout().is_some_and(|at| at <= now) {
            self.f.tick(0, now, &mut self.batch);
        }
        while self.f.deliver(now, &mut self.batch) {
            self.flush();
        }
        self.flush();
        for (_, _, paused) in self.f.take_stream_states() {
            self.told.push((self.now, paused));
        }
        while let Some((at, packet)) = self.forth.take(self.now) {
            self.receive(packet, at);
        }
        if self.now % 60_000 == 0 {
            self.answer();
        }
        while let Some((_, mut packet)) = self.back.take(self.now) {
            self.f.rtcp(self.subscriber, &mut packet, now, &mut self.batch);
            self.flush();
        }
    }

    fn publish(&mut self, now: Instant) {
        for (at, (rid, rate, fps)) in LAYERS.into_iter().enumerate().take(self.active) {
            if self.now % (1_000_000 / fps / STEP * STEP) != 0 {
                continue;
            }
            let (_, number, key) = self.layers[at];
            self.layers[at].1 += 1;
            self.layers[at].2 = false;
            let bytes = (rate / 8.0 / fps as f64) as usize * if key { 4 } else { 1 };
            let count = bytes.div_ceil(1100).max(1);
            for i in 0..count {
                let mut payload = vec![if i == 0 { 0x10 } else { 0x00 }, u8::from(!key), at as u8];
                payload.extend_from_slice(&number.to_be_bytes());
                payload.extend_from_slice(&(i as u16).to_be_bytes());
                payload.extend_from_slice(&(count as u16).to_be_bytes());
                payload.resize((bytes / count).max(20), 0x55);
                let index = self.layers[at].0;
                self.layers[at].0 += 1;
                let head = Rewrite {
                    marker: i + 1 == count,
                    payload_type: 96,
                    sequence: index as u16,
                    timestamp: (self.now * 9 / 100) as u32,
                    ssrc: 10 + at as u32,
                };
                self.arrive(&head, &[(1, b"V"), (2, rid.as_bytes())], &payload, index, now);
            }
        }
        if self.now % 20_000 == 0 {
            let index = self.sound;
            self.sound += 1;
            let head = Rewrite {
                marker: false,
                payload_type: 111,
                sequence: index as u16,
                timestamp: (self.now * 48 / 1000) as u32,
                ssrc: 20,
            };
            let mut payload = index.to_be_bytes().to_vec();
            payload.resize(80, 1);
            self.arrive(&head, &[(1, b"A")], &payload, index, now);
        }
    }

    fn arrive(
        &mut self,
        head: &Rewrite,
        extensions: &[(u8, &[u8])],
        payload: &[u8],
        index: u64,
        now: Instant,
    ) {
        let mut packet = Vec::new();
        write_header(&mut packet, head);
        let mut w = ExtensionWriter::new(&mut packet, false);
        for (id, value) in extensions {
            w.push(*id, value);
        }
        w.finish();
        let header_len = packet.len();
        packet.extend_from_slice(payload);
        self.sender
            .seal_rtp(&mut packet, 0, header_len, head.ssrc, index)
            .unwrap();
        self.f.rtp(self.publisher, &mut packet, now);
    }

    fn flush(&mut self) {
        let packets: Vec<(Route, Vec<u8>)> = self
            .batch
            .entries()
            .iter()
            .map(|e| (e.route, self.batch.packet(e).to_vec()))
            .collect();
        self.batch.clear();
        for (to, mut packet) in packets {
            if to == route(SUBSCRIBER) {
                if let Some(at) = self.link.send(packet.len() + OVERHEAD, self.now) {
                    self.forth.put(at, packet);
                }
                continue;
            }
            let len = self.sender.open_rtcp(&mut packet).unwrap();
            for item in rtcp::parse(&packet[..len]) {
                if let Item::Pli { media } = item {
                    self.layers[media as usize - 10].2 = true;
                }
            }
        }
    }

    fn receive(&mut self, mut packet: Vec<u8>, at: Micros) {
        if (192..=223).contains(&packet[1]) {
            return; // a report
        }
        let header = Header::parse(&packet).unwrap();
        let len = self.receiver.open_rtp(&mut packet, &header).unwrap();
        let clear = &packet[..len];
        for (id, value) in header.extensions(clear) {
            if let (7, [hi, lo]) = (id, value) {
                self.numbered += 1;
                let at = self.at(at);
                self.recorder.record(u16::from_be_bytes([*hi, *lo]), at);
            }
        }
        let payload = header.payload(clear).unwrap().to_vec();
        let sequence = match header.ssrc {
            SOUND => {
                let number = u64::from_be_bytes(payload[..8].try_into().unwrap());
                self.sound_got.push((number, at));
                return;
            }
            VIDEO => self.media.unwrap(header.sequence),
            REPAIR if payload.len() < 2 => {
                self.padding += 1;
                return;
            }
            REPAIR => self.media.peek(u16::from_be_bytes([payload[0], payload[1]])),
            other => panic!("{other}"),
        };
        let payload = if header.ssrc == REPAIR {
            &payload[2..]
        } else {
            &payload[..]
        };
        self.missing.remove(&sequence);
        if !self.got.insert(sequence) {
            return;
        }
        if let Some(highest) = self.highest {
            for lost in highest + 1..sequence {
                self.missing.insert(lost, (0, 0));
            }
        }
        self.highest = self.highest.max(Some(sequence));
        self.decoder.packet(payload, at);
    }

    fn answer(&mut self) {
        while let Some(mut raw) = self.recorder.feedback(9, VIDEO) {
            self.receiver.seal_rtcp(&mut raw, 0).unwrap();
            self.back.put(self.now + self.link.delay, raw);
        }
        let mut due: Vec<u16> = Vec::new();
        let mut given_up = false;
        for (sequence, (asked, last)) in &mut self.missing {
            if self.now - *last > 120_000 {
                *last = self.now;
                *asked += 1;
                given_up |= *asked > 5;
                due.push(*sequence as u16);
            }
        }
        self.missing.retain(|_, (asked, _)| *asked <= 5);
        due.sort_unstable();
        let mut out = Vec::new();
        if !due.is_empty() {
            rtcp::nack(&mut out, 9, VIDEO, &due);
        }
        let still = self.decoder.decoded.last().map_or(0, |d| d.0);
        if (given_up || self.now - still > 1_000_000) && self.now - self.last_pli > 500_000 {
            self.last_pli = self.now;
            rtcp::pli(&mut out, 9, VIDEO);
        }
        if !out.is_empty() {
            self.receiver.seal_rtcp(&mut out, 0).unwrap();
            self.back.put(self.now + self.link.delay, out);
        }
    }

    fn layer(&self) -> Option<u8> {
        self.decoder.decoded.last().map(|d| d.1)
    }

    /// Sound that was published in the interval and came.
    fn sound_share(&self, (from, to): (Micros, Micros)) -> f64 {
        let got = self
            .sound_got
            .iter()
            .filter(|s| (from..to).contains(&s.1))
            .count();
        got as f64 / ((to - from) as f64 / 20_000.0)
    }
}

#[test]
fn a_narrow_path_gets_the_layer_that_fits_and_a_wider_one_more() {
    for seed in 0..4 {
        let mut w = World::new(Link::new(400e3, seed), true, 3);
        w.link.jitter = 2_000;
        w.run(3);
        w.subscribe();
        w.run(6);
        let narrow = w.run(24);
        assert_eq!(w.layer(), Some(0), "{seed}");
        let freeze = w.decoder.freeze(narrow.0, narrow.1);
        assert!(freeze < 500_000, "{seed}: {freeze}");
        assert!(w.sound_share(narrow) > 0.98, "{seed}: {}", w.sound_share(narrow));

        w.link.rate = 5e6;
        let opens = w.run(25);
        assert_eq!(w.layer(), Some(2), "{seed}");
        let freeze = w.decoder.freeze(opens.0, opens.1);
        assert!(freeze < 500_000, "{seed}: {freeze}");

        w.link.rate = 800e3;
        w.run(5);
        let steady = w.run(25);
        assert_eq!(w.layer(), Some(1), "{seed}");
        let freeze = w.decoder.freeze(steady.0, steady.1);
        assert!(freeze < 500_000, "{seed}: {freeze}");
        assert!(w.told.is_empty(), "{seed}: {:?}", w.told);
        assert!(w.padding > 0, "{seed}: nobody probed");
    }
}

#[test]
fn a_wide_path_is_used_within_seconds() {
    for seed in 0..4 {
        let mut w = World::new(Link::new(8e6, seed), true, 3);
        w.run(3);
        w.subscribe();
        let start = w.now;
        w.run(6);
        let high = w.decoder.decoded.iter().find(|d| d.1 == 2).map(|d| d.0 - start);
        assert!(high.is_some_and(|at| at < 4_000_000), "{seed}: {high:?}");
        let (from, to) = w.run(20);
        assert!(w.decoder.freeze(from, to) < 300_000, "{seed}");
        assert!(
            w.decoder.decoded.iter().filter(|d| d.0 > from).all(|d| d.1 == 2),
            "{seed}"
        );
        let padding = w.padding;
        w.run(10);
        assert_eq!(w.padding, padding, "{seed}: there is nothing left to probe for");
    }
}

#[test]
fn what_does_not_fit_at_all_pauses_and_is_told_and_comes_back() {
    for seed in 0..4 {
        let mut w = World::new(Link::new(2e6, seed), true, 1);
        w.run(3);
        w.subscribe();
        w.run(10);
        assert_eq!(w.layer(), Some(0), "{seed}");
        w.link.rate = 100e3;
        w.run(20);
        assert_eq!(
            w.told.iter().map(|t| t.1).collect::<Vec<_>>(),
            [true],
            "{seed}: {:?}",
            w.told
        );
        let paused = w.run(5);
        assert!(w.sound_share(paused) > 0.98, "{seed}: {}", w.sound_share(paused));
        w.link.rate = 2e6;
        w.run(25);
        assert_eq!(w.told.last().map(|t| t.1), Some(false), "{seed}: {:?}", w.told);
        let (from, to) = w.run(2);
        assert!(w.decoder.freeze(from, to) < 300_000, "{seed}");
    }
}

#[test]
fn without_feedback_nothing_is_held_back() {
    let mut w = World::new(Link::new(8e6, 1), false, 3);
    w.run(3);
    w.subscribe();
    w.run(5);
    assert_eq!(w.layer(), Some(2));
    assert_eq!((w.numbered, w.padding), (0, 0));
    assert!(w.f.peer(w.subscriber).unwrap().outgoing.path.is_none());
}

#[test]
fn before_the_keys_are_there_nothing_spins() {
    let mut w = World::new(Link::new(8e6, 1), true, 3);
    w.run(3);
    let late = w.f.add_peer(3);
    w.subscriber = late;
    w.subscribe();
    let mut busy = 0;
    for _ in 0..2_000 {
        w.step();
        let now = w.at(w.now);
        busy += u32::from(w.f.next_timeout().is_some_and(|at| at <= now));
    }
    // The timers of 20 ms are run within the step.
    assert!(busy < 10, "{busy}");
    let (here, receiver) = pair();
    w.receiver = receiver;
    w.f.set_route(late, route(SUBSCRIBER));
    w.f.set_keys(late, here);
    w.run(6);
    assert_eq!(w.layer(), Some(2));
    assert!(w.padding > 0);
}
