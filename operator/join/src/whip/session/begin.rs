//! How a session begins: with an offer, or where another front door's session is asked for here.
//!
//! Invariants: whatever goes wrong, and whoever stops waiting, nobody stays behind in the room; a session
//! that can't be found is told from one that can't be reached.

use std::sync::Arc;
use std::time::Instant;

use livekit_protocol as proto;
use plenum_errors::{Code, PublicError};
use plenum_worker_api::v1::{Start, worker_frame};
use prost::Message as _;
use proto::request_response::Reason;
use proto::signal_response::Message as Response;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{ANSWER, Ask, FIRST_REQUEST_SEQ, OFFER_ID, Speaker, decoded, etag_of};
use crate::admit::{Front, unix_now};
use crate::rate::Bucket;
use crate::whip::Protocol;
use crate::whip::choice::Choice;
use crate::whip::id::Owner;
use crate::whip::offer::{Offer, seats_of, takes_any};
use crate::{JoinConfig, Order, Rooms};

/// What a POST made.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) name: String,
    pub(crate) etag: String,
    pub(crate) answer: String,
    pub(crate) ice_servers: Vec<proto::IceServer>,
}

/// A session that begins.
pub(crate) struct Beginning {
    pub(crate) protocol: Protocol,
    pub(crate) start: Start,
    pub(crate) offer: Offer,
    /// Show nobody but this participant.
    pub(crate) only: Option<String>,
    pub(crate) api_key: String,
    pub(crate) issued_at: Option<u64>,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What a session says first.
#[derive(Default)]
struct Greeting {
    join: Option<proto::JoinResponse>,
    back: bool,
    others: Vec<proto::ParticipantInfo>,
    answer: Option<String>,
}

/// Enters the room and keeps the session; who asked for it hears how it went. Where nobody listens any
/// more, the client has gone, and the session with it.
pub(crate) async fn begin<R: Rooms>(
    front: Arc<Front<R>>,
    beginning: Beginning,
    reply: oneshot::Sender<Result<Created, PublicError>>,
) {
    match Speaker::enter(front, beginning).await {
        Err(error) => {
            let _ = reply.send(Err(error));
        }
        Ok((mut speaker, created)) => {
            let name = created.name.clone();
            let (asks, asked) = mpsc::channel(8);
            speaker.front.sessions_by_name.insert(&name, asks);
            if let Err(Ok(_)) = reply.send(Ok(created)) {
                speaker.front.sessions_by_name.remove(&name);
                return speaker.hang_up(false).await;
            }
            speaker.run(name, asked).await;
        }
    }
}

/// Goes on with a session that another gateway began. Every request that comes before it is known whether
/// there is one hears the same.
pub(crate) async fn take_over<R: Rooms>(
    front: Arc<Front<R>>,
    owner: Owner,
    name: String,
    mut asked: mpsc::Receiver<Ask>,
) {
    match Speaker::resume(front.clone(), owner).await {
        Ok(speaker) => speaker.run(name, asked).await,
        Err(error) => {
            front.sessions_by_name.remove(&name);
            asked.close();
            while let Some(ask) = asked.recv().await {
                ask.refuse(error.clone());
            }
        }
    }
}

/// As for the messages of clients with a socket.
fn bucket(config: &JoinConfig) -> Bucket {
    Bucket::new(config.messages_per_second, config.message_burst, Instant::now())
}

fn no_answer() -> PublicError {
    PublicError::new(Code::WorkerUnreachable, "it does not answer")
}

impl<R: Rooms> Speaker<R> {
    async fn enter(front: Arc<Front<R>>, beginning: Beginning) -> Result<(Speaker<R>, Created), PublicError> {
        let Beginning {
            protocol,
            start,
            offer,
            only,
            api_key,
            issued_at,
            permit,
        } = beginning;
        let identity = start.identity.clone();
        front.rooms.check(&start).await?;
        let session = front.rooms.enter(start).await?;
        let bucket = bucket(&front.config);
        let mut speaker = Speaker {
            front,
            protocol,
            session,
            seq: FIRST_REQUEST_SEQ,
            identity,
            participant_sid: String::new(),
            remote_ufrag: Some(offer.ufrag),
            etag: String::new(),
            choice: (protocol == Protocol::Whep).then(|| Choice::new(offer.seats, only.clone())),
            last_offer: OFFER_ID,
            restart: None,
            bucket,
            _permit: permit,
        };
        match speaker.greeted(api_key, issued_at, only).await {
            Ok(created) => Ok((speaker, created)),
            Err(error) => {
                speaker.hang_up(false).await;
                Err(error)
            }
        }
    }

