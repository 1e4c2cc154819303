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

mod description;
mod error;
mod figures;
mod front;
mod limit;
mod link;
mod livekit;
mod meeting;
mod members;
mod pace;
mod packet;
mod process;
mod publisher;
mod reception;
mod rtcp;
mod server;
mod socket;
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
use crate::figures::Results;
use crate::server::Kind;
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

#[derive(Debug, Clone, Copy, Subcommand)]
enum What {
    /// The limit programs alone
    Limit,
    /// Whole meetings alone: 50 microphones, and 25 cameras in three layers
    Meetings,
}

impl Arguments {
    fn plan(&self) -> Plan {
        let plenum = self.plenum.clone().map(Kind::Plenum);
        let livekit = self.livekit.clone().map(Kind::LiveKit);
        let servers = match self.command {
            Some(What::Limit) => Vec::new(),
            Some(What::Meetings) | None => plenum.into_iter().chain(livekit).collect(),
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
            "cores": std::thread::available_parallelism().map_or(1, usize::from),
            "cpu": first("/proc/cpuinfo", "model name"),
            "kernel": first("/proc/version", "Linux version "),
            "load_before": load_before,
            "load_after": load(),
            "feedback_ms": self.feedback,
        })
    }
}

/// The one-minute load average.
fn load() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    first.map_or(Value::Null, |n| json!(n))
}

/// Tells the person who waits.
fn note(text: &str) {
    eprintln!("    {text}");
}

fn measure(arguments: &Arguments) -> Result<Results, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(BenchError::io("the runtime"))?;
    runtime.block_on(sweep::run(&arguments.plan()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let before = load();
    match measure(&arguments) {
        Ok(mut results) => {
            results.allocations = arguments.allocations;
            println!("{}", results.table());
            println!("network: {}", arguments.network);
            let short = results.short_of_pace();
            if !short.is_empty() {
                println!(
                    "too busy a machine, or too slow a server, for: {}",
                    short.join(", ")
                );
            }
            println!("{}", results.json(arguments.machine(&before)));
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
    }
}
