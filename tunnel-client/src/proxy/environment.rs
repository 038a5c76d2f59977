//! The proxy that the environment names, as curl reads it for an `https` target.
//!
//! 1. The first of `https_proxy`, `HTTPS_PROXY`, `all_proxy` and `ALL_PROXY` that is not empty; the
//!    lower case has precedence. `http_proxy` says nothing about us.
//! 2. `no_proxy`, else `NO_PROXY`: hosts that are reached without it.
//!
//! Other than curl, a variable that can not be used is an error: to go without the proxy that
//! somebody set is not what he wants.

use std::ffi::OsString;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::credentials::{BadCredentials, Credentials, VARIABLE};
use super::outbound::{BadProxy, OutboundProxy};
use crate::relay_addr::RelayAddr;

/// Where a proxy may be named, the first first.
pub const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// Where hosts are named that are reached without a proxy, the first first.
pub const NO_PROXY_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// A variable that can not be used. Its value, which may have a password, is not told.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadVariable {
    /// It is no text.
    #[error("the variable {0} is not UTF-8")]
    NotText(&'static str),
    /// It names no proxy.
    #[error("the variable {0}: {1}")]
    Proxy(&'static str, #[source] BadProxy),
    /// It has no credentials.
    #[error("the variable {0}: {1}")]
    Credentials(&'static str, #[source] BadCredentials),
}

/// The proxy that the environment names for `relay`, with the credentials in its URL if it has any.
///
/// `variable` looks up an environment variable; an empty one counts as not set.
pub fn proxy(
    relay: &RelayAddr,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<OutboundProxy>, BadVariable> {
    let Some((name, url)) = first(&PROXY_VARIABLES, &variable)? else {
        return Ok(None);
    };
    if let Some((_, list)) = first(&NO_PROXY_VARIABLES, &variable)?
        && is_exempt(relay, &list)
    {
        return Ok(None);
    }
    let proxy = url.trim().parse();
    proxy
        .map(Some)
        .map_err(|error| BadVariable::Proxy(name, error))
}

/// The credentials in [`VARIABLE`].
pub fn credentials(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Credentials>, BadVariable> {
    let Some((name, text)) = first(&[VARIABLE], &variable)? else {
        return Ok(None);
    };
    let parsed = text.parse();
    parsed
        .map(Some)
        .map_err(|error| BadVariable::Credentials(name, error))
}

/// The first variable that is set, and its value.
fn first(
    names: &[&'static str],
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(&'static str, String)>, BadVariable> {
    for name in names {
        if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
            let text = value
                .into_string()
                .map_err(|_| BadVariable::NotText(name))?;
            return Ok(Some((name, text)));
        }
    }
    Ok(None)
}

/// Whether the list names the relay: its host, a domain that it is in, its address or network, or `*`.
fn is_exempt(relay: &RelayAddr, list: &str) -> bool {
    // curl takes blanks between hosts as well, the matcher commas only.
    let list: Vec<_> = list.split_whitespace().collect();
    let matcher = Matcher::builder().all("http://proxy").no(list.join(","));
    match Uri::try_from(format!("https://{relay}")) {
        Ok(target) => matcher.build().intercept(&target).is_none(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
