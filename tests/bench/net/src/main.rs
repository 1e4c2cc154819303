//! A bad network between two network namespaces, where the kernel has no `netem`.
//!
//! Owns the command line and the control lines. Two TUN devices, `--near` and `--far`, are made in the
//! namespace this is started in; whoever started it moves one away and gives both addresses. IP packets
//! that enter one leave the other through a [`link::Link`], one per direction: `down` is near to far, `up`
//! is far to near.
//!
//! Each line of standard input is a command, answered by one line of JSON:
//!
//! ```text
//! down rate=500k delay=100ms jitter=30ms loss=5% burst=3 queue=300ms
//! both clear
//! stats
//! ```
//!
//! It ends with standard input, and the devices with it.

#![allow(clippy::print_stdout, reason = "the answers are this program's output")]
#![allow(clippy::print_stderr, reason = "failures are for the person who waits")]

mod carry;
mod control;
mod link;

use std::io::BufRead;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use tappers::{Interface, Tun};

use crate::carry::Carrier;
use crate::control::{Command, Direction};

/// Joins two TUN devices by a link as bad as it is told to be.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Name of the device on the server's side
    #[arg(long, default_value = "near0")]
    near: String,
    /// Name of the device on the client's side
    #[arg(long, default_value = "far0")]
    far: String,
    /// Seed of what is random: the same seed and packets, the same losses
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("cannot make the device {name}: {source}; it takes root (or CAP_NET_ADMIN) and /dev/net/tun")]
    Device { name: String, source: std::io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error("cannot read a command: {0}")]
    Input(std::io::Error),
    #[error("a direction stopped carrying packets")]
    Stopped,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), LinkError> {
    let device = |name: &str| {
        Interface::new(name)
            .and_then(Tun::new_named)
            .map(Arc::new)
            .map_err(|source| LinkError::Device {
                name: name.to_owned(),
                source,
            })
    };
    let (near, far) = (device(&arguments.near)?, device(&arguments.far)?);
    let mut random = arguments
        .seed
        .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
    let start = Instant::now();
    let down = Carrier::start(start, random.fork(), Arc::clone(&near), Arc::clone(&far))
        .map_err(LinkError::Thread)?;
    let up = Carrier::start(start, random.fork(), far, near).map_err(LinkError::Thread)?;
    println!("{}", json!({ "ready": true }));
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(LinkError::Input)?;
        if line.trim().is_empty() {
            continue;
        }
        println!("{}", answer(&line, &down, &up)?);
    }
    Ok(())
}

fn answer(line: &str, down: &Carrier, up: &Carrier) -> Result<Value, LinkError> {
    let stopped = |_| LinkError::Stopped;
    match line.parse::<Command>() {
        Err(error) => Ok(json!({ "error": error.to_string() })),
        Ok(Command::Stats) => Ok(json!({
            "down": down.counters().map_err(stopped)?.json(),
            "up": up.counters().map_err(stopped)?.json(),
        })),
        Ok(Command::Set { direction, change }) => {
            if direction != Direction::Up {
                down.change(change.clone()).map_err(stopped)?;
            }
            if direction != Direction::Down {
                up.change(change).map_err(stopped)?;
            }
            Ok(json!({ "ok": true }))
        }
    }
}
