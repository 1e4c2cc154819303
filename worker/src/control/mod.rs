//! The worker's gRPC side: what the controller orders and what gateways relay.
//!
//! Owns the two services of the contract ([`service`]), who may call them ([`authority`]), the
//! report stream ([`report`]), and the two ways to run a worker ([`serve`] in a pod, [`dev`] alone).
//! Invariants: no call is answered before its caller's certificate was read; nothing here decides
//! about rooms, that is the hub's.

pub mod authority;
pub mod convert;
pub mod dev;
pub mod engine;
pub mod report;
pub mod serve;
pub mod service;
pub mod tls;

#[cfg(test)]
mod tests;
