//! Sockets, and nothing above them.
//!
//! Owns the media port: batches in, batches out. Invariants: knows no peer and reads no packet; whatever
//! is sent goes where its [`Route`] says; a full socket loses the packet (counted), it never blocks the
//! loop. Batched system calls replace [`UdpPort`]'s inside without the rest noticing.

pub(crate) mod tcp;

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::forward::drops::{Drop, DropCounters};

/// Datagrams taken in one turn, so that a flood can't starve the timers.
const BATCH: usize = 128;
/// Larger than any datagram that fits a path of ours.
const DATAGRAM: usize = 2048;

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

/// Packets to send at the end of a turn.
#[derive(Debug, Default)]
pub(crate) struct SendBatch {
    pub(crate) packets: Vec<(Route, BytesMut)>,
}

impl SendBatch {
    pub(crate) fn push(&mut self, route: Route, packet: BytesMut) {
        self.packets.push((route, packet));
    }
}

/// Queues of the media socket: a burst of key frames to everybody must fit. The kernel clamps it to
/// `net.core.rmem_max` and `wmem_max`.
const QUEUE: usize = 8 * 1024 * 1024;

/// A non-blocking socket with long queues.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
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
    if let Some(granted) = shortfall(&socket, QUEUE) {
        tracing::warn!(
            asked = QUEUE,
            granted,
            "the media port's receive queue is shorter than asked: bursts may be lost; raise the sysctl net.core.rmem_max of the node"
        );
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Bytes of the receive queue, where they are fewer than asked for.
fn shortfall(socket: &Socket, asked: usize) -> Option<usize> {
    let told = socket.recv_buffer_size().ok()?;
    // Linux tells twice what it grants: the other half is its own (socket(7)).
    let granted = if cfg!(target_os = "linux") { told / 2 } else { told };
    (granted < asked).then_some(granted)
}

/// The media socket.
#[derive(Debug)]
pub(crate) struct UdpPort {
    socket: UdpSocket,
    buffer: Vec<u8>,
}

impl UdpPort {
    /// Takes over a bound, non-blocking socket; needs a tokio context.
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        Ok(UdpPort {
            socket: UdpSocket::from_std(socket)?,
            buffer: vec![0; DATAGRAM],
        })
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Hands up to a batch of datagrams to `each`.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(SocketAddr, &[u8])) {
        for _ in 0..BATCH {
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok((len, from)) => {
                    if let Some(packet) = self.buffer.get(..len) {
                        each(from, packet);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier send; says nothing about this socket.
                Err(_) => {}
            }
        }
    }

    /// Sends one datagram.
    pub(crate) fn send(&self, to: SocketAddr, packet: &[u8], drops: &DropCounters) {
        if self.socket.try_send_to(packet, to).is_err() {
            drops.count(Drop::SendFailed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_receive_queue_is_noticed() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        assert_eq!(shortfall(&socket, 8 * 1024), None);
        assert_eq!(shortfall(&socket, 8 * 1024 + 1), Some(8 * 1024));
    }
}
