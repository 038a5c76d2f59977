//! Through which proxy.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tracing::warn;
use tunnel_client::outward::{Outward, Proxies};
use tunnel_client::proxy::credentials::{Credentials, VARIABLE};
use tunnel_client::proxy::environment::{self, NO_PROXY_VARIABLES, PROXY_VARIABLES};
use tunnel_client::proxy::outbound::{BadProxy, OutboundProxy};
use tunnel_client::relay_addr::RelayAddr;
use tunnel_client::resolve::SystemResolver;
use tunnel_common::key::DataDir;

use super::mistakes::tell_once;

#[derive(Debug, clap::Args)]
pub(super) struct Proxy {
    /// Reach the relay, and all else but the local service, through a proxy alone: http://host:port,
    /// socks5://host:port, socks5h://host:port (the proxy resolves names) or none [default: $HTTPS_PROXY
    /// or $ALL_PROXY, but for the hosts in $NO_PROXY]
    #[arg(long, value_name = "URL")]
    proxy: Option<Wanted>,
    /// File whose first line is user:password, for the proxy [default: $QTUN_PROXY_CREDENTIALS, or
    /// what is in the URL of $HTTPS_PROXY or $ALL_PROXY]
    #[arg(long, value_name = "FILE")]
    proxy_credentials: Option<PathBuf>,
}

/// Reaches hosts by the system's resolver and through these proxies.
pub(super) fn outward(proxies: Proxies) -> Outward {
    Outward::new(Arc::new(SystemResolver)).with_proxies(proxies)
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
    /// The proxy towards each of `relays` by the flags or, where they say nothing, by what `variable`
    /// finds in the environment. Then the same for every other host, by the same rules.
    pub(super) fn chosen(
        self,
        relays: &[RelayAddr],
        data: &DataDir,
        variable: impl Fn(&str) -> Option<OsString>,
        mistakes: &mut Vec<String>,
    ) -> (Vec<Option<OutboundProxy>>, Proxies) {
        let proxies = relays.iter().map(|relay| self.proxy(relay, &variable));
        let proxies: Vec<_> = proxies
            .map(|proxy| kept(proxy, mistakes).flatten())
            .collect();
        let credentials = kept(self.credentials(data, &variable), mistakes).flatten();
        if proxies.iter().all(Option::is_none) {
            self.tell_useless_file(mistakes);
        }
        let proxies = proxies.into_iter().map(|proxy| {
            let proxy = with_credentials(proxy?, credentials.clone());
            kept(proxy, mistakes)
        });
        (proxies.collect(), self.elsewhere(credentials, variable))
    }

    /// The rule for hosts that are not known yet, by the environment as it is now.
    fn elsewhere(
        self,
        credentials: Option<Credentials>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Proxies {
        let names = PROXY_VARIABLES.into_iter().chain(NO_PROXY_VARIABLES);
        let now = names.filter_map(|name| Some((name, variable(name)?)));
        let now: HashMap<_, _> = now.collect();
        Proxies::by(move |host| {
            let proxy = self.proxy(host, |name| now.get(name).cloned());
            let proxy = proxy.map_err(io::Error::other)?;
            let proxy = proxy.map(|proxy| with_credentials(proxy, credentials.clone()));
            proxy.transpose().map_err(io::Error::other)
        })
    }

    fn proxy(
        &self,
        relay: &RelayAddr,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<OutboundProxy>, String> {
        match &self.proxy {
            Some(Wanted::None) => Ok(None),
            Some(Wanted::Proxy(Ok(proxy))) if proxy.has_credentials() => Err(format!(
                "--proxy: a command line is seen by everybody on this machine, so it must not have \
                 a password; give user:password by --proxy-credentials FILE, or by the variable \
                 {VARIABLE}"
            )),
            Some(Wanted::Proxy(Ok(proxy))) => Ok(Some(proxy.clone())),
            Some(Wanted::Proxy(Err(error))) => Err(format!("--proxy: {error}")),
            None => environment::proxy(relay, variable).map_err(|error| error.to_string()),
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

    /// Whoever names a file expects a proxy. That the environment exempts his relays is no mistake.
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

fn with_credentials(
    proxy: OutboundProxy,
    credentials: Option<Credentials>,
) -> Result<OutboundProxy, String> {
    let Some(credentials) = credentials else {
        return Ok(proxy);
    };
    let proxy = proxy.with_credentials(credentials);
    proxy.map_err(|error| format!("the proxy's credentials: {error}"))
}

fn kept<T>(result: Result<T, String>, mistakes: &mut Vec<String>) -> Option<T> {
    result.map_err(|mistake| tell_once(mistakes, mistake)).ok()
}

#[cfg(test)]
mod tests;
