//! The error catalogue: one entry per thing that can go wrong for a user.
//!
//! Owns code, HTTP status, cause and remedy of every public error. Workers, the gateway, Events,
//! the SDK and `docs/errors.md` all speak these codes; the documentation is generated from here
//! ([`markdown`]) and checked to be current. Invariants: codes are unique, never reused, and every
//! entry says what to do.

use std::fmt;

macro_rules! catalogue {
    ($($variant:ident = $code:literal, $status:literal, $cause:literal, $remedy:literal;)+) => {
        /// A public error of Plenum. The wire form is [`Code::as_str`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $cause] $variant,)+ }

        impl Code {
            /// Every entry, in catalogue order.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The stable code, as logs, Events, HTTP bodies and the SDK carry it.
            pub const fn as_str(self) -> &'static str { match self { $(Code::$variant => $code,)+ } }
            /// The HTTP status it is answered with.
            pub const fn http_status(self) -> u16 { match self { $(Code::$variant => $status,)+ } }
            /// What went wrong, in one sentence.
            pub const fn cause(self) -> &'static str { match self { $(Code::$variant => $cause,)+ } }
            /// What the reader can do about it.
            pub const fn remedy(self) -> &'static str { match self { $(Code::$variant => $remedy,)+ } }
        }
    };
}

catalogue! {
    TokenMissing = "TokenMissing", 401, "the request carries no access token",
        "pass the token as ?access_token= or as a Bearer header; mint one with `kubectl create --raw .../meetings/NAME/token` or a LiveKit server SDK";
    TokenMalformed = "TokenMalformed", 401, "the access token is not a signed JWT that this server accepts",
        "mint a new token; only HS256 with iss, exp and a numeric nbf is accepted";
    TokenUnknownKey = "TokenUnknownKey", 401, "the token was signed with an API key this server does not know",
        "use the API key of this cluster (Secret named in the chart's values) as the token's issuer";
    TokenSignature = "TokenSignature", 401, "the token's signature does not match its API key",
        "check that the API secret matches the API key";
    TokenExpired = "TokenExpired", 401, "the access token has expired",
        "mint a new token; check the clock of the machine that mints if this happens at once";
    TokenNotYetValid = "TokenNotYetValid", 401, "the access token is not valid yet",
        "check the clock of the machine that mints the token";
    TokenRevoked = "TokenRevoked", 403, "the token was revoked because its participant was removed",
        "ask a host for a new invitation";
    TokenWrongMeeting = "TokenWrongMeeting", 403, "the token is for another meeting",
        "mint a token for this meeting";
    NotPermitted = "NotPermitted", 403, "the token's grant does not allow this action",
        "mint a token whose role or video grant includes the action";
    IdentityMissing = "IdentityMissing", 400, "the token names no participant identity",
        "set the token's sub (identity) to a non-empty string of at most 128 bytes";
    MeetingNotFound = "MeetingNotFound", 404, "no Meeting of that name exists",
        "apply the Meeting, or check namespace and name in the link";
    MeetingNotReady = "MeetingNotReady", 503, "the Meeting exists but no worker holds it yet",
        "look at `kubectl describe meeting NAME`; clients retry by themselves";
    MeetingFull = "MeetingFull", 409, "the meeting has reached maxParticipants",
        "raise spec.maxParticipants, or wait until somebody leaves";
    MeetingLocked = "MeetingLocked", 403, "the meeting is locked",
        "ask a host to unlock it (spec.locked)";
    MeetingEnded = "MeetingEnded", 410, "the meeting has ended",
        "apply it again, or look at status.lastSession";
    GuestsNotAllowed = "GuestsNotAllowed", 403, "this meeting does not let people in without a token",
        "set spec.guests to Allow, or open the link with a token";
    RoomNotFound = "RoomNotFound", 404, "the worker holds no such room",
        "clients retry; if it lasts, look at the Meeting's Assigned condition";
    RoomClosed = "RoomClosed", 409, "the breakout room is closed, or about to close",
        "ask a host to open it, or set spec.open of the BreakoutRoom";
    RoomLimit = "RoomLimit", 409, "the meeting has as many breakout rooms as one may",
        "remove rooms first; a meeting has at most 200";
    RoomForeign = "RoomForeign", 409, "the breakout room was applied from outside the meeting, so it can't be removed from inside",
        "close it instead, or delete the BreakoutRoom where it came from";
    SpeakLimit = "SpeakLimit", 409, "more rooms are open than one host can speak into at once",
        "broadcast a text instead; speaking reaches 25 rooms, each over a connection of its own";
    WriteConflict = "WriteConflict", 409, "others changed the same object at the same time, again and again",
        "look at the rooms as they are now and try again";
    DecisionNotWritten = "DecisionNotWritten", 503, "the decision cannot be written down: the Kubernetes API server does not answer",
        "try again in a moment; the meeting goes on as it is meanwhile";
    EpochStale = "EpochStale", 409, "the request carries an epoch older than the room's",
        "the room has moved; clients reconnect by themselves";
    WorkerUnreachable = "WorkerUnreachable", 503, "the gateway cannot reach the worker that holds the meeting",
        "clients retry; if it lasts, check the worker pod and the NetworkPolicy";
    WorkerDraining = "WorkerDraining", 503, "the worker is draining and takes no new rooms",
        "nothing to do: the controller places the meeting elsewhere";
    RequestMalformed = "RequestMalformed", 400, "the request or signal message cannot be understood",
        "check the client's version; stock LiveKit clients from 2.0 are known to work";
    MessageTooLarge = "MessageTooLarge", 413, "a signal message, data packet or session description is over the size limit",
        "split it: signal messages are limited to 512 KiB, reliable data packets to 64 KiB, the offers of WHIP and WHEP to 128 KiB";
    RateLimited = "RateLimited", 429, "too many messages in too short a time",
        "slow down; the limit is per connection and named in the docs";
    SdpInvalid = "SdpInvalid", 400, "the session description cannot be used",
        "this is a client fault: report the client and its version";
    TrackLimit = "TrackLimit", 409, "the participant publishes as many tracks as one may",
        "unpublish a track first";
    TrackNotFound = "TrackNotFound", 404, "the participant publishes no such track",
        "look at the participant's tracks as they are now";
    CodecNotAllowed = "CodecNotAllowed", 400, "none of the track's codecs is allowed in this meeting",
        "publish with one of spec.media.codecs";
    EncryptionRequired = "EncryptionRequired", 403, "the meeting takes only what is encrypted end to end",
        "switch end-to-end encryption on in the client, for data too where the meeting asks for it, or change spec.media.e2ee of the Meeting";
    DuplicateIdentity = "DuplicateIdentity", 409, "another connection joined with the same identity",
        "give every participant its own identity; the newest connection wins";
    ParticipantRemoved = "ParticipantRemoved", 403, "a moderator removed the participant",
        "ask a host for a new invitation";
    ParticipantNotFound = "ParticipantNotFound", 404, "no participant of that identity is in the meeting",
        "list them with `kubectl get participants`";
    ConnectionTimeout = "ConnectionTimeout", 408, "the client's media never arrived or went silent",
        "check that the worker's UDP (or TCP) port is reachable from the client";
    SessionNotFound = "SessionNotFound", 404, "no WHIP or WHEP session of that address exists, or not any more",
        "make an offer again with POST; a session ends with its participant, its meeting and its media";
    PreconditionFailed = "PreconditionFailed", 412, "the entity tag is not that of the ICE session in force",
        "use the ETag of the last answer, or * to restart ICE";
    PreconditionRequired = "PreconditionRequired", 428, "a PATCH of a WHIP or WHEP session has to say which ICE session it is about",
        "send If-Match with the ETag of the last answer, or * to restart ICE";
    ContentTypeUnsupported = "ContentTypeUnsupported", 415, "the body is of a type that this address does not take",
        "send application/sdp with POST, application/trickle-ice-sdpfrag with PATCH";
    MethodNotAllowed = "MethodNotAllowed", 405, "this address does not take that method",
        "see the Allow header: POST makes a WHIP or WHEP session, PATCH and DELETE are for its Location";
    PoolNotFound = "PoolNotFound", 404, "the MediaWorkerPool that the Meeting names does not exist",
        "apply the pool, correct spec.workerPoolRef, or mark a pool as default";
    PoolNotAllowed = "NotAllowed", 403, "the MediaWorkerPool does not allow meetings from this namespace",
        "extend spec.allowedMeetings of the pool, or use a pool of your own namespace";
    NoCapacity = "NoCapacity", 503, "every worker of the pool is full",
        "raise spec.replicas or spec.buffer of the pool; the Meeting recovers by itself";
    PoolNotReady = "PoolNotReady", 503, "no worker of the pool is ready yet",
        "look at `kubectl describe mediaworkerpool NAME` and its pods; the Meeting recovers by itself";
    InvalidSchedule = "InvalidSchedule", 400, "the Meeting's schedule cannot be understood",
        "use RFC 3339 times, an IANA time zone and an RFC 5545 RRULE";
    SecretMissing = "SecretMissing", 404, "the Secret that the Meeting names is missing or lacks its keys",
        "create the Secret with the keys apiKey and apiSecret (32 bytes or more)";
    Internal = "Internal", 500, "the server failed in a way it did not foresee",
        "report it with the log line of the same code";
}

