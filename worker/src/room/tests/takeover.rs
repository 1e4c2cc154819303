//! People who go on here with what they had on another worker.

use std::time::Duration;

use livekit_protocol as lk;
use plenum_worker_api::v1;
use prost::Message as _;

use super::{ROOM, Stage, audio, entry, video};
use crate::room::{
    Action, Entered, Entry, Handover, HandoverError, Identity, Notice, Outbox, Output, Reserve, Role,
    RoomName, RoomSpec,
};
use crate::session::api::{
    ChannelState, Command, Event, Leg, MediaKind, PeerState, Quality, Reliability, SectionState, SessionId,
    SourceState, Topology, TrackSid,
};

const SECOND: Duration = Duration::from_secs(1);

/// What media says of a client with a microphone and a camera.
fn peer(mic: &TrackSid, camera: &TrackSid) -> PeerState {
    let section = |mid: &str, kind, publishes: Option<&TrackSid>| SectionState {
        mid: mid.into(),
        kind,
        publishes: publishes.cloned(),
    };
    let source = |ssrc, sid: &TrackSid, rid: &str, repair| SourceState {
        ssrc,
        sid: sid.clone(),
        rid: rid.into(),
        repair,
    };
    PeerState {
        sections: vec![
            section("0", None, None),
            section("1", Some(MediaKind::Audio), None),
            section("2", Some(MediaKind::Audio), Some(mic)),
            section("3", Some(MediaKind::Video), Some(camera)),
        ],
        sources: vec![
            source(1, mic, "", false),
            source(2, camera, "q", false),
            source(3, camera, "q", true),
        ],
        channels: vec![
            ChannelState {
                id: 0,
                reliability: Reliability::Reliable,
            },
            ChannelState {
                id: 2,
                reliability: Reliability::Lossy,
            },
        ],
        moves: 3,
    }
}

/// A worker that Bob leaves with a microphone and a camera.
struct Old {
    stage: Stage,
    bob: SessionId,
    mic: TrackSid,
    camera: TrackSid,
}

impl Old {
    fn new() -> Self {
        let mut stage = Stage::new();
        let bob = stage.join("bob");
        let (mic, camera) = (
            stage.publish(bob, audio("mic")),
            stage.publish(bob, video("camera")),
        );
        Self {
            stage,
            bob,
            mic,
            camera,
        }
    }

    fn sid(&self) -> String {
        let room = self.stage.hall.room(ROOM).unwrap();
        room.participant("bob").unwrap().sid.to_string()
    }

    /// The bytes for the next worker.
    fn hand_over(&mut self) -> Vec<u8> {
        let session = self.bob;
        self.stage.clear();
        let mut out = Outbox::default();
        self.stage.hall.hand_over(session, &mut out);
        assert!(matches!(out.0[..], [Output::Media(Command::HandOver { session: s })] if s == session));
        let state = Some(Box::new(peer(&self.mic, &self.camera)));
        self.stage.media(Event::HandedOver { session, state });
        handed(&self.stage).unwrap()
    }
}

fn handed(stage: &Stage) -> Option<Vec<u8>> {
    stage.out.iter().find_map(|o| match o {
        Output::HandedOver { state, .. } => Some(state.clone()),
        _ => None,
    })
}

fn reserve(stage: &mut Stage, bytes: &[u8]) -> bool {
    let request = Reserve {
        epoch: 1,
        identity: Identity::from("bob"),
        ttl: SECOND * 10,
        takes_a_place: true,
        token_issued_at_ms: 1_000,
        handover: Handover::read(bytes).ok().map(Box::new),
    };
    stage
        .hall
        .reserve(&RoomName::from(ROOM), request, stage.now)
        .unwrap()
}

fn resumes(sid: &str) -> Entry {
    Entry {
        resume: Some(sid.into()),
        ..entry("bob")
    }
}

/// Bob, taken over by another worker where Alice is.
fn taken_over(old: &mut Old) -> (Stage, SessionId, SessionId) {
    let bytes = old.hand_over();
    let mut new = stage_elsewhere(RoomSpec::open(RoomName::from(ROOM)));
    let alice = new.join("alice");
    assert!(reserve(&mut new, &bytes));
    new.clear();
    let Entered::Anew(bob) = new.try_enter(resumes(&old.sid())).unwrap() else {
        panic!("not anew")
    };
    (new, alice, bob)
}

