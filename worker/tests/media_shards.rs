//! Several media threads behind one port: meetings are spread over them, and whatever thread a packet
//! gets to, its meeting's thread serves it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use media_support::*;
use plenum_worker::session::MediaConfig;
use plenum_worker::session::api::{Command, Event, Leg, MediaKind, SessionId, Topology};

const MS: Duration = Duration::from_millis(1);
const THREADS: usize = 3;

fn server(steering: bool) -> Server {
    Server::with(MediaConfig {
        udp: "127.0.0.1:0".parse().unwrap(),
        tcp: true,
        threads: THREADS,
        steering,
        ..MediaConfig::default()
    })
}

fn handed_over(server: &Server) -> u64 {
    server.media.loads().iter().map(|l| l.handed_over).sum()
}

/// A camera and two who watch it.
struct Meeting {
    sessions: Vec<SessionId>,
    publisher: Client,
    answer: String,
    watchers: Vec<Client>,
    at: u16,
}

impl Meeting {
    fn start(server: &mut Server, number: usize) -> Meeting {
        let (home, sid) = (format!("team/{number}"), format!("TR_{number}"));
        let mut publisher = Client::new("publisher");
        let id = server.open_at(&home, Topology::Single);
        server.expect(id, "cid", &sid, MediaKind::Video);
        let sections = [application(), video("sendonly", Some("cid"), &[])];
        let answer = server.answer(id, 1, publisher.describe("actpass", &sections));
        publisher.connect(&answer);
        let mut sessions = vec![id];
        let mut watchers = Vec::new();
        for i in 0..2 {
            let mut client = Client::new(&format!("watcher{i}"));
            let id = server.open_at(&home, Topology::Single);
            server.subscribe(id, &sid);
            let sections = [application(), video("recvonly", None, &[])];
            let answer = server.answer(id, 1, client.describe("actpass", &sections));
            client.connect(&answer);
            sessions.push(id);
            watchers.push(client);
        }
        Meeting {
            sessions,
            publisher,
            answer,
            watchers,
            at: 0,
        }
    }

    /// Everybody who watches gets pictures.
    fn goes_on(&mut self, server: &Server) {
        let end = Instant::now() + PATIENCE;
        for watcher in &mut self.watchers {
            watcher.rtp.clear();
        }
        while self.watchers.iter().any(|w| w.rtp.len() < 5) {
            assert!(
                Instant::now() < end,
                "no pictures; {:?}, {:?}",
                server.media.loads(),
                server.media.drops().read()
            );
            self.at += 1;
            let time = u32::from(self.at) * 3000;
            let picture = packet(96, 77, self.at, time, &[(4, b"1")], &vp8(self.at, true, 5));
            self.publisher.send_rtp(&picture);
            for watcher in &mut self.watchers {
                watcher.pump(2 * MS);
            }
        }
    }
}

#[test]
fn packets_find_their_meeting_whichever_thread_they_get_to() {
    let mut server = server(false);
    let mut meetings: Vec<Meeting> = (0..5).map(|i| Meeting::start(&mut server, i)).collect();
    let mut sessions: Vec<usize> = server.media.loads().iter().map(|l| l.sessions).collect();
    sessions.sort_unstable();
    assert_eq!(sessions, [3, 6, 6], "whole meetings, spread");
    for meeting in &mut meetings {
        meeting.goes_on(&server);
    }
    // Of fifteen ports a hash leads some to the wrong one of three threads.
    let before = handed_over(&server);
    assert!(before > 0, "{:?}", server.media.loads());

    // To another port, which another thread may get.
    for meeting in &mut meetings {
        for _ in 0..4 {
            meeting.publisher.move_socket();
            let answer = meeting.answer.clone();
            meeting.publisher.ice(&answer);
            meeting.goes_on(&server);
        }
    }

    server.media.send(Command::Statistics);
    let told = server.event("statistics", |e| match e {
        Event::Statistics { sessions } => Some(sessions.iter().filter_map(|s| s.session).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(told.len(), 15, "of all threads in one answer: {told:?}");

    for session in meetings.iter().flat_map(|m| &m.sessions) {
        server.media.send(Command::Close { session: *session });
    }
    assert!(server.media.loads().iter().all(|l| l.sessions == 0));
    for meeting in &mut meetings {
        let end = Instant::now() + PATIENCE;
        while !meeting.publisher.closed {
            assert!(Instant::now() < end, "told that it is over");
            meeting.publisher.pump(2 * MS);
        }
    }
}

/// Where the kernel does as it is told, nothing has to be handed over in the end.
#[test]
fn the_kernel_learns_where_packets_belong() {
    let mut server = server(true);
    let mut meetings: Vec<Meeting> = (0..4).map(|i| Meeting::start(&mut server, i)).collect();
    let end = Instant::now() + 3 * PATIENCE;
    loop {
        let before = handed_over(&server);
        for meeting in &mut meetings {
            meeting.goes_on(&server);
        }
        if handed_over(&server) == before {
            return;
        }
        assert!(
            Instant::now() < end,
            "still handed over: {:?}",
            server.media.loads()
        );
    }
}

#[test]
fn a_connection_is_served_by_the_thread_that_its_check_names() {
    let mut server = server(true);
    for number in 0..2 * THREADS {
        let session = server.open_at(&format!("team/{number}"), Topology::Single);
        let client = Client::new("tcp");
        let answer = server.answer(session, 1, client.describe("actpass", &[application()]));
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (ufrag, pwd) = (line(&answer, "a=ice-ufrag:"), line(&answer, "a=ice-pwd:"));
        // The second is behind the first in one piece, and goes where that goes.
        let mut bytes = Vec::new();
        for _ in 0..2 {
            let check = client.check(&client.ufrag, ufrag, pwd, true);
            bytes.extend_from_slice(&(check.len() as u16).to_be_bytes());
            bytes.extend_from_slice(&check);
        }
        stream.write_all(&bytes).unwrap();
        for _ in 0..2 {
            let mut head = [0; 2];
            stream.read_exact(&mut head).unwrap();
            let mut body = vec![0; usize::from(u16::from_be_bytes(head))];
            stream.read_exact(&mut body).unwrap();
            assert_eq!(&body[..2], &[1, 1], "a binding response");
        }
    }
    assert!(server.media.loads().iter().all(|l| l.sessions == 2));
}

#[test]
fn the_limit_of_sessions_is_of_all_threads_together() {
    let mut server = Server::with(MediaConfig {
        udp: "127.0.0.1:0".parse().unwrap(),
        threads: 2,
        max_sessions: 2,
        ..MediaConfig::default()
    });
    let client = Client::new("c");
    let open =
        |server: &mut Server, number: usize| server.open_at(&format!("team/{number}"), Topology::Single);
    let first = open(&mut server, 0);
    open(&mut server, 1);
    let beyond = open(&mut server, 2);
    let offer = client.describe("actpass", &[application()]);
    let (leg, id) = (Leg::Publisher, 1);
    let sdp = offer.clone();
    server.media.send(Command::Offer {
        session: beyond,
        leg,
        id,
        sdp,
    });
    server.event("refused", |e| {
        matches!(e, Event::Refused { session, .. } if *session == beyond).then_some(())
    });
    server.media.send(Command::Close { session: first });
    let next = open(&mut server, 3);
    server.answer(next, 1, offer);
}
