//! Many datagrams per system call (recvmmsg, sendmmsg), many segments per datagram (UDP_SEGMENT).
//!
//! Owns the memory that those calls read and write, and every `unsafe` block of the worker. Invariants:
//! the pointers in [`Inbox`] lead into buffers that it owns and never resizes; a header given to the kernel
//! leads only to memory that outlives the call; nothing here blocks.

#![allow(
    unsafe_code,
    reason = "there is no safe interface to these calls in what the workspace has"
)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::steering::Instruction;

/// Datagrams per receiving call.
pub(super) const INBOX: usize = 64;
/// Messages per sending call.
pub(super) const OUTBOX: usize = 64;
/// Larger than any datagram that fits a path of ours.
const DATAGRAM: usize = 2048;

/// Of a segmented send: its device can't.
pub(super) const EIO: i32 = libc::EIO;

/// Room for one `UDP_SEGMENT` control message, aligned as `cmsghdr` must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 32]);

/// Buffers that the kernel receives into.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    /// Held for the pointers in `headers`.
    #[expect(dead_code, reason = "read by the kernel")]
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers inside lead into the vectors beside them, whose contents don't move with the struct,
// and nobody else has them.
unsafe impl Send for Inbox {}

fn zeroed_name() -> libc::sockaddr_storage {
    // SAFETY: plain integers, for which all zeros is a value (AF_UNSPEC).
    unsafe { mem::zeroed() }
}

fn zeroed_header() -> libc::mmsghdr {
    // SAFETY: integers and pointers, for which zero is a value; null pointers with zero lengths.
    unsafe { mem::zeroed() }
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        let mut bytes = vec![0_u8; INBOX * DATAGRAM];
        let mut names = vec![zeroed_name(); INBOX];
        let mut slices: Vec<libc::iovec> = bytes
            .chunks_exact_mut(DATAGRAM)
            .map(|chunk| libc::iovec {
                iov_base: chunk.as_mut_ptr().cast(),
                iov_len: DATAGRAM,
            })
            .collect();
        let headers = slices
            .iter_mut()
            .zip(names.iter_mut())
            .map(|(slice, name)| {
                let mut header = zeroed_header();
                header.msg_hdr.msg_iov = slice;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
                header
            })
            .collect();
        Inbox {
            bytes,
            names,
            slices,
            headers,
        }
    }

    /// Takes what is there, at most [`INBOX`] datagrams.
    pub(super) fn fill(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        socket.try_io(Interest::READABLE, || self.receive(socket))
    }

    fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = size(&zeroed_name());
        }
        // SAFETY: the headers lead into the vectors of this struct, with their true lengths, and live longer
        // than the call; there are as many as is said.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                INBOX as u32,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Hands the first `count` datagrams to `each`.
    pub(super) fn each(&mut self, count: usize, mut each: impl FnMut(SocketAddr, &mut [u8])) {
        let names = self.names.iter().zip(&self.headers);
        for (chunk, (name, header)) in self.bytes.chunks_exact_mut(DATAGRAM).zip(names).take(count) {
            let cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            if let (Some(from), Some(packet), false) =
                (address(name), chunk.get_mut(..header.msg_len as usize), cut)
            {
                each(from, packet);
            }
        }
    }
}

