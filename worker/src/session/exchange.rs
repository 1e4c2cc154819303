//! What shards say to each other.
//!
//! Owns the queues between them. Invariants: a datagram is handed over once at most; a queue that is full
//! loses datagrams (counted), it never holds up the shard that fills it; news of addresses are sent before
//! the answer that lets their owner be used, and in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::front::Input;
use super::routes::News;
use crate::forward::drops::{Drop as Dropped, DropCounters};
use crate::net::Shard;
use crate::net::steering::Steering;

/// Bundles that wait for one shard: as many turns of another.
const WAITING: usize = 64;

/// Where an engine is among those that share the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shard: Shard,
    /// How many there are.
    pub(crate) of: usize,
}

impl Place {
    /// The only one.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn alone() -> Place {
        Place {
            shard: Shard::default(),
            of: 1,
        }
    }
}

/// Datagrams that one shard took in one turn and that are for one other.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    bytes: Vec<u8>,
    /// Sender and length of each.
    entries: Vec<(SocketAddr, usize)>,
}

impl Bundle {
    fn push(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.entries.push((from, datagram.len()));
    }

    /// Hands them out, in the order in which they came.
    pub(crate) fn each(&mut self, mut each: impl FnMut(SocketAddr, &mut [u8])) {
        let mut rest = &mut self.bytes[..];
        for (from, len) in &self.entries {
            let Some((datagram, after)) = rest.split_at_mut_checked(*len) else {
                return;
            };
            each(*from, datagram);
            rest = after;
        }
    }
}

/// What an engine took that isn't for it, by shard.
#[derive(Debug)]
pub(crate) struct Misdirected(Vec<Bundle>);

impl Misdirected {
    pub(crate) fn new(shards: usize) -> Misdirected {
        Misdirected((0..shards).map(|_| Bundle::default()).collect())
    }

    /// Keeps a copy for `shard`; `false`: there is no such shard.
    pub(crate) fn push(&mut self, shard: Shard, from: SocketAddr, datagram: &[u8]) -> bool {
        let bundle = self.0.get_mut(shard.index());
        bundle.map(|b| b.push(from, datagram)).is_some()
    }

    /// What is for `shard`.
    #[cfg(test)]
    pub(crate) fn take(&mut self, shard: Shard) -> Bundle {
        self.0
            .get_mut(shard.index())
            .map(std::mem::take)
            .unwrap_or_default()
    }
}

/// The way to another shard.
#[derive(Debug, Clone)]
pub(super) struct Neighbour {
    bundles: mpsc::Sender<Bundle>,
    /// Weak, so that the engine ends when nobody can give it commands any more.
    input: mpsc::WeakUnboundedSender<Input>,
}

impl Neighbour {
    /// The way to the shard that takes `input`, and the end of it that is the shard's.
    pub(super) fn new(input: &mpsc::UnboundedSender<Input>) -> (Neighbour, mpsc::Receiver<Bundle>) {
        let (bundles, inbox) = mpsc::channel(WAITING);
        let input = input.downgrade();
        (Neighbour { bundles, input }, inbox)
    }

    /// Lost where the shard has ended.
    pub(super) fn tell(&self, input: Input) {
        if let Some(to) = self.input.upgrade() {
            let _ = to.send(input);
        }
    }
}

/// One shard's side of it.
#[derive(Debug)]
pub(super) struct Exchange {
    shard: Shard,
    /// All shards in their order; nothing is sent to the own place.
    neighbours: Vec<Neighbour>,
    steering: Option<Steering>,
    drops: Arc<DropCounters>,
    handed_over: Arc<AtomicU64>,
}

impl Exchange {
    pub(super) fn new(
        shard: Shard,
        neighbours: Vec<Neighbour>,
        steering: Option<Steering>,
        drops: Arc<DropCounters>,
        handed_over: Arc<AtomicU64>,
    ) -> Exchange {
        Exchange {
            shard,
            neighbours,
            steering,
            drops,
            handed_over,
        }
    }

