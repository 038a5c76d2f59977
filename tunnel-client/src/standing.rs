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
    known: Mutex<Known>,
    status: watch::Sender<Status>,
}

#[derive(Debug)]
struct Known {
    /// What each link serves, in their order; `None` while it has no tunnel.
    links: Vec<Option<Vec<Published>>>,
    /// How certificates stand, by endpoint and host name.
    certificates: BTreeMap<EndpointRef, BTreeMap<String, CertificateState>>,
    /// URLs at which somebody else answers.
    impersonated: Vec<String>,
}

impl Standing {
    /// So many links, of which none serves.
    pub(crate) fn new(links: usize) -> Self {
        Self {
            known: Mutex::new(Known {
                links: vec![None; links],
                certificates: BTreeMap::new(),
                impersonated: vec![],
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
        self.is(|known| known.put(link, Some(published)));
    }

    /// No tunnel of this link serves.
    pub(crate) fn is_cut_off(&self, link: usize) {
        self.is(|known| known.put(link, None));
    }

    /// The certificate of a host name of this endpoint stands so; `None` when nobody cares for it any more.
    pub(crate) fn certificate_is(
        &self,
        endpoint: &EndpointRef,
        host: &Hostname,
        state: Option<CertificateState>,
    ) {
        self.is(|known| {
            let hosts = known.certificates.entry(endpoint.clone()).or_default();
            match state {
                Some(state) => hosts.insert(host.to_string(), state),
                None => hosts.remove(host.as_str()),
            };
        });
    }

    /// At these URLs, and no others, somebody else was seen to answer.
    pub(crate) fn is_impersonated_at(&self, urls: Vec<String>) {
        self.is(|known| known.impersonated = urls);
    }

    /// Told only where it changes.
    fn is(&self, change: impl FnOnce(&mut Known)) {
        // Held to the end, so that the last to be told is the last to have changed.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        let status = together(&known);
        self.status.send_if_modified(|now| {
            let is_news = *now != status;
            *now = status;
            is_news
        });
    }
}

impl Known {
    fn put(&mut self, link: usize, published: Option<Vec<Published>>) {
        if let Some(stands) = self.links.get_mut(link) {
            *stands = published;
        }
    }

    fn is_impersonated(&self, published: &Published) -> bool {
        let mut urls = published.urls.iter();
        urls.any(|url| self.impersonated.contains(url))
    }
}

/// The agent serves while one of its links does, at the URLs of all that do.
fn together(known: &Known) -> Status {
    if known.links.iter().all(Option::is_none) {
        return Status::Connecting;
    }
    let mut together: Vec<Published> = vec![];
    for published in known.links.iter().flatten().flatten() {
        let mut before = together.iter_mut();
        match before.find(|before| before.name == published.name) {
            Some(before) => {
                add(&mut before.urls, &published.urls);
                add(&mut before.shown, &published.shown);
            }
            None => together.push(published.clone()),
        }
    }
    for published in &mut together {
        published.impersonated = known.is_impersonated(published);
        let certificates = known.certificates.get(&published.name);
        published.certificates = certificates.cloned().unwrap_or_default();
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
            impersonated: false,
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
    fn an_endpoint_is_impersonated_while_it_has_a_url_at_which_somebody_else_answers() {
        let standing = Standing::new(2);
        let mut status = standing.status();
        let mut seen = || match &*status.borrow_and_update() {
            Status::Serving(published) => published.iter().map(|p| p.impersonated).collect(),
            Status::Connecting => vec![],
        };
        standing.is_serving(0, vec![main(&["a"]), second(&["s"])]);
        standing.is_serving(1, vec![main(&["b"])]);
        standing.is_impersonated_at(vec!["b".to_owned()]);
        assert_eq!(seen(), [true, false]);
        standing.is_cut_off(1);
        assert_eq!(seen(), [false, false], "the URL has gone");
        standing.is_serving(1, vec![main(&["b"])]);
        assert_eq!(seen(), [true, false]);
        standing.is_impersonated_at(vec![]);
        assert_eq!(seen(), [false, false]);
    }

    #[test]
    fn how_a_certificate_stands_is_told_with_its_endpoint_and_with_no_other() {
        let standing = Standing::new(1);
        let mut status = standing.status();
        standing.is_serving(0, vec![main(&["a"]), second(&["s"])]);
        status.mark_unchanged();
        let host: Hostname = "a.example".parse().expect("a name");
        let ordering = CertificateState::Ordering;
        let is = |state| standing.certificate_is(&EndpointRef::default(), &host, state);
        is(Some(ordering.clone()));
        let Status::Serving(published) = status.borrow_and_update().clone() else {
            panic!("it serves");
        };
        let expected = BTreeMap::from([("a.example".to_owned(), ordering.clone())]);
        assert_eq!(published[0].certificates, expected);
        assert_eq!(published[1].certificates, BTreeMap::new());
        is(Some(ordering));
        assert!(!status.has_changed().expect("lives"));
        is(None);
        assert!(status.has_changed().expect("lives"));
    }
}
