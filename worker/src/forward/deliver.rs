//! What came in during a turn, to everybody who gets it.
//!
//! Owns the order of it: track by track, subscriber by subscriber, packet by packet, so that each
//! subscriber's packets are neighbours in the batch; what is the same for all subscribers is found once.
//! Invariants: a packet's order within its stream is kept; nothing is allocated; nothing else happens
//! between the parts of one delivery.

use std::sync::Arc;
use std::time::Instant;

use super::audio::Part;
use super::audio::red::Redundancy;
use super::audio::restored::Restored;
use super::buffer::PacketBuffer;
use super::peer::Peer;
use super::receive::SenderClock;
use super::rewind::Rewind;
use super::sound::redundancy;
use super::subscription::{Arrived, Subscription};
use super::track::{Layer, Pending};
use super::{Forwarder, TrackKey};
use crate::net::SendBatch;

/// The most padding that a packet gets to be as long as its neighbours. A system call's share of a packet
/// that leaves alone is worth more bytes than this.
const MOST_PADDING: usize = 24;

/// Where a delivery goes on.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    track: usize,
    subscription: usize,
}

/// Pending packets as they arrived, for subscribers of one kind.
pub(super) type Row<'a> = Vec<Option<Arrived<'a>>>;

/// An empty row in the memory of another.
fn recycled<'a>(mut row: Row<'_>) -> Row<'a> {
    row.clear();
    // Collected in place: the elements are of one size, and there are none.
    row.into_iter().map(|_| None).collect()
}

impl Forwarder {
    /// Writes and seals what is pending, until the batch is full: then `true`, and once that is sent, call
    /// again.
    pub(crate) fn deliver(&mut self, now: Instant, batch: &mut SendBatch) -> bool {
        while let Some(key) = self.fresh.get(self.cursor.track).copied() {
            if let Some(Some(track)) = self.tracks.get_mut(key.0) {
                let publisher = self.peers.get(track.spec.leg.0).and_then(Option::as_ref);
                let publisher = publisher.map(|p| Arc::clone(&p.extensions));
                let (layers, pending) = (&track.layers, &mut track.pending);
                if self.cursor.subscription == 0 && track.spec.kind == crate::session::api::MediaKind::Video {
                    even_out(pending);
                }
                let (sound, restored) = (track.spec.sound, track.sound.restored);
                let mut plain = recycled(std::mem::take(&mut self.arrived.0));
                plain.extend(pending.iter().map(|p| arrived(p, layers, restored, false)));
                let mut as_red = recycled(std::mem::take(&mut self.arrived.1));
                if sound.red.is_some() {
                    as_red.extend(pending.iter().map(|p| arrived(p, layers, restored, true)));
                }
                let clocks = |i: usize| layers.get(i).and_then(|l: &Layer| l.receiver.clock);
                while let Some(slot) = track.subscriptions.get_mut(self.cursor.subscription) {
                    let at = self.cursor.subscription;
                    self.cursor.subscription += 1;
                    let Some(s) = slot else { continue };
                    let begins = s.can_start();
                    let Some(Some(peer)) = self.peers.get_mut(s.binding.leg.0) else {
                        continue;
                    };
                    let mut waits = false;
                    if begins
                        && let Some(ids) = &publisher
                        && let Some(rewind) = Rewind::find(layers, pending, s, now)
                    {
                        for sequence in rewind.sequences() {
                            let Some(p) = rewind.read(sequence, ids, &track.spec.codecs) else {
                                s.skip(sequence);
                                continue;
                            };
                            let arrived = rewind.arrived(sequence, &p);
                            waits |= send(&arrived, s, (key, at), peer, &clocks, batch);
                        }
                    }
                    let has_red = sound
                        .red
                        .is_some_and(|(red, _)| s.binding.payloads.get(red).is_some());
                    let arrived = if has_red { &as_red } else { &plain };
                    for (p, arrived) in pending.iter().zip(arrived) {
                        if let Some(voice) = p.voice
                            && !peer.stage.admit(key, voice, p.now)
                            && p.newest
                            && s.packets > 0
                        {
                            // The first of all is forwarded: it tells the client that there is something.
                            s.hold_back();
                            continue;
                        }
                        let Some(arrived) = arrived else { continue };
                        if s.binding.payloads.red_to.is_some() {
                            let levels = s.demand.levels(p.now);
                            let redundancy = redundancy(p, layers, arrived.payload, levels);
                            let arrived = Arrived {
                                redundancy,
                                ..*arrived
                            };
                            waits |= send(&arrived, s, (key, at), peer, &clocks, batch);
                        } else {
                            waits |= send(arrived, s, (key, at), peer, &clocks, batch);
                        }
                    }
                    if waits && let Some(path) = &mut peer.outgoing.path {
                        path.set_pace(s.binding.leg, &mut self.pace);
                    }
                    if begins && s.waits_for_key_frame() {
                        self.waiting.push((key, at));
                    }
                    if s.next_report.is_none() && s.current.is_some() {
                        s.next_report = Some(self.next_tick);
                        self.timers
                            .set(self.next_tick, super::reports::Job::Describe(key, at));
                    }
                    if batch.is_full() {
                        self.arrived = (recycled(plain), recycled(as_red));
                        return true;
                    }
                }
                self.arrived = (recycled(plain), recycled(as_red));
                track.pending.clear();
                track.begins = false;
            }
            self.cursor.track += 1;
            self.cursor.subscription = 0;
        }
        self.fresh.clear();
        self.cursor = Cursor::default();
        while let Some((key, at)) = self.waiting.pop() {
            if let Some(track) = self.track(key) {
                track.want_awaited(at);
            }
            self.look_soon(key);
        }
        false
    }
}

