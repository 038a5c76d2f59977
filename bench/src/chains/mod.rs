//! The ways to reach nginx: its processes, and where visitors come in.

pub(crate) mod bore;
pub(crate) mod chain;
pub(crate) mod haproxy;
pub(crate) mod ours;
pub(crate) mod peers;
pub(crate) mod rathole;
pub(crate) mod start;
