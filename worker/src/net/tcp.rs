//! ICE-TCP, passive (RFC 6544): connections accepted on the media port's number.
//!
//! Owns accepting, framing (RFC 4571) and the limits. Invariants: a connection that sends anything but
//! STUN first, nothing for [`FIRST_FRAME`], or a frame larger than a datagram may be, is closed; a peer
//! that doesn't read loses packets, then its connection; connections are bounded.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::Route;
use crate::forward::drops::{Drop, DropCounters};

const FIRST_FRAME: Duration = Duration::from_secs(5);
/// A write that makes no progress for so long ends the connection.
const STALLED: Duration = Duration::from_secs(10);
const MAX_FRAME: usize = 2048;
const MAX_CONNECTIONS: usize = 4096;
/// Frames queued for one connection: about a second of video.
const QUEUE: usize = 512;
/// Frames of all connections waiting for the engine.
const INBOUND: usize = 1024;

/// What connections bring.
#[derive(Debug)]
pub(crate) enum TcpInput {
    Frame(Route, BytesMut),
    Closed(Route),
}

/// The listening side and all connections.
#[derive(Debug)]
pub(crate) struct TcpPort {
    listener: TcpListener,
    connections: HashMap<u64, mpsc::Sender<BytesMut>>,
    next: u64,
    inbound: mpsc::Receiver<TcpInput>,
    to_inbound: mpsc::Sender<TcpInput>,
}

impl TcpPort {
    /// Listens; needs a tokio context.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let (to_inbound, inbound) = mpsc::channel(INBOUND);
        Ok(TcpPort {
            listener: TcpListener::from_std(listener)?,
            connections: HashMap::new(),
            next: 0,
            inbound,
            to_inbound,
        })
    }

    /// Accepts until there is a frame or a connection ended. Cancel safe.
    pub(crate) async fn receive(&mut self) -> Option<TcpInput> {
        loop {
            tokio::select! {
                input = self.inbound.recv() => {
                    if let Some(TcpInput::Closed(Route::Tcp { connection, .. })) = &input {
                        self.connections.remove(connection);
                    }
                    return input;
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, remote)) => self.accept(stream, remote),
                    // Out of descriptors, most likely: give connections time to end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        }
    }

    /// A frame that is there already.
    pub(crate) fn try_receive(&mut self) -> Option<TcpInput> {
        let input = self.inbound.try_recv().ok();
        if let Some(TcpInput::Closed(Route::Tcp { connection, .. })) = &input {
            self.connections.remove(connection);
        }
        input
    }

    fn accept(&mut self, stream: TcpStream, remote: SocketAddr) {
        if self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        // Media must not wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        let connection = self.next;
        self.next += 1;
        let (sender, queue) = mpsc::channel(QUEUE);
        self.connections.insert(connection, sender);
        let route = Route::Tcp { connection, remote };
        let inbound = self.to_inbound.clone();
        tokio::spawn(async move {
            // How it ended says nothing that the engine could use.
            let _ = serve(&stream, route, &inbound, queue).await;
            let _ = inbound.send(TcpInput::Closed(route)).await;
        });
    }

    /// Queues a packet for a connection.
    pub(crate) fn send(&self, connection: u64, packet: BytesMut, drops: &DropCounters) {
        let queued = self
            .connections
            .get(&connection)
            .is_some_and(|c| c.try_send(packet).is_ok());
        if !queued {
            drops.count(Drop::SendFailed);
        }
    }
}

async fn serve(
    stream: &TcpStream,
    route: Route,
    inbound: &mpsc::Sender<TcpInput>,
    mut queue: mpsc::Receiver<BytesMut>,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(2 * MAX_FRAME);
    let mut proven = false;
    let deadline = tokio::time::Instant::now() + FIRST_FRAME;
    loop {
        tokio::select! {
            ready = stream.readable() => {
                ready?;
                let mut chunk = [0; 4096];
                match stream.try_read(&mut chunk) {
                    Ok(0) => return Ok(()),
                    Ok(len) => buffer.extend_from_slice(chunk.get(..len).unwrap_or_default()),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
                while let Some(frame) = next_frame(&mut buffer)? {
                    if !proven && frame.first().is_none_or(|b| *b > 3) {
                        return Ok(());
                    }
                    proven = true;
                    if inbound.send(TcpInput::Frame(route, frame)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            packet = queue.recv() => match packet {
                Some(packet) => write(stream, &packet).await?,
                None => return Ok(()),
            },
            () = tokio::time::sleep_until(deadline), if !proven => return Ok(()),
        }
    }
}

/// The next whole frame, RFC 4571 section 2.
pub(crate) fn next_frame(buffer: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    let [hi, lo, rest @ ..] = &buffer[..] else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([*hi, *lo]));
    if len > MAX_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if rest.len() < len {
        return Ok(None);
    }
    let _ = buffer.split_to(2);
    Ok(Some(buffer.split_to(len)))
}

async fn write(stream: &TcpStream, packet: &[u8]) -> io::Result<()> {
    let Ok(len) = u16::try_from(packet.len()) else {
        return Ok(());
    };
    let mut frame = Vec::with_capacity(packet.len() + 2);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(packet);
    let mut rest = &frame[..];
    while !rest.is_empty() {
        let ready = tokio::time::timeout(STALLED, stream.writable()).await;
        ready.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match stream.try_write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_where_they_end() {
        let mut b = BytesMut::from(&[0, 3, 1, 2, 3, 0, 0, 0, 2, 9][..]);
        assert_eq!(next_frame(&mut b).unwrap().unwrap(), &[1, 2, 3][..]);
        assert_eq!(next_frame(&mut b).unwrap().unwrap(), &[][..]);
        assert!(next_frame(&mut b).unwrap().is_none());
        b.extend_from_slice(&[8, 0xFF]);
        assert_eq!(next_frame(&mut b).unwrap().unwrap(), &[9, 8][..]);
        b.extend_from_slice(&[0xFF, 0xFF]);
        assert!(next_frame(&mut b).is_err());
    }
}
