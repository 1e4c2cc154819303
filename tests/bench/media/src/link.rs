//! Between signalling and media.
//!
//! Owns the small interface by which a front tells a client's transport what the server answered, and
//! learns that it is connected; and the opening of both ends.

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::Sender;

use tokio::sync::watch;

use crate::description::{Local, Remote};
use crate::error::BenchError;
use crate::socket;
use crate::transport::{Identity, Transport};

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

/// One client's media, as the thread that runs it has it.
pub(crate) struct Ends {
    pub(crate) socket: UdpSocket,
    pub(crate) transport: Transport,
    /// Tells that it is connected.
    pub(crate) report: watch::Sender<bool>,
}

impl Ends {
    /// A socket and a transport of its own, and the way to them.
    pub(crate) fn open(
        identity: &Identity,
        index: usize,
        orders: Sender<(usize, Order)>,
    ) -> Result<(Ends, Link), BenchError> {
        let socket = socket::bind()?;
        let address = socket.local_addr().map_err(BenchError::io("a UDP socket"))?;
        let transport = Transport::new(identity, address).map_err(BenchError::transport("start"))?;
        let (report, connected) = watch::channel(false);
        let link = Link {
            local: transport.local().clone(),
            index,
            orders,
            connected,
        };
        let ends = Ends {
            socket,
            transport,
            report,
        };
        Ok((ends, link))
    }
}

impl Link {
    /// Whether the transport's thread still listens.
    pub(crate) fn order(&self, order: Order) -> bool {
        self.orders.send((self.index, order)).is_ok()
    }
}
