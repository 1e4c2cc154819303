//! A client in full control of its packets, on the same libraries as a real one: it writes its own
//! descriptions, RTP and RTCP, and drops what a test wants dropped.

#![allow(unreachable_pub, reason = "a module of several test crates")]
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

pub mod call;
pub mod channels;
pub mod people;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use plenum_worker::session::api::{
    AudioOptions, Command, Event, ExpectedTrack, Home, Leg, MediaKind, SessionId, Topology, TrackSid,
};
use plenum_worker::session::{MediaConfig, MediaHandle, start};
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider};
use rtc::dtls::config::{ConfigBuilder, ExtendedMasterSecretType};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::rtp;
use rtc::shared::TransportProtocol;
use rtc::shared::marshal::Unmarshal;
use rtc::srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;
use rtc::stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc::stun::textattrs::TextAttribute;

pub const PATIENCE: Duration = Duration::from_secs(10);

/// An engine on loopback, and what it said.
pub struct Server {
    pub media: MediaHandle,
    events: tokio::sync::mpsc::UnboundedReceiver<Event>,
    kept: Vec<Event>,
    next_session: u64,
    pub address: SocketAddr,
}

impl Server {
    pub fn start() -> Server {
        Self::with(MediaConfig {
            udp: "127.0.0.1:0".parse().unwrap(),
            ..MediaConfig::default()
        })
    }

    pub fn with(config: MediaConfig) -> Server {
        let (media, events, address) = start(config).unwrap();
        Server {
            media,
            events,
            kept: Vec::new(),
            next_session: 1,
            address,
        }
    }

    pub fn open(&mut self, topology: Topology) -> SessionId {
        self.open_at("team/standup", topology)
    }

    pub fn open_at(&mut self, home: &str, topology: Topology) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.media.send(Command::Open {
            session,
            home: Home::from(home),
            topology,
            codecs: Vec::new(),
        });
        session
    }

    /// The first event, old or new, of which `pick` makes something. Others are kept.
    pub fn event<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            while let Ok(event) = self.events.try_recv() {
                self.kept.push(event);
            }
            for at in 0..self.kept.len() {
                if let Some(found) = pick(&self.kept[at]) {
                    self.kept.remove(at);
                    return found;
                }
            }
            assert!(Instant::now() < end, "no event: {what}; have {:#?}", self.kept);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether an event is there now.
    pub fn has(&mut self, pick: impl Fn(&Event) -> bool) -> bool {
        while let Ok(event) = self.events.try_recv() {
            self.kept.push(event);
        }
        self.kept.iter().any(pick)
    }

    pub fn expect(&self, session: SessionId, cid: &str, sid: &str, kind: MediaKind) {
        let track = ExpectedTrack {
            cid: cid.to_owned(),
            sid: TrackSid::from(sid),
            kind,
            codec: String::new(),
            simulcast: true,
            max_bitrate: None,
            audio: AudioOptions::default(),
        };
        self.media.send(Command::ExpectTrack { session, track });
    }

    pub fn subscribe(&self, session: SessionId, sid: &str) {
        self.media.send(Command::Subscribe {
            session,
            sid: TrackSid::from(sid),
            publisher_sid: Arc::from("PA_x"),
        });
    }

    /// Offers and waits for the answer.
    pub fn answer(&mut self, session: SessionId, id: u32, sdp: String) -> String {
        self.media.send(Command::Offer {
            session,
            leg: Leg::Publisher,
            id,
            sdp,
        });
        self.event("answer", |e| match e {
            Event::Answer {
                session: s,
                id: i,
                sdp,
                ..
            } if *s == session && *i == id => Some(sdp.clone()),
            Event::Refused {
                session: s, error, ..
            } if *s == session => panic!("refused: {error}"),
            _ => None,
        })
    }
}

const PEER: &str = "127.0.0.1:9";

/// A client's transport for one leg.
pub struct Client {
    pub socket: UdpSocket,
    pub ufrag: String,
    pub pwd: String,
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    pub fingerprint: String,
    server: Option<SocketAddr>,
    dtls: Option<Endpoint>,
    out: Option<Context>,
    rtp_in: Option<Context>,
    rtcp_in: Option<Context>,
    /// Decrypted RTP, in order of arrival.
    pub rtp: Vec<rtp::Packet>,
    /// Decrypted RTCP compounds.
    pub rtcp: Vec<BytesMut>,
    /// Packets that arrive are lost where this says so.
    pub lose: Box<dyn FnMut(&rtp::Header) -> bool>,
    pub dtls_error: Option<String>,
    /// Over DTLS, where there are any.
    pub data: Option<channels::Channels>,
    /// The server closed DTLS.
    pub closed: bool,
}

