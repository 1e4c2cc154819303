//! `meetings/token`: an access token for whoever RBAC lets ask.
//!
//! Owns the TokenRequest's form and bounds. Nothing is stored; the API server's audit log says who
//! asked. The token appears in the answer and nowhere else.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use plenum_errors::{Code, PublicError};
use plenum_token::Role;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::status::Refusal;
use super::{GROUP, LiveApi, VERSION};
use crate::gateway::mint::{Invitation, mint};

/// Bounds of `ttlSeconds`.
const TTL: std::ops::RangeInclusive<u64> = 60..=86_400;
const DEFAULT_TTL: u64 = 3600;
const MAX_NAME_BYTES: usize = 256;
const MAX_METADATA_BYTES: usize = 4096;
const MAX_ATTRIBUTES: usize = 32;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TokenRequest {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Option<Value>,
    spec: Spec,
    /// Ignored, as the status of any object that is sent.
    #[serde(default, rename = "status")]
    _status: Option<Value>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    identity: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default = "default_role")]
    role: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    room: String,
    #[serde(default = "default_ttl")]
    ttl_seconds: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    metadata: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
}

fn default_role() -> String {
    Role::Participant.as_str().to_owned()
}

fn default_ttl() -> u64 {
    DEFAULT_TTL
}

fn read(body: &[u8]) -> Result<(TokenRequest, Role), Refusal> {
    let request: TokenRequest = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the TokenRequest cannot be read: {error}")))?;
    let expected = format!("{GROUP}/{VERSION}");
    if !request.api_version.is_empty() && request.api_version != expected {
        return Err(Refusal::bad_request(format!("apiVersion must be {expected}")));
    }
    if !request.kind.is_empty() && request.kind != "TokenRequest" {
        return Err(Refusal::bad_request("kind must be TokenRequest"));
    }
    let spec = &request.spec;
    let role = spec
        .role
        .parse::<Role>()
        .map_err(|error| Refusal::invalid("spec.role", error.to_string()))?;
    if spec.identity.is_empty() || spec.identity.len() > 128 || spec.identity.chars().any(char::is_control) {
        return Err(Refusal::invalid(
            "spec.identity",
            "must be 1 to 128 bytes without control characters: it names the participant in the meeting",
        ));
    }
    if !TTL.contains(&spec.ttl_seconds) {
        return Err(Refusal::invalid(
            "spec.ttlSeconds",
            format!("must be between {} and {}", TTL.start(), TTL.end()),
        ));
    }
    if spec.name.len() > MAX_NAME_BYTES {
        return Err(Refusal::invalid(
            "spec.name",
            format!("must be at most {MAX_NAME_BYTES} bytes"),
        ));
    }
    if spec.metadata.len() > MAX_METADATA_BYTES {
        return Err(Refusal::invalid(
            "spec.metadata",
            format!("must be at most {MAX_METADATA_BYTES} bytes"),
        ));
    }
    let attribute_bytes: usize = spec
        .attributes
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if spec.attributes.len() > MAX_ATTRIBUTES || attribute_bytes > MAX_METADATA_BYTES {
        return Err(Refusal::invalid(
            "spec.attributes",
            format!("must be at most {MAX_ATTRIBUTES} entries and {MAX_METADATA_BYTES} bytes in all"),
        ));
    }
    if spec.room.contains('/') {
        return Err(Refusal::invalid(
            "spec.room",
            "must be the name of a BreakoutRoom of the meeting",
        ));
    }
    Ok((request, role))
}

impl LiveApi {
    /// The answer to a TokenRequest for `namespace`/`name`.
    pub(super) async fn create_token(
        &self,
        namespace: &str,
        name: &str,
        body: &[u8],
        dry_run: bool,
    ) -> Result<Value, Refusal> {
        let (request, role) = read(body)?;
        let meeting = self.routes.meeting(namespace, name).await?;
        let mut room = format!("{namespace}/{name}");
        if !request.spec.room.is_empty() {
            let known = self
                .routes
                .breakouts
                .get(namespace, &request.spec.room)
                .is_some_and(|breakout| breakout.spec.meeting_ref.name == name);
            if !known {
                return Err(Refusal::invalid(
                    "spec.room",
                    "the meeting has no BreakoutRoom of that name",
                ));
            }
            room = format!("{room}/{}", request.spec.room);
        }

        let now = Timestamp::now();
        let spec = &request.spec;
        let invitation = Invitation {
            identity: spec.identity.clone(),
            name: spec.name.clone(),
            metadata: spec.metadata.clone(),
            attributes: spec.attributes.clone(),
            role,
            ttl_seconds: spec.ttl_seconds,
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let token = mint(&self.keys, &meeting, &room, invitation, seconds).await?;
        let expires = i64::try_from(seconds + spec.ttl_seconds)
            .ok()
            .and_then(|at| Timestamp::from_second(at).ok())
            .ok_or_else(|| PublicError::new(Code::Internal, "the expiry is beyond the calendar"))?;

        let mut status = json!({"expirationTimestamp": expires.to_string()});
        if !dry_run {
            let links = self.links.of(&meeting, namespace, name);
            status["token"] = json!(token);
            status["url"] = json!(links.signal);
            if let Some(page) = links.page {
                status["joinURL"] = json!(format!("{page}#token={token}"));
            }
            self.metrics
                .tokens_minted
                .with_label_values(&["live_api", role.as_str()])
                .inc();
        }
        let mut metadata = request
            .metadata
            .filter(Value::is_object)
            .unwrap_or_else(|| json!({}));
        metadata["name"] = json!(name);
        metadata["namespace"] = json!(namespace);
        metadata["creationTimestamp"] = json!(super::seconds(now));
        Ok(json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "TokenRequest",
            "metadata": metadata, "spec": request.spec, "status": status,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: Value) -> (u16, String) {
        match read(body.to_string().as_bytes()) {
            Ok(_) => (200, String::new()),
            Err(refusal) => (refusal.code, refusal.message),
        }
    }

    #[test]
    fn requests_are_read_strictly_and_refused_in_words() {
        assert_eq!(
            refused(json!({"spec": {"identity": "alice", "role": "host", "ttlSeconds": 600}})).0,
            200
        );
        for (spec, code, word) in [
            (json!({"identity": "alice", "roel": "host"}), 400, "roel"),
            (json!({"role": "host"}), 400, "identity"),
            (json!({"identity": "alice", "ttlSeconds": "600"}), 400, "u64"),
            (json!({"identity": ""}), 422, "spec.identity"),
            (json!({"identity": "a\nb"}), 422, "spec.identity"),
            (json!({"identity": "x".repeat(129)}), 422, "spec.identity"),
            (
                json!({"identity": "alice", "role": "admin"}),
                422,
                "host, cohost, participant and viewer",
            ),
            (
                json!({"identity": "alice", "ttlSeconds": 59}),
                422,
                "between 60 and 86400",
            ),
            (
                json!({"identity": "alice", "ttlSeconds": 86_401}),
                422,
                "between 60 and 86400",
            ),
            (json!({"identity": "alice", "room": "../x"}), 422, "BreakoutRoom"),
        ] {
            let (got, message) = refused(json!({ "spec": spec }));
            assert_eq!(got, code, "{message}");
            assert!(message.contains(word), "{word} in {message}");
        }
        assert_eq!(
            refused(json!({"kind": "Token", "spec": {"identity": "a"}})).0,
            400
        );
        assert_eq!(
            refused(json!({"apiVersion": "v1", "spec": {"identity": "a"}})).0,
            400
        );
        assert_eq!(read(b"not json").err().map(|refusal| refusal.code), Some(400));
    }
}
