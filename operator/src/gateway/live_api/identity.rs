//! Who asks: the word of an authenticated front proxy.
//!
//! Owns the rule by which `X-Remote-*` headers are believed: only from a peer whose TLS client
//! certificate was verified against the cluster's request-header authority and whose common name is
//! on the cluster's list. The certificate's chain is checked during the TLS handshake
//! ([`super::serve`]); the name is checked here.

use std::collections::BTreeMap;

use axum::http::HeaderMap;

use super::super::material::FrontProxy;
use super::status::Refusal;

/// The certificate that a peer proved to hold: its common name. `None`: the peer showed none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    pub(crate) common_name: Option<String>,
}

/// The user on whose behalf a request was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: Option<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

/// The user that the front proxy vouches for.
pub(crate) fn authenticate(peer: &Peer, headers: &HeaderMap, proxy: &FrontProxy) -> Result<User, Refusal> {
    let unauthorized = |why: &str| Refusal::new(401, "Unauthorized", why);
    let Some(common_name) = &peer.common_name else {
        return Err(unauthorized(
            "ask the Kubernetes API server; the live API answers it alone",
        ));
    };
    if !proxy.allowed_names.is_empty() && !proxy.allowed_names.contains(common_name) {
        return Err(unauthorized(
            "the client certificate is not that of the API server",
        ));
    }
    let first = |names: &[String]| {
        names
            .iter()
            .filter_map(|name| headers.get(name.as_str())?.to_str().ok())
            .find(|value| !value.is_empty())
            .map(str::to_owned)
    };
    let name = first(&proxy.user_headers)
        .ok_or_else(|| unauthorized("the API server did not say on whose behalf it asks"))?;
    let groups = proxy
        .group_headers
        .iter()
        .flat_map(|header| headers.get_all(header.as_str()))
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        let key = proxy
            .extra_prefixes
            .iter()
            .find_map(|prefix| header.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()));
        if let (Some(key), Ok(value)) = (key, value.to_str()) {
            extra
                .entry(percent_decode(key))
                .or_default()
                .push(value.to_owned());
        }
    }
    Ok(User {
        name,
        uid: first(&proxy.uid_headers),
        groups,
        extra,
    })
}

/// Extra keys with characters that a header cannot carry arrive percent-encoded.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> FrontProxy {
        FrontProxy {
            authority: String::new(),
            allowed_names: vec!["front-proxy-client".into()],
            user_headers: vec!["X-Remote-User".into()],
            uid_headers: vec![],
            group_headers: vec!["X-Remote-Group".into()],
            extra_prefixes: vec!["X-Remote-Extra-".into()],
        }
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", "jane".parse().unwrap());
        headers.append("x-remote-group", "devs".parse().unwrap());
        headers.append("x-remote-group", "system:authenticated".parse().unwrap());
        headers.insert("x-remote-extra-example.org%2fscopes", "read".parse().unwrap());
        headers
    }

    #[test]
    fn only_a_named_front_proxy_is_believed() {
        let peer = |name: Option<&str>| Peer {
            common_name: name.map(str::to_owned),
        };
        let user = authenticate(&peer(Some("front-proxy-client")), &headers(), &proxy()).unwrap();
        assert_eq!((user.name.as_str(), user.groups.len()), ("jane", 2));
        assert_eq!(user.extra["example.org/scopes"], ["read"]);
        for stranger in [None, Some("someone-else"), Some("")] {
            assert_eq!(
                authenticate(&peer(stranger), &headers(), &proxy())
                    .unwrap_err()
                    .code,
                401
            );
        }
        let silent = authenticate(&peer(Some("front-proxy-client")), &HeaderMap::new(), &proxy());
        assert_eq!(silent.unwrap_err().code, 401);
    }
}
