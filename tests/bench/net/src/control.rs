//! The control lines.
//!
//! Owns their grammar: a direction and the settings to change, each `name=value`, or `stats`. A line with
//! anything in it that is not understood changes nothing.

use std::str::FromStr;
use std::time::Duration;

use crate::link::Settings;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Down,
    Up,
    Both,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Set { direction: Direction, change: Change },
    Stats,
}

/// What a line changes: settings it does not name stay.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Change {
    clear: bool,
    /// `None` inside is no limit.
    rate: Option<Option<u64>>,
    queue: Option<Duration>,
    delay: Option<Duration>,
    jitter: Option<Duration>,
    reorder: Option<bool>,
    loss: Option<f64>,
    burst: Option<f64>,
}

impl Change {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        if self.clear {
            *settings = Settings::default();
        }
        settings.rate = self.rate.unwrap_or(settings.rate);
        settings.queue = self.queue.unwrap_or(settings.queue);
        settings.delay = self.delay.unwrap_or(settings.delay);
        settings.jitter = self.jitter.unwrap_or(settings.jitter);
        settings.reorder = self.reorder.unwrap_or(settings.reorder);
        settings.loss = self.loss.unwrap_or(settings.loss);
        settings.burst = self.burst.unwrap_or(settings.burst);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("a line is `stats`, or `down`, `up` or `both` and settings; not `{0}`")]
    Line(String),
    #[error("`{0}` is no setting")]
    Setting(String),
    #[error("`{value}` is no {what}")]
    Value { what: &'static str, value: String },
}

impl FromStr for Command {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, CommandError> {
        let mut words = line.split_whitespace();
        let direction = match words.next() {
            Some("stats") if words.clone().next().is_none() => return Ok(Self::Stats),
            Some("down") => Direction::Down,
            Some("up") => Direction::Up,
            Some("both") => Direction::Both,
            _ => return Err(CommandError::Line(line.trim().to_owned())),
        };
        let mut change = Change::default();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match (name, value) {
                ("clear", "") => {
                    change = Change {
                        clear: true,
                        ..Change::default()
                    }
                }
                ("rate", "none") => change.rate = Some(None),
                ("rate", _) => change.rate = Some(Some(rate(value)?)),
                ("queue", _) => change.queue = Some(duration(value)?),
                ("delay", _) => change.delay = Some(duration(value)?),
                ("jitter", _) => change.jitter = Some(duration(value)?),
                ("reorder", "on" | "off") => change.reorder = Some(value == "on"),
                ("loss", _) => change.loss = Some(share(value)?),
                ("burst", _) => change.burst = Some(burst(value)?),
                _ => return Err(CommandError::Setting(word.to_owned())),
            }
        }
        Ok(Self::Set { direction, change })
    }
}

fn not(what: &'static str, value: &str) -> CommandError {
    CommandError::Value {
        what,
        value: value.to_owned(),
    }
}

/// Bits per second: `300k`, `3M`, `64000`.
fn rate(value: &str) -> Result<u64, CommandError> {
    let (digits, unit) = match value.strip_suffix(['k', 'M', 'G']) {
        Some(digits) if value.ends_with('k') => (digits, 1_000),
        Some(digits) if value.ends_with('M') => (digits, 1_000_000),
        Some(digits) => (digits, 1_000_000_000),
        None => (value, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        // A rate beyond this is a slip of the pen, and below it sums cannot overflow.
        .filter(|rate| (1..=100_000_000_000).contains(rate))
        .ok_or_else(|| not("rate", value))
}

/// Milliseconds, whole or with a fraction: `30ms`, `0.5ms`.
fn duration(value: &str) -> Result<Duration, CommandError> {
    value
        .strip_suffix("ms")
        .and_then(|number| number.parse::<f64>().ok())
        .filter(|ms| (0.0..=60_000.0).contains(ms))
        .map(|ms| Duration::from_secs_f64(ms / 1000.0))
        .ok_or_else(|| not("time", value))
}

fn share(value: &str) -> Result<f64, CommandError> {
    value
        .strip_suffix('%')
        .and_then(|number| number.parse::<f64>().ok())
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| not("share", value))
}

/// Mean length of a loss in packets; 1 is loss without memory.
fn burst(value: &str) -> Result<f64, CommandError> {
    value
        .parse::<f64>()
        .ok()
        .filter(|length| (1.0..=10_000.0).contains(length))
        .ok_or_else(|| not("burst", value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(line: &str, settings: &mut Settings) -> Direction {
        match line.parse() {
            Ok(Command::Set { direction, change }) => {
                change.apply(settings);
                direction
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_line_sets_what_it_names_and_leaves_the_rest() {
        let mut settings = Settings::default();
        let line = "down rate=500k delay=100ms jitter=30ms loss=5% burst=3 queue=250ms reorder=on";
        assert_eq!(set(line, &mut settings), Direction::Down);
        let told = Settings {
            rate: Some(500_000),
            queue: Duration::from_millis(250),
            delay: Duration::from_millis(100),
            jitter: Duration::from_millis(30),
            reorder: true,
            loss: 0.05,
            burst: 3.0,
        };
        assert_eq!(settings, told);
        assert_eq!(set("up rate=none loss=0.5%", &mut settings), Direction::Up);
        assert_eq!(
            settings,
            Settings {
                rate: None,
                loss: 0.005,
                ..told
            }
        );
        assert_eq!(set("both clear delay=1.5ms", &mut settings), Direction::Both);
        assert_eq!(
            settings,
            Settings {
                delay: Duration::from_micros(1500),
                ..Settings::default()
            }
        );
    }

    #[test]
    fn clear_undoes_what_stands_before_it_in_the_line() {
        let mut settings = Settings::default();
        set("down loss=50% clear rate=3M", &mut settings);
        assert_eq!(
            settings,
            Settings {
                rate: Some(3_000_000),
                ..Settings::default()
            }
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!("stats".parse(), Ok(Command::Stats));
        for line in [
            "",
            "stats now",
            "sideways loss=1%",
            "down loss=5",
            "down loss=101%",
            "down loss=NaN%",
            "down rate=0",
            "down rate=3m",
            "down rate=99999999999G",
            "down delay=10",
            "down delay=-1ms",
            "down delay=infms",
            "down burst=0.5",
            "down reorder=maybe",
            "down speed=1M",
            "down clear=1",
        ] {
            assert!(line.parse::<Command>().is_err(), "{line:?} was accepted");
        }
    }
}
