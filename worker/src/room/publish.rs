//! Publishing: announcements, live tracks, muting.
//!
//! Owns a track's way from AddTrack to its end. Invariant: others hear of a track only once media
//! has it, and no more once it is gone; a censored track is unmuted by a moderator only.

use std::sync::Arc;

use livekit_protocol as lk;
use livekit_protocol::request_response::{Reason, Request};
use plenum_errors::Code;

use super::encryption::refusal;
use super::limits;
use super::spec::Publishing;
use super::state::Room;
use super::track::{Track, TrackError};
use super::vocabulary::{Notice, Outbox, RequestFailure};
use crate::session::api::{Command, ExpectedTrack, MediaKind, SessionId, TrackSid};

pub(super) fn expected(track: &Track, cid: &str, wanted: &Publishing) -> ExpectedTrack {
    ExpectedTrack {
        cid: cid.to_owned(),
        sid: Arc::clone(&track.sid),
        kind: track.kind,
        codec: track.codec_of(cid),
        simulcast: wanted.simulcast,
        max_bitrate: wanted.max_bitrate,
        audio: track.audio(wanted),
    }
}

impl Room {
    /// AddTrack.
    pub(super) fn add_track(&mut self, session: SessionId, request: &lk::AddTrackRequest, out: &mut Outbox) {
        if let Err((reason, message)) = self.try_add_track(session, request, out) {
            out.tell(
                session,
                Notice::Request(Box::new(RequestFailure {
                    request_id: 0,
                    reason,
                    message,
                    request: Some(Request::AddTrack(request.clone())),
                })),
            );
        }
    }

