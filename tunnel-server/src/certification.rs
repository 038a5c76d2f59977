//! The relay's own certificate from a certificate authority: ordered, shown and renewed while it runs.
//!
//! It is made for the relay's key, so that agents which know the relay by that go on knowing it. The
//! authority validates the name at the relay's public ports (TLS-ALPN-01), where `public/challenge` answers.

use std::sync::Arc;

use tracing::info;
use tunnel_common::acme::certifier::Certifier;
use tunnel_common::acme::chain::Chain;
use tunnel_common::acme::challenge::Answer;
use tunnel_common::acme::failure::Failure;
use tunnel_common::acme::site::Site;
use tunnel_common::acme::state::CertificateState;
use tunnel_common::hostname::Hostname;

use crate::acme::AcmeConfig;
use crate::public::challenge::ShownChallenge;
use crate::state::State;

/// Shows the chain that was found, and keeps the relay certified for as long as its ports are open: that is
/// what the result does.
pub(crate) fn keep(acme: AcmeConfig, state: Arc<State>) -> impl Future<Output = ()> + Send {
    let AcmeConfig { host, key, ca, .. } = acme;
    let site = Relay {
        host: host.clone(),
        state: state.clone(),
    };
    match &acme.found {
        Some(chain) => site.install(chain),
        None => {
            info!("the relay's certificate is self-signed until one is issued for {host}");
        }
    }
    let certifier = Certifier {
        host,
        key,
        clock: ca.clock.clone(),
        ca,
        site,
        file: acme.file,
        renew_days: acme.renew_days,
    };
    async move {
        let keeping = certifier.keep(acme.found);
        state.drain.closed().run_until_cancelled(keeping).await;
    }
}

/// The relay as the place where its name is served.
struct Relay {
    host: Hostname,
    state: Arc<State>,
}

impl Site for Relay {
    type Presented = ShownChallenge;

    /// The ports are open, and nobody else has the relay's name.
    async fn may_order(&self) {}

    async fn present(&self, answer: Answer) -> Result<ShownChallenge, Failure> {
        let host = self.host.clone();
        Ok(self.state.challenges.set(host, answer.config()))
    }

    fn install(&self, chain: &Chain) {
        self.state.identity.set_default(chain.certified.clone());
    }

    fn tell(&self, state: CertificateState) {
        self.state.certificate.send_replace(state);
    }
}
