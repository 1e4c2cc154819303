//! What the publisher sends: RTP with VP8 that a server believes.
//!
//! Owns the layout of a packet. Pure. Invariants: every packet has the same length; the last eight bytes
//! of the payload are the packet's number, which no server rewrites, so that a receiver that decrypts
//! knows when it was sent.

use crate::description::{LEVEL_ID, MID_ID, OPUS, RID_ID, TWCC_ID, VP8};

/// Bytes of an RTP packet before it is sealed, header and extensions included.
pub(crate) const PACKET: usize = 1150;
/// What AES-GCM adds.
pub(crate) const TAG: usize = 16;
/// Packets of a frame.
pub(crate) const PER_FRAME: u64 = 10;
/// Frames per second.
pub(crate) const FRAMES: u64 = 30;
/// Of a video clock per second.
const TICKS: u64 = 90_000;
/// Packets that name their section, as browsers do until they know that it was seen.
const NAMED: u64 = 100;
const WIDTH: u16 = 1280;
const HEIGHT: u16 = 720;

/// What a frame of a video stream is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Of each packet before it is sealed.
    pub(crate) bytes: usize,
    pub(crate) per_frame: u64,
    /// The layer's name, where there are several.
    pub(crate) rid: Option<&'static str>,
}

impl Shape {
    /// The one stream of a publisher without layers.
    pub(crate) const PLAIN: Shape = Shape {
        bytes: PACKET,
        per_frame: PER_FRAME,
        rid: None,
    };
    /// Three layers of a camera: about 170, 500 and 1,700 kbit/s.
    pub(crate) const SIMULCAST: [Shape; 3] = [
        Shape {
            bytes: 700,
            per_frame: 1,
            rid: Some("q"),
        },
        Shape {
            bytes: 1050,
            per_frame: 2,
            rid: Some("h"),
        },
        Shape {
            bytes: PACKET,
            per_frame: 6,
            rid: Some("f"),
        },
    ];
}

/// Writes the packets of one video stream, in order.
#[derive(Debug)]
pub(crate) struct Writer {
    shape: Shape,
    ssrc: u32,
    mid: String,
    /// The number of the next packet.
    next: u64,
    clock: u32,
    /// Of the clock, per frame.
    ticks: u32,
    /// A frame that starts from now on is a key frame.
    key_wanted: bool,
    key: bool,
    keys: u8,
}

impl Writer {
    pub(crate) fn new(ssrc: u32, mid: &str, shape: Shape) -> Writer {
        Writer {
            shape,
            ssrc,
            mid: mid.to_owned(),
            next: 0,
            clock: 0,
            ticks: (TICKS / FRAMES) as u32,
            key_wanted: true,
            key: false,
            keys: 0,
        }
    }

    /// The next frame is a key frame.
    pub(crate) fn key_frame(&mut self) {
        self.key_wanted = true;
    }

    /// Packets written so far.
    pub(crate) fn written(&self) -> u64 {
        self.next
    }

    /// Packets until the frame under way is complete.
    pub(crate) fn left_in_frame(&self) -> u64 {
        self.shape.per_frame - self.next % self.shape.per_frame
    }

    /// The clock of the frame under way.
    pub(crate) fn timestamp(&self) -> u32 {
        self.clock
    }

    /// From the next frame on there are so many thousandths of a frame per second.
    pub(crate) fn rate(&mut self, millihertz: u64) {
        self.ticks = (TICKS * 1000 / millihertz.max(1)) as u32;
    }

