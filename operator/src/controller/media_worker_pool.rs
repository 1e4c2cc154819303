//! Reconciles MediaWorkerPools: Pods, their Services and certificates, drain, and the fleet.
//!
//! Invariants: a pool has Pods only in a namespace that the operator may manage; names of Pods are
//! `POOL-ORDINAL`, so that a second attempt after a crash finds the first one's Pod instead of
//! making another; everything a pool has is owned by it; how long a worker has been draining is
//! written on its Pod, so that it outlives the controller.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Secret, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};
use plenum_crds::{ConditionType, MediaWorkerPool, MediaWorkerPoolStatus, NodeAddressKind, Reason};
use serde_json::json;

use super::context::{Again, Context, ReconcileError, is_conflict, is_gone};
use super::index::{Guard, namespace};
use super::scale::{self, PodView, Step};
use super::status::{self, Conditions};
use super::worker_pod::{self, DRAINING, HASH_LABEL, WORKER_LABEL};
use super::workers::{Line, Target};
use super::{exposure, room};
use crate::pki::secrets;

/// Field manager of what this reconciler writes.
pub(crate) const MANAGER: &str = "plenum-media-worker-pool-controller";
/// A pod that was refused is tried again after this.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);
/// Certificates are looked at this often.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(3600);

/// One look at a pool.
pub(crate) async fn reconcile(
    object: Arc<Guard<MediaWorkerPool>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let pool = match &object.0 {
        Ok(pool) => pool,
        Err(error) => {
            tracing::warn!(pool = %object.name_any(), %error, "pool cannot be read");
            context.events.warning(
                object.object_ref(&()),
                "Read",
                Reason::InvalidSpec,
                &error.to_string(),
            );
            return Ok(Action::await_change());
        }
    };
    if pool.metadata.deletion_timestamp.is_some() {
        // What it owns goes with it.
        return Ok(Action::await_change());
    }
    let namespace = namespace(pool);
    let reconciler = Reconciler {
        pods: Api::namespaced(context.client.clone(), &namespace),
        services: Api::namespaced(context.client.clone(), &namespace),
        secrets: Api::namespaced(context.client.clone(), &namespace),
        hash: worker_pod::template_hash(pool, &context.settings.image)?,
        name: pool.name_any(),
        now: Timestamp::now(),
        namespace,
        pool,
        context: &context,
    };
    reconciler.run().await
}

struct Reconciler<'a> {
    context: &'a Context,
    pool: &'a MediaWorkerPool,
    namespace: String,
    name: String,
    hash: String,
    pods: Api<Pod>,
    services: Api<Service>,
    secrets: Api<Secret>,
    now: Timestamp,
}

/// What the status follows from.
struct Count {
    /// Why the API server takes no more pods.
    refused: Option<String>,
    wanted: u32,
    replicas: u32,
    ready: u32,
    updated: u32,
    draining: u32,
    free: u32,
}

