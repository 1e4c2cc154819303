//! Which worker holds a room.
//!
//! Pure functions of what is known of the workers. Invariants: only a worker that accepts rooms is
//! chosen, and never beyond its capacity; a room that a reachable worker holds is never moved; a
//! room of a lost worker is moved only when there is somewhere to go; every new assignment has a
//! higher epoch than any before.

use plenum_crds::Assignment;

/// Above this share of its CPU a worker takes no new rooms (permille).
pub(crate) const CPU_LIMIT: u32 = 850;

/// What placement must know of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Worker {
    /// Namespace of its Pod.
    pub(crate) namespace: String,
    /// Name of its Pod.
    pub(crate) name: String,
    /// UID of its Pod.
    pub(crate) uid: String,
    /// Whether it takes new rooms: ready, configured, not draining.
    pub(crate) accepting: bool,
    /// Rooms assigned to it.
    pub(crate) rooms: u32,
    /// People on it.
    pub(crate) participants: u32,
    /// Megabits per second it sends.
    pub(crate) egress_mbps: u32,
    /// Busiest core, permille.
    pub(crate) cpu_permille: u32,
    /// How many rooms, people and megabits it takes at most.
    pub(crate) limits: Limits,
}

/// The most that one worker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) rooms: u32,
    pub(crate) participants: u32,
    pub(crate) egress_mbps: u32,
}

/// What is known of the worker that holds a room now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// It answers, or has not been silent for long.
    Present,
    /// It does not answer and may be dead: move, if there is somewhere to go.
    Lost,
    /// Its Pod is gone: whatever it held is gone too.
    Gone,
    /// It answers but has lost the room (its process began anew).
    Forgot,
}

/// What to do with a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placement {
    /// It stays where it is.
    Keep,
    /// It goes there.
    Assign(Assignment),
    /// It has to wait.
    Wait(Obstacle),
}

/// Why a room cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// No worker is ready.
    NotReady,
    /// Ready workers are full.
    Full,
}

/// Decides about one room. `epoch` is the highest ever assigned; `preferred` the worker of the
/// meeting's main room, for its breakout rooms.
pub(crate) fn place(
    current: Option<(&Assignment, Holder)>,
    epoch: i64,
    workers: &[Worker],
    preferred: Option<&str>,
) -> Placement {
    let epoch = epoch.max(current.map_or(0, |(assignment, _)| assignment.epoch));
    let lost = match current {
        Some((_, Holder::Present)) => return Placement::Keep,
        Some((assignment, Holder::Forgot)) => {
            return Placement::Assign(Assignment {
                epoch: epoch + 1,
                ..assignment.clone()
            });
        }
        Some((assignment, Holder::Lost)) => Some(assignment.worker_uid.as_str()),
        Some((_, Holder::Gone)) | None => None,
    };
    let candidates: Vec<Worker> = workers
        .iter()
        .filter(|worker| Some(worker.uid.as_str()) != lost)
        .cloned()
        .collect();
    match choose(&candidates, preferred) {
        Ok(worker) => Placement::Assign(Assignment {
            worker: worker.name.clone(),
            worker_uid: worker.uid.clone(),
            worker_namespace: worker.namespace.clone(),
            epoch: epoch + 1,
        }),
        // Nowhere to go: perhaps it is the controller that cannot reach it. Its clients may still.
        Err(_) if lost.is_some() => Placement::Keep,
        Err(obstacle) => Placement::Wait(obstacle),
    }
}

/// The worker with the most room: the preferred one if it has any.
pub(crate) fn choose<'a>(workers: &'a [Worker], preferred: Option<&str>) -> Result<&'a Worker, Obstacle> {
    if !workers.iter().any(|worker| worker.accepting) {
        return Err(Obstacle::NotReady);
    }
    let free = || {
        workers
            .iter()
            .filter(|worker| worker.accepting && worker.has_room())
    };
    free()
        .find(|worker| Some(worker.uid.as_str()) == preferred)
        // Names break ties, so that the same state always gives the same answer.
        .or_else(|| free().min_by(|a, b| a.load().cmp(&b.load()).then_with(|| a.name.cmp(&b.name))))
        .ok_or(Obstacle::Full)
}

impl Worker {
    fn has_room(&self) -> bool {
        self.rooms < self.limits.rooms
            && self.participants < self.limits.participants
            && self.egress_mbps < self.limits.egress_mbps
            && self.cpu_permille < CPU_LIMIT
    }

    /// How full its fullest resource is, permille.
    fn load(&self) -> u64 {
        let share = |used: u32, limit: u32| u64::from(used) * 1000 / u64::from(limit.max(1));
        share(self.rooms, self.limits.rooms)
            .max(share(self.participants, self.limits.participants))
            .max(share(self.egress_mbps, self.limits.egress_mbps))
            .max(u64::from(self.cpu_permille))
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
