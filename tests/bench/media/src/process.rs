//! What the kernel has charged to a process.
//!
//! Owns the reading of CPU clocks and of /proc. CPU time in all is exact; its split into user and system
//! is the kernel's estimate, sampled at every tick.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::error::BenchError;

/// A moment's counts, or what was added between two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// On a CPU, all threads, those that ended included.
    pub(crate) nanoseconds: u64,
    /// Ticks.
    pub(crate) user: u64,
    pub(crate) system: u64,
    /// Times a thread went to sleep, of the threads there are.
    pub(crate) sleeps: u64,
    /// Nanoseconds of the kernel's threads that take over what interrupts leave undone, of the whole
    /// machine: work that may have been done for the process and is not charged to it.
    pub(crate) soft_interrupts: u64,
}

fn read(path: &Path) -> Result<String, BenchError> {
    fs::read_to_string(path).map_err(|e| BenchError::Proc(format!("{}: {e}", path.display())))
}

/// Nanoseconds of a kernel thread on a CPU.
fn run_time(folder: &Path) -> Result<u64, BenchError> {
    let text = read(&folder.join("schedstat"))?;
    text.split_ascii_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| BenchError::Proc("schedstat".to_owned()))
}

fn clock(id: ClockId) -> Result<u64, BenchError> {
    let nanoseconds = |t: TimeSpec| u64::try_from(t.num_nanoseconds()).unwrap_or_default();
    clock_gettime(id)
        .map(nanoseconds)
        .map_err(|e| BenchError::Proc(format!("a CPU clock: {e}")))
}

/// User and system time in ticks.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    // The name, in parentheses, may hold anything; the state is the field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, BenchError> {
    let entries = fs::read_dir(path).map_err(|e| BenchError::Proc(format!("{}: {e}", path.display())))?;
    Ok(entries.filter_map(|e| Some(e.ok()?.path())).collect())
}

fn soft_interrupts() -> Result<u64, BenchError> {
    let ours = |p: &&PathBuf| read(&p.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"));
    folders(Path::new("/proc"))?
        .iter()
        .filter(ours)
        .map(|p| run_time(p))
        .sum()
}

impl Usage {
    /// Of a process.
    pub(crate) fn of(pid: u32) -> Result<Usage, BenchError> {
        let number = i32::try_from(pid).map_err(|_| BenchError::Proc("a process number".to_owned()))?;
        let id = clock_getcpuclockid(Pid::from_raw(number))
            .map_err(|e| BenchError::Proc(format!("a CPU clock: {e}")))?;
        let folder = Path::new("/proc").join(pid.to_string());
        let mut usage = Usage::read(clock(id)?, &folder, &folders(&folder.join("task"))?)?;
        usage.soft_interrupts = soft_interrupts()?;
        Ok(usage)
    }

    /// Of the thread that asks.
    pub(crate) fn of_this_thread() -> Result<Usage, BenchError> {
        let folder = Path::new("/proc/thread-self");
        let spent = clock(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        Usage::read(spent, folder, &[folder.to_owned()])
    }

    fn read(nanoseconds: u64, folder: &Path, tasks: &[PathBuf]) -> Result<Usage, BenchError> {
        let stat = read(&folder.join("stat"))?;
        let (user, system) = ticks(&stat).ok_or_else(|| BenchError::Proc("stat".to_owned()))?;
        // A thread may end between the listing and the reading.
        let sleeps = tasks
            .iter()
            .filter_map(|t| field(&read(&t.join("status")).ok()?, "voluntary_ctxt_switches:"))
            .sum();
        Ok(Usage {
            nanoseconds,
            user,
            system,
            sleeps,
            soft_interrupts: 0,
        })
    }

    /// Since an earlier moment.
    pub(crate) fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            nanoseconds: self.nanoseconds.saturating_sub(earlier.nanoseconds),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            sleeps: self.sleeps.saturating_sub(earlier.sleeps),
            soft_interrupts: self.soft_interrupts.saturating_sub(earlier.soft_interrupts),
        }
    }
}

/// CPU nanoseconds of each thread there is whose name begins so.
pub(crate) fn threads(pid: u32, name: &str) -> Result<HashMap<PathBuf, u64>, BenchError> {
    let folder = Path::new("/proc").join(pid.to_string()).join("task");
    let mut out = HashMap::new();
    for task in folders(&folder)? {
        // A thread may end between the listing and the reading.
        if read(&task.join("comm")).is_ok_and(|comm| comm.starts_with(name))
            && let Ok(spent) = run_time(&task)
        {
            out.insert(task, spent);
        }
    }
    Ok(out)
}

/// Datagrams that the kernel threw away because a socket's queue was full, by local port.
pub(crate) fn overflows() -> Result<HashMap<u16, u64>, BenchError> {
    let text = read(Path::new("/proc/net/udp"))?;
    Ok(by_port(&text))
}

fn by_port(udp: &str) -> HashMap<u16, u64> {
    let mut out = HashMap::new();
    for line in udp.lines().skip(1) {
        let mut fields = line.split_ascii_whitespace();
        let port = fields
            .nth(1)
            .and_then(|a| u16::from_str_radix(a.rsplit_once(':')?.1, 16).ok());
        let drops = fields.last().and_then(|d| d.parse::<u64>().ok());
        if let (Some(port), Some(drops)) = (port, drops) {
            *out.entry(port).or_default() += drops;
        }
    }
    out
}

/// Resident memory in KiB.
pub(crate) fn resident(pid: u32) -> Result<u64, BenchError> {
    let status = read(&Path::new("/proc").join(pid.to_string()).join("status"))?;
    field(&status, "VmRSS:").ok_or_else(|| BenchError::Proc("VmRSS".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn ticks_stand_behind_a_name_that_may_hold_anything() {
        let stat = "12 (a) b c) S 1 2 3 4 5 6 7 8 9 10 77 88 0 0 20";
        assert_eq!(ticks(stat), Some((77, 88)));
        assert_eq!(ticks("12 (a"), None);
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
    }

    #[test]
    fn overflows_are_told_by_port() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             7: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 1 2 0 5\n\
             8: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 1 2 0 6\n";
        assert_eq!(by_port(text), HashMap::from([(8080, 11)]));
        assert!(overflows().is_ok());
        assert!(!threads(std::process::id(), "").unwrap().is_empty());
    }

    #[test]
    fn work_of_any_thread_is_seen() {
        let before = Usage::of(std::process::id()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let own = Usage::of_this_thread().unwrap();
                let end = Instant::now() + Duration::from_secs(10);
                while Usage::of_this_thread().unwrap().since(&own).nanoseconds < 5_000_000 {
                    assert!(Instant::now() < end);
                }
                let all = Usage::of(std::process::id()).unwrap().since(&before);
                assert!(all.nanoseconds >= 5_000_000, "{all:?}");
            });
        });
        assert!(resident(std::process::id()).unwrap() > 0);
    }
}
