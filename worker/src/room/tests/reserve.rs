//! Places kept for people on the way.

use std::time::Duration;

use plenum_errors::Code;

use super::{ROOM, Stage, entry};
use crate::room::{Entered, Grant, Identity, Outbox, Reserve, RoomName, RoomSpec};

const SECOND: Duration = Duration::from_secs(1);

fn request(identity: &str) -> Reserve {
    Reserve {
        epoch: 1,
        identity: Identity::from(identity),
        ttl: SECOND * 10,
        takes_a_place: true,
        token_issued_at_ms: 1_000,
        handover: None,
    }
}

fn reserve(stage: &mut Stage, request: Reserve) -> Result<(), Code> {
    let name = RoomName::from(ROOM);
    stage
        .hall
        .reserve(&name, request, stage.now)
        .map(|may_resume| assert!(!may_resume))
        .map_err(|error| error.code)
}

fn with_places(most: u32) -> Stage {
    Stage::with(RoomSpec {
        max_participants: Some(most),
        ..RoomSpec::open(RoomName::from(ROOM))
    })
}

fn refusal(stage: &mut Stage, identity: &str) -> Option<Code> {
    stage.try_enter(entry(identity)).err().map(|error| error.code)
}

#[test]
fn a_kept_place_is_taken_for_everybody_else_and_free_for_its_owner() {
    let mut stage = with_places(2);
    stage.join("alice");
    reserve(&mut stage, request("bob")).unwrap();
    assert_eq!(refusal(&mut stage, "carol"), Some(Code::MeetingFull));
    assert_eq!(reserve(&mut stage, request("carol")), Err(Code::MeetingFull));
    // Asked for twice it is still one.
    reserve(&mut stage, request("bob")).unwrap();
    let bob = stage.join("bob");
    // Taken: when bob leaves, somebody else may have the place.
    stage.act(bob, crate::room::Action::Leave);
    assert_eq!(refusal(&mut stage, "carol"), None);
    assert_eq!(refusal(&mut stage, "bob"), Some(Code::MeetingFull));
}

#[test]
fn a_place_is_kept_for_its_time_only() {
    let mut stage = with_places(1);
    reserve(&mut stage, request("bob")).unwrap();
    stage.pass(SECOND * 9);
    assert_eq!(refusal(&mut stage, "carol"), Some(Code::MeetingFull));
    stage.pass(SECOND * 2);
    stage.join("carol");
    assert_eq!(refusal(&mut stage, "bob"), Some(Code::MeetingFull));

    // The second reservation of an identity replaces the first, its time too; half a minute at most.
    let mut stage = with_places(1);
    reserve(&mut stage, request("bob")).unwrap();
    stage.pass(SECOND * 5);
    let long = Reserve {
        ttl: SECOND * 3600,
        ..request("bob")
    };
    reserve(&mut stage, long).unwrap();
    stage.pass(SECOND * 29);
    assert_eq!(refusal(&mut stage, "carol"), Some(Code::MeetingFull));
    stage.pass(SECOND * 2);
    stage.join("carol");
}

#[test]
fn neither_the_lock_nor_the_limit_of_the_worker_stops_who_is_expected() {
    let mut stage = Stage::with(RoomSpec {
        locked: true,
        ..RoomSpec::open(RoomName::from(ROOM))
    });
    assert_eq!(refusal(&mut stage, "bob"), Some(Code::MeetingLocked));
    stage.hall.limit_sessions(Some(1));
    reserve(&mut stage, request("bob")).unwrap();
    assert_eq!(reserve(&mut stage, request("carol")), Err(Code::NoCapacity));
    reserve(&mut stage, request("bob")).unwrap();
    stage.join("bob");
    // Present and expected again (it comes by another way): one session, not two.
    reserve(&mut stage, request("bob")).unwrap();
    stage.hall.limit_sessions(Some(2));
    reserve(&mut stage, request("carol")).unwrap();
    assert_eq!(reserve(&mut stage, request("dave")), Err(Code::NoCapacity));
}

#[test]
fn programs_take_no_place() {
    let mut stage = with_places(1);
    let recorder = Reserve {
        takes_a_place: false,
        ..request("recorder")
    };
    reserve(&mut stage, recorder).unwrap();
    reserve(&mut stage, request("bob")).unwrap();
    let recorder = super::Entry {
        grant: Grant {
            recorder: true,
            ..super::full_grant()
        },
        ..entry("recorder")
    };
    stage.join_as(recorder);
    stage.join("bob");
}

#[test]
fn what_cannot_be_kept_is_refused_by_its_code() {
    let mut stage = Stage::new();
    let elsewhere = RoomName::from("team/elsewhere");
    let unknown = stage.hall.reserve(&elsewhere, request("bob"), stage.now);
    assert_eq!(unknown.unwrap_err().code, Code::RoomNotFound);
    let stale = Reserve {
        epoch: 2,
        ..request("bob")
    };
    assert_eq!(reserve(&mut stage, stale), Err(Code::EpochStale));
    assert_eq!(reserve(&mut stage, request("")), Err(Code::IdentityMissing));

    stage.join("bob");
    let name = RoomName::from(ROOM);
    let mut out = Outbox::default();
    stage
        .hall
        .expel(&name, &Identity::from("bob"), true, stage.now, &mut out)
        .unwrap();
    assert_eq!(reserve(&mut stage, request("bob")), Err(Code::TokenRevoked));
    let newer = Reserve {
        token_issued_at_ms: stage.now.unix_ms + 1_000,
        ..request("bob")
    };
    reserve(&mut stage, newer).unwrap();
    // The reservation does not outlive a revocation either.
    let old = stage.try_enter(entry("bob"));
    assert_eq!(old.unwrap_err().code, Code::TokenRevoked);
}

#[test]
fn a_room_that_expects_somebody_is_not_over() {
    let mut stage = Stage::with(RoomSpec {
        empty_timeout: Some(SECOND * 5),
        ..RoomSpec::open(RoomName::from(ROOM))
    });
    let ended = |stage: &Stage| stage.hall.room(ROOM).unwrap().standing().ended_at_ms != 0;
    reserve(&mut stage, request("bob")).unwrap();
    stage.pass(SECOND * 9);
    assert!(!ended(&stage));
    stage.pass(SECOND * 2);
    assert!(ended(&stage));
}

#[test]
fn a_stale_resume_leaves_the_place_for_the_new_start() {
    let mut stage = with_places(1);
    reserve(&mut stage, request("bob")).unwrap();
    let resumes = super::Entry {
        resume: Some("PA_elsewhere".into()),
        ..entry("bob")
    };
    assert_eq!(stage.try_enter(resumes).unwrap(), Entered::Stale);
    assert_eq!(refusal(&mut stage, "carol"), Some(Code::MeetingFull));
    stage.join("bob");
}
