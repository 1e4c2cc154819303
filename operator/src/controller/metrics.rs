//! What the controller measures, and the HTTP port that shows it.
//!
//! Invariant: no label is the name of an object; series are bounded by kinds and reasons.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// The controller's series.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    durations: HistogramVec,
    writes: IntCounterVec,
    objects: IntGaugeVec,
    pool_workers: IntGaugeVec,
    pool_slots: IntGauge,
    leader: IntGauge,
    ready: Arc<AtomicBool>,
}

impl Metrics {
    /// Registers everything.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let opts = |name: &str, help: &str| Opts::new(format!("plenum_controller_{name}"), help);
        let metrics = Self {
            reconciles: IntCounterVec::new(
                opts("reconcile_total", "Reconciliations by kind and outcome."),
                &["kind", "outcome"],
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "plenum_controller_reconcile_duration_seconds",
                    "Time of a reconciliation.",
                ),
                &["kind"],
            )?,
            writes: IntCounterVec::new(
                opts("writes_total", "Writes to the API server by kind."),
                &["kind"],
            )?,
            objects: IntGaugeVec::new(
                opts("objects", "Objects by kind and reason of their Ready condition."),
                &["kind", "reason"],
            )?,
            pool_workers: IntGaugeVec::new(
                opts("pool_workers", "Workers of all pools by state."),
                &["state"],
            )?,
            pool_slots: IntGauge::with_opts(opts(
                "pool_free_slots",
                "Rooms that ready workers can still take.",
            ))?,
            leader: IntGauge::with_opts(opts("leader", "1 while this replica leads."))?,
            ready: Arc::default(),
            registry,
        };
        metrics.registry.register(Box::new(metrics.reconciles.clone()))?;
        metrics.registry.register(Box::new(metrics.durations.clone()))?;
        metrics.registry.register(Box::new(metrics.writes.clone()))?;
        metrics.registry.register(Box::new(metrics.objects.clone()))?;
        metrics
            .registry
            .register(Box::new(metrics.pool_workers.clone()))?;
        metrics.registry.register(Box::new(metrics.pool_slots.clone()))?;
        metrics.registry.register(Box::new(metrics.leader.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn reconciled(&self, kind: &str, outcome: &str, took: Duration) {
        self.reconciles.with_label_values(&[kind, outcome]).inc();
        self.durations
            .with_label_values(&[kind])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn wrote(&self, kind: &str) {
        self.writes.with_label_values(&[kind]).inc();
    }

    pub(crate) fn set_objects(&self, kind: &str, reasons: &BTreeMap<String, i64>) {
        for (reason, count) in reasons {
            self.objects.with_label_values(&[kind, reason]).set(*count);
        }
    }

    pub(crate) fn set_pools(&self, states: &[(&str, i64)], free_slots: i64) {
        for (state, count) in states {
            self.pool_workers.with_label_values(&[state]).set(*count);
        }
        self.pool_slots.set(free_slots);
    }

    pub(crate) fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// A replica is ready when it leads with a filled cache, or waits for the Lease.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Serves /metrics, /healthz and /readyz until the process ends.
pub(crate) async fn serve(address: SocketAddr, metrics: Metrics) -> std::io::Result<()> {
    let router = Router::new()
        // Looks at the process alone: an API server that is away is no reason to be restarted.
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(metrics);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router).await
}

async fn ready(State(metrics): State<Metrics>) -> impl IntoResponse {
    if metrics.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting")
    }
}

async fn render(State(metrics): State<Metrics>) -> impl IntoResponse {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
