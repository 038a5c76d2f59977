//! The pump between two byte streams: the inner loop of relay and agent alike.

pub mod buffer;
pub mod direction;
pub mod end;
pub mod io;
pub mod pump;
pub mod tcp;
