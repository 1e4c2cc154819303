use super::*;

/// A descriptor as its sender writes it; made by the syntax tables of the specification.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) template: u8,
    pub(crate) number: u16,
    pub(crate) structure: Option<Shape>,
    pub(crate) active: Option<u32>,
    pub(crate) indications: Option<Vec<u8>>,
    pub(crate) references: Option<Vec<u16>>,
    pub(crate) chains: Option<Vec<u8>>,
    pub(crate) targets: u32,
}

/// Spatial and temporal layer, indications, references, chain distances.
pub(crate) type Template = (u8, u8, Vec<u8>, Vec<u16>, Vec<u8>);

/// A template structure.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Shape {
    pub(crate) offset: u8,
    pub(crate) targets: u32,
    pub(crate) templates: Vec<Template>,
    pub(crate) protected_by: Vec<u8>,
    pub(crate) chains: u32,
    pub(crate) resolutions: Option<Vec<(u16, u16)>>,
}

fn non_symmetric(w: &mut BitWriter, n: u32, value: u32) {
    let mut width = 0;
    while n >> width != 0 {
        width += 1;
    }
    let short = (1 << width) - n;
    if value < short {
        w.bits(value, width - 1).unwrap();
    } else {
        w.bits(value + short, width).unwrap();
    }
}

impl Written {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut w = BitWriter::default();
        w.bit(self.first).unwrap();
        w.bit(self.last).unwrap();
        w.bits(u32::from(self.template), 6).unwrap();
        w.bits(u32::from(self.number), 16).unwrap();
        let extended = self.structure.is_some()
            || self.active.is_some()
            || self.indications.is_some()
            || self.references.is_some()
            || self.chains.is_some();
        if !extended {
            return w.bytes().to_vec();
        }
        w.bit(self.structure.is_some()).unwrap();
        w.bit(self.active.is_some()).unwrap();
        w.bit(self.indications.is_some()).unwrap();
        w.bit(self.references.is_some()).unwrap();
        w.bit(self.chains.is_some()).unwrap();
        if let Some(s) = &self.structure {
            s.write(&mut w);
        }
        if let Some(mask) = self.active {
            w.bits(mask, self.targets).unwrap();
        }
        for i in self.indications.iter().flatten() {
            w.bits(u32::from(*i), 2).unwrap();
        }
        if let Some(references) = &self.references {
            for r in references {
                let value = u32::from(*r) - 1;
                let size = if value < 16 {
                    1
                } else if value < 256 {
                    2
                } else {
                    3
                };
                w.bits(size, 2).unwrap();
                w.bits(value, 4 * size).unwrap();
            }
            w.bits(0, 2).unwrap();
        }
        for c in self.chains.iter().flatten() {
            w.bits(u32::from(*c), 8).unwrap();
        }
        w.bytes().to_vec()
    }
}

impl Shape {
    fn write(&self, w: &mut BitWriter) {
        w.bits(u32::from(self.offset), 6).unwrap();
        w.bits(self.targets - 1, 5).unwrap();
        for (i, t) in self.templates.iter().enumerate() {
            let code = match self.templates.get(i + 1) {
                None => 3,
                Some(n) if n.0 > t.0 => 2,
                Some(n) if n.1 > t.1 => 1,
                Some(_) => 0,
            };
            w.bits(code, 2).unwrap();
        }
        for t in &self.templates {
            for i in &t.2 {
                w.bits(u32::from(*i), 2).unwrap();
            }
        }
        for t in &self.templates {
            for r in &t.3 {
                w.bit(true).unwrap();
                w.bits(u32::from(*r) - 1, 4).unwrap();
            }
            w.bit(false).unwrap();
        }
        non_symmetric(w, self.targets + 1, self.chains);
        if self.chains > 0 {
            for p in &self.protected_by {
                non_symmetric(w, self.chains, u32::from(*p));
            }
            for t in &self.templates {
                for c in &t.4 {
                    w.bits(u32::from(*c), 4).unwrap();
                }
            }
        }
        w.bit(self.resolutions.is_some()).unwrap();
        for (width, height) in self.resolutions.iter().flatten() {
            w.bits(u32::from(*width) - 1, 16).unwrap();
            w.bits(u32::from(*height) - 1, 16).unwrap();
        }
    }
}