    fn try_add_track(
        &mut self,
        session: SessionId,
        request: &lk::AddTrackRequest,
        out: &mut Outbox,
    ) -> Result<(), (Reason, String)> {
        let invalid = |e: TrackError| (Reason::InvalidRequest, e.to_string());
        let total = self.publishers.len();
        let encryption = self.check_encryption(request.encryption);
        let Some(me) = self.participants.get_mut(&session) else {
            return Ok(());
        };
        if !me.grant.may_publish(request.source) {
            return Err((Reason::NotAllowed, "the grant does not allow this source".into()));
        }
        encryption?;
        if !request.sid.is_empty() {
            let Some(track) = me.tracks.get_mut(request.sid.as_str()) else {
                return Err((Reason::NotFound, "no such track".into()));
            };
            for cid in track.add_codec(request).map_err(invalid)? {
                out.media(Command::ExpectTrack {
                    session,
                    track: expected(track, &cid, &self.spec.publishing),
                });
            }
            let info = Box::new(track.info.clone());
            out.tell(
                session,
                Notice::TrackPublished {
                    cid: request.cid.clone(),
                    track: info,
                },
            );
            return Ok(());
        }
        // Asked again for what is not there yet: the same answer.
        if let Some(track) = me
            .tracks
            .values()
            .find(|t| !t.live && t.cids.contains(&request.cid))
        {
            let info = Box::new(track.info.clone());
            out.tell(
                session,
                Notice::TrackPublished {
                    cid: request.cid.clone(),
                    track: info,
                },
            );
            return Ok(());
        }
        if me.tracks.len() >= limits::TRACKS_PER_PARTICIPANT || total >= limits::TRACKS_PER_ROOM {
            return Err(refusal(Reason::LimitExceeded, Code::TrackLimit));
        }
        let prefix = if request.r#type == lk::TrackType::Audio as i32 {
            "TR_A"
        } else {
            "TR_V"
        };
        // Kind and source in the id, as operators of LiveKit know it from logs.
        let sid = self.sids.sid(prefix);
        let sid: TrackSid = sid.replacen(&format!("{prefix}_"), prefix, 1).into();
        let track = Track::announced(Arc::clone(&sid), request).map_err(invalid)?;
        if !track.info.codecs.is_empty() {
            let names = track.codec_names();
            if !names.is_empty() && !names.iter().any(|n| self.spec.allows_codec(n)) {
                return Err(refusal(Reason::NotAllowed, Code::CodecNotAllowed));
            }
        }
        for cid in &track.cids {
            out.media(Command::ExpectTrack {
                session,
                track: expected(&track, cid, &self.spec.publishing),
            });
        }
        if track.info.muted {
            out.media(Command::Mute {
                session,
                sid: Arc::clone(&sid),
                muted: true,
            });
        }
        let info = Box::new(track.info.clone());
        out.tell(
            session,
            Notice::TrackPublished {
                cid: request.cid.clone(),
                track: info,
            },
        );
        me.tracks.insert(Arc::clone(&sid), track);
        self.publishers.insert(sid, session);
        Ok(())
    }

    /// Media has bound the track.
    pub(super) fn track_live(
        &mut self,
        session: SessionId,
        sid: &TrackSid,
        mid: String,
        mime_type: String,
        simulcast: bool,
        out: &mut Outbox,
    ) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        let Some(track) = me.tracks.get_mut(sid) else {
            return;
        };
        track.set_live(mid, mime_type, simulcast);
        // Perhaps nobody wants it.
        self.restless.insert(Arc::clone(sid));
        me.changed();
        self.room_changed = true;
        self.announce(session, out);
        self.subscribe_all_to(sid, out);
    }

    /// The client stopped publishing it, or must.
    pub(super) fn drop_track(&mut self, session: SessionId, sid: &TrackSid, by_us: bool, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        let Some(track) = me.tracks.remove(sid) else {
            return;
        };
        me.changed();
        let speaker = me.sid.shared();
        self.publishers.remove(sid);
        for other in self.participants.values_mut() {
            other.subscriptions.remove(sid);
        }
        out.media(Command::RemoveTrack {
            session,
            sid: Arc::clone(sid),
        });
        if by_us {
            out.tell(session, Notice::TrackUnpublished { sid: Arc::clone(sid) });
        }
        if track.live {
            self.announce(session, out);
        }
        if track.kind == MediaKind::Audio
            && let Some(stopped) = self.speakers.forget(&speaker)
        {
            let to = self.participants.keys().copied().collect();
            out.tell_all(to, Notice::Speakers(vec![stopped]));
        }
        self.room_changed = true;
    }

    /// The client mutes or unmutes its own track.
    pub(super) fn mute_own(&mut self, session: SessionId, sid: &TrackSid, muted: bool, out: &mut Outbox) {
        let Some(track) = self
            .participants
            .get_mut(&session)
            .and_then(|me| me.tracks.get_mut(sid))
        else {
            return;
        };
        if track.censored && !muted {
            // The client thinks it is unmuted: put that right.
            out.tell(
                session,
                Notice::Muted {
                    sid: Arc::clone(sid),
                    muted: true,
                },
            );
            return;
        }
        self.set_muted(session, sid, muted, out);
    }

    /// Muted by whomever: media, the others.
    pub(super) fn set_muted(&mut self, session: SessionId, sid: &TrackSid, muted: bool, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        let Some(track) = me.tracks.get_mut(sid) else {
            return;
        };
        if track.info.muted == muted {
            return;
        }
        track.info.muted = muted;
        let live = track.live;
        me.changed();
        out.media(Command::Mute {
            session,
            sid: Arc::clone(sid),
            muted,
        });
        if live {
            self.announce(session, out);
        }
    }

    pub(super) fn audio_features(
        &mut self,
        session: SessionId,
        update: lk::UpdateLocalAudioTrack,
        out: &mut Outbox,
    ) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        let Some(track) = me.tracks.get_mut(update.track_sid.as_str()) else {
            return;
        };
        if update.features.len() > 32 || track.info.audio_features == update.features {
            return;
        }
        #[allow(deprecated, reason = "older clients still read and send the old fields")]
        {
            track.info.stereo = update
                .features
                .contains(&(lk::AudioTrackFeature::TfStereo as i32));
        }
        track.info.audio_features = update.features;
        me.changed();
        self.announce(session, out);
    }

    pub(super) fn video_dimensions(
        &mut self,
        session: SessionId,
        update: &lk::UpdateLocalVideoTrack,
        out: &mut Outbox,
    ) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        let Some(track) = me.tracks.get_mut(update.track_sid.as_str()) else {
            return;
        };
        if (track.info.width, track.info.height) == (update.width, update.height) {
            return;
        }
        track.resize(update.width, update.height);
        let sid = Arc::clone(&track.sid);
        me.changed();
        self.announce(session, out);
        self.choose_layers_again(&sid, out);
    }
}
