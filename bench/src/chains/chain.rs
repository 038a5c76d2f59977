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
    /// Where other agents may come as well, if it is one of ours.
    pub(crate) api: Option<Api>,
    /// What stands on the public host.
    pub(crate) relay: Option<Process>,
    /// What stands beside nginx.
    pub(crate) agent: Option<Process>,
    /// Ports that were held for it.
    pub(crate) _ports: Vec<ports::Reserved<TcpListener>>,
}

/// Where agents come.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    /// The relay's key, as agents are told it.
    pub(crate) key: String,
}

impl Chain {
    /// Processor time that its own processes have used so far; nginx is nobody's own.
    pub(crate) fn processor_time(&self) -> Duration {
        let processes = [&self.relay, &self.agent].into_iter().flatten();
        processes.map(Process::processor_time).sum()
    }

    /// What relay and agent hold now, where there is such a thing, in bytes.
    pub(crate) fn memory(&self) -> [Option<f64>; 2] {
        let of = |process: &Process| process.resident_bytes() as f64;
        [&self.relay, &self.agent].map(|process| process.as_ref().map(of))
    }

    /// What each of so many has added to [`memory`](Self::memory) since, in KiB.
    pub(crate) fn grown(&self, before: [Option<f64>; 2], many: usize) -> [Option<f64>; 2] {
        let [relay, agent] = self.memory();
        let each = |now: Option<f64>, before: Option<f64>| {
            now.zip(before)
                .map(|(now, before)| (now - before) / 1024.0 / many as f64)
        };
        [each(relay, before[0]), each(agent, before[1])]
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
