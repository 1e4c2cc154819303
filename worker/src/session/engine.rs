//! The media engine without its sockets: commands and datagrams in, events and datagrams out.
//!
//! Owns all sessions of a shard. Invariants: no clock is read here; an offer gets exactly one `Answer` or
//! `Refused`. What it does with datagrams is in [`super::arrivals`].

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::api::{
    AudioOptions, Command, Event, ExpectedTrack, Leg, MediaKind, Quality, Reliability, SdpError, SessionId,
    SessionStatistics, SpeakerPolicy, Topology, TrackSid,
};
use super::client::{Client, Wish};
use super::codecs::Negotiated;
use super::data::Sent;
use super::dtls::Identity;
use super::exchange::{Misdirected, Place};
use super::leg::LegTransport;
use super::peer::PeerLeg;
use super::routes::Routes;
use crate::forward::Forwarder;
use crate::forward::drops::DropCounters;
use crate::forward::timers::Timers;
use crate::net::{SendBatch, Shard};

/// Resolution of transport timers.
const LEG_TICK: Duration = Duration::from_millis(50);
/// How often unanswered requests are looked at.
const RETRY: Duration = Duration::from_secs(1);

/// A track that is bound to a section of its publisher.
#[derive(Debug, Clone)]
pub(crate) struct LiveTrack {
    pub(crate) session: SessionId,
    pub(crate) kind: MediaKind,
    pub(crate) codecs: Vec<Negotiated>,
    pub(crate) audio: AudioOptions,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(super) identity: Identity,
    pub(super) forwarder: Forwarder,
    pub(super) clients: HashMap<SessionId, Client>,
    pub(super) shard: Shard,
    pub(super) routes: Routes,
    /// What came here and is for other shards.
    pub(super) misdirected: Misdirected,
    pub(super) live: HashMap<TrackSid, LiveTrack>,
    pub(super) udp: Vec<SocketAddr>,
    pub(super) tcp: Vec<SocketAddr>,
    /// Muted tracks, live or announced.
    pub(super) muted: HashSet<TrackSid>,
    pub(super) drops: Arc<DropCounters>,
    timers: Timers<SessionId>,
    next_legs: Instant,
    next_retry: Instant,
    pub(super) events: Vec<Event>,
    pub(super) unsettled: Vec<SessionId>,
    /// To be settled at the next tick.
    releasing: Vec<SessionId>,
    pub(crate) batch: SendBatch,
}

impl Engine {
    pub(crate) fn new(identity: Identity, place: Place, drops: Arc<DropCounters>, now: Instant) -> Engine {
        Engine {
            identity,
            shard: place.shard,
            routes: Routes::default(),
            misdirected: Misdirected::new(place.of),
            forwarder: Forwarder::new(Arc::clone(&drops), now),
            clients: HashMap::new(),
            live: HashMap::new(),
            udp: Vec::new(),
            tcp: Vec::new(),
            muted: HashSet::new(),
            drops,
            timers: Timers::default(),
            next_legs: now,
            next_retry: now,
            events: Vec::new(),
            unsettled: Vec::new(),
            releasing: Vec::new(),
            batch: SendBatch::default(),
        }
    }

    /// Candidates for descriptions from now on.
    pub(crate) fn set_candidates(&mut self, udp: Vec<SocketAddr>, tcp: Vec<SocketAddr>) {
        self.udp = udp;
        self.tcp = tcp;
    }

