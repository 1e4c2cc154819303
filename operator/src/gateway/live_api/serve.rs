//! The HTTPS listener of the live API.
//!
//! Owns the TLS configuration, made anew whenever the serving certificate or the cluster's
//! request-header authority changes. A client certificate is asked for and, where given, must chain
//! to that authority; who shows none is served health checks and nothing else.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

use super::identity::Peer;
use crate::gateway::material::{Certificates, FrontProxy, Watched};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 1024;

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error("a PEM block cannot be read: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("the request-header authority cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Serves `router` until `shutdown` completes.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    mut certificates: Watched<Certificates>,
    mut front_proxy: Watched<FrontProxy>,
    shutdown: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut acceptor = configure(&mut certificates, &mut front_proxy);
    tokio::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept failed on the live API");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Ok(()) = certificates.changed() => {
                acceptor = configure(&mut certificates, &mut front_proxy).or(acceptor);
                continue;
            }
            Ok(()) = front_proxy.changed() => {
                acceptor = configure(&mut certificates, &mut front_proxy).or(acceptor);
                continue;
            }
            () = &mut shutdown => return,
        };
        // Before there is a certificate there is nothing to say.
        let Some(acceptor) = acceptor.clone() else {
            continue;
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            connection(stream, acceptor, router).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed on the live API");
            return;
        }
        Err(_) => return,
    };
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let peer = Peer {
        common_name: leaf.map(common_name),
    };
    let service = hyper::service::service_fn(move |mut request: axum::http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let mut router = router.clone();
        async move { router.call(request).await }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(128);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error = %error, "live API connection ended early");
    }
}

/// The subject's common name; empty where there is none, which is on nobody's list.
fn common_name(certificate: &CertificateDer<'_>) -> String {
    use x509_parser::prelude::FromDer as _;
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(certificate) else {
        return String::new();
    };
    let name = parsed
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok());
    name.unwrap_or_default().to_owned()
}

fn configure(
    certificates: &mut Watched<Certificates>,
    front_proxy: &mut Watched<FrontProxy>,
) -> Option<TlsAcceptor> {
    let certificates = certificates.borrow_and_update().clone()?;
    let front_proxy = front_proxy.borrow_and_update().clone()?;
    match tls_config(&certificates, &front_proxy) {
        Ok(config) => Some(TlsAcceptor::from(Arc::new(config))),
        Err(error) => {
            tracing::error!(%error, "the live API has no usable certificate");
            None
        }
    }
}

fn tls_config(
    certificates: &Certificates,
    front_proxy: &FrontProxy,
) -> Result<rustls::ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(front_proxy.authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let chain = CertificateDer::pem_slice_iter(certificates.live_certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(certificates.live_key.as_bytes())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
