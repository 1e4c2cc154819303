//! The join page: `/m/NAMESPACE/NAME`, and tokens for guests.
//!
//! Owns the page's HTTP side; what it does in the browser is `sdk/page`, built before this crate and
//! embedded by its build script. Invariants: the page loads nothing from elsewhere and runs no
//! inline script; to people without a token a meeting that takes no guests looks like one that does
//! not exist; a guest cannot choose an identity, only a name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::{get, post};
use axum::{Json, Router};
use plenum_crds::{Guests, Meeting};
use plenum_errors::{Code, PublicError};
use plenum_token::Role;
use serde::Deserialize;
use serde_json::json;

use super::Links;
use super::keys::Keys;
use super::metrics::Metrics;
use super::mint::{Invitation, mint, random_suffix};
use super::route::Routes;

include!(concat!(env!("OUT_DIR"), "/page.rs"));

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    media-src 'self' blob:; connect-src 'self'; worker-src 'self' blob:; frame-ancestors 'none'; \
    base-uri 'none'; form-action 'none'";
const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self), \
    geolocation=(), payment=(), usb=()";
/// A guest's token is for joining now; a live session is given fresh ones.
const GUEST_TTL_SECONDS: u64 = 600;
const MAX_NAME_CHARACTERS: usize = 64;
/// Guest tokens for one address: so many at once, and one more after each interval.
const GUEST_BURST: u32 = 20;
const GUEST_INTERVAL: Duration = Duration::from_secs(3);
const MAX_ADDRESSES: usize = 16_384;

/// What the page stands on.
pub(crate) struct Page {
    pub(crate) routes: Arc<Routes>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) links: Links,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trusted_proxies: Vec<plenum_join::Network>,
    pub(crate) guests: GuestLimit,
}

/// The routes of the page.
pub(crate) fn router(page: Arc<Page>) -> Router {
    Router::new()
        .route("/m/{namespace}/{name}", get(document))
        .route("/m/{namespace}/{name}/", get(without_slash))
        .route("/m/{namespace}/{name}/info", get(info))
        .route(
            "/m/{namespace}/{name}/token",
            post(guest_token).layer(DefaultBodyLimit::max(4096)),
        )
        .route("/page/{asset}", get(asset))
        .route("/", get(root))
        .with_state(page)
}

async fn root() -> Response<Body> {
    // LiveKit clients and load balancers ask here whether somebody is at home.
    "OK".into_response()
}

async fn without_slash(Path((namespace, name)): Path<(String, String)>) -> Redirect {
    // A fragment survives a redirect, so a token in the link does too.
    Redirect::permanent(&format!("/m/{}/{}", encode(&namespace), encode(&name)))
}

/// Names of Kubernetes objects need no escaping; anything else is not one.
fn encode(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .collect()
}

async fn document() -> Response<Body> {
    let mut response = static_response("text/html; charset=utf-8", INDEX_HTML, "no-cache");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("permissions-policy", HeaderValue::from_static(PERMISSIONS));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        "cross-origin-opener-policy",
        HeaderValue::from_static("same-origin"),
    );
    response
}

