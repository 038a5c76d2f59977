//! The visitors' side.

mod client_hello;
pub(crate) mod listener;
mod plain_http;
mod refusal;
mod route;
mod visit;
