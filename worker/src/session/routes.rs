//! Whose datagram it is.
//!
//! Owns the tables that find a leg by the user name of a check and, once that was authentic, by the
//! address it came from; where the leg is another shard's, that shard. Invariants: an address belongs to
//! who proved last to be there, on whichever shard; what this shard's legs gain and lose is told once.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::api::{Leg, SessionId};
use crate::forward::LegKey;
use crate::net::{Route, Shard};

/// Whom a datagram is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) session: SessionId,
    pub(crate) leg: Leg,
    pub(crate) key: LegKey,
}

/// Where datagrams from an address go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// To a leg of this shard.
    Ours(Owner),
    /// To one of that shard.
    Of(Shard),
}

/// What other shards need to know of this one. Connections concern no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Datagrams from there are for the shard that tells.
    Gained(SocketAddr),
    /// No longer.
    Lost(SocketAddr),
}

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    by_ufrag: HashMap<String, (SessionId, Leg)>,
    by_route: HashMap<Route, Whose>,
    news: Vec<News>,
}

impl Routes {
    /// Whose user name it is.
    pub(crate) fn named(&self, ufrag: &str) -> Option<(SessionId, Leg)> {
        self.by_ufrag.get(ufrag).copied()
    }

    /// Where datagrams from there go; `None`: nobody proved to be there.
    pub(crate) fn of(&self, route: Route) -> Option<Whose> {
        self.by_route.get(&route).copied()
    }

    /// A leg goes by the names `now`, and no longer by those of `before` that aren't among them.
    pub(crate) fn name(&mut self, session: SessionId, leg: Leg, before: &[String], now: &[String]) {
        for old in before.iter().filter(|n| !now.contains(n)) {
            self.by_ufrag.remove(old);
        }
        for ufrag in now {
            self.by_ufrag.insert(ufrag.clone(), (session, leg));
        }
    }

    /// A leg has proven to be at the other end of a route.
    pub(crate) fn claim(&mut self, route: Route, owner: Owner) {
        let before = self.by_route.insert(route, Whose::Ours(owner));
        if !matches!(before, Some(Whose::Ours(_)))
            && let Route::Udp(address) = route
        {
            self.news.push(News::Gained(address));
        }
    }

    /// A session gives a route up, unless it is somebody else's by now.
    pub(crate) fn release(&mut self, route: Route, session: SessionId) {
        if matches!(self.of(route), Some(Whose::Ours(owner)) if owner.session == session) {
            self.forget(route);
        }
    }

    /// The connection of a route is gone, and with it the route.
    pub(crate) fn closed(&mut self, route: Route) {
        if matches!(self.of(route), Some(Whose::Ours(_))) {
            self.forget(route);
        }
    }

    fn forget(&mut self, route: Route) {
        self.by_route.remove(&route);
        if let Route::Udp(address) = route {
            self.news.push(News::Lost(address));
        }
    }

    /// Another shard has told.
    pub(crate) fn learn(&mut self, from: Shard, news: News) {
        match news {
            News::Gained(address) => {
                self.by_route.insert(Route::Udp(address), Whose::Of(from));
            }
            News::Lost(address) => {
                let route = Route::Udp(address);
                if self.of(route) == Some(Whose::Of(from)) {
                    self.by_route.remove(&route);
                }
            }
        }
    }

    /// What to tell the others, in order.
    pub(crate) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(session: u64) -> Owner {
        Owner {
            session: SessionId(session),
            leg: Leg::Publisher,
            key: LegKey(session as usize),
        }
    }

    fn at(port: u16) -> (SocketAddr, Route) {
        let address = SocketAddr::from(([192, 0, 2, 1], port));
        (address, Route::Udp(address))
    }

    #[test]
    fn gains_and_losses_are_told_once() {
        let mut routes = Routes::default();
        let (address, route) = at(1);
        routes.claim(route, owner(1));
        routes.claim(route, owner(1));
        // A port that its client uses for another session: still this shard's.
        routes.claim(route, owner(2));
        assert_eq!(routes.take_news(), [News::Gained(address)]);
        routes.release(route, SessionId(1));
        assert_eq!(
            routes.of(route),
            Some(Whose::Ours(owner(2))),
            "not its own any more"
        );
        routes.release(route, SessionId(2));
        routes.release(route, SessionId(2));
        assert_eq!(routes.take_news(), [News::Lost(address)]);
        assert_eq!(routes.of(route), None);
        let connection = Route::Tcp {
            connection: 1,
            remote: address,
        };
        routes.claim(connection, owner(1));
        routes.closed(connection);
        assert!(routes.take_news().is_empty() && routes.of(connection).is_none());
    }

    #[test]
    fn who_proved_it_last_has_the_address_on_whichever_shard() {
        let mut routes = Routes::default();
        let (address, route) = at(1);
        let (other, third) = (Shard::new(1).unwrap(), Shard::new(2).unwrap());
        routes.claim(route, owner(1));
        routes.learn(other, News::Gained(address));
        assert_eq!(routes.of(route), Some(Whose::Of(other)));
        routes.take_news();
        // Its session here ends later, which is no loss of the address.
        routes.release(route, SessionId(1));
        assert!(routes.take_news().is_empty());
        routes.learn(third, News::Lost(address));
        assert_eq!(routes.of(route), Some(Whose::Of(other)), "of another");
        routes.claim(route, owner(3));
        assert_eq!(routes.take_news(), [News::Gained(address)]);
        routes.learn(other, News::Lost(address));
        assert_eq!(routes.of(route), Some(Whose::Ours(owner(3))));
    }

    #[test]
    fn names_come_and_go() {
        let mut routes = Routes::default();
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        routes.name(SessionId(1), Leg::Publisher, &[], &names(&["a"]));
        routes.name(SessionId(1), Leg::Publisher, &names(&["a"]), &names(&["b", "a"]));
        assert!(routes.named("a").is_some() && routes.named("b").is_some());
        routes.name(SessionId(1), Leg::Publisher, &names(&["b", "a"]), &[]);
        assert!(routes.named("a").is_none() && routes.named("b").is_none());
    }
}
