//! The gRPC contract between worker, gateway and controller.
//!
//! Owns the message types generated from `proto/worker.proto`, and nothing else: no client policy,
//! no server. The version rule stands at the head of that file.

// Generated code does not follow the workspace's lints.
#[allow(
    clippy::all,
    clippy::unwrap_used,
    unreachable_pub,
    elided_lifetimes_in_paths,
    missing_docs
)]
pub mod v1 {
    tonic::include_proto!("plenum.worker.v1");
}

/// The gRPC port of a worker pod (mutual TLS).
pub const CONTROL_PORT: u16 = 7881;
/// The media port of a worker pod: UDP, and ICE-TCP on the same number.
pub const MEDIA_PORT: u16 = 7882;
/// Health, readiness and metrics of worker, gateway and controller (plain HTTP, cluster-internal).
pub const METRICS_PORT: u16 = 9090;
