//! One way to reach nginx.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use e2e::ports;
use e2e::process::Process;

use crate::row::Row;

/// One that runs. Dropping it ends its processes.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) row: Row,
    /// Where visitors come in.
    pub(crate) entrance: SocketAddr,
    /// The name that they ask for.
    pub(crate) host: String,
    /// What stands on the public host.
    pub(crate) relay: Option<Process>,
    /// What stands beside nginx.
    pub(crate) agent: Option<Process>,
    /// Ports that were held for it.
    pub(crate) _ports: Vec<ports::Reserved<TcpListener>>,
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) relay: u64,
    pub(crate) agent: u64,
}

impl Chain {
    /// Processor time that its own processes have used so far; nginx is nobody's own.
    pub(crate) fn processor_time(&self) -> Duration {
        let processes = [&self.relay, &self.agent].into_iter().flatten();
        processes.map(Process::processor_time).sum()
    }

    /// What its processes hold now.
    pub(crate) fn memory(&self) -> Memory {
        let of = |process: &Option<Process>| process.as_ref().map_or(0, Process::resident_bytes);
        Memory {
            relay: of(&self.relay),
            agent: of(&self.agent),
        }
    }

    /// The URL of something that nginx has.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}:{}/{path}", self.host, self.entrance.port())
    }

    /// What its processes have said on standard error.
    pub(crate) fn log(&self) -> String {
        let processes = [&self.relay, &self.agent].into_iter().flatten();
        processes.map(Process::log).collect()
    }
}