/// Writes a packet for one subscriber, if it gets it, and seals it; `true`: it has to wait for its time.
fn send(
    packet: &Arrived<'_>,
    s: &mut Subscription,
    place: (TrackKey, usize),
    peer: &mut Peer,
    clocks: &dyn Fn(usize) -> Option<SenderClock>,
    batch: &mut SendBatch,
) -> bool {
    let Some(admitted) = s.admit(packet, clocks) else {
        return false;
    };
    if s.binding.is_numbered()
        && let Some(path) = &mut peer.outgoing.path
        && !path.passes(s, place, packet, &admitted)
    {
        return true;
    }
    let start = batch.begin();
    let number = peer.outgoing.number();
    let dressed = s.write(packet, &admitted, number, batch.buffer());
    peer.seal(batch, start, &dressed, false, packet.now);
    false
}

/// A pending packet with its bytes; `None` where they are gone, which a stream does to itself that sends
/// more in a turn than a buffer holds.
///
/// Of redundant audio data a subscriber gets all where it has that, else what it carries. In the latter
/// case a packet was perhaps `restored` before it came.
fn arrived<'a>(
    p: &'a Pending,
    layers: &'a [Layer],
    restored: Restored,
    has_red: bool,
) -> Option<Arrived<'a>> {
    let layer = layers.get(p.layer)?;
    let again = !has_red && !p.newest && restored.contains(p.sequence);
    let whole = p.header.header_len..p.header.header_len + p.payload_len;
    let (from, range, payload_type) = match p.part {
        Part::Restored { .. } if has_red => return None,
        Part::Restored { carrier, start, len } => (carrier, start..start + len, p.header.payload_type),
        Part::Whole | Part::Red { .. } if again => return None,
        Part::Red { payload_type, len } if !has_red => {
            (p.sequence, whole.end.checked_sub(len)?..whole.end, payload_type)
        }
        Part::Whole | Part::Red { .. } => (p.sequence, whole, p.header.payload_type),
    };
    let (bytes, payload): (&[u8], &[u8]) = if p.payload_len == 0 {
        (&[], &[])
    } else {
        let buffer: &PacketBuffer = &layer.buffer;
        let bytes = buffer.get(from)?;
        (bytes, bytes.get(range)?)
    };
    Some(Arrived {
        bytes,
        header: &p.header,
        payload,
        passed: &p.passed,
        codec: p.codec,
        layering: layer.source.layering(&p.described),
        layer: p.layer,
        sequence: p.sequence,
        newest: p.newest,
        starts: p.starts,
        padding: p.padding,
        payload_type,
        redundancy: Redundancy::default(),
        restored: matches!(p.part, Part::Restored { .. }),
        now: p.now,
    })
}

/// Makes the packets of a frame equally long where they nearly are: encoders split a frame into parts that
/// differ by a byte, and extensions come with its first or last packet alone. Of a segmented send only the
/// last packet may be shorter.
fn even_out(pending: &mut [Pending]) {
    let mut rest = pending;
    while let Some(first) = rest.first() {
        let (layer, stamp) = (first.layer, first.header.timestamp);
        let one_frame = |p: &Pending| p.layer == layer && p.header.timestamp == stamp;
        let count = rest.iter().take_while(|p| one_frame(p)).count().max(1);
        let (frame, after) = rest.split_at_mut(count);
        rest = after;
        let blocks: fn(&Pending) -> usize = |p| p.passed.size();
        let payloads: fn(&Pending) -> usize = |p| p.payload_len;
        let (block, payload) = (longest(frame, blocks), longest(frame, payloads));
        let Some((_, but_last)) = frame.split_last_mut() else {
            continue;
        };
        for p in but_last.iter_mut().filter(|p| p.payload_len > 0) {
            p.padding.block = lacking(blocks(p), block);
            p.padding.payload = lacking(payloads(p), payload);
        }
    }
}

/// What the packets before the last are brought to: the longest of them, or the last if it is hardly longer.
fn longest(frame: &[Pending], size: fn(&Pending) -> usize) -> usize {
    let Some((last, but_last)) = frame.split_last() else {
        return 0;
    };
    let most = but_last.iter().map(size).max().unwrap_or_default();
    let last = size(last);
    if last > most && last - most <= MOST_PADDING {
        last
    } else {
        most
    }
}

fn lacking(size: usize, wanted: usize) -> u8 {
    match wanted.saturating_sub(size) {
        lacking @ 0..=MOST_PADDING => lacking as u8,
        _ => 0,
    }
}
