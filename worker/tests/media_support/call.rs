//! Two people in a call who notice whatever goes missing.

use std::time::{Duration, Instant};

use plenum_worker::session::api::{MediaKind, SessionId, Topology};

use super::{Client, PATIENCE, Server, application, line, packet, video, vp8};

const MS: Duration = Duration::from_millis(1);
const MEDIA: u32 = 77;

/// Alice publishes a camera, Bob receives it.
pub struct Call {
    pub server: Server,
    pub alice: Client,
    pub bob: Client,
    pub alice_id: SessionId,
    pub answer: String,
    /// Where Alice's pictures are.
    pub at: u16,
    /// The media SSRC that Bob gets.
    pub bob_ssrc: u32,
}

impl Call {
    pub fn start() -> Call {
        let mut server = Server::start();
        let (mut alice, mut bob) = (Client::new("alice"), Client::new("bob"));
        let (alice_id, bob_id) = (server.open(Topology::Single), server.open(Topology::Single));
        server.expect(alice_id, "cid", "TR_a", MediaKind::Video);
        let sections = [application(), video("sendonly", Some("cid"), &[])];
        let answer = server.answer(alice_id, 1, alice.describe("actpass", &sections));
        alice.connect(&answer);
        server.subscribe(bob_id, "TR_a");
        let places = [application(), video("recvonly", None, &[])];
        let bound = server.answer(bob_id, 1, bob.describe("actpass", &places));
        bob.connect(&bound);
        let ssrc = line(&bound, "a=ssrc:").split(' ').next().unwrap();
        let mut call = Call {
            server,
            alice,
            bob,
            alice_id,
            bob_ssrc: ssrc.parse().unwrap(),
            answer,
            at: 0,
        };
        call.goes_on();
        call
    }

    pub fn picture(&mut self) -> Vec<u8> {
        self.at += 1;
        let named: &[(u8, &[u8])] = &[(4, b"1")];
        let time = u32::from(self.at) * 3000;
        packet(96, MEDIA, self.at, time, named, &vp8(self.at, true, 5))
    }

    /// Pictures still arrive, one after the other, none repeated and none missing.
    pub fn goes_on(&mut self) {
        self.bob.pump(20 * MS);
        self.bob.rtp.clear();
        let end = Instant::now() + PATIENCE;
        let media = |call: &Call| {
            let mut numbers: Vec<u16> = Vec::new();
            for p in call.bob.rtp.iter().filter(|p| p.header.ssrc == call.bob_ssrc) {
                numbers.push(p.header.sequence_number);
            }
            numbers
        };
        while media(self).len() < 8 {
            assert!(Instant::now() < end, "pictures have stopped: {:?}", self.drops());
            let picture = self.picture();
            self.alice.send_rtp(&picture);
            self.bob.pump(10 * MS);
        }
        for pair in media(self).windows(2) {
            assert_eq!(pair[1], pair[0].wrapping_add(1));
        }
    }

    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        self.server
            .media
            .drops()
            .read()
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect()
    }

    pub fn dropped(&self, reason: &str) -> u64 {
        let all = self.server.media.drops().read();
        all.iter().find(|(name, _)| *name == reason).unwrap().1
    }

    /// What `act` makes the engine count, once as much has been counted as `expected`.
    pub fn counted(&mut self, expected: u64, act: impl FnOnce(&mut Call)) -> Vec<(&'static str, u64)> {
        let before = self.server.media.drops().read();
        act(self);
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.server.media.drops().read();
            let changed: Vec<_> = now
                .iter()
                .zip(&before)
                .filter(|(n, b)| n.1 > b.1)
                .map(|(n, b)| (n.0, n.1 - b.1))
                .collect();
            let sum: u64 = changed.iter().map(|(_, n)| n).sum();
            if sum >= expected || Instant::now() > end {
                return changed;
            }
            std::thread::sleep(MS);
        }
    }
}
