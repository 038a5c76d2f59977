//! What users get, told over real sockets.

mod admission;
mod crowd;
mod exits;
mod files;
mod hello;
mod processes;
mod refusals;
mod replaced;
mod routing;
mod tools;
mod tunnels;
mod wire;
