//! At which names visitors come, by link, and who may order certificates for them.

use std::collections::BTreeMap;

use tunnel_common::hostname::Hostname;

/// What one link serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// At these names.
    pub(crate) hosts: Vec<Hostname>,
    /// Who orders certificates for them.
    pub(crate) orderer: Orderer,
    /// Which relay it is, by its own word: two links may lead to one.
    pub(crate) relay: String,
}

/// Who orders certificates for names, by the word of a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Orderer {
    /// Nobody: authorities can not come to look through this relay.
    #[default]
    Nobody,
    /// Another process that serves the same key.
    Replica,
    /// This process.
    Us,
}

/// What all links serve, or have served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServedByLink(BTreeMap<usize, Link>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    served: Served,
    /// Whether a tunnel of it serves now.
    is_up: bool,
}

impl ServedByLink {
    /// This link serves that now. Gives whether it is news.
    pub(crate) fn put(&mut self, link: usize, served: Served) -> bool {
        let now = Link {
            served,
            is_up: true,
        };
        self.0.insert(link, now.clone()) != Some(now)
    }

    /// No tunnel of this link serves now. Its names stay: its visitors may still be here. Gives whether it is
    /// news.
    pub(crate) fn is_cut_off(&mut self, link: usize) -> bool {
        let link = self.0.get_mut(&link).filter(|link| link.is_up);
        link.map(|link| link.is_up = false).is_some()
    }

    /// Each name once, in the order of the links.
    pub(crate) fn hosts(&self) -> Vec<Hostname> {
        let mut hosts = vec![];
        for host in self.0.values().flat_map(|link| &link.served.hosts) {
            if !hosts.contains(host) {
                hosts.push(host.clone());
            }
        }
        hosts
    }

    /// Who orders certificates for `host`: the relay of the first link decides that serves it now, as it does
    /// for every replica with the same relays. It takes each link for a process of its own, so that one is
    /// enough that it wants to order. `None` while no link serves the name.
    pub(crate) fn orderer(&self, host: &Hostname) -> Option<Orderer> {
        let serves = |link: &&Link| link.is_up && link.served.hosts.contains(host);
        let serving = || self.0.values().filter(serves).map(|link| &link.served);
        let first = serving().next()?;
        let mut of_one_relay = serving().filter(|served| served.relay == first.relay);
        let is_ours = of_one_relay.any(|served| served.orderer == Orderer::Us);
        Some(if is_ours { Orderer::Us } else { first.orderer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Hostname {
        name.parse().expect("a host name")
    }

    fn served(names: &[&str], orderer: Orderer) -> Served {
        served_by("a relay", names, orderer)
    }

    fn served_by(relay: &str, names: &[&str], orderer: Orderer) -> Served {
        Served {
            hosts: names.iter().map(|name| host(name)).collect(),
            orderer,
            relay: relay.to_owned(),
        }
    }

    #[test]
    fn names_stay_in_the_order_of_the_links_and_each_comes_once() {
        let mut by_link = ServedByLink::default();
        let first = served(&["a.example", "b.example"], Orderer::Us);
        assert!(by_link.put(1, served(&["b.example", "c.example"], Orderer::Us)));
        assert!(by_link.put(0, first.clone()));
        assert!(!by_link.put(0, first), "no news");
        assert!(by_link.is_cut_off(0) && !by_link.is_cut_off(0) && !by_link.is_cut_off(7));
        let hosts = ["a.example", "b.example", "c.example"].map(host);
        assert_eq!(by_link.hosts(), hosts);
    }

    #[test]
    fn the_first_link_that_serves_a_name_now_says_who_orders() {
        let mut by_link = ServedByLink::default();
        let shared = host("a.example");
        assert_eq!(by_link.orderer(&shared), None, "nobody serves it");
        by_link.put(0, served(&["a.example"], Orderer::Replica));
        let other = served_by("another", &["a.example", "b.example"], Orderer::Us);
        by_link.put(1, other);
        assert_eq!(by_link.orderer(&shared), Some(Orderer::Replica));
        assert_eq!(by_link.orderer(&host("b.example")), Some(Orderer::Us));
        by_link.is_cut_off(0);
        assert_eq!(
            by_link.orderer(&shared),
            Some(Orderer::Us),
            "the next one decides"
        );
        by_link.put(0, served(&["a.example"], Orderer::Nobody));
        assert_eq!(by_link.orderer(&shared), Some(Orderer::Nobody));
    }

    #[test]
    fn of_two_links_to_one_relay_it_does_not_matter_which_one_leads() {
        let (mut by_link, shared) = (ServedByLink::default(), host("a.example"));
        by_link.put(0, served_by("one", &["a.example"], Orderer::Replica));
        by_link.put(1, served_by("another", &["a.example"], Orderer::Us));
        by_link.put(2, served_by("one", &["b.example"], Orderer::Us));
        assert_eq!(by_link.orderer(&shared), Some(Orderer::Replica));
        by_link.put(3, served_by("one", &["a.example"], Orderer::Us));
        assert_eq!(by_link.orderer(&shared), Some(Orderer::Us));
        by_link.is_cut_off(3);
        assert_eq!(by_link.orderer(&shared), Some(Orderer::Replica));
    }
}
