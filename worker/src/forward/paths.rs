//! Subscribers' paths: who gets which layer, and when packets leave that had to wait.
//!
//! Owns the driving of [`super::congestion`] for every leg with an estimator: the timers, the sharing of an
//! estimate over the leg's video tracks, what probes are made of. Invariants: sound is never held back; a
//! leg without an estimator is not looked at; what the client asked for is a limit that this only lowers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::congestion::allocate::{Budget, MAX_LAYERS, Want, allocate, desired, next_step};
use super::congestion::cost::Cost;
use super::congestion::pacer::Kind;
use super::congestion::{Congestion, OVERHEAD};
use super::reports::Job;
use super::rtcp::Path as Said;
use super::subscription::{Admitted, Arrived, PathState, Resend, Subscription};
use super::timers::Timers;
use super::track::Track;
use super::{Forwarder, LegKey, TrackKey};
use crate::net::SendBatch;
use crate::session::api::{Quality, SessionId, TrackSid};

/// How often a path is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A running track that doesn't fit goes on for so long with what it has: estimates have dips.
const GRACE: Duration = Duration::from_millis(4000);
/// A new track that doesn't fit is told as paused only after the first probes.
const FIRST_GRACE: Duration = Duration::from_millis(2000);
/// A leg that was served and is due still is served again after this.
const RELEASE_AGAIN: Duration = Duration::from_millis(1);
/// An estimate lower by this is shared at once.
const DROP: f64 = 0.95;
/// What headers add to the payload of video, in percent.
const HEADERS: u64 = 107;
/// The same in bytes: RTP header and the extensions that subscribers get.
const HEADER: usize = 24;
/// Padding-only packets: as long as RFC 3550's count can tell.
pub(super) const PADDING: u8 = 255;

/// Finds a packet that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    track: TrackKey,
    place: usize,
    /// Of the subscription, which may be another one by then.
    ssrc: u32,
    what: Resend,
}

/// A leg's path.
#[derive(Debug)]
pub(crate) struct Path {
    pub(super) congestion: Congestion<Waiting>,
    sound: Cost,
    /// When its timer is set for, and that of the pacer.
    due: Option<Instant>,
    pace_due: Option<Instant>,
    /// The estimate as it was last shared.
    shared: u64,
    places: Vec<(TrackKey, usize)>,
    wants: Vec<Want>,
    layers: Vec<[Quality; MAX_LAYERS]>,
    choices: Vec<Option<usize>>,
}

impl Path {
    fn new(numbered: bool, now: Instant) -> Self {
        Path {
            congestion: Congestion::new(numbered, now),
            sound: Cost::default(),
            due: None,
            pace_due: None,
            shared: 0,
            places: Vec::new(),
            wants: Vec::new(),
            layers: Vec::new(),
            choices: Vec::new(),
        }
    }
}

/// What of a track the path of a subscriber has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Room {
    /// Nothing is known of the path.
    #[default]
    Open,
    UpTo(Quality),
    None,
}

impl Room {
    /// The client's wish within it.
    pub(crate) fn limit(self, wanted: Option<Quality>) -> Option<Quality> {
        match self {
            Room::Open => wanted,
            Room::UpTo(most) => wanted.map(|w| w.min(most)),
            Room::None => None,
        }
    }
}

impl Forwarder {
    /// A video subscription begins on a leg: with numbers on its packets there will be an estimate.
    pub(super) fn open_path(&mut self, leg: LegKey, numbered: bool) {
        let now = self.next_tick;
        let Some(peer) = self.peer(leg) else { return };
        if numbered && peer.outgoing.path.is_none() {
            peer.outgoing.path = Some(Box::new(Path::new(true, now)));
        }
        self.look_at_path(leg, now);
    }

    /// Looks at a path then, if not before.
    fn look_at_path(&mut self, leg: LegKey, at: Instant) {
        if let Some(Some(peer)) = self.peers.get_mut(leg.0)
            && let Some(path) = &mut peer.outgoing.path
            && path.due.is_none_or(|due| at < due)
        {
            path.due = Some(at);
            self.timers.set(at, Job::Path(leg));
        }
    }

