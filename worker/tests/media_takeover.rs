//! A client goes from one worker to another with the peer connection that it has.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::time::Instant;

use livekit_protocol as lk;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use media_support::channels::{Channels, LOSSY, RELIABLE};
use media_support::people::*;
use media_support::*;
use plenum_worker_api::v1::{self, ClientFrame, client_frame, worker_frame};
use prost::Message as _;

/// The direction of a section of a description.
fn direction(sdp: &str, mid: usize) -> String {
    let section = sdp.split("\r\nm=").nth(mid + 1).unwrap();
    let found = ["sendrecv", "sendonly", "recvonly", "inactive"]
        .into_iter()
        .find(|d| section.contains(&format!("a={d}\r\n")));
    found.unwrap().to_owned()
}

/// Runs both until `done`; `each` goes before every round.
fn both<'a>(
    what: &str,
    (one, other): (&mut Person<'a>, &mut Person<'a>),
    mut each: impl FnMut(&mut Person<'a>, &mut Person<'a>, u16),
    done: impl Fn(&Person<'a>, &Person<'a>) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    let mut round = 0;
    while !done(one, other) {
        assert!(
            Instant::now() < end,
            "{what}: {} got {} packets, {} got {}; told {:#?} and {:#?}",
            one.identity,
            one.client.rtp.len(),
            other.identity,
            other.client.rtp.len(),
            one.told,
            other.told
        );
        round += 1;
        each(one, other, round);
        one.run(10 * MS);
        other.run(10 * MS);
    }
}

/// Bob leaves Alice on the old worker for Carol on the new one. `begins`: his data channels begin a new
/// association, else he waits for the server's.
fn takeover(begins: bool) {
    let cluster = Cluster::start();
    let mut alice = Person::join(&cluster, OLD, "alice", true);
    let mut bob = Person::join(&cluster, OLD, "bob", true);
    both(
        "before",
        (&mut alice, &mut bob),
        |alice, bob, round| {
            alice.talk(round, true);
            bob.talk(round, true);
        },
        |alice, bob| [alice, bob].iter().all(|p| p.heard() && p.saw(2)),
    );
    let receiving = (direction(&bob.answers.last().unwrap().1, 3), 3);
    assert_eq!(receiving.0, "sendonly", "Alice's voice");

    let mut carol = Person::join(&cluster, NEW, "carol", true);
    let state = bob.hand_over();
    assert!(!state.is_empty());
    assert!(cluster.reserve("bob", state));
    bob.hang_up();
    alice.until("Bob is gone", |alice| {
        alice.told.iter().any(|r| match r {
            Response::Update(update) => update
                .participants
                .iter()
                .any(|p| p.identity == "bob" && p.state == lk::participant_info::State::Disconnected as i32),
            _ => false,
        })
    });
    bob.run(50 * MS);
    assert!(!bob.client.closed, "his transport is in use elsewhere");
    assert_eq!(cluster.people(&cluster.old), ["alice"]);

    // The first message is that of a resume, the second says where.
    bob.resume_elsewhere();
    bob.until("greeting", |p| p.told.len() >= 2);
    assert!(matches!(bob.told[0], Response::Reconnect(_)), "{:?}", bob.told[0]);
    let Response::RoomMoved(moved) = bob.told[1].clone() else {
        panic!("{:?}", bob.told[1])
    };
    assert_eq!(moved.room.unwrap().name, NEW);
    let others: Vec<String> = moved.other_participants.into_iter().map(|p| p.identity).collect();
    assert_eq!(others, ["carol"]);

    // What the gateway says waits for his data channel.
    bob.frame(client_frame::Frame::Tell(NEWS.into()));

    // All sections, an ICE restart, and silence about which stream is which; a section may have lost the
    // name that its track had at first.
    bob.client.restart("bob2");
    bob.sections[1] = audio("sendonly", Some("another-microphone"));
    bob.client.rtp.clear();
    bob.client.rtcp.clear();
    bob.client.data = Some(Channels::new(begins, false));
    carol.client.rtp.clear();
    let id = bob.offer();
    let answer = bob.answer(id);
    assert_eq!(
        (direction(&answer, 1), direction(&answer, 2)),
        ("recvonly".into(), "recvonly".into())
    );
    for mid in [3, 4] {
        assert_eq!(
            direction(&answer, mid),
            "inactive",
            "what carried Alice must be seen to end"
        );
    }
    bob.client.connect(&answer);

    both(
        "after",
        (&mut bob, &mut carol),
        |bob, carol, round| {
            bob.talk(1_000 + round, false);
            carol.talk(round, true);
        },
        |bob, carol| [bob, carol].iter().all(|p| p.heard() && p.saw(2)),
    );
    let answer = bob.answers.last().unwrap().1.clone();
    assert_eq!(direction(&answer, 3), "sendonly", "and is used for Carol");
    assert_eq!(answer.matches("m=").count(), bob.sections.len());

    both(
        "channels",
        (&mut bob, &mut carol),
        |_, _, _| {},
        |bob, _| bob.client.data.as_ref().unwrap().open(),
    );
    bob.until("told", |bob| bob.told_data(RELIABLE, NEWS));
    bob.say(RELIABLE, "hello", 8);
    both(
        "data",
        (&mut bob, &mut carol),
        |bob, carol, round| {
            bob.say(LOSSY, "perhaps", 0);
            carol.say(LOSSY, "perhaps", 0);
            if round == 1 {
                carol.say(RELIABLE, "welcome", 1);
            }
        },
        |bob, carol| {
            carol.told_data(RELIABLE, "hello")
                && carol.told_data(LOSSY, "perhaps")
                && bob.told_data(RELIABLE, "welcome")
                && bob.told_data(LOSSY, "perhaps")
        },
    );
    let data = bob.client.data.as_ref().unwrap();
    assert!(data.acknowledged.is_empty(), "nobody opened a channel");
    let told_to_leave = |r: &Response| matches!(r, Response::Leave(_));
    assert!(!bob.told.iter().any(told_to_leave), "his channels are alive");
    assert_eq!(cluster.people(&cluster.new), ["carol", "bob"]);

    // Where it came from nothing is left, and it can go on for long: Alice is alone and well.
    bob.hang_up();
    carol.until("Bob is gone", |_| cluster.people(&cluster.new) == ["carol"]);
}

