//! Random targets, losses and reordering against what a decoder could decode.

use std::collections::{HashMap, HashSet};

use super::dependency_descriptor::DescriptorStream;
use super::dependency_descriptor::tests::{Shape, Written};
use super::numbers::Numbers;
use super::selector::{Layering, Selector};
use super::vp9::Vp9;
use super::vp9::tests::{Spec, payload};
use super::{Decision, Position, Target};

/// A simple generator, so that failures repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// How the spatial layers lean on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Every picture.
    Full,
    /// At key pictures alone, as `L3T3_KEY`.
    Key,
    /// Never, as `S3T3`.
    Independent,
}

/// One frame as an encoder made it.
#[derive(Debug, Clone)]
struct Coded {
    number: u64,
    picture: u64,
    key: bool,
    spatial: u8,
    temporal: u8,
    references: Vec<u64>,
    /// By decode target, spatial * temporal layers + temporal.
    indications: Vec<u8>,
    /// Distance per spatial layer's chain.
    chains: Vec<u64>,
    top: bool,
    /// Nothing of a higher temporal layer after it refers to anything before it but the lowest layer.
    sync: bool,
}

struct Encoder {
    mode: Mode,
    spatial: u8,
    temporal: u8,
    number: u64,
    picture: u64,
    since_key: u64,
    /// Last frame number by (spatial, temporal).
    last: HashMap<(u8, u8), u64>,
    chain: HashMap<u8, u64>,
}

impl Encoder {
    fn new(mode: Mode, spatial: u8, temporal: u8, number: u64) -> Encoder {
        Encoder {
            mode,
            spatial,
            temporal,
            number,
            picture: number,
            since_key: 0,
            last: HashMap::new(),
            chain: HashMap::new(),
        }
    }

    /// Temporal layer in the usual pattern, and the layer it refers to.
    fn place(&self, i: u64) -> (u8, u8) {
        match (self.temporal, i % 4) {
            (1, _) => (0, 0),
            (2, n) => ((n % 2) as u8, 0),
            (_, 0) => (0, 0),
            (_, 1) => (2, 0),
            (_, 2) => (1, 0),
            (_, _) => (2, 1),
        }
    }

    fn picture(&mut self, key: bool) -> Vec<Coded> {
        if key {
            self.since_key = 0;
            self.last.clear();
        }
        let (temporal, refers) = self.place(self.since_key);
        let mut frames: Vec<Coded> = Vec::new();
        for spatial in 0..self.spatial {
            let between = match self.mode {
                Mode::Full => true,
                Mode::Key => key,
                Mode::Independent => false,
            };
            let mut references = Vec::new();
            if !key {
                references.extend(self.last.get(&(spatial, refers)).copied());
            }
            if between && spatial > 0 {
                references.extend(frames.last().map(|f| f.number));
            }
            let mut indications = Vec::new();
            for s in 0..self.spatial {
                for t in 0..self.temporal {
                    let part = if between { s >= spatial } else { s == spatial };
                    // A frame of the lowest temporal layer, or the first of its layer since: a switch.
                    let kind = match (part && t >= temporal, temporal) {
                        (false, _) => 0,
                        (true, 0) if key || s == spatial => 2,
                        (true, 0) => 3,
                        (true, own) if t == own && own + 1 == self.temporal => 1,
                        (true, _) if refers == 0 && s == spatial => 2,
                        (true, _) => 3,
                    };
                    indications.push(kind);
                }
            }
            let chains = (0..self.spatial)
                .map(|c| {
                    if key && c >= spatial && !self.chain_begun(&frames, c) {
                        0
                    } else {
                        self.chain.get(&c).map_or(0, |last| self.number - last)
                    }
                })
                .collect();
            frames.push(Coded {
                number: self.number,
                picture: self.picture,
                key,
                spatial,
                temporal,
                references,
                indications,
                chains,
                top: spatial + 1 == self.spatial,
                sync: refers == 0,
            });
            if temporal == 0 {
                for c in 0..self.spatial {
                    if c == spatial || (between && c > spatial) {
                        self.chain.insert(c, self.number);
                    }
                }
            }
            self.number += 1;
        }
        for f in &frames {
            self.last.insert((f.spatial, f.temporal), f.number);
        }
        self.picture += 1;
        self.since_key += 1;
        frames
    }

    fn chain_begun(&self, frames: &[Coded], chain: u8) -> bool {
        match self.mode {
            Mode::Independent => false,
            _ => frames.iter().any(|f| f.spatial <= chain),
        }
    }

