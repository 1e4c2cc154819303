//! Offers and answers, both ways.
//!
//! Owns the step from a description to what is published, bound and forwarded. Invariants: nothing is
//! changed before a description is known to be usable; a binding starts when both sides know its section
//! (single: when our answer is written; dual: when the client's answer came).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::api::{AudioOptions, Event, Leg, MediaKind, SdpError, SessionId, Topology, TrackSid};
use super::client::Wish;
use super::codecs::{Negotiated, select, translate};
use super::engine::{Engine, LiveTrack};
use super::peer::{Local, Source};
use super::sdp::{self, Description, Section};
use super::sections::{Slot, Use};
use crate::forward::audio::SoundSpec;
use crate::forward::extension::{Extension, Outgoing};
use crate::forward::subscription::Binding;
use crate::forward::track::TrackSpec;
use crate::forward::twcc::Recorder;

/// An offer of ours unanswered for so long is made again.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

fn checked(text: &str) -> Result<Description, SdpError> {
    let description = sdp::parse(text)?;
    if description.sections.is_empty() {
        return Err(SdpError::Missing("a media section"));
    }
    Ok(description)
}

fn sources<'a>(
    session: SessionId,
    wishes: &'a [Wish],
    live: &'a HashMap<TrackSid, LiveTrack>,
) -> impl Fn(&TrackSid) -> Option<Source> + 'a {
    // One CNAME for all that goes to a client: NTP times of one publisher stay comparable.
    let cname = format!("plenum-{:x}", session.0);
    move |sid| {
        let wish = wishes.iter().find(|w| w.sid == *sid)?;
        Some(Source {
            sid: sid.clone(),
            stream: wish.stream.clone(),
            cname: cname.clone(),
            stereo: live.get(sid).is_some_and(|t| t.audio.stereo),
        })
    }
}

impl Engine {
    /// The client's offer.
    pub(super) fn offer(
        &mut self,
        session: SessionId,
        leg: Leg,
        id: u32,
        text: &str,
        now: Instant,
    ) -> Result<(), SdpError> {
        let offer = checked(text)?;
        let client = self.clients.get_mut(&session).ok_or_else(Self::no_session)?;
        if leg != Leg::Publisher {
            return Err(SdpError::Unexpected);
        }
        let remote = offer.bundle_transport();
        client
            .publisher
            .transport
            .set_remote(&remote, false, now)
            .map_err(SdpError::Missing)?;
        client.offered();

        let expected = &client.expected;
        let track_of = |cid: &str, kind: MediaKind| {
            expected
                .iter()
                .find(|t| t.cid == cid && t.kind == kind)
                .map(|t| t.sid.clone())
        };
        let waiting: Vec<(TrackSid, MediaKind)> = expected.iter().map(|t| (t.sid.clone(), t.kind)).collect();
        let changes = client.publisher.table.offer(&offer.sections, &track_of, &waiting);
        let announced = |sid: &TrackSid, section: &Section| {
            let mut of_track = expected.iter().filter(|t| t.sid == *sid);
            let named = of_track.clone().find(|t| section.track_ids.contains(&t.cid));
            let track = named.or_else(|| of_track.next())?;
            Some(track.clone())
        };
        client.publisher.negotiate(&offer, &client.codecs, &announced);
        let lost = changes.unbound;
        for sid in &lost {
            if let Some(wish) = client.wish(sid) {
                wish.bound = false;
            }
        }
        for sid in lost {
            self.forwarder.unbind(&sid, session);
        }
        self.register(session);
        for sid in changes.ended {
            self.end_track(&sid);
            self.events.push(Event::TrackEnded { session, sid });
        }
        self.install_extensions(session, Leg::Publisher);
        for (sid, at) in changes.published {
            self.publish(session, sid, at, &offer, now);
        }
        self.promise_sections(session);
        let bound = self.bind_wishes(session);
        self.install_extensions(session, Leg::Publisher);

        let local = Local {
            fingerprint: &self.identity.fingerprint,
            udp: &self.udp,
            tcp: &self.tcp,
        };
        let client = self.clients.get_mut(&session).ok_or_else(Self::no_session)?;
        let sdp = {
            let source_of = sources(session, &client.wishes, &self.live);
            client.publisher.answer(&offer, &local, &source_of)
        };
        client.publisher.table.complete();
        client.negotiated = true;
        if let Some(once) = &mut client.once {
            text.clone_into(&mut once.offer);
        }
        let mid_to_track = client.publisher.mid_to_track();
        self.events.push(Event::Answer {
            session,
            leg,
            id,
            sdp,
            mid_to_track,
        });
        for sid in bound {
            self.start_forwarding(session, &sid, now);
        }
        self.collect(session);
        self.unsettled.push(session);
        Ok(())
    }

