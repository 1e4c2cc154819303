//! Reading session descriptions.
//!
//! Owns a parser of the lines a conferencing server needs (RFC 8866, RFC 8829) and ignores the rest.
//! Invariants: total on any input; its size is limited before anything is allocated in proportion.

use super::api::SdpError;

/// Bytes of a description.
pub(crate) const MAX_BYTES: usize = 256 * 1024;
/// Media sections of a description.
pub(crate) const MAX_SECTIONS: usize = 500;
/// Payload types of a section; more than can be dynamic means nonsense.
const MAX_FORMATS: usize = 128;

/// `m=` kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    Audio,
    Video,
    Application,
    Other,
}

/// RFC 8866 section 6.7
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub(crate) fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    pub(crate) fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// `a=setup`, RFC 8842.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setup {
    ActPass,
    Active,
    Passive,
}

/// `a=rtpmap`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RtpMap {
    pub(crate) payload_type: u8,
    pub(crate) name: String,
    /// Everything after the name, `48000/2`.
    pub(crate) clock: String,
}

/// What may stand at session level or in a section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transport {
    pub(crate) ufrag: Option<String>,
    pub(crate) pwd: Option<String>,
    /// (hash, value) in lower case.
    pub(crate) fingerprints: Vec<(String, String)>,
    pub(crate) setup: Option<Setup>,
}

/// One `m=` section.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) kind: MediaType,
    pub(crate) kind_name: String,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) formats: Vec<String>,
    pub(crate) mid: Option<String>,
    pub(crate) direction: Direction,
    pub(crate) transport: Transport,
    pub(crate) maps: Vec<RtpMap>,
    pub(crate) parameters: Vec<(u8, String)>,
    /// Payload type (`None` for `*`) and value.
    pub(crate) feedback: Vec<(Option<u8>, String)>,
    pub(crate) extensions: Vec<(u8, String)>,
    /// RIDs the peer sends, in order.
    pub(crate) send_rids: Vec<String>,
    /// `a=simulcast:send` lists them.
    pub(crate) simulcast: bool,
    pub(crate) ssrcs: Vec<u32>,
    /// Media SSRC and its RTX.
    pub(crate) repair_groups: Vec<(u32, u32)>,
    /// Track ids from `a=msid` or, failing that, `a=ssrc … msid`.
    pub(crate) track_ids: Vec<String>,
    pub(crate) sctp_port: Option<u16>,
    pub(crate) bundle_only: bool,
}

impl Section {
    fn new(kind_name: &str, port: u16, protocol: &str, formats: Vec<String>) -> Self {
        let kind = match kind_name {
            "audio" => MediaType::Audio,
            "video" => MediaType::Video,
            "application" => MediaType::Application,
            _ => MediaType::Other,
        };
        Section {
            kind,
            kind_name: kind_name.to_owned(),
            port,
            protocol: protocol.to_owned(),
            formats,
            mid: None,
            direction: Direction::SendRecv,
            transport: Transport::default(),
            maps: Vec::new(),
            parameters: Vec::new(),
            feedback: Vec::new(),
            extensions: Vec::new(),
            send_rids: Vec::new(),
            simulcast: false,
            ssrcs: Vec::new(),
            repair_groups: Vec::new(),
            track_ids: Vec::new(),
            sctp_port: None,
            bundle_only: false,
        }
    }

    /// Rejected by the offerer (a bundle-only section has port 0 too, RFC 8843 section 6).
    pub(crate) fn rejected(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }

    /// The `fmtp` of a payload type.
    pub(crate) fn parameters_of(&self, payload_type: u8) -> &str {
        self.parameters
            .iter()
            .find(|(pt, _)| *pt == payload_type)
            .map_or("", |(_, v)| v)
    }

    /// Whether the peer listed this feedback for the payload type.
    pub(crate) fn has_feedback(&self, payload_type: u8, value: &str) -> bool {
        self.feedback
            .iter()
            .any(|(pt, v)| v == value && pt.is_none_or(|pt| pt == payload_type))
    }
}

/// A description.
#[derive(Debug, Clone, Default)]
pub(crate) struct Description {
    pub(crate) transport: Transport,
    pub(crate) sections: Vec<Section>,
    /// `a=extmap-allow-mixed` at session level or in every section that matters.
    pub(crate) mixed: bool,
}

