//! DTLS of one leg on the library, from the fingerprint in the offer to the SRTP keys.
//!
//! Owns certificate, handshake and key export (RFC 5763, RFC 5764). Invariants: keys exist only after the
//! peer's certificate matched a fingerprint of its description; where the peer offers AES-GCM for SRTP
//! nothing else is negotiated (as a server the library takes the client's first choice, and browsers put
//! the slow HMAC-SHA1 first).

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider};
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::dtls::state::State;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;
use rtc::srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::protection_profile::ProtectionProfile;

use super::flight::{Flight, Numbers};
use crate::forward::srtp::Keys;

/// The library keys associations by address; ours has one peer wherever it is.
pub(crate) const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 65535);

/// Content type of a handshake record, RFC 6347 section 4.1.
const HANDSHAKE: u8 = 22;

/// The worker's certificate, one for all legs of a process.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    /// `sha-256` value, upper case with colons.
    pub(crate) fingerprint: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Identity {
    pub(crate) fn generate() -> Result<Identity, Error> {
        let provider = rtc::crypto::default_provider().map_err(|e| Error::Crypto(e.to_string()))?;
        let certificate = Certificate::generate_self_signed(vec!["plenum".to_owned()], provider.crypto())?;
        let der = certificate.certificate.first().ok_or(Error::ErrNonCertificate)?;
        let fingerprint = fingerprint(&provider, der)?.to_uppercase();
        Ok(Identity {
            provider,
            certificate,
            fingerprint,
        })
    }
}

fn fingerprint(provider: &Arc<dyn RTCCryptoProvider>, der: &[u8]) -> Result<String, Error> {
    let hash = provider
        .crypto()
        .hash(HashAlgorithm::Sha256, der)
        .map_err(|e| Error::Crypto(e.to_string()))?;
    Ok(hash
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect::<Vec<_>>()
        .join(":"))
}

/// Progress of the handshake.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Done; the SRTP keys.
    Keys(Box<Keys>),
    /// SCTP.
    Data(BytesMut),
    /// close_notify.
    Closed,
}

/// One association.
pub(crate) struct Dtls {
    identity: Identity,
    /// SHA-256 values in lower case; the peer's certificate must match one.
    fingerprints: Arc<Vec<String>>,
    client: bool,
    endpoint: Option<Endpoint>,
    connected: bool,
    out: VecDeque<BytesMut>,
    flight: Flight,
    numbers: Numbers,
}

impl std::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dtls")
            .field("client", &self.client)
            .field("connected", &self.connected)
            .finish()
    }
}

impl Dtls {
    /// `client`: we send the first flight. Fails if there is no SHA-256 fingerprint.
    pub(crate) fn new(identity: Identity, fingerprints: &[(String, String)], client: bool) -> Option<Dtls> {
        let fingerprints: Vec<String> = fingerprints
            .iter()
            .filter(|(hash, _)| hash == "sha-256")
            .map(|(_, v)| v.clone())
            .collect();
        if fingerprints.is_empty() {
            return None;
        }
        Some(Dtls {
            identity,
            fingerprints: Arc::new(fingerprints),
            client,
            endpoint: None,
            connected: false,
            out: VecDeque::new(),
            flight: Flight::default(),
            numbers: Numbers::default(),
        })
    }

    pub(crate) fn is_client(&self) -> bool {
        self.client
    }

    pub(crate) fn connected(&self) -> bool {
        self.connected
    }

