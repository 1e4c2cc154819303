//! What happens by the passing of time, and what was put off to be told once.
//!
//! Owns the room's timers and the coalescing of room updates and connection qualities. Invariant:
//! calling [`Room::tick`] more often changes nothing but the promptness.

use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::leave_request::Action as LeaveAction;
use plenum_errors::Code;

use super::ids::Now;
use super::limits;
use super::participant::Presence;
use super::spec::EndReason;
use super::state::Room;
use super::vocabulary::{Goodbye, Notice, Outbox};
use crate::session::api::{AudioLevel, SessionId};

/// Counts change with every join: clients are told at most this often.
const ROOM_UPDATE_EVERY: Duration = Duration::from_secs(1);

impl Room {
    /// Time has passed.
    pub(super) fn tick(&mut self, now: Now, out: &mut Outbox) {
        self.remove_the_lost(now, out);
        self.announce_newcomers(now, out);
        self.reserved.expire(now);
        let speaking = self.speakers.changes(now);
        if !speaking.is_empty() {
            let to = self.participants.keys().copied().collect();
            out.tell_all(to, Notice::Speakers(speaking));
        }
        self.wanted_layers(now, out);
        self.reliable.forget_old(now);
        if let (Some(most), Some(since)) = (self.spec.max_duration, self.active_since)
            && now.since(since) >= most
        {
            self.over = true;
            // People of a breakout room go elsewhere: see `Hall::tick`.
            if !self.spec.name.is_breakout() {
                self.end(EndReason::Expired, now, out);
            }
        }
        self.end_when_empty(now);
        if self.room_changed && now.since(self.room_told) >= ROOM_UPDATE_EVERY {
            self.room_changed = false;
            self.room_told = now.since_start;
            let to = self.participants.keys().copied().collect();
            out.tell_all(to, Notice::Room(self.info()));
        }
    }

    fn remove_the_lost(&mut self, now: Now, out: &mut Outbox) {
        let stuck: Vec<SessionId> = self
            .participants
            .values()
            .filter(|p| p.presence == Presence::Here)
            .filter(|p| {
                p.media_closed
                    .is_some_and(|at| now.since(at) >= limits::REJOIN_GRACE)
            })
            .map(|p| p.session)
            .collect();
        for session in stuck {
            self.send_to_reconnect(session, now, out);
        }
        let lost: Vec<SessionId> = self
            .participants
            .values()
            .filter(|p| {
                let grace = match (p.media_closed, p.media_lost) {
                    (Some(_), _) => Duration::ZERO,
                    // Nobody has to speak for it.
                    (None, false) if p.offers_once && p.connected => return false,
                    (None, true) => limits::REJOIN_GRACE,
                    (None, false) => limits::RESUME_GRACE,
                };
                matches!(p.presence, Presence::Away { since } if now.since(since) >= grace)
            })
            .map(|p| p.session)
            .collect();
        for session in lost {
            let goodbye = Goodbye {
                reason: lk::DisconnectReason::SignalClose,
                action: LeaveAction::Disconnect,
            };
            self.dismiss(
                session,
                Some(goodbye),
                Some(Code::ConnectionTimeout),
                "",
                now,
                out,
            );
        }
    }

    fn end_when_empty(&mut self, now: Now) {
        if !self.participants.is_empty() || !self.reserved.is_empty() || self.standing.ended_at_ms != 0 {
            return;
        }
        let limit = if self.active_since.is_some() {
            self.spec.departure_timeout
        } else {
            self.spec.empty_timeout
        };
        if limit.is_some_and(|limit| now.since(self.empty_since) >= limit) {
            self.session_over(now);
        }
    }

    /// Audio levels of this room's tracks.
    pub(super) fn levels(&mut self, levels: &[AudioLevel]) {
        for level in levels {
            let Some(publisher) = self.participants.get(&level.session) else {
                continue;
            };
            let audible = publisher
                .tracks
                .get(&level.sid)
                // What a shared screen plays is nobody's voice.
                .is_some_and(|t| {
                    t.live && !t.info.muted && t.info.source != lk::TrackSource::ScreenShareAudio as i32
                });
            if audible && !publisher.grant.hidden {
                self.speakers
                    .report(&publisher.sid.shared(), level.level_dbov, level.active_ratio);
            }
        }
    }

    /// The measured quality of one participant's connection.
    pub(super) fn measured(&mut self, session: SessionId, quality: lk::ConnectionQuality, score: f32) {
        if let Some(participant) = self.participants.get_mut(&session) {
            participant.quality = Some((quality, score));
        }
    }

    /// After all were measured: tell what changed, and newcomers everything.
    pub(super) fn tell_qualities(&mut self, out: &mut Outbox) {
        let info = |p: &super::participant::Participant| {
            let (quality, score) = p.quality?;
            (!p.grant.hidden).then(|| lk::ConnectionQualityInfo {
                participant_sid: p.sid.to_string(),
                quality: quality as i32,
                score,
            })
        };
        let all: Vec<lk::ConnectionQualityInfo> = self.participants.values().filter_map(info).collect();
        let changed: Vec<lk::ConnectionQualityInfo> = self
            .participants
            .values()
            .filter(|p| p.quality.map(|(q, _)| q) != p.quality_told)
            .filter_map(info)
            .collect();
        let (old, new): (Vec<_>, Vec<_>) = self.participants.values().partition(|p| p.knows_qualities);
        let sessions = |who: Vec<&super::participant::Participant>| who.iter().map(|p| p.session).collect();
        let (old, new): (Vec<SessionId>, Vec<SessionId>) = (sessions(old), sessions(new));
        if !changed.is_empty() {
            out.tell_all(old, Notice::Quality(changed));
        }
        if !all.is_empty() {
            out.tell_all(new, Notice::Quality(all));
        }
        for participant in self.participants.values_mut() {
            participant.quality_told = participant.quality.map(|(q, _)| q);
            participant.knows_qualities = true;
        }
    }
}
