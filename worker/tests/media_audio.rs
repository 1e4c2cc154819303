//! Sound through a running engine: redundant audio data both ways, what is asked for again, and whom a
//! large room hears.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::time::{Duration, Instant};

use media_support::*;
use plenum_worker::session::api::{
    AudioOptions, Command, Event, ExpectedTrack, MediaKind, SessionId, Topology, TrackSid,
};
use plenum_worker::session::{MediaConfig, SpeakerPolicy};

const MS: Duration = Duration::from_millis(1);
/// As browsers offer it.
const BOTH: &[(u8, Option<u8>)] = &[(111, Some(63))];
const PLAIN: &[(u8, Option<u8>)] = &[(111, None)];
/// Other numbers for the same.
const OTHER: &[(u8, Option<u8>)] = &[(109, Some(70))];

/// A section with these payload types of Opus, and of the redundant data that carries it.
fn sound(direction: &str, cid: Option<&str>, codecs: &[(u8, Option<u8>)]) -> String {
    let formats: Vec<String> = codecs
        .iter()
        .flat_map(|(opus, red)| [Some(*opus), *red])
        .flatten()
        .map(|pt| pt.to_string())
        .collect();
    let mut s = format!(
        "m=audio 9 UDP/TLS/RTP/SAVPF {}\r\nc=IN IP4 0.0.0.0\r\na={direction}\r\na=rtcp-mux\r\n{}\
         a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
         a=extmap:5 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n",
        formats.join(" "),
        cid.map(|c| format!("a=msid:- {c}\r\n")).unwrap_or_default()
    );
    for (opus, red) in codecs {
        s += &format!(
            "a=rtpmap:{opus} opus/48000/2\r\na=fmtp:{opus} minptime=10;useinbandfec=1;stereo=1\r\n\
             a=rtcp-fb:{opus} transport-cc\r\n"
        );
        if let Some(red) = red {
            s += &format!("a=rtpmap:{red} red/48000/2\r\na=fmtp:{red} {opus}/{opus}\r\n");
        }
    }
    s
}

struct Pair {
    server: Server,
    alice: Client,
    bob: Client,
    /// What each was answered at last.
    answers: (String, String),
}

fn expect(server: &Server, session: SessionId, cid: &str, sid: &str, audio: AudioOptions) {
    server.media.send(Command::ExpectTrack {
        session,
        track: ExpectedTrack {
            cid: cid.to_owned(),
            sid: TrackSid::from(sid),
            kind: MediaKind::Audio,
            codec: String::new(),
            simulcast: true,
            max_bitrate: None,
            audio,
        },
    });
}

fn connected(server: &mut Server, session: SessionId) {
    server.event("connected", |e| {
        matches!(e, Event::Connected { session: s, .. } if *s == session).then_some(())
    });
}

/// Publishes one microphone.
fn publisher(
    server: &mut Server,
    name: &str,
    sid: &str,
    codecs: &[(u8, Option<u8>)],
    audio: AudioOptions,
) -> (Client, String) {
    let mut client = Client::new(name);
    let session = server.open(Topology::Single);
    expect(server, session, "cid", sid, audio);
    let offer = client.describe(
        "actpass",
        &[application(), sound("sendonly", Some("cid"), codecs)],
    );
    let answer = server.answer(session, 1, offer);
    client.connect(&answer);
    connected(server, session);
    (client, answer)
}

/// Subscribes to these tracks, on a section each.
fn subscriber(server: &mut Server, sids: &[&str], codecs: &[(u8, Option<u8>)]) -> (Client, String) {
    let mut client = Client::new("bob");
    let session = server.open(Topology::Single);
    let mut sections = vec![application()];
    sections.extend(sids.iter().map(|_| sound("recvonly", None, codecs)));
    let first = server.answer(session, 1, client.describe("actpass", &sections));
    client.connect(&first);
    connected(server, session);
    for sid in sids {
        server.subscribe(session, sid);
    }
    server.event("need", |e| {
        matches!(e, Event::NeedSections { session: s, .. } if *s == session).then_some(())
    });
    let answer = server.answer(session, 2, client.describe("actpass", &sections));
    for _ in sids {
        server.event("bound", |e| {
            matches!(e, Event::SubscriptionBound { session: s, .. } if *s == session).then_some(())
        });
    }
    (client, answer)
}

