//! The meetings that have clients at this gateway, as one thing each.
//!
//! Owns what the clients of one meeting share: the view of its objects ([`plans`]), the link to its
//! hub ([`hub_link`]) with the journal's tail ([`journal`]), who of its people is connected here, the
//! overview for hosts ([`overview`]), people without a place ([`automatic`]), decisions that were overtaken
//! ([`tidy`]) and what hosts ask for ([`desk`], [`objects`]). Invariants: a meeting costs what it costs once, not once per client; it
//! is forgotten soon after its last client; nothing here is kept that another gateway would need.

pub(crate) mod automatic;
pub(crate) mod desk;
pub(crate) mod events;
pub(crate) mod hub_link;
pub(crate) mod journal;
pub(crate) mod objects;
pub(crate) mod overview;
pub(crate) mod people;
pub(crate) mod plans;
#[cfg(test)]
mod tests;
pub(crate) mod tidy;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plenum_errors::{Code, PublicError};
use plenum_protocol::{Audience, Overview, Signal};
use plenum_token::Role;
use plenum_worker_api::v1::Post;
use tokio::sync::{Notify, watch};

use super::Links;
use super::keys::Keys;
use super::metrics::Metrics;
use super::mint::random_suffix;
use super::route::Routes;
use super::workers::Workers;
use events::Events;
use journal::Journal;
use plans::View;

/// Posts that the hub has not numbered yet, and how long they are worth being sent again.
const MAX_POSTS: usize = 4_096;
const POST_LIFE: Duration = Duration::from_secs(60);
/// Rooms that were there, of which so many names are remembered.
const MAX_GONE: usize = 1_024;
/// How long a meeting is remembered after its last client: who reconnects comes back to it.
const LINGER: Duration = Duration::from_secs(30);

/// What a gateway reaches the rest of the installation with.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) routes: Arc<Routes>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) metrics: Arc<Metrics>,
    /// To the API server.
    pub(crate) client: kube::Client,
    pub(crate) events: Events,
    pub(crate) links: Links,
}

/// Namespace and name.
type Key = (String, String);

/// Every meeting with clients here.
pub(crate) struct Meetings {
    pub(crate) reach: Reach,
    live: Mutex<HashMap<Key, Weak<LiveMeeting>>>,
}

impl Meetings {
    /// None yet. The views are kept by a task of their own.
    pub(crate) fn new(reach: Reach) -> Arc<Meetings> {
        let meetings = Arc::new(Meetings {
            reach,
            live: Mutex::default(),
        });
        tokio::spawn(plans::keep(meetings.clone()));
        meetings
    }

    /// The meeting of that name; `None` where there is no such object.
    pub(crate) fn live(&self, namespace: &str, name: &str) -> Option<Arc<LiveMeeting>> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut live = lock(&self.live);
        if let Some(known) = live.get(&key).and_then(Weak::upgrade) {
            return Some(known);
        }
        let view = View::read(&self.reach.routes, namespace, name)?;
        let (alive, ends) = watch::channel(());
        let shared = Arc::new(Shared::new(key.clone(), view));
        tokio::spawn(hub_link::run(shared.clone(), self.reach.clone(), ends.clone()));
        tokio::spawn(overview::run(shared.clone(), self.reach.clone(), ends.clone()));
        tokio::spawn(automatic::run(shared.clone(), self.reach.clone(), ends.clone()));
        tokio::spawn(tidy::run(shared.clone(), self.reach.clone(), ends));
        let meeting = Arc::new(LiveMeeting {
            shared,
            _alive: alive,
        });
        live.retain(|_, meeting| meeting.strong_count() > 0);
        live.insert(key, Arc::downgrade(&meeting));
        Some(meeting)
    }

    /// All of them.
    fn all(&self) -> Vec<Arc<LiveMeeting>> {
        lock(&self.live).values().filter_map(Weak::upgrade).collect()
    }
}

/// A meeting with clients here. Its tasks end when the last of these is dropped.
pub(crate) struct LiveMeeting {
    shared: Arc<Shared>,
    _alive: watch::Sender<()>,
}

impl Deref for LiveMeeting {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// A client of the meeting that is connected here.
#[derive(Debug, Clone)]
pub(crate) struct Connected {
    pub(crate) identity: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    /// `None` = the main room.
    pub(crate) room: Option<String>,
    /// Takes part: the meeting's directory knows it, and wishes and modes are about it.
    pub(crate) takes_part: bool,
    /// Gets the overview.
    pub(crate) watches: bool,
    /// Fires when a newer connection of the same identity is in another room.
    superseded: Arc<Notify>,
}

/// A post that has not come back as an entry.
struct Posted {
    post: Post,
    since: Instant,
    /// To the hub that the link leads to.
    sent: bool,
}

/// What the clients of a meeting and its tasks share.
pub(crate) struct Shared {
    pub(crate) namespace: String,
    pub(crate) name: String,
    view: watch::Sender<Arc<View>>,
    clients: Mutex<HashMap<String, Connected>>,
    /// Fires when `clients` changed.
    clients_changed: watch::Sender<u64>,
    journal: Mutex<Journal>,
    /// Fires when `journal` changed.
    news: watch::Sender<u64>,
    posts: Mutex<VecDeque<Posted>>,
    posted: Notify,
    /// The hub is attached and has told what it remembers.
    caught_up: watch::Sender<bool>,
    overview: watch::Sender<Option<Arc<Overview>>>,
    /// Names of rooms that were there.
    gone: Mutex<HashSet<String>>,
}

impl Shared {
    fn new((namespace, name): Key, view: View) -> Shared {
        Shared {
            namespace,
            name,
            view: watch::channel(Arc::new(view)).0,
            clients: Mutex::default(),
            clients_changed: watch::channel(0).0,
            journal: Mutex::default(),
            news: watch::channel(0).0,
            posts: Mutex::default(),
            posted: Notify::new(),
            caught_up: watch::channel(false).0,
            overview: watch::channel(None).0,
            gone: Mutex::default(),
        }
    }

