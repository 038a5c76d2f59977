//! The binaries as processes of their own: `server`, `client`, and tools that a story drives.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::poll::{eventually, soon};
use crate::tools;

/// Fields of `/proc/PID/stat` between the program's name and `utime` (proc(5)); `stime` is next.
const UTIME_BEHIND_NAME: usize = 11;
/// For what a process has said before its end to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The unit of these fields: what Linux shows to programs, whatever its own clock is.
const TICK: Duration = Duration::from_millis(10);

/// A process of ours. Dropping it kills it; that its log has a panic fails the story.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    stderr: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
    folder: Arc<TempDir>,
}

/// The binary `name`, built by `make test` (or `cargo build --bins`) for the same profile as this one,
/// which may be a binary too, a test or an example.
pub fn binary(name: &str) -> PathBuf {
    let this = env::current_exe().expect("this is a file");
    // target/<profile>, or target/<profile>/deps
    let folders = this.ancestors().skip(1).take(2);
    let mut paths = folders.map(|folder| folder.join(name));
    let built = paths.find(|path| path.is_file());
    built.unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace --bins"))
}

/// A fresh folder for keys.
pub fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a folder"))
}

/// Starts `server` on free ports of loopback, with these flags besides.
pub fn server(flags: &[&str]) -> Process {
    server_logging("info", flags)
}

/// Starts `server` as [`server()`] does, with this log filter.
pub fn server_logging(filter: &str, flags: &[&str]) -> Process {
    let ports = [
        "--bind-addr",
        "127.0.0.1",
        "--api-port",
        "0",
        "--pub-port",
        "0",
        "--alpn-port",
        "0",
    ];
    let given = |name: &str| flags.contains(&name);
    let mut all: Vec<&str> = ports
        .chunks(2)
        .filter(|pair| !given(pair[0]))
        .flatten()
        .copied()
        .collect();
    all.extend(flags);
    start("server", &all, folder(), filter)
}

/// Starts `client`, its keys in `folder`.
pub fn client(flags: &[&str], folder: Arc<TempDir>) -> Process {
    start("client", flags, folder, "info")
}

fn start(name: &str, flags: &[&str], folder: Arc<TempDir>, filter: &str) -> Process {
    let mut command = command(name, flags, &folder);
    command.env("RUST_LOG", filter);
    spawn(command, folder)
}

/// The command that runs the binary `name` with its keys in `folder`, unless the flags name another:
/// a story may wrap or change it
/// before [`spawn`].
pub fn command(name: &str, flags: &[&str], folder: &TempDir) -> Command {
    let mut command = Command::new(binary(name));
    command.args(flags).env("RUST_LOG", "info");
    if flags.first() != Some(&"demo") && !flags.contains(&"--data-dir") {
        command.arg("--data-dir").arg(folder.path());
    }
    command
}

/// Starts any command in `folder`, its output kept for the story. It knows of no proxy but those that
/// the story has set.
pub fn spawn(mut command: Command, folder: Arc<TempDir>) -> Process {
    tools::forget_proxies(&mut command);
    let mut child = command
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{:?} does not start: {error}", command.as_std()));
    let stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
    let stderr = Arc::new(Mutex::new(String::new()));
    let errors = child.stderr.take().expect("piped");
    let reading = tokio::spawn(collect(errors, stderr.clone()));
    Process {
        child,
        stdout: Some(stdout),
        stderr,
        reading,
        folder,
    }
}

async fn collect(stream: impl AsyncRead + Unpin, into: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut text = into.lock().expect("not poisoned");
        text.push_str(&line);
        text.push('\n');
    }
}

impl Process {
    /// The next line of standard output; `None` at its end.
    pub async fn line(&mut self) -> Option<String> {
        let stdout = self.stdout.as_mut().expect("standard output is open");
        soon("a line of output", stdout.next_line())
            .await
            .expect("UTF-8")
    }

