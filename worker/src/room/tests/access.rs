//! Who gets in, who has to go, and what a grant allows.

use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::leave_request::Action as LeaveAction;
use livekit_protocol::request_response::Reason;
use plenum_errors::Code;
use plenum_token::{Role, VideoGrant};

use super::{ROOM, Stage, audio, entry, full_grant, video};
use crate::room::{Action, EndReason, Grant, Identity, Notice, Outbox, RoomName, RoomSpec, Welcome};
use crate::session::api::{Command, Topology};

fn welcome(stage: &Stage, session: crate::session::api::SessionId) -> Welcome {
    match stage.told(session).into_iter().next() {
        Some(Notice::Welcome(welcome)) => *welcome,
        other => panic!("first notice is {other:?}"),
    }
}

#[test]
fn a_newcomer_is_welcomed_first_and_shown_to_the_others() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    stage.clear();
    let bob = stage.join("bob");
    let welcome = welcome(&stage, bob);
    assert_eq!(welcome.others.len(), 1);
    assert_eq!(welcome.others[0].identity, "alice");
    assert!(welcome.me.sid.starts_with("PA_") && welcome.room.sid.starts_with("RM_"));
    assert!(welcome.me.permission.is_some() && !welcome.dual);
    let seen = stage.last_info(alice, "bob").unwrap();
    assert_eq!(seen.state, lk::participant_info::State::Active as i32);
    assert_eq!(seen.name, "BOB");
}

#[test]
fn two_peer_connections_are_said_in_the_welcome() {
    let mut stage = Stage::new();
    let session = match stage.try_enter(super::Entry {
        topology: Topology::Dual,
        ..entry("old")
    }) {
        Ok(crate::room::Entered::Anew(session)) => session,
        other => panic!("{other:?}"),
    };
    assert!(welcome(&stage, session).dual);
}

#[test]
fn the_newest_of_one_identity_wins() {
    let mut stage = Stage::new();
    let first = stage.join("alice");
    let watcher = stage.join("bob");
    stage.clear();
    let second = stage.join("alice");
    assert_ne!(first, second);
    assert_eq!(
        stage.goodbye(first).unwrap().reason,
        lk::DisconnectReason::DuplicateIdentity
    );
    assert_eq!(stage.ended(first), Some(Some(Code::DuplicateIdentity)));
    let states: Vec<i32> = stage
        .told(watcher)
        .into_iter()
        .filter_map(|n| match n {
            Notice::Participants(i) => Some(i[0].state),
            _ => None,
        })
        .collect();
    // Gone, then there again: in that order, or clients delete the newcomer.
    assert_eq!(
        states.first(),
        Some(&(lk::participant_info::State::Disconnected as i32))
    );
    assert_eq!(states.last(), Some(&(lk::participant_info::State::Active as i32)));
    assert_eq!(stage.hall.room(ROOM).unwrap().participants().count(), 2);
}

#[test]
fn a_full_room_refuses_but_not_those_who_come_back_nor_programs() {
    let mut stage = Stage::with(RoomSpec {
        max_participants: Some(2),
        ..RoomSpec::open(RoomName::from(ROOM))
    });
    stage.join("alice");
    stage.join("bob");
    assert_eq!(
        stage.try_enter(entry("carol")).unwrap_err().code,
        Code::MeetingFull
    );
    assert!(stage.hall.check(&entry("carol")).is_err());
    stage.join("alice");
    let mut robot = entry("robot");
    robot.kind = lk::participant_info::Kind::Agent;
    stage.join_as(robot);
    assert_eq!(
        stage.try_enter(entry("carol")).unwrap_err().code,
        Code::MeetingFull
    );
}

#[test]
fn only_hosts_enter_a_locked_room() {
    let mut stage = Stage::with(RoomSpec {
        locked: true,
        ..RoomSpec::open(RoomName::from(ROOM))
    });
    assert_eq!(
        stage.try_enter(entry("carol")).unwrap_err().code,
        Code::MeetingLocked
    );
    for role in [Role::Host, Role::Cohost] {
        stage.join_as(super::Entry {
            role,
            ..entry(role.as_str())
        });
    }
}

#[test]
fn wrong_epoch_missing_identity_and_missing_right_are_refused() {
    let mut stage = Stage::new();
    let cases = [
        (
            super::Entry {
                epoch: 2,
                ..entry("a")
            },
            Code::EpochStale,
        ),
        (
            super::Entry {
                identity: Identity::from(""),
                ..entry("a")
            },
            Code::IdentityMissing,
        ),
        (
            super::Entry {
                identity: Identity::from("x".repeat(129)),
                ..entry("a")
            },
            Code::IdentityMissing,
        ),
        (
            super::Entry {
                grant: Grant {
                    join: false,
                    ..full_grant()
                },
                ..entry("a")
            },
            Code::NotPermitted,
        ),
        (
            super::Entry {
                room: RoomName::from("team/other"),
                ..entry("a")
            },
            Code::RoomNotFound,
        ),
    ];
    for (entry, code) in cases {
        assert_eq!(stage.hall.check(&entry).unwrap_err().code, code);
        assert_eq!(stage.try_enter(entry).unwrap_err().code, code);
    }
    stage.join_as(super::Entry {
        epoch: 0,
        ..entry("any-epoch")
    });
}

