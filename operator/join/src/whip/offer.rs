//! Reading a WHIP or WHEP offer, as far as somebody who speaks for the client must understand it.
//!
//! Owns the choice of what to announce to a room. Invariants: pure, total on any input and bounded; the
//! description itself goes on to the worker as it came, but for one line per track that names it.

use livekit_protocol as proto;
use plenum_errors::{Code, PublicError};

use super::Protocol;

/// The largest offer.
pub(crate) const MAX_OFFER_BYTES: usize = 128 * 1024;
/// Sections of an offer: a worker takes no more tracks of one participant.
const MAX_SECTIONS: usize = 32;

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Audio,
    Video,
}

/// One audio or video section.
#[derive(Debug, Clone, Default)]
struct Section {
    kind: Option<Kind>,
    rejected: bool,
    bundle_only: bool,
    sends: bool,
    receives: bool,
    /// Line of the description after which the section ends.
    end: usize,
    rids: usize,
    simulcast: bool,
    codecs: Vec<String>,
    track: Option<String>,
}

/// What an offer asks for.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// For the worker.
    pub(crate) sdp: String,
    /// One per section that sends.
    pub(crate) tracks: Vec<proto::AddTrackRequest>,
    /// Lower-case codec names of each section that only receives, by kind.
    pub(crate) seats: Vec<(Kind, Vec<String>)>,
    /// The client's ICE user name.
    pub(crate) ufrag: String,
}

fn invalid(detail: &str) -> PublicError {
    PublicError::new(Code::SdpInvalid, detail)
}

impl Offer {
    /// Reads the body of a POST. `screen`: the tracks show a screen.
    pub(crate) fn read(text: &str, protocol: Protocol, screen: bool) -> Result<Offer, PublicError> {
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        if lines.first() != Some(&"v=0") {
            return Err(invalid("it does not start with v=0"));
        }
        let sections = sections(&lines)?;
        let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
        for (attribute, what) in [
            ("a=ice-pwd:", "it has no ice-pwd"),
            ("a=fingerprint:", "it has no fingerprint"),
        ] {
            value(attribute).ok_or_else(|| invalid(what))?;
        }
        let ufrag = value("a=ice-ufrag:")
            .ok_or_else(|| invalid("it has no ice-ufrag"))?
            .to_owned();
        let used = |s: &&Section| !s.rejected || s.bundle_only;
        if sections.iter().filter(used).count() > 1 && value("a=group:BUNDLE").is_none() {
            return Err(invalid("its sections are not bundled"));
        }
        let media = || sections.iter().filter(used).filter(|s| s.kind.is_some());
        match protocol {
            Protocol::Whip if !media().any(|s| s.sends) => Err(invalid("no section sends anything"))?,
            Protocol::Whep if !media().any(|s| s.receives && !s.sends) => {
                Err(invalid("no section is recvonly"))?;
            }
            _ => {}
        }
        let mut tracks = Vec::new();
        let mut seats = Vec::new();
        let mut out = String::with_capacity(text.len() + 64 * sections.len());
        let mut next = sections.iter().filter(used).peekable();
        for (at, line) in lines.iter().enumerate() {
            out.push_str(line);
            out.push_str("\r\n");
            let Some(section) = next.next_if(|s| s.end == at) else {
                continue;
            };
            let Some(kind) = section.kind else { continue };
            if protocol == Protocol::Whip && section.sends {
                let request = announcement(section, kind, tracks.len(), screen);
                // Beside whatever names the client gave: encoders give both tracks the same, or none.
                out.push_str(&format!("a=msid:- {}\r\n", request.cid));
                tracks.push(request);
            } else if protocol == Protocol::Whep && section.receives && !section.sends {
                seats.push((kind, section.codecs.clone()));
            }
        }
        Ok(Offer {
            sdp: out,
            tracks,
            seats,
            ufrag,
        })
    }
}

fn sections(lines: &[&str]) -> Result<Vec<Section>, PublicError> {
    let mut sections: Vec<Section> = Vec::new();
    let mut direction: Option<&str> = None;
    for (at, line) in lines.iter().enumerate() {
        if let Some(media) = line.strip_prefix("m=") {
            if sections.len() >= MAX_SECTIONS {
                return Err(invalid("it has more than 32 sections"));
            }
            let mut words = media.split_ascii_whitespace();
            let kind = match words.next() {
                Some("audio") => Some(Kind::Audio),
                Some("video") => Some(Kind::Video),
                _ => None,
            };
            let (sends, receives) = ways(direction.unwrap_or("sendrecv"));
            sections.push(Section {
                kind,
                rejected: words.next() == Some("0"),
                sends,
                receives,
                end: at,
                ..Section::default()
            });
            continue;
        }
        let Some(attribute) = line.strip_prefix("a=") else {
            if let Some(section) = sections.last_mut() {
                section.end = at;
            }
            continue;
        };
        match sections.last_mut() {
            None if is_direction(attribute) => direction = Some(attribute),
            None => {}
            Some(section) => {
                section.end = at;
                read_attribute(section, attribute);
            }
        }
    }
    Ok(sections)
}

