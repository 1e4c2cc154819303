//! Writing session descriptions.
//!
//! Owns the text of our answers and offers. Invariants: one section per section of the offer, in its
//! order; everything bundled on the first (RFC 8843); only what both sides named is named.

use std::fmt::Write;
use std::net::SocketAddr;

use super::codecs::{Negotiated, Redundant};
use super::data::MAX_MESSAGE;
use super::ice::Credentials;
use super::sdp::{Direction, Setup};
use crate::forward::extension::Extension;

/// What we send in a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// `PA_x|TR_y`
    pub(crate) stream: String,
    /// `TR_y`
    pub(crate) track: String,
    pub(crate) cname: String,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
}

/// The body of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Media {
        direction: Direction,
        codecs: Vec<Negotiated>,
        extensions: Vec<(u8, Extension)>,
        /// RIDs we receive; empty without simulcast.
        rids: Vec<String>,
        outgoing: Option<Outgoing>,
    },
    Application,
    /// Echoes the formats with port 0.
    Rejected {
        formats: Vec<String>,
    },
}

/// A section to write.
#[derive(Debug, Clone)]
pub(crate) struct WrittenSection {
    pub(crate) kind: String,
    pub(crate) protocol: String,
    pub(crate) mid: String,
    pub(crate) body: Body,
}

/// A description to write.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    pub(crate) id: u64,
    pub(crate) version: u64,
    pub(crate) credentials: &'a Credentials,
    pub(crate) fingerprint: &'a str,
    pub(crate) setup: Setup,
    pub(crate) udp: &'a [SocketAddr],
    pub(crate) tcp: &'a [SocketAddr],
    /// How often the connection came from another engine.
    pub(crate) moves: u32,
    pub(crate) mixed: bool,
    pub(crate) sections: &'a [WrittenSection],
}

impl Written<'_> {
    /// The text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::with_capacity(1024 + 1024 * self.sections.len());
        // Writing to a String can't fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        write!(
            out,
            "v=0\r\no=- {} {} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n",
            self.id, self.version
        )?;
        let bundled: Vec<&str> = self
            .sections
            .iter()
            .filter(|s| !matches!(s.body, Body::Rejected { .. }))
            .map(|s| s.mid.as_str())
            .collect();
        if !bundled.is_empty() {
            write!(out, "a=group:BUNDLE {}\r\n", bundled.join(" "))?;
        }
        out.push_str("a=ice-lite\r\n");
        if self.mixed {
            out.push_str("a=extmap-allow-mixed\r\n");
        }
        out.push_str("a=msid-semantic: WMS *\r\n");
        let mut first = true;
        for section in self.sections {
            self.section(out, section, first)?;
            first &= matches!(section.body, Body::Rejected { .. });
        }
        Ok(())
    }

    fn section(&self, out: &mut String, s: &WrittenSection, first: bool) -> std::fmt::Result {
        let (port, formats) = match &s.body {
            Body::Media { codecs, .. } => (9, formats_of(codecs)),
            Body::Application => (9, "webrtc-datachannel".to_owned()),
            Body::Rejected { formats } => (0, formats.join(" ")),
        };
        let formats = if formats.is_empty() {
            "0".to_owned()
        } else {
            formats
        };
        write!(
            out,
            "m={} {port} {} {formats}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\n",
            s.kind, s.protocol, s.mid
        )?;
        if matches!(s.body, Body::Rejected { .. }) {
            out.push_str("a=inactive\r\n");
            return Ok(());
        }
        write!(
            out,
            "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:{}\r\n",
            self.credentials.local_ufrag,
            self.credentials.local_pwd,
            self.fingerprint,
            match self.setup {
                Setup::ActPass => "actpass",
                Setup::Active => "active",
                Setup::Passive => "passive",
            }
        )?;
        if first {
            self.candidates(out)?;
        }
        match &s.body {
            Body::Application => {
                write!(out, "a=sctp-port:5000\r\na=max-message-size:{MAX_MESSAGE}\r\n")
            }
            Body::Media {
                direction,
                codecs,
                extensions,
                rids,
                outgoing,
            } => media(out, *direction, codecs, extensions, rids, outgoing.as_ref()),
            Body::Rejected { .. } => Ok(()),
        }
    }

    /// RFC 8839 section 5.1; priorities as RFC 8445 section 5.1.2.1, UDP above TCP (RFC 6544).
    fn candidates(&self, out: &mut String) -> std::fmt::Result {
        for (i, a) in self.udp.iter().enumerate() {
            let priority = priority(UDP, self.moves, i);
            write!(
                out,
                "a=candidate:u{i} 1 udp {priority} {} {} typ host\r\n",
                a.ip(),
                a.port()
            )?;
        }
        for (i, a) in self.tcp.iter().enumerate() {
            let priority = priority(TCP, self.moves, i);
            write!(
                out,
                "a=candidate:t{i} 1 tcp {priority} {} {} typ host tcptype passive\r\n",
                a.ip(),
                a.port()
            )?;
        }
        out.push_str("a=end-of-candidates\r\n");
        Ok(())
    }
}

/// Type preferences, RFC 8445 section 5.1.2.1 and RFC 6544 section 4.2.
const UDP: u32 = 126;
const TCP: u32 = 90;

/// RFC 8445 section 5.1.2.1. The local preference ranks the moves of the connection before the addresses:
/// whatever the engine before offered is worse.
fn priority(kind: u32, moves: u32, address: usize) -> u32 {
    const ADDRESSES: u32 = 64;
    const MOVES: u32 = 1023;
    let place = u32::try_from(address).unwrap_or(u32::MAX).min(ADDRESSES - 1);
    let preference = moves.min(MOVES) * ADDRESSES + (ADDRESSES - 1 - place);
    kind << 24 | preference << 8 | 255
}

