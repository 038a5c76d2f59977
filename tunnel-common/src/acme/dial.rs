//! TCP connections to a host by its name, as a value that is handed in: an agent may have to go through a
//! proxy.

use std::fmt;
use std::io;
use std::pin::Pin;

use tokio::net::TcpStream;

/// What a [`Dial`] promises.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

/// Opens TCP connections.
pub trait Dial: fmt::Debug + Send + Sync {
    /// A connection to `port` of `host`, a name or an address literal without brackets. The caller sets
    /// the deadline; dropping the future gives it up.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a>;
}

/// By the system's resolver and without a proxy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

impl Dial for Direct {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        Box::pin(TcpStream::connect((host, port)))
    }
}
