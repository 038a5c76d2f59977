//! A small ACME server in this process, for what pebble lacks: renewal information (RFC 9773),
//! profiles, rate limits, and dates that follow a story's clock.
//!
//! ```text
//! client ──TLS──▶ server: HTTP/1.1
//!                   └▶ service: one request, under the lock of `state`
//!                        ├▶ jws: what it says
//!                        ├▶ accounts, orders: RFC 8555, 7.3 and 7.4
//!                        │    └▶ issue: the certificate for a CSR
//!                        └▶ renewal: the window for it
//! ```
//!
//! * [`mock_ca()`] and [`mock_ca_at()`] start one, [`MockCa`] tells what it saw, and [`Rules`] say how
//!   it behaves, which a story may change at any time.
//! * It is no test of cryptography: signatures of requests are decoded and not verified, and a
//!   challenge is won or lost as the rules say, without a look at the host. It does insist on fresh
//!   nonces, on the URL in each request, on known accounts, and on a CSR for the hosts of the order.
//! * It has no revocation, no key change, no external accounts, and any client may read any order.

mod accounts;
mod answer;
mod issue;
mod jws;
mod orders;
mod renewal;
mod rules;
mod seen;
mod server;
mod service;
mod state;

pub use rules::{Ari, CAA_IDENTITY, Garbled, RateLimit, RetryAfter, Rules};
pub use seen::{SeenCsr, SeenOrder, SeenRequest};
pub use server::{MockCa, mock_ca, mock_ca_at};
