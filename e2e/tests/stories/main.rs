//! What users get, told over real sockets.

mod admission;
mod hello;
mod refusals;
mod replaced;
mod routing;
mod tunnels;
mod wire;
