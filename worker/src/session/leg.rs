//! The transport of one peer connection: ICE-lite, DTLS, SCTP.
//!
//! Owns the order in which they come up and the reasons why they end. It hands SRTP keys out and never
//! sees RTP. Invariants: a datagram other than STUN counts only from an address that passed a STUN check;
//! the route follows the last authenticated nomination; a leg without an authentic check for
//! [`CONSENT`] is over (RFC 7675).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::api::{ChannelState, Reliability, TransportEnd};
use super::data::{Data, Received, Sent};
use super::dtls::{Dtls, Identity, Progress};
use super::ice::{Credentials, Request, StunError, random_text, random_ufrag};
use super::sdp::{Setup, Transport};
use crate::forward::srtp::Keys;
use crate::net::{Route, SendBatch, Shard};

const CONSENT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// DTLS records kept that came before the peer's description: a client's first flight.
const EARLY: usize = 2;

/// What a leg reports.
#[derive(Debug)]
pub(crate) enum LegEvent {
    /// DTLS is up.
    Keys(Box<Keys>),
    /// Where to send from now on.
    Route(Route),
    Message(Reliability, Bytes),
    /// A data channel can be sent on.
    Opened(Reliability),
    /// A data channel is gone for good.
    DataLost,
    Ended(TransportEnd),
}

/// A leg's transport.
#[derive(Debug)]
pub(crate) struct LegTransport {
    identity: Identity,
    /// Where checks with our user names must arrive.
    shard: Shard,
    pub(crate) credentials: Credentials,
    /// Still accepted until a check with the new ones came (ICE restart).
    previous: Option<Credentials>,
    /// Fingerprint and role that `dtls` was made for.
    made_for: Option<(Vec<(String, String)>, bool)>,
    dtls: Option<Dtls>,
    /// Records that came before there was a description to make `dtls` for, and when.
    early: Vec<(BytesMut, Instant)>,
    data: Option<Data>,
    open_channels: bool,
    /// Data channels that the peer has open with another engine.
    inherited: Vec<ChannelState>,
    pub(crate) route: Option<Route>,
    deadline: Instant,
    connected: bool,
    ended: bool,
    out: Vec<(Route, BytesMut)>,
}

impl LegTransport {
    /// A leg that waits for its peer's description. `None` if there is no randomness.
    pub(crate) fn new(
        identity: Identity,
        shard: Shard,
        open_channels: bool,
        now: Instant,
    ) -> Option<LegTransport> {
        let credentials = fresh(&identity, shard, String::new())?;
        Some(LegTransport {
            identity,
            shard,
            credentials,
            previous: None,
            made_for: None,
            dtls: None,
            early: Vec::new(),
            data: None,
            open_channels,
            inherited: Vec::new(),
            route: None,
            deadline: now + CONNECT_TIMEOUT,
            connected: false,
            ended: false,
            out: Vec::new(),
        })
    }

    /// The peer has these data channels open and won't open them again.
    pub(crate) fn inherit(&mut self, channels: Vec<ChannelState>) {
        self.inherited = channels;
    }

    /// Open data channels; `None` while it isn't up.
    pub(crate) fn channels(&self) -> Option<Vec<ChannelState>> {
        let up = self.connected && !self.ended;
        up.then(|| self.data.as_ref().map(Data::channels).unwrap_or_default())
    }