    /// Registers a publisher's section, and tells once.
    fn publish(&mut self, session: SessionId, sid: TrackSid, at: usize, offer: &Description, now: Instant) {
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let leg = client.publisher.key;
        let (Some(slot), Some(section)) = (client.publisher.table.slots.get(at), offer.sections.get(at))
        else {
            return;
        };
        let Some(kind) = slot.kind else { return };
        let Some(first) = slot.codecs.first() else { return };
        let mime_type = first.mime_type().to_owned();
        let known = client.expected.iter().find(|t| t.sid == sid);
        let audio = known.map(|t| t.audio).unwrap_or_default();
        let spec = TrackSpec {
            sid: sid.clone(),
            session,
            leg,
            mid: slot.mid.clone(),
            kind,
            codecs: slot
                .codecs
                .iter()
                .flat_map(|c| {
                    let red = c.red.map(|r| (r.payload_type, c.codec));
                    [Some((c.payload_type, c.codec)), red]
                })
                .flatten()
                .collect(),
            repairs: slot
                .codecs
                .iter()
                .filter_map(|c| Some((c.repair?, c.payload_type)))
                .collect(),
            rids: slot.rids.clone(),
            max_bitrate: known.and_then(|t| t.max_bitrate),
            ssrcs: announced(section),
            nack: slot.codecs.iter().any(|c| c.feedback.contains(&"nack")),
            sound: sound_of(kind, &slot.codecs, &audio),
        };
        let simulcast = spec.rids.len() > 1;
        let wide = slot.extensions.iter().any(|(_, e)| *e == Extension::TransportCc)
            && slot.codecs.iter().any(|c| c.feedback.contains(&"transport-cc"));
        let live = LiveTrack {
            session,
            kind,
            codecs: slot.codecs.clone(),
            audio,
        };
        let mid = slot.mid.clone();
        self.forwarder.publish(spec);
        self.inherit_sources(session, &sid);
        if self.muted.contains(&sid) {
            self.forwarder.mute(&sid, true);
        }
        if wide && let Some(peer) = self.forwarder.peer(leg) {
            peer.twcc.get_or_insert_with(|| Recorder::new(now));
        }
        let changed = match self.live.insert(sid.clone(), live.clone()) {
            None => {
                self.events.push(Event::TrackLive {
                    session,
                    sid: sid.clone(),
                    mid,
                    mime_type,
                    simulcast,
                });
                true
            }
            Some(before) => before.codecs != live.codecs,
        };
        if changed {
            let waiting: Vec<SessionId> = self
                .clients
                .values()
                .filter(|c| c.wishes.iter().any(|w| w.sid == sid))
                .map(|c| c.id)
                .collect();
            for subscriber in waiting {
                if self
                    .clients
                    .get(&subscriber)
                    .is_some_and(|c| c.wishes.iter().any(|w| w.sid == sid && w.bound))
                {
                    self.start_forwarding(subscriber, &sid, now);
                }
                self.unsettled.push(subscriber);
            }
        }
    }

    /// Tells forwarding the extension numbers of a leg.
    fn install_extensions(&mut self, session: SessionId, leg: Leg) {
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let Some(leg) = client.leg(leg) else { return };
        let numbers: Vec<(u8, Extension)> = leg
            .table
            .slots
            .iter()
            .flat_map(|s| s.extensions.iter().copied())
            .collect();
        let key = leg.key;
        if let Some(peer) = self.forwarder.peer(key) {
            let table = Arc::make_mut(&mut peer.extensions);
            for (id, extension) in numbers {
                table.set(id, extension);
            }
        }
    }

