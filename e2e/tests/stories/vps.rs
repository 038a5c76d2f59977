//! What `docs/vps.md` tells users to type and to paste: its commands, against pebble and with names of this machine,
//! and its systemd units.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use e2e::front::{Front, front};
use e2e::origin::{Origin, http};
use e2e::pair::{self, Server};
use e2e::pebble::{Pebble, Rules, pebble};
use e2e::process::{self, Process, folder, tool};
use e2e::published::text;
use e2e::tools;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

/// The id in the text.
const ID: &str = "3kousix2rszq526vyn6uvuzoce";
const DOMAIN: &str = "tunnel.localhost";
const VOUCHED: &str = "an authority vouches";
/// In tenths, as systemd takes it: 0 is a service that may do nothing, 100 one that may do all.
const MAX_EXPOSURE: &str = "20";
/// What raises a limit may fail: the unit has raised it.
const MAY_FAIL: &str = "prlimit64";

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vps.md");
    fs::read_to_string(path).expect("reads")
}

/// The blocks of the page in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let rest = page.split(&begin).skip(1);
    rest.map(|rest| rest.split("```").next().expect("an end").to_owned())
        .collect()
}

/// The commands that are to be run, in the page's order.
fn commands(page: &str) -> Vec<String> {
    let lines: Vec<_> = blocks(page, "sh")
        .iter()
        .flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let marked = |line: &String| line.contains("# not run");
    assert!(lines.iter().any(marked), "{lines:?}");
    lines.into_iter().filter(|line| !marked(line)).collect()
}

/// The machines of the page: all of them are this one.
struct Machines {
    pebble: Pebble,
    front: Front,
    origin: Origin,
    /// What both sides keep.
    data: Arc<TempDir>,
    /// Commands that have the place of `sudo`, `server`, `client` and `curl`.
    bin: Arc<TempDir>,
    relay: Option<Server>,
    agent: Option<Process>,
    id: String,
}

impl Machines {
    async fn new() -> Self {
        let front = front().await;
        front.opens();
        let machines = Self {
            pebble: pebble(front.port(), Rules::default()).await,
            front,
            origin: http("my laptop").await,
            data: folder(),
            bin: folder(),
            relay: None,
            agent: None,
            id: ID.to_owned(),
        };
        machines.wrap().await;
        machines
    }

    /// The programs know another authority than the public ones, and `server` takes no port of this machine.
    async fn wrap(&self) {
        let issuer = self.pebble.issuer_root_file().await;
        let authority = format!(
            "--acme-directory {} --acme-ca-root {} --acme-validation-port {}",
            self.pebble.directory(),
            self.pebble.ca_root().display(),
            self.front.port()
        );
        let (server, client) = (process::binary("server"), process::binary("client"));
        let relay = "--bind-addr 127.0.0.1 --api-port 0 --alpn-port 0";
        let (server, client) = (server.display(), client.display());
        let (data, issuer) = (text(self.data.path()), issuer.display());
        let command = "case $1 in -*) ;; *)";
        // As a grandchild: signals are for the program.
        let strace = "strace -D -f -qq -s 0 -o";
        let scripts = [
            ("sudo", "exec \"$@\"".to_owned()),
            (
                "curl",
                format!("exec /usr/bin/curl -sS --fail --cacert {issuer} \"$@\""),
            ),
            (
                "server",
                format!(
                    "{command} exec {server} \"$@\";; esac\n\
                     exec {strace} {data}/relay.trace {server} {relay} {authority} \"$@\""
                ),
            ),
            (
                "client",
                format!(
                    "{command} exec {client} \"$@\";; esac\n\
                     exec {strace} {data}/agent.trace {client} --server-ca {issuer} --data-dir {data}/agent \
                     {authority} \"$@\""
                ),
            ),
        ];
        for (name, script) in scripts {
            let path = self.bin.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writes");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("is ours");
        }
    }

    /// The command with the names and ports of these machines.
    fn here(&self, command: &str) -> String {
        let front = self.front.port();
        let api = self.relay.as_ref().map(|relay| relay.api.port());
        let server = format!("--server {DOMAIN}:{}", api.unwrap_or_default());
        let ports = format!("--pub-port 0 --advertise-port {front}");
        let url = format!("{}.{DOMAIN}:{front}", self.id);
        command
            .replace(&format!("{ID}.tunnel.example.com"), &url)
            .replace("--server tunnel.example.com", &server)
            .replace("tunnel.example.com", DOMAIN)
            .replace(ID, &self.id)
            .replace("--pub-port 443", &ports)
            .replace("127.0.0.1:3000", &self.origin.address.to_string())
            .replace(
                "/var/lib/quic-tunnel-server",
                &text(&self.data.path().join("relay")),
            )
    }

    fn spawn(&self, command: &str) -> Process {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("exec {}", self.here(command))]);
        let path = std::env::var("PATH").expect("a path");
        shell.env("PATH", format!("{}:{path}", self.bin.path().display()));
        process::spawn(shell, self.data.clone())
    }

    /// Does what a user of the page would, and waits for what it promises.
    async fn run(&mut self, command: &str) {
        let process = self.spawn(command);
        if command.starts_with("sudo server --") {
            let relay = pair::introduce(process).await;
            self.front.leads_to(relay.visitors());
            relay.process.logs(VOUCHED).await;
            self.relay = Some(relay);
        } else if command.starts_with("client --") {
            process.logs("the relay refuses: ").await;
            let log = process.log();
            let (_, refusal) = log.split_once("server allow --data-dir ").expect("told");
            let id = refusal.split_whitespace().nth(1).expect("an id");
            self.id = id.to_owned();
            self.agent = Some(process);
        } else {
            self.ends_well(command, process).await;
        }
        if command.contains(" allow ") {
            let agent = self.agent.as_mut().expect("runs");
            assert_eq!(agent.line_after("ID: ").await, self.id);
            agent.logs(VOUCHED).await;
        }
    }

    async fn ends_well(&self, command: &str, mut process: Process) {
        let said = process.rest().await.join("\n");
        let code = process.exit_code().await;
        assert_eq!(code, 0, "{command}: {said} {}", process.log());
        let expected = match command.split(' ').next() {
            Some("curl") => "my laptop",
            Some("client") => "TRUE: ",
            _ => "may register now",
        };
        assert!(said.contains(expected), "{command}: {said}");
    }
}

