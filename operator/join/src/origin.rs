//! Which web pages may connect, and where a request came from.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, header};

/// Is the page that sent this request allowed to? Requests without an Origin come from native
/// clients; the Origin header is a browser's promise, nobody else's.
pub(crate) fn allowed(headers: &HeaderMap, allowed_origins: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    if allowed_origins.iter().any(|allowed| allowed == "*") {
        return true;
    }
    let Ok(origin) = origin.to_str() else { return false };
    if allowed_origins
        .iter()
        .any(|allowed| allowed.trim_end_matches('/').eq_ignore_ascii_case(origin))
    {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let page_host = origin.split_once("://").map(|(_, host)| host);
    matches!((page_host, host), (Some(page), Some(host)) if page.eq_ignore_ascii_case(host))
}

/// A network: an address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Neither an address nor ADDRESS/BITS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an address and not a network in the form ADDRESS/BITS")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| NotANetwork)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            Err(NotANetwork)
        } else {
            Ok(Network { address, bits })
        }
    }
}

impl Network {
    /// Is `address` in it?
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.bits);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.bits);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// The client's address as this process saw it, or as proxies that are trusted saw it: read from
/// the right, X-Forwarded-For is believed as long as the one who wrote it is trusted.
pub fn remote_address(headers: &HeaderMap, extensions: &Extensions, trusted: &[Network]) -> String {
    let Some(peer) = extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip().to_canonical())
    else {
        return String::new();
    };
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut address = peer;
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    for entry in forwarded.into_iter().rev() {
        if !is_trusted(address) {
            break;
        }
        match entry.trim().parse::<IpAddr>() {
            Ok(said) => address = said.to_canonical(),
            Err(_) => break,
        }
    }
    address.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "meet.example.com:7880".parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn foreign_pages_are_refused_where_a_list_is_given() {
        let list = ["https://app.example.com/".to_owned()];
        for (origin, ok) in [
            (None, true),
            (Some("https://app.example.com"), true),
            (Some("https://APP.example.com"), true),
            (Some("http://meet.example.com:7880"), true),
            (Some("http://app.example.com"), false),
            (Some("https://app.example.com.evil.test"), false),
            (Some("https://evil.test"), false),
            (Some("null"), false),
        ] {
            assert_eq!(allowed(&headers(origin), &list), ok, "{origin:?}");
            assert!(allowed(&headers(origin), &["*".to_owned()]));
        }
        assert!(!allowed(&headers(Some("https://evil.test")), &[]));
        assert!(allowed(&headers(Some("http://meet.example.com:7880")), &[]));
    }

    #[test]
    fn forwarded_addresses_count_as_far_as_proxies_are_trusted() {
        let mut headers = headers(None);
        headers.append("x-forwarded-for", "203.0.113.9, 198.51.100.7".parse().unwrap());
        headers.append("x-forwarded-for", "10.0.0.2".parse().unwrap());
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo("[::ffff:10.0.0.1]:5".parse::<SocketAddr>().unwrap()));
        for (trusted, address) in [
            (&[][..], "10.0.0.1"),
            (&["10.0.0.1"], "10.0.0.2"),
            (&["10.0.0.0/8"], "198.51.100.7"),
            (&["10.0.0.0/8", "198.51.100.0/24"], "203.0.113.9"),
            (&["0.0.0.0/0"], "203.0.113.9"),
            (&["192.0.2.0/24", "::/0"], "10.0.0.1"),
        ] {
            let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
            assert_eq!(
                remote_address(&headers, &extensions, &trusted),
                address,
                "{trusted:?}"
            );
        }
        headers.append("x-forwarded-for", "<script>".parse().unwrap());
        let all = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(remote_address(&headers, &extensions, &all), "10.0.0.1");
        assert_eq!(remote_address(&headers, &Extensions::new(), &all), "");
        for text in ["", "10.0.0.0/33", "10.0.0.0/x", "host", "::/129"] {
            assert_eq!(text.parse::<Network>(), Err(NotANetwork), "{text}");
        }
    }
}
