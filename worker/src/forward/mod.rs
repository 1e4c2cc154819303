//! Packets in, packets out. Knows SSRCs, not people.
//!
//! Owns every leg's media plane and every published track. Invariants: it is told, it never asks; no
//! clock is read here (`now` comes in); a packet changes nothing before it is authenticated.
//!
//! A packet's way: [`Forwarder::rtp`] opens it in place, finds its track and layer, keeps its bytes in the
//! layer's buffer and notes it as pending. At the end of a turn [`Forwarder::deliver`] goes through the
//! subscriptions of each track that got something and writes all its pending packets for one subscriber,
//! one after the other, into the send batch: so a subscriber's state and key are fetched once per turn, and
//! a frame's packets to one destination are neighbours, which segmented sends need.

mod again;
mod arrive;
pub(crate) mod audio;
pub(crate) mod buffer;
pub(crate) mod codec;
pub(crate) mod congestion;
mod deliver;
pub(crate) mod drops;
pub(crate) mod extension;
pub(crate) mod gaps;
mod handover;
pub(crate) mod history;
pub(crate) mod layers;
pub(crate) mod levels;
pub(crate) mod outgoing;
pub(crate) mod packet;
mod paths;
pub(crate) mod peer;
pub(crate) mod receive;
mod reports;
mod rewind;
pub(crate) mod rtcp;
pub(crate) mod seqmap;
mod sound;
pub(crate) mod srtp;
pub(crate) mod subscription;
pub(crate) mod svc;
pub(crate) mod timers;
pub(crate) mod track;
pub(crate) mod twcc;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use self::audio::select::SpeakerPolicy;
use self::deliver::{Cursor, Row};
use self::drops::DropCounters;
use self::peer::{Peer, Source};
use self::reports::Job;
use self::srtp::Srtp;
use self::subscription::{Binding, Subscription};
use self::timers::Timers;
use self::track::{Track, TrackSpec};
use crate::net::Route;
use crate::session::api::{Quality, SessionId, TrackSid};

/// A leg, by its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LegKey(pub(crate) usize);

/// A track, by its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TrackKey(usize);

/// Publisher's payload type to the subscriber's, and to its RTX.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PayloadMap {
    pub(crate) entries: Vec<(u8, u8, Option<u8>)>,
    /// Of the publisher: redundant audio data that may be read, and what it carries.
    pub(crate) red_from: Option<(u8, u8)>,
    /// Of the subscriber: redundant audio data, where it may be made for it.
    pub(crate) red_to: Option<u8>,
}

impl PayloadMap {
    pub(crate) fn get(&self, incoming: u8) -> Option<(u8, Option<u8>)> {
        self.entries.iter().find(|e| e.0 == incoming).map(|e| (e.1, e.2))
    }
}

/// Everything that forwards.
#[derive(Debug)]
pub(crate) struct Forwarder {
    peers: Vec<Option<Peer>>,
    tracks: Vec<Option<Track>>,
    by_sid: HashMap<TrackSid, TrackKey>,
    drops: Arc<DropCounters>,
    scratch: Vec<u8>,
    /// Tracks with pending packets, each once.
    fresh: Vec<TrackKey>,
    /// Subscriptions that found nothing to begin with.
    waiting: Vec<(TrackKey, usize)>,
    /// How far they were delivered.
    cursor: Cursor,
    /// Memory of one delivery, without redundant data and with it.
    arrived: (Row<'static>, Row<'static>),
    timers: Timers<Job>,
    /// Legs with something that waits for its time.
    pace: Timers<LegKey>,
    /// Subscriptions that paused or went on.
    stream_states: Vec<(SessionId, TrackSid, bool)>,
    start: Instant,
    next_tick: Instant,
    speakers: SpeakerPolicy,
    next_count: Instant,
}

impl Forwarder {
    pub(crate) fn new(drops: Arc<DropCounters>, now: Instant) -> Self {
        Forwarder {
            peers: Vec::new(),
            tracks: Vec::new(),
            by_sid: HashMap::new(),
            drops,
            scratch: Vec::with_capacity(2048),
            fresh: Vec::new(),
            waiting: Vec::new(),
            cursor: Cursor::default(),
            arrived: Default::default(),
            timers: Timers::default(),
            pace: Timers::default(),
            stream_states: Vec::new(),
            start: now,
            next_tick: now,
            speakers: SpeakerPolicy::default(),
            next_count: now,
        }
    }

