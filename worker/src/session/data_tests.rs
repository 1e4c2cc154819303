//! Associations whose packets come late, twice or not at all, and channels that go.

use super::*;

const RELIABLE: [ChannelState; 1] = [ChannelState {
    id: 0,
    reliability: Reliability::Reliable,
}];

/// What `data` wants to send.
fn sent(data: &mut Data, now: Instant) -> Vec<BytesMut> {
    let mut all = Vec::new();
    while let Some(packets) = data.transmit(now) {
        all.extend(packets.iter().map(|p| BytesMut::from(&p[..])));
    }
    all
}

fn give(data: &mut Data, packets: Vec<BytesMut>, now: Instant) -> Vec<Received> {
    packets.into_iter().flat_map(|p| data.read(p, now)).collect()
}

/// Passes packets between both until neither has any.
fn pump(client: &mut Data, server: &mut Data, now: Instant) -> (Vec<Received>, Vec<Received>) {
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    loop {
        let (up, down) = (sent(client, now), sent(server, now));
        if up.is_empty() && down.is_empty() {
            return (to_client, to_server);
        }
        to_server.extend(give(server, up, now));
        to_client.extend(give(client, down, now));
    }
}

fn opened(received: &[Received]) -> usize {
    received
        .iter()
        .filter(|r| matches!(r, Received::Opened(_)))
        .count()
}

fn lost(received: &[Received]) -> bool {
    received.iter().any(|r| matches!(r, Received::Lost))
}

#[test]
fn a_repeated_init_does_not_void_the_answer_to_the_first() {
    let start = Instant::now();
    let mut client = Data::new(true, true, Vec::new(), start);
    let mut server = Data::new(false, false, Vec::new(), start);
    // The answer takes so long that the client asks again.
    let init = sent(&mut client, start);
    give(&mut server, init, start);
    let first = sent(&mut server, start);
    let now = client.timeout().unwrap();
    client.handle_timeout(now);
    let again = sent(&mut client, now);
    assert!(!again.is_empty());
    give(&mut server, again, now);
    let second = sent(&mut server, now);
    give(&mut client, first, now);
    give(&mut client, second, now);
    let (_, at_server) = pump(&mut client, &mut server, now);
    assert_eq!(opened(&at_server), 2);
    assert_eq!(server.associations.len(), 1);
    assert_eq!(
        client.send(Reliability::Reliable, &Bytes::from_static(b"hi"), now),
        Sent::Queued
    );
    let (_, at_server) = pump(&mut client, &mut server, now);
    assert!(matches!(&at_server[..], [Received::Message(Reliability::Reliable, text)] if &text[..] == b"hi"));
}

#[test]
fn inits_are_kept_up_to_a_limit() {
    let start = Instant::now();
    let mut server = Data::new(false, false, Vec::new(), start);
    for _ in 0..3 * MAX_BEGUN {
        let mut client = Data::new(true, true, Vec::new(), start);
        let init = sent(&mut client, start);
        give(&mut server, init, start);
    }
    assert_eq!(server.associations.len(), MAX_BEGUN);
}

#[test]
fn both_may_begin_at_once() {
    let start = Instant::now();
    let mut server = Data::new(false, false, RELIABLE.to_vec(), start);
    let now = server.timeout().unwrap();
    server.handle_timeout(now);
    // Ours is lost, or comes too early for the client.
    assert!(!sent(&mut server, now).is_empty());
    let mut client = Data::new(true, false, Vec::new(), now);
    let (_, at_server) = pump(&mut client, &mut server, now);
    assert_eq!(opened(&at_server), 1);
}

/// That of a client whose channel is open: see the tests of takeovers.
#[test]
fn an_inherited_channel_that_is_closed_is_found_out() {
    let now = Instant::now();
    let mut client = Data::new(true, false, Vec::new(), now);
    let mut server = Data::new(false, false, RELIABLE.to_vec(), now);
    let (to_client, at_server) = pump(&mut client, &mut server, now);
    assert_eq!((opened(&to_client), opened(&at_server)), (1, 1));
    assert!(lost(&at_server));
    assert!(!lost(&server.handle_timeout(now + MISSED_AFTER)), "once");
}

#[test]
fn a_channel_that_goes_is_missed_unless_it_is_replaced() {
    for replaced in [false, true] {
        let now = Instant::now();
        let mut client = Data::new(true, true, Vec::new(), now);
        let mut server = Data::new(false, false, Vec::new(), now);
        pump(&mut client, &mut server, now);
        let reset = client.up().unwrap().stream(0).unwrap().close(now);
        reset.unwrap();
        let (_, at_server) = pump(&mut client, &mut server, now);
        assert!(!lost(&at_server), "not at once");
        if replaced {
            client.to_open = vec![(4, Reliability::Reliable)];
            client.handle_timeout(now);
            pump(&mut client, &mut server, now);
        }
        let at = now + MISSED_AFTER;
        assert!(server.timeout().unwrap() <= at);
        assert_eq!(lost(&server.handle_timeout(at)), !replaced);
        assert!(!lost(&server.handle_timeout(at + MISSED_AFTER)), "once");
    }
}
