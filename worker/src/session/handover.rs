//! A peer connection that goes on with another engine (RFC 8829 section 5.7 lets the far end of a
//! connection change with an ICE restart).
//!
//! Owns what is taken along. Invariants: nothing is taken over that the client's next offer will not say
//! again, but for what it can't say: whose track a section carries, which stream is which layer, and
//! which data channels are open; a section that carried something to the client is idle and not yet
//! clean, so that the first answer has it inactive.

use std::time::{Duration, Instant};

use super::api::{Event, PeerState, SectionState, SessionId, Topology, TrackSid};
use super::client::Client;
use super::engine::Engine;
use super::sections::{Slot, Use};

/// So long after its state was given away a client is taken to be with the other engine.
const ELSEWHERE: Duration = Duration::from_secs(60);

impl Client {
    /// May another engine be using the client's transport?
    pub(super) fn is_elsewhere(&self, now: Instant) -> bool {
        self.handed_over
            .is_some_and(|at| now.saturating_duration_since(at) < ELSEWHERE)
    }
}

impl Engine {
    /// Says what another engine needs to know.
    pub(super) fn hand_over(&mut self, session: SessionId, now: Instant) {
        let state = self.peer_state(session, now).map(Box::new);
        self.events.push(Event::HandedOver { session, state });
    }

    fn peer_state(&mut self, session: SessionId, now: Instant) -> Option<PeerState> {
        let client = self.clients.get_mut(&session)?;
        // Of two connections the subscriber's is the server's to offer: the client starts anew.
        if client.topology != Topology::Single || !client.negotiated {
            return None;
        }
        let channels = client.publisher.transport.channels()?;
        client.handed_over = Some(now);
        let sections = client.publisher.table.slots.iter().map(section).collect();
        let sources = self.forwarder.sources(client.publisher.key);
        Some(PeerState {
            sections,
            sources,
            channels,
            moves: client.publisher.moves,
        })
    }

    /// Opens a session with what another engine knew.
    pub(super) fn adopt(&mut self, session: SessionId, codecs: Vec<String>, state: PeerState, now: Instant) {
        self.open(session, Topology::Single, codecs, now);
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        client
            .publisher
            .table
            .adopt(state.sections.into_iter().map(slot).collect());
        client.publisher.moves = state.moves.saturating_add(1);
        client.publisher.transport.inherit(state.channels);
        client.inherited = state.sources;
    }

    /// A track is published: its streams may be known already.
    pub(super) fn inherit_sources(&mut self, session: SessionId, sid: &TrackSid) {
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        if !client.inherited.iter().any(|s| s.sid == *sid) {
            return;
        }
        let (own, rest) = std::mem::take(&mut client.inherited)
            .into_iter()
            .partition(|s| s.sid == *sid);
        client.inherited = rest;
        let own: Vec<_> = own;
        self.forwarder.inherit(sid, &own);
    }
}

fn section(slot: &Slot) -> SectionState {
    SectionState {
        mid: slot.mid.clone(),
        kind: slot.kind,
        publishes: match &slot.used {
            Use::Publishes(sid) => Some(sid.clone()),
            _ => None,
        },
    }
}

fn slot(section: SectionState) -> Slot {
    let mut slot = Slot::new(section.mid, section.kind);
    if let Some(sid) = section.publishes {
        slot.used = Use::Publishes(sid);
    }
    slot
}
