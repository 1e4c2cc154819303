//! Which payload types of two descriptions mean the same.
//!
//! Owns the choice of codecs from a section and the translation between publisher and subscriber.
//! Invariant: H264 payload types are matched by packetization mode and profile (RFC 6184 section 8.2.2),
//! never by name alone, since a decoder set up for another one shows nothing.

use super::api::AudioOptions;
use super::sdp::{MediaType, Section};
use crate::forward::PayloadMap;
use crate::forward::codec::Codec;

/// A payload type as negotiated on one leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) payload_type: u8,
    pub(crate) codec: Codec,
    /// After the name: `90000`, `48000/2`.
    pub(crate) clock: String,
    pub(crate) parameters: String,
    /// Its RTX payload type.
    pub(crate) repair: Option<u8>,
    /// Redundant audio data of it.
    pub(crate) red: Option<Redundant>,
    /// Feedback agreed on.
    pub(crate) feedback: Vec<&'static str>,
}

impl Negotiated {
    /// As LiveKit writes it in TrackInfo: what the sender uses.
    pub(crate) fn mime_type(&self) -> &'static str {
        match self.red {
            Some(red) if red.first => "audio/red",
            _ => self.codec.mime_type(),
        }
    }
}

/// Redundant audio data (RFC 2198) as negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Redundant {
    pub(crate) payload_type: u8,
    /// Named before what it carries: a sender uses what comes first.
    pub(crate) first: bool,
}

/// Feedback we understand, in both directions.
const VIDEO_FEEDBACK: [&str; 5] = ["nack", "nack pli", "ccm fir", "transport-cc", "goog-remb"];
/// Sound has no part in estimates. Towards us neither: Chromium would count what it sends of sound as
/// capacity for video, but not the redundancy in it nor its headers, and overfill a narrow path for good.
const AUDIO_FEEDBACK: [&str; 1] = ["nack"];

fn feedback(audio: bool) -> &'static [&'static str] {
    if audio { &AUDIO_FEEDBACK } else { &VIDEO_FEEDBACK }
}

/// The codecs of an offered or answered section that we forward, in its order. `allowed` limits them by
/// lower-case name where it isn't empty.
pub(crate) fn select(section: &Section, allowed: &[String]) -> Vec<Negotiated> {
    let repairs: Vec<(u8, u8)> = section
        .maps
        .iter()
        .filter(|m| m.name.eq_ignore_ascii_case("rtx"))
        .filter_map(|m| {
            let apt = value_of(section.parameters_of(m.payload_type), "apt")?;
            Some((apt.parse().ok()?, m.payload_type))
        })
        .collect();
    let audio = section.kind == MediaType::Audio;
    let in_order = section.formats.iter().filter_map(|f| f.parse::<u8>().ok());
    in_order
        .filter_map(|pt| {
            let map = section.maps.iter().find(|m| m.payload_type == pt)?;
            let codec = Codec::from_name(&map.name)?;
            if audio != (codec == Codec::Opus) {
                return None;
            }
            let name = codec.name().to_ascii_lowercase();
            if !allowed.is_empty() && !allowed.contains(&name) {
                return None;
            }
            Some(Negotiated {
                payload_type: pt,
                codec,
                clock: map.clock.clone(),
                parameters: section.parameters_of(pt).to_owned(),
                repair: repairs.iter().find(|(apt, _)| *apt == pt).map(|(_, rtx)| *rtx),
                red: audio.then(|| redundant(section, pt, &map.clock)).flatten(),
                feedback: feedback(audio)
                    .iter()
                    .copied()
                    .filter(|f| section.has_feedback(pt, f))
                    .collect(),
            })
        })
        .collect()
}

/// The redundant audio data of payload type `of`: every block of it carries that one.
fn redundant(section: &Section, of: u8, clock: &str) -> Option<Redundant> {
    let place = |pt: u8| section.formats.iter().position(|f| f.parse() == Ok(pt));
    let map = section.maps.iter().find(|m| {
        let parameters = section.parameters_of(m.payload_type);
        m.name.eq_ignore_ascii_case("red")
            && m.clock == clock
            && !parameters.is_empty()
            && parameters.split('/').all(|p| p.trim().parse() == Ok(of))
    })?;
    Some(Redundant {
        payload_type: map.payload_type,
        first: place(map.payload_type)? < place(of)?,
    })
}

