//! The answer to a visitor who speaks plain-text HTTP to the TLS port: where to go instead, or that
//! it is wrong here.
//!
//! 1. The request head is parsed by `httparse`; what it refuses gets a 400.
//! 2. `destination` finds host and path that were asked for (RFC 9112, 3.2), refusing whatever is
//!    ambiguous.
//! 3. A host that is ours gets a `308 Permanent Redirect` to the same path over https (RFC 9110,
//!    15.4.9), which keeps method and body; every other one a 400: a redirect to a name of the
//!    visitor's choice would serve phishers.
//!
//! A pure function; [`client_hello`](crate::client_hello) has read the head, the caller sends the
//! answer and closes.
//!
//! No byte of the visitor's gets into the answer unchecked: the host consists of letters, digits,
//! `-`, `_` and `.`, the path of visible ASCII. Neither can end a header line.

use std::fmt::Write;

/// Most header lines in a request; browsers send 10 to 20, Apache and hyper stop at 100. More get a
/// 400.
const MAX_HEADERS: usize = 64;

/// Most bytes of a host name in text form (RFC 1035, 2.3.4, without the length bytes).
const MAX_HOST_LEN: usize = 253;

/// The port that an https URL without a port means (RFC 9110, 4.2.2).
const HTTPS_PORT: u16 = 443;

/// What a visitor reads whom we can not send anywhere.
const BAD_REQUEST: &str = "HTTP/1.1 400 Bad Request\r\n\
    Connection: close\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 27\r\n\
    \r\n\
    This port speaks TLS only.\n";

/// Where a request wanted to go.
#[derive(Debug, PartialEq, Eq)]
struct Destination<'a> {
    /// The host: lower-case, without port and trailing dot.
    host: String,
    /// Path and query; empty or begins with `/` or `?`.
    path: &'a str,
}

/// The whole response to the request with this `head`: a redirect if its host `is_ours`, else a
/// 400.
///
/// `is_ours` gets the host in lower case, without port and without a trailing dot. `public_port` is
/// the port on which visitors reach us with TLS. A head that is incomplete, too long or no HTTP/1.x
/// gets the 400 too.
pub fn answer(head: &[u8], is_ours: impl Fn(&str) -> bool, public_port: u16) -> Vec<u8> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let destination = match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => destination(&request),
        Ok(httparse::Status::Partial) | Err(_) => None,
    };
    match destination {
        Some(destination) if is_ours(&destination.host) => {
            redirect(&destination, public_port).into_bytes()
        }
        _ => BAD_REQUEST.into(),
    }
}

/// The redirect to `destination` over https.
fn redirect(Destination { host, path }: &Destination<'_>, public_port: u16) -> String {
    let mut location = format!("https://{host}");
    if public_port != HTTPS_PORT {
        // Writing to a String can not fail.
        let _ = write!(location, ":{public_port}");
    }
    if !path.starts_with('/') {
        location.push('/');
    }
    location.push_str(path);
    format!(
        "HTTP/1.1 308 Permanent Redirect\r\n\
         Location: {location}\r\n\
         Connection: close\r\n\
         Content-Length: 0\r\n\
         \r\n"
    )
}

/// Where `request` wanted to go; `None` unless that is plain and unambiguous.
///
/// A request must have exactly one Host header even if its target names the host too, and then the
/// target counts (RFC 9112, 3.2 and 3.2.2). `OPTIONS *` and `CONNECT host:port` have no path that
/// could be redirected to.
fn destination<'a>(request: &httparse::Request<'_, 'a>) -> Option<Destination<'a>> {
    let mut hosts = request
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("host"));
    let (host, None) = (hosts.next()?, hosts.next()) else {
        return None;
    };
    let target = request.path?;
    if !target
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        return None;
    }
    let (authority, path) = if target.starts_with('/') {
        (std::str::from_utf8(host.value).ok()?, target)
    } else {
        absolute_form(target)?
    };
    Some(Destination {
        host: host_of(authority)?,
        path,
    })
}

/// Splits a target like `http://host:80/path?query` into its authority and the rest (RFC 9112,
/// 3.2.2).
fn absolute_form(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

/// The host in `authority`, if that is a DNS name with or without a port: lower-case, one trailing
/// dot stripped.
///
/// IPv6 literals and user names are refused by the characters they need.
fn host_of(authority: &str) -> Option<String> {
    let authority = authority.trim_matches([' ', '\t']);
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let port_is_fine = port.is_empty()
        || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let host = host.strip_suffix('.').unwrap_or(host);
    let host_is_fine = (1..=MAX_HOST_LEN).contains(&host.len())
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    (port_is_fine && host_is_fine).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
