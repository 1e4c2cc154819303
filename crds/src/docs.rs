//! `docs/api.md`, generated from the definitions.
//!
//! Owns the page's layout. Invariant: it says nothing that is not in the definitions.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::schema;

/// Types taken over from Kubernetes: described there, so not taken apart here.
const KUBERNETES_TYPES: [&str; 6] = [
    "affinity",
    "resources",
    "tolerations",
    "topologySpreadConstraints",
    "selector",
    "conditions",
];

/// The page.
///
/// # Errors
/// When a definition cannot be turned into JSON; a test rules that out.
pub fn markdown() -> Result<String, serde_json::Error> {
    let mut out = String::from(
        "# API reference\n\nGenerated from the crate `plenum-crds`; `make generate` writes it, `make test-unit` checks it.\n\n\
         Group `plenum.dev`, version `v1alpha1`, all namespaced, all in the category `plenum` (`kubectl get plenum`).\n",
    );
    for crd in crate::all()? {
        let short = crd.spec.names.short_names.clone().unwrap_or_default().join(", ");
        let value = serde_json::to_value(&crd)?;
        let Some(root) = value
            .pointer("/spec/versions/0/schema/openAPIV3Schema")
            .and_then(Value::as_object)
        else {
            continue;
        };
        // Writing into a String cannot fail, here and below.
        let _ = write!(
            out,
            "\n## {}\n\n`kubectl get {}` (short: `{}`). {}\n",
            crd.spec.names.kind,
            crd.spec.names.plural,
            short,
            text(root, "description")
        );
        for part in ["spec", "status"] {
            let Some(schema) = root
                .get("properties")
                .and_then(|p| p.get(part))
                .and_then(Value::as_object)
            else {
                continue;
            };
            let _ = write!(
                out,
                "\n### {}: {part}\n\n| field | type | default | meaning |\n|---|---|---|---|\n",
                crd.spec.names.kind
            );
            fields(schema, "", &mut out);
        }
        let mut rules = Vec::new();
        schema::rules(root, "", &mut rules);
        let _ = write!(
            out,
            "\n### {}: rules\n\n| on | message when broken |\n|---|---|\n",
            crd.spec.names.kind
        );
        for (path, _, message) in rules {
            let path = if path.is_empty() {
                "the object".to_owned()
            } else {
                format!("`{path}`")
            };
            let _ = writeln!(out, "| {path} | {} |", cell(&message));
        }
    }
    Ok(out)
}

fn fields(schema: &Map<String, Value>, prefix: &str, out: &mut String) {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, property) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let Some(property) = property.as_object() else {
            continue;
        };
        let path = format!("{prefix}{name}");
        let default = match property.get("default") {
            Some(value) if !value.is_object() => format!("`{value}`"),
            None if required.contains(&name.as_str()) => "required".to_owned(),
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "| `{path}` | {} | {} | {} |",
            type_of(property),
            default,
            cell(text(property, "description"))
        );
        if KUBERNETES_TYPES.contains(&name.as_str()) {
            continue;
        }
        if property.contains_key("properties") {
            fields(property, &format!("{path}."), out);
        } else if let Some(items) = property.get("items").and_then(Value::as_object)
            && items.contains_key("properties")
        {
            fields(items, &format!("{path}[]."), out);
        }
    }
}

fn type_of(property: &Map<String, Value>) -> String {
    if let Some(values) = property.get("enum").and_then(Value::as_array) {
        return values
            .iter()
            .filter_map(Value::as_str)
            .map(|v| format!("`{v}`"))
            .collect::<Vec<_>>()
            .join(" ");
    }
    let base = match (text(property, "type"), text(property, "format")) {
        ("string", "date-time") => "time".to_owned(),
        ("array", _) => {
            let items = property.get("items").and_then(Value::as_object);
            format!("list of {}", items.map_or_else(|| "any".to_owned(), type_of))
        }
        ("object", _) if property.contains_key("additionalProperties") => "map of strings".to_owned(),
        (base, _) => base.to_owned(),
    };
    let bound = |low: &str, high: &str| match (property.get(low), property.get(high)) {
        (Some(low), Some(high)) => format!(", {low} to {high}"),
        (None, Some(high)) => format!(", at most {high}"),
        _ => String::new(),
    };
    match base.as_str() {
        "integer" => base + &bound("minimum", "maximum"),
        "string" => base + &bound("minLength", "maxLength"),
        list if list.starts_with("list") => base + &bound("minItems", "maxItems"),
        _ => base,
    }
}

fn text<'a>(schema: &'a Map<String, Value>, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Text that does not break a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
        let markdown = markdown().unwrap();
        if std::env::var_os("PLENUM_GENERATE").is_some() {
            std::fs::write(path, &markdown).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            markdown,
            "run `make generate`"
        );
    }
}
