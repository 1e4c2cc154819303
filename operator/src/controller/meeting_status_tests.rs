use super::*;
use crate::controller::coarse::{self, Decision, Memory};

fn on(worker: &str, epoch: i64) -> Assignment {
    Assignment {
        worker: worker.into(),
        worker_uid: format!("uid-{worker}"),
        worker_namespace: "plenum".into(),
        epoch,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A Meeting in virtual time: counts what would be written.
struct Meeting {
    status: MeetingStatus,
    writes: Vec<(i64, String)>,
    memory: Memory,
}

impl Meeting {
    fn new() -> Self {
        Self {
            status: MeetingStatus::default(),
            writes: Vec::new(),
            memory: Memory::default(),
        }
    }

    fn look(&mut self, second: i64, state: State, report: Option<RoomReport>) {
        let now = std::time::Duration::from_secs(second as u64);
        let count = report.as_ref().is_some_and(|report| {
            coarse::decide(
                self.status.participants,
                report.participants as i32,
                &mut self.memory,
                now,
            ) == Decision::Write
        });
        let after = compute(&Facts {
            generation: Some(1),
            before: &self.status,
            state,
            report,
            count,
            rooms: 0,
            join_url: "https://meet.example.org/m/team/daily".into(),
            now: at(second),
        });
        if after != self.status {
            if after.participants != self.status.participants {
                self.memory = Memory {
                    written: Some(now),
                    wrong: None,
                };
            }
            let ready = reason_of(&after.conditions, ConditionType::Ready)
                .unwrap()
                .to_owned();
            self.writes.push((second, ready));
            // Through JSON, as the API server gives it back.
            self.status = serde_json::from_value(serde_json::to_value(&after).unwrap()).unwrap();
        }
    }
}

fn placed() -> State {
    State::Placed {
        assignment: on("w-0", 1),
        draining: false,
    }
}

fn report(participants: u32, since: i64, ended: i64, peak: u32) -> RoomReport {
    let ms = |second: i64| {
        if second > 0 {
            at(second).as_millisecond() + 123
        } else {
            0
        }
    };
    RoomReport {
        name: "team/daily".into(),
        epoch: 1,
        participants,
        active_since_ms: ms(since),
        peak_participants: peak,
        ended_at_ms: ms(ended),
    }
}

#[test]
fn an_idle_hour_is_no_write_and_a_whole_meeting_a_handful() {
    let mut meeting = Meeting::new();
    meeting.look(
        0,
        State::Assigning {
            assignment: on("w-0", 1),
        },
        None,
    );
    meeting.look(1, placed(), Some(report(0, 0, 0, 0)));
    let placed_by = meeting.writes.len();
    for second in 2..3602 {
        meeting.look(second, placed(), Some(report(0, 0, 0, 0)));
    }
    assert_eq!(
        meeting.writes.len(),
        placed_by,
        "an idle hour: {:?}",
        meeting.writes
    );

    let begin = 4000;
    for second in begin..begin + 3700 {
        let minute = (second - begin) / 10;
        let people = if minute < 20 {
            minute + 1
        } else {
            (20 - (minute - 300).max(0)).max(0)
        };
        let ended = if people == 0 { begin + 3201 } else { 0 };
        meeting.look(second, placed(), Some(report(people as u32, begin, ended, 20)));
    }
    let during = meeting.writes.len() - placed_by;
    // The finalizer, there and back, makes two more.
    assert!(placed_by == 2, "{:?}", meeting.writes);
    println!("{during} writes: {:?}", &meeting.writes[placed_by..]);
    let session = meeting.status.last_session.clone().unwrap();
    assert_eq!(
        (session.start.0, session.end.0, session.peak),
        (at(begin), at(begin + 3201), 20)
    );
    assert_eq!(
        (meeting.status.participants, meeting.status.active_since.clone()),
        (Some(0), None)
    );
}

#[test]
fn twenty_quick_joins_and_leaves_stay_under_ten_writes() {
    let mut meeting = Meeting::new();
    meeting.look(
        0,
        State::Assigning {
            assignment: on("w-0", 1),
        },
        None,
    );
    meeting.look(1, placed(), Some(report(0, 0, 0, 0)));
    for second in 10..1000_i64 {
        let people = if second < 30 {
            second - 9
        } else {
            (20 - (second - 900).max(0)).max(0)
        };
        let ended = if people == 0 { 920 } else { 0 };
        meeting.look(second, placed(), Some(report(people as u32, 10, ended, 20)));
    }
    assert!(meeting.writes.len() + 2 <= 10, "{:?}", meeting.writes);
    assert_eq!(meeting.status.participants, Some(0));
}

#[test]
fn what_is_not_known_is_left_as_it_was() {
    let mut meeting = Meeting::new();
    meeting.look(0, placed(), Some(report(3, 5, 0, 3)));
    let before = meeting.status.clone();
    meeting.look(60, placed(), None);
    assert_eq!(meeting.status, before);
}

#[test]
fn reasons_and_abnormal_conditions() {
    let mut meeting = Meeting::new();
    let fault = |stalled| State::Fault {
        reason: if stalled {
            Reason::PoolNotFound
        } else {
            Reason::NoCapacity
        },
        message: "m".into(),
        stalled,
        assignment: None,
    };
    let names = |meeting: &Meeting| {
        meeting
            .status
            .conditions
            .iter()
            .map(|one| format!("{}={}", one.type_, one.status))
            .collect::<Vec<_>>()
            .join(" ")
    };
    meeting.look(0, fault(true), None);
    assert_eq!(
        names(&meeting),
        "Active=False Assigned=False Ready=False Stalled=True"
    );
    meeting.look(1, fault(false), None);
    assert_eq!(
        names(&meeting),
        "Active=False Assigned=False Ready=False Reconciling=True"
    );
    meeting.look(
        2,
        State::Placed {
            assignment: on("w", 1),
            draining: true,
        },
        Some(report(0, 0, 0, 0)),
    );
    assert_eq!(
        names(&meeting),
        "Active=False Assigned=True Draining=True Ready=True"
    );
    meeting.look(3, State::Suspended, None);
    assert_eq!(names(&meeting), "Active=False Assigned=False Ready=True");
    assert_eq!(meeting.status.epoch, Some(1), "the epoch outlives the assignment");
    assert_eq!(
        meeting.status.signal_url.as_deref(),
        Some("wss://meet.example.org")
    );
}

#[test]
fn a_session_that_is_cut_short_is_remembered() {
    let mut meeting = Meeting::new();
    meeting.look(0, placed(), Some(report(2, 1, 0, 4)));
    meeting.look(
        50,
        State::Ended {
            message: "over".into(),
        },
        Some(report(2, 1, 0, 4)),
    );
    let session = meeting.status.last_session.clone().unwrap();
    assert_eq!((session.start.0, session.end.0, session.peak), (at(1), at(50), 4));
    meeting.look(
        51,
        State::Ended {
            message: "over".into(),
        },
        None,
    );
    assert_eq!(meeting.writes.len(), 2, "{:?}", meeting.writes);
}
