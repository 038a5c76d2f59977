//! How each link of an agent stands, and what that comes to for the agent.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tunnel_common::acme::state::CertificateState;
use tunnel_common::hostname::Hostname;
use tunnel_common::wire::frame::EndpointRef;

use crate::status::{Published, Status};

/// How an agent stands. Its [`Status`] ends with it.
#[derive(Debug)]
pub(crate) struct Standing {
    /// What each link serves, in their order; `None` while it has no tunnel.
    links: Mutex<Links>,
    status: watch::Sender<Status>,
}

#[derive(Debug)]
struct Links {
    served: Vec<Option<Vec<Published>>>,
    /// Those of the endpoint of this name.
    certificates: BTreeMap<EndpointRef, BTreeMap<String, CertificateState>>,
}

impl Standing {
    /// So many links, of which none serves.
    pub(crate) fn new(links: usize) -> Self {
        Self {
            links: Mutex::new(Links {
                served: vec![None; links],
                certificates: BTreeMap::new(),
            }),
            status: watch::Sender::default(),
        }
    }

    /// The agent's, now and at each change.
    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// This link serves these endpoints.
    pub(crate) fn is_serving(&self, link: usize, published: Vec<Published>) {
        self.is(link, Some(published));
    }

    /// No tunnel of this link serves.
    pub(crate) fn is_cut_off(&self, link: usize) {
        self.is(link, None);
    }

    /// The certificate of a host name of this endpoint stands so.
    pub(crate) fn certificate_is(
        &self,
        endpoint: &EndpointRef,
        host: &Hostname,
        state: CertificateState,
    ) {
        self.change(|links| {
            let hosts = links.certificates.entry(endpoint.clone()).or_default();
            hosts.insert(host.to_string(), state);
        });
    }

    fn is(&self, link: usize, published: Option<Vec<Published>>) {
        self.change(|links| {
            if let Some(stands) = links.served.get_mut(link) {
                *stands = published;
            }
        });
    }

    /// Told only where the agent as a whole changes.
    fn change(&self, change: impl FnOnce(&mut Links)) {
        // Held to the end, so that the last to be told is the last to have changed.
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut links);
        let status = together(&links);
        self.status.send_if_modified(|now| {
            let is_news = *now != status;
            *now = status;
            is_news
        });
    }
}

/// The agent serves while one of its links does, at the URLs of all that do.
fn together(links: &Links) -> Status {
    let Links {
        served,
        certificates,
    } = links;
    if served.iter().all(Option::is_none) {
        return Status::Connecting;
    }
    let mut together: Vec<Published> = vec![];
    for published in served.iter().flatten().flatten() {
        let mut known = together.iter_mut();
        match known.find(|known| known.name == published.name) {
            Some(known) => {
                add(&mut known.urls, &published.urls);
                add(&mut known.shown, &published.shown);
            }
            None => together.push(published.clone()),
        }
    }
    for published in &mut together {
        published.certificates = certificates
            .get(&published.name)
            .cloned()
            .unwrap_or_default();
    }
    Status::Serving(together)
}

/// Adds what is not there yet.
fn add(urls: &mut Vec<String>, more: &[String]) {
    for url in more {
        if !urls.contains(url) {
            urls.push(url.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use tunnel_common::identity::KeyFingerprint;

    use super::*;

    fn published(name: EndpointRef, urls: &[&str]) -> Published {
        let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
        Published {
            key: KeyFingerprint::of_spki(name.as_str().as_bytes()),
            name,
            shown: urls[..1].to_vec(),
            urls,
            certificates: BTreeMap::new(),
        }
    }

    fn main(urls: &[&str]) -> Published {
        published(EndpointRef::default(), urls)
    }

    fn second(urls: &[&str]) -> Published {
        published(EndpointRef::secondary(), urls)
    }

    #[test]
    fn one_link_is_the_agent_and_is_told_only_where_it_changes() {
        let standing = Standing::new(1);
        let mut status = standing.status();
        assert_eq!(*status.borrow_and_update(), Status::Connecting);
        standing.is_cut_off(0);
        assert!(!status.has_changed().expect("lives"));
        let serves = vec![main(&["a", "b"]), second(&["c"])];
        standing.is_serving(0, serves.clone());
        assert_eq!(*status.borrow_and_update(), Status::Serving(serves.clone()));
        standing.is_serving(0, serves);
        assert!(!status.has_changed().expect("lives"));
        standing.is_cut_off(0);
        assert_eq!(*status.borrow_and_update(), Status::Connecting);
        drop(standing);
        assert!(status.has_changed().is_err(), "it ends with the agent");
    }

    #[test]
    fn an_agent_serves_while_one_link_does_at_the_urls_of_all_that_do() {
        let standing = Standing::new(3);
        let status = standing.status();
        let now = || match &*status.borrow() {
            Status::Serving(published) => published.clone(),
            Status::Connecting => vec![],
        };
        standing.is_serving(2, vec![main(&["b", "c"]), second(&["s"])]);
        assert_eq!(now(), [main(&["b", "c"]), second(&["s"])]);
        standing.is_serving(0, vec![main(&["a", "b"])]);
        let [of_main, of_second] = &now()[..] else {
            panic!("both are served: {:?}", now());
        };
        assert_eq!(of_main.urls, ["a", "b", "c"], "in order, each once");
        assert_eq!(of_main.shown, ["a", "b"]);
        assert_eq!(*of_second, second(&["s"]));
        standing.is_cut_off(2);
        assert_eq!(now(), [main(&["a", "b"])]);
        standing.is_cut_off(0);
        assert_eq!(*status.borrow(), Status::Connecting);
    }

    #[test]
    fn how_a_certificate_stands_is_told_with_its_endpoint_and_with_no_other() {
        let standing = Standing::new(1);
        let mut status = standing.status();
        standing.is_serving(0, vec![main(&["a"]), second(&["s"])]);
        status.mark_unchanged();
        let host: Hostname = "a.example".parse().expect("a name");
        let ordering = CertificateState::Ordering;
        standing.certificate_is(&EndpointRef::default(), &host, ordering.clone());
        let Status::Serving(published) = status.borrow_and_update().clone() else {
            panic!("it serves");
        };
        let expected = BTreeMap::from([("a.example".to_owned(), ordering.clone())]);
        assert_eq!(published[0].certificates, expected);
        assert_eq!(published[1].certificates, BTreeMap::new());
        standing.certificate_is(&EndpointRef::default(), &host, ordering);
        assert!(!status.has_changed().expect("lives"));
    }
}
