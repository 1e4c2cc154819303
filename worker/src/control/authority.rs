//! Who calls.
//!
//! Owns the reading of a peer's certificate. The certificate itself was verified by TLS against the
//! operator's authority; here it is only asked for its name. Invariant: no certificate, no call.

use rustls::pki_types::{CertificateDer, ServerName};
use tonic::{Request, Status};

/// The name workers' certificates carry, and clients verify.
pub const WORKER_NAME: &str = "worker.plenum.internal";
/// The controller's.
pub const CONTROLLER_NAME: &str = "controller.plenum.internal";
/// The gateways'.
pub const GATEWAY_NAME: &str = "gateway.plenum.internal";

/// A part of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Places rooms.
    Controller,
    /// Speaks for clients.
    Gateway,
}

impl Caller {
    fn name(self) -> &'static str {
        match self {
            Caller::Controller => CONTROLLER_NAME,
            Caller::Gateway => GATEWAY_NAME,
        }
    }
}

/// Is the caller one of those?
pub fn require<T>(request: &Request<T>, allowed: &[Caller]) -> Result<(), Status> {
    let certificates = request
        .peer_certs()
        .ok_or_else(|| Status::unauthenticated("a client certificate is required"))?;
    let certificate = certificates
        .first()
        .ok_or_else(|| Status::unauthenticated("a client certificate is required"))?;
    if allowed.iter().any(|caller| names(certificate, caller.name())) {
        Ok(())
    } else {
        Err(Status::permission_denied(
            "the client certificate does not allow this call",
        ))
    }
}

fn names(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let (Ok(certificate), Ok(name)) = (
        webpki::EndEntityCert::try_from(certificate),
        ServerName::try_from(name),
    ) else {
        return false;
    };
    certificate.verify_is_valid_for_subject_name(&name).is_ok()
}
