//! The controller: makes the cluster what Meetings, BreakoutRooms and MediaWorkerPools say.
//!
//! Owns every write to their status, every worker Pod with its Service and certificate, and the
//! orders to workers. Invariants: only the holder of the Lease writes; nothing is written where
//! nothing changes; live meetings need none of this, so that a controller that is away disturbs
//! nobody. One file per kind; what they decide is in pure modules beside them.
//!
//! # Rights
//!
//! Cluster-wide (ClusterRole):
//! ```yaml
//! - apiGroups: [plenum.dev]
//!   resources: [meetings, breakoutrooms, mediaworkerpools]
//!   verbs: [get, list, watch]
//! - apiGroups: [plenum.dev]
//!   resources: [meetings, breakoutrooms]          # finalizers
//!   verbs: [patch]
//! - apiGroups: [plenum.dev]
//!   resources: [meetings/status, breakoutrooms/status, mediaworkerpools/status]
//!   verbs: [patch]
//! - apiGroups: [plenum.dev]                        # blockOwnerDeletion on what a pool owns
//!   resources: [mediaworkerpools/finalizers]
//!   verbs: [update]
//! - apiGroups: [""]
//!   resources: [namespaces]                        # allowedMeetings.selector
//!   verbs: [get, list, watch]
//! - apiGroups: [events.k8s.io]
//!   resources: [events]
//!   verbs: [create, patch]
//! - apiGroups: [apiregistration.k8s.io]            # caBundle; only with the live API
//!   resources: [apiservices]
//!   resourceNames: [v1alpha1.live.plenum.dev]
//!   verbs: [get, patch]
//! - apiGroups: [""]                                # only for advertise.nodeAddress: ExternalIP
//!   resources: [nodes]
//!   verbs: [get]
//! ```
//! In each worker namespace (Role):
//! ```yaml
//! - apiGroups: [""]
//!   resources: [pods]
//!   verbs: [get, list, watch, create, patch, delete]
//! - apiGroups: [""]
//!   resources: [services]
//!   verbs: [get, list, watch, create, patch, delete]
//! - apiGroups: [""]
//!   resources: [secrets]                           # workers' certificates, by name
//!   verbs: [get, create, patch, delete]
//! ```
//! In the operator's own namespace (Role):
//! ```yaml
//! - apiGroups: [coordination.k8s.io]
//!   resources: [leases]
//!   verbs: [get, create, update]
//! - apiGroups: [""]
//!   resources: [secrets]                           # plenum-ca, plenum-gateway-tls, plenum-keys
//!   verbs: [get, create, patch]
//! ```
//! A Meeting with `spec.keySecretRef` needs `get` on that one Secret, given by whoever owns the
//! namespace; without it the Meeting says `SecretMissing`. Server-side apply of an object that is
//! not there yet (certificates) needs `create` beside `patch`.
//!
//! # Flags
//!
//! `plenum-operator controller --help` lists them; those that an installation sets: `--namespace`
//! (env POD_NAMESPACE), `--identity` (POD_NAME), `--worker-namespaces` (alias `--pool-namespace`,
//! repeatable), `--worker-image`, `--worker-image-pull-policy`, `--worker-image-pull-secrets`,
//! `--public-url`, `--keys-secret`, `--gateway-service`, `--live-api-service` (empty: none),
//! `--metrics-address`. `--watch-namespace` narrows the controller to one namespace's objects; two
//! controllers must not look at the same ones.

mod backoff;
mod breakout_room;
mod breakout_status;
mod closing;
mod coarse;
mod context;
mod crowd;
mod events;
mod exposure;
mod index;
mod lease;
mod media_worker_pool;
mod meeting;
mod meeting_status;
mod metrics;
mod placement;
mod room;
mod scale;
mod schedule;
mod status;
mod worker_pod;
mod workers;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::applier;
use kube::runtime::controller::{Action, Config, Error as ControllerError};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt as _};
use plenum_crds::ConditionType;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;

use self::context::{Context, ReconcileError, Settings, is_conflict};
use self::events::Events;
use self::index::{Guard, Index, Triggers};
use self::lease::{Candidate, Timing};
use self::metrics::Metrics;
use self::worker_pod::Image;
use self::workers::Fleet;
use crate::pki::{self, Authority, PkiError, secrets};

/// Several changes of one object in this time are one look.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Looks at one time, for each kind.
const CONCURRENCY: u16 = 16;
/// The operator's own certificates are looked at this often.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(3600);

