//! The servers that can be measured, each on ports of its own on the loopback address.
//!
//! Owns their processes. Invariant: a server ends with its value, also when the benchmark fails.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cores::Core;
use crate::error::BenchError;
use crate::front::Front;
use crate::livekit::LiveKit;

const PATIENCE: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(10);
/// A server that waits for its clients stops waiting when it is told again.
const AGAIN: Duration = Duration::from_secs(1);
const LOG_TAIL: usize = 4000;
/// What `plenum-worker dev` signs with by default; the other server is told the same.
const KEY: &str = "devkey";
const SECRET: &str = "devsecret-devsecret-devsecret-0000";

/// What to start.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Plenum(PathBuf),
    LiveKit(PathBuf),
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::Plenum(_) => "plenum",
            Kind::LiveKit(_) => "livekit",
        }
    }

    fn program(&self) -> &Path {
        match self {
            Kind::Plenum(path) | Kind::LiveKit(path) => path,
        }
    }

    fn arguments(&self, http: SocketAddr, media: SocketAddr) -> Result<Vec<String>, BenchError> {
        Ok(match self {
            Kind::Plenum(_) => vec![
                "dev".to_owned(),
                format!("--listen={http}"),
                format!("--media-listen={media}"),
                format!("--advertise={media}"),
            ],
            Kind::LiveKit(_) => {
                // --dev would log every detail, which is work that the other server does not do.
                let config = serde_json::json!({
                    "port": http.port(),
                    "rtc": {
                        "udp_port": media.port(),
                        "tcp_port": free_port()?,
                        "enable_loopback_candidate": true,
                    },
                    "logging": { "level": "info" },
                });
                vec![
                    "--dev".to_owned(),
                    "--bind=127.0.0.1".to_owned(),
                    "--node-ip=127.0.0.1".to_owned(),
                    format!("--keys={KEY}: {SECRET}"),
                    // JSON is YAML.
                    format!("--config-body={config}"),
                ]
            }
        })
    }

    fn health(&self) -> &'static str {
        match self {
            Kind::Plenum(_) => "/healthz",
            Kind::LiveKit(_) => "/",
        }
    }
}

fn free_port() -> Result<u16, BenchError> {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BenchError::io("a free port"))?;
    Ok(tcp.local_addr().map_err(BenchError::io("a free port"))?.port())
}

fn free_udp_port() -> Result<u16, BenchError> {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BenchError::io("a free port"))?;
    Ok(udp.local_addr().map_err(BenchError::io("a free port"))?.port())
}

/// A running server.
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
    http: SocketAddr,
    media: SocketAddr,
    pub(crate) front: Box<dyn Front>,
}

impl Server {
    /// Starts one and waits until it answers. Its threads may run where the caller's may.
    pub(crate) async fn start(kind: &Kind) -> Result<Server, BenchError> {
        Self::start_on(kind, None).await
    }

    /// Starts one on a core of its own.
    pub(crate) async fn start_on(kind: &Kind, core: Option<Core>) -> Result<Server, BenchError> {
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let media = SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port()?));
        let log = std::env::temp_dir().join(format!(
            "plenum-bench-{}-{}-{}.log",
            kind.name(),
            std::process::id(),
            http.port()
        ));
        let out = File::create(&log).map_err(BenchError::io("the server's log"))?;
        let err = out.try_clone().map_err(BenchError::io("the server's log"))?;
        let mut command = match core {
            Some(core) => core.command(kind.program()),
            None => Command::new(kind.program()),
        };
        let child = command
            .args(kind.arguments(http, media)?)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(BenchError::io("starting the server"))?;
        let mut server = Server {
            name: kind.name(),
            child,
            log,
            http,
            media,
            front: Box::new(LiveKit {
                url: format!("ws://{http}"),
                key: KEY.to_owned(),
                secret: SECRET.to_owned(),
            }),
        };
        let end = Instant::now() + PATIENCE;
        while !healthy(http, kind.health()) {
            server.still_there()?;
            if Instant::now() > end {
                return Err(BenchError::NotListening {
                    server: server.name.to_owned(),
                    address: http,
                    log: server.log_tail(),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The port of its media.
    pub(crate) fn port(&self) -> u16 {
        self.media.port()
    }

    /// The sum of a counter of its `/metrics` over all series that have this label.
    pub(crate) fn count(&self, counter: &str, label: &str) -> Result<u64, BenchError> {
        let text = get(self.http, "/metrics").map_err(BenchError::io("/metrics"))?;
        Ok(sum(&text, counter, label))
    }

    /// An error if the process is gone.
    pub(crate) fn still_there(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(BenchError::Ended {
                server: self.name.to_owned(),
                log: self.log_tail(),
            }),
        }
    }

    /// The end of what it logged.
    pub(crate) fn log_tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let tail = bytes.get(bytes.len().saturating_sub(LOG_TAIL)..);
        String::from_utf8_lossy(tail.unwrap_or_default()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let end = Instant::now() + GRACE;
        let mut next = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            let now = Instant::now();
            if now >= next {
                next = now + AGAIN;
                if let Ok(pid) = i32::try_from(self.child.id()) {
                    // It is our child and not yet waited for: the number is its own.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                }
            }
            if now > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

fn get(http: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn healthy(http: SocketAddr, path: &str) -> bool {
    get(http, path).is_ok_and(|text| text.split(' ').nth(1) == Some("200"))
}

fn sum(metrics: &str, counter: &str, label: &str) -> u64 {
    let series = metrics.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(counter)?.strip_prefix('{')?.rsplit_once('}')?;
        let value = value.trim().parse::<f64>().ok()?;
        labels.contains(label).then_some(value as u64)
    });
    series.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_series() {
        let text = "# HELP a_total of\na_total{direction=\"in\",kind=\"audio\"} 1\n\
            a_total{direction=\"out\",kind=\"audio\"} 2\na_total{direction=\"out\",kind=\"video\"} 30\n\
            a_total_more{direction=\"out\"} 500\n";
        assert_eq!(sum(text, "a_total", "direction=\"out\""), 32);
        assert_eq!(sum(text, "b_total", ""), 0);
    }
}
