//! The controller's line to every worker.
//!
//! Owns one mutual-TLS gRPC connection per worker Pod and the live view that its reports feed.
//! Invariants: a connection belongs to a Pod's UID, never to a name or address, and a worker that
//! says it is another one is not spoken to; a worker that is silent for [`SILENCE`] counts as down;
//! nothing here writes to the API server.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plenum_worker_api::v1::control_client::ControlClient;
use plenum_worker_api::v1::{
    AssignRoomRequest, ConfigureRequest, EndReason, ReleaseRoomRequest, Report, RoomReport, RoomSpec,
    SetDrainingRequest, WatchRequest,
};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::pki::{self, Leaf};

/// Reports come at least every second.
const SILENCE: Duration = Duration::from_secs(3);
/// No call takes longer.
const CALL: Duration = Duration::from_secs(5);
/// A report that arrives this soon after an assignment may be older than the assignment.
const FRESH: Duration = Duration::from_secs(1);
/// Between two attempts to connect: short, because the first one after a loss tells a dead process
/// from a slow network.
const RETRY: Duration = Duration::from_millis(100);

/// Something that a reconciler may care for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The worker of that UID came, went, was configured or began to drain.
    Worker(String),
    /// What is known of that room changed.
    Room(String),
}

/// Why a worker did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// There is no connection.
    #[error("the worker is not connected")]
    NotConnected,
    /// No answer in time.
    #[error("the worker did not answer within {} s", CALL.as_secs())]
    Timeout,
    /// It refused.
    #[error("the worker answered {}: {}", .0.code(), .0.message())]
    Refused(#[from] Box<tonic::Status>),
}

impl WorkerError {
    /// The worker holds the room under a higher epoch than it was told.
    pub(crate) fn is_stale_epoch(&self) -> bool {
        matches!(self, Self::Refused(status) if status.message().contains("EpochStale"))
    }

    /// The worker takes no new rooms.
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self, Self::Refused(status) if status.message().contains("WorkerDraining"))
    }
}

/// Where a worker is, and what its clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// UID of its Pod.
    pub(crate) uid: String,
    /// Its gRPC address.
    pub(crate) address: SocketAddr,
    /// `IP:PORT` of every way to its media port; empty while not known.
    pub(crate) advertise: Vec<String>,
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Never connected yet.
    Connecting {
        /// Since when it is tried.
        since: Instant,
    },
    /// Reports arrive.
    Up,
    /// Lost.
    Down {
        /// Since when.
        since: Instant,
        /// The host answered that nobody listens: the process is dead, not the network.
        refused: bool,
    },
}

/// What is known of a worker at the moment.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// The connection.
    pub(crate) line: Line,
    /// It was told its addresses.
    pub(crate) configured: bool,
    /// It refuses new rooms.
    pub(crate) draining: bool,
    /// People on it.
    pub(crate) participants: u32,
    /// Busiest core, permille.
    pub(crate) cpu_permille: u32,
    /// Bits per second it sends.
    pub(crate) egress_bits: u64,
    /// Its rooms; `None` until the first full report of the present connection.
    pub(crate) rooms: Option<HashMap<String, RoomReport>>,
}

impl Live {
    fn new() -> Self {
        Self {
            line: Line::Connecting {
                since: Instant::now(),
            },
            configured: false,
            draining: false,
            participants: 0,
            cpu_permille: 0,
            egress_bits: 0,
            rooms: None,
        }
    }

    /// Ready to be given rooms, as far as the connection goes.
    pub(crate) fn usable(&self) -> bool {
        self.line == Line::Up && self.configured && !self.draining && self.rooms.is_some()
    }
}

struct Entry {
    live: Live,
    /// Its rooms as its last full report says.
    said: HashMap<String, RoomReport>,
    /// Rooms that it has just accepted, and under which epoch.
    fresh: HashMap<String, (Instant, u64)>,
    target: watch::Sender<Target>,
    channel: Option<Channel>,
    task: AbortHandle,
}

/// All workers.
#[derive(Clone)]
pub(crate) struct Fleet {
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    notices: mpsc::UnboundedSender<Notice>,
    tls: Arc<watch::Sender<ClientTlsConfig>>,
}

