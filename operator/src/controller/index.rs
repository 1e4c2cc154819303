//! The controller's cache of the cluster, and who must look again when something in it changes.
//!
//! Owns the watches. Invariants: one bad object is kept as its error and never stops a watch
//! ([`DeserializeGuard`]); a store is filled before a reconciler that reads it runs; Pods and
//! Services are watched in the worker namespaces only, Secrets nowhere.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::core::{DeserializeGuard, NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use plenum_crds::{
    Assignment, BreakoutRoom, ConditionType, MediaWorkerPool, Meeting, POOL_LABEL, SessionDecisions,
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::status::reason_of;
use super::workers::Notice;

/// An object, or what is wrong with it.
pub(crate) type Guard<K> = DeserializeGuard<K>;

/// Asks reconcilers to look at objects again.
#[derive(Clone)]
pub(crate) struct Triggers {
    pub(crate) meetings: mpsc::UnboundedSender<ObjectRef<Guard<Meeting>>>,
    pub(crate) rooms: mpsc::UnboundedSender<ObjectRef<Guard<BreakoutRoom>>>,
    pub(crate) pools: mpsc::UnboundedSender<ObjectRef<Guard<MediaWorkerPool>>>,
}

/// Everything the reconcilers read.
#[derive(Clone)]
pub(crate) struct Index {
    pub(crate) meetings: Store<Guard<Meeting>>,
    pub(crate) rooms: Store<Guard<BreakoutRoom>>,
    pub(crate) pools: Store<Guard<MediaWorkerPool>>,
    pods: BTreeMap<String, Store<Pod>>,
    services: BTreeMap<String, Store<Service>>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
}

/// What changed.
enum Change {
    Meeting(String, String),
    Room(Box<BreakoutRoom>),
    BadRoom(String, String),
    Pool(String, String),
    Pod(Box<Pod>),
    Service(Option<(String, String)>),
    Namespace,
}

impl Index {
    /// The watches, to be run by the caller for as long as it leads.
    pub(crate) fn start(
        client: &Client,
        only: Option<&str>,
        worker_namespaces: &[String],
        triggers: Triggers,
    ) -> (Self, Vec<Watch>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let mut watches = Vec::new();
        let meetings = follow(
            &mut watches,
            watcher(scoped(client, only), watcher::Config::default()),
            changes.clone(),
            |meeting: &Guard<Meeting>| Change::Meeting(namespace(meeting), meeting.name_any()),
        );
        let rooms = follow(
            &mut watches,
            watcher(scoped(client, only), watcher::Config::default()),
            changes.clone(),
            |room: &Guard<BreakoutRoom>| match &room.0 {
                Ok(room) => Change::Room(Box::new(room.clone())),
                Err(_) => Change::BadRoom(namespace(room), room.name_any()),
            },
        );
        let pools = follow(
            &mut watches,
            watcher(scoped(client, only), watcher::Config::default()),
            changes.clone(),
            |pool: &Guard<MediaWorkerPool>| Change::Pool(namespace(pool), pool.name_any()),
        );
        let namespaces = follow(
            &mut watches,
            watcher(
                Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
                watcher::Config::default(),
            ),
            changes.clone(),
            |_| Change::Namespace,
        );
        let labelled = || watcher::Config::default().labels(POOL_LABEL);
        let mut pods = BTreeMap::new();
        let mut services = BTreeMap::new();
        for name in worker_namespaces {
            let api = Api::namespaced(client.clone(), name);
            let store = follow(
                &mut watches,
                watcher(api, labelled()),
                changes.clone(),
                |pod: &Pod| Change::Pod(Box::new(pod.clone())),
            );
            pods.insert(name.clone(), store);
            let api = Api::namespaced(client.clone(), name);
            let store = follow(
                &mut watches,
                watcher(api, labelled()),
                changes.clone(),
                |service: &Service| Change::Service(pool_of(service)),
            );
            services.insert(name.clone(), store);
        }
        let index = Self {
            meetings,
            rooms,
            pools,
            pods,
            services,
            namespaces,
        };
        watches.push(Box::pin(dispatch(index.clone(), receiver, triggers)));
        (index, watches)
    }