    /// A receiver spoke of the path to it.
    pub(super) fn said_of_path(&mut self, leg: LegKey, said: Said<'_>, now: Instant) {
        let Some(Some(peer)) = self.peers.get_mut(leg.0) else {
            return;
        };
        match said {
            Said::Feedback(packet) => {
                let Some(path) = &mut peer.outgoing.path else {
                    return;
                };
                path.congestion.feedback(packet, now);
            }
            Said::Remb(rate) => {
                // Only a leg that gets video has use for one.
                if peer.sending.is_empty() {
                    return;
                }
                let path = &mut peer.outgoing.path;
                path.get_or_insert_with(|| Box::new(Path::new(false, now)))
                    .congestion
                    .remb(rate, now);
            }
        }
        let Some(path) = &mut peer.outgoing.path else {
            return;
        };
        let estimate = path.congestion.estimate(now).unwrap_or(u64::MAX);
        if (estimate as f64) < path.shared as f64 * DROP || path.due.is_none() {
            self.look_at_path(leg, now);
        }
        self.set_pace(leg);
    }

    /// A path's turn.
    pub(super) fn look_at_path_now(&mut self, leg: LegKey, at: Instant, now: Instant) {
        let Some(Some(peer)) = self.peers.get_mut(leg.0) else {
            return;
        };
        let busy = !peer.sending.is_empty();
        let Some(path) = &mut peer.outgoing.path else {
            return;
        };
        if path.due != Some(at) {
            return;
        }
        // Begins again with the next subscription.
        path.due = None;
        path.congestion.tick(now);
        self.share(leg, now);
        if busy {
            self.look_at_path(leg, now + LOOK);
        }
        self.set_pace(leg);
    }

    /// Shares a leg's estimate over its video tracks.
    fn share(&mut self, leg: LegKey, now: Instant) {
        let Some(Some(peer)) = self.peers.get_mut(leg.0) else {
            return;
        };
        let Some(mut path) = peer.outgoing.path.take() else {
            return;
        };
        let sound = path.collect(leg, &peer.sending, &self.tracks);
        path.sound.note(sound.0, sound.1, now);
        let reserved = path.sound.rate().unwrap_or(0);
        let estimate = path.congestion.estimate(now);
        path.shared = estimate.unwrap_or(u64::MAX);
        path.choices.clear();
        if let Some(estimate) = estimate {
            // Sound goes first, but an estimate that is lower than it has never seen it.
            let budget = Budget::of(estimate, reserved.min(estimate / 2));
            allocate(budget, &path.wants, &mut path.choices);
        }
        let strained = path.congestion.is_strained(now);
        let full = path.congestion.is_full();
        let all = desired(&path.wants);
        let next = next_step(&path.wants, &path.choices).unwrap_or(all);
        path.congestion
            .want(Budget::needed(all, reserved), Budget::needed(next, reserved));
        for (i, (key, place)) in path.places.iter().enumerate() {
            let Some(Some(track)) = self.tracks.get_mut(key.0) else {
                continue;
            };
            let Some(Some(s)) = track.subscriptions.get_mut(*place) else {
                continue;
            };
            let room = match path.choices.get(i) {
                None => Room::Open,
                // Nothing came in yet.
                Some(_) if path.wants.get(i).is_none_or(|w| w.layers == 0) => continue,
                Some(Some(layer)) => path
                    .layers
                    .get(i)
                    .and_then(|l| l.get(*layer))
                    .map_or(Room::Open, |q| Room::UpTo(*q)),
                Some(None) => Room::None,
            };
            let lowest = path.layers.get(i).and_then(|l| l.first()).copied();
            let (changed, told) = s.make_room(room, lowest, strained, now);
            if let Some(paused) = told {
                self.stream_states
                    .push((s.binding.session, track.spec.sid.clone(), paused));
            }
            if changed
                && track.reselect(*place)
                && let Some(Some(s)) = track.subscriptions.get(*place)
                && let Some(layer) = s.target
            {
                track.want_key_frame(layer);
            }
            // What is too much would only stand before the lower layer's key frame, and be late or lost itself.
            if full && path.choices.get(i).is_some() && track.cut(*place) {
                path.congestion.give_up(|w| w.track != *key || w.place != *place);
            }
            if changed {
                self.look_soon(*key);
            }
        }
        if let Some(Some(peer)) = self.peers.get_mut(leg.0) {
            peer.outgoing.path = Some(path);
        }
    }

