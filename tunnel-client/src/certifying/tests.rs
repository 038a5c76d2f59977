use std::time::Duration;

use rustls::RootCertStore;
use tempfile::TempDir;
use tokio::sync::watch;
use tunnel_common::acme::authority::{Authority, DirectoryUrl};
use tunnel_common::acme::ca::{Acme, VALIDATION_PORT};
use tunnel_common::acme::credentials::CredentialsFile;
use tunnel_common::acme::dial::Direct;
use tunnel_common::acme::state::CertificateState;
use tunnel_common::splice::buffer::BufferPool;
use tunnel_common::tls;

use super::*;
use crate::config::{EndpointConfig, Timeouts};
use crate::resolve::SystemResolver;
use crate::served::{Orderer, Served};
use crate::status::{Published, Status};

fn host(number: usize) -> Hostname {
    let host = format!("d{number}.example");
    host.parse().expect("a name")
}

/// An agent that orders, or would, from an authority that nobody reaches.
struct Town {
    place: Place,
    folder: TempDir,
}

impl Town {
    fn new() -> Self {
        let key = tls::generate_key().expect("a key");
        let config = EndpointConfig::new(key, "3000".parse().expect("a service"));
        let endpoint = Endpoint::new(config, &Clock::system()).expect("an endpoint");
        let standing = Standing::new(1);
        standing.is_serving(
            0,
            vec![Published {
                name: endpoint.name().clone(),
                key: endpoint.id(),
                urls: vec![],
                shown: vec![],
                certificates: std::collections::BTreeMap::new(),
                impersonated: false,
            }],
        );
        let venue = Venue {
            endpoints: vec![endpoint],
            pool: BufferPool::default(),
            timeouts: Timeouts::default(),
            splice_timeouts: Arc::default(),
            resolver: Arc::new(SystemResolver),
        };
        let place = Place {
            venue: Arc::new(venue),
            standing: Arc::new(standing),
            announcements: Announcements::default(),
        };
        let folder = tempfile::tempdir().expect("a folder");
        Self { place, folder }
    }

    fn issued(&self) -> Issued {
        let authority = Authority {
            directory: DirectoryUrl::lets_encrypt_staging(),
            email: None,
            roots: Arc::new(RootCertStore::empty()),
            external_account: None,
            profile: None,
            dial: Arc::new(Direct),
        };
        Issued {
            acme: Acme {
                authority,
                credentials: CredentialsFile::new(self.folder.path().join("creds.json")),
                validation_port: VALIDATION_PORT,
                clock: Clock::system(),
            },
            file: self.folder.path().join("acme_cert.pem"),
            key: None,
            renew_days: None,
            any_name: false,
        }
    }

    fn issuing(&self) -> Issuing<'_> {
        Issuing::new(self.issued(), self.endpoint(), &self.place, Clock::system())
    }

    fn endpoint(&self) -> &Endpoint {
        self.place.endpoint().expect("there is one")
    }

    /// A relay serves these names from now on.
    fn serves(&self, names: std::ops::Range<usize>, orderer: Orderer) {
        let served = Served {
            hosts: names.map(host).collect(),
            orderer,
            relay: "a relay".to_owned(),
        };
        self.endpoint().serve_at(0, served).expect("signs");
    }

    /// Keeps certificates until the names with a state are these, all in this one.
    async fn keeps_until(
        &self,
        keeping: &mut Issuing<'_>,
        names: &[usize],
        state: &CertificateState,
    ) {
        let wanted = names
            .iter()
            .map(|name| (host(*name).to_string(), state.clone()));
        let wanted = wanted.collect();
        let mut status = self.place.standing.status();
        tokio::select! {
            () = keeping.keep() => panic!("it has ended"),
            () = stands(&mut status, &wanted) => {}
        }
    }
}

async fn stands(
    status: &mut watch::Receiver<Status>,
    wanted: &std::collections::BTreeMap<String, CertificateState>,
) {
    let is = |status: &Status| match status {
        Status::Serving(published) => published[0].certificates == *wanted,
        Status::Connecting => false,
    };
    status.wait_for(is).await.expect("lives");
}

#[test]
fn the_chain_of_another_name_stands_beside_the_first() {
    let host = "a.example".parse().expect("a name");
    let beside = beside(Path::new("/var/lib/agent/acme_cert.pem"), &host);
    assert_eq!(beside, Path::new("/var/lib/agent/acme_cert.a.example.pem"));
}

#[tokio::test]
async fn who_does_not_order_is_self_signed_and_says_so() {
    let town = Town::new();
    let mut keeping = town.issuing();
    for orderer in [Orderer::Nobody, Orderer::Replica] {
        town.serves(0..1, orderer);
        let self_signed = &CertificateState::SelfSigned;
        town.keeps_until(&mut keeping, &[0], self_signed).await;
    }
    town.serves(0..1, Orderer::Us);
    let ordering = &CertificateState::Ordering;
    town.keeps_until(&mut keeping, &[0], ordering).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_name_that_has_gone() {
    let town = Town::new();
    let mut keeping = town.issuing();
    let self_signed = &CertificateState::SelfSigned;
    town.serves(0..2, Orderer::Replica);
    town.keeps_until(&mut keeping, &[0, 1], self_signed).await;
    let certificates = town.endpoint().certificates();
    let key = tls::generate_key().expect("a key");
    let issued = Arc::new(tls::self_signed(&key, &[]).expect("signs"));
    certificates.set_for(&host(0), issued.clone());
    certificates.set_for(&host(1), issued.clone());
    town.serves(1..2, Orderer::Replica);
    town.keeps_until(&mut keeping, &[1], self_signed).await;
    let shown = |number| certificates.for_host(Some(host(number).as_str()));
    assert!(!Arc::ptr_eq(&shown(0), &issued) && Arc::ptr_eq(&shown(1), &issued));
    town.serves(0..1, Orderer::Replica);
    town.keeps_until(&mut keeping, &[0], self_signed).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_with_ever_new_names_gets_so_many_in_a_day_and_the_next_day_more() {
    let town = Town::new();
    let mut keeping = town.issuing();
    let self_signed = &CertificateState::SelfSigned;
    for first in (0..MAX_A_DAY).step_by(8) {
        town.serves(first..first + 8, Orderer::Nobody);
        let names: Vec<_> = (first..first + 8).collect();
        town.keeps_until(&mut keeping, &names, self_signed).await;
    }
    let begun = Instant::now();
    town.serves(100..102, Orderer::Nobody);
    town.keeps_until(&mut keeping, &[100, 101], self_signed)
        .await;
    let day = Duration::from_secs(24 * 60 * 60);
    assert!(
        begun.elapsed() + Duration::from_secs(60) > day,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_panic_while_a_file_is_read_is_survived() {
    assert_eq!(survived(|| 1).await, Some(1));
    assert_eq!(
        survived(|| -> u8 { panic!("as the test wants") }).await,
        None
    );
}