    /// Returns when every store is filled.
    pub(crate) async fn ready(&self) {
        // An error means that the writer is gone, which ends the process anyway.
        let _ = self.meetings.wait_until_ready().await;
        let _ = self.rooms.wait_until_ready().await;
        let _ = self.pools.wait_until_ready().await;
        let _ = self.namespaces.wait_until_ready().await;
        for store in self.pods.values() {
            let _ = store.wait_until_ready().await;
        }
        for store in self.services.values() {
            let _ = store.wait_until_ready().await;
        }
    }

    /// The Meeting of that name.
    pub(crate) fn meeting(&self, namespace: &str, name: &str) -> Option<Arc<Guard<Meeting>>> {
        self.meetings.get(&ObjectRef::new(name).within(namespace))
    }

    /// The pool of that name.
    pub(crate) fn pool(&self, namespace: &str, name: &str) -> Option<Arc<Guard<MediaWorkerPool>>> {
        self.pools.get(&ObjectRef::new(name).within(namespace))
    }

    /// Pods of a pool, by name.
    pub(crate) fn pods_of(&self, namespace: &str, pool: &str) -> Vec<Arc<Pod>> {
        let Some(store) = self.pods.get(namespace) else {
            return Vec::new();
        };
        let mut pods =
            store.state_filter(|pod| pod.labels().get(POOL_LABEL).is_some_and(|label| label == pool));
        pods.sort_by_key(|pod| pod.name_any());
        pods
    }

    /// Every worker pod.
    pub(crate) fn pods(&self) -> impl Iterator<Item = Arc<Pod>> + '_ {
        self.pods.values().flat_map(Store::state)
    }

    /// The Pod that an assignment names, if it is still the same one.
    pub(crate) fn worker(&self, assignment: &Assignment) -> Option<Arc<Pod>> {
        let store = self.pods.get(&assignment.worker_namespace)?;
        let pod = store.get(&ObjectRef::new(&assignment.worker).within(&assignment.worker_namespace))?;
        (pod.uid().as_deref() == Some(&assignment.worker_uid)).then_some(pod)
    }

    /// The Service of that name.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services
            .get(namespace)?
            .get(&ObjectRef::new(name).within(namespace))
    }

    /// Services of a pool.
    pub(crate) fn services_of(&self, namespace: &str, pool: &str) -> Vec<Arc<Service>> {
        let Some(store) = self.services.get(namespace) else {
            return Vec::new();
        };
        store.state_filter(|service| {
            service
                .labels()
                .get(POOL_LABEL)
                .is_some_and(|label| label == pool)
        })
    }

    /// Labels of a namespace.
    pub(crate) fn namespace_labels(&self, name: &str) -> BTreeMap<String, String> {
        self.namespaces
            .get(&ObjectRef::new(name))
            .map(|namespace| namespace.labels().clone())
            .unwrap_or_default()
    }

    /// Breakout rooms of a meeting.
    pub(crate) fn rooms_of(&self, namespace: &str, meeting: &str) -> Vec<Arc<Guard<BreakoutRoom>>> {
        self.rooms.state_filter(|room| match &room.0 {
            Ok(room) => {
                room.spec.meeting_ref.name == meeting && room.metadata.namespace.as_deref() == Some(namespace)
            }
            Err(_) => false,
        })
    }

    /// Who holds what: worker UID and room name of every assignment in the cluster.
    pub(crate) fn assignments(&self) -> HashMap<String, String> {
        let mut all = HashMap::new();
        for meeting in self.meetings.state() {
            if let Ok(meeting) = &meeting.0
                && let Some(assignment) = meeting
                    .status
                    .as_ref()
                    .and_then(|status| status.assignment.as_ref())
            {
                all.insert(main_room(meeting), assignment.worker_uid.clone());
            }
        }
        for room in self.rooms.state() {
            if let Ok(room) = &room.0
                && let Some(assignment) = room.status.as_ref().and_then(|status| status.assignment.as_ref())
            {
                all.insert(breakout_room(room), assignment.worker_uid.clone());
            }
        }
        all
    }
}

