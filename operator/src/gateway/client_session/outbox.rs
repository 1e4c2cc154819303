//! A queue before a channel, so that whoever fills it never waits.

use std::collections::VecDeque;

use tokio::sync::mpsc;

/// What waits for a place in a channel, in order.
pub(super) struct Outbox<T> {
    sender: mpsc::Sender<T>,
    waiting: VecDeque<T>,
}

impl<T> Outbox<T> {
    pub(super) fn new(sender: mpsc::Sender<T>) -> Outbox<T> {
        Outbox {
            sender,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, item: T) {
        self.waiting.push_back(item);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Passes on one. An error means that nobody receives any more. Nothing is lost where the future
    /// is dropped.
    pub(super) async fn flush_one(&mut self) -> Result<(), ()> {
        let permit = self.sender.reserve().await.map_err(|_| ())?;
        if let Some(item) = self.waiting.pop_front() {
            permit.send(item);
        }
        Ok(())
    }

    /// Passes on all.
    pub(super) async fn flush(&mut self) -> Result<(), ()> {
        while !self.is_empty() {
            self.flush_one().await?;
        }
        Ok(())
    }
}
