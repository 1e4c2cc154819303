//! Sockets in batches.
//!
//! Owns the system calls of the load generator and of the limit programs: many datagrams per call in
//! both directions, arrival times from the kernel, segmentation offload. Invariant: receiving never
//! blocks, so that draining by a clock costs a sender no wake-up.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, clock_gettime};

use crate::error::BenchError;

/// Datagrams per call.
const BATCH: usize = 16;
/// Larger than any datagram here.
const DATAGRAM: usize = 1600;
/// Larger than anything here that isn't media, and than what is read of media.
const HEAD: usize = 320;
/// Long enough for a generator that the scheduler forgot for a while.
const QUEUE: usize = 1 << 20;

/// A socket on the loopback address whose datagrams carry the time of their arrival.
pub(crate) fn bind() -> Result<UdpSocket, BenchError> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BenchError::io("a UDP socket"))?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).map_err(io("SO_TIMESTAMPNS"))?;
    // Root may have what it asks for; otherwise the kernel clamps it to what it allows, which is fine.
    if setsockopt(&socket, sockopt::RcvBufForce, &QUEUE).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &QUEUE);
    }
    Ok(socket)
}

/// From now on every buffer sent is cut into datagrams of this many bytes.
pub(crate) fn segment(socket: &UdpSocket, bytes: usize) -> Result<(), BenchError> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    setsockopt(socket, sockopt::UdpGsoSegment, &bytes).map_err(io("UDP_SEGMENT"))
}

fn io(what: &'static str) -> impl FnOnce(Errno) -> BenchError {
    move |errno| BenchError::Io {
        what,
        source: errno.into(),
    }
}

/// Nanoseconds of the clock that stamps arrivals.
pub(crate) fn wall_clock() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, nanoseconds)
}

fn nanoseconds(t: TimeSpec) -> u64 {
    u64::try_from(t.num_nanoseconds()).unwrap_or_default()
}

/// Waits for a datagram, at most so long.
pub(crate) fn wait(socket: &UdpSocket, limit: Duration) -> Result<(), BenchError> {
    let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match nix::poll::ppoll(&mut wanted, Some(TimeSpec::from_duration(limit)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(io("ppoll")(e)),
    }
}

/// One that arrived.
pub(crate) struct Datagram<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) from: SocketAddr,
    /// By [`wall_clock`].
    pub(crate) at: u64,
}

/// Buffers to receive into.
pub(crate) struct Inbox {
    headers: MultiHeaders<SockaddrIn>,
    buffer: Vec<u8>,
    /// Bytes of a datagram that are taken.
    each: usize,
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Self::of(DATAGRAM)
    }

    /// For those who read headers only: the rest of a longer datagram isn't copied.
    pub(crate) fn of_heads() -> Inbox {
        Self::of(HEAD)
    }

    fn of(each: usize) -> Inbox {
        Inbox {
            headers: Self::headers(),
            buffer: vec![0; BATCH * each],
            each,
        }
    }

    fn headers() -> MultiHeaders<SockaddrIn> {
        MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(TimeSpec)))
    }

    /// Hands every datagram that is there to `each`.
    pub(crate) fn drain(
        &mut self,
        socket: &UdpSocket,
        mut each: impl FnMut(Datagram<'_>),
    ) -> Result<(), BenchError> {
        loop {
            let mut unstamped = false;
            let mut count = 0;
            {
                let mut chunks = self.buffer.chunks_mut(self.each);
                let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
                    std::array::from_fn(|_| [IoSliceMut::new(chunks.next().unwrap_or_default())]);
                let received = recvmmsg(
                    socket.as_raw_fd(),
                    &mut self.headers,
                    slices.iter_mut(),
                    MsgFlags::MSG_DONTWAIT,
                    None,
                );
                let received = match received {
                    Ok(received) => received,
                    Err(Errno::EAGAIN) => return Ok(()),
                    // An ICMP error of an earlier send: the next call finds what there is.
                    Err(Errno::ECONNREFUSED | Errno::EINTR) => continue,
                    Err(e) => return Err(io("recvmmsg")(e)),
                };
                for message in received {
                    count += 1;
                    let stamp = message.cmsgs().ok().and_then(|mut all| {
                        all.find_map(|c| match c {
                            ControlMessageOwned::ScmTimestampns(t) => Some(nanoseconds(t)),
                            _ => None,
                        })
                    });
                    unstamped |= stamp.is_none();
                    let from = message.address.map(SocketAddrV4::from);
                    if let (Some(bytes), Some(from)) = (message.iovs().next(), from) {
                        each(Datagram {
                            bytes,
                            from: from.into(),
                            at: stamp.unwrap_or_else(wall_clock),
                        });
                    }
                }
            }
            if unstamped {
                // The call left no room for the next stamp in the headers.
                self.headers = Self::headers();
            }
            if count < BATCH {
                return Ok(());
            }
        }
    }
}

