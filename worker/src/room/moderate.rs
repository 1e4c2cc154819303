//! What moderators and server SDKs decide over others' heads.
//!
//! Owns removal, censoring, changes of rights and of the room. Whoever calls was authorised before.

use std::sync::Arc;

use livekit_protocol as lk;
use livekit_protocol::leave_request::Action as LeaveAction;
use plenum_errors::{Code, PublicError};
use plenum_token::Role;

use super::grant::Grant;
use super::ids::{Identity, Now};
use super::state::Room;
use super::vocabulary::{Goodbye, Notice, Outbox};
use crate::session::api::{SessionId, TrackSid};

/// A moderator's decision.
#[derive(Debug, Clone)]
pub enum Moderation {
    /// Silence a track (or all of somebody's) for everyone, or let its owner unmute it again: nobody is
    /// made to be heard.
    Mute {
        identity: Identity,
        sid: Option<TrackSid>,
        muted: bool,
    },
    /// Take a track (or all of somebody's) down.
    Unpublish {
        identity: Identity,
        sid: Option<TrackSid>,
    },
    /// Metadata, name, attributes, rights.
    Update {
        identity: Identity,
        update: Box<lk::UpdateParticipantRequest>,
    },
    /// Data in the server's name.
    Data {
        packet: Box<lk::DataPacket>,
        lossy: bool,
    },
    /// What somebody receives.
    Subscriptions {
        identity: Identity,
        sids: Vec<TrackSid>,
        on: bool,
    },
    /// The room's metadata.
    Metadata(String),
}

impl Room {
    /// Carries a decision out; how the participant is afterwards, where there is one.
    pub(super) fn moderate(
        &mut self,
        what: Moderation,
        now: Now,
        out: &mut Outbox,
    ) -> Result<Option<lk::ParticipantInfo>, PublicError> {
        match what {
            Moderation::Mute { identity, sid, muted } => {
                let session = self.find(&identity)?;
                for sid in self.tracks_meant(session, sid)? {
                    self.censor(session, &sid, muted, out);
                }
                Ok(self.info_of(session))
            }
            Moderation::Unpublish { identity, sid } => {
                let session = self.find(&identity)?;
                for sid in self.tracks_meant(session, sid)? {
                    self.drop_track(session, &sid, true, out);
                }
                Ok(self.info_of(session))
            }
            Moderation::Update { identity, update } => {
                let session = self.find(&identity)?;
                self.update_participant(session, &update, out)?;
                Ok(self.info_of(session))
            }
            Moderation::Data { packet, lossy } => {
                self.data_from_server(&packet, lossy, out);
                Ok(None)
            }
            Moderation::Subscriptions { identity, sids, on } => {
                let session = self.find(&identity)?;
                self.choose(session, &sids, on, out);
                Ok(None)
            }
            Moderation::Metadata(metadata) => {
                let spec = super::spec::RoomSpec {
                    metadata,
                    ..self.spec.clone()
                };
                self.update(spec, now, out);
                Ok(None)
            }
        }
    }

    fn find(&self, identity: &Identity) -> Result<SessionId, PublicError> {
        self.session_of(identity.as_str())
            .ok_or_else(|| Code::ParticipantNotFound.into())
    }

    /// One track of somebody, or all of them.
    fn tracks_meant(&self, session: SessionId, sid: Option<TrackSid>) -> Result<Vec<TrackSid>, PublicError> {
        let all = self.tracks_of(session);
        match sid {
            None => Ok(all),
            Some(sid) if all.contains(&sid) => Ok(vec![sid]),
            Some(sid) => Err(PublicError::new(
                Code::TrackNotFound,
                // What clients send may be of any length.
                sid.chars().take(64).collect::<String>(),
            )),
        }
    }

    fn censor(&mut self, session: SessionId, sid: &TrackSid, on: bool, out: &mut Outbox) {
        let Some(track) = self.track_mut(session, sid) else {
            return;
        };
        track.censored = on;
        if on && !track.info.muted {
            out.tell(
                session,
                Notice::Muted {
                    sid: Arc::clone(sid),
                    muted: true,
                },
            );
            self.set_muted(session, sid, true, out);
        }
    }

    fn info_of(&self, session: SessionId) -> Option<lk::ParticipantInfo> {
        self.participants
            .get(&session)
            .map(super::participant::Participant::info)
    }

    fn update_participant(
        &mut self,
        session: SessionId,
        update: &lk::UpdateParticipantRequest,
        out: &mut Outbox,
    ) -> Result<(), PublicError> {
        let Some(me) = self.participants.get_mut(&session) else {
            return Ok(());
        };
        me.describe(&update.name, &update.metadata, &update.attributes)
            .map_err(|(_, what)| PublicError::new(Code::MessageTooLarge, what))?;
        let was_hidden = me.grant.hidden;
        if let Some(permission) = &update.permission {
            me.grant.apply(permission);
        }
        self.enforce(session, was_hidden, out);
        Ok(())
    }

    /// Role and rights from now on.
    pub(super) fn stand(&mut self, session: SessionId, role: Role, grant: Grant, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        let was_hidden = me.grant.hidden;
        // What somebody is does not change with what it may do.
        me.grant = Grant {
            join: me.grant.join,
            recorder: me.grant.recorder,
            agent: me.grant.agent,
            ..grant
        };
        me.set_role(role);
        self.enforce(session, was_hidden, out);
    }

    /// Brings tracks and subscriptions in line with the grant, and tells everyone.
    fn enforce(&mut self, session: SessionId, was_hidden: bool, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        me.changed();
        // What is no longer allowed stops now.
        let grant = me.grant.clone();
        let forbidden: Vec<TrackSid> = me
            .tracks
            .values()
            .filter(|t| !grant.may_publish(t.info.source))
            .map(|t| Arc::clone(&t.sid))
            .collect();
        for sid in &forbidden {
            self.drop_track(session, sid, true, out);
        }
        self.subscribe_to_all(session, out);
        for sid in self.tracks_of(session) {
            self.subscribe_all_to(&sid, out);
        }
        self.announce_to_all(session, out);
        if grant.hidden
            && !was_hidden
            && let Some(mut info) = self.info_of(session)
        {
            // To the others it is as if it had left.
            info.state = lk::participant_info::State::Disconnected as i32;
            out.tell_all(self.everyone_but(session), Notice::Participants(vec![info]));
        }
    }

    /// Removes a participant; with `revoke` its present token is void from now on.
    pub(super) fn expel(&mut self, identity: &Identity, revoke: bool, now: Now, out: &mut Outbox) -> bool {
        if revoke {
            self.revoke(identity, now);
        }
        let Some(session) = self.session_of(identity.as_str()) else {
            return false;
        };
        let goodbye = Goodbye {
            reason: lk::DisconnectReason::ParticipantRemoved,
            action: LeaveAction::Disconnect,
        };
        self.dismiss(
            session,
            Some(goodbye),
            Some(Code::ParticipantRemoved),
            "",
            now,
            out,
        );
        true
    }
}
