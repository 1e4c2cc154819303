//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): one offer, one answer, and a session that is named by
//! an address.
//!
//! Owns the HTTP side: `POST /whip` and `/whep` with or without the room's name, PATCH and DELETE of
//! `/whip/-/NAME` and `/whep/-/NAME`, OPTIONS of all. Who gets in is decided as for `/rtc`, by the same
//! code; what a session does is in [`session`]. Invariants: a body is read only after the token was found
//! good, and no further than its limit; every refusal is an `application/problem+json` of the catalogue.

mod choice;
mod fragment;
mod id;
mod offer;
mod session;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query as QueryExtractor, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::any;
use futures::StreamExt as _;
use plenum_errors::{Code, PublicError};
use plenum_token::Claims;
use tokio::sync::{mpsc, oneshot};

use self::fragment::{Fragment, MAX_FRAGMENT_BYTES};
use self::id::Owner;
use self::offer::{MAX_OFFER_BYTES, Offer};
use self::session::{Ask, Beginning, Created, Patched, Precondition};
use crate::admit::{Front, start, unix_now};
use crate::request::{Query, Version};
use crate::{Rooms, origin, refusal};

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(10);
/// How long a session may take to answer a request; its own limits are shorter.
const ANSWER: Duration = Duration::from_secs(25);
const LINK: HeaderName = header::LINK;
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The client sends.
    Whip,
    /// The client receives.
    Whep,
}

impl Protocol {
    /// In addresses, names of sessions, metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Protocol::Whip => "whip",
            Protocol::Whep => "whep",
        }
    }

    /// What such a participant is shown as, where its token does not say more than "standard".
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Protocol::Whip => "ingress",
            Protocol::Whep => "egress",
        }
    }
}

/// Sessions that are spoken for here, by name.
#[derive(Default)]
pub(crate) struct Table(Mutex<HashMap<String, mpsc::Sender<Ask>>>);

impl Table {
    fn insert(&self, name: &str, asks: mpsc::Sender<Ask>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(name.to_owned(), asks);
    }

    fn remove(&self, name: &str) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(name);
    }

    fn get(&self, name: &str) -> Option<mpsc::Sender<Ask>> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(name).cloned()
    }

    /// The session of that name; where there is none, a new place for it, and what is asked of it.
    fn get_or_insert(&self, name: &str) -> (mpsc::Sender<Ask>, Option<mpsc::Receiver<Ask>>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asks) = table.get(name) {
            return (asks.clone(), None);
        }
        let (asks, asked) = mpsc::channel(8);
        table.insert(name.to_owned(), asks.clone());
        (asks, Some(asked))
    }
}

/// The routes, for the router of the front door.
pub(crate) fn routes<R: Rooms>() -> Router<Arc<Front<R>>> {
    let mut router = Router::new();
    for protocol in [Protocol::Whip, Protocol::Whep] {
        let name = protocol.as_str();
        let endpoint = move |State(front): State<Arc<Front<R>>>,
                             room: Option<Path<String>>,
                             QueryExtractor(query): QueryExtractor<Query>,
                             request: Request| async move {
            let room = room.map(|Path(room)| room);
            front.endpoint(protocol, room, &query, request).await
        };
        let session = move |State(front): State<Arc<Front<R>>>,
                            Path(name): Path<String>,
                            request: Request| async move {
            front.session(protocol, &name, request).await
        };
        router = router
            .route(&format!("/{name}"), any(endpoint))
            .route(&format!("/{name}/{{*room}}"), any(endpoint))
            .route(&format!("/{name}/-/{{session}}"), any(session));
    }
    router
}

