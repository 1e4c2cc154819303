//! Spreading people over rooms.
//!
//! Owns who goes where when many are to be spread. Invariants: nobody is placed in a full room; the
//! sizes of two rooms differ by more than one only where a limit, or people who were there before,
//! leave no choice; everybody is placed or reported as left over; the same input and seed give the
//! same result.

use plenum_protocol::{How, Placement};

/// Somebody to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub identity: String,
    /// When they joined: the order of [`How::Even`].
    pub joined_at: i64,
    /// The room they come from. A spread that would leave everybody where they are is turned by one
    /// place, where another one exists.
    pub from: Option<String>,
}

/// A room to be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Name of the room.
    pub id: String,
    /// How many it takes; `None` = any number.
    pub capacity: Option<u32>,
    /// How many others have a place in it.
    pub already: u32,
}

/// Who goes where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// Places, in the order of joining or of the draw.
    pub placements: Vec<Placement>,
    /// Identities for whom no room had a place.
    pub left_over: Vec<String>,
}

/// Spreads people over rooms.
pub fn spread(people: &[Person], rooms: &[Space], how: How, seed: u64) -> Spread {
    let mut dice = Dice::new(seed);
    let mut people: Vec<&Person> = people.iter().collect();
    people.sort_by(|a, b| {
        a.joined_at
            .cmp(&b.joined_at)
            .then_with(|| a.identity.cmp(&b.identity))
    });
    let mut order: Vec<usize> = (0..rooms.len()).collect();
    if how == How::Random {
        dice.shuffle(&mut people);
        dice.shuffle(&mut order);
    }

    // Rooms in the order in which they take people: each next one goes to the emptiest.
    let mut sizes: Vec<u32> = rooms.iter().map(|room| room.already).collect();
    let mut slots: Vec<usize> = Vec::with_capacity(people.len());
    for _ in &people {
        let emptiest = order
            .iter()
            .copied()
            .filter(|room| rooms[*room].capacity.is_none_or(|limit| sizes[*room] < limit))
            .min_by_key(|room| sizes[*room]);
        let Some(room) = emptiest else { break };
        sizes[room] += 1;
        slots.push(room);
    }

    let placed = &people[..slots.len()];
    let as_before = |slots: &[usize]| {
        placed
            .iter()
            .zip(slots)
            .all(|(person, room)| person.from.as_deref() == Some(rooms[*room].id.as_str()))
    };
    if as_before(&slots) && slots.len() > 1 {
        slots.rotate_left(1);
    }
    Spread {
        placements: placed
            .iter()
            .zip(&slots)
            .map(|(person, room)| Placement {
                identity: person.identity.clone(),
                room: Some(rooms[*room].id.clone()),
            })
            .collect(),
        left_over: people[slots.len()..]
            .iter()
            .map(|person| person.identity.clone())
            .collect(),
    }
}