#[test]
fn a_removed_participant_stays_out_with_the_old_token() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let mut out = Outbox::default();
    let room = RoomName::from(ROOM);
    assert!(
        stage
            .hall
            .expel(&room, &Identity::from("alice"), true, stage.now, &mut out)
            .unwrap()
    );
    stage.out.extend(out.0);
    assert_eq!(
        stage.goodbye(alice).unwrap().reason,
        lk::DisconnectReason::ParticipantRemoved
    );
    assert_eq!(stage.ended(alice), Some(Some(Code::ParticipantRemoved)));
    let issued = |at| super::Entry {
        token_issued_at_ms: at,
        ..entry("alice")
    };
    for old in [0, 1_000, stage.now.unix_ms] {
        assert_eq!(stage.try_enter(issued(old)).unwrap_err().code, Code::TokenRevoked);
    }
    stage.join_as(issued(stage.now.unix_ms + 1_000));
    // Without revocation the same token works again.
    let mut out = Outbox::default();
    stage
        .hall
        .expel(&room, &Identity::from("alice"), false, stage.now, &mut out)
        .unwrap();
    stage.join_as(issued(stage.now.unix_ms + 1_000));
    assert!(
        !stage
            .hall
            .expel(&room, &Identity::from("nobody"), false, stage.now, &mut out)
            .unwrap()
    );
}

#[test]
fn publishing_needs_the_right_and_the_source() {
    let mut stage = Stage::new();
    let grant = VideoGrant {
        room_join: true,
        can_publish_sources: vec!["microphone".into()],
        ..VideoGrant::default()
    };
    let session = stage.join_as(super::Entry {
        grant: Grant::from(grant),
        ..entry("a")
    });
    let viewer = stage.join_as(super::Entry {
        grant: Grant::from(Role::Viewer.grant(ROOM)),
        ..entry("v")
    });
    for (who, request, reason) in [
        (session, video("camera"), Reason::NotAllowed),
        (viewer, audio("mic"), Reason::NotAllowed),
        (
            session,
            lk::AddTrackRequest {
                r#type: 2,
                ..audio("data")
            },
            Reason::InvalidRequest,
        ),
        (
            session,
            lk::AddTrackRequest {
                cid: String::new(),
                ..audio("")
            },
            Reason::InvalidRequest,
        ),
        (
            session,
            lk::AddTrackRequest {
                sid: "TR_none".into(),
                ..audio("x")
            },
            Reason::NotFound,
        ),
    ] {
        stage.clear();
        stage.act(who, Action::AddTrack(Box::new(request)));
        match stage.told(who).as_slice() {
            [Notice::Request(failure)] => assert_eq!(failure.reason, reason),
            other => panic!("{other:?}"),
        }
        assert!(stage.commands().is_empty());
    }
    stage.publish(session, audio("mic"));
}

#[test]
fn an_unknown_source_in_the_grant_allows_no_track() {
    let grant = VideoGrant {
        can_publish_sources: vec!["hologram".into()],
        ..VideoGrant::default()
    };
    assert!(!Grant::from(grant).may_publish(lk::TrackSource::Camera as i32));
}

#[test]
fn a_viewer_receives_nothing_without_the_right() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let deaf = stage.join_as(super::Entry {
        grant: Grant {
            subscribe: false,
            ..full_grant()
        },
        ..entry("d")
    });
    stage.clear();
    let sid = stage.publish(alice, audio("mic"));
    stage.act(
        deaf,
        Action::Subscribe {
            sids: vec![sid],
            on: true,
        },
    );
    assert!(
        !stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::Subscribe { .. }))
    );
}

#[test]
fn own_metadata_needs_the_right_and_is_answered() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let bob = stage.join_as(super::Entry {
        grant: Grant {
            update_metadata: false,
            ..full_grant()
        },
        ..entry("bob")
    });
    let update = lk::UpdateParticipantMetadata {
        metadata: "m".into(),
        name: "New".into(),
        attributes: [("hand".to_owned(), "up".to_owned())].into(),
        request_id: 9,
    };
    stage.clear();
    stage.act(alice, Action::Describe(update.clone()));
    let seen = stage.last_info(bob, "alice").unwrap();
    assert_eq!((seen.name.as_str(), seen.metadata.as_str()), ("New", "m"));
    assert_eq!(stage.last_info(alice, "alice").unwrap().attributes["hand"], "up");
    let answer = |stage: &Stage, who| {
        stage.told(who).into_iter().find_map(|n| match n {
            Notice::Request(f) => Some((f.request_id, f.reason)),
            _ => None,
        })
    };
    assert_eq!(answer(&stage, alice), Some((9, Reason::Ok)));
    stage.clear();
    stage.act(bob, Action::Describe(update.clone()));
    assert_eq!(answer(&stage, bob), Some((9, Reason::NotAllowed)));
    assert!(stage.last_info(alice, "bob").is_none());
    stage.clear();
    let long = lk::UpdateParticipantMetadata {
        metadata: "x".repeat(64_001),
        ..update
    };
    stage.act(alice, Action::Describe(long));
    assert_eq!(answer(&stage, alice), Some((9, Reason::LimitExceeded)));
}

