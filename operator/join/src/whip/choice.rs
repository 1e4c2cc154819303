//! What a WHEP viewer is shown.
//!
//! Owns the choice among the tracks of a room, for as many sections as the viewer offered. Pure.
//! Invariants: never more tracks of a kind than sections; a track that is shown stays until it ends, may
//! not be shown any more, or is muted while another one is not; among equals the one that was published
//! first comes first.

use std::collections::{BTreeMap, HashSet};

use livekit_protocol as proto;
use proto::participant_info::State;

use super::offer::Kind;

/// A track that might be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Track {
    publisher: String,
    kind: Kind,
    muted: bool,
    /// Lower case; empty = not known.
    codec: String,
    order: u64,
}

/// What to ask the room for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) subscribe: Vec<String>,
    pub(crate) unsubscribe: Vec<String>,
}

/// The choice of one viewer.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// Nobody but this participant.
    only: Option<String>,
    /// Codecs of each section, by kind.
    seats: Vec<(Kind, Vec<String>)>,
    tracks: BTreeMap<String, Track>,
    shown: Vec<String>,
    denied: HashSet<String>,
    next: u64,
}

impl Choice {
    pub(crate) fn new(seats: Vec<(Kind, Vec<String>)>, only: Option<String>) -> Choice {
        Choice {
            only,
            seats,
            ..Choice::default()
        }
    }

    /// Participants are so now.
    pub(crate) fn update(&mut self, participants: &[proto::ParticipantInfo]) {
        for participant in participants {
            let gone = participant.state() == State::Disconnected;
            let listed: Vec<&proto::TrackInfo> = if gone {
                Vec::new()
            } else {
                participant
                    .tracks
                    .iter()
                    .filter(|track| playable(track))
                    .collect()
            };
            self.tracks.retain(|sid, track| {
                track.publisher != participant.identity || listed.iter().any(|listed| listed.sid == *sid)
            });
            for info in listed {
                let Some(kind) = kind_of(info) else { continue };
                let known = self.tracks.get(&info.sid).map(|track| track.order);
                let order = known.unwrap_or_else(|| {
                    self.next += 1;
                    self.next
                });
                let track = Track {
                    publisher: participant.identity.clone(),
                    kind,
                    muted: info.muted,
                    codec: codec_of(info),
                    order,
                };
                self.tracks.insert(info.sid.clone(), track);
            }
        }
        let tracks = &self.tracks;
        self.denied.retain(|sid| tracks.contains_key(sid));
    }

    /// The viewer is in another room, with these participants; what it received there is over.
    pub(crate) fn moved(&mut self, participants: &[proto::ParticipantInfo]) {
        self.tracks.clear();
        self.shown.clear();
        self.denied.clear();
        self.update(participants);
    }

    /// Whether the publisher of a track lets the viewer receive it.
    pub(crate) fn allow(&mut self, sid: &str, allowed: bool) {
        if allowed {
            self.denied.remove(sid);
        } else if self.tracks.contains_key(sid) {
            self.denied.insert(sid.to_owned());
        }
    }

    /// Everything that is not shown.
    pub(crate) fn others(&self) -> Vec<String> {
        let not_shown = self.tracks.keys().filter(|sid| !self.shown.contains(sid));
        not_shown.cloned().collect()
    }

    /// Chooses anew; what differs from before.
    pub(crate) fn choose(&mut self) -> Change {
        let before = std::mem::take(&mut self.shown);
        for kind in [Kind::Video, Kind::Audio] {
            let seats = self.seats.iter().filter(|(seat, _)| *seat == kind).count();
            let mut able: Vec<(&String, &Track)> = self
                .tracks
                .iter()
                .filter(|(sid, track)| track.kind == kind && !self.denied.contains(*sid))
                .filter(|(_, track)| self.only.as_ref().is_none_or(|only| track.publisher == *only))
                .filter(|(_, track)| self.plays(track))
                .collect();
            able.sort_by_key(|(sid, track)| (track.muted, !before.contains(*sid), track.order));
            self.shown
                .extend(able.into_iter().take(seats).map(|(sid, _)| sid.clone()));
        }
        let only_in = |of: &[String], not: &[String]| -> Vec<String> {
            of.iter().filter(|sid| !not.contains(sid)).cloned().collect()
        };
        Change {
            subscribe: only_in(&self.shown, &before),
            // What ended needs no word.
            unsubscribe: only_in(&before, &self.shown)
                .into_iter()
                .filter(|sid| self.tracks.contains_key(sid))
                .collect(),
        }
    }

    fn plays(&self, track: &Track) -> bool {
        track.codec.is_empty()
            || self
                .seats
                .iter()
                .any(|(kind, codecs)| *kind == track.kind && codecs.contains(&track.codec))
    }
}

/// What the participants themselves encrypted is noise to a viewer without their key.
fn playable(info: &proto::TrackInfo) -> bool {
    info.encryption() == proto::encryption::Type::None
}

fn kind_of(info: &proto::TrackInfo) -> Option<Kind> {
    match info.r#type() {
        proto::TrackType::Audio => Some(Kind::Audio),
        proto::TrackType::Video => Some(Kind::Video),
        proto::TrackType::Data => None,
    }
}

