//! What forwarding a packet allocates: nothing.
//!
//! Counts every allocation of the process while a running engine forwards. The clients' packets are sealed
//! before, and what subscribers get stays in their sockets, so that only the engine is at work. What the
//! engine's timers allocate is the same whatever is forwarded in the same time: a busy window is compared
//! with a quiet one.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap here is a failed test; the figure is for the benchmark's report"
)]

mod media_support;

use std::alloc::System;
use std::time::{Duration, Instant};

use media_support::*;
use plenum_worker::session::api::{Event, MediaKind, Topology};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SUBSCRIBERS: usize = 10;
const WINDOW: Duration = Duration::from_secs(2);
const PER_FRAME: usize = 10;
/// Enough for as many feedbacks as there can be.
const QUIET: usize = 120;
const BUSY: usize = 1200;

fn allocations() -> usize {
    let so_far = ALLOCATOR.stats();
    so_far.allocations + so_far.reallocations
}

/// Takes and counts what is in the sockets.
fn drain(subscribers: &[Client]) -> usize {
    let mut buffer = [0; 2048];
    let mut count = 0;
    for s in subscribers {
        while let Ok(len) = s.socket.recv(&mut buffer) {
            count += usize::from(len > 1000);
        }
    }
    count
}

struct Scene {
    _server: Server,
    publisher: Client,
    subscribers: Vec<Client>,
    sequence: u16,
}

impl Scene {
    fn new() -> Scene {
        let mut server = Server::start();
        let mut publisher = Client::new("publisher");
        let id = server.open(Topology::Single);
        server.expect(id, "cid", "TR_v", MediaKind::Video);
        let sections = [application(), video("sendonly", Some("cid"), &[])];
        let answer = server.answer(id, 1, publisher.describe("actpass", &sections));
        publisher.connect(&answer);
        let mut subscribers = Vec::new();
        for i in 0..SUBSCRIBERS {
            let mut client = Client::new(&format!("s{i}"));
            let id = server.open(Topology::Single);
            // Without feedback about the path, which these clients couldn't give.
            let receiving = video("recvonly", None, &[]).replace("a=rtcp-fb:96 transport-cc\r\n", "");
            let sections = [application(), receiving];
            server.subscribe(id, "TR_v");
            let answer = server.answer(id, 1, client.describe("actpass", &sections));
            client.connect(&answer);
            server.event("bound", |e| {
                matches!(e, Event::SubscriptionBound { session, .. } if *session == id).then_some(())
            });
            client.socket.set_nonblocking(true).unwrap();
            subscribers.push(client);
        }
        Scene {
            _server: server,
            publisher,
            subscribers,
            sequence: 0,
        }
    }

    /// Sends so many packets over one window, `burst` at a time: what was allocated, and how many packets
    /// subscribers got.
    fn window(&mut self, count: usize, burst: usize) -> (usize, usize) {
        let sealed: Vec<_> = (0..count)
            .map(|_| {
                self.sequence += 1;
                let frame = self.sequence / PER_FRAME as u16;
                let mut payload = vp8(frame, self.sequence % 300 == 1, 7);
                payload.resize(1100, 7);
                let wide = self.sequence.to_be_bytes();
                let extensions: [(u8, &[u8]); 2] = [(4, b"1"), (5, &wide)];
                let stamp = u32::from(frame) * 3000;
                let clear = packet(96, 77, self.sequence, stamp, &extensions, &payload);
                self.publisher.seal_rtp(&clear)
            })
            .collect();
        let step = WINDOW / (count / burst) as u32;
        let (start, before) = (Instant::now(), allocations());
        let mut received = 0;
        for (i, packets) in sealed.chunks(burst).enumerate() {
            let due = step * i as u32;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            for packet in packets {
                self.publisher.send_raw(packet);
            }
            received += drain(&self.subscribers);
        }
        std::thread::sleep(step + Duration::from_millis(50));
        let after = allocations();
        received += drain(&self.subscribers);
        (after - before, received)
    }
}

/// What a busy window allocates beyond a quiet one, how much it forwards, and what rest allocates.
struct Compared {
    extra: usize,
    forwarded: usize,
    at_rest: usize,
}

impl Compared {
    fn new(scene: &mut Scene, burst: usize) -> Compared {
        let (at_rest, few) = scene.window(QUIET, 1);
        let (at_work, many) = scene.window(BUSY, burst);
        assert!(
            many > 9 * SUBSCRIBERS * BUSY / 10,
            "{many} of {BUSY} packets for each"
        );
        Compared {
            extra: at_work.saturating_sub(at_rest),
            forwarded: many - few,
            at_rest,
        }
    }

    fn is_nothing(&self) -> bool {
        self.extra * 500 < self.forwarded
    }
}

#[test]
fn a_forwarded_packet_allocates_nothing() {
    let mut scene = Scene::new();
    // Buffers get as long as they will be.
    for _ in 0..3 {
        scene.window(BUSY, PER_FRAME);
    }
    for (name, burst) in [("single", 1), ("frames10", PER_FRAME)] {
        // A window that a busy machine prolongs sees more of the timers, once; a packet that allocates
        // does so in every window.
        let mut seen = Compared::new(&mut scene, burst);
        for _ in 0..3 {
            if seen.is_nothing() {
                break;
            }
            seen = Compared::new(&mut scene, burst);
        }
        let Compared {
            extra,
            forwarded,
            at_rest,
        } = seen;
        let each = extra as f64 / forwarded as f64;
        println!("{{\"allocations_per_packet_{name}\": {each:.4}}}");
        assert!(
            seen.is_nothing(),
            "{name}: {extra} allocations for {forwarded} packets ({at_rest} at rest)"
        );
    }
}
