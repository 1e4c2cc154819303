//! The gateway's figures, and the plain HTTP listener that shows them.
//!
//! Owns every metric's name and the probes. Invariants: labels come from closed sets (catalogue
//! codes, verbs, resources), never from a request; liveness looks at this process alone, readiness
//! at whether it can route.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use plenum_join::{Direction, Observer};
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// Every figure of a gateway.
pub(crate) struct Metrics {
    registry: Registry,
    clients: IntGauge,
    joins: IntCounterVec,
    join_duration: Histogram,
    messages_up: IntCounter,
    messages_down: IntCounter,
    bytes_up: IntCounter,
    bytes_down: IntCounter,
    /// By `via` (live_api, page) and role.
    pub(crate) tokens_minted: IntCounterVec,
    /// By verb, resource and HTTP status.
    pub(crate) live_api_requests: IntCounterVec,
    /// By `ok` or a catalogue code.
    pub(crate) route_lookups: IntCounterVec,
    /// Meetings whose hub this gateway follows.
    pub(crate) hub_streams: IntGauge,
    moves: IntCounterVec,
    move_duration: HistogramVec,
    commands: IntCounterVec,
    http_sessions: IntGaugeVec,
    http_requests: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new() -> Result<Arc<Metrics>, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(format!("plenum_gateway_{name}"), help), labels)
        };
        let messages = counters(
            "signal_messages_total",
            "Signal messages relayed, by direction.",
            &["direction"],
        )?;
        let bytes = counters(
            "signal_bytes_total",
            "Bytes of signal messages relayed, by direction.",
            &["direction"],
        )?;
        let metrics = Metrics {
            registry: Registry::new(),
            clients: IntGauge::new(
                "plenum_gateway_clients",
                "Clients with an open signalling WebSocket.",
            )?,
            joins: counters(
                "joins_total",
                "Join attempts, by outcome (ok or an error code).",
                &["code"],
            )?,
            join_duration: Histogram::with_opts(
                HistogramOpts::new(
                    "plenum_gateway_join_duration_seconds",
                    "Time from a join request to the worker's first answer, or to the refusal.",
                )
                .buckets(vec![
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                ]),
            )?,
            messages_up: messages.with_label_values(&["up"]),
            messages_down: messages.with_label_values(&["down"]),
            bytes_up: bytes.with_label_values(&["up"]),
            bytes_down: bytes.with_label_values(&["down"]),
            tokens_minted: counters(
                "tokens_minted_total",
                "Tokens minted, by way and role.",
                &["via", "role"],
            )?,
            live_api_requests: counters(
                "live_api_requests_total",
                "Requests to the live API, by verb, resource and HTTP status.",
                &["verb", "resource", "code"],
            )?,
            route_lookups: counters(
                "route_lookups_total",
                "Look-ups of a room's worker, by outcome (ok or an error code).",
                &["code"],
            )?,
            hub_streams: IntGauge::new(
                "plenum_gateway_hub_streams",
                "Meetings whose hub this gateway follows.",
            )?,
            moves: counters(
                "moves_total",
                "Moves of clients between rooms, by way (same_worker, takeover, reconnect) and outcome (ok or an error code).",
                &["way", "code"],
            )?,
            move_duration: HistogramVec::new(
                HistogramOpts::new(
                    "plenum_gateway_move_duration_seconds",
                    "Time from the decision to move a client until it is in the other room, or is sent to another worker.",
                )
                .buckets(vec![
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                ]),
                &["way"],
            )?,
            commands: counters(
                "commands_total",
                "Requests of clients on the reserved data topic, by command and outcome (ok or an error code).",
                &["command", "code"],
            )?,
            http_sessions: IntGaugeVec::new(
                Opts::new(
                    "plenum_gateway_http_sessions",
                    "WHIP and WHEP sessions that this gateway speaks for, by protocol.",
                ),
                &["protocol"],
            )?,
            http_requests: counters(
                "http_requests_total",
                "WHIP and WHEP requests, by protocol, method and outcome (ok or an error code).",
                &["protocol", "method", "code"],
            )?,
        };
        for collector in [
            Box::new(messages) as Box<dyn prometheus::core::Collector>,
            Box::new(bytes),
            Box::new(metrics.clients.clone()),
            Box::new(metrics.joins.clone()),
            Box::new(metrics.join_duration.clone()),
            Box::new(metrics.tokens_minted.clone()),
            Box::new(metrics.live_api_requests.clone()),
            Box::new(metrics.route_lookups.clone()),
            Box::new(metrics.hub_streams.clone()),
            Box::new(metrics.moves.clone()),
            Box::new(metrics.move_duration.clone()),
            Box::new(metrics.commands.clone()),
            Box::new(metrics.http_sessions.clone()),
            Box::new(metrics.http_requests.clone()),
        ] {
            metrics.registry.register(collector)?;
        }
        Ok(Arc::new(metrics))
    }

    /// A client moved, or could not. `way` is same_worker, takeover or reconnect; `outcome` is ok or
    /// a catalogue code.
    pub(crate) fn moved(&self, way: &str, outcome: &str, took: Duration) {
        self.moves.with_label_values(&[way, outcome]).inc();
        if outcome == "ok" {
            self.move_duration
                .with_label_values(&[way])
                .observe(took.as_secs_f64());
        }
    }

    /// A request of a client was answered. `kind` is one of the protocol's commands, or unreadable.
    pub(crate) fn command(&self, kind: &str, outcome: &str) {
        self.commands.with_label_values(&[kind, outcome]).inc();
    }

    fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::warn!(%error, "metrics cannot be written");
        }
        out
    }
}

