//! Any order of events leaves all rooms consistent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;

use super::{ROOM, Stage, audio, entry, video};
use crate::room::{Action, EndReason, Entered, Notice, Outbox, Output, RoomName, RoomSpec, Sids, Transfer};
use crate::session::api::{Command, Event, Home, Leg, Reliability, SessionId, TrackSid, TransportEnd};

const ROOMS: [&str; 3] = [ROOM, "team/standup/red", "team/standup/blue"];
/// People that the main room takes, and a breakout room.
const PLACES: [u32; 3] = [4, 2, 2];

fn spec(room: usize) -> RoomSpec {
    RoomSpec {
        max_participants: Some(PLACES[room]),
        // The main room's time is over now and then, and the first breakout room's.
        max_duration: [Some(Duration::from_secs(60)), Some(Duration::from_secs(20)), None][room],
        ..RoomSpec::open(RoomName::from(ROOMS[room]))
    }
}

/// What media would believe, from the commands alone.
#[derive(Default)]
struct Believed {
    open: BTreeSet<SessionId>,
    ended: BTreeSet<SessionId>,
    homes: BTreeMap<SessionId, Home>,
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
                } => self.hear(to, infos),
                Output::Tell {
                    to,
                    notice: Notice::RoomMoved(arrival),
                } => {
                    self.hear(to, &arrival.others);
                    self.hear(to, std::slice::from_ref(&arrival.me));
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, to: &[SessionId], infos: &[lk::ParticipantInfo]) {
        for (session, info) in to.iter().flat_map(|s| infos.iter().map(move |i| (s, i))) {
            let last = self.versions.entry((*session, info.sid.clone())).or_default();
            assert!(info.version >= *last, "version fell");
            *last = info.version;
        }
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Open { session, home, .. } => {
                assert!(self.open.insert(*session), "opened twice");
                self.homes.insert(*session, home.clone());
            }
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
                assert!(self.open.contains(session));
                let publisher = self.expected.get(sid).expect("a track");
                assert_eq!(
                    self.homes[session], self.homes[publisher],
                    "media forwards within a home"
                );
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
            Command::Mute { session, sid, .. } => assert_eq!(self.expected.get(sid), Some(session)),
            _ => {}
        }
    }
}

fn check(stage: &Stage, believed: &Believed) {
    let mut sessions = BTreeSet::new();
    let mut tracks = BTreeMap::new();
    let mut wanted = BTreeSet::new();
    for room in stage.hall.rooms() {
        let name = &room.spec().name;
        let (mut here, mut published) = (0, 0);
        for participant in room.participants() {
            here += 1;
            assert!(sessions.insert(participant.session), "in two rooms");
            assert_eq!(stage.hall.room_of(participant.session), Some(name));
            assert_eq!(
                room.session_of(participant.identity.as_str()),
                Some(participant.session)
            );
            for track in participant.tracks.values() {
                published += 1;
                tracks.insert(Arc::clone(&track.sid), participant.session);
                assert_eq!(room.publishers.get(&track.sid), Some(&participant.session));
                for subscriber in &track.subscribers {
                    wanted.insert((*subscriber, Arc::clone(&track.sid)));
                }
            }
        }
        assert_eq!(
            (room.standing().participants, room.publishers.len()),
            (here, published)
        );
    }
    assert_eq!(sessions, believed.open, "media and rooms disagree about sessions");
    assert_eq!(tracks, believed.expected);
    assert_eq!(
        wanted, believed.subscribed,
        "media and rooms disagree about subscriptions"
    );
    for (subscriber, sid) in &wanted {
        assert_eq!(
            stage.hall.room_of(*subscriber),
            stage.hall.room_of(tracks[sid]),
            "a subscription between rooms"
        );
    }
}

/// How many are in each room.
fn crowd(stage: &Stage) -> [u32; 3] {
    ROOMS.map(|room| stage.hall.room(room).map_or(0, |r| r.standing().participants))
}

