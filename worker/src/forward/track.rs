//! One published track: its layers as they come in, its subscriptions as they go out.
//!
//! Owns buffers, receivers and key-frame requests of the layers. Invariants: a key frame is asked for at
//! most once per interval and layer; a request that came too early is not forgotten.

use std::time::{Duration, Instant};

use super::audio::select::Voice;
use super::audio::{Part, Sound, SoundSpec};
use super::codec::Codec;
use super::congestion::cost::Cost;
use super::extension::Passed;
use super::gaps::Gaps;
use super::layers::{DEAD_AFTER, LayerState, Steadiness, choose, on_the_way, patience, quality_of};
use super::levels::LevelMeter;
use super::packet::Header;
use super::receive::Receiver;
use super::subscription::{Padding, Subscription};
use super::svc::{Described, Source, Target};
use super::{LegKey, buffer::PacketBuffer};
use crate::session::api::{MediaKind, Quality, SessionId, TrackSid};

/// Key frames of the lowest layer are cheap.
const PLI_INTERVAL_LOW: Duration = Duration::from_millis(500);
const PLI_INTERVAL: Duration = Duration::from_millis(1000);

/// A track without packets for so long needs no timer.
const IDLE: Duration = Duration::from_secs(2);

/// A publisher's section as negotiated.
#[derive(Debug, Clone)]
pub(crate) struct TrackSpec {
    pub(crate) sid: TrackSid,
    pub(crate) session: SessionId,
    pub(crate) leg: LegKey,
    pub(crate) mid: String,
    pub(crate) kind: MediaKind,
    /// Payload type to codec.
    pub(crate) codecs: Vec<(u8, Codec)>,
    /// RTX payload type to the payload type it repairs.
    pub(crate) repairs: Vec<(u8, u8)>,
    /// RIDs in the sender's order; empty for a track of one layer.
    pub(crate) rids: Vec<String>,
    /// Bits per second that its publisher may send altogether.
    pub(crate) max_bitrate: Option<u64>,
    /// SSRCs the description announced: (media, RTX).
    pub(crate) ssrcs: Vec<(u32, Option<u32>)>,
    /// Packets can be asked for again.
    pub(crate) nack: bool,
    pub(crate) sound: SoundSpec,
}

/// One encoding.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) rid: String,
    pub(crate) quality: Quality,
    pub(crate) ssrc: Option<u32>,
    pub(crate) receiver: Receiver,
    pub(crate) buffer: PacketBuffer,
    pub(crate) last_packet: Option<Instant>,
    /// Layers within it, and its last key frame.
    pub(crate) source: Source,
    pub(crate) cost: Cost,
    steadiness: Steadiness,
    asked: Option<Instant>,
    wanted: bool,
    pub(crate) plis: u64,
}

impl Layer {
    /// What each quality costs of a stream with several layers in space, in bits per second, the lowest
    /// first; the highest layer is the highest quality.
    pub(crate) fn spatial_costs(&self) -> Option<impl Iterator<Item = (Quality, u64)> + '_> {
        let now = self.last_packet?;
        let rates = &self.source.rates;
        let most = rates.live(now)?.spatial.min(2);
        if most == 0 {
            return None;
        }
        let cost = move |spatial| {
            let temporal = u8::MAX;
            rates.bitrate(Target { spatial, temporal }, now)
        };
        Some((0..=most).map(move |spatial| {
            let quality = match spatial {
                s if s == most => Quality::High,
                0 => Quality::Low,
                _ => Quality::Medium,
            };
            (quality, cost(spatial))
        }))
    }

    /// `newest` is when the last packet of any layer came.
    fn state(&self, newest: Option<Instant>) -> LayerState {
        LayerState {
            quality: self.quality,
            last_packet: self.last_packet,
            patience: patience(self.receiver.interval()),
            steady: newest.is_none_or(|now| self.steadiness.holds(now)),
        }
    }
}

