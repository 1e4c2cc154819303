//! What goes to one client, and what may have to be said again.
//!
//! Owns the numbering of frames and the replay memory of a session. Invariants: frame numbers rise by
//! one over all connections of a session; sending never waits.

use std::collections::VecDeque;

use bytes::Bytes;
use plenum_worker_api::v1::{Closed, WorkerFrame, worker_frame::Frame};
use tokio::sync::mpsc;

use super::limits;
use crate::room::Worth;

/// Sending did not work: the client reads too slowly or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client's connection takes no more frames")]
pub struct Clogged;

#[derive(Debug)]
struct Kept {
    seq: u64,
    worth: Worth,
    what: What,
}

/// Something said: a message is shared with the others who are told it.
#[derive(Debug, Clone)]
enum What {
    Response(Bytes),
    /// To whoever speaks for the client. Rare, and larger than what is kept by the hundred.
    Aside(Box<Frame>),
}

impl What {
    fn len(&self) -> usize {
        match self {
            What::Response(bytes) => bytes.len(),
            What::Aside(frame) => frame.encoded_len(),
        }
    }

    fn frame(self) -> Frame {
        match self {
            What::Response(bytes) => Frame::Response(bytes.to_vec()),
            What::Aside(frame) => *frame,
        }
    }
}

/// The way to one client.
#[derive(Debug, Default)]
pub struct Outbound {
    connection: Option<mpsc::Sender<WorkerFrame>>,
    last_seq: u64,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// Frames above this number were certainly not seen when the connection was lost.
    certain_up_to: u64,
}

/// Frames that were on their way when a connection broke, at most.
const IN_FLIGHT: u64 = 32;

impl Outbound {
    /// Is there a connection?
    pub fn connected(&self) -> bool {
        self.connection.is_some()
    }

    /// The connection is gone.
    pub fn disconnect(&mut self) {
        if self.connection.take().is_some() {
            self.certain_up_to = self.last_seq.saturating_sub(IN_FLIGHT);
        }
    }

    /// There is a new connection.
    pub fn connect(&mut self, connection: mpsc::Sender<WorkerFrame>) {
        self.disconnect();
        self.connection = Some(connection);
    }

    /// Says something; keeps it for a while.
    pub fn say(&mut self, bytes: Bytes, worth: Worth) -> Result<(), Clogged> {
        self.keep(What::Response(bytes), worth)
    }

    /// Says something to whoever speaks for the client. What finds no connection waits for the next; what
    /// was on its way when one broke is only said again where it is known that it did not arrive.
    pub fn say_aside(&mut self, frame: Frame) -> Result<(), Clogged> {
        let worth = match self.connection {
            None => Worth::Once,
            Some(_) => Worth::State,
        };
        self.keep(What::Aside(Box::new(frame)), worth)
    }

    fn keep(&mut self, what: What, worth: Worth) -> Result<(), Clogged> {
        self.last_seq += 1;
        let seq = self.last_seq;
        if matches!(worth, Worth::Answer | Worth::Offer) {
            self.kept.retain(|k| {
                let stays = k.worth != worth;
                self.kept_bytes -= if stays { 0 } else { k.what.len() };
                stays
            });
        }
        self.kept_bytes += what.len();
        self.kept.push_back(Kept {
            seq,
            worth,
            what: what.clone(),
        });
        while self.kept.len() > limits::REPLAY_FRAMES || self.kept_bytes > limits::REPLAY_BYTES {
            let Some(old) = self.kept.pop_front() else { break };
            self.kept_bytes -= old.what.len();
        }
        self.push(seq, what.frame())
    }

    /// Says something that means nothing later: a pong.
    pub fn say_now(&mut self, bytes: Vec<u8>) -> Result<(), Clogged> {
        self.last_seq += 1;
        self.push(self.last_seq, Frame::Response(bytes))
    }

    fn push(&mut self, seq: u64, frame: Frame) -> Result<(), Clogged> {
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        connection
            .try_send(WorkerFrame {
                seq,
                frame: Some(frame),
            })
            .map_err(|_| Clogged)
    }

    /// Says again what a client that resumes may have missed. `seen` = 0: the gateway does not know.
    /// `all`: its socket never broke, so state that was told counts too.
    pub fn replay(&mut self, seen: u64, up_to: u64, all: bool) -> Result<(), Clogged> {
        let from = if seen > 0 { seen } else { self.certain_up_to };
        let again: Vec<What> = self
            .kept
            .iter()
            .filter(|k| k.seq > from && k.seq <= up_to && (all || k.worth == Worth::Once))
            .map(|k| k.what.clone())
            .collect();
        for what in again {
            // A new number: gateways expect them to rise.
            self.last_seq += 1;
            self.push(self.last_seq, what.frame())?;
        }
        Ok(())
    }

    /// Is the frame of that number still kept?
    pub fn keeps(&self, seq: u64) -> bool {
        self.kept.iter().any(|k| k.seq == seq)
    }

    /// The number of the last frame.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The last frame, best effort.
    pub fn close(mut self, code: &str, detail: &str) {
        let closed = Closed {
            code: code.to_owned(),
            detail: detail.to_owned(),
        };
        self.last_seq += 1;
        let _ = self.push(self.last_seq, Frame::Closed(closed));
    }
}

/// A token bucket of client messages.
#[derive(Debug)]
pub struct Allowance {
    tokens: f64,
    at: std::time::Duration,
}

impl Allowance {
    /// A full bucket.
    pub fn new(now: std::time::Duration) -> Self {
        Self {
            tokens: limits::MESSAGE_BURST,
            at: now,
        }
    }

    /// Takes one; false: too many.
    pub fn take(&mut self, now: std::time::Duration) -> bool {
        let refill = now.saturating_sub(self.at).as_secs_f64() * limits::MESSAGES_PER_SECOND;
        self.tokens = (self.tokens + refill).min(limits::MESSAGE_BURST);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(out: &mut Outbound, text: &str, worth: Worth) {
        out.say(Bytes::copy_from_slice(text.as_bytes()), worth).unwrap();
    }

    /// What a client that saw `seen` frames is told again.
    fn again(mut out: Outbound, seen: u64) -> Vec<String> {
        let up_to = out.last_seq();
        let (connection, mut frames) = mpsc::channel(64);
        out.connect(connection);
        out.replay(seen, up_to, true).unwrap();
        drop(out);
        let text = |frame| match frame {
            Some(Frame::Response(bytes)) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| frames.try_recv().ok())
            .map(|f| text(f.frame))
            .collect()
    }

    #[test]
    fn of_answers_and_of_offers_the_last_is_kept() {
        let mut out = Outbound::default();
        for round in 1..=3 {
            said(&mut out, &format!("answer {round}"), Worth::Answer);
            said(&mut out, &format!("offer {round}"), Worth::Offer);
            said(&mut out, &format!("once {round}"), Worth::Once);
        }
        let kept: usize = out.kept.iter().map(|k| k.what.len()).sum();
        assert_eq!(out.kept_bytes, kept);
        assert_eq!(
            again(out, 1),
            ["once 1", "once 2", "answer 3", "offer 3", "once 3"]
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut out = Outbound::default();
        for _ in 0..2 * limits::REPLAY_FRAMES {
            said(&mut out, "state", Worth::State);
        }
        assert_eq!(out.kept.len(), limits::REPLAY_FRAMES);
        said(&mut out, &"x".repeat(limits::REPLAY_BYTES), Worth::State);
        assert_eq!(out.kept.len(), 1);
    }
}