    fn shape(&self) -> Shape {
        let targets = u32::from(self.spatial) * u32::from(self.temporal);
        let zeros = vec![0; usize::from(self.spatial)];
        let mut templates = Vec::new();
        for s in 0..self.spatial {
            for t in 0..self.temporal {
                let mut indications = Vec::new();
                for ts in 0..self.spatial {
                    for tt in 0..self.temporal {
                        indications.push(
                            u8::from(tt >= t && ts >= s && (ts == s || self.mode != Mode::Independent)) * 3,
                        );
                    }
                }
                templates.push((s, t, indications, vec![], zeros.clone()));
            }
        }
        Shape {
            offset: 9,
            targets,
            templates,
            protected_by: (0..self.spatial)
                .flat_map(|s| std::iter::repeat_n(s, usize::from(self.temporal)))
                .collect(),
            chains: u32::from(self.spatial),
            resolutions: None,
        }
    }

    fn descriptor(&self, f: &Coded, first: bool, last: bool) -> Vec<u8> {
        Written {
            first,
            last,
            template: (9 + f.spatial * self.temporal + f.temporal) % 64,
            number: f.number as u16,
            structure: (f.key && f.spatial == 0 && first).then(|| self.shape()),
            active: None,
            indications: Some(f.indications.clone()),
            references: Some(f.references.iter().map(|r| (f.number - r) as u16).collect()),
            chains: Some(f.chains.iter().map(|c| *c as u8).collect()),
            targets: u32::from(self.spatial) * u32::from(self.temporal),
        }
        .bytes()
    }

    fn vp9(&self, f: &Coded, first: bool, last: bool) -> Vec<u8> {
        let between = match self.mode {
            Mode::Full => true,
            Mode::Key => f.key,
            Mode::Independent => false,
        };
        payload(&Spec {
            inter_picture: !f.key,
            flexible: true,
            first,
            last,
            not_for_upper: !between || f.top,
            picture_id: (f.picture & 0x7FFF) as u16,
            spatial: f.spatial,
            temporal: f.temporal,
            switching_up: f.sync,
            inter_layer: between && f.spatial > 0,
            tl0_index: 0,
            differences: [
                f.references
                    .first()
                    .map_or(0, |r| ((f.number - r) / u64::from(self.spatial)) as u8),
                0,
                0,
            ],
            spatial_layers: (f.key && first).then_some(self.spatial),
        })
    }
}

/// What one subscriber got, and whether it could use it.
#[derive(Default)]
struct Subscriber {
    selector: Selector,
    left: HashSet<u64>,
    held: HashSet<u64>,
    markers: HashMap<u64, Vec<bool>>,
}

impl Subscriber {
    fn take(&mut self, f: &Coded, layering: &Layering<'_>, at: Position) {
        match self.selector.select(layering, at) {
            Decision::Forward { marker } => {
                assert!(!self.held.contains(&f.number), "a frame is whole or not at all");
                if self.left.insert(f.number) {
                    for r in &f.references {
                        assert!(self.left.contains(r), "{f:?} leaves without {r}");
                    }
                }
                self.markers.entry(f.picture).or_default().push(marker);
            }
            Decision::Drop => {
                assert!(!self.left.contains(&f.number), "a frame is whole or not at all");
                self.held.insert(f.number);
            }
        }
    }

    fn layers(&self) -> Target {
        self.selector.layers().unwrap()
    }
}

fn at(f: &Coded, marker: bool) -> Position {
    Position {
        timestamp: f.picture as u32 * 3000,
        newest: true,
        marker,
    }
}

/// Which of a packet's descriptions is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Descriptor,
    Payload,
}

struct World {
    encoder: Encoder,
    stream: DescriptorStream,
    by: By,
    someone: Subscriber,
}

impl World {
    fn new(mode: Mode, spatial: u8, temporal: u8, by: By) -> World {
        World {
            encoder: Encoder::new(mode, spatial, temporal, 65_000),
            stream: DescriptorStream::default(),
            by,
            someone: Subscriber::default(),
        }
    }

