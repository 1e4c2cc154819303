//! What clients ask and what media reports, taken to the part of the room that answers.
//!
//! Owns the dispatch and the small requests that need no file of their own. Invariant: every action
//! is checked against the grant in force now, not the one at the join.

use std::sync::Arc;

use livekit_protocol as lk;
use livekit_protocol::leave_request::Action as LeaveAction;
use livekit_protocol::participant_info::State;
use livekit_protocol::request_response::{Reason, Request};
use plenum_errors::Code;

use super::ids::Now;
use super::limits;
use super::participant::Presence;
use super::speakers::simulated;
use super::state::Room;
use super::vocabulary::{Action, Goodbye, Notice, Outbox, Output, RequestFailure, Scenario};
use crate::session::api::{Command, Event, Leg, SdpError, SessionId, Topology, TrackSid, TransportEnd};

impl Room {
    /// A client asks.
    pub(super) fn act(&mut self, session: SessionId, action: Action, now: Now, out: &mut Outbox) {
        let Some(me) = self.participants.get(&session) else {
            return;
        };
        match action {
            Action::Offer { leg, id, sdp } => {
                // Only one's own publisher leg is offered by a client.
                if leg == Leg::Publisher {
                    out.media(Command::Offer {
                        session,
                        leg,
                        id,
                        sdp,
                    });
                }
            }
            Action::Answer { id, sdp } => {
                if me.topology == Topology::Dual {
                    out.media(Command::Answer { session, id, sdp });
                }
            }
            Action::OfferAgain { id, credentials } => {
                if me.offers_once {
                    out.media(Command::OfferAgain {
                        session,
                        id,
                        credentials,
                    });
                }
            }
            Action::AddTrack(request) => self.add_track(session, &request, out),
            Action::Mute { sid, muted } => self.mute_own(session, &sid, muted, out),
            Action::Subscribe { sids, on } => self.choose(session, &sids, on, out),
            Action::TrackSettings(settings) => self.track_settings(session, &settings, out),
            Action::Audience(audience) => self.set_audience(session, audience, out),
            Action::Sync(sync) => self.sync(session, &sync, now, out),
            Action::Describe(update) => self.describe(session, update, out),
            Action::AudioTrack(update) => self.audio_features(session, update, out),
            Action::VideoTrack(update) => self.video_dimensions(session, &update, out),
            Action::Simulate(scenario) => self.simulate(session, scenario, now, out),
            Action::Leave => {
                self.dismiss(session, None, None, "", now, out);
            }
            Action::Unsupported(failure) => out.tell(session, Notice::Request(failure)),
        }
    }

    /// SyncState: what the client had before its connection broke.
    pub(super) fn sync(&mut self, session: SessionId, sync: &lk::SyncState, _now: Now, out: &mut Outbox) {
        let Some(me) = self.participants.get(&session) else {
            return;
        };
        let auto = me.auto_subscribe;
        if let Some(subscription) = &sync.subscription {
            let named: Vec<TrackSid> = subscription
                .track_sids
                .iter()
                .chain(subscription.participant_tracks.iter().flat_map(|p| &p.track_sids))
                .filter_map(|sid| {
                    self.publishers
                        .get_key_value(sid.as_str())
                        .map(|(sid, _)| Arc::clone(sid))
                })
                .collect();
            // Clients name the exceptions from their default only.
            if subscription.subscribe != auto {
                self.choose(session, &named, subscription.subscribe, out);
            } else if !auto {
                self.choose(session, &named, true, out);
            }
        }
        for sid in &sync.track_sids_disabled {
            let settings = lk::UpdateTrackSettings {
                track_sids: vec![sid.clone()],
                disabled: true,
                quality: lk::VideoQuality::High as i32,
                ..Default::default()
            };
            self.track_settings(session, &settings, out);
        }
        self.catch_up(session, &sync.datachannel_receive_states, out);
    }

    /// UpdateParticipantMetadata.
    fn describe(&mut self, session: SessionId, update: lk::UpdateParticipantMetadata, out: &mut Outbox) {
        let request_id = update.request_id;
        let verdict = self.try_describe(session, &update);
        let (reason, message) = match verdict {
            Ok(()) => (Reason::Ok, String::new()),
            Err((reason, message)) => (reason, message.to_owned()),
        };
        if reason == Reason::Ok {
            // The client waits to see its own change.
            self.announce_to_all(session, out);
        }
        let request = Some(Request::UpdateMetadata(update));
        out.tell(
            session,
            Notice::Request(Box::new(RequestFailure {
                request_id,
                reason,
                message,
                request,
            })),
        );
    }

