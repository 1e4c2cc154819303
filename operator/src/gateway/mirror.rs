//! A mirror of one kind of object in memory, kept by a watch.
//!
//! Owns the watch's loop: it relists after a fault, with a growing pause, for as long as the process
//! lives. Invariants: an object that cannot be read is absent, with a warning, and does not hide the
//! others; while the API server is away the mirror keeps what it knew; `changed` fires after every
//! change, so that a reader can wait instead of polling.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, RwLock};

use futures::StreamExt as _;
use kube::Resource;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Namespace and name.
pub(crate) type Key = (String, String);

/// The objects of one kind.
pub(crate) struct Mirror<K> {
    objects: RwLock<HashMap<Key, Arc<K>>>,
    version: watch::Sender<u64>,
    synced: watch::Sender<bool>,
}

impl<K> Mirror<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// An empty mirror: it is filled once [`Mirror::follow`] runs.
    pub(crate) fn new() -> Arc<Mirror<K>> {
        Arc::new(Mirror {
            objects: RwLock::default(),
            version: watch::channel(0).0,
            synced: watch::channel(false).0,
        })
    }

    /// The object of that name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let objects = self
            .objects
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Every object, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        let objects = self
            .objects
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        objects.values().cloned().collect()
    }

    /// Has it been filled once?
    pub(crate) fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Fires after every change.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Keeps the mirror. Never returns.
    pub(crate) async fn follow(
        self: Arc<Self>,
        apis: Vec<Api<DeserializeGuard<K>>>,
        config: watcher::Config,
    ) {
        let streams = apis.into_iter().enumerate().map(|(index, api)| {
            watcher::watcher(api, config.clone())
                .default_backoff()
                .map(move |event| (index, event))
                .boxed()
        });
        let mut initial: HashMap<usize, HashMap<Key, Arc<K>>> = HashMap::new();
        let mut owned: HashMap<usize, std::collections::HashSet<Key>> = HashMap::new();
        let mut filled = std::collections::HashSet::new();
        let mut faulty = std::collections::HashSet::new();
        let total = streams.len();
        let mut events = futures::stream::select_all(streams);
        while let Some((source, event)) = events.next().await {
            match event {
                Ok(Event::Init) => {
                    initial.insert(source, HashMap::new());
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    if let Some((key, object)) = readable(object) {
                        initial.entry(source).or_default().insert(key, object);
                    }
                    continue;
                }
                Ok(Event::InitDone) => {
                    let fresh = initial.remove(&source).unwrap_or_default();
                    let keys = fresh.keys().cloned().collect();
                    let before = owned.insert(source, keys).unwrap_or_default();
                    self.change(|objects| {
                        for key in before {
                            objects.remove(&key);
                        }
                        objects.extend(fresh);
                    });
                    filled.insert(source);
                    if filled.len() == total {
                        self.synced.send_replace(true);
                    }
                }
                Ok(Event::Apply(object)) => {
                    let key = key_of(&object);
                    match readable(object) {
                        Some((key, object)) => {
                            owned.entry(source).or_default().insert(key.clone());
                            self.change(|objects| drop(objects.insert(key, object)));
                        }
                        None => self.change(|objects| drop(objects.remove(&key))),
                    }
                }
                Ok(Event::Delete(object)) => {
                    let key = key_of(&object);
                    self.change(|objects| drop(objects.remove(&key)));
                }
                Err(error) => {
                    // The stream tries again for ever, with a pause: once in the log is enough.
                    if faulty.insert(source) {
                        tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; what was known is kept");
                    }
                    continue;
                }
            }
            if faulty.remove(&source) {
                tracing::info!(kind = %K::kind(&()), "watch goes on");
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<Key, Arc<K>>)) {
        let mut objects = self
            .objects
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut objects);
        drop(objects);
        self.version.send_modify(|version| *version += 1);
    }

    /// Puts an object in by hand.
    #[cfg(test)]
    pub(crate) fn put(&self, object: K) {
        use kube::ResourceExt as _;
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        self.change(|objects| drop(objects.insert(key, Arc::new(object))));
    }

    /// Takes an object out by hand.
    #[cfg(test)]
    pub(crate) fn remove(&self, namespace: &str, name: &str) {
        self.change(|objects| drop(objects.remove(&(namespace.to_owned(), name.to_owned()))));
    }
}

fn key_of<K: Resource<DynamicType = ()>>(object: &DeserializeGuard<K>) -> Key {
    let meta = match &object.0 {
        Ok(object) => object.meta(),
        Err(invalid) => &invalid.metadata,
    };
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn readable<K: Resource<DynamicType = ()>>(object: DeserializeGuard<K>) -> Option<(Key, Arc<K>)> {
    let key = key_of(&object);
    match object.0 {
        Ok(object) => Some((key, Arc::new(object))),
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), namespace = key.0, name = key.1, %error, "object cannot be read");
            None
        }
    }
}