/// Sends batches.
pub(crate) struct Outbox {
    headers: MultiHeaders<SockaddrIn>,
    most: usize,
}

impl Outbox {
    /// Of at most so many.
    pub(crate) fn new(most: usize) -> Outbox {
        Outbox {
            headers: MultiHeaders::preallocate(most, None),
            most,
        }
    }

    /// Sends each buffer to its address, in one call per batch. What doesn't go out is lost, and shows as
    /// such at the receivers.
    pub(crate) fn send(
        &mut self,
        socket: &UdpSocket,
        packets: &[(SocketAddrV4, &[u8])],
    ) -> Result<(), BenchError> {
        for batch in packets.chunks(self.most) {
            let slices: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|(_, p)| [IoSlice::new(p)]).collect();
            let to: Vec<Option<SockaddrIn>> = batch.iter().map(|(to, _)| Some((*to).into())).collect();
            sendmmsg(
                socket.as_raw_fd(),
                &mut self.headers,
                slices.iter(),
                &to,
                [],
                MsgFlags::empty(),
            )
            .map_err(io("sendmmsg"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(socket: &UdpSocket) -> SocketAddrV4 {
        match socket.local_addr().unwrap() {
            SocketAddr::V4(a) => a,
            SocketAddr::V6(_) => panic!("IPv6"),
        }
    }

    #[test]
    fn batches_arrive_whole_with_their_times() {
        let (a, b) = (bind().unwrap(), bind().unwrap());
        let packets: Vec<Vec<u8>> = (0..50u8).map(|i| vec![i; 100 + usize::from(i)]).collect();
        let batch: Vec<(SocketAddrV4, &[u8])> = packets.iter().map(|p| (address(&b), &p[..])).collect();
        let before = wall_clock();
        Outbox::new(20).send(&a, &batch).unwrap();
        let mut inbox = Inbox::new();
        let mut got: Vec<Vec<u8>> = Vec::new();
        while got.len() < 50 {
            wait(&b, Duration::from_secs(10)).unwrap();
            inbox
                .drain(&b, |d| {
                    assert!(d.at >= before && d.at <= wall_clock());
                    assert_eq!(d.from, SocketAddr::V4(address(&a)));
                    got.push(d.bytes.to_vec());
                })
                .unwrap();
        }
        assert_eq!(got, packets);
    }

    #[test]
    fn a_head_is_the_beginning_of_a_datagram() {
        let (a, b) = (bind().unwrap(), bind().unwrap());
        let packets = [vec![1; DATAGRAM], vec![2; 60]];
        let batch: Vec<(SocketAddrV4, &[u8])> = packets.iter().map(|p| (address(&b), &p[..])).collect();
        Outbox::new(2).send(&a, &batch).unwrap();
        let mut got = Vec::new();
        let mut inbox = Inbox::of_heads();
        while got.len() < 2 {
            wait(&b, Duration::from_secs(10)).unwrap();
            inbox.drain(&b, |d| got.push(d.bytes.to_vec())).unwrap();
        }
        assert_eq!(got, [vec![1; HEAD], vec![2; 60]]);
    }

    #[test]
    fn segments_become_datagrams() {
        let (a, b) = (bind().unwrap(), bind().unwrap());
        segment(&a, 1000).unwrap();
        Outbox::new(1).send(&a, &[(address(&b), &[7; 2500])]).unwrap();
        let mut lengths = Vec::new();
        let mut inbox = Inbox::new();
        while lengths.len() < 3 {
            wait(&b, Duration::from_secs(10)).unwrap();
            inbox.drain(&b, |d| lengths.push(d.bytes.len())).unwrap();
        }
        assert_eq!(lengths, [1000, 1000, 500]);
    }
}