    /// What is left of standard output, up to its end.
    pub async fn rest(&mut self) -> Vec<String> {
        let mut lines = vec![];
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        lines
    }

    /// Nobody reads its standard output any more: the next write to it fails.
    pub fn close_output(&mut self) {
        self.stdout = None;
    }

    /// The rest of the next line that begins with `prefix`.
    pub async fn line_after(&mut self, prefix: &str) -> String {
        loop {
            match self.line().await {
                Some(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return rest.to_owned();
                    }
                }
                None => panic!("no line {prefix:?}; it said: {}", self.log()),
            }
        }
    }

    /// The address in the next line that begins with `prefix`.
    pub async fn address(&mut self, prefix: &str) -> SocketAddr {
        self.line_after(prefix).await.parse().expect("an address")
    }

    /// What it has said on standard error so far.
    pub fn log(&self) -> String {
        self.stderr.lock().expect("not poisoned").clone()
    }

    /// Waits until standard error has `text`.
    pub async fn logs(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), || {
            self.log().contains(text)
        })
        .await;
    }

    /// Where its keys are.
    pub fn folder(&self) -> Arc<TempDir> {
        self.folder.clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("runs")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("it is ours");
    }

    /// Stops it, and waits until none of its threads runs any more: on a busy machine they do for a while.
    pub async fn freezes(&self) {
        self.signal(Signal::STOP);
        eventually("all threads stand still", || self.is_frozen()).await;
    }

    fn is_frozen(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("it runs");
        threads.flatten().all(|thread| {
            // The state stands behind the name in parentheses (proc_pid_stat(5)); one that has gone is none.
            let stat = std::fs::read_to_string(thread.path().join("stat"));
            stat.map_or(true, |stat| stat.contains(") T "))
        })
    }

    /// Waits for its end. All that it has said is in the log then.
    pub async fn ends(&mut self) -> ExitStatus {
        let ended = soon("the process ends", self.child.wait()).await;
        if !self.reading.is_finished() {
            // A child of its own may hold the pipe.
            let _ = timeout(LAST_WORDS, &mut self.reading).await;
        }
        ended.expect("is a child")
    }

    /// Nobody reads its standard error any more: the next write to it fails.
    pub async fn close_log(&mut self) {
        self.reading.abort();
        // Ended or aborted, the pipe is closed.
        let _ = (&mut self.reading).await;
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("is a child").is_none()
    }

    /// Waits for its end and gives the exit code; panics if a signal ended it.
    pub async fn exit_code(&mut self) -> i32 {
        let status = self.ends().await;
        let code = status.code();
        code.unwrap_or_else(|| panic!("ended by {status}; it said: {}", self.log()))
    }

    /// Open descriptors, as the system counts them.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("runs")
            .count()
    }

    /// Processor time that it has used so far, in user mode and in the kernel.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("runs");
        // The name of the program, in parentheses, may have blanks of its own.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let fields = fields.split_whitespace().skip(UTIME_BEHIND_NAME).take(2);
        let ticks: u64 = fields
            .map(|field| field.parse::<u64>().expect("a number"))
            .sum();
        TICK * u32::try_from(ticks).expect("less than a year")
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(&self.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reading.abort();
        let log = self
            .stderr
            .lock()
            .map(|log| log.clone())
            .unwrap_or_default();
        // Never in any story, whatever a peer does. A second panic would hide the first.
        let panicked = log.contains("panicked at") && !std::thread::panicking();
        assert!(!panicked, "a process panicked: {log}");
    }
}

/// Resident memory of a process, in bytes: its id, or `self`.
pub fn resident_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("has memory");
    let kibibytes = line
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .expect("a number");
    kibibytes * 1024
}

/// Runs a tool to its end and gives what it wrote to standard output; panics if it failed.
pub async fn tool(name: &str, arguments: &[&str]) -> String {
    let output = tools::run(name, arguments).await;
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}: {}",
        output.status,
        tools::errors(&output)
    );
    tools::text(&output)
}