    fn others(&self) -> impl Iterator<Item = &Neighbour> {
        let own = self.shard.index();
        let all = self.neighbours.iter().enumerate();
        all.filter(move |(at, _)| *at != own).map(|(_, n)| n)
    }

    /// Sends what was gathered in this turn.
    pub(super) fn hand_over(&self, misdirected: &mut Misdirected) {
        for (neighbour, bundle) in self.neighbours.iter().zip(&mut misdirected.0) {
            let count = bundle.entries.len();
            if count == 0 {
                continue;
            }
            if neighbour.bundles.try_send(std::mem::take(bundle)).is_ok() {
                self.handed_over.fetch_add(count as u64, Ordering::Relaxed);
            } else {
                for _ in 0..count {
                    self.drops.count(Dropped::HandOverFull);
                }
            }
        }
    }

    /// Tells everybody what this shard gained and lost.
    pub(super) fn tell(&self, news: Vec<News>) {
        for item in news {
            for neighbour in self.others() {
                neighbour.tell(Input::News(self.shard, item));
            }
            if let Some(steering) = &self.steering {
                match item {
                    News::Gained(address) => steering.add(self.shard, address),
                    News::Lost(address) => steering.remove(self.shard, address),
                }
            }
        }
    }
}

impl Drop for Exchange {
    /// A worker that serves some of its meetings only would be worse than none: it is replaced.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for neighbour in self.others() {
                neighbour.tell(Input::Failed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn scene() -> (
        Exchange,
        mpsc::Receiver<Bundle>,
        mpsc::UnboundedReceiver<Input>,
        [mpsc::UnboundedSender<Input>; 2],
    ) {
        let (own_in, _) = mpsc::unbounded_channel();
        let (other_in, other_inputs) = mpsc::unbounded_channel();
        let (own, _) = Neighbour::new(&own_in);
        let (other, inbox) = Neighbour::new(&other_in);
        let drops = Arc::new(DropCounters::default());
        let exchange = Exchange::new(Shard::default(), vec![own, other], None, drops, Arc::default());
        (exchange, inbox, other_inputs, [own_in, other_in])
    }

    #[test]
    fn datagrams_arrive_whole_and_in_order_or_are_counted() {
        let (exchange, mut inbox, _inputs, _alive) = scene();
        let mut misdirected = Misdirected::new(2);
        let other = Shard::new(1).unwrap();
        assert!(
            !misdirected.push(Shard::new(2).unwrap(), from(1), b"x"),
            "no such shard"
        );
        for turn in 0..=WAITING as u16 {
            assert!(misdirected.push(other, from(turn), &[1, 2]));
            assert!(misdirected.push(other, from(turn), &[3]));
            exchange.hand_over(&mut misdirected);
        }
        let lost = exchange
            .drops
            .read()
            .iter()
            .find(|(n, _)| *n == "hand_over_full")
            .unwrap()
            .1;
        assert_eq!(lost, 2, "one bundle too many");
        assert_eq!(exchange.handed_over.load(Ordering::Relaxed), 2 * WAITING as u64);
        for turn in 0..WAITING as u16 {
            let mut got = Vec::new();
            inbox
                .try_recv()
                .unwrap()
                .each(|from, bytes| got.push((from, bytes.to_vec())));
            assert_eq!(got, [(from(turn), vec![1, 2]), (from(turn), vec![3])]);
        }
        assert!(inbox.try_recv().is_err());
    }

    #[test]
    fn a_shard_that_fails_takes_the_others_along() {
        let (exchange, _inbox, mut inputs, _alive) = scene();
        exchange.tell(vec![News::Gained(from(1))]);
        assert!(matches!(inputs.try_recv(), Ok(Input::News(_, News::Gained(_)))));
        let failed = std::thread::spawn(move || {
            let _exchange = exchange;
            panic!("as a test");
        });
        assert!(failed.join().is_err());
        assert!(matches!(inputs.try_recv(), Ok(Input::Failed)));
    }
}
