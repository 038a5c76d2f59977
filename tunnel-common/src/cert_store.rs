//! Certificates that are replaced while connections come: each handshake is shown those of its moment.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::hostname::Hostname;
use crate::identity::KeyFingerprint;

/// A certificate for everybody, and others for those who ask for certain host names. Cheap to clone:
/// all clones are one store.
///
/// It is asked at the beginning of a handshake, and what is replaced later changes nothing about that one:
/// connections go on.
#[derive(Clone, Debug)]
pub struct CertStore(Arc<ArcSwap<Certificates>>);

#[derive(Clone, Debug)]
struct Certificates {
    default: Arc<CertifiedKey>,
    by_host: HashMap<Hostname, Arc<CertifiedKey>>,
}

impl CertStore {
    /// Shows everybody `default`. That a chain and its key belong together is checked by
    /// [`tls::certified`](crate::tls::certified), and not here.
    pub fn new(default: Arc<CertifiedKey>) -> Self {
        let by_host = HashMap::new();
        Self(Arc::new(ArcSwap::from_pointee(Certificates {
            default,
            by_host,
        })))
    }

    /// Shows `certificate`, from the next handshake on, to those who ask for no name that has one of its
    /// own.
    pub fn set_default(&self, certificate: Arc<CertifiedKey>) {
        self.change(move |now| now.default = certificate.clone());
    }

    /// Shows `certificate`, from the next handshake on, to those who ask for `host`.
    pub fn set_for(&self, host: &Hostname, certificate: Arc<CertifiedKey>) {
        let host = host.clone();
        self.change(move |now| {
            now.by_host.insert(host.clone(), certificate.clone());
        });
    }

    /// Shows those who ask for `host` the default from the next handshake on.
    pub fn forget(&self, host: &Hostname) {
        self.change(|now| {
            now.by_host.remove(host);
        });
    }

    /// What those are shown who ask for no name that has a certificate of its own.
    pub fn default_certificate(&self) -> Arc<CertifiedKey> {
        self.0.load().default.clone()
    }

    /// What somebody is shown who asks for `host`, in any spelling that DNS takes for the same name; the
    /// default for one who asks for no name, for another one, or for what is no host name.
    pub fn for_host(&self, host: Option<&str>) -> Arc<CertifiedKey> {
        let now = self.0.load();
        let own = host
            .and_then(|host| host.parse::<Hostname>().ok())
            .and_then(|host| now.by_host.get(&host));
        own.unwrap_or(&now.default).clone()
    }

    /// The fingerprint of the default certificate's key. `None` if that can not be read: then nobody
    /// completes a handshake with it.
    pub fn fingerprint(&self) -> Option<KeyFingerprint> {
        let shown = self.default_certificate();
        KeyFingerprint::of_certificate(shown.cert.first()?).ok()
    }

    /// Of two changes at one time none is lost.
    fn change(&self, change: impl Fn(&mut Certificates)) {
        self.0.rcu(|now| {
            let mut now = Certificates::clone(now);
            change(&mut now);
            now
        });
    }
}

impl From<Arc<CertifiedKey>> for CertStore {
    fn from(default: Arc<CertifiedKey>) -> Self {
        Self::new(default)
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.for_host(hello.server_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key, tls};

    fn certificate() -> Arc<CertifiedKey> {
        let key = tls::generate_key().expect("a key");
        Arc::new(tls::self_signed(&key, &[]).expect("signs"))
    }

    fn host(name: &str) -> Hostname {
        name.parse().expect("a host name")
    }

    #[test]
    fn a_name_is_shown_its_own_certificate_however_it_is_spelt_and_all_else_the_default() {
        let (default, own) = (certificate(), certificate());
        let store = CertStore::new(default.clone());
        store.set_for(&host("a.example"), own.clone());
        for name in ["a.example", "A.Example", "a.example."] {
            assert!(Arc::ptr_eq(&store.for_host(Some(name)), &own), "{name}");
        }
        let others = ["b.example", "x.a.example", "a.example..", "127.0.0.1", ""];
        for name in others.map(Some).into_iter().chain([None]) {
            assert!(Arc::ptr_eq(&store.for_host(name), &default), "{name:?}");
        }
    }

    #[test]
    fn what_is_replaced_is_replaced_in_all_clones_and_nothing_else_is() {
        let [default, own, later] = [certificate(), certificate(), certificate()];
        let store = CertStore::new(certificate());
        let clone = store.clone();
        store.set_for(&host("a.example"), own.clone());
        store.set_default(default.clone());
        assert!(Arc::ptr_eq(&clone.default_certificate(), &default));
        assert!(Arc::ptr_eq(&clone.for_host(Some("a.example")), &own));
        clone.set_for(&host("a.example"), later.clone());
        assert!(Arc::ptr_eq(&store.for_host(Some("a.example")), &later));
        assert!(Arc::ptr_eq(&store.default_certificate(), &default));
        clone.forget(&host("a.example"));
        clone.forget(&host("b.example"));
        assert!(Arc::ptr_eq(&store.for_host(Some("a.example")), &default));
    }

    #[test]
    fn the_fingerprint_is_that_of_the_key_that_is_shown_now() {
        let key = tls::generate_key().expect("a key");
        let store = CertStore::new(certificate());
        assert_ne!(store.fingerprint(), Some(key::fingerprint(&key)));
        let new = tls::self_signed(&key, &[]).expect("signs");
        store.set_default(Arc::new(new));
        assert_eq!(store.fingerprint(), Some(key::fingerprint(&key)));
        let none = CertifiedKey::new(vec![], certificate().key.clone());
        store.set_default(Arc::new(none));
        assert_eq!(store.fingerprint(), None);
    }
}
