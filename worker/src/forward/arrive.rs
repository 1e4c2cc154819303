//! A packet's way in.
//!
//! Owns what is done with an RTP datagram before subscribers get it: it is opened in place, found its track
//! and layer, its bytes are kept in the layer's buffer, and it is noted as pending. Invariant: nothing is
//! believed, and nothing changes, before the packet is authenticated.

use std::sync::Arc;
use std::time::Instant;

use super::audio::Part;
use super::drops::Drop;
use super::extension::{Extension, Passed};
use super::packet::Header;
use super::peer::{Peer, Source};
use super::reports::{self, Job};
use super::srtp::SrtpError;
use super::subscription::Padding;
use super::svc::source::Parts;
use super::track::{Pending, Track};
use super::{Forwarder, LegKey, TrackKey};

/// Packets that make feedback due at once.
const TWCC_BURST: usize = 100;

impl Forwarder {
    /// One RTP datagram of a leg, opened in place. Subscribers get it by [`Self::deliver`].
    pub(crate) fn rtp(&mut self, leg: LegKey, datagram: &mut [u8], now: Instant) {
        if let Err(reason) = self.try_rtp(leg, datagram, now) {
            self.drops.count(reason);
        }
    }

    fn try_rtp(&mut self, leg: LegKey, datagram: &mut [u8], now: Instant) -> Result<(), Drop> {
        let header = Header::parse(datagram).ok_or(Drop::BadRtp)?;
        let peer = self
            .peers
            .get_mut(leg.0)
            .and_then(Option::as_mut)
            .ok_or(Drop::UnknownPeer)?;
        let srtp = peer.srtp.as_mut().ok_or(Drop::NoKeys)?;
        let len = srtp.open_rtp(datagram, &header).map_err(reason_of)?;
        let clear = datagram.get(..len).ok_or(Drop::BadRtp)?;

        let (mut mid, mut rid, mut repaired, mut level) = (None, None, None, None);
        for (id, value) in header.extensions(clear) {
            match peer.extensions.get(id) {
                Some(Extension::Mid) => mid = Some(value),
                Some(Extension::Rid) => rid = Some(value),
                Some(Extension::RepairedRid) => repaired = Some(value),
                Some(Extension::AudioLevel) => level = value.first().copied(),
                Some(Extension::TransportCc) => {
                    if let (Some(r), [hi, lo]) = (&mut peer.twcc, value) {
                        r.record(u16::from_be_bytes([*hi, *lo]), now);
                        // A burst is reported before its feedback gets long.
                        let soon = if r.pending() > TWCC_BURST {
                            now
                        } else {
                            now + reports::TWCC_INTERVAL
                        };
                        if peer.next_twcc.is_none_or(|at| soon < at) {
                            peer.next_twcc = Some(soon);
                            self.timers.set(soon, Job::Feedback(leg));
                        }
                    }
                }
                _ => {}
            }
        }
        let extensions = Arc::clone(&peer.extensions);
        let source = match peer.sources.get(&header.ssrc) {
            Some(source) => *source,
            None => {
                let source = resolve(peer, &self.tracks, &header, mid, rid, repaired)?;
                if !peer.learn(header.ssrc, source) {
                    return Err(Drop::TooManySources);
                }
                self.report_soon(leg);
                source
            }
        };
        match source {
            Source::Media { track, layer } => {
                let passed = Passed::find(&header, clear, &extensions);
                self.media(track, layer, clear, &header, passed, level, false, now)
            }
            Source::Repair { track, layer } => {
                let entry = self
                    .tracks
                    .get(track.0)
                    .and_then(Option::as_ref)
                    .ok_or(Drop::UnknownSource)?;
                let mut original = std::mem::take(&mut self.scratch);
                let done = match unwrap_repair(entry, layer, &header, clear, &mut original) {
                    Ok(true) => match Header::parse(&original) {
                        Some(header) => {
                            let passed = Passed::find(&header, &original, &extensions);
                            self.media(track, layer, &original, &header, passed, None, true, now)
                        }
                        None => Err(Drop::BadRepair),
                    },
                    Ok(false) => Ok(()),
                    Err(reason) => Err(reason),
                };
                self.scratch = original;
                done
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one packet, each parsed once"
    )]
    fn media(
        &mut self,
        key: TrackKey,
        layer: usize,
        packet: &[u8],
        header: &Header,
        passed: Passed,
        level: Option<u8>,
        repaired: bool,
        now: Instant,
    ) -> Result<(), Drop> {
        let track = self
            .tracks
            .get_mut(key.0)
            .and_then(Option::as_mut)
            .ok_or(Drop::UnknownSource)?;
        let codec = track.codec(header.payload_type).ok_or(Drop::UnknownPayload)?;
        let payload = header.payload(packet).ok_or(Drop::BadRtp)?;
        let red = track.spec.sound.open(header.payload_type, payload)?;
        let state = track.layers.get_mut(layer).ok_or(Drop::UnknownSource)?;
        if !repaired {
            state.ssrc = Some(header.ssrc);
        }
        let arrival = state
            .receiver
            .packet(header.sequence, header.timestamp, payload.len(), repaired, now);
        state.last_packet = Some(now);
        let missing = state.receiver.has_missing();
        if !track.muted {
            if let Some(level) = level {
                track.levels.note(level, header.timestamp);
            }
            if !payload.is_empty() {
                track.gaps.packet(now);
                state.buffer.insert(arrival.sequence, packet, now);
            }
            let parts = Parts {
                codec,
                payload,
                descriptor: passed.get(packet, Extension::DependencyDescriptor),
            };
            let (described, starts) =
                state
                    .source
                    .arrive(parts, arrival.sequence, header.timestamp, arrival.newest, now);
            if track.pending.is_empty() {
                self.fresh.push(key);
            }
            let voice = track.sound.voice(&track.spec.sound, level);
            let part = match red {
                None => Part::Whole,
                Some(red) => {
                    track.restore(&red, header, layer, arrival.sequence, now);
                    Part::Red {
                        payload_type: red.payload_type,
                        len: red.primary.len(),
                    }
                }
            };
            track.pending.push(Pending {
                header: *header,
                passed,
                codec,
                described,
                layer,
                sequence: arrival.sequence,
                payload_len: payload.len(),
                newest: arrival.newest,
                starts,
                padding: Padding::default(),
                part,
                voice,
                now,
            });
        }
        if missing {
            self.look_at(key, now + reports::REORDER);
        } else if track.due.is_none() {
            self.look_soon(key);
        }
        Ok(())
    }
}

pub(super) fn reason_of(e: SrtpError) -> Drop {
    match e {
        SrtpError::Authentication | SrtpError::Seal => Drop::NotAuthentic,
        SrtpError::Replay => Drop::Replayed,
        SrtpError::TooManySources => Drop::TooManySources,
    }
}

/// Finds the section of a new SSRC by MID, its layer by RID (RFC 8843 section 9.2, RFC 8852).
fn resolve(
    peer: &Peer,
    tracks: &[Option<Track>],
    header: &Header,
    mid: Option<&[u8]>,
    rid: Option<&[u8]>,
    repaired: Option<&[u8]>,
) -> Result<Source, Drop> {
    // Without a MID only a payload type that a single section negotiated can tell.
    let key = match mid {
        Some(mid) => {
            let named = std::str::from_utf8(mid).ok().and_then(|m| peer.mids.get(m));
            *named.ok_or(Drop::UnknownSource)?
        }
        None => {
            let mut fits = peer.mids.values().filter(|key| {
                tracks.get(key.0).and_then(Option::as_ref).is_some_and(|t| {
                    t.codec(header.payload_type).is_some()
                        || t.spec.repairs.iter().any(|(pt, _)| *pt == header.payload_type)
                })
            });
            match (fits.next(), fits.next()) {
                (Some(key), None) => *key,
                _ => return Err(Drop::UnknownSource),
            }
        }
    };
    let track = tracks
        .get(key.0)
        .and_then(Option::as_ref)
        .ok_or(Drop::UnknownSource)?;
    let repair = track
        .spec
        .repairs
        .iter()
        .any(|(pt, _)| *pt == header.payload_type);
    let layer = match repaired.or(rid) {
        Some(rid) if !track.spec.rids.is_empty() => track.layer_of(rid).ok_or(Drop::UnknownSource)?,
        None if track.layers.len() > 1 => return Err(Drop::UnknownSource),
        _ => 0,
    };
    Ok(if repair {
        Source::Repair { track: key, layer }
    } else {
        Source::Media { track: key, layer }
    })
}

/// Writes the packet that an RTX packet carries (RFC 4588 section 4); `false` for padding alone.
fn unwrap_repair(
    track: &Track,
    layer: usize,
    header: &Header,
    clear: &[u8],
    out: &mut Vec<u8>,
) -> Result<bool, Drop> {
    let repaired = track
        .spec
        .repairs
        .iter()
        .find(|(pt, _)| *pt == header.payload_type);
    let (_, payload_type) = repaired.ok_or(Drop::UnknownPayload)?;
    let payload = header.payload(clear).ok_or(Drop::BadRtp)?;
    let [hi, lo, payload @ ..] = payload else {
        return Ok(false);
    };
    let ssrc = track
        .layers
        .get(layer)
        .and_then(|l| l.ssrc)
        .ok_or(Drop::BadRepair)?;
    out.clear();
    out.extend_from_slice(clear.get(..header.header_len).ok_or(Drop::BadRtp)?);
    if let Some([b0, b1, s0, s1, _, _, _, _, ssrc_bytes @ ..]) = out.get_mut(..12) {
        *b0 &= !0x20; // the padding is cut here
        *b1 = (*b1 & 0x80) | payload_type;
        (*s0, *s1) = (*hi, *lo);
        ssrc_bytes.copy_from_slice(&ssrc.to_be_bytes());
    }
    out.extend_from_slice(payload);
    Ok(true)
}
