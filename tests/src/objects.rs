//! Reading and changing Plenum's objects on a [`Stage`].

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{Failure, NAMESPACE, Stage, dynamic, eventually};

impl Stage {
    /// A stage with a controller, the namespace `team`, and the pool `edge`; its workers are to be
    /// brought up.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn with_pool(spec: Value) -> Result<Self, Failure> {
        let mut stage = Self::new().await?;
        stage.namespace("team", &[("tier", "gold")]).await?;
        stage.start_controller().await?;
        stage.plenum("MediaWorkerPool", NAMESPACE, "edge", spec).await?;
        Ok(stage)
    }

    /// Deletes a Plenum object; it may stay for a while.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<(), Failure> {
        let api = dynamic(&self.admin, "plenum.dev/v1alpha1", kind, Some(namespace));
        api.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits for the end of an object.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn gone(&self, kind: &str, namespace: &str, name: &str) -> Result<(), Failure> {
        eventually(&format!("the end of {kind} {name}"), async || {
            self.get(kind, namespace, name).await.is_none().then_some(())
        })
        .await
    }

    /// Writes what hosts decided about breakout rooms, as the gateway does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn decide(&self, namespace: &str, meeting: &str, decisions: Value) -> Result<(), Failure> {
        let api = dynamic(&self.admin, "plenum.dev/v1alpha1", "Meeting", Some(namespace));
        let gateway = PatchParams {
            field_manager: Some("plenum-gateway".to_owned()),
            ..PatchParams::default()
        };
        let patch = json!({ "status": { "session": { "breakouts": decisions } } });
        api.patch_status(meeting, &gateway, &Patch::Merge(patch)).await?;
        Ok(())
    }
}

/// The spec of a default pool with so many workers, for meetings from everywhere.
#[must_use]
pub fn pool(replicas: u32, more: Value) -> Value {
    let mut spec =
        json!({ "replicas": replicas, "default": true, "allowedMeetings": { "namespaces": "All" } });
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        spec[key] = value;
    }
    spec
}

/// The worker that an object's assignment names.
#[must_use]
pub fn worker_of(object: &Value) -> String {
    object
        .pointer("/status/assignment/worker")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// The epoch of an object's assignment.
#[must_use]
pub fn epoch_of(object: &Value) -> u64 {
    object
        .pointer("/status/assignment/epoch")
        .and_then(Value::as_u64)
        .unwrap_or_default()
}