/// What a TLS client needs to speak to workers.
pub(crate) fn tls(ca: &str, leaf: &Leaf) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .domain_name(pki::WORKER)
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(&leaf.certificate, &leaf.key))
}

impl Fleet {
    /// An empty fleet; changes are told through the channel.
    pub(crate) fn new(tls: ClientTlsConfig) -> (Self, mpsc::UnboundedReceiver<Notice>) {
        let (notices, receiver) = mpsc::unbounded_channel();
        let (tls, _) = watch::channel(tls);
        (
            Self {
                entries: Arc::default(),
                notices,
                tls: Arc::new(tls),
            },
            receiver,
        )
    }

    /// New connections use another certificate from now on.
    pub(crate) fn set_tls(&self, tls: ClientTlsConfig) {
        self.tls.send_replace(tls);
    }

    /// Connects to a worker, or tells it its new addresses. Nothing happens where nothing changed.
    pub(crate) fn upsert(&self, target: Target) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(&target.uid) {
            entry.target.send_if_modified(|current| {
                let changed = *current != target;
                *current = target;
                changed
            });
            return;
        }
        let uid = target.uid.clone();
        let (sender, receiver) = watch::channel(target);
        let task = tokio::spawn(follow(self.clone(), uid.clone(), receiver)).abort_handle();
        entries.insert(
            uid,
            Entry {
                live: Live::new(),
                said: HashMap::new(),
                fresh: HashMap::new(),
                target: sender,
                channel: None,
                task,
            },
        );
    }

    /// Forgets every worker of `known` that is not in `keep`.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&str) -> bool) {
        self.lock().retain(|uid, entry| {
            let stays = keep(uid);
            if !stays {
                entry.task.abort();
            }
            stays
        });
    }

    /// What is known of a worker.
    pub(crate) fn live(&self, uid: &str) -> Option<Live> {
        self.lock().get(uid).map(|entry| entry.live.clone())
    }

    /// What is known of a room on a worker. `Some(None)`: the worker is known not to hold it.
    pub(crate) fn room(&self, uid: &str, room: &str) -> Option<Option<RoomReport>> {
        let entries = self.lock();
        let live = &entries.get(uid)?.live;
        if live.line != Line::Up {
            return None;
        }
        live.rooms.as_ref().map(|rooms| rooms.get(room).cloned())
    }

    /// Creates or updates a room. Returns the epoch in force.
    pub(crate) async fn assign(&self, uid: &str, room: RoomSpec) -> Result<u64, WorkerError> {
        let mut client = self.client(uid)?;
        let name = room.name.clone();
        let epoch = room.epoch;
        let request = AssignRoomRequest { room: Some(room) };
        let answer = within(client.assign_room(request)).await?;
        // The next report says the same; until then it would look as if the room were not held.
        if let Some(entry) = self.lock().get_mut(uid)
            && let Some(rooms) = &mut entry.live.rooms
        {
            entry.fresh.insert(name.clone(), (Instant::now(), epoch));
            let report = rooms.entry(name.clone()).or_insert_with(|| RoomReport {
                name,
                ..RoomReport::default()
            });
            report.epoch = report.epoch.max(epoch);
        }
        Ok(answer.epoch)
    }

    /// Ends a room.
    pub(crate) async fn release(
        &self,
        uid: &str,
        room: &str,
        epoch: i64,
        reason: EndReason,
    ) -> Result<(), WorkerError> {
        let mut client = self.client(uid)?;
        let request = ReleaseRoomRequest {
            name: room.to_owned(),
            epoch: u64::try_from(epoch).unwrap_or(0),
            reason: reason.into(),
        };
        within(client.release_room(request)).await?;
        if let Some(entry) = self.lock().get_mut(uid)
            && let Some(rooms) = &mut entry.live.rooms
        {
            rooms.remove(room);
            entry.said.remove(room);
            entry.fresh.remove(room);
        }
        Ok(())
    }

    /// Makes a worker refuse new rooms, or take them again.
    pub(crate) async fn set_draining(&self, uid: &str, draining: bool) -> Result<(), WorkerError> {
        let mut client = self.client(uid)?;
        within(client.set_draining(SetDrainingRequest { draining })).await?;
        if let Some(entry) = self.lock().get_mut(uid) {
            entry.live.draining = draining;
        }
        Ok(())
    }

    fn client(&self, uid: &str) -> Result<ControlClient<Channel>, WorkerError> {
        let entries = self.lock();
        let channel = entries
            .get(uid)
            .and_then(|entry| entry.channel.clone())
            .ok_or(WorkerError::NotConnected)?;
        Ok(ControlClient::new(channel))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, notice: Notice) {
        // The receiver ends with the process.
        let _ = self.notices.send(notice);
    }

    /// Changes what is known of a worker's line; tells once when it is another state.
    fn line(&self, uid: &str, line: Line, channel: Option<Channel>) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        entry.channel = channel;
        let before = entry.live.line;
        entry.live.line = match (before, line) {
            // The first failure counts, and a worker that never answered is not lost but starting.
            (Line::Down { since, .. }, Line::Down { refused, .. }) => Line::Down { since, refused },
            (connecting @ Line::Connecting { .. }, Line::Down { .. }) => connecting,
            (_, line) => line,
        };
        if entry.live.line != Line::Up {
            entry.live.configured = false;
            entry.live.rooms = None;
            entry.said.clear();
            entry.fresh.clear();
        }
        let refused = |line| matches!(line, Line::Down { refused: true, .. });
        let after = entry.live.line;
        // That nobody listens is news of its own: it shortens the wait.
        let changed = std::mem::discriminant(&before) != std::mem::discriminant(&after)
            || refused(before) != refused(after);
        drop(entries);
        if changed {
            self.tell(Notice::Worker(uid.to_owned()));
        }
    }

    fn configured(&self, uid: &str) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        let changed = !entry.live.configured;
        entry.live.configured = true;
        drop(entries);
        if changed {
            self.tell(Notice::Worker(uid.to_owned()));
        }
    }

    fn report(&self, uid: &str, report: Report) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        let live = &mut entry.live;
        live.participants = report.participants;
        live.cpu_permille = report.cpu_permille;
        live.egress_bits = report.egress_bits_per_second;
        let mut notices = Vec::new();
        if live.draining != report.draining || live.rooms.is_none() {
            live.draining = report.draining;
            notices.push(Notice::Worker(uid.to_owned()));
        }
        let accepted = entry.fresh.len();
        entry.fresh.retain(|_, (at, _)| at.elapsed() < FRESH);
        if !report.partial {
            entry.said = report
                .rooms
                .into_iter()
                .map(|room| (room.name.clone(), room))
                .collect();
        }
        if !report.partial || entry.fresh.len() < accepted && live.rooms.is_some() {
            let fresh = entry
                .fresh
                .iter()
                .map(|(name, (_, epoch))| (name.as_str(), *epoch));
            let rooms = held(&entry.said, fresh);
            let before = live.rooms.take().unwrap_or_default();
            notices.extend(changed(&before, &rooms).map(Notice::Room));
            live.rooms = Some(rooms);
        }
        drop(entries);
        notices.into_iter().for_each(|notice| self.tell(notice));
    }
}

