//! The meeting's hub over real mutual TLS.

use plenum_worker_api::v1::meeting_down::Frame as Down;
use plenum_worker_api::v1::meeting_up::Frame as Up;
use plenum_worker_api::v1::{Attach, Here, MeetingDown, MeetingEntry, MeetingUp, Superseded};
use tonic::{Status, Streaming};

use super::*;

/// A gateway's stream to the hub.
struct Gateway {
    up: mpsc::Sender<MeetingUp>,
    down: Streaming<MeetingDown>,
}

impl Gateway {
    async fn open(pod: &Pod, first: Up) -> Result<Self, Status> {
        let (up, frames) = mpsc::channel(16);
        up.send(MeetingUp { frame: Some(first) }).await.unwrap();
        let mut client = pod.signal(GATEWAY_NAME).await;
        let down = client.meeting(ReceiverStream::new(frames)).await?.into_inner();
        Ok(Self { up, down })
    }

    async fn attach(pod: &Pod, epoch: u64, tail: &[MeetingEntry]) -> Result<Self, Status> {
        let attach = Attach {
            meeting: "team/standup".into(),
            epoch,
            tail: tail.to_vec(),
            standing_json: String::new(),
        };
        Self::open(pod, Up::Attach(attach)).await
    }

    async fn say(&self, frame: Up) {
        self.up.send(MeetingUp { frame: Some(frame) }).await.unwrap();
    }

    async fn post(&self, signal_json: &str) {
        let post = v1::Post {
            signal_json: signal_json.into(),
            audience_json: "\"everyone\"".into(),
        };
        self.say(Up::Post(post)).await;
    }

    async fn here(&self, identity: &str, nonce: &str, room: &str) {
        let here = Here {
            identity: identity.into(),
            nonce: nonce.into(),
            room: room.into(),
            role: "participant".into(),
            ..Here::default()
        };
        self.say(Up::Here(here)).await;
    }

    /// `None`: the stream is over.
    async fn next(&mut self) -> Option<Down> {
        let frame = tokio::time::timeout(Duration::from_secs(30), self.down.message());
        frame.await.expect("nothing came").unwrap()?.frame
    }

    async fn entry(&mut self) -> Option<MeetingEntry> {
        loop {
            if let Down::Entry(entry) = self.next().await? {
                return Some(entry);
            }
        }
    }

    async fn entries(&mut self, count: usize) -> Vec<MeetingEntry> {
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(self.entry().await.expect("the stream ended"));
        }
        entries
    }
}

fn broadcast(text: &str) -> String {
    format!(r#"{{"signal":"broadcast","from":"alice","name":"Alice","text":"{text}"}}"#)
}

/// The main room, with one open breakout room.
fn with_red(epoch: u64) -> v1::AssignRoomRequest {
    let mut request = room(epoch);
    if let Some(room) = &mut request.room {
        room.breakouts = Some(v1::Breakouts {
            mode: "manual".into(),
            rooms: vec![v1::BreakoutEntry {
                id: "red".into(),
                open: true,
                ..Default::default()
            }],
            ..Default::default()
        });
    }
    request
}

#[tokio::test]
async fn two_gateways_hear_the_same_and_who_comes_back_hears_the_rest() {
    let pod = pod().await;
    let mut controller = pod.control(CONTROLLER_NAME).await;
    controller.assign_room(room(1)).await.unwrap();
    let mut first = Gateway::attach(&pod, 1, &[]).await.unwrap();
    let mut second = Gateway::attach(&pod, 1, &[]).await.unwrap();
    for i in 0..20 {
        let gateway = if i % 2 == 0 { &first } else { &second };
        gateway.post(&broadcast(&format!("post {i}"))).await;
    }
    // The controller tells of rooms by the same call that made the main room.
    let heard = first.entries(20).await;
    controller.assign_room(with_red(1)).await.unwrap();
    let rooms = first.entry().await.unwrap();
    assert!(rooms.signal_json.contains("roomCreated"), "{rooms:?}");
    assert_eq!(
        heard.iter().map(|e| e.seq).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<_>>()
    );
    let mut also = second.entries(21).await;
    assert_eq!((also.pop(), &also), (Some(rooms), &heard));

    drop(second);
    let mut again = Gateway::attach(&pod, 1, &also[..15]).await.unwrap();
    let missing = again.entries(6).await;
    assert_eq!(missing[..5], heard[15..]);
    loop {
        match again.next().await.unwrap() {
            Down::Entry(entry) => panic!("once more: {entry:?}"),
            Down::CaughtUp(seq) => break assert_eq!(seq, 21),
            _ => {}
        }
    }
}

#[tokio::test]
async fn an_identity_is_in_one_place() {
    let pod = pod().await;
    let mut controller = pod.control(CONTROLLER_NAME).await;
    controller.assign_room(room(1)).await.unwrap();
    let mut first = Gateway::attach(&pod, 1, &[]).await.unwrap();
    let mut second = Gateway::attach(&pod, 1, &[]).await.unwrap();
    first.here("bob", "old", "").await;
    // Once this is heard, the hub has read what came before it on the same stream.
    first.post(&broadcast("bob is here")).await;
    second.entry().await.unwrap();
    second.here("bob", "new", "red").await;
    let superseded = loop {
        if let Down::Superseded(superseded) = first.next().await.expect("the stream ended") {
            break superseded;
        }
    };
    let expected = Superseded {
        identity: "bob".into(),
        nonce: "old".into(),
    };
    assert_eq!(superseded, expected);
}

#[tokio::test]
async fn only_gateways_attach_and_only_at_the_epoch_in_force() {
    let pod = pod().await;
    let mut controller = pod.control(CONTROLLER_NAME).await;
    let refused = |attached: Result<Gateway, Status>| attached.err().expect("attached");
    let error = refused(Gateway::attach(&pod, 1, &[]).await);
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().starts_with("RoomNotFound"));
    controller.assign_room(room(2)).await.unwrap();
    for epoch in [1, 3] {
        let error = refused(Gateway::attach(&pod, epoch, &[]).await);
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.message().starts_with("EpochStale"));
    }
    let error = refused(Gateway::open(&pod, Up::Post(v1::Post::default())).await);
    assert_eq!(error.code(), Code::InvalidArgument);
    let frames = tokio_stream::once(MeetingUp::default());
    let denied = pod.signal(CONTROLLER_NAME).await.meeting(frames).await;
    assert_eq!(denied.expect_err("attached").code(), Code::PermissionDenied);

    // A higher epoch ends the streams of the lower, a release all.
    let mut before = Gateway::attach(&pod, 2, &[]).await.unwrap();
    controller.assign_room(room(3)).await.unwrap();
    assert!(before.entry().await.is_none());
    let mut after = Gateway::attach(&pod, 3, &[]).await.unwrap();
    let release = v1::ReleaseRoomRequest {
        name: "team/standup".into(),
        epoch: 3,
        ..Default::default()
    };
    controller.release_room(release).await.unwrap();
    assert!(after.entry().await.is_none());
    assert_eq!(
        refused(Gateway::attach(&pod, 3, &[]).await).code(),
        Code::NotFound
    );
}
