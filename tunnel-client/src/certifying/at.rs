//! Where one name is served: who may order for it, what authorities are shown there and visitors see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::info;
use tunnel_common::acme::chain::Chain;
use tunnel_common::acme::challenge::Answer;
use tunnel_common::acme::failure::Failure;
use tunnel_common::acme::site::Site;
use tunnel_common::acme::state::CertificateState;
use tunnel_common::hostname::Hostname;

use crate::announcements::{Announced, Announcements};
use crate::answers::Shown;
use crate::endpoint::Endpoint;
use crate::served::Orderer;
use crate::standing::Standing;
use crate::visit::Venue;

/// Where certificates are shown.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) venue: Arc<Venue>,
    pub(super) standing: Arc<Standing>,
    pub(super) announcements: Announcements,
}

impl Place {
    /// Only the first endpoint has certificates from others.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.venue.endpoints.first()
    }
}

/// Where one name is served.
#[derive(Debug)]
pub(super) struct At {
    host: Hostname,
    place: Place,
    /// Whether visitors are shown what an authority has issued.
    is_certified: AtomicBool,
}

impl At {
    /// Here nothing is certified yet.
    pub(super) fn new(host: Hostname, place: Place) -> Self {
        Self {
            host,
            place,
            is_certified: AtomicBool::new(false),
        }
    }

    /// How it stands while there is no certificate.
    fn tell_without_one(&self, state: CertificateState) {
        if !self.is_certified.load(Ordering::Relaxed) {
            self.tell(state);
        }
    }
}

impl Site for At {
    type Presented = (Announced, Shown);

    async fn may_order(&self) {
        let Some(endpoint) = self.place.endpoint() else {
            return std::future::pending().await;
        };
        let (host, mut served, mut told) = (&self.host, endpoint.served(), None);
        loop {
            let orderer = served.borrow_and_update().orderer(host);
            match orderer {
                Some(Orderer::Us) => {
                    if told.is_some() {
                        self.tell_without_one(CertificateState::Ordering);
                    }
                    return;
                }
                Some(Orderer::Nobody) if told != orderer => info!(
                    "no certificate is ordered for {host}: the relay has no port at which authorities \
                     could come to look (--alpn-port)"
                ),
                Some(Orderer::Replica) if told != orderer => info!(
                    "another agent with this key orders the certificates for {host}; without a file that \
                     both share (--cert-pem), visitors here get a self-signed one"
                ),
                _ => {}
            }
            if orderer.is_some() {
                self.tell_without_one(CertificateState::SelfSigned);
                told = orderer;
            }
            if served.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn present(&self, answer: Answer) -> Result<Self::Presented, Failure> {
        let nowhere = || Failure::Doomed("nothing is published".to_owned());
        let endpoint = self.place.endpoint().ok_or_else(nowhere)?;
        let shown = endpoint.answers().show(&self.host, answer.config());
        let announced = self.place.announcements.announce(&self.host).await;
        let announced = announced.map_err(|error| Failure::Doomed(error.to_string()))?;
        Ok((announced, shown))
    }

    fn install(&self, chain: &Chain) {
        if let Some(endpoint) = self.place.endpoint() {
            let certificates = endpoint.certificates();
            certificates.set_for(&self.host, chain.certified.clone());
            self.is_certified.store(true, Ordering::Relaxed);
        }
    }

    fn tell(&self, state: CertificateState) {
        if let Some(endpoint) = self.place.endpoint() {
            let standing = &self.place.standing;
            standing.certificate_is(endpoint.name(), &self.host, Some(state));
        }
    }
}