    /// A new leg. `feedback_ssrc` is random.
    pub(crate) fn add_peer(&mut self, feedback_ssrc: u32) -> LegKey {
        let peer = Peer::new(feedback_ssrc);
        let free = self
            .peers
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.peers.len());
        match self.peers.get_mut(free) {
            Some(slot) => *slot = Some(peer),
            None => self.peers.push(Some(peer)),
        }
        LegKey(free)
    }

    /// Removes a leg with its subscriptions. Its tracks are unpublished one by one before.
    pub(crate) fn remove_peer(&mut self, leg: LegKey) {
        for track in self.tracks.iter_mut().flatten() {
            for slot in &mut track.subscriptions {
                if slot.as_ref().is_some_and(|s| s.binding.leg == leg) {
                    *slot = None;
                }
            }
        }
        if let Some(slot) = self.peers.get_mut(leg.0) {
            *slot = None;
        }
    }

    pub(crate) fn peer(&mut self, leg: LegKey) -> Option<&mut Peer> {
        self.peers.get_mut(leg.0)?.as_mut()
    }

    fn track(&mut self, key: TrackKey) -> Option<&mut Track> {
        self.tracks.get_mut(key.0)?.as_mut()
    }

    pub(crate) fn track_by_sid(&mut self, sid: &TrackSid) -> Option<&mut Track> {
        let key = *self.by_sid.get(sid)?;
        self.track(key)
    }

    pub(crate) fn set_route(&mut self, leg: LegKey, route: Route) {
        if let Some(p) = self.peer(leg) {
            p.route = Some(route);
        }
    }

    pub(crate) fn set_keys(&mut self, leg: LegKey, srtp: Srtp) {
        if let Some(p) = self.peer(leg) {
            p.rekey(srtp);
        }
        for at in 0..self.tracks.len() {
            let Some(Some(track)) = self.tracks.get_mut(at) else {
                continue;
            };
            let mut subscriptions = track.subscriptions.iter_mut().flatten();
            if let Some(s) = subscriptions.find(|s| s.binding.leg == leg) {
                s.ready = true;
                s.rekeyed();
                s.restart();
                self.begin_soon(TrackKey(at));
            }
        }
    }

    /// Publishes a track, or takes over the new negotiation of one that exists.
    pub(crate) fn publish(&mut self, spec: TrackSpec) {
        let key = match self.by_sid.get(&spec.sid) {
            Some(key) => *key,
            None => {
                let at = self
                    .tracks
                    .iter()
                    .position(Option::is_none)
                    .unwrap_or(self.tracks.len());
                if at == self.tracks.len() {
                    self.tracks.push(None);
                }
                self.by_sid.insert(spec.sid.clone(), TrackKey(at));
                TrackKey(at)
            }
        };
        let Some(slot) = self.tracks.get_mut(key.0) else {
            return;
        };
        let (leg, mid, ssrcs) = (spec.leg, spec.mid.clone(), spec.ssrcs.clone());
        match slot {
            Some(track) if track.spec.rids == spec.rids && track.spec.leg == leg => track.spec = spec,
            Some(track) => {
                // Other layers or another connection: the subscriptions stay, what came in doesn't.
                let mut fresh = Track::new(spec);
                fresh.muted = track.muted;
                fresh.due = track.due;
                fresh.subscriptions = std::mem::take(&mut track.subscriptions);
                for s in fresh.subscriptions.iter_mut().flatten() {
                    s.restart();
                    s.target = None;
                }
                *track = fresh;
            }
            None => *slot = Some(Track::new(spec)),
        }
        let announced: Vec<(usize, u32, Option<u32>)> = match slot {
            // Several plain SSRCs without RIDs would be simulcast by SSRC, which no stock client uses.
            Some(track) if track.layers.len() == 1 => {
                ssrcs.first().map(|(m, r)| (0, *m, *r)).into_iter().collect()
            }
            _ => Vec::new(),
        };
        if let Some(Some(track)) = self.tracks.get_mut(key.0) {
            for (layer, ssrc, _) in &announced {
                if let Some(l) = track.layers.get_mut(*layer) {
                    l.ssrc = Some(*ssrc);
                }
            }
            track.renew_requests();
        }
        if let Some(peer) = self.peers.get_mut(leg.0).and_then(Option::as_mut) {
            peer.mids.insert(mid, key);
            for (layer, media, repair) in announced {
                peer.learn(media, Source::Media { track: key, layer });
                if let Some(repair) = repair {
                    peer.learn(repair, Source::Repair { track: key, layer });
                }
            }
        }
        self.look_soon(key);
        self.report_soon(leg);
    }

    /// Removes a track and its subscriptions.
    pub(crate) fn unpublish(&mut self, sid: &TrackSid) {
        let Some(key) = self.by_sid.remove(sid) else {
            return;
        };
        let Some(track) = self.tracks.get_mut(key.0).and_then(Option::take) else {
            return;
        };
        for old in track.subscriptions.iter().flatten() {
            if let Some(peer) = self.peer(old.binding.leg) {
                peer.end(old);
            }
        }
        if let Some(peer) = self.peer(track.spec.leg) {
            peer.forget(key);
        }
    }

    /// Binds a subscription, in place of an earlier one of the same session. `false`: no such track.
    pub(crate) fn bind(&mut self, sid: &TrackSid, binding: Binding, seed: u32, now: Instant) -> bool {
        let Some(key) = self.by_sid.get(sid).copied() else {
            return false;
        };
        self.unbind(sid, binding.session);
        let Some(Some(track)) = self.tracks.get_mut(key.0) else {
            return false;
        };
        let (leg, video, numbered) = (binding.leg, track.video(), binding.is_numbered());
        let mut subscription = Subscription::new(binding, video, seed);
        if video && numbered {
            // More as soon as the path is known to carry it.
            subscription.room = paths::Room::UpTo(Quality::Low);
        }
        let place = (key, track.vacancy());
        if let Some(Some(peer)) = self.peers.get_mut(leg.0) {
            subscription.ready = peer.srtp.is_some();
            peer.begin(&mut subscription, place);
        }
        if !subscription.ready {
            track.anticipate(now);
        }
        track.attach(subscription);
        if video {
            self.open_path(leg, numbered);
        }
        self.begin_soon(key);
        true
    }

    /// A session is about to subscribe: while it negotiates, a key frame can come. Over a connection that
    /// doesn't stand yet that takes longer.
    pub(crate) fn anticipate(&mut self, sid: &TrackSid, leg: LegKey, now: Instant) {
        let Some(key) = self.by_sid.get(sid).copied() else {
            return;
        };
        let stands = self.peer(leg).is_some_and(|p| p.srtp.is_some());
        if let Some(track) = self.track(key).filter(|t| stands && t.video()) {
            track.anticipate(now);
            self.look_soon(key);
        }
    }

    /// Chooses the layers of a track's subscriptions and gives those without a picture what there is to
    /// begin with, in this turn.
    fn begin_soon(&mut self, key: TrackKey) {
        if let Some(track) = self.track(key) {
            track.begins = true;
            for at in 0..track.subscriptions.len() {
                track.reselect(at);
            }
        }
        if !self.fresh.contains(&key) {
            self.fresh.push(key);
        }
        self.look_soon(key);
    }

    /// Ends a subscription.
    pub(crate) fn unbind(&mut self, sid: &TrackSid, session: SessionId) {
        let Some(track) = self.track_by_sid(sid) else {
            return;
        };
        let Some(at) = track.position(session) else { return };
        let old = track.subscriptions.get_mut(at).and_then(Option::take);
        if let Some(old) = old
            && let Some(peer) = self.peer(old.binding.leg)
        {
            peer.end(&old);
        }
    }

    /// The publisher changed its payload types. `false`: no such subscription.
    pub(crate) fn set_payloads(&mut self, sid: &TrackSid, session: SessionId, map: &PayloadMap) -> bool {
        let Some(track) = self.track_by_sid(sid) else {
            return false;
        };
        let Some(at) = track.position(session) else {
            return false;
        };
        match track.subscriptions.get_mut(at) {
            Some(Some(s)) => {
                s.binding.payloads = map.clone();
                true
            }
            _ => false,
        }
    }

    pub(crate) fn set_layer(&mut self, sid: &TrackSid, session: SessionId, quality: Option<Quality>) {
        let Some(key) = self.by_sid.get(sid).copied() else {
            return;
        };
        let Some(track) = self.track(key) else { return };
        let Some(at) = track.position(session) else { return };
        track.rest_unless_watched();
        if let Some(Some(s)) = track.subscriptions.get_mut(at) {
            s.binding.wanted = quality;
            s.gaps.rest();
            // One without a picture may have something to begin with, and asks for a key frame if not.
            if s.current.is_some() {
                track.renew_requests();
            }
        }
        self.begin_soon(key);
    }

    /// How many frames a second are enough, and which of its tracks come first (1 before 2, 0 = nothing
    /// said).
    pub(crate) fn prefer(&mut self, sid: &TrackSid, session: SessionId, fps: Option<u32>, priority: u32) {
        let Some(key) = self.by_sid.get(sid).copied() else {
            return;
        };
        let Some(track) = self.track(key) else { return };
        let Some(at) = track.position(session) else { return };
        if let Some(Some(s)) = track.subscriptions.get_mut(at) {
            s.fps = fps;
            s.priority = match u8::try_from(priority) {
                Ok(0) => 0,
                Ok(place) => u8::MAX - (place - 1),
                Err(_) => 1,
            };
        }
        track.renew_requests();
        self.look_soon(key);
    }

    pub(crate) fn mute(&mut self, sid: &TrackSid, muted: bool) {
        let Some(key) = self.by_sid.get(sid).copied() else {
            return;
        };
        let Some(track) = self.track(key) else { return };
        if track.muted != muted {
            track.muted = muted;
            track.gaps.rest();
            track.forget_pictures();
            for s in track.subscriptions.iter_mut().flatten() {
                s.restart();
                s.gaps.rest();
            }
            track.renew_requests();
            self.look_soon(key);
        }
    }

    pub(crate) fn key_frame(&mut self, sid: &TrackSid) {
        let Some(key) = self.by_sid.get(sid).copied() else {
            return;
        };
        if let Some(track) = self.track(key) {
            track.want_key_frames();
            self.look_soon(key);
        }
    }
}
