//! The link to a meeting's hub.
//!
//! Owns the stream to the worker that holds the main room: it is opened again, with what this
//! gateway knows, wherever that room goes. Invariants: the hub knows of each client here what the
//! list of clients says, whatever was lost on the way; a post is sent, in order, until it comes back
//! as an entry, so that none is lost with a hub; a meeting without clients gets no new link.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use plenum_errors::{Code, PublicError};
use plenum_worker_api::v1::{Attach, Gone, Here, MeetingDown, MeetingUp, Post, meeting_down, meeting_up};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Reach, Shared, lock};
use crate::gateway::route::Route;
use crate::gateway::workers::refused;

/// Frames under way to the hub.
const QUEUE: usize = 64;
/// How long a hub may take to answer, or to take a frame.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Why a link ended.
enum End {
    /// The meeting has no clients here any more.
    Over,
    /// The main room is elsewhere now, or the hub went away.
    Lost,
}

/// Keeps the link for as long as the meeting has clients here.
pub(super) async fn run(meeting: Arc<Shared>, reach: Reach, mut ends: watch::Receiver<()>) {
    let mut changes = reach.routes.changes();
    let mut clients = meeting.clients_changed();
    let mut pause = FIRST_PAUSE;
    let room = meeting.room(None);
    loop {
        let route = match reach.routes.lookup(&room) {
            Ok(route) if !lock(&meeting.clients).is_empty() => route,
            // Nobody to follow the hub for yet, or nowhere to follow it.
            _ => {
                tokio::select! {
                    _ = ends.changed() => return,
                    _ = clients.changed() => {}
                    () = changes.next() => {}
                }
                continue;
            }
        };
        let attached = tokio::select! {
            _ = ends.changed() => return,
            attached = attach(&meeting, &reach, &route) => attached,
        };
        match attached {
            Ok(mut link) => {
                reach.metrics.hub_streams.inc();
                lock(&meeting.posts)
                    .iter_mut()
                    .for_each(|posted| posted.sent = false);
                let end = link.follow(&meeting, &reach, &route, &mut ends).await;
                reach.metrics.hub_streams.dec();
                meeting.caught_up.send_replace(false);
                if matches!(end, End::Over) {
                    return;
                }
                if link.heard {
                    pause = FIRST_PAUSE;
                }
            }
            Err(error) => tracing::debug!(room, code = %error.code, "no hub yet"),
        }
        tokio::select! {
            _ = ends.changed() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// An open stream.
struct Link {
    up: mpsc::Sender<MeetingUp>,
    down: Streaming<MeetingDown>,
    /// What the hub was told of the clients here.
    told: HashMap<String, Here>,
    heard: bool,
    /// The hub told all that it remembers: what has not come back by now was not numbered.
    caught_up: bool,
    /// Counts as a user of its connection.
    _lease: crate::gateway::workers::Lease,
}

async fn attach(meeting: &Shared, reach: &Reach, route: &Route) -> Result<Link, PublicError> {
    let lease = reach.workers.lease(&route.worker)?;
    let (up, frames) = mpsc::channel(QUEUE);
    let attach = {
        let journal = meeting.journal();
        Attach {
            meeting: meeting.room(None),
            epoch: route.epoch,
            tail: journal.tail(),
            standing_json: journal.standing_json().to_owned(),
        }
    };
    let first = MeetingUp {
        frame: Some(meeting_up::Frame::Attach(attach)),
    };
    up.try_send(first)
        .map_err(|_| PublicError::new(Code::Internal, "a new queue is full"))?;
    let mut client = lease.client.clone();
    let call = client.meeting(ReceiverStream::new(frames));
    let down = tokio::time::timeout(PATIENCE, call)
        .await
        .map_err(|_| PublicError::new(Code::WorkerUnreachable, "it does not answer"))?
        .map_err(|status| refused(&status))?
        .into_inner();
    Ok(Link {
        up,
        down,
        told: HashMap::new(),
        heard: false,
        caught_up: false,
        _lease: lease,
    })
}

impl Link {
    async fn follow(
        &mut self,
        meeting: &Shared,
        reach: &Reach,
        route: &Route,
        ends: &mut watch::Receiver<()>,
    ) -> End {
        let mut changes = reach.routes.changes();
        let mut clients = meeting.clients_changed();
        clients.mark_changed();
        meeting.posted.notify_one();
        let room = meeting.room(None);
        loop {
            let done = tokio::select! {
                _ = ends.changed() => {
                    let _ = self.tell_who_is_here(meeting).await;
                    let _ = self.post(meeting).await;
                    return End::Over;
                }
                frame = self.down.message() => match frame {
                    Ok(Some(frame)) => {
                        self.heard = true;
                        self.caught_up |= matches!(frame.frame, Some(meeting_down::Frame::CaughtUp(_)));
                        hear(meeting, frame);
                        self.post(meeting).await
                    }
                    Ok(None) | Err(_) => Err(()),
                },
                _ = clients.changed() => self.tell_who_is_here(meeting).await,
                () = meeting.posted.notified() => self.post(meeting).await,
                () = changes.next() => match reach.routes.lookup(&room) {
                    Ok(now) if now != *route => Err(()),
                    _ => Ok(()),
                },
            };
            if done.is_err() {
                return End::Lost;
            }
        }
    }

    async fn send(&self, frame: meeting_up::Frame) -> Result<(), ()> {
        let frame = MeetingUp { frame: Some(frame) };
        match tokio::time::timeout(PATIENCE, self.up.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(()),
        }
    }

    /// What changed since the hub was told last.
    async fn tell_who_is_here(&mut self, meeting: &Shared) -> Result<(), ()> {
        let clients = meeting.connected();
        let gone: Vec<Here> = self
            .told
            .values()
            .filter(|here| !clients.contains_key(&here.nonce))
            .cloned()
            .collect();
        for here in gone {
            self.told.remove(&here.nonce);
            self.send(meeting_up::Frame::Gone(Gone {
                identity: here.identity,
                nonce: here.nonce,
            }))
            .await?;
        }
        for (nonce, client) in clients {
            if !client.takes_part {
                continue;
            }
            let here = Here {
                identity: client.identity,
                nonce: nonce.clone(),
                room: client.room.unwrap_or_default(),
                name: client.name,
                role: client.role.as_str().to_owned(),
            };
            if self.told.get(&nonce) != Some(&here) {
                self.send(meeting_up::Frame::Here(here.clone())).await?;
                self.told.insert(nonce, here);
            }
        }
        Ok(())
    }

    /// What waits.
    async fn post(&self, meeting: &Shared) -> Result<(), ()> {
        while let Some(post) = self.next_post(meeting) {
            self.send(meeting_up::Frame::Post(post)).await?;
        }
        Ok(())
    }

    fn next_post(&self, meeting: &Shared) -> Option<Post> {
        if !self.caught_up {
            return None;
        }
        let mut posts = lock(&meeting.posts);
        let next = posts.iter_mut().find(|posted| !posted.sent)?;
        next.sent = true;
        Some(next.post.clone())
    }
}

/// One frame of the hub.
fn hear(meeting: &Shared, frame: MeetingDown) {
    use meeting_down::Frame;
    match frame.frame {
        Some(Frame::Entry(entry)) => {
            let mut posts = lock(&meeting.posts);
            let own = posts.iter().position(|posted| {
                posted.post.signal_json == entry.signal_json
                    && posted.post.audience_json == entry.audience_json
            });
            own.map(|index| posts.remove(index));
            drop(posts);
            if !meeting.journal().push(entry) {
                return;
            }
        }
        Some(Frame::StandingJson(json)) => meeting.journal().stand(json),
        Some(Frame::CaughtUp(last)) => {
            meeting.journal().caught_up(last);
            meeting.caught_up.send_replace(true);
        }
        Some(Frame::Superseded(superseded)) => {
            if let Some(client) = lock(&meeting.clients).get(&superseded.nonce) {
                client.superseded.notify_one();
            }
            return;
        }
        None => return,
    }
    meeting.news.send_modify(|version| *version += 1);
}