/// The rooms of a worker: as it says, and those it accepted a moment ago, because its report may have
/// been on the way already.
fn held<'a>(
    said: &HashMap<String, RoomReport>,
    fresh: impl Iterator<Item = (&'a str, u64)>,
) -> HashMap<String, RoomReport> {
    let mut rooms = said.clone();
    for (name, epoch) in fresh {
        if rooms.get(name).is_none_or(|room| room.epoch < epoch) {
            let report = RoomReport {
                name: name.to_owned(),
                epoch,
                ..RoomReport::default()
            };
            rooms.insert(name.to_owned(), report);
        }
    }
    rooms
}

/// Names of the rooms that came, went or changed.
fn changed<'a>(
    before: &'a HashMap<String, RoomReport>,
    after: &'a HashMap<String, RoomReport>,
) -> impl Iterator<Item = String> + 'a {
    let new = after
        .iter()
        .filter(|(name, room)| before.get(*name) != Some(*room))
        .map(|(name, _)| name.clone());
    new.chain(before.keys().filter(|name| !after.contains_key(*name)).cloned())
}

async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, WorkerError> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Box::new(status).into()),
        Err(_) => Err(WorkerError::Timeout),
    }
}

/// Keeps one worker connected for as long as it is in the fleet.
async fn follow(fleet: Fleet, uid: String, mut target: watch::Receiver<Target>) {
    loop {
        let address = target.borrow_and_update().address;
        let refused = match connect(&fleet, address).await {
            Ok(channel) => {
                let ended = converse(&fleet, &uid, channel, &mut target).await;
                tracing::debug!(%uid, %address, reason = %ended, "worker connection ended");
                false
            }
            Err(error) => {
                tracing::debug!(%uid, %address, %error, "worker not reached");
                is_refused(&error)
            }
        };
        fleet.line(
            &uid,
            Line::Down {
                since: Instant::now(),
                refused,
            },
            None,
        );
        tokio::time::sleep(RETRY).await;
    }
}