    /// Gives sections to wishes that have none. Returns those newly bound.
    pub(super) fn bind_wishes(&mut self, session: SessionId) -> Vec<TrackSid> {
        let (media, rtx) = (self.random_u32(), self.random_u32());
        let live = &self.live;
        let Some(client) = self.clients.get_mut(&session) else {
            return Vec::new();
        };
        let wanted: Vec<(TrackSid, MediaKind)> = client
            .wishes
            .iter()
            .filter(|w| client.receiving_ref().table.bound(&w.sid).is_none())
            .filter_map(|w| Some((w.sid.clone(), live.get(&w.sid)?.kind)))
            .collect();
        let mut bound = Vec::new();
        let leg = client.receiving();
        for (i, (sid, kind)) in wanted.into_iter().enumerate() {
            if let Some(at) = leg.table.bind(&sid, kind)
                && let Some(slot) = leg.table.slots.get_mut(at)
            {
                if slot.promise.is_none() {
                    // Distinct within the leg: both run on from random starts, RTX far from media.
                    let step = i as u32 * 2;
                    slot.ssrcs = (media.wrapping_add(step) | 1, rtx.wrapping_add(step) & !1);
                }
                bound.push(sid);
            }
        }
        bound
    }

    /// A subscription's section is known to both: packets may flow.
    pub(super) fn start_forwarding(&mut self, session: SessionId, sid: &TrackSid, now: Instant) {
        let seed = self.random_u32();
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let Some(track) = self.live.get(sid) else { return };
        let (mixed, key) = (client.receiving_ref().mixed, client.receiving_ref().key);
        let Some(slot) = client
            .receiving_ref()
            .table
            .bound(sid)
            .and_then(|at| client.receiving_ref().table.slots.get(at))
        else {
            return;
        };
        let mut extensions = Outgoing::default();
        for (id, e) in &slot.extensions {
            extensions.set(*e, *id);
        }
        let (mid, ssrcs) = (slot.mid.clone(), slot.ssrcs);
        let wide = slot.codecs.iter().any(|c| c.feedback.contains(&"transport-cc"));
        let payloads = translate(&track.codecs, &slot.codecs, &track.audio);
        let Some(wish) = client.wish(sid) else { return };
        if payloads.entries.is_empty() {
            tracing::warn!(session = session.0, %sid, "the subscriber has no codec of the track");
        }
        let rebound = wish.bound && self.forwarder.set_payloads(sid, session, &payloads);
        if rebound {
            return;
        }
        let binding = Binding {
            session,
            leg: key,
            mid,
            ssrc: ssrcs.0,
            rtx_ssrc: ssrcs.1,
            payloads,
            extensions,
            mixed,
            wide,
            wanted: wish.wanted,
        };
        wish.bound = true;
        let (fps, priority) = (wish.fps, wish.priority);
        if self.forwarder.bind(sid, binding, seed, now) {
            self.forwarder.prefer(sid, session, fps, priority);
            self.events.push(Event::SubscriptionBound {
                session,
                sid: sid.clone(),
            });
        }
    }

