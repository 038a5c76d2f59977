//! Streams between a real h2 client and a real h2 server, over a pipe.

mod both_ways;
mod closing;
mod crowds;
mod endings;
mod harness;
mod moves;
mod rules;
mod watching;