/// The system calls of a set of systemd's, those of the sets in it included.
fn calls_of(set: &str, all: &str) -> BTreeSet<String> {
    let begin = format!("\n{set}\n");
    let (_, rest) = all.split_once(&begin).expect("a known set");
    let lines = rest.lines().take_while(|line| line.starts_with(' '));
    let names = lines.map(str::trim).filter(|line| !line.starts_with('#'));
    names
        .flat_map(|name| match name.starts_with('@') {
            true => calls_of(name, all),
            false => BTreeSet::from([name.to_owned()]),
        })
        .collect()
}

/// The calls in a trace of strace's, a line each: a process id, a name and a parenthesis.
fn calls_in(trace: &str) -> BTreeSet<String> {
    let calls = trace.lines().filter_map(|line| {
        let (_, call) = line.split_once(' ')?;
        call.trim_start().split_once('(')
    });
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let names = calls.map(|(name, _)| name.to_owned());
    names.filter(|name| is_name(name)).collect()
}

/// The system calls that a unit allows: its lines add and take away, one after the other.
async fn allowed_by(unit: &Unit) -> BTreeSet<String> {
    let all = tool("systemd-analyze", &["syscall-filter", "--no-pager"]).await;
    let all = format!("\n{all}");
    let mut allowed = BTreeSet::new();
    let lines = unit.text.lines();
    for sets in lines.filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (denies, sets) = match sets.strip_prefix('~') {
            Some(sets) => (true, sets),
            None => (false, sets),
        };
        for call in sets.split(' ').flat_map(|set| calls_of(set, &all)) {
            match denies {
                true => drop(allowed.remove(&call)),
                false => drop(allowed.insert(call)),
            }
        }
    }
    allowed
}

async fn ends(mut process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code().await, 0, "{}", process.log());
    // strace has written all when it is gone, and with it the pipe.
    process.rest().await;
}

#[tokio::test]
async fn every_command_of_the_page_does_what_it_says_and_calls_nothing_that_the_units_forbid() {
    let commands = commands(&page());
    assert_eq!(commands.len(), 5, "{commands:?}");
    let mut machines = Machines::new().await;
    for command in &commands {
        machines.run(command).await;
    }
    ends(machines.agent.expect("runs")).await;
    ends(machines.relay.expect("runs").process).await;
    for (unit, trace) in units().iter().zip(["relay.trace", "agent.trace"]) {
        let trace = fs::read_to_string(machines.data.path().join(trace));
        let (made, allowed) = (calls_in(&trace.expect("a trace")), allowed_by(unit).await);
        assert!(made.contains("epoll_wait"), "{made:?}");
        let mut forbidden = made.difference(&allowed);
        let forbidden = forbidden.find(|call| *call != MAY_FAIL);
        assert_eq!(forbidden, None, "{}: {made:?}", unit.name);
    }
}

/// A unit of the page, as a file that runs this test's program.
struct Unit {
    name: String,
    text: String,
    _folder: Arc<TempDir>,
    path: PathBuf,
}

fn units() -> Vec<Unit> {
    let blocks = blocks(&page(), "ini");
    let units = blocks.iter().map(|block| {
        let first = block.lines().next().expect("a line");
        let (_, name) = first.rsplit_once('/').expect("a path");
        let program = if name.contains("server") {
            "server"
        } else {
            "client"
        };
        let installed = format!("/usr/local/bin/{program}");
        assert!(block.contains(&installed), "{block}");
        let text = block.replace(&installed, &text(&process::binary(program)));
        let folder = folder();
        let path = folder.path().join(name);
        fs::write(&path, &text).expect("writes");
        Unit {
            name: name.to_owned(),
            text,
            _folder: folder,
            path,
        }
    });
    units.collect()
}

#[tokio::test]
async fn systemd_understands_the_units_and_finds_little_to_blame() {
    let units = units();
    let names: Vec<_> = units.iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(
        names,
        ["quic-tunnel-server.service", "quic-tunnel-client.service"]
    );
    for unit in &units {
        let path = text(&unit.path);
        let output = tools::run("systemd-analyze", &["verify", "--man=no", &path]).await;
        let said = tools::errors(&output);
        assert!(output.status.success() && said.is_empty(), "{said}");
        let threshold = format!("--threshold={MAX_EXPOSURE}");
        let flags = [
            "security",
            "--offline=true",
            "--no-pager",
            &threshold,
            &path,
        ];
        let output = tools::run("systemd-analyze", &flags).await;
        let said = tools::text(&output);
        assert!(
            output.status.success() && said.contains("Overall"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn the_programs_know_the_flags_of_the_units() {
    for unit in units() {
        let mut lines = unit.text.lines();
        let line = lines.find_map(|line| line.strip_prefix("ExecStart="));
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {} --help", line.expect("a command"))]);
        let mut process = process::spawn(shell, folder());
        assert_eq!(process.exit_code().await, 0, "{}", process.log());
    }
}