#[test]
fn the_hidden_are_seen_by_nobody_but_see_everyone() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    stage.clear();
    let ghost = stage.join_as(super::Entry {
        grant: Grant {
            hidden: true,
            ..full_grant()
        },
        ..entry("ghost")
    });
    assert_eq!(welcome(&stage, ghost).others.len(), 1);
    assert!(stage.last_info(alice, "ghost").is_none());
    stage.publish(ghost, audio("mic"));
    assert!(
        !stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::Subscribe { .. }))
    );
    stage.clear();
    let bob = stage.join("bob");
    assert_eq!(welcome(&stage, bob).others.len(), 1);
    stage.act(ghost, Action::Leave);
    assert!(stage.last_info(alice, "ghost").is_none());
}

#[test]
fn releasing_a_room_says_goodbye_to_all() {
    for (reason, told, action, code) in [
        (
            EndReason::Deleted,
            lk::DisconnectReason::RoomDeleted,
            LeaveAction::Disconnect,
            Code::MeetingEnded,
        ),
        (
            EndReason::Closed,
            lk::DisconnectReason::RoomClosed,
            LeaveAction::Disconnect,
            Code::MeetingEnded,
        ),
        (
            EndReason::Moved,
            lk::DisconnectReason::Migration,
            LeaveAction::Reconnect,
            Code::EpochStale,
        ),
    ] {
        let mut stage = Stage::new();
        let sessions = [stage.join("alice"), stage.join("bob")];
        stage.clear();
        let room = RoomName::from(ROOM);
        let mut out = Outbox::default();
        stage.hall.release(&room, 1, reason, stage.now, &mut out).unwrap();
        stage.hall.release(&room, 1, reason, stage.now, &mut out).unwrap();
        stage.out.extend(out.0);
        for session in sessions {
            let goodbye = stage.goodbye(session).unwrap();
            assert_eq!((goodbye.reason, goodbye.action), (told, action));
            assert_eq!(stage.ended(session), Some(Some(code)));
            // Nobody is told of each departure on top of it.
            assert_eq!(stage.told(session).len(), 1);
        }
        assert_eq!(
            stage.try_enter(entry("late")).unwrap_err().code,
            Code::RoomNotFound
        );
    }
}

#[test]
fn a_lower_epoch_is_refused_and_a_higher_one_starts_anew() {
    let mut stage = Stage::new();
    let alice = stage.join("alice");
    let spec = |epoch| RoomSpec {
        epoch,
        ..RoomSpec::open(RoomName::from(ROOM))
    };
    stage.assign(spec(5));
    assert_eq!(stage.ended(alice), Some(Some(Code::EpochStale)));
    let mut out = Outbox::default();
    assert_eq!(
        stage.hall.assign(spec(4), stage.now, &mut out).unwrap_err().code,
        Code::EpochStale
    );
    let error = stage
        .hall
        .release(&RoomName::from(ROOM), 4, EndReason::Deleted, stage.now, &mut out);
    assert_eq!(error.unwrap_err().code, Code::EpochStale);
    assert!(stage.hall.room(ROOM).is_some());
    // The same epoch updates in place.
    let sid = stage.hall.room(ROOM).unwrap().sid().clone();
    stage.assign(RoomSpec {
        locked: true,
        ..spec(5)
    });
    assert_eq!(stage.hall.room(ROOM).unwrap().sid(), &sid);
}

#[test]
fn a_draining_worker_takes_no_new_room_but_keeps_its_own() {
    let mut stage = Stage::new();
    stage.hall.set_draining(true);
    let mut out = Outbox::default();
    let other = RoomSpec::open(RoomName::from("team/other"));
    assert_eq!(
        stage.hall.assign(other, stage.now, &mut out).unwrap_err().code,
        Code::WorkerDraining
    );
    stage.assign(RoomSpec {
        metadata: "new".into(),
        ..RoomSpec::open(RoomName::from(ROOM))
    });
    let alice = stage.join("alice");
    stage.pass(Duration::from_secs(2));
    assert!(
        stage
            .told(alice)
            .iter()
            .any(|n| matches!(n, Notice::Room(r) if r.metadata == "new"))
    );
}