    /// Bits per second that a leg's path is thought to carry, where its receiver tells.
    pub(crate) fn path_estimate(&mut self, leg: LegKey, now: Instant) -> Option<u64> {
        let path = self.peer(leg)?.outgoing.path.as_ref()?;
        path.congestion.estimate(now)
    }

    pub(super) fn path_state(&mut self, leg: LegKey, now: Instant) -> Option<PathState> {
        let path = self.peer(leg)?.outgoing.path.as_ref()?;
        Some(PathState {
            estimate: path.congestion.estimate(now)?,
            strained: path.congestion.is_strained(now),
        })
    }

    /// What changed between playing and paused since the last call.
    pub(crate) fn take_stream_states(&mut self) -> Vec<(SessionId, TrackSid, bool)> {
        std::mem::take(&mut self.stream_states)
    }

    fn set_pace(&mut self, leg: LegKey) {
        if let Some(Some(peer)) = self.peers.get_mut(leg.0)
            && let Some(path) = &mut peer.outgoing.path
        {
            path.set_pace(leg, &mut self.pace);
        }
    }

    /// Lets out what waited for its time.
    pub(super) fn release_due(&mut self, now: Instant, batch: &mut SendBatch) {
        while let Some((at, leg)) = self.pace.due(now) {
            let Some(Some(peer)) = self.peers.get_mut(leg.0) else {
                continue;
            };
            let Some(path) = &mut peer.outgoing.path else {
                continue;
            };
            if path.pace_due == Some(at) {
                path.pace_due = None;
                self.release(leg, now, batch);
                self.set_pace(leg);
                // What is due still has had its turn: without this a leg that can't be served would hold up
                // all others for ever.
                if let Some(path) = self.peer(leg).and_then(|p| p.outgoing.path.as_mut())
                    && path.pace_due.is_some_and(|due| due <= now)
                {
                    let later = now + RELEASE_AGAIN;
                    path.pace_due = Some(later);
                    self.pace.set(later, leg);
                }
            }
        }
    }

    fn release(&mut self, leg: LegKey, now: Instant, batch: &mut SendBatch) {
        loop {
            let Some(Some(peer)) = self.peers.get_mut(leg.0) else {
                return;
            };
            let Some(path) = &mut peer.outgoing.path else {
                return;
            };
            if let Some((kind, w)) = path.congestion.pop(now) {
                if self.ssrc(w.track, w.place) == Some((leg, w.ssrc)) {
                    self.send_again((w.track, w.place), &w.what, kind == Kind::Resend, now, batch);
                }
            } else if path.congestion.probe_due(now) == 0 {
                return;
            } else if !self.send_padding(leg, now, batch) {
                if let Some(path) = self.peer(leg).and_then(|p| p.outgoing.path.as_mut()) {
                    path.congestion.abandon_probe(now);
                }
                return;
            }
        }
    }