fn read_attribute(section: &mut Section, attribute: &str) {
    if is_direction(attribute) {
        (section.sends, section.receives) = ways(attribute);
        return;
    }
    let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
    let mut words = value.split_ascii_whitespace();
    match name {
        "bundle-only" => section.bundle_only = true,
        "rid" if words.nth(1) == Some("send") => section.rids += 1,
        "simulcast" => section.simulcast |= words.next() == Some("send"),
        "rtpmap" => {
            if let Some((codec, _)) = words.nth(1).and_then(|map| map.split_once('/'))
                && section.codecs.len() < 128
            {
                section.codecs.push(codec.to_ascii_lowercase());
            }
        }
        "msid" => section.track = words.nth(1).or(section.track.as_deref()).map(str::to_owned),
        _ => {}
    }
}

fn is_direction(attribute: &str) -> bool {
    matches!(attribute, "sendrecv" | "sendonly" | "recvonly" | "inactive")
}

/// Sends, receives.
fn ways(direction: &str) -> (bool, bool) {
    match direction {
        "sendonly" => (true, false),
        "recvonly" => (false, true),
        "inactive" => (false, false),
        _ => (true, true),
    }
}

/// Longest name of a track that is taken over.
const MAX_NAME: usize = 128;

fn announcement(section: &Section, kind: Kind, number: usize, screen: bool) -> proto::AddTrackRequest {
    use proto::{TrackSource, TrackType};
    let (track_type, source) = match (kind, screen) {
        (Kind::Audio, false) => (TrackType::Audio, TrackSource::Microphone),
        (Kind::Audio, true) => (TrackType::Audio, TrackSource::ScreenShareAudio),
        (Kind::Video, false) => (TrackType::Video, TrackSource::Camera),
        (Kind::Video, true) => (TrackType::Video, TrackSource::ScreenShare),
    };
    let layers = if kind == Kind::Video && section.simulcast && section.rids > 1 {
        layers(section.rids)
    } else {
        Vec::new()
    };
    proto::AddTrackRequest {
        cid: format!("plenum-whip-{number}"),
        name: section
            .track
            .clone()
            .filter(|name| name.len() <= MAX_NAME && name != "-")
            .unwrap_or_default(),
        r#type: track_type as i32,
        source: source as i32,
        layers,
        ..proto::AddTrackRequest::default()
    }
}

/// Which there are; how large they are, an offer doesn't say.
fn layers(count: usize) -> Vec<proto::VideoLayer> {
    use proto::VideoQuality::{High, Low, Medium};
    let qualities: &[proto::VideoQuality] = if count == 2 {
        &[Low, High]
    } else {
        &[Low, Medium, High]
    };
    qualities
        .iter()
        .map(|quality| proto::VideoLayer {
            quality: *quality as i32,
            ..proto::VideoLayer::default()
        })
        .collect()
}

/// What an answer of ours says that it sends: the seats as they were offered.
pub(crate) fn seats_of(answer: &str) -> Vec<(Kind, Vec<String>)> {
    let lines: Vec<&str> = answer.lines().map(str::trim_end).collect();
    let sections = sections(&lines).unwrap_or_default();
    let sends = sections
        .into_iter()
        .filter(|s| s.sends && !s.receives && !s.rejected);
    sends.filter_map(|s| Some((s.kind?, s.codecs))).collect()
}