    /// One picture, each frame in two packets; returns which frames left.
    fn picture(&mut self, key: bool) -> Vec<(u8, u8)> {
        let frames = self.encoder.picture(key);
        let count = frames.len();
        let mut left = Vec::new();
        for (i, f) in frames.iter().enumerate() {
            for half in [0, 1] {
                let (first, last) = (half == 0, half == 1);
                let marker = last && i + 1 == count;
                let bytes = self.encoder.descriptor(f, first, last);
                let described = self.stream.read(&bytes, true).unwrap();
                assert_eq!((described.spatial, described.temporal), (f.spatial, f.temporal));
                let (structure, active) = self.stream.structure().unwrap();
                let layering = match self.by {
                    By::Descriptor => Layering::Targets {
                        frame: described,
                        structure,
                        active,
                        vp9: None,
                    },
                    By::Payload => Layering::Vp9(Vp9::parse(&self.encoder.vp9(f, first, last)).unwrap()),
                };
                self.someone.take(f, &layering, at(f, marker));
            }
            if self.someone.left.contains(&f.number) {
                left.push((f.spatial, f.temporal));
            }
        }
        if let Some(markers) = self.someone.markers.get(&frames[0].picture) {
            let last = markers.len() - 1;
            // Entering a layer that leans on no other, the one left behind has had its mark.
            let own = |i: usize| i == last || self.encoder.mode == Mode::Independent;
            for (i, marker) in markers.iter().enumerate() {
                assert!(*marker == (i == last) || own(i), "{left:?} of {:?}", frames[0]);
            }
            assert!(markers[last]);
        }
        left
    }

    fn pictures(&mut self, n: usize) -> Vec<(u8, u8)> {
        (0..n).flat_map(|_| self.picture(false)).collect()
    }

    fn want(&mut self, spatial: u8, temporal: u8) {
        self.someone.selector.want(Target { spatial, temporal });
    }
}

