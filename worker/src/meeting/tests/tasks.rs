//! The task: streams, epochs, queues. In real time, but nothing here looks at the clock.

use plenum_errors::Code;
use plenum_worker_api::v1::{MeetingDown, MeetingUp, meeting_up};
use tokio::sync::mpsc::error::TryRecvError;

use super::super::actor::QUEUE;
use super::super::{Attached, Meetings, MeetingsHandle};
use super::*;
use crate::quality::Metrics;

fn start() -> (MeetingsHandle, Metrics) {
    let metrics = Metrics::new("dev", None).unwrap();
    let (meetings, handle) = Meetings::new(&metrics).unwrap();
    tokio::spawn(meetings.run());
    (handle, metrics)
}

fn to(meeting: &str, epoch: u64) -> Attach {
    Attach {
        meeting: meeting.into(),
        epoch,
        ..Attach::default()
    }
}

fn post_frame(text: &str) -> MeetingUp {
    MeetingUp {
        frame: Some(meeting_up::Frame::Post(Post {
            signal_json: serde_json::to_string(&broadcast(text)).unwrap(),
            audience_json: "\"everyone\"".into(),
        })),
    }
}

async fn next_entry(attached: &mut Attached) -> Option<MeetingEntry> {
    loop {
        if let MeetingDown {
            frame: Some(Frame::Entry(entry)),
        } = attached.frames.recv().await?
        {
            return Some(entry);
        }
    }
}

#[tokio::test]
async fn only_the_main_room_at_its_epoch_has_a_hub() {
    let (handle, _) = start();
    let refused = |name: &'static str, epoch| {
        let handle = handle.clone();
        async move { handle.attach(to(name, epoch)).await.unwrap_err().code }
    };
    handle.assign("team/standup".into(), 3, None).await;
    handle.assign("team/standup/red".into(), 3, None).await;
    assert_eq!(refused("team/other", 3).await, Code::RoomNotFound);
    assert_eq!(refused("team/standup/red", 3).await, Code::RoomNotFound);
    for epoch in [0, 2, 4] {
        assert_eq!(refused("team/standup", epoch).await, Code::EpochStale);
    }
    assert!(handle.attach(to("team/standup", 3)).await.is_ok());
    // A stale order changes nothing.
    handle.assign("team/standup".into(), 2, None).await;
    handle.release("team/standup".into(), 2).await;
    assert!(handle.attach(to("team/standup", 3)).await.is_ok());
}

#[tokio::test]
async fn streams_end_with_the_meeting() {
    let (handle, metrics) = start();
    for end in 0..4 {
        let name = format!("team/meeting{end}");
        handle.assign(name.clone(), 1, None).await;
        let mut attached = handle.attach(to(&name, 1)).await.unwrap();
        handle.frame(attached.id, post_frame("kept")).await;
        assert_eq!(next_entry(&mut attached).await.unwrap().seq, 1);
        assert!(
            metrics
                .render()
                .contains("plenum_worker_meeting_gateways{pool=\"dev\"} 1")
        );
        match end {
            0 => handle.release(name.clone(), 1).await,
            1 => handle.release(name.clone(), 0).await,
            2 => handle.assign(name.clone(), 2, None).await,
            _ => handle.close().await,
        }
        assert!(next_entry(&mut attached).await.is_none());
        assert!((&mut attached.over).await.is_err());
        // Frames still on their way hurt nobody.
        handle.frame(attached.id, post_frame("late")).await;
        handle.detach(attached.id).await;
    }
    // Re-assigned: nothing is left of what was said.
    let mut anew = handle.attach(to("team/meeting2", 2)).await.err();
    assert!(anew.take().is_some(), "closed is closed");
    handle.assign("team/meeting2".into(), 2, None).await;
    let mut anew = handle.attach(to("team/meeting2", 2)).await.unwrap();
    handle.frame(anew.id, post_frame("new")).await;
    let entry = next_entry(&mut anew).await.unwrap();
    assert!(entry.seq > 1 && entry.signal_json.contains("new"));
}

#[tokio::test]
async fn a_slow_gateway_loses_its_stream_and_then_gets_what_it_lacks() {
    let (handle, metrics) = start();
    handle.assign("team/standup".into(), 1, None).await;
    let mut slow = handle.attach(to("team/standup", 1)).await.unwrap();
    let mut quick = handle.attach(to("team/standup", 1)).await.unwrap();
    let total = QUEUE + 50;
    for i in 0..total {
        handle.frame(quick.id, post_frame(&i.to_string())).await;
        // The quick one keeps up, as soon as anything is numbered at all.
        if i >= 200 {
            next_entry(&mut quick).await.unwrap();
        }
    }
    assert!((&mut slow.over).await.is_err());
    let mut tail = Vec::new();
    while let Some(entry) = next_entry(&mut slow).await {
        tail.push(entry);
    }
    let has = tail.last().unwrap().seq;
    assert!(tail.len() < total && has == tail.len() as u64);
    let tail = tail.split_off(tail.len() - 10);
    let attach = Attach {
        tail,
        ..to("team/standup", 1)
    };
    let mut again = handle.attach(attach).await.unwrap();
    assert_eq!(next_entry(&mut again).await.unwrap().seq, has + 1);
    let text = metrics.render();
    for line in [
        "plenum_worker_meeting_streams_cut_total{pool=\"dev\"} 1".to_owned(),
        format!("plenum_worker_meeting_signals_total{{signal=\"broadcast\",pool=\"dev\"}} {total}"),
        format!(
            "plenum_worker_meeting_entries_replayed_total{{pool=\"dev\"}} {}",
            total as u64 - has
        ),
    ] {
        assert!(text.contains(&line), "{line} in {text}");
    }
}

#[tokio::test]
async fn what_is_refused_is_counted() {
    let (handle, metrics) = start();
    handle.assign("team/standup".into(), 1, None).await;
    let mut attached = handle.attach(to("team/standup", 1)).await.unwrap();
    let again = MeetingUp {
        frame: Some(meeting_up::Frame::Attach(to("team/standup", 1))),
    };
    for frame in [again, MeetingUp::default()] {
        handle.frame(attached.id, frame).await;
    }
    // An answered call: the frames before it were handled.
    drop(handle.attach(to("team/standup", 1)).await);
    let refused = "plenum_worker_meeting_posts_refused_total{reason=\"out_of_place\",pool=\"dev\"} 2";
    let text = metrics.render();
    assert!(text.contains(refused), "{text}");
    while let Ok(frame) = attached.frames.try_recv() {
        assert!(!matches!(frame.frame, Some(Frame::Entry(_))));
    }
    assert_eq!(attached.frames.try_recv().unwrap_err(), TryRecvError::Empty);
}