fn pair(from: &[(u8, Option<u8>)], to: &[(u8, Option<u8>)], audio: AudioOptions) -> Pair {
    let mut server = Server::start();
    let (alice, to_alice) = publisher(&mut server, "alice", "TR_a", from, audio);
    let (bob, to_bob) = subscriber(&mut server, &["TR_a"], to);
    Pair {
        server,
        alice,
        bob,
        answers: (to_alice, to_bob),
    }
}

/// What the n-th packet carries.
fn content(n: u16) -> Vec<u8> {
    vec![n as u8; 20 + usize::from(n % 5)]
}

/// RFC 2198 by hand: the n-th packet with the two before it.
fn redundant(n: u16, payload_type: u8) -> Vec<u8> {
    let earlier: Vec<u16> = (n.saturating_sub(2)..n).collect();
    let mut out = Vec::new();
    for e in &earlier {
        let word = (u32::from(0x80 | payload_type) << 24)
            | ((u32::from(n - e) * 960) << 10)
            | content(*e).len() as u32;
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.push(payload_type);
    for e in earlier.into_iter().chain([n]) {
        out.extend(content(e));
    }
    out
}

impl Pair {
    /// Alice's n-th packet.
    fn send(&mut self, payload_type: u8, n: u16, payload: &[u8]) {
        let ext: [(u8, &[u8]); 2] = [(4, b"1"), (1, &[20])];
        let packet = packet(payload_type, 77, 1000 + n, u32::from(n) * 960, &ext, payload);
        self.alice.send_rtp(&packet);
        self.bob.pump(3 * MS);
    }

    /// Waits until Bob has so many packets.
    fn until(&mut self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.bob.rtp.len() < count {
            assert!(Instant::now() < end, "{} of {count} packets", self.bob.rtp.len());
            self.bob.pump(5 * MS);
        }
    }

    fn payload_types(&self) -> Vec<u8> {
        self.bob.rtp.iter().map(|p| p.header.payload_type).collect()
    }

    /// Bob's receiver report.
    fn report(&mut self, fraction_lost: u8) {
        let ssrc: u32 = line(&self.answers.1, "a=ssrc:")
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let mut report = vec![0x81, 201, 0, 7, 0, 0, 0, 9];
        report.extend_from_slice(&ssrc.to_be_bytes());
        report.extend_from_slice(&[fraction_lost, 0, 0, 1]);
        report.extend_from_slice(&[0; 16]);
        self.bob.send_rtcp(&report);
    }
}

#[test]
fn sound_has_no_part_in_a_senders_estimate() {
    let mut server = Server::start();
    let client = Client::new("alice");
    let session = server.open(Topology::Single);
    expect(&server, session, "microphone", "TR_a", AudioOptions::default());
    server.expect(session, "camera", "TR_v", MediaKind::Video);
    let sections = [
        application(),
        sound("sendonly", Some("microphone"), BOTH),
        video("sendonly", Some("camera"), &[]),
    ];
    let answer = server.answer(session, 1, client.describe("actpass", &sections));
    let section = |kind: &str| answer.split("m=").find(|s| s.starts_with(kind)).unwrap();
    for what in [" transport-cc", "transport-wide-cc"] {
        assert!(section("video").contains(what), "{answer}");
        assert!(!section("audio").contains(what), "{answer}");
    }
}

#[test]
fn redundant_data_passes_under_the_subscribers_numbers() {
    let mut p = pair(BOTH, OTHER, AudioOptions::default());
    assert!(
        p.answers.0.contains("m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\n"),
        "{}",
        p.answers.0
    );
    assert!(p.answers.0.contains("a=fmtp:63 111/111\r\n"));
    assert!(p.answers.1.contains("a=fmtp:70 109/109\r\n"), "{}", p.answers.1);
    for n in 0..10 {
        // A lost packet of the publisher's stays lost: the next one brings it.
        if n != 5 {
            p.send(63, n, &redundant(n, 111));
        }
    }
    p.until(9);
    let sent: Vec<u16> = (0..10).filter(|n| *n != 5).collect();
    for (got, n) in p.bob.rtp.iter().zip(sent) {
        assert_eq!(got.header.payload_type, 70);
        assert_eq!(&got.payload[..], &redundant(n, 109), "{n}");
    }
    // Now and then a sender has nothing to add.
    p.send(111, 10, &content(10));
    p.until(10);
    let last = p.bob.rtp.last().unwrap();
    assert_eq!(
        (last.header.payload_type, &last.payload[..]),
        (109, &content(10)[..])
    );
}

#[test]
fn who_has_no_redundant_data_gets_what_it_carries_and_what_it_restores() {
    let mut p = pair(BOTH, PLAIN, AudioOptions::default());
    assert!(
        p.answers.1.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"),
        "{}",
        p.answers.1
    );
    assert!(p.answers.1.contains("a=rtcp-fb:111 nack\r\n"));
    // Alone, in a row of two, and in one of three, of which the first is beyond help.
    let lost = [4, 8, 9, 13, 14, 15];
    for n in 0..20 {
        if !lost.contains(&n) {
            p.send(63, n, &redundant(n, 111));
        }
    }
    p.until(19);
    let check = |p: &Pair| {
        let first = p.bob.rtp[0].header.sequence_number;
        let got: Vec<u16> = p
            .bob
            .rtp
            .iter()
            .map(|g| g.header.sequence_number.wrapping_sub(first))
            .collect();
        let expected: Vec<u16> = (0..20).filter(|n| *n != 13).collect();
        assert_eq!(got, expected, "in order, each once, under its own number");
        let start = p.bob.rtp[0].header.timestamp;
        for (got, n) in p.bob.rtp.iter().zip(expected) {
            assert_eq!(got.header.payload_type, 111);
            assert_eq!(&got.payload[..], &content(n), "{n}");
            assert_eq!(got.header.timestamp.wrapping_sub(start), u32::from(n) * 960);
            // Nobody measured how loud a restored one was.
            assert_eq!(got.header.get_extension(1).is_some(), !lost.contains(&n), "{n}");
        }
    };
    check(&p);
    // The lost ones come after all: nobody needs them, and their numbers are used.
    for n in [4, 8, 9] {
        p.send(63, n, &redundant(n, 111));
    }
    p.bob.pump(50 * MS);
    check(&p);
    // All but the one beyond help: that has its number still, and comes with the one after it.
    for n in [14, 15, 13] {
        p.send(63, n, &redundant(n, 111));
    }
    p.until(20);
    p.bob.pump(50 * MS);
    assert_eq!(
        (p.bob.rtp.len(), &p.bob.rtp[19].payload[..]),
        (20, &content(13)[..])
    );
    // A packet that came is sent again as it was; a restored one can't be.
    let first = p.bob.rtp[0].header.sequence_number;
    let ssrc = p.bob.rtp[0].header.ssrc;
    for (n, again) in [(10, 1), (9, 0)] {
        p.bob.rtp.clear();
        let mut nack = vec![0x81, 205, 0, 3, 0, 0, 0, 9];
        nack.extend_from_slice(&ssrc.to_be_bytes());
        nack.extend_from_slice(&first.wrapping_add(n).to_be_bytes());
        nack.extend_from_slice(&[0, 0]);
        p.bob.send_rtcp(&nack);
        p.until(again);
        p.bob.pump(30 * MS);
        assert_eq!(p.bob.rtp.len(), again, "{n}");
        assert!(p.bob.rtp.iter().all(|g| g.payload[..] == content(n)));
    }
}

#[test]
fn redundant_data_is_made_for_who_loses_packets() {
    let mut p = pair(PLAIN, OTHER, AudioOptions::default());
    assert!(p.answers.0.contains("a=rtcp-fb:111 nack\r\n"), "{}", p.answers.0);
    assert!(
        p.answers
            .0
            .contains("a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1\r\n")
    );
    for n in 0..5 {
        p.send(111, n, &content(n));
    }
    p.until(5);
    assert_eq!(p.payload_types(), [109; 5], "nothing is lost: nothing goes along");
    p.report(5);
    let mut n = 5;
    let end = Instant::now() + PATIENCE;
    while p.payload_types().last() != Some(&70) {
        assert!(Instant::now() < end);
        p.send(111, n, &content(n));
        n += 1;
    }
    let one = &p.bob.rtp.last().unwrap().payload;
    let at = p.bob.rtp.len() as u16 - 1;
    assert_eq!(one[0], 0x80 | 109);
    assert_eq!(
        one.len(),
        5 + content(at - 1).len() + content(at).len(),
        "one level"
    );
    // More is lost than one level helps with.
    p.report(100);
    let two = |p: &Pair| {
        let at = p.bob.rtp.len() as u16 - 1;
        p.bob.rtp.last().unwrap().payload[..] == redundant(at, 109)
    };
    while !two(&p) {
        assert!(Instant::now() < end);
        p.send(111, n, &content(n));
        n += 1;
    }
    for w in p.bob.rtp.windows(2) {
        assert_eq!(
            w[1].header.sequence_number,
            w[0].header.sequence_number.wrapping_add(1)
        );
        assert_eq!(w[1].header.timestamp.wrapping_sub(w[0].header.timestamp), 960);
    }
    // What is too long to go along doesn't.
    p.send(111, n, &[7; 1_060]);
    p.send(111, n + 1, &content(n + 1));
    p.until(usize::from(n) + 2);
    let [.., long, after] = &p.bob.rtp[..] else {
        panic!()
    };
    assert_eq!(
        (long.header.payload_type, long.payload.len()),
        (70, 1_060 + 5 + content(n - 1).len())
    );
    assert_eq!(
        (after.header.payload_type, &after.payload[..]),
        (109, &content(n + 1)[..])
    );
}

#[test]
fn where_it_is_not_wanted_no_redundant_data_is_made_or_asked_for() {
    let off = AudioOptions {
        red: false,
        ..AudioOptions::default()
    };
    let mut p = pair(BOTH, OTHER, off);
    assert!(
        p.answers.0.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n"),
        "{}",
        p.answers.0
    );
    p.report(200);
    for n in 0..10 {
        p.send(111, n, &content(n));
    }
    p.until(10);
    assert_eq!(p.payload_types(), [109; 10]);
}

#[test]
fn nothing_encrypted_is_taken_apart() {
    let secret = AudioOptions {
        encrypted: true,
        ..AudioOptions::default()
    };
    let mut p = pair(BOTH, OTHER, secret);
    assert!(
        p.answers.0.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n"),
        "{}",
        p.answers.0
    );
    p.report(200);
    // Bytes that would be malformed, and such that would be translated.
    for (n, payload) in [
        (0, vec![0xFF; 30]),
        (1, redundant(1, 111)),
        (2, redundant(2, 111)),
    ] {
        p.send(63, n, &payload);
        p.until(usize::from(n) + 1);
        let got = p.bob.rtp.last().unwrap();
        assert_eq!((got.header.payload_type, &got.payload[..]), (70, &payload[..]));
    }
    let mut p = pair(BOTH, PLAIN, secret);
    p.send(63, 0, &redundant(0, 111));
    p.send(111, 1, &content(1));
    p.until(1);
    p.bob.pump(30 * MS);
    assert_eq!(
        p.payload_types(),
        [111],
        "there's nothing it could be given of the other"
    );
}

#[test]
fn malformed_redundant_data_is_dropped_and_counted() {
    let mut p = pair(BOTH, PLAIN, AudioOptions::default());
    p.send(63, 0, &redundant(0, 111));
    for (n, bad) in [(1, vec![0xFF; 40]), (2, vec![0x80 | 111, 0, 0]), (3, vec![111])] {
        p.send(63, n, &bad);
    }
    p.send(63, 4, &redundant(4, 111));
    p.until(4);
    assert_eq!(p.bob.rtp.len(), 4, "the last brings two of them");
    let drops = p.server.media.drops().read();
    assert!(drops.contains(&("bad_red", 3)), "{drops:?}");
}

#[test]
fn lost_sound_is_asked_for_a_few_times() {
    let mut p = pair(PLAIN, PLAIN, AudioOptions::default());
    for n in [0, 1, 3, 4] {
        p.send(111, n, &content(n));
    }
    let asked = |p: &Pair| {
        feedback(&p.alice, 205, 1)
            .iter()
            .filter(|f| f[12..14] == 1002u16.to_be_bytes())
            .count()
    };
    let end = Instant::now() + PATIENCE;
    while asked(&p) < 1 {
        assert!(Instant::now() < end);
        p.alice.pump(10 * MS);
    }
    p.alice.pump(1000 * MS);
    assert!(asked(&p) <= 3, "{}", asked(&p));
    p.send(111, 2, &content(2));
    p.until(5);
    assert_eq!(&p.bob.rtp[4].payload[..], &content(2));
    // What the next packet brings isn't asked for.
    let mut p = pair(BOTH, PLAIN, AudioOptions::default());
    for n in [0, 1, 3, 4] {
        p.send(63, n, &redundant(n, 111));
    }
    p.until(5);
    p.alice.pump(300 * MS);
    assert_eq!(asked(&p), 0);
}

#[test]
fn a_large_room_hears_who_speaks() {
    let mut server = Server::with(MediaConfig {
        udp: "127.0.0.1:0".parse().unwrap(),
        speakers: SpeakerPolicy { speakers: 1, from: 3 },
        ..MediaConfig::default()
    });
    let names = ["ann", "ben", "cat", "dj"];
    let sids = ["TR_0", "TR_1", "TR_2", "TR_dj"];
    let mut people: Vec<Client> = Vec::new();
    for (name, sid) in names.iter().zip(sids) {
        // Who publishes music doesn't compete.
        let audio = AudioOptions {
            one_of_many: *name != "dj",
            ..AudioOptions::default()
        };
        people.push(publisher(&mut server, name, sid, PLAIN, audio).0);
    }
    let (mut bob, answer) = subscriber(&mut server, &sids, PLAIN);
    let ssrcs: Vec<u32> = sids
        .iter()
        .map(|sid| {
            let section = answer
                .split("\r\nm=")
                .find(|s| s.contains(&format!(" {sid}\r\n")))
                .unwrap();
            line(section, "a=ssrc:")
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    let n = std::cell::Cell::new(0u16);
    let round = |levels: [u8; 4], people: &mut [Client], bob: &mut Client| {
        let at = n.get();
        for (who, level) in people.iter_mut().zip(levels) {
            let level = [level];
            let ext: [(u8, &[u8]); 2] = [(4, b"1"), (1, &level)];
            who.send_rtp(&packet(111, 77, at, u32::from(at) * 960, &ext, &content(at)));
        }
        n.set(at + 1);
        bob.pump(5 * MS);
    };
    let of = |bob: &Client, who: usize| -> Vec<(u16, u8)> {
        let own = bob.rtp.iter().filter(|p| p.header.ssrc == ssrcs[who]);
        own.map(|p| (p.header.sequence_number, p.payload[0])).collect()
    };
    let end = Instant::now() + PATIENCE;
    // Ann speaks, the others are silent: soon hers is the only microphone, beside the music.
    let (mut quiet, mut before) = (0, (0, 0));
    while quiet < 20 {
        assert!(Instant::now() < end, "the silent are never held back");
        round([20, 127, 127, 127], &mut people, &mut bob);
        let now = (of(&bob, 1).len(), of(&bob, 2).len());
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    assert!(of(&bob, 0).len() >= 20 && of(&bob, 3).len() >= 20);
    // Ben begins once Ann has been silent for a while: he is heard at once, with no gap in his numbers.
    let until = Instant::now() + 1100 * MS;
    while Instant::now() < until {
        round([127, 127, 127, 127], &mut people, &mut bob);
    }
    let heard = of(&bob, 1);
    let began = n.get() as u8;
    for _ in 0..20 {
        round([127, 25, 127, 127], &mut people, &mut bob);
    }
    bob.pump(50 * MS);
    let ben = of(&bob, 1);
    let new = &ben[heard.len()..];
    assert_eq!(new[0].1, began, "from his first word on");
    assert_eq!(new.len(), 20);
    for w in ben.windows(2) {
        assert_eq!(w[1].0, w[0].0.wrapping_add(1), "no gap");
    }
    let ann = of(&bob, 0).len();
    round([127, 25, 127, 127], &mut people, &mut bob);
    bob.pump(30 * MS);
    assert_eq!(of(&bob, 0).len(), ann, "one place");
    assert_eq!(of(&bob, 3).len(), usize::from(n.get()), "music is always heard");
}
