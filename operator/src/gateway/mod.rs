//! The gateway: where clients, browsers and `kubectl` meet the workers.
//!
//! Owns three listeners: clients and the join page (`/rtc`, `/m/...`), the live API (HTTPS, for the
//! API server), and probes with metrics. Any number of replicas; none is special and none stores
//! anything. Invariants: the gateway sees no media; it holds no authority of its own over a meeting
//! but what a checked token or RBAC gives the one who asks; it keeps serving what it knows while
//! the API server is away.
//!
//! # Access it needs
//!
//! Cluster-wide (ClusterRole):
//! - `plenum.dev`: `meetings`: get, list, watch; `meetings/status`: patch (what hosts decide, in
//!   `status.session`)
//! - `plenum.dev`: `breakoutrooms`: get, list, watch, create, delete (rooms made in a meeting; with
//!   the admission plugin OwnerReferencesPermissionEnforcement nothing more is needed, since the
//!   owner reference does not block the owner's deletion)
//! - `authorization.k8s.io`: `subjectaccessreviews`: create
//!
//! In its own namespace and each of `--worker-namespaces` (Role; cluster-wide with `*`):
//! - core: `pods`: get, list, watch
//!
//! In its own namespace (Role):
//! - core: `secrets` named `plenum-keys` and `plenum-gateway-tls`: get, list, watch
//!   (`resourceNames` is enough: the watch asks for one name)
//!
//! In `kube-system` (RoleBinding to the Role `extension-apiserver-authentication-reader`, which
//! every cluster has):
//! - core: `configmaps` named `extension-apiserver-authentication`: get, list, watch
//!
//! In namespaces whose Meetings use `spec.keySecretRef` (Role, by those namespaces' owners):
//! - core: `secrets` of the names used: get
//!
//! And for people: `live.plenum.dev`: `participants`: get, list, delete; `meetings/token`: create.

mod client_session;
#[cfg(test)]
mod contract_tests;
mod keys;
mod live_api;
mod material;
mod meetings;
mod metrics;
mod mint;
mod mirror;
mod page;
mod rooms;
mod route;
#[cfg(test)]
mod testing;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Api, Client};
use plenum_crds::{BreakoutRoom, Meeting};
use plenum_join::{JoinConfig, Network, ServeLimits};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use keys::Keys;
use live_api::LiveApi;
use material::{ApiKey, Certificates, FrontProxy, watch_one};
use meetings::events::Events;
use meetings::{Meetings, Reach};
use metrics::Metrics;
use mirror::Mirror;
use page::Page;
use rooms::ClusterRooms;
use route::Routes;
use workers::Workers;

/// Pods that are workers.
const WORKER_LABEL: &str = "app.kubernetes.io/component=worker";
/// Clients wait for what a new gateway has to read first, at most so long.
const FILLED_LIMIT: Duration = Duration::from_secs(10);
const FILLED_STEP: Duration = Duration::from_millis(20);

/// Flags of `plenum-operator gateway`.
#[derive(Debug, Clone, Args)]
pub struct GatewayArgs {
    /// Where clients and browsers connect.
    #[arg(long, default_value = "0.0.0.0:7880", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where the API server finds the live API (HTTPS).
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    pub live_api_listen: SocketAddr,
    /// Probes and metrics (plain HTTP).
    #[arg(long, default_value = "0.0.0.0:9090", value_name = "ADDRESS")]
    pub metrics_listen: SocketAddr,
    /// Who writes Events.
    #[arg(long, env = "POD_NAME", default_value = "plenum-gateway")]
    pub identity: String,
    /// The operator's own namespace: where its Secrets are.
    #[arg(long, env = "POD_NAMESPACE", default_value = "plenum-system")]
    pub namespace: String,
    /// Namespaces with worker pods beside the operator's own, separated by commas; * = all.
    #[arg(
        long,
        alias = "pool-namespace",
        env = "PLENUM_WORKER_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACE"
    )]
    pub worker_namespaces: Vec<String>,
    /// Where people reach the gateway, for links: https://meet.example.com
    #[arg(long, env = "PLENUM_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Origins of web pages that may connect, separated by commas; * = all.
    #[arg(
        long,
        alias = "allowed-origin",
        env = "PLENUM_ALLOWED_ORIGINS",
        value_delimiter = ',',
        default_value = "*",
        value_name = "ORIGIN"
    )]
    pub allowed_origins: Vec<String>,
    /// Proxies before the gateway whose X-Forwarded-For is believed: ADDRESS or ADDRESS/BITS.
    #[arg(
        long,
        alias = "trusted-proxy",
        env = "PLENUM_TRUSTED_PROXIES",
        value_delimiter = ',',
        value_name = "NETWORK"
    )]
    pub trusted_proxies: Vec<Network>,
    /// Secret with the installation's API key (apiKey, apiSecret).
    #[arg(long, default_value = "plenum-keys", value_name = "NAME")]
    pub keys_secret: String,
    /// Secret with the gateway's certificates.
    #[arg(long, default_value = "plenum-gateway-tls", value_name = "NAME")]
    pub tls_secret: String,
    /// Open WebSockets beyond which new ones are refused.
    #[arg(long, default_value_t = 20_000, value_name = "COUNT")]
    pub max_clients: usize,
    /// Seconds between SIGTERM and the closing of the listeners, for load balancers to notice.
    #[arg(long, default_value_t = 3, value_name = "SECONDS")]
    pub shutdown_delay: u64,
}

