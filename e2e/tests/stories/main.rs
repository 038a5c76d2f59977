//! What users get, told over real sockets.

mod admission;
mod allowed;
mod bad_networks;
mod bytes;
mod crowd;
mod endings;
mod exits;
mod files;
mod hello;
mod keys;
mod limits;
mod local_ends;
mod locals;
mod netsim;
mod one_port;
mod processes;
mod proxies;
mod refusals;
mod replaced;
mod routing;
mod second;
mod tools;
mod trust;
mod tunnels;
mod wire;
