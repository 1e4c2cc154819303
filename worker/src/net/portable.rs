//! One datagram per system call, for kernels that have no others.
//!
//! Owns the buffer that is received into. Invariant: nothing here blocks.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

/// Datagrams taken at a time.
pub(super) const INBOX: usize = 64;
/// Messages sent at a time.
pub(super) const OUTBOX: usize = 64;
/// Never told here.
pub(super) const EIO: i32 = 5;
const DATAGRAM: usize = 2048;

/// Received datagrams, one after the other.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    filled: Vec<(SocketAddr, usize)>,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        Inbox {
            bytes: vec![0; INBOX * DATAGRAM],
            filled: Vec::with_capacity(INBOX),
        }
    }

    /// Takes what is there, at most [`INBOX`] datagrams.
    pub(super) fn fill(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.filled.clear();
        for chunk in self.bytes.chunks_exact_mut(DATAGRAM) {
            match socket.try_recv_from(chunk) {
                Ok((len, from)) => self.filled.push((from, len)),
                Err(e) if self.filled.is_empty() => return Err(e),
                Err(_) => break,
            }
        }
        Ok(self.filled.len())
    }

    /// Hands the first `count` datagrams to `each`.
    pub(super) fn each(&mut self, count: usize, mut each: impl FnMut(SocketAddr, &mut [u8])) {
        let chunks = self.bytes.chunks_exact_mut(DATAGRAM);
        for (chunk, (from, len)) in chunks.zip(&self.filled).take(count) {
            // One that fills the buffer was cut.
            if let Some(packet) = chunk.get_mut(..*len).filter(|p| p.len() < DATAGRAM) {
                each(*from, packet);
            }
        }
    }
}

/// One datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) to: SocketAddr,
    pub(super) bytes: &'a [u8],
    pub(super) segment: usize,
}

/// Sends.
pub(super) struct Outbox;

impl Outbox {
    pub(super) fn new() -> Outbox {
        Outbox
    }

    /// Sends the first message.
    pub(super) fn send(&mut self, socket: &UdpSocket, messages: &[Message<'_>]) -> io::Result<usize> {
        match messages.first() {
            Some(first) => socket.try_send_to(first.bytes, first.to).map(|_| 1),
            None => Ok(0),
        }
    }
}

/// Whether the kernel cuts long messages up.
pub(super) fn segments(_: &UdpSocket) -> bool {
    false
}

/// There is none here.
#[cfg(not(target_os = "linux"))]
pub(super) fn attach_steering(_: &std::net::UdpSocket, _: &[super::steering::Instruction]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_is_received() {
        let bind = || async { UdpSocket::bind("127.0.0.1:0").await.unwrap() };
        let (a, b) = (bind().await, bind().await);
        assert!(!segments(&a));
        let to = b.local_addr().unwrap();
        for bytes in [&[1_u8; 10][..], &[2; DATAGRAM], &[3; 20]] {
            a.writable().await.unwrap();
            let message = Message {
                to,
                bytes,
                segment: bytes.len(),
            };
            // As many as there may be: each send takes one, whole.
            assert_eq!(Outbox::new().send(&a, &[message; OUTBOX]).unwrap(), 1);
            assert_eq!(message.segment, bytes.len());
        }
        assert_eq!(Outbox::new().send(&a, &[]).unwrap(), 0);
        let mut inbox = Inbox::new();
        let mut got = Vec::new();
        while got.len() < 2 {
            b.readable().await.unwrap();
            match inbox.fill(&b) {
                Ok(count) => inbox.each(count, |from, packet| {
                    assert_eq!(from, a.local_addr().unwrap());
                    got.push(packet.to_vec());
                }),
                Err(e) => assert!(matches!(e.kind(), io::ErrorKind::WouldBlock) && EIO != 0),
            }
        }
        assert_eq!(
            got,
            [vec![1; 10], vec![3; 20]],
            "the one that is too long is none"
        );
    }
}
