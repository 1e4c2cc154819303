//! Whole meetings: everybody sends, everybody receives.
//!
//! Owns the two meetings that are measured and their windows. Invariants as in the sweep: a fresh process
//! each; people are in before there is any media; servers take turns.

use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::front::{Guest, Part, Sending};
use crate::members::{Members, Tally};
use crate::process::{Usage, resident};
use crate::server::Server;
use crate::transport::Identity;

/// Loud enough to be speech, in -dBov.
const LOUD: u8 = 20;
/// The noise of a room.
const QUIET: u8 = 70;
/// People who speak.
const SPEAKERS: usize = 3;
const SETTLE: Duration = Duration::from_secs(2);
/// After the first packets: layers are chosen, estimates settle.
const WARM: Duration = Duration::from_secs(5);
const VOICES: u32 = 0x0A0D_0000;

/// A meeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Meeting {
    /// 50 microphones, of which three speak.
    Voices,
    /// 25 cameras in three layers; everybody wants a small picture of everybody.
    Cameras,
}

impl Meeting {
    pub(crate) const ALL: [Meeting; 2] = [Meeting::Voices, Meeting::Cameras];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Meeting::Voices => "audio50",
            Meeting::Cameras => "video25",
        }
    }

    pub(crate) fn people(self) -> usize {
        match self {
            Meeting::Voices => 50,
            Meeting::Cameras => 25,
        }
    }
}

/// One window of a meeting.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Gathering {
    /// CPU time by time: 1 is a whole core.
    pub(crate) cores: f64,
    pub(crate) sent_per_second: f64,
    pub(crate) received_per_second: f64,
    /// Share of the packets, of streams that somebody receives, that never came.
    pub(crate) loss: f64,
    /// Streams that somebody receives.
    pub(crate) streams: f64,
    pub(crate) rss_mib: f64,
    /// Of everybody's joining, by people.
    pub(crate) cpu_per_join_ms: f64,
}

/// Gathers, measures, lets go.
pub(crate) async fn gather(
    meeting: Meeting,
    server: &mut Server,
    identity: &Identity,
    window: Duration,
    feedback: Option<Duration>,
) -> Result<Gathering, BenchError> {
    let mut members = Members::start(identity, feedback)?;
    let outcome = measure(meeting, server, &mut members, window).await;
    // What went wrong in the thread explains what was waited for in vain.
    match (members.stop(), outcome) {
        (Err(e @ BenchError::Transport { .. }), _) => Err(e),
        (stopped, outcome) => outcome.and_then(|g| stopped.map(|()| g)),
    }
}

async fn measure(
    meeting: Meeting,
    server: &mut Server,
    members: &mut Members,
    window: Duration,
) -> Result<Gathering, BenchError> {
    let start = Usage::of(server.pid())?;
    let mid = server.front.publisher_mid();
    let mut seats = Vec::new();
    for (i, ssrc) in (0..meeting.people()).zip(VOICES..) {
        let sending = match meeting {
            Meeting::Voices => Sending::Voice { ssrc },
            Meeting::Cameras => Sending::Camera,
        };
        let guest = Guest {
            room: "meeting".to_owned(),
            identity: format!("member-{i}"),
            part: Part::Member(sending),
        };
        let level = if i < SPEAKERS { LOUD } else { QUIET };
        let link = members.add(sending, &mid, level)?;
        seats.push(server.front.enter(guest, link).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let joined = Usage::of(server.pid())?.since(&start);
    members.begin()?;
    tokio::time::sleep(WARM).await;
    let (usage, at) = (Usage::of(server.pid())?, Instant::now());
    let before = members.tally().await?;
    tokio::time::sleep(window).await;
    let (spent, seconds) = (Usage::of(server.pid())?.since(&usage), at.elapsed().as_secs_f64());
    let after = members.tally().await?;
    server.still_there()?;
    let per_second = |of: fn(&Tally) -> u64| (of(&after) - of(&before)) as f64 / seconds;
    let expected = (after.expected - before.expected).max(1) as f64;
    let received = (after.received - before.received) as f64;
    if received == 0.0 {
        return Err(BenchError::Silent {
            receiving: 0,
            of: meeting.people(),
        });
    }
    Ok(Gathering {
        cores: spent.nanoseconds as f64 / 1e9 / seconds,
        sent_per_second: per_second(|t| t.sent),
        received_per_second: per_second(|t| t.received),
        loss: (1.0 - received / expected).max(0.0),
        streams: after.streams as f64,
        rss_mib: resident(server.pid())? as f64 / 1024.0,
        cpu_per_join_ms: joined.nanoseconds as f64 / 1e6 / meeting.people() as f64,
    })
}
