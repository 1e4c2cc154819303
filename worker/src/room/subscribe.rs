//! Subscriptions: who receives what, in which layer, and which layers nobody wants.
//!
//! Owns the decision and its execution. Invariant: `Subscription::active` and membership in
//! `Track::subscribers` say the same, and media was told so.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;

use super::ids::Now;
use super::limits;
use super::participant::{Audience, Presence, Subscription};
use super::state::Room;
use super::track::Track;
use super::vocabulary::{Notice, Outbox};
use crate::session::api::{Command, MediaKind, Quality, SessionId, Topology, TrackSid};

/// A layer is given up this long after the last one who wanted it: people toggle views.
const LOWER_AFTER: Duration = Duration::from_secs(5);

/// What a subscription's settings mean for this track. `None` pauses.
fn layer(subscription: &Subscription, track: &Track) -> Option<Quality> {
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

impl Room {
    /// Everything that is live, for a newcomer.
    pub(super) fn subscribe_to_all(&mut self, session: SessionId, out: &mut Outbox) {
        let sids: Vec<TrackSid> = self.publishers.keys().map(Arc::clone).collect();
        for sid in sids {
            self.settle(session, &sid, out);
        }
    }

    /// A new track, for everyone.
    pub(super) fn subscribe_all_to(&mut self, sid: &TrackSid, out: &mut Outbox) {
        let sessions: Vec<SessionId> = self.participants.keys().copied().collect();
        for session in sessions {
            self.settle(session, sid, out);
        }
    }

    /// Brings one subscription in line with wishes and rights.
    pub(super) fn settle(&mut self, session: SessionId, sid: &TrackSid, out: &mut Outbox) {
        let Some(publisher) = self.publishers.get(sid).copied().filter(|p| *p != session) else {
            return;
        };
        let (Some(from), Some(to)) = (self.participants.get(&publisher), self.participants.get(&session))
        else {
            return;
        };
        let Some(track) = from.tracks.get(sid).filter(|t| t.live) else {
            return;
        };
        let current = to.subscriptions.get(sid).cloned().unwrap_or_default();
        let wants = current.wanted.unwrap_or(to.auto_subscribe) && to.grant.subscribe && !from.grant.hidden;
        let allowed = from.audience.allows(to, sid);
        let publisher_sid = from.sid.shared();
        let quality = layer(&current, track);

        if wants && !allowed && !current.denied {
            self.note(session, sid, |s| s.denied = true);
            out.tell(
                session,
                Notice::Allowed {
                    publisher: Arc::clone(&publisher_sid),
                    sid: Arc::clone(sid),
                    allowed: false,
                },
            );
        } else if allowed && current.denied {
            self.note(session, sid, |s| s.denied = false);
            out.tell(
                session,
                Notice::Allowed {
                    publisher: Arc::clone(&publisher_sid),
                    sid: Arc::clone(sid),
                    allowed: true,
                },
            );
        }
        if (wants && allowed) == current.active {
            return;
        }
        if wants && allowed {
            out.media(Command::Subscribe {
                session,
                sid: Arc::clone(sid),
                publisher_sid,
            });
            if quality != Some(Quality::High) {
                out.media(Command::SetLayer {
                    session,
                    sid: Arc::clone(sid),
                    quality,
                });
            }
            self.note(session, sid, |s| s.active = true);
            if let Some(track) = self.track_mut(publisher, sid) {
                track.subscribers.insert(session);
            }
        } else {
            out.media(Command::Unsubscribe {
                session,
                sid: Arc::clone(sid),
            });
            self.note(session, sid, |s| s.active = false);
            self.forget_subscriber(sid, session);
        }
    }

    pub(super) fn tracks_of(&self, session: SessionId) -> Vec<TrackSid> {
        self.participants
            .get(&session)
            .map(|p| p.tracks.keys().map(Arc::clone).collect())
            .unwrap_or_default()
    }

    fn note(&mut self, session: SessionId, sid: &TrackSid, change: impl FnOnce(&mut Subscription)) {
        if let Some(participant) = self.participants.get_mut(&session) {
            change(participant.subscriptions.entry(Arc::clone(sid)).or_default());
        }
    }

    pub(super) fn track_mut(&mut self, publisher: SessionId, sid: &str) -> Option<&mut Track> {
        self.participants.get_mut(&publisher)?.tracks.get_mut(sid)
    }

    pub(super) fn forget_subscriber(&mut self, sid: &TrackSid, session: SessionId) {
        if let Some(publisher) = self.publishers.get(sid).copied()
            && let Some(track) = self.track_mut(publisher, sid)
        {
            track.subscribers.remove(&session);
        }
    }

    /// UpdateSubscription. `sids` may name tracks that are not here yet.
    pub(super) fn choose(&mut self, session: SessionId, sids: &[TrackSid], on: bool, out: &mut Outbox) {
        for sid in sids {
            let known = self.publishers.contains_key(sid);
            let Some(me) = self.participants.get_mut(&session) else {
                return;
            };
            if !known {
                // A track that just ended: the client will learn of it from the participant.
                if on {
                    out.tell(session, Notice::SubscriptionFailed { sid: Arc::clone(sid) });
                }
                continue;
            }
            if me.subscriptions.len() >= limits::SUBSCRIPTION_CHOICES && !me.subscriptions.contains_key(sid) {
                continue;
            }
            me.subscriptions.entry(Arc::clone(sid)).or_default().wanted = Some(on);
            self.settle(session, sid, out);
        }
    }

    /// UpdateTrackSettings.
    pub(super) fn track_settings(
        &mut self,
        session: SessionId,
        settings: &lk::UpdateTrackSettings,
        out: &mut Outbox,
    ) {
        for sid in &settings.track_sids {
            let Some((sid, publisher)) = self.publishers.get_key_value(sid.as_str()) else {
                continue;
            };
            let (sid, publisher) = (Arc::clone(sid), *publisher);
            let Some(me) = self.participants.get(&session) else {
                return;
            };
            let Some(track) = self.participants.get(&publisher).and_then(|p| p.tracks.get(&sid)) else {
                continue;
            };
            let before = me.subscriptions.get(&sid).cloned().unwrap_or_default();
            let mut after = before.clone();
            after.disabled = settings.disabled;
            after.dimensions =
                (settings.width > 0 && settings.height > 0).then_some((settings.width, settings.height));
            after.quality = Some(settings.quality);
            let (was, is) = (layer(&before, track), layer(&after, track));
            let active = after.active;
            if let Some(me) = self.participants.get_mut(&session)
                && (me.subscriptions.len() < limits::SUBSCRIPTION_CHOICES
                    || me.subscriptions.contains_key(&sid))
            {
                me.subscriptions.insert(Arc::clone(&sid), after);
            }
            if was != is && active {
                out.media(Command::SetLayer {
                    session,
                    sid,
                    quality: is,
                });
            }
        }
    }

    /// SubscriptionPermission: who may receive this publisher's tracks.
    pub(super) fn set_audience(
        &mut self,
        session: SessionId,
        audience: lk::SubscriptionPermission,
        out: &mut Outbox,
    ) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        me.audience = Audience {
            everyone: audience.all_participants,
            permissions: audience.track_permissions,
        };
        let sids: Vec<TrackSid> = me.tracks.keys().map(Arc::clone).collect();
        for sid in sids {
            self.subscribe_all_to(&sid, out);
        }
    }

    /// Packets flow: the publisher is told once that somebody receives its track.
    pub(super) fn bound(&mut self, sid: &TrackSid, out: &mut Outbox) {
        let Some(publisher) = self.publishers.get(sid).copied() else {
            return;
        };
        let Some(track) = self.track_mut(publisher, sid) else {
            return;
        };
        if !std::mem::replace(&mut track.announced_subscribed, true) {
            out.tell(publisher, Notice::TrackSubscribed { sid: Arc::clone(sid) });
        }
    }

    /// Which layers of video are wanted by anybody; publishers stop sending the rest.
    pub(super) fn wanted_layers(&mut self, now: Now, out: &mut Outbox) {
        let mut updates: Vec<(SessionId, TrackSid, Option<Quality>)> = Vec::new();
        for (session, publisher) in &self.participants {
            for track in publisher
                .tracks
                .values()
                .filter(|t| t.live && t.kind == MediaKind::Video)
            {
                let highest = track
                    .subscribers
                    .iter()
                    .filter_map(|s| self.participants.get(s)?.subscriptions.get(&track.sid))
                    .filter_map(|s| layer(s, track))
                    .max();
                updates.push((*session, Arc::clone(&track.sid), highest));
            }
        }
        for (session, sid, highest) in updates {
            let Some(track) = self.track_mut(session, &sid) else {
                continue;
            };
            // A new track sends everything: that is what it was told, as it were.
            let told = track.told_highest.unwrap_or(Some(Quality::High));
            if highest == told {
                track.lower_since = None;
                continue;
            }
            if highest < told {
                let since = *track.lower_since.get_or_insert(now.since_start);
                if now.since(since) < LOWER_AFTER {
                    continue;
                }
            }
            track.lower_since = None;
            track.told_highest = Some(highest);
            let codecs = track.codec_names();
            out.tell(session, Notice::WantedLayers { sid, codecs, highest });
        }
    }

    /// Asks media for key frames of everything `session` receives: after a break its decoders wait.
    pub(super) fn refresh_pictures(&self, session: SessionId, out: &mut Outbox) {
        let Some(me) = self.participants.get(&session) else {
            return;
        };
        for (sid, subscription) in &me.subscriptions {
            if subscription.active {
                out.media(Command::KeyFrame { sid: Arc::clone(sid) });
            }
        }
    }

    /// After a resume a client may be elsewhere in the network. With one connection its own offer
    /// restarts ICE; of two, the subscriber's is ours to restart.
    pub(super) fn restart_subscriber(&self, session: SessionId, out: &mut Outbox) {
        let dual = self
            .participants
            .get(&session)
            .is_some_and(|p| p.topology == Topology::Dual);
        if dual
            && self
                .participants
                .get(&session)
                .is_some_and(|p| p.presence == Presence::Here)
        {
            out.media(Command::RestartIce { session });
        }
    }
}
