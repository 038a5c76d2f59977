//! What to publish, and how visitors reach it.

use std::path::PathBuf;

use tunnel_client::local::LocalService;
use tunnel_client::local::proxy_protocol::ProxyProtocol;
use tunnel_client::local::trust::{Listed, LocalTrust};
use tunnel_client::tls_mode::TlsMode;
use tunnel_common::key::DataDir;

/// What visitors are offered if the user names nothing.
const DEFAULT_ALPN: &str = "http/1.1";
/// The longest protocol name (RFC 7301, 3.1).
const MAX_ALPN_BYTES: usize = 255;

#[derive(Debug, clap::Args)]
pub(super) struct Local {
    /// The local service: a port of 127.0.0.1, host:port, http://host, https://host or unix:path
    #[arg(long, default_value = "127.0.0.1:3000")]
    local: LocalService,
    /// PEM file with authorities, or certificates themselves, by which an https service is known
    /// [default: public authorities]
    #[arg(long, value_name = "FILE")]
    local_ca: Option<PathBuf>,
    /// Take any certificate of an https service that can be read at all
    #[arg(long)]
    local_insecure: bool,
    /// Where visitors' TLS ends: terminate (here) or passthrough (at the local service)
    #[arg(long, value_name = "MODE", default_value_t = TlsMode::default())]
    tls: TlsMode,
    /// Tell the local service who comes by a PROXY protocol header: v1 or v2
    #[arg(long, value_name = "VERSION")]
    proxy_protocol: Option<ProxyProtocol>,
    /// Protocols offered to visitors (ALPN), best first, by comma; empty offers none [default:
    /// http/1.1]
    #[arg(long, value_delimiter = ',')]
    alpn: Option<Vec<String>>,
    /// The local service of the second identity [default: that of --local]
    #[arg(long, requires = "secondary_key")]
    secondary_local: Option<LocalService>,
}

/// How visits end.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) local: LocalService,
    pub(super) second: LocalService,
    pub(super) tls: TlsMode,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) alpn: Vec<Vec<u8>>,
}

impl Local {
    /// What the flags say. Where they make no sense the result is of no use.
    pub(super) fn chosen(
        self,
        has_second: bool,
        data: &DataDir,
        mistakes: &mut Vec<String>,
    ) -> Chosen {
        let alpn = self.alpn(has_second, mistakes);
        let trust = self.trust(data, mistakes);
        if self.tls == TlsMode::Passthrough && has_second && self.secondary_local.is_none() {
            mistakes.push(
                "--tls passthrough: the second identity's TLS ends here all the same; name a service \
                 without TLS for it with --secondary-local"
                    .to_owned(),
            );
        }
        if self.tls == TlsMode::Passthrough && self.local.is_https() {
            mistakes.push(
                "--tls passthrough: the local service ends the visitors' own TLS; write --local \
                 host:port, not https://"
                    .to_owned(),
            );
        }
        let second = self.secondary_local.unwrap_or_else(|| self.local.clone());
        Chosen {
            local: self.local.with_trust(trust.clone()),
            second: second.with_trust(trust),
            tls: self.tls,
            proxy_protocol: self.proxy_protocol,
            alpn,
        }
    }

    fn alpn(&self, has_second: bool, mistakes: &mut Vec<String>) -> Vec<Vec<u8>> {
        if self.alpn.is_some() && self.tls == TlsMode::Passthrough && !has_second {
            mistakes.push(
                "--alpn: with --tls passthrough the local service and the visitor agree on it"
                    .to_owned(),
            );
        }
        let default = [DEFAULT_ALPN.to_owned()];
        let names = self.alpn.as_deref().unwrap_or(&default);
        if let Some(name) = names.iter().find(|name| name.len() > MAX_ALPN_BYTES) {
            mistakes.push(format!(
                "--alpn: {name} has more than {MAX_ALPN_BYTES} bytes"
            ));
        }
        let offered = names.iter().filter(|name| !name.is_empty());
        offered.map(|name| name.as_bytes().to_vec()).collect()
    }

    /// The rule by which an https service is known.
    fn trust(&self, data: &DataDir, mistakes: &mut Vec<String>) -> LocalTrust {
        let second = self.secondary_local.as_ref();
        let is_https = self.local.is_https() || second.is_some_and(LocalService::is_https);
        if (self.local_ca.is_some() || self.local_insecure) && !is_https {
            mistakes
                .push("--local-ca and --local-insecure: there is no https:// service".to_owned());
        }
        if self.local_ca.is_some() && self.local_insecure {
            mistakes.push("--local-ca, --local-insecure: one of the two at most".to_owned());
        }
        if let Some(file) = &self.local_ca {
            match Listed::from_pem_file(&data.file(file)) {
                Ok(listed) => return LocalTrust::Listed(listed),
                Err(error) => mistakes.push(format!("--local-ca: {error}")),
            }
        }
        if self.local_insecure {
            LocalTrust::Anything
        } else {
            LocalTrust::PublicCa
        }
    }
}
