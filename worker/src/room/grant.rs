//! What a token lets its bearer do.
//!
//! Owns the translation of LiveKit's video grant into rights in force, and of those to the permission clients see.
//! Invariant: an absent `can...` of the three basic rights means yes (LiveKit's rule), an absent
//! anything else means no.

use livekit_protocol as lk;
use plenum_token::VideoGrant;

/// The rights in force, after defaults and after moderators' changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// May enter at all.
    pub join: bool,
    /// May moderate.
    pub admin: bool,
    /// May receive others' tracks.
    pub subscribe: bool,
    /// May publish tracks.
    pub publish: bool,
    /// May send data.
    pub publish_data: bool,
    /// `lk::TrackSource` numbers; empty = all.
    pub sources: Vec<i32>,
    /// May change its own metadata.
    pub update_metadata: bool,
    /// May receive metrics of others.
    pub subscribe_metrics: bool,
    /// Not shown to the others.
    pub hidden: bool,
    /// Records the room.
    pub recorder: bool,
    /// Is a program.
    pub agent: bool,
}

impl From<VideoGrant> for Grant {
    fn from(grant: VideoGrant) -> Self {
        let publish = grant.can_publish.unwrap_or(true);
        Self {
            join: grant.room_join,
            admin: grant.room_admin,
            subscribe: grant.can_subscribe.unwrap_or(true),
            publish,
            publish_data: grant.can_publish_data.unwrap_or(publish),
            sources: grant
                .can_publish_sources
                .iter()
                .map(|s| source_number(s))
                .collect(),
            update_metadata: grant.can_update_own_metadata.unwrap_or(false),
            subscribe_metrics: grant.can_subscribe_metrics.unwrap_or(false),
            hidden: grant.hidden,
            recorder: grant.recorder,
            agent: grant.agent,
        }
    }
}

/// A source that is not known must still restrict: it becomes one that no track has.
fn source_number(name: &str) -> i32 {
    match name.to_ascii_lowercase().as_str() {
        "camera" => lk::TrackSource::Camera as i32,
        "microphone" => lk::TrackSource::Microphone as i32,
        "screen_share" => lk::TrackSource::ScreenShare as i32,
        "screen_share_audio" => lk::TrackSource::ScreenShareAudio as i32,
        _ => -1,
    }
}

impl Grant {
    /// May a track of this source (`lk::TrackSource`) be published?
    pub fn may_publish(&self, source: i32) -> bool {
        self.publish && (self.sources.is_empty() || self.sources.contains(&source))
    }

    /// As clients see it.
    pub fn permission(&self) -> lk::ParticipantPermission {
        #[allow(deprecated, reason = "older clients still read and send the old fields")]
        lk::ParticipantPermission {
            can_subscribe: self.subscribe,
            can_publish: self.publish,
            can_publish_data: self.publish_data,
            can_publish_sources: self.sources.iter().copied().filter(|s| *s >= 0).collect(),
            hidden: self.hidden,
            recorder: self.recorder,
            can_update_metadata: self.update_metadata,
            agent: self.agent,
            can_subscribe_metrics: self.subscribe_metrics,
            can_manage_agent_session: false,
        }
    }

    /// Takes over what a moderator decided. Identity-like traits (recorder, agent) stay.
    pub fn apply(&mut self, permission: &lk::ParticipantPermission) {
        self.subscribe = permission.can_subscribe;
        self.publish = permission.can_publish;
        self.publish_data = permission.can_publish_data;
        self.sources.clone_from(&permission.can_publish_sources);
        self.update_metadata = permission.can_update_metadata;
        self.subscribe_metrics = permission.can_subscribe_metrics;
        self.hidden = permission.hidden;
    }
}