/// A packet of this turn that its subscribers don't have yet. Its bytes are in the layer's buffer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) header: Header,
    pub(crate) passed: Passed,
    pub(crate) codec: Codec,
    pub(crate) described: Described,
    pub(crate) layer: usize,
    pub(crate) sequence: u64,
    /// Bytes of its payload; 0 for padding alone.
    pub(crate) payload_len: usize,
    pub(crate) newest: bool,
    pub(crate) starts: bool,
    pub(crate) padding: Padding,
    pub(crate) part: Part,
    /// Of one of the microphones that a choice may be made among.
    pub(crate) voice: Option<Voice>,
    pub(crate) now: Instant,
}

/// A track.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) spec: TrackSpec,
    pub(crate) muted: bool,
    pub(crate) layers: Vec<Layer>,
    pub(crate) subscriptions: Vec<Option<Subscription>>,
    /// As it comes in.
    pub(crate) gaps: Gaps,
    pub(crate) pending: Vec<Pending>,
    pub(crate) levels: LevelMeter,
    pub(crate) sound: Sound,
    /// In the reports that its subscribers get.
    pub(crate) cname: String,
    /// When its timer is set for.
    pub(crate) due: Option<Instant>,
    /// When levels are told and layers looked at again.
    pub(crate) next_slow: Option<Instant>,
    /// What its subscriptions may begin with is looked for at the end of this turn.
    pub(crate) begins: bool,
}

impl Track {
    pub(crate) fn new(spec: TrackSpec) -> Self {
        let rate = spec.codecs.first().map_or(90_000, |(_, c)| c.clock_rate());
        let rids: Vec<&str> = if spec.rids.is_empty() {
            vec![""]
        } else {
            spec.rids.iter().map(String::as_str).collect()
        };
        let count = rids.len();
        let layers = rids
            .iter()
            .enumerate()
            .map(|(i, rid)| Layer {
                rid: (*rid).to_owned(),
                quality: if count == 1 {
                    Quality::High
                } else {
                    quality_of(rid, i, count)
                },
                ssrc: None,
                receiver: match spec.kind {
                    MediaKind::Audio => Receiver::audio(rate),
                    MediaKind::Video => Receiver::new(rate),
                },
                buffer: PacketBuffer::default(),
                last_packet: None,
                source: Source::default(),
                cost: Cost::default(),
                steadiness: Steadiness::default(),
                asked: None,
                wanted: false,
                plis: 0,
            })
            .collect();
        Track {
            cname: format!("{:x}", spec.session.0),
            spec,
            muted: false,
            layers,
            subscriptions: Vec::new(),
            gaps: Gaps::default(),
            pending: Vec::new(),
            levels: LevelMeter::default(),
            sound: Sound::default(),
            due: None,
            next_slow: None,
            begins: false,
        }
    }

    pub(crate) fn video(&self) -> bool {
        self.spec.kind == MediaKind::Video
    }

    /// The highest layer of video that comes in, among those that come at the same time.
    pub(crate) fn highest_live(&self) -> Option<Quality> {
        let newest = self.newest()?;
        self.layers
            .iter()
            .filter(|l| {
                l.last_packet
                    .is_some_and(|at| newest.saturating_duration_since(at) < DEAD_AFTER)
            })
            .map(|l| l.quality)
            .max()
            .filter(|_| self.video())
    }

    /// Whether a layer comes in, as far as any does.
    pub(crate) fn is_live(&self, at: usize) -> bool {
        let newest = self.newest();
        self.layers
            .get(at)
            .is_some_and(|l| l.state(newest).is_live(newest))
    }

    /// When the last packet of any layer came.
    fn newest(&self) -> Option<Instant> {
        self.layers.iter().filter_map(|l| l.last_packet).max()
    }

    /// Measures what the layers of video take.
    pub(crate) fn note_costs(&mut self, now: Instant) {
        if self.video() {
            for l in &mut self.layers {
                l.cost.note(l.receiver.packets, l.receiver.bytes, now);
            }
        }
    }

    /// Notes which layers come, of those that somebody would take.
    pub(crate) fn note_steadiness(&mut self, now: Instant) {
        if self.layers.len() < 2 {
            return;
        }
        let subscriptions = self.subscriptions.iter().flatten();
        let most = subscriptions.filter_map(|s| s.binding.wanted).max();
        for at in 0..self.layers.len() {
            let live = self.is_live(at);
            if let Some(l) = self.layers.get_mut(at) {
                let wanted = most.is_some_and(|most| l.quality <= most);
                l.steadiness.look(live, wanted && !self.muted, now);
            }
        }
    }

