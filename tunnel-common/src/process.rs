//! The rim of both binaries: descriptors, memory, signals, log.

use std::error::Error;
use std::io::{self, IsTerminal as _};
use std::num::NonZero;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::{env, fmt, iter};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::error;
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
    /// Of a public URL: nobody can be asked whether it is its agent who answers.
    pub const UNKNOWN: u8 = FAILED;
    /// Of a public URL: somebody else answers in its agent's place.
    pub const LYING: u8 = 3;
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

/// Runs a program, which gives its exit code, to its end: on half of the processors that it may use, at
/// least one.
///
/// The other half is the kernel's, which moves the bytes, and that of the service beside an agent; and
/// visits that meet on one thread leave in one packet. `TOKIO_WORKER_THREADS` says otherwise.
pub fn run(program: impl Future<Output = u8>) -> ExitCode {
    let mut threads = Builder::new_multi_thread();
    if env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let processors = available_parallelism().map_or(1, NonZero::get);
        threads.worker_threads(processors.div_ceil(2));
    }
    match threads.enable_all().build() {
        Ok(threads) => threads.block_on(program),
        Err(error) => {
            error!("no threads to run on: {error}");
            exit::FAILED
        }
    }
    .into()
}

/// The default memory budget in bytes: a quarter of what this process may use, the machine's memory
/// or less in a container.
pub fn default_memory_budget() -> u64 {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let machine = total_memory(&read("/proc/meminfo")).unwrap_or(MEMORY_IF_UNKNOWN);
    let container = read("/sys/fs/cgroup/memory.max")
        .trim()
        .parse()
        .unwrap_or(u64::MAX);
    machine.min(container) / MEMORY_SHARE
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Everything that is wrong with a command line or a configuration, each on a line of its own.
#[derive(Debug)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// An error with its causes, as a user reads it. Many errors here name their cause themselves: what
/// has been said is not said twice.
pub fn in_full(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let causes = iter::successors(error.source(), |cause| (*cause).source());
    for cause in causes.map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// SIGINT and SIGTERM. From when this is made they do not kill the process any more, and none that
/// comes while nobody waits is lost.
#[derive(Debug)]
pub struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    /// Begins to listen. Must be called inside a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Sends the log to standard error: INFO and above, or what `RUST_LOG` asks for.
///
/// rustls and h2 are held at ERROR, because they log what strangers send, and as often as they send it,
/// unless `RUST_LOG` names one of their modules.
pub fn init_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let quiet = ["rustls=error", "h2=error"].map(|quiet| quiet.parse().expect("a directive"));
    let filter = quiet.into_iter().fold(filter, EnvFilter::add_directive);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // It would be told on standard error, which panics when that is what failed.
        .log_internal_errors(false)
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
