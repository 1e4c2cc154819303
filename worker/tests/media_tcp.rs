//! ICE-TCP: the same checks, framed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use media_support::*;
use plenum_worker::session::MediaConfig;
use plenum_worker::session::api::Topology;

fn framed(packet: &[u8]) -> Vec<u8> {
    let mut out = (packet.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(packet);
    out
}

#[test]
fn a_check_over_tcp_is_answered_and_a_stranger_is_cut_off() {
    let udp = "127.0.0.1:0".parse().unwrap();
    let mut server = Server::with(MediaConfig {
        udp,
        tcp: true,
        ..MediaConfig::default()
    });
    let session = server.open(Topology::Single);
    let client = Client::new("tcp");
    let answer = server.answer(session, 1, client.describe("actpass", &[application()]));
    assert!(answer.contains("tcptype passive"), "{answer}");

    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let check = client.check(
        &client.ufrag,
        line(&answer, "a=ice-ufrag:"),
        line(&answer, "a=ice-pwd:"),
        true,
    );
    // In two pieces, as a stream may bring it.
    let frame = framed(&check);
    stream.write_all(&frame[..7]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(&frame[7..]).unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes(head))];
    stream.read_exact(&mut body).unwrap();
    assert_eq!(&body[..2], &[1, 1], "a binding response");

    let mut stranger = TcpStream::connect(server.address).unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stranger.write_all(&framed(b"GET / HTTP/1.1")).unwrap();
    assert_eq!(stranger.read(&mut head).unwrap_or(0), 0);
}
