//! The relay between one client's WebSocket and one worker's session.
//!
//! Messages pass as bytes, numbered; the only ones looked into are Leave (the client means it; the
//! worker said it) and RoomMoved (which needs a token that only this side can sign). Invariants: a
//! client that leaves or is sent elsewhere is hung up for good, one whose socket merely broke may
//! resume; the tokens it is given are for the room it is in; no close without a Leave that says what
//! to do, since a stock client takes a bare close for an accident and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use livekit_protocol as proto;
use plenum_errors::Code;
use plenum_token::Claims;
use plenum_worker_api::v1::{ClientFrame, Closed, Hangup, WorkerFrame, client_frame, worker_frame};
use prost::Message as _;
use proto::leave_request::Action;
use proto::signal_response::Message as Response;

use crate::admit::unix_now;
use crate::rate::Bucket;
use crate::{Direction, JoinConfig, MAX_MESSAGE_BYTES, Order, Rooms, Session};

/// A client that takes no message for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A worker that takes no message for this long is lost.
const WORKER_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that go out together, if so many wait; then the client is listened to again.
const AT_ONCE: usize = 64;
/// How long a client has to read why its socket closes.
const DRAIN: Duration = Duration::from_secs(1);
/// The Start frame, which the implementation of `Rooms` sends, is number 1.
const FIRST_REQUEST_SEQ: u64 = 2;

// Encoded field keys, (number << 3) | 2: enough to know a message without decoding it.
const LEAVE_KEY: &[u8] = &[0x42];
const ROOM_MOVED_KEY: &[u8] = &[0xc2, 0x01];

/// Is this encoded SignalRequest or SignalResponse a Leave? (The field's number is 8 in both.)
pub fn is_leave(bytes: &[u8]) -> bool {
    bytes.starts_with(LEAVE_KEY)
}

/// Is this encoded SignalResponse a RoomMoved?
pub fn is_room_moved(bytes: &[u8]) -> bool {
    bytes.starts_with(ROOM_MOVED_KEY)
}

pub(crate) struct Relay<R> {
    pub(crate) rooms: Arc<R>,
    pub(crate) config: JoinConfig,
    pub(crate) claims: Claims,
    pub(crate) dual: bool,
}

/// Why the relay ended.
enum End {
    /// The client said Leave, or the worker closed the session.
    Over(Closed),
    /// The client's socket broke or fell silent.
    ClientGone,
    /// The worker's stream ended without a word.
    WorkerLost,
    /// The client was sent to another room.
    Elsewhere,
    /// The client broke a rule.
    Broke(Code, u16),
    /// This process shuts down.
    Shutdown,
}

/// Relays until either side ends it.
pub(crate) async fn run<R: Rooms>(
    mut relay: Relay<R>,
    socket: WebSocket,
    session: Session,
    first: Vec<WorkerFrame>,
) {
    relay.config.observer.connected(1);
    let (sink, mut stream) = socket.split();
    let mut client = Client { sink, left: false };
    let to_worker = session.to_worker.clone();
    relay.claims.video.room.clone_from(&session.room);
    let mut seq = FIRST_REQUEST_SEQ;
    let end = relay
        .pump(&mut client, &mut stream, session, first, &mut seq)
        .await;

    let hangup = match &end {
        End::Over(_) | End::Elsewhere | End::Broke(..) => Some(false),
        End::ClientGone | End::Shutdown => Some(true),
        End::WorkerLost => None,
    };
    if let Some(may_resume) = hangup {
        let frame = ClientFrame {
            seq,
            frame: Some(client_frame::Frame::Hangup(Hangup { may_resume })),
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), to_worker.send(frame)).await;
    }
    drop(to_worker);
    client.finish(&end, relay.dual).await;
    if !matches!(end, End::ClientGone) {
        // A socket closed with unread data in it is reset, and the reset overtakes the reason.
        let drain = async { while let Some(Ok(_)) = stream.next().await {} };
        let _ = tokio::time::timeout(DRAIN, drain).await;
    }
    relay.config.observer.connected(-1);
}

