//! When a meeting takes place.
//!
//! Owns the reading of `spec.schedule`. Pure: the present is an argument. Invariant: a schedule
//! that cannot be understood is an error with a reason, never "open".

use std::str::FromStr as _;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use plenum_crds::Schedule;

/// A scheduled meeting is placed this long before its start, so that the room is there when the
/// first people come early.
pub(crate) const LEAD: Duration = Duration::from_secs(300);
/// Length of an occurrence where the schedule names none.
const DEFAULT_OCCURRENCE: Duration = Duration::from_secs(3600);

/// Where the present lies in a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not yet: it opens then.
    Before(Timestamp),
    /// Now, until then (`None`: open end).
    Open(Option<Timestamp>),
    /// No occurrence is left.
    Over,
}

/// Why a schedule cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScheduleError {
    /// Not an IANA zone.
    #[error("timeZone {0:?} is no IANA time zone")]
    Zone(String),
    /// Not an RFC 5545 rule.
    #[error("rrule: {0}")]
    Rule(String),
    /// Too dense to be a meeting, and too costly to compute.
    #[error("rrule: a meeting recurs hourly at most; use FREQ=HOURLY or longer")]
    TooDense,
    /// The API server's rules let this through only for objects from before them.
    #[error("rrule without start")]
    NoStart,
    /// A date beyond what can be computed.
    #[error("a date is out of range")]
    Range,
}

/// Where `now` lies in `schedule`.
pub(crate) fn phase(schedule: Option<&Schedule>, now: Timestamp) -> Result<Phase, ScheduleError> {
    let Some(schedule) = schedule else {
        return Ok(Phase::Open(None));
    };
    if let Some(rule) = &schedule.rrule {
        return recurring(schedule, rule, now);
    }
    let end = schedule.end.as_ref().map(|end| end.0);
    if end.is_some_and(|end| now >= end) {
        return Ok(Phase::Over);
    }
    match schedule.start.as_ref().map(|start| start.0 - LEAD) {
        Some(opens) if now < opens => Ok(Phase::Before(opens)),
        _ => Ok(Phase::Open(end)),
    }
}

fn recurring(schedule: &Schedule, rule: &str, now: Timestamp) -> Result<Phase, ScheduleError> {
    let start = schedule.start.as_ref().ok_or(ScheduleError::NoStart)?.0;
    let zone = schedule.time_zone.as_deref().unwrap_or("UTC");
    let zone: rrule::Tz = chrono_zone(zone)?;
    let length = schedule
        .duration
        .as_ref()
        .map_or(DEFAULT_OCCURRENCE, plenum_crds::Duration::get);
    let upper = rule.to_ascii_uppercase();
    if upper.contains("FREQ=SECONDLY") || upper.contains("FREQ=MINUTELY") {
        return Err(ScheduleError::TooDense);
    }
    let rule = rule.strip_prefix("RRULE:").unwrap_or(rule);
    let first = at_zone(start, zone)?;
    let bad = |error: rrule::RRuleError| ScheduleError::Rule(error.to_string());
    let rule = rrule::RRule::<rrule::Unvalidated>::from_str(rule)
        .map_err(bad)?
        .validate(first)
        .map_err(bad)?;
    // The occurrence that is going on began after `now - length`; with it the next one.
    let from = at_zone(now - length, zone)?;
    let found = rrule::RRuleSet::new(first).rrule(rule).after(from).all(2);
    for occurrence in found.dates {
        let begins = Timestamp::from_second(occurrence.timestamp()).map_err(|_| ScheduleError::Range)?;
        let ends = begins + length;
        if now >= ends {
            continue;
        }
        let opens = begins - LEAD;
        return Ok(if now < opens {
            Phase::Before(opens)
        } else {
            Phase::Open(Some(ends))
        });
    }
    Ok(Phase::Over)
}