    /// What happened since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn random_u32(&self) -> u32 {
        let mut bytes = [0; 4];
        // A provider without randomness couldn't have made the certificate.
        let _ = self.identity.provider.random().fill(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    pub(super) fn random_u64(&self) -> u64 {
        u64::from(self.random_u32()) << 32 | u64::from(self.random_u32())
    }

    /// Carries out a command.
    pub(crate) fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Open {
                session,
                topology,
                codecs,
                ..
            } => self.open(session, topology, codecs, now),
            Command::Adopt {
                session,
                codecs,
                state,
                ..
            } => self.adopt(session, codecs, *state, now),
            Command::Hear { session, policy } => self.hear(session, policy),
            Command::HandOver { session } => self.hand_over(session, now),
            Command::Close { session } => self.close(session, now),
            Command::OffersOnce { session } => self.offers_once(session),
            Command::OfferAgain {
                session,
                id,
                credentials,
            } => {
                if let Err(error) = self.offer_again(session, id, credentials, now) {
                    self.events.push(Event::Refused {
                        session,
                        leg: Leg::Publisher,
                        id,
                        error,
                    });
                }
            }
            Command::Offer {
                session,
                leg,
                id,
                sdp,
            } => {
                if let Err(error) = self.offer(session, leg, id, &sdp, now) {
                    self.events.push(Event::Refused {
                        session,
                        leg,
                        id,
                        error,
                    });
                }
            }
            Command::Answer { session, id, sdp } => {
                if let Err(error) = self.answer(session, id, &sdp, now) {
                    self.events.push(Event::Refused {
                        session,
                        leg: Leg::Subscriber,
                        id,
                        error,
                    });
                }
            }
            Command::ExpectTrack { session, track } => self.expect(session, track),
            Command::RemoveTrack { session, sid } => self.remove_track(session, &sid),
            Command::Mute { session, sid, muted } => self.mute(session, sid, muted),
            Command::Subscribe {
                session,
                sid,
                publisher_sid,
            } => self.subscribe(session, sid, &publisher_sid, now),
            Command::Unsubscribe { session, sid } => self.unsubscribe(session, &sid),
            Command::SetLayer {
                session,
                sid,
                quality,
            } => self.set_layer(session, &sid, quality),
            Command::Prefer {
                session,
                sid,
                fps,
                priority,
            } => self.prefer(session, &sid, fps, priority),
            Command::KeyFrame { sid, .. } => self.forwarder.key_frame(&sid),
            Command::SendData {
                sessions,
                reliability,
                payload,
            } => {
                for session in sessions {
                    self.send_data(session, reliability, &payload, now);
                }
            }
            Command::RestartIce { session } => self.restart_ice(session),
            Command::Statistics => {
                let sessions = self.statistics(now);
                self.events.push(Event::Statistics { sessions });
            }
        }
    }

    fn new_leg(&mut self, open_channels: bool, now: Instant) -> Option<PeerLeg> {
        let transport = LegTransport::new(self.identity.clone(), self.shard, open_channels, now)?;
        let feedback = self.random_u32();
        let key = self.forwarder.add_peer(feedback);
        Some(PeerLeg::new(key, transport, self.random_u64()))
    }

    pub(super) fn open(&mut self, session: SessionId, topology: Topology, codecs: Vec<String>, now: Instant) {
        if self.clients.contains_key(&session) {
            return;
        }
        let Some(publisher) = self.new_leg(false, now) else {
            return;
        };
        let subscriber = match topology {
            Topology::Single => None,
            Topology::Dual => {
                let Some(mut leg) = self.new_leg(true, now) else {
                    return;
                };
                leg.add_section(None);
                Some(leg)
            }
        };
        let codecs = codecs.into_iter().map(|c| c.to_ascii_lowercase()).collect();
        let mut client = Client::new(session, topology, codecs, publisher, subscriber, now);
        client.dirty = topology == Topology::Dual;
        self.clients.insert(session, client);
        self.register(session);
        self.unsettled.push(session);
    }

    fn hear(&mut self, session: SessionId, policy: Option<SpeakerPolicy>) {
        let Some(client) = self.clients.get(&session) else {
            return;
        };
        let leg = client.receiving_ref().key;
        if let Some(peer) = self.forwarder.peer(leg) {
            peer.speakers = policy;
        }
    }

    fn restart_ice(&mut self, session: SessionId) {
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let Some(leg) = &mut client.subscriber else { return };
        leg.transport.restart();
        // An offer under way names credentials that no longer count.
        leg.outstanding = None;
        client.dirty = true;
        self.register(session);
        self.unsettled.push(session);
    }

    fn close(&mut self, session: SessionId, now: Instant) {
        let Some(mut client) = self.clients.remove(&session) else {
            return;
        };
        let elsewhere = client.is_elsewhere(now);
        let published: Vec<TrackSid> = self
            .live
            .iter()
            .filter(|(_, t)| t.session == session)
            .map(|(sid, _)| sid.clone())
            .collect();
        for sid in published {
            self.end_track(&sid);
        }
        for track in &client.expected {
            self.muted.remove(&track.sid);
        }
        for (leg, peer) in client.legs() {
            if !elsewhere {
                peer.transport.close(now);
            }
            peer.transport.take_output(&mut self.batch);
            self.forwarder.remove_peer(peer.key);
            self.routes.name(session, leg, &peer.names, &[]);
            for route in &peer.routes {
                self.routes.release(*route, session);
            }
        }
    }

    fn expect(&mut self, session: SessionId, track: ExpectedTrack) {
        if let Some(client) = self.clients.get_mut(&session) {
            client.expected.retain(|t| t.cid != track.cid);
            client.expected.push(track);
        }
    }

    fn mute(&mut self, session: SessionId, sid: TrackSid, muted: bool) {
        self.forwarder.mute(&sid, muted);
        // Of a session that is gone nobody would forget it again.
        if muted && self.clients.contains_key(&session) {
            self.muted.insert(sid);
        } else {
            self.muted.remove(&sid);
        }
    }

    fn remove_track(&mut self, session: SessionId, sid: &TrackSid) {
        if let Some(client) = self.clients.get_mut(&session) {
            client.expected.retain(|t| t.sid != *sid);
            self.muted.remove(sid);
            client.publisher.table.unpublish(sid);
        }
        if self.live.get(sid).is_some_and(|t| t.session == session) {
            self.end_track(sid);
        }
    }

    /// A track is gone: whoever receives it loses its section.
    pub(super) fn end_track(&mut self, sid: &TrackSid) {
        self.live.remove(sid);
        self.forwarder.unpublish(sid);
        for (id, client) in &mut self.clients {
            if client.receiving().table.unbind(sid) {
                client.release();
                self.unsettled.push(*id);
            }
            if let Some(wish) = client.wish(sid) {
                wish.bound = false;
            }
        }
    }

    fn subscribe(&mut self, session: SessionId, sid: TrackSid, publisher: &str, now: Instant) {
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let stream = format!("{publisher}|{sid}");
        match client.wish(&sid) {
            Some(wish) => wish.stream = stream,
            None => {
                self.forwarder.anticipate(&sid, client.receiving_ref().key, now);
                client.wishes.push(Wish {
                    sid,
                    stream,
                    wanted: Some(Quality::High),
                    fps: None,
                    priority: 0,
                    bound: false,
                });
            }
        }
        self.unsettled.push(session);
    }

    fn unsubscribe(&mut self, session: SessionId, sid: &TrackSid) {
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        client.wishes.retain(|w| w.sid != *sid);
        if client.receiving().table.unbind(sid) {
            client.release();
        }
        self.forwarder.unbind(sid, session);
        self.unsettled.push(session);
    }

    fn set_layer(&mut self, session: SessionId, sid: &TrackSid, quality: Option<Quality>) {
        if let Some(wish) = self.clients.get_mut(&session).and_then(|c| c.wish(sid)) {
            wish.wanted = quality;
            self.forwarder.set_layer(sid, session, quality);
        }
    }

    fn prefer(&mut self, session: SessionId, sid: &TrackSid, fps: Option<u32>, priority: u32) {
        if let Some(wish) = self.clients.get_mut(&session).and_then(|c| c.wish(sid)) {
            (wish.fps, wish.priority) = (fps, priority);
            self.forwarder.prefer(sid, session, fps, priority);
        }
    }

    fn send_data(&mut self, session: SessionId, reliability: Reliability, payload: &Bytes, now: Instant) {
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let dual = client.topology == Topology::Dual;
        let peer = client.receiving();
        if peer.transport.send(reliability, payload, now) == Sent::TooSlow {
            let mut events = Vec::new();
            peer.transport.too_slow(&mut events);
            let leg = if dual { Leg::Subscriber } else { Leg::Publisher };
            self.leg_events(session, leg, events, now);
        }
        self.collect(session);
    }

    /// Counters of every session.
    pub(crate) fn statistics(&mut self, now: Instant) -> Vec<SessionStatistics> {
        let mut sessions = Vec::new();
        for client in self.clients.values_mut() {
            let (published, subscribed) = self.forwarder.statistics(client.id);
            let by_data = client.receiving_ref().transport.rtt();
            let (main, publisher) = (client.receiving_ref().key, client.publisher.key);
            let remote = client.receiving_ref().transport.remote();
            let by_rtcp = [main, publisher]
                .iter()
                .find_map(|key| self.forwarder.peer(*key)?.rtt);
            sessions.push(SessionStatistics {
                session: Some(client.id),
                rtt: by_rtcp.or(by_data),
                estimate_bps: self.forwarder.path_estimate(main, now),
                remote: remote.or_else(|| client.publisher.transport.remote()),
                published,
                subscribed,
            });
        }
        sessions
    }

    /// Moves what a session's transports want to send into the batch.
    pub(super) fn collect(&mut self, session: SessionId) {
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let mut due: Option<Instant> = None;
        for (_, peer) in client.legs() {
            peer.transport.take_output(&mut self.batch);
            let next = peer.transport.timeout();
            due = [due, next].into_iter().flatten().min();
        }
        // One that moved away is found out when it comes.
        if let Some(at) = due
            && client.due.is_none_or(|due| at < due)
        {
            client.due = Some(at);
            self.timers.set(at, session);
        }
    }

    /// Sends what came in to its subscribers, as far as the batch goes: `true` asks for another call when
    /// that is sent.
    pub(crate) fn deliver(&mut self, now: Instant) -> bool {
        self.forwarder.deliver(now, &mut self.batch)
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let legs = (!self.clients.is_empty()).then_some(self.next_legs);
        [legs, self.forwarder.next_timeout()].into_iter().flatten().min()
    }

    /// Runs timers. `wall_ntp` is the wall clock in NTP format.
    pub(crate) fn handle_timeout(&mut self, wall_ntp: u64, now: Instant) {
        let levels = self.forwarder.tick(wall_ntp, now, &mut self.batch);
        if !levels.is_empty() {
            self.events.push(Event::Levels { levels });
        }
        for (session, sid, paused) in self.forwarder.take_stream_states() {
            self.events.push(Event::StreamState { session, sid, paused });
        }
        if now < self.next_legs {
            return;
        }
        self.next_legs = now + LEG_TICK;
        self.unsettled.append(&mut self.releasing);
        let mut due = Vec::new();
        while let Some((at, session)) = self.timers.due(now) {
            let Some(client) = self.clients.get_mut(&session) else {
                continue;
            };
            if client.due != Some(at) {
                continue;
            }
            client.due = None;
            client.hear_media(&self.forwarder, now);
            for (leg, peer) in client.legs() {
                let mut events = Vec::new();
                if peer.transport.timeout().is_some_and(|at| now >= at) {
                    peer.transport.handle_timeout(now, &mut events);
                }
                due.push((session, leg, events));
            }
        }
        if now >= self.next_retry {
            // Clients that were asked to offer and didn't.
            self.next_retry = now + RETRY;
            self.unsettled.extend(self.clients.keys());
        }
        for (session, leg, events) in due {
            self.leg_events(session, leg, events, now);
            self.collect(session);
        }
    }

    /// Asks clients for what their subscriptions need; called once all commands of a turn are in.
    pub(crate) fn settle(&mut self, now: Instant) {
        let mut sessions = std::mem::take(&mut self.unsettled);
        sessions.sort_unstable();
        sessions.dedup();
        for session in sessions {
            let live = &self.live;
            let Some(client) = self.clients.get_mut(&session) else {
                continue;
            };
            if client.once.is_some() {
                self.fill(session, now);
                continue;
            }
            if client.releasing(now) {
                self.releasing.push(session);
            }
            match client.topology {
                Topology::Single => {
                    let kind_of = |sid: &TrackSid| live.get(sid).map(|t| t.kind);
                    if let Some(need) = client.need(&kind_of, now) {
                        let (audios, videos) = (need.audios, need.videos);
                        self.events.push(Event::NeedSections {
                            session,
                            audios,
                            videos,
                        });
                    }
                }
                Topology::Dual => self.offer_if_needed(session, now),
            }
        }
    }

    pub(super) fn no_session() -> SdpError {
        SdpError::Unexpected
    }
}