    /// One packet of padding over the RTX of any of the leg's video; `false` where there is none.
    fn send_padding(&mut self, leg: LegKey, now: Instant, batch: &mut SendBatch) -> bool {
        let Some(Some(peer)) = self.peers.get_mut(leg.0) else {
            return false;
        };
        let number = peer.outgoing.number();
        let start = batch.begin();
        for (key, place) in peer.sending.values() {
            let Some(Some(track)) = self.tracks.get_mut(key.0) else {
                continue;
            };
            let Some(Some(s)) = track.subscriptions.get_mut(*place) else {
                continue;
            };
            if let Some(dressed) = s.padding(PADDING, number, batch.buffer()) {
                peer.seal(batch, start, &dressed, false, now);
                let size = batch.begin() - start;
                if let Some(path) = &mut peer.outgoing.path
                    && size > 0
                {
                    path.congestion.padded(size);
                    return true;
                }
                return false;
            }
        }
        false
    }
}

impl Path {
    /// Whether a packet that a subscription admitted leaves now. Otherwise it was noted.
    pub(super) fn passes(
        &mut self,
        s: &mut Subscription,
        (track, place): (TrackKey, usize),
        packet: &Arrived<'_>,
        admitted: &Admitted,
    ) -> bool {
        let size = packet.payload.len() + HEADER;
        if s.hurries(size, || !self.congestion.is_strained(packet.now))
            || self.congestion.may(Kind::Media, packet.now)
        {
            return true;
        }
        let Some(what) = s.put_off(packet, admitted) else {
            return true;
        };
        let waiting = Waiting {
            track,
            place,
            ssrc: s.binding.ssrc,
            what,
        };
        self.congestion.keep(Kind::Media, size, waiting);
        false
    }

    /// Gives up what waits of one subscription.
    pub(super) fn give_up(&mut self, track: TrackKey, place: usize) {
        self.congestion.give_up(|w| w.track != track || w.place != place);
    }

    /// Whether a packet of `size` bytes is sent again now. Otherwise it was noted, or there have been too
    /// many.
    pub(super) fn repeats(
        &mut self,
        s: &Subscription,
        (track, place): (TrackKey, usize),
        what: &Resend,
        size: usize,
        now: Instant,
    ) -> bool {
        // Sound goes without.
        if !s.binding.is_numbered() {
            return true;
        }
        if !self.congestion.may_resend(size + OVERHEAD, now) {
            return false;
        }
        if self.congestion.may(Kind::Resend, now) {
            return true;
        }
        let waiting = Waiting {
            track,
            place,
            ssrc: s.binding.ssrc,
            what: *what,
        };
        self.congestion.keep(Kind::Resend, size, waiting);
        false
    }

    /// Sets the timer for what waits.
    pub(super) fn set_pace(&mut self, leg: LegKey, timers: &mut Timers<LegKey>) {
        if let Some(at) = self.congestion.next_timeout()
            && self.pace_due.is_none_or(|due| at < due)
        {
            self.pace_due = Some(at);
            timers.set(at, leg);
        }
    }

    /// Lists the leg's video tracks with what each of their layers costs. Returns packets and bytes of
    /// sound so far.
    fn collect(
        &mut self,
        leg: LegKey,
        sending: &HashMap<u32, (TrackKey, usize)>,
        tracks: &[Option<Track>],
    ) -> (u64, u64) {
        let find = |key: TrackKey, place: usize| {
            let track = tracks.get(key.0)?.as_ref()?;
            let s = track.subscriptions.get(place)?.as_ref()?;
            (s.binding.leg == leg).then_some((track, s))
        };
        self.places.clear();
        let mut sound = (0, 0);
        for (ssrc, (key, place)) in sending {
            // Each subscription has two.
            let Some((track, s)) = find(*key, *place).filter(|(_, s)| s.binding.ssrc == *ssrc) else {
                continue;
            };
            if !track.video() {
                sound = (sound.0 + s.packets, sound.1 + s.bytes);
            } else if !track.muted && s.binding.wanted.is_some() {
                self.places.push((*key, *place));
            }
        }
        self.places.sort_unstable();
        self.wants.clear();
        self.layers.clear();
        for (key, place) in &self.places {
            let (want, layers) = match find(*key, *place) {
                Some((track, s)) => want(track, s),
                None => (NOTHING, [Quality::Low; MAX_LAYERS]),
            };
            self.wants.push(want);
            self.layers.push(layers);
        }
        sound
    }
}