    /// Dual topology: offers the subscriber leg if it changed and no offer is under way.
    pub(super) fn offer_if_needed(&mut self, session: SessionId, now: Instant) {
        let live = &self.live;
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let waiting: Vec<MediaKind> = client
            .wishes
            .iter()
            .filter(|w| client.receiving_ref().table.bound(&w.sid).is_none())
            .filter_map(|w| Some(live.get(&w.sid)?.kind))
            .collect();
        let Some(leg) = &mut client.subscriber else { return };
        let pending = leg.outstanding.map(|(_, at)| now.saturating_duration_since(at));
        match pending {
            Some(age) if age < ANSWER_PATIENCE => return,
            // The offer or its answer was lost with the signalling connection.
            Some(_) => {}
            None if waiting.is_empty() && !client.dirty => return,
            None => {}
        }
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let needed = waiting.iter().filter(|k| **k == kind).count();
            let free = leg.table.slots.iter().filter(|s| s.bindable(kind)).count();
            for _ in free..needed {
                leg.add_section(Some(kind));
            }
        }
        client.described();
        self.bind_wishes(session);
        let local = Local {
            fingerprint: &self.identity.fingerprint,
            udp: &self.udp,
            tcp: &self.tcp,
        };
        let Some(client) = self.clients.get_mut(&session) else {
            return;
        };
        let Some(leg) = &mut client.subscriber else { return };
        let sdp = {
            let source_of = sources(session, &client.wishes, &self.live);
            leg.offer(&local, &source_of)
        };
        leg.last_offer += 1;
        let id = leg.last_offer;
        leg.outstanding = Some((id, now));
        let mid_to_track = leg.mid_to_track();
        self.events.push(Event::Offer {
            session,
            id,
            sdp,
            mid_to_track,
        });
    }

    /// Dual topology: the client's answer.
    pub(super) fn answer(
        &mut self,
        session: SessionId,
        id: u32,
        text: &str,
        now: Instant,
    ) -> Result<(), SdpError> {
        let answer = checked(text)?;
        let client = self.clients.get_mut(&session).ok_or_else(Self::no_session)?;
        if client.topology != Topology::Dual {
            return Err(SdpError::Unexpected);
        }
        let leg = client.subscriber.as_mut().ok_or(SdpError::Unexpected)?;
        // Clients older than offer ids answer with 0.
        if leg
            .outstanding
            .is_none_or(|(offered, _)| id != 0 && id != offered)
        {
            return Err(SdpError::Unexpected);
        }
        leg.transport
            .set_remote(&answer.bundle_transport(), true, now)
            .map_err(SdpError::Missing)?;
        leg.outstanding = None;
        leg.mixed = answer.mixed;
        let mut ready = Vec::new();
        let mut refused = Vec::new();
        for (slot, section) in leg.table.slots.iter_mut().zip(&answer.sections) {
            if slot.kind.is_none() {
                continue;
            }
            accept(slot, section);
            if let Use::Subscribes(sid) = slot.used.clone() {
                if section.rejected() || !section.direction.receives() {
                    refused.push(sid);
                } else {
                    ready.push(sid);
                }
            }
        }
        leg.table.complete();
        for sid in refused {
            leg.table.unbind(&sid);
            tracing::debug!(session = session.0, %sid, "the client refused a section");
        }
        let fresh: Vec<TrackSid> = ready
            .into_iter()
            .filter(|sid| client.wishes.iter().any(|w| w.sid == *sid && !w.bound))
            .collect();
        self.install_extensions(session, Leg::Subscriber);
        for sid in fresh {
            self.start_forwarding(session, &sid, now);
        }
        self.collect(session);
        self.unsettled.push(session);
        Ok(())
    }
}

/// What forwarding needs to know of sound.
fn sound_of(kind: MediaKind, codecs: &[Negotiated], audio: &AudioOptions) -> SoundSpec {
    let red = |c: &Negotiated| Some((c.red?.payload_type, c.payload_type));
    SoundSpec {
        red: codecs.iter().find_map(red).filter(|_| !audio.encrypted),
        competes: kind == MediaKind::Audio && audio.one_of_many,
    }
}

/// Takes over what the client chose from our offer.
fn accept(slot: &mut Slot, section: &Section) {
    if section.rejected() {
        return;
    }
    let chosen = select(section, &[]);
    if !chosen.is_empty() {
        slot.codecs = chosen;
    }
    let theirs: Vec<(u8, Extension)> = section
        .extensions
        .iter()
        .filter_map(|(id, uri)| Some((*id, Extension::from_uri(uri)?)))
        .collect();
    slot.extensions.retain(|e| theirs.contains(e));
}

/// Media SSRCs with their RTX, in the order of the description.
fn announced(section: &Section) -> Vec<(u32, Option<u32>)> {
    let repair_of = |ssrc: u32| {
        section
            .repair_groups
            .iter()
            .find(|(m, _)| *m == ssrc)
            .map(|(_, r)| *r)
    };
    let is_repair = |ssrc: u32| section.repair_groups.iter().any(|(_, r)| *r == ssrc);
    section
        .ssrcs
        .iter()
        .filter(|s| !is_repair(**s))
        .map(|s| (*s, repair_of(*s)))
        .collect()
}

impl super::peer::PeerLeg {
    /// Every bound section by our track id, published and subscribed alike.
    pub(super) fn mid_to_track(&self) -> BTreeMap<String, String> {
        let bound = self.table.slots.iter().filter_map(|s| match &s.used {
            Use::Publishes(sid) | Use::Subscribes(sid) => Some((s.mid.clone(), sid.to_string())),
            _ => None,
        });
        bound.collect()
    }
}