    fn config(&self, profiles: Vec<SrtpProtectionProfile>) -> Result<Arc<HandshakeConfig>, Error> {
        let wanted = Arc::clone(&self.fingerprints);
        let provider = Arc::clone(&self.identity.provider);
        let config = ConfigBuilder::default()
            .with_crypto_provider(Arc::clone(&self.identity.provider))
            .with_certificates(vec![self.identity.certificate.clone()])
            .with_srtp_protection_profiles(profiles)
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // There is no chain to verify: the fingerprint is the identity (RFC 5763 section 5).
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(move |certificates: &[Vec<u8>], _: &[_]| {
                let der = certificates.first().ok_or(Error::ErrNonCertificate)?;
                let got = fingerprint(&provider, der)?;
                if wanted.contains(&got) {
                    Ok(())
                } else {
                    Err(Error::ErrNoMatchingCertificateFingerprint)
                }
            })))
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .build(self.client, None)?;
        Ok(Arc::new(config))
    }

    /// Sends the first flight where that is ours to do.
    pub(crate) fn start(&mut self, now: Instant) -> Result<(), Error> {
        if !self.client || self.endpoint.is_some() {
            return Ok(());
        }
        let config = self.config(vec![
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        ])?;
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
        endpoint.connect(now, PEER, config, None)?;
        self.endpoint = Some(endpoint);
        self.collect();
        Ok(())
    }

    /// Takes a datagram. An error before [`Self::connected`] ends the handshake.
    pub(crate) fn read(&mut self, datagram: &[u8], now: Instant) -> Result<Vec<Progress>, Error> {
        if self.endpoint.is_none() {
            if self.client {
                return Ok(Vec::new());
            }
            // Before the first flight the library keeps whatever looks like a part of one, and anybody who knows
            // the address can send that.
            if !is_client_hello(datagram) {
                return Err(Error::ErrInvalidContentType);
            }
            let profile = if offers_only_sha1(datagram) {
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80
            } else {
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm
            };
            let config = self.config(vec![profile])?;
            self.endpoint = Some(Endpoint::new(PEER, TransportProtocol::UDP, Some(config)));
        }
        let Some(endpoint) = &mut self.endpoint else {
            return Ok(Vec::new());
        };
        let read = endpoint.read(now, PEER, None, BytesMut::from(datagram));
        let stalled = endpoint.poll_timeout(&PEER).is_none() && datagram.first() == Some(&HANDSHAKE);
        if !self.collect() && stalled && !self.connected {
            self.flight.stalled(now);
        }
        let Some(endpoint) = &self.endpoint else {
            return Ok(Vec::new());
        };
        let mut progress = Vec::new();
        for event in read? {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let state = endpoint
                        .get_connection_state(PEER)
                        .ok_or(Error::HandshakeInProgress)?;
                    progress.push(Progress::Keys(Box::new(export(state)?)));
                    self.connected = true;
                    self.flight.done();
                }
                EndpointEvent::ApplicationData(data) => progress.push(Progress::Data(data)),
                EndpointEvent::PeerClosed => progress.push(Progress::Closed),
                _ => {}
            }
        }
        Ok(progress)
    }

    /// Queues SCTP.
    pub(crate) fn write(&mut self, data: &[u8], now: Instant) -> Result<(), Error> {
        match &mut self.endpoint {
            Some(endpoint) => endpoint.write(now, PEER, data),
            None => Err(Error::HandshakeInProgress),
        }
    }

    /// Takes what the library wants to send; whether there was any. During the handshake it is a flight.
    fn collect(&mut self) -> bool {
        let before = self.out.len();
        while let Some(t) = self.endpoint.as_mut().and_then(Endpoint::poll_transmit) {
            self.out.push_back(t.message);
        }
        let new = self.out.len() > before;
        if new && !self.connected {
            self.flight.sent(&self.out.make_contiguous()[before..]);
        }
        new
    }

    /// The next datagram to send.
    pub(crate) fn transmit(&mut self) -> Option<BytesMut> {
        let first = self.out.pop_front();
        let mut datagram = first.or_else(|| self.endpoint.as_mut()?.poll_transmit().map(|t| t.message))?;
        self.numbers.stamp(&mut datagram);
        Some(datagram)
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        let library = self.endpoint.as_ref()?.poll_timeout(&PEER);
        [library, self.flight.due()].into_iter().flatten().min()
    }

    /// Retransmits; an error ends the handshake.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        let handled = match &mut self.endpoint {
            Some(endpoint) if endpoint.get_connection_state(PEER).is_some() => {
                endpoint.handle_timeout(PEER, now)
            }
            _ => Ok(()),
        };
        if !self.collect() {
            self.out.extend(self.flight.again(now).iter().cloned());
        }
        handled
    }

    /// Queues close_notify.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.stop(now, PEER);
        }
    }
}

/// RFC 5764 section 4.2
fn export(state: &State) -> Result<Keys, Error> {
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        _ => return Err(Error::ErrNoSuchSrtpProfile),
    };
    let mut config = Config {
        profile,
        ..Default::default()
    };
    let material =
        state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
    config.set_session_keys_from_keying_material(material.as_ref(), state.is_client())?;
    Ok(Keys {
        profile,
        local_key: config.keys.local_master_key.clone(),
        local_salt: config.keys.local_master_salt.clone(),
        remote_key: config.keys.remote_master_key.clone(),
        remote_salt: config.keys.remote_master_salt.clone(),
    })
}

