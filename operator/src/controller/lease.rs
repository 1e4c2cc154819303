//! Leader election by a guarded replace on a Lease.
//!
//! Owns the Lease object. Invariants: every write carries the resourceVersion that was read, so of
//! two candidates one gets a conflict; whether the other's lease has run out is judged by the local
//! monotonic clock since its last change was *seen*, never by comparing clocks of two machines; a
//! leader that could not renew for [`Timing::deadline`] stops leading before anyone else may start.
//!
//! The published crates were read first: one decides expiry by the wall clock of the holder, the
//! other is bound to an older kube.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

/// How long things take. The deadline must be shorter than the duration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Others may take over when the Lease did not change for this long.
    pub(crate) duration: Duration,
    /// A leader that could not renew for this long gives up.
    pub(crate) deadline: Duration,
    /// Time between two attempts.
    pub(crate) retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(10),
            deadline: Duration::from_secs(7),
            retry: Duration::from_secs(2),
        }
    }
}

/// What was last seen of the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    version: String,
    holder: String,
    duration: Duration,
    at: Instant,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Renew,
    TakeOver,
    Wait,
}

fn step(seen: Option<&Seen>, me: &str, now: Instant) -> Step {
    match seen {
        None => Step::Create,
        Some(seen) if seen.holder == me => Step::Renew,
        Some(seen) if seen.holder.is_empty() || now >= seen.at + seen.duration => Step::TakeOver,
        Some(_) => Step::Wait,
    }
}

/// A candidate for leadership.
pub(crate) struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    seen: Option<Seen>,
}

impl Candidate {
    /// A candidate under its own identity (the pod's name).
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str, timing: Timing) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
            seen: None,
        }
    }

    /// Returns when this candidate leads.
    pub(crate) async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "lease cannot be read or written"),
            }
            tokio::time::sleep(self.timing.retry).await;
        }
    }

    /// Renews until leadership is lost.
    pub(crate) async fn keep(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.timing.deadline {
            tokio::time::sleep(self.timing.retry).await;
            // A request that hangs must not carry a leader past its deadline.
            let left = self.timing.deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "lease not renewed"),
                Err(_) => return,
            }
        }
    }

    /// Gives the Lease back, so that the next leader need not wait. Best effort.
    pub(crate) async fn release(&mut self) {
        if self
            .seen
            .as_ref()
            .is_some_and(|seen| seen.holder == self.identity)
        {
            let released = tokio::time::timeout(Duration::from_secs(3), self.write("")).await;
            if !matches!(released, Ok(Ok(_))) {
                tracing::debug!("lease not released; it runs out by itself");
            }
        }
    }

    /// One look and at most one write. True: this candidate leads.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        match self.api.get_opt(&self.name).await? {
            Some(lease) => self.observe(&lease),
            None => self.seen = None,
        }
        match step(self.seen.as_ref(), &self.identity, Instant::now()) {
            Step::Wait => Ok(false),
            Step::Create | Step::Renew | Step::TakeOver => self.write(&self.identity.clone()).await,
        }
    }

    fn observe(&mut self, lease: &Lease) {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.seen.as_ref().is_some_and(|seen| seen.version == version) {
            return;
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        self.seen = Some(Seen {
            version,
            holder: spec.holder_identity.unwrap_or_default(),
            duration: seconds.map_or(self.timing.duration, Duration::from_secs),
            at: Instant::now(),
        });
    }

    async fn write(&mut self, holder: &str) -> Result<bool, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: self.seen.as_ref().map(|seen| seen.version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: i32::try_from(self.timing.duration.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        let written = if self.seen.is_some() {
            self.api.replace(&self.name, &PostParams::default(), &lease).await
        } else {
            self.api.create(&PostParams::default(), &lease).await
        };
        match written {
            Ok(lease) => {
                self.observe(&lease);
                Ok(holder == self.identity)
            }
            // Another candidate was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_over_only_when_it_did_not_change_for_its_duration() {
        let start = Instant::now();
        let seen = |holder: &str| Seen {
            version: "7".into(),
            holder: holder.into(),
            duration: Duration::from_secs(15),
            at: start,
        };
        assert_eq!(step(None, "me", start), Step::Create);
        assert_eq!(step(Some(&seen("me")), "me", start), Step::Renew);
        assert_eq!(step(Some(&seen("")), "me", start), Step::TakeOver);
        assert_eq!(
            step(Some(&seen("other")), "me", start + Duration::from_secs(14)),
            Step::Wait
        );
        assert_eq!(
            step(Some(&seen("other")), "me", start + Duration::from_secs(15)),
            Step::TakeOver
        );
    }

    #[test]
    fn the_leader_stops_before_the_next_may_start() {
        let timing = Timing::default();
        assert!(timing.deadline + timing.retry < timing.duration);
    }
}
