//! Names of namespaces that tell who made them, and what becomes of those whose maker was killed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

/// Where `ip netns` keeps namespaces.
pub(super) const NAMESPACES: &str = "/var/run/netns";
/// Where `ip netns exec` looks for files that replace those of `/etc`.
pub(super) const FILES: &str = "/etc/netns";
/// What our names begin with.
const PREFIX: &str = "netsim";
/// States of processes that have ended.
const GONE: [&str; 2] = ["Z", "X"];
/// The field of `/proc/<pid>/stat` with the time of the start, counted behind the program's name.
const STARTED: usize = 19;

/// A name that no other namespace has: `netsim-<process>-<its start>-<count>-<random>-<role>`.
pub(super) fn name(role: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let started = started(process).unwrap_or_default();
    let random = fastrand::u16(..);
    format!("{PREFIX}-{process}-{started}-{count}-{random:04x}-{role}")
}

/// Removes the namespaces whose makers are gone.
pub(super) fn sweep() {
    let Ok(entries) = fs::read_dir(NAMESPACES) else {
        return;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for name in names.filter(|name| is_orphan(name)) {
        remove(&name);
    }
}

/// Ends what still runs in a namespace, and removes it and its files. Another process may do the
/// same at the same time, so a failure means nothing.
pub(super) fn remove(name: &str) {
    let ip = |verb: &str| Command::new("ip").args(["netns", verb, name]).output();
    let inside = ip("pids").map(|output| output.stdout).unwrap_or_default();
    for process in String::from_utf8_lossy(&inside).lines() {
        let process = process.parse().ok().filter(|id| !is_this_process(*id));
        if let Some(process) = process.and_then(Pid::from_raw) {
            let _ = kill_process(process, Signal::KILL);
        }
    }
    let _ = ip("del");
    let _ = fs::remove_dir_all(Path::new(FILES).join(name));
}

fn is_this_process(id: i32) -> bool {
    u32::try_from(id) == Ok(std::process::id())
}

/// Whether the name is one of ours and its maker is gone.
fn is_orphan(name: &str) -> bool {
    let mut parts = name.split('-');
    if parts.next() != Some(PREFIX) {
        return false;
    }
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (Some(process), Some(start)) = (number(), number()) else {
        return false;
    };
    u32::try_from(process).is_ok_and(|process| started(process) != Some(start))
}

/// When a process started, in ticks since the machine did; `None` if there is no such process, or
/// only what its parent has not fetched yet.
fn started(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let fields: Vec<_> = behind_name.split_whitespace().collect();
    let lives = !GONE.contains(fields.first()?);
    fields.get(STARTED)?.parse().ok().filter(|_| lives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_whether_its_maker_lives() {
        let own = name("near");
        assert!(!is_orphan(&own));
        assert_ne!(own, name("near"));
        // No process id is that large, and 1 did not start at that tick.
        assert!(is_orphan("netsim-4194305-1-0-0000-near"));
        assert!(is_orphan("netsim-1-18446744073709551615-0-0000-near"));
        for foreign in [
            "blue",
            "netsim",
            "netsim-x-1",
            "other-4194305-1-0-0000-near",
        ] {
            assert!(!is_orphan(foreign), "{foreign}");
        }
    }
}