#[test]
fn a_client_goes_to_another_worker_with_its_connection() {
    takeover(true);
}

#[test]
fn data_goes_on_where_the_client_does_not_begin_the_association() {
    takeover(false);
}

/// Chromium closes a channel on which something is sent while it takes the new worker's answer, and tells
/// nobody.
#[test]
fn a_client_that_lost_its_channel_on_the_way_is_told_to_connect_anew() {
    for lost in [RELIABLE, LOSSY] {
        let cluster = Cluster::start();
        let mut bob = Person::join(&cluster, OLD, "bob", true);
        let state = bob.hand_over();
        assert!(cluster.reserve("bob", state));
        bob.hang_up();
        bob.resume_elsewhere();
        bob.client.restart("bob2");
        let mut channels = Channels::new(true, false);
        channels.closed.insert(lost);
        bob.client.data = Some(channels);
        let id = bob.offer();
        let answer = bob.answer(id);
        bob.client.connect(&answer);
        let leave = bob.response("what to do", |r| match r {
            Response::Leave(leave) => Some(leave.clone()),
            _ => None,
        });
        assert_eq!(leave.action(), lk::leave_request::Action::Reconnect);
    }
}

#[test]
fn pictures_are_asked_for_until_they_come() {
    let cluster = Cluster::start();
    let mut bob = Person::join(&cluster, OLD, "bob", true);
    let mut carol = Person::join(&cluster, NEW, "carol", false);
    for round in 0..20 {
        bob.talk(round, true);
        bob.run(10 * MS);
    }
    let state = bob.hand_over();
    assert!(cluster.reserve("bob", state));
    bob.hang_up();
    bob.resume_elsewhere();
    bob.client.restart("bob2");
    bob.client.rtcp.clear();
    bob.client.data = Some(Channels::new(true, false));
    let id = bob.offer();
    let answer = bob.answer(id);
    bob.client.connect(&answer);
    // He sends nothing, and is asked for what he has not named here.
    let asked = |bob: &Person<'_>| -> Vec<u32> {
        let asked = feedback(&bob.client, 206, 1);
        let media = asked
            .iter()
            .map(|p| u32::from_be_bytes([p[8], p[9], p[10], p[11]]));
        media.collect()
    };
    both(
        "asked twice",
        (&mut bob, &mut carol),
        |_, _, _| {},
        |bob, _| asked(bob).len() > 1,
    );
    assert!(asked(&bob).iter().all(|ssrc| (21..=23).contains(ssrc)));
    both(
        "a picture",
        (&mut bob, &mut carol),
        |bob, _, round| bob.talk(1_000 + round, false),
        |_, carol| carol.saw(2),
    );
}

