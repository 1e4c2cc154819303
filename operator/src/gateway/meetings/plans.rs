//! What the objects say of a meeting, as one value that is rebuilt when they change.
//!
//! Owns the views of the meetings that have clients here. Invariants: one view per meeting, however
//! many clients it has; a burst of changes makes one view; a meeting whose objects did not change
//! keeps its view.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use plenum_breakout::Plan;
use plenum_crds::{BreakoutRoom, Meeting};

use super::Meetings;
use crate::gateway::route::Routes;

/// Changes that follow each other within this are one.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// A meeting, its breakout rooms and what they amount to.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) meeting: Arc<Meeting>,
    pub(crate) rooms: Vec<Arc<BreakoutRoom>>,
    pub(crate) plan: Arc<Plan>,
}

impl View {
    pub(crate) fn new(meeting: Arc<Meeting>, rooms: Vec<Arc<BreakoutRoom>>) -> View {
        let plan = Arc::new(Plan::of(&meeting, rooms.iter().map(AsRef::as_ref)));
        View { meeting, rooms, plan }
    }

    /// Of the meeting of that name as it is now; `None` where there is none.
    pub(crate) fn read(routes: &Routes, namespace: &str, name: &str) -> Option<View> {
        let meeting = routes.meetings.get(namespace, name)?;
        let rooms = routes.breakouts.all();
        let own = rooms
            .into_iter()
            .filter(|room| {
                room.spec.meeting_ref.name == name && room.namespace().as_deref() == Some(namespace)
            })
            .collect();
        Some(View::new(meeting, own))
    }

    /// Was it made of these very objects?
    fn is_of(&self, meeting: &Arc<Meeting>, rooms: &[Arc<BreakoutRoom>]) -> bool {
        // The mirrors replace an object where it changed and leave it where it did not.
        let known: HashSet<*const BreakoutRoom> = self.rooms.iter().map(Arc::as_ptr).collect();
        Arc::ptr_eq(&self.meeting, meeting)
            && known.len() == rooms.len()
            && rooms.iter().all(|room| known.contains(&Arc::as_ptr(room)))
    }
}

/// Keeps the views of all meetings with clients here. Never returns.
pub(crate) async fn keep(meetings: Arc<Meetings>) {
    let routes = meetings.reach.routes.clone();
    let mut of_meetings = routes.meetings.changed();
    let mut of_rooms = routes.breakouts.changed();
    loop {
        let changed = tokio::select! {
            changed = of_meetings.changed() => changed,
            changed = of_rooms.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        tokio::time::sleep(DEBOUNCE).await;
        of_meetings.mark_unchanged();
        of_rooms.mark_unchanged();
        refresh(&meetings);
    }
}

/// Rebuilds the views whose objects changed.
pub(crate) fn refresh(meetings: &Meetings) {
    let live = meetings.all();
    if live.is_empty() {
        return;
    }
    let routes = &meetings.reach.routes;
    let mut by_meeting: HashMap<(String, String), Vec<Arc<BreakoutRoom>>> = HashMap::new();
    for room in routes.breakouts.all() {
        let key = (
            room.namespace().unwrap_or_default(),
            room.spec.meeting_ref.name.clone(),
        );
        by_meeting.entry(key).or_default().push(room);
    }
    for one in live {
        // A meeting that is gone is remembered as it was: its rooms end by themselves.
        let Some(meeting) = routes.meetings.get(&one.namespace, &one.name) else {
            continue;
        };
        let rooms = by_meeting
            .remove(&(one.namespace.clone(), one.name.clone()))
            .unwrap_or_default();
        if !one.view().is_of(&meeting, &rooms) {
            one.set_view(View::new(meeting, rooms));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use plenum_crds::{BreakoutRoomSpec, MeetingRef, MeetingSpec};

    pub(crate) fn meeting(name: &str) -> Meeting {
        let mut meeting = Meeting::new(name, MeetingSpec::default());
        meeting.metadata.namespace = Some("demo".into());
        meeting
    }

    /// An open room that nobody has placed.
    pub(crate) fn room(meeting: &str, name: &str) -> BreakoutRoom {
        let spec = BreakoutRoomSpec {
            meeting_ref: MeetingRef { name: meeting.into() },
            title: None,
            max_participants: None,
            participants: Vec::new(),
            close_after: None,
            close_at: None,
            open: true,
        };
        let mut room = BreakoutRoom::new(name, spec);
        room.metadata.namespace = Some("demo".into());
        room.metadata.generation = Some(1);
        room
    }

    pub(crate) fn view(meeting: Meeting, rooms: Vec<BreakoutRoom>) -> View {
        View::new(Arc::new(meeting), rooms.into_iter().map(Arc::new).collect())
    }

    #[test]
    fn a_view_is_of_the_objects_it_was_made_of_and_no_others() {
        let made_of = view(meeting("standup"), vec![room("standup", "red")]);
        assert!(made_of.is_of(&made_of.meeting, &made_of.rooms));
        let again = view(meeting("standup"), vec![room("standup", "red")]);
        assert!(!made_of.is_of(&again.meeting, &made_of.rooms));
        assert!(!made_of.is_of(&made_of.meeting, &again.rooms));
        assert!(!made_of.is_of(&made_of.meeting, &[]));
    }
}
