//! The CustomResourceDefinitions as the API server gets them.
//!
//! Owns what the derives cannot say. Invariants of the result: no `nullable` (a null is dropped
//! before defaults are filled in, so that CEL's `has()` means "somebody set it"), no integer formats
//! that Kubernetes does not know, and a default status by which a fresh object is not healthy.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::{BreakoutRoom, MediaWorkerPool, Meeting};

/// What `status.observedGeneration` says before the controller has seen the object.
pub(crate) fn never_observed() -> i64 {
    -1
}

/// Every CustomResourceDefinition, in the order in which the documentation shows them.
///
/// # Errors
/// When a derived definition is not what [`finish`] takes it for; a test rules that out.
pub fn all() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    [Meeting::crd(), BreakoutRoom::crd(), MediaWorkerPool::crd()]
        .into_iter()
        .map(finish)
        .collect()
}

fn finish(crd: CustomResourceDefinition) -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut value = serde_json::to_value(crd)?;
    if let Some(versions) = value.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                tidy(schema);
                if let Some(status) = schema
                    .pointer_mut("/properties/status")
                    .and_then(Value::as_object_mut)
                {
                    status.insert(
                        "default".into(),
                        json!({ "observedGeneration": never_observed() }),
                    );
                    status.insert("description".into(), "What is. Written by the controller.".into());
                }
            }
        }
    }
    serde_json::from_value(value)
}

fn tidy(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.remove("nullable");
    match object.get("format").and_then(Value::as_str) {
        Some("uint8" | "uint16" | "uint32") => {
            object.insert("format".into(), "int32".into());
        }
        Some("uint" | "uint64") => {
            object.insert("format".into(), "int64".into());
        }
        _ => {}
    }
    // schemars writes bounds as floats; YAML readers should not see `1.0`.
    for bound in ["minimum", "maximum"] {
        if let Some(float) = object.get(bound).and_then(Value::as_f64)
            && float.fract() == 0.0
        {
            object.insert(bound.into(), json!(float as i64));
        }
    }
    for key in ["properties", "items", "additionalProperties"] {
        match (key, object.get_mut(key)) {
            ("properties", Some(Value::Object(properties))) => properties.values_mut().for_each(tidy),
            (_, Some(inner)) => tidy(inner),
            _ => {}
        }
    }
}

/// A CEL rule of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Kind of the object.
    pub kind: String,
    /// Path of the field that carries the rule; empty for the object itself.
    pub path: String,
    /// What the API server says when it is broken.
    pub message: String,
}

/// Every CEL rule of every definition.
///
/// # Errors
/// As [`all`].
pub fn cel_rules() -> Result<Vec<Rule>, serde_json::Error> {
    let mut out = Vec::new();
    for crd in all()? {
        let kind = crd.spec.names.kind.clone();
        let value = serde_json::to_value(&crd)?;
        let mut found = Vec::new();
        if let Some(root) = value
            .pointer("/spec/versions/0/schema/openAPIV3Schema")
            .and_then(Value::as_object)
        {
            rules(root, "", &mut found);
        }
        out.extend(found.into_iter().map(|(path, _, message)| Rule {
            kind: kind.clone(),
            path,
            message,
        }));
    }
    Ok(out)
}

/// Every CEL rule of a schema with the path of the field that carries it.
pub(crate) fn rules(schema: &Map<String, Value>, path: &str, out: &mut Vec<(String, String, String)>) {
    for rule in schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let text = |key: &str| {
            rule.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        out.push((path.to_owned(), text("rule"), text("message")));
    }
    for (name, property) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if let Some(property) = property.as_object() {
            rules(
                property,
                &if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                },
                out,
            );
        }
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
