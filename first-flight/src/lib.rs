//! What strangers send first: the parsers at the relay's public ports, without anything else.
//!
//! * [`proxy_header`] is what a proxy in front of the relay says about the visitor.
//! * [`client_hello`] reads a visitor's first flight, and finds the server name in it.
//! * [`plain_http`] answers those who speak HTTP in the clear.
//! * [`alert`] is what all others are told.
//!
//! Nothing here opens a socket, keeps a clock, logs, or knows a TLS provider: so all of it can be
//! fuzzed after a build of seconds.

pub mod alert;
pub mod client_hello;
pub mod plain_http;
pub mod proxy_header;
