//! One leg as the engine holds it: transport, sections, and the numbers of its descriptions.
//!
//! Owns the writing of answers and offers from the table. Invariants: `o=` versions rise; every
//! description is made from the table alone, so that the same table gives the same text.

use std::net::SocketAddr;
use std::time::Instant;

use super::api::{ExpectedTrack, MediaKind, TrackSid};
use super::codecs::{Negotiated, offered, prefer, publishing, select, subscribing};
use super::leg::LegTransport;
use super::once::Promise;
use super::sdp::{Description, Direction, MediaType, Section, Setup};
use super::sections::{Slot, Table, Use};
use super::write::{Body, Outgoing, Written, WrittenSection};
use crate::forward::LegKey;
use crate::forward::extension::Extension;
use crate::forward::layers::quality_of;
use crate::net::Route;

/// Addresses of one leg that passed a check.
const MAX_ROUTES: usize = 16;

/// Extension numbers of our offers.
const OFFERED: [(u8, Extension, bool, bool); 9] = [
    // number, extension, for audio, for video
    (1, Extension::AudioLevel, true, false),
    (3, Extension::VideoOrientation, false, true),
    (4, Extension::Mid, true, true),
    (5, Extension::PlayoutDelay, false, true),
    (6, Extension::ContentType, false, true),
    (7, Extension::TransportCc, false, true),
    (8, Extension::ColorSpace, false, true),
    (9, Extension::AbsCaptureTime, true, true),
    (12, Extension::DependencyDescriptor, false, true),
];

/// Candidates and fingerprint of the worker, for every description.
#[derive(Debug)]
pub(crate) struct Local<'a> {
    pub(crate) fingerprint: &'a str,
    pub(crate) udp: &'a [SocketAddr],
    pub(crate) tcp: &'a [SocketAddr],
}

/// What we send on a section.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) sid: TrackSid,
    pub(crate) stream: String,
    pub(crate) cname: String,
    /// Sound of two channels.
    pub(crate) stereo: bool,
}

/// What a client said of the track in a section of its offer.
type Announced<'a> = dyn Fn(&TrackSid, &Section) -> Option<ExpectedTrack> + 'a;

/// A leg.
#[derive(Debug)]
pub(crate) struct PeerLeg {
    pub(crate) key: LegKey,
    pub(crate) transport: LegTransport,
    pub(crate) table: Table,
    pub(crate) routes: Vec<Route>,
    /// User names under which the engine finds this leg.
    pub(crate) names: Vec<String>,
    description_id: u64,
    version: u64,
    /// How often the connection came from another engine.
    pub(crate) moves: u32,
    pub(crate) mixed: bool,
    /// Our offer that awaits its answer (dual).
    pub(crate) outstanding: Option<(u32, Instant)>,
    pub(crate) last_offer: u32,
}

impl PeerLeg {
    pub(crate) fn new(key: LegKey, transport: LegTransport, description_id: u64) -> Self {
        PeerLeg {
            key,
            transport,
            table: Table::default(),
            routes: Vec::new(),
            names: Vec::new(),
            description_id: description_id >> 2,
            version: 0,
            moves: 0,
            mixed: false,
            outstanding: None,
            last_offer: 0,
        }
    }

    /// Notes a checked address; returns one that has to make room for it.
    pub(crate) fn add_route(&mut self, route: Route) -> Option<Route> {
        if self.routes.contains(&route) {
            return None;
        }
        self.routes.push(route);
        if self.routes.len() <= MAX_ROUTES {
            return None;
        }
        let at = self
            .routes
            .iter()
            .position(|r| Some(*r) != self.transport.route)?;
        Some(self.routes.remove(at))
    }

    /// Takes codecs and extensions of the offer into the table, after [`Table::offer`].
    /// `announced` tells what was said of a published track: clients leave the choice among what they
    /// offered to the answer.
    pub(crate) fn negotiate(&mut self, offer: &Description, allowed: &[String], announced: &Announced<'_>) {
        self.mixed = offer.mixed;
        for (slot, section) in self.table.slots.iter_mut().zip(&offer.sections) {
            let receive = matches!(slot.used, Use::Publishes(_));
            let limit: &[String] = if receive { allowed } else { &[] };
            slot.codecs = select(section, limit);
            slot.rids.clear();
            if let Use::Publishes(sid) = &slot.used {
                let track = announced(sid, section);
                slot.rids = received_rids(section, track.as_ref().is_none_or(|t| t.simulcast));
                if let Some(track) = track {
                    prefer(&mut slot.codecs, &track.codec);
                    publishing(&mut slot.codecs, &track.audio);
                }
            }
            slot.extensions = section
                .extensions
                .iter()
                .filter_map(|(id, uri)| Some((*id, Extension::from_uri(uri)?)))
                // A section that we only send on names RID and transport-cc too: Chromium offers the next
                // section of a kind with no more than the earlier ones were answered, and could then
                // neither send simulcast nor get feedback there.
                .filter(|(_, e)| *e != Extension::AbsSendTime)
                // A packet of sound with a number would be one that the sender's estimate is made of.
                .filter(|(_, e)| *e != Extension::TransportCc || section.kind == MediaType::Video)
                .collect();
        }
    }

    /// The answer to the offer just negotiated.
    pub(crate) fn answer(
        &mut self,
        offer: &Description,
        local: &Local<'_>,
        source_of: &dyn Fn(&TrackSid) -> Option<Source>,
    ) -> String {
        let setup = self.transport.setup();
        let sections: Vec<WrittenSection> = self
            .table
            .slots
            .iter()
            .zip(&offer.sections)
            .map(|(slot, section)| WrittenSection {
                kind: section.kind_name.clone(),
                protocol: section.protocol.clone(),
                mid: slot.mid.clone(),
                body: answer_body(slot, section, source_of),
            })
            .collect();
        self.write(setup, local, &sections)
    }

