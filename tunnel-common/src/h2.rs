//! What both ends of an HTTP/2 tunnel set alike: windows, limits, the requests' shape, the codes.
//!
//! After the agent's TLS the roles turn: the relay is HTTP/2's client, the agent its server, since a
//! server can not open streams. Control is one long-lived request, each visit is one.
//!
//! ```text
//!   relay ── POST https://qtun/control ──▶ agent    200, bodies both ways: control frames
//!   relay ── POST https://qtun/visit ────▶ agent    200 at once, bodies both ways: the visit
//!   relay ── POST https://qtun/close ────▶ agent    `code` says why; the agent closes the connection
//! ```
//!
//! A direction ends by trailers, and never otherwise: h2 forgets an end that has arrived with the
//! last bytes when the connection breaks before they are read, and keeps trailers.

use std::time::Duration;

use h2::{Reason, client, server};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use rustls::ConnectionCommon;

use crate::proof::{EXPORTER_LABEL, Exporter};
use crate::wire::alpn;
use crate::wire::code::Code;

pub mod socket;

/// What a peer may send ahead on one stream to begin with, and again when memory is short: 84 Mbit/s
/// at 100 ms. A connection whose first transfer is held back by less is not tried out by the kernel's BBR,
/// and is slow for seconds after the window has grown.
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// What it may send ahead on one stream where the path needs so much: 335 Mbit/s at 100 ms.
pub const MAX_STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// What a peer may send ahead on all streams together, at the most: 32 full streams.
pub const CONNECTION_WINDOW: u32 = 128 * 1024 * 1024;
/// Connections that one agent has to one relay at a time. Together they are to pin no more than one
/// QUIC connection.
pub const POOL: u32 = 4;
/// Streams that the relay may have open on one connection.
pub const MAX_STREAMS: u32 = 4096;
/// Streams that the relay has opened and the agent not yet answered, on one connection: what is lost
/// with an agent that stands still. Whoever comes later waits for the next tunnel.
pub const MAX_UNANSWERED: usize = 256;
/// The largest frame, HTTP/2's least: another visit's bytes wait for no more than that.
const FRAME_BYTES: u32 = 16 * 1024;
/// The largest header list. Ours has a hundred bytes; h2's default is 16 MiB.
const HEADER_LIST_BYTES: u32 = 16 * 1024;
/// What a stream may have queued for the socket.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Streams that were reset by the peer before they were accepted. h2 kills the connection past 20.
const MAX_PENDING_RESETS: usize = 1024;
/// Streams of which is remembered that we reset them, 8 MiB of memory. A frame for one that is
/// forgotten counts as the peer's error, and h2 allows [`MAX_ERROR_RESETS`] of these.
const MAX_RESETS: usize = 16 * 1024;
/// For how long: what was under way when we reset has arrived by then, or the connection is dead.
const RESET_MEMORY: Duration = Duration::from_secs(10);
/// Errors of the peer on single streams, over the connection's life, before h2 kills it.
const MAX_ERROR_RESETS: usize = 1024;
/// How far frames of under 256 bytes may fall short of that, all unread ones together, before h2
/// kills the connection: half a million frames of one byte. Its default is half of the window.
const SMALL_FRAMES_BUDGET: usize = CONNECTION_WINDOW as usize;

/// The trailer that ends a direction; its value is empty.
pub(crate) const END: HeaderName = HeaderName::from_static("end");

/// The relay's settings. `window` is the connection's, in bytes.
pub fn client_builder(window: u32) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .initial_max_send_streams(MAX_STREAMS as usize)
        .max_concurrent_streams(0)
        .enable_push(false)
        .max_concurrent_reset_streams(MAX_RESETS)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .data_frame_budget(SMALL_FRAMES_BUDGET);
    builder
}

/// The agent's settings. `window` is the connection's, in bytes.
pub fn server_builder(window: u32) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_concurrent_reset_streams(MAX_RESETS)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .data_frame_budget(SMALL_FRAMES_BUDGET);
    builder
}

/// What only the two ends of this TLS session know, as [`quic::exporter`](crate::quic::exporter)
/// gives it. `None` for a session that is not complete, or has agreed on another protocol than ours.
pub fn exporter<Data>(session: &ConnectionCommon<Data>) -> Option<Exporter> {
    if session.alpn_protocol() != Some(alpn::H2) {
        return None;
    }
    let exporter = session.export_keying_material(Exporter::default(), EXPORTER_LABEL, None);
    exporter.ok()
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The control frames of this tunnel.
    Control,
    /// One visit.
    Visit,
}

