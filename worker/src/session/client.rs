//! One client: its legs, what it announced and what it subscribed to.
//!
//! Owns the bookkeeping of subscriptions between a command and the section that carries them.
//! Invariants: a subscription is bound to at most one section; what waits for sections has asked for
//! them, once, and asks again only after the client had time to offer.

use std::time::{Duration, Instant};

use super::api::{ExpectedTrack, Leg, MediaKind, Quality, SessionId, SourceState, Topology, TrackSid};
use super::once::Once;
use super::peer::PeerLeg;

/// A client that was asked to offer and didn't is asked again after this.
const PATIENCE: Duration = Duration::from_secs(3);
/// That sections were given up can wait for so long: whoever changes rooms is about to be given others,
/// and one round is enough for both.
const RELEASE_DELAY: Duration = Duration::from_millis(100);
/// Sections of a kind up to which new ones are asked for rather than a round waited until released ones
/// may be used again: whoever changes rooms sees and hears the others a round earlier. Each costs a
/// few kilobytes in every description.
const ROOMY: usize = 16;

/// A wish to receive.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) sid: TrackSid,
    /// `PA_x|TR_y`
    pub(crate) stream: String,
    pub(crate) wanted: Option<Quality>,
    /// Frames a second that are enough.
    pub(crate) fps: Option<u32>,
    /// 1 first, 0 = nothing said.
    pub(crate) priority: u32,
    /// In a description that the client has.
    pub(crate) bound: bool,
}

/// See [`RELEASE_DELAY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Released {
    No,
    /// In this turn.
    Now,
    Since(Instant),
}

/// A session.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: SessionId,
    pub(crate) topology: Topology,
    pub(crate) codecs: Vec<String>,
    pub(crate) opened: Instant,
    /// When its transports' timers are looked at.
    pub(crate) due: Option<Instant>,
    pub(crate) expected: Vec<ExpectedTrack>,
    pub(crate) publisher: PeerLeg,
    pub(crate) subscriber: Option<PeerLeg>,
    pub(crate) wishes: Vec<Wish>,
    /// Sections changed that the client doesn't know of.
    pub(crate) dirty: bool,
    /// Sections were given up that the client thinks are in use.
    released: Released,
    /// Asked for sections: how many of each kind, and when.
    asked: Option<(u32, u32, Instant)>,
    /// The first offer was answered.
    pub(crate) negotiated: bool,
    /// Incoming streams that another engine had learned, of tracks not yet offered here.
    pub(crate) inherited: Vec<SourceState>,
    /// When its state was given to another engine.
    pub(crate) handed_over: Option<Instant>,
    /// It makes one offer.
    pub(crate) once: Option<Once>,
}

/// What to ask the client for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) audios: u32,
    pub(crate) videos: u32,
}

impl Client {
    pub(crate) fn new(
        id: SessionId,
        topology: Topology,
        codecs: Vec<String>,
        publisher: PeerLeg,
        subscriber: Option<PeerLeg>,
        now: Instant,
    ) -> Self {
        Client {
            id,
            topology,
            codecs,
            opened: now,
            due: None,
            expected: Vec::new(),
            publisher,
            subscriber,
            wishes: Vec::new(),
            dirty: false,
            released: Released::No,
            asked: None,
            negotiated: false,
            inherited: Vec::new(),
            handed_over: None,
            once: None,
        }
    }

    pub(crate) fn leg(&mut self, leg: Leg) -> Option<&mut PeerLeg> {
        match leg {
            Leg::Publisher => Some(&mut self.publisher),
            Leg::Subscriber => self.subscriber.as_mut(),
        }
    }

    /// The leg that carries what the client receives.
    pub(crate) fn receiving(&mut self) -> &mut PeerLeg {
        match &mut self.subscriber {
            Some(leg) => leg,
            None => &mut self.publisher,
        }
    }

    pub(crate) fn receiving_ref(&self) -> &PeerLeg {
        self.subscriber.as_ref().unwrap_or(&self.publisher)
    }

    pub(crate) fn legs(&mut self) -> impl Iterator<Item = (Leg, &mut PeerLeg)> {
        let subscriber = self.subscriber.as_mut().map(|l| (Leg::Subscriber, l));
        [(Leg::Publisher, &mut self.publisher)]
            .into_iter()
            .chain(subscriber)
    }

    pub(crate) fn wish(&mut self, sid: &TrackSid) -> Option<&mut Wish> {
        self.wishes.iter_mut().find(|w| w.sid == *sid)
    }

    /// The client offered: what it was asked for is settled, and the answer says what is in use.
    pub(crate) fn offered(&mut self) {
        self.asked = None;
        self.described();
    }

    /// A description of everything is on its way to the client.
    pub(crate) fn described(&mut self) {
        self.dirty = false;
        self.released = Released::No;
    }

    /// A section was given up.
    pub(crate) fn release(&mut self) {
        if self.released == Released::No {
            self.released = Released::Now;
        }
    }

    /// Makes the client `dirty` when the delay of a release is over. True: look again later.
    pub(crate) fn releasing(&mut self, now: Instant) -> bool {
        match self.released {
            Released::No => false,
            Released::Now => {
                self.released = Released::Since(now);
                true
            }
            Released::Since(at) if now.saturating_duration_since(at) < RELEASE_DELAY => true,
            Released::Since(_) => {
                self.released = Released::No;
                self.dirty = true;
                false
            }
        }
    }

