//! One direction of the link, at work.
//!
//! Owns its threads: one reads packets off a device, one holds the [`Link`] and writes what leaves it to the
//! other device. The link is the second thread's alone; everything reaches it as an [`Order`], in order.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tappers::Tun;

use crate::control::Change;
use crate::link::{Counters, Link};

enum Order {
    Packet(Duration, Vec<u8>),
    Change(Change),
    Count(Sender<Counters>),
}

/// The thread of a direction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// A running direction. It runs until the process ends.
#[derive(Debug)]
pub(crate) struct Carrier {
    orders: Sender<Order>,
}

impl Carrier {
    pub(crate) fn start(
        start: Instant,
        random: fastrand::Rng,
        from: Arc<Tun>,
        to: Arc<Tun>,
    ) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let packets = orders.clone();
        thread::Builder::new()
            .name("read".into())
            .spawn(move || read(start, &from, &packets))?;
        thread::Builder::new()
            .name("link".into())
            .spawn(move || carry(start, Link::new(random), &inbox, &to))?;
        Ok(Self { orders })
    }

    pub(crate) fn change(&self, change: Change) -> Result<(), Stopped> {
        self.orders.send(Order::Change(change)).map_err(|_| Stopped)
    }

    pub(crate) fn counters(&self) -> Result<Counters, Stopped> {
        let (answer, counters) = mpsc::channel();
        self.orders.send(Order::Count(answer)).map_err(|_| Stopped)?;
        counters.recv().map_err(|_| Stopped)
    }
}

fn read(start: Instant, from: &Tun, packets: &Sender<Order>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    // A device that is taken away ends the direction, which its next command finds out.
    while let Ok(length) = from.recv(&mut buffer) {
        let packet = Order::Packet(start.elapsed(), buffer[..length].to_vec());
        if packets.send(packet).is_err() {
            return;
        }
    }
}

fn carry(start: Instant, mut link: Link, inbox: &Receiver<Order>, to: &Tun) {
    loop {
        while let Some(packet) = link.pop(start.elapsed()) {
            // The device may be down while it is moved and set up: to its packets that is a dead line.
            if to.send(&packet).is_err() {
                link.refused();
            }
        }
        let order = match link.next() {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => inbox.recv_timeout(due.saturating_sub(start.elapsed())),
        };
        match order {
            Ok(Order::Packet(at, packet)) => link.push(at, packet),
            Ok(Order::Change(change)) => link.change(start.elapsed(), &change),
            Ok(Order::Count(answer)) => {
                // Who asked may have gone.
                let _gone = answer.send(link.counters());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
