//! Who is where, by which connection, as the gateways say.
//!
//! Owns the one place per identity (rule 9 of `docs/breakouts.md`). Within a room the room itself
//! replaces an older connection; across rooms only the hub sees both. Of two connections the one that is
//! told of later is the newer; but a hub that has just been made is told of all again in no order, and
//! goes by their names. Invariants: one connection (nonce) per identity; a connection that was superseded
//! never comes back, whoever says it again.

use std::collections::HashMap;
use std::time::Duration;

use plenum_worker_api::v1::Here;

use super::GatewayId;

/// How long people stay where they are without the stream of their gateway.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// How long a superseded connection is remembered.
const MEMORY: Duration = Duration::from_secs(600);

/// Host or co-host.
fn leads(role: &str) -> bool {
    matches!(role, "host" | "cohost")
}

struct Place {
    nonce: String,
    room: String,
    leads: bool,
    gateway: GatewayId,
    /// When the gateway's stream ended.
    lost: Option<Duration>,
}

/// What a Here amounts to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The connection to be ended, and the gateway it is at.
    pub(super) superseded: Option<(GatewayId, String)>,
    /// It was counted: it is not itself superseded.
    pub(super) counted: bool,
    /// A host came into the room, or somebody in it became one.
    pub(super) host_came: bool,
}

/// The places of a meeting's people.
#[derive(Default)]
pub(super) struct Directory {
    places: HashMap<String, Place>,
    ended: HashMap<String, Duration>,
}

impl Directory {
    /// A client of that gateway is in a room. `again`: told of anew, to a new hub.
    pub(super) fn here(&mut self, gateway: GatewayId, here: &Here, again: bool, now: Duration) -> Arrival {
        let present = self.places.get(&here.identity);
        if let Some(newer) = present.filter(|p| again && p.nonce > here.nonce) {
            let same_room = newer.room == here.room;
            self.ended.insert(here.nonce.clone(), now);
            return Arrival {
                superseded: (!same_room).then(|| (gateway, here.nonce.clone())),
                ..Arrival::default()
            };
        }
        if self.ended.contains_key(&here.nonce) {
            return Arrival {
                superseded: Some((gateway, here.nonce.clone())),
                ..Arrival::default()
            };
        }
        let mut arrival = Arrival {
            counted: true,
            ..Arrival::default()
        };
        let place = Place {
            nonce: here.nonce.clone(),
            room: here.room.clone(),
            leads: leads(&here.role),
            gateway,
            lost: None,
        };
        arrival.host_came = place.leads;
        if let Some(before) = self.places.insert(here.identity.clone(), place) {
            let same_room = before.room == here.room;
            if same_room && before.leads {
                arrival.host_came = false;
            }
            if before.nonce != here.nonce {
                if !same_room {
                    arrival.superseded = Some((before.gateway, before.nonce.clone()));
                }
                self.ended.insert(before.nonce, now);
            }
        }
        arrival
    }

    /// That connection is over. True: it was the one that counted.
    pub(super) fn gone(&mut self, identity: &str, nonce: &str) -> bool {
        self.ended.remove(nonce);
        let current = self.places.get(identity).is_some_and(|p| p.nonce == nonce);
        if current {
            self.places.remove(identity);
        }
        current
    }

    /// The stream of a gateway ended.
    pub(super) fn lost(&mut self, gateway: GatewayId, now: Duration) {
        for place in self.places.values_mut().filter(|p| p.gateway == gateway) {
            place.lost = Some(now);
        }
    }

    /// Removes those whose gateway did not come back, and says who.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<String> {
        self.ended.retain(|_, since| now.saturating_sub(*since) < MEMORY);
        let over = |p: &Place| p.lost.is_some_and(|since| now.saturating_sub(since) >= GRACE);
        let gone: Vec<String> = self
            .places
            .iter()
            .filter(|(_, p)| over(p))
            .map(|(identity, _)| identity.clone())
            .collect();
        for identity in &gone {
            self.places.remove(identity);
        }
        gone
    }

    /// Id of the room; empty = the main room.
    pub(super) fn room(&self, identity: &str) -> Option<&str> {
        self.places.get(identity).map(|p| p.room.as_str())
    }
}