    /// What a single-connection client must be asked for now. `kind_of` is `None` for tracks that aren't
    /// live yet.
    pub(crate) fn need(
        &mut self,
        kind_of: &dyn Fn(&TrackSid) -> Option<MediaKind>,
        now: Instant,
    ) -> Option<Need> {
        if self.topology != Topology::Single || !self.negotiated {
            return None;
        }
        let waiting = |kind: MediaKind| {
            let table = &self.publisher.table;
            let open = self
                .wishes
                .iter()
                .filter(|w| table.bound(&w.sid).is_none() && kind_of(&w.sid) == Some(kind))
                .count();
            let at_once = open.saturating_sub(table.ready(kind));
            let lacking = if table.of_kind(kind) + at_once <= ROOMY {
                at_once
            } else {
                open.saturating_sub(table.idle(kind))
            };
            (open, lacking as u32)
        };
        let (open_audio, audios) = waiting(MediaKind::Audio);
        let (open_video, videos) = waiting(MediaKind::Video);
        if !self.dirty && open_audio + open_video == 0 {
            return None;
        }
        let already = self
            .asked
            .filter(|(_, _, at)| now.saturating_duration_since(*at) < PATIENCE);
        let (had_audio, had_video) = already.map_or((0, 0), |(a, v, _)| (a, v));
        let need = Need {
            audios: audios.saturating_sub(had_audio),
            videos: videos.saturating_sub(had_video),
        };
        if already.is_some() && need == (Need { audios: 0, videos: 0 }) {
            return None;
        }
        self.asked = Some((had_audio + need.audios, had_video + need.videos, now));
        self.dirty = false;
        Some(need)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dtls::Identity;
    use super::super::leg::LegTransport;
    use super::super::sections::Slot;
    use super::*;
    use crate::forward::LegKey;
    use crate::net::Shard;

    fn client(now: Instant) -> Client {
        let identity = Identity::generate().unwrap();
        let transport = LegTransport::new(identity, Shard::default(), false, now).unwrap();
        let leg = PeerLeg::new(LegKey(0), transport, 1);
        Client::new(SessionId(1), Topology::Single, Vec::new(), leg, None, now)
    }

    fn want(c: &mut Client, sid: &str) {
        c.wishes.push(Wish {
            sid: TrackSid::from(sid),
            stream: String::new(),
            wanted: Some(Quality::High),
            fps: None,
            priority: 0,
            bound: false,
        });
    }

    fn audio(_: &TrackSid) -> Option<MediaKind> {
        Some(MediaKind::Audio)
    }

    #[test]
    fn sections_are_asked_for_once_until_patience_ends() {
        let now = Instant::now();
        let mut c = client(now);
        want(&mut c, "TR_a");
        assert_eq!(c.need(&audio, now), None, "the first offer is awaited");
        c.negotiated = true;
        assert_eq!(c.need(&audio, now), Some(Need { audios: 1, videos: 0 }));
        assert_eq!(c.need(&audio, now), None);
        want(&mut c, "TR_b");
        assert_eq!(
            c.need(&audio, now),
            Some(Need { audios: 1, videos: 0 }),
            "only the further one"
        );
        assert_eq!(
            c.need(&audio, now + PATIENCE),
            Some(Need { audios: 2, videos: 0 })
        );
    }

    #[test]
    fn a_released_section_is_not_waited_for_while_there_are_few() {
        let now = Instant::now();
        let mut c = client(now);
        c.negotiated = true;
        let released = || {
            let mut slot = Slot::new("0".to_owned(), Some(MediaKind::Audio));
            slot.receivable = true;
            slot.clean = false;
            slot
        };
        c.publisher.table.slots.push(released());
        want(&mut c, "TR_a");
        assert_eq!(c.need(&audio, now), Some(Need { audios: 1, videos: 0 }));
        c.offered();
        for _ in 1..ROOMY {
            c.publisher.table.slots.push(released());
        }
        assert_eq!(c.need(&audio, now), Some(Need { audios: 0, videos: 0 }));
    }

    #[test]
    fn a_free_section_needs_only_an_offer() {
        let now = Instant::now();
        let mut c = client(now);
        c.negotiated = true;
        assert_eq!(c.need(&audio, now), None);
        let mut slot = Slot::new("0".to_owned(), Some(MediaKind::Audio));
        slot.receivable = true;
        c.publisher.table.slots.push(slot);
        want(&mut c, "TR_a");
        assert_eq!(c.need(&audio, now), Some(Need { audios: 0, videos: 0 }));
        assert_eq!(c.need(&audio, now), None);
        c.offered();
        assert!(!c.releasing(now));
        assert_eq!(
            c.need(&|_| None, now),
            None,
            "a track that isn't live is no reason"
        );
        // One that was given up is told of a little later, unless there is a round before.
        c.release();
        assert!(c.releasing(now));
        assert_eq!(c.need(&|_| None, now), None);
        assert!(!c.releasing(now + RELEASE_DELAY));
        assert_eq!(c.need(&|_| None, now), Some(Need { audios: 0, videos: 0 }));
        c.release();
        c.offered();
        assert!(!c.releasing(now + RELEASE_DELAY));
        assert_eq!(c.need(&|_| None, now + RELEASE_DELAY), None);
    }
}
