//! Participants as the table that `kubectl get` prints.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::participants::{Participant, state};

/// Does an Accept header prefer a table? kubectl lists what it takes in the order of its liking.
pub(super) fn wanted(accept: &str) -> bool {
    let first = accept.split(',').next().unwrap_or_default().replace(' ', "");
    first.starts_with("application/json") && first.contains("as=Table") && first.contains("g=meta.k8s.io")
}

/// The table; `include` is the request's `includeObject`.
pub(super) fn table(participants: &[Participant], include: &str, now: Timestamp) -> Value {
    let column = |name: &str, priority: u8, description: &str| json!({"name": name, "type": "string", "format": "", "priority": priority, "description": description});
    let mut name = column("Name", 0, "The participant's identity, made fit for a name.");
    name["format"] = json!("name");
    let rows: Vec<Value> = participants.iter().map(|one| row(one, include, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": ""},
        "columnDefinitions": [
            name,
            column("Meeting", 0, "The Meeting."),
            column("Room", 0, "The BreakoutRoom, or main."),
            column("Role", 0, "host, cohost, participant or viewer."),
            column("Tracks", 0, "What is published."),
            column("Quality", 0, "Connection quality."),
            column("Age", 0, "Time since the join."),
            column("Identity", 1, "The identity in the token."),
            column("Display Name", 1, "What others see."),
            column("State", 1, "State of the connection."),
            column("SID", 1, "Id of the connection."),
        ],
        "rows": rows,
    })
}

fn row(one: &Participant, include: &str, now: Timestamp) -> Value {
    let or = |text: &str, instead: &str| {
        if text.is_empty() {
            instead.to_owned()
        } else {
            text.to_owned()
        }
    };
    let age = one.joined().map_or_else(
        || "<unknown>".to_owned(),
        |joined| age(now.as_second() - joined.as_second()),
    );
    let object = match include {
        "None" => Value::Null,
        "Object" => one.object(),
        _ => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": one.metadata()})
        }
    };
    json!({
        "cells": [
            one.name, one.meeting, one.breakout.as_deref().unwrap_or("main"), one.role,
            or(&tracks(one), "<none>"), or(&one.quality, "<unknown>"), age,
            one.info.identity, or(&one.info.name, "<none>"), state(one.info.state()), one.info.sid,
        ],
        "object": object,
    })
}

/// `camera,microphone(muted)`
fn tracks(one: &Participant) -> String {
    let names: Vec<String> = one
        .info
        .tracks
        .iter()
        .map(|track| {
            let source = track.source().as_str_name().to_ascii_lowercase();
            let name = if source == "unknown" {
                track.r#type().as_str_name().to_ascii_lowercase()
            } else {
                source
            };
            if track.muted {
                format!("{name}(muted)")
            } else {
                name
            }
        })
        .collect();
    names.join(",")
}

/// A span of time as kubectl writes it.
fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (-5, "0s"),
            (119, "119s"),
            (150, "2m30s"),
            (180, "3m"),
            (3600, "60m"),
            (11_100, "3h5m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn a_table_is_served_only_to_who_prefers_it() {
        assert!(wanted(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
        ));
        assert!(!wanted("application/json"));
        assert!(!wanted(
            "application/json,application/json;as=Table;v=v1;g=meta.k8s.io"
        ));
    }
}
