//! The rim of both binaries: descriptors, memory, signals, log.

use std::io::{self, IsTerminal as _};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Descriptors to count on where the system names no limit.
const DESCRIPTORS_WITHOUT_LIMIT: u64 = 1 << 20;
/// The memory to count on where the system does not say how much it has: a small server.
const MEMORY_IF_UNKNOWN: u64 = 1 << 30;
/// A quarter of the machine's memory may be pinned by slow readers.
const MEMORY_SHARE: u64 = 4;

/// The exit codes of both binaries.
pub mod exit {
    /// Ended as it was asked to.
    pub const ASKED: u8 = 0;
    /// Failed.
    pub const FAILED: u8 = 1;
    /// The command line or the configuration is wrong.
    pub const USAGE: u8 = 2;
    /// The relay refuses this agent, and trying again would not help.
    pub const REFUSED: u8 = 3;
}

/// Raises the soft limit of open descriptors to the hard one, and says how many there may be.
///
/// Every visit takes one or two. Where the limit can not be raised, the one in force is returned.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    };
    in_force.unwrap_or(DESCRIPTORS_WITHOUT_LIMIT)
}

/// The default memory budget: a quarter of the machine's memory, in bytes.
pub fn default_memory_budget() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total_memory(&meminfo).unwrap_or(MEMORY_IF_UNKNOWN) / MEMORY_SHARE
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Waits for SIGINT or SIGTERM.
pub async fn asked_to_end() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Sends the log to standard error: INFO and above, or what `RUST_LOG` asks for.
///
/// rustls is held at ERROR whatever is asked, because it logs names that strangers send.
pub fn init_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let quiet = "rustls=error".parse().expect("a directive");
    tracing_subscriber::fmt()
        .with_env_filter(filter.add_directive(quiet))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_descriptor_limit_becomes_the_hard_one() {
        let raised = raise_descriptor_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised, limit.maximum.unwrap_or(DESCRIPTORS_WITHOUT_LIMIT));
    }

    #[test]
    fn the_machines_memory_is_read() {
        let meminfo = "MemTotal:       16384 kB\nMemFree:  1 kB\n";
        assert_eq!(total_memory(meminfo), Some(16 << 20));
        assert_eq!(total_memory(""), None);
        assert!(default_memory_budget() > 0);
    }
}
