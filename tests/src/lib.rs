//! What the tests against a real API server share.
//!
//! Owns a private API server for each test ([`ApiServer`]: etcd and kube-apiserver as
//! `tests/cluster/up` builds them, without nodes) and a worker that is one at the gRPC layer only
//! ([`FakeWorker`]). Invariant: a test meets nobody else's objects and no other controller.

mod api_server;
mod fake_worker;
mod objects;
mod stage;

pub use api_server::{ApiServer, StartError, Write};
pub use fake_worker::{FakeWorker, Order};
pub use objects::{epoch_of, pool, worker_of};
pub use stage::{
    Failure, NAMESPACE, Stage, arguments, condition, dynamic, eventually, eventually_within, install,
};
