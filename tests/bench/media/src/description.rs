//! Session descriptions of a client with one transport.
//!
//! Owns the text of offers and the few lines of an answer that matter. Pure. Every number that is
//! negotiated (payload types, extension ids) is ours, since the server answers with the offerer's.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// Payload type of VP8; that of its retransmissions is the next.
pub(crate) const VP8: u8 = 96;
/// Payload type of Opus.
pub(crate) const OPUS: u8 = 111;
/// Header extension of a voice's level.
pub(crate) const LEVEL_ID: u8 = 1;
/// Header extension of a layer's name.
pub(crate) const RID_ID: u8 = 10;
/// Header extension of transport-wide sequence numbers.
pub(crate) const TWCC_ID: u8 = 5;
/// Header extension of the section's name.
pub(crate) const MID_ID: u8 = 4;

/// A media section of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Section {
    /// Room for a track of somebody else's.
    ReceiveAudio,
    /// The same for video.
    ReceiveVideo,
    /// Our own video.
    SendVideo { track: String, ssrc: u32 },
    /// Our own microphone.
    SendAudio { track: String, ssrc: u32 },
    /// Our own video in three layers.
    SendSimulcast { track: String },
}

/// What describes the transport.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) fingerprint: String,
    pub(crate) address: SocketAddr,
}

const AUDIO: &str = "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
    a=rtcp-fb:111 transport-cc\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
    a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:5 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n";
const VIDEO: &str = "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n\
    a=rtcp-fb:96 ccm fir\r\na=rtcp-fb:96 transport-cc\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
    a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:5 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
    a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n";

/// The offer.
pub(crate) fn offer(local: &Local, version: u32, sections: &[Section]) -> String {
    let mids: Vec<String> = (0..sections.len()).map(|i| i.to_string()).collect();
    let mut out = format!(
        "v=0\r\no=- 4611 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
         a=extmap-allow-mixed\r\na=msid-semantic: WMS *\r\n",
        mids.join(" ")
    );
    for (mid, section) in sections.iter().enumerate() {
        // Writing to a String can't fail.
        let _ = one(&mut out, local, mid, section);
    }
    out
}

fn one(out: &mut String, local: &Local, mid: usize, section: &Section) -> std::fmt::Result {
    let (kind, formats, codecs) = match section {
        Section::ReceiveAudio | Section::SendAudio { .. } => ("audio", "111", AUDIO),
        Section::ReceiveVideo | Section::SendVideo { .. } | Section::SendSimulcast { .. } => {
            ("video", "96 97", VIDEO)
        }
    };
    write!(
        out,
        "m={kind} 9 UDP/TLS/RTP/SAVPF {formats}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n\
         a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\n\
         a=setup:actpass\r\na=rtcp-mux\r\na=rtcp-rsize\r\n",
        local.ufrag, local.pwd, local.fingerprint
    )?;
    if mid == 0 {
        write!(
            out,
            "a=candidate:1 1 udp 2130706431 {} {} typ host\r\na=end-of-candidates\r\n",
            local.address.ip(),
            local.address.port()
        )?;
    }
    match section {
        Section::ReceiveAudio | Section::ReceiveVideo => write!(out, "a=recvonly\r\n{codecs}"),
        Section::SendSimulcast { track } => write!(
            out,
            "a=sendonly\r\na=msid:- {track}\r\n{codecs}\
             a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n"
        ),
        Section::SendVideo { track, ssrc } | Section::SendAudio { track, ssrc } => write!(
            out,
            "a=sendonly\r\na=msid:- {track}\r\n{codecs}\
             a=ssrc:{ssrc} cname:bench\r\na=ssrc:{ssrc} msid:- {track}\r\n"
        ),
    }
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    /// The server sends the first flight of DTLS.
    pub(crate) active: bool,
    /// UDP over IPv4; others may come later.
    pub(crate) candidates: Vec<SocketAddr>,
    /// Sections on which the server sends video.
    pub(crate) videos: usize,
    /// The server wants reports of transport-wide sequence numbers.
    pub(crate) feedback: bool,
}

