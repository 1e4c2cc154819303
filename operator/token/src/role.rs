//! The roles of a meeting and the grants they stand for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::VideoGrant;

/// What somebody is in a meeting. Ordered by power: a later variant can do all an earlier one can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees and hears; publishes nothing, not even chat.
    Viewer,
    /// Publishes and chats.
    Participant,
    /// Moderates, named by a host.
    Cohost,
    /// Moderates.
    Host,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Participant, Role::Cohost, Role::Host];

    /// The role's name in tokens, the live API and the worker contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Participant => "participant",
            Role::Cohost => "cohost",
            Role::Host => "host",
        }
    }

    /// The grant that a token of this role carries. Every permission is spelled out: LiveKit's
    /// default for a missing one is "allowed".
    pub fn grant(self, room: &str) -> VideoGrant {
        let publishes = self >= Role::Participant;
        VideoGrant {
            room_join: true,
            room_admin: self >= Role::Cohost,
            room: room.to_owned(),
            can_subscribe: Some(true),
            can_publish: Some(publishes),
            can_publish_data: Some(publishes),
            can_update_own_metadata: Some(publishes),
            ..VideoGrant::default()
        }
    }

    /// The role that a grant without a declared role amounts to.
    pub fn of_grant(grant: &VideoGrant) -> Role {
        if grant.room_admin {
            Role::Host
        } else if grant.may_publish() {
            Role::Participant
        } else {
            Role::Viewer
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no role of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such role: roles are host, cohost, participant and viewer")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Role, UnknownRole> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or(UnknownRole)
    }
}
