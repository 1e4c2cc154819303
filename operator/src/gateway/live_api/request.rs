//! What a request to an aggregated API asks for, read from method, path and query.

use std::collections::HashMap;

use axum::http::Method;

use super::status::Refusal;

/// A request for a resource, in the terms of Kubernetes' authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourceRequest {
    pub(crate) verb: &'static str,
    /// `None`: across all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) resource: Resource,
    pub(crate) name: Option<String>,
}

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Participants,
    MeetingsToken,
}

impl Resource {
    pub(crate) const fn resource(self) -> &'static str {
        match self {
            Resource::Participants => "participants",
            Resource::MeetingsToken => "meetings",
        }
    }

    pub(crate) const fn subresource(self) -> Option<&'static str> {
        match self {
            Resource::Participants => None,
            Resource::MeetingsToken => Some("token"),
        }
    }

    /// For metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Resource::Participants => "participants",
            Resource::MeetingsToken => "meetings/token",
        }
    }
}

/// `path` below `/apis/live.plenum.dev/v1alpha1/`.
pub(crate) fn parse(
    method: &Method,
    path: &str,
    query: &HashMap<String, String>,
) -> Result<ResourceRequest, Refusal> {
    let unknown = || {
        Refusal::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    };
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(unknown());
    }
    let (namespace, parts) = match parts.as_slice() {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let (resource, name) = match (namespace.is_some(), parts) {
        (_, ["participants"]) => (Resource::Participants, None),
        (true, ["participants", name]) => (Resource::Participants, Some((*name).to_owned())),
        (true, ["meetings", name, "token"]) => (Resource::MeetingsToken, Some((*name).to_owned())),
        _ => return Err(unknown()),
    };
    let watches = query
        .get("watch")
        .is_some_and(|value| matches!(value.as_str(), "1" | "true" | ""));
    let verb = match (method.as_str(), resource, name.is_some()) {
        ("GET" | "HEAD", Resource::Participants, _) if watches => "watch",
        ("GET" | "HEAD", Resource::Participants, true) => "get",
        ("GET" | "HEAD", Resource::Participants, false) => "list",
        ("DELETE", Resource::Participants, true) => "delete",
        ("DELETE", Resource::Participants, false) => "deletecollection",
        ("POST", Resource::MeetingsToken, _) => "create",
        ("GET" | "HEAD", Resource::MeetingsToken, _) => "get",
        ("POST", ..) => "create",
        ("PUT", ..) => "update",
        ("PATCH", ..) => "patch",
        ("DELETE", ..) => "delete",
        _ => {
            return Err(Refusal::method_not_allowed(
                "the server does not allow this method on the requested resource",
            ));
        }
    };
    Ok(ResourceRequest {
        verb,
        namespace,
        resource,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, watch: bool) -> Result<(&'static str, Resource, Option<String>), u16> {
        let query = if watch {
            [("watch".to_owned(), "true".to_owned())].into()
        } else {
            HashMap::new()
        };
        parse(&method.parse().unwrap(), path, &query)
            .map(|request| (request.verb, request.resource, request.namespace))
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn paths_and_verbs() {
        let demo = Some("demo".to_owned());
        assert_eq!(
            ask("GET", "participants", false),
            Ok(("list", Resource::Participants, None))
        );
        assert_eq!(
            ask("GET", "namespaces/demo/participants", true),
            Ok(("watch", Resource::Participants, demo.clone()))
        );
        assert_eq!(
            ask("DELETE", "namespaces/demo/participants/alice", false),
            Ok(("delete", Resource::Participants, demo.clone()))
        );
        assert_eq!(
            ask("POST", "namespaces/demo/meetings/standup/token", false),
            Ok(("create", Resource::MeetingsToken, demo))
        );
        for path in [
            "",
            "meetings",
            "namespaces/demo",
            "namespaces/demo/meetings/standup",
            "participants/alice",
            "namespaces//participants",
            "namespaces/demo/participants/a/b",
        ] {
            assert_eq!(ask("GET", path, false), Err(404), "{path}");
        }
    }
}
