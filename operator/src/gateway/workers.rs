//! Channels to worker pods: gRPC over mutual TLS.
//!
//! Owns the pool. Invariants: a worker is known by its pod's UID, so that a new pod on an old
//! address is never spoken to over an old channel; both sides prove themselves with certificates of
//! the installation's own authority; new certificates make new channels while sessions on old ones
//! go on; a dead peer is noticed within two seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plenum_errors::{Code, PublicError};
use plenum_join::MAX_MESSAGE_BYTES;
use plenum_worker_api::CONTROL_PORT;
use plenum_worker_api::v1::signal_client::SignalClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::material::{Certificates, Watched};
use super::route::WorkerAddress;

/// The name in every worker's certificate.
const SERVER_NAME: &str = "worker.plenum.internal";
/// Sessions on one connection, beyond which another is opened: HTTP/2 servers bound the streams of
/// a connection, and one slow reader must not hold up hundreds.
const SESSIONS_PER_CHANNEL: usize = 64;
/// The largest message of a call: a hub's memory of a meeting (1 MiB of signals, each in an envelope), or
/// everybody on a worker. Workers take as much.
const MAX_FRAME_BYTES: usize = 8 * MAX_MESSAGE_BYTES;

/// A connection to a worker with the count of its users.
#[derive(Clone)]
pub(crate) struct Lease {
    pub(crate) client: SignalClient<Channel>,
    /// Held as long as the lease is in use.
    _user: Arc<()>,
}

struct Pooled {
    channel: Channel,
    users: Arc<()>,
}

#[derive(Default)]
struct Pool {
    /// What the channels were made with.
    certificates: Option<Arc<Certificates>>,
    channels: HashMap<WorkerAddress, Vec<Pooled>>,
}

/// Every worker this gateway speaks to.
pub(crate) struct Workers {
    certificates: Watched<Certificates>,
    port: u16,
    pool: Mutex<Pool>,
}

impl Workers {
    pub(crate) fn new(certificates: Watched<Certificates>) -> Workers {
        Workers {
            certificates,
            port: CONTROL_PORT,
            pool: Mutex::default(),
        }
    }

    /// As [`Workers::new`], for workers on another port.
    #[cfg(test)]
    pub(crate) fn on_port(certificates: Watched<Certificates>, port: u16) -> Workers {
        Workers {
            certificates,
            port,
            pool: Mutex::default(),
        }
    }

    /// Are there certificates to speak with?
    pub(crate) fn is_ready(&self) -> bool {
        self.certificates.borrow().is_some()
    }

    /// A connection to `worker`, which is opened with the first call.
    pub(crate) fn lease(&self, worker: &WorkerAddress) -> Result<Lease, PublicError> {
        let certificates =
            self.certificates.borrow().clone().ok_or_else(|| {
                PublicError::new(Code::WorkerUnreachable, "the gateway has no certificate yet")
            })?;
        let mut pool = self
            .pool
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if pool.certificates.as_ref() != Some(&certificates) {
            pool.channels.clear();
            pool.certificates = Some(certificates.clone());
        }
        let channels = pool.channels.entry(worker.clone()).or_default();
        // Channels nobody uses are let go, but for one that is warm.
        let mut idle = 0;
        channels.retain(|pooled| {
            idle += usize::from(Arc::strong_count(&pooled.users) == 1);
            Arc::strong_count(&pooled.users) > 1 || idle == 1
        });
        let free = channels
            .iter()
            .find(|pooled| Arc::strong_count(&pooled.users) <= SESSIONS_PER_CHANNEL);
        let (channel, users) = match free {
            Some(pooled) => (pooled.channel.clone(), pooled.users.clone()),
            None => {
                let channel = open(worker, self.port, &certificates)?;
                let users = Arc::new(());
                channels.push(Pooled {
                    channel: channel.clone(),
                    users: users.clone(),
                });
                (channel, users)
            }
        };
        let client = SignalClient::new(channel)
            .max_decoding_message_size(MAX_FRAME_BYTES)
            .max_encoding_message_size(MAX_FRAME_BYTES);
        Ok(Lease { client, _user: users })
    }

    /// Lets go of workers that are no more.
    pub(crate) fn keep_only(&self, alive: impl Fn(&WorkerAddress) -> bool) {
        let mut pool = self
            .pool
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        pool.channels.retain(|worker, _| alive(worker));
    }
}

fn open(worker: &WorkerAddress, port: u16, certificates: &Certificates) -> Result<Channel, PublicError> {
    let unusable = |error: tonic::transport::Error| {
        tracing::error!(%error, "the gateway's certificates cannot be used");
        PublicError::new(
            Code::WorkerUnreachable,
            "the gateway's certificates cannot be used",
        )
    };
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&certificates.authority))
        .identity(Identity::from_pem(
            &certificates.client_certificate,
            &certificates.client_key,
        ))
        .domain_name(SERVER_NAME);
    let endpoint = Endpoint::from_shared(format!("https://{}", std::net::SocketAddr::new(worker.ip, port)))
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(unusable)?
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_millis(500))
        .keep_alive_timeout(Duration::from_millis(1500))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

/// What a failed call means to a client.
pub(crate) fn refused(status: &tonic::Status) -> PublicError {
    use tonic::Code as Grpc;
    // A worker that has a catalogue code to tell puts it first: `CODE: detail`.
    let said = status
        .message()
        .split(':')
        .next()
        .and_then(|word| Code::parse(word.trim()));
    let code = said.unwrap_or(match status.code() {
        Grpc::NotFound => Code::RoomNotFound,
        Grpc::FailedPrecondition => Code::EpochStale,
        Grpc::ResourceExhausted => Code::RateLimited,
        Grpc::InvalidArgument => Code::RequestMalformed,
        _ => Code::WorkerUnreachable,
    });
    // The text of a transport fault names addresses, which are none of a client's business.
    tracing::debug!(grpc = ?status.code(), message = status.message(), "worker call failed");
    let detail = if said.is_some() {
        status
            .message()
            .split_once(':')
            .map_or("", |(_, detail)| detail.trim())
    } else {
        ""
    };
    PublicError::new(code, detail)
}
