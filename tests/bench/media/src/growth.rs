//! What grows with a room.
//!
//! Owns two series: what a packet costs by the subscribers of a room, and what a join costs by the people who
//! are there already. Invariants: each size of a room has a fresh process on a core of its own; the steps of
//! a series of joins end when everybody has been told of everybody.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cores::Core;
use crate::error::BenchError;
use crate::figures::{aligned, median, number};
use crate::load::{Crowd, Load, SETTLE};
use crate::note;
use crate::packet::{FRAMES, PER_FRAME};
use crate::process::Usage;
use crate::server::{Kind, Server};
use crate::stretch::Stretch;
use crate::subscribers::Manners;
use crate::transport::Identity;

/// Two seconds' worth of packets.
const WARM: u64 = 2 * FRAMES * PER_FRAME;
/// Of the packets that are due, a size that got less than this share was not measured.
const PACE: f64 = 0.99;
/// Joins of a step.
const STEP: usize = 50;

fn crowd(people: usize, feedback: Option<Duration>) -> Crowd {
    Crowd {
        rooms: 1,
        people,
        manners: Manners {
            feedback,
            probe_every: 20.min(people.max(1)),
            sample: 4,
            round: Duration::from_millis(10),
        },
    }
}

/// By subscribers of a room.
pub(crate) async fn packets(
    plenum: &Path,
    sizes: &[usize],
    repeats: usize,
    window: Duration,
    feedback: Option<Duration>,
) -> Result<(String, Value), BenchError> {
    let core = Core::set_aside();
    let identity = Identity::generate().map_err(BenchError::transport("the certificate"))?;
    let mut cells: Vec<(usize, Vec<Stretch>)> = sizes.iter().map(|n| (*n, Vec::new())).collect();
    for repeat in 1..=repeats {
        for (people, stretches) in &mut cells {
            note(&format!("{repeat}/{repeats}: {people} subscribers"));
            let crowd = crowd(*people, feedback);
            let mut server = Server::start_on(&Kind::Plenum(plenum.to_owned()), core).await?;
            let load = Load::gather(&server, &identity, &crowd).await?;
            let outcome = async {
                load.send(FRAMES * 1000);
                load.receiving(WARM).await?;
                Stretch::measure(&mut server, &load, window).await
            }
            .await;
            stretches.push(load.stop(outcome)?);
        }
    }
    Ok(of_packets(&cells, core.is_some()))
}

fn of_packets(cells: &[(usize, Vec<Stretch>)], alone: bool) -> (String, Value) {
    let mut rows = vec![Stretch::columns("subscribers")];
    let mut costs: Vec<f64> = Vec::new();
    let mut out = serde_json::Map::new();
    let mut short = Vec::new();
    for (people, stretches) in cells {
        let cell = Stretch::median(stretches);
        let due = (people * (FRAMES * PER_FRAME) as usize) as f64;
        if cell.per_second < PACE * due {
            short.push(*people);
        } else {
            costs.push(cell.cpu_ns);
        }
        rows.push(cell.row(people.to_string()));
        out.insert(format!("n{people}"), cell.json());
    }
    let middle = median(costs.iter().copied());
    let apart = middle.map(|m| costs.iter().map(|c| (c / m - 1.0).abs()).fold(0.0, f64::max));
    let mut text = aligned(&rows);
    if let Some(apart) = apart {
        text += &format!("\nthe farthest from the median: {:.1} %", apart * 100.0);
    }
    if !short.is_empty() {
        text += &format!("\nshort of the pace, and left out of that: {short:?}");
    }
    let json = json!({
        "growth": out,
        "growth_farthest_from_median": number(apart),
        "short_of_pace": short,
        "core_alone": alone,
    });
    (text, json)
}

/// By people who are there.
pub(crate) async fn joins(
    plenum: &Path,
    people: usize,
    feedback: Option<Duration>,
) -> Result<(String, Value), BenchError> {
    let core = Core::set_aside();
    let identity = Identity::generate().map_err(BenchError::transport("the certificate"))?;
    let server = Server::start_on(&Kind::Plenum(plenum.to_owned()), core).await?;
    let mut load = Load::open(&server, &identity, &crowd(people, feedback)).await?;
    let outcome = step_by_step(&server, &mut load, people).await;
    let steps = load.stop(outcome)?;
    let mut rows = vec![
        ["people there", "CPU ms/join", "user", "system"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut out = serde_json::Map::new();
    for (there, joined, spent) in &steps {
        let all = spent.nanoseconds as f64 / 1e6 / *joined as f64;
        let user = all * spent.user as f64 / (spent.user + spent.system).max(1) as f64;
        rows.push(vec![
            format!("{there} to {}", there + joined),
            format!("{all:.2}"),
            format!("{user:.2}"),
            format!("{:.2}", all - user),
        ]);
        out.insert(format!("from_{there}"), number(Some(all)));
    }
    Ok((
        aligned(&rows),
        json!({ "cpu_per_join_ms": out, "core_alone": core.is_some() }),
    ))
}

async fn step_by_step(
    server: &Server,
    load: &mut Load,
    people: usize,
) -> Result<Vec<(usize, usize, Usage)>, BenchError> {
    tokio::time::sleep(SETTLE).await;
    let mut steps = Vec::new();
    let mut there = 0;
    while there < people {
        let joined = STEP.min(people - there);
        let before = Usage::of(server.pid())?;
        for person in there..there + joined {
            load.join(server, 0, person).await?;
        }
        tokio::time::sleep(SETTLE).await;
        steps.push((there, joined, Usage::of(server.pid())?.since(&before)));
        there += joined;
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_was_short_of_the_pace_says_nothing_of_growth() {
        let stretch = |people: usize, cpu_ns: f64, share: f64| Stretch {
            cpu_ns,
            per_second: people as f64 * 300.0 * share,
            ..Stretch::default()
        };
        let cells = [
            (50, vec![stretch(50, 1100.0, 1.0)]),
            (100, vec![stretch(100, 1000.0, 1.0)]),
            (200, vec![stretch(200, 900.0, 1.0)]),
            (500, vec![stretch(500, 5000.0, 0.5)]),
        ];
        let (text, json) = of_packets(&cells, true);
        assert_eq!(json["short_of_pace"], json!([500]));
        assert_eq!(json["growth_farthest_from_median"], json!(0.1));
        assert_eq!(json["growth"]["n50"]["cpu_ns"], json!(1100.0));
        assert!(text.contains("10.0 %"));
    }
}
