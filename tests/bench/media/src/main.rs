//! Measures what forwarding costs a media server.
//!
//! Owns the command line. One publisher and many subscribers, native clients on loopback, against
//! servers that are started here; beside them the limit programs. Prints a table and, as the last line,
//! one JSON object. Asserts nothing about numbers: only a call that fails is a failure.

#![allow(clippy::print_stdout, reason = "the figures are this program's output")]
#![allow(
    clippy::print_stderr,
    reason = "progress and failures are for the person who waits"
)]

mod cores;
mod counts;
mod description;
mod error;
mod figures;
mod front;
mod growth;
mod limit;
mod link;
mod livekit;
mod load;
mod meeting;
mod members;
mod pace;
mod packet;
mod process;
mod publisher;
mod reception;
mod rtcp;
mod server;
mod soak;
mod socket;
mod stretch;
mod stun;
mod subscribers;
mod sweep;
mod transport;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use crate::error::BenchError;
use crate::server::Kind;
use crate::soak::Soak;
use crate::sweep::Plan;

/// What forwarding costs: Plenum's worker, other servers, and the limit.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<What>,
    /// Subscribers per room, one room after the other
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 200], global = true)]
    subscribers: Vec<usize>,
    /// Length of a measuring window
    #[arg(long, env = "PLENUM_BENCH_SECONDS", default_value_t = 5, global = true)]
    seconds: u64,
    /// Times everything is measured; figures are medians
    #[arg(long, env = "PLENUM_BENCH_REPEATS", default_value_t = 3, global = true)]
    repeats: usize,
    /// A smoke run: ten subscribers, two seconds, once
    #[arg(long, global = true)]
    quick: bool,
    /// Milliseconds between a subscriber's transport-wide feedbacks, where the server wants them; 0 = none
    #[arg(long, default_value_t = 100, global = true)]
    feedback: u64,
    /// plenum-worker to measure
    #[arg(long, env = "PLENUM_WORKER_BIN", global = true)]
    plenum: Option<PathBuf>,
    /// livekit-server to measure beside it
    #[arg(long, env = "LIVEKIT_SERVER", global = true)]
    livekit: Option<PathBuf>,
    /// Plenum's allocations per forwarded packet, as its test counted them
    #[arg(long, env = "PLENUM_BENCH_ALLOCATIONS", global = true)]
    allocations: Option<f64>,
    /// What the network is, for the record
    #[arg(long, env = "PLENUM_BENCH_NETWORK", default_value = "loopback", global = true)]
    network: String,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// The limit programs alone
    Limit,
    /// Whole meetings alone: 50 microphones, and 25 cameras in three layers
    Meetings,
    /// What one core carries, held for some minutes: loss, memory, delay
    Soak {
        /// How long
        #[arg(long, env = "PLENUM_BENCH_MINUTES", default_value_t = 10.0)]
        minutes: f64,
        /// How busy the core is kept
        #[arg(long, default_value_t = 0.9)]
        share: f64,
        /// Rooms
        #[arg(long, default_value_t = 30)]
        rooms: usize,
        /// Subscribers of each
        #[arg(long, default_value_t = 20)]
        people: usize,
    },
    /// How what a packet costs grows with the subscribers of a room
    Growth {
        /// Subscribers, one room after the other
        #[arg(long, value_delimiter = ',', default_values_t = [50, 100, 200, 500, 1000])]
        people: Vec<usize>,
    },
    /// How what a join costs grows with the people who are there
    Joins {
        /// Subscribers in the end
        #[arg(long, default_value_t = 500)]
        people: usize,
    },
}

impl Arguments {
    fn plan(&self) -> Plan {
        let plenum = self.plenum.clone().map(Kind::Plenum);
        let livekit = self.livekit.clone().map(Kind::LiveKit);
        let servers = match self.command {
            Some(What::Limit) => Vec::new(),
            _ => plenum.into_iter().chain(livekit).collect(),
        };
        let rooms = !matches!(self.command, Some(What::Meetings));
        let meetings = !matches!(self.command, Some(What::Limit));
        let feedback = (self.feedback > 0).then(|| Duration::from_millis(self.feedback));
        if self.quick {
            return Plan {
                servers,
                sizes: vec![10],
                window: Duration::from_secs(2),
                repeats: 1,
                feedback,
                warm: false,
                meetings: meetings && !rooms,
            };
        }
        Plan {
            servers,
            sizes: if rooms {
                self.subscribers.iter().map(|n| (*n).max(1)).collect()
            } else {
                Vec::new()
            },
            window: Duration::from_secs(self.seconds.max(1)),
            repeats: self.repeats.max(1),
            feedback,
            warm: true,
            meetings,
        }
    }