/// Name of a Meeting's main room on the workers.
pub(crate) fn main_room(meeting: &Meeting) -> String {
    format!("{}/{}", namespace(meeting), meeting.name_any())
}

/// Name of a BreakoutRoom's room on the workers.
pub(crate) fn breakout_room(room: &BreakoutRoom) -> String {
    format!(
        "{}/{}/{}",
        namespace(room),
        room.spec.meeting_ref.name,
        room.name_any()
    )
}

/// Namespace of an object; all here have one.
pub(crate) fn namespace(object: &impl Resource) -> String {
    object.meta().namespace.clone().unwrap_or_default()
}

fn pool_of(object: &impl Resource) -> Option<(String, String)> {
    let pool = object.meta().labels.as_ref()?.get(POOL_LABEL)?.clone();
    Some((namespace(object), pool))
}

/// Objects of one namespace, or of all.
fn scoped<K>(client: &Client, only: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match only {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// A watch that runs until it is dropped.
pub(crate) type Watch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One watch, into a store and into the channel of changes.
fn follow<K>(
    watches: &mut Vec<Watch>,
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    changes: mpsc::UnboundedSender<Change>,
    change: impl Fn(&K) -> Change + Send + 'static,
) -> Store<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Default + Debug + Unpin + Send + Sync,
{
    let (store, writer) = reflector::store();
    let stream = reflector::reflector(writer, events.default_backoff());
    watches.push(Box::pin(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => {
                    let _ = changes.send(change(&object));
                }
                Ok(watcher::Event::InitApply(object)) => {
                    let _ = changes.send(change(&object));
                }
                Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&K::DynamicType::default()), %error, "watch interrupted")
                }
            }
        }
    }));
    store
}

/// What the breakout rooms of a meeting depend on. People who come and go are not in it: a meeting
/// may have two hundred rooms.
#[derive(PartialEq)]
struct Shared {
    generation: Option<i64>,
    deleting: bool,
    assignment: Option<Assignment>,
    ready: Option<String>,
    session: Option<SessionDecisions>,
}

impl Shared {
    fn of(meeting: &Meeting) -> Self {
        let status = meeting.status.as_ref();
        let assignment = status.and_then(|status| status.assignment.clone());
        // Whether it rests, which matters where it holds no worker.
        let ready = status
            .filter(|_| assignment.is_none())
            .and_then(|status| reason_of(&status.conditions, ConditionType::Ready));
        Self {
            generation: meeting.metadata.generation,
            deleting: meeting.metadata.deletion_timestamp.is_some(),
            ready: ready.map(str::to_owned),
            session: status.and_then(|status| status.session.clone()),
            assignment,
        }
    }
}

