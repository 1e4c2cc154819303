//! `participants`: who is in the meetings, asked of the workers at the moment of the request.
//!
//! Owns the Participant's form and name. The name is the identity, made fit for a name where it is
//! not, with a digest so that two identities never share one; where the same identity is in several
//! rooms of a namespace, each is named IDENTITY.MEETING or IDENTITY.MEETING.ROOM, a name by which
//! any participant can be addressed at all times.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use livekit_protocol as proto;
use plenum_errors::{Code, PublicError};
use plenum_worker_api::v1::{ParticipantEntry, RemoveParticipantRequest};
use prost::Message as _;
use serde_json::{Value, json};

use super::selector::Selector;
use super::status::Refusal;
use super::{GROUP, LiveApi, VERSION};
use crate::gateway::meetings::people;
use crate::gateway::route::RoomName;
use crate::gateway::workers::refused;

const CALL_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_NAME: usize = 200;

/// Keys of field selectors.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.identity",
    "spec.meeting",
    "spec.room",
    "spec.role",
];

/// Somebody in a room.
#[derive(Debug, Clone)]
pub(super) struct Participant {
    pub(super) name: String,
    /// IDENTITY.MEETING or IDENTITY.MEETING.ROOM.
    long_name: String,
    pub(super) namespace: String,
    pub(super) meeting: String,
    pub(super) breakout: Option<String>,
    room: String,
    pub(super) role: String,
    pub(super) quality: String,
    pub(super) info: proto::ParticipantInfo,
}

impl LiveApi {
    /// Everyone in `namespace`, or everywhere.
    pub(super) async fn participants(&self, namespace: Option<&str>) -> Result<Vec<Participant>, Refusal> {
        let asked = self
            .routes
            .workers_of(namespace)
            .into_iter()
            .map(|worker| async move { people::list(&self.workers, &worker, "").await });
        let mut found = Vec::new();
        for answer in join_all(asked).await {
            match answer {
                Ok(entries) => found.extend(entries.into_iter().filter_map(Participant::read)),
                // One worker that is away must not hide the others' participants.
                Err(error) => {
                    tracing::warn!(code = %error.code, "a worker was left out of a list of participants")
                }
            }
        }
        found.retain(|participant| namespace.is_none_or(|namespace| participant.namespace == namespace));
        name_all(&mut found);
        found.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(found)
    }

    /// The participant of that name.
    pub(super) async fn participant(&self, namespace: &str, name: &str) -> Result<Participant, Refusal> {
        let all = self.participants(Some(namespace)).await?;
        // The name that a list shows comes first; then the others by which one may be meant.
        if let Some(one) = all.iter().find(|one| one.name == name) {
            return Ok(one.clone());
        }
        let mut matching: Vec<Participant> = all
            .into_iter()
            .filter(|one| {
                one.long_name == name || one.info.identity == name || dns_safe(&one.info.identity) == name
            })
            .collect();
        match matching.len() {
            0 => Err(Refusal::not_found("participants", name)),
            1 => Ok(matching.remove(0)),
            _ => {
                let names: Vec<&str> = matching.iter().map(|one| one.long_name.as_str()).collect();
                Err(Refusal::new(
                    409,
                    "Conflict",
                    format!(
                        "{name} is in several rooms of this namespace; name one of {}",
                        names.join(", ")
                    ),
                ))
            }
        }
    }

