//! Decisions that the objects have overtaken, taken out of the Meeting.
//!
//! Owns when that is done. Invariant: a decision is taken out only when it has been overtaken for a
//! while by all that this gateway sees, since a watch may show a decision before the room it is about.
//! Without this a decision would stand again once its object goes back to what it said before.

use std::sync::Arc;
use std::time::Duration;

use plenum_breakout::pruned;
use plenum_crds::BreakoutDecisions;
use tokio::sync::watch;

use super::{Reach, Shared, desk, objects};

/// How long a decision must have been overtaken.
const SURE: Duration = Duration::from_secs(1);

/// Tidies up for as long as the meeting has clients here.
pub(super) async fn run(meeting: Arc<Shared>, reach: Reach, mut ends: watch::Receiver<()>) {
    let mut views = meeting.views();
    loop {
        let overtaken = without_overtaken(&meeting);
        let wait = async {
            match &overtaken {
                Some(_) => tokio::time::sleep(SURE).await,
                None => drop(views.changed().await),
            }
        };
        tokio::select! {
            _ = ends.changed() => return,
            () = wait => {}
        }
        // What was decided or applied meanwhile is looked at anew.
        if overtaken.is_none() || without_overtaken(&meeting) != overtaken {
            continue;
        }
        let (client, rooms) = (&reach.client, || desk::mirrored(&meeting, &reach));
        let outcome =
            objects::write_session(client, &meeting.namespace, &meeting.name, rooms, |fresh, plan| {
                Ok(pruned(fresh, plan).map(|breakouts| objects::with_breakouts(fresh, breakouts)))
            })
            .await;
        if let Err(error) = outcome {
            tracing::debug!(code = %error.code, meeting = meeting.room(None), "overtaken decisions stay for now");
        }
        // The watch shows the outcome; a failed write is tried again with the next change.
        tokio::select! {
            _ = ends.changed() => return,
            changed = views.changed() => if changed.is_err() { return },
        }
    }
}

fn without_overtaken(meeting: &Shared) -> Option<BreakoutDecisions> {
    let view = meeting.view();
    pruned(&view.meeting, &view.plan)
}
