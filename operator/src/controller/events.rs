//! Kubernetes Events: what happened to an object, for people who describe it.
//!
//! Best effort: an Event that cannot be written is logged at debug level and forgotten; nothing
//! waits for one. Repeated ones are aggregated into a series by kube's recorder.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use plenum_crds::Reason;

/// Writes Events.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events of this controller instance.
    pub(crate) fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter {
            controller: "plenum-controller".into(),
            instance: Some(instance.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Something went as it should.
    pub(crate) fn normal(&self, object: ObjectReference, action: &str, reason: Reason, note: &str) {
        self.publish(EventType::Normal, object, action, reason, note);
    }

    /// Something needs attention.
    pub(crate) fn warning(&self, object: ObjectReference, action: &str, reason: Reason, note: &str) {
        self.publish(EventType::Warning, object, action, reason, note);
    }

    fn publish(&self, type_: EventType, object: ObjectReference, action: &str, reason: Reason, note: &str) {
        let event = Event {
            type_,
            reason: reason.as_str().to_owned(),
            note: Some(note.to_owned()),
            action: action.to_owned(),
            secondary: None,
        };
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &object).await {
                tracing::debug!(%error, "event not written");
            }
        });
    }
}
