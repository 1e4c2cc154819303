//! What is special about sound.
//!
//! Owns redundant audio data (RFC 2198) and the choice of the speakers that large rooms hear. Pure: takes
//! `now`, knows no peers and no sockets. Invariant: nothing here allocates per packet.

pub(crate) mod demand;
pub(crate) mod red;
pub(crate) mod restored;
pub(crate) mod select;

use self::red::Red;
use self::restored::Restored;
use self::select::{Loudness, Voice};
use super::drops::Drop;

/// A published track of sound as negotiated and announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SoundSpec {
    /// Payload types of redundant data that may be read, and of what it carries.
    pub(crate) red: Option<(u8, u8)>,
    /// One of many microphones, of which a large room hears the loudest.
    pub(crate) competes: bool,
}

/// What is known of it.
#[derive(Debug, Default)]
pub(crate) struct Sound {
    loudness: Loudness,
    pub(crate) restored: Restored,
}

/// Which part of the bytes of a packet goes to a subscriber.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Part {
    /// The payload as it is.
    #[default]
    Whole,
    /// The payload to those who have redundant data, to others what it carries: `len` bytes of
    /// `payload_type` at the end.
    Red { payload_type: u8, len: usize },
    /// An earlier packet, which came in the payload of number `carrier` alone; not for those who have
    /// redundant data, who got that.
    Restored { carrier: u64, start: usize, len: usize },
}

impl SoundSpec {
    /// Takes a payload apart, if it is redundant data that may be read.
    pub(crate) fn open<'a>(&self, payload_type: u8, payload: &'a [u8]) -> Result<Option<Red<'a>>, Drop> {
        match self.red {
            Some((red, _)) if red == payload_type && !payload.is_empty() => {
                Red::parse(payload).map(Some).ok_or(Drop::BadRed)
            }
            _ => Ok(None),
        }
    }
}

impl Sound {
    /// The level that came with a packet. `None` where there's nothing to choose by: then it is forwarded.
    pub(crate) fn voice(&mut self, spec: &SoundSpec, level: Option<u8>) -> Option<Voice> {
        let level = level.filter(|_| spec.competes)?;
        Some(self.loudness.note(level))
    }
}
