//! The OpenAPI documents of the live API, in version 2 and 3 from one description.

use serde_json::{Map, Value, json};

use super::{GROUP, VERSION};

const PARTICIPANT: &str = "dev.plenum.live.v1alpha1.Participant";
const PARTICIPANT_LIST: &str = "dev.plenum.live.v1alpha1.ParticipantList";
const TOKEN_REQUEST: &str = "dev.plenum.live.v1alpha1.TokenRequest";

fn kind_of(kind: &str) -> Value {
    json!([{"group": GROUP, "version": VERSION, "kind": kind}])
}

/// Every schema; `prefix` is where references point (`#/definitions/` or `#/components/schemas/`).
fn schemas(prefix: &str) -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let meta = json!({"type": "object", "description": "Standard object metadata."});
    let type_fields = |properties: Value| -> Value {
        let mut all: Map<String, Value> = Map::new();
        all.insert("apiVersion".into(), text("Version of this representation."));
        all.insert("kind".into(), text("Kind of this representation."));
        all.insert("metadata".into(), meta.clone());
        if let Value::Object(more) = properties {
            all.extend(more);
        }
        Value::Object(all)
    };
    json!({
        PARTICIPANT: {
            "type": "object",
            "description": "Somebody in a meeting, as the worker that holds the room sees them now.",
            "properties": type_fields(json!({
                "spec": {
                    "type": "object",
                    "description": "Who it is and where.",
                    "properties": {
                        "identity": text("Identity from the participant's token."),
                        "displayName": text("Name that others see."),
                        "meeting": text("Name of the Meeting."),
                        "room": text("Name of the BreakoutRoom; absent in the main room."),
                        "role": text("host, cohost, participant or viewer."),
                    },
                },
                "status": {
                    "type": "object",
                    "description": "What is seen of them.",
                    "properties": {
                        "sid": text("Id of this connection."),
                        "state": text("Joining, Joined, Active or Disconnected."),
                        "joinedAt": {"type": "string", "format": "date-time", "description": "When they joined."},
                        "quality": text("excellent, good, poor, lost, or empty while unknown."),
                        "kind": text("standard, ingress, egress, sip or agent."),
                        "tracks": {
                            "type": "array",
                            "description": "What they publish.",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "sid": text("Id of the track."),
                                    "name": text("Name of the track."),
                                    "source": text("camera, microphone, screen_share or screen_share_audio."),
                                    "type": text("audio, video or data."),
                                    "muted": {"type": "boolean", "description": "Nothing is sent on it now."},
                                    "mimeType": text("Codec."),
                                },
                            },
                        },
                    },
                },
            })),
            "x-kubernetes-group-version-kind": kind_of("Participant"),
        },
        PARTICIPANT_LIST: {
            "type": "object",
            "description": "Participants.",
            "required": ["items"],
            "properties": type_fields(json!({
                "items": {"type": "array", "description": "The participants.", "items": {"$ref": format!("{prefix}{PARTICIPANT}")}},
            })),
            "x-kubernetes-group-version-kind": kind_of("ParticipantList"),
        },
        TOKEN_REQUEST: {
            "type": "object",
            "description": "Asks for an access token for a Meeting.",
            "required": ["spec"],
            "properties": type_fields(json!({
                "spec": {
                    "type": "object",
                    "description": "Whom the token is for.",
                    "required": ["identity"],
                    "properties": {
                        "identity": text("Identity of the participant, unique in the meeting; at most 128 bytes."),
                        "name": text("Name that others see; the identity where left out."),
                        "role": text("host, cohost, participant (the default) or viewer."),
                        "room": text("Name of a BreakoutRoom of the meeting; the main room where left out."),
                        "ttlSeconds": {
                            "type": "integer", "format": "int64", "minimum": 60, "maximum": 86400, "default": 3600,
                            "description": "How long the token may be used to join.",
                        },
                        "metadata": text("Free text that other participants can read."),
                        "attributes": {
                            "type": "object", "additionalProperties": {"type": "string"},
                            "description": "Key-value pairs that other participants can read.",
                        },
                    },
                },
                "status": {
                    "type": "object",
                    "description": "The answer.",
                    "properties": {
                        "token": text("The access token. Treat it as a password."),
                        "expirationTimestamp": {"type": "string", "format": "date-time", "description": "When it expires."},
                        "url": text("Address for LiveKit clients."),
                        "joinURL": text("Link for a browser; it contains the token."),
                    },
                },
            })),
            "x-kubernetes-group-version-kind": kind_of("TokenRequest"),
        },
    })
}

