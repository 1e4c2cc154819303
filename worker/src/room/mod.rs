//! Rooms: people, their tracks, who receives what, and what everyone is told.
//!
//! Owns every rule of a meeting, as plain state: each function takes the state, what happened and
//! [`Now`], and appends what must follow to an [`Outbox`]. Invariants: no I/O, no clock, no
//! randomness but the seeded [`Sids`]; a participant appears in a room's two indexes or in neither;
//! a subscription is active only where the track is live, the subscriber may subscribe and the
//! publisher lets them; nobody is told of a hidden participant; nothing leaves a room without its
//! sender's identity stamped by us.
//!
//! A participant is a self-contained value keyed by its media session, so that it can be taken out
//! of one room and put into another without the peer connection noticing.

mod admission;
mod announce;
mod data;
mod encryption;
mod entry;
mod facts;
mod grant;
mod hall;
mod handover;
mod ids;
mod layers;
mod moderate;
mod moving;
mod participant;
mod publish;
mod reserve;
mod reserved;
mod signalling;
mod speakers;
mod spec;
mod state;
mod subscribe;
mod takeover;
mod tick;
mod track;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use entry::{Admission, Entry};
pub use grant::Grant;
pub use hall::{Entered, Hall};
pub use handover::{Handover, HandoverError};
pub use ids::{Identity, Now, ParticipantSid, RoomName, RoomSid, Sids};
pub use moderate::Moderation;
pub use moving::Transfer;
pub use participant::{Participant, Presence};
pub use plenum_token::Role;
pub use reserve::Reserve;
pub use spec::{Encrypted, EndReason, Publishing, RoomSpec};
pub use state::{Room, RoomStanding};
pub use vocabulary::{
    Action, Arrival, DropReason, Goodbye, Notice, Outbox, Output, RequestFailure, Scenario, WantedCodec,
    Welcome, Worth,
};

/// What one client or one meeting may use up.
pub mod limits {
    use std::time::Duration;

    /// Tracks that one participant may publish at a time.
    pub const TRACKS_PER_PARTICIPANT: usize = 32;
    /// Tracks of a whole room: what a room of 250 with camera and microphone needs, and some.
    pub const TRACKS_PER_ROOM: usize = 1_000;
    /// Choices about tracks that one subscriber may leave with us, of live tracks or not.
    pub const SUBSCRIPTION_CHOICES: usize = 4_096;
    /// Bytes of an identity, as the front door checks it too.
    pub const IDENTITY: usize = 128;
    /// Bytes of a display name.
    pub const NAME: usize = 256;
    /// Bytes of metadata, and of all attributes together.
    pub const METADATA: usize = 64_000;
    /// Bytes of a data packet (SCTP's message limit towards browsers).
    pub const DATA_PACKET: usize = 65_536;
    /// Bytes of what a client says to the server on the reserved topic.
    pub const SAID: usize = 16 * 1024;
    /// Packets that wait for a client's data channel.
    pub const WAITING_PACKETS: usize = 256;
    /// Their bytes.
    pub const WAITING_BYTES: usize = 1 << 20;
    /// Earlier stays in other rooms of the meeting by which a client that resumes may be known.
    pub const FORMER_STAYS: usize = 16;
    /// Text fields of a track: name, cid, stream.
    pub const TRACK_TEXT: usize = 512;
    /// Layers or simulcast codecs named for one track.
    pub const TRACK_LAYERS: usize = 8;
    /// Identities that may be refused at a time; the oldest gives way.
    pub const REVOCATIONS: usize = 10_000;
    /// How long a client without a signalling connection keeps its place. Stock clients try for
    /// longer, but the others see a frozen picture all that while.
    pub const RESUME_GRACE: Duration = Duration::from_secs(20);
    /// How long the place is kept where the media is known to be gone as well.
    pub const REJOIN_GRACE: Duration = Duration::from_secs(5);
    /// How long a place is kept for somebody who is on the way from another worker, at most.
    pub const RESERVATION: Duration = Duration::from_secs(30);
    /// How long a departure is remembered for those who were away when it happened.
    pub const DEPARTURE_MEMORY: Duration = Duration::from_secs(60);
    /// How long reliable messages are kept for a client that asks for what it missed.
    pub const RELIABLE_MEMORY: Duration = Duration::from_secs(20);
    /// Bytes kept for that, per room.
    pub const RELIABLE_MEMORY_BYTES: usize = 2 << 20;
}