    async fn greeted(
        &mut self,
        api_key: String,
        issued_at: Option<u64>,
        only: Option<String>,
    ) -> Result<Created, PublicError> {
        let greeting = self.greeting(OFFER_ID).await?;
        let (Some(join), Some(answer)) = (greeting.join, greeting.answer) else {
            return Err(PublicError::new(Code::Internal, "an answer without a welcome"));
        };
        if !takes_any(&answer) {
            return Err(Code::CodecNotAllowed.into());
        }
        self.participant_sid = join.participant.unwrap_or_default().sid;
        self.etag = etag_of(&answer)?;
        let room = self.session.room.clone();
        let secret = self.front.rooms.api_secret(&api_key, &room).await;
        let secret = secret.ok_or_else(|| PublicError::from(Code::TokenUnknownKey))?;
        let owner = Owner {
            protocol: self.protocol,
            api_key,
            room,
            identity: self.identity.clone(),
            participant_sid: self.participant_sid.clone(),
            issued_at,
            only,
        };
        let name = owner.sign(&secret, unix_now())?;
        if let Some(choice) = &mut self.choice {
            choice.update(&join.other_participants);
            choice.update(&greeting.others);
        }
        self.show().await;
        Ok(Created {
            name,
            etag: self.etag.clone(),
            answer,
            ice_servers: join.ice_servers,
        })
    }

    async fn resume(front: Arc<Front<R>>, owner: Owner) -> Result<Speaker<R>, PublicError> {
        let permit = front.permit()?;
        let protocol = owner.protocol;
        let start = owner.resumption();
        let session = front.rooms.enter(start).await.map_err(unless_it_is_gone)?;
        let bucket = bucket(&front.config);
        let mut speaker = Speaker {
            front,
            protocol,
            session,
            seq: FIRST_REQUEST_SEQ,
            identity: owner.identity,
            participant_sid: owner.participant_sid,
            remote_ufrag: None,
            etag: String::new(),
            choice: None,
            last_offer: OFFER_ID,
            restart: None,
            bucket,
            _permit: permit,
        };
        speaker.restart_ice(OFFER_ID, "", "").await;
        let greeting = speaker.greeting(OFFER_ID).await.map_err(unless_it_is_gone)?;
        let answer = greeting.answer.filter(|_| greeting.back);
        let answer = answer.ok_or_else(|| PublicError::from(Code::SessionNotFound))?;
        speaker.etag = etag_of(&answer)?;
        if protocol == Protocol::Whep {
            let mut choice = Choice::new(seats_of(&answer), owner.only);
            choice.update(&greeting.others);
            let subscribe = choice.choose().subscribe;
            // What was shown before is not known here.
            speaker.subscribe(choice.others(), false).await;
            speaker.subscribe(subscribe, true).await;
            speaker.choice = Some(choice);
        }
        Ok(speaker)
    }

