//! What is to be ordered from a certificate authority for the relay itself.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::KeyPair;
use tracing::warn;
use tunnel_common::acme::ca::Acme;
use tunnel_common::acme::chain::{Chain, ChainFileError};
use tunnel_common::hostname::Hostname;

/// A certificate that the relay orders for itself.
#[derive(Clone, Debug)]
pub struct AcmeConfig {
    /// The relay's name, which leads to its public ports.
    pub host: Hostname,
    /// The relay's key: that of [`Config::identity`](crate::config::Config::identity).
    pub key: Arc<KeyPair>,
    /// Who certifies.
    pub ca: Acme,
    /// Where the chain is kept.
    pub file: PathBuf,
    /// The chain that is there already, if [`find`](Self::find) has found one.
    pub found: Option<Chain>,
    /// How many days before its end a certificate is renewed; by default the authority says, or a third of
    /// its lifetime.
    pub renew_days: Option<u32>,
}

impl AcmeConfig {
    /// Takes the chain of an earlier run, so that no other is ordered before its time; one for another host
    /// counts as none. A file that can not be used, or whose chain is another key's, is an error, and left
    /// alone.
    ///
    /// It blocks the thread.
    pub fn find(mut self) -> Result<Self, ChainFileError> {
        let (host, file) = (&self.host, self.file.display());
        self.found = Chain::read(&self.file, &self.key)?.filter(|chain| {
            let is_ours = chain.is_for(host);
            if !is_ours {
                warn!(
                    "the certificate in {file} is not for {host}, and no other is ordered while it stands there; \
                     move it away"
                );
            }
            is_ours
        });
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::CertificateParams;
    use tunnel_common::acme::credentials::CredentialsFile;
    use tunnel_common::acme::dial::Direct;
    use tunnel_common::acme::settings::Settings;
    use tunnel_common::clock::Clock;
    use tunnel_common::tls;

    use super::*;

    #[test]
    fn the_chain_of_an_earlier_run_is_taken_and_one_for_another_name_is_not() {
        let (folder, key) = (tempfile::tempdir().expect("a folder"), tls::generate_key());
        let (file, key) = (
            folder.path().join("chain.pem"),
            Arc::new(key.expect("a key")),
        );
        let authority = Settings::default().authority(Arc::new(Direct));
        let ca = Acme {
            authority: authority.expect("is complete"),
            credentials: CredentialsFile::new(folder.path().join("creds.json")),
            validation_port: 443,
            clock: Clock::system(),
        };
        let found = |host: &str| {
            let acme = AcmeConfig {
                host: host.parse().expect("a host name"),
                key: key.clone(),
                ca: ca.clone(),
                file: file.clone(),
                found: None,
                renew_days: None,
            };
            acme.find().expect("can be used").found.is_some()
        };
        assert!(!found("a.example"), "there is none yet");
        let params = CertificateParams::new(["a.example".to_owned()]).expect("names");
        let pem = params.self_signed(&*key).expect("signs").pem();
        fs::write(&file, &pem).expect("writes");
        assert!(found("a.example") && !found("b.example"));
        assert_eq!(fs::read_to_string(&file).expect("reads"), pem);
    }
}