impl<R: Rooms> Front<R> {
    async fn endpoint(
        self: Arc<Self>,
        protocol: Protocol,
        room: Option<String>,
        query: &Query,
        request: Request,
    ) -> Response<Body> {
        let headers = request.headers().clone();
        let method = label(request.method());
        let began = Instant::now();
        let outcome = match *request.method() {
            Method::OPTIONS => Ok(options(&[(ACCEPT_POST, SDP)])),
            Method::POST => {
                let outcome = self
                    .clone()
                    .create(protocol, room.as_deref(), query, request)
                    .await;
                let code = outcome
                    .as_ref()
                    .map_or_else(|error| error.code.as_str(), |_| "ok");
                self.config.observer.joined(code, began.elapsed());
                outcome
            }
            _ => Err(Code::MethodNotAllowed.into()),
        };
        self.finish(protocol, method, "POST, OPTIONS", &headers, outcome)
    }

    async fn session(self: Arc<Self>, protocol: Protocol, name: &str, request: Request) -> Response<Body> {
        let headers = request.headers().clone();
        let method = label(request.method());
        let outcome = match *request.method() {
            Method::OPTIONS => Ok(options(&[(ACCEPT_PATCH, FRAGMENT)])),
            Method::PATCH => self.clone().patch(protocol, name, request).await,
            Method::DELETE => self.clone().delete(protocol, name, &headers).await,
            _ => Err(Code::MethodNotAllowed.into()),
        };
        self.finish(protocol, method, "PATCH, DELETE, OPTIONS", &headers, outcome)
    }

    fn finish(
        &self,
        protocol: Protocol,
        method: &'static str,
        allow: &'static str,
        headers: &HeaderMap,
        outcome: Result<Response<Body>, PublicError>,
    ) -> Response<Body> {
        let code = outcome
            .as_ref()
            .map_or_else(|error| error.code.as_str(), |_| "ok");
        self.config.observer.http_request(protocol.as_str(), method, code);
        let mut response = outcome.unwrap_or_else(|error| {
            tracing::info!(
                protocol = protocol.as_str(), method, code = %error.code, detail = %error.detail,
                "request refused"
            );
            refusal::problem(&error)
        });
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        self.cors_for(headers, allow, &mut response);
        response
    }

    /// Browsers let a page do all of this, and read the answers, only where it is said here.
    fn cors_for(&self, asked: &HeaderMap, methods: &'static str, response: &mut Response<Body>) {
        let Some(origin) = asked.get(header::ORIGIN) else {
            return;
        };
        if !origin::allowed(asked, &self.config.allowed_origins) {
            return;
        }
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        for (name, value) in [
            (header::VARY, "Origin"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, content-type, if-match",
            ),
            (
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                "location, link, etag, accept-patch, plenum-error, retry-after",
            ),
            (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }

    async fn create(
        self: Arc<Self>,
        protocol: Protocol,
        room: Option<&str>,
        query: &Query,
        request: Request,
    ) -> Result<Response<Body>, PublicError> {
        let (parts, body) = request.into_parts();
        let claims = self.claims(&parts.headers, query).await?;
        if let Some(room) = room {
            claims.require_room(room)?;
        }
        require_right(protocol, &claims)?;
        require_type(&parts.headers, SDP)?;
        let text = read(body, MAX_OFFER_BYTES).await?;
        let screen = match query.get("source").map(String::as_str) {
            None | Some("camera") => false,
            Some("screen") => true,
            Some(_) => {
                return Err(PublicError::new(
                    Code::RequestMalformed,
                    "source is camera or screen",
                ));
            }
        };
        let offer = Offer::read(&text, protocol, screen)?;
        let permit = self.permit()?;
        let remote = origin::remote_address(&parts.headers, &parts.extensions, &self.config.trusted_proxies);
        let mut start = start(Version::V1, &claims, join_request(&offer, &parts.headers), remote);
        if start.kind == "standard" {
            protocol.kind().clone_into(&mut start.kind);
        }
        start.offers_once = true;
        let beginning = Beginning {
            protocol,
            start,
            offer,
            only: query.get("participant").filter(|only| !only.is_empty()).cloned(),
            issued_at: claims.issued_at(),
            api_key: claims.iss,
            permit,
        };
        let (reply, replied) = oneshot::channel();
        // A task of its own: it outlives the request, and undoes what was begun where nobody waits for it.
        tokio::spawn(session::begin(self, beginning, reply));
        let created = tokio::time::timeout(ANSWER, replied).await;
        created
            .map_err(|_| PublicError::new(Code::WorkerUnreachable, "it does not answer"))?
            .map_err(|_| PublicError::from(Code::Internal))?
            .map(|created| answer_of(protocol, created))
    }

    async fn patch(
        self: Arc<Self>,
        protocol: Protocol,
        name: &str,
        request: Request,
    ) -> Result<Response<Body>, PublicError> {
        let (parts, body) = request.into_parts();
        let asks = self.find(protocol, name, &parts.headers).await?;
        require_type(&parts.headers, FRAGMENT)?;
        let precondition = precondition(&parts.headers)?;
        let fragment = Fragment::read(&read(body, MAX_FRAGMENT_BYTES).await?)?;
        let (reply, replied) = oneshot::channel();
        let ask = Ask::Patch {
            precondition,
            fragment,
            reply,
        };
        match ask_session(&asks, ask, replied).await? {
            Patched::Trickled => Ok(StatusCode::NO_CONTENT.into_response()),
            Patched::Restarted { etag, fragment } => {
                let mut response = Response::new(Body::from(fragment));
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FRAGMENT));
                insert(headers, header::ETAG, &etag);
                Ok(response)
            }
        }
    }