/// Turns changes into triggers.
async fn dispatch(index: Index, mut changes: mpsc::UnboundedReceiver<Change>, triggers: Triggers) {
    let mut shared: HashMap<(String, String), Shared> = HashMap::new();
    while let Some(change) = changes.recv().await {
        match change {
            Change::Meeting(namespace, name) => {
                triggers.meeting(&namespace, &name);
                let meeting = index.meeting(&namespace, &name);
                let now = meeting
                    .as_deref()
                    .and_then(|meeting| meeting.0.as_ref().ok())
                    .map(Shared::of);
                let key = (namespace.clone(), name.clone());
                if now.is_none() || shared.get(&key) != now.as_ref() {
                    match now {
                        Some(now) => shared.insert(key, now),
                        None => shared.remove(&key),
                    };
                    for room in index.rooms_of(&namespace, &name) {
                        triggers.room(&namespace, &room.name_any());
                    }
                }
                triggers.all_pools(&index);
            }
            Change::Room(room) => {
                let namespace = namespace(&*room);
                triggers.room(&namespace, &room.name_any());
                triggers.meeting(&namespace, &room.spec.meeting_ref.name);
                triggers.all_pools(&index);
            }
            Change::BadRoom(namespace, name) => triggers.room(&namespace, &name),
            Change::Pool(namespace, name) => {
                triggers.pool(&namespace, &name);
                triggers.unsettled(&index);
            }
            Change::Pod(pod) => {
                if let Some((namespace, pool)) = pool_of(&*pod) {
                    triggers.pool(&namespace, &pool);
                }
                triggers.held_by(&index, &pod.uid().unwrap_or_default());
                triggers.unsettled(&index);
            }
            Change::Service(Some((namespace, pool))) => triggers.pool(&namespace, &pool),
            Change::Service(None) => {}
            Change::Namespace => triggers.unsettled(&index),
        }
    }
}

/// Turns what workers report into triggers.
pub(crate) async fn dispatch_notices(
    index: Index,
    mut notices: mpsc::UnboundedReceiver<Notice>,
    triggers: Triggers,
) {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Worker(uid) => {
                if let Some(pod) = index.pods().find(|pod| pod.uid().as_deref() == Some(&uid))
                    && let Some((namespace, pool)) = pool_of(&*pod)
                {
                    triggers.pool(&namespace, &pool);
                }
                triggers.held_by(&index, &uid);
                triggers.unsettled(&index);
            }
            Notice::Room(room) => {
                let mut parts = room.splitn(3, '/');
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(namespace), Some(meeting), None) => triggers.meeting(namespace, meeting),
                    (Some(namespace), Some(_), Some(room)) => triggers.room(namespace, room),
                    _ => {}
                }
            }
        }
    }
}

impl Triggers {
    // A closed channel means that the process ends: nobody is left to look.
    fn meeting(&self, namespace: &str, name: &str) {
        let _ = self.meetings.send(ObjectRef::new(name).within(namespace));
    }

    fn room(&self, namespace: &str, name: &str) {
        let _ = self.rooms.send(ObjectRef::new(name).within(namespace));
    }

    fn pool(&self, namespace: &str, name: &str) {
        let _ = self.pools.send(ObjectRef::new(name).within(namespace));
    }

    fn all_pools(&self, index: &Index) {
        for pool in index.pools.state() {
            self.pool(&namespace(&*pool), &pool.name_any());
        }
    }

    /// Everything that a worker holds.
    fn held_by(&self, index: &Index, uid: &str) {
        let holds = |assignment: Option<&Assignment>| assignment.is_some_and(|a| a.worker_uid == uid);
        for meeting in index.meetings.state() {
            if let Ok(inner) = &meeting.0
                && holds(
                    inner
                        .status
                        .as_ref()
                        .and_then(|status| status.assignment.as_ref()),
                )
            {
                self.meeting(&namespace(inner), &inner.name_any());
            }
        }
        for room in index.rooms.state() {
            if let Ok(inner) = &room.0
                && holds(
                    inner
                        .status
                        .as_ref()
                        .and_then(|status| status.assignment.as_ref()),
                )
            {
                self.room(&namespace(inner), &inner.name_any());
            }
        }
    }

    /// Everything that waits for a worker.
    fn unsettled(&self, index: &Index) {
        for meeting in index.meetings.state() {
            if let Ok(inner) = &meeting.0
                && inner
                    .status
                    .as_ref()
                    .is_none_or(|status| status.assignment.is_none())
            {
                self.meeting(&namespace(inner), &inner.name_any());
            }
        }
        for room in index.rooms.state() {
            if let Ok(inner) = &room.0
                && inner
                    .status
                    .as_ref()
                    .is_none_or(|status| status.assignment.is_none())
            {
                self.room(&namespace(inner), &inner.name_any());
            }
        }
    }
}