/// Two spatial layers of two temporal ones, the upper one predicted from the lower at key frames alone.
pub(crate) fn l2t2_key(offset: u8) -> Shape {
    let t = |s, t, i: [u8; 4], r: &[u16], c: [u8; 2]| (s, t, i.to_vec(), r.to_vec(), c.to_vec());
    Shape {
        offset,
        targets: 4,
        templates: vec![
            t(0, 0, [2, 2, 2, 2], &[], [0, 0]),
            t(0, 0, [2, 2, 0, 0], &[4], [4, 3]),
            t(0, 1, [0, 1, 0, 0], &[2], [2, 1]),
            t(1, 0, [0, 0, 2, 2], &[1], [1, 1]),
            t(1, 0, [0, 0, 2, 2], &[4], [1, 4]),
            t(1, 1, [0, 0, 0, 1], &[2], [3, 2]),
        ],
        chains: 2,
        protected_by: vec![0, 0, 1, 1],
        resolutions: Some(vec![(320, 180), (640, 360)]),
    }
}

fn key(number: u16) -> Written {
    Written {
        first: true,
        last: true,
        template: 60,
        number,
        structure: Some(l2t2_key(60)),
        targets: 4,
        ..Written::default()
    }
}

fn plain(template: u8, number: u16) -> Written {
    Written {
        first: true,
        last: true,
        template,
        number,
        targets: 4,
        ..Written::default()
    }
}

/// A simple generator, so that failures repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn structure_and_templates_are_resolved() {
    let mut s = DescriptorStream::default();
    assert_eq!(s.read(&plain(60, 0).bytes(), true), None, "no structure yet");
    let f = s.read(&key(1000).bytes(), true).unwrap();
    assert!(f.structured && f.first && f.last);
    assert_eq!((f.number as u16, f.spatial, f.temporal), (1000, 0, 0));
    let (structure, active) = s.structure().unwrap();
    assert_eq!((structure.targets(), active), (4, 0b1111));
    let layers: Vec<(u8, u8)> = (0..4)
        .map(|t| structure.layers(t))
        .map(|l| (l.spatial, l.temporal))
        .collect();
    assert_eq!(layers, [(0, 0), (0, 1), (1, 0), (1, 1)]);
    assert_eq!((structure.chain(1), structure.chain(2)), (Some(0), Some(1)));

    // Template ids wrap at 64: 60 + 5 is 1.
    let top = s.read(&plain(1, 1003).bytes(), true).unwrap();
    assert_eq!((top.spatial, top.temporal), (1, 1));
    assert_eq!(top.indication(3), Indication::Discardable);
    assert_eq!(top.indication(2), Indication::NotPresent);
    assert_eq!(top.references.iter().collect::<Vec<_>>(), [2]);
    assert_eq!(top.chain(0), Some(top.number - 3));
    assert_eq!(s.read(&plain(2, 1004).bytes(), true), None, "no such template");
}

#[test]
fn what_a_frame_says_of_itself_wins_over_its_template() {
    let mut s = DescriptorStream::default();
    s.read(&key(10).bytes(), true).unwrap();
    let custom = Written {
        active: Some(0b0011),
        indications: Some(vec![3, 2, 1, 0]),
        references: Some(vec![1, 17, 300]),
        chains: Some(vec![200, 0]),
        ..plain(61, 400)
    };
    let f = s.read(&custom.bytes(), true).unwrap();
    let kinds = [
        Indication::Required,
        Indication::Switch,
        Indication::Discardable,
        Indication::NotPresent,
    ];
    for (t, kind) in kinds.into_iter().enumerate() {
        assert_eq!(f.indication(t as u8), kind);
    }
    assert_eq!(f.references.iter().collect::<Vec<_>>(), [1, 17, 300]);
    assert_eq!((f.chain(0), f.chain(1)), (Some(f.number - 200), None));
    assert_eq!(f.active, Some(3));
    assert_eq!(s.structure().unwrap().1, 3, "in force until changed");
    s.read(&key(500).bytes(), true).unwrap();
    assert_eq!(s.structure().unwrap().1, 15, "a new structure begins with all");
}

