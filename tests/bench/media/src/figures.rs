//! Numbers into figures.
//!
//! Owns medians, percentiles, the table and the JSON object. Pure. Invariants: a figure that was not
//! measured is `null`, never 0; every cell is there under its own name, and those of the headline size
//! under the names that targets are written for.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::limit::Way;
use crate::meeting::{Gathering, Meeting};
use crate::pace::Mode;
use crate::packet::{FRAMES, PER_FRAME};

/// Subscribers of the cells that targets are about.
pub(crate) const HEADLINE: usize = 100;
/// A cell that got less than this share of what was sent at it by the clock.
const PACE: f64 = 0.99;
/// Why there is no number of allocations.
pub(crate) const NO_ALLOCATIONS: &str =
    "the counting test was not run, and no server tells how often it allocates";

/// One window.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Window {
    /// CPU nanoseconds per forwarded packet.
    pub(crate) cpu_ns: f64,
    /// Ticks of user and system time.
    pub(crate) ticks: (u64, u64),
    pub(crate) packets_per_second: f64,
    /// Share of the packets that never came.
    pub(crate) loss: f64,
    /// Milliseconds; probes only.
    pub(crate) delay_ms: Option<(f64, f64)>,
    pub(crate) sleeps_per_second: f64,
    pub(crate) soft_interrupt_ns: f64,
    /// Packets that are not of the stream, by forwarded packet.
    pub(crate) others: f64,
    /// Key frames the server asked the publisher for.
    pub(crate) key_frames: f64,
}

/// One filling of a room.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Crowd {
    pub(crate) rss_per_subscriber_kib: f64,
    pub(crate) rss_mib: f64,
    pub(crate) cpu_per_join_ms: f64,
}

/// Everything of one server.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) windows: BTreeMap<(usize, Mode), Vec<Window>>,
    pub(crate) crowds: BTreeMap<usize, Vec<Crowd>>,
    pub(crate) meetings: BTreeMap<Meeting, Vec<Gathering>>,
}

/// Everything of a run.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// In the order of measuring; ours is called `plenum`.
    pub(crate) servers: Vec<(String, Measured)>,
    pub(crate) limits: BTreeMap<(usize, Mode, Way), Vec<Window>>,
    /// Nanoseconds to seal a packet.
    pub(crate) seal: Vec<f64>,
    /// Plenum's heap allocations per forwarded packet, as its own test counted them.
    pub(crate) allocations: Option<f64>,
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut v: Vec<f64> = values.into_iter().collect();
    v.sort_by(f64::total_cmp);
    let high = v.get(v.len() / 2)?;
    let low = v.get((v.len() - 1) / 2)?;
    Some(f64::midpoint(*low, *high))
}

/// The smallest value that `share` of all don't exceed (nearest rank); sorts.
pub(crate) fn percentile(values: &mut [u64], share: f64) -> Option<u64> {
    values.sort_unstable();
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

/// A number as JSON, rounded so that the line can be read; `None` and nonsense are `null`.
pub(crate) fn number(value: Option<f64>) -> Value {
    let Some(value) = value.filter(|v| v.is_finite()) else {
        return Value::Null;
    };
    let digits = if value.abs() >= 100.0 { 1.0 } else { 1000.0 };
    json!((value * digits).round() / digits)
}

/// The medians of windows of the same kind.
#[derive(Debug, Clone, Copy)]
struct Cell {
    cpu_ns: Option<f64>,
    user_ns: Option<f64>,
    system_ns: Option<f64>,
    packets_per_second: Option<f64>,
    loss: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    sleeps_per_second: Option<f64>,
    soft_interrupt_ns: Option<f64>,
    others: Option<f64>,
    key_frames: Option<f64>,
}

impl Cell {
    fn of(windows: &[Window]) -> Cell {
        let of = |pick: fn(&Window) -> f64| median(windows.iter().map(pick));
        let cpu_ns = of(|w| w.cpu_ns);
        // Ticks are few: the split is that of all windows together.
        let (user, system) = windows
            .iter()
            .fold((0, 0), |(u, s), w| (u + w.ticks.0, s + w.ticks.1));
        let share = |ticks: u64| {
            let all = user + system;
            (all > 0).then(|| ticks as f64 / all as f64)
        };
        let part = |ticks: u64| Some(cpu_ns? * share(ticks)?);
        Cell {
            cpu_ns,
            user_ns: part(user),
            system_ns: part(system),
            packets_per_second: of(|w| w.packets_per_second),
            loss: of(|w| w.loss),
            p50_ms: median(windows.iter().filter_map(|w| Some(w.delay_ms?.0))),
            p99_ms: median(windows.iter().filter_map(|w| Some(w.delay_ms?.1))),
            sleeps_per_second: of(|w| w.sleeps_per_second),
            soft_interrupt_ns: of(|w| w.soft_interrupt_ns),
            others: of(|w| w.others),
            key_frames: of(|w| w.key_frames),
        }
    }

    fn json(&self) -> Value {
        json!({
            "cpu_ns": number(self.cpu_ns),
            "user_ns": number(self.user_ns),
            "system_ns": number(self.system_ns),
            "packets_per_second": number(self.packets_per_second),
            "loss": number(self.loss),
            "delay_p50_ms": number(self.p50_ms),
            "delay_p99_ms": number(self.p99_ms),
            "sleeps_per_second": number(self.sleeps_per_second),
            "soft_interrupt_ns": number(self.soft_interrupt_ns),
            "others_per_packet": number(self.others),
            "key_frames_asked": number(self.key_frames),
        })
    }
}

fn cell_name(n: usize, mode: Mode) -> String {
    format!("{}_n{n}", mode.name())
}

fn way_name(way: Way) -> &'static str {
    match way {
        Way::Batched => "mmsg",
        Way::Segmented => "gso",
    }
}

