//! The chart `plenum-crds`, generated from the types.
//!
//! Owns its templates. Invariant: the only template expression in them is the keep policy.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// Why the chart cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A definition cannot be turned into JSON or back.
    #[error("a definition cannot be serialized: {0}")]
    Json(#[from] serde_json::Error),
    /// A definition cannot be turned into YAML.
    #[error("a definition cannot be written as YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// A description would be read as a template by Helm.
    #[error("{0} contains {{{{, which Helm would expand; reword the description")]
    TemplateSyntax(String),
    /// The annotations could not be placed.
    #[error("{0} has no metadata.name line to put the keep policy before")]
    NoMetadata(String),
}

/// A file of the chart: its name below `charts/plenum-crds/templates` and its content.
pub struct ChartFile {
    /// File name.
    pub name: String,
    /// Text.
    pub content: String,
}

/// The templates of the chart, one per kind.
///
/// # Errors
/// When a definition cannot be written; a test rules that out.
pub fn templates() -> Result<Vec<ChartFile>, GenerateError> {
    crate::all()?.iter().map(template).collect()
}

/// The definition as plain YAML, as `kubectl apply` takes it.
///
/// # Errors
/// When a definition cannot be written; a test rules that out.
pub fn plain(crd: &CustomResourceDefinition) -> Result<String, GenerateError> {
    Ok(serde_yaml::to_string(crd)?)
}

fn template(crd: &CustomResourceDefinition) -> Result<ChartFile, GenerateError> {
    let name = crd.spec.names.plural.clone();
    let yaml = plain(crd)?;
    if yaml.contains("{{") {
        return Err(GenerateError::TemplateSyntax(name));
    }
    let marker = format!("metadata:\n  name: {name}.{}\n", crd.spec.group);
    let (head, tail) = yaml
        .split_once(&marker)
        .ok_or_else(|| GenerateError::NoMetadata(name.clone()))?;
    let content = format!(
        "# Generated from the crate plenum-crds by `make generate`; do not edit.\n\
         {head}metadata:\n  name: {name}.{group}\n  labels:\n    app.kubernetes.io/part-of: plenum\n\
         {{{{- if .Values.keep }}}}\n  annotations:\n    helm.sh/resource-policy: keep\n{{{{- end }}}}\n{tail}",
        group = crd.spec.group,
    );
    Ok(ChartFile {
        name: format!("{name}.yaml"),
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_is_current() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/plenum-crds/templates");
        let files = templates().unwrap();
        assert_eq!(files.len(), 3);
        for file in files {
            let path = format!("{folder}/{}", file.name);
            if std::env::var_os("PLENUM_GENERATE").is_some() {
                std::fs::create_dir_all(folder).unwrap();
                std::fs::write(&path, &file.content).unwrap();
            }
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                file.content,
                "run `make generate`"
            );
        }
    }
}
