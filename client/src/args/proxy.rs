//! Through which proxy.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use tracing::warn;
use tunnel_client::proxy::credentials::{Credentials, VARIABLE};
use tunnel_client::proxy::environment;
use tunnel_client::proxy::outbound::{BadProxy, OutboundProxy};
use tunnel_client::relay_addr::RelayAddr;
use tunnel_common::key::DataDir;

#[derive(Debug, clap::Args)]
pub(super) struct Proxy {
    /// Reach the relay through a proxy alone: http://host:port, socks5://host:port,
    /// socks5h://host:port (the proxy resolves the relay's name) or none [default: $HTTPS_PROXY or
    /// $ALL_PROXY, but for the hosts in $NO_PROXY]
    #[arg(long, value_name = "URL")]
    proxy: Option<Wanted>,
    /// File whose first line is user:password, for the proxy [default: $QTUN_PROXY_CREDENTIALS, or
    /// what is in the URL of $HTTPS_PROXY or $ALL_PROXY]
    #[arg(long, value_name = "FILE")]
    proxy_credentials: Option<PathBuf>,
}

/// What `--proxy` says. Parsing never fails: clap would repeat the whole text in its error, and with it
/// a password.
#[derive(Clone, Debug)]
enum Wanted {
    /// No proxy, whatever the environment says.
    None,
    /// This one.
    Proxy(Result<OutboundProxy, BadProxy>),
}

impl FromStr for Wanted {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "none" => Self::None,
            url => Self::Proxy(url.parse()),
        })
    }
}

impl Proxy {
    /// The proxy towards `relay` by the flags or, where they say nothing, by what `variable` finds in
    /// the environment.
    pub(super) fn chosen(
        self,
        relay: Option<&RelayAddr>,
        data: &DataDir,
        variable: impl Fn(&str) -> Option<OsString>,
        mistakes: &mut Vec<String>,
    ) -> Option<OutboundProxy> {
        let proxy = kept(self.proxy(relay, &variable), mistakes).flatten();
        let credentials = kept(self.credentials(data, &variable), mistakes).flatten();
        match (proxy, credentials) {
            (Some(proxy), Some(credentials)) => {
                let proxy = proxy.with_credentials(credentials);
                let proxy = proxy.map_err(|error| format!("the proxy's credentials: {error}"));
                kept(proxy, mistakes)
            }
            (Some(proxy), None) => Some(proxy),
            (None, _) => {
                self.tell_useless_file(mistakes);
                None
            }
        }
    }

    fn proxy(
        &self,
        relay: Option<&RelayAddr>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<OutboundProxy>, String> {
        match (&self.proxy, relay) {
            (Some(Wanted::None), _) | (None, None) => Ok(None),
            (Some(Wanted::Proxy(Ok(proxy))), _) if proxy.has_credentials() => Err(format!(
                "--proxy: a command line is seen by everybody on this machine, so it must not have \
                 a password; give user:password by --proxy-credentials FILE, or by the variable \
                 {VARIABLE}"
            )),
            (Some(Wanted::Proxy(Ok(proxy))), _) => Ok(Some(proxy.clone())),
            (Some(Wanted::Proxy(Err(error))), _) => Err(format!("--proxy: {error}")),
            (None, Some(relay)) => {
                environment::proxy(relay, variable).map_err(|error| error.to_string())
            }
        }
    }

    fn credentials(
        &self,
        data: &DataDir,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Credentials>, String> {
        match &self.proxy_credentials {
            Some(file) => {
                let read = Credentials::read(&data.file(file));
                read.map(Some)
                    .map_err(|error| format!("--proxy-credentials: {error}"))
            }
            None => environment::credentials(variable).map_err(|error| error.to_string()),
        }
    }

    /// Whoever names a file expects a proxy. That the environment exempts this relay is no mistake.
    fn tell_useless_file(&self, mistakes: &mut Vec<String>) {
        match (&self.proxy_credentials, &self.proxy) {
            (Some(_), Some(Wanted::None)) => {
                mistakes
                    .push("--proxy-credentials: with --proxy none there is no proxy".to_owned());
            }
            (Some(_), None) if mistakes.is_empty() => {
                warn!("--proxy-credentials: no proxy is in force, by no flag and no variable");
            }
            _ => {}
        }
    }
}

fn kept<T>(result: Result<T, String>, mistakes: &mut Vec<String>) -> Option<T> {
    result.map_err(|mistake| mistakes.push(mistake)).ok()
}

#[cfg(test)]
mod tests;
