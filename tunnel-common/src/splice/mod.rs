//! The pump between two byte streams: the inner loop of relay and agent alike.

pub mod buffer;
mod direction;
pub mod duplex;
pub mod end;
pub mod ended;
pub mod io;
pub mod options;
pub mod pump;
pub mod tcp;
mod tls;
mod unix;