/// Closes a breakout room, or opens it again.
fn toggle(stage: &mut Stage, room: usize, reason: EndReason) {
    let name = RoomName::from(ROOMS[room]);
    if stage.hall.room(ROOMS[room]).is_none() {
        return stage.assign(spec(room));
    }
    let people: Vec<SessionId> = stage
        .hall
        .room(ROOMS[room])
        .into_iter()
        .flat_map(|r| r.participants())
        .map(|p| p.session)
        .collect();
    let mut out = Outbox::default();
    stage.hall.release(&name, 1, reason, stage.now, &mut out).unwrap();
    stage.out.extend(out.0);
    assert!(stage.hall.room(ROOMS[room]).is_none());
    let main_takes = stage.hall.room(ROOM).is_some_and(|r| r.check_running().is_ok());
    for session in people {
        let gone_home = stage.hall.room_of(session).is_some_and(|r| r.as_str() == ROOM);
        assert_ne!(
            gone_home,
            stage.ended(session).is_some(),
            "neither here nor there"
        );
        // Only a newer connection of the same identity takes its place.
        let replaced = stage.ended(session) == Some(Some(plenum_errors::Code::DuplicateIdentity));
        assert_eq!(gone_home, reason != EndReason::Moved && main_takes && !replaced);
        // Who is sent on by others is told nothing.
        if !gone_home && !replaced && reason != EndReason::Moved {
            assert!(stage.goodbye(session).is_none());
        }
    }
}

fn step(stage: &mut Stage, dice: &mut Sids) {
    let roll = dice.next_u64();
    let who = format!("p{}", (roll >> 8) % 5);
    let room = (roll >> 40) as usize % ROOMS.len();
    let sessions: Vec<SessionId> = stage
        .hall
        .rooms()
        .flat_map(|r| r.participants())
        .map(|p| p.session)
        .collect();
    let session = sessions
        .get((roll >> 24) as usize % sessions.len().max(1))
        .copied();
    let mut sids: Vec<(SessionId, TrackSid)> = stage
        .hall
        .rooms()
        .flat_map(|r| &r.publishers)
        .map(|(sid, s)| (*s, Arc::clone(sid)))
        .collect();
    sids.sort();
    let any_track = sids.get((roll >> 16) as usize % sids.len().max(1)).cloned();
    let flag = roll & 128 != 0;
    let at_the_door = || super::Entry {
        room: RoomName::from(ROOMS[room]),
        ..entry(&who)
    };
    match (roll % 24, session, any_track) {
        (0 | 1 | 23, _, _) => drop(stage.try_enter(at_the_door())),
        (17..=20, Some(s), _) => {
            let order = Transfer {
                room: RoomName::from(ROOMS[room]),
                epoch: 0,
                mute_sources: if flag {
                    vec![lk::TrackSource::Camera as i32]
                } else {
                    Vec::new()
                },
            };
            let before = crowd(stage);
            let mut out = Outbox::default();
            let moved = stage.hall.transfer(s, &order, stage.now, &mut out);
            stage.out.extend(out.0);
            match moved {
                Ok(()) => assert_eq!(stage.hall.room_of(s), Some(&order.room)),
                Err(_) => assert_eq!((crowd(stage), stage.out.len()), (before, 0)),
            }
        }
        (21, _, _) if room > 0 => {
            let reasons = [EndReason::Closed, EndReason::Deleted, EndReason::Moved];
            toggle(stage, room, reasons[(roll >> 16) as usize % 3]);
        }
        // The main room's time begins anew.
        (22, _, _) => stage.assign(RoomSpec {
            max_duration: Some(Duration::from_secs(60 + (roll >> 16) % 7)),
            ..spec(0)
        }),
        (2, Some(_), _) => {
            let resumed = stage.try_enter(super::Entry {
                resume: Some(String::new()),
                ..at_the_door()
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
fn media_and_rooms_never_disagree() {
    let mut moved = 0;
    let mut relocated = 0;
    for seed in 0..120 {
        let mut stage = Stage::with(spec(0));
        for room in 1..ROOMS.len() {
            stage.assign(spec(room));
        }
        let mut believed = Believed::default();
        let mut dice = Sids::seeded(seed);
        for _ in 0..500 {
            stage.clear();
            let before = crowd(&stage);
            step(&mut stage, &mut dice);
            believed.learn(&stage.out);
            check(&stage, &believed);
            let home = stage
                .out
                .iter()
                .filter(|o| matches!(o, Output::Relocated { .. }))
                .count();
            for ((now, before), most) in crowd(&stage).into_iter().zip(before).zip(PLACES) {
                assert!(now <= most || now <= before || home > 0, "over the limit");
            }
            assert!(
                crowd(&stage)[1..].iter().all(|n| *n <= 2),
                "breakout rooms are never over it"
            );
            let arrived = stage.out.iter().filter(|o| {
                matches!(
                    o,
                    Output::Tell {
                        notice: Notice::RoomMoved(_),
                        ..
                    }
                )
            });
            moved += arrived.count();
            relocated += home;
        }
    }
    // The dice do roll that.
    assert!(moved > 1_000 && relocated > 100, "{moved} {relocated}");
}