/// What a publisher's section is answered with, from what was announced of the track. Its encoder goes by
/// the answer: in silence it pauses where `usedtx` says so, it encodes two channels where `stereo` does
/// (stock clients offer that for any track), and it sends the codec that comes first.
pub(crate) fn publishing(codecs: &mut [Negotiated], audio: &AudioOptions) {
    for opus in codecs.iter_mut().filter(|c| c.codec == Codec::Opus) {
        set(&mut opus.parameters, "usedtx", audio.dtx.then_some("1"));
        set(&mut opus.parameters, "stereo", audio.stereo.then_some("1"));
        if audio.stereo && value_of(&opus.parameters, "maxaveragebitrate").is_none() {
            set(&mut opus.parameters, "maxaveragebitrate", Some(STEREO_BITRATE));
        }
        if let Some(red) = &mut opus.red {
            red.first = audio.red && !audio.encrypted;
        }
        // Not offered by browsers, and understood by them.
        nack(opus, true);
    }
}

/// What our section to a subscriber says of sound with two channels, and of asking for what was lost:
/// where the next packet brings it along, there's nothing to ask for.
pub(crate) fn subscribing(codecs: &mut [Negotiated], stereo: bool) {
    for opus in codecs.iter_mut().filter(|c| c.codec == Codec::Opus) {
        set(&mut opus.parameters, "sprop-stereo", stereo.then_some("1"));
        nack(opus, opus.red.is_none());
    }
}

/// Opus goes no higher.
const STEREO_BITRATE: &str = "510000";

fn nack(codec: &mut Negotiated, on: bool) {
    codec.feedback.retain(|f| *f != "nack");
    if on {
        codec.feedback.push("nack");
    }
}

/// Sets or removes one of the parameters.
fn set(parameters: &mut String, name: &str, value: Option<&str>) {
    let mut parts: Vec<&str> = parameters
        .split(';')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .filter(|p| {
            !p.split('=')
                .next()
                .is_some_and(|n| n.trim().eq_ignore_ascii_case(name))
        })
        .collect();
    let added = value.map(|v| format!("{name}={v}"));
    parts.extend(added.as_deref());
    *parameters = parts.join(";");
}

/// Puts the payload types of a codec first and leaves the rest in its order.
pub(crate) fn prefer(codecs: &mut [Negotiated], name: &str) {
    codecs.sort_by_key(|n| !n.codec.name().eq_ignore_ascii_case(name));
}

fn value_of<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    parameters.split(';').find_map(|p| {
        let (n, v) = p.trim().split_once('=')?;
        n.eq_ignore_ascii_case(name).then_some(v.trim())
    })
}

/// What must agree for a stream of one payload type to be decodable as another.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Variant {
    Plain,
    H264 {
        packetization: u8,
        profile: H264Profile,
    },
    /// VP9, AV1 and H265 profile number.
    Profile(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    High,
    ConstrainedHigh,
    Other(u8),
}

/// RFC 6184 table 5, as far as browsers use it.
fn h264_profile(level_id: &str) -> H264Profile {
    let id = u32::from_str_radix(level_id, 16).unwrap_or(0x42_001F);
    let (profile, constraints) = ((id >> 16) as u8, (id >> 8) as u8);
    match profile {
        0x42 if constraints & 0x40 != 0 => H264Profile::ConstrainedBaseline,
        0x4D | 0x58 if constraints & 0x80 != 0 => H264Profile::ConstrainedBaseline,
        0x42 => H264Profile::Baseline,
        0x4D => H264Profile::Main,
        0x64 if constraints & 0x0C == 0x0C => H264Profile::ConstrainedHigh,
        0x64 => H264Profile::High,
        other => H264Profile::Other(other),
    }
}

fn variant(n: &Negotiated) -> Variant {
    let number = |name: &str| {
        value_of(&n.parameters, name)
            .and_then(|v| v.parse().ok())
            .unwrap_or(0)
    };
    match n.codec {
        Codec::Opus | Codec::Vp8 => Variant::Plain,
        Codec::H264 => Variant::H264 {
            packetization: number("packetization-mode"),
            profile: h264_profile(value_of(&n.parameters, "profile-level-id").unwrap_or("42001f")),
        },
        // RFC 7798 section 7.1: the profile is 1 where nothing is said.
        Codec::H265 => Variant::Profile(number("profile-id").max(1)),
        Codec::Vp9 => Variant::Profile(number("profile-id")),
        Codec::Av1 => Variant::Profile(number("profile")),
    }
}

/// Every decoder of `to` decodes a stream of `from`.
fn decodes(from: &Variant, to: &Variant) -> bool {
    match (from, to) {
        (
            Variant::H264 {
                packetization: a,
                profile: H264Profile::ConstrainedBaseline,
            },
            Variant::H264 {
                packetization: b,
                profile,
            },
        ) => a == b && !matches!(profile, H264Profile::Other(_)),
        (
            Variant::H264 {
                packetization: a,
                profile: H264Profile::ConstrainedHigh,
            },
            Variant::H264 {
                packetization: b,
                profile: H264Profile::High,
            },
        ) => a == b,
        _ => false,
    }
}

