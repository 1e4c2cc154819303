//! Moves to a room on another worker.
//!
//! Owns the order of things: the present worker gives the client's live state, a place is kept at the
//! other one with it, then the client is given a token for that room and told to come again, then its
//! old session is hung up. Invariant: whoever could not be kept a place stays where they are.

use std::time::Duration;

use plenum_errors::Code;
use plenum_join::Order;
use plenum_worker_api::v1::{HandOver, ReserveRequest, client_frame};

use super::moves::{Stage, post_switch};
use super::{ClientSession, Event};
use crate::gateway::route::Route;
use crate::gateway::workers::{Lease, refused};

/// How long the place is kept: a client needs a second or two, one with a bad network more.
const KEEP: Duration = Duration::from_secs(30);
/// How long the other worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a client is expected here before the others are told that it went. It may well have
/// come to another gateway.
const EXPECTED: Duration = Duration::from_secs(5);

/// A place at another worker.
pub(super) struct Place {
    /// With the peer connection the client has.
    may_resume: bool,
}

impl ClientSession {
    /// Sets out for a room on the worker of `route`.
    pub(super) fn cross(&mut self, route: Route) {
        let Some(going) = &mut self.going else { return };
        going.stage = Stage::HandedOver(route);
        if self.by_token.dual_peer_connection {
            // Two peer connections can't be taken over.
            self.handed_over(Vec::new());
        } else {
            self.send(client_frame::Frame::HandOver(HandOver {}));
        }
    }

    /// The present worker gave the client's live state, or it can't be had. Asks the other worker to
    /// keep a place.
    pub(super) fn handed_over(&mut self, handover: Vec<u8>) {
        let Some(going) = &mut self.going else { return };
        let route = match std::mem::replace(&mut going.stage, Stage::Reserved) {
            Stage::HandedOver(route) => route,
            // Too late: it goes on without.
            other => {
                going.stage = other;
                return;
            }
        };
        let id = going.id;
        let request = ReserveRequest {
            room: self.presence.meeting.room(going.to.as_deref()),
            epoch: route.epoch,
            identity: self.by_token.identity.clone(),
            ttl_ms: u32::try_from(KEEP.as_millis()).unwrap_or(u32::MAX),
            takes_a_place: self.takes_part,
            handover,
            token_issued_at_ms: self.by_token.token_issued_at_ms,
        };
        let lease = self.meetings.reach.workers.lease(&route.worker);
        let events = self.events.clone();
        tokio::spawn(async move {
            let outcome = match lease {
                Ok(lease) => reserve(lease, request).await,
                Err(error) => Err(error.code),
            };
            let _ = events.send(Event::Reserved(id, outcome));
        });
    }

    /// The other worker's answer.
    pub(super) fn reserved(&mut self, id: u64, outcome: Result<Place, Code>) {
        let place = match outcome {
            // Something else happened meanwhile; the place lapses by itself.
            _ if self.parting.is_some() => return,
            _ if self.going.as_ref().is_none_or(|going| going.id != id) => return,
            Err(code) => return self.arrive(Err(code)),
            Ok(place) => place,
        };
        let Some(going) = self.going.take() else {
            return;
        };
        let way = if place.may_resume { "takeover" } else { "reconnect" };
        self.report_move(going.to.as_deref(), way, "ok", going.began.elapsed());
        self.announce_arrival(going.to.clone());
        self.part(Order::Elsewhere {
            room: self.presence.meeting.room(going.to.as_deref()),
            may_resume: place.may_resume,
        });
    }

    /// Tells those concerned once the client is there.
    fn announce_arrival(&self, to: Option<String>) {
        if !self.takes_part {
            return;
        }
        let meeting = self.presence.meeting.clone();
        let (identity, from) = (self.by_token.identity.clone(), self.room.clone());
        let mut clients = meeting.clients_changed();
        tokio::spawn(async move {
            let arrival = async {
                while !meeting.is_here(&identity, to.as_deref()) && clients.changed().await.is_ok() {}
            };
            let _ = tokio::time::timeout(EXPECTED, arrival).await;
            if let Err(error) = post_switch(&meeting, &identity, from.as_deref(), to.as_deref(), None) {
                tracing::debug!(code = %error.code, "a move is not told of");
            }
        });
    }
}

async fn reserve(lease: Lease, request: ReserveRequest) -> Result<Place, Code> {
    let mut client = lease.client.clone();
    let answer = match tokio::time::timeout(PATIENCE, client.reserve(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        // A worker of an older version keeps no places; whether there is one shows on arrival.
        Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
            return Ok(Place { may_resume: false });
        }
        Ok(Err(status)) => return Err(refused(&status).code),
        Err(_) => return Err(Code::WorkerUnreachable),
    };
    if answer.code.is_empty() {
        Ok(Place {
            may_resume: answer.may_resume,
        })
    } else {
        tracing::info!(code = answer.code, "another worker keeps no place");
        Err(Code::parse(&answer.code).unwrap_or(Code::Internal))
    }
}
