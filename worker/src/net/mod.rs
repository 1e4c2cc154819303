//! Sockets, and nothing above them.
//!
//! Owns the media port: batches in, batches out. Invariants: knows no peer and reads no packet; whatever
//! is sent goes where its [`Route`] says, in the order in which it was committed to the batch; a full
//! socket loses packets (counted), it never blocks the loop.

mod batch;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(test, not(target_os = "linux")))]
mod portable;
pub(crate) mod steering;
pub(crate) mod tcp;

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use self::batch::Run;
pub(crate) use self::batch::SendBatch;
use self::calls::{Inbox, Message, OUTBOX, Outbox};
#[cfg(target_os = "linux")]
use self::linux as calls;
#[cfg(not(target_os = "linux"))]
use self::portable as calls;
use self::tcp::TcpPort;
use crate::forward::drops::{Drop, DropCounters};

/// Receiving calls in one turn, so that a flood can't starve the timers.
const CALLS: usize = 4;

/// Where a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// Over the media socket.
    Udp(SocketAddr),
    /// Over an accepted connection, RFC 4571 framed.
    Tcp {
        /// Ours, never reused.
        connection: u64,
        remote: SocketAddr,
    },
}

impl Route {
    pub(crate) fn address(self) -> SocketAddr {
        match self {
            Route::Udp(a) => a,
            Route::Tcp { remote, .. } => remote,
        }
    }
}

/// One of the sockets that share the media port, and whoever serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Shard(u8);

impl Shard {
    /// The most there may be.
    pub(crate) const MOST: usize = 64;

    /// `None`: beyond what there may be.
    pub(crate) fn new(index: usize) -> Option<Shard> {
        let index = u8::try_from(index).ok()?;
        (usize::from(index) < Self::MOST).then_some(Shard(index))
    }

