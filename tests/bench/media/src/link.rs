//! Between signalling and media.
//!
//! Owns the small interface by which a front tells a client's transport what the server answered, and
//! learns that it is connected.

use std::net::SocketAddr;
use std::sync::mpsc::Sender;

use tokio::sync::watch;

use crate::description::{Local, Remote};

/// What signalling tells a transport.
#[derive(Debug)]
pub(crate) enum Order {
    Answered(Remote),
    Trickled(SocketAddr),
}

/// One client's media, as its signalling sees it.
pub(crate) struct Link {
    pub(crate) local: Local,
    /// Which client of the thread behind the channel.
    pub(crate) index: usize,
    pub(crate) orders: Sender<(usize, Order)>,
    pub(crate) connected: watch::Receiver<bool>,
}

impl Link {
    /// Whether the transport's thread still listens.
    pub(crate) fn order(&self, order: Order) -> bool {
        self.orders.send((self.index, order)).is_ok()
    }
}