fn codec_of(info: &proto::TrackInfo) -> String {
    let name = info.mime_type.rsplit('/').next().unwrap_or_default();
    // Redundancy of sound: who can't take it is sent what is inside.
    if name.eq_ignore_ascii_case("red") {
        return "opus".to_owned();
    }
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(sid: &str, mime_type: &str, muted: bool) -> proto::TrackInfo {
        let audio = mime_type.starts_with("audio");
        let kind = if audio {
            proto::TrackType::Audio
        } else {
            proto::TrackType::Video
        };
        proto::TrackInfo {
            sid: sid.into(),
            r#type: kind as i32,
            mime_type: mime_type.into(),
            muted,
            ..Default::default()
        }
    }

    fn who(identity: &str, tracks: Vec<proto::TrackInfo>) -> proto::ParticipantInfo {
        proto::ParticipantInfo {
            identity: identity.into(),
            state: State::Active as i32,
            tracks,
            ..Default::default()
        }
    }

    fn one_of_each(only: Option<&str>) -> Choice {
        let seats = vec![
            (Kind::Audio, vec!["opus".to_owned()]),
            (Kind::Video, vec!["vp8".to_owned(), "h264".to_owned()]),
        ];
        Choice::new(seats, only.map(str::to_owned))
    }

    fn subscribed(change: &Change) -> Vec<&str> {
        change.subscribe.iter().map(String::as_str).collect()
    }

    #[test]
    fn the_first_published_are_shown_and_followed_by_the_next() {
        let mut choice = one_of_each(None);
        let ann = who(
            "ann",
            vec![track("a1", "audio/opus", false), track("v1", "video/VP8", false)],
        );
        let bob = who(
            "bob",
            vec![track("a2", "audio/red", false), track("v2", "video/H264", false)],
        );
        choice.update(&[ann.clone(), bob.clone()]);
        assert_eq!(subscribed(&choice.choose()), ["v1", "a1"]);
        assert_eq!(choice.choose(), Change::default());
        // The first stays whoever comes, and the second follows when it goes.
        choice.update(&[who("cid", vec![track("v0", "video/VP8", false)]), ann, bob]);
        assert_eq!(choice.choose(), Change::default());
        let gone = proto::ParticipantInfo {
            state: State::Disconnected as i32,
            ..who("ann", Vec::new())
        };
        choice.update(&[gone]);
        let change = choice.choose();
        assert_eq!(
            (subscribed(&change), change.unsubscribe.len()),
            (vec!["v2", "a2"], 0)
        );
    }

    #[test]
    fn a_muted_track_gives_way_to_one_that_is_not() {
        let mut choice = one_of_each(None);
        choice.update(&[who("ann", vec![track("v1", "video/VP8", true)])]);
        assert_eq!(subscribed(&choice.choose()), ["v1"]);
        choice.update(&[who("bob", vec![track("v2", "video/VP8", false)])]);
        let change = choice.choose();
        assert_eq!(
            (subscribed(&change), change.unsubscribe.clone()),
            (vec!["v2"], vec!["v1".to_owned()])
        );
        // And takes it back only when there is a reason.
        choice.update(&[who("ann", vec![track("v1", "video/VP8", false)])]);
        assert_eq!(choice.choose(), Change::default());
    }

    #[test]
    fn one_participant_alone_where_one_is_named() {
        let mut choice = one_of_each(Some("bob"));
        choice.update(&[who("ann", vec![track("v1", "video/VP8", false)])]);
        assert_eq!(choice.choose(), Change::default());
        choice.update(&[who("bob", vec![track("v2", "video/VP8", false)])]);
        assert_eq!(subscribed(&choice.choose()), ["v2"]);
    }

    #[test]
    fn what_cannot_be_played_is_not_shown() {
        let mut choice = one_of_each(None);
        let mut secret = track("v1", "video/VP8", false);
        secret.encryption = proto::encryption::Type::Gcm as i32;
        choice.update(&[who("ann", vec![secret, track("v2", "video/AV1", false)])]);
        assert_eq!(choice.choose(), Change::default());
        choice.update(&[who(
            "bob",
            vec![track("v3", "video/VP8", false), track("v4", "video/VP8", false)],
        )]);
        assert_eq!(subscribed(&choice.choose()), ["v3"]);
        choice.allow("v3", false);
        assert_eq!(subscribed(&choice.choose()), ["v4"]);
        choice.allow("v3", true);
        assert_eq!(choice.choose(), Change::default());
        assert_eq!(choice.others(), ["v2", "v3"]);
    }

    #[test]
    fn another_room_is_another_choice() {
        let mut choice = one_of_each(None);
        choice.update(&[who("ann", vec![track("v1", "video/VP8", false)])]);
        choice.choose();
        choice.moved(&[who("bob", vec![track("v2", "video/VP8", false)])]);
        let change = choice.choose();
        assert_eq!((subscribed(&change), change.unsubscribe.len()), (vec!["v2"], 0));
    }
}
