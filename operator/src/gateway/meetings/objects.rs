//! What hosts decide inside a meeting, written to its objects.
//!
//! Owns the writes of the gateway: `status.session` of Meetings and the BreakoutRooms made in a
//! meeting. Invariants: nobody's spec is written; a decision is made from the object as it is at
//! that moment, and made again where somebody else wrote in between; what did not change is not
//! written.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use plenum_breakout::{Plan, pruned};
use plenum_crds::{BreakoutDecisions, BreakoutRoom, GATEWAY_MANAGER, Meeting, SessionDecisions};
use plenum_errors::{Code, PublicError};
use serde_json::{Map, Value, json};

/// Attempts to write before others have.
const TRIES: usize = 5;
/// Objects written at once.
const PARALLEL: usize = 8;
/// How long the API server may take for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Creates the rooms, which know their meeting and their names. Those that exist by now are left as
/// they are.
pub(crate) async fn create(
    client: &Client,
    namespace: &str,
    rooms: Vec<BreakoutRoom>,
) -> Result<Vec<BreakoutRoom>, PublicError> {
    let api: Api<BreakoutRoom> = Api::namespaced(client.clone(), namespace);
    let params = PostParams {
        field_manager: Some(GATEWAY_MANAGER.to_owned()),
        ..PostParams::default()
    };
    futures::stream::iter(rooms.into_iter().map(|room| {
        let (api, params) = (&api, &params);
        async move {
            in_time(api.create(params, &room))
                .await?
                .map_err(|error| failed(&error, "a BreakoutRoom cannot be created"))
        }
    }))
    .buffered(PARALLEL)
    .try_collect()
    .await
}

/// Deletes a room. One that is gone is no fault.
pub(crate) async fn delete(client: &Client, namespace: &str, name: &str) -> Result<(), PublicError> {
    let api: Api<BreakoutRoom> = Api::namespaced(client.clone(), namespace);
    match in_time(api.delete(name, &DeleteParams::default())).await? {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(&error, "a BreakoutRoom cannot be deleted")),
    }
}

/// Writes what `decide` makes of the Meeting as it is now and of its plan; `None` = nothing to write.
/// Asked again where somebody else wrote in between. `mirrored`: the rooms of the namespace, as far as
/// the watch has told.
pub(crate) async fn write_session(
    client: &Client,
    namespace: &str,
    name: &str,
    mirrored: impl Fn() -> Vec<Arc<BreakoutRoom>>,
    mut decide: impl FnMut(&Meeting, &Plan) -> Result<Option<SessionDecisions>, PublicError>,
) -> Result<(), PublicError> {
    let api: Api<Meeting> = Api::namespaced(client.clone(), namespace);
    for _ in 0..TRIES {
        let meeting = in_time(api.get(name))
            .await?
            .map_err(|error| failed(&error, "the Meeting cannot be read"))?;
        let mut plan = Plan::of(&meeting, mirrored().iter().map(AsRef::as_ref));
        if pruned(&meeting, &plan).is_some() {
            // Decisions that seem to be about nothing may be newer than what the watch has told of the
            // rooms. What is read after the Meeting is not older than its decisions.
            let rooms: Api<BreakoutRoom> = Api::namespaced(client.clone(), namespace);
            let listed = in_time(rooms.list(&ListParams::default()))
                .await?
                .map_err(|error| failed(&error, "the BreakoutRooms cannot be read"))?;
            plan = Plan::of(&meeting, &listed.items);
        }
        let Some(decided) = decide(&meeting, &plan)? else {
            return Ok(());
        };
        let before = meeting.status.as_ref().and_then(|status| status.session.clone());
        let Some(change) = difference(&before.unwrap_or_default(), &decided)? else {
            return Ok(());
        };
        let patch = json!({
            "metadata": {"resourceVersion": meeting.resource_version()},
            "status": {"session": change},
        });
        let params = PatchParams {
            field_manager: Some(GATEWAY_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match in_time(api.patch_status(name, &params, &Patch::Merge(&patch))).await? {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(failed(&error, "the Meeting's status cannot be written")),
        }
    }
    Err(Code::WriteConflict.into())
}

/// The Meeting's decisions with these about breakout rooms.
pub(crate) fn with_breakouts(meeting: &Meeting, breakouts: BreakoutDecisions) -> SessionDecisions {
    let session = meeting.status.as_ref().and_then(|status| status.session.clone());
    SessionDecisions {
        breakouts: Some(breakouts),
        ..session.unwrap_or_default()
    }
}

/// The merge patch from one to the other; `None` where they are the same.
fn difference(before: &SessionDecisions, after: &SessionDecisions) -> Result<Option<Value>, PublicError> {
    let json = |session: &SessionDecisions| {
        serde_json::to_value(session)
            .map_err(|_| PublicError::new(Code::Internal, "decisions cannot be written"))
    };
    Ok(merge_patch(&json(before)?, &json(after)?))
}

/// RFC 7386: members that are gone become null, lists are replaced as a whole.
fn merge_patch(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let gone = before
        .keys()
        .filter(|key| !after.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter_map(|(key, value)| {
        let change = match before.get(key) {
            Some(known) => merge_patch(known, value)?,
            None => value.clone(),
        };
        Some((key.clone(), change))
    });
    let patch: Map<String, Value> = gone.chain(changed).collect();
    (!patch.is_empty()).then_some(Value::Object(patch))
}

async fn in_time<T>(call: impl Future<Output = T>) -> Result<T, PublicError> {
    tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .map_err(|_| Code::DecisionNotWritten.into())
}

/// What a failed call to the API server means to somebody in the meeting.
fn failed(error: &kube::Error, what: &str) -> PublicError {
    tracing::warn!(%error, what);
    match error {
        kube::Error::Api(status) if status.code == 409 => Code::WriteConflict.into(),
        kube::Error::Api(status) if status.code == 404 => PublicError::new(Code::MeetingNotFound, what),
        kube::Error::Api(status) if matches!(status.code, 400 | 422) => {
            PublicError::new(Code::RequestMalformed, status.message.clone())
        }
        kube::Error::Api(status) if status.code == 403 => PublicError::new(
            Code::NotPermitted,
            "the gateway, or a policy of the cluster, does not allow it",
        ),
        kube::Error::Api(status) if status.code < 500 && status.code != 429 => {
            PublicError::new(Code::Internal, what)
        }
        _ => PublicError::new(Code::DecisionNotWritten, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_says_what_changed_and_what_is_gone() {
        let before = json!({"a": 1, "b": {"c": [1], "d": 2}, "e": [1, 2]});
        let after = json!({"a": 1, "b": {"c": []}, "f": {"g": 1}});
        assert_eq!(
            merge_patch(&before, &after),
            Some(json!({"b": {"c": [], "d": null}, "e": null, "f": {"g": 1}}))
        );
        assert_eq!(merge_patch(&after, &after), None);
    }
}
