//! The whole measurement.
//!
//! Owns the order of things. Invariants: servers and limits take turns within each repeat, so that what
//! else the machine does falls on all of them; each room size gets a fresh process; people join before
//! there is any media, so that joins and packets are charged apart.

use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::figures::{Crowd, Measured, Results, Window, percentile};
use crate::front::{Guest, Part, Seat};
use crate::limit::{self, Outcome, Way};
use crate::meeting::{Meeting, gather};
use crate::note;
use crate::pace::Mode;
use crate::process::{Usage, resident};
use crate::publisher::{Publisher, SSRC};
use crate::server::{Kind, Server};
use crate::subscribers::{Manners, ROUND, Subscribers};
use crate::transport::Identity;

const ROOM: &str = "bench";
/// Packets each subscriber has before a window opens: two seconds' worth.
const WARM: u64 = 600;
const PATIENCE: Duration = Duration::from_secs(60);
/// Before anybody joins, and after everybody has: what a start or a join leaves to do is done then.
const SETTLE: Duration = Duration::from_millis(500);
/// Every so many subscribers one decrypts.
const PROBE_EVERY: usize = 20;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) servers: Vec<Kind>,
    pub(crate) sizes: Vec<usize>,
    pub(crate) window: Duration,
    pub(crate) repeats: usize,
    pub(crate) feedback: Option<Duration>,
    pub(crate) warm: bool,
    /// Whole meetings too.
    pub(crate) meetings: bool,
}

/// Carries it out.
pub(crate) async fn run(plan: &Plan) -> Result<Results, BenchError> {
    let identity = Identity::generate().map_err(BenchError::transport("the certificate"))?;
    let mut results = Results::default();
    for kind in &plan.servers {
        results
            .servers
            .push((kind.name().to_owned(), Measured::default()));
    }
    for repeat in 1..=plan.repeats {
        for n in &plan.sizes {
            for (kind, (name, measured)) in plan.servers.iter().zip(&mut results.servers) {
                note(&format!("{repeat}/{}: {name}, {n} subscribers", plan.repeats));
                let mut server = Server::start(kind).await?;
                let outcome = room(plan, &mut server, &identity, *n, measured).await;
                if let Err(error) = outcome {
                    note(&format!("{name} logged:\n{}", server.log_tail()));
                    return Err(error);
                }
            }
            note(&format!("{repeat}/{}: limits, {n} subscribers", plan.repeats));
            limits(plan, *n, &mut results)?;
        }
        for meeting in Meeting::ALL.iter().filter(|_| plan.meetings) {
            for (kind, (name, measured)) in plan.servers.iter().zip(&mut results.servers) {
                note(&format!("{repeat}/{}: {name}, {}", plan.repeats, meeting.name()));
                let mut server = Server::start(kind).await?;
                match gather(*meeting, &mut server, &identity, plan.window, plan.feedback).await {
                    Ok(gathering) => measured.meetings.entry(*meeting).or_default().push(gathering),
                    Err(error) => {
                        note(&format!("{name} logged:\n{}", server.log_tail()));
                        return Err(error);
                    }
                }
            }
        }
    }
    Ok(results)
}

fn limits(plan: &Plan, n: usize, results: &mut Results) -> Result<(), BenchError> {
    for (mode, way) in [
        (Mode::Single, Way::Batched),
        (Mode::Frames, Way::Batched),
        (Mode::Frames, Way::Segmented),
    ] {
        let outcome = limit::run(n, mode, way, plan.window)?;
        results
            .limits
            .entry((n, mode, way))
            .or_default()
            .push(of_limit(&outcome));
    }
    results.seal.push(limit::seal_alone(n)?);
    Ok(())
}

fn of_limit(o: &Outcome) -> Window {
    let sent = o.sent.max(1) as f64;
    Window {
        cpu_ns: o.spent.nanoseconds as f64 / o.received.max(1) as f64,
        ticks: (o.spent.user, o.spent.system),
        packets_per_second: o.received as f64 / o.seconds,
        loss: 1.0 - o.received as f64 / sent,
        delay_ms: None,
        sleeps_per_second: o.spent.sleeps as f64 / o.seconds,
        soft_interrupt_ns: 0.0,
        others: 0.0,
        key_frames: 0.0,
    }
}