/// A small generator (splitmix64): good enough to shuffle people, of no use for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let scaled = (u128::from(self.next()) * bound as u128) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(count: usize) -> Vec<Person> {
        // Joined in an order that is not the alphabetical one.
        (0..count)
            .map(|n| Person {
                identity: format!("p{:03}", count - n),
                joined_at: n as i64,
                from: None,
            })
            .collect()
    }

    fn spaces(limits: &[(Option<u32>, u32)]) -> Vec<Space> {
        limits
            .iter()
            .enumerate()
            .map(|(n, (capacity, already))| Space {
                id: format!("r{n}"),
                capacity: *capacity,
                already: *already,
            })
            .collect()
    }

    fn sizes(spread: &Spread, rooms: &[Space]) -> Vec<u32> {
        let count = |id: &str| {
            spread
                .placements
                .iter()
                .filter(|one| one.room.as_deref() == Some(id))
                .count()
        };
        rooms
            .iter()
            .map(|room| room.already + u32::try_from(count(&room.id)).unwrap())
            .collect()
    }

    #[test]
    fn even_goes_round_in_the_order_of_joining() {
        let people = people(5);
        let spread = spread(&people, &spaces(&[(None, 0), (None, 0)]), How::Even, 1);
        let rooms: Vec<_> = spread
            .placements
            .iter()
            .map(|one| one.room.as_deref().unwrap())
            .collect();
        assert_eq!(rooms, ["r0", "r1", "r0", "r1", "r0"]);
        let order: Vec<_> = spread.placements.iter().map(|one| one.identity.clone()).collect();
        assert_eq!(
            order,
            people.iter().map(|one| one.identity.clone()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn random_depends_on_the_seed_alone() {
        let (people, rooms) = (people(30), spaces(&[(None, 0); 4]));
        let once = spread(&people, &rooms, How::Random, 7);
        let mut reversed = people.clone();
        reversed.reverse();
        assert_eq!(once, spread(&reversed, &rooms, How::Random, 7));
        assert_ne!(once, spread(&people, &rooms, How::Random, 8));
    }

    #[test]
    fn a_spread_that_changes_nothing_is_turned() {
        let rooms = spaces(&[(Some(2), 0), (Some(2), 0)]);
        for how in [How::Even, How::Random] {
            let mut people = people(4);
            let first = spread(&people, &rooms, how, 3);
            for person in &mut people {
                let place = first
                    .placements
                    .iter()
                    .find(|one| one.identity == person.identity)
                    .unwrap();
                person.from.clone_from(&place.room);
            }
            let second = spread(&people, &rooms, how, 3);
            assert_ne!(first, second, "{how:?}");
            assert_eq!(sizes(&second, &rooms), [2, 2]);
        }
        // One room: there is nothing to turn to.
        let mut alone = people(2);
        for person in &mut alone {
            person.from = Some("r0".into());
        }
        assert_eq!(
            spread(&alone, &spaces(&[(None, 0)]), How::Even, 1)
                .placements
                .len(),
            2
        );
    }

    #[test]
    fn any_spread_keeps_limits_levels_sizes_and_loses_nobody() {
        for seed in 0..2_000 {
            let mut dice = Dice::new(seed);
            let people = people(dice.below(40));
            let rooms: Vec<Space> = (0..dice.below(7))
                .map(|n| Space {
                    id: format!("r{n}"),
                    capacity: (dice.below(3) > 0).then(|| u32::try_from(dice.below(9)).unwrap()),
                    already: u32::try_from(dice.below(4)).unwrap(),
                })
                .collect();
            let how = if seed % 2 == 0 { How::Even } else { How::Random };
            let spread = spread(&people, &rooms, how, seed);
            let sizes = sizes(&spread, &rooms);

            let mut seen: Vec<&str> = spread
                .placements
                .iter()
                .map(|one| one.identity.as_str())
                .chain(spread.left_over.iter().map(String::as_str))
                .collect();
            seen.sort_unstable();
            let mut all: Vec<&str> = people.iter().map(|one| one.identity.as_str()).collect();
            all.sort_unstable();
            assert_eq!(seen, all, "seed {seed}");

            for (room, size) in rooms.iter().zip(&sizes) {
                let got = size - room.already;
                if got > 0 {
                    assert!(
                        room.capacity.is_none_or(|limit| *size <= limit),
                        "seed {seed}: {room:?} {size}"
                    );
                }
                // Nobody could be better off: a room that took people is at most one above any that could still take some.
                for (other, lower) in rooms.iter().zip(&sizes) {
                    let has_place = other.capacity.is_none_or(|limit| *lower < limit);
                    assert!(
                        got == 0 || !has_place || *size <= lower + 1,
                        "seed {seed}: {sizes:?}"
                    );
                }
                let full = room.capacity.is_some_and(|limit| *size >= limit);
                assert!(spread.left_over.is_empty() || full, "seed {seed}");
            }
        }
    }
}
