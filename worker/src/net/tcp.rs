//! ICE-TCP, passive (RFC 6544): connections accepted on the media port's number.
//!
//! Owns accepting, framing (RFC 4571) and the limits. A connection is accepted in one place ([`accept`])
//! and, once its first frame has told whom it is for, served in another ([`TcpPort`]). Invariants: a
//! connection that sends anything but STUN first, nothing for [`FIRST_FRAME`], or a frame larger than a
//! datagram may be, is closed; a peer that doesn't read loses packets, then its connection; connections
//! are bounded.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

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

/// A connection that has begun as it must.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Of no runtime, so that it can be served on any.
    stream: std::net::TcpStream,
    remote: SocketAddr,
    /// What came, from the first frame's length on.
    begun: BytesMut,
    place: OwnedSemaphorePermit,
}

impl Accepted {
    /// The first frame.
    pub(crate) fn first(&self) -> &[u8] {
        frame(&self.begun).ok().flatten().unwrap_or_default()
    }
}

/// The listening side; needs a tokio context.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Accepts for as long as it runs, and hands on who begins as it must.
pub(crate) async fn accept(listener: TcpListener, each: Arc<dyn Fn(Accepted) + Send + Sync>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, remote)) = listener.accept().await else {
            // Out of descriptors, most likely: give connections time to end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        // Media must not wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        let each = Arc::clone(&each);
        tokio::spawn(async move {
            let begun = tokio::time::timeout(FIRST_FRAME, begin(&stream)).await;
            if let Ok(Ok(begun)) = begun
                && let Ok(stream) = stream.into_std()
            {
                each(Accepted {
                    stream,
                    remote,
                    begun,
                    place,
                });
            }
        });
    }
}

/// Reads until the first frame is whole.
async fn begin(stream: &TcpStream) -> io::Result<BytesMut> {
    let mut buffer = BytesMut::with_capacity(2 * MAX_FRAME);
    loop {
        if let Some(frame) = frame(&buffer)? {
            return match frame.first() {
                Some(0..=3) => Ok(buffer),
                _ => Err(io::ErrorKind::InvalidData.into()),
            };
        }
        read(stream, &mut buffer).await?;
    }
}

/// Waits for bytes and takes some.
async fn read(stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<()> {
    stream.readable().await?;
    let mut chunk = [0; 4096];
    match stream.try_read(&mut chunk) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(len) => {
            buffer.extend_from_slice(chunk.get(..len).unwrap_or_default());
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(e) => Err(e),
    }
}

/// The connections of one engine.
#[derive(Debug)]
pub(crate) struct TcpPort {
    connections: HashMap<u64, mpsc::Sender<BytesMut>>,
    next: u64,
    inbound: mpsc::Receiver<TcpInput>,
    to_inbound: mpsc::Sender<TcpInput>,
}

impl TcpPort {
    pub(crate) fn new() -> Self {
        let (to_inbound, inbound) = mpsc::channel(INBOUND);
        TcpPort {
            connections: HashMap::new(),
            next: 0,
            inbound,
            to_inbound,
        }
    }

    /// Waits for a frame or the end of a connection. Cancel safe.
    pub(crate) async fn receive(&mut self) -> Option<TcpInput> {
        let input = self.inbound.recv().await;
        self.note(input)
    }

    /// A frame that is there already.
    pub(crate) fn try_receive(&mut self) -> Option<TcpInput> {
        let input = self.inbound.try_recv().ok();
        self.note(input)
    }

    fn note(&mut self, input: Option<TcpInput>) -> Option<TcpInput> {
        if let Some(TcpInput::Closed(Route::Tcp { connection, .. })) = &input {
            self.connections.remove(connection);
        }
        input
    }

    /// Serves a connection from now on; needs a tokio context.
    pub(crate) fn take(&mut self, accepted: Accepted) {
        let Ok(stream) = TcpStream::from_std(accepted.stream) else {
            return;
        };
        let connection = self.next;
        self.next += 1;
        let (sender, queue) = mpsc::channel(QUEUE);
        self.connections.insert(connection, sender);
        let route = Route::Tcp {
            connection,
            remote: accepted.remote,
        };
        let inbound = self.to_inbound.clone();
        let place = accepted.place;
        tokio::spawn(async move {
            // How it ended says nothing that the engine could use.
            let _ = serve(&stream, accepted.begun, route, &inbound, queue).await;
            let _ = inbound.send(TcpInput::Closed(route)).await;
            drop(place);
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
    mut buffer: BytesMut,
    route: Route,
    inbound: &mpsc::Sender<TcpInput>,
    mut queue: mpsc::Receiver<BytesMut>,
) -> io::Result<()> {
    loop {
        while let Some(frame) = next_frame(&mut buffer)? {
            if inbound.send(TcpInput::Frame(route, frame)).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            done = read(stream, &mut buffer) => done?,
            packet = queue.recv() => match packet {
                Some(packet) => write(stream, &packet).await?,
                None => return Ok(()),
            },
        }
    }
}

/// The frame that the buffer begins with, if it is whole: RFC 4571 section 2.
fn frame(buffer: &[u8]) -> io::Result<Option<&[u8]>> {
    let [hi, lo, rest @ ..] = buffer else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([*hi, *lo]));
    if len > MAX_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(rest.get(..len))
}

/// Takes the frame that the buffer begins with.
pub(crate) fn next_frame(buffer: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    let Some(len) = frame(buffer)?.map(<[u8]>::len) else {
        return Ok(None);
    };
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
