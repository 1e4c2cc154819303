//! Subscriptions: who receives what, and how.
//!
//! Owns the decision and its execution. Invariant: `Subscription::active` and membership in
//! `Track::subscribers` say the same, and media was told so.

use std::sync::Arc;

use livekit_protocol as lk;

use super::layers::layer;
use super::limits;
use super::participant::{Audience, Presence, Subscription};
use super::state::Room;
use super::track::Track;
use super::vocabulary::{Notice, Outbox};
use crate::session::api::{Command, Quality, SessionId, Topology, TrackSid};

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
        let shared = track.is_shared_screen();

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
            if let Some(preference) = current.preference(session, sid, shared) {
                out.media(preference);
            }
            self.note(session, sid, |s| s.active = true);
            if let Some(track) = self.track_mut(publisher, sid) {
                track.subscribers.insert(session);
            }
            self.weigh(sid, out);
        } else {
            out.media(Command::Unsubscribe {
                session,
                sid: Arc::clone(sid),
            });
            self.note(session, sid, |s| (s.active, s.paused) = (false, false));
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
            self.restless.insert(Arc::clone(sid));
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
            after.fps = (settings.fps > 0).then_some(settings.fps);
            after.priority = settings.priority;
            let (was, is) = (layer(&before, track), layer(&after, track));
            let active = after.active;
            let shared = track.is_shared_screen();
            let (said, says) = (before.preferred(shared), after.preferred(shared));
            let preference = (said != says).then(|| Subscription::prefer(session, &sid, says));
            let Some(me) = self.participants.get_mut(&session) else {
                return;
            };
            if me.subscriptions.len() >= limits::SUBSCRIPTION_CHOICES && !me.subscriptions.contains_key(&sid)
            {
                continue;
            }
            me.subscriptions.insert(Arc::clone(&sid), after);
            if !active {
                continue;
            }
            if let Some(preference) = preference {
                out.media(preference);
            }
            if was != is {
                out.media(Command::SetLayer {
                    session,
                    sid: Arc::clone(&sid),
                    quality: is,
                });
                self.weigh(&sid, out);
            }
        }
    }

    /// The layers of a track have other sizes: subscribers who asked for a size may need another one.
    pub(super) fn choose_layers_again(&mut self, sid: &TrackSid, out: &mut Outbox) {
        let Some(track) = self
            .publishers
            .get(sid)
            .and_then(|publisher| self.participants.get(publisher)?.tracks.get(sid))
        else {
            return;
        };
        let choices: Vec<(SessionId, Option<Quality>)> = track
            .subscribers
            .iter()
            .filter_map(|session| {
                let subscription = self.participants.get(session)?.subscriptions.get(sid)?;
                subscription.dimensions?;
                Some((*session, layer(subscription, track)))
            })
            .collect();
        for (session, quality) in choices {
            out.media(Command::SetLayer {
                session,
                sid: Arc::clone(sid),
                quality,
            });
        }
        self.weigh(sid, out);
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

    /// The network lets a track through to `session` no more, or again.
    pub(super) fn stream_state(
        &mut self,
        session: SessionId,
        sid: &TrackSid,
        paused: bool,
        out: &mut Outbox,
    ) {
        let Some(publisher) = self
            .publishers
            .get(sid)
            .and_then(|publisher| self.participants.get(publisher))
            .map(|publisher| publisher.sid.shared())
        else {
            return;
        };
        let Some(subscription) = self
            .participants
            .get_mut(&session)
            .and_then(|me| me.subscriptions.get_mut(sid))
            .filter(|s| s.active && s.paused != paused)
        else {
            return;
        };
        subscription.paused = paused;
        let sid = Arc::clone(sid);
        out.tell(
            session,
            Notice::StreamState {
                publisher,
                sid,
                paused,
            },
        );
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

    /// Asks media for key frames of everything `session` receives: after a break its decoders wait.
    pub(super) fn refresh_pictures(&self, session: SessionId, out: &mut Outbox) {
        let Some(me) = self.participants.get(&session) else {
            return;
        };
        for (sid, subscription) in &me.subscriptions {
            if subscription.active {
                out.media(Command::KeyFrame {
                    session,
                    sid: Arc::clone(sid),
                });
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