impl Description {
    /// The transport of the bundle: the first section that has it, else the session.
    pub(crate) fn bundle_transport(&self) -> Transport {
        let mut found = Transport::default();
        let own = self
            .sections
            .iter()
            .filter(|s| !s.rejected())
            .map(|s| &s.transport);
        for t in own.chain([&self.transport]) {
            found.ufrag = found.ufrag.or_else(|| t.ufrag.clone());
            found.pwd = found.pwd.or_else(|| t.pwd.clone());
            found.setup = found.setup.or(t.setup);
            if found.fingerprints.is_empty() {
                found.fingerprints.clone_from(&t.fingerprints);
            }
        }
        found
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Parses a description.
pub(crate) fn parse(text: &str) -> Result<Description, SdpError> {
    if text.len() > MAX_BYTES {
        return Err(SdpError::TooLarge {
            what: "bytes",
            limit: MAX_BYTES,
        });
    }
    let mut out = Description::default();
    let mut lines = text.lines().map(str::trim_end).filter(|l| !l.is_empty());
    if lines.next() != Some("v=0") {
        return Err(SdpError::Syntax("does not start with v=0".to_owned()));
    }
    for line in lines {
        let Some((kind, value)) = line.split_once('=') else {
            return Err(SdpError::Syntax(format!("no type in line {:?}", clip(line))));
        };
        match kind {
            "m" => {
                if out.sections.len() >= MAX_SECTIONS {
                    return Err(SdpError::TooLarge {
                        what: "sections",
                        limit: MAX_SECTIONS,
                    });
                }
                out.sections.push(media_line(value)?);
            }
            "a" => match out.sections.last_mut() {
                Some(section) => section_attribute(section, value, &mut out.mixed),
                None => match value.split_once(':') {
                    None if value == "extmap-allow-mixed" => out.mixed = true,
                    Some((name, value)) => transport_attribute(&mut out.transport, name, value),
                    None => {}
                },
            },
            _ => {}
        }
    }
    Ok(out)
}

fn clip(line: &str) -> String {
    line.chars().take(40).collect()
}

fn media_line(value: &str) -> Result<Section, SdpError> {
    let mut parts = value.split_ascii_whitespace();
    let (Some(kind), Some(port), Some(protocol)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(SdpError::Syntax("short m= line".to_owned()));
    };
    let port = port.split('/').next().and_then(number);
    let port = port.ok_or_else(|| SdpError::Syntax("port of m= line".to_owned()))?;
    let formats: Vec<String> = parts.take(MAX_FORMATS + 1).map(str::to_owned).collect();
    if formats.len() > MAX_FORMATS {
        return Err(SdpError::TooLarge {
            what: "codecs",
            limit: MAX_FORMATS,
        });
    }
    Ok(Section::new(kind, port, protocol, formats))
}

fn transport_attribute(t: &mut Transport, name: &str, value: &str) {
    match name {
        "ice-ufrag" => t.ufrag = Some(value.to_owned()),
        "ice-pwd" => t.pwd = Some(value.to_owned()),
        "fingerprint" => {
            if let Some((hash, value)) = value.split_once(' ')
                && t.fingerprints.len() < 8
            {
                t.fingerprints
                    .push((hash.to_ascii_lowercase(), value.trim().to_ascii_lowercase()));
            }
        }
        "setup" => {
            t.setup = match value {
                "active" => Some(Setup::Active),
                "passive" => Some(Setup::Passive),
                _ => Some(Setup::ActPass),
            }
        }
        _ => {}
    }
}

fn section_attribute(s: &mut Section, attribute: &str, mixed: &mut bool) {
    let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
    match name {
        "sendrecv" => s.direction = Direction::SendRecv,
        "sendonly" => s.direction = Direction::SendOnly,
        "recvonly" => s.direction = Direction::RecvOnly,
        "inactive" => s.direction = Direction::Inactive,
        "bundle-only" => s.bundle_only = true,
        "extmap-allow-mixed" => *mixed = true,
        "mid" => s.mid = Some(value.to_owned()),
        "sctp-port" => s.sctp_port = number(value),
        "rtpmap" => {
            if let Some((pt, rest)) = value.split_once(' ')
                && let (Some(payload_type), Some((name, clock))) = (number(pt), rest.split_once('/'))
                && s.maps.len() < MAX_FORMATS
            {
                let (name, clock) = (name.to_owned(), clock.to_owned());
                s.maps.push(RtpMap {
                    payload_type,
                    name,
                    clock,
                });
            }
        }
        "fmtp" => {
            if let Some((pt, rest)) = value.split_once(' ')
                && let Some(pt) = number(pt)
            {
                s.parameters.push((pt, rest.to_owned()));
            }
        }
        "rtcp-fb" => {
            if let Some((pt, rest)) = value.split_once(' ') {
                s.feedback.push((number(pt), rest.to_owned()));
            }
        }
        "extmap" => {
            if let Some((id, rest)) = value.split_once(' ')
                && let Some(id) = id.split('/').next().and_then(number)
                && let Some(uri) = rest.split_ascii_whitespace().next()
            {
                s.extensions.push((id, uri.to_owned()));
            }
        }
        "rid" => {
            let mut parts = value.split_ascii_whitespace();
            if let (Some(rid), Some("send")) = (parts.next(), parts.next())
                && s.send_rids.len() < 8
            {
                s.send_rids.push(rid.to_owned());
            }
        }
        "simulcast" => {
            let mut parts = value.split_ascii_whitespace();
            while let (Some(direction), Some(list)) = (parts.next(), parts.next()) {
                if direction == "send" {
                    s.simulcast = list.split(';').count() > 1;
                }
            }
        }
        "ssrc-group" => {
            let mut parts = value.split_ascii_whitespace();
            if parts.next() == Some("FID")
                && let (Some(media), Some(repair)) =
                    (parts.next().and_then(number), parts.next().and_then(number))
            {
                s.repair_groups.push((media, repair));
            }
        }
        "ssrc" => {
            if let Some((ssrc, rest)) = value.split_once(' ')
                && let Some(ssrc) = number(ssrc)
            {
                if !s.ssrcs.contains(&ssrc) && s.ssrcs.len() < 64 {
                    s.ssrcs.push(ssrc);
                }
                if let Some(msid) = rest.strip_prefix("msid:") {
                    add_track_id(s, msid);
                }
            }
        }
        "msid" => add_track_id(s, value),
        _ => transport_attribute(&mut s.transport, name, value),
    }
}

fn add_track_id(s: &mut Section, msid: &str) {
    if let Some(track) = msid.split_ascii_whitespace().nth(1) {
        let track = track.to_owned();
        if !s.track_ids.contains(&track) && s.track_ids.len() < 8 {
            s.track_ids.push(track);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_like_offer_is_read() {
        let d = parse(concat!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=extmap-allow-mixed\r\n",
            "a=fingerprint:sha-256 AA:BB\r\n",
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=setup:actpass\r\n",
            "a=sendonly\r\na=msid:- cid\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n",
            "a=rtcp-fb:96 nack pli\r\na=extmap:4/sendonly urn:x\r\na=rid:q send\r\na=rid:f send\r\n",
            "a=simulcast:send q;f\r\na=ssrc-group:FID 5 6\r\na=ssrc:5 cname:x\r\n",
            "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\na=bundle-only\r\na=sctp-port:5000\r\n",
        ))
        .unwrap();
        assert!(d.mixed);
        let v = &d.sections[0];
        assert_eq!(
            (v.kind, v.direction, v.mid.as_deref()),
            (MediaType::Video, Direction::SendOnly, Some("1"))
        );
        assert_eq!(
            (v.track_ids.clone(), v.send_rids.len(), v.simulcast),
            (vec!["cid".to_owned()], 2, true)
        );
        assert_eq!(
            (v.parameters_of(97), v.has_feedback(96, "nack pli")),
            ("apt=96", true)
        );
        assert_eq!((v.extensions[0].0, v.repair_groups[0]), (4, (5, 6)));
        assert!(!d.sections[1].rejected());
        let t = d.bundle_transport();
        assert_eq!(
            (t.ufrag.as_deref(), t.fingerprints[0].1.as_str()),
            (Some("u"), "aa:bb")
        );
    }

    #[test]
    fn limits_and_nonsense() {
        assert!(matches!(parse("hello"), Err(SdpError::Syntax(_))));
        assert!(matches!(
            parse(&"x".repeat(MAX_BYTES + 1)),
            Err(SdpError::TooLarge { what: "bytes", .. })
        ));
        let many = format!("v=0\r\n{}", "m=audio 9 X 0\r\n".repeat(MAX_SECTIONS + 1));
        assert!(matches!(
            parse(&many),
            Err(SdpError::TooLarge { what: "sections", .. })
        ));
        for line in ["m=", "m=a", "m=a b c", "m=a 99999 c", "zzz"] {
            assert!(parse(&format!("v=0\r\n{line}\r\n")).is_err(), "{line}");
        }
        for a in [
            "rtpmap",
            "rtpmap:",
            "rtpmap:1",
            "fmtp:a b",
            "extmap:",
            "rid:",
            "simulcast:send",
            "ssrc:x y",
            "msid:",
            "fingerprint:",
        ] {
            parse(&format!("v=0\r\nm=audio 9 X 0\r\na={a}\r\n")).unwrap();
        }
    }
}