fn formats_of(codecs: &[Negotiated]) -> String {
    let number = |r: Redundant| r.payload_type;
    let numbers = codecs
        .iter()
        .flat_map(|c| {
            let before = c.red.filter(|r| r.first).map(number);
            let after = c.red.filter(|r| !r.first).map(number);
            [before, Some(c.payload_type), c.repair, after]
        })
        .flatten();
    numbers.map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
}

fn media(
    out: &mut String,
    direction: Direction,
    codecs: &[Negotiated],
    extensions: &[(u8, Extension)],
    rids: &[String],
    outgoing: Option<&Outgoing>,
) -> std::fmt::Result {
    let direction = match direction {
        Direction::SendRecv => "sendrecv",
        Direction::SendOnly => "sendonly",
        Direction::RecvOnly => "recvonly",
        Direction::Inactive => "inactive",
    };
    write!(out, "a={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n")?;
    for (id, extension) in extensions {
        write!(out, "a=extmap:{id} {}\r\n", extension.uri())?;
    }
    if let Some(o) = outgoing {
        write!(out, "a=msid:{} {}\r\n", o.stream, o.track)?;
    }
    for c in codecs {
        let pt = c.payload_type;
        write!(out, "a=rtpmap:{pt} {}/{}\r\n", c.codec.name(), c.clock)?;
        if !c.parameters.is_empty() {
            write!(out, "a=fmtp:{pt} {}\r\n", c.parameters)?;
        }
        for f in &c.feedback {
            write!(out, "a=rtcp-fb:{pt} {f}\r\n")?;
        }
        if let Some(rtx) = c.repair {
            let clock = c.clock.split('/').next().unwrap_or_default();
            write!(out, "a=rtpmap:{rtx} rtx/{clock}\r\na=fmtp:{rtx} apt={pt}\r\n")?;
        }
        if let Some(red) = c.red {
            let (red, clock) = (red.payload_type, &c.clock);
            write!(out, "a=rtpmap:{red} red/{clock}\r\na=fmtp:{red} {pt}/{pt}\r\n")?;
        }
    }
    for rid in rids {
        write!(out, "a=rid:{rid} recv\r\n")?;
    }
    if !rids.is_empty() {
        write!(out, "a=simulcast:recv {}\r\n", rids.join(";"))?;
    }
    if let Some(o) = outgoing {
        if let Some(rtx) = o.rtx_ssrc {
            write!(out, "a=ssrc-group:FID {} {rtx}\r\n", o.ssrc)?;
        }
        for ssrc in [Some(o.ssrc), o.rtx_ssrc].into_iter().flatten() {
            write!(
                out,
                "a=ssrc:{ssrc} cname:{}\r\na=ssrc:{ssrc} msid:{} {}\r\n",
                o.cname, o.stream, o.track
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::codecs::offered;
    use super::super::sdp::{MediaType, parse};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let credentials = Credentials {
            local_ufrag: "u".to_owned(),
            local_pwd: "p".to_owned(),
            remote_ufrag: String::new(),
        };
        let sections = vec![
            WrittenSection {
                kind: "application".to_owned(),
                protocol: "UDP/DTLS/SCTP".to_owned(),
                mid: "0".to_owned(),
                body: Body::Application,
            },
            WrittenSection {
                kind: "video".to_owned(),
                protocol: "UDP/TLS/RTP/SAVPF".to_owned(),
                mid: "1".to_owned(),
                body: Body::Media {
                    direction: Direction::SendOnly,
                    codecs: offered(false),
                    extensions: vec![(4, Extension::Mid)],
                    rids: Vec::new(),
                    outgoing: Some(Outgoing {
                        stream: "PA_x|TR_y".to_owned(),
                        track: "TR_y".to_owned(),
                        cname: "c".to_owned(),
                        ssrc: 1,
                        rtx_ssrc: Some(2),
                    }),
                },
            },
            WrittenSection {
                kind: "audio".to_owned(),
                protocol: "UDP/TLS/RTP/SAVPF".to_owned(),
                mid: "2".to_owned(),
                body: Body::Rejected {
                    formats: vec!["0".to_owned()],
                },
            },
        ];
        let text = Written {
            id: 1,
            version: 2,
            credentials: &credentials,
            fingerprint: "AA",
            setup: Setup::Passive,
            udp: &["10.0.0.1:7".parse().unwrap()],
            tcp: &[],
            moves: 0,
            mixed: true,
            sections: &sections,
        }
        .text();
        let d = parse(&text).unwrap();
        assert!(text.contains("a=group:BUNDLE 0 1\r\n"));
        assert_eq!(text.matches("a=candidate").count(), 1);
        assert_eq!(d.sections.len(), 3);
        assert!(d.sections[2].rejected());
        let v = &d.sections[1];
        assert_eq!(
            (v.kind, v.track_ids.clone()),
            (MediaType::Video, vec!["TR_y".to_owned()])
        );
        assert_eq!(v.repair_groups, vec![(1, 2)]);
        assert_eq!(v.maps.len(), 2 * offered(false).len());
    }

    #[test]
    fn each_move_of_a_connection_outranks_all_addresses_of_the_one_before() {
        assert!(priority(UDP, 1, 500) > priority(UDP, 0, 0));
        assert!(priority(UDP, 5, 0) > priority(UDP, 5, 1));
        // UDP above TCP, whatever came before.
        assert!(priority(UDP, 0, 63) > priority(TCP, u32::MAX, 0));
        assert_eq!(priority(UDP, u32::MAX, 0) >> 24, UDP);
    }
}