/// Another worker makes other ids.
fn stage_elsewhere(spec: RoomSpec) -> Stage {
    let mut stage = Stage::with(spec);
    for i in 0..10 {
        let name = format!("elsewhere-{i}");
        let session = stage.join(&name);
        stage.act(session, Action::Leave);
    }
    stage
}

#[test]
fn a_client_goes_on_with_its_tracks_under_a_new_id() {
    let mut old = Old::new();
    let (mut new, alice, bob) = taken_over(&mut old);

    let told = new.told(bob);
    assert!(matches!(told[0], Notice::WelcomeBack { last_message_seq: 0 }));
    let Notice::RoomMoved(arrival) = &told[1] else {
        panic!("{:?}", told[1])
    };
    assert_eq!(arrival.room.name, ROOM);
    assert_eq!(arrival.me.identity, "bob");
    assert_ne!(arrival.me.sid, old.sid());
    let others: Vec<&str> = arrival.others.iter().map(|p| p.identity.as_str()).collect();
    assert_eq!(others, ["alice"]);

    // Media goes on with what it is told, and knows the tracks by their old names.
    let commands = new.commands();
    let Command::Adopt { session, state, .. } = commands[0] else {
        panic!("{:?}", commands[0])
    };
    assert_eq!((*session, &**state), (bob, &peer(&old.mic, &old.camera)));
    let expected: Vec<&str> = commands
        .iter()
        .filter_map(|c| match c {
            Command::ExpectTrack { track, .. } => Some(track.cid.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(expected.len(), 2);
    assert!(expected.contains(&"mic") && expected.contains(&"camera"));

    // Others see the tracks once media has them, under the ids that the client knows.
    assert!(new.last_info(alice, "bob").unwrap().tracks.is_empty());
    new.media(Event::TrackLive {
        session: bob,
        sid: old.camera.clone(),
        mid: "3".into(),
        mime_type: "video/VP8".into(),
        simulcast: true,
    });
    let tracks = new.last_info(alice, "bob").unwrap().tracks;
    assert_eq!((tracks.len(), tracks[0].sid.as_str()), (1, &*old.camera));
    assert!(
        new.commands()
            .iter()
            .any(|c| matches!(c, Command::Subscribe { session, .. } if *session == alice))
    );
    // The place is taken once.
    assert_eq!(new.try_enter(resumes("PA_else")).unwrap(), Entered::Stale);
}

#[test]
fn what_was_changed_in_the_meeting_comes_along() {
    let mut old = Old::new();
    let session = old.bob;
    let describe = lk::UpdateParticipantMetadata {
        name: "Robert".into(),
        metadata: "tired".into(),
        attributes: [("hand".to_owned(), "up".to_owned())].into(),
        ..Default::default()
    };
    let mut grant = super::full_grant();
    grant.update_metadata = true;
    let mut out = Outbox::default();
    old.stage.hall.stand(session, Role::Participant, grant, &mut out);
    old.stage.act(session, Action::Describe(describe));
    let (camera, mic) = (old.camera.clone(), old.mic.clone());
    old.stage.act(
        session,
        Action::Mute {
            sid: camera.clone(),
            muted: true,
        },
    );
    let censor = crate::room::Moderation::Mute {
        identity: Identity::from("bob"),
        sid: Some(mic.clone()),
        muted: true,
    };
    let room = RoomName::from(ROOM);
    let now = old.stage.now;
    old.stage.hall.moderate(&room, censor, now, &mut out).unwrap();
    let packet = |sequence| lk::DataPacket {
        sequence,
        value: Some(lk::data_packet::Value::User(lk::UserPacket::default())),
        ..Default::default()
    };
    let data = |session, sequence| Event::Data {
        session,
        reliability: Reliability::Reliable,
        payload: packet(sequence).encode_to_vec().into(),
    };
    old.stage.media(data(session, 41));
    let permission = lk::ParticipantPermission {
        can_publish_data: false,
        ..super::full_grant().permission()
    };
    let rights = crate::room::Moderation::Update {
        identity: Identity::from("bob"),
        update: Box::new(lk::UpdateParticipantRequest {
            permission: Some(permission),
            ..Default::default()
        }),
    };
    old.stage.hall.moderate(&room, rights, now, &mut out).unwrap();
    old.stage.act(
        session,
        Action::Audience(lk::SubscriptionPermission {
            all_participants: false,
            track_permissions: Vec::new(),
        }),
    );
    // Nobody receives the camera: its publisher was told so.
    old.stage.pass(SECOND * 6);

    let (mut new, alice, bob) = taken_over(&mut old);
    let room = new.hall.room(ROOM).unwrap();
    let me = room.participant("bob").unwrap();
    let info = me.info();
    assert_eq!((info.name.as_str(), info.metadata.as_str()), ("Robert", "tired"));
    assert_eq!(info.attributes.get("hand").map(String::as_str), Some("up"));
    assert!(!info.permission.unwrap().can_publish_data);
    let muted = new
        .commands()
        .iter()
        .filter(|c| matches!(c, Command::Mute { muted: true, .. }))
        .count();
    assert_eq!(muted, 2);

    // What it had sent is not passed on again. (Its right to send was taken, which is looked at first.)
    let mut out = Outbox::default();
    new.hall
        .stand(bob, Role::Participant, super::full_grant(), &mut out);
    let dropped = |new: &mut Stage, sequence| {
        new.clear();
        new.media(data(bob, sequence));
        new.out.iter().any(|o| matches!(o, Output::DataDropped(_)))
    };
    let kept = std::mem::take(&mut new.out);
    assert!(dropped(&mut new, 41));
    assert!(!dropped(&mut new, 42));
    new.out = kept;

    // What a moderator muted stays so.
    for (sid, mime_type) in [(&mic, "audio/opus"), (&camera, "video/VP8")] {
        new.media(Event::TrackLive {
            session: bob,
            sid: sid.clone(),
            mid: "2".into(),
            mime_type: mime_type.into(),
            simulcast: false,
        });
    }
    new.act(
        bob,
        Action::Mute {
            sid: mic.clone(),
            muted: false,
        },
    );
    let tracks = new.last_info(alice, "bob").unwrap().tracks;
    assert!(tracks.iter().all(|t| t.muted));
    // Its audience is nobody, until it says otherwise; then it is told to send again.
    let subscribed = |new: &Stage| {
        let subscribes = |c: &&Command| matches!(c, Command::Subscribe { session, .. } if *session == alice);
        new.commands().into_iter().filter(subscribes).count()
    };
    assert_eq!(subscribed(&new), 0);
    new.act(
        bob,
        Action::Audience(lk::SubscriptionPermission {
            all_participants: true,
            track_permissions: Vec::new(),
        }),
    );
    assert_eq!(subscribed(&new), 2);
    new.pass(Duration::from_millis(100));
    assert!(new.told(bob).iter().any(
        |n| matches!(n, Notice::WantedLayers { sid, highest: Some(Quality::High), .. } if *sid == camera)
    ));
}

#[test]
fn what_is_not_allowed_here_is_taken_down() {
    let mut old = Old::new();
    let bytes = old.hand_over();
    let mut new = stage_elsewhere(RoomSpec {
        codecs: vec!["opus".into(), "h264".into()],
        ..RoomSpec::open(RoomName::from(ROOM))
    });
    assert!(reserve(&mut new, &bytes));
    let Entered::Anew(bob) = new.try_enter(resumes(&old.sid())).unwrap() else {
        panic!("not anew")
    };
    let gone: Vec<TrackSid> = new
        .told(bob)
        .into_iter()
        .filter_map(|n| match n {
            Notice::TrackUnpublished { sid } => Some(sid),
            _ => None,
        })
        .collect();
    assert_eq!(gone, [old.camera.clone()]);
    let commands = new.commands();
    let adopted = commands.iter().find_map(|c| match c {
        Command::Adopt { state, .. } => Some(state),
        _ => None,
    });
    let state = adopted.unwrap();
    assert!(state.sources.iter().all(|s| s.sid == old.mic));
    let published: Vec<_> = state
        .sections
        .iter()
        .filter_map(|s| s.publishes.clone())
        .collect();
    assert_eq!(published, [old.mic.clone()]);
}

#[test]
fn a_client_that_broke_off_before_it_heard_where_it_is_resumes() {
    let mut old = Old::new();
    let (mut new, _, bob) = taken_over(&mut old);
    new.lose(bob);
    new.clear();
    let entered = new.try_enter(resumes(&old.sid())).unwrap();
    assert_eq!(entered, Entered::Resumed(bob));
    let told = new.told(bob);
    assert!(matches!(told[0], Notice::WelcomeBack { .. }));
    assert!(matches!(told[1], Notice::RoomMoved(_)));
}

#[test]
fn nobody_else_takes_over() {
    let mut old = Old::new();
    let bytes = old.hand_over();
    let mut new = stage_elsewhere(RoomSpec::open(RoomName::from(ROOM)));
    assert!(reserve(&mut new, &bytes));
    let sid = old.sid();
    let stranger = Entry {
        resume: Some(sid.clone()),
        ..entry("mallory")
    };
    assert_eq!(new.try_enter(stranger).unwrap(), Entered::Stale);
    assert_eq!(new.try_enter(resumes("PA_other")).unwrap(), Entered::Stale);
    let dual = Entry {
        topology: Topology::Dual,
        ..resumes(&sid)
    };
    assert_eq!(new.try_enter(dual).unwrap(), Entered::Stale);
    // Who starts anew has the place, and nothing of the old client.
    let Entered::Anew(bob) = new.try_enter(entry("bob")).unwrap() else {
        panic!("not anew")
    };
    assert!(matches!(new.told(bob)[0], Notice::Welcome(_)));
    assert_eq!(new.try_enter(resumes(&sid)).unwrap(), Entered::Stale);
}

#[test]
fn a_takeover_that_never_arrives_leaves_nothing() {
    let mut old = Old::new();
    let bytes = old.hand_over();
    let mut new = stage_elsewhere(RoomSpec {
        max_participants: Some(1),
        ..RoomSpec::open(RoomName::from(ROOM))
    });
    assert!(reserve(&mut new, &bytes));
    assert!(new.try_enter(entry("carol")).is_err());
    new.pass(SECOND * 11);
    assert_eq!(new.try_enter(resumes(&old.sid())).unwrap(), Entered::Stale);
    let carol = new.join("carol");
    new.act(carol, Action::Leave);
    // Meanwhile it goes on where it was.
    assert!(old.stage.hall.room(ROOM).unwrap().participant("bob").is_some());
}

#[test]
fn an_older_session_of_the_identity_gives_way() {
    let mut old = Old::new();
    let bytes = old.hand_over();
    let mut new = stage_elsewhere(RoomSpec::open(RoomName::from(ROOM)));
    let tab = new.join("bob");
    assert!(reserve(&mut new, &bytes));
    let Entered::Anew(bob) = new.try_enter(resumes(&old.sid())).unwrap() else {
        panic!("not anew")
    };
    assert_eq!(new.ended(tab), Some(Some(plenum_errors::Code::DuplicateIdentity)));
    assert_eq!(new.hall.room(ROOM).unwrap().session_of("bob"), Some(bob));
}

#[test]
fn two_connections_are_not_handed_over() {
    let mut stage = Stage::new();
    let bob = stage.join_as(Entry {
        topology: Topology::Dual,
        ..entry("bob")
    });
    stage.clear();
    let mut out = Outbox::default();
    stage.hall.hand_over(bob, &mut out);
    stage.out.extend(out.0);
    assert_eq!(handed(&stage), Some(Vec::new()));
    // Nor one that media can't describe.
    let mut old = Old::new();
    old.stage.clear();
    let session = old.bob;
    old.stage.media(Event::HandedOver { session, state: None });
    assert_eq!(handed(&old.stage), Some(Vec::new()));
    assert!(!reserve(&mut stage, &[]));
}

#[test]
fn a_track_that_ends_meanwhile_is_not_mentioned() {
    let mut old = Old::new();
    let (session, sid) = (old.bob, old.camera.clone());
    old.stage.media(Event::TrackEnded { session, sid });
    let bytes = old.hand_over();
    let mut new = stage_elsewhere(RoomSpec::open(RoomName::from(ROOM)));
    assert!(reserve(&mut new, &bytes));
}

#[test]
fn a_worker_takes_nobody_over_from_itself() {
    let mut old = Old::new();
    let bytes = old.hand_over();
    assert!(!reserve(&mut old.stage, &bytes));
}

#[test]
fn what_is_no_handover_is_refused_and_harms_nothing() {
    let mut old = Old::new();
    let bytes = old.hand_over();
    let good = v1::Handover::decode(bytes.as_slice()).unwrap();
    let refusal = |change: &dyn Fn(&mut v1::Handover)| {
        let mut bad = good.clone();
        change(&mut bad);
        Handover::read(&bad.encode_to_vec()).err()
    };
    assert_eq!(refusal(&|_| {}), None);
    assert_eq!(refusal(&|h| h.version = 2), Some(HandoverError::Version(2)));
    assert_eq!(Handover::read(&[]).err(), Some(HandoverError::Version(0)));
    let contradictions: [&dyn Fn(&mut v1::Handover); 14] = [
        &|h| h.identity.clear(),
        &|h| h.participant_sid.clear(),
        &|h| h.name = "x".repeat(1000),
        &|h| h.tracks.push(h.tracks[0].clone()),
        &|h| h.tracks.clear(),
        &|h| h.tracks[0].cids.clear(),
        &|h| h.tracks[0].told_highest = 9,
        &|h| h.sections[1].mid = h.sections[0].mid.clone(),
        &|h| h.sections[3].kind = 1,
        &|h| h.sections[1].publishes = h.sections[2].publishes.clone(),
        &|h| h.sources[0].track_sid = "TR_other".into(),
        &|h| h.channels[0].label = "chat".into(),
        &|h| h.channels[1].id = h.channels[0].id,
        &|h| h.channels[0].id = 65_535,
    ];
    for (at, change) in contradictions.into_iter().enumerate() {
        assert!(
            matches!(refusal(change), Some(HandoverError::Invalid(_))),
            "{at}: {:?}",
            refusal(change)
        );
    }
    assert_eq!(
        refusal(&|h| h.permission = vec![255]),
        Some(HandoverError::Malformed)
    );

    // Bytes at random, and good ones with damage: an error or something consistent, never a panic.
    let mut numbers = crate::room::Sids::seeded(11);
    let mut next = |below: usize| (numbers.next_u64() % below as u64) as usize;
    for _ in 0..5_000 {
        let noise: Vec<u8> = (0..next(200)).map(|_| next(256) as u8).collect();
        assert!(Handover::read(&noise).is_err());
        let mut damaged = bytes.clone();
        for _ in 0..=next(4) {
            let at = next(damaged.len());
            damaged[at] = next(256) as u8;
        }
        damaged.truncate(damaged.len() - next(3));
        if let Ok(read) = Handover::read(&damaged) {
            let mut new = stage_elsewhere(RoomSpec::open(RoomName::from(ROOM)));
            let (identity, sid) = (read.identity.clone(), read.sid.clone());
            let request = Reserve {
                epoch: 1,
                identity: identity.clone(),
                ttl: SECOND,
                takes_a_place: true,
                token_issued_at_ms: 1_000,
                handover: Some(Box::new(read)),
            };
            let kept = new.hall.reserve(&RoomName::from(ROOM), request, new.now).unwrap();
            assert!(kept);
            let arriving = Entry {
                identity,
                resume: Some(sid),
                ..entry("bob")
            };
            let Entered::Anew(session) = new.try_enter(arriving).unwrap() else {
                panic!("not anew")
            };
            new.media(Event::Connected {
                session,
                leg: Leg::Publisher,
                since_open: SECOND,
            });
            new.act(session, Action::Leave);
            assert_eq!(new.hall.room(ROOM).unwrap().participants().count(), 0);
        }
    }
}