    /// Removes a participant, and with them the tokens of their identity that exist so far, in every
    /// room of the meeting: a token for one of them opens the others.
    pub(super) async fn remove(&self, participant: &Participant) -> Result<Value, Refusal> {
        let main = format!("{}/{}", participant.namespace, participant.meeting);
        let breakouts = self.routes.breakouts.all();
        let others: Vec<String> = breakouts
            .iter()
            .filter(|room| room.namespace().as_deref() == Some(participant.namespace.as_str()))
            .filter(|room| room.spec.meeting_ref.name == participant.meeting)
            .map(|room| format!("{main}/{}", room.name_any()))
            .chain([main.clone()])
            .filter(|room| *room != participant.room)
            .collect();
        // First where they could come back to, then where they are.
        for outcome in join_all(others.iter().map(|room| self.remove_from(room, participant))).await {
            if let Err(error) = outcome
                && !matches!(error.code, Code::RoomNotFound | Code::MeetingNotReady)
            {
                tracing::warn!(code = %error.code, meeting = main, "a room does not know of a removal");
            }
        }
        if !self.remove_from(&participant.room, participant).await? {
            return Err(Refusal::not_found("participants", &participant.name));
        }
        Ok(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200,
            "details": {
                "name": participant.name, "group": GROUP, "kind": "participants", "uid": participant.info.sid,
            },
        }))
    }

    /// Removes the identity from one room; false where it is not there.
    async fn remove_from(&self, room: &str, participant: &Participant) -> Result<bool, PublicError> {
        let route = self.routes.lookup(room)?;
        let lease = self.workers.lease(&route.worker)?;
        let mut client = lease.client.clone();
        let request = RemoveParticipantRequest {
            room: room.to_owned(),
            identity: participant.info.identity.clone(),
            revoke: true,
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, client.remove_participant(request))
            .await
            .map_err(|_| PublicError::from(Code::WorkerUnreachable))?
            .map_err(|status| refused(&status))?;
        Ok(answer.into_inner().found)
    }
}

/// Those that a list request's selectors choose.
pub(super) fn select(
    participants: Vec<Participant>,
    labels: &str,
    fields: &str,
) -> Result<Vec<Participant>, Refusal> {
    let labels = Selector::parse(labels)?;
    let fields = Selector::parse(fields)?;
    if let Some(unknown) = fields.unknown_key(FIELDS) {
        return Err(Refusal::bad_request(format!(
            "field label not supported: {unknown}; known are {}",
            FIELDS.join(", ")
        )));
    }
    Ok(participants
        .into_iter()
        .filter(|one| labels.matches(&one.labels()) && fields.matches(&one.fields()))
        .collect())
}

impl Participant {
    fn read(entry: ParticipantEntry) -> Option<Participant> {
        let info = proto::ParticipantInfo::decode(entry.info.as_slice()).ok()?;
        let room = RoomName::parse(&entry.room)?;
        let short = dns_safe(&info.identity);
        let long_name = match room.breakout {
            Some(breakout) => format!("{short}.{}.{breakout}", room.meeting),
            None => format!("{short}.{}", room.meeting),
        };
        Some(Participant {
            name: short,
            long_name,
            namespace: room.namespace.to_owned(),
            meeting: room.meeting.to_owned(),
            breakout: room.breakout.map(str::to_owned),
            role: entry.role,
            quality: entry.quality,
            info,
            room: entry.room,
        })
    }

    pub(super) fn joined(&self) -> Option<Timestamp> {
        let at = if self.info.joined_at_ms > 0 {
            Timestamp::from_millisecond(self.info.joined_at_ms)
        } else {
            Timestamp::from_second(self.info.joined_at)
        };
        at.ok().filter(|at| at.as_second() > 0)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<String, String> = [
            ("plenum.dev/meeting".to_owned(), self.meeting.clone()),
            ("plenum.dev/role".to_owned(), self.role.clone()),
        ]
        .into();
        if let Some(breakout) = &self.breakout {
            labels.insert("plenum.dev/room".to_owned(), breakout.clone());
        }
        labels
    }

    fn fields(&self) -> BTreeMap<String, String> {
        [
            ("metadata.name", self.name.clone()),
            ("metadata.namespace", self.namespace.clone()),
            ("spec.identity", self.info.identity.clone()),
            ("spec.meeting", self.meeting.clone()),
            ("spec.room", self.breakout.clone().unwrap_or_default()),
            ("spec.role", self.role.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// `metadata` of the object.
    pub(super) fn metadata(&self) -> Value {
        let mut metadata = json!({
            "name": self.name, "namespace": self.namespace, "uid": self.info.sid, "labels": self.labels(),
        });
        if let Some(joined) = self.joined() {
            metadata["creationTimestamp"] = json!(super::seconds(joined));
        }
        metadata
    }

    /// The whole object.
    pub(super) fn object(&self) -> Value {
        let tracks: Vec<Value> = self.info.tracks.iter().map(track).collect();
        let mut spec = json!({"identity": self.info.identity, "meeting": self.meeting, "role": self.role});
        if !self.info.name.is_empty() {
            spec["displayName"] = json!(self.info.name);
        }
        if let Some(breakout) = &self.breakout {
            spec["room"] = json!(breakout);
        }
        let mut status = json!({
            "sid": self.info.sid, "state": state(self.info.state()), "tracks": tracks,
            "kind": self.info.kind().as_str_name().to_ascii_lowercase(),
        });
        if !self.quality.is_empty() {
            status["quality"] = json!(self.quality);
        }
        if let Some(joined) = self.joined() {
            status["joinedAt"] = json!(super::seconds(joined));
        }
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Participant",
            "metadata": self.metadata(), "spec": spec, "status": status,
        })
    }
}

fn track(track: &proto::TrackInfo) -> Value {
    let mut object = json!({
        "sid": track.sid, "source": track.source().as_str_name().to_ascii_lowercase(),
        "type": track.r#type().as_str_name().to_ascii_lowercase(), "muted": track.muted,
    });
    for (key, value) in [("name", &track.name), ("mimeType", &track.mime_type)] {
        if !value.is_empty() {
            object[key] = json!(value);
        }
    }
    object
}

pub(super) fn state(state: proto::participant_info::State) -> &'static str {
    use proto::participant_info::State;
    match state {
        State::Joining => "Joining",
        State::Joined => "Joined",
        State::Active => "Active",
        State::Disconnected => "Disconnected",
    }
}

