//! How long to wait after a failure, for each object on its own.
//!
//! Owns the count of failures. Invariants: the wait doubles from [`FIRST`] to [`LAST`] and is
//! spread by half, so that objects that failed together do not come back together; a success
//! forgets everything.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// At most.
const LAST: Duration = Duration::from_secs(60);

/// Failures in a row, by object.
#[derive(Default)]
pub(crate) struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
    jitter: RandomState,
}

impl Backoff {
    /// Another failure of the object: how long to wait.
    pub(crate) fn failed(&self, object: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.to_owned()).or_default();
        let wait = exponential(*count);
        *count = count.saturating_add(1);
        let random = self.jitter.hash_one((object, *count)) % 1000;
        wait.mul_f64(0.5 + random as f64 / 1000.0)
    }

    /// A success, or the object is gone.
    pub(crate) fn forget(&self, object: &str) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(object);
    }
}

fn exponential(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(16)).min(LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_start_anew_after_a_success() {
        let backoff = Backoff::default();
        for count in 0..20 {
            let wait = backoff.failed("meeting/a/b");
            let base = exponential(count);
            assert!(
                wait >= base.mul_f64(0.5) && wait <= base.mul_f64(1.5),
                "{count}: {wait:?}"
            );
        }
        assert_eq!(exponential(30), LAST);
        backoff.forget("meeting/a/b");
        assert!(backoff.failed("meeting/a/b") <= FIRST.mul_f64(1.5));
    }
}
