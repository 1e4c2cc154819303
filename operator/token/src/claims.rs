//! The claims of an access token, field for field as LiveKit's server SDKs write them.
//!
//! Unknown fields of the video grant are kept, so that what a newer SDK puts there reaches the
//! worker untouched; unknown claims elsewhere are dropped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Role;

/// What a token says. `exp`, `nbf` and `iat` are Unix seconds.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// The API key whose secret signed the token.
    pub iss: String,
    /// The participant's identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sub: String,
    /// The participant's display name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Not valid after.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: u64,
    /// Not valid before.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_numeric_date"
    )]
    pub nbf: Option<u64>,
    /// When the token was issued.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_numeric_date"
    )]
    pub iat: Option<u64>,
    /// The token's id. LiveKit's SDKs put the identity here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// What the bearer may do.
    pub video: VideoGrant,
    /// Free text that other participants can read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// Key-value pairs that other participants can read.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// `standard`, `ingress`, `egress`, `sip` or `agent`; empty = standard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Checksum of a body that the token vouches for (webhooks).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Passed through: Plenum's rooms are configured by their Meeting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_config: Option<Value>,
    /// Passed through.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room_preset: String,
    /// Passed through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sip: Option<Value>,
    /// Passed through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Value>,
    /// What only Plenum's own tokens say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plenum: Option<PlenumClaim>,
}

/// Plenum's own claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlenumClaim {
    /// The role the token was minted for.
    pub role: Role,
}

// Written by hand so that metadata and attributes, which are a user's own, stay out of logs.
impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claims")
            .field("iss", &self.iss)
            .field("sub", &self.sub)
            .field("room", &self.video.room)
            .field("exp", &self.exp)
            .finish_non_exhaustive()
    }
}

impl Claims {
    /// Claims for one participant of one room, valid from now on.
    pub fn for_participant(identity: &str, room: &str, role: Role, now: u64, ttl_seconds: u64) -> Claims {
        Claims {
            sub: identity.to_owned(),
            jti: Some(identity.to_owned()),
            exp: now.saturating_add(ttl_seconds),
            nbf: Some(now),
            iat: Some(now),
            video: role.grant(room),
            plenum: Some(PlenumClaim { role }),
            ..Claims::default()
        }
    }

    /// The same claims with a later expiry. Never an earlier one: a client that was given a day
    /// keeps its day. When the token was first issued stays, so that a revocation still covers it.
    pub fn refreshed(&self, now: u64, ttl_seconds: u64) -> Claims {
        Claims {
            exp: self.exp.max(now.saturating_add(ttl_seconds)),
            nbf: self.nbf.map(|nbf| nbf.min(now)),
            iat: self.issued_at(),
            ..self.clone()
        }
    }

    /// When the token was issued, as far as it says so.
    pub fn issued_at(&self) -> Option<u64> {
        self.iat.or(self.nbf)
    }

    /// The role the bearer has. A declared role counts only where the grant carries its powers, so
    /// that grant and role cannot contradict each other; tokens of LiveKit's SDKs declare none.
    pub fn role(&self) -> Role {
        let by_grant = Role::of_grant(&self.video);
        match &self.plenum {
            Some(claim) if Role::of_grant(&claim.role.grant("")) <= by_grant => claim.role,
            _ => by_grant,
        }
    }

    /// The participant kind, never empty.
    pub fn kind(&self) -> &str {
        if self.kind.is_empty() {
            "standard"
        } else {
            &self.kind
        }
    }
}

/// LiveKit's video grant. `None` in an optional field means what LiveKit means by it: allowed
/// where the field is about what a participant may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrant {
    /// May create and delete rooms.
    #[serde(skip_serializing_if = "is_false")]
    pub room_create: bool,
    /// May list rooms.
    #[serde(skip_serializing_if = "is_false")]
    pub room_list: bool,
    /// May record.
    #[serde(skip_serializing_if = "is_false")]
    pub room_record: bool,
    /// May moderate `room`.
    #[serde(skip_serializing_if = "is_false")]
    pub room_admin: bool,
    /// May join `room`.
    #[serde(skip_serializing_if = "is_false")]
    pub room_join: bool,
    /// The room the grant is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room: String,
    /// The room a participant may be moved or forwarded to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination_room: String,
    /// May publish tracks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// May subscribe to tracks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// May send data packets (chat).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// Sources that may be published ("camera", "microphone", ...); empty = all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    /// May change its own name, metadata and attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    /// May receive metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    /// May manage ingress.
    #[serde(skip_serializing_if = "is_false")]
    pub ingress_admin: bool,
    /// Other participants are not told of this one.
    #[serde(skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// The participant records the room.
    #[serde(skip_serializing_if = "is_false")]
    pub recorder: bool,
    /// The participant is an agent.
    #[serde(skip_serializing_if = "is_false")]
    pub agent: bool,
    /// What this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl VideoGrant {
    /// May the bearer publish tracks?
    pub fn may_publish(&self) -> bool {
        self.can_publish.unwrap_or(true)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(value: &bool) -> bool {
    !*value
}

/// RFC 7519's NumericDate: an integer or a fraction, never a string.
fn numeric_date<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    whole_seconds(&number).ok_or_else(|| serde::de::Error::custom("not a point in time"))
}

fn optional_numeric_date<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<serde_json::Number>::deserialize(deserializer)? {
        None => Ok(None),
        Some(number) => whole_seconds(&number)
            .map(Some)
            .ok_or_else(|| serde::de::Error::custom("not a point in time")),
    }
}

fn whole_seconds(number: &serde_json::Number) -> Option<u64> {
    if let Some(seconds) = number.as_u64() {
        return Some(seconds);
    }
    // Casts of floats saturate, so a huge or negative value becomes a bound rather than garbage;
    // negative ones are refused all the same.
    number
        .as_f64()
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        .map(|seconds| seconds as u64)
}
