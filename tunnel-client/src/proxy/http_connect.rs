//! A connection through an HTTP proxy: CONNECT (RFC 9110, 9.3.6) with basic authentication
//! (RFC 7617).
//!
//! 1. The request, in one write.
//! 2. The header of the answer, a byte at a time: what stands behind it is the relay's and stays in
//!    the socket, and the header is read once a dial.
//! 3. The status decides. The body of a refusal is not read.

use std::io::ErrorKind::UnexpectedEof;

use httparse::{Response, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tunnel_common::escape::Escaped;

use super::credentials::Credentials;
use super::failure::ProxyError;
use super::target::Target;

/// The longest header, interim answers included: proxies send some hundred bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// How every answer begins. Something else would not end as a header does, and be waited for.
const BEGIN: &[u8] = b"HTTP/1.";
/// Credentials are wanted (RFC 9110, 15.5.8).
const AUTHENTICATION_REQUIRED: u16 = 407;
/// What tinyproxy says to wrong ones.
const UNAUTHORIZED: u16 = 401;

/// Asks the proxy at the other end of `proxy` for a connection to `target`; then `proxy` is that
/// connection. The caller sets the deadline.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    proxy: &mut S,
    target: &Target,
    credentials: Option<&Credentials>,
) -> Result<(), ProxyError> {
    let request = request(target, credentials);
    let written = proxy.write_all(request.as_bytes()).await;
    written.map_err(ProxyError::Broken)?;
    let mut room = MAX_HEADER_BYTES;
    loop {
        let header = read_header(proxy, &mut room).await?;
        let line = header.split(|byte| *byte == b'\n').next();
        let line = line.unwrap_or_default().trim_ascii_end();
        match status(line)? {
            // Answers before the answer (RFC 9110, 15.2); 101 is none of these.
            100 | 102..=199 => {}
            200..=299 => return Ok(()),
            AUTHENTICATION_REQUIRED | UNAUTHORIZED => {
                return Err(authentication(&header, credentials));
            }
            // Its words might be ours.
            code if credentials.is_some() => {
                return Err(ProxyError::Refused(format!("HTTP status {code}")));
            }
            _ => {
                let line = String::from_utf8_lossy(line).into_owned();
                return Err(ProxyError::Refused(line));
            }
        }
    }
}

fn request(target: &Target, credentials: Option<&Credentials>) -> String {
    let authorization = credentials.map(Credentials::basic);
    let authorization = authorization.map(|basic| format!("Proxy-Authorization: {basic}\r\n"));
    format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n",
        authorization.unwrap_or_default()
    )
}

/// Reads a header with the empty line behind it, and nothing more.
async fn read_header(
    proxy: &mut (impl AsyncRead + Unpin),
    room: &mut usize,
) -> Result<Vec<u8>, ProxyError> {
    let mut header = vec![];
    while !(header.ends_with(b"\n\r\n") || header.ends_with(b"\n\n")) {
        *room = room
            .checked_sub(1)
            .ok_or(ProxyError::TooLong(MAX_HEADER_BYTES))?;
        match proxy.read_u8().await {
            Ok(byte) => header.push(byte),
            Err(error) if error.kind() == UnexpectedEof => return Err(ProxyError::Closed),
            Err(error) => return Err(ProxyError::Broken(error)),
        }
        if !header
            .iter()
            .zip(BEGIN)
            .all(|(byte, wanted)| byte == wanted)
        {
            return Err(ProxyError::NotUnderstood("HTTP/1.1"));
        }
    }
    Ok(header)
}

/// The status in a status line. The fields behind it may be as sloppy as they like.
fn status(line: &[u8]) -> Result<u16, ProxyError> {
    let header = [line, b"\r\n\r\n"].concat();
    let mut response = Response::new(&mut []);
    match (response.parse(&header), response.code) {
        (Ok(Status::Complete(_)), Some(code)) => Ok(code),
        _ => Err(ProxyError::NotUnderstood("HTTP/1.1")),
    }
}

/// What a proxy that wants to know us is to be told.
fn authentication(header: &[u8], credentials: Option<&Credentials>) -> ProxyError {
    let text = String::from_utf8_lossy(header);
    let challenges = text.lines().filter_map(|line| line.split_once(':'));
    let challenges = challenges.filter(|(name, _)| name.eq_ignore_ascii_case("Proxy-Authenticate"));
    let schemes = challenges.filter_map(|(_, value)| value.split_whitespace().next());
    let schemes: Vec<_> = schemes.collect();
    let knows_basic = schemes
        .iter()
        .any(|name| name.eq_ignore_ascii_case("Basic"));
    if !schemes.is_empty() && !knows_basic {
        let schemes = schemes.join(", ");
        return ProxyError::Authentication(Escaped(&schemes).to_string());
    }
    match credentials {
        None => ProxyError::CredentialsWanted,
        Some(_) => ProxyError::CredentialsRefused,
    }
}

#[cfg(test)]
mod tests;