/// Flags of `plenum-operator controller`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The operator's own namespace: Lease, authority and keys are here.
    #[arg(long, env = "POD_NAMESPACE", default_value = "plenum-system")]
    pub namespace: String,
    /// Who this replica is among the candidates for leadership.
    #[arg(long, env = "POD_NAME", default_value = "plenum-controller")]
    pub identity: String,
    /// Name of the Lease.
    #[arg(long, default_value = "plenum-controller")]
    pub lease_name: String,
    /// Namespaces that worker pods may be in (default: the operator's own).
    #[arg(
        long,
        alias = "pool-namespace",
        env = "PLENUM_WORKER_NAMESPACES",
        value_delimiter = ','
    )]
    pub worker_namespaces: Vec<String>,
    /// Look at Plenum's objects in this namespace only (default: in all).
    #[arg(long, env = "PLENUM_WATCH_NAMESPACE")]
    pub watch_namespace: Option<String>,
    /// Image of the media workers.
    #[arg(long, env = "PLENUM_WORKER_IMAGE", default_value = "plenum-worker:latest")]
    pub worker_image: String,
    /// When the kubelet pulls it: IfNotPresent, Always or Never.
    #[arg(long, env = "PLENUM_WORKER_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub worker_image_pull_policy: String,
    /// Secrets in the worker namespaces with which the kubelet pulls it.
    #[arg(
        long,
        alias = "worker-image-pull-secret",
        env = "PLENUM_WORKER_IMAGE_PULL_SECRETS",
        value_delimiter = ','
    )]
    pub worker_image_pull_secrets: Vec<String>,
    /// Each worker names at most this many rooms in its metrics (0: none).
    #[arg(long, env = "PLENUM_WORKER_ROOM_METRICS", default_value_t = 0)]
    pub worker_room_metrics: u32,
    /// What the links to meetings begin with.
    #[arg(long, env = "PLENUM_PUBLIC_URL", default_value = "http://localhost:7880")]
    pub public_url: String,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, default_value = "0.0.0.0:9090")]
    pub metrics_address: SocketAddr,
    /// Name of the gateway's Service, for the live API's certificate.
    #[arg(long, default_value = "plenum-gateway")]
    pub gateway_service: String,
    /// APIService of the live API; empty where it is not installed.
    #[arg(long, default_value = "v1alpha1.live.plenum.dev")]
    pub live_api_service: String,
    /// Secret with the certificate authority.
    #[arg(long, default_value = "plenum-ca")]
    pub ca_secret: String,
    /// Secret with the gateway's certificates.
    #[arg(long, default_value = "plenum-gateway-tls")]
    pub gateway_tls_secret: String,
    /// Secret with the API key and secret that sign tokens.
    #[arg(long, default_value = "plenum-keys")]
    pub keys_secret: String,
    /// Port of the workers' gRPC.
    #[arg(long, default_value_t = plenum_worker_api::CONTROL_PORT, hide = true)]
    pub worker_control_port: u16,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no way to the API server.
    #[error("no API server: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The API server refused.
    #[error("API: {0}")]
    Api(#[from] kube::Error),
    /// The certificates could not be made or stored.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The port for metrics cannot be had.
    #[error("metrics: {0}")]
    Metrics(#[from] std::io::Error),
    /// The series cannot be registered.
    #[error("metrics: {0}")]
    Registry(#[from] prometheus::Error),
    /// Another replica leads now; this one starts over.
    #[error("leadership lost")]
    LeadershipLost,
}

/// Runs the controller until the process is told to end.
///
/// # Errors
/// When it cannot start, or lost the Lease: a new process is the way to a clean state.
pub async fn run(args: Args) -> Result<(), RunError> {
    let client = Client::try_from(kube::Config::infer().await?)?;
    run_with(client, args, shutdown()).await
}

/// Runs the controller with a client of the caller's, until `stop` resolves.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    client: Client,
    args: Args,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let metrics = Metrics::new()?;
    let server = metrics::serve(args.metrics_address, metrics.clone());
    let mut candidate = Candidate::new(
        client.clone(),
        &args.namespace,
        &args.lease_name,
        &args.identity,
        Timing::default(),
    );
    let mut tasks = tokio::task::JoinSet::new();
    // A candidate that waits is as ready as it can be.
    metrics.set_ready(true);
    let work = async {
        candidate.acquire().await;
        tracing::info!(identity = %args.identity, "leading");
        metrics.set_leader(true);
        let leading = lead(client, &args, metrics.clone(), &mut tasks);
        tokio::select! {
            result = leading => result,
            () = candidate.keep() => Err(RunError::LeadershipLost),
        }
    };
    let result = tokio::select! {
        result = work => result,
        result = server => result.map_err(RunError::from),
        () = stop => Ok(()),
    };
    tasks.shutdown().await;
    if result.is_ok() {
        candidate.release().await;
    }
    result
}

async fn shutdown() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// What the leader does: keys first, then the watches, then the reconcilers.
async fn lead(
    client: Client,
    args: &Args,
    metrics: Metrics,
    tasks: &mut tokio::task::JoinSet<()>,
) -> Result<(), RunError> {
    let own: Api<Secret> = Api::namespaced(client.clone(), &args.namespace);
    let authority = secrets::load_authority(&own, &args.ca_secret, Timestamp::now()).await?;
    secrets::ensure_keys(&own, &args.keys_secret).await?;
    ensure_gateway(&client, args, &authority).await?;
    let leaf = authority.client(pki::CONTROLLER, Timestamp::now())?;
    let (fleet, notices) = Fleet::new(workers::tls(authority.certificate(), &leaf));

    let mut worker_namespaces: Vec<String> = args
        .worker_namespaces
        .iter()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    if worker_namespaces.is_empty() {
        worker_namespaces.push(args.namespace.clone());
    }
    let settings = Settings {
        worker_namespaces,
        image: Image {
            name: args.worker_image.clone(),
            pull_policy: args.worker_image_pull_policy.clone(),
            pull_secrets: args.worker_image_pull_secrets.clone(),
            room_metrics: args.worker_room_metrics,
        },
        public_url: args.public_url.trim_end_matches('/').to_owned(),
        control_port: args.worker_control_port,
    };
    let (meetings, meeting_queue) = mpsc::unbounded_channel();
    let (rooms, room_queue) = mpsc::unbounded_channel();
    let (pools, pool_queue) = mpsc::unbounded_channel();
    let triggers = Triggers {
        meetings,
        rooms,
        pools,
    };
    let (index, watches) = Index::start(
        &client,
        args.watch_namespace.as_deref(),
        &settings.worker_namespaces,
        triggers.clone(),
    );
    for watch in watches {
        tasks.spawn(watch);
    }
    index.ready().await;
    tasks.spawn(index::dispatch_notices(index.clone(), notices, triggers));
    let events = Events::new(client.clone(), &args.identity);
    let context = Arc::new(Context::new(
        client.clone(),
        settings,
        index.clone(),
        fleet,
        events,
        metrics,
        authority,
    ));
    tasks.spawn(housekeeping(Arc::clone(&context), args.clone()));
    let pools = drive(
        "MediaWorkerPool",
        index.pools,
        pool_queue,
        &context,
        |object, context| Box::pin(media_worker_pool::reconcile(object, context)),
    );
    let meetings = drive(
        "Meeting",
        index.meetings,
        meeting_queue,
        &context,
        |object, context| Box::pin(meeting::reconcile(object, context)),
    );
    let rooms = drive(
        "BreakoutRoom",
        index.rooms,
        room_queue,
        &context,
        |object, context| Box::pin(breakout_room::reconcile(object, context)),
    );
    futures::join!(pools, meetings, rooms);
    Ok(())
}

async fn ensure_gateway(client: &Client, args: &Args, authority: &Authority) -> Result<(), PkiError> {
    let own: Api<Secret> = Api::namespaced(client.clone(), &args.namespace);
    let (name, service) = (&args.gateway_tls_secret, &args.gateway_service);
    secrets::ensure_gateway(&own, name, service, authority, Timestamp::now()).await?;
    if !args.live_api_service.is_empty() {
        secrets::patch_live_api(client.clone(), &args.live_api_service, authority).await?;
    }
    Ok(())
}

type Look = Pin<Box<dyn Future<Output = Result<Action, ReconcileError>> + Send>>;

/// Runs the reconciler of one kind for as long as the process leads.
async fn drive<K>(
    kind: &'static str,
    store: Store<Guard<K>>,
    queue: mpsc::UnboundedReceiver<ObjectRef<Guard<K>>>,
    context: &Arc<Context>,
    reconcile: fn(Arc<Guard<K>>, Arc<Context>) -> Look,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let key = move |object: &Guard<K>| format!("{kind}/{}/{}", index::namespace(object), object.name_any());
    let look = move |object: Arc<Guard<K>>, context: Arc<Context>| -> Look {
        Box::pin(async move {
            let name = key(&object);
            let began = Instant::now();
            let result = reconcile(object, Arc::clone(&context)).await;
            let outcome = result.as_ref().map_or_else(ReconcileError::outcome, |_| "ok");
            context.metrics.reconciled(kind, outcome, began.elapsed());
            if result.is_ok() {
                context.backoff.forget(&name);
            }
            result
        })
    };
    let policy = move |object: Arc<Guard<K>>, error: &ReconcileError, context: Arc<Context>| {
        // The object changed since it was read: the cache is behind for a moment, nothing is wrong.
        if matches!(error, ReconcileError::Api(error) if is_conflict(error)) {
            return Action::requeue(Duration::from_millis(100));
        }
        let wait = context.backoff.failed(&key(&object));
        tracing::warn!(object = %key(&object), %error, ?wait, "not reconciled");
        Action::requeue(wait)
    };
    let requests = UnboundedReceiverStream::new(queue).map(Ok::<_, std::convert::Infallible>);
    let config = Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY);
    applier(look, policy, Arc::clone(context), store, requests, config)
        .for_each(|result| async move {
            match result {
                Ok(_) | Err(ControllerError::ObjectNotFound(_) | ControllerError::ReconcilerFailed(..)) => {}
                Err(error) => tracing::warn!(kind, %error, "controller"),
            }
        })
        .await;
}

