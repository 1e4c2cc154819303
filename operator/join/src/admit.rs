//! From an HTTP request to a session: origin, token, join request, room, upgrade.
//!
//! The session is opened, and its first word waited for, before the WebSocket is accepted: as long
//! as the answer is plain HTTP a refusal has a status and words. What the worker refused is
//! remembered for a few seconds, so that the `validate` call by which stock clients ask for the
//! words hears the same.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query as QueryExtractor, State, WebSocketUpgrade};
use axum::http::{Extensions, HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use plenum_errors::{Code, PublicError};
use plenum_token::Claims;
use plenum_worker_api::v1::{Start, WorkerFrame, worker_frame};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::relay::{self, Relay};
use crate::request::{self, Query, Version};
use crate::{JoinConfig, MAX_MESSAGE_BYTES, Rooms, Session, origin, refusal, whip};

/// A client's requests are smaller, but for descriptions of large meetings.
const READ_BUFFER: usize = 8 * 1024;
/// How long the first word of a worker is waited for before the WebSocket is accepted without it.
const FIRST_WORD: Duration = Duration::from_secs(3);
/// How long a Closed frame may lag behind the Leave that announces it.
const CLOSED_AFTER_LEAVE: Duration = Duration::from_millis(200);
/// How long a worker's refusal is remembered, and how many of them.
const REMEMBER: Duration = Duration::from_secs(10);
const REMEMBER_MAX: usize = 1024;

pub(crate) struct Front<R> {
    pub(crate) rooms: Arc<R>,
    pub(crate) config: JoinConfig,
    sessions: Arc<Semaphore>,
    /// WHIP and WHEP sessions.
    pub(crate) sessions_by_name: whip::Table,
    refused: Refused,
}

pub(crate) fn router<R: Rooms>(rooms: Arc<R>, config: JoinConfig) -> Router {
    let sessions = Arc::new(Semaphore::new(config.max_sessions.min(Semaphore::MAX_PERMITS)));
    let front = Arc::new(Front {
        rooms,
        config,
        sessions,
        sessions_by_name: whip::Table::default(),
        refused: Refused::default(),
    });
    Router::new()
        .route("/rtc", get(join_v0::<R>))
        .route("/rtc/v1", get(join_v1::<R>))
        .route("/rtc/validate", get(validate_v0::<R>).options(preflight::<R>))
        .route("/rtc/v1/validate", get(validate_v1::<R>).options(preflight::<R>))
        .merge(whip::routes())
        .with_state(front)
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

async fn join_v0<R: Rooms>(
    State(front): State<Arc<Front<R>>>,
    QueryExtractor(query): QueryExtractor<Query>,
    headers: HeaderMap,
    extensions: Extensions,
    upgrade: Upgrade,
) -> Response<Body> {
    front
        .join(Version::V0, &query, &headers, &extensions, upgrade)
        .await
}

async fn join_v1<R: Rooms>(
    State(front): State<Arc<Front<R>>>,
    QueryExtractor(query): QueryExtractor<Query>,
    headers: HeaderMap,
    extensions: Extensions,
    upgrade: Upgrade,
) -> Response<Body> {
    front
        .join(Version::V1, &query, &headers, &extensions, upgrade)
        .await
}

async fn validate_v0<R: Rooms>(
    State(front): State<Arc<Front<R>>>,
    QueryExtractor(query): QueryExtractor<Query>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response<Body> {
    front.validate(Version::V0, &query, &headers, &extensions).await
}

async fn validate_v1<R: Rooms>(
    State(front): State<Arc<Front<R>>>,
    QueryExtractor(query): QueryExtractor<Query>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response<Body> {
    front.validate(Version::V1, &query, &headers, &extensions).await
}

async fn preflight<R: Rooms>(State(front): State<Arc<Front<R>>>, headers: HeaderMap) -> Response<Body> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    front.cors(&headers, &mut response);
    response
}

/// A request that passed every check that needs no worker.
struct Admitted {
    start: Start,
    claims: Claims,
    reconnects: bool,
}

impl<R: Rooms> Front<R> {
    async fn join(
        self: Arc<Self>,
        version: Version,
        query: &Query,
        headers: &HeaderMap,
        extensions: &Extensions,
        upgrade: Upgrade,
    ) -> Response<Body> {
        let began = Instant::now();
        match self
            .clone()
            .try_join(version, query, headers, extensions, upgrade)
            .await
        {
            Ok(response) => {
                self.config.observer.joined("ok", began.elapsed());
                response
            }
            Err(error) => {
                tracing::info!(code = %error.code, detail = %error.detail, "join refused");
                self.config.observer.joined(error.code.as_str(), began.elapsed());
                refusal::refuse(&error, headers)
            }
        }
    }

    async fn try_join(
        self: Arc<Self>,
        version: Version,
        query: &Query,
        headers: &HeaderMap,
        extensions: &Extensions,
        upgrade: Upgrade,
    ) -> Result<Response<Body>, PublicError> {
        let admitted = self.admit(version, query, headers, extensions).await?;
        let upgrade = upgrade
            .map_err(|_| PublicError::new(Code::RequestMalformed, "this address wants a WebSocket"))?;
        let permit = self.permit()?;
        self.rooms.check(&admitted.start).await?;
        let mut session = self.rooms.enter(admitted.start.clone()).await?;
        let first = match first_words(&mut session).await {
            Ok(first) => first,
            // A client that resumes is to hear the worker's Leave, which tells it to join anew: an
            // HTTP error would have it try the same again.
            Err((frames, _)) if admitted.reconnects && !frames.is_empty() => frames,
            Err((_, error)) => {
                self.refused.remember(request::token(headers, query)?, &error);
                return Err(error);
            }
        };
        Ok(self.accept(upgrade, version, admitted, session, first, permit))
    }

    fn accept(
        self: Arc<Self>,
        upgrade: WebSocketUpgrade,
        version: Version,
        admitted: Admitted,
        session: Session,
        first: Vec<WorkerFrame>,
        permit: OwnedSemaphorePermit,
    ) -> Response<Body> {
        upgrade
            // Up to twice the limit a message is read and refused with a reason; beyond, cut.
            .max_message_size(2 * MAX_MESSAGE_BYTES)
            .max_frame_size(2 * MAX_MESSAGE_BYTES)
            // Cleared before each look for input, and there is one per client: what is usual must fit, the
            // largest needn't.
            .read_buffer_size(READ_BUFFER)
            // A client that reads slowly costs this much and no more.
            .max_write_buffer_size(2 * MAX_MESSAGE_BYTES)
            .on_upgrade(move |socket| async move {
                let relay = Relay {
                    rooms: self.rooms.clone(),
                    config: self.config.clone(),
                    claims: admitted.claims,
                    dual: version == Version::V0,
                };
                relay::run(relay, socket, session, first).await;
                drop(permit);
            })
    }

    async fn validate(
        &self,
        version: Version,
        query: &Query,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Response<Body> {
        let mut response = match self.try_validate(version, query, headers, extensions).await {
            Ok(()) => (StatusCode::OK, "success").into_response(),
            Err(error) => {
                let reconnects = request::join_request(version, query).is_ok_and(|request| request.reconnect);
                refusal::refuse_validate(&error, headers, reconnects)
            }
        };
        self.cors(headers, &mut response);
        response
    }

    async fn try_validate(
        &self,
        version: Version,
        query: &Query,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<(), PublicError> {
        let admitted = self.admit(version, query, headers, extensions).await?;
        if let Some(error) = self.refused.recall(request::token(headers, query)?) {
            return Err(error);
        }
        self.rooms.check(&admitted.start).await
    }

    /// Origin, token and join request.
    async fn admit(
        &self,
        version: Version,
        query: &Query,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Admitted, PublicError> {
        let claims = self.claims(headers, query).await?;
        let join_request = request::join_request(version, query)?;
        let remote = origin::remote_address(headers, extensions, &self.config.trusted_proxies);
        let reconnects = join_request.reconnect;
        Ok(Admitted {
            start: start(version, &claims, join_request, remote),
            claims,
            reconnects,
        })
    }

    /// One more client, if there is a place for it.
    pub(crate) fn permit(&self) -> Result<OwnedSemaphorePermit, PublicError> {
        self.sessions
            .clone()
            .try_acquire_owned()
            .map_err(|_| PublicError::new(Code::RateLimited, "the gateway has as many clients as it takes"))
    }

    pub(crate) fn check_origin(&self, headers: &HeaderMap) -> Result<(), PublicError> {
        if origin::allowed(headers, &self.config.allowed_origins) {
            return Ok(());
        }
        Err(PublicError::new(
            Code::NotPermitted,
            "pages of this origin may not connect",
        ))
    }

    /// Origin, and what a good token for joining says.
    pub(crate) async fn claims(&self, headers: &HeaderMap, query: &Query) -> Result<Claims, PublicError> {
        self.check_origin(headers)?;
        let token = request::token(headers, query)?;
        let peeked = plenum_token::peek(token)?;
        let secret = self
            .rooms
            .api_secret(&peeked.api_key, &peeked.room)
            .await
            .ok_or_else(|| PublicError::from(Code::TokenUnknownKey))?;
        let claims = plenum_token::verify(token, &peeked.api_key, &secret, unix_now())?;
        claims.require_join()?;
        Ok(claims)
    }

    /// Browsers show a page the words of a refusal only where this allows it.
    fn cors(&self, headers: &HeaderMap, response: &mut Response<Body>) {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return;
        };
        if !origin::allowed(headers, &self.config.allowed_origins) {
            return;
        }
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("authorization"),
        );
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("plenum-error"),
        );
    }
}

/// What the worker is told of the client.
pub(crate) fn start(
    version: Version,
    claims: &Claims,
    mut join_request: livekit_protocol::JoinRequest,
    remote_address: String,
) -> Start {
    let mut metadata = claims.metadata.clone();
    let mut attributes: HashMap<String, String> = claims
        .attributes
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    // A client may bring its own, which then count more than the token's, if the token lets it
    // change them. Either way they are settled here: the worker reads them from one place.
    let own_metadata = std::mem::take(&mut join_request.metadata);
    let own_attributes = std::mem::take(&mut join_request.participant_attributes);
    if claims.video.can_update_own_metadata == Some(true) {
        if !own_metadata.is_empty() {
            metadata = own_metadata;
        }
        attributes.extend(own_attributes);
    }
    Start {
        room: claims.video.room.clone(),
        epoch: 0,
        identity: claims.sub.clone(),
        name: claims.name.clone(),
        video_grant_json: serde_json::to_string(&claims.video).unwrap_or_default(),
        metadata,
        attributes,
        role: claims.role().as_str().to_owned(),
        join_request: join_request.encode_to_vec(),
        dual_peer_connection: version == Version::V0,
        last_seen_seq: 0,
        remote_address,
        kind: claims.kind().to_owned(),
        token_issued_at_ms: claims
            .issued_at()
            .map_or(0, |at| i64::try_from(at).unwrap_or(i64::MAX).saturating_mul(1000)),
        offers_once: false,
    }
}

/// The frames that came before the WebSocket was accepted, or the worker's refusal with the frames
/// that it came in.
async fn first_words(session: &mut Session) -> Result<Vec<WorkerFrame>, (Vec<WorkerFrame>, PublicError)> {
    let mut first = Vec::new();
    let mut wait = FIRST_WORD;
    loop {
        match tokio::time::timeout(wait, session.from_worker.recv()).await {
            // Slow, but there: the client waits for its first message on its own terms.
            Err(_) => return Ok(first),
            // It asks for something instead, which the client hears on its socket.
            Ok(None) if !session.orders.is_empty() => return Ok(first),
            Ok(None) => {
                return Err((
                    first,
                    PublicError::new(Code::WorkerUnreachable, "it hung up during the join"),
                ));
            }
            Ok(Some(frame)) => match &frame.frame {
                Some(worker_frame::Frame::Closed(closed)) => {
                    let code = Code::parse(&closed.code).unwrap_or(Code::Internal);
                    let error = PublicError::new(code, closed.detail.clone());
                    first.push(frame);
                    return Err((first, error));
                }
                Some(worker_frame::Frame::Response(bytes)) if relay::is_leave(bytes) => {
                    wait = CLOSED_AFTER_LEAVE;
                    first.push(frame);
                }
                _ => {
                    first.push(frame);
                    return Ok(first);
                }
            },
        }
    }
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| since.as_secs())
        .unwrap_or_default()
}

/// What workers refused lately, by a keyed hash of the token: the token itself is not kept.
#[derive(Default)]
struct Refused {
    hasher: RandomState,
    entries: Mutex<HashMap<u64, (Instant, PublicError)>>,
}

impl Refused {
    fn remember(&self, token: &str, error: &PublicError) {
        let Ok(mut entries) = self.entries.lock() else {
            return;
        };
        let now = Instant::now();
        if entries.len() >= REMEMBER_MAX {
            entries.retain(|_, (at, _)| now.duration_since(*at) < REMEMBER);
        }
        if entries.len() < REMEMBER_MAX {
            entries.insert(self.hasher.hash_one(token), (now, error.clone()));
        }
    }

    fn recall(&self, token: &str) -> Option<PublicError> {
        let entries = self.entries.lock().ok()?;
        let (at, error) = entries.get(&self.hasher.hash_one(token))?;
        (at.elapsed() < REMEMBER).then(|| error.clone())
    }
}
