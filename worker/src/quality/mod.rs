//! How well the meetings are served: scores for people, metrics for operators.
//!
//! Owns the scoring of connections ([`score`]), the differences between two rounds of statistics
//! ([`tracker`]), the process's load ([`load`]), the Prometheus metrics ([`metrics`]) and the HTTP
//! server that exposes them ([`http`]). Invariants: metric names start with `plenum_worker_`, use base
//! units, and no label takes its values from objects or people unless the operator asked for it.

pub mod http;
pub mod load;
pub mod metrics;
pub mod score;
pub mod tracker;

pub use metrics::Metrics;
pub use tracker::{Round, Tracker};