    /// The next packet.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        let number = self.next;
        self.packet_numbered(number as u16)
    }

    /// The next packet, as the one with this transport-wide number.
    pub(crate) fn packet_numbered(&mut self, transport: u16) -> Vec<u8> {
        let (number, at) = (self.next, self.next % self.shape.per_frame);
        let (first, last) = (at == 0, at == self.shape.per_frame - 1);
        if first {
            self.key = std::mem::take(&mut self.key_wanted);
            self.keys = self.keys.wrapping_add(u8::from(self.key)) & 31;
        }
        let mut p = Vec::with_capacity(self.shape.bytes + TAG);
        p.extend_from_slice(&[0x90, if last { 0x80 | VP8 } else { VP8 }]);
        p.extend_from_slice(&(number as u16).to_be_bytes());
        p.extend_from_slice(&self.timestamp().to_be_bytes());
        p.extend_from_slice(&self.ssrc.to_be_bytes());
        let mut extensions = vec![TWCC_ID << 4 | 1];
        extensions.extend_from_slice(&transport.to_be_bytes());
        if number < NAMED {
            named(&mut extensions, MID_ID, &self.mid);
            if let Some(rid) = self.shape.rid {
                named(&mut extensions, RID_ID, rid);
            }
        }
        block(&mut p, extensions);
        self.descriptor(&mut p, first);
        p.resize(self.shape.bytes - 8, 0xA5);
        p.extend_from_slice(&number.to_be_bytes());
        self.next += 1;
        if last {
            self.clock = self.clock.wrapping_add(self.ticks);
        }
        p
    }

    /// RFC 7741 section 4.2, and the start of the frame behind it (section 4.3).
    fn descriptor(&self, p: &mut Vec<u8>, first: bool) {
        let frame = self.next / self.shape.per_frame;
        let picture = (frame & 0x7FFF) as u16 | 0x8000;
        // X, S; I, L, T, K; picture id; TL0PICIDX; layer 0 and the key index.
        p.extend_from_slice(&[if first { 0x90 } else { 0x80 }, 0xF0]);
        p.extend_from_slice(&picture.to_be_bytes());
        p.extend_from_slice(&[frame as u8, self.keys]);
        if !first {
            return;
        }
        // RFC 6386 section 9.1: a shown frame of version 0 with a first partition of 1,000 bytes.
        let tag: u32 = 1000 << 5 | 1 << 4 | u32::from(!self.key);
        p.extend_from_slice(tag.to_le_bytes().get(..3).unwrap_or_default());
        if self.key {
            p.extend_from_slice(&[0x9D, 0x01, 0x2A]);
            p.extend_from_slice(&WIDTH.to_le_bytes());
            p.extend_from_slice(&HEIGHT.to_le_bytes());
        }
    }
}

fn named(extensions: &mut Vec<u8>, id: u8, name: &str) {
    extensions.push(id << 4 | (name.len() as u8).wrapping_sub(1));
    extensions.extend_from_slice(name.as_bytes());
}

/// RFC 8285 section 4.2
fn block(p: &mut Vec<u8>, mut extensions: Vec<u8>) {
    extensions.resize(extensions.len().next_multiple_of(4), 0);
    p.extend_from_slice(&[0xBE, 0xDE]);
    p.extend_from_slice(&((extensions.len() / 4) as u16).to_be_bytes());
    p.extend_from_slice(&extensions);
}

/// Bytes of an Opus packet of 20 ms at 32 kbit/s.
const VOICE: usize = 80;
/// Of an audio clock per packet.
const VOICE_TICKS: u32 = 960;

/// Writes the packets of one microphone.
#[derive(Debug)]
pub(crate) struct Voice {
    pub(crate) ssrc: u32,
    mid: String,
    /// -dBov
    level: u8,
    next: u32,
}

impl Voice {
    pub(crate) fn new(ssrc: u32, mid: &str, level: u8) -> Voice {
        Voice {
            ssrc,
            mid: mid.to_owned(),
            level,
            next: 0,
        }
    }

    /// The next packet, with this transport-wide number.
    pub(crate) fn packet(&mut self, transport: u16) -> Vec<u8> {
        let mut p = Vec::with_capacity(32 + VOICE + TAG);
        p.extend_from_slice(&[0x90, OPUS]);
        p.extend_from_slice(&(self.next as u16).to_be_bytes());
        p.extend_from_slice(&self.next.wrapping_mul(VOICE_TICKS).to_be_bytes());
        p.extend_from_slice(&self.ssrc.to_be_bytes());
        // RFC 6464: the voice bit, and the level.
        let mut extensions = vec![LEVEL_ID << 4, 0x80 | self.level, TWCC_ID << 4 | 1];
        extensions.extend_from_slice(&transport.to_be_bytes());
        if u64::from(self.next) < NAMED {
            named(&mut extensions, MID_ID, &self.mid);
        }
        block(&mut p, extensions);
        p.resize(p.len() + VOICE, 0x5A);
        self.next = self.next.wrapping_add(1);
        p
    }
}

/// The number of a packet, whatever the server rewrote in front of it.
pub(crate) fn number(packet: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*packet.last_chunk()?))
}

/// What stands in clear in a sealed packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    /// The transport-wide sequence number, if it has one.
    pub(crate) transport: Option<u16>,
}

impl Header {
    pub(crate) fn read(packet: &[u8]) -> Option<Header> {
        let [b0, b1, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3, rest @ ..] = packet else {
            return None;
        };
        let mut header = Header {
            payload_type: b1 & 0x7F,
            sequence: u16::from_be_bytes([*s0, *s1]),
            timestamp: u32::from_be_bytes([*t0, *t1, *t2, *t3]),
            ssrc: u32::from_be_bytes([*r0, *r1, *r2, *r3]),
            transport: None,
        };
        if b0 & 0x10 != 0
            && let Some([0xBE, 0xDE, l0, l1, block @ ..]) = rest.get(usize::from(b0 & 15) * 4..)
        {
            let len = usize::from(u16::from_be_bytes([*l0, *l1])) * 4;
            header.transport = one_byte(block.get(..len)?, TWCC_ID)
                .and_then(|v| Some(u16::from_be_bytes(*v.first_chunk()?)));
        }
        Some(header)
    }
}

