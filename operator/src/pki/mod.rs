//! The internal certificate authority: who may speak to whom inside Plenum.
//!
//! Owns what the certificates say. [`secrets`] owns where they live. Invariants: private keys exist
//! in Secrets and in memory only and are never logged; a leaf has exactly one role, told by its
//! SAN; a leaf is replaced before a third of its life is left.

pub mod secrets;

use k8s_openapi::jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// SAN of the controller's client certificate.
pub const CONTROLLER: &str = "controller.plenum.internal";
/// SAN of the gateway's client certificate.
pub const GATEWAY: &str = "gateway.plenum.internal";
/// SAN of every worker's serving certificate.
pub const WORKER: &str = "worker.plenum.internal";

/// How long a leaf is valid.
pub const LEAF_DAYS: i32 = 90;
/// How long the authority is valid.
pub const CA_DAYS: i32 = 3650;

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A certificate or key could not be made or read.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The API server refused.
    #[error("API: {0}")]
    Api(#[from] kube::Error),
    /// A Secret lacks a key or holds no text.
    #[error("Secret {secret} has no usable {key}; delete the Secret and the controller makes it anew")]
    Unusable {
        /// Name of the Secret.
        secret: String,
        /// Key in its data.
        key: &'static str,
    },
    /// The system gave no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// A date beyond what can be written.
    #[error("date out of range")]
    Date,
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// When it must be replaced.
    pub renew_at: Timestamp,
}

/// The certificate authority.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority, as certificate and key in PEM.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn generate(now: Timestamp) -> Result<(String, String), PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name = name("plenum internal CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, now, CA_DAYS)?;
        Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
    }

    /// The authority from its PEM form.
    ///
    /// # Errors
    /// When the PEM cannot be read.
    pub fn load(certificate: &str, key: &str) -> Result<Self, PkiError> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            issuer,
        })
    }

    /// Its certificate, which everyone trusts.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for TLS clients.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn client(&self, san: &str, now: Timestamp) -> Result<Leaf, PkiError> {
        self.leaf(vec![san.to_owned()], &[ExtendedKeyUsagePurpose::ClientAuth], now)
    }

    /// A certificate for TLS servers.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn server(&self, sans: Vec<String>, now: Timestamp) -> Result<Leaf, PkiError> {
        self.leaf(sans, &[ExtendedKeyUsagePurpose::ServerAuth], now)
    }

    fn leaf(
        &self,
        sans: Vec<String>,
        usages: &[ExtendedKeyUsagePurpose],
        now: Timestamp,
    ) -> Result<Leaf, PkiError> {
        let key = KeyPair::generate()?;
        let common_name = sans.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(sans)?;
        params.distinguished_name = name(&common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, now, LEAF_DAYS)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Leaf {
            certificate,
            key: key.serialize_pem(),
            renew_at: renewal(now)?,
        })
    }
}

/// When a leaf made at `now` must be replaced: after two thirds of its life.
fn renewal(now: Timestamp) -> Result<Timestamp, PkiError> {
    now.checked_add(Span::new().hours(i64::from(LEAF_DAYS) * 24 * 2 / 3))
        .map_err(|_| PkiError::Date)
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "plenum");
    name.push(DnType::CommonName, common_name);
    name
}

/// From the day before, so that clocks that lag accept it, for `days`.
fn validity(params: &mut CertificateParams, now: Timestamp, days: i32) -> Result<(), PkiError> {
    let today = now.to_zoned(TimeZone::UTC).date();
    let from = today
        .checked_sub(Span::new().days(1))
        .map_err(|_| PkiError::Date)?;
    let until = today
        .checked_add(Span::new().days(days))
        .map_err(|_| PkiError::Date)?;
    let at = |date: Date| date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8);
    params.not_before = at(from);
    params.not_after = at(until);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_signed_by_the_loaded_authority_and_name_their_role() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let (certificate, key) = Authority::generate(now).unwrap();
        let authority = Authority::load(&certificate, &key).unwrap();
        let worker = authority.server(vec![WORKER.into()], now).unwrap();
        let client = authority.client(CONTROLLER, now).unwrap();
        assert_ne!(worker.key, client.key);
        assert_eq!(
            worker.renew_at,
            "2026-04-01T12:00:00Z".parse::<Timestamp>().unwrap()
        );
        // A chain that rustls accepts for the role's name and no other.
        use rustls::client::WebPkiServerVerifier;
        use rustls::client::danger::ServerCertVerifier as _;
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
            .unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(worker.certificate.as_bytes()).unwrap();
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second() as u64));
        let check = |name: &'static str| {
            verifier
                .verify_server_cert(&leaf, &[], &ServerName::try_from(name).unwrap(), &[], at)
                .is_ok()
        };
        assert!(check(WORKER));
        assert!(!check(GATEWAY));
    }
}
