//! What arrives as a message: signalling, and JSON on the reserved topic.

#![allow(clippy::expect_used, reason = "a broken promise is what fuzzing looks for")]

use plenum_protocol::{Answer, Entry, Notice, Request, Signal};

/// One signalling message.
pub(super) fn signal(data: &[u8]) {
    let _ = crate::signal::request::decode(data);
}

/// JSON of the reserved topic: what is understood is written and understood again.
pub(super) fn protocol(data: &[u8]) {
    fn again<T: serde::de::DeserializeOwned + serde::Serialize>(data: &[u8]) {
        let Ok(first) = serde_json::from_slice::<T>(data) else {
            return;
        };
        let text = serde_json::to_string(&first).expect("what was read can be written");
        let second = serde_json::from_str::<T>(&text).expect("what was written can be read");
        let once_more = serde_json::to_string(&second).expect("as before");
        assert_eq!(text, once_more);
    }
    again::<Request>(data);
    again::<Answer>(data);
    again::<Notice>(data);
    again::<Signal>(data);
    again::<Entry>(data);
}