/// The name of a limit: `single` packets batched, `frames10` segmented, and frames batched as a third.
fn limit_name(n: usize, mode: Mode, way: Way) -> String {
    match (mode, way) {
        (Mode::Frames, Way::Batched) => format!("limit_mmsg_frames10_n{n}"),
        (_, way) => format!("limit_{}_n{n}", way_name(way)),
    }
}

impl Measured {
    fn cell(&self, n: usize, mode: Mode) -> Option<Cell> {
        self.windows.get(&(n, mode)).map(|w| Cell::of(w))
    }

    fn crowd(&self, n: usize, pick: fn(&Crowd) -> f64) -> Option<f64> {
        median(self.crowds.get(&n)?.iter().map(pick))
    }

    fn gathering(&self, meeting: Meeting, pick: fn(&Gathering) -> f64) -> Option<f64> {
        median(self.meetings.get(&meeting)?.iter().map(pick))
    }

    /// The figures that targets are written for.
    fn headline(&self) -> Map<String, Value> {
        let frames = self.cell(HEADLINE, Mode::Frames);
        let single = self.cell(HEADLINE, Mode::Single);
        let mut out = Map::new();
        let mut put = |name: &str, value: Option<f64>| out.insert(name.to_owned(), number(value));
        put("frames10_n100_ns", frames.and_then(|c| c.cpu_ns));
        put("single_n100_ns", single.and_then(|c| c.cpu_ns));
        put("user_ns", frames.and_then(|c| c.user_ns));
        put("system_ns", frames.and_then(|c| c.system_ns));
        put("delay_p50_ms", single.and_then(|c| c.p50_ms));
        put("delay_p99_ms", single.and_then(|c| c.p99_ms));
        put(
            "rss_per_subscriber_kib",
            self.crowd(HEADLINE, |c| c.rss_per_subscriber_kib),
        );
        put("cpu_per_join_ms", self.crowd(HEADLINE, |c| c.cpu_per_join_ms));
        out.insert("allocations_per_packet".to_owned(), Value::Null);
        out.insert("allocations_per_packet_reason".to_owned(), json!(NO_ALLOCATIONS));
        out
    }

    fn json(&self) -> Map<String, Value> {
        let mut out = self.headline();
        let mut cells = Map::new();
        for ((n, mode), windows) in &self.windows {
            let cell = Cell::of(windows);
            out.insert(format!("{}_ns", cell_name(*n, *mode)), number(cell.cpu_ns));
            cells.insert(cell_name(*n, *mode), cell.json());
        }
        out.insert("cells".to_owned(), Value::Object(cells));
        let crowds = self.crowds.keys().map(|n| {
            let of = |pick| number(self.crowd(*n, pick));
            let crowd = json!({
                "rss_mib": of(|c| c.rss_mib),
                "rss_per_subscriber_kib": of(|c| c.rss_per_subscriber_kib),
                "cpu_per_join_ms": of(|c| c.cpu_per_join_ms),
            });
            (format!("n{n}"), crowd)
        });
        out.insert("crowds".to_owned(), Value::Object(crowds.collect()));
        let meetings = self.meetings.keys().map(|meeting| {
            let of = |pick| number(self.gathering(*meeting, pick));
            let gathering = json!({
                "cores": of(|g| g.cores),
                "sent_per_second": of(|g| g.sent_per_second),
                "received_per_second": of(|g| g.received_per_second),
                "loss": of(|g| g.loss),
                "streams": of(|g| g.streams),
                "rss_mib": of(|g| g.rss_mib),
                "cpu_per_join_ms": of(|g| g.cpu_per_join_ms),
            });
            (meeting.name().to_owned(), gathering)
        });
        out.insert("meetings".to_owned(), Value::Object(meetings.collect()));
        out
    }
}

fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b.filter(|b| *b > 0.0)?)
}

impl Results {
    fn limit(&self, n: usize, mode: Mode, way: Way) -> Option<f64> {
        self.limits.get(&(n, mode, way)).and_then(|w| Cell::of(w).cpu_ns)
    }

    /// One object: our figures, the limits, the ratios, and each peer under its name.
    pub(crate) fn json(&self) -> Value {
        let empty = Measured::default();
        let ours = self
            .servers
            .iter()
            .find(|(name, _)| name == "plenum")
            .map_or(&empty, |(_, m)| m);
        let mut out = ours.json();
        if let Some(counted) = self.allocations {
            out.insert("allocations_per_packet".to_owned(), number(Some(counted)));
            out.remove("allocations_per_packet_reason");
        }
        for name in ["limit_gso_n100_ns", "limit_mmsg_n100_ns"] {
            out.insert(name.to_owned(), Value::Null);
        }
        for ((n, mode, way), windows) in &self.limits {
            let name = format!("{}_ns", limit_name(*n, *mode, *way));
            out.insert(name, number(Cell::of(windows).cpu_ns));
        }
        out.insert(
            "limit_seal_ns".to_owned(),
            number(median(self.seal.iter().copied())),
        );
        out.insert("ratios".to_owned(), Value::Object(self.ratios(ours)));
        for (name, measured) in self.servers.iter().filter(|(name, _)| name != "plenum") {
            out.insert(name.clone(), Value::Object(measured.json()));
        }
        out.insert("short_of_pace".to_owned(), json!(self.short_of_pace()));
        Value::Object(out)
    }

    /// Cells in which fewer packets came through than the publisher's pace asks for: the machine, or the
    /// server, had no time, and their figures are of something else than forwarding.
    pub(crate) fn short_of_pace(&self) -> Vec<String> {
        let short = |n: usize, windows: &[Window]| {
            let pace = (FRAMES * PER_FRAME) as f64 * n as f64;
            Cell::of(windows)
                .packets_per_second
                .is_some_and(|got| got < PACE * pace)
        };
        let of_servers = self.servers.iter().flat_map(|(name, measured)| {
            measured
                .windows
                .iter()
                .filter(|((n, _), windows)| short(*n, windows))
                .map(move |((n, mode), _)| format!("{name} {}", cell_name(*n, *mode)))
        });
        let of_limits = self
            .limits
            .iter()
            .filter(|((n, ..), windows)| short(*n, windows))
            .map(|((n, mode, way), _)| limit_name(*n, *mode, *way));
        of_servers.chain(of_limits).collect()
    }

    /// Ours by what it is compared with: below 1, Plenum needs less.
    fn ratios(&self, ours: &Measured) -> Map<String, Value> {
        let mut out = Map::new();
        let of = |m: &Measured, mode| m.cell(HEADLINE, mode).and_then(|c| c.cpu_ns);
        let frames = of(ours, Mode::Frames);
        let single = of(ours, Mode::Single);
        let gso = self.limit(HEADLINE, Mode::Frames, Way::Segmented);
        let mmsg = self.limit(HEADLINE, Mode::Single, Way::Batched);
        out.insert("frames10_to_limit_gso".to_owned(), number(ratio(frames, gso)));
        out.insert("single_to_limit_mmsg".to_owned(), number(ratio(single, mmsg)));
        for (name, peer) in self.servers.iter().filter(|(name, _)| name != "plenum") {
            let mut put = |what: &str, a: Option<f64>, b: Option<f64>| {
                out.insert(format!("{what}_to_{name}"), number(ratio(a, b)));
            };
            put("frames10", frames, of(peer, Mode::Frames));
            put("single", single, of(peer, Mode::Single));
            for (what, pick) in [
                ("rss", (|c: &Crowd| c.rss_per_subscriber_kib) as fn(&Crowd) -> f64),
                ("join", |c| c.cpu_per_join_ms),
            ] {
                put(what, ours.crowd(HEADLINE, pick), peer.crowd(HEADLINE, pick));
            }
            for meeting in Meeting::ALL {
                let cores = |m: &Measured| m.gathering(meeting, |g| g.cores);
                put(meeting.name(), cores(ours), cores(peer));
            }
        }
        out
    }