    /// Our offer of the subscriber leg.
    pub(crate) fn offer(
        &mut self,
        local: &Local<'_>,
        source_of: &dyn Fn(&TrackSid) -> Option<Source>,
    ) -> String {
        let sections: Vec<WrittenSection> = self
            .table
            .slots
            .iter()
            .map(|slot| {
                let kind = match slot.kind {
                    Some(MediaKind::Audio) => "audio",
                    Some(MediaKind::Video) => "video",
                    None => "application",
                };
                let body = match (&slot.used, slot.kind) {
                    (_, None) => Body::Application,
                    (Use::Subscribes(sid), _) => sending(slot, source_of(sid)),
                    _ => inactive(slot),
                };
                WrittenSection {
                    kind: kind.to_owned(),
                    protocol: if slot.kind.is_none() {
                        "UDP/DTLS/SCTP"
                    } else {
                        "UDP/TLS/RTP/SAVPF"
                    }
                    .to_owned(),
                    mid: slot.mid.clone(),
                    body,
                }
            })
            .collect();
        self.mixed = true;
        // Once the roles are settled they stay (RFC 8842 section 5.3).
        self.write(Setup::ActPass, local, &sections)
    }

    fn write(&mut self, setup: Setup, local: &Local<'_>, sections: &[WrittenSection]) -> String {
        self.version += 1;
        Written {
            id: self.description_id,
            version: self.version,
            credentials: &self.transport.credentials,
            fingerprint: local.fingerprint,
            setup,
            udp: local.udp,
            tcp: local.tcp,
            moves: self.moves,
            mixed: self.mixed,
            sections,
        }
        .text()
    }

    /// Adds a section of ours for `kind`.
    pub(crate) fn add_section(&mut self, kind: Option<MediaKind>) {
        let mut slot = Slot::new(self.table.slots.len().to_string(), kind);
        match kind {
            None => slot.used = Use::Application,
            Some(kind) => {
                let audio = kind == MediaKind::Audio;
                slot.receivable = true;
                slot.codecs = offered(audio);
                slot.extensions = OFFERED
                    .iter()
                    .filter(|(_, _, a, v)| if audio { *a } else { *v })
                    .map(|(id, e, ..)| (*id, *e))
                    .collect();
            }
        }
        self.table.slots.push(slot);
    }
}

fn sending(slot: &Slot, source: Option<Source>) -> Body {
    let Some(source) = source else {
        return inactive(slot);
    };
    let rtx = slot.codecs.iter().any(|c| c.repair.is_some());
    let mut codecs = one_estimator(&slot.codecs, &slot.extensions);
    subscribing(&mut codecs, source.stereo);
    Body::Media {
        direction: Direction::SendOnly,
        codecs,
        extensions: slot.extensions.clone(),
        rids: Vec::new(),
        outgoing: Some(Outgoing {
            stream: source.stream,
            track: source.sid.to_string(),
            cname: source.cname,
            ssrc: slot.ssrcs.0,
            rtx_ssrc: rtx.then_some(slot.ssrcs.1),
        }),
    }
}

fn inactive(slot: &Slot) -> Body {
    Body::Media {
        direction: Direction::Inactive,
        codecs: slot.codecs.clone(),
        extensions: slot.extensions.clone(),
        rids: Vec::new(),
        outgoing: None,
    }
}

fn answer_body(slot: &Slot, section: &Section, source_of: &dyn Fn(&TrackSid) -> Option<Source>) -> Body {
    let rejected = || Body::Rejected {
        formats: section.formats.clone(),
    };
    match &slot.used {
        Use::Rejected => rejected(),
        Use::Application => Body::Application,
        _ if slot.codecs.is_empty() => rejected(),
        Use::Idle | Use::Subscribes(_) if slot.promise.is_some() => {
            sending(slot, slot.promise.as_ref().map(Promise::source))
        }
        Use::Idle => inactive(slot),
        Use::Subscribes(sid) => sending(slot, source_of(sid)),
        Use::Publishes(_) => Body::Media {
            direction: Direction::RecvOnly,
            codecs: one_estimator(&slot.codecs, &slot.extensions),
            extensions: slot.extensions.clone(),
            rids: slot.rids.clone(),
            outgoing: None,
        },
    }
}

/// Which of the offered encodings are taken. Those that an answer leaves out are not sent (RFC 8853,
/// section 5.3.2).
fn received_rids(section: &Section, simulcast: bool) -> Vec<String> {
    let rids = &section.send_rids;
    if !section.simulcast {
        return Vec::new();
    }
    if simulcast {
        return rids.clone();
    }
    let quality = |(at, rid): &(usize, &String)| quality_of(rid, *at, rids.len());
    let highest = rids.iter().enumerate().max_by_key(quality);
    highest.map(|(_, rid)| rid.clone()).into_iter().collect()
}

/// One estimator is enough: REMB only where transport-wide feedback isn't possible.
fn one_estimator(codecs: &[Negotiated], extensions: &[(u8, Extension)]) -> Vec<Negotiated> {
    let wide = extensions.iter().any(|(_, e)| *e == Extension::TransportCc);
    codecs
        .iter()
        .cloned()
        .map(|mut c| {
            let wide = wide && c.feedback.contains(&"transport-cc");
            c.feedback
                .retain(|f| *f != if wide { "goog-remb" } else { "transport-cc" });
            c
        })
        .collect()
}