    pub(crate) fn codec(&self, payload_type: u8) -> Option<Codec> {
        self.spec
            .codecs
            .iter()
            .find(|(pt, _)| *pt == payload_type)
            .map(|(_, c)| *c)
    }

    pub(crate) fn layer_of(&self, rid: &[u8]) -> Option<usize> {
        self.layers.iter().position(|l| l.rid.as_bytes() == rid)
    }

    /// Whether it has to be looked at again soon, even if nothing comes in.
    pub(crate) fn is_active(&self, now: Instant) -> bool {
        let recent = |l: &Layer| {
            l.last_packet
                .is_some_and(|at| now.saturating_duration_since(at) < IDLE)
        };
        let waits = |s: &Subscription| s.waits_for_key_frame();
        self.layers.iter().any(|l| recent(l) || l.wanted) || self.subscriptions.iter().flatten().any(waits)
    }

    /// Chooses the layer of one subscription again; `true` if a key frame is needed for it.
    pub(crate) fn reselect(&mut self, at: usize) -> bool {
        let newest = self.newest();
        let states: Vec<LayerState> = self.layers.iter().map(|l| l.state(newest)).collect();
        let Some(Some(sub)) = self.subscriptions.get_mut(at) else {
            return false;
        };
        let wanted = sub.room.limit(sub.binding.wanted);
        sub.target = choose(wanted, &states, sub.target);
        match sub.target {
            None => sub.restart(),
            // What it would go on with has a hole by now.
            Some(target) if sub.current == Some(target) && sub.is_cut() => sub.restart(),
            Some(target) => sub.accepted = on_the_way(&states, sub.current, target),
        }
        let fed = sub.current.or(sub.target).and_then(|l| self.layers.get(l));
        if let Some((layer, wanted)) = fed.zip(wanted) {
            let single = self.layers.len() == 1;
            sub.want(layers_wanted(layer, wanted, single, sub.fps));
        }
        sub.waits_for_key_frame()
    }

    /// Ends what a subscription gets of its layer if a lower one is to follow; whether that is new.
    pub(crate) fn cut(&mut self, at: usize) -> bool {
        let quality = |l: usize| self.layers.get(l).map(|l| l.quality);
        match self.subscriptions.get_mut(at) {
            Some(Some(s)) if s.target.and_then(quality) < s.current.and_then(quality) => {
                s.target.is_some() && s.cut()
            }
            _ => false,
        }
    }

    /// Notes that a key frame of `layer` is wanted.
    pub(crate) fn want_key_frame(&mut self, layer: usize) {
        if let Some(l) = self.layers.get_mut(layer) {
            l.wanted = true;
        }
    }

    /// Every layer that someone waits for or watches.
    pub(crate) fn want_key_frames(&mut self) {
        let layers: Vec<usize> = self
            .subscriptions
            .iter()
            .flatten()
            .filter_map(|s| s.target.or(s.current))
            .collect();
        for layer in layers {
            self.want_key_frame(layer);
        }
    }

    /// SSRCs to send a PLI for now. A wanted layer is asked again until [`Self::key_frame_came`].
    pub(crate) fn due_key_frames(&mut self, now: Instant) -> Vec<u32> {
        if self.muted || !self.video() {
            return Vec::new();
        }
        let single = self.layers.len() == 1;
        let mut due = Vec::new();
        for l in &mut self.layers {
            let interval = if single || l.quality == Quality::Low {
                PLI_INTERVAL_LOW
            } else {
                PLI_INTERVAL
            };
            let (true, Some(ssrc)) = (l.wanted, l.ssrc) else {
                continue;
            };
            if l.asked
                .is_none_or(|at| now.saturating_duration_since(at) >= interval)
            {
                l.asked = Some(now);
                l.wanted = false;
                l.plis += 1;
                due.push(ssrc);
            }
        }
        due
    }

