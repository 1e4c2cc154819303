//! The worker's command line.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use plenum_worker::control::dev::{self, DEV_KEY, DEV_SECRET, DevConfig};
use plenum_worker::control::serve::{self, RunError, ServeConfig};
use plenum_worker::session::{MAX_THREADS, SpeakerPolicy};
use plenum_worker_api::{CONTROL_PORT, MEDIA_PORT, METRICS_PORT};

/// Media worker of Plenum.
#[derive(Debug, Parser)]
#[command(name = "plenum-worker", version)]
struct Cli {
    /// How log lines look.
    #[arg(
        long,
        env = "PLENUM_LOG_FORMAT",
        value_enum,
        default_value = "text",
        global = true
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in a pod: rooms come from the controller, clients from gateways.
    Serve(ServeArgs),
    /// Run a whole server in this process, with public keys. Not for production.
    Dev(DevArgs),
}

/// Whom large rooms hear. A shared screen, stereo, and what is published without DTX (music, interpreters)
/// is always heard.
#[derive(Debug, Args)]
struct SpeakerArgs {
    /// The loudest microphones that are forwarded to each participant. 0 = all.
    #[arg(long, env = "PLENUM_AUDIO_SPEAKERS", default_value_t = 3)]
    audio_speakers: usize,
    /// Where fewer microphones of others than this are on, all are forwarded.
    #[arg(long, env = "PLENUM_AUDIO_SPEAKERS_FROM", default_value_t = 10)]
    audio_speakers_from: usize,
}

impl From<SpeakerArgs> for SpeakerPolicy {
    fn from(args: SpeakerArgs) -> Self {
        Self {
            speakers: args.audio_speakers,
            from: args.audio_speakers_from,
        }
    }
}

#[derive(Debug, Args)]
struct ThreadArgs {
    /// Threads for media, each with a share of the meetings; default: as many as the process may use cores.
    /// 0 (what a pod that asks for no CPU is told) = 1.
    #[arg(long = "media-threads", env = "PLENUM_MEDIA_THREADS")]
    media_threads: Option<usize>,
}

impl ThreadArgs {
    fn count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.media_threads.unwrap_or_else(cores).clamp(1, MAX_THREADS)
    }
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Where controller and gateways call (gRPC, mutual TLS).
    #[arg(long, env = "PLENUM_CONTROL_LISTEN", default_value_t = any(CONTROL_PORT))]
    control_listen: SocketAddr,
    /// Health and metrics.
    #[arg(long, env = "PLENUM_METRICS_LISTEN", default_value_t = any(METRICS_PORT))]
    metrics_listen: SocketAddr,
    /// UDP and TCP port of the media.
    #[arg(long, env = "PLENUM_MEDIA_PORT", default_value_t = MEDIA_PORT)]
    media_port: u16,
    /// Directory with tls.crt, tls.key and ca.crt.
    #[arg(long, env = "PLENUM_TLS_DIR", default_value = "/etc/plenum/tls")]
    tls_dir: PathBuf,
    /// metadata.uid of the pod.
    #[arg(long, env = "PLENUM_WORKER_UID")]
    worker_uid: String,
    /// Pool of the pod, NAMESPACE/NAME: a label of every metric.
    #[arg(long, env = "PLENUM_POOL", default_value = "")]
    pool: String,
    /// Told to clients as the server's region.
    #[arg(long, env = "PLENUM_REGION", default_value = "")]
    region: String,
    /// Clients beyond this are refused.
    #[arg(long, env = "PLENUM_MAX_SESSIONS", default_value_t = 2_000)]
    max_sessions: usize,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Metrics with the room's name as a label, for at most this many rooms. 0 = none.
    #[arg(long, env = "PLENUM_ROOM_METRICS", default_value_t = 0)]
    room_metrics: usize,
    #[command(flatten)]
    speakers: SpeakerArgs,
    /// How many seconds SIGTERM waits for meetings to be moved away.
    #[arg(long, env = "PLENUM_SHUTDOWN_GRACE", default_value_t = 20)]
    shutdown_grace: u64,
}

#[derive(Debug, Args)]
struct DevArgs {
    /// HTTP: signalling, health and metrics.
    #[arg(long, env = "PLENUM_LISTEN", default_value = "127.0.0.1:7880")]
    listen: SocketAddr,
    /// UDP and TCP of the media.
    #[arg(long, env = "PLENUM_MEDIA_LISTEN", default_value_t = any(MEDIA_PORT))]
    media_listen: SocketAddr,
    /// Addresses that clients are told for the media; default: this machine's.
    #[arg(long, env = "PLENUM_ADVERTISE", value_delimiter = ',')]
    advertise: Vec<SocketAddr>,
    /// Clients beyond this are refused.
    #[arg(long, env = "PLENUM_MAX_SESSIONS", default_value_t = 2_000)]
    max_sessions: usize,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    speakers: SpeakerArgs,
    /// API key of tokens.
    #[arg(long, env = "PLENUM_API_KEY", default_value = DEV_KEY)]
    api_key: String,
    /// API secret of tokens. The default is public.
    #[arg(long, env = "PLENUM_API_SECRET", default_value = DEV_SECRET, hide_env_values = true)]
    api_secret: String,
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn logs(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

async fn run(command: Command) -> Result<(), RunError> {
    match command {
        Command::Serve(args) => {
            serve::run(ServeConfig {
                control_listen: args.control_listen,
                metrics_listen: args.metrics_listen,
                media_listen: any(args.media_port),
                tls_directory: args.tls_dir,
                worker_uid: args.worker_uid,
                pool: args.pool,
                region: args.region,
                speakers: args.speakers.into(),
                max_sessions: args.max_sessions,
                media_threads: args.threads.count(),
                room_metrics: (args.room_metrics > 0).then_some(args.room_metrics),
                shutdown_grace: Duration::from_secs(args.shutdown_grace),
            })
            .await
        }
        Command::Dev(args) => {
            dev::run(DevConfig {
                listen: args.listen,
                media_listen: args.media_listen,
                advertise: args.advertise,
                speakers: args.speakers.into(),
                max_sessions: args.max_sessions,
                media_threads: args.threads.count(),
                key: args.api_key,
                secret: args.api_secret,
            })
            .await
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    logs(cli.log_format);
    match run(cli.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "worker stopped");
            ExitCode::FAILURE
        }
    }
}
