//! Who gets which layer of what a subscriber's path carries.
//!
//! Owns the choice, a pure function. Its order: the lowest layer of everyone, then the next of everyone,
//! and so on; within a round by priority, then the cheapest first. Invariants: never over the budget; a
//! track goes without only where it would not fit even if all others had their lowest layer; with more
//! budget, the first thing in this order that changes is something that now fits.

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// For layers that are running.
    pub(crate) stay: u64,
    /// For layers that aren't: less, or a layer would come and go with every breath of the estimate.
    pub(crate) up: u64,
}

/// A new layer must fit with so much to spare, in percent.
const HEADROOM: u64 = 15;

impl Budget {
    /// The estimate at which a new layer would fit that brings the whole to `cost`.
    pub(crate) fn needed(cost: u64, reserved: u64) -> u64 {
        cost * (100 + HEADROOM) / 100 + reserved + 1000
    }

    /// What is left of an estimate after `reserved` for sound.
    pub(crate) fn of(estimate: u64, reserved: u64) -> Self {
        let stay = estimate.saturating_sub(reserved);
        Budget {
            stay,
            up: stay / (100 + HEADROOM) * 100,
        }
    }
}

/// Layers of one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    /// Higher goes first.
    pub(crate) priority: u8,
    /// Bits per second of each layer that is sent and wished for, lowest first.
    pub(crate) costs: [u64; MAX_LAYERS],
    pub(crate) layers: usize,
    /// Place of the layer that runs.
    pub(crate) running: Option<usize>,
}

/// Layers of a track that can be told apart.
pub(crate) const MAX_LAYERS: usize = 4;

impl Want {
    pub(crate) fn cost(&self, layer: Option<usize>) -> u64 {
        let below = layer.map_or(0, |l| l + 1).min(self.layers);
        // A layer that happens to be cheaper than one under it costs no less for that.
        self.costs.iter().take(below).copied().max().unwrap_or(0)
    }
}

/// Fills `out` with the layer of each; returns what they cost.
pub(crate) fn allocate(budget: Budget, wants: &[Want], out: &mut Vec<Option<usize>>) -> u64 {
    out.clear();
    out.resize(wants.len(), None);
    let mut used = 0;
    for round in 0..MAX_LAYERS {
        for at in order(wants, round) {
            let (Some(want), Some(given)) = (wants.get(at), out.get_mut(at)) else {
                continue;
            };
            let before = round.checked_sub(1);
            if *given != before {
                continue; // one further down didn't fit
            }
            let step = want.cost(Some(round)) - want.cost(before);
            let limit = if want.running.is_some_and(|r| round <= r) {
                budget.stay
            } else {
                budget.up
            };
            if used + step <= limit {
                used += step;
                *given = Some(round);
            }
        }
    }
    used
}

/// Tracks that have a layer of this round, in the order in which they are served.
fn order(wants: &[Want], round: usize) -> impl Iterator<Item = usize> {
    let mut places: Vec<usize> = (0..wants.len())
        .filter(|at| wants.get(*at).is_some_and(|w| round < w.layers))
        .collect();
    places.sort_by_key(|at| {
        wants.get(*at).map(|w| {
            let step = w.cost(Some(round)) - w.cost(round.checked_sub(1));
            (std::cmp::Reverse(w.priority), step)
        })
    });
    places.into_iter()
}

/// What the cheapest step beyond `given` would bring the whole to; `None` where everyone has everything.
pub(crate) fn next_step(wants: &[Want], given: &[Option<usize>]) -> Option<u64> {
    let cost_of = |(w, g): (&Want, &Option<usize>)| w.cost(*g);
    let used: u64 = wants.iter().zip(given).map(cost_of).sum();
    let steps = wants.iter().zip(given).filter_map(|(w, g)| {
        let next = g.map_or(0, |g| g + 1);
        (next < w.layers).then(|| w.cost(Some(next)) - w.cost(*g))
    });
    steps.min().map(|step| used + step)
}

/// What all would cost at their best.
pub(crate) fn desired(wants: &[Want]) -> u64 {
    wants.iter().map(|w| w.cost(w.layers.checked_sub(1))).sum()
}

#[cfg(test)]
mod tests {
    use super::super::link::Random;
    use super::*;

    fn want(priority: u8, costs: &[u64], running: Option<usize>) -> Want {
        let mut all = [0; MAX_LAYERS];
        all[..costs.len()].copy_from_slice(costs);
        Want {
            priority,
            costs: all,
            layers: costs.len(),
            running,
        }
    }

    fn random(r: &mut Random, running: bool) -> Vec<Want> {
        (0..1 + r.below(4))
            .map(|_| {
                let layers = 1 + r.below(3) as usize;
                let mut costs = [0; MAX_LAYERS];
                let mut sum = 0;
                for c in costs.iter_mut().take(layers) {
                    sum += 1 + r.below(12);
                    *c = sum;
                }
                Want {
                    priority: r.below(2) as u8,
                    costs,
                    layers,
                    running: (running && r.below(2) == 0).then(|| r.below(layers as u64) as usize),
                }
            })
            .collect()
    }

