//! SSRCs that nobody has, by the hundred thousand. A test program of its own: it measures its memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap here is a failed test"
)]

mod media_support;

use std::time::Duration;

use media_support::call::Call;
use media_support::packet;

const MS: Duration = Duration::from_millis(1);

/// Kilobytes that this process has in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// As many as a stranger with her address likes: no table grows.
#[test]
fn a_flood_of_unknown_sources_takes_no_memory() {
    const FLOOD: u32 = 100_000;
    let mut call = Call::start();
    let send = |call: &mut Call, from: u32, count: u32| {
        let mut sent = 0;
        while sent < count {
            // As much at a time as a socket's queue holds.
            let burst = 200.min(count - sent);
            let seen = call.counted(u64::from(burst), |c| {
                for i in 0..burst {
                    let ssrc = (from + sent + i).wrapping_mul(2_654_435_761);
                    c.alice.send_raw(&packet(96, ssrc, 1, 1, &[(4, b"1")], &[3; 40]));
                }
            });
            assert_eq!(seen, [("not_authentic", u64::from(burst))]);
            sent += burst;
        }
    };
    send(&mut call, 1, FLOOD / 5);
    let before = resident();
    send(&mut call, FLOOD, FLOOD);
    let grown = resident().saturating_sub(before);
    assert!(grown < 4_000, "{grown} kB for {FLOOD} sources");
    call.goes_on();

    // With her keys it is Alice herself, and she has so many and no more.
    let seen = call.counted(5_000 - 512, |c| {
        for ssrc in 100_000..105_000u32 {
            c.alice.send_rtp(&packet(96, ssrc, 1, 1, &[(4, b"1")], &[3; 40]));
            if ssrc % 100 == 0 {
                std::thread::sleep(2 * MS);
            }
        }
    });
    assert!(
        seen.iter()
            .any(|(reason, n)| *reason == "too_many_sources" && *n > 4_000),
        "{seen:?}"
    );
}