impl Observer for Metrics {
    fn joined(&self, outcome: &str, took: Duration) {
        self.joins.with_label_values(&[outcome]).inc();
        self.join_duration.observe(took.as_secs_f64());
    }

    fn connected(&self, delta: i64) {
        self.clients.add(delta);
    }

    fn http_session(&self, protocol: &'static str, delta: i64) {
        self.http_sessions.with_label_values(&[protocol]).add(delta);
    }

    fn http_request(&self, protocol: &'static str, method: &'static str, outcome: &str) {
        self.http_requests
            .with_label_values(&[protocol, method, outcome])
            .inc();
    }

    fn message(&self, direction: Direction, bytes: usize) {
        let (messages, total) = match direction {
            Direction::Up => (&self.messages_up, &self.bytes_up),
            Direction::Down => (&self.messages_down, &self.bytes_down),
        };
        messages.inc();
        total.inc_by(bytes as u64);
    }
}

/// What readiness asks for: `Err` says in words what is missing.
pub(crate) type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// `/metrics`, `/healthz`, `/livez` and `/readyz`.
pub(crate) fn router(metrics: Arc<Metrics>, ready: Readiness) -> Router {
    let readyz = move || {
        let outcome = ready();
        async move {
            match outcome {
                Ok(()) => (StatusCode::OK, "ok".to_owned()),
                Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing),
            }
        }
    };
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route(
            "/metrics",
            get(move || async move {
                ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], metrics.text()).into_response()
            }),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_shown_with_its_help() {
        let metrics = Metrics::new().unwrap();
        metrics.joined("ok", Duration::from_millis(3));
        metrics.message(Direction::Up, 7);
        metrics.tokens_minted.with_label_values(&["page", "host"]).inc();
        metrics
            .live_api_requests
            .with_label_values(&["get", "participants", "200"])
            .inc();
        metrics.route_lookups.with_label_values(&["ok"]).inc();
        metrics.moved("same_worker", "ok", Duration::from_millis(30));
        metrics.moved("reconnect", "MeetingFull", Duration::from_millis(30));
        metrics.command("raiseHand", "ok");
        metrics.http_session("whip", 1);
        metrics.http_request("whep", "DELETE", "SessionNotFound");
        let text = String::from_utf8(metrics.text()).unwrap();
        for line in [
            "# HELP plenum_gateway_clients ",
            "plenum_gateway_joins_total{code=\"ok\"} 1",
            "plenum_gateway_join_duration_seconds_count 1",
            "plenum_gateway_signal_bytes_total{direction=\"up\"} 7",
            "plenum_gateway_tokens_minted_total{role=\"host\",via=\"page\"} 1",
            "plenum_gateway_route_lookups_total{code=\"ok\"} 1",
            "plenum_gateway_hub_streams 0",
            "plenum_gateway_moves_total{code=\"MeetingFull\",way=\"reconnect\"} 1",
            "plenum_gateway_move_duration_seconds_count{way=\"same_worker\"} 1",
            "plenum_gateway_commands_total{code=\"ok\",command=\"raiseHand\"} 1",
            "plenum_gateway_http_sessions{protocol=\"whip\"} 1",
            "plenum_gateway_http_requests_total{code=\"SessionNotFound\",method=\"DELETE\",protocol=\"whep\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
