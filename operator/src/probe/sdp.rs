//! As much SDP as a client needs that wants no media: credentials and candidates out of an offer,
//! and an answer that takes the data channel and declines the rest.

use std::net::{IpAddr, SocketAddr};

/// What a check needs to know of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) ufrag: String,
    pub(super) password: String,
    /// UDP candidates.
    pub(super) candidates: Vec<SocketAddr>,
}

/// The server's credentials and candidates, or `None` where the offer has no credentials.
pub(super) fn read(sdp: &str) -> Option<Offer> {
    let value = |name: &str| {
        sdp.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
    };
    Some(Offer {
        ufrag: value("a=ice-ufrag:")?,
        password: value("a=ice-pwd:")?,
        candidates: sdp
            .lines()
            .filter_map(|line| candidate(line.trim().strip_prefix("a=")?))
            .collect(),
    })
}

/// The address of a UDP candidate: `candidate:FOUNDATION COMPONENT udp PRIORITY ADDRESS PORT typ ...`.
pub(super) fn candidate(line: &str) -> Option<SocketAddr> {
    let mut parts = line.strip_prefix("candidate:")?.split_ascii_whitespace().skip(2);
    let udp = parts.next()?.eq_ignore_ascii_case("udp");
    let address: IpAddr = parts.nth(1)?.parse().ok()?;
    let port = parts.next()?.parse().ok()?;
    udp.then(|| SocketAddr::new(address, port))
}

/// The answer to an offer, with credentials of ours.
pub(super) fn answer(offer: &str, ufrag: &str, password: &str, fingerprint: &str) -> String {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in offer.lines().map(str::trim) {
        if let Some(media) = line.strip_prefix("m=") {
            sections.push((media.to_owned(), String::new()));
        } else if let (Some(mid), Some(section)) = (line.strip_prefix("a=mid:"), sections.last_mut()) {
            section.1 = mid.to_owned();
        }
    }
    let mut bundle = String::new();
    let mut body = String::new();
    for (media, mid) in sections {
        if media.starts_with("application ") {
            bundle = format!("a=group:BUNDLE {mid}\r\n");
            body += &format!(
                "m={media}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\n\
                 a=fingerprint:sha-256 {fingerprint}\r\na=setup:active\r\na=sctp-port:5000\r\n"
            );
        } else {
            let declined: Vec<&str> = media
                .split(' ')
                .enumerate()
                .map(|(place, word)| if place == 1 { "0" } else { word })
                .collect();
            body += &format!(
                "m={}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=inactive\r\n",
                declined.join(" ")
            );
        }
    }
    format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{bundle}{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\na=ice-lite\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n\
        a=ice-ufrag:uf\r\na=ice-pwd:secret\r\na=candidate:1 1 udp 2130706431 10.0.0.1 30123 typ host\r\n\
        a=candidate:2 1 tcp 1671430143 10.0.0.1 30123 typ host tcptype passive\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\n";

    #[test]
    fn credentials_and_udp_candidates_are_read() {
        let offer = read(OFFER).unwrap();
        assert_eq!((offer.ufrag.as_str(), offer.password.as_str()), ("uf", "secret"));
        assert_eq!(
            offer.candidates,
            ["10.0.0.1:30123".parse::<std::net::SocketAddr>().unwrap()]
        );
        assert_eq!(read("v=0\r\n"), None);
        assert_eq!(candidate("candidate:1 1 udp 1"), None);
    }

    #[test]
    fn the_answer_takes_data_and_declines_media() {
        let answer = answer(OFFER, "me", "mine", "AB:CD");
        assert!(answer.contains("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
        assert!(answer.contains("m=audio 0 UDP/TLS/RTP/SAVPF 111\r\n"));
        assert!(answer.contains("a=group:BUNDLE 0\r\n"));
    }
}