    /// The first so many.
    pub(crate) fn all(count: usize) -> impl Iterator<Item = Shard> {
        (0..count).filter_map(Shard::new)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Queues of the media socket: a burst of key frames to everybody must fit. The kernel clamps it to
/// `net.core.rmem_max` and `wmem_max`.
const QUEUE: usize = 8 * 1024 * 1024;

/// Non-blocking sockets with long queues that share an address, at most `count`, at least one. The first
/// takes the address for itself before it shares it: a port that anybody else has is not to be had.
pub(crate) fn bind_shared(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::UdpSocket>> {
    let first = open(address)?;
    if let Some(granted) = shortfall(&first, QUEUE) {
        tracing::warn!(
            asked = QUEUE,
            granted,
            "the media port's receive queue is shorter than asked: bursts may be lost; raise the sysctl net.core.rmem_max of the node"
        );
    }
    first.bind(&address.into())?;
    let first = std::net::UdpSocket::from(first);
    let mut sockets = Vec::new();
    if count > 1 {
        match join(&first, count - 1) {
            Ok(more) => sockets = more,
            Err(error) => {
                tracing::warn!(%error, "the media port cannot be shared: one thread serves all of it");
            }
        }
    }
    sockets.insert(0, first);
    Ok(sockets)
}

/// So many more sockets on the address of the first.
#[cfg(target_os = "linux")]
fn join(first: &std::net::UdpSocket, count: usize) -> io::Result<Vec<std::net::UdpSocket>> {
    let address = first.local_addr()?;
    socket2::SockRef::from(first).set_reuse_port(true)?;
    (0..count)
        .map(|_| {
            let socket = open(address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            Ok(socket.into())
        })
        .collect()
}

/// Elsewhere a shared port gives everything to one of its sockets.
#[cfg(not(target_os = "linux"))]
fn join(_: &std::net::UdpSocket, _: usize) -> io::Result<Vec<std::net::UdpSocket>> {
    Err(io::ErrorKind::Unsupported.into())
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let domain = if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One port for both families.
        socket.set_only_v6(false)?;
    }
    // Short queues still work, only worse.
    let _ = socket.set_recv_buffer_size(QUEUE);
    let _ = socket.set_send_buffer_size(QUEUE);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Bytes of the receive queue, where they are fewer than asked for.
fn shortfall(socket: &Socket, asked: usize) -> Option<usize> {
    let told = socket.recv_buffer_size().ok()?;
    // Linux tells twice what it grants: the other half is its own (socket(7)).
    let granted = if cfg!(target_os = "linux") { told / 2 } else { told };
    (granted < asked).then_some(granted)
}

/// The media socket.
pub(crate) struct UdpPort {
    socket: UdpSocket,
    inbox: Inbox,
    outbox: Outbox,
    /// Neighbours for one destination leave in one send.
    segmented: bool,
}

impl std::fmt::Debug for UdpPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UdpPort")
            .field("socket", &self.socket)
            .field("segmented", &self.segmented)
            .finish_non_exhaustive()
    }
}

impl UdpPort {
    /// Takes over a bound, non-blocking socket; needs a tokio context.
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let socket = UdpSocket::from_std(socket)?;
        let segmented = calls::segments(&socket);
        if !segmented {
            tracing::warn!("the kernel has no UDP_SEGMENT: every packet is a send of its own");
        }
        Ok(UdpPort {
            socket,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            segmented,
        })
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Hands what is there to `each`, up to a bound. Asks until there is no more: [`Self::readable`] would
    /// have to before it waits, and what came meanwhile joins this turn's sends.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(SocketAddr, &mut [u8])) {
        for _ in 0..CALLS {
            match self.inbox.fill(&self.socket) {
                Ok(count) => self.inbox.each(count, &mut each),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier send; says nothing about this socket.
                Err(_) => {}
            }
        }
    }

    /// Sends everything in the batch and empties it.
    pub(crate) fn flush(&mut self, batch: &mut SendBatch, tcp: Option<&TcpPort>, drops: &DropCounters) {
        if batch.is_empty() {
            // Nothing was committed, but a packet may have been begun.
            batch.clear();
            return;
        }
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut messages = [Message {
            to: nowhere,
            bytes: &[],
            segment: 0,
        }; OUTBOX];
        let mut count = 0;
        for run in batch.runs(self.segmented) {
            match run.route {
                Route::Udp(to) => {
                    if let Some(slot) = messages.get_mut(count) {
                        *slot = Message {
                            to,
                            bytes: batch.run(&run),
                            segment: run.segment,
                        };
                        count += 1;
                    }
                    if count == OUTBOX {
                        self.segmented &= send_all(&mut self.outbox, &self.socket, &messages, drops);
                        count = 0;
                    }
                }
                Route::Tcp { connection, .. } => {
                    for packet in segments_of(batch, &run) {
                        match tcp {
                            Some(tcp) => tcp.send(connection, packet.into(), drops),
                            None => drops.count(Drop::SendFailed),
                        }
                    }
                }
            }
        }
        let rest = messages.get(..count).unwrap_or_default();
        self.segmented &= send_all(&mut self.outbox, &self.socket, rest, drops);
        batch.clear();
    }
}

fn segments_of<'a>(batch: &'a SendBatch, run: &Run) -> impl Iterator<Item = &'a [u8]> {
    batch.run(run).chunks(run.segment.max(1))
}

/// Sends messages, each at most once, whatever happens to the others. `false`: the socket's device can't
/// segment, so that no more of it should be asked.
fn send_all(
    outbox: &mut Outbox,
    socket: &UdpSocket,
    mut messages: &[Message<'_>],
    drops: &DropCounters,
) -> bool {
    let mut segmented = true;
    while let Some(first) = messages.first() {
        let done = match outbox.send(socket, messages) {
            Ok(sent) => sent.max(1),
            // What doesn't fit now is late for everybody.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                for message in messages {
                    count_lost(message, drops);
                }
                return segmented;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                if first.bytes.len() > first.segment {
                    segmented &= told_apart(&e, first.to);
                    send_singly(outbox, socket, first, drops);
                } else {
                    count_lost(first, drops);
                }
                1
            }
        };
        messages = messages.get(done..).unwrap_or_default();
    }
    segmented
}

/// What an error of a segmented send means: `true` where it is about this destination alone, such as a
/// path too narrow for the packets.
fn told_apart(error: &io::Error, to: SocketAddr) -> bool {
    // EIO: the device can't checksum what it would have to cut (udp(7)).
    if error.raw_os_error() == Some(calls::EIO) {
        tracing::warn!(%error, %to, "segmented sends fail on this network device: every packet is a send of its own");
        return false;
    }
    tracing::debug!(%error, %to, "a segmented send was refused: its packets leave one by one");
    true
}

fn send_singly(outbox: &mut Outbox, socket: &UdpSocket, message: &Message<'_>, drops: &DropCounters) {
    for bytes in message.bytes.chunks(message.segment.max(1)) {
        let single = Message { bytes, ..*message };
        if !matches!(outbox.send(socket, &[single]), Ok(1)) {
            count_lost(&single, drops);
        }
    }
}