/// The value of the first line that starts so.
pub fn line<'a>(sdp: &'a str, prefix: &str) -> &'a str {
    sdp.lines()
        .find_map(|l| l.strip_prefix(prefix))
        .unwrap_or_else(|| panic!("no {prefix} in {sdp}"))
}

impl Client {
    pub fn new(name: &str) -> Client {
        let provider = rtc::crypto::default_provider().unwrap();
        let certificate =
            Certificate::generate_self_signed(vec!["client".to_owned()], provider.crypto()).unwrap();
        let hash = provider
            .crypto()
            .hash(HashAlgorithm::Sha256, &certificate.certificate[0])
            .unwrap();
        let fingerprint = hash
            .iter()
            .map(|b| format!("{b:02X}"))
            .collect::<Vec<_>>()
            .join(":");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        Client {
            socket,
            ufrag: format!("{name}ufrag"),
            pwd: format!("{name}-password-of-enough-length"),
            provider,
            certificate,
            fingerprint,
            server: None,
            dtls: None,
            out: None,
            rtp_in: None,
            rtcp_in: None,
            rtp: Vec::new(),
            rtcp: Vec::new(),
            lose: Box::new(|_| false),
            dtls_error: None,
            data: None,
            closed: false,
        }
    }

    /// A description of these sections, each without transport lines.
    pub fn describe(&self, setup: &str, sections: &[String]) -> String {
        let mids: Vec<String> = (0..sections.len()).map(|i| i.to_string()).collect();
        let mut sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=extmap-allow-mixed\r\n",
            mids.join(" ")
        );
        for (mid, section) in sections.iter().enumerate() {
            sdp += section;
            sdp += &format!(
                "a=mid:{mid}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:{setup}\r\n",
                self.ufrag, self.pwd, self.fingerprint
            );
        }
        sdp
    }

    pub fn check(&self, local_ufrag: &str, remote_ufrag: &str, remote_pwd: &str, nominate: bool) -> Vec<u8> {
        let mut m = Message::new();
        let mut parts: Vec<Box<dyn Setter + '_>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId::new()),
            Box::new(TextAttribute::new(
                ATTR_USERNAME,
                format!("{remote_ufrag}:{local_ufrag}"),
            )),
        ];
        struct Flag;
        impl Setter for Flag {
            fn add_to(&self, m: &mut Message) -> rtc::shared::error::Result<()> {
                m.add(ATTR_USE_CANDIDATE, &[]);
                Ok(())
            }
        }
        if nominate {
            parts.push(Box::new(Flag));
        }
        parts.push(Box::new(MessageIntegrity::new_raw_integrity_with_provider(
            remote_pwd.as_bytes(),
            self.provider.crypto(),
        )));
        m.build(&parts).unwrap();
        m.raw
    }

    /// One nominating check to the server of `sdp`; panics without an authentic response.
    pub fn ice(&mut self, sdp: &str) {
        let candidate: Vec<&str> = line(sdp, "a=candidate:").split(' ').collect();
        let server: SocketAddr = format!("{}:{}", candidate[4], candidate[5]).parse().unwrap();
        self.server = Some(server);
        let (ufrag, pwd) = (
            line(sdp, "a=ice-ufrag:").to_owned(),
            line(sdp, "a=ice-pwd:").to_owned(),
        );
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        loop {
            assert!(Instant::now() < end, "no STUN response");
            let request = self.check(&self.ufrag, &ufrag, &pwd, true);
            self.socket.send_to(&request, server).unwrap();
            let Ok((len, from)) = self.socket.recv_from(&mut buffer) else {
                continue;
            };
            let mut m = Message::new();
            if from == server && m.unmarshal_binary(&buffer[..len]).is_ok() && m.typ == BINDING_SUCCESS {
                MessageIntegrity::check(&mut m, pwd.as_bytes(), self.provider.crypto()).unwrap();
                return;
            }
        }
    }

    /// Runs DTLS as the client; `false` if it failed.
    pub fn dtls(&mut self) -> bool {
        let config = ConfigBuilder::default()
            .with_crypto_provider(self.provider.clone())
            .with_certificates(vec![self.certificate.clone()])
            .with_srtp_protection_profiles(vec![
                // As browsers do: the slow one first.
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            ])
            .with_insecure_skip_verify(true)
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .build(true, None)
            .unwrap();
        let peer: SocketAddr = PEER.parse().unwrap();
        let mut endpoint = Endpoint::new(peer, TransportProtocol::UDP, None);
        endpoint
            .connect(Instant::now(), peer, Arc::new(config), None)
            .unwrap();
        self.dtls = Some(endpoint);
        let end = Instant::now() + PATIENCE;
        while self.out.is_none() && self.dtls_error.is_none() && Instant::now() < end {
            self.pump(Duration::from_millis(10));
        }
        self.out.is_some()
    }

    /// ICE and DTLS with the server of `sdp`.
    pub fn connect(&mut self, sdp: &str) {
        self.ice(sdp);
        assert!(self.dtls(), "DTLS: {:?}", self.dtls_error);
    }

    fn keys(&mut self) {
        let peer: SocketAddr = PEER.parse().unwrap();
        let state = self.dtls.as_ref().unwrap().get_connection_state(peer).unwrap();
        let profile = state.srtp_protection_profile();
        assert_eq!(
            profile,
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            "GCM is preferred"
        );
        let mut config = Config {
            profile: ProtectionProfile::AeadAes128Gcm,
            ..Default::default()
        };
        let material = state
            .export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())
            .unwrap();
        config
            .set_session_keys_from_keying_material(material.as_ref(), true)
            .unwrap();
        let crypto = self.provider.crypto();
        let context = |key: &[u8], salt: &[u8]| {
            Some(Context::new(key, salt, ProtectionProfile::AeadAes128Gcm, None, None, crypto).unwrap())
        };
        self.out = context(&config.keys.local_master_key, &config.keys.local_master_salt);
        self.rtp_in = context(&config.keys.remote_master_key, &config.keys.remote_master_salt);
        self.rtcp_in = context(&config.keys.remote_master_key, &config.keys.remote_master_salt);
    }

    /// Sends and receives for a while.
    pub fn pump(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut buffer = [0; 2048];
        let peer: SocketAddr = PEER.parse().unwrap();
        loop {
            if let (Some(dtls), Some(server)) = (&mut self.dtls, self.server) {
                let _ = dtls.handle_timeout(peer, Instant::now());
                if let Some(data) = self.data.as_mut().filter(|_| self.out.is_some()) {
                    for packet in data.run() {
                        dtls.write(Instant::now(), peer, &packet).unwrap();
                    }
                }
                while let Some(t) = dtls.poll_transmit() {
                    self.socket.send_to(&t.message, server).unwrap();
                }
            }
            if let Ok((len, from)) = self.socket.recv_from(&mut buffer)
                && Some(from) == self.server
            {
                self.datagram(&buffer[..len]);
            }
            if Instant::now() >= end {
                return;
            }
        }
    }

    fn datagram(&mut self, datagram: &[u8]) {
        let peer: SocketAddr = PEER.parse().unwrap();
        match (datagram[0], datagram.get(1)) {
            (20..=63, _) => {
                let Some(dtls) = &mut self.dtls else { return };
                match dtls.read(Instant::now(), peer, None, BytesMut::from(datagram)) {
                    Ok(events) => {
                        for event in events {
                            match event {
                                EndpointEvent::HandshakeComplete => self.keys(),
                                EndpointEvent::ApplicationData(packet) => {
                                    if let Some(data) = &mut self.data {
                                        data.read(packet);
                                    }
                                }
                                EndpointEvent::PeerClosed => self.closed = true,
                                _ => {}
                            }
                        }
                    }
                    Err(e) => self.dtls_error = Some(e.to_string()),
                }
            }
            (128..=191, Some(192..=223)) => {
                let clear = self.rtcp_in.as_mut().unwrap().decrypt_rtcp(datagram).unwrap();
                self.rtcp.push(clear);
            }
            (128..=191, _) => {
                let clear = self.rtp_in.as_mut().unwrap().decrypt_rtp(datagram).unwrap();
                let packet = rtp::Packet::unmarshal(&mut &clear[..]).unwrap();
                if !(self.lose)(&packet.header) {
                    self.rtp.push(packet);
                }
            }
            _ => {}
        }
    }

    /// Seals RTP, to be sent by [`Self::send_raw`].
    pub fn seal_rtp(&mut self, packet: &[u8]) -> BytesMut {
        self.out.as_mut().unwrap().encrypt_rtp(packet).unwrap()
    }

    /// Seals and sends RTP.
    pub fn send_rtp(&mut self, packet: &[u8]) {
        let sealed = self.seal_rtp(packet);
        self.socket.send_to(&sealed, self.server.unwrap()).unwrap();
    }

    /// Seals and sends RTCP.
    pub fn send_rtcp(&mut self, packet: &[u8]) {
        let sealed = self.out.as_mut().unwrap().encrypt_rtcp(packet).unwrap();
        self.socket.send_to(&sealed, self.server.unwrap()).unwrap();
    }

    /// Sends anything.
    pub fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.server.unwrap()).unwrap();
    }

    /// Forgets the server, as a browser does that restarts ICE with another one: the next connection has
    /// new credentials and keys.
    pub fn restart(&mut self, name: &str) {
        self.ufrag = format!("{name}ufrag");
        self.pwd = format!("{name}-password-of-enough-length");
        self.server = None;
        self.dtls = None;
        self.out = None;
        self.rtp_in = None;
        self.rtcp_in = None;
    }

    /// Moves to a new port; nothing is told to the server.
    pub fn move_socket(&mut self) {
        self.socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        self.socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
    }
}

