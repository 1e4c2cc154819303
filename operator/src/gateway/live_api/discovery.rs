//! What the live API says of itself: groups, versions, resources, in both forms of discovery.

use serde_json::{Value, json};

use super::{GROUP, VERSION};

/// `/apis`
pub(crate) fn groups() -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})
}

/// `/apis/live.plenum.dev`
pub(crate) fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
        "versions": [version], "preferredVersion": version,
    })
}

/// `/apis/live.plenum.dev/v1alpha1`
pub(crate) fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [
            {
                "name": "meetings/token", "singularName": "", "namespaced": true,
                "kind": "TokenRequest", "verbs": ["create"],
            },
            {
                "name": "participants", "singularName": "participant", "namespaced": true,
                "kind": "Participant", "verbs": ["delete", "get", "list"],
                "shortNames": ["ptc"], "categories": ["plenum"],
            },
        ],
    })
}

/// The content type by which aggregated discovery is asked for and answered.
pub(crate) const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Does an Accept header ask for the aggregated form that is spoken here?
pub(crate) fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').map(|part| part.replace(' ', "")).any(|part| {
        part.starts_with("application/json")
            && part.contains("g=apidiscovery.k8s.io")
            && part.contains(";v=v2;")
            && part.contains("as=APIGroupDiscoveryList")
    })
}

/// `/apis` in the aggregated form.
pub(crate) fn aggregated() -> Value {
    let kind = |kind: &str| json!({"group": GROUP, "version": VERSION, "kind": kind});
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": [{
            "metadata": {"name": GROUP},
            "versions": [{
                "version": VERSION, "freshness": "Current",
                "resources": [
                    {
                        // `meetings` itself lives in plenum.dev; here it is the token's parent alone.
                        // An empty kind is how clients are told so: with one, kubectl would take
                        // `kubectl get meetings` for a question to this API.
                        "resource": "meetings", "singularResource": "meeting", "scope": "Namespaced", "verbs": [],
                        "responseKind": {"group": "", "version": "", "kind": ""},
                        "subresources": [{
                            "subresource": "token", "responseKind": kind("TokenRequest"), "verbs": ["create"],
                        }],
                    },
                    {
                        "resource": "participants", "singularResource": "participant", "scope": "Namespaced",
                        "responseKind": kind("Participant"), "verbs": ["delete", "get", "list"],
                        "shortNames": ["ptc"], "categories": ["plenum"],
                    },
                ],
            }],
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meetings_are_not_offered_as_a_resource_of_this_group() {
        let resources = aggregated()
            .pointer("/items/0/versions/0/resources")
            .cloned()
            .unwrap();
        let parent = resources
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["resource"] == "meetings")
            .unwrap();
        assert_eq!(
            parent["responseKind"],
            json!({"group": "", "version": "", "kind": ""})
        );
        assert_eq!(parent["subresources"][0]["responseKind"]["kind"], "TokenRequest");
        let legacy = super::resources().to_string();
        assert!(!legacy.contains("\"meetings\""));
        assert!(wants_aggregated(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        ));
        assert!(!wants_aggregated("application/json"));
    }
}