async fn connect(fleet: &Fleet, address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    let host = match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let tls = fleet.tls.borrow().clone();
    Endpoint::from_shared(format!("https://{host}:{}", address.port()))?
        .tls_config(tls)?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect()
        .await
}

/// Whether the host said that nobody listens.
fn is_refused(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// One connection, from the first word to the last. Returns why it ended.
async fn converse(
    fleet: &Fleet,
    uid: &str,
    channel: Channel,
    target: &mut watch::Receiver<Target>,
) -> String {
    let mut client = ControlClient::new(channel.clone());
    let mut reports = match within(client.watch(WatchRequest {})).await {
        Ok(reports) => reports,
        Err(error) => return error.to_string(),
    };
    let address = target.borrow().address;
    let mut told = false;
    loop {
        let wish = target.borrow_and_update().clone();
        if wish.address != address {
            return "the pod has another address".to_owned();
        }
        if !told && !wish.advertise.is_empty() {
            let request = ConfigureRequest {
                advertise: wish.advertise,
            };
            match within(client.configure(request)).await {
                Ok(answer) if answer.worker_uid == uid || answer.worker_uid.is_empty() => told = true,
                Ok(answer) => return format!("it is worker {}", answer.worker_uid),
                Err(error) => return error.to_string(),
            }
            fleet.configured(uid);
        }
        tokio::select! {
            report = tokio::time::timeout(SILENCE, reports.message()) => match report {
                Ok(Ok(Some(report))) => {
                    if !report.worker_uid.is_empty() && report.worker_uid != uid {
                        return format!("it is worker {}", report.worker_uid);
                    }
                    fleet.line(uid, Line::Up, Some(channel.clone()));
                    if told {
                        fleet.configured(uid);
                    }
                    fleet.report(uid, report);
                }
                Ok(Ok(None)) => return "the worker closed the stream".to_owned(),
                Ok(Err(status)) => return status.to_string(),
                Err(_) => return "silence".to_owned(),
            },
            changed = target.changed() => match changed {
                Ok(()) => told = false,
                Err(_) => return "removed".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(list: &[(&str, u64, u32)]) -> HashMap<String, RoomReport> {
        let report = |&(name, epoch, participants): &(&str, u64, u32)| RoomReport {
            name: name.to_owned(),
            epoch,
            participants,
            ..RoomReport::default()
        };
        list.iter()
            .map(|room| (room.0.to_owned(), report(room)))
            .collect()
    }

    #[test]
    fn a_report_that_was_on_the_way_takes_no_room_away() {
        let said = rooms(&[("b", 1, 7), ("c", 2, 3)]);
        let fresh = [("a", 1), ("b", 2), ("c", 1)];
        assert_eq!(
            held(&said, fresh.into_iter()),
            rooms(&[("a", 1, 0), ("b", 2, 0), ("c", 2, 3)])
        );
        assert_eq!(held(&said, std::iter::empty()), said, "later it is as it says");
    }
}