pub fn application() -> String {
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=sctp-port:5000\r\n".to_owned()
}

pub fn audio(direction: &str, cid: Option<&str>) -> String {
    format!(
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na={direction}\r\na=rtcp-mux\r\n{}a=rtpmap:111 opus/48000/2\r\n\
         a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtcp-fb:111 transport-cc\r\n\
         a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
        cid.map(|c| format!("a=msid:- {c}\r\n")).unwrap_or_default()
    )
}

pub fn video(direction: &str, cid: Option<&str>, rids: &[&str]) -> String {
    // These clients don't tell what arrives: who said that they do would be served with care at first.
    let feedback = match direction {
        "recvonly" => "",
        _ => "a=rtcp-fb:96 transport-cc\r\n",
    };
    let mut s = format!(
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na={direction}\r\na=rtcp-mux\r\n{}a=rtpmap:96 VP8/90000\r\n\
         a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n{feedback}\
         a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
         a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n\
         a=extmap:5 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n",
        cid.map(|c| format!("a=msid:- {c}\r\n")).unwrap_or_default()
    );
    for rid in rids {
        s += &format!("a=rid:{rid} send\r\n");
    }
    if !rids.is_empty() {
        s += &format!("a=simulcast:send {}\r\n", rids.join(";"));
    }
    s
}