    /// Was there a room of that name, while the meeting had clients here?
    pub(crate) fn knew(&self, breakout: &str) -> bool {
        lock(&self.gone).contains(breakout)
    }

    /// The name of a room of this meeting, as workers and tokens know it.
    pub(crate) fn room(&self, breakout: Option<&str>) -> String {
        match breakout {
            Some(breakout) => format!("{}/{}/{breakout}", self.namespace, self.name),
            None => format!("{}/{}", self.namespace, self.name),
        }
    }

    /// The objects as they are now.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Fires after every change of the objects.
    pub(crate) fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    fn set_view(&self, view: View) {
        let before = self.view.send_replace(Arc::new(view));
        let now = self.view();
        let mut gone = lock(&self.gone);
        let missing = before
            .plan
            .rooms
            .iter()
            .filter(|room| now.plan.room(&room.id).is_none());
        gone.extend(missing.map(|room| room.id.clone()));
        if gone.len() > MAX_GONE {
            gone.clear();
        }
    }

    /// What the meeting was told lately.
    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    /// Fires when the journal has changed.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Becomes true when the hub has told all that it remembers.
    pub(crate) fn caught_up(&self) -> watch::Receiver<bool> {
        self.caught_up.subscribe()
    }

    /// What hosts who watch are shown.
    pub(crate) fn overview(&self) -> watch::Receiver<Option<Arc<Overview>>> {
        self.overview.subscribe()
    }

    /// Clients here, by the names of their connections.
    fn connected(&self) -> HashMap<String, Connected> {
        lock(&self.clients).clone()
    }

    /// How many clients are here.
    pub(crate) fn size(&self) -> usize {
        lock(&self.clients).len()
    }

    /// Is somebody here in that room?
    pub(crate) fn is_here(&self, identity: &str, room: Option<&str>) -> bool {
        lock(&self.clients)
            .values()
            .any(|one| one.identity == identity && one.room.as_deref() == room)
    }

    /// Fires when clients come, go or move.
    pub(crate) fn clients_changed(&self) -> watch::Receiver<u64> {
        self.clients_changed.subscribe()
    }

    fn change_clients<T>(&self, change: impl FnOnce(&mut HashMap<String, Connected>) -> T) -> T {
        let outcome = change(&mut lock(&self.clients));
        self.clients_changed.send_modify(|version| *version += 1);
        outcome
    }

    /// Tells the meeting something. It is numbered by the hub, and waits for one that is away.
    pub(crate) fn post(&self, signal: &Signal, audience: &Audience) -> Result<(), PublicError> {
        let unwritable = |_| PublicError::new(Code::Internal, "a signal cannot be written");
        let post = Post {
            signal_json: serde_json::to_string(signal).map_err(unwritable)?,
            audience_json: serde_json::to_string(audience).map_err(unwritable)?,
        };
        let mut posts = lock(&self.posts);
        posts.retain(|posted| posted.since.elapsed() < POST_LIFE);
        if posts.len() >= MAX_POSTS {
            return Err(PublicError::new(
                Code::WorkerUnreachable,
                "the meeting's hub does not answer",
            ));
        }
        posts.push_back(Posted {
            post,
            since: Instant::now(),
            sent: false,
        });
        drop(posts);
        self.posted.notify_one();
        Ok(())
    }
}

impl LiveMeeting {
    /// A client is in `room`. It is until the answer is dropped.
    pub(crate) fn enter(
        self: &Arc<Self>,
        identity: &str,
        name: &str,
        role: Role,
        room: Option<&str>,
        takes_part: bool,
    ) -> Presence {
        // Begins with the time, so that of two connections the newer one has the greater name.
        let nonce = format!("{:012x}-{}", now_ms(), random_suffix().unwrap_or_default());
        let superseded = Arc::new(Notify::new());
        let client = Connected {
            identity: identity.to_owned(),
            name: name.to_owned(),
            role,
            room: room.map(str::to_owned),
            takes_part,
            watches: false,
            superseded: superseded.clone(),
        };
        self.change_clients(|clients| clients.insert(nonce.clone(), client));
        Presence {
            meeting: self.clone(),
            nonce,
            superseded,
        }
    }
}

/// One client's being in the meeting.
pub(crate) struct Presence {
    pub(crate) meeting: Arc<LiveMeeting>,
    nonce: String,
    superseded: Arc<Notify>,
}

impl Presence {
    /// It is in another room now.
    pub(crate) fn moved(&self, room: Option<&str>) {
        self.change(|client| client.room = room.map(str::to_owned));
    }

    /// It has another role now.
    pub(crate) fn stands(&self, role: Role) {
        self.change(|client| client.role = role);
    }

    /// It gets the overview, or no longer.
    pub(crate) fn watches(&self, on: bool) {
        self.change(|client| client.watches = on);
    }

    /// Completes when a newer connection of the same identity has taken its place.
    pub(crate) async fn superseded(&self) {
        self.superseded.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut Connected)) {
        self.meeting.change_clients(|clients| {
            if let Some(client) = clients.get_mut(&self.nonce) {
                change(client);
            }
        });
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let empty = self.meeting.change_clients(|clients| {
            clients.remove(&self.nonce);
            clients.is_empty()
        });
        if let (true, Ok(runtime)) = (empty, tokio::runtime::Handle::try_current()) {
            let meeting = self.meeting.clone();
            runtime.spawn(async move {
                tokio::time::sleep(LINGER).await;
                drop(meeting);
            });
        }
    }
}

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