/// Why a gateway ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No way to the API server.
    #[error("the Kubernetes API cannot be reached: {0}")]
    Kube(#[from] kube::Error),
    /// An address is taken, or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Signals cannot be caught, or a listener broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Where people reach this installation.
#[derive(Clone)]
struct Links {
    public_url: Option<String>,
}

/// The addresses of one meeting, without a token.
struct MeetingLinks {
    /// For LiveKit clients; empty where the installation does not know its own address.
    signal: String,
    /// For browsers.
    page: Option<String>,
}

impl Links {
    fn of(&self, meeting: &Meeting, namespace: &str, name: &str) -> MeetingLinks {
        let status = meeting.status.as_ref();
        let public = self.public_url.as_deref().map(|url| url.trim_end_matches('/'));
        let signal = status
            .and_then(|status| status.signal_url.clone())
            .or_else(|| public.map(web_socket_url));
        let page = status
            .and_then(|status| status.join_url.clone())
            .or_else(|| public.map(|public| format!("{public}/m/{namespace}/{name}")));
        MeetingLinks {
            signal: signal.unwrap_or_default(),
            page,
        }
    }
}

fn web_socket_url(url: &str) -> String {
    // "http" is the start of both schemes, as "ws" is of theirs.
    url.strip_prefix("http")
        .map_or_else(|| url.to_owned(), |rest| format!("ws{rest}"))
}

/// Runs a gateway until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or a listener breaks.
pub async fn run(args: GatewayArgs) -> Result<(), GatewayError> {
    let client = Client::try_default().await?;
    let metrics = Metrics::new()?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &args.namespace);
    let certificates = watch_one(secrets.clone(), args.tls_secret.clone(), Certificates::read);
    let default_key = watch_one(secrets, args.keys_secret.clone(), ApiKey::read);
    let system: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let front_proxy = watch_one(
        system,
        "extension-apiserver-authentication".to_owned(),
        FrontProxy::read,
    );

    let routes = Arc::new(follow(&client, &args, metrics.clone()));
    let workers = Arc::new(Workers::new(certificates.clone()));
    let keys = Arc::new(Keys::new(client.clone(), default_key));
    let links = Links {
        public_url: args.public_url.clone(),
    };
    tokio::spawn(forget_dead_workers(routes.clone(), workers.clone()));

    let (stopping, stop) = watch::channel(false);
    let (draining, drain) = watch::channel(false);
    let page = Page {
        routes: routes.clone(),
        keys: keys.clone(),
        links: links.clone(),
        metrics: metrics.clone(),
        trusted_proxies: args.trusted_proxies.clone(),
        guests: page::GuestLimit::default(),
    };
    let rooms = ClusterRooms {
        meetings: Meetings::new(Reach {
            routes: routes.clone(),
            workers: workers.clone(),
            keys: keys.clone(),
            metrics: metrics.clone(),
            client: client.clone(),
            events: Events::new(client.clone(), &args.identity),
            links: links.clone(),
        }),
    };
    let config = JoinConfig {
        allowed_origins: args.allowed_origins.clone(),
        trusted_proxies: args.trusted_proxies.clone(),
        max_sessions: args.max_clients,
        shutdown: Some(stop.clone()),
        observer: metrics.clone(),
        ..JoinConfig::default()
    };
    let front = plenum_join::router(Arc::new(rooms), config).merge(page::router(Arc::new(page)));
    let live = Arc::new(LiveApi {
        client,
        routes: routes.clone(),
        workers: workers.clone(),
        keys: keys.clone(),
        links,
        metrics: metrics.clone(),
        front_proxy: front_proxy.clone(),
    });
    let ready: metrics::Readiness = Arc::new(move || readiness(&drain, &routes, &keys, &workers));
    let probes = metrics::router(metrics, ready.clone());

    let limits = ServeLimits::default();
    let front_listener = bind(args.listen).await?;
    let live_listener = bind(args.live_api_listen).await?;
    let probe_listener = bind(args.metrics_listen).await?;
    tracing::info!(
        listen = %args.listen, live_api = %args.live_api_listen, metrics = %args.metrics_listen,
        namespace = args.namespace, "gateway listening"
    );
    tokio::spawn(live_api::serve::serve(
        live_listener,
        live_api::router(live),
        certificates,
        front_proxy,
        stopped(stop.clone()),
    ));
    tokio::spawn(plenum_join::serve(
        probe_listener,
        probes,
        limits,
        std::future::pending(),
    ));
    let serving = tokio::spawn(async move {
        tokio::select! {
            () = until_filled(&ready) => {}
            () = stopped(stop.clone()) => {}
        }
        plenum_join::serve(front_listener, front, limits, stopped(stop)).await
    });

    wait_for_signal().await?;
    tracing::info!("shutting down; clients are asked to resume at another gateway");
    draining.send_replace(true);
    tokio::time::sleep(Duration::from_secs(args.shutdown_delay)).await;
    stopping.send_replace(true);
    match serving.await {
        Ok(served) => served?,
        Err(error) => tracing::error!(%error, "the client listener ended badly"),
    }
    // Sessions write their farewell after their connections were upgraded away from the listener.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    Ok(())
}