    fn try_describe(
        &mut self,
        session: SessionId,
        update: &lk::UpdateParticipantMetadata,
    ) -> Result<(), (Reason, &'static str)> {
        let Some(me) = self.participants.get_mut(&session) else {
            return Ok(());
        };
        if !me.grant.update_metadata {
            return Err((Reason::NotAllowed, "the grant lacks canUpdateOwnMetadata"));
        }
        me.describe(&update.name, &update.metadata, &update.attributes)
    }

    fn simulate(&mut self, session: SessionId, scenario: Scenario, now: Now, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        match scenario {
            Scenario::Speaks => {
                let speaker = simulated(me.sid.as_str());
                out.tell(session, Notice::Speakers(vec![speaker]));
            }
            Scenario::SignalLoss => {
                self.lost(session, now);
                out.0.push(Output::Cut { session });
            }
            Scenario::ServerLeave => {
                let goodbye = Goodbye {
                    reason: lk::DisconnectReason::ServerShutdown,
                    action: LeaveAction::Disconnect,
                };
                self.dismiss(session, Some(goodbye), None, "", now, out);
            }
            Scenario::FullReconnect => {
                let goodbye = Goodbye {
                    reason: lk::DisconnectReason::UnknownReason,
                    action: LeaveAction::Reconnect,
                };
                self.dismiss(session, Some(goodbye), None, "", now, out);
            }
            Scenario::CutNextResume { before_greeting } => {
                me.cut_next_resume = Some(before_greeting);
                self.lost(session, now);
                out.0.push(Output::Cut { session });
            }
        }
    }

    /// Media reports about one session of this room.
    pub(super) fn media(&mut self, session: SessionId, event: Event, now: Now, out: &mut Outbox) {
        match event {
            Event::Answer {
                id,
                sdp,
                mid_to_track,
                ..
            } => {
                out.tell(
                    session,
                    Notice::Answer {
                        id,
                        sdp,
                        mid_to_track: mid_to_track.into_iter().collect(),
                    },
                );
            }
            Event::Offer {
                id,
                sdp,
                mid_to_track,
                ..
            } => {
                out.tell(
                    session,
                    Notice::Offer {
                        id,
                        sdp,
                        mid_to_track: mid_to_track.into_iter().collect(),
                    },
                );
            }
            Event::Refused { error, .. } => self.refused(session, &error, now, out),
            Event::NeedSections { audios, videos, .. } => {
                out.tell(session, Notice::NeedSections { audios, videos });
            }
            Event::Connected { leg, .. } => self.connected(session, leg, now, out),
            Event::HandedOver { state, .. } => self.handed_over(session, state.as_deref(), out),
            Event::DataOpen { .. } => self.data_open(session, out),
            Event::DataLost { .. } => self.data_lost(session, now, out),
            Event::Disconnected { reason, .. } => self.disconnected(session, &reason, now, out),
            Event::TrackLive {
                sid,
                mid,
                mime_type,
                simulcast,
                ..
            } => {
                self.track_live(session, &sid, mid, mime_type, simulcast, out);
            }
            Event::TrackEnded { sid, .. } => self.drop_track(session, &sid, false, out),
            Event::SubscriptionBound { sid, .. } => self.bound(&sid, out),
            Event::StreamState { sid, paused, .. } => self.stream_state(session, &sid, paused, out),
            Event::Data {
                reliability, payload, ..
            } => {
                self.introduce(session, out);
                self.data(session, reliability, &payload, now, out);
            }
            // These two concern more than one session: see `Hall`.
            Event::Levels { levels } => self.levels(&levels),
            Event::Statistics { .. } => {}
        }
    }

    fn refused(&mut self, session: SessionId, error: &SdpError, now: Now, out: &mut Outbox) {
        // An offer overtaken by another one, or by a close, harms nobody.
        if matches!(error, SdpError::Unexpected) {
            return;
        }
        let goodbye = Goodbye {
            reason: lk::DisconnectReason::JoinFailure,
            action: LeaveAction::Disconnect,
        };
        self.dismiss(
            session,
            Some(goodbye),
            Some(Code::SdpInvalid),
            error.to_string(),
            now,
            out,
        );
    }

