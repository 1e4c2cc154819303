//! What every reconciler is given.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::runtime::controller::Action;
use plenum_worker_api::v1::RoomSpec;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::coarse::{self, Decision};
use super::crowd::{Crowd, Expectations, Expected};
use super::events::Events;
use super::index::Index;
use super::metrics::Metrics;
use super::placement::Newcomer;
use super::worker_pod::Image;
use super::workers::{Fleet, WorkerError};
use crate::pki::{Authority, PkiError};

/// Why a reconciliation did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The API server refused.
    #[error("API: {0}")]
    Api(#[from] kube::Error),
    /// A worker did not do what it was told.
    #[error("worker: {0}")]
    Worker(#[from] WorkerError),
    /// A certificate could not be made or stored.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// An object could not be turned into JSON.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl ReconcileError {
    /// For metrics.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Api(error) if is_conflict(error) => "conflict",
            Self::Api(_) => "api",
            Self::Worker(_) => "worker",
            Self::Pki(_) => "pki",
            Self::Json(_) => "json",
        }
    }
}

/// Whether the object changed since it was read: no fault, just another look.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Whether there is no such thing.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Settings that the reconcilers read.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where workers may be.
    pub(crate) worker_namespaces: Vec<String>,
    /// Their image.
    pub(crate) image: Image,
    /// What people's links begin with; no slash at the end.
    pub(crate) public_url: String,
    /// Port of the workers' gRPC.
    pub(crate) control_port: u16,
}

/// A room as its worker was last told of it.
struct Told {
    uid: String,
    spec: RoomSpec,
}

/// The part of the present that is not in the cluster.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) index: Index,
    pub(crate) fleet: Fleet,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) backoff: Backoff,
    pub(crate) authority: Authority,
    /// Placements that the cache does not show yet: room, worker's UID, when.
    reservations: Mutex<HashMap<String, (String, Instant)>>,
    expectations: Mutex<Expectations>,
    told: Mutex<HashMap<String, Told>>,
    counts: Mutex<HashMap<String, coarse::Memory>>,
    began: Instant,
    due: Mutex<HashMap<String, Instant>>,
}

/// A reservation is in the cache after this, or it was never written.
const RESERVATION: Duration = Duration::from_secs(10);

impl Context {
    pub(crate) fn new(
        client: Client,
        settings: Settings,
        index: Index,
        fleet: Fleet,
        events: Events,
        metrics: Metrics,
        authority: Authority,
    ) -> Self {
        Self {
            client,
            settings,
            index,
            fleet,
            events,
            metrics,
            authority,
            backoff: Backoff::default(),
            reservations: Mutex::default(),
            expectations: Mutex::default(),
            told: Mutex::default(),
            counts: Mutex::default(),
            began: Instant::now(),
            due: Mutex::default(),
        }
    }

    /// Decides about a placement with nobody else deciding meanwhile. `decide` is given who is
    /// expected on which worker and how the room looks beside that, and answers with the UID of the
    /// worker it chose.
    pub(crate) fn reserve<T>(
        &self,
        room: &str,
        expected: Expected,
        home: Option<&str>,
        decide: impl FnOnce(&Crowd, Newcomer<'_>) -> (T, Option<String>),
    ) -> T {
        let mut reservations = self.reservations.lock().unwrap_or_else(PoisonError::into_inner);
        let mut holders = self.holders(&mut reservations);
        // The room itself does not stand in its own way.
        holders.remove(room);
        let mut expectations = self.expectations();
        let present = |uid: &str, room: &str| self.present(uid, room);
        let now = Instant::now();
        let crowd = Crowd::new(&holders, |room| expectations.people(room, now), present);
        let newcomer = crowd.newcomer(room, expected.people(), home, present);
        let (result, chosen) = decide(&crowd, newcomer);
        if let Some(uid) = chosen {
            reservations.insert(room.to_owned(), (uid, now));
            expectations.placed(room, expected, now);
        }
        result
    }

    /// Worker's UID of every room, reservations included.
    fn holders(&self, reservations: &mut HashMap<String, (String, Instant)>) -> HashMap<String, String> {
        reservations.retain(|_, (_, at)| at.elapsed() < RESERVATION);
        let mut holders = self.index.assignments();
        for (room, (uid, _)) in reservations.iter() {
            holders.entry(room.clone()).or_insert_with(|| uid.clone());
        }
        holders
    }

    /// People in a room, as its worker last said.
    pub(crate) fn present(&self, uid: &str, room: &str) -> u32 {
        let report = self.fleet.room(uid, room).flatten();
        report.map_or(0, |report| report.participants)
    }

    /// Rooms by worker's UID, reservations included.
    pub(crate) fn load(&self) -> HashMap<String, u32> {
        let mut reservations = self.reservations.lock().unwrap_or_else(PoisonError::into_inner);
        let mut load: HashMap<String, u32> = HashMap::new();
        for uid in self.holders(&mut reservations).into_values() {
            *load.entry(uid).or_default() += 1;
        }
        load
    }

    /// What is expected of the placed rooms, to be looked up or corrected.
    pub(crate) fn expectations(&self) -> MutexGuard<'_, Expectations> {
        self.expectations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the worker was told of the room in just these words.
    pub(crate) fn was_told(&self, uid: &str, spec: &RoomSpec) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(&spec.name)
            .is_some_and(|told| told.uid == uid && told.spec == *spec)
    }

    /// Remembers what a worker was told.
    pub(crate) fn tell(&self, uid: &str, spec: RoomSpec) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(
            spec.name.clone(),
            Told {
                uid: uid.to_owned(),
                spec,
            },
        );
    }

    /// Forgets a room.
    pub(crate) fn forget(&self, room: &str) {
        self.expectations().forget(room);
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(room);
        self.reservations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(room);
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(room);
    }

    /// Whether the participant count of a room is to be written, and when to look again.
    pub(crate) fn decide_count(
        &self,
        room: &str,
        written: Option<i32>,
        live: u32,
        again: &mut Again,
    ) -> bool {
        let live = i32::try_from(live).unwrap_or(i32::MAX);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = counts.entry(room.to_owned()).or_default();
        match coarse::decide(written, live, memory, self.began.elapsed()) {
            Decision::Keep => false,
            Decision::Write => true,
            Decision::Later(wait) => {
                again.after(wait);
                false
            }
        }
    }

    /// The participant count of a room was written now.
    pub(crate) fn counted(&self, room: &str) {
        let memory = coarse::Memory {
            written: Some(self.began.elapsed()),
            wrong: None,
        };
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(room.to_owned(), memory);
    }

    /// Whether something that needs a look now and then (a certificate) is due for one.
    pub(crate) fn is_due(&self, what: &str) -> bool {
        self.due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(what)
            .is_none_or(|at| *at <= Instant::now())
    }

    /// It was looked at; the next look is after `wait`.
    pub(crate) fn looked_at(&self, what: &str, wait: Duration) {
        self.due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(what.to_owned(), Instant::now() + wait);
    }
}

/// The earliest of several times to look again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Again(Option<Duration>);

impl Again {
    /// Look again after `wait` at the latest.
    pub(crate) fn after(&mut self, wait: Duration) {
        self.0 = Some(self.0.map_or(wait, |before| before.min(wait)));
    }

    /// The same as what kube-runtime takes.
    pub(crate) fn action(self) -> Action {
        // A little late is better than a little early: early means a look for nothing, and another.
        self.0.map_or_else(Action::await_change, |wait| {
            Action::requeue(wait + Duration::from_millis(20))
        })
    }
}
