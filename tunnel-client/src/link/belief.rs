//! Whom an agent believes to be its relay, from dial to dial; and the TLS that goes by it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tokio::task::spawn_blocking;
use tracing::{info, warn};
use tunnel_common::clock::Clock;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::tls;

use super::dial_error::{DialError, TlsError};
use super::known_relays::{Known, KnownRelays, KnownRelaysError};
use super::relay_trust::{Believed, Expected, RelayTrust, Rule, Source};
use super::verifier::{Slots, WrongKey, verifier};
use crate::relay_addr::RelayAddr;

/// What TLS needs to know to dial.
#[derive(Debug)]
pub(crate) struct TlsSettings {
    pub(crate) identity: CertifiedKey,
    pub(crate) trust: RelayTrust,
    pub(crate) known_relays: Option<KnownRelays>,
    pub(crate) clock: Clock,
}

/// What is believed about one relay.
#[derive(Debug)]
pub(crate) struct Belief {
    relay: RelayAddr,
    settings: TlsSettings,
    /// The key of the last tunnel that was believed on first sight, or recorded.
    believed: Mutex<Option<Believed>>,
}

/// Where the key should be recorded, and what is there now.
type Recorded = (PathBuf, Result<Known, KnownRelaysError>);

impl Belief {
    /// Goes by `settings`. Fails if they can never work.
    pub(super) fn new(relay: RelayAddr, settings: TlsSettings) -> Result<Self, TlsError> {
        if let RelayTrust::PrivateCa(authorities) = &settings.trust {
            let rule = Rule::Authority(authorities.clone());
            verifier(&rule, Arc::default(), tls::provider())?;
        }
        Ok(Self {
            relay,
            settings,
            believed: Mutex::default(),
        })
    }

    /// The rule for the next dial.
    pub(super) async fn choose(&self) -> Result<Rule, DialError> {
        let (trust, relay) = (self.settings.trust.clone(), self.relay.clone());
        let known = self.settings.known_relays.clone();
        let believed = *self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let choosing = spawn_blocking(move || trust.choose(&relay, known.as_ref(), believed));
        let rule = choosing.await??;
        let by_authority = matches!(
            self.settings.trust,
            RelayTrust::PublicCa | RelayTrust::PrivateCa(_)
        );
        if let Rule::Key(Expected { source, .. }) = &rule
            && let Source::File { path, line } = source
            && by_authority
        {
            let path = path.display();
            info!("the relay is known by its key ({path}, line {line}), not by an authority");
        }
        Ok(rule)
    }

    /// A relay was reached by `rule`, and showed the key `first_seen` if that was expected of nobody.
    pub(super) async fn reached(
        &self,
        rule: Rule,
        first_seen: Option<KeyFingerprint>,
    ) -> Result<(), DialError> {
        match (first_seen, rule) {
            (Some(key), Rule::FirstUse) => self.believe(key).await?,
            (
                _,
                Rule::Key(Expected {
                    key,
                    source: Source::File { .. },
                }),
            ) => self.remember(key, true),
            _ => {}
        }
        Ok(())
    }

    /// Expects `key` from now on, by the file of known relays and as long as this lives.
    pub(super) async fn believe(&self, key: KeyFingerprint) -> Result<(), DialError> {
        let advice = "compare it with the KEY that the relay printed at its start, or give \
                      --server-fingerprint";
        let recorded = self.record(key).await?;
        match &recorded {
            Some((path, Ok(known))) if known.key == key => {
                let path = path.display();
                warn!(
                    "the relay's key is believed on first sight and recorded in {path}: {key}; {advice}"
                );
            }
            Some((path, Ok(known))) => {
                let (path, line) = (path.clone(), known.line);
                let wrong = WrongKey::new(key, known.key, Source::File { path, line });
                return Err(DialError::WrongKey(Box::new(wrong)));
            }
            unrecorded => {
                if let Some((_, Err(error))) = unrecorded {
                    warn!("the relay's key can not be recorded: {error}");
                }
                warn!(
                    "the relay's key is believed on first sight until this process ends: {key}; {advice}"
                );
            }
        }
        self.remember(key, matches!(recorded, Some((_, Ok(_)))));
        Ok(())
    }

    /// Writes `key` into the file of known relays, if there is one to be.
    async fn record(&self, key: KeyFingerprint) -> Result<Option<Recorded>, DialError> {
        let Some(file) = self.settings.known_relays.clone() else {
            return Ok(None);
        };
        let (path, relay) = (file.path().to_owned(), self.relay.clone());
        let recorded = spawn_blocking(move || file.record(&relay, key)).await?;
        Ok(Some((path, recorded)))
    }

    fn remember(&self, key: KeyFingerprint, recorded: bool) {
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        *believed = Some(Believed { key, recorded });
    }

    /// TLS 1.3 with our key proved, and never resumed: each connection proves it anew.
    /// What the handshake finds goes to `slots`.
    pub(super) fn client(
        &self,
        rule: &Rule,
        slots: &Arc<Slots>,
        protocol: &[u8],
    ) -> Result<rustls::ClientConfig, TlsError> {
        let provider = tls::provider();
        let verifier = verifier(rule, slots.clone(), provider.clone())?;
        let identity = Arc::new(SingleCertAndKey::from(self.settings.identity.clone()));
        let clock = Arc::new(self.settings.clock.clone());
        let mut tls = rustls::ClientConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(identity);
        tls.alpn_protocols = vec![protocol.to_vec()];
        tls.resumption = Resumption::disabled();
        Ok(tls)
    }
}