/// The address of a `candidate:` line without its `a=`.
pub(crate) fn candidate(line: &str) -> Option<SocketAddr> {
    let mut parts = line.trim().strip_prefix("candidate:")?.split_ascii_whitespace();
    let udp = parts.nth(2)?.eq_ignore_ascii_case("udp");
    let (ip, port) = (parts.nth(1)?.parse().ok()?, parts.next()?.parse().ok()?);
    let address = SocketAddr::new(ip, port);
    (udp && address.is_ipv4()).then_some(address)
}

/// Reads an answer; the error names the line that is missing.
pub(crate) fn read(sdp: &str) -> Result<Remote, &'static str> {
    let value = |name: &str| {
        sdp.lines()
            .find_map(|l| l.trim_end().strip_prefix("a=")?.strip_prefix(name))
    };
    let mut sections = sdp.split("\nm=");
    sections.next();
    let video_out = |s: &&str| {
        s.starts_with("video ")
            && !s.starts_with("video 0 ")
            && (s.contains("a=sendonly") || s.contains("a=sendrecv"))
    };
    let videos: Vec<&str> = sections.filter(video_out).collect();
    Ok(Remote {
        ufrag: value("ice-ufrag:").ok_or("ice-ufrag")?.to_owned(),
        pwd: value("ice-pwd:").ok_or("ice-pwd")?.to_owned(),
        active: value("setup:").ok_or("setup")? == "active",
        candidates: sdp
            .lines()
            .filter_map(|l| candidate(l.strip_prefix("a=")?))
            .collect(),
        videos: videos.len(),
        feedback: videos.iter().any(|s| s.contains("a=rtcp-fb:96 transport-cc")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_has_its_sections_in_order() {
        let local = Local {
            ufrag: "u".to_owned(),
            pwd: "p".to_owned(),
            fingerprint: "AA".to_owned(),
            address: "127.0.0.1:7".parse().unwrap(),
        };
        let send = Section::SendVideo {
            track: "cid".to_owned(),
            ssrc: 9,
        };
        let text = offer(&local, 2, &[Section::ReceiveAudio, Section::ReceiveVideo, send]);
        let kinds: Vec<&str> = text.lines().filter(|l| l.starts_with("m=")).collect();
        assert_eq!(
            kinds,
            [
                "m=audio 9 UDP/TLS/RTP/SAVPF 111",
                "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
                "m=video 9 UDP/TLS/RTP/SAVPF 96 97"
            ]
        );
        assert!(text.contains("a=group:BUNDLE 0 1 2\r\n") && text.contains("a=msid:- cid\r\n"));
        assert_eq!(text.matches("typ host").count(), 1);
        assert!(text.lines().all(|l| !l.is_empty()));
    }

    #[test]
    fn an_answer_is_read() {
        let text = "v=0\r\na=ice-lite\r\nm=audio 9 X 111\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=setup:passive\r\n\
            a=candidate:1 1 udp 1 127.0.0.1 50 typ host\r\na=candidate:2 1 tcp 1 127.0.0.1 51 typ host tcptype passive\r\n\
            a=candidate:3 1 udp 1 ::1 52 typ host\r\na=inactive\r\n\
            m=video 9 X 96\r\na=sendonly\r\na=rtcp-fb:96 transport-cc\r\nm=video 9 X 96\r\na=inactive\r\n";
        let remote = read(text).unwrap();
        assert_eq!((remote.ufrag.as_str(), remote.pwd.as_str()), ("u", "p"));
        assert_eq!(remote.candidates, ["127.0.0.1:50".parse::<SocketAddr>().unwrap()]);
        assert_eq!((remote.active, remote.videos, remote.feedback), (false, 1, true));
        assert_eq!(read("v=0\r\na=ice-ufrag:u\r\n"), Err("ice-pwd"));
        assert_eq!(candidate("candidate:1 1 udp"), None);
    }
}