/// What is due now and then: certificates, gauges, workers that are no more.
async fn housekeeping(context: Arc<Context>, args: Args) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let pods: Vec<_> = context.index.pods().collect();
        context
            .fleet
            .retain(|uid| pods.iter().any(|pod| pod.uid().as_deref() == Some(uid)));
        gauges(&context);
        if context.is_due("operator-certificates") {
            match renew(&context, &args).await {
                Ok(()) => context.looked_at("operator-certificates", CERTIFICATE_CHECK),
                Err(error) => {
                    tracing::warn!(%error, "certificates not renewed");
                    context.looked_at("operator-certificates", Duration::from_secs(60));
                }
            }
        }
    }
}

async fn renew(context: &Context, args: &Args) -> Result<(), PkiError> {
    ensure_gateway(&context.client, args, &context.authority).await?;
    // The controller's own lives in memory: a new one costs nothing.
    let leaf = context.authority.client(pki::CONTROLLER, Timestamp::now())?;
    context
        .fleet
        .set_tls(workers::tls(context.authority.certificate(), &leaf));
    Ok(())
}

fn gauges(context: &Context) {
    let mut meetings: BTreeMap<String, i64> = BTreeMap::new();
    let mut count = |reason: Option<&str>| {
        *meetings
            .entry(reason.unwrap_or("Unknown").to_owned())
            .or_default() += 1;
    };
    for meeting in context.index.meetings.state() {
        let status = meeting
            .0
            .as_ref()
            .ok()
            .and_then(|meeting| meeting.status.as_ref());
        count(status.and_then(|status| status::reason_of(&status.conditions, ConditionType::Ready)));
    }
    context.metrics.set_objects("Meeting", &meetings);
    let mut rooms: BTreeMap<String, i64> = BTreeMap::new();
    for room in context.index.rooms.state() {
        let status = room.0.as_ref().ok().and_then(|room| room.status.as_ref());
        let reason = status.and_then(|status| status::reason_of(&status.conditions, ConditionType::Ready));
        *rooms.entry(reason.unwrap_or("Unknown").to_owned()).or_default() += 1;
    }
    context.metrics.set_objects("BreakoutRoom", &rooms);
    let (mut ready, mut draining, mut total, mut free) = (0, 0, 0, 0);
    for pool in context.index.pools.state() {
        if let Ok(pool) = &pool.0
            && let Some(status) = &pool.status
        {
            ready += i64::from(status.ready_replicas.unwrap_or(0));
            draining += i64::from(status.draining_replicas.unwrap_or(0));
            total += i64::from(status.replicas.unwrap_or(0));
            free += i64::from(status.free_slots.unwrap_or(0));
        }
    }
    context.metrics.set_pools(
        &[("ready", ready), ("draining", draining), ("total", total)],
        free,
    );
}
