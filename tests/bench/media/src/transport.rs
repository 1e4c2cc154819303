//! One client's transport without its socket: ICE, DTLS, SRTP.
//!
//! Owns the handshake and the keys. Sans-IO: datagrams in, datagrams out, the clock is an argument.
//! Invariants: AES-128-GCM and nothing else is offered, so that every server is measured with the same
//! cipher; media goes nowhere before the handshake is complete.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider};
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;
use rtc::srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

use crate::description::{Local, Remote};
use crate::stun::{self, Stun};

/// The library keys associations by address; ours has one peer wherever it is.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);
/// Between checks until one succeeded.
const EAGER: Duration = Duration::from_millis(50);
/// Between checks afterwards, as browsers do.
const STEADY: Duration = Duration::from_millis(2500);

/// One certificate for all clients of the process: making one is work the server never sees.
#[derive(Clone)]
pub(crate) struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    fingerprint: String,
}

impl Identity {
    pub(crate) fn generate() -> Result<Identity, Error> {
        let provider = rtc::crypto::default_provider().map_err(|e| Error::Crypto(e.to_string()))?;
        let certificate = Certificate::generate_self_signed(vec!["bench".to_owned()], provider.crypto())?;
        let der = certificate.certificate.first().ok_or(Error::ErrNonCertificate)?;
        let hash = provider
            .crypto()
            .hash(HashAlgorithm::Sha256, der)
            .map_err(|e| Error::Crypto(e.to_string()))?;
        let fingerprint: Vec<String> = hash.iter().map(|b| format!("{b:02X}")).collect();
        Ok(Identity {
            provider,
            certificate,
            fingerprint: fingerprint.join(":"),
        })
    }

    fn config(&self, client: bool) -> Result<Arc<HandshakeConfig>, Error> {
        let config = ConfigBuilder::default()
            .with_crypto_provider(Arc::clone(&self.provider))
            .with_certificates(vec![self.certificate.clone()])
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // Nobody else is on the loopback address, and nothing secret is said.
            .with_insecure_skip_verify(true)
            .with_extended_master_secret(ExtendedMasterSecretType::Request)
            .build(client, None)?;
        Ok(Arc::new(config))
    }
}

/// What a datagram turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// ICE or DTLS, dealt with.
    Handled,
    /// The handshake completed with this datagram.
    Connected,
    /// Media or its reports, still sealed.
    Rtp,
    Rtcp,
}

struct Keys {
    out: Context,
    rtp_in: Context,
    rtcp_in: Context,
}

/// One client's transport.
pub(crate) struct Transport {
    identity: Identity,
    local: Local,
    remote: Option<Remote>,
    /// Candidates from before the answer.
    early: Vec<SocketAddr>,
    server: Option<SocketAddr>,
    dtls: Option<Endpoint>,
    keys: Option<Keys>,
    next_check: Option<Instant>,
    out: Vec<(SocketAddr, Vec<u8>)>,
}

impl Transport {
    /// A client that is reached at `address`.
    pub(crate) fn new(identity: &Identity, address: SocketAddr) -> Result<Transport, Error> {
        let mut random = [0; 20];
        identity
            .provider
            .random()
            .fill(&mut random)
            .map_err(|e| Error::Crypto(e.to_string()))?;
        let text: String = random.iter().map(|b| format!("{b:02x}")).collect();
        let (ufrag, pwd) = text.split_at(8);
        Ok(Transport {
            local: Local {
                ufrag: ufrag.to_owned(),
                pwd: pwd.to_owned(),
                fingerprint: identity.fingerprint.clone(),
                address,
            },
            identity: identity.clone(),
            remote: None,
            early: Vec::new(),
            server: None,
            dtls: None,
            keys: None,
            next_check: None,
            out: Vec::new(),
        })
    }

    pub(crate) fn local(&self) -> &Local {
        &self.local
    }

