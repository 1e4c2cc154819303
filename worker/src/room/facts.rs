//! What rooms know of streams, for judging how well they flow.
//!
//! Owns nothing: it reads tracks and subscriptions. Invariant: a layer that was never announced is never
//! expected.

use livekit_protocol as lk;

use super::hall::Hall;
use super::layers::layer;
use super::state::Room;
use super::track::Track;
use crate::quality::tracker::{Facts, Published};
use crate::session::api::{Quality, SessionId};

impl Track {
    /// The highest announced layer.
    fn top(&self) -> Quality {
        let highest = self.layers().iter().map(|l| l.quality).max();
        match highest.map(lk::VideoQuality::try_from) {
            Some(Ok(lk::VideoQuality::Low)) => Quality::Low,
            Some(Ok(lk::VideoQuality::Medium)) => Quality::Medium,
            _ => Quality::High,
        }
    }

    /// Bits a second announced for `wanted` and the layers below it.
    fn announced_bitrate(&self, wanted: Quality) -> Option<u64> {
        let number = wanted as i32;
        let layers = self.layers().iter().filter(|l| l.quality <= number);
        let sum: u64 = layers.map(|l| u64::from(l.bitrate)).sum();
        (sum > 0).then_some(sum)
    }
}

impl Room {
    fn live_track(&self, sid: &str) -> Option<&Track> {
        let publisher = self.participants.get(self.publishers.get(sid)?)?;
        publisher.tracks.get(sid).filter(|t| t.live)
    }
}

impl Hall {
    fn with_room_of(&self, session: SessionId) -> Option<&Room> {
        self.sessions.get(&session).and_then(|name| self.rooms.get(name))
    }
}

impl Facts for Hall {
    fn published(&self, session: SessionId, sid: &str) -> Option<Published> {
        let track = self.with_room_of(session)?.live_track(sid)?;
        let wanted = track.told().min(Some(track.top()));
        Some(Published {
            camera: track.info.source == lk::TrackSource::Camera as i32,
            muted: track.info.muted,
            wanted,
            bitrate: wanted.and_then(|wanted| track.announced_bitrate(wanted)),
        })
    }

    fn asked(&self, session: SessionId, sid: &str) -> Option<Quality> {
        let room = self.with_room_of(session)?;
        let track = room.live_track(sid)?;
        let subscription = room.participants.get(&session)?.subscriptions.get(sid)?;
        layer(subscription, track)
            .filter(|_| subscription.active)
            .map(|asked| asked.min(track.top()))
    }
}
