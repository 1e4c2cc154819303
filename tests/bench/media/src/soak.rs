//! What one core carries, and for how long.
//!
//! Owns the search for the load that keeps one core of the server's as busy as asked for, the delay at half
//! of that, and the hold: loss, memory and delay by the minute. Invariants: the server has a core of its own
//! where there are two; media is silent before the hold's counts are read and after, so that they are whole.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cores::Core;
use crate::counts::Counts;
use crate::error::BenchError;
use crate::figures::{aligned, number};
use crate::load::{Crowd, Load};
use crate::note;
use crate::packet::PER_FRAME;
use crate::process::resident;
use crate::server::{Kind, Server};
use crate::stretch::Stretch;
use crate::subscribers::Manners;
use crate::transport::Identity;

/// The first try, in thousandths of a frame per second.
const FIRST: u64 = 10_000;
/// A publisher of more than this is none.
const MOST: u64 = 200_000;
const TRIES: usize = 12;
/// As near to the share asked for as is looked for.
const NEAR: f64 = 0.02;
/// After a change of pace: estimates follow.
const SWING: Duration = Duration::from_secs(2);
/// Where less than this share of what is due comes through, the pace is too much, and what was measured says
/// nothing of a lower one: queues and estimates have to recover first.
const WHOLE: f64 = 0.98;
const TOO_MUCH: f64 = 0.85;
const RECOVERY: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(3);
/// The server brings its counts up to date every five seconds.
const SILENCE: Duration = Duration::from_secs(7);
const MINUTE: Duration = Duration::from_secs(60);
/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Soak {
    pub(crate) plenum: PathBuf,
    pub(crate) rooms: usize,
    pub(crate) people: usize,
    /// Of the core, 0 to 1.
    pub(crate) share: f64,
    pub(crate) length: Duration,
    pub(crate) feedback: Option<Duration>,
}

/// Looks for the pace at which the busiest forwarding thread has this share of a core. `per_frame`: packets that
/// a frame of every publisher makes.
async fn find(
    server: &mut Server,
    load: &Load,
    share: f64,
    first: u64,
    per_frame: f64,
) -> Result<u64, BenchError> {
    let (mut pace, mut settle) = (first, SWING);
    for _ in 0..TRIES {
        load.send(pace);
        tokio::time::sleep(settle).await;
        settle = SWING;
        let seen = Stretch::measure(server, load, LOOK).await?;
        note(&format!(
            "{:.1} frames per second: {:.0} packets/s, {:.0} % of a core (the generator: {:.0} %)",
            pace as f64 / 1000.0,
            seen.per_second,
            seen.share * 100.0,
            seen.ours * 100.0
        ));
        if seen.per_second < WHOLE * per_frame * pace as f64 / 1000.0 {
            pace = (pace as f64 * TOO_MUCH) as u64;
            settle = RECOVERY;
            continue;
        }
        if (seen.share - share).abs() <= NEAR || (pace == MOST && seen.share < share) {
            break;
        }
        // From below: a pace that is too much spoils what comes after it.
        let aim = share - NEAR / 2.0;
        let factor = (aim / seen.share.max(0.01)).clamp(0.5, 1.5);
        pace = ((pace as f64 * factor) as u64).clamp(1000, MOST);
    }
    Ok(pace)
}

/// Carries it out: the table and the JSON.
pub(crate) async fn run(soak: &Soak) -> Result<(String, Value), BenchError> {
    let core = Core::set_aside();
    let identity = Identity::generate().map_err(BenchError::transport("the certificate"))?;
    let crowd = Crowd {
        rooms: soak.rooms,
        people: soak.people,
        manners: Manners {
            feedback: soak.feedback,
            probe_every: soak.people.max(1),
            sample: 8,
            round: Duration::from_millis(10),
        },
    };
    note(&format!("{} rooms of {}", soak.rooms, soak.people));
    let mut server = Server::start_on(&Kind::Plenum(soak.plenum.clone()), core).await?;
    let load = Load::gather(&server, &identity, &crowd).await?;
    let outcome = hold(soak, &mut server, &load).await;
    if outcome.is_err() {
        note(&format!("the server logged:\n{}", server.log_tail()));
    }
    let held = load.stop(outcome)?;
    Ok((held.table(), held.json(soak, core.is_some())))
}

