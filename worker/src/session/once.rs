//! Clients that make one offer and can't be asked for another: WHIP and WHEP (RFC 9725).
//!
//! Owns what is different for them. Invariants: every section that such a client would receive on is
//! answered as sending, with an SSRC, a stream and a track of its own that never change, whatever the
//! section carries now; so tracks come and go without a round of descriptions, and the numbers under one
//! SSRC run on from track to track.

use std::sync::Arc;
use std::time::Instant;

use super::api::{Leg, MediaKind, SdpError, SessionId, TrackSid};
use super::client::Client;
use super::engine::Engine;
use super::peer::Source;
use super::sections::{Slot, Use};
use crate::forward::Forwarder;

/// What is kept of such a client.
#[derive(Debug, Default)]
pub(crate) struct Once {
    /// Its offer, for when it restarts ICE.
    pub(crate) offer: String,
}

impl Client {
    /// An encoder may make no check any more once it is connected; what it sends is authentic, and shows
    /// as well that it is there. Of somebody who only receives that can't be said: RFC 7675 asks for it.
    pub(super) fn hear_media(&mut self, forwarder: &Forwarder, now: Instant) {
        if self.once.is_none() || !self.publisher.transport.is_silent(now) {
            return;
        }
        if let Some(at) = forwarder.last_packet(self.id) {
            self.publisher.transport.heard(at);
        }
    }
}

/// What a section was promised to carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promise {
    stream: String,
    track: TrackSid,
    cname: String,
}

impl Promise {
    /// For the answer.
    pub(crate) fn source(&self) -> Source {
        Source {
            sid: Arc::clone(&self.track),
            stream: self.stream.clone(),
            cname: self.cname.clone(),
            stereo: false,
        }
    }
}

impl Engine {
    /// The session's client makes one offer.
    pub(super) fn offers_once(&mut self, session: SessionId) {
        if let Some(client) = self.clients.get_mut(&session) {
            client.once.get_or_insert_default();
        }
    }

    /// Promises something on every section that the client would receive on. The first section of either
    /// kind make a stream, and so on: players show one stream, and play what is in it in step.
    pub(super) fn promise_sections(&mut self, session: SessionId) {
        let (media, rtx) = (self.random_u32(), self.random_u32());
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        if client.once.is_none() {
            return;
        }
        let key = client.publisher.key;
        let (mut audios, mut videos) = (0, 0);
        for (at, slot) in client.publisher.table.slots.iter_mut().enumerate() {
            let (name, number) = match slot.kind {
                Some(MediaKind::Audio) => ("audio", &mut audios),
                Some(MediaKind::Video) => ("video", &mut videos),
                None => continue,
            };
            if !may_promise(slot) {
                continue;
            }
            let place = *number;
            *number += 1;
            if slot.promise.is_some() {
                continue;
            }
            let step = at as u32 * 2;
            slot.ssrcs = (media.wrapping_add(step) | 1, rtx.wrapping_add(step) & !1);
            slot.promise = Some(Promise {
                stream: format!("plenum-{place}"),
                track: TrackSid::from(format!("plenum-{name}-{place}")),
                cname: format!("plenum-{:x}", session.0),
            });
            if let Some(peer) = self.forwarder.peer(key) {
                peer.promise(slot.ssrcs.0);
            }
        }
    }

    /// Gives free sections to what waits for one. Nothing has to be told: the client knows the sections.
    pub(super) fn fill(&mut self, session: SessionId, now: Instant) {
        if !self.clients.get(&session).is_some_and(|c| c.negotiated) {
            return;
        }
        for sid in self.bind_wishes(session) {
            self.start_forwarding(session, &sid, now);
        }
    }

    /// The one offer again.
    pub(super) fn offer_again(
        &mut self,
        session: SessionId,
        id: u32,
        credentials: Option<(String, String)>,
        now: Instant,
    ) -> Result<(), SdpError> {
        let client = self.clients.get(&session).ok_or_else(Self::no_session)?;
        let offer = client.once.as_ref().map(|o| o.offer.as_str()).unwrap_or_default();
        if offer.is_empty() {
            return Err(SdpError::Missing("an earlier offer"));
        }
        let offer = match &credentials {
            Some((ufrag, pwd)) => with_credentials(offer, ufrag, pwd)?,
            None => offer.to_owned(),
        };
        self.offer(session, Leg::Publisher, id, &offer, now)
    }
}

fn may_promise(slot: &Slot) -> bool {
    slot.receivable && !slot.codecs.is_empty() && matches!(slot.used, Use::Idle | Use::Subscribes(_))
}

/// The same description with other ICE credentials.
fn with_credentials(offer: &str, ufrag: &str, pwd: &str) -> Result<String, SdpError> {
    // A line break would be another line of the description.
    let usable =
        |text: &str| !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic());
    if !usable(ufrag) || !usable(pwd) {
        return Err(SdpError::Syntax("ICE credentials".to_owned()));
    }
    let lines = offer.lines().map(|line| {
        if line.starts_with("a=ice-ufrag:") {
            format!("a=ice-ufrag:{ufrag}\r\n")
        } else if line.starts_with("a=ice-pwd:") {
            format!("a=ice-pwd:{pwd}\r\n")
        } else {
            format!("{line}\r\n")
        }
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_credentials_of_an_offer_change() {
        let offer = "v=0\r\na=ice-ufrag:old\r\nm=audio 9 X 111\r\na=ice-pwd:older\r\na=mid:0\r\n";
        assert_eq!(
            with_credentials(offer, "new", "newer").unwrap(),
            "v=0\r\na=ice-ufrag:new\r\nm=audio 9 X 111\r\na=ice-pwd:newer\r\na=mid:0\r\n"
        );
        for (ufrag, pwd) in [("", "p"), ("u", ""), ("u\r\na=x", "p"), ("u", "p\nq"), ("ü", "p")] {
            assert!(with_credentials(offer, ufrag, pwd).is_err(), "{ufrag:?} {pwd:?}");
        }
    }
}
