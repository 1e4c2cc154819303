//! Workers: places, limits, transfers, crashes.

use super::*;

/// How long a place is kept for somebody on the way.
const KEPT_MS: i64 = 30_000;

impl World {
    /// Takes a place in the room, as its worker does.
    fn admit(&mut self, who: usize, room: &Room, epoch: Option<i64>) -> Result<(), Code> {
        let now = self.now;
        let hall = self.halls.get_mut(room).ok_or(Code::RoomNotFound)?;
        if epoch.is_some_and(|epoch| epoch != hall.epoch) {
            return Err(Code::EpochStale);
        }
        hall.kept.retain(|_, until| *until > now);
        let kept_for_others = hall.kept.keys().filter(|other| **other != who).count();
        if hall.seats.len() + kept_for_others >= hall.limit {
            self.tally.full += 1;
            return Err(Code::MeetingFull);
        }
        Ok(())
    }

    pub(super) fn sit(&mut self, who: usize, room: &Room, epoch: Option<i64>) -> Result<(), Code> {
        self.admit(who, room, epoch)?;
        self.stand_up(who);
        let hall = self.halls.get_mut(room).unwrap();
        hall.kept.remove(&who);
        hall.seats.insert(who);
        self.clients[who].since = self.now;
        Ok(())
    }

    pub(super) fn stand_up(&mut self, who: usize) {
        for hall in self.halls.values_mut() {
            hall.seats.remove(&who);
        }
    }

    /// Something that should not happen.
    fn hiccup(&mut self) -> Result<(), Code> {
        if !self.calm && self.chance(20) {
            return Err(Code::Internal);
        }
        Ok(())
    }

    pub(super) fn transfer(&mut self, who: usize, life: u64, to: Room, epoch: i64) {
        let Some(from) = self.place_of(who) else { return };
        let same_worker = self.halls.get(&to).map(|hall| hall.worker) == Some(self.halls[&from].worker);
        let here = if same_worker {
            Ok(())
        } else {
            Err(Code::RoomNotFound)
        };
        let outcome = self
            .hiccup()
            .and(here)
            .and_then(|()| self.sit(who, &to, Some(epoch)));
        if outcome.is_ok() {
            self.tally.transfers += 1;
        }
        let lag = self.lag(1, 100);
        self.at(
            lag,
            Event::Answer {
                who,
                life,
                outcome: outcome.map(|()| to),
            },
        );
    }

    pub(super) fn reserve(&mut self, who: usize, life: u64, to: Room, epoch: i64) {
        let outcome = self.hiccup().and_then(|()| self.admit(who, &to, Some(epoch)));
        let lag = self.lag(1, 100);
        match outcome {
            Ok(()) => {
                let until = self.now + KEPT_MS;
                self.halls.get_mut(&to).unwrap().kept.insert(who, until);
                self.at(lag, Event::Switch { who, life, to });
            }
            Err(code) => self.at(
                lag,
                Event::Answer {
                    who,
                    life,
                    outcome: Err(code),
                },
            ),
        }
    }

    /// The room ends: its people go to the main room if that is here, else their sessions end.
    pub(super) fn end_hall(&mut self, room: &Room) {
        let Some(hall) = self.halls.remove(room) else {
            return;
        };
        for who in hall.seats {
            let main_is_here = self
                .halls
                .get(&None)
                .is_some_and(|main| main.worker == hall.worker);
            if main_is_here && self.sit(who, &None, None).is_ok() {
                self.tally.relocations += 1;
                let life = self.clients[who].life;
                let lag = self.lag(1, 100);
                self.at(lag, Event::Relocated { who, life });
            } else {
                self.lose(who);
            }
        }
    }

    /// The session is gone; the client comes again by itself.
    pub(super) fn lose(&mut self, who: usize) {
        self.stand_up(who);
        let client = &mut self.clients[who];
        client.state = State::Lost;
        let life = client.next_life();
        let lag = self.lag(100, 1_500);
        self.at(
            lag,
            Event::Enter {
                who,
                life,
                sent_to: None,
            },
        );
    }

    pub(super) fn crash_worker(&mut self, worker: usize) {
        self.tally.worker_crashes += 1;
        let rooms: Vec<Room> = self
            .halls
            .iter()
            .filter(|(_, hall)| hall.worker == worker)
            .map(|(room, _)| room.clone())
            .collect();
        let mut lost = Vec::new();
        for room in rooms {
            lost.extend(self.halls.remove(&room).unwrap().seats);
            match room {
                None => {
                    self.main_epoch += 1;
                    let epoch = self.main_epoch;
                    let lag = self.lag(500, 6_000);
                    self.at(lag, Event::Told { room: None, epoch });
                }
                Some(_) => {
                    let lag = self.lag(200, 3_000);
                    self.look_at(self.now + lag);
                }
            }
        }
        for who in lost {
            self.lose(who);
        }
    }
}
