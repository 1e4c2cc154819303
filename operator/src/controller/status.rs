//! Conditions and the writing of status.
//!
//! Owns how a status changes. Invariants: `lastTransitionTime` stays unless the status flips; a
//! condition that is not set anew is dropped (so that Reconciling and Stalled are there only while
//! abnormal, and never both); every write carries the resourceVersion it was computed from, so that
//! a stale cache gets a conflict instead of the last word.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use plenum_crds::{Assignment, ConditionType, Reason};
use plenum_worker_api::v1::RoomReport;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Longest message of a condition.
const MAX_MESSAGE: usize = 1024;

/// The conditions of one object, being computed.
pub(crate) struct Conditions<'a> {
    previous: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    list: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Starts from what stands in the object.
    pub(crate) fn new(previous: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self {
            previous,
            generation,
            now,
            list: Vec::new(),
        }
    }

    /// Sets one condition.
    pub(crate) fn set(
        &mut self,
        kind: ConditionType,
        status: bool,
        reason: Reason,
        message: impl Into<String>,
    ) {
        let status = if status { "True" } else { "False" };
        let before = self
            .previous
            .iter()
            .find(|condition| condition.type_ == kind.as_str());
        let since = match before {
            Some(before) if before.status == status => before.last_transition_time.clone(),
            _ => Time(Timestamp::from_second(self.now.as_second()).unwrap_or(self.now)),
        };
        let mut message: String = message.into();
        if message.len() > MAX_MESSAGE {
            let cut = (0..=MAX_MESSAGE)
                .rev()
                .find(|at| message.is_char_boundary(*at))
                .unwrap_or(0);
            message.truncate(cut);
        }
        self.list.retain(|condition| condition.type_ != kind.as_str());
        self.list.push(Condition {
            type_: kind.as_str().to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message,
            observed_generation: self.generation,
            last_transition_time: since,
        });
    }

    /// Sets Reconciling: the controller is on its way and needs no help.
    pub(crate) fn reconciling(&mut self, reason: Reason, message: impl Into<String>) {
        self.list
            .retain(|condition| condition.type_ != ConditionType::Stalled.as_str());
        self.set(ConditionType::Reconciling, true, reason, message);
    }

    /// Sets Stalled: somebody has to change something.
    pub(crate) fn stalled(&mut self, reason: Reason, message: impl Into<String>) {
        self.list
            .retain(|condition| condition.type_ != ConditionType::Reconciling.as_str());
        self.set(ConditionType::Stalled, true, reason, message);
    }

    /// The result, sorted by type so that equal states are equal lists.
    pub(crate) fn finish(mut self) -> Vec<Condition> {
        self.list.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.list
    }
}

/// The reason of a condition as it stands.
pub(crate) fn reason_of(conditions: &[Condition], kind: ConditionType) -> Option<&str> {
    conditions
        .iter()
        .find(|condition| condition.type_ == kind.as_str())
        .map(|condition| condition.reason.as_str())
}

/// The participants as they are written: none where no worker holds the room, what the worker reports
/// where it is time to `count`, else what stands.
pub(crate) fn participants(
    assignment: Option<&Assignment>,
    report: Option<&RoomReport>,
    count: bool,
    before: Option<i32>,
) -> Option<i32> {
    match (assignment, report) {
        (None, _) => Some(0),
        (Some(_), Some(report)) if count || before.is_none() => {
            Some(i32::try_from(report.participants).unwrap_or(i32::MAX))
        }
        _ => before.or(Some(0)),
    }
}

/// The highest epoch ever assigned; `None` where there was none.
pub(crate) fn highest_epoch(assignment: Option<&Assignment>, before: Option<i64>) -> Option<i64> {
    let epoch = assignment.map_or(0, |to| to.epoch).max(before.unwrap_or(0));
    (epoch > 0).then_some(epoch)
}

/// Applies a status by server-side apply. Call it only where the status differs.
pub(crate) async fn apply<K>(
    api: &Api<K>,
    object: &K,
    manager: &str,
    status: &impl Serialize,
) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let patch = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": { "name": object.name_any(), "resourceVersion": object.resource_version() },
        "status": status,
    });
    api.patch_status(
        &object.name_any(),
        &PatchParams::apply(manager).force(),
        &Patch::Apply(patch),
    )
    .await
}

/// Adds or removes a finalizer; nothing is written where it stands right already.
pub(crate) async fn set_finalizer<K>(
    api: &Api<K>,
    object: &K,
    finalizer: &str,
    present: bool,
) -> Result<Option<K>, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    if finalizers.iter().any(|other| other == finalizer) == present {
        return Ok(None);
    }
    finalizers.retain(|other| other != finalizer);
    if present {
        finalizers.push(finalizer.to_owned());
    }
    let patch =
        json!({ "metadata": { "resourceVersion": object.resource_version(), "finalizers": finalizers } });
    match api
        .patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(object) => Ok(Some(object)),
        // Removing it from an object that is gone meanwhile is what was wanted.
        Err(kube::Error::Api(status)) if status.code == 404 && !present => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let mut conditions = Conditions::new(&[], Some(1), at(100));
        conditions.set(ConditionType::Ready, true, Reason::Idle, "nobody is in it");
        let first = conditions.finish();
        let mut conditions = Conditions::new(&first, Some(2), at(200));
        conditions.set(ConditionType::Ready, true, Reason::Active, "people are in it");
        let second = conditions.finish();
        assert_eq!(second[0].last_transition_time.0, at(100));
        assert_eq!(
            (second[0].reason.as_str(), second[0].observed_generation),
            ("Active", Some(2))
        );
        let mut conditions = Conditions::new(&second, Some(2), at(300));
        conditions.set(ConditionType::Ready, false, Reason::NoCapacity, "full");
        assert_eq!(conditions.finish()[0].last_transition_time.0, at(300));
    }

    #[test]
    fn reconciling_and_stalled_never_stand_together_and_go_by_themselves() {
        let mut conditions = Conditions::new(&[], None, at(1));
        conditions.reconciling(Reason::PoolNotReady, "wait");
        conditions.stalled(Reason::PoolNotFound, "no pool");
        let list = conditions.finish();
        assert_eq!(
            list.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(),
            ["Stalled"]
        );
        let mut conditions = Conditions::new(&list, None, at(2));
        conditions.set(ConditionType::Ready, true, Reason::Idle, "");
        assert_eq!(conditions.finish().len(), 1);
    }
}
