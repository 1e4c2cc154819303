//! What the controller and gateways are told of a worker, again and again.
//!
//! Owns the pace: a report at once, one whenever something changed but at most four a second, and a
//! heartbeat in between.

use std::sync::Arc;
use std::time::Duration;

use plenum_worker_api::v1::{Report, RoomReport};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::signal::hub::Snapshot;

/// Shortest time between two full reports.
const PACE: Duration = Duration::from_millis(250);
/// Longest silence.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What does not change while the process lives.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// Of the pod.
    pub worker_uid: String,
    /// Inside the pod.
    pub media_port: u16,
}

/// A report of `snapshot`. Partial: without the rooms.
pub fn report(fixed: &Fixed, snapshot: &Snapshot, partial: bool) -> Report {
    Report {
        partial,
        worker_uid: fixed.worker_uid.clone(),
        draining: snapshot.draining,
        participants: snapshot.participants,
        cpu_permille: snapshot.cpu_permille,
        egress_bits_per_second: snapshot.egress_bits_per_second,
        rooms: if partial {
            Vec::new()
        } else {
            snapshot
                .rooms
                .iter()
                .map(|room| RoomReport {
                    name: room.name.to_string(),
                    epoch: room.epoch,
                    participants: room.standing.participants,
                    active_since_ms: room.standing.active_since_ms,
                    peak_participants: room.standing.peak_participants,
                    ended_at_ms: room.standing.ended_at_ms,
                })
                .collect()
        },
        media_port: u32::from(fixed.media_port),
    }
}

/// Reports until the receiver is gone.
pub async fn stream(
    fixed: Fixed,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    to: mpsc::Sender<Result<Report, Status>>,
) {
    let mut told: Option<Arc<Snapshot>> = None;
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        // Load alone is news for the heartbeat: it always changes.
        let partial = told
            .as_ref()
            .is_some_and(|t| t.rooms == snapshot.rooms && t.draining == snapshot.draining);
        let message = report(&fixed, &snapshot, partial);
        told = Some(snapshot);
        if to.send(Ok(message)).await.is_err() {
            return;
        }
        tokio::time::sleep(PACE).await;
        if let Ok(Err(_)) = tokio::time::timeout(HEARTBEAT - PACE, snapshots.changed()).await {
            return;
        }
    }
}