    /// Waits for the answer to an offer and for what comes before it.
    async fn greeting(&mut self, id: u32) -> Result<Greeting, PublicError> {
        let mut greeting = Greeting::default();
        let observer = self.front.config.observer.clone();
        let wait = async {
            while greeting.answer.is_none() {
                let frame = tokio::select! {
                    frame = self.session.from_worker.recv() => frame,
                    Some(order) = self.session.orders.recv() => return Err(of_order(&order)),
                };
                let Some(frame) = frame else {
                    return Err(match self.session.orders.try_recv() {
                        Ok(order) => of_order(&order),
                        Err(_) => PublicError::new(Code::WorkerUnreachable, "it hung up during the join"),
                    });
                };
                let response = match frame.frame {
                    Some(worker_frame::Frame::Closed(closed)) => {
                        let code = Code::parse(&closed.code).unwrap_or(Code::Internal);
                        return Err(PublicError::new(code, closed.detail));
                    }
                    Some(worker_frame::Frame::Response(bytes)) => decoded(&observer, &bytes),
                    _ => None,
                };
                match response {
                    Some(Response::Join(join)) => greeting.join = Some(join),
                    Some(Response::Reconnect(_)) => greeting.back = true,
                    Some(Response::Update(update)) => greeting.others.extend(update.participants),
                    Some(Response::Answer(answer)) if answer.id == id => greeting.answer = Some(answer.sdp),
                    Some(Response::RequestResponse(verdict)) => refused(&verdict)?,
                    // The reason follows.
                    _ => {}
                }
            }
            Ok(())
        };
        match tokio::time::timeout(ANSWER, wait).await {
            Ok(Ok(())) => Ok(greeting),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(no_answer()),
        }
    }
}

impl Owner {
    /// Comes back to the session. What it may do there is what it might at the join.
    fn resumption(&self) -> Start {
        let grant = plenum_token::VideoGrant {
            room_join: true,
            room: self.room.clone(),
            ..plenum_token::VideoGrant::default()
        };
        let join_request = proto::JoinRequest {
            reconnect: true,
            participant_sid: self.participant_sid.clone(),
            ..proto::JoinRequest::default()
        };
        Start {
            room: self.room.clone(),
            identity: self.identity.clone(),
            video_grant_json: serde_json::to_string(&grant).unwrap_or_default(),
            role: plenum_token::Role::Viewer.as_str().to_owned(),
            join_request: join_request.encode_to_vec(),
            kind: self.protocol.kind().to_owned(),
            token_issued_at_ms: self
                .issued_at
                .map_or(0, |at| i64::try_from(at).unwrap_or(i64::MAX).saturating_mul(1000)),
            offers_once: true,
            ..Start::default()
        }
    }
}

/// A track that the room does not take.
fn refused(verdict: &proto::RequestResponse) -> Result<(), PublicError> {
    if verdict.reason() == Reason::Ok {
        return Ok(());
    }
    let code = Code::parse(&verdict.message).unwrap_or(match verdict.reason() {
        Reason::NotAllowed => Code::NotPermitted,
        Reason::LimitExceeded => Code::TrackLimit,
        _ => Code::RequestMalformed,
    });
    let detail = if code.as_str() == verdict.message {
        ""
    } else {
        &verdict.message
    };
    Err(PublicError::new(code, detail))
}

/// Why a join ended before it began.
fn of_order(order: &Order) -> PublicError {
    match order {
        Order::Elsewhere { room, .. } => PublicError::new(Code::RoomClosed, room.clone()),
        Order::Close(closed) => PublicError::new(
            Code::parse(&closed.code).unwrap_or(Code::Internal),
            closed.detail.clone(),
        ),
    }
}

/// What a session that is nowhere to be found looks like from here.
fn unless_it_is_gone(error: PublicError) -> PublicError {
    match error.code {
        // These may pass, and the session be found behind them.
        Code::WorkerUnreachable
        | Code::MeetingNotReady
        | Code::WorkerDraining
        | Code::NoCapacity
        | Code::EpochStale
        | Code::RateLimited
        | Code::Internal => error,
        _ => Code::SessionNotFound.into(),
    }
}