async fn room(
    plan: &Plan,
    server: &mut Server,
    identity: &Identity,
    n: usize,
    measured: &mut Measured,
) -> Result<(), BenchError> {
    let (publisher, link) = Publisher::start(identity, &server.front.publisher_mid(), 0.0)?;
    let manners = Manners {
        feedback: plan.feedback,
        probe_every: PROBE_EVERY.min(n),
        sample: 1,
        round: ROUND,
    };
    let mut subscribers = Subscribers::start(identity, manners)?;
    let guest = Guest {
        room: ROOM.to_owned(),
        identity: "publisher".to_owned(),
        part: Part::Publisher { ssrc: SSRC },
    };
    let outcome = async {
        let mut seats = vec![server.front.enter(guest, link).await?];
        let crowd = fill(server, &publisher, &mut subscribers, n, &mut seats).await?;
        for mode in Mode::ALL {
            publisher.pace(Some(mode));
            subscribers
                .receiving(if plan.warm { WARM } else { WARM / 10 }, PATIENCE)
                .await?;
            let window = window(plan, server, &publisher, &subscribers).await?;
            measured.windows.entry((n, mode)).or_default().push(window);
        }
        let resident = resident(server.pid())?;
        measured.crowds.entry(n).or_default().push(Crowd {
            rss_per_subscriber_kib: resident.saturating_sub(crowd.resident_before) as f64 / n as f64,
            rss_mib: resident as f64 / 1024.0,
            cpu_per_join_ms: crowd.nanoseconds as f64 / 1e6 / n as f64,
        });
        server.still_there()
    }
    .await;
    publisher.pace(None);
    // What went wrong in a thread explains what was waited for in vain.
    let stopped = publisher.stop().and(subscribers.stop());
    match (stopped, outcome) {
        (Err(e @ BenchError::Transport { .. }), _) => Err(e),
        (stopped, outcome) => outcome.and(stopped),
    }
}

struct Filled {
    resident_before: u64,
    nanoseconds: u64,
}

/// One after the other.
async fn fill(
    server: &mut Server,
    publisher: &Publisher,
    subscribers: &mut Subscribers,
    n: usize,
    seats: &mut Vec<Seat>,
) -> Result<Filled, BenchError> {
    tokio::time::sleep(SETTLE).await;
    let resident_before = resident(server.pid())?;
    let before = Usage::of(server.pid())?;
    for i in 0..n {
        let guest = Guest {
            room: ROOM.to_owned(),
            identity: format!("subscriber-{i}"),
            part: Part::Subscriber,
        };
        let link = subscribers.add(&publisher.departures)?;
        seats.push(server.front.enter(guest, link).await?);
    }
    tokio::time::sleep(SETTLE).await;
    Ok(Filled {
        resident_before,
        nanoseconds: Usage::of(server.pid())?.since(&before).nanoseconds,
    })
}

async fn window(
    plan: &Plan,
    server: &Server,
    publisher: &Publisher,
    subscribers: &Subscribers,
) -> Result<Window, BenchError> {
    let (usage, at) = (Usage::of(server.pid())?, Instant::now());
    let before = subscribers.snapshot().await?;
    let (sent, asked) = (publisher.sent(), publisher.asked());
    tokio::time::sleep(plan.window).await;
    let (spent, seconds) = (Usage::of(server.pid())?.since(&usage), at.elapsed().as_secs_f64());
    let mut after = subscribers.snapshot().await?;
    if publisher.sent() == sent {
        return Err(BenchError::GeneratorEnded);
    }
    let received = after.received - before.received;
    let packets = received.max(1) as f64;
    let expected = (after.expected - before.expected).max(1) as f64;
    let p50 = percentile(&mut after.delays, 0.5);
    let p99 = percentile(&mut after.delays, 0.99);
    let milliseconds = |ns: u64| ns as f64 / 1e6;
    Ok(Window {
        cpu_ns: spent.nanoseconds as f64 / packets,
        ticks: (spent.user, spent.system),
        packets_per_second: received as f64 / seconds,
        loss: (1.0 - packets / expected).max(0.0),
        delay_ms: p50.zip(p99).map(|(a, b)| (milliseconds(a), milliseconds(b))),
        sleeps_per_second: spent.sleeps as f64 / seconds,
        soft_interrupt_ns: spent.soft_interrupts as f64 / packets,
        others: (after.other - before.other) as f64 / packets,
        key_frames: (publisher.asked() - asked) as f64,
    })
}
