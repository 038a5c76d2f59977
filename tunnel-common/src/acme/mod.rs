//! Certificates from a certificate authority, by ACME (RFC 8555) with TLS-ALPN-01 (RFC 8737), for either
//! end.
//!
//! ```text
//! certifier ── due? ──▶ self-test ──▶ order ──▶ on the disk ──▶ shown
//!     ▲                                 │
//!     └── not before … ◀── failure ◀────┘
//! ```
//!
//! * [`authority`] is who certifies, and what it must be told; [`settings`] is what a user says of it.
//!   `client` speaks HTTPS to it, [`dial`] is how it is reached; `account` is ours there, kept in a
//!   [`credentials`] file.
//! * [`order`] is one order, from the wish to the chain; [`challenge`] is what the authority is shown
//!   meanwhile; [`probe`] sees first whether it would get there; [`ca`] puts these together.
//! * [`chain`] reads what was issued, [`renewal`] says when it is to be renewed and how long to wait after a
//!   failure: pure functions.
//! * [`caa`] is the DNS record by which a name's owner says who may certify it.
//! * [`certifier`] keeps one host name certified, for ever. What is different between relay and agent is
//!   behind the trait [`Site`](site::Site).

mod account;
pub mod authority;
pub mod ca;
pub mod caa;
pub mod certifier;
pub mod chain;
pub mod challenge;
mod client;
pub mod credentials;
pub mod dial;
pub mod failure;
mod nonce;
pub mod order;
pub mod probe;
pub mod renewal;
pub mod settings;
pub mod site;
pub mod state;
