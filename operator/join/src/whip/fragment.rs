//! Fragments of descriptions, `application/trickle-ice-sdpfrag` (RFC 8840 section 9).
//!
//! Owns the reading of what a client trickles and the writing of the server's side after an ICE restart.
//! Candidates are not kept: a worker is ICE-lite and learns addresses from the checks that come from them.

use plenum_errors::{Code, PublicError};

/// The largest fragment.
pub(crate) const MAX_FRAGMENT_BYTES: usize = 32 * 1024;

/// What a client says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Its ICE user name and password.
    pub(crate) credentials: Option<(String, String)>,
}

fn invalid(detail: &str) -> PublicError {
    PublicError::new(Code::SdpInvalid, detail)
}

impl Fragment {
    /// Reads the body of a PATCH.
    pub(crate) fn read(text: &str) -> Result<Fragment, PublicError> {
        let lines = || text.lines().map(str::trim_end);
        if lines().any(|line| !line.is_empty() && !matches!(line.split_once('='), Some(("a" | "m" | "c", _))))
        {
            return Err(invalid("not a fragment of a description"));
        }
        let value = |name: &str| lines().find_map(|line| line.strip_prefix(name));
        let credentials = match (value("a=ice-ufrag:"), value("a=ice-pwd:")) {
            (Some(ufrag), Some(pwd)) if is_ice(ufrag, 4) && is_ice(pwd, 22) => {
                Some((ufrag.to_owned(), pwd.to_owned()))
            }
            (None, None) => None,
            _ => {
                return Err(invalid(
                    "ice-ufrag and ice-pwd belong together, in the form of RFC 8839",
                ));
            }
        };
        let says = lines().any(|line| line.starts_with("a=candidate:") || line == "a=end-of-candidates");
        if credentials.is_none() && !says {
            return Err(invalid("neither candidates nor credentials"));
        }
        Ok(Fragment { credentials })
    }
}

/// RFC 8839 section 5.4.
fn is_ice(text: &str, least: usize) -> bool {
    (least..=256).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// The ICE user name of a description of ours, which names the ICE session.
pub(crate) fn ufrag(description: &str) -> Option<&str> {
    description
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"))
        .map(str::trim_end)
}

/// What a client needs of an answer after an ICE restart (RFC 9725 section 4.3.3).
pub(crate) fn of_answer(answer: &str) -> String {
    let mut out = String::new();
    let mut keep = |line: &str| {
        out.push_str(line);
        out.push_str("\r\n");
    };
    let mut sections = 0;
    for line in answer.lines().map(str::trim_end) {
        let rejected = line
            .strip_prefix("m=")
            .is_some_and(|m| m.split(' ').nth(1) == Some("0"));
        if line.starts_with("m=") && !rejected {
            sections += 1;
        }
        let transport = [
            "a=mid:",
            "a=ice-ufrag:",
            "a=ice-pwd:",
            "a=candidate:",
            "a=end-of-candidates",
            "m=",
        ];
        let wanted = match sections {
            0 => line == "a=ice-lite" || line.starts_with("a=group:BUNDLE"),
            // Everything is bundled on the first.
            1 => transport.iter().any(|start| line.starts_with(start)),
            _ => break,
        };
        if wanted && !rejected {
            keep(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_and_credentials_are_read() {
        let pwd = "x".repeat(24);
        let both = format!(
            "a=ice-ufrag:abcd\r\na=ice-pwd:{pwd}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"
        );
        assert_eq!(
            Fragment::read(&both).unwrap().credentials,
            Some(("abcd".into(), pwd.clone()))
        );
        let trickle = "m=audio 9 RTP/AVP 0\na=mid:0\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\n";
        assert_eq!(Fragment::read(trickle).unwrap().credentials, None);
        assert!(Fragment::read("a=end-of-candidates").is_ok());
        for wrong in [
            "",
            "hello",
            "v=0\r\n",
            "a=mid:0\r\n",
            "a=ice-ufrag:abcd\r\n",
            &format!("a=ice-pwd:{pwd}"),
            &format!("a=ice-ufrag:abc\r\na=ice-pwd:{pwd}\r\n"),
            "a=ice-ufrag:abcd\r\na=ice-pwd:short\r\n",
            &format!("a=ice-ufrag:ab cd\r\na=ice-pwd:{pwd}\r\n"),
        ] {
            assert_eq!(
                Fragment::read(wrong).unwrap_err().code,
                Code::SdpInvalid,
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn an_answer_is_cut_to_its_transport() {
        let answer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\na=group:BUNDLE 1 2\r\na=ice-lite\r\n\
            m=audio 0 X 0\r\na=mid:0\r\na=inactive\r\n\
            m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=fingerprint:sha-256 AA\r\n\
            a=candidate:1 1 udp 1 192.0.2.1 7 typ host\r\na=end-of-candidates\r\na=rtpmap:96 VP8/90000\r\n\
            m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:2\r\na=ice-ufrag:u\r\n";
        assert_eq!(ufrag(answer), Some("u"));
        assert_eq!(
            of_answer(answer),
            "a=group:BUNDLE 1 2\r\na=ice-lite\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=ice-ufrag:u\r\n\
             a=ice-pwd:p\r\na=candidate:1 1 udp 1 192.0.2.1 7 typ host\r\na=end-of-candidates\r\n"
        );
        assert_eq!(of_answer("nonsense"), "");
    }
}
