//! How busy the process is.
//!
//! Owns the reading of `/proc/self/task`. Invariant: on a system without it, or at the first reading,
//! the load is 0 and nothing fails.

use std::collections::HashMap;
use std::time::Duration;

/// Linux counts process time in hundredths of a second, whatever the kernel's tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// Readings of the threads' processor time.
#[derive(Debug, Default)]
pub struct Load {
    threads: HashMap<u64, u64>,
    at: Option<Duration>,
}

impl Load {
    /// The busiest thread since the last reading, 0 to 1000. Work is pinned to threads, so the
    /// busiest of them is what is full first.
    pub fn permille(&mut self, now: Duration) -> u32 {
        let threads = read();
        let elapsed = self.at.map_or(0.0, |at| now.saturating_sub(at).as_secs_f64());
        let busiest = threads
            .iter()
            .filter_map(|(id, ticks)| Some(ticks.saturating_sub(*self.threads.get(id)?)))
            .max()
            .unwrap_or(0);
        self.threads = threads;
        self.at = Some(now);
        if elapsed <= 0.0 {
            return 0;
        }
        (busiest as f64 / TICKS_PER_SECOND / elapsed * 1000.0).clamp(0.0, 1000.0) as u32
    }
}

fn read() -> HashMap<u64, u64> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return HashMap::new();
    };
    tasks
        .flatten()
        .filter_map(|task| {
            let id = task.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
            Some((id, ticks(&stat)?))
        })
        .collect()
}

/// utime + stime of a stat line: fields 14 and 15, counted after the parenthesised name.
fn ticks(stat: &str) -> Option<u64> {
    let rest = stat.rsplit_once(')')?.1;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_two_fields_behind_any_name() {
        let line = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0 100 0 0";
        assert_eq!(ticks(line), Some(42));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn the_first_reading_is_zero() {
        assert_eq!(Load::default().permille(Duration::from_secs(1)), 0);
    }
}
