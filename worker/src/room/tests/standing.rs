//! Roles and rights that change.

use livekit_protocol as lk;

use super::rooms::unsubscribed;
use super::{ROOM, Stage, audio, entry};
use crate::room::{Action, Identity, Moderation, Outbox, Role, RoomName};
use crate::session::api::Command;

#[test]
fn a_new_standing_is_in_force_at_once_and_seen_by_all() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join("alice"), stage.join("bob"));
    let (mic, of_bob) = (stage.publish(alice, audio("mic")), stage.publish(bob, audio("b")));
    let stand = |stage: &mut Stage, role: Role, change: fn(&mut plenum_token::VideoGrant)| {
        let mut grant = role.grant(ROOM);
        change(&mut grant);
        let mut out = Outbox::default();
        stage.hall.stand(alice, role, grant.into(), &mut out);
        stage.out.extend(out.0);
    };
    let before = stage.last_info(bob, "alice").unwrap();
    assert_eq!(before.attributes[plenum_protocol::ROLE_ATTRIBUTE], "participant");
    stage.clear();
    stand(&mut stage, Role::Cohost, |_| {});
    let after = stage.last_info(bob, "alice").unwrap();
    assert_eq!(after.attributes[plenum_protocol::ROLE_ATTRIBUTE], "cohost");
    assert!(after.version > before.version);
    assert!(stage.commands().is_empty(), "it may do all it did");
    assert_eq!(
        stage.hall.room(ROOM).unwrap().participant("alice").unwrap().role,
        Role::Cohost
    );

    stand(&mut stage, Role::Viewer, |grant| {
        grant.can_subscribe = Some(false)
    });
    assert!(unsubscribed(&stage, alice, &of_bob));
    assert!(
        stage
            .commands()
            .iter()
            .any(|c| matches!(c, Command::RemoveTrack { sid, .. } if *sid == mic))
    );
    let info = stage.last_info(alice, "alice").unwrap();
    let permission = info.permission.unwrap();
    assert!(!permission.can_publish && !permission.can_subscribe);
}

#[test]
fn nobody_writes_their_own_role() {
    let mut stage = Stage::new();
    let mine = |role: &str| [(plenum_protocol::ROLE_ATTRIBUTE.to_owned(), role.to_owned())].into();
    let mut bold = entry("alice");
    bold.attributes = mine("host");
    bold.grant.update_metadata = true;
    let alice = stage.join_as(bold);
    let role = |stage: &Stage| {
        let room = stage.hall.room(ROOM).unwrap();
        room.participant("alice").unwrap().info().attributes[plenum_protocol::ROLE_ATTRIBUTE].clone()
    };
    assert_eq!(role(&stage), "participant");
    for value in ["host", ""] {
        stage.act(
            alice,
            Action::Describe(lk::UpdateParticipantMetadata {
                attributes: mine(value),
                ..Default::default()
            }),
        );
        assert_eq!(role(&stage), "participant");
    }
    let update = Moderation::Update {
        identity: Identity::from("alice"),
        update: Box::new(lk::UpdateParticipantRequest {
            attributes: mine("host"),
            ..Default::default()
        }),
    };
    let mut out = Outbox::default();
    stage
        .hall
        .moderate(&RoomName::from(ROOM), update, stage.now, &mut out)
        .unwrap();
    assert_eq!(role(&stage), "participant");
}
