//! Any order of events leaves a room consistent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;

use super::{ROOM, Stage, audio, entry, video};
use crate::room::{Action, Entered, Notice, Output, RoomName, RoomSpec, Sids};
use crate::session::api::{Command, Event, Leg, Reliability, SessionId, TrackSid, TransportEnd};

/// What media would believe, from the commands alone.
#[derive(Default)]
struct Believed {
    open: BTreeSet<SessionId>,
    ended: BTreeSet<SessionId>,
    expected: BTreeMap<TrackSid, SessionId>,
    subscribed: BTreeSet<(SessionId, TrackSid)>,
    versions: BTreeMap<(SessionId, String), u32>,
}

impl Believed {
    fn learn(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Media(command) => self.command(command),
                Output::End { session, .. } => assert!(self.ended.insert(*session), "ended twice"),
                Output::Tell {
                    to,
                    notice: Notice::Participants(infos),
                } => {
                    for (session, info) in to.iter().flat_map(|s| infos.iter().map(move |i| (s, i))) {
                        let last = self.versions.entry((*session, info.sid.clone())).or_default();
                        assert!(info.version >= *last, "version fell");
                        *last = info.version;
                    }
                }
                _ => {}
            }
        }
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Open { session, .. } => assert!(self.open.insert(*session), "opened twice"),
            Command::Close { session } => {
                assert!(self.open.remove(session), "closed what was not open");
                self.subscribed.retain(|(s, _)| s != session);
                self.expected.retain(|_, s| s != session);
            }
            Command::ExpectTrack { session, track } => {
                assert!(self.open.contains(session));
                self.expected.insert(Arc::clone(&track.sid), *session);
            }
            Command::RemoveTrack { session, sid } => {
                assert_eq!(
                    self.expected.remove(sid),
                    Some(*session),
                    "removed what was not there"
                );
                self.subscribed.retain(|(_, s)| s != sid);
            }
            Command::Subscribe { session, sid, .. } => {
                assert!(self.open.contains(session) && self.expected.contains_key(sid));
                assert!(
                    self.subscribed.insert((*session, Arc::clone(sid))),
                    "subscribed twice"
                );
            }
            Command::Unsubscribe { session, sid } => {
                assert!(
                    self.subscribed.remove(&(*session, Arc::clone(sid))),
                    "not subscribed"
                );
            }
            Command::SetLayer { session, sid, .. } => {
                assert!(
                    self.subscribed.contains(&(*session, Arc::clone(sid))),
                    "layer of nothing"
                );
            }
            Command::SendData { sessions, .. } => assert!(sessions.iter().all(|s| self.open.contains(s))),
            Command::Mute { sid, .. } => assert!(self.expected.contains_key(sid)),
            _ => {}
        }
    }
}

fn check(stage: &Stage, believed: &Believed) {
    let Some(room) = stage.hall.room(ROOM) else { return };
    let sessions: BTreeSet<SessionId> = room.participants().map(|p| p.session).collect();
    assert_eq!(sessions, believed.open, "media and room disagree about sessions");
    let mut tracks = BTreeMap::new();
    let mut wanted = BTreeSet::new();
    for participant in room.participants() {
        assert_eq!(
            room.session_of(participant.identity.as_str()),
            Some(participant.session)
        );
        for track in participant.tracks.values() {
            tracks.insert(Arc::clone(&track.sid), participant.session);
            for subscriber in &track.subscribers {
                wanted.insert((*subscriber, Arc::clone(&track.sid)));
            }
        }
    }
    assert_eq!(tracks, believed.expected);
    assert_eq!(
        wanted, believed.subscribed,
        "media and room disagree about subscriptions"
    );
    assert_eq!(room.standing().participants as usize, sessions.len());
}

fn step(stage: &mut Stage, dice: &mut Sids) {
    let roll = dice.next_u64();
    let who = format!("p{}", (roll >> 8) % 5);
    let session = stage.hall.room(ROOM).and_then(|r| r.session_of(&who));
    let sids: Vec<(SessionId, TrackSid)> = stage
        .hall
        .room(ROOM)
        .map(|r| {
            r.publishers
                .iter()
                .map(|(sid, s)| (*s, Arc::clone(sid)))
                .collect()
        })
        .unwrap_or_default();
    let any_track = sids.get((roll >> 16) as usize % sids.len().max(1)).cloned();
    let flag = roll & 128 != 0;
    match (roll % 18, session, any_track) {
        (0 | 1, _, _) => drop(stage.try_enter(entry(&who))),
        (2, Some(_), _) => {
            let resumed = stage.try_enter(super::Entry {
                resume: Some(String::new()),
                ..entry(&who)
            });
            assert!(!matches!(resumed, Ok(Entered::Anew(_))));
        }
        (3, Some(s), _) => stage.lose(s),
        (4, Some(s), _) if flag => stage.act(s, Action::Leave),
        (5 | 6, Some(s), _) => {
            let request = if flag {
                video(&format!("c{}", roll % 3))
            } else {
                audio("mic")
            };
            stage.act(s, Action::AddTrack(Box::new(request)));
        }
        (7 | 8, _, Some((s, sid))) => stage.media(Event::TrackLive {
            session: s,
            sid,
            mid: "1".into(),
            mime_type: "video/VP8".into(),
            simulcast: true,
        }),
        (9, _, Some((s, sid))) => stage.media(Event::TrackEnded { session: s, sid }),
        (10, Some(s), Some((_, sid))) => stage.act(
            s,
            Action::Subscribe {
                sids: vec![sid],
                on: flag,
            },
        ),
        (11, Some(s), Some((_, sid))) => stage.act(
            s,
            Action::TrackSettings(lk::UpdateTrackSettings {
                track_sids: vec![sid.to_string()],
                disabled: flag,
                quality: (roll >> 32) as i32 % 3,
                ..Default::default()
            }),
        ),
        (12, Some(s), _) => stage.act(
            s,
            Action::Audience(lk::SubscriptionPermission {
                all_participants: flag,
                track_permissions: vec![lk::TrackPermission {
                    participant_identity: "p1".into(),
                    all_tracks: true,
                    ..Default::default()
                }],
            }),
        ),
        (13, Some(s), _) => stage.media(Event::Connected {
            session: s,
            leg: Leg::Publisher,
            since_open: Duration::from_millis(1),
        }),
        (14, Some(s), _) if flag => stage.media(Event::Disconnected {
            session: s,
            leg: Leg::Publisher,
            reason: if roll & 256 == 0 {
                TransportEnd::Closed
            } else {
                TransportEnd::ConsentLost
            },
        }),
        (15, Some(s), _) => stage.media(Event::Data {
            session: s,
            reliability: Reliability::Reliable,
            payload: roll.to_be_bytes().to_vec().into(),
        }),
        (16, Some(s), Some((_, sid))) => stage.act(s, Action::Mute { sid, muted: flag }),
        _ => stage.pass(Duration::from_millis(300)),
    }
}

#[test]
fn media_and_room_never_disagree() {
    for seed in 0..60 {
        let spec = RoomSpec {
            max_participants: Some(4),
            max_duration: Some(Duration::from_secs(60)),
            ..RoomSpec::open(RoomName::from(ROOM))
        };
        let mut stage = Stage::with(spec);
        let mut believed = Believed::default();
        let mut dice = Sids::seeded(seed);
        for _ in 0..400 {
            stage.clear();
            step(&mut stage, &mut dice);
            believed.learn(&stage.out);
            check(&stage, &believed);
        }
    }
}