    /// The same for people.
    pub(crate) fn table(&self) -> String {
        let mut rows = vec![
            "cell,ns/packet,user,system,softirq,packets/s,loss %,p50 ms,p99 ms,sleeps/s"
                .split(',')
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        ];
        let mut row = |name: String, windows: &[Window]| {
            let c = Cell::of(windows);
            let text =
                |v: Option<f64>, digits: usize| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
            rows.push(vec![
                name,
                text(c.cpu_ns, 0),
                text(c.user_ns, 0),
                text(c.system_ns, 0),
                text(c.soft_interrupt_ns, 0),
                text(c.packets_per_second, 0),
                text(c.loss.map(|l| l * 100.0), 3),
                text(c.p50_ms, 3),
                text(c.p99_ms, 3),
                text(c.sleeps_per_second, 0),
            ]);
        };
        for (name, measured) in &self.servers {
            for ((n, mode), windows) in &measured.windows {
                row(format!("{name} {}", cell_name(*n, *mode)), windows);
            }
        }
        for ((n, mode, way), windows) in &self.limits {
            row(limit_name(*n, *mode, *way), windows);
        }
        let mut out = aligned(&rows);
        let mut crowds = vec![vec![
            "room".to_owned(),
            "RSS MiB".to_owned(),
            "KiB/subscriber".to_owned(),
            "CPU ms/join".to_owned(),
        ]];
        for (name, measured) in &self.servers {
            for n in measured.crowds.keys() {
                let of = |pick| format!("{:.1}", measured.crowd(*n, pick).unwrap_or(f64::NAN));
                crowds.push(vec![
                    format!("{name} n{n}"),
                    of(|c| c.rss_mib),
                    of(|c| c.rss_per_subscriber_kib),
                    format!(
                        "{:.2}",
                        measured.crowd(*n, |c| c.cpu_per_join_ms).unwrap_or(f64::NAN)
                    ),
                ]);
            }
        }
        out.push('\n');
        out.push_str(&aligned(&crowds));
        let mut meetings = vec![
            "meeting,cores,in/s,out/s,loss %,streams,RSS MiB,CPU ms/join"
                .split(',')
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        ];
        for (name, measured) in &self.servers {
            for meeting in measured.meetings.keys() {
                let of = |pick, digits: usize| {
                    let value = measured.gathering(*meeting, pick).unwrap_or(f64::NAN);
                    format!("{value:.digits$}")
                };
                meetings.push(vec![
                    format!("{name} {}", meeting.name()),
                    of(|g| g.cores, 3),
                    of(|g| g.sent_per_second, 0),
                    of(|g| g.received_per_second, 0),
                    of(|g| g.loss * 100.0, 3),
                    of(|g| g.streams, 0),
                    of(|g| g.rss_mib, 1),
                    of(|g| g.cpu_per_join_ms, 2),
                ]);
            }
        }
        if meetings.len() > 1 {
            out.push('\n');
            out.push_str(&aligned(&meetings));
        }
        out
    }
}