    fn machine(&self, load_before: &Value) -> Value {
        let first = |path: &str, name: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix(name));
            line.map(|l| l.trim_start_matches([':', '\t', ' ']).to_owned())
        };
        json!({
            "network": self.network,
            "cores": cores(),
            "cpu": first("/proc/cpuinfo", "model name"),
            "kernel": first("/proc/version", "Linux version "),
            "load_before": load_before,
            "load_after": load_average(),
            "feedback_ms": self.feedback,
        })
    }
}

/// The machine's, whichever this process may run on.
fn cores() -> usize {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|l| l.starts_with("processor")).count()
}

/// The one-minute load average.
fn load_average() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    first.map_or(Value::Null, |n| json!(n))
}

/// Tells the person who waits.
fn note(text: &str) {
    eprintln!("    {text}");
}

/// What a person reads, and the JSON object.
async fn measure(arguments: &Arguments, before: &Value) -> Result<(String, Value), BenchError> {
    let feedback = (arguments.feedback > 0).then(|| Duration::from_millis(arguments.feedback));
    let plenum = || {
        arguments.plenum.clone().ok_or(BenchError::Missing {
            what: "PLENUM_WORKER_BIN",
        })
    };
    let (text, mut json) = match &arguments.command {
        Some(What::Soak {
            minutes,
            share,
            rooms,
            people,
        }) => {
            soak::run(&Soak {
                plenum: plenum()?,
                rooms: (*rooms).max(1),
                people: (*people).max(1),
                share: share.clamp(0.05, 1.0),
                length: Duration::from_secs_f64((minutes * 60.0).clamp(1.0, 86_400.0)),
                feedback,
            })
            .await?
        }
        Some(What::Growth { people }) => {
            let window = Duration::from_secs(arguments.seconds.max(1));
            growth::packets(&plenum()?, people, arguments.repeats.max(1), window, feedback).await?
        }
        Some(What::Joins { people }) => growth::joins(&plenum()?, *people, feedback).await?,
        None | Some(What::Limit | What::Meetings) => {
            let mut results = sweep::run(&arguments.plan()).await?;
            results.allocations = arguments.allocations;
            let mut text = results.table();
            let short = results.short_of_pace();
            if !short.is_empty() {
                text += &format!(
                    "\ntoo busy a machine, or too slow a server, for: {}",
                    short.join(", ")
                );
            }
            (text, results.json())
        }
    };
    if let Value::Object(fields) = &mut json {
        fields.insert("machine".to_owned(), arguments.machine(before));
    }
    Ok((text, json))
}

fn run(arguments: &Arguments, before: &Value) -> Result<(String, Value), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(BenchError::io("the runtime"))?;
    runtime.block_on(measure(arguments, before))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let before = load_average();
    match run(&arguments, &before) {
        Ok((text, json)) => {
            println!("{text}\nnetwork: {}", arguments.network);
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_makes_a_plan() {
        let plan = Arguments::parse_from(["x", "--plenum=w", "--livekit=l", "--subscribers=1,2"]).plan();
        assert_eq!((plan.servers.len(), plan.sizes.clone()), (2, vec![1, 2]));
        let quick = Arguments::parse_from(["x", "--quick", "--plenum=w"]).plan();
        assert_eq!((quick.sizes, quick.repeats), (vec![10], 1));
        let meetings = Arguments::parse_from(["x", "meetings", "--plenum=w"]).plan();
        assert!(meetings.meetings && meetings.sizes.is_empty());
        let limit = Arguments::parse_from(["x", "limit", "--plenum=w", "--feedback=0"]).plan();
        assert!(limit.servers.is_empty() && limit.feedback.is_none());
        let soak = Arguments::parse_from(["x", "soak", "--minutes=0.5", "--plenum=w"]);
        assert!(matches!(soak.command, Some(What::Soak { minutes: 0.5, .. })));
    }
}