/// Whether a datagram begins with a ClientHello or a fragment of one (RFC 6347 section 4.2.2).
pub(crate) fn is_client_hello(datagram: &[u8]) -> bool {
    let number = |at: usize, len: usize| {
        let bytes = datagram.get(at..at + len)?;
        Some(bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    };
    let (Some(record), Some(whole), Some(number), Some(begin), Some(part)) = (
        number(11, 2),
        number(14, 3),
        number(17, 2),
        number(19, 3),
        number(22, 3),
    ) else {
        return false;
    };
    datagram.first() == Some(&22)
        && datagram.get(13) == Some(&1)
        && number == 0
        && part > 0
        && begin + part <= whole
        && record == part + 12
        && datagram.len() >= 13 + record
}

/// Whether a ClientHello lists SRTP profiles without AES-GCM. One that can't be read whole (it may come
/// in fragments) is taken for a browser's, and all of those offer GCM.
pub(crate) fn offers_only_sha1(datagram: &[u8]) -> bool {
    profiles_of(datagram).is_some_and(|p| !p.is_empty() && !p.contains(&7))
}

fn profiles_of(datagram: &[u8]) -> Option<Vec<u16>> {
    // Record header 13, handshake header 12, version 2, random 32 (RFC 6347 section 4.2.2).
    if datagram.first() != Some(&22) || datagram.get(13) != Some(&1) {
        return None;
    }
    let mut rest = datagram.get(13 + 12 + 2 + 32..)?;
    for width in [1, 1, 2, 1] {
        // session id, cookie, cipher suites, compression
        let (len, tail) = rest.split_at_checked(width)?;
        let len = len.iter().fold(0, |n, b| n << 8 | usize::from(*b));
        rest = tail.get(len..)?;
    }
    let mut rest = rest.get(2..)?;
    while let [t0, t1, l0, l1, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let body = tail.get(..len)?;
        if u16::from_be_bytes([*t0, *t1]) == 14 {
            let list = body.get(2..2 + usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?])))?;
            return Some(
                list.as_chunks::<2>()
                    .0
                    .iter()
                    .map(|c| u16::from_be_bytes(*c))
                    .collect(),
            );
        }
        rest = tail.get(len..)?;
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn pump(a: &mut Dtls, b: &mut Dtls, now: Instant) -> (Vec<Progress>, Vec<Progress>, Option<Error>) {
        let (mut pa, mut pb) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            let mut idle = true;
            while let Some(d) = a.transmit() {
                idle = false;
                match b.read(&d, now) {
                    Ok(p) => pb.extend(p),
                    Err(e) => return (pa, pb, Some(e)),
                }
            }
            while let Some(d) = b.transmit() {
                idle = false;
                match a.read(&d, now) {
                    Ok(p) => pa.extend(p),
                    Err(e) => return (pa, pb, Some(e)),
                }
            }
            if idle {
                break;
            }
        }
        (pa, pb, None)
    }

    fn fp(i: &Identity) -> Vec<(String, String)> {
        vec![("sha-256".to_owned(), i.fingerprint.to_lowercase())]
    }

    /// Pins the exporter: both ends derive the same keys, mirrored, and GCM wins.
    #[test]
    fn both_ends_export_the_same_keys() {
        let (ca, cb) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let now = Instant::now();
        let mut a = Dtls::new(ca.clone(), &fp(&cb), true).unwrap();
        let mut b = Dtls::new(cb, &fp(&ca), false).unwrap();
        a.start(now).unwrap();
        let (pa, pb, error) = pump(&mut a, &mut b, now);
        assert!(error.is_none(), "{error:?}");
        let keys = |p: &[Progress]| {
            p.iter()
                .find_map(|p| match p {
                    Progress::Keys(k) => Some((**k).clone()),
                    _ => None,
                })
                .unwrap()
        };
        let (ka, kb) = (keys(&pa), keys(&pb));
        assert!(matches!(ka.profile, ProtectionProfile::AeadAes128Gcm));
        assert_eq!((ka.local_key.len(), ka.local_salt.len()), (16, 12));
        assert_eq!((&ka.local_key, &ka.local_salt), (&kb.remote_key, &kb.remote_salt));
        assert_eq!((&ka.remote_key, &ka.remote_salt), (&kb.local_key, &kb.local_salt));
        assert_ne!(ka.local_key, ka.remote_key);
        a.write(b"hello", now).unwrap();
        let (_, pb, _) = pump(&mut a, &mut b, now);
        assert!(matches!(&pb[..], [Progress::Data(d)] if &d[..] == b"hello"));
    }

    #[test]
    fn a_wrong_fingerprint_yields_no_keys() {
        let (ca, cb) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let now = Instant::now();
        let mut a = Dtls::new(ca.clone(), &fp(&cb), true).unwrap();
        let mut b = Dtls::new(cb.clone(), &fp(&cb), false).unwrap();
        a.start(now).unwrap();
        let (_, pb, error) = pump(&mut a, &mut b, now);
        assert!(error.is_some());
        assert!(!pb.iter().any(|p| matches!(p, Progress::Keys(_))));
        assert!(!b.connected());
    }

    /// A copy that its peer has not seen: what comes before encryption carries its record's number in the clear.
    fn repeated(datagram: &[u8], number: u8) -> BytesMut {
        let mut copy = BytesMut::from(datagram);
        assert_eq!((copy[0], &copy[3..10]), (HANDSHAKE, &[0; 7][..]));
        copy[10] = number;
        copy
    }

    #[test]
    fn a_lost_flight_is_repeated_for_a_peer_that_repeats_its_own() {
        let (ca, cb) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let mut now = Instant::now();
        let mut a = Dtls::new(ca.clone(), &fp(&cb), true).unwrap();
        let mut b = Dtls::new(cb, &fp(&ca), false).unwrap();
        a.start(now).unwrap();
        let hello = a.transmit().unwrap();
        b.read(&hello, now).unwrap();
        let verify = b.transmit().unwrap();
        a.read(&verify, now).unwrap();
        let hello = a.transmit().unwrap();
        b.read(&hello, now).unwrap();
        let mut lost = 0;
        while b.transmit().is_some() {
            lost += 1;
        }
        assert!(lost > 0);
        // As a browser does, sooner than the library's own timer is due.
        for number in [10, 11] {
            now += std::time::Duration::from_millis(20);
            b.read(&repeated(&hello, number), now).unwrap();
            assert!(b.transmit().is_none(), "each part of a flight is no reason");
        }
        now = b.timeout().expect("somebody has to go on");
        b.handle_timeout(now).unwrap();
        let (_, _, error) = pump(&mut a, &mut b, now);
        assert!(error.is_none() && a.connected() && b.connected(), "{error:?}");
        assert_eq!(b.timeout().filter(|at| *at > now), b.timeout());
        assert!(b.transmit().is_none() && b.flight.due().is_none());
    }

    #[test]
    fn a_handshake_gets_through_loss() {
        use std::time::Duration;
        let (ca, cb) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        for seed in 1..=100_u64 {
            let start = Instant::now();
            let mut now = start;
            let mut state = seed;
            // xorshift*: one in five is lost.
            let mut lost = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).is_multiple_of(5)
            };
            let mut a = Dtls::new(ca.clone(), &fp(&cb), true).unwrap();
            let mut b = Dtls::new(cb.clone(), &fp(&ca), false).unwrap();
            a.start(now).unwrap();
            while !(a.connected() && b.connected()) {
                let mut idle = true;
                while let Some(d) = a.transmit() {
                    idle = false;
                    if !lost() {
                        let _ = b.read(&d, now);
                    }
                }
                while let Some(d) = b.transmit() {
                    idle = false;
                    if !lost() {
                        let _ = a.read(&d, now);
                    }
                }
                if idle {
                    let next = [a.timeout(), b.timeout()].into_iter().flatten().min();
                    now = next
                        .unwrap_or_else(|| panic!("{seed}: both wait for ever"))
                        .max(now);
                    assert!(now - start < Duration::from_secs(30), "{seed}");
                    let _ = (a.handle_timeout(now), b.handle_timeout(now));
                }
            }
        }
    }

    #[test]
    fn profiles_are_read_from_a_hello_and_garbage_is_not() {
        let ca = Identity::generate().unwrap();
        let mut a = Dtls::new(ca.clone(), &fp(&ca), true).unwrap();
        a.start(Instant::now()).unwrap();
        let hello = a.transmit().unwrap();
        assert_eq!(profiles_of(&hello).unwrap(), vec![7, 1]);
        assert!(!offers_only_sha1(&hello));
        assert!(is_client_hello(&hello));
        for end in 0..hello.len() {
            assert!(!is_client_hello(&hello[..end]), "{end} bytes");
            let _ = profiles_of(&hello[..end]);
        }
    }
}