#[test]
fn whatever_is_wanted_only_decodable_frames_leave() {
    let mut random = Random(0xDEAD_BEEF_1234);
    for by in [By::Descriptor, By::Payload] {
        for mode in [Mode::Full, Mode::Key, Mode::Independent] {
            for (spatial, temporal) in [(1, 1), (1, 3), (2, 2), (3, 1), (3, 3)] {
                let mut w = World::new(mode, spatial, temporal, by);
                w.want(0, 0);
                w.picture(true);
                for _ in 0..400 {
                    if random.below(6) == 0 {
                        let (s, t) = (random.below(4) as u8, random.below(4) as u8);
                        w.want(s, t);
                    }
                    // A key picture comes now and then, and when it is asked for, a little later.
                    let key = random.below(60) == 0
                        || (w.someone.selector.waits_for_key_frame() && random.below(8) == 0);
                    let left = w.picture(key);
                    let wanted = w.someone.selector.wanted();
                    if key {
                        let best = (wanted.spatial.min(spatial - 1), 0);
                        assert!(
                            left.contains(&best),
                            "{by:?} {mode:?} wants {wanted:?}, got {left:?}"
                        );
                        assert!(!w.someone.selector.waits_for_key_frame());
                    }
                    if left.is_empty() {
                        // Nothing of a picture is for layers of time that aren't wanted.
                        let now = w.someone.layers();
                        let picture = w.encoder.place(w.encoder.since_key - 1).0;
                        assert!(picture > now.temporal, "{by:?} {mode:?} {wanted:?} {now:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn key_svc_forwards_one_layer_and_goes_down_at_a_key_picture() {
    for by in [By::Descriptor, By::Payload] {
        let mut w = World::new(Mode::Key, 3, 3, by);
        w.want(2, 2);
        assert_eq!(w.picture(true), [(0, 0), (1, 0), (2, 0)]);
        assert_eq!(w.pictures(3), [(2, 2), (2, 1), (2, 2)]);
        w.pictures(4);
        w.want(0, 2);
        // The lower layer isn't whole: fewer pictures meanwhile, and a key picture is asked for.
        assert_eq!(w.pictures(4), [(2, 0)], "{by:?}");
        assert!(w.someone.selector.waits_for_key_frame());
        assert_eq!(w.picture(true), [(0, 0)]);
        assert!(!w.someone.selector.waits_for_key_frame());
        assert_eq!(w.pictures(3), [(0, 2), (0, 1), (0, 2)]);
        w.want(1, 2);
        w.pictures(4);
        assert!(w.someone.selector.waits_for_key_frame());
        assert_eq!(w.picture(true), [(0, 0), (1, 0)]);
    }
}

#[test]
fn full_svc_goes_down_at_once_and_up_at_a_key_picture() {
    for by in [By::Descriptor, By::Payload] {
        let mut w = World::new(Mode::Full, 3, 1, by);
        w.want(2, 0);
        w.picture(true);
        assert_eq!(w.picture(false), [(0, 0), (1, 0), (2, 0)]);
        w.want(1, 0);
        assert_eq!(w.picture(false), [(0, 0), (1, 0)], "{by:?}");
        w.want(0, 0);
        assert_eq!(w.picture(false), [(0, 0)]);
        w.want(2, 0);
        assert_eq!(w.picture(false), [(0, 0)]);
        assert!(w.someone.selector.waits_for_key_frame());
        assert_eq!(w.picture(true).len(), 3);
    }
}

#[test]
fn time_goes_down_at_once_and_up_at_switching_points() {
    for by in [By::Descriptor, By::Payload] {
        let mut w = World::new(Mode::Full, 1, 3, by);
        w.want(0, 2);
        w.picture(true);
        w.pictures(3);
        w.want(0, 0);
        assert_eq!(w.pictures(4), [(0, 0)]);
        w.want(0, 2);
        w.pictures(4);
        assert!(
            !w.someone.selector.waits_for_key_frame(),
            "no key picture is needed for time"
        );
        assert_eq!(w.pictures(4), [(0, 0), (0, 2), (0, 1), (0, 2)], "{by:?}");
    }
}

#[test]
fn nothing_leaves_before_a_key_picture() {
    for by in [By::Descriptor, By::Payload] {
        let mut w = World::new(Mode::Full, 2, 2, by);
        let frames = w.encoder.picture(true);
        // The stream is known, but this subscriber wasn't there.
        for f in &frames {
            let bytes = w.encoder.descriptor(f, true, true);
            w.stream.read(&bytes, true).unwrap();
        }
        assert_eq!(w.pictures(8), []);
        assert!(w.someone.selector.waits_for_key_frame());
        assert!(!w.picture(true).is_empty());
    }
}

#[test]
fn a_chain_whose_frame_never_comes_asks_for_a_key_frame() {
    let mut w = World::new(Mode::Full, 1, 1, By::Descriptor);
    w.picture(true);
    w.pictures(3);
    w.encoder.picture(false); // lost for good
    let frame = |w: &mut World| {
        let f = w.encoder.picture(false).remove(0);
        let bytes = w.encoder.descriptor(&f, true, true);
        let frame = w.stream.read(&bytes, true).unwrap();
        let (structure, active) = w.stream.structure().unwrap();
        let layering = Layering::Targets {
            frame,
            structure,
            active,
            vp9: None,
        };
        w.someone.selector.select(&layering, at(&f, true))
    };
    assert_ne!(frame(&mut w), Decision::Drop, "it may still come");
    for _ in 0..100 {
        frame(&mut w);
    }
    assert!(w.someone.selector.waits_for_key_frame());
    assert_eq!(frame(&mut w), Decision::Drop);
}

#[test]
fn the_subscriber_is_told_its_decode_targets() {
    let mut w = World::new(Mode::Key, 2, 1, By::Descriptor);
    let mut numbers = Numbers::default();
    let mut told = Vec::new();
    for (key, spatial) in [
        (true, 1),
        (false, 1),
        (true, 0),
        (false, 0),
        (true, 1),
        (false, 1),
    ] {
        w.want(spatial, 0);
        for f in w.encoder.picture(key) {
            let bytes = w.encoder.descriptor(&f, true, true);
            let frame = w.stream.read(&bytes, true).unwrap();
            let (structure, active) = w.stream.structure().unwrap();
            let layering = Layering::Targets {
                frame,
                structure,
                active,
                vp9: None,
            };
            if w.someone.selector.select(&layering, at(&f, f.top)) == Decision::Drop {
                numbers.drop(&layering, true);
                continue;
            }
            let dress = numbers.dress(&layering, true, true, w.someone.selector.announcement(&layering));
            told.push((
                key,
                spatial,
                (dress.changes.targets > 0).then_some(dress.changes.active),
            ));
        }
    }
    let at_keys: Vec<_> = told.iter().filter(|t| t.0).map(|t| (t.1, t.2)).collect();
    // With all layers a structure says enough; with fewer it is corrected.
    assert_eq!(
        at_keys,
        [(1, None), (1, None), (0, Some(0b01)), (1, None), (1, None)]
    );
    assert_eq!(
        told.iter().filter(|t| !t.0 && t.1 == 0).map(|t| t.2).next(),
        Some(Some(0b01))
    );
    assert_eq!(told.last().unwrap().2, None);
}