impl<R: Rooms> Relay<R> {
    async fn pump(
        &mut self,
        client: &mut Client,
        stream: &mut SplitStream<WebSocket>,
        mut session: Session,
        first: Vec<WorkerFrame>,
        seq: &mut u64,
    ) -> End {
        let mut greeted = false;
        for frame in first {
            if let Err(end) = self.down(client, frame, &mut greeted).await {
                return end;
            }
        }
        if client.flush().await.is_err() {
            return End::ClientGone;
        }
        let mut bucket = Bucket::new(
            self.config.messages_per_second,
            self.config.message_burst,
            Instant::now(),
        );
        let mut refresh = tokio::time::interval(self.config.refresh_every.max(Duration::from_secs(1)));
        refresh.reset();
        let idle = self.config.idle_timeout;
        let mut keepalive = tokio::time::interval((idle / 3).max(Duration::from_millis(100)));
        let mut heard = Instant::now();
        let mut shutdown = self.config.shutdown.clone();

        loop {
            tokio::select! {
                Some(order) = session.orders.recv() => {
                    return self.obey(order, client, &mut session, &mut greeted).await;
                }
                frame = session.from_worker.recv() => {
                    let Some(frame) = frame else {
                        // The last word may be an order.
                        return match session.orders.try_recv() {
                            Ok(order) => self.obey(order, client, &mut session, &mut greeted).await,
                            Err(_) => End::WorkerLost,
                        };
                    };
                    if let Err(end) = self.down(client, frame, &mut greeted).await { return end }
                    // What is there already goes out with it.
                    for _ in 1..AT_ONCE {
                        let Ok(frame) = session.from_worker.try_recv() else { break };
                        if let Err(end) = self.down(client, frame, &mut greeted).await { return end }
                    }
                    if client.flush().await.is_err() {
                        return End::ClientGone;
                    }
                }
                message = stream.next() => {
                    heard = Instant::now();
                    match self.up(message, &session, &mut bucket, seq).await {
                        Ok(()) => {}
                        Err(end) => return end,
                    }
                }
                _ = refresh.tick(), if greeted => {
                    if let Err(end) = self.refresh(client).await { return end }
                    if client.flush().await.is_err() {
                        return End::ClientGone;
                    }
                }
                _ = keepalive.tick() => {
                    if heard.elapsed() > idle {
                        return End::ClientGone;
                    }
                    if client.send(Message::Ping(Bytes::new())).await.is_err() {
                        return End::ClientGone;
                    }
                }
                () = shutting_down(&mut shutdown) => return End::Shutdown,
            }
        }
    }

