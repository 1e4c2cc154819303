//! The live API: `live.plenum.dev/v1alpha1`, an aggregated API served from the gateway.
//!
//! Owns what is not an object: tokens and participants. Every gateway answers, and none stores
//! anything. Invariants: a request is believed only from the API server's front proxy
//! ([`identity`]), each one is put to RBAC ([`access`]), and every refusal is a Kubernetes Status
//! with words in it.

mod access;
mod discovery;
mod identity;
mod openapi;
mod participants;
mod request;
mod selector;
pub(crate) mod serve;
mod status;
mod table;
mod token;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, Request, Response, header};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};

use super::Links;
use super::keys::Keys;
use super::material::{FrontProxy, Watched};
use super::metrics::Metrics;
use super::route::Routes;
use super::workers::Workers;
use identity::Peer;
use request::{Resource, ResourceRequest};
use status::{Refusal, json_response, typed_response};

/// The API group.
pub(crate) const GROUP: &str = "live.plenum.dev";
/// Its version.
pub(crate) const VERSION: &str = "v1alpha1";
/// The largest request body.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What the live API stands on.
pub(crate) struct LiveApi {
    pub(crate) client: Client,
    pub(crate) routes: Arc<Routes>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) links: Links,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) front_proxy: Watched<FrontProxy>,
}

/// The routes of the live API.
pub(crate) fn router(api: Arc<LiveApi>) -> Router {
    Router::new().fallback(answer).with_state(api)
}

async fn answer(State(api): State<Arc<LiveApi>>, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    // What says nothing of anybody is told to anybody.
    match path.as_str() {
        "/healthz" | "/livez" => return Response::new(Body::from("ok")),
        "/readyz" => {
            return match api.ready() {
                Ok(()) => Response::new(Body::from("ok")),
                Err(missing) => Refusal::new(503, "ServiceUnavailable", missing).response(),
            };
        }
        _ => {}
    }
    let below = path
        .strip_prefix(&format!("/apis/{GROUP}/{VERSION}/"))
        .map(str::to_owned);
    let Some(below) = below else {
        return api
            .describe(&path, &request)
            .unwrap_or_else(|refusal| refusal.response());
    };
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let query = query_of(&request);
    let parsed = request::parse(&method, &below, &query);
    let (verb, resource) = parsed.as_ref().map_or(("other", "other"), |parsed| {
        (parsed.verb, parsed.resource.label())
    });
    let response = match parsed {
        Ok(parsed) => api.serve(parsed, &method, &headers, &query, request).await,
        Err(refusal) => Err(refusal),
    }
    .unwrap_or_else(|refusal| refusal.response());
    api.metrics
        .live_api_requests
        .with_label_values(&[verb, resource, response.status().as_str()])
        .inc();
    response
}

