//! `plenum-operator`: the controller and the gateway, one binary with a subcommand each, and a
//! probe that joins as a client would.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "plenum-operator", version, about = "The control plane of Plenum")]
struct Cli {
    /// How logs are written.
    #[arg(long, env = "PLENUM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the cluster what Meetings, BreakoutRooms and MediaWorkerPools say.
    Controller(Box<plenum_operator::controller::Args>),
    /// What clients connect to.
    Gateway(Box<plenum_operator::gateway::GatewayArgs>),
    /// Joins a meeting as a client would, checks its media port and leaves.
    Probe(plenum_operator::probe::ProbeArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.log_format);
    // A second call only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match cli.command {
        Command::Controller(args) => plenum_operator::controller::run(*args)
            .await
            .map_err(|error| error.to_string()),
        Command::Gateway(args) => plenum_operator::gateway::run(*args)
            .await
            .map_err(|error| error.to_string()),
        Command::Probe(args) => plenum_operator::probe::run(args)
            .await
            .map_err(|error| error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