    /// One message of the client.
    async fn up(
        &self,
        message: Option<Result<Message, axum::Error>>,
        session: &Session,
        bucket: &mut Bucket,
        seq: &mut u64,
    ) -> Result<(), End> {
        let bytes = match message {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                return if bucket.take(Instant::now()) {
                    Ok(())
                } else {
                    Err(End::Broke(Code::RateLimited, 1008))
                };
            }
            // The JSON form of the protocol was for debugging; no current client speaks it.
            Some(Ok(Message::Text(_))) => return Err(End::Broke(Code::RequestMalformed, 1003)),
            Some(Ok(Message::Close(_))) | None => return Err(End::ClientGone),
            Some(Err(_)) => return Err(End::ClientGone),
        };
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(End::Broke(Code::MessageTooLarge, 1009));
        }
        if !bucket.take(Instant::now()) {
            return Err(End::Broke(Code::RateLimited, 1008));
        }
        self.config.observer.message(Direction::Up, bytes.len());
        let leaves = is_leave(&bytes);
        let frame = ClientFrame {
            seq: *seq,
            frame: Some(client_frame::Frame::Request(bytes.into())),
        };
        *seq += 1;
        match tokio::time::timeout(WORKER_TIMEOUT, session.to_worker.send(frame)).await {
            Ok(Ok(())) if leaves => Err(End::Over(Closed::default())),
            Ok(Ok(())) => Ok(()),
            // The worker's last words, a Closed frame, may still be on their way to `down`.
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(End::WorkerLost),
        }
    }

    /// One frame of the worker; goes out with the next flush.
    async fn down(&mut self, client: &mut Client, frame: WorkerFrame, greeted: &mut bool) -> Result<(), End> {
        let bytes = match frame.frame {
            Some(worker_frame::Frame::Response(bytes)) => bytes,
            Some(worker_frame::Frame::Closed(closed)) => return Err(End::Over(closed)),
            // Not for the client: the gateway's own business, or a kind that this version does not know.
            Some(
                worker_frame::Frame::Moved(_)
                | worker_frame::Frame::Relocated(_)
                | worker_frame::Frame::Said(_)
                | worker_frame::Frame::HandedOver(_),
            )
            | None => return Ok(()),
        };
        let bytes = if is_room_moved(&bytes) {
            self.moved(bytes).await
        } else {
            bytes
        };
        self.config.observer.message(Direction::Down, bytes.len());
        client.left |= is_leave(&bytes);
        client
            .feed(Message::Binary(bytes.into()))
            .await
            .map_err(|()| End::ClientGone)?;
        if !*greeted && !client.left {
            *greeted = true;
            // At once, for tokens that were made to last just for the join.
            self.refresh(client).await?;
        }
        Ok(())
    }

    /// What the session asks for, after the frames that came before.
    async fn obey(
        &mut self,
        order: Order,
        client: &mut Client,
        session: &mut Session,
        greeted: &mut bool,
    ) -> End {
        while let Ok(frame) = session.from_worker.try_recv() {
            if let Err(end) = self.down(client, frame, greeted).await {
                return end;
            }
        }
        let (room, may_resume) = match order {
            Order::Close(closed) => return End::Over(closed),
            Order::Elsewhere { room, may_resume } => (room, may_resume),
        };
        self.claims.video.room = room;
        if let Err(end) = self.refresh(client).await {
            return end;
        }
        let action = if may_resume && !self.dual {
            Action::Resume
        } else {
            Action::Reconnect
        };
        let leave = leave_for(action, proto::DisconnectReason::Migration);
        client.left = true;
        match client.respond(Response::Leave(leave)).await {
            Ok(()) => End::Elsewhere,
            Err(()) => End::ClientGone,
        }
    }

    /// A RoomMoved with the token that the client will reconnect with. Workers hold no key.
    async fn moved(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Ok(mut response) = proto::SignalResponse::decode(bytes.as_slice()) else {
            return bytes;
        };
        let Some(Response::RoomMoved(moved)) = &mut response.message else {
            return bytes;
        };
        if let Some(room) = &moved.room {
            self.claims.video.room.clone_from(&room.name);
        }
        if moved.token.is_empty()
            && let Some(token) = self.fresh_token().await
        {
            moved.token = token;
        }
        response.encode_to_vec()
    }

    /// A fresh token; goes out with the next flush.
    async fn refresh(&mut self, client: &mut Client) -> Result<(), End> {
        // A key that is gone is not replaced: the session lives, a reconnect will be told.
        let Some(token) = self.fresh_token().await else {
            return Ok(());
        };
        client
            .feed(encoded(Response::RefreshToken(token)))
            .await
            .map_err(|()| End::ClientGone)
    }

    async fn fresh_token(&mut self) -> Option<String> {
        let secret = self
            .rooms
            .api_secret(&self.claims.iss, &self.claims.video.room)
            .await?;
        self.claims = self
            .claims
            .refreshed(unix_now(), self.config.refresh_ttl.as_secs());
        plenum_token::sign(&self.claims, &self.claims.iss, &secret).ok()
    }
}

pub(crate) async fn shutting_down(shutdown: &mut Option<tokio::sync::watch::Receiver<bool>>) {
    if let Some(receiver) = shutdown
        && receiver.wait_for(|down| *down).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// A client that takes nothing for that long is gone.
async fn in_time<E>(write: impl Future<Output = Result<(), E>>) -> Result<(), ()> {
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(()),
    }
}

fn encoded(message: Response) -> Message {
    let bytes = proto::SignalResponse {
        message: Some(message),
    }
    .encode_to_vec();
    Message::Binary(bytes.into())
}

/// The socket's sending half.
struct Client {
    sink: SplitSink<WebSocket, Message>,
    /// A Leave went out: the client knows what to do.
    left: bool,
}

impl Client {
    async fn send(&mut self, message: Message) -> Result<(), ()> {
        in_time(self.sink.send(message)).await
    }

    /// The same, but that it goes out with what comes next, in one system call.
    async fn feed(&mut self, message: Message) -> Result<(), ()> {
        in_time(self.sink.feed(message)).await
    }

    async fn flush(&mut self) -> Result<(), ()> {
        in_time(self.sink.flush()).await
    }