#[test]
fn frame_numbers_run_on_over_wraps_and_restarts() {
    let mut s = DescriptorStream::default();
    let a = s.read(&key(65_530).bytes(), true).unwrap().number;
    assert_eq!(s.read(&plain(61, 3).bytes(), true).unwrap().number, a + 9);
    assert_eq!(s.read(&plain(61, 65_534).bytes(), false).unwrap().number, a + 4);
    // The sender's encoder begins anew.
    let b = s.read(&key(0).bytes(), true).unwrap().number;
    assert!(b > a + 9);
    assert_eq!(b as u16, 0);
}

#[test]
fn an_old_structure_doesnt_come_back() {
    let mut s = DescriptorStream::default();
    s.read(&key(100).bytes(), true).unwrap();
    let mut next = key(200);
    next.template = 5;
    next.structure = Some(l2t2_key(5));
    s.read(&next.bytes(), true).unwrap();
    assert_eq!(s.read(&key(100).bytes(), false), None);
    assert!(s.read(&plain(6, 201).bytes(), true).is_some());
    assert!(
        s.read(&next.bytes(), false).is_some(),
        "a late packet of the one in force"
    );
    assert!(s.read_again(&next.bytes()).is_some());
    assert_eq!(s.read_again(&key(100).bytes()), None);
}

#[test]
fn reading_again_changes_nothing_and_says_the_same() {
    let mut s = DescriptorStream::default();
    let packets = [key(7), plain(63, 8), plain(61, 9), plain(62, 10)];
    let first: Vec<_> = packets.iter().map(|p| s.read(&p.bytes(), true)).collect();
    let again: Vec<_> = packets.iter().map(|p| s.read_again(&p.bytes())).collect();
    assert_eq!(first, again);
}

#[test]
fn rewriting_sets_the_mask_and_the_number_and_nothing_else() {
    let shapes = [
        key(5),
        plain(61, 6),
        Written {
            references: Some(vec![300]),
            ..plain(61, 7)
        },
        Written {
            active: Some(0b1010),
            chains: Some(vec![1, 2]),
            ..plain(61, 8)
        },
        Written {
            active: Some(0b1010),
            ..key(9)
        },
    ];
    for written in &shapes {
        let bytes = written.bytes();
        let mut expected = written.clone();
        expected.number = expected.number.wrapping_add(65_000);
        let number = Changes {
            number: 65_000,
            ..Changes::default()
        };
        assert_eq!(rewrite(&bytes, &number).unwrap().bytes(), expected.bytes());
        expected.active = Some(0b0011);
        let both = Changes {
            number: 65_000,
            active: 0b0011,
            targets: 4,
        };
        let out = rewrite(&bytes, &both).unwrap();
        // The old fill may add a byte of zeros.
        let meant = expected.bytes();
        assert_eq!(out.bytes().get(..meant.len()).unwrap(), meant);
        assert!(out.bytes().len() <= meant.len() + 1);
        assert!(out.bytes().iter().skip(meant.len()).all(|b| *b == 0));
        let mut s = DescriptorStream::default();
        s.read(&key(5).bytes(), true);
        assert_eq!(s.read(out.bytes(), true).unwrap().active, Some(3));
    }
}

