//! What came over the network, on its way to a leg.
//!
//! Owns the order in which a datagram is believed. Invariants: a datagram from an address that passed no
//! STUN check reaches nothing but the STUN parser; one for a leg of another shard is handed over, and one
//! that was handed over goes no further.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::api::{Event, Leg, Reliability, SessionId, Topology};
use super::engine::Engine;
use super::ice;
use super::leg::LegEvent;
use super::routes::{News, Owner, Whose};
use crate::forward::drops::Drop;
use crate::forward::srtp::Srtp;
use crate::net::{Route, Shard};

/// How a datagram came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the network.
    Direct,
    /// From the shard that took it from the network.
    HandedOver,
}

impl Engine {
    /// Makes the legs of a session findable by their current user names.
    pub(super) fn register(&mut self, session: SessionId) {
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        for (leg, peer) in client.legs() {
            let now: Vec<String> = peer.transport.ufrags().map(str::to_owned).collect();
            self.routes.name(session, leg, &peer.names, &now);
            peer.names = now;
        }
    }

    /// Takes one datagram, which is opened in place.
    pub(crate) fn datagram(&mut self, from: Route, datagram: &mut [u8], now: Instant) {
        self.arrived(from, datagram, Way::Direct, now);
    }

    /// Takes one that came to another shard.
    pub(crate) fn handed_over(&mut self, from: SocketAddr, datagram: &mut [u8], now: Instant) {
        self.arrived(Route::Udp(from), datagram, Way::HandedOver, now);
    }

    fn arrived(&mut self, from: Route, datagram: &mut [u8], way: Way, now: Instant) {
        // RFC 7983, with RTCP told apart as RFC 5761 section 4 does.
        let Some(&first) = datagram.first() else {
            return self.drops.count(Drop::NotOurs);
        };
        if first < 4 {
            return self.stun(from, datagram, way, now);
        }
        let owner = match self.routes.of(from) {
            Some(Whose::Ours(owner)) => owner,
            Some(Whose::Of(shard)) => return self.pass(shard, from, datagram, way, Drop::UnknownPeer),
            None => return self.drops.count(Drop::UnknownPeer),
        };
        match (first, datagram.get(1)) {
            (20..=63, _) => {
                let mut events = Vec::new();
                let Some(peer) = self
                    .clients
                    .get_mut(&owner.session)
                    .and_then(|c| c.leg(owner.leg))
                else {
                    return self.drops.count(Drop::UnknownPeer);
                };
                if !peer.transport.dtls(datagram, now, &mut events) {
                    self.drops.count(Drop::BadDtls);
                }
                self.leg_events(owner.session, owner.leg, events, now);
                self.collect(owner.session);
            }
            (128..=191, Some(192..=223)) => self.forwarder.rtcp(owner.key, datagram, now, &mut self.batch),
            (128..=191, Some(_)) => self.forwarder.rtp(owner.key, datagram, now),
            _ => self.drops.count(Drop::NotOurs),
        }
    }

    /// Leaves a datagram to another shard, if there is one and it may go there; else it is dropped.
    fn pass(&mut self, shard: Shard, from: Route, datagram: &[u8], way: Way, otherwise: Drop) {
        let passed = match (way, from) {
            (Way::Direct, Route::Udp(address)) => self.misdirected.push(shard, address, datagram),
            _ => false,
        };
        if !passed {
            self.drops.count(otherwise);
        }
    }

    fn stun(&mut self, from: Route, datagram: &[u8], way: Way, now: Instant) {
        let Ok(request) = ice::read(datagram) else {
            return self.drops.count(Drop::BadStun);
        };
        let Some((session, leg)) = self.routes.named(&request.local_ufrag) else {
            return match ice::shard_of(&request.local_ufrag) {
                Some(shard) if shard != self.shard => self.pass(shard, from, datagram, way, Drop::BadStun),
                _ => self.drops.count(Drop::BadStun),
            };
        };
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let Some(peer) = client.leg(leg) else { return };
        let mut events = Vec::new();
        if peer.transport.stun(request, from, now, &mut events).is_err() {
            return self.drops.count(Drop::BadStun);
        }
        let key = peer.key;
        if let Some(old) = peer.add_route(from) {
            self.routes.release(old, session);
        }
        // An address belongs to who proved last that it is there (a client may reuse a port).
        self.routes.claim(from, Owner { session, leg, key });
        self.leg_events(session, leg, events, now);
        self.collect(session);
    }

