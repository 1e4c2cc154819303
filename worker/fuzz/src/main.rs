//! libFuzzer's entry: runs the target of `plenum_worker::fuzzing` that PLENUM_FUZZ_TARGET names.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use plenum_worker::fuzzing::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("PLENUM_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, target)| *target).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        panic!("PLENUM_FUZZ_TARGET is none of {}", names.join(" "))
    })
});

fuzz_target!(init: LazyLock::force(&TARGET), |data: &[u8]| (*TARGET)(data));
