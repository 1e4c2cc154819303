//! The real forwarder between a publisher of three layers and a subscriber behind a simulated link.
//!
//! Owns both clients and the link, in virtual time. The subscriber is as browsers are: it decodes whole frames
//! in order, asks for what is missing, and for a key frame where that is in vain.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use rtc::srtp::protection_profile::ProtectionProfile;

use super::super::audio::SoundSpec;
use super::super::codec::Codec;
use super::super::congestion::Micros;
use super::super::congestion::link::{Link, Random, Wire};
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

pub(super) const STEP: Micros = 1_000;
const PUBLISHER: u16 = 1;
pub(super) const SUBSCRIBER: u16 = 2;
const VIDEO: u32 = 0xAAAA;
const REPAIR: u32 = 0xBBBB;
const SOUND: u32 = 0xCCCC;
/// Name, bits per second, frames per second.
const LAYERS: [(&str, f64, i64); 3] = [("q", 150e3, 15), ("h", 500e3, 30), ("f", 1.7e6, 30)];

pub(super) fn pair() -> (Srtp, Srtp) {
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

pub(super) fn route(port: u16) -> Route {
    Route::Udp(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Frames as a decoder takes them: whole, in order, each after the one it builds upon.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// By number as sent to us: layer, frame, key, packets there and in all.
    frames: BTreeMap<(u8, u32), (bool, HashSet<u16>, u16)>,
    last: Option<(u8, u32)>,
    pub(super) decoded: Vec<(Micros, u8)>,
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

    pub(super) fn frames(&self, from: Micros, to: Micros) -> usize {
        let within = |d: &&(Micros, u8)| (from..to).contains(&d.0);
        self.decoded.iter().filter(within).count()
    }

    /// The longest time without a decoded frame.
    pub(super) fn freeze(&self, from: Micros, to: Micros) -> Micros {
        let mut last = from;
        let mut most = 0;
        for (at, _) in self.decoded.iter().filter(|(at, _)| (from..=to).contains(at)) {
            most = most.max(at - last);
            last = *at;
        }
        most.max(to - last)
    }
}

pub(super) struct World {
    /// Bits per second of each layer.
    pub(super) rates: [f64; 3],
    /// A key frame is so many times as large as others.
    pub(super) key_size: usize,
    /// Frames differ in size by this share, up and down.
    pub(super) noise: f64,
    /// Time between two feedbacks.
    pub(super) feedback: Micros,
    /// The machine is busy: the forwarder sleeps for up to so long, twenty times a second.
    pub(super) busy: Micros,
    asleep: Micros,
    /// What lies in its socket.
    come: Vec<Vec<u8>>,
    random: Random,

    t0: Instant,
    pub(super) now: Micros,
    pub(super) f: Forwarder,
    batch: SendBatch,
    publisher: LegKey,
    pub(super) subscriber: LegKey,
    /// The clients' ends.
    sender: Srtp,
    pub(super) receiver: Srtp,
    pub(super) link: Link,
    forth: Wire<Vec<u8>>,
    back: Wire<Vec<u8>>,
    recorder: Recorder,
    pub(super) decoder: Decoder,
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
    pub(super) padding: u64,
    pub(super) numbered: u64,
    pub(super) told: Vec<(Micros, bool)>,
    wide: bool,
    /// When it subscribed.
    since: Micros,
    /// What comes before is lost: the subscriber's receiver isn't set up.
    pub(super) deaf: Micros,
    /// Key frames that the publisher was asked for.
    pub(super) requests: usize,
}

impl World {
    pub(super) fn new(mut link: Link, wide: bool, active: usize) -> World {
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
            ssrcs: Vec::new(),
            nack: false,
            max_bitrate: None,
            sound: SoundSpec::default(),
        };
        let rids = LAYERS.iter().map(|l| l.0.to_owned()).collect();
        f.publish(spec("V", MediaKind::Video, vec![(96, Codec::Vp8)], rids));
        f.publish(spec("A", MediaKind::Audio, vec![(111, Codec::Opus)], Vec::new()));
        World {
            rates: LAYERS.map(|l| l.1),
            key_size: 4,
            noise: 0.0,
            feedback: 60_000,
            busy: 0,
            asleep: 0,
            come: Vec::new(),
            random: link.fork(),
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
            since: 0,
            deaf: 0,
            requests: 0,
        }
    }

    pub(super) fn subscribe(&mut self) {
        self.since = self.now;
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
        let now = self.at(self.now);
        assert!(self.f.bind(&TrackSid::from("V"), video, 7, now));
        assert!(self.f.bind(&TrackSid::from("A"), sound, 9, now));
    }

    /// Ends what [`Self::subscribe`] began; the subscriber's receiver goes.
    pub(super) fn unsubscribe(&mut self) {
        for sid in ["V", "A"] {
            self.f.unbind(&TrackSid::from(sid), SessionId(2));
        }
        self.run_for(500_000);
        self.decoder = Decoder::default();
        self.missing.clear();
        self.highest = None;
    }

    /// Somebody else's bytes go first, as signalling does at a join.
    pub(super) fn crowd(&mut self, bytes: usize) {
        for _ in 0..bytes / 1200 {
            self.link.send(1200, self.now);
        }
    }

    pub(super) fn at(&self, at: Micros) -> Instant {
        self.t0 + Duration::from_micros(at as u64)
    }

    pub(super) fn run(&mut self, seconds: i64) -> (Micros, Micros) {
        self.run_for(seconds * 1_000_000)
    }

    pub(super) fn run_for(&mut self, time: Micros) -> (Micros, Micros) {
        let from = self.now;
        while self.now < from + time {
            self.step();
        }
        (from, self.now)
    }

    pub(super) fn step(&mut self) {
        self.now += STEP;
        let now = self.at(self.now);
        self.publish();
        if self.busy > 0 && self.now % 50_000 == 0 {
            self.asleep = self.now + self.random.below(self.busy as u64) as Micros;
        }
        if self.now >= self.asleep {
            self.forward(now);
        }
        for (_, _, paused) in self.f.take_stream_states() {
            self.told.push((self.now, paused));
        }
        while let Some((at, packet)) = self.forth.take(self.now) {
            self.receive(packet, at);
        }
        if self.now % self.feedback == 0 {
            self.answer();
        }
    }

    fn forward(&mut self, now: Instant) {
        for mut packet in self.come.drain(..) {
            self.f.rtp(self.publisher, &mut packet, now);
        }
        if self.f.next_timeout().is_some_and(|at| at <= now) {
            self.f.tick(0, now, &mut self.batch);
        }
        while self.f.deliver(now, &mut self.batch) {
            self.flush();
        }
        self.flush();
        while let Some((_, mut packet)) = self.back.take(self.now) {
            self.f.rtcp(self.subscriber, &mut packet, now, &mut self.batch);
            self.flush();
        }
    }

    fn publish(&mut self) {
        for (at, (rid, _, fps)) in LAYERS.into_iter().enumerate().take(self.active) {
            if self.now % (1_000_000 / fps / STEP * STEP) != 0 {
                continue;
            }
            let (_, number, key) = self.layers[at];
            self.layers[at].1 += 1;
            self.layers[at].2 = false;
            let mean = self.rates[at] / 8.0 / fps as f64;
            let size = mean * (1.0 + self.noise * (2.0 * self.random.unit() - 1.0));
            let bytes = size as usize * if key { self.key_size } else { 1 };
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
                self.arrive(&head, &[(1, b"V"), (2, rid.as_bytes())], &payload, index);
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
            self.arrive(&head, &[(1, b"A")], &payload, index);
        }
    }

    fn arrive(&mut self, head: &Rewrite, extensions: &[(u8, &[u8])], payload: &[u8], index: u64) {
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
        self.come.push(packet);
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
                    self.requests += 1;
                    self.layers[media as usize - 10].2 = true;
                }
            }
        }
    }

    fn receive(&mut self, mut packet: Vec<u8>, at: Micros) {
        if at < self.deaf {
            return;
        }
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
        // As browsers do: nothing can be made of the first frame.
        let delta = payload[1] & 1 == 1;
        if delta && self.last_pli < self.deaf && self.decoder.decoded.is_empty() {
            self.last_pli = self.now;
            let mut out = Vec::new();
            rtcp::pli(&mut out, 9, VIDEO);
            self.receiver.seal_rtcp(&mut out, 0).unwrap();
            self.back.put(self.now + self.link.delay, out);
        }
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
        let still = self.decoder.decoded.last().map_or(self.since, |d| d.0);
        if (given_up || self.now - still > 1_000_000) && self.now - self.last_pli > 500_000 {
            self.last_pli = self.now;
            rtcp::pli(&mut out, 9, VIDEO);
        }
        if !out.is_empty() {
            self.receiver.seal_rtcp(&mut out, 0).unwrap();
            self.back.put(self.now + self.link.delay, out);
        }
    }

    pub(super) fn layer(&self) -> Option<u8> {
        self.decoder.decoded.last().map(|d| d.1)
    }

    /// Sound that was published in the interval and came.
    pub(super) fn sound_share(&self, (from, to): (Micros, Micros)) -> f64 {
        let got = self
            .sound_got
            .iter()
            .filter(|s| (from..to).contains(&s.1))
            .count();
        got as f64 / ((to - from) as f64 / 20_000.0)
    }
}