    async fn respond(&mut self, message: Response) -> Result<(), ()> {
        self.send(encoded(message)).await
    }

    /// Says what to do, then closes.
    async fn finish(&mut self, end: &End, dual: bool) {
        let (leave, code, reason) = match end {
            End::ClientGone => return,
            End::Over(closed) => closing(closed, dual),
            // Told already, see `obey`.
            End::Elsewhere => (
                leave_for(Action::Reconnect, proto::DisconnectReason::Migration),
                1012,
                "moved".to_owned(),
            ),
            End::WorkerLost => (lost(dual), 1012, Code::WorkerUnreachable.as_str().to_owned()),
            End::Broke(code, ws) => (leave(Action::Disconnect, *code), *ws, code.as_str().to_owned()),
            // Only this socket goes: the session waits at the worker, whatever the version.
            End::Shutdown => (
                leave(Action::Resume, Code::WorkerUnreachable),
                1012,
                "restarting".to_owned(),
            ),
        };
        if !self.left && self.respond(Response::Leave(leave)).await.is_err() {
            return;
        }
        let close = CloseFrame {
            code,
            reason: reason.into(),
        };
        let _ = self.send(Message::Close(Some(close))).await;
    }
}

/// Leave, close code and close reason for a session that the worker closed. Close codes of refusals
/// are 4000 plus the HTTP status of the catalogue.
fn closing(closed: &Closed, dual: bool) -> (proto::LeaveRequest, u16, String) {
    if closed.code.is_empty() {
        return (
            leave_for(Action::Disconnect, proto::DisconnectReason::ClientInitiated),
            1000,
            String::new(),
        );
    }
    let code = Code::parse(&closed.code).unwrap_or(Code::Internal);
    let leave = match code {
        Code::EpochStale | Code::WorkerUnreachable => lost(dual),
        // "Participant not found" is what a worker says to a resume that it knows nothing of.
        // A breakout room that closed: whoever starts anew lands in the main room.
        Code::WorkerDraining
        | Code::RoomNotFound
        | Code::RoomClosed
        | Code::MeetingNotReady
        | Code::ParticipantNotFound => leave(Action::Reconnect, code),
        _ => leave(Action::Disconnect, code),
    };
    (leave, 4000 + code.http_status(), code.as_str().to_owned())
}

/// What to do when the worker is lost: with one peer connection another worker can take it over;
/// with two the client starts anew.
fn lost(dual: bool) -> proto::LeaveRequest {
    leave(
        if dual { Action::Reconnect } else { Action::Resume },
        Code::WorkerUnreachable,
    )
}

fn leave(action: Action, code: Code) -> proto::LeaveRequest {
    use proto::DisconnectReason as Reason;
    let reason = match code {
        Code::DuplicateIdentity => Reason::DuplicateIdentity,
        Code::ParticipantRemoved | Code::TokenRevoked => Reason::ParticipantRemoved,
        Code::MeetingEnded | Code::MeetingNotFound => Reason::RoomDeleted,
        Code::RoomNotFound | Code::RoomClosed => Reason::RoomClosed,
        Code::ConnectionTimeout => Reason::ConnectionTimeout,
        Code::EpochStale => Reason::Migration,
        Code::ParticipantNotFound => Reason::StateMismatch,
        Code::WorkerDraining | Code::WorkerUnreachable => Reason::ServerShutdown,
        Code::SdpInvalid => Reason::MediaFailure,
        _ => Reason::UnknownReason,
    };
    leave_for(action, reason)
}

fn leave_for(action: Action, reason: proto::DisconnectReason) -> proto::LeaveRequest {
    proto::LeaveRequest {
        // For clients from before `action`.
        can_reconnect: action != Action::Disconnect,
        reason: reason as i32,
        action: action as i32,
        regions: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_those_of_the_messages() {
        let leave = proto::SignalResponse {
            message: Some(Response::Leave(Default::default())),
        };
        assert!(is_leave(&leave.encode_to_vec()));
        let request = proto::SignalRequest {
            message: Some(proto::signal_request::Message::Leave(Default::default())),
        };
        assert!(is_leave(&request.encode_to_vec()));
        let moved = proto::SignalResponse {
            message: Some(Response::RoomMoved(Default::default())),
        };
        assert!(moved.encode_to_vec().starts_with(ROOM_MOVED_KEY));
    }
}