    /// A connection that carried a route is gone.
    pub(crate) fn route_closed(&mut self, route: Route) {
        self.routes.closed(route);
    }

    /// Another shard has gained or lost an address.
    pub(crate) fn learn(&mut self, from: Shard, news: News) {
        self.routes.learn(from, news);
    }

    pub(super) fn leg_events(&mut self, session: SessionId, leg: Leg, events: Vec<LegEvent>, now: Instant) {
        for event in events {
            let Some(client) = self.clients.get_mut(&session) else {
                return;
            };
            let opened = client.opened;
            let Some(peer) = client.leg(leg) else { return };
            match event {
                LegEvent::Route(route) => self.forwarder.set_route(peer.key, route),
                LegEvent::Keys(keys) => {
                    let key = peer.key;
                    if let Some(route) = peer.transport.route {
                        self.forwarder.set_route(key, route);
                    }
                    match Srtp::new(*keys, Arc::clone(&self.identity.provider)) {
                        Ok(srtp) => self.forwarder.set_keys(key, srtp),
                        Err(error) => tracing::error!(%error, session = session.0, "SRTP keys refused"),
                    }
                    let since_open = now.saturating_duration_since(opened);
                    self.events.push(Event::Connected {
                        session,
                        leg,
                        since_open,
                    });
                }
                LegEvent::Message(reliability, payload) => {
                    self.events.push(Event::Data {
                        session,
                        reliability,
                        payload,
                    });
                }
                LegEvent::Opened(reliability) => {
                    // Of two connections only the subscriber's carries data to the client.
                    let towards = client.topology == Topology::Single || leg == Leg::Subscriber;
                    if reliability == Reliability::Reliable && towards {
                        self.events.push(Event::DataOpen { session });
                    }
                }
                // Where another engine has the connection, it is its business.
                LegEvent::DataLost if client.is_elsewhere(now) => {}
                LegEvent::DataLost => self.events.push(Event::DataLost { session }),
                LegEvent::Ended(reason) => {
                    tracing::debug!(%reason, session = session.0, ?leg, "leg ended");
                    self.events.push(Event::Disconnected { session, leg, reason });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rtc::stun::attributes::ATTR_USERNAME;
    use rtc::stun::integrity::MessageIntegrity;
    use rtc::stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};
    use rtc::stun::textattrs::TextAttribute;

    use super::super::api::{Command, Home};
    use super::super::dtls::Identity;
    use super::super::exchange::{Bundle, Place};
    use super::*;
    use crate::forward::drops::DropCounters;

    const SESSION: SessionId = SessionId(1);

    /// Two engines as they share a port; the session is the second one's.
    struct Pair {
        shards: [Engine; 2],
        now: Instant,
    }

    impl Pair {
        fn new() -> Pair {
            let (identity, now) = (Identity::generate().unwrap(), Instant::now());
            let engine = |index| {
                let shard = Shard::new(index).unwrap();
                let drops = Arc::new(DropCounters::default());
                Engine::new(identity.clone(), Place { shard, of: 2 }, drops, now)
            };
            let mut pair = Pair {
                shards: [engine(0), engine(1)],
                now,
            };
            let open = Command::Open {
                session: SESSION,
                home: Home::from("team/standup"),
                topology: Topology::Single,
                codecs: Vec::new(),
            };
            pair.shards[1].command(open, now);
            pair
        }

        fn check(&self) -> Vec<u8> {
            let engine = &self.shards[1];
            let credentials = &engine.clients[&SESSION].publisher.transport.credentials;
            let mut message = Message::new();
            let parts: [Box<dyn Setter + '_>; 4] = [
                Box::new(BINDING_REQUEST),
                Box::new(TransactionId::new()),
                Box::new(TextAttribute::new(
                    ATTR_USERNAME,
                    format!("{}:x", credentials.local_ufrag),
                )),
                Box::new(MessageIntegrity::new_raw_integrity_with_provider(
                    credentials.local_pwd.as_bytes(),
                    engine.identity.provider.crypto(),
                )),
            ];
            message.build(&parts).unwrap();
            message.raw
        }

        /// What one shard took for the other is given to that, and what either has to tell is told.
        fn exchange(&mut self) {
            for at in 0..2 {
                let (here, there) = self.shards.split_at_mut(1);
                let (here, there) = if at == 0 {
                    (&mut here[0], &mut there[0])
                } else {
                    (&mut there[0], &mut here[0])
                };
                for news in here.routes.take_news() {
                    there.learn(here.shard, news);
                }
                let mut bundle: Bundle = here.misdirected.take(there.shard);
                bundle.each(|from, datagram| there.handed_over(from, datagram, self.now));
            }
        }

        fn dropped(&self, shard: usize, reason: &str) -> u64 {
            let all = self.shards[shard].drops.read();
            all.iter().find(|(name, _)| *name == reason).unwrap().1
        }
    }

    #[test]
    fn what_another_shard_is_to_serve_gets_there() {
        let mut pair = Pair::new();
        let address = SocketAddr::from(([192, 0, 2, 1], 7));
        let now = pair.now;
        let mut hello = vec![22; 40];
        // Nobody knows the address yet.
        pair.shards[0].datagram(Route::Udp(address), &mut hello, now);
        assert_eq!(pair.dropped(0, "unknown_peer"), 1);

        let mut check = pair.check();
        pair.shards[0].datagram(Route::Udp(address), &mut check, now);
        pair.exchange();
        assert_eq!(pair.shards[1].batch.entries().len(), 1, "answered by its owner");
        assert!(pair.shards[0].batch.is_empty());
        pair.exchange();

        pair.shards[0].datagram(Route::Udp(address), &mut hello, now);
        pair.exchange();
        assert_eq!(pair.dropped(0, "unknown_peer"), 1, "known by now");
        assert_eq!(pair.dropped(1, "unknown_peer"), 0, "also there");

        pair.shards[1].command(Command::Close { session: SESSION }, now);
        pair.exchange();
        pair.shards[0].datagram(Route::Udp(address), &mut hello, now);
        assert_eq!(pair.dropped(0, "unknown_peer"), 2);
    }

    #[test]
    fn what_was_handed_over_goes_no_further() {
        let mut pair = Pair::new();
        let address = SocketAddr::from(([192, 0, 2, 1], 7));
        let now = pair.now;
        // Each believes that the address is the other's.
        for at in 0..2 {
            let other = Shard::new(1 - at).unwrap();
            pair.shards[at].learn(other, News::Gained(address));
        }
        pair.shards[0].datagram(Route::Udp(address), &mut [200, 1, 2], now);
        pair.exchange();
        pair.exchange();
        assert_eq!(
            (pair.dropped(0, "unknown_peer"), pair.dropped(1, "unknown_peer")),
            (0, 1)
        );

        // A user name that is the other's by its look, and a connection: both end here.
        let mut check = pair.check();
        pair.shards[1].command(Command::Close { session: SESSION }, now);
        pair.shards[0].handed_over(address, &mut check, now);
        let connection = Route::Tcp {
            connection: 1,
            remote: address,
        };
        pair.shards[0].datagram(connection, &mut check, now);
        assert_eq!(pair.dropped(0, "bad_stun"), 2);
        pair.shards[0].datagram(Route::Udp(address), &mut check, now);
        pair.exchange();
        assert_eq!(pair.dropped(1, "bad_stun"), 1);
    }
}