impl Reconciler<'_> {
    async fn run(&self) -> Result<Action, ReconcileError> {
        if !self.context.settings.worker_namespaces.contains(&self.namespace) {
            return self.refuse().await;
        }
        let mut again = Again::default();
        let pods = self.context.index.pods_of(&self.namespace, &self.name);
        for pod in pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        {
            self.attend(pod, &mut again).await?;
        }
        // Counted after the drain marks of the last look are in force, and before new ones.
        let load = self.context.load();
        let views: Vec<PodView> = pods.iter().map(|pod| self.view(pod, &load, &mut again)).collect();
        let wanted = self.wanted(&views);
        let spec = &self.pool.spec;
        let steps = scale::plan(wanted, &spec.update_strategy, spec.drain.timeout.get(), &views);
        let mut names: BTreeSet<String> = pods.iter().map(|pod| pod.name_any()).collect();
        let mut refused = None;
        for step in steps {
            match self.take(step, &pods, &mut names).await {
                // Pod Security, a quota, a field that this cluster does not know: people have to see it.
                Err(ReconcileError::Api(kube::Error::Api(status))) if matches!(status.code, 403 | 422) => {
                    refused = Some(status.message.clone());
                }
                other => other?,
            }
        }
        self.sweep(&pods, &names).await?;
        for view in &views {
            if let Some(since) = view.draining {
                let timeout = spec.drain.timeout.get().max(scale::SETTLE);
                again.after(
                    scale::SETTLE
                        .saturating_sub(since)
                        .max(Duration::from_millis(500)),
                );
                again.after(timeout.saturating_sub(since).max(Duration::from_millis(500)));
            }
        }
        // Under way every look is short; settled, only certificates need one.
        again.after(CERTIFICATE_CHECK);
        let pods = self.context.index.pods_of(&self.namespace, &self.name);
        if refused.is_some() {
            again.after(REFUSED_AGAIN);
        }
        let count = Count {
            refused,
            ..self.count(wanted, &pods, &mut again)
        };
        self.write_status(&count).await?;
        Ok(again.action())
    }

    /// The operator may not run workers here.
    async fn refuse(&self) -> Result<Action, ReconcileError> {
        let before = self.pool.status.clone().unwrap_or_default();
        let mut conditions = Conditions::new(&before.conditions, self.pool.metadata.generation, self.now);
        let message = format!(
            "the operator may not run workers in namespace {}: add it to the operator's --worker-namespaces, or move the pool",
            self.namespace
        );
        conditions.set(ConditionType::Ready, false, Reason::NotAllowed, message.clone());
        conditions.stalled(Reason::NotAllowed, message);
        let after = MediaWorkerPoolStatus {
            observed_generation: self
                .pool
                .metadata
                .generation
                .unwrap_or(before.observed_generation),
            conditions: conditions.finish(),
            replicas: Some(0),
            ready_replicas: Some(0),
            updated_replicas: Some(0),
            draining_replicas: Some(0),
            free_slots: Some(0),
            selector: Some(worker_pod::selector(&self.name)),
        };
        self.write(before, after).await?;
        Ok(Action::await_change())
    }

    /// Sees to one Pod: Service, certificate, connection, drain.
    async fn attend(&self, pod: &Pod, again: &mut Again) -> Result<(), ReconcileError> {
        let name = pod.name_any();
        let Some(uid) = pod.uid() else { return Ok(()) };
        self.ensure_certificate(&name).await?;
        let service = self.ensure_service(&name).await?;
        let status = pod.status.as_ref();
        let Some(ip) = status
            .and_then(|status| status.pod_ip.as_deref())
            .and_then(|ip| ip.parse().ok())
        else {
            return Ok(());
        };
        if room::has_ended(pod) {
            return Ok(());
        }
        let external = self.external_addresses(pod).await?;
        self.context.fleet.upsert(Target {
            uid: uid.clone(),
            address: SocketAddr::new(ip, self.context.settings.control_port),
            advertise: exposure::advertise(&self.pool.spec.exposure, pod, service.as_ref(), &external),
        });
        let should = pod.annotations().contains_key(DRAINING);
        if let Some(live) = self.context.fleet.live(&uid)
            && live.line == Line::Up
            && live.draining != should
            && let Err(error) = self.context.fleet.set_draining(&uid, should).await
        {
            // The mark on the Pod keeps rooms away in any case.
            tracing::debug!(pod = %name, %error, "drain not told");
            again.after(Duration::from_secs(2));
        }
        Ok(())
    }

    async fn ensure_certificate(&self, name: &str) -> Result<(), ReconcileError> {
        let key = format!("certificate/{}/{name}", self.namespace);
        if self.context.is_due(&key) {
            let labels = worker_pod::worker_labels(&self.name, name);
            let owner = worker_pod::owner(self.pool);
            let secret = worker_pod::tls_secret(name);
            let authority = &self.context.authority;
            secrets::ensure_worker(&self.secrets, &secret, &labels, &owner, authority, self.now).await?;
            self.context.looked_at(&key, CERTIFICATE_CHECK);
        }
        Ok(())
    }

    /// The worker's Service as it should be: UDP first, then TCP with the number that UDP got.
    async fn ensure_service(&self, name: &str) -> Result<Option<Service>, ReconcileError> {
        let exposure = &self.pool.spec.exposure;
        let Some(kind) = exposure::service_type(exposure) else {
            return Ok(None);
        };
        let labels = worker_pod::worker_labels(&self.name, name);
        let selector = [(WORKER_LABEL.to_owned(), name.to_owned())];
        let owner = worker_pod::owner(self.pool);
        let build = |tcp| exposure::service(name, &labels, selector.clone().into(), &owner, exposure, tcp);
        let mut current = match self.context.index.service(&self.namespace, name) {
            Some(service) => (*service).clone(),
            None => {
                let Some(wish) = build(None) else { return Ok(None) };
                match self.services.create(&PostParams::default(), &wish).await {
                    Ok(service) => service,
                    Err(error) if is_conflict(&error) => self.services.get(name).await?,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let spec = current.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() != Some(kind) {
            // The pool was given another exposure, and with it other Pods: this one's Service goes first.
            self.delete_service(name).await?;
            return Ok(None);
        }
        let missing = spec.ports.as_ref().is_none_or(|ports| ports.len() < 2);
        if missing && let Some(wish) = build(exposure::node_port_of(&current, exposure::UDP)) {
            let ports = wish.spec.and_then(|spec| spec.ports);
            let patch = json!({ "spec": { "ports": ports } });
            match self
                .services
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Ok(service) => current = service,
                // Somebody else has that number for TCP: clients do without ICE-TCP until the next look.
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    tracing::warn!(service = %name, message = %status.message, "no TCP port of the same number");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(current))
    }

    async fn external_addresses(&self, pod: &Pod) -> Result<Vec<IpAddr>, ReconcileError> {
        if self.pool.spec.exposure.advertise.node_address != NodeAddressKind::ExternalIP {
            return Ok(Vec::new());
        }
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else {
            return Ok(Vec::new());
        };
        let nodes: Api<Node> = Api::all(self.context.client.clone());
        let node = match nodes.get(node).await {
            Ok(node) => node,
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let addresses = node
            .status
            .and_then(|status| status.addresses)
            .unwrap_or_default();
        let external = addresses.iter().filter(|address| address.type_ == "ExternalIP");
        Ok(external
            .filter_map(|address| address.address.parse().ok())
            .collect())
    }

    fn view(&self, pod: &Pod, load: &std::collections::HashMap<String, u32>, again: &mut Again) -> PodView {
        let uid = pod.uid().unwrap_or_default();
        let live = self.context.fleet.live(&uid);
        let age = |since: Timestamp| {
            std::time::Duration::try_from(self.now.duration_since(since)).unwrap_or_default()
        };
        PodView {
            name: pod.name_any(),
            current: pod.labels().get(HASH_LABEL) == Some(&self.hash),
            ready: room::is_ready(pod)
                && (live
                    .as_ref()
                    .is_some_and(|live| live.line == Line::Up && live.configured)
                    || room::presumed_ready(pod, live.as_ref(), again)),
            failed: room::has_ended(pod),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            draining: pod
                .annotations()
                .get(DRAINING)
                .map(|since| since.parse().map(age).unwrap_or_default()),
            rooms: load.get(&uid).copied().unwrap_or(0),
            age: pod
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |at| age(at.0).as_secs()),
        }
    }

    fn wanted(&self, views: &[PodView]) -> u32 {
        let spec = &self.pool.spec;
        let slots = u32::try_from(spec.capacity.meetings).unwrap_or(1);
        match (&spec.buffer, spec.replicas) {
            (Some(buffer), _) => scale::wanted(buffer, slots, views),
            (None, replicas) => u32::try_from(replicas.unwrap_or(0)).unwrap_or(0),
        }
    }

    async fn take(
        &self,
        step: Step,
        pods: &[Arc<Pod>],
        names: &mut BTreeSet<String>,
    ) -> Result<(), ReconcileError> {
        let of = |name: &str| pods.iter().find(|pod| pod.name_any() == name);
        match step {
            Step::Create => self.create(names).await,
            Step::Drain(name) => {
                self.mark(&name, json!(self.now.to_string())).await?;
                tracing::info!(pool = %self.name, worker = %name, "worker drains");
                self.context.events.normal(
                    self.pool.object_ref(&()),
                    "Drain",
                    Reason::WorkerDraining,
                    &format!("worker {name} drains"),
                );
                Ok(())
            }
            Step::Undrain(name) => self.mark(&name, serde_json::Value::Null).await,
            Step::Delete(name) => {
                // The Pod that was looked at, and no other of the same name.
                let uid = of(&name).and_then(|pod| pod.uid());
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid,
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                match self.pods.delete(&name, &params).await {
                    Ok(_) => tracing::info!(pool = %self.name, worker = %name, "worker deleted"),
                    Err(error) if is_gone(&error) || is_conflict(&error) => {}
                    Err(error) => return Err(error.into()),
                }
                Ok(())
            }
        }
    }

    async fn create(&self, names: &mut BTreeSet<String>) -> Result<(), ReconcileError> {
        let mut ordinals = (0_u32..).map(|ordinal| format!("{}-{ordinal}", self.name));
        let Some(name) = ordinals.find(|name| !names.contains(name)) else {
            return Ok(());
        };
        names.insert(name.clone());
        self.ensure_certificate(&name).await?;
        self.ensure_service(&name).await?;
        let pod = worker_pod::pod(self.pool, &name, &self.context.settings.image, &self.hash);
        match self.pods.create(&PostParams::default(), &pod).await {
            Ok(_) => tracing::info!(pool = %self.name, worker = %name, "worker created"),
            // Made by the look before, which the cache does not show yet.
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn mark(&self, name: &str, since: serde_json::Value) -> Result<(), ReconcileError> {
        let patch = json!({ "metadata": { "annotations": { DRAINING: since } } });
        match self
            .pods
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Services and certificates whose Pod is gone go too.
    async fn sweep(&self, pods: &[Arc<Pod>], names: &BTreeSet<String>) -> Result<(), ReconcileError> {
        for service in self.context.index.services_of(&self.namespace, &self.name) {
            let name = service.name_any();
            if !names.contains(&name) && !pods.iter().any(|pod| pod.name_any() == name) {
                self.delete_service(&name).await?;
                match self
                    .secrets
                    .delete(&worker_pod::tls_secret(&name), &DeleteParams::default())
                    .await
                {
                    Ok(_) => {}
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(error.into()),
                }
                self.context
                    .looked_at(&format!("certificate/{}/{name}", self.namespace), Duration::ZERO);
            }
        }
        Ok(())
    }

    async fn delete_service(&self, name: &str) -> Result<(), ReconcileError> {
        match self.services.delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn count(&self, wanted: u32, pods: &[Arc<Pod>], again: &mut Again) -> Count {
        let load = self.context.load();
        let views: Vec<PodView> = pods
            .iter()
            .map(|pod| self.view(pod, &load, again))
            .filter(|view| !view.deleting && !view.failed)
            .collect();
        let number = |keep: &dyn Fn(&PodView) -> bool| {
            u32::try_from(views.iter().filter(|view| keep(view)).count()).unwrap_or(u32::MAX)
        };
        let slots = u32::try_from(self.pool.spec.capacity.meetings).unwrap_or(0);
        let taking = views.iter().filter(|view| view.ready && view.draining.is_none());
        Count {
            refused: None,
            wanted,
            replicas: number(&|view| view.draining.is_none()),
            ready: number(&|view| view.draining.is_none() && view.ready),
            updated: number(&|view| view.draining.is_none() && view.current),
            draining: number(&|view| view.draining.is_some()),
            free: taking.map(|view| slots.saturating_sub(view.rooms)).sum(),
        }
    }

    async fn write_status(&self, count: &Count) -> Result<(), ReconcileError> {
        let before = self.pool.status.clone().unwrap_or_default();
        let after = compute(self.pool, &before, count, self.now);
        self.write(before, after).await
    }

    async fn write(
        &self,
        before: MediaWorkerPoolStatus,
        after: MediaWorkerPoolStatus,
    ) -> Result<(), ReconcileError> {
        if after == before {
            return Ok(());
        }
        let api: Api<MediaWorkerPool> = Api::namespaced(self.context.client.clone(), &self.namespace);
        status::apply(&api, self.pool, MANAGER, &after).await?;
        self.context.metrics.wrote("MediaWorkerPool");
        let reason = |status: &MediaWorkerPoolStatus| {
            status::reason_of(&status.conditions, ConditionType::Ready).map(str::to_owned)
        };
        if reason(&before) != reason(&after)
            && let Some(ready) = after
                .conditions
                .iter()
                .find(|one| one.type_ == ConditionType::Ready.as_str())
        {
            let object = self.pool.object_ref(&());
            let known = [
                Reason::WorkersReady,
                Reason::WorkersStarting,
                Reason::RollingOut,
                Reason::WorkersRefused,
                Reason::NotAllowed,
            ];
            if let Some(reason) = known.into_iter().find(|known| known.as_str() == ready.reason) {
                match reason {
                    Reason::NotAllowed | Reason::WorkersRefused => {
                        self.context
                            .events
                            .warning(object, "Reconcile", reason, &ready.message)
                    }
                    _ => self
                        .context
                        .events
                        .normal(object, "Reconcile", reason, &ready.message),
                }
            }
        }
        Ok(())
    }
}

/// The status that follows from the count. Pure.
fn compute(
    pool: &MediaWorkerPool,
    before: &MediaWorkerPoolStatus,
    count: &Count,
    now: Timestamp,
) -> MediaWorkerPoolStatus {
    let generation = pool.metadata.generation;
    let mut conditions = Conditions::new(&before.conditions, generation, now);
    if let Some(refused) = &count.refused {
        let message = format!("the API server refuses a worker: {refused}");
        conditions.set(
            ConditionType::Ready,
            false,
            Reason::WorkersRefused,
            message.clone(),
        );
        conditions.stalled(Reason::WorkersRefused, message);
    } else if count.updated < count.replicas {
        let message = "workers of an older template are being replaced";
        conditions.set(
            ConditionType::Ready,
            count.ready >= count.wanted,
            Reason::RollingOut,
            message,
        );
        conditions.reconciling(Reason::RollingOut, message);
    } else if count.ready >= count.wanted && count.replicas == count.wanted {
        conditions.set(
            ConditionType::Ready,
            true,
            Reason::WorkersReady,
            "all workers are ready",
        );
    } else {
        let message = format!(
            "{} of {} workers are ready",
            count.ready.min(count.wanted),
            count.wanted
        );
        conditions.set(
            ConditionType::Ready,
            false,
            Reason::WorkersStarting,
            message.clone(),
        );
        conditions.reconciling(Reason::WorkersStarting, message);
    }
    if count.draining > 0 {
        conditions.set(
            ConditionType::Draining,
            true,
            Reason::WorkerDraining,
            "workers are being emptied",
        );
    }
    let signed = |number: u32| Some(i32::try_from(number).unwrap_or(i32::MAX));
    MediaWorkerPoolStatus {
        observed_generation: generation.unwrap_or(before.observed_generation),
        conditions: conditions.finish(),
        replicas: signed(count.replicas),
        ready_replicas: signed(count.ready),
        updated_replicas: signed(count.updated),
        draining_replicas: signed(count.draining),
        free_slots: signed(count.free),
        selector: Some(worker_pod::selector(&pool.name_any())),
    }
}
