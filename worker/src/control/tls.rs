//! Mutual TLS of the control port, with certificates that change under it.
//!
//! Owns the reading of the mounted files and the handshakes. Invariants: a client without a
//! certificate of our authority gets no further than the handshake; new files are used for new
//! connections within [`RELOAD_EVERY`]; files that cannot be read leave the old ones in force.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How soon a renewed certificate is noticed. Kubernetes itself takes up to a minute to mount it.
const RELOAD_EVERY: Duration = Duration::from_secs(15);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at a time: strangers in the cluster can't exhaust memory.
const HANDSHAKES: usize = 64;

/// Why the files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Missing or not PEM.
    #[error("{path}: {source}")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// The files don't fit together.
    #[error("TLS configuration: {0}")]
    Config(#[from] rustls::Error),
    /// The authority is no authority.
    #[error("client authority: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Reads `tls.crt`, `tls.key` and `ca.crt` of a directory.
pub fn load(directory: &Path) -> Result<ServerConfig, TlsError> {
    let certificates = |name: &str| -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let path = directory.join(name);
        CertificateDer::pem_file_iter(&path)
            .and_then(Iterator::collect)
            .map_err(|source| TlsError::Pem { path, source })
    };
    let chain = certificates("tls.crt")?;
    let path = directory.join("tls.key");
    let key = PrivateKeyDer::from_pem_file(&path).map_err(|source| TlsError::Pem { path, source })?;
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca.crt")? {
        roots.add(authority)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Accepts connections for good; each comes out with its handshake done.
pub async fn accept(
    listener: TcpListener,
    directory: PathBuf,
    first: ServerConfig,
    to: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let (renewed, config) = watch::channel(Arc::new(first));
    tokio::spawn(reload(directory, renewed));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "control port: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
            return;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
        let to = to.clone();
        if to.is_closed() {
            return;
        }
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(to.send(Ok(stream)).await),
                Ok(Err(error)) => tracing::debug!(%error, "control port: handshake failed"),
                Err(_) => tracing::debug!("control port: handshake timed out"),
            }
            drop(permit);
        });
    }
}

async fn reload(directory: PathBuf, renewed: watch::Sender<Arc<ServerConfig>>) {
    let mut known = contents(&directory);
    loop {
        tokio::time::sleep(RELOAD_EVERY).await;
        if renewed.is_closed() {
            return;
        }
        let current = contents(&directory);
        if current == known {
            continue;
        }
        match load(&directory) {
            Ok(config) => {
                tracing::info!("control port: certificate renewed");
                known = current;
                renewed.send_replace(Arc::new(config));
            }
            // Files are swapped one after the other: the next round sees all of them.
            Err(error) => tracing::warn!(%error, "control port: renewed certificate not usable yet"),
        }
    }
}

fn contents(directory: &Path) -> Vec<Option<Vec<u8>>> {
    ["tls.crt", "tls.key", "ca.crt"]
        .iter()
        .map(|name| std::fs::read(directory.join(name)).ok())
        .collect()
}