fn chrono_zone(name: &str) -> Result<rrule::Tz, ScheduleError> {
    // The rule's own parser is the way to a zone that does not need chrono-tz as a dependency.
    let probe = if name == "UTC" {
        "DTSTART:20200101T000000Z\nRRULE:FREQ=DAILY;COUNT=1".to_owned()
    } else {
        format!("DTSTART;TZID={name}:20200101T000000\nRRULE:FREQ=DAILY;COUNT=1")
    };
    let set = rrule::RRuleSet::from_str(&probe).map_err(|_| ScheduleError::Zone(name.to_owned()))?;
    Ok(set.get_dt_start().timezone())
}

fn at_zone(at: Timestamp, zone: rrule::Tz) -> Result<chrono::DateTime<rrule::Tz>, ScheduleError> {
    let utc = chrono::DateTime::from_timestamp(at.as_second(), 0).ok_or(ScheduleError::Range)?;
    Ok(utc.with_timezone(&zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(yaml: serde_json::Value) -> Schedule {
        serde_json::from_value(yaml).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_schedule_it_is_always_open() {
        assert_eq!(phase(None, at("2026-05-04T00:00:00Z")), Ok(Phase::Open(None)));
    }

    #[test]
    fn once() {
        let once =
            schedule(serde_json::json!({ "start": "2026-05-04T10:00:00Z", "end": "2026-05-04T11:00:00Z" }));
        let phase = |now| phase(Some(&once), at(now)).unwrap();
        assert_eq!(
            phase("2026-05-04T09:00:00Z"),
            Phase::Before(at("2026-05-04T09:55:00Z"))
        );
        assert_eq!(
            phase("2026-05-04T09:55:00Z"),
            Phase::Open(Some(at("2026-05-04T11:00:00Z")))
        );
        assert_eq!(
            phase("2026-05-04T10:59:59Z"),
            Phase::Open(Some(at("2026-05-04T11:00:00Z")))
        );
        assert_eq!(phase("2026-05-04T11:00:00Z"), Phase::Over);
    }

    #[test]
    fn again_and_again_in_a_zone_with_summer_time() {
        let weekly = schedule(serde_json::json!({
            "start": "2026-03-16T09:00:00Z", "rrule": "FREQ=WEEKLY;BYDAY=MO;COUNT=3",
            "duration": "30m", "timeZone": "Europe/Berlin",
        }));
        let phase = |now| phase(Some(&weekly), at(now)).unwrap();
        assert_eq!(
            phase("2026-03-16T09:10:00Z"),
            Phase::Open(Some(at("2026-03-16T09:30:00Z")))
        );
        assert_eq!(
            phase("2026-03-16T09:30:00Z"),
            Phase::Before(at("2026-03-23T08:55:00Z"))
        );
        // Summer time begins on the 29th: ten o'clock in Berlin is then 08:00 in UTC.
        assert_eq!(
            phase("2026-03-30T08:00:00Z"),
            Phase::Open(Some(at("2026-03-30T08:30:00Z")))
        );
        assert_eq!(phase("2026-03-30T08:30:00Z"), Phase::Over);
    }

    #[test]
    fn what_cannot_be_understood_says_why() {
        let now = at("2026-05-04T10:00:00Z");
        let with = |rrule: &str, zone: &str| {
            schedule(serde_json::json!({ "start": "2026-05-04T10:00:00Z", "rrule": rrule, "timeZone": zone }))
        };
        assert_eq!(
            phase(Some(&with("FREQ=DAILY", "Mars/Base")), now),
            Err(ScheduleError::Zone("Mars/Base".into()))
        );
        assert!(matches!(
            phase(Some(&with("FREQ=SOMETIMES", "UTC")), now),
            Err(ScheduleError::Rule(_))
        ));
        assert_eq!(
            phase(Some(&with("FREQ=SECONDLY", "UTC")), now),
            Err(ScheduleError::TooDense)
        );
    }
}
