//! A stretch of time under load.
//!
//! Owns what is measured of the server, of its busiest thread and of the generator in it, as a row and as
//! JSON.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::BenchError;
use crate::figures::{median, number, percentile};
use crate::load::Load;
use crate::process::{Usage, resident, threads};
use crate::server::Server;

/// The beginning of the names of the server's threads that forward.
const FORWARDS: &str = "media";
/// That of our thread that receives.
const RECEIVES: &str = "subscribers";

/// A stretch of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stretch {
    pub(crate) seconds: f64,
    /// Of a core: the server's busiest forwarding thread, and ours that receives.
    pub(crate) share: f64,
    pub(crate) ours: f64,
    /// Of the whole process, by packet that arrived.
    pub(crate) cpu_ns: f64,
    pub(crate) per_second: f64,
    pub(crate) missing: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) rss_mib: f64,
}

/// The share of a core that the busiest of some threads had.
fn busiest(before: &HashMap<PathBuf, u64>, after: &HashMap<PathBuf, u64>, seconds: f64) -> f64 {
    let spent = after
        .iter()
        .map(|(thread, spent)| spent.saturating_sub(before.get(thread).copied().unwrap_or(0)));
    spent.max().unwrap_or(0) as f64 / 1e9 / seconds
}

impl Stretch {
    pub(crate) async fn measure(
        server: &mut Server,
        load: &Load,
        length: Duration,
    ) -> Result<Stretch, BenchError> {
        let (pid, own) = (server.pid(), std::process::id());
        let before = load.snapshot().await?;
        let (usage, theirs, ours) = (Usage::of(pid)?, threads(pid, FORWARDS)?, threads(own, RECEIVES)?);
        let at = Instant::now();
        tokio::time::sleep(length).await;
        let seconds = at.elapsed().as_secs_f64();
        let spent = Usage::of(pid)?.since(&usage);
        let share = busiest(&theirs, &threads(pid, FORWARDS)?, seconds);
        let ours = busiest(&ours, &threads(own, RECEIVES)?, seconds);
        let mut after = load.snapshot().await?;
        server.still_there()?;
        let received = after.received - before.received;
        let expected = after.expected - before.expected;
        let milliseconds = |ns: u64| ns as f64 / 1e6;
        Ok(Stretch {
            seconds,
            share,
            ours,
            cpu_ns: spent.nanoseconds as f64 / received.max(1) as f64,
            per_second: received as f64 / seconds,
            missing: expected.saturating_sub(received) as f64,
            p50_ms: percentile(&mut after.delays, 0.5).map(milliseconds),
            p99_ms: percentile(&mut after.delays, 0.99).map(milliseconds),
            rss_mib: resident(pid)? as f64 / 1024.0,
        })
    }

    /// The medians of some of a kind.
    pub(crate) fn median(all: &[Stretch]) -> Stretch {
        let of = |pick: fn(&Stretch) -> f64| median(all.iter().map(pick)).unwrap_or(f64::NAN);
        Stretch {
            seconds: of(|s| s.seconds),
            share: of(|s| s.share),
            ours: of(|s| s.ours),
            cpu_ns: of(|s| s.cpu_ns),
            per_second: of(|s| s.per_second),
            missing: of(|s| s.missing),
            p50_ms: median(all.iter().filter_map(|s| s.p50_ms)),
            p99_ms: median(all.iter().filter_map(|s| s.p99_ms)),
            rss_mib: of(|s| s.rss_mib),
        }
    }

    pub(crate) fn columns(first: &str) -> Vec<String> {
        let rest = [
            "core %",
            "ours %",
            "ns/packet",
            "packets/s",
            "missing",
            "p50 ms",
            "p99 ms",
            "RSS MiB",
        ];
        std::iter::once(first).chain(rest).map(str::to_owned).collect()
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "seconds": number(Some(self.seconds)),
            "share": number(Some(self.share)),
            "generator_share": number(Some(self.ours)),
            "cpu_ns": number(Some(self.cpu_ns)),
            "packets_per_second": number(Some(self.per_second)),
            "missing": self.missing,
            "delay_p50_ms": number(self.p50_ms),
            "delay_p99_ms": number(self.p99_ms),
            "rss_mib": number(Some(self.rss_mib)),
        })
    }

    pub(crate) fn row(&self, name: String) -> Vec<String> {
        let text =
            |v: Option<f64>, digits: usize| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
        vec![
            name,
            text(Some(self.share * 100.0), 1),
            text(Some(self.ours * 100.0), 1),
            text(Some(self.cpu_ns), 0),
            text(Some(self.per_second), 0),
            text(Some(self.missing), 0),
            text(self.p50_ms, 2),
            text(self.p99_ms, 2),
            text(Some(self.rss_mib), 1),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_thread_counts() {
        let threads = |a, b| HashMap::from([(PathBuf::from("1"), a), (PathBuf::from("2"), b)]);
        let before = threads(0, 2_000_000_000);
        let mut after = threads(1_500_000_000, 3_000_000_000);
        assert!((busiest(&before, &after, 2.0) - 0.75).abs() < 1e-9);
        after.insert(PathBuf::from("3"), 1_800_000_000);
        assert!((busiest(&before, &after, 2.0) - 0.9).abs() < 1e-9);
        assert_eq!(busiest(&before, &HashMap::new(), 2.0), 0.0);
    }
}