    fn give(budget: Budget, wants: &[Want]) -> (Vec<Option<usize>>, u64) {
        let mut out = Vec::new();
        let used = allocate(budget, wants, &mut out);
        (out, used)
    }

    fn even(budget: u64) -> Budget {
        Budget {
            stay: budget,
            up: budget,
        }
    }

    /// Steps granted, in the order in which they count.
    fn rank(wants: &[Want], given: &[Option<usize>]) -> Vec<bool> {
        (0..MAX_LAYERS)
            .flat_map(|round| order(wants, round).map(move |at| (round, at)))
            .map(|(round, at)| given[at].is_some_and(|g| g >= round))
            .collect()
    }

    /// The best of all combinations that fit.
    fn brute(budget: u64, wants: &[Want]) -> Vec<bool> {
        let mut best = Vec::new();
        let mut given = vec![None; wants.len()];
        loop {
            let cost: u64 = wants.iter().zip(&given).map(|(w, g)| w.cost(*g)).sum();
            if cost <= budget {
                best = best.max(rank(wants, &given));
            }
            let mut at = 0;
            loop {
                if at == wants.len() {
                    return best;
                }
                given[at] = match given[at] {
                    None => Some(0),
                    Some(l) if l + 1 < wants[at].layers => Some(l + 1),
                    Some(_) => None,
                };
                if given[at].is_some() {
                    break;
                }
                at += 1;
            }
        }
    }

    #[test]
    fn it_is_the_best_of_all_combinations() {
        for seed in 0..600 {
            let mut r = Random::new(seed);
            let wants = random(&mut r, false);
            let budget = r.below(80);
            let (given, used) = give(even(budget), &wants);
            assert_eq!(
                rank(&wants, &given),
                brute(budget, &wants),
                "{budget} {wants:?} {given:?}"
            );
            let sum: u64 = wants.iter().zip(&given).map(|(w, g)| w.cost(*g)).sum();
            assert_eq!(used, sum);
        }
    }

    #[test]
    fn never_over_budget_and_nobody_starves_for_anothers_better_layer() {
        for seed in 0..3_000 {
            let mut r = Random::new(seed);
            let wants = random(&mut r, true);
            let stay = r.below(80);
            let budget = Budget {
                stay,
                up: stay * 8 / 10,
            };
            let (given, used) = give(budget, &wants);
            assert!(used <= stay);
            let fresh: Vec<Want> = wants.iter().map(|w| Want { running: None, ..*w }).collect();
            assert!(give(budget, &fresh).1 <= budget.up);
            let lowest: u64 = wants
                .iter()
                .zip(&given)
                .filter(|(_, g)| g.is_some())
                .map(|(w, _)| w.cost(Some(0)))
                .sum();
            for (w, _) in wants.iter().zip(&given).filter(|(_, g)| g.is_none()) {
                let limit = if w.running.is_some() { stay } else { budget.up };
                assert!(
                    lowest + w.cost(Some(0)) > limit,
                    "{w:?} would have fitted: {given:?} {budget:?}"
                );
            }
        }
    }

    #[test]
    fn more_budget_never_makes_worse() {
        for seed in 0..300 {
            let mut r = Random::new(seed);
            let wants = random(&mut r, false);
            let mut before: Vec<bool> = Vec::new();
            let (mut alike, mut watched) = (wants.clone(), 0);
            alike.iter_mut().for_each(|w| w.priority = 1);
            for budget in 0..100 {
                let now = rank(&wants, &give(even(budget), &wants).0);
                assert!(now >= before, "{budget} {wants:?}");
                before = now;
                // Among equals, nobody's picture is taken away.
                let shown = give(even(budget), &alike).0.iter().flatten().count();
                assert!(shown >= watched);
                watched = shown;
            }
        }
    }

    #[test]
    fn what_runs_stays_where_a_new_one_would_not_begin() {
        let budget = Budget::of(1_000_000, 32_000);
        let layers = [150_000, 500_000, 900_000];
        assert_eq!(give(budget, &[want(1, &layers, Some(2))]).0, [Some(2)]);
        assert_eq!(give(budget, &[want(1, &layers, Some(1))]).0, [Some(1)]);
        assert_eq!(
            give(Budget::of(20_000, 32_000), &[want(1, &layers, None)]).0,
            [None]
        );
    }

    #[test]
    fn priority_decides_within_a_round() {
        let screen = want(2, &[400], None);
        let camera = want(1, &[100, 300], None);
        assert_eq!(give(even(450), &[camera, screen]).0, [None, Some(0)]);
        assert_eq!(give(even(500), &[camera, screen]).0, [Some(0), Some(0)]);
        assert_eq!(give(even(350), &[camera, screen]).0, [Some(1), None]);
        assert_eq!(desired(&[camera, screen]), 700);
        assert_eq!(next_step(&[camera, screen], &[Some(0), None]), Some(300));
        assert_eq!(next_step(&[camera, screen], &[Some(1), None]), Some(700));
        assert_eq!(next_step(&[camera, screen], &[Some(1), Some(0)]), None);
    }
}