/// The translation from the publisher's payload types to the subscriber's.
/// `sound` is what was announced of it.
pub(crate) fn translate(
    publisher: &[Negotiated],
    subscriber: &[Negotiated],
    sound: &AudioOptions,
) -> PayloadMap {
    let red = |codecs: &[Negotiated]| {
        codecs
            .iter()
            .find_map(|c| Some((c.red?.payload_type, c.payload_type)))
    };
    let mut map = PayloadMap {
        red_from: red(publisher).filter(|_| !sound.encrypted),
        ..PayloadMap::default()
    };
    if sound.red && !sound.encrypted && red(publisher).is_none() {
        map.red_to = red(subscriber).map(|(red, _)| red);
    }
    for p in publisher {
        let from = variant(p);
        let same = subscriber
            .iter()
            .find(|s| s.codec == p.codec && variant(s) == from);
        let wider = || {
            subscriber
                .iter()
                .find(|s| s.codec == p.codec && decodes(&from, &variant(s)))
        };
        if let Some(s) = same.or_else(wider) {
            map.entries.push((p.payload_type, s.payload_type, s.repair));
            if let (Some(from), Some(to)) = (p.red, s.red) {
                map.entries.push((from.payload_type, to.payload_type, None));
            }
        }
    }
    map
}

/// What we offer on a subscriber leg, where the numbers are ours. One set for all sections of a kind, so
/// that a number means one thing within the bundle (RFC 8843 section 10.1.2).
pub(crate) fn offered(audio: bool) -> Vec<Negotiated> {
    let entry = |payload_type, codec: Codec, clock: &str, parameters: &str, repair| Negotiated {
        payload_type,
        codec,
        clock: clock.to_owned(),
        parameters: parameters.to_owned(),
        repair,
        red: audio.then_some(Redundant {
            payload_type: 63,
            first: false,
        }),
        feedback: feedback(audio).to_vec(),
    };
    if audio {
        return vec![entry(
            111,
            Codec::Opus,
            "48000/2",
            "minptime=10;useinbandfec=1",
            None,
        )];
    }
    let h264 = |pt, repair, mode, profile: &str| {
        let parameters =
            format!("level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile}");
        entry(pt, Codec::H264, "90000", &parameters, Some(repair))
    };
    vec![
        entry(96, Codec::Vp8, "90000", "", Some(97)),
        h264(102, 103, 1, "42e01f"),
        h264(104, 105, 0, "42e01f"),
        h264(106, 107, 1, "42001f"),
        h264(108, 109, 0, "42001f"),
        h264(112, 113, 1, "4d001f"),
        h264(114, 115, 1, "64001f"),
        entry(
            49,
            Codec::H265,
            "90000",
            "level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST",
            Some(50),
        ),
        entry(98, Codec::Vp9, "90000", "profile-id=0", Some(99)),
        entry(45, Codec::Av1, "90000", "level-idx=5;profile=0;tier=0", Some(46)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::sdp::parse;
    use super::*;

    fn section(lines: &str) -> Section {
        parse(&format!("v=0\r\n{}", lines.replace('\n', "\r\n")))
            .unwrap()
            .sections
            .remove(0)
    }

    fn video() -> Section {
        section(concat!(
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 108 109 98 35\n",
            "a=rtpmap:96 VP8/90000\na=rtcp-fb:96 nack pli\na=rtcp-fb:96 transport-cc\n",
            "a=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\n",
            "a=rtpmap:102 H264/90000\na=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\n",
            "a=rtpmap:103 rtx/90000\na=fmtp:103 apt=102\n",
            "a=rtpmap:108 H264/90000\na=fmtp:108 packetization-mode=0;profile-level-id=42e01f\n",
            "a=rtpmap:109 rtx/90000\na=fmtp:109 apt=108\n",
            "a=rtpmap:98 VP9/90000\na=fmtp:98 profile-id=0\na=rtpmap:35 AV1X/90000\n",
        ))
    }

    #[test]
    fn codecs_are_selected_in_order_and_limited() {
        let all = select(&video(), &[]);
        assert_eq!(
            all.iter().map(|n| n.payload_type).collect::<Vec<_>>(),
            vec![96, 102, 108, 98]
        );
        assert_eq!(all[0].repair, Some(97));
        assert_eq!(all[0].feedback, vec!["nack pli", "transport-cc"]);
        let vp8 = select(&video(), &["vp8".to_owned()]);
        assert_eq!(vp8.len(), 1);
        assert_eq!(vp8[0].feedback, vec!["nack pli", "transport-cc"]);
    }

    #[test]
    fn the_announced_codec_comes_first() {
        let order = |name: &str| {
            let mut codecs = select(&video(), &[]);
            prefer(&mut codecs, name);
            codecs.iter().map(|n| n.payload_type).collect::<Vec<_>>()
        };
        assert_eq!(order("h264"), vec![102, 108, 96, 98]);
        assert_eq!(order("vp9"), vec![98, 96, 102, 108]);
        for other in ["", "h265"] {
            assert_eq!(order(other), vec![96, 102, 108, 98]);
        }
    }

    #[test]
    fn h264_is_matched_by_mode_and_profile() {
        let publisher = select(&video(), &[]);
        let ours = offered(false);
        let m = translate(&publisher, &ours, &AudioOptions::default());
        assert_eq!(m.get(96), Some((96, Some(97))));
        assert_eq!(m.get(102), Some((106, Some(107))));
        assert_eq!(m.get(108), Some((104, Some(105))));
        let mut high = publisher[1].clone();
        high.parameters = "packetization-mode=1;profile-level-id=640032".to_owned();
        assert_eq!(
            translate(&[high.clone()], &ours, &AudioOptions::default()).get(102),
            Some((114, Some(115)))
        );
        high.parameters = "packetization-mode=1;profile-level-id=42e01f".to_owned();
        let only_high = vec![ours[6].clone()];
        assert_eq!(
            translate(&[high], &only_high, &AudioOptions::default()).get(102),
            Some((114, Some(115))),
            "a wider decoder will do"
        );
    }

    fn audio(formats: &str) -> Section {
        section(&format!(
            "m=audio 9 UDP/TLS/RTP/SAVPF {formats}\na=rtpmap:111 opus/48000/2\n\
             a=fmtp:111 minptime=10;useinbandfec=1;stereo=1\na=rtcp-fb:111 transport-cc\n\
             a=rtpmap:63 red/48000/2\na=fmtp:63 111/111\na=rtpmap:64 red/48000/2\na=fmtp:64 0/0\n\
             a=rtpmap:0 PCMU/8000\n"
        ))
    }

    #[test]
    fn redundant_data_belongs_to_what_it_carries() {
        let red = |formats: &str| select(&audio(formats), &[])[0].red;
        let found = |first| {
            Some(Redundant {
                payload_type: 63,
                first,
            })
        };
        assert_eq!(red("111 64 63 0"), found(false));
        assert_eq!(red("63 111"), found(true));
        assert_eq!(red("111 64"), None, "of something else, or not in the section");
        let limited = select(&audio("111 63"), &["opus".to_owned()]);
        assert_eq!(limited[0].red, found(false));
    }

    #[test]
    fn an_encoder_is_told_what_was_announced() {
        let told = |options: AudioOptions| {
            let mut codecs = select(&audio("111 63"), &[]);
            publishing(&mut codecs, &options);
            codecs.remove(0)
        };
        let usual = told(AudioOptions::default());
        assert_eq!(usual.parameters, "minptime=10;useinbandfec=1;usedtx=1");
        assert_eq!(usual.feedback, vec!["nack"], "sound has no part in estimates");
        assert!(usual.red.unwrap().first);
        let music = told(AudioOptions {
            stereo: true,
            dtx: false,
            red: false,
            ..AudioOptions::default()
        });
        assert_eq!(
            music.parameters,
            "minptime=10;useinbandfec=1;stereo=1;maxaveragebitrate=510000"
        );
        assert!(!music.red.unwrap().first, "kept, but not asked for");
        let secret = AudioOptions {
            encrypted: true,
            ..AudioOptions::default()
        };
        assert!(!told(secret).red.unwrap().first);
    }

    #[test]
    fn a_subscriber_asks_again_only_for_what_does_not_come_along() {
        let mut codecs = select(&audio("111"), &[]);
        subscribing(&mut codecs, true);
        assert_eq!(codecs[0].feedback, vec!["nack"]);
        assert!(codecs[0].parameters.ends_with(";sprop-stereo=1"));
        let mut codecs = select(&audio("111 63"), &[]);
        subscribing(&mut codecs, false);
        assert!(codecs[0].feedback.is_empty());
        assert!(!codecs[0].parameters.contains("sprop"));
    }

    #[test]
    fn redundant_data_is_translated_where_both_have_it() {
        let with = select(&audio("111 63"), &[]);
        let without = select(&audio("111"), &[]);
        let red = |from: &[Negotiated], to: &[Negotiated]| {
            let map = translate(from, to, &AudioOptions::default());
            (map.get(111), map.get(63))
        };
        let ours = offered(true);
        assert_eq!(red(&with, &ours), (Some((111, None)), Some((63, None))));
        assert_eq!(red(&with, &without), (Some((111, None)), None));
        assert_eq!(red(&without, &ours), (Some((111, None)), None));
    }

    #[test]
    fn our_numbers_are_distinct() {
        let mut seen = std::collections::HashSet::new();
        for n in offered(false).into_iter().chain(offered(true)) {
            assert!(seen.insert(n.payload_type));
            assert!(n.repair.is_none_or(|r| seen.insert(r)));
            assert!(n.red.is_none_or(|r| seen.insert(r.payload_type)));
        }
    }
}