struct Held {
    half: Stretch,
    minutes: Vec<Stretch>,
    pace: u64,
    rss_before: f64,
    rss_after: f64,
    counts: Counts,
    people: usize,
}

async fn hold(soak: &Soak, server: &mut Server, load: &Load) -> Result<Held, BenchError> {
    let per_frame = (PER_FRAME as usize * soak.rooms * soak.people) as f64;
    let half = find(server, load, soak.share / 2.0, FIRST, per_frame).await?;
    let half_load = Stretch::measure(server, load, LOOK * 3).await?;
    // Not twice: what a packet costs depends on how many there are.
    let pace = find(server, load, soak.share, half * 3 / 2, per_frame).await?;
    load.send(0);
    tokio::time::sleep(SILENCE).await;
    let before = Counts::read(server, load).await?;
    let rss_before = resident(server.pid())? as f64 / 1024.0;
    note(&format!(
        "holding {:.1} frames per second for {} s",
        pace as f64 / 1000.0,
        soak.length.as_secs()
    ));
    load.send(pace);
    let mut minutes: Vec<Stretch> = Vec::new();
    let mut left = soak.length;
    while !left.is_zero() {
        let length = left.min(MINUTE);
        left -= length;
        let minute = Stretch::measure(server, load, length).await?;
        note(&format!(
            "minute {}: {}",
            minutes.len() + 1,
            minute.row(String::new()).join("  ")
        ));
        minutes.push(minute);
    }
    load.send(0);
    tokio::time::sleep(SILENCE).await;
    let counts = Counts::read(server, load).await?.since(&before);
    Ok(Held {
        half: half_load,
        minutes,
        pace,
        rss_before,
        rss_after: resident(server.pid())? as f64 / 1024.0,
        counts,
        people: soak.people,
    })
}

impl Held {
    fn table(&self) -> String {
        let mut rows = vec![Stretch::columns("stretch")];
        rows.push(self.half.row("half load".to_owned()));
        for (at, minute) in (1..).zip(&self.minutes) {
            rows.push(minute.row(format!("minute {at}")));
        }
        let c = &self.counts;
        format!(
            "{}\nof {} packets that were due {} are missing: {} by the server, the others in full queues \
             (datagrams: {} of the server's socket, {} of the clients'); {} were withheld for lack of \
             bandwidth\nmemory: {:.1} MiB before, {:.1} MiB after the first minute, {:.1} MiB after\n",
            aligned(&rows),
            c.due(self.people),
            c.missing,
            c.lost_by_server(self.people),
            c.server_overflows,
            c.client_overflows,
            c.withheld(self.people),
            self.rss_before,
            self.minutes.first().map_or(f64::NAN, |m| m.rss_mib),
            self.rss_after,
        )
    }

    fn json(&self, soak: &Soak, alone: bool) -> Value {
        let worst = |of: fn(&Stretch) -> Option<f64>| {
            number(
                self.minutes
                    .iter()
                    .filter_map(of)
                    .max_by(|a: &f64, b| a.total_cmp(b)),
            )
        };
        json!({
            "soak": {
                "rooms": soak.rooms,
                "people": soak.people,
                "share_asked": soak.share,
                "seconds": soak.length.as_secs(),
                "core_alone": alone,
                "frames_per_second": self.pace as f64 / 1000.0,
                "packets_per_frame": PER_FRAME,
                "half_load": self.half.json(),
                "minutes": self.minutes.iter().map(Stretch::json).collect::<Vec<Value>>(),
                "delay_p99_ms_worst_minute": worst(|m| m.p99_ms),
                "rss_mib_before": number(Some(self.rss_before)),
                "rss_mib_after": number(Some(self.rss_after)),
                "packets": self.counts.json(self.people),
            },
        })
    }
}
