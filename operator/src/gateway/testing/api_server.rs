//! An API server that knows Meetings and BreakoutRooms.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use kube::ResourceExt as _;
use kube::client::Body;
use plenum_crds::{Assignment, BreakoutRoom};
use serde_json::{Value, json};

use super::super::route::Routes;
use super::placed;

/// An API server that knows Meetings and BreakoutRooms, and tells the mirrors at once.
#[derive(Clone)]
pub(crate) struct ApiServer {
    pub(crate) routes: Arc<Routes>,
    pub(super) version: Arc<Mutex<u64>>,
    /// So many writes meet a conflict.
    pub(crate) conflicts: Arc<Mutex<u32>>,
    pub(crate) writes: Arc<Mutex<Vec<(String, Value)>>>,
    /// Events as they were written last, by name.
    pub(crate) events: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Rooms that the watch has not told of yet.
    pub(crate) unseen: Arc<Mutex<Vec<BreakoutRoom>>>,
    /// Answers nothing of use.
    pub(crate) away: Arc<Mutex<bool>>,
    /// Where new rooms are placed.
    pub(super) place: Assignment,
}

impl ApiServer {
    pub(super) fn next_version(&self) -> String {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        version.to_string()
    }

    fn answer(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        if *self.away.lock().unwrap() {
            return failure(503, "ServiceUnavailable");
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        // apis/plenum.dev/v1alpha1/namespaces/NAMESPACE/KIND[/NAME[/status]]
        let (namespace, kind, name) = (parts[4], parts[5], parts.get(6).copied().unwrap_or_default());
        if kind == "events" {
            let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            self.events.lock().unwrap().insert(name, body.clone());
            return (200, body.clone());
        }
        if method != "GET" {
            self.writes
                .lock()
                .unwrap()
                .push((format!("{method} {path}"), body.clone()));
        }
        match (method, kind) {
            ("GET", "meetings") => match self.routes.meetings.get(namespace, name) {
                Some(meeting) => (200, serde_json::to_value(&*meeting).unwrap()),
                None => failure(404, "NotFound"),
            },
            ("PATCH", "meetings") => {
                let Some(meeting) = self.routes.meetings.get(namespace, name) else {
                    return failure(404, "NotFound");
                };
                let mut conflicts = self.conflicts.lock().unwrap();
                let stale = body["metadata"]["resourceVersion"] != json!(meeting.resource_version());
                if *conflicts > 0 || stale {
                    *conflicts = conflicts.saturating_sub(1);
                    return failure(409, "Conflict");
                }
                let mut value = serde_json::to_value(&*meeting).unwrap();
                merge(&mut value["status"], &body["status"]);
                value["metadata"]["resourceVersion"] = json!(self.next_version());
                self.routes
                    .meetings
                    .put(serde_json::from_value(value.clone()).unwrap());
                (200, value)
            }
            ("GET", "breakoutrooms") if name.is_empty() => {
                let rooms = self.routes.breakouts.all();
                let own = rooms
                    .iter()
                    .filter(|room| room.namespace().as_deref() == Some(namespace));
                let unseen = self.unseen.lock().unwrap();
                let items: Vec<Value> = own
                    .map(AsRef::as_ref)
                    .chain(unseen.iter())
                    .map(|room: &BreakoutRoom| serde_json::to_value(room).unwrap())
                    .collect();
                let list = json!({
                    "apiVersion": "plenum.dev/v1alpha1", "kind": "BreakoutRoomList", "metadata": {}, "items": items,
                });
                (200, list)
            }
            ("POST", "breakoutrooms") => {
                let mut room: BreakoutRoom = serde_json::from_value(body.clone()).unwrap();
                if self.routes.breakouts.get(namespace, &room.name_any()).is_some() {
                    return failure(409, "AlreadyExists");
                }
                room.metadata.resource_version = Some(self.next_version());
                let created = serde_json::to_value(&room).unwrap();
                self.routes.breakouts.put(placed(room, &self.place));
                (201, created)
            }
            ("DELETE", "breakoutrooms") => match self.routes.breakouts.get(namespace, name) {
                Some(_) => {
                    self.routes.breakouts.remove(namespace, name);
                    (200, json!({"kind": "Status", "status": "Success"}))
                }
                None => failure(404, "NotFound"),
            },
            _ => failure(404, "NotFound"),
        }
    }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code,
    });
    (code, status)
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

impl tower_service::Service<axum::http::Request<Body>> for ApiServer {
    type Response = axum::http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let (code, answer) = server.answer(head.method.as_str(), head.uri.path(), &body);
            let response = axum::http::Response::builder().status(code);
            Ok(response
                .body(Body::from(answer.to_string().into_bytes()))
                .unwrap())
        })
    }
}