async fn asset(Path(asset): Path<String>) -> Response<Body> {
    match ASSETS.iter().find(|(name, ..)| *name == asset) {
        Some((_, content_type, bytes)) => static_response(content_type, bytes, "no-cache"),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn static_response(
    content_type: &'static str,
    bytes: &'static [u8],
    caching: &'static str,
) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// What somebody without a token may know.
async fn info(
    State(page): State<Arc<Page>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response<Body> {
    let open = page
        .routes
        .meetings
        .get(&namespace, &name)
        .filter(|meeting| meeting.spec.guests == Guests::Allow);
    let body = match open {
        Some(meeting) => json!({"guests": true, "title": meeting.spec.title.as_deref().unwrap_or(&name)}),
        None => json!({"guests": false}),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestRequest {
    name: String,
}

async fn guest_token(
    State(page): State<Arc<Page>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    extensions: Extensions,
    body: Result<Json<GuestRequest>, axum::extract::rejection::JsonRejection>,
) -> Response<Body> {
    let address = plenum_join::remote_address(&headers, &extensions, &page.trusted_proxies);
    match page.admit_guest(&namespace, &name, &address, body.ok()).await {
        Ok(answer) => ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response(),
        Err(error) => plenum_join::refuse(&error, &headers),
    }
}

impl Page {
    async fn admit_guest(
        &self,
        namespace: &str,
        name: &str,
        address: &str,
        body: Option<Json<GuestRequest>>,
    ) -> Result<serde_json::Value, PublicError> {
        if !self.guests.take(address, Instant::now()) {
            return Err(PublicError::new(
                Code::RateLimited,
                "too many guests from one address",
            ));
        }
        let Some(Json(request)) = body else {
            return Err(PublicError::new(
                Code::RequestMalformed,
                "the body must be {\"name\": \"...\"}",
            ));
        };
        let guest = request.name.trim();
        if guest.is_empty()
            || guest.chars().count() > MAX_NAME_CHARACTERS
            || guest.chars().any(char::is_control)
        {
            return Err(PublicError::new(
                Code::RequestMalformed,
                "a name has 1 to 64 characters",
            ));
        }
        let meeting = self.open_meeting(namespace, name).await?;
        let suffix = random_suffix().ok_or_else(|| PublicError::from(Code::Internal))?;
        let identity = format!("{}-{suffix}", slug(guest));
        let invitation = Invitation {
            identity: identity.clone(),
            name: guest.to_owned(),
            metadata: String::new(),
            attributes: std::collections::BTreeMap::new(),
            role: Role::Participant,
            ttl_seconds: GUEST_TTL_SECONDS,
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map(|since| since.as_secs())
            .unwrap_or_default();
        let token = mint(
            &self.keys,
            &meeting,
            &format!("{namespace}/{name}"),
            invitation,
            now,
        )
        .await?;
        self.metrics
            .tokens_minted
            .with_label_values(&["page", Role::Participant.as_str()])
            .inc();
        let url = self.links.of(&meeting, namespace, name).signal;
        Ok(json!({"token": token, "url": url, "identity": identity}))
    }

    async fn open_meeting(&self, namespace: &str, name: &str) -> Result<Arc<Meeting>, PublicError> {
        match self.routes.meeting(namespace, name).await {
            Ok(meeting) if meeting.spec.guests == Guests::Allow => Ok(meeting),
            // One answer for both, or the page would tell strangers which meetings exist.
            _ => Err(Code::GuestsNotAllowed.into()),
        }
    }
}

/// The start of a guest's identity: what of the name is fit for the name of an object.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for character in name.chars().take(24) {
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        "guest".to_owned()
    } else {
        slug.to_owned()
    }
}

/// How many guests an address may bring.
#[derive(Default)]
pub(crate) struct GuestLimit {
    /// When each address will have its whole burst again.
    full_at: Mutex<HashMap<String, Instant>>,
}

impl GuestLimit {
    fn take(&self, address: &str, now: Instant) -> bool {
        let Ok(mut full_at) = self.full_at.lock() else {
            return false;
        };
        if full_at.len() >= MAX_ADDRESSES {
            full_at.retain(|_, at| *at > now);
        }
        // A table still full of addresses that are all in debt is an attack: nobody gets in for it.
        if full_at.len() >= MAX_ADDRESSES {
            return false;
        }
        let at = full_at.entry(network(address)).or_insert(now);
        let next = (*at).max(now) + GUEST_INTERVAL;
        if next > now + GUEST_INTERVAL * GUEST_BURST {
            return false;
        }
        *at = next;
        true
    }
}

/// An IPv6 host has 2^64 addresses of its own: they count as one.
fn network(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => {
            let s = v6.segments();
            format!("{:x}:{:x}:{:x}:{:x}::/64", s[0], s[1], s[2], s[3])
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_limited_by_network() {
        let limit = GuestLimit::default();
        let now = Instant::now();
        assert_eq!((0..100).filter(|_| limit.take("192.0.2.1", now)).count(), 20);
        assert!(limit.take("192.0.2.2", now));
        assert!(limit.take("192.0.2.1", now + GUEST_INTERVAL));
        assert!(!limit.take("192.0.2.1", now + GUEST_INTERVAL));
        assert_eq!(
            (0..100)
                .filter(|i| limit.take(&format!("2001:db8::{i:x}"), now))
                .count(),
            20
        );
    }

    #[test]
    fn identities_of_guests_are_names_of_objects() {
        for (name, expected) in [
            ("Maria Curie", "maria-curie"),
            ("  ", "guest"),
            ("會議", "guest"),
            ("--a--", "a"),
            ("<b>x</b>", "b-x-b"),
        ] {
            assert_eq!(slug(name), expected);
        }
        assert_eq!(encode("../a b"), "..ab");
    }
}