fn count_lost(message: &Message<'_>, drops: &DropCounters) {
    for _ in 0..message.bytes.len().div_ceil(message.segment.max(1)) {
        drops.count(Drop::SendFailed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn port() -> (UdpPort, SocketAddr) {
        let socket = bind_shared(SocketAddr::from(([127, 0, 0, 1], 0)), 1)
            .unwrap()
            .remove(0);
        let at = socket.local_addr().unwrap();
        (UdpPort::new(socket).unwrap(), at)
    }

    fn peer() -> (std::net::UdpSocket, Route) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let route = Route::Udp(socket.local_addr().unwrap());
        (socket, route)
    }

    fn take(socket: &std::net::UdpSocket, count: usize) -> Vec<Vec<u8>> {
        (0..count)
            .map(|_| {
                let mut buffer = [0; 4096];
                let len = socket.recv(&mut buffer).unwrap();
                buffer[..len].to_vec()
            })
            .collect()
    }

    /// Packets of many shapes to two peers, more than one call takes and fewer than a queue holds.
    fn fill(batch: &mut SendBatch, routes: [Route; 2]) -> [Vec<Vec<u8>>; 2] {
        let mut sent = [Vec::new(), Vec::new()];
        for i in 0..120_usize {
            let at = usize::from(i % 7 > 3);
            let packet = vec![i as u8; if i % 5 == 4 { 200 } else { 900 }];
            batch.push(routes[at], &packet);
            sent[at].push(packet);
        }
        sent
    }

    #[tokio::test]
    async fn a_batch_arrives_whole_and_in_order_segmented_or_not() {
        for segmented in [true, false] {
            let (mut port, _) = port();
            port.segmented &= segmented;
            let ((a, to_a), (b, to_b)) = (peer(), peer());
            let mut batch = SendBatch::default();
            let drops = DropCounters::default();
            let sent = fill(&mut batch, [to_a, to_b]);
            port.flush(&mut batch, None, &drops);
            assert!(batch.is_empty());
            assert_eq!(take(&a, sent[0].len()), sent[0]);
            assert_eq!(take(&b, sent[1].len()), sent[1]);
            assert!(drops.read().iter().all(|(_, n)| *n == 0));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_counted_and_harms_nobody_else() {
        let (mut port, _) = port();
        let (a, to_a) = peer();
        // From the loopback address there is no way there, segmented or not.
        let nowhere = Route::Udp(SocketAddr::from(([192, 0, 2, 1], 9)));
        let mut batch = SendBatch::default();
        let drops = DropCounters::default();
        for route in [to_a, nowhere, nowhere, nowhere, to_a] {
            batch.push(route, &[7; 100]);
        }
        batch.push(
            Route::Tcp {
                connection: 1,
                remote: SocketAddr::from(([127, 0, 0, 1], 1)),
            },
            &[7; 100],
        );
        port.flush(&mut batch, None, &drops);
        assert_eq!(take(&a, 2), vec![vec![7; 100]; 2]);
        let lost = drops.read().iter().find(|(n, _)| *n == "send_failed").unwrap().1;
        assert_eq!(lost, 4);
    }

    #[tokio::test]
    async fn what_arrives_is_handed_over_with_its_sender() {
        let (mut port, at) = port();
        let (a, from) = peer();
        for i in 0..100_u8 {
            a.send_to(&vec![i; usize::from(i) + 1], at).unwrap();
        }
        a.send_to(&[1; 3000], at).unwrap();
        a.send_to(&[0xFF], at).unwrap();
        let mut got = Vec::new();
        while got.last() != Some(&vec![0xFF]) {
            port.readable().await.unwrap();
            port.receive(|who, packet| {
                assert_eq!(Route::Udp(who), from);
                got.push(packet.to_vec());
            });
        }
        got.pop();
        let want: Vec<Vec<u8>> = (0..100_u8).map(|i| vec![i; usize::from(i) + 1]).collect();
        assert_eq!(got, want, "the one that is too long is none");
    }

    #[test]
    fn a_short_receive_queue_is_noticed() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        assert_eq!(shortfall(&socket, 8 * 1024), None);
        assert_eq!(shortfall(&socket, 8 * 1024 + 1), Some(8 * 1024));
    }
}
