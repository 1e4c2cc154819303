//! RTP header extensions by meaning rather than by number.
//!
//! Owns the list of extensions this worker knows, which of them it passes on, and the translation of the
//! numbers each leg negotiated (RFC 8285 section 6: one number means one thing within a bundle).

use super::packet::Header;

/// A known extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Extension {
    Mid,
    Rid,
    RepairedRid,
    AudioLevel,
    AbsSendTime,
    TransportCc,
    VideoOrientation,
    PlayoutDelay,
    ContentType,
    ColorSpace,
    DependencyDescriptor,
    AbsCaptureTime,
}

/// How many there are.
pub(crate) const COUNT: usize = 12;

const ALL: [(Extension, &str); COUNT] = [
    (Extension::Mid, "urn:ietf:params:rtp-hdrext:sdes:mid"),
    (Extension::Rid, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"),
    (
        Extension::RepairedRid,
        "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    ),
    (
        Extension::AudioLevel,
        "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    ),
    (
        Extension::AbsSendTime,
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    ),
    (
        Extension::TransportCc,
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    ),
    (Extension::VideoOrientation, "urn:3gpp:video-orientation"),
    (
        Extension::PlayoutDelay,
        "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    ),
    (
        Extension::ContentType,
        "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
    ),
    (
        Extension::ColorSpace,
        "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
    ),
    (
        Extension::DependencyDescriptor,
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
    ),
    (
        Extension::AbsCaptureTime,
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
    ),
];

impl Extension {
    pub(crate) fn from_uri(uri: &str) -> Option<Extension> {
        ALL.iter().find(|(_, u)| *u == uri).map(|(e, _)| *e)
    }

    pub(crate) fn uri(self) -> &'static str {
        ALL.iter().find(|(e, _)| *e == self).map_or("", |(_, u)| u)
    }

    /// Means the same at the subscriber as at the publisher.
    pub(crate) fn passes(self) -> bool {
        !matches!(
            self,
            Extension::Mid
                | Extension::Rid
                | Extension::RepairedRid
                | Extension::AbsSendTime
                | Extension::TransportCc
        )
    }
}

/// Number to meaning, for what comes in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Incoming {
    by_id: Vec<Option<Extension>>,
}

impl Incoming {
    pub(crate) fn set(&mut self, id: u8, extension: Extension) {
        let at = usize::from(id);
        if self.by_id.len() <= at {
            self.by_id.resize(at + 1, None);
        }
        if let Some(slot) = self.by_id.get_mut(at) {
            *slot = Some(extension);
        }
    }

    pub(crate) fn get(&self, id: u8) -> Option<Extension> {
        self.by_id.get(usize::from(id)).copied().flatten()
    }
}

/// Elements of one packet that are passed on.
const PASSED: usize = 8;

/// The elements of a packet that subscribers may get, found once for all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed {
    /// Meaning, start and length in the packet.
    elements: [(Extension, u16, u8); PASSED],
    count: u8,
}

impl Default for Passed {
    /// None.
    fn default() -> Self {
        Passed {
            elements: [(Extension::Mid, 0, 0); PASSED],
            count: 0,
        }
    }
}

impl Passed {
    /// Those of `packet`, whose sender numbers them as in `ids`; no more than a packet sensibly has.
    pub(crate) fn find(header: &Header, packet: &[u8], ids: &Incoming) -> Passed {
        let mut found = Passed::default();
        let mut all = header.extensions(packet);
        while let Some((id, value)) = all.next() {
            if let Some(kind) = ids.get(id).filter(|k| k.passes())
                && let Some(slot) = found.elements.get_mut(usize::from(found.count))
            {
                *slot = (kind, (all.position() - value.len()) as u16, value.len() as u8);
                found.count += 1;
            }
        }
        found
    }

    /// Bytes that they take in a block of the short form.
    pub(crate) fn size(&self) -> usize {
        let found = self.elements.iter().take(usize::from(self.count));
        found.map(|(_, _, len)| 1 + usize::from(*len)).sum()
    }

    /// The value of one.
    pub(crate) fn get<'a>(&self, packet: &'a [u8], wanted: Extension) -> Option<&'a [u8]> {
        self.iter(packet)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, v)| v)
    }

    /// Nothing.
    pub(crate) fn none() -> Passed {
        Passed {
            elements: [(Extension::Mid, 0, 0); PASSED],
            count: 0,
        }
    }

    /// Meaning and value, in the packet's order.
    pub(crate) fn iter<'a>(&self, packet: &'a [u8]) -> impl Iterator<Item = (Extension, &'a [u8])> {
        let found = self.elements.iter().take(usize::from(self.count)).copied();
        found.filter_map(|(kind, start, len)| {
            let start = usize::from(start);
            Some((kind, packet.get(start..start + usize::from(len))?))
        })
    }
}

/// Meaning to number, for what goes out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outgoing {
    ids: [u8; COUNT],
}

impl Outgoing {
    pub(crate) fn set(&mut self, extension: Extension, id: u8) {
        if let Some(slot) = self.ids.get_mut(extension as usize) {
            *slot = id;
        }
    }

    pub(crate) fn get(&self, extension: Extension) -> Option<u8> {
        self.ids.get(extension as usize).copied().filter(|id| *id != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{ExtensionWriter, Rewrite, write_header};
    use super::*;

    #[test]
    fn what_passes_is_found_where_it_is() {
        for two_byte in [false, true] {
            let mut packet = Vec::new();
            let head = Rewrite {
                marker: false,
                payload_type: 96,
                sequence: 1,
                timestamp: 2,
                ssrc: 3,
            };
            write_header(&mut packet, &head);
            let mut w = ExtensionWriter::new(&mut packet, two_byte);
            w.push(4, b"mid");
            w.push(1, &[20]);
            w.push(5, &[9; 3]);
            w.push(7, &[1, 2, 3, 4]);
            w.finish();
            packet.extend_from_slice(b"payload");
            let mut ids = Incoming::default();
            ids.set(4, Extension::Mid);
            ids.set(1, Extension::AudioLevel);
            ids.set(7, Extension::PlayoutDelay);
            let header = Header::parse(&packet).unwrap();
            let found = Passed::find(&header, &packet, &ids);
            let got: Vec<_> = found.iter(&packet).collect();
            assert_eq!(
                got,
                [
                    (Extension::AudioLevel, &[20][..]),
                    (Extension::PlayoutDelay, &[1, 2, 3, 4][..])
                ]
            );
        }
    }

    #[test]
    fn the_list_is_whole() {
        for (i, (e, uri)) in ALL.iter().enumerate() {
            assert_eq!(*e as usize, i);
            assert_eq!(Extension::from_uri(uri), Some(*e));
            assert_eq!(e.uri(), *uri);
        }
    }
}