#[test]
fn who_is_muted_stays_so() {
    let cluster = Cluster::start();
    let mut bob = Person::join(&cluster, OLD, "bob", true);
    let mut carol = Person::join(&cluster, NEW, "carol", false);
    let mic = bob.response("microphone", |r| match r {
        Response::TrackPublished(published) if published.cid == "mic" => published.track.clone(),
        _ => None,
    });
    let mute = |muted| {
        Request::Mute(lk::MuteTrackRequest {
            sid: mic.sid.clone(),
            muted,
        })
    };
    bob.request(mute(true));
    bob.talk(1, true);
    let state = bob.hand_over();
    assert!(cluster.reserve("bob", state));
    bob.hang_up();
    bob.resume_elsewhere();
    bob.client.restart("bob2");
    bob.client.data = None;
    let id = bob.offer();
    let answer = bob.answer(id);
    bob.client.connect(&answer);
    let talk = |bob: &mut Person<'_>, _: &mut Person<'_>, round| bob.talk(1_000 + round, true);
    both("a picture", (&mut bob, &mut carol), talk, |_, carol| carol.saw(2));
    for round in 0..20 {
        talk(&mut bob, &mut carol, 2_000 + round);
        carol.run(10 * MS);
    }
    assert!(!carol.heard(), "microphones are not opened by a move");
    bob.request(mute(false));
    let talk = |bob: &mut Person<'_>, _: &mut Person<'_>, round| bob.talk(4_000 + round, true);
    both("sound", (&mut bob, &mut carol), talk, |_, carol| carol.heard());
}

#[test]
fn what_cannot_be_taken_over_is_said_to_be_so() {
    let cluster = Cluster::start();
    // Two peer connections: nothing is handed over.
    let request = lk::JoinRequest::default();
    let start = start_frame(OLD, "dual", &request, true);
    let mut session = cluster.runtime.block_on(cluster.old.enter(start, 1)).unwrap();
    let frame = ClientFrame {
        seq: 2,
        frame: Some(client_frame::Frame::HandOver(v1::HandOver {})),
    };
    cluster
        .runtime
        .block_on(cluster.old.frame(session.connection, frame));
    let state = cluster.runtime.block_on(async {
        loop {
            let frame = session.frames.recv().await.unwrap();
            if let Some(worker_frame::Frame::HandedOver(state)) = frame.frame {
                return state;
            }
        }
    });
    assert!(state.is_empty());
    assert!(!cluster.reserve("dual", state));

    // Nor is somebody else's state, damaged state, or nonsense taken; the place is kept all the same.
    let mut bob = Person::join(&cluster, OLD, "bob", true);
    let state = bob.hand_over();
    assert!(!cluster.reserve("mallory", state.clone()));
    assert!(!cluster.reserve("bob", b"no handover".to_vec()));
    let mut newer = v1::Handover::decode(state.as_slice()).unwrap();
    newer.version += 1;
    assert!(!cluster.reserve("bob", newer.encode_to_vec()));
    let mut cut = state.clone();
    cut.truncate(state.len() / 2);
    assert!(!cluster.reserve("bob", cut));
    // The client starts anew, which is what it is told then.
    let carol = Person::join(&cluster, NEW, "bob", true);
    assert_eq!(cluster.people(&cluster.new), ["bob"]);
    drop(carol);
}

#[test]
fn a_client_that_stays_after_all_goes_on() {
    let cluster = Cluster::start();
    let mut alice = Person::join(&cluster, OLD, "alice", false);
    let mut bob = Person::join(&cluster, OLD, "bob", true);
    let state = bob.hand_over();
    assert!(cluster.reserve("bob", state));
    both(
        "he is seen",
        (&mut bob, &mut alice),
        |bob, _, round| bob.talk(round, true),
        |_, alice| alice.heard() && alice.saw(2),
    );
    // Nobody came: the new worker shows nobody.
    assert!(cluster.people(&cluster.new).is_empty());
}