/// The operations: path, method, action, response schema, whether the body is a TokenRequest.
fn operations() -> Vec<(
    String,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    bool,
)> {
    let base = format!("/apis/{GROUP}/{VERSION}");
    let namespaced = format!("{base}/namespaces/{{namespace}}");
    vec![
        (
            format!("{base}/participants"),
            "get",
            "list",
            "ParticipantList",
            PARTICIPANT_LIST,
            false,
        ),
        (
            format!("{namespaced}/participants"),
            "get",
            "list",
            "ParticipantList",
            PARTICIPANT_LIST,
            false,
        ),
        (
            format!("{namespaced}/participants/{{name}}"),
            "get",
            "get",
            "Participant",
            PARTICIPANT,
            false,
        ),
        (
            format!("{namespaced}/participants/{{name}}"),
            "delete",
            "delete",
            "Participant",
            PARTICIPANT,
            false,
        ),
        (
            format!("{namespaced}/meetings/{{name}}/token"),
            "post",
            "post",
            "TokenRequest",
            TOKEN_REQUEST,
            true,
        ),
    ]
}

fn operation_id(path: &str, action: &str) -> String {
    let mut id = action.to_owned();
    for part in path.split(['/', '{', '}', '.']).filter(|part| !part.is_empty()) {
        let mut characters = part.chars();
        id.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        id.push_str(characters.as_str());
    }
    id
}

fn info() -> Value {
    json!({"title": "Plenum live API", "version": VERSION})
}

/// `/openapi/v2`
pub(crate) fn v2() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (path, method, action, kind, schema, has_body) in operations() {
        let mut parameters: Vec<Value> = parameter_names(&path)
            .map(|name| json!({"name": name, "in": "path", "required": true, "type": "string"}))
            .collect();
        if has_body {
            parameters.push(json!({
                "name": "body", "in": "body", "required": true,
                "schema": {"$ref": format!("#/definitions/{schema}")},
            }));
        }
        let operation = json!({
            "operationId": operation_id(&path, action),
            "consumes": ["application/json"], "produces": ["application/json"], "schemes": ["https"],
            "parameters": parameters,
            "responses": {
                "200": {"description": "OK", "schema": {"$ref": format!("#/definitions/{schema}")}},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": kind},
        });
        insert(&mut paths, path, method, operation);
    }
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": schemas("#/definitions/")})
}

/// `/openapi/v3`
pub(crate) fn v3_index() -> Value {
    let path = format!("apis/{GROUP}/{VERSION}");
    // The hash lets clients cache for good: it changes with the document, which changes with the build.
    let url = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
    json!({"paths": {path: {"serverRelativeURL": url}}})
}

/// `/openapi/v3/apis/live.plenum.dev/v1alpha1`
pub(crate) fn v3() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (path, method, action, kind, schema, has_body) in operations() {
        let content =
            json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
        let parameters: Vec<Value> = parameter_names(&path)
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let mut operation = json!({
            "operationId": operation_id(&path, action),
            "parameters": parameters,
            "responses": {
                "200": {"description": "OK", "content": content},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": kind},
        });
        if has_body {
            operation["requestBody"] = json!({"required": true, "content": content});
        }
        insert(&mut paths, path, method, operation);
    }
    json!({
        "openapi": "3.0.0", "info": info(), "paths": paths,
        "components": {"schemas": schemas("#/components/schemas/")},
    })
}

fn insert(paths: &mut Map<String, Value>, path: String, method: &str, operation: Value) {
    let entry = paths.entry(path).or_insert_with(|| json!({}));
    entry[method] = operation;
}

fn parameter_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_resolves_and_operation_ids_are_unique() {
        for (document, prefix, place) in [
            (v2(), "#/definitions/", "/definitions"),
            (v3(), "#/components/schemas/", "/components/schemas"),
        ] {
            let text = document.to_string();
            let known = document.pointer(place).unwrap().as_object().unwrap();
            for part in text.split(&format!("\"{prefix}")).skip(1) {
                let name = part.split('"').next().unwrap();
                assert!(known.contains_key(name), "{name}");
            }
            let mut ids: Vec<&str> = text
                .split("\"operationId\":\"")
                .skip(1)
                .map(|part| part.split('"').next().unwrap())
                .collect();
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!((count, ids.len()), (5, 5));
        }
    }
}