const CONTROL_URI: &str = "https://qtun/control";
const VISIT_URI: &str = "https://qtun/visit";
const CLOSE_URI: &str = "https://qtun/close";
/// The header that says why.
const CLOSE_CODE: HeaderName = HeaderName::from_static("code");

impl Purpose {
    /// The request that opens such a stream.
    pub fn request(self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_static(match self {
            Self::Control => CONTROL_URI,
            Self::Visit => VISIT_URI,
        });
        request
    }

    /// What the peer wants; `None` for a request that this version does not know.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        match request.uri().path() {
            _ if request.method() != Method::POST => None,
            "/control" => Some(Self::Control),
            "/visit" => Some(Self::Visit),
            _ => None,
        }
    }
}

/// The relay's last request: HTTP/2's client has no other way to say why it closes.
pub(crate) fn close_request(code: Code) -> Request<()> {
    let mut request = Purpose::Control.request();
    *request.uri_mut() = Uri::from_static(CLOSE_URI);
    let headers = request.headers_mut();
    headers.insert(CLOSE_CODE, HeaderValue::from(code.number()));
    request
}

/// Why the relay closes, if this is what it says.
pub fn close_code<B>(request: &Request<B>) -> Option<Code> {
    let is_close = request.method() == Method::POST && request.uri().path() == "/close";
    let number = request.headers().get(CLOSE_CODE)?.to_str().ok()?;
    let number: u64 = number.parse().ok()?;
    is_close.then(|| number.into())
}

/// Where our codes stand among HTTP/2's: its own are below 2^16.
const OURS: u32 = 0x5154_0000;

/// The number for a code, and the code's number for that: its own inverse, so that nothing is lost
/// either way. 0 means the same in both tables; our others change places with HTTP/2's.
fn swap(number: u32) -> u32 {
    let low = number & 0xffff;
    match number - low {
        _ if low == 0 => number,
        0 => low | OURS,
        OURS => low,
        _ => number,
    }
}

/// The reason that tells the peer `code`.
pub fn reason(code: Code) -> Reason {
    swap(code.number()).into()
}

/// What a reason from the peer means. HTTP/2's own come out as [`Code::Other`].
pub fn code(reason: Reason) -> Code {
    u64::from(swap(reason.into())).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_tells_what_it_is_for() {
        for purpose in [Purpose::Control, Purpose::Visit] {
            assert_eq!(Purpose::of(&purpose.request()), Some(purpose));
        }
        let mut request = Purpose::Visit.request();
        *request.method_mut() = Method::GET;
        assert_eq!(Purpose::of(&request), None);
        let mut request = Purpose::Visit.request();
        *request.uri_mut() = Uri::from_static("https://qtun/");
        assert_eq!(Purpose::of(&request), None);
    }

    #[test]
    fn a_close_says_why_and_is_nothing_else() {
        for code in [Code::None, Code::Replaced, Code::Other(77)] {
            let request = close_request(code);
            assert_eq!(close_code(&request), Some(code));
            assert_eq!(Purpose::of(&request), None);
        }
        assert_eq!(close_code(&Purpose::Control.request()), None);
        let mut request = close_request(Code::None);
        let headers = request.headers_mut();
        headers.insert(CLOSE_CODE, HeaderValue::from_static("-1"));
        assert_eq!(close_code(&request), None);
    }

    #[test]
    fn none_is_no_error_and_no_other_code_is_a_reason_of_http2() {
        assert_eq!(reason(Code::None), Reason::NO_ERROR);
        assert_eq!(code(Reason::NO_ERROR), Code::None);
        for number in 1..=10_u64 {
            assert!(u32::from(reason(number.into())) > OURS);
        }
        for number in 1..=13_u32 {
            let of_http2 = code(Reason::from(number));
            assert!(matches!(of_http2, Code::Other(_)), "{of_http2:?}");
        }
    }

    proptest! {
        #[test]
        fn every_code_and_every_reason_comes_back(number: u32, small in 0..=20_u32) {
            for number in [number, small, small | OURS, number & 0xffff, number | OURS] {
                let sent = Code::from(u64::from(number));
                prop_assert_eq!(code(reason(sent)), sent);
                prop_assert_eq!(reason(code(Reason::from(number))), Reason::from(number));
            }
        }
    }
}
