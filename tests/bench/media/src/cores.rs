//! Which core the server has.
//!
//! Owns the parting of the machine by `taskset`: one core is the server's, the others are the load
//! generator's, so that what one core carries can be told. Invariant: where there is but one core, or no
//! `taskset`, nothing is parted.

use std::path::Path;
use std::process::{Command, Stdio};

/// The server's core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Core(usize);

/// The numbers in a list like `0-2,5`.
fn numbers(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

impl Core {
    /// Sets the first core aside. This process runs on the others from now on, and what it starts.
    pub(crate) fn set_aside() -> Option<Core> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let list = status
            .lines()
            .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?;
        let all = numbers(list);
        let (first, others) = all.split_first()?;
        if others.is_empty() {
            return None;
        }
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        let moved = Command::new("taskset")
            .args(["--all-tasks", "--cpu-list", "--pid", &others.join(",")])
            .arg(std::process::id().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        moved.ok()?.success().then_some(Core(*first))
    }

    /// A program that will run on it.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &self.0.to_string()]).arg(program);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(numbers("\t0-2,5"), [0, 1, 2, 5]);
        assert_eq!(numbers("3"), [3]);
        assert!(numbers("").is_empty());
    }
}
