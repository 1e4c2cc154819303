//! Which layers of a video track are wanted: by one subscriber, and by anybody.
//!
//! Owns what a subscriber's settings mean for a track, and what publishers are told to send. Rules: the
//! wish of a track is the highest layer that any subscriber asks for (what the network lets through at
//! the moment does not count: a layer that was switched off at its source could never be tried again);
//! more is told at once, less once it was so for [`LOWER_AFTER`]; layers under the highest wanted one are
//! sent too, since they are what a subscriber falls back to; a codec that nobody can be given is not
//! sent. Invariants: only tracks whose wish may differ from what was told are looked at as time passes;
//! a publisher is told only what is new to it.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;

use super::ids::Now;
use super::participant::Subscription;
use super::state::Room;
use super::track::Track;
use super::vocabulary::{Notice, Outbox, WantedCodec};
use crate::session::api::{MediaKind, Quality, SessionId, TrackSid};

/// A layer is given up this long after the last one who wanted it: people toggle views.
const LOWER_AFTER: Duration = Duration::from_secs(5);

/// What a subscription's settings mean for this track. `None` pauses.
pub(super) fn layer(subscription: &Subscription, track: &Track) -> Option<Quality> {
    if subscription.disabled {
        return None;
    }
    if let Some((width, height)) = subscription.dimensions {
        return Some(track.layer_for(width, height));
    }
    match subscription.quality.map(lk::VideoQuality::try_from) {
        Some(Ok(lk::VideoQuality::Low)) => Some(Quality::Low),
        Some(Ok(lk::VideoQuality::Medium)) => Some(Quality::Medium),
        Some(Ok(lk::VideoQuality::Off)) => None,
        _ => Some(Quality::High),
    }
}

impl Track {
    /// What its publisher sends as far as it was told; a new track sends everything.
    pub(super) fn told(&self) -> Option<Quality> {
        self.told_highest.unwrap_or(Some(Quality::High))
    }

    /// Every announced codec with what is wanted of it. Only the first one is forwarded.
    fn wanted_codecs(&self, highest: Option<Quality>) -> Vec<WantedCodec> {
        self.codec_names()
            .into_iter()
            .enumerate()
            .map(|(index, name)| WantedCodec {
                name,
                highest: highest.filter(|_| index == 0),
            })
            .collect()
    }
}

impl Room {
    /// The highest layer of a live video track that anybody asks for; `None`: there is no such track.
    fn wish(&self, publisher: SessionId, sid: &TrackSid) -> Option<Option<Quality>> {
        let track = self.participants.get(&publisher)?.tracks.get(sid)?;
        if !track.live || track.kind != MediaKind::Video {
            return None;
        }
        let wishes = track
            .subscribers
            .iter()
            .filter_map(|s| self.participants.get(s)?.subscriptions.get(sid))
            .filter_map(|s| layer(s, track));
        Some(wishes.max())
    }

    /// The wish for a track may have changed: more is told at once.
    pub(super) fn weigh(&mut self, sid: &TrackSid, out: &mut Outbox) {
        self.restless.insert(Arc::clone(sid));
        let Some(publisher) = self.publishers.get(sid).copied() else {
            return;
        };
        if let Some(highest) = self.wish(publisher, sid)
            && let Some(track) = self.track_mut(publisher, sid)
            && highest > track.told()
        {
            Self::tell_wish(publisher, track, highest, out);
        }
    }

    /// Tells publishers what is wanted of their tracks.
    pub(super) fn wanted_layers(&mut self, now: Now, out: &mut Outbox) {
        for sid in std::mem::take(&mut self.restless) {
            let Some(publisher) = self.publishers.get(&sid).copied() else {
                continue;
            };
            // Not live yet: looked at again once it is.
            let Some(highest) = self.wish(publisher, &sid) else {
                continue;
            };
            let Some(track) = self.track_mut(publisher, &sid) else {
                continue;
            };
            let told = track.told();
            if highest == told {
                track.lower_since = None;
                continue;
            }
            if highest < told {
                let since = *track.lower_since.get_or_insert(now.since_start);
                if now.since(since) < LOWER_AFTER {
                    self.restless.insert(sid);
                    continue;
                }
            }
            Self::tell_wish(publisher, track, highest, out);
        }
    }

    fn tell_wish(publisher: SessionId, track: &mut Track, highest: Option<Quality>, out: &mut Outbox) {
        track.lower_since = None;
        track.told_highest = Some(highest);
        out.tell(
            publisher,
            Notice::WantedLayers {
                sid: Arc::clone(&track.sid),
                codecs: track.wanted_codecs(highest),
                highest,
            },
        );
    }
}
