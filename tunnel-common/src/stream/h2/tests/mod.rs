//! Streams between a real h2 client and a real h2 server, over a pipe.

mod crowds;
mod endings;
mod harness;
mod moves;
