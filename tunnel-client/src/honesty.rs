//! Whether somebody answers in the agent's place at its own public URLs: it looks there now and then, where its
//! visitors come.
//!
//! ```text
//! serves ── a minute ──▶ look ── some hours ──▶ look ──▶ …
//!   ▲                                │
//!   └──── when it serves again ◀─────┘ it does not serve
//! ```
//!
//! Whoever lies to some visitors only, and knows ours for the agent's (by its address, or the fingerprint of our
//! TLS), is not seen. Nor is anybody from a
//! network that does not lead to its own public address.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};
use tunnel_common::acme::dial::Dial;
use tunnel_common::escape::Escaped;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::wire::frame::EndpointRef;

use crate::config::Honesty;
use crate::link::relay_trust::is_local;
use crate::standing::Standing;
use crate::status::{Published, Status};
use crate::verify::{PublicUrl, Verdict, verify};

/// The most URLs of one round: an agent has one or two of each relay, and a relay may name many. Of more
/// than these the round takes some by chance.
const MAX_URLS: usize = 8;
/// By how much of itself the time between two looks is longer or shorter.
const JITTER: f64 = 0.2;

/// Looks at the agent's own public URLs.
#[derive(Debug)]
pub(crate) struct Watch {
    /// How they are reached.
    pub(crate) dial: Arc<dyn Dial>,
    /// When.
    pub(crate) times: Honesty,
    /// The endpoints whose visitors are shown the endpoint's own key.
    pub(crate) own: Vec<EndpointRef>,
    /// Where it stands what is published, and is told what is seen.
    pub(crate) standing: Arc<Standing>,
}

/// A URL to be looked at, and the key that is expected there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    url: String,
    public: PublicUrl,
    key: KeyFingerprint,
}

/// Who was seen at the agent's URLs in its place: URL and key.
#[derive(Debug, Default)]
struct Impostors(Vec<(String, KeyFingerprint)>);

/// What is new at a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// Somebody with this key answers in the agent's place.
    Impostor(KeyFingerprint),
    /// The agent answers by itself again.
    Gone,
}

impl Watch {
    /// Looks, for ever; the log and the standing are told. Dropping the future ends it.
    pub(crate) async fn keep(&self) -> Infallible {
        let (mut status, mut impostors) = (self.standing.status(), Impostors::default());
        let mut wait = self.times.first;
        loop {
            serving(&mut status).await;
            sleep(wait).await;
            let now = status.borrow().clone();
            wait = match now {
                Status::Serving(published) => {
                    self.look(&published, &mut impostors).await;
                    around(self.times.every, fastrand::f64())
                }
                Status::Connecting => self.times.first,
            };
        }
    }

    /// One round.
    async fn look(&self, published: &[Published], impostors: &mut Impostors) {
        let urls = published.iter().flat_map(|endpoint| &endpoint.urls);
        impostors.forget_all_but(&urls.collect::<Vec<_>>());
        self.note(impostors);
        for own in self.choose(published, &mut fastrand::Rng::new()) {
            let verdict = verify(&*self.dial, &own.public).await;
            debug!(url = own.url, ?verdict, "looked at an own URL");
            if let Some(news) = impostors.learn(&own.url, &verdict) {
                tell(&own, news);
                self.note(impostors);
            }
        }
    }

    fn note(&self, impostors: &Impostors) {
        let urls = impostors.0.iter().map(|(url, _)| url.clone());
        self.standing.is_impersonated_at(urls.collect());
    }

    /// The URLs of a round.
    fn choose(&self, published: &[Published], rng: &mut fastrand::Rng) -> Vec<Own> {
        let own = published
            .iter()
            .filter(|endpoint| self.own.contains(&endpoint.name));
        let urls = own.flat_map(|endpoint| {
            let key = endpoint.key;
            endpoint.urls.iter().map(move |url| (url.clone(), key))
        });
        let parsed = urls.filter_map(|(url, key)| {
            let public: PublicUrl = url.parse().ok()?;
            Some(Own { url, public, key })
        });
        let is_meant = |own: &Own| self.times.local_names || !is_local(own.public.host().as_str());
        let mut chosen: Vec<_> = parsed.filter(is_meant).collect();
        rng.shuffle(&mut chosen);
        chosen.truncate(MAX_URLS);
        chosen
    }
}

impl Impostors {
    /// Takes in what was seen at `url`. A URL that nobody could be asked at is as before.
    fn learn(&mut self, url: &str, verdict: &Verdict) -> Option<News> {
        let at = self.0.iter().position(|(known, _)| known == url);
        match (verdict, at) {
            (Verdict::True { .. }, Some(at)) => {
                self.0.swap_remove(at);
                Some(News::Gone)
            }
            (Verdict::Lying { shown, .. }, Some(at)) => {
                let before = std::mem::replace(&mut self.0[at].1, *shown);
                (before != *shown).then_some(News::Impostor(*shown))
            }
            (Verdict::Lying { shown, .. }, None) => {
                self.0.push((url.to_owned(), *shown));
                Some(News::Impostor(*shown))
            }
            (Verdict::True { .. }, None) | (Verdict::Unknown { .. }, _) => None,
        }
    }

    fn forget_all_but(&mut self, urls: &[&String]) {
        self.0.retain(|(url, _)| urls.contains(&url));
    }
}

fn tell(own: &Own, news: News) {
    let (url, key) = (Escaped(&own.url), own.key);
    match news {
        News::Impostor(shown) => warn!(
            "THE RELAY ANSWERS IN YOUR PLACE at {url}: visitors are shown the key {shown}, and yours is {key}. \
             Whoever has that key, the relay's operator or somebody between, reads and changes what they \
             send. Tell them not to use this URL, ask the operator, look for certificates of this name in the \
             Certificate Transparency logs, and go to a relay that you trust"
        ),
        News::Gone => info!("at {url} your own key is shown again"),
    }
}

/// Until it serves; for ever if it never will.
async fn serving(status: &mut watch::Receiver<Status>) {
    let serving = status.wait_for(|status| *status != Status::Connecting);
    if serving.await.is_err() {
        pending::<()>().await;
    }
}

/// `time`, longer or shorter by luck, from 0 to 1.
fn around(time: Duration, luck: f64) -> Duration {
    time.mul_f64(1.0 + JITTER * (2.0 * luck - 1.0))
}

#[cfg(test)]
mod tests;
