//! Which web pages may connect, and where a request came from.

use std::net::SocketAddr;

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

/// The client's address as this process saw it.
pub fn remote_address(headers: &HeaderMap, extensions: &Extensions, trust_forwarded: bool) -> String {
    if trust_forwarded {
        // The last entry is what the proxy next to us wrote; those before it are hearsay.
        let forwarded = headers
            .get_all("x-forwarded-for")
            .iter()
            .next_back()
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.rsplit(',').next())
            .and_then(|value| value.trim().parse::<std::net::IpAddr>().ok());
        if let Some(address) = forwarded {
            return address.to_string();
        }
    }
    extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip().to_string())
        .unwrap_or_default()
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
    fn forwarded_addresses_count_only_when_trusted() {
        let mut headers = headers(None);
        headers.insert("x-forwarded-for", "203.0.113.9, 198.51.100.7".parse().unwrap());
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo("192.0.2.1:5".parse::<SocketAddr>().unwrap()));
        assert_eq!(remote_address(&headers, &extensions, true), "198.51.100.7");
        assert_eq!(remote_address(&headers, &extensions, false), "192.0.2.1");
        headers.insert("x-forwarded-for", "<script>".parse().unwrap());
        assert_eq!(remote_address(&headers, &extensions, true), "192.0.2.1");
    }
}