    /// Takes the peer's side of a description. `answer`: it is the answer to our offer.
    /// `Err` names what is missing.
    pub(crate) fn set_remote(
        &mut self,
        t: &Transport,
        answer: bool,
        now: Instant,
    ) -> Result<(), &'static str> {
        let ufrag = t.ufrag.clone().ok_or("ice-ufrag")?;
        t.pwd.as_ref().ok_or("ice-pwd")?;
        if t.fingerprints.is_empty() {
            return Err("fingerprint");
        }
        // We are passive unless the peer insists: a browser then starts at once.
        let client = match t.setup {
            Some(Setup::Passive) => true,
            Some(Setup::Active | Setup::ActPass) | None => false,
        };
        if self.credentials.remote_ufrag.is_empty() {
            self.credentials.remote_ufrag = ufrag;
        } else if self.credentials.remote_ufrag != ufrag {
            // A restart changes both ends' credentials (RFC 8445 section 9); as the offerer we changed
            // ours already.
            if answer {
                self.credentials.remote_ufrag = ufrag;
            } else {
                let next = fresh(&self.identity, self.shard, ufrag).ok_or("randomness")?;
                self.previous = Some(std::mem::replace(&mut self.credentials, next));
            }
            if !self.connected {
                self.deadline = now + CONNECT_TIMEOUT;
            }
        }
        let role = self.made_for.as_ref().map_or(client, |(_, role)| *role);
        let made_for = (t.fingerprints.clone(), role);
        if self.made_for.as_ref() != Some(&made_for) {
            let dtls = Dtls::new(self.identity.clone(), &t.fingerprints, role);
            self.dtls = Some(dtls.ok_or("sha-256 fingerprint")?);
            self.data = None;
            self.made_for = Some(made_for);
            self.connected = false;
            self.deadline = now + CONNECT_TIMEOUT;
            // Checks that came before need not come again soon.
            if self.route.is_some()
                && let Some(dtls) = &mut self.dtls
            {
                // What fails here fails again with the next check, which tells.
                let _ = dtls.start(now);
                self.flush(now);
            }
        }
        Ok(())
    }

    /// New credentials for the next offer; the old ones hold until a check with the new came.
    pub(crate) fn restart(&mut self) {
        let remote = self.credentials.remote_ufrag.clone();
        if remote.is_empty() {
            return;
        }
        if let Some(next) = fresh(&self.identity, self.shard, remote) {
            self.previous = Some(std::mem::replace(&mut self.credentials, next));
        }
    }

    /// `a=setup` of our answer.
    pub(crate) fn setup(&self) -> Setup {
        match &self.dtls {
            Some(d) if d.is_client() => Setup::Active,
            _ => Setup::Passive,
        }
    }

    /// Our user names that still lead here.
    pub(crate) fn ufrags(&self) -> impl Iterator<Item = &str> {
        [Some(&self.credentials), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .map(|c| c.local_ufrag.as_str())
    }

    /// A STUN request with one of our user names.
    pub(crate) fn stun(
        &mut self,
        request: Request,
        from: Route,
        now: Instant,
        events: &mut Vec<LegEvent>,
    ) -> Result<(), StunError> {
        if self.ended {
            return Err(StunError::UnknownUser);
        }
        let current = request.local_ufrag == self.credentials.local_ufrag;
        let credentials = match &self.previous {
            Some(previous) if !current => previous,
            _ => &self.credentials,
        };
        let provider = &self.identity.provider;
        let answer = request.answer(credentials, from.address(), provider)?;
        self.out.push((from, BytesMut::from(&answer.response[..])));
        if self.connected {
            self.deadline = now + CONSENT;
        }
        if self.route.is_none() || (answer.nominated && self.route != Some(from) && current) {
            self.route = Some(from);
            events.push(LegEvent::Route(from));
        }
        if current {
            self.previous = None;
        }
        if let Some(dtls) = &mut self.dtls {
            if let Err(e) = dtls.start(now) {
                self.end(TransportEnd::Handshake(e.to_string()), events);
            }
            self.flush(now);
        }
        Ok(())
    }

    /// A DTLS record; `false` if it was refused.
    pub(crate) fn dtls(&mut self, datagram: &[u8], now: Instant, events: &mut Vec<LegEvent>) -> bool {
        if self.ended {
            return false;
        }
        let Some(dtls) = &mut self.dtls else {
            let room = self.early.len() < EARLY;
            if room {
                self.early.push((BytesMut::from(datagram), now));
            }
            return room;
        };
        match dtls.read(datagram, now) {
            Ok(progress) => {
                for p in progress {
                    self.progress(p, now, events);
                }
                self.flush(now);
                true
            }
            Err(e) => {
                let handshaking = !dtls.connected();
                self.flush(now);
                // Once it is up, a record that can't be read is an attacker's or late.
                if handshaking && fatal(&e) {
                    self.end(TransportEnd::Handshake(e.to_string()), events);
                }
                false
            }
        }
    }

    fn progress(&mut self, p: Progress, now: Instant, events: &mut Vec<LegEvent>) {
        match p {
            Progress::Keys(keys) => {
                let client = self.dtls.as_ref().is_some_and(Dtls::is_client);
                let inherited = std::mem::take(&mut self.inherited);
                self.data = Some(Data::new(client, self.open_channels, inherited, now));
                self.connected = true;
                self.deadline = now + CONSENT;
                events.push(LegEvent::Keys(keys));
            }
            Progress::Data(packet) => {
                if let Some(data) = &mut self.data {
                    let received = data.read(packet, now);
                    self.received(received, events);
                }
            }
            Progress::Closed => self.end(TransportEnd::Closed, events),
        }
    }

    fn received(&mut self, received: Vec<Received>, events: &mut Vec<LegEvent>) {
        for r in received {
            match r {
                Received::Message(reliability, payload) => {
                    events.push(LegEvent::Message(reliability, payload));
                }
                Received::Opened(reliability) => events.push(LegEvent::Opened(reliability)),
                Received::Lost => events.push(LegEvent::DataLost),
            }
        }
    }

    fn end(&mut self, reason: TransportEnd, events: &mut Vec<LegEvent>) {
        if !self.ended {
            self.ended = true;
            events.push(LegEvent::Ended(reason));
        }
    }

    /// Queues a data message.
    pub(crate) fn send(&mut self, reliability: Reliability, payload: &Bytes, now: Instant) -> Sent {
        let Some(data) = self.data.as_mut().filter(|_| !self.ended) else {
            return Sent::NoChannel;
        };
        let sent = data.send(reliability, payload, now);
        self.flush(now);
        sent
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.data.as_ref().and_then(Data::rtt)
    }

    /// Ends because the client is too slow for its data.
    pub(crate) fn too_slow(&mut self, events: &mut Vec<LegEvent>) {
        self.end(TransportEnd::SlowConsumer, events);
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let timers = [
            // The peer's side is needed before anything can come up.
            self.dtls.is_some().then_some(self.deadline),
            self.dtls.as_ref().and_then(Dtls::timeout),
            self.early
                .first()
                .filter(|_| self.dtls.is_some())
                .map(|(_, at)| *at),
            self.data.as_ref().and_then(Data::timeout),
        ];
        timers.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, events: &mut Vec<LegEvent>) {
        if self.ended {
            return;
        }
        if self.dtls.is_some() && now >= self.deadline {
            let reason = if self.connected {
                TransportEnd::ConsentLost
            } else {
                TransportEnd::ConnectTimeout
            };
            return self.end(reason, events);
        }
        if self.dtls.is_some() {
            for (datagram, _) in std::mem::take(&mut self.early) {
                self.dtls(&datagram, now, events);
            }
        }
        if let Some(dtls) = &mut self.dtls
            && dtls.timeout().is_some_and(|at| now >= at)
            && let Err(e) = dtls.handle_timeout(now)
        {
            return self.end(TransportEnd::Handshake(e.to_string()), events);
        }
        if let Some(data) = &mut self.data
            && data.timeout().is_some_and(|at| now >= at)
        {
            let received = data.handle_timeout(now);
            self.received(received, events);
        }
        self.flush(now);
    }

    /// Was up, and would now be taken to be gone?
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.connected && !self.ended && now >= self.deadline
    }

    /// The peer has shown by other means than checks that it was there at that time.
    pub(crate) fn heard(&mut self, at: Instant) {
        self.deadline = self.deadline.max(at + CONSENT);
    }

    /// Tells the peer that we go.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Some(dtls) = &mut self.dtls {
            dtls.close(now);
        }
        self.flush(now);
        self.ended = true;
    }

    fn flush(&mut self, now: Instant) {
        let Some(dtls) = &mut self.dtls else { return };
        if let Some(data) = &mut self.data {
            while let Some(packets) = data.transmit(now) {
                for p in packets {
                    // Fails only when the association is gone, which the next read or timer reports.
                    let _ = dtls.write(&p, now);
                }
            }
        }
        while let Some(datagram) = dtls.transmit() {
            if let Some(route) = self.route {
                self.out.push((route, datagram));
            }
        }
    }

    /// What is to be sent.
    pub(crate) fn take_output(&mut self, batch: &mut SendBatch) {
        for (route, datagram) in self.out.drain(..) {
            batch.push(route, &datagram);
        }
    }

    /// Addresses that may carry this leg's datagrams.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.route.map(Route::address)
    }
}

/// Errors of the handshake that no retransmission mends. A datagram that is merely unreadable must not
/// end it: anybody can send one.
fn fatal(e: &rtc::shared::error::Error) -> bool {
    use rtc::shared::error::Error;
    matches!(
        e,
        Error::ErrNoMatchingCertificateFingerprint
            | Error::ErrNonCertificate
            | Error::ErrServerNoMatchingSrtpProfile
            | Error::ErrNoSuchSrtpProfile
            | Error::ErrCipherSuiteNoIntersection
            | Error::ErrKeySignatureMismatch
            | Error::ErrVerifyDataMismatch
            | Error::ErrAlertFatalOrClose
            | Error::ErrInvalidFsmTransition
    )
}

fn fresh(identity: &Identity, shard: Shard, remote_ufrag: String) -> Option<Credentials> {
    Some(Credentials {
        local_ufrag: random_ufrag(&identity.provider, shard)?,
        local_pwd: random_text(&identity.provider, 32)?,
        remote_ufrag,
    })
}