    async fn delete(
        self: Arc<Self>,
        protocol: Protocol,
        name: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, PublicError> {
        let asks = self.find(protocol, name, headers).await?;
        let (reply, replied) = oneshot::channel();
        ask_session(&asks, Ask::Delete { reply }, replied).await?;
        Ok(StatusCode::OK.into_response())
    }

    /// The session of that name: here, or to be gone on with.
    async fn find(
        self: &Arc<Self>,
        protocol: Protocol,
        name: &str,
        headers: &HeaderMap,
    ) -> Result<mpsc::Sender<Ask>, PublicError> {
        self.check_origin(headers)?;
        let unknown = || PublicError::from(Code::SessionNotFound);
        let peeked = plenum_token::peek(name).map_err(|_| unknown())?;
        // A session that is spoken for here is known by its name alone: keys may have changed since.
        if let Some(asks) = self.sessions_by_name.get(name) {
            return Ok(asks);
        }
        let secret = self.rooms.api_secret(&peeked.api_key, &peeked.room).await;
        let secret = secret.ok_or_else(unknown)?;
        let owner = Owner::verify(protocol, name, &peeked.api_key, &secret, unix_now())?;
        let (asks, asked) = self.sessions_by_name.get_or_insert(name);
        if let Some(asked) = asked {
            tokio::spawn(session::take_over(self.clone(), owner, name.to_owned(), asked));
        }
        Ok(asks)
    }
}

async fn ask_session<T>(
    asks: &mpsc::Sender<Ask>,
    ask: Ask,
    replied: oneshot::Receiver<Result<T, PublicError>>,
) -> Result<T, PublicError> {
    let gone = || PublicError::from(Code::SessionNotFound);
    let asked = async {
        asks.send(ask).await.map_err(|_| gone())?;
        replied.await.map_err(|_| gone())?
    };
    tokio::time::timeout(ANSWER, asked)
        .await
        .unwrap_or_else(|_| Err(PublicError::new(Code::WorkerUnreachable, "it does not answer")))
}

fn label(method: &Method) -> &'static str {
    match *method {
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn options(extra: &[(HeaderName, &'static str)]) -> Response<Body> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    for (name, value) in extra {
        response
            .headers_mut()
            .insert(name.clone(), HeaderValue::from_static(value));
    }
    response
}

fn require_right(protocol: Protocol, claims: &Claims) -> Result<(), PublicError> {
    let (allowed, right) = match protocol {
        Protocol::Whip => (claims.video.may_publish(), "canPublish"),
        Protocol::Whep => (claims.video.can_subscribe.unwrap_or(true), "canSubscribe"),
    };
    if allowed {
        Ok(())
    } else {
        Err(PublicError::new(Code::NotPermitted, right))
    }
}

fn require_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), PublicError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if content_type.trim().eq_ignore_ascii_case(wanted) {
        Ok(())
    } else {
        Err(PublicError::new(Code::ContentTypeUnsupported, wanted))
    }
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, PublicError> {
    let values: Vec<&str> = headers
        .get_all(header::IF_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .collect();
    if values.is_empty() {
        return Err(Code::PreconditionRequired.into());
    }
    if values.contains(&"*") {
        return Ok(Precondition::Any);
    }
    // A weak tag never matches here (RFC 9110 section 13.1.1), and has another form.
    Ok(Precondition::OneOf(
        values.into_iter().map(str::to_owned).collect(),
    ))
}

async fn read(body: Body, most: usize) -> Result<String, PublicError> {
    let mut stream = body.into_data_stream();
    let all = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| PublicError::new(Code::RequestMalformed, "the body broke off"))?;
            if bytes.len() + chunk.len() > most {
                return Err(PublicError::new(
                    Code::MessageTooLarge,
                    format!("at most {most} bytes"),
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|_| PublicError::new(Code::SdpInvalid, "not UTF-8"))
    };
    tokio::time::timeout(BODY, all)
        .await
        .unwrap_or_else(|_| Err(PublicError::new(Code::RequestMalformed, "the body does not come")))
}

/// The join request of somebody who publishes what it offers, and receives what it asks for.
fn join_request(offer: &Offer, headers: &HeaderMap) -> livekit_protocol::JoinRequest {
    use livekit_protocol as proto;
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default();
    proto::JoinRequest {
        client_info: Some(proto::ClientInfo {
            browser: agent.chars().take(128).collect(),
            ..proto::ClientInfo::default()
        }),
        connection_settings: Some(proto::ConnectionSettings::default()),
        add_track_requests: offer.tracks.clone(),
        publisher_offer: Some(proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp: offer.sdp.clone(),
            id: session::OFFER_ID,
            ..proto::SessionDescription::default()
        }),
        ..proto::JoinRequest::default()
    }
}

fn answer_of(protocol: Protocol, created: Created) -> Response<Body> {
    let mut response = Response::new(Body::from(created.answer));
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    insert(headers, header::ETAG, &created.etag);
    let location = format!("/{}/-/{}", protocol.as_str(), created.name);
    insert(headers, header::LOCATION, &location);
    for server in &created.ice_servers {
        for url in &server.urls {
            if let Ok(link) = HeaderValue::from_str(&link_of(url, &server.username, &server.credential)) {
                headers.append(LINK, link);
            }
        }
    }
    response
}

/// RFC 9725 section 4.6.
fn link_of(url: &str, username: &str, credential: &str) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut link = format!("<{url}>; rel=\"ice-server\"");
    if !username.is_empty() {
        link += &format!(
            "; username=\"{}\"; credential=\"{}\"; credential-type=\"password\"",
            quoted(username),
            quoted(credential)
        );
    }
    link
}

/// What can't stand in a header is left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ice_servers_are_links() {
        assert_eq!(link_of("stun:a", "", "x"), "<stun:a>; rel=\"ice-server\"");
        assert_eq!(
            link_of("turn:a?transport=udp", "u\"", "p"),
            "<turn:a?transport=udp>; rel=\"ice-server\"; username=\"u\\\"\"; credential=\"p\"; credential-type=\"password\""
        );
    }

    #[test]
    fn preconditions_are_read_in_every_form() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MATCH, value.parse().unwrap());
            }
            precondition(&headers)
        };
        assert_eq!(of(&[]).unwrap_err().code, Code::PreconditionRequired);
        assert_eq!(of(&[" * "]).unwrap(), Precondition::Any);
        let Ok(Precondition::OneOf(tags)) = of(&["\"a\", W/\"b\"", "\"c\""]) else {
            panic!()
        };
        assert_eq!(tags, ["\"a\"", "W/\"b\"", "\"c\""]);
    }
}