/// Gives those whose short name is not theirs alone their long one.
fn name_all(participants: &mut [Participant]) {
    let mut count: BTreeMap<(String, String), usize> = BTreeMap::new();
    for one in participants.iter() {
        *count
            .entry((one.namespace.clone(), one.name.clone()))
            .or_default() += 1;
    }
    for one in participants {
        if count
            .get(&(one.namespace.clone(), one.name.clone()))
            .is_some_and(|count| *count > 1)
        {
            one.name = one.long_name.clone();
        }
    }
}

/// The identity as a DNS subdomain: itself where it is one, else cleaned and with a digest.
fn dns_safe(identity: &str) -> String {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if identity.len() <= MAX_NAME && identity.split('.').all(label) {
        return identity.to_owned();
    }
    let mut cleaned = String::new();
    for character in identity.chars().take(40) {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            cleaned.push(character);
        } else if !cleaned.ends_with('-') && !cleaned.is_empty() {
            cleaned.push('-');
        }
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, identity.as_bytes());
    let digest: String = digest
        .as_ref()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let cleaned = cleaned.trim_end_matches('-');
    if cleaned.is_empty() {
        format!("p-{digest}")
    } else {
        format!("{cleaned}-{digest}")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn entry(room: &str, identity: &str) -> ParticipantEntry {
        let info = proto::ParticipantInfo {
            sid: format!("PA_{identity}"),
            identity: identity.into(),
            state: 2,
            joined_at: 1_800_000_000,
            ..Default::default()
        };
        ParticipantEntry {
            room: room.into(),
            role: "host".into(),
            info: info.encode_to_vec(),
            quality: "good".into(),
            speaking: false,
            since_ms: 0,
        }
    }

    #[test]
    fn names_are_identities_where_they_can_be_and_never_shared() {
        assert_eq!(dns_safe("alice"), "alice");
        assert_eq!(dns_safe("alice.smith-2"), "alice.smith-2");
        let odd = [
            "Alice",
            "alice smith",
            "alice_smith",
            "ålice",
            "",
            "..",
            "-",
            "會議",
            &"x".repeat(400),
        ];
        let mut seen = std::collections::HashSet::new();
        for identity in odd {
            let name = dns_safe(identity);
            assert!(
                name.len() <= 63 && dns_safe(&name) == name,
                "{identity} -> {name}"
            );
            assert!(seen.insert(name));
        }
    }

    #[test]
    fn the_same_identity_twice_is_told_apart_and_selectable() {
        let mut all: Vec<Participant> = [
            entry("demo/standup", "alice"),
            entry("demo/retro", "alice"),
            entry("demo/retro/red", "bob"),
            entry("bad", "x"),
        ]
        .into_iter()
        .filter_map(Participant::read)
        .collect();
        name_all(&mut all);
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["alice.standup", "alice.retro", "bob"]);
        let chosen = select(all.clone(), "plenum.dev/meeting=retro", "").unwrap();
        assert_eq!(chosen.len(), 2);
        assert_eq!(select(all.clone(), "", "spec.room=red").unwrap().len(), 1);
        assert_eq!(select(all, "", "spec.shoe=1").unwrap_err().code, 400);
    }
}
