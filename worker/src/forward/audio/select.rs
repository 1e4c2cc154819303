//! Who is heard where many could speak.
//!
//! Owns the choice for one subscriber: of the microphones it is subscribed to, the [`Policy::speakers`]
//! loudest take a place each, and only they are forwarded. A place is taken at once, with the first
//! audible packet, while one is free or its holder has been quieter in kind for [`HOLD`]; between equals
//! it changes hands only when the newcomer was louder by [`MARGIN`] for [`CHALLENGE`]. Who falls silent
//! keeps the place until somebody takes it. Invariants: no more tracks than places pass at a time; below
//! the policy's size everything passes; a packet costs no allocation.

use std::time::{Duration, Instant};

use crate::forward::TrackKey;

/// At or under this somebody speaks, in -dBov (as [`crate::forward::levels`]).
const SPEECH: u8 = 35;
/// At or under this there is something to hear.
const AUDIBLE: u8 = 55;
/// A speaker that pauses keeps the place against its equals for so long.
const HOLD: Duration = Duration::from_secs(1);
/// So long a newcomer has to be louder.
const CHALLENGE: Duration = Duration::from_millis(400);
/// A pause that ends a challenge.
const CHALLENGE_GAP: Duration = Duration::from_millis(120);
/// How much louder, in sixteenths of a decibel.
const MARGIN: i32 = 3 * 16;
/// The choice ends this many tracks below where it begins.
const SLACK: usize = 2;

/// When a choice is made, and among how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeakerPolicy {
    /// Places; 0 = everything is always forwarded.
    pub speakers: usize,
    /// Unmuted microphones of others from which on a choice is made.
    pub from: usize,
}

impl Default for SpeakerPolicy {
    fn default() -> Self {
        Self {
            speakers: 3,
            from: 10,
        }
    }
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Silence,
    Sound,
    Speech,
}

/// A packet's kind, and how loud its track is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Voice {
    pub(crate) kind: Kind,
    /// Smoothed, in sixteenths of -dBov: less is louder.
    level: i32,
}

/// A track's loudness: quick to rise, slow to fall, as ears are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loudness {
    level: i32,
}

impl Default for Loudness {
    fn default() -> Self {
        Loudness { level: 127 * 16 }
    }
}

impl Loudness {
    /// The level extension's first byte (RFC 6464): voice bit and -dBov.
    pub(crate) fn note(&mut self, value: u8) -> Voice {
        let dbov = value & 0x7F;
        let now = i32::from(dbov) * 16;
        self.level += if now < self.level {
            (now - self.level) / 4
        } else {
            (now - self.level) / 16
        };
        let kind = if dbov <= SPEECH {
            Kind::Speech
        } else if dbov <= AUDIBLE {
            Kind::Sound
        } else {
            Kind::Silence
        };
        Voice {
            kind,
            level: self.level,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    track: TrackKey,
    level: i32,
    spoke: Option<Instant>,
    heard: Option<Instant>,
}

impl Place {
    fn new(track: TrackKey, voice: Voice, now: Instant) -> Self {
        let mut place = Place {
            track,
            level: voice.level,
            spoke: None,
            heard: None,
        };
        place.note(voice, now);
        place
    }

    fn note(&mut self, voice: Voice, now: Instant) {
        self.level = voice.level;
        if voice.kind >= Kind::Sound {
            self.heard = Some(now);
        }
        if voice.kind == Kind::Speech {
            self.spoke = Some(now);
        }
    }

    fn kind(&self, now: Instant) -> Kind {
        let recent = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < HOLD);
        if recent(self.spoke) {
            Kind::Speech
        } else if recent(self.heard) {
            Kind::Sound
        } else {
            Kind::Silence
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Challenge {
    track: TrackKey,
    level: i32,
    since: Instant,
    last: Instant,
}

/// One subscriber's choice.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    /// 0: no choice is made.
    speakers: usize,
    places: Vec<Place>,
    challenge: Option<Challenge>,
}

impl Stage {
    /// `competing` microphones are unmuted and subscribed to. Called now and then.
    pub(crate) fn resize(&mut self, competing: usize, policy: SpeakerPolicy) {
        let from = policy.from.max(policy.speakers + 1);
        let from = if self.chooses() {
            from.saturating_sub(SLACK).max(policy.speakers + 1)
        } else {
            from
        };
        self.speakers = if competing >= from { policy.speakers } else { 0 };
        if self.chooses() {
            self.places.truncate(self.speakers);
            self.places
                .reserve(self.speakers.saturating_sub(self.places.len()));
        } else {
            self.places = Vec::new();
            self.challenge = None;
        }
    }

    /// Not everything passes.
    pub(crate) fn chooses(&self) -> bool {
        self.speakers > 0
    }

    /// Whether this packet is forwarded.
    pub(crate) fn admit(&mut self, track: TrackKey, voice: Voice, now: Instant) -> bool {
        if !self.chooses() {
            return true;
        }
        if let Some(place) = self.places.iter_mut().find(|p| p.track == track) {
            place.note(voice, now);
            return true;
        }
        if voice.kind == Kind::Silence {
            return false;
        }
        if self.places.len() < self.speakers {
            self.places.push(Place::new(track, voice, now));
            return true;
        }
        let weakest = self
            .places
            .iter_mut()
            .min_by_key(|p| (p.kind(now), std::cmp::Reverse(p.level)));
        let Some(weakest) = weakest else { return false };
        let holds = weakest.kind(now);
        let louder = voice.kind == holds && voice.level + MARGIN <= weakest.level;
        if voice.kind > holds || (louder && Self::wins(&mut self.challenge, track, voice, now)) {
            *weakest = Place::new(track, voice, now);
            self.challenge = None;
            return true;
        }
        false
    }

    /// Notes that `track` is louder than the weakest, and says whether it has been for long enough.
    fn wins(current: &mut Option<Challenge>, track: TrackKey, voice: Voice, now: Instant) -> bool {
        let alive = current.filter(|c| now.saturating_duration_since(c.last) <= CHALLENGE_GAP);
        let since = match alive {
            Some(c) if c.track == track => c.since,
            // One at a time, and the louder of two.
            Some(c) if c.level <= voice.level + MARGIN => return false,
            _ => now,
        };
        *current = Some(Challenge {
            track,
            level: voice.level,
            since,
            last: now,
        });
        now.saturating_duration_since(since) >= CHALLENGE
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
