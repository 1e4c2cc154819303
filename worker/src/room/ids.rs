//! Names of things, and the time.
//!
//! Owns the identifier types and their generation. Invariant: ids are unique within a worker's life;
//! they are names, not secrets, and grant nothing by themselves.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The bare text.
            pub fn as_str(&self) -> &str { &self.0 }
            /// The shared text.
            pub fn shared(&self) -> Arc<str> { Arc::clone(&self.0) }
        }
        impl From<&str> for $name { fn from(text: &str) -> Self { Self(Arc::from(text)) } }
        impl From<String> for $name { fn from(text: String) -> Self { Self(Arc::from(text)) } }
        impl From<Arc<str>> for $name { fn from(text: Arc<str>) -> Self { Self(text) } }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl std::borrow::Borrow<str> for $name { fn borrow(&self) -> &str { &self.0 } }
    };
}

name_type! {
    /// Who somebody is to the application; unique in a room.
    Identity
}
name_type! {
    /// One stay of one participant in one room, `PA_...`.
    ParticipantSid
}
name_type! {
    /// NAMESPACE/MEETING, or NAMESPACE/MEETING/ROOM for a breakout room.
    RoomName
}
name_type! {
    /// One session of a room, `RM_...`.
    RoomSid
}

impl RoomName {
    /// Is it a breakout room's?
    pub fn is_breakout(&self) -> bool {
        self.0.split('/').count() == 3
    }

    /// NAMESPACE/MEETING of both kinds; a name of another form is its own.
    pub fn meeting(&self) -> &str {
        match self.0.rsplit_once('/') {
            Some((meeting, _)) if self.is_breakout() => meeting,
            _ => &self.0,
        }
    }
}

/// The moment something happens: a monotonic clock for timers, the wall clock for what people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Since the worker started. Never steps, so a wrong wall clock ends no meeting early.
    pub since_start: Duration,
    /// Unix milliseconds.
    pub unix_ms: i64,
}

impl Now {
    /// How long ago `then` (a `since_start`) was.
    pub fn since(self, then: Duration) -> Duration {
        self.since_start.saturating_sub(then)
    }

    /// This much later. For tests and schedules.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self {
            since_start: self.since_start + by,
            unix_ms: self
                .unix_ms
                .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

/// Source of ids: SplitMix64 from a seed.
#[derive(Debug, Clone)]
pub struct Sids(u64);

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// 62^12 is about 2^71: no collision in any worker's life.
const SID_LENGTH: usize = 12;

impl Sids {
    /// The same seed gives the same ids: for tests.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// From the operating system's randomness, by way of the standard library's hash keys.
    pub fn random() -> Self {
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u8(1);
        Self(hasher.finish())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `PREFIX_` and twelve letters or digits.
    pub fn sid(&mut self, prefix: &str) -> Arc<str> {
        let mut text = String::with_capacity(prefix.len() + 1 + SID_LENGTH);
        text.push_str(prefix);
        text.push('_');
        for _ in 0..SID_LENGTH {
            let index = (self.next_u64() % ALPHABET.len() as u64) as usize;
            text.push(char::from(ALPHABET[index]));
        }
        text.into()
    }
}
