//! Minting tokens for meetings: what the live API and the join page hand out.
//!
//! Owns the grant that a role has in a given meeting. Hosts and co-hosts may do all; what
//! participants and viewers may is the Meeting's `spec.permissions`.

use std::sync::Arc;

use plenum_crds::{Meeting, RolePermissions, Source};
use plenum_errors::PublicError;
use plenum_token::{Claims, Role, VideoGrant};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::keys::Keys;

/// Whom a token is for.
pub(crate) struct Invitation {
    pub(crate) identity: String,
    pub(crate) name: String,
    pub(crate) metadata: String,
    pub(crate) attributes: std::collections::BTreeMap<String, String>,
    pub(crate) role: Role,
    pub(crate) ttl_seconds: u64,
}

/// A signed token for `room`, which is a room of `meeting`.
pub(crate) async fn mint(
    keys: &Keys,
    meeting: &Meeting,
    room: &str,
    invitation: Invitation,
    now: u64,
) -> Result<String, PublicError> {
    let key: Arc<super::material::ApiKey> = keys.of_meeting(meeting).await?;
    let claims = Claims {
        name: invitation.name,
        metadata: invitation.metadata,
        attributes: invitation.attributes,
        video: grant(meeting, invitation.role, room),
        ..Claims::for_participant(
            &invitation.identity,
            room,
            invitation.role,
            now,
            invitation.ttl_seconds,
        )
    };
    Ok(plenum_token::sign(&claims, &key.key, &key.secret)?)
}

/// A host's second presence, in a room they are not in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aside {
    /// Hears and sees the room, unseen.
    Listen,
    /// Is heard in the room.
    Speak,
}

impl Aside {
    /// How its identity ends: its own, so that it takes nobody's place.
    const fn suffix(self) -> &'static str {
        match self {
            Aside::Listen => "~listen",
            Aside::Speak => "~speak",
        }
    }
}

/// Such a token is for joining now; a live session is given fresh ones.
const ASIDE_TTL_SECONDS: u64 = 600;
/// Bytes of an identity.
const MAX_IDENTITY: usize = 128;

/// A signed token for a second presence of `identity`, which is a host, in `room`.
pub(crate) async fn aside_token(
    aside: Aside,
    keys: &Keys,
    meeting: &Meeting,
    room: &str,
    identity: &str,
    name: &str,
    now: u64,
) -> Result<String, PublicError> {
    let key = keys.of_meeting(meeting).await?;
    let suffix = aside.suffix();
    let mut end = identity.len().min(MAX_IDENTITY - suffix.len());
    while !identity.is_char_boundary(end) {
        end -= 1;
    }
    let identity = format!("{}{suffix}", &identity[..end]);
    let role = match aside {
        Aside::Listen => Role::Viewer,
        Aside::Speak => Role::Participant,
    };
    let plain = Claims::for_participant(&identity, room, role, now, ASIDE_TTL_SECONDS);
    let speaks = aside == Aside::Speak;
    let claims = Claims {
        name: name.to_owned(),
        // Carries somebody's sound from elsewhere.
        kind: if speaks {
            "bridge".to_owned()
        } else {
            String::new()
        },
        video: VideoGrant {
            hidden: !speaks,
            can_publish: Some(speaks),
            can_publish_sources: if speaks {
                vec![source_name(Source::Microphone).to_owned()]
            } else {
                Vec::new()
            },
            can_publish_data: Some(false),
            can_update_own_metadata: Some(false),
            can_subscribe: Some(!speaks),
            ..plain.video.clone()
        },
        ..plain
    };
    Ok(plenum_token::sign(&claims, &key.key, &key.secret)?)
}

/// What `role` may do in `meeting`.
fn grant(meeting: &Meeting, role: Role, room: &str) -> VideoGrant {
    let grant = role.grant(room);
    let permissions = match role {
        Role::Host | Role::Cohost => return grant,
        Role::Participant => &meeting.spec.permissions.participant,
        Role::Viewer => &meeting.spec.permissions.viewer,
    };
    permitted(grant, permissions)
}

fn permitted(grant: VideoGrant, permissions: &RolePermissions) -> VideoGrant {
    let sources: Vec<String> = permissions
        .publish
        .iter()
        .map(|source| source_name(*source).to_owned())
        .collect();
    VideoGrant {
        can_publish: Some(!sources.is_empty()),
        // LiveKit reads an empty list as "all", and so do we where all four are named.
        can_publish_sources: if sources.len() == 4 { Vec::new() } else { sources },
        can_subscribe: Some(permissions.subscribe),
        can_publish_data: Some(permissions.publish_data),
        can_update_own_metadata: Some(permissions.update_metadata),
        ..grant
    }
}

/// LiveKit's name of a source in a grant.
fn source_name(source: Source) -> &'static str {
    match source {
        Source::Camera => "camera",
        Source::Microphone => "microphone",
        Source::ScreenShare => "screen_share",
        Source::ScreenShareAudio => "screen_share_audio",
    }
}

/// A few characters nobody can guess, for identities that must not collide or be impersonated.
pub(crate) fn random_suffix() -> Option<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = [0u8; 10];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(
        bytes
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
            .collect(),
    )
}

/// A number nobody can guess, or the time where there is no such source.
pub(crate) fn random_number() -> u64 {
    let mut bytes = [0u8; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map(|since| since.as_secs())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plenum_crds::MeetingSpec;

    #[test]
    fn grants_follow_the_meeting() {
        let mut spec = MeetingSpec::default();
        spec.permissions.participant.publish = vec![Source::Microphone];
        spec.permissions.participant.publish_data = false;
        let meeting = Meeting::new("standup", spec);
        let participant = grant(&meeting, Role::Participant, "demo/standup");
        assert_eq!(participant.can_publish_sources, ["microphone"]);
        assert_eq!(
            (participant.can_publish, participant.can_publish_data),
            (Some(true), Some(false))
        );
        let viewer = grant(&meeting, Role::Viewer, "demo/standup");
        assert_eq!(
            (viewer.can_publish, viewer.can_subscribe),
            (Some(false), Some(true))
        );
        let host = grant(&meeting, Role::Host, "demo/standup");
        assert!(host.room_admin && host.can_publish_sources.is_empty());
        assert_ne!(random_suffix(), random_suffix());
    }
}
