use serde_json::Value;

use super::*;

fn schemas() -> Vec<(String, Value)> {
    all()
        .unwrap()
        .into_iter()
        .map(|crd| {
            let value = serde_json::to_value(&crd).unwrap();
            (
                crd.spec.names.kind,
                value
                    .pointer("/spec/versions/0/schema/openAPIV3Schema")
                    .unwrap()
                    .clone(),
            )
        })
        .collect()
}

fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        walk(property, &format!("{path}.{name}"), visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(key).filter(|v| v.is_object()) {
            walk(inner, &format!("{path}[]"), visit);
        }
    }
}

/// What comes from Kubernetes has Kubernetes' own bounds.
fn ours(path: &str) -> bool {
    ![
        "affinity",
        "resources",
        "tolerations",
        "topologySpread",
        "selector",
        "conditions",
        "metadata",
    ]
    .iter()
    .any(|theirs| {
        path.starts_with(&format!(".spec.template.{theirs}")) || path.contains(&format!(".{theirs}"))
    }) && ![".apiVersion", ".kind"].contains(&path)
}

#[test]
fn strings_and_lists_are_bounded() {
    for (kind, schema) in schemas() {
        walk(&schema, "", &mut |path, schema| {
            if !ours(path) || path.ends_with("nodeSelector[]") || path.ends_with("serviceAnnotations[]") {
                return;
            }
            let bounded = match schema.get("type").and_then(Value::as_str) {
                Some("string") => ["maxLength", "enum", "format"]
                    .iter()
                    .any(|k| schema.get(k).is_some()),
                Some("array") => schema.get("maxItems").is_some(),
                _ => true,
            };
            assert!(bounded, "{kind}{path} has no bound");
        });
    }
}

#[test]
fn every_field_is_documented_and_nothing_is_nullable() {
    for (kind, schema) in schemas() {
        walk(&schema, "", &mut |path, schema| {
            assert!(schema.get("nullable").is_none(), "{kind}{path}");
            assert!(
                schema.get("x-kubernetes-preserve-unknown-fields").is_none(),
                "{kind}{path} takes anything"
            );
            if ours(path) && !path.ends_with("[]") && !path.is_empty() {
                let documented = schema
                    .get("description")
                    .and_then(Value::as_str)
                    .is_some_and(|d| d.len() > 3);
                assert!(documented, "{kind}{path} has no description");
            }
            if let Some(format) = schema.get("format").and_then(Value::as_str) {
                assert!(
                    ["int32", "int64", "date-time"].contains(&format),
                    "{kind}{path}: {format}"
                );
            }
        });
    }
}

#[test]
fn a_fresh_object_is_not_healthy() {
    for (kind, schema) in schemas() {
        assert_eq!(
            schema.pointer("/properties/status/default/observedGeneration"),
            Some(&json!(-1)),
            "{kind}"
        );
        assert_eq!(
            schema.pointer("/properties/status/properties/observedGeneration/default"),
            Some(&json!(-1)),
            "{kind}"
        );
    }
}

#[test]
fn every_rule_says_what_to_do() {
    for (kind, schema) in schemas() {
        let mut found = Vec::new();
        rules(schema.as_object().unwrap(), "", &mut found);
        assert!(!found.is_empty(), "{kind}");
        for (path, rule, message) in found {
            assert!(
                message.len() > 30 && message.contains([';', ',']),
                "{kind} {path} {rule}: {message:?}"
            );
        }
    }
}

#[test]
fn the_defaults_of_the_schema_are_those_of_the_types() {
    let meeting: crate::MeetingSpec = serde_json::from_value(json!({})).unwrap();
    assert_eq!(meeting, crate::MeetingSpec::default());
    let pool: crate::MediaWorkerPoolSpec = serde_json::from_value(json!({})).unwrap();
    assert_eq!(pool, crate::MediaWorkerPoolSpec::default());
    let viewer = crate::Permissions::default().viewer;
    assert!(viewer.publish.is_empty() && !viewer.publish_data);
}
