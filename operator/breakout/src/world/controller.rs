//! The controller: places rooms, counts down, closes.

use plenum_crds::{Assignment, BreakoutRoomStatus};

use super::*;
use crate::plan::{decisions, effective, ms};
use crate::testing::{at, set_ready};

/// People who are still in a closed room this long after are brought back by the worker.
const GRACE_MS: i64 = 3_000;
/// A deleted room waits this long for the gateways to move its people.
const DELETION_MS: i64 = 15_000;

impl World {
    pub(super) fn reconcile(&mut self) {
        self.looks.remove(&self.now);
        if self.now < self.controller_down_until {
            return self.look_at(self.controller_down_until);
        }
        let names: Vec<String> = self.objects.rooms.keys().cloned().collect();
        let mut any = false;
        for name in names {
            let before = self.objects.rooms[&name].clone();
            match self.reconcile_room(before.clone()) {
                Some(after) => {
                    any |= after != before;
                    self.objects.rooms.insert(name, after);
                }
                None => {
                    any = true;
                    self.objects.rooms.remove(&name);
                }
            }
        }
        if any {
            self.changed();
        }
    }

    fn again_at(&mut self, time: i64) {
        if time > self.now {
            self.look_at(time);
        }
    }

    fn reconcile_room(&mut self, mut room: BreakoutRoom) -> Option<BreakoutRoom> {
        let key: Room = room.metadata.name.clone();
        let is_empty = self.halls.get(&key).is_none_or(|hall| hall.seats.is_empty());
        if let Some(deleted) = &room.metadata.deletion_timestamp {
            let until = ms(deleted) + DELETION_MS;
            if is_empty || self.now >= until {
                self.end_hall(&key);
                return None;
            }
            self.again_at(until);
            self.again_at(self.now + 1_000);
            return Some(room);
        }
        let wanted = effective(&room, decisions(&self.objects.meeting));
        let mut status = room.status.clone().unwrap_or_default();
        let written = status.closes_at.as_ref().map(ms);
        let closes_at = if wanted.countdown_due {
            let countdown = self.objects.meeting.spec.breakouts.closing_countdown.as_millis();
            let end = (self.now + i64::try_from(countdown).unwrap()).div_euclid(1_000) * 1_000 + 1_000;
            Some(written.filter(|at| *at > self.now).map_or(end, |at| at.min(end)))
        } else {
            wanted.closes_at_ms
        };
        let time_over = closes_at.is_some_and(|at| at <= self.now);
        status.observed_generation = room.metadata.generation.unwrap();
        status.closes_at = closes_at.map(at);
        if let Some(time) = closes_at {
            self.again_at(time);
        }
        if wanted.open && !time_over {
            self.keep_open(&key, &room, &mut status);
        } else if status.assignment.is_some() && (closes_at.is_none() || time_over) {
            let until = closes_at.unwrap_or(self.now) + GRACE_MS;
            if is_empty || self.now >= until {
                self.end_hall(&key);
                status.assignment = None;
                status.opened_at = status.opened_at.filter(|_| wanted.open);
            } else {
                self.again_at(until);
                self.again_at(self.now + 500);
            }
        }
        room.status = Some(status);
        Some(room)
    }

    fn keep_open(&mut self, key: &Room, room: &BreakoutRoom, status: &mut BreakoutRoomStatus) {
        let limit = limit_of(&self.objects.meeting, room);
        if let Some(hall) = self.halls.get_mut(key) {
            if limit < hall.limit {
                hall.before = hall.seats.len();
            }
            hall.limit = limit;
        }
        let told = status.assignment.is_some() && self.halls.contains_key(key);
        let is_ready = status.conditions.iter().any(|one| one.status == "True");
        if told || (status.assignment.is_some() && !is_ready) {
            return;
        }
        // Not placed yet, or its worker is lost.
        let epoch = status.epoch.unwrap_or(0) + 1;
        let worker = self.dice.below(self.workers).to_string();
        status.epoch = Some(epoch);
        status.assignment = Some(Assignment {
            worker: worker.clone(),
            worker_uid: worker,
            worker_namespace: "plenum".into(),
            epoch,
        });
        set_ready(status, false);
        let lag = self.lag(50, 2_000);
        self.at(
            lag,
            Event::Told {
                room: key.clone(),
                epoch,
            },
        );
    }

    /// A worker takes the room, and the status says so.
    pub(super) fn told(&mut self, room: Room, epoch: i64) {
        let hall = |worker, limit| Hall {
            worker,
            epoch,
            limit,
            before: 0,
            seats: BTreeSet::new(),
            kept: BTreeMap::new(),
        };
        let Some(name) = &room else {
            if epoch == self.main_epoch {
                let worker = self.dice.below(self.workers);
                let limit = self.objects.meeting.spec.max_participants as usize;
                self.halls.insert(None, hall(worker, limit));
            }
            return;
        };
        let limit = self
            .objects
            .rooms
            .get(name)
            .map(|object| limit_of(&self.objects.meeting, object));
        let Some(object) = self.objects.rooms.get_mut(name) else {
            return;
        };
        let status = object.status.as_mut().unwrap();
        let Some(assignment) = status.assignment.as_ref().filter(|one| one.epoch == epoch) else {
            return;
        };
        let worker = assignment.worker.parse().unwrap();
        set_ready(status, true);
        status
            .opened_at
            .get_or_insert(at(self.now.div_euclid(1_000) * 1_000));
        self.halls.insert(room, hall(worker, limit.unwrap()));
        self.changed();
    }
}

pub(super) fn limit_of(meeting: &Meeting, room: &BreakoutRoom) -> usize {
    room.spec
        .max_participants
        .unwrap_or(meeting.spec.max_participants) as usize
}
