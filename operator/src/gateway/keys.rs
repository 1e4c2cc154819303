//! Which API key signs the tokens of which meeting.
//!
//! Owns the look-up: a Meeting's own key where `spec.keySecretRef` names one, else the
//! installation's. Invariants: a Meeting's key Secret is read by name from the Meeting's own
//! namespace and nowhere else; a key that signs for one meeting signs for no other; what cannot be
//! read is an unknown key, with the reason in the log and never in an answer to a client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use plenum_crds::Meeting;
use plenum_errors::{Code, PublicError};

use super::material::{ApiKey, Watched};

/// How long a Secret that was read is believed, and how long one that was not.
const BELIEVE: Duration = Duration::from_secs(30);
const BELIEVE_ABSENCE: Duration = Duration::from_secs(5);
/// Entries beyond this are dropped with the oldest first read again.
const CACHE_MAX: usize = 4096;

/// Namespace and name of a Secret.
type CacheKey = (String, String);
/// When it was read, and what was in it.
type Cached = (Instant, Option<Arc<ApiKey>>);

/// The keys that this gateway knows.
pub(crate) struct Keys {
    client: Client,
    default: Watched<ApiKey>,
    cache: Mutex<HashMap<CacheKey, Cached>>,
}

impl Keys {
    pub(crate) fn new(client: Client, default: Watched<ApiKey>) -> Keys {
        Keys {
            client,
            default,
            cache: Mutex::default(),
        }
    }

    /// Is the installation's own key there?
    pub(crate) fn is_ready(&self) -> bool {
        self.default.borrow().is_some()
    }

    /// The installation's own key.
    pub(crate) fn default_key(&self) -> Option<Arc<ApiKey>> {
        self.default.borrow().clone()
    }

    /// The key that signs tokens of `meeting`.
    pub(crate) async fn of_meeting(&self, meeting: &Meeting) -> Result<Arc<ApiKey>, PublicError> {
        let Some(reference) = &meeting.spec.key_secret_ref else {
            return self
                .default_key()
                .ok_or_else(|| PublicError::new(Code::SecretMissing, "the installation has no API key yet"));
        };
        let namespace = meeting.namespace().unwrap_or_default();
        self.secret(&namespace, &reference.name).await.ok_or_else(|| {
            PublicError::new(
                Code::SecretMissing,
                format!(
                    "Secret {} in namespace {namespace}, or the gateway may not read it",
                    reference.name
                ),
            )
        })
    }

    async fn secret(&self, namespace: &str, name: &str) -> Option<Arc<ApiKey>> {
        let cache_key = (namespace.to_owned(), name.to_owned());
        if let Some(known) = self.cached(&cache_key) {
            return known;
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let key = match api.get_opt(name).await {
            Ok(Some(secret)) => ApiKey::read(&secret).map(Arc::new),
            Ok(None) => None,
            Err(kube::Error::Api(status)) if status.code == 403 => None,
            Err(error) => {
                tracing::warn!(namespace, name, %error, "the key Secret of a Meeting cannot be read");
                // A key that was good a moment ago outlives an API server that is away.
                self.stale(&cache_key)
            }
        };
        if key.is_none() {
            tracing::warn!(
                namespace,
                name,
                "the key Secret of a Meeting is missing, not permitted, or lacks keys"
            );
        }
        if let Ok(mut cache) = self.cache.lock() {
            if cache.len() >= CACHE_MAX {
                cache.retain(|_, (at, _)| at.elapsed() < BELIEVE_ABSENCE);
            }
            cache.insert(cache_key, (Instant::now(), key.clone()));
        }
        key
    }

    fn cached(&self, key: &CacheKey) -> Option<Option<Arc<ApiKey>>> {
        let cache = self.cache.lock().ok()?;
        let (at, value) = cache.get(key)?;
        let believe = if value.is_some() { BELIEVE } else { BELIEVE_ABSENCE };
        (at.elapsed() < believe).then(|| value.clone())
    }

    fn stale(&self, key: &CacheKey) -> Option<Arc<ApiKey>> {
        self.cache.lock().ok()?.get(key)?.1.clone()
    }
}