fn size<T>(_: &T) -> libc::socklen_t {
    mem::size_of::<T>() as libc::socklen_t
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote a `sockaddr_in`, as the family says; the storage is larger than that
            // and aligned for every kind of address.
            let a = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(a.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for `sockaddr_in6`.
            let a = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
            // A flow label says nothing about who it is.
            Some(SocketAddrV6::new(ip, u16::from_be(a.sin6_port), 0, a.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Writes `to` into `name`; the length of it.
fn write_address(name: &mut libc::sockaddr_storage, to: SocketAddr) -> libc::socklen_t {
    match to {
        SocketAddr::V4(a) => {
            // SAFETY: the storage is larger than a `sockaddr_in` and aligned for every kind of address;
            // every bit pattern is a value of it.
            let out = unsafe { &mut *std::ptr::from_mut(name).cast::<libc::sockaddr_in>() };
            out.sin_family = libc::AF_INET as libc::sa_family_t;
            out.sin_port = a.port().to_be();
            out.sin_addr.s_addr = u32::from(*a.ip()).to_be();
            size(out)
        }
        SocketAddr::V6(a) => {
            // SAFETY: as above, for `sockaddr_in6`.
            let out = unsafe { &mut *std::ptr::from_mut(name).cast::<libc::sockaddr_in6>() };
            out.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            out.sin6_port = a.port().to_be();
            out.sin6_addr.s6_addr = a.ip().octets();
            out.sin6_flowinfo = a.flowinfo();
            out.sin6_scope_id = a.scope_id();
            size(out)
        }
    }
}

/// One message of a send: bytes that the kernel cuts into datagrams of `segment` bytes each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) to: SocketAddr,
    pub(super) bytes: &'a [u8],
    pub(super) segment: usize,
}

/// Headers for the kernel to send from.
pub(super) struct Outbox {
    names: Vec<libc::sockaddr_storage>,
    slices: Vec<libc::iovec>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers inside are written anew before each call, from what the caller holds and the vectors
// beside them; nobody else has them.
unsafe impl Send for Outbox {}

impl Outbox {
    pub(super) fn new() -> Outbox {
        let empty = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        Outbox {
            names: vec![zeroed_name(); OUTBOX],
            slices: vec![empty; OUTBOX],
            controls: vec![Control([0; 32]); OUTBOX],
            headers: vec![zeroed_header(); OUTBOX],
        }
    }

    /// Sends at most [`OUTBOX`] messages; how many the kernel took. An error is of the first.
    pub(super) fn send(&mut self, socket: &UdpSocket, messages: &[Message<'_>]) -> io::Result<usize> {
        let parts = self
            .headers
            .iter_mut()
            .zip(&mut self.names)
            .zip(&mut self.slices)
            .zip(&mut self.controls);
        let mut count = 0;
        for ((((header, name), slice), control), message) in parts.zip(messages) {
            let head = &mut header.msg_hdr;
            head.msg_namelen = write_address(name, message.to);
            head.msg_name = std::ptr::from_mut(name).cast();
            // Never written to: the call takes messages of both directions in one type.
            slice.iov_base = message.bytes.as_ptr().cast_mut().cast();
            slice.iov_len = message.bytes.len();
            head.msg_iov = slice;
            head.msg_iovlen = 1;
            if message.bytes.len() > message.segment {
                let len = segment_message(control, message.segment as u16);
                head.msg_control = std::ptr::from_mut(control).cast();
                head.msg_controllen = len as _;
            } else {
                head.msg_control = std::ptr::null_mut();
                head.msg_controllen = 0;
            }
            count += 1;
        }
        // SAFETY: each of the first `count` headers leads to an address, a slice and a control message of
        // this struct, and through the slice to bytes that the caller lends until the call returns.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Writes a control message that asks for segments of so many bytes; its length.
fn segment_message(control: &mut Control, bytes: u16) -> usize {
    let payload = mem::size_of::<u16>() as u32;
    // SAFETY: arithmetic on a length.
    let (space, len) = unsafe { (libc::CMSG_SPACE(payload), libc::CMSG_LEN(payload)) };
    // SAFETY: all zeros is a value of its integers.
    let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
    header.cmsg_len = len as _;
    header.cmsg_level = libc::SOL_UDP;
    header.cmsg_type = libc::UDP_SEGMENT;
    let at: *mut Control = control;
    // SAFETY: `Control` is aligned for a `cmsghdr` and longer than CMSG_SPACE of two bytes on every Linux
    // target (24 at most); the two bytes lie right after the header, at its own alignment.
    unsafe {
        at.cast::<libc::cmsghdr>().write(header);
        libc::CMSG_DATA(at.cast()).cast::<u16>().write_unaligned(bytes);
    }
    space as usize
}

/// Whether the kernel knows segmented sends (Linux 4.18).
pub(super) fn segments(socket: &UdpSocket) -> bool {
    let none: libc::c_int = 0;
    // SAFETY: the option is an int, and this one lives longer than the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            std::ptr::from_ref(&none).cast(),
            size(&none),
        )
    };
    done == 0
}

/// Asks `program` from now on which of the sockets on one port a datagram is for.
pub(super) fn attach_steering(socket: &std::net::UdpSocket, program: &[Instruction]) -> io::Result<()> {
    let mut filters: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter {
            code: i.code,
            jt: i.yes,
            jf: i.no,
            k: i.value,
        })
        .collect();
    let whole = libc::sock_fprog {
        len: u16::try_from(filters.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: filters.as_mut_ptr(),
    };
    // SAFETY: the option is a `sock_fprog`, whose pointer leads to as many instructions as it says; the
    // kernel copies and checks them before the call returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&whole).cast(),
            size(&whole),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back() {
        let all: [SocketAddr; 3] = [
            "192.0.2.1:7".parse().unwrap(),
            "[2001:db8::1]:65535".parse().unwrap(),
            "[::ffff:192.0.2.1]:7".parse().unwrap(),
        ];
        let mut name = zeroed_name();
        for a in all {
            let len = write_address(&mut name, a);
            assert!(len > 0);
            assert_eq!(address(&name), Some(a));
        }
        assert_eq!(address(&zeroed_name()), None);
    }
}