    /// Takes an answer; the first one starts the checks.
    pub(crate) fn answered(&mut self, remote: Remote, now: Instant) {
        match &mut self.remote {
            Some(known) => {
                // No restart is ever asked for: only what comes on top matters.
                known.feedback = remote.feedback;
            }
            None => {
                let mut remote = remote;
                remote.candidates.append(&mut self.early);
                self.remote = Some(remote);
                self.next_check = Some(now);
            }
        }
    }

    /// A candidate outside the answer, which it may overtake.
    pub(crate) fn trickled(&mut self, candidate: SocketAddr) {
        match &mut self.remote {
            Some(remote) => remote.candidates.push(candidate),
            None => self.early.push(candidate),
        }
    }

    pub(crate) fn connected(&self) -> bool {
        self.keys.is_some()
    }

    /// The server wants reports of transport-wide sequence numbers.
    pub(crate) fn feedback(&self) -> bool {
        self.remote.as_ref().is_some_and(|r| r.feedback)
    }

    /// Where media goes.
    pub(crate) fn server(&self) -> Option<SocketAddr> {
        self.server
    }

    /// Datagrams to send.
    pub(crate) fn take_output(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        if let (Some(dtls), Some(server)) = (&mut self.dtls, self.server) {
            while let Some(t) = dtls.poll_transmit() {
                self.out.push((server, t.message.to_vec()));
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Whatever is due.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Error> {
        if let Some(dtls) = &mut self.dtls
            && dtls.poll_timeout(&PEER).is_some_and(|at| at <= now)
        {
            dtls.handle_timeout(PEER, now)?;
        }
        let (Some(remote), Some(due)) = (&self.remote, self.next_check) else {
            return Ok(());
        };
        if due > now {
            return Ok(());
        }
        let to = match self.server {
            Some(server) => vec![server],
            None => remote.candidates.clone(),
        };
        for address in to {
            let check = stun::check(
                &self.identity.provider,
                &self.local.ufrag,
                &remote.ufrag,
                &remote.pwd,
            )?;
            self.out.push((address, check));
        }
        self.next_check = Some(now + if self.server.is_some() { STEADY } else { EAGER });
        Ok(())
    }

    /// Takes a datagram.
    pub(crate) fn datagram(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Result<Input, Error> {
        match (datagram.first(), datagram.get(1)) {
            (Some(0..4), _) => {
                self.stun(datagram, from, now)?;
                Ok(Input::Handled)
            }
            (Some(20..64), _) => self.handshake(datagram, now),
            (Some(128..192), Some(192..224)) => Ok(Input::Rtcp),
            (Some(128..192), Some(_)) => Ok(Input::Rtp),
            _ => Ok(Input::Handled),
        }
    }

    fn stun(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> Result<(), Error> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let provider = &self.identity.provider;
        match stun::read(provider, datagram, from, &self.local.pwd, &remote.pwd) {
            Stun::Request(response) => self.out.push((from, response)),
            Stun::Response if self.server.is_none() => {
                self.server = Some(from);
                self.next_check = Some(now + STEADY);
                let server_config = if remote.active {
                    Some(self.identity.config(false)?)
                } else {
                    None
                };
                let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, server_config);
                if !remote.active {
                    endpoint.connect(now, PEER, self.identity.config(true)?, None)?;
                }
                self.dtls = Some(endpoint);
            }
            Stun::Response | Stun::Other => {}
        }
        Ok(())
    }

    fn handshake(&mut self, datagram: &[u8], now: Instant) -> Result<Input, Error> {
        // A flight that overtook the response to our check comes again.
        let Some(dtls) = &mut self.dtls else {
            return Ok(Input::Handled);
        };
        let events = dtls.read(now, PEER, None, BytesMut::from(datagram))?;
        if !events
            .iter()
            .any(|e| matches!(e, EndpointEvent::HandshakeComplete))
        {
            return Ok(Input::Handled);
        }
        let state = dtls
            .get_connection_state(PEER)
            .ok_or(Error::HandshakeInProgress)?;
        let mut config = Config {
            profile: ProtectionProfile::AeadAes128Gcm,
            ..Default::default()
        };
        let material =
            state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
        config.set_session_keys_from_keying_material(material.as_ref(), state.is_client())?;
        let crypto = self.identity.provider.crypto();
        let context = |key: &[u8], salt: &[u8]| {
            Context::new(key, salt, ProtectionProfile::AeadAes128Gcm, None, None, crypto)
        };
        let keys = &config.keys;
        self.keys = Some(Keys {
            out: context(&keys.local_master_key, &keys.local_master_salt)?,
            rtp_in: context(&keys.remote_master_key, &keys.remote_master_salt)?,
            rtcp_in: context(&keys.remote_master_key, &keys.remote_master_salt)?,
        });
        Ok(Input::Connected)
    }

    fn keys(&mut self) -> Result<&mut Keys, Error> {
        self.keys.as_mut().ok_or(Error::HandshakeInProgress)
    }

    pub(crate) fn seal_rtp(&mut self, packet: &[u8]) -> Result<BytesMut, Error> {
        self.keys()?.out.encrypt_rtp(packet)
    }

    pub(crate) fn seal_rtcp(&mut self, packet: &[u8]) -> Result<BytesMut, Error> {
        self.keys()?.out.encrypt_rtcp(packet)
    }

    pub(crate) fn open_rtp(&mut self, datagram: &[u8]) -> Result<BytesMut, Error> {
        self.keys()?.rtp_in.decrypt_rtp(datagram)
    }

    pub(crate) fn open_rtcp(&mut self, datagram: &[u8]) -> Result<BytesMut, Error> {
        self.keys()?.rtcp_in.decrypt_rtcp(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote_of(t: &Transport, candidates: Vec<SocketAddr>, active: bool) -> Remote {
        Remote {
            ufrag: t.local.ufrag.clone(),
            pwd: t.local.pwd.clone(),
            active,
            candidates,
            videos: 0,
            feedback: true,
        }
    }

    /// Two of us, of which one plays the server: checks, handshake in either role, and media both ways.
    #[test]
    fn two_transports_connect_in_either_role_and_exchange_media() {
        for a_is_active in [false, true] {
            let identity = Identity::generate().unwrap();
            let addresses: [SocketAddr; 2] = ["127.0.0.1:1001", "127.0.0.1:1002"].map(|a| a.parse().unwrap());
            let mut now = Instant::now();
            let mut a = Transport::new(&identity, addresses[0]).unwrap();
            let mut b = Transport::new(&identity, addresses[1]).unwrap();
            // One candidate comes before its answer, the other in it.
            a.trickled(addresses[1]);
            let (of_a, of_b) = (
                remote_of(&a, vec![addresses[0]], a_is_active),
                remote_of(&b, Vec::new(), !a_is_active),
            );
            a.answered(of_b, now);
            b.answered(of_a, now);
            for _ in 0..200 {
                now += Duration::from_millis(10);
                a.tick(now).unwrap();
                b.tick(now).unwrap();
                for (to, d) in a.take_output() {
                    assert_eq!(to, addresses[1]);
                    b.datagram(&d, addresses[0], now).unwrap();
                }
                for (to, d) in b.take_output() {
                    assert_eq!(to, addresses[0]);
                    a.datagram(&d, addresses[1], now).unwrap();
                }
            }
            assert!(a.connected() && b.connected() && a.feedback());
            assert_eq!((a.server(), b.server()), (Some(addresses[1]), Some(addresses[0])));
            let packet = crate::packet::Writer::new(1, "0", crate::packet::Shape::PLAIN).packet();
            let sealed = a.seal_rtp(&packet).unwrap();
            assert_eq!(b.datagram(&sealed, addresses[0], now).unwrap(), Input::Rtp);
            assert_eq!(b.open_rtp(&sealed).unwrap()[..], packet[..]);
            let report = crate::rtcp::sender_report(1, 2, 3, 4, 5);
            let sealed = b.seal_rtcp(&report).unwrap();
            assert_eq!(a.datagram(&sealed, addresses[1], now).unwrap(), Input::Rtcp);
            assert_eq!(a.open_rtcp(&sealed).unwrap()[..], report[..]);
        }
    }
}
