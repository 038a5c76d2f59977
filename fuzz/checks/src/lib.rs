//! What must hold for any input of the parsers that face strangers and peers.
//!
//! Each module has one function `check`, which panics if something does not hold, and else says what
//! the parser made of the input. The fuzz targets call it with what libFuzzer thinks of, and
//! `tests/corpus.rs` with every file of the committed corpora.
//!
//! [`reads`] hands an input to a reader in pieces that the input itself lays down.

pub mod client_hello;
pub mod control_frames;
pub mod names;
pub mod plain_http;
pub mod proxy_header;
pub mod reads;
pub mod stream_header;
pub mod verdict;