impl Code {
    /// The entry with that wire code.
    pub fn parse(code: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|c| c.as_str() == code)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A catalogue entry with what is known of this one occurrence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {}{}", code.cause(), detail_suffix(detail))]
pub struct PublicError {
    /// Which entry.
    pub code: Code,
    /// What is particular to this occurrence: names and numbers, never a secret or a token.
    pub detail: String,
}

fn detail_suffix(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    }
}

impl PublicError {
    /// An occurrence of `code`.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }
}

impl From<Code> for PublicError {
    fn from(code: Code) -> Self {
        Self::new(code, "")
    }
}

/// The catalogue as `docs/errors.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Error catalogue\n\nGenerated from `crds/errors`; `make generate` writes it, `make test-unit` checks it.\n\n\
         | code | HTTP | cause | remedy |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        out.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            code.as_str(),
            code.http_status(),
            code.cause(),
            code.remedy()
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_parse_back() {
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
            assert!(
                Code::ALL[i + 1..]
                    .iter()
                    .all(|other| other.as_str() != code.as_str()),
                "{code}"
            );
            assert!(
                !code.remedy().is_empty() && (400..600).contains(&code.http_status()),
                "{code}"
            );
        }
    }

    #[test]
    fn the_documentation_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        if std::env::var_os("PLENUM_GENERATE").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            markdown(),
            "run `make generate`"
        );
    }
}