impl LiveApi {
    /// What is missing before requests can be answered.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if self.front_proxy.borrow().is_none() {
            return Err("the request-header authority (ConfigMap extension-apiserver-authentication in kube-system) was not read yet".into());
        }
        if !self.routes.is_synced() {
            return Err("the watches of meetings and workers are not filled yet".into());
        }
        Ok(())
    }

    /// Discovery and OpenAPI: for the API server alone, but of nobody's business in particular.
    fn describe(&self, path: &str, request: &Request<Body>) -> Result<Response<Body>, Refusal> {
        self.user(request)?;
        let accept = request
            .headers()
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .unwrap_or_default();
        let group = format!("/apis/{GROUP}");
        let document = match path {
            "/apis" if discovery::wants_aggregated(accept) => {
                return Ok(typed_response(
                    200,
                    discovery::AGGREGATED,
                    &discovery::aggregated(),
                ));
            }
            "/apis" => discovery::groups(),
            "/openapi/v2" => openapi::v2(),
            "/openapi/v3" => openapi::v3_index(),
            _ if path == group => discovery::group(),
            _ if path == format!("{group}/{VERSION}") => discovery::resources(),
            _ if path == format!("/openapi/v3{group}/{VERSION}") => openapi::v3(),
            _ => {
                return Err(Refusal::new(
                    404,
                    "NotFound",
                    "the server could not find the requested resource",
                ));
            }
        };
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(Refusal::method_not_allowed("this address is read with GET"));
        }
        Ok(json_response(200, &document))
    }

    fn user(&self, request: &Request<Body>) -> Result<identity::User, Refusal> {
        let proxy = self.front_proxy.borrow().clone().ok_or_else(|| {
            Refusal::new(
                503,
                "ServiceUnavailable",
                "the request-header authority was not read yet",
            )
        })?;
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        identity::authenticate(&peer, request.headers(), &proxy)
    }

    async fn serve(
        &self,
        parsed: ResourceRequest,
        method: &Method,
        headers: &HeaderMap,
        query: &HashMap<String, String>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        let user = self.user(&request)?;
        access::authorize(&self.client, &user, &parsed).await?;
        match (
            parsed.resource,
            parsed.verb,
            parsed.namespace.as_deref(),
            parsed.name.as_deref(),
        ) {
            (Resource::MeetingsToken, "create", Some(namespace), Some(name)) => {
                let body = to_bytes(request.into_body(), MAX_BODY_BYTES).await.map_err(|_| {
                    Refusal::new(413, "RequestEntityTooLarge", "a TokenRequest is at most 64 KiB")
                })?;
                let dry_run = query.get("dryRun").is_some_and(|value| value == "All");
                let answer = self.create_token(namespace, name, &body, dry_run).await?;
                tracing::info!(user = user.name, namespace, meeting = name, "token minted");
                Ok(json_response(201, &answer))
            }
            (Resource::Participants, "list", namespace, None) => {
                let text = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
                let all = self.participants(namespace).await?;
                let chosen = participants::select(all, text("labelSelector"), text("fieldSelector"))?;
                Ok(self.shown(&chosen, true, headers, query))
            }
            (Resource::Participants, "get", Some(namespace), Some(name)) => {
                let one = self.participant(namespace, name).await?;
                Ok(self.shown(&[one], false, headers, query))
            }
            (Resource::Participants, "delete", Some(namespace), Some(name)) => {
                let one = self.participant(namespace, name).await?;
                if query.get("dryRun").is_some_and(|value| value == "All") {
                    return Ok(json_response(200, &one.object()));
                }
                tracing::info!(
                    user = user.name,
                    namespace,
                    meeting = one.meeting,
                    "participant removed"
                );
                Ok(json_response(200, &self.remove(&one).await?))
            }
            // kubectl falls back to what there is where it is told so with 405.
            (_, verb, ..) => Err(Refusal::method_not_allowed(&format!(
                "{} does not support {verb} ({method}): it is read from the workers at each request",
                parsed.resource.label()
            ))),
        }
    }

    fn shown(
        &self,
        participants: &[participants::Participant],
        list: bool,
        headers: &HeaderMap,
        query: &HashMap<String, String>,
    ) -> Response<Body> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .unwrap_or_default();
        if table::wanted(accept) {
            let include = query.get("includeObject").map(String::as_str).unwrap_or_default();
            return json_response(200, &table::table(participants, include, Timestamp::now()));
        }
        let body: Value = match participants {
            [one] if !list => one.object(),
            all => json!({
                "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "ParticipantList",
                "metadata": {"resourceVersion": ""},
                "items": all.iter().map(participants::Participant::object).collect::<Vec<_>>(),
            }),
        };
        json_response(200, &body)
    }
}

fn query_of(request: &Request<Body>) -> HashMap<String, String> {
    Query::<Vec<(String, String)>>::try_from_uri(request.uri())
        .map(|Query(pairs)| pairs.into_iter().collect())
        .unwrap_or_default()
}

/// A point in time as Kubernetes writes it: whole seconds.
fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
