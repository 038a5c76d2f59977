//! What happens to this host: it sleeps and wakes, its networks come and go.
//!
//! * [`events`] is one watcher for the whole agent, which tells every link; `network` and `sleep` are
//!   what it watches.
//! * [`source`] says from which address this host would send.

pub(crate) mod events;
mod network;
mod sleep;
pub(crate) mod source;