const NOTHING: Want = Want {
    priority: 0,
    costs: [0; MAX_LAYERS],
    layers: 0,
    running: None,
};

/// What a subscription could get of a track, and which layers that are.
fn want(track: &Track, s: &Subscription) -> (Want, [Quality; MAX_LAYERS]) {
    let mut want = Want {
        priority: s.priority,
        ..NOTHING
    };
    let mut qualities = [Quality::Low; MAX_LAYERS];
    if let [layer] = track.layers.as_slice()
        && let Some(costs) = layer.spatial_costs()
    {
        let wished = costs.filter(|(q, _)| *q == Quality::Low || s.binding.wanted.is_some_and(|w| *q <= w));
        for (i, (quality, cost)) in wished.take(MAX_LAYERS).enumerate() {
            if let (Some(c), Some(q)) = (want.costs.get_mut(i), qualities.get_mut(i)) {
                (*c, *q) = (cost * HEADERS / 100, quality);
            }
            want.layers = i + 1;
        }
        let top = want.layers.saturating_sub(1);
        let running = |l: super::svc::Target| usize::from(l.spatial).min(top);
        want.running = s.current.and(s.layers()).map(running);
        return (want, qualities);
    }
    let mut last = None;
    // By quality, whatever the sender's order.
    while let Some((at, layer)) = track
        .layers
        .iter()
        .enumerate()
        .filter(|(at, l)| track.is_live(*at) && last.is_none_or(|q| l.quality > q))
        .min_by_key(|(_, l)| l.quality)
    {
        last = Some(layer.quality);
        let cost = match layer.cost.rate() {
            Some(rate) => rate,
            // The lowest is begun with; what is above waits until its cost is known.
            None if want.layers == 0 => 0,
            None => break,
        };
        let above = want.layers > 0 && s.binding.wanted.is_some_and(|w| layer.quality > w);
        if above || want.layers == MAX_LAYERS {
            break;
        }
        if let (Some(c), Some(q)) = (want.costs.get_mut(want.layers), qualities.get_mut(want.layers)) {
            (*c, *q) = (cost, layer.quality);
        }
        if s.target == Some(at) {
            want.running = Some(want.layers);
        }
        want.layers += 1;
    }
    if s.target.is_some() && want.running.is_none() && want.layers > 0 {
        // Something above what is wished for now, or that stopped.
        want.running = Some(want.layers - 1);
    }
    (want, qualities)
}

impl Subscription {
    /// Takes over what there is room for. Whether that changes anything, and what the client is to be
    /// told: that the track pauses, or goes on.
    ///
    /// A picture that runs isn't taken away for an estimate alone, which is of what came lately and dips: only
    /// where the path is `strained` by it.
    fn make_room(
        &mut self,
        room: Room,
        lowest: Option<Quality>,
        strained: bool,
        now: Instant,
    ) -> (bool, Option<bool>) {
        let before = self.room;
        if room != Room::None {
            self.unfit_since = None;
            self.room = room;
            let told = std::mem::replace(&mut self.paused, false).then_some(false);
            return (before != room, told);
        }
        let runs = self.target.is_some();
        if runs && !strained {
            self.unfit_since = None;
        }
        let waited = match self.unfit_since {
            _ if runs && !strained => Duration::ZERO,
            since => now.saturating_duration_since(*self.unfit_since.insert(since.unwrap_or(now))),
        };
        self.room = match lowest {
            Some(lowest) if runs && waited < GRACE => Room::UpTo(lowest),
            _ => Room::None,
        };
        let tell = !self.paused && self.room == Room::None && (runs || waited >= FIRST_GRACE);
        self.paused |= tell;
        (before != self.room, tell.then_some(true))
    }
}

#[cfg(test)]
#[path = "paths_world.rs"]
mod world;

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
