//! What the gateway's two Secrets hold: certificates, and the installation's API key.
//!
//! Owns the watches on them, so that a rotation takes effect without a restart. Invariants: keys
//! are in memory only and never in a log line; a Secret that lost its content changes nothing, since
//! an old key works better than none.

use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use tokio::sync::watch;

/// Certificates and keys in PEM, as the controller issues them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// Towards workers.
    pub(crate) client_certificate: String,
    pub(crate) client_key: String,
    /// Signs workers' certificates.
    pub(crate) authority: String,
    /// Of the live API.
    pub(crate) live_certificate: String,
    pub(crate) live_key: String,
}

/// An API key with its secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ApiKey {
    pub(crate) key: String,
    pub(crate) secret: String,
}

/// Whom the live API believes what they say of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrontProxy {
    /// PEM of the authority that signs front proxies.
    pub(crate) authority: String,
    /// Common names of front proxies; empty = any.
    pub(crate) allowed_names: Vec<String>,
    pub(crate) user_headers: Vec<String>,
    pub(crate) uid_headers: Vec<String>,
    pub(crate) group_headers: Vec<String>,
    pub(crate) extra_prefixes: Vec<String>,
}

/// The newest value of something watched; `None` until it was seen.
pub(crate) type Watched<T> = watch::Receiver<Option<Arc<T>>>;

impl Certificates {
    pub(crate) fn read(secret: &Secret) -> Option<Certificates> {
        Some(Certificates {
            client_certificate: text(secret, "tls.crt")?,
            client_key: text(secret, "tls.key")?,
            authority: text(secret, "ca.crt")?,
            live_certificate: text(secret, "live-api.crt")?,
            live_key: text(secret, "live-api.key")?,
        })
    }
}

impl ApiKey {
    /// The keys `apiKey` and `apiSecret`; a secret too short to sign with is as good as none.
    pub(crate) fn read(secret: &Secret) -> Option<ApiKey> {
        let key = ApiKey {
            key: text(secret, "apiKey")?,
            secret: text(secret, "apiSecret")?,
        };
        let usable = !key.key.is_empty() && key.secret.len() >= plenum_token::MIN_SECRET_BYTES;
        usable.then_some(key)
    }
}

impl FrontProxy {
    pub(crate) fn read(map: &ConfigMap) -> Option<FrontProxy> {
        let data = map.data.as_ref()?;
        let list = |key: &str| -> Vec<String> {
            data.get(key)
                .and_then(|json| serde_json::from_str(json).ok())
                .unwrap_or_default()
        };
        Some(FrontProxy {
            authority: data
                .get("requestheader-client-ca-file")
                .filter(|pem| !pem.is_empty())?
                .clone(),
            allowed_names: list("requestheader-allowed-names"),
            user_headers: list("requestheader-username-headers"),
            uid_headers: list("requestheader-uid-headers"),
            group_headers: list("requestheader-group-headers"),
            extra_prefixes: list("requestheader-extra-headers-prefix"),
        })
    }
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    // Editors and `echo` leave a line break at the end of a key; PEM does not mind either way.
    let text = std::str::from_utf8(&bytes.0).ok()?.trim_end_matches(['\r', '\n']);
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// Watches one object and keeps what `read` makes of it. The task lives as long as the process.
pub(crate) fn watch_one<K, T>(api: Api<K>, name: String, read: fn(&K) -> Option<T>) -> Watched<T>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
    T: PartialEq + Send + Sync + 'static,
{
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let mut states = watch_object(api, &name).default_backoff().boxed();
        while let Some(state) = states.next().await {
            match state {
                Ok(Some(object)) => match read(&object) {
                    Some(value) => {
                        let value = Arc::new(value);
                        sender.send_if_modified(|current| {
                            let changed = current.as_ref() != Some(&value);
                            *current = Some(value);
                            changed
                        });
                    }
                    None => {
                        tracing::warn!(kind = %K::kind(&()), name, "object lacks what the gateway needs of it")
                    }
                },
                Ok(None) => tracing::info!(kind = %K::kind(&()), name, "object does not exist (yet)"),
                Err(error) => tracing::warn!(kind = %K::kind(&()), name, %error, "watch interrupted"),
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(entries: &[(&str, &str)]) -> Secret {
        let data = entries
            .iter()
            .map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())))
            .collect();
        Secret {
            data: Some(data),
            ..Secret::default()
        }
    }

    #[test]
    fn keys_are_trimmed_and_weak_ones_refused() {
        let strong = "x".repeat(32);
        let read = ApiKey::read(&secret(&[
            ("apiKey", "k\n"),
            ("apiSecret", &format!("{strong}\n")),
        ]))
        .unwrap();
        assert_eq!((read.key, read.secret), ("k".to_owned(), strong));
        assert!(ApiKey::read(&secret(&[("apiKey", "k"), ("apiSecret", "short")])).is_none());
        assert!(ApiKey::read(&secret(&[("apiKey", "k")])).is_none());
        assert!(Certificates::read(&secret(&[("tls.crt", "x")])).is_none());
    }

    #[test]
    fn the_front_proxy_is_read_as_the_api_server_writes_it() {
        let data = [
            ("requestheader-client-ca-file", "PEM"),
            ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ];
        let data = data.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let proxy = FrontProxy::read(&ConfigMap {
            data: Some(data),
            ..ConfigMap::default()
        })
        .unwrap();
        assert_eq!(proxy.allowed_names, ["front-proxy-client"]);
        assert_eq!(proxy.user_headers, ["X-Remote-User"]);
        assert!(FrontProxy::read(&ConfigMap::default()).is_none());
    }
}