/// Is there a section in this answer that is taken? Sections of data aside.
pub(crate) fn takes_any(answer: &str) -> bool {
    answer
        .lines()
        .filter_map(|line| line.strip_prefix("m="))
        .any(|media| {
            let mut words = media.split_ascii_whitespace();
            matches!(words.next(), Some("audio" | "video")) && words.next() != Some("0")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sections: &[&str]) -> String {
        let mut out = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
                       a=ice-ufrag:user\r\na=ice-pwd:a-password-of-some-length\r\na=fingerprint:sha-256 AA\r\n"
            .to_owned();
        for section in sections {
            out += &section.replace('\n', "\r\n");
            out += "\r\n";
        }
        out
    }

    const MIC: &str =
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:0\na=sendonly\na=msid:stream mic\na=rtpmap:111 opus/48000/2";
    const CAM: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:1\na=sendonly\na=rtpmap:96 H264/90000\n\
                       a=rid:l send\na=rid:m send\na=rid:h send\na=simulcast:send l;m;h";
    const HEARS: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:0\na=recvonly\na=rtpmap:111 opus/48000/2";

    #[test]
    fn tracks_are_announced_from_what_sends() {
        let offer = Offer::read(&text(&[MIC, CAM]), Protocol::Whip, false).unwrap();
        let [mic, cam] = offer.tracks.as_slice() else {
            panic!("{:?}", offer.tracks)
        };
        assert_eq!(
            (mic.source(), mic.name.as_str()),
            (proto::TrackSource::Microphone, "mic")
        );
        assert_eq!((cam.source(), cam.layers.len()), (proto::TrackSource::Camera, 3));
        assert_ne!(mic.cid, cam.cid);
        // Each in its own section.
        let (before, after) = offer.sdp.split_once("m=video").unwrap();
        assert!(
            before.contains(&format!("a=msid:- {}\r\n", mic.cid)),
            "{}",
            offer.sdp
        );
        assert!(
            after.contains(&format!("a=msid:- {}\r\n", cam.cid)),
            "{}",
            offer.sdp
        );
        assert_eq!(offer.ufrag, "user");
        let screen = Offer::read(&text(&[MIC, CAM]), Protocol::Whip, true).unwrap();
        assert_eq!(screen.tracks[0].source(), proto::TrackSource::ScreenShareAudio);
        assert_eq!(screen.tracks[1].source(), proto::TrackSource::ScreenShare);
    }

    #[test]
    fn seats_are_what_only_receives() {
        let offer = Offer::read(&text(&[HEARS, CAM]), Protocol::Whep, false).unwrap();
        assert!(offer.tracks.is_empty());
        assert_eq!(offer.seats, [(Kind::Audio, vec!["opus".to_owned()])]);
        let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:1\na=recvonly";
        assert!(Offer::read(&text(&[data]), Protocol::Whep, false).is_err());
    }

    #[test]
    fn directions_and_rejections_count() {
        let of = |section: &str| Offer::read(&text(&[section]), Protocol::Whip, false);
        assert!(of(HEARS).is_err());
        assert!(of(&MIC.replace("sendonly", "inactive")).is_err());
        assert!(of(&MIC.replace("m=audio 9", "m=audio 0")).is_err());
        assert!(
            of(&format!(
                "{}\na=bundle-only",
                MIC.replace("m=audio 9", "m=audio 0")
            ))
            .is_ok()
        );
        assert_eq!(of(&MIC.replace("a=sendonly\n", "")).unwrap().tracks.len(), 1);
        // A direction may stand once for all.
        let all = text(&[&MIC.replace("a=sendonly\n", "")]).replace("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n");
        assert!(Offer::read(&all, Protocol::Whip, false).is_err());
        assert!(Offer::read(&all, Protocol::Whep, false).is_ok());
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let good = text(&[MIC, CAM]);
        let many = "m=audio 9 X 0\n".repeat(MAX_SECTIONS + 1);
        for (text, why) in [
            (String::new(), "v=0"),
            ("hello".into(), "v=0"),
            (good.replace("a=ice-ufrag:user\r\n", ""), "ice-ufrag"),
            (good.replace("a=ice-pwd:", "a=x:"), "ice-pwd"),
            (good.replace("a=fingerprint:", "a=x:"), "fingerprint"),
            (good.replace("a=group:BUNDLE 0 1\r\n", ""), "bundled"),
            (self::text(&[many.as_str()]), "32 sections"),
        ] {
            let error = Offer::read(&text, Protocol::Whip, false).unwrap_err();
            assert_eq!(error.code, Code::SdpInvalid);
            assert!(error.detail.contains(why), "{error}");
        }
        for odd in [
            "m=",
            "m=audio",
            "a=rid:",
            "a=rtpmap:",
            "a=msid:",
            "a=simulcast:",
            "🦀",
            "=",
        ] {
            let _ = Offer::read(&(good.clone() + odd), Protocol::Whip, false);
        }
    }

    #[test]
    fn an_answer_that_takes_nothing_is_known() {
        assert!(takes_any("v=0\r\nm=audio 0 X 0\r\nm=video 9 X 96\r\n"));
        assert!(!takes_any("v=0\r\nm=audio 0 X 0\r\nm=application 9 X y\r\n"));
        let answer = "v=0\r\nm=audio 9 X 111\r\na=sendonly\r\na=rtpmap:111 opus/48000/2\r\nm=video 9 X 96\r\na=recvonly\r\n";
        assert_eq!(seats_of(answer), [(Kind::Audio, vec!["opus".to_owned()])]);
    }
}