/// RFC 8285 section 4.2
fn one_byte(mut block: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match block {
            [] => return None,
            [0, rest @ ..] => block = rest,
            [head, rest @ ..] => {
                let (value, tail) = rest.split_at_checked(usize::from(head & 15) + 1)?;
                if head >> 4 == wanted {
                    return Some(value);
                }
                block = tail;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::rtp::Packet;
    use rtc::rtp::codec::vp8::Vp8Packet;
    use rtc::rtp::packetizer::Depacketizer;
    use rtc::shared::marshal::Unmarshal;

    /// A second reader agrees with what was written.
    #[test]
    fn frames_are_what_a_depacketizer_expects() {
        let mut writer = Writer::new(7, "3", Shape::PLAIN);
        let packets: Vec<Vec<u8>> = (0..130).map(|_| writer.packet()).collect();
        for (i, raw) in packets.iter().enumerate() {
            assert_eq!((raw.len(), number(raw)), (PACKET, Some(i as u64)));
            let packet = Packet::unmarshal(&mut &raw[..]).unwrap();
            assert_eq!(packet.header.marker, i % 10 == 9);
            assert_eq!(packet.header.timestamp, i as u32 / 10 * 3000);
            let named = packet.header.get_extension(MID_ID);
            assert_eq!(named.as_deref(), (i < 100).then_some(&b"3"[..]));
            let header = Header::read(raw).unwrap();
            assert_eq!((header.sequence, header.transport), (i as u16, Some(i as u16)));
            assert_eq!(
                (header.ssrc, header.timestamp),
                (packet.header.ssrc, packet.header.timestamp)
            );

            let mut vp8 = Vp8Packet::default();
            let frame = vp8.depacketize(&packet.payload).unwrap();
            assert_eq!((vp8.s, vp8.pid), (u8::from(i % 10 == 0), 0));
            assert_eq!((vp8.picture_id, vp8.tl0_pic_idx), (i as u16 / 10, i as u8 / 10));
            if i % 10 == 0 {
                let key = frame[0] & 1 == 0;
                assert_eq!(key, i == 0, "only the first frame is one unasked");
                assert_eq!(frame[3..6] == [0x9D, 0x01, 0x2A], key);
            }
        }
    }

    #[test]
    fn a_key_frame_comes_with_the_next_frame() {
        let mut writer = Writer::new(7, "0", Shape::PLAIN);
        for _ in 0..15 {
            writer.packet();
        }
        writer.key_frame();
        assert_eq!(writer.left_in_frame(), 5);
        let payloads: Vec<Vec<u8>> = (15..40).map(|_| writer.packet()).collect();
        // Header 12, extensions 4 + 8, descriptor 6.
        let starts: Vec<u8> = [5, 15].iter().map(|i| payloads[*i][30] & 1).collect();
        assert_eq!(starts, [0, 1]);
    }

    #[test]
    fn layers_and_voices_are_named_until_they_are_known() {
        let mut layer = Writer::new(7, "3", Shape::SIMULCAST[1]);
        let packets: Vec<Vec<u8>> = (0..102).map(|i| layer.packet_numbered(i + 500)).collect();
        for (i, raw) in packets.iter().enumerate() {
            let packet = Packet::unmarshal(&mut &raw[..]).unwrap();
            assert_eq!(raw.len(), 1050);
            assert_eq!(packet.header.marker, i % 2 == 1);
            let rid = packet.header.get_extension(RID_ID);
            assert_eq!(rid.as_deref(), (i < 100).then_some(&b"h"[..]));
            assert_eq!(Header::read(raw).unwrap().transport, Some(i as u16 + 500));
        }
        let mut voice = Voice::new(8, "1", 20);
        let [_, raw] = [voice.packet(5), voice.packet(6)];
        let packet = Packet::unmarshal(&mut &raw[..]).unwrap();
        assert_eq!((packet.header.sequence_number, packet.header.timestamp), (1, 960));
        assert_eq!(
            packet.header.get_extension(LEVEL_ID).as_deref(),
            Some(&[0x80 | 20][..])
        );
        assert_eq!(packet.payload.len(), VOICE);
    }

    #[test]
    fn nonsense_is_no_header() {
        assert_eq!(Header::read(&[0x90; 11]), None);
        for len in 12..40 {
            let _ = Header::read(&vec![0xBE; len]);
        }
    }
}