/// Who comes before keys and meetings have been read would be turned away for good, as from one that does
/// not exist: a client that reconnects to a gateway that has just begun anew. They wait in the listener's
/// queue; not for ever, since what is missing has to be told.
async fn until_filled(ready: &metrics::Readiness) {
    let filled = async {
        while ready().is_err() {
            tokio::time::sleep(FILLED_STEP).await;
        }
    };
    let _ = tokio::time::timeout(FILLED_LIMIT, filled).await;
}

/// Starts the mirrors that routes are read from.
fn follow(client: &Client, args: &GatewayArgs, metrics: Arc<Metrics>) -> Routes {
    let meetings: Arc<Mirror<Meeting>> = Mirror::new();
    let breakouts: Arc<Mirror<BreakoutRoom>> = Mirror::new();
    let pods: Arc<Mirror<Pod>> = Mirror::new();
    let everywhere = watcher::Config::default();
    tokio::spawn(
        meetings
            .clone()
            .follow(vec![Api::all(client.clone())], everywhere.clone()),
    );
    tokio::spawn(
        breakouts
            .clone()
            .follow(vec![Api::all(client.clone())], everywhere),
    );
    let pod_apis: Vec<Api<DeserializeGuard<Pod>>> = if args.worker_namespaces.iter().any(|name| name == "*") {
        vec![Api::all(client.clone())]
    } else {
        let mut namespaces: Vec<&str> = vec![&args.namespace];
        namespaces.extend(
            args.worker_namespaces
                .iter()
                .map(String::as_str)
                .filter(|name| !name.is_empty()),
        );
        namespaces.sort_unstable();
        namespaces.dedup();
        namespaces
            .into_iter()
            .map(|namespace| Api::namespaced(client.clone(), namespace))
            .collect()
    };
    tokio::spawn(
        pods.clone()
            .follow(pod_apis, watcher::Config::default().labels(WORKER_LABEL)),
    );
    Routes {
        meetings,
        breakouts,
        pods,
        metrics,
        waited: std::sync::Mutex::default(),
    }
}

/// Closes channels to pods that are gone.
async fn forget_dead_workers(routes: Arc<Routes>, workers: Arc<Workers>) {
    let mut every = tokio::time::interval(Duration::from_secs(30));
    loop {
        every.tick().await;
        let alive: std::collections::HashSet<String> = routes
            .pods
            .all()
            .iter()
            .filter_map(|pod| pod.metadata.uid.clone())
            .collect();
        workers.keep_only(|worker| alive.contains(&worker.uid));
    }
}

fn readiness(
    draining: &watch::Receiver<bool>,
    routes: &Routes,
    keys: &Keys,
    workers: &Workers,
) -> Result<(), String> {
    if *draining.borrow() {
        return Err("shutting down".into());
    }
    if !routes.is_synced() {
        return Err("the watches of meetings, breakout rooms and worker pods are not filled yet".into());
    }
    if !workers.is_ready() {
        return Err("there are no certificates towards workers yet".into());
    }
    if !keys.is_ready() {
        return Err("there is no API key yet".into());
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| GatewayError::Listen { address, source })
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the reason to go on.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn wait_for_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