/// RTP with one-byte extensions.
pub fn packet(
    payload_type: u8,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    extensions: &[(u8, &[u8])],
    payload: &[u8],
) -> Vec<u8> {
    let mut out = vec![0x80, payload_type];
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&timestamp.to_be_bytes());
    out.extend_from_slice(&ssrc.to_be_bytes());
    if !extensions.is_empty() {
        out[0] |= 0x10;
        let mut block = Vec::new();
        for (id, value) in extensions {
            block.push(id << 4 | (value.len() as u8 - 1));
            block.extend_from_slice(value);
        }
        block.resize(block.len().next_multiple_of(4), 0);
        out.extend_from_slice(&[0xBE, 0xDE]);
        out.extend_from_slice(&((block.len() / 4) as u16).to_be_bytes());
        out.extend_from_slice(&block);
    }
    out.extend_from_slice(payload);
    out
}

/// A one-packet VP8 frame with picture id, TL0 and key index.
pub fn vp8(picture: u16, key: bool, filler: u8) -> Vec<u8> {
    let mut p = vec![
        0x90,
        0xC0,
        0x80 | (picture >> 8) as u8,
        picture as u8,
        picture as u8,
        u8::from(!key),
    ];
    p.extend_from_slice(&[filler; 40]);
    p
}

/// Feedback items of a kind among the received RTCP: (payload type, count field, packet).
pub fn feedback(client: &Client, payload_type: u8, format: u8) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for compound in &client.rtcp {
        let mut rest = &compound[..];
        while rest.len() >= 4 {
            let len = (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1) * 4;
            let (one, tail) = rest.split_at(len.min(rest.len()));
            if one[1] == payload_type && (one[0] & 0x1F == format || payload_type < 205) {
                found.push(one.to_vec());
            }
            rest = tail;
        }
    }
    found
}
