//! Which worker holds a room.
//!
//! Pure functions of what is known of the workers. Invariants: only a worker that accepts rooms is
//! chosen, and never beyond its capacity; a room that a reachable worker holds is never moved; a
//! room of a lost worker is moved only when there is somewhere to go; every new assignment has a
//! higher epoch than any before.
//!
//! # Which worker
//!
//! People count before they come: a room takes as many places as people are expected in it, and
//! those of rooms that were placed a moment ago count with them ([`super::crowd`]). Of the workers
//! whose limits hold that, the least loaded one is chosen, by how full its fullest resource (rooms,
//! people, bits, CPU) is with the room. A breakout room goes to the worker of its meeting's main
//! room instead, where moving keeps the connection, as long as that one is at most [`HOME_BONUS`]
//! fuller than the least loaded one.

use plenum_crds::Assignment;

/// Above this share of its CPU a worker takes no new rooms (permille).
pub(crate) const CPU_LIMIT: u32 = 850;

/// A breakout room stays with its meeting's main room where that worker is fuller than the least
/// loaded one by no more than this (permille).
pub(crate) const HOME_BONUS: u64 = 50;

/// The room to be placed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Newcomer<'a> {
    /// How many people are expected in it.
    pub(crate) people: u32,
    /// UID of the worker that holds its meeting's main room, for a breakout room.
    pub(crate) home: Option<&'a str>,
    /// So many of its people take no further place there: they are in the main room, or come back to it.
    pub(crate) covered: u32,
    /// So many of its people are in the main room now and leave it.
    pub(crate) leaving: u32,
}

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
    /// People on it once everybody is in the room where they are expected.
    pub(crate) expected: u32,
    /// The most people that its rooms may bring it to, whoever goes first.
    pub(crate) peak: u32,
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

/// Decides about one room. `epoch` is the highest ever assigned.
pub(crate) fn place(
    current: Option<(&Assignment, Holder)>,
    epoch: i64,
    workers: &[Worker],
    newcomer: Newcomer<'_>,
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
    let candidates: Vec<&Worker> = workers
        .iter()
        .filter(|worker| Some(worker.uid.as_str()) != lost)
        .collect();
    match choose(&candidates, newcomer) {
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

/// The worker that is least loaded with the room, or the one of its meeting (see the module).
fn choose<'a>(workers: &[&'a Worker], newcomer: Newcomer<'_>) -> Result<&'a Worker, Obstacle> {
    if !workers.iter().any(|worker| worker.accepting) {
        return Err(Obstacle::NotReady);
    }
    let free = || {
        workers
            .iter()
            .filter(|worker| worker.accepting && worker.has_room(newcomer))
    };
    let best = free()
        // Names break ties, so that the same state always gives the same answer.
        .min_by_key(|worker| (worker.load_with(newcomer), &worker.name))
        .ok_or(Obstacle::Full)?;
    let most = best.load_with(newcomer) + HOME_BONUS;
    let home = free().find(|worker| worker.is_home(newcomer) && worker.load_with(newcomer) <= most);
    Ok(home.unwrap_or(best))
}

impl Worker {
    fn is_home(&self, newcomer: Newcomer<'_>) -> bool {
        newcomer.home == Some(self.uid.as_str())
    }

    fn has_room(&self, newcomer: Newcomer<'_>) -> bool {
        let covered = if self.is_home(newcomer) {
            newcomer.covered
        } else {
            0
        };
        // Room for one at least; a crowd that no worker could hold gets one for itself.
        let people = newcomer.people.clamp(1, self.limits.participants.max(1));
        self.rooms < self.limits.rooms
            && self
                .peak
                .max(self.participants)
                .saturating_add(people.saturating_sub(covered))
                <= self.limits.participants
            && (self.participants < self.limits.participants || covered >= people)
            && self.egress_mbps < self.limits.egress_mbps
            && self.cpu_permille < CPU_LIMIT
    }

    /// How full its fullest resource is with the room, permille.
    fn load_with(&self, newcomer: Newcomer<'_>) -> u64 {
        let leaving = if self.is_home(newcomer) {
            newcomer.leaving.min(newcomer.people)
        } else {
            0
        };
        let people = self
            .expected
            .saturating_add(newcomer.people)
            .saturating_sub(leaving);
        let share = |used: u32, limit: u32| u64::from(used) * 1000 / u64::from(limit.max(1));
        share(self.rooms.saturating_add(1), self.limits.rooms)
            .max(share(people, self.limits.participants))
            .max(share(self.egress_mbps, self.limits.egress_mbps))
            .max(u64::from(self.cpu_permille))
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