    /// Asks for what is still awaited; called on a timer.
    pub(crate) fn renew_requests(&mut self) {
        for at in 0..self.subscriptions.len() {
            if self.reselect(at) {
                self.want_awaited(at);
            }
        }
    }

    /// Notes the key frames that a subscription waits for: of its target, and while it has nothing at all,
    /// of the lowest layer that would do, which is the cheapest and the soonest.
    pub(crate) fn want_awaited(&mut self, at: usize) {
        let Some(Some(sub)) = self.subscriptions.get(at) else {
            return;
        };
        let quality = |l: &usize| self.layers.get(*l).map(|l| l.quality);
        let lowest = sub
            .accepted
            .iter()
            .min_by_key(quality)
            .filter(|_| sub.current.is_none());
        let target = sub.target;
        for layer in [target, lowest].into_iter().flatten() {
            self.want_key_frame(layer);
        }
    }

    /// Somebody will receive it in a moment: a key frame of what they will begin with is wanted by then.
    pub(crate) fn anticipate(&mut self, now: Instant) {
        let newest = self.newest();
        let states: Vec<LayerState> = self.layers.iter().map(|l| l.state(newest)).collect();
        let lowest = choose(Some(Quality::Low), &states, None);
        if let Some(l) = lowest.and_then(|l| self.layers.get_mut(l)) {
            l.wanted |= !l.source.key_frames.is_fresh(now);
        }
    }

    /// A receiver asks for a key frame that was there too late for the first one: if there still is one to
    /// begin with, the subscription does so again.
    pub(crate) fn begin_again(&mut self, at: usize, now: Instant) -> bool {
        let Some(Some(s)) = self.subscriptions.get_mut(at) else {
            return false;
        };
        let fed = s.current.and_then(|l| self.layers.get(l));
        let starts = s.beginnings(now).is_some()
            && fed.is_some_and(|l| {
                let has = |sequence| l.buffer.get(sequence).is_some();
                l.source.key_frames.replay(now, has).is_some()
            });
        if starts {
            s.begin_again();
        }
        starts
    }

    /// Nothing of what came in so far may be shown again.
    pub(crate) fn forget_pictures(&mut self) {
        for layer in &mut self.layers {
            layer.source.key_frames.forget();
        }
    }

    pub(crate) fn position(&self, session: SessionId) -> Option<usize> {
        self.subscriptions
            .iter()
            .position(|s| s.as_ref().is_some_and(|s| s.binding.session == session))
    }

    /// Where the next subscription goes.
    pub(crate) fn vacancy(&self) -> usize {
        let free = self.subscriptions.iter().position(Option::is_none);
        free.unwrap_or(self.subscriptions.len())
    }

    /// While nobody wants anything of it, nothing has to come.
    pub(crate) fn rest_unless_watched(&mut self) {
        let mut subscriptions = self.subscriptions.iter().flatten();
        if !subscriptions.any(|s| s.binding.wanted.is_some()) {
            self.gaps.rest();
        }
    }

    /// Places a subscription there.
    pub(crate) fn attach(&mut self, subscription: Subscription) {
        self.rest_unless_watched();
        let at = self.vacancy();
        match self.subscriptions.get_mut(at) {
            Some(slot) => *slot = Some(subscription),
            None => self.subscriptions.push(Some(subscription)),
        }
    }
}

/// The layers within an encoding that a subscriber wants: the quality names one in space where there are no
/// encodings to choose from, the frame rate one in time. Never more than what is sent, since a key frame would
/// be asked for in vain.
fn layers_wanted(layer: &Layer, wanted: Quality, single: bool, fps: Option<u32>) -> Target {
    let Some(now) = layer.last_packet else {
        return Target::ALL;
    };
    let rates = &layer.source.rates;
    let most = rates.live(now).map_or(u8::MAX, |l| l.spatial);
    let spatial = match wanted {
        Quality::Low if single => 0,
        Quality::Medium if single => 1,
        _ => u8::MAX,
    };
    let spatial = spatial.min(most);
    let temporal = fps.map_or(u8::MAX, |fps| rates.temporal_for(f64::from(fps), spatial, now));
    Target { spatial, temporal }
}
