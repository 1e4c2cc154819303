//! How many workers a pool has, and which of them go.
//!
//! Pure functions of what is known of the pods. Invariants: an occupied worker is deleted only
//! after it drained for the pool's timeout; every deletion of a worker that was in service passes
//! through draining, so that no room is placed on it meanwhile; the number of workers in service
//! stays between the wanted number less maxUnavailable and the wanted number plus maxSurge.

use std::time::Duration;

use plenum_crds::{Buffer, UpdateStrategy};

/// A worker stays in draining for this long even when empty: a placement may be under way.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);

/// What scaling must know of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodView {
    /// Its name.
    pub(crate) name: String,
    /// Whether its template is the present one.
    pub(crate) current: bool,
    /// Whether it is ready for meetings.
    pub(crate) ready: bool,
    /// Whether it ended by itself and stays so.
    pub(crate) failed: bool,
    /// Whether it is being deleted.
    pub(crate) deleting: bool,
    /// How long it has been draining.
    pub(crate) draining: Option<Duration>,
    /// Rooms assigned to it.
    pub(crate) rooms: u32,
    /// Seconds since it was created.
    pub(crate) age: u64,
}

/// What to do with one pod, or for one more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Another pod.
    Create,
    /// No new rooms for this one.
    Drain(String),
    /// It is wanted after all.
    Undrain(String),
    /// It goes.
    Delete(String),
}

/// The wanted number of workers, for the buffer form.
pub(crate) fn wanted(buffer: &Buffer, slots_per_worker: u32, pods: &[PodView]) -> u32 {
    let in_service: Vec<&PodView> = pods.iter().filter(|pod| pod.in_service()).collect();
    let used: u32 = in_service.iter().map(|pod| pod.rooms).sum();
    let slots = slots_per_worker.max(1);
    let clamp = |n: u32| n.clamp(unsigned(buffer.min), unsigned(buffer.max));
    let needed = (used + unsigned(buffer.min_free_slots)).div_ceil(slots);
    // Rooms cannot be squeezed together: a worker that holds one stays.
    let occupied = in_service.iter().filter(|pod| pod.rooms > 0).count();
    clamp(needed.max(u32::try_from(occupied).unwrap_or(u32::MAX)))
}

/// The steps towards `wanted` workers of the present template.
pub(crate) fn plan(wanted: u32, strategy: &UpdateStrategy, timeout: Duration, pods: &[PodView]) -> Vec<Step> {
    let mut steps = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.deleting) {
        if pod.failed {
            steps.push(Step::Delete(pod.name.clone()));
        } else if let Some(since) = pod.draining
            && ((pod.rooms == 0 && since >= SETTLE) || since >= timeout.max(SETTLE))
        {
            steps.push(Step::Delete(pod.name.clone()));
        }
    }
    let service: Vec<&PodView> = pods.iter().filter(|pod| pod.in_service()).collect();
    let wanted = wanted as usize;
    let outdated = service.iter().filter(|pod| !pod.current).count();
    if outdated == 0 {
        level(wanted, &service, pods, &mut steps);
    } else {
        roll(wanted, strategy, &service, outdated, &mut steps);
    }
    steps
}

/// All of one template: only the number counts.
fn level(wanted: usize, service: &[&PodView], pods: &[PodView], steps: &mut Vec<Step>) {
    if service.len() < wanted {
        let missing = wanted - service.len();
        // One that drains already runs: taking it back is faster than a new one.
        let mut back: Vec<&PodView> = pods
            .iter()
            .filter(|pod| pod.draining.is_some() && pod.current && !pod.gone())
            .collect();
        back.sort_by_key(|pod| (std::cmp::Reverse(pod.rooms), pod.draining));
        let doomed = |name: &str, steps: &[Step]| steps.contains(&Step::Delete(name.to_owned()));
        let back: Vec<String> = back
            .iter()
            .filter(|pod| !doomed(&pod.name, steps))
            .map(|pod| pod.name.clone())
            .collect();
        let returning = back.len().min(missing);
        steps.extend(back.into_iter().take(returning).map(Step::Undrain));
        steps.extend((returning..missing).map(|_| Step::Create));
    } else {
        let surplus = service.len() - wanted;
        steps.extend(by_expendability(service).into_iter().take(surplus).map(retire));
    }
}

/// Two templates: new ones up to the surge, old ones down to what may be unavailable.
fn roll(
    wanted: usize,
    strategy: &UpdateStrategy,
    service: &[&PodView],
    outdated: usize,
    steps: &mut Vec<Step>,
) {
    let updated = service.len() - outdated;
    let ceiling = wanted + unsigned(strategy.max_surge) as usize;
    let floor = wanted.saturating_sub(unsigned(strategy.max_unavailable) as usize);
    let creates = wanted
        .saturating_sub(updated)
        .min(ceiling.saturating_sub(service.len()));
    steps.extend((0..creates).map(|_| Step::Create));
    let ready = service.iter().filter(|pod| pod.ready).count();
    let mut spare = ready.saturating_sub(floor);
    for pod in by_expendability(service).into_iter().filter(|pod| !pod.current) {
        if !pod.ready {
            // It serves nobody: it costs no availability.
            steps.push(retire(pod));
        } else if spare > 0 {
            spare -= 1;
            steps.push(retire(pod));
        }
    }
}

/// A worker that never was ready and holds nothing needs no drain.
fn retire(pod: &PodView) -> Step {
    if pod.ready || pod.rooms > 0 {
        Step::Drain(pod.name.clone())
    } else {
        Step::Delete(pod.name.clone())
    }
}

/// Who goes first: old template, not ready, few rooms, young.
fn by_expendability<'a>(service: &[&'a PodView]) -> Vec<&'a PodView> {
    let mut pods = service.to_vec();
    pods.sort_by(|a, b| {
        (a.current, a.ready, a.rooms, a.age)
            .cmp(&(b.current, b.ready, b.rooms, b.age))
            .then_with(|| b.name.cmp(&a.name))
    });
    pods
}

impl PodView {
    fn gone(&self) -> bool {
        self.deleting || self.failed
    }

    fn in_service(&self) -> bool {
        !self.gone() && self.draining.is_none()
    }
}

fn unsigned(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

#[cfg(test)]
#[path = "scale_tests.rs"]
mod tests;