/// Columns, the first to the left and the rest to the right.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |c: usize| {
        rows.iter()
            .filter_map(|r| Some(r.get(c)?.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, (text, width)) in row.iter().zip(&widths).enumerate() {
            let cell = if column == 0 {
                format!("{text:<width$}")
            } else {
                format!("  {text:>width$}")
            };
            out.push_str(&cell);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(cpu_ns: f64, ticks: (u64, u64)) -> Window {
        Window {
            cpu_ns,
            ticks,
            packets_per_second: 30_000.0,
            delay_ms: Some((0.5, 1.5)),
            ..Window::default()
        }
    }

    fn measured(cpu_ns: f64) -> Measured {
        let mut m = Measured::default();
        for mode in Mode::ALL {
            let windows = vec![
                window(cpu_ns, (1, 3)),
                window(cpu_ns * 9.0, (0, 0)),
                window(cpu_ns, (1, 3)),
            ];
            m.windows.insert((HEADLINE, mode), windows);
        }
        let crowd = Crowd {
            rss_per_subscriber_kib: 100.0,
            rss_mib: 20.0,
            cpu_per_join_ms: 2.0,
        };
        m.crowds.insert(HEADLINE, vec![crowd]);
        m
    }

    #[test]
    fn the_middle_is_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(percentile(&mut [], 0.5), None);
        let mut hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut hundred, 0.5), Some(50));
        assert_eq!(percentile(&mut hundred, 0.99), Some(99));
        assert_eq!(percentile(&mut hundred, 1.0), Some(100));
        assert_eq!(percentile(&mut [7], 0.01), Some(7));
    }

    #[test]
    fn the_object_has_every_figure_and_each_peer() {
        let mut results = Results::default();
        results.servers.push(("plenum".to_owned(), measured(2000.0)));
        results.servers.push(("livekit".to_owned(), measured(8000.0)));
        let limits = [
            (Mode::Frames, Way::Segmented, 1000.0),
            (Mode::Single, Way::Batched, 1600.0),
            (Mode::Frames, Way::Batched, 1500.0),
        ];
        for (mode, way, ns) in limits {
            results
                .limits
                .insert((HEADLINE, mode, way), vec![window(ns, (1, 1))]);
        }
        results.seal.push(190.0);
        let v = results.json();
        let expected = [
            ("/frames10_n100_ns", 2000.0),
            ("/single_n100_ns", 2000.0),
            ("/user_ns", 500.0),
            ("/system_ns", 1500.0),
            ("/limit_gso_n100_ns", 1000.0),
            ("/limit_mmsg_n100_ns", 1600.0),
            ("/limit_mmsg_frames10_n100_ns", 1500.0),
            ("/limit_seal_ns", 190.0),
            ("/rss_per_subscriber_kib", 100.0),
            ("/cpu_per_join_ms", 2.0),
            ("/delay_p99_ms", 1.5),
            ("/ratios/frames10_to_limit_gso", 2.0),
            ("/ratios/single_to_limit_mmsg", 1.25),
            ("/ratios/frames10_to_livekit", 0.25),
            ("/ratios/join_to_livekit", 1.0),
            ("/livekit/frames10_n100_ns", 8000.0),
            ("/livekit/cells/single_n100/packets_per_second", 30_000.0),
            ("/cells/frames10_n100/cpu_ns", 2000.0),
        ];
        for (path, value) in expected {
            assert_eq!(v.pointer(path).and_then(Value::as_f64), Some(value), "{path}");
        }
        assert_eq!(v.get("allocations_per_packet"), Some(&Value::Null));
        assert!(v.get("allocations_per_packet_reason").is_some());
        results.allocations = Some(0.001);
        let counted = results.json();
        assert_eq!(counted.pointer("/allocations_per_packet"), Some(&json!(0.001)));
        assert_eq!(
            counted.pointer("/livekit/allocations_per_packet"),
            Some(&Value::Null)
        );
        assert!(counted.get("allocations_per_packet_reason").is_none());
        assert!(!v.to_string().contains('\n'));
        assert_eq!(results.table().lines().count(), 1 + 4 + 3 + 1 + 1 + 2);
    }

    #[test]
    fn a_cell_that_fell_behind_is_named() {
        let mut results = Results::default();
        let mut m = measured(1.0);
        let slow = Window {
            packets_per_second: 29_000.0,
            ..Window::default()
        };
        m.windows.insert((HEADLINE, Mode::Frames), vec![slow]);
        results.servers.push(("plenum".to_owned(), m));
        assert_eq!(results.short_of_pace(), ["plenum frames10_n100"]);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let mut results = Results::default();
        let mut small = Measured::default();
        small
            .windows
            .insert((10, Mode::Single), vec![window(9.0, (0, 0))]);
        results.servers.push(("plenum".to_owned(), small));
        let v = results.json();
        for name in [
            "frames10_n100_ns",
            "user_ns",
            "limit_gso_n100_ns",
            "rss_per_subscriber_kib",
            "limit_seal_ns",
        ] {
            assert_eq!(v.get(name), Some(&Value::Null), "{name}");
        }
        assert_eq!(v.get("single_n10_ns"), Some(&json!(9.0)));
        assert_eq!(v.get("short_of_pace"), Some(&json!([])));
        assert_eq!(v.pointer("/ratios/single_to_limit_mmsg"), Some(&Value::Null));
    }
}