#[test]
fn random_structures_survive_the_round_trip() {
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    for round in 0..300 {
        let targets = 1 + (random.next() % 32) as u32;
        let chains = (random.next() % u64::from(targets + 1)) as u32;
        let (mut spatial, mut temporal) = (0, 0);
        let mut templates = Vec::new();
        for i in 0..1 + random.next() % 8 {
            if i > 0 {
                match random.next() % 3 {
                    0 => {}
                    1 => temporal += 1,
                    _ if spatial < 3 => (spatial, temporal) = (spatial + 1, 0),
                    _ => {}
                }
            }
            templates.push((
                spatial,
                temporal,
                (0..targets).map(|_| (random.next() % 4) as u8).collect(),
                (0..random.next() % 4)
                    .map(|_| 1 + (random.next() % 16) as u16)
                    .collect(),
                (0..chains).map(|_| (random.next() % 16) as u8).collect(),
            ));
        }
        let shape = Shape {
            offset: (random.next() % 64) as u8,
            targets,
            protected_by: (0..targets)
                .map(|_| (random.next() % u64::from(chains.max(1))) as u8)
                .collect(),
            chains,
            resolutions: (round % 2 == 0).then(|| vec![(16, 16); usize::from(spatial) + 1]),
            templates,
        };
        let count = shape.templates.len() as u8;
        let pick = (random.next() % u64::from(count)) as u8;
        let written = Written {
            first: true,
            template: (shape.offset + pick) % 64,
            number: 77,
            structure: Some(shape.clone()),
            targets,
            ..Written::default()
        };
        let mut s = DescriptorStream::default();
        let mut w = BitWriter::default();
        if std::panic::catch_unwind(|| written.bytes()).is_err() {
            continue; // longer than an extension can be
        }
        w.bits(0, 1).unwrap();
        let f = s.read(&written.bytes(), true).unwrap();
        let template = &shape.templates[usize::from(pick)];
        assert_eq!((f.spatial, f.temporal), (template.0, template.1));
        assert_eq!(f.references.iter().collect::<Vec<_>>(), template.3);
        for (t, i) in template.2.iter().enumerate() {
            assert_eq!(f.indication(t as u8) as u8, *i);
        }
        for (c, distance) in template.4.iter().enumerate() {
            let before = (*distance > 0).then(|| f.number - u64::from(*distance));
            assert_eq!(f.chain(c as u8), before);
        }
        let (read, _) = s.structure().unwrap();
        for (t, chain) in shape.protected_by.iter().enumerate() {
            assert_eq!(read.chain(t as u8), (chains > 0).then_some(*chain));
        }
    }
}

#[test]
fn arbitrary_bytes_never_panic_and_never_grow_past_an_extension() {
    let mut random = Random(99);
    let mut s = DescriptorStream::default();
    let seeds = [key(1).bytes(), plain(61, 2).bytes()];
    for round in 0..8_000u64 {
        let mut bytes: Vec<u8> = if round % 3 == 0 {
            (0..random.next() % 300).map(|_| random.next() as u8).collect()
        } else {
            let mut b = seeds[(round % 2) as usize].clone();
            for _ in 0..1 + random.next() % 4 {
                let at = (random.next() % (b.len() as u64 * 8)) as usize;
                b[at / 8] ^= 1 << (at % 8);
            }
            b
        };
        if random.next().is_multiple_of(4) {
            bytes.truncate((random.next() % (bytes.len() as u64 + 1)) as usize);
        }
        let _ = s.read_again(&bytes);
        if let Some(f) = s.read(&bytes, round % 2 == 0) {
            for t in 0..=255 {
                let _ = (f.indication(t), f.chain(t));
            }
        }
        if let Some((structure, active)) = s.structure() {
            let _ = structure.choose(Target::ALL, active);
        }
        let changes = Changes {
            number: random.next() as u16,
            active: random.next() as u32,
            targets: (random.next() % 33) as u8,
        };
        if let Some(w) = rewrite(&bytes, &changes) {
            assert!(w.bytes().len() <= MAX_EXTENSION);
        }
    }
}