    fn connected(&mut self, session: SessionId, leg: Leg, now: Now, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        let primary = match me.topology {
            Topology::Single => Leg::Publisher,
            Topology::Dual => Leg::Subscriber,
        };
        if leg != primary {
            return;
        }
        me.connected = true;
        me.media_lost = false;
        if me.state != State::Active {
            me.state = State::Active;
            me.changed();
            self.announce_newcomer(session, now, out);
        }
    }

    fn disconnected(&mut self, session: SessionId, reason: &TransportEnd, now: Now, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        me.connected = false;
        me.data_open = false;
        me.media_lost = true;
        if me.offers_once {
            return self.left_with_its_media(session, reason, now, out);
        }
        match (me.presence, reason) {
            // No connection left of any kind, and closed on purpose: the tab was closed.
            (Presence::Away { .. }, TransportEnd::Closed) => {
                let goodbye = Goodbye {
                    reason: lk::DisconnectReason::ClientInitiated,
                    action: LeaveAction::Disconnect,
                };
                self.dismiss(session, Some(goodbye), None, "", now, out);
            }
            (Presence::Away { .. }, _) => {}
            // Some clients close their media before they say Leave, or instead of it.
            (Presence::Here, TransportEnd::Closed) => me.media_closed = Some(now.since_start),
            (Presence::Here, _) => self.send_to_reconnect(session, now, out),
        }
    }

    /// It hears and sees, but learns of nothing more.
    fn data_lost(&mut self, session: SessionId, now: Now, out: &mut Outbox) {
        let Some(me) = self.participants.get_mut(&session) else {
            return;
        };
        // Who is away starts anew when it comes back.
        me.media_lost = true;
        me.data_open = false;
        if matches!(me.presence, Presence::Here) && !me.offers_once {
            tracing::info!(identity = %me.identity, "a client lost its data channel and has to connect anew");
            self.send_to_reconnect(session, now, out);
        }
    }

    /// It can't be told to start anew.
    fn left_with_its_media(&mut self, session: SessionId, reason: &TransportEnd, now: Now, out: &mut Outbox) {
        let (code, why) = match reason {
            TransportEnd::Closed => (None, lk::DisconnectReason::ClientInitiated),
            _ => (
                Some(Code::ConnectionTimeout),
                lk::DisconnectReason::ConnectionTimeout,
            ),
        };
        let goodbye = Goodbye {
            reason: why,
            action: LeaveAction::Disconnect,
        };
        self.dismiss(session, Some(goodbye), code, reason.to_string(), now, out);
    }

    /// Its signalling works but its media is gone, so it can start anew at once. Its place is kept for a
    /// moment, and the new stay replaces this one.
    pub(super) fn send_to_reconnect(&mut self, session: SessionId, now: Now, out: &mut Outbox) {
        let goodbye = Goodbye {
            reason: lk::DisconnectReason::ConnectionTimeout,
            action: LeaveAction::Reconnect,
        };
        out.tell(session, Notice::Goodbye(goodbye));
        out.0.push(Output::Cut { session });
        self.lost(session, now);
    }
}

impl super::participant::Participant {
    /// New name, metadata, attributes; empty name and metadata stay as they are, an attribute with
    /// an empty value goes.
    pub(super) fn describe(
        &mut self,
        name: &str,
        metadata: &str,
        attributes: &std::collections::HashMap<String, String>,
    ) -> Result<(), (Reason, &'static str)> {
        if name.len() > limits::NAME {
            return Err((Reason::LimitExceeded, "the name is too long"));
        }
        if metadata.len() > limits::METADATA {
            return Err((Reason::LimitExceeded, "the metadata is too long"));
        }
        let mut merged = self.attributes.clone();
        for (key, value) in attributes {
            // The role is the server's to say.
            if key == plenum_protocol::ROLE_ATTRIBUTE {
                continue;
            }
            if value.is_empty() {
                merged.remove(key);
            } else {
                merged.insert(key.clone(), value.clone());
            }
        }
        if merged.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > limits::METADATA {
            return Err((Reason::LimitExceeded, "the attributes are too long"));
        }
        self.attributes = merged;
        if !name.is_empty() {
            name.clone_into(&mut self.name);
        }
        if !metadata.is_empty() {
            metadata.clone_into(&mut self.metadata);
        }
        self.changed();
        Ok(())
    }
}
