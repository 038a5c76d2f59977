//! A network namespace: programs, threads and futures that see no other network.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::process::Command;
use tokio::sync::oneshot;

use super::leftovers::{self, NAMESPACES};
use super::tun;

/// A network namespace of this process. Dropping it kills what still runs in it and removes it; if
/// this process is killed, the next test that makes a line does.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes one.
    pub(super) fn create(role: &str) -> io::Result<Self> {
        let name = leftovers::name(role);
        ip(&["netns", "add", &name], "")?;
        let file = File::open(Path::new(NAMESPACES).join(&name))?;
        Ok(Self { name, file })
    }

    /// Runs lines of `ip` in it, one command each.
    pub(super) fn configure(&self, commands: &str) -> io::Result<()> {
        ip(&["-n", &self.name, "-batch", "-"], commands)
    }

    /// Gives its end of the line another address.
    pub fn add_address(&self, address: Ipv4Addr) -> io::Result<()> {
        self.configure(&format!("address add {address}/24 dev {}\n", tun::NAME))
    }

    /// What programs that are started in here from now on see in `/etc/hosts`; those that were started
    /// after an earlier call see the change.
    pub fn hosts(&self, lines: &str) -> io::Result<()> {
        let folder = Path::new(leftovers::FILES).join(&self.name);
        fs::create_dir_all(&folder)?;
        // In place: the file itself is mounted for those who run.
        fs::write(folder.join("hosts"), lines)
    }

    /// Its name: `ip netns exec <name> …`, `/etc/netns/<name>/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same command, to be run in here. The process is the command's own: it has its id, and
    /// signals reach it.
    pub fn command(&self, command: &Command) -> Command {
        let inner = command.as_std();
        let mut outer = Command::new("ip");
        outer.args(["netns", "exec", &self.name]);
        outer.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        if let Some(folder) = inner.get_current_dir() {
            outer.current_dir(folder);
        }
        outer
    }

    /// What `work` gives when a thread in here runs it. A socket made there stays in here wherever
    /// it is used; waits for the end.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.move_in();
                work()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a future to its end on a runtime in here: all sockets that it makes are in here.
    /// Dropping the wait drops the future.
    pub async fn run<F: Future<Output: Send + 'static>>(
        &self,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> F::Output {
        let (mut sender, receiver) = oneshot::channel();
        let file = self.file.try_clone().expect("a descriptor");
        let work = move || {
            move_in(&file);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                tokio::select! {
                    result = make() => drop(sender.send(result)),
                    () = sender.closed() => {}
                }
            });
        };
        let thread = thread::Builder::new().name(self.name.clone()).spawn(work);
        let thread = thread.expect("a thread");
        match receiver.await {
            Ok(result) => result,
            // The sender went without a word: by a panic.
            Err(_) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => unreachable!("it ends with a result"),
            },
        }
    }

    /// A listener of this runtime, on a free port of `ip` in here.
    pub fn tcp_listener(&self, ip: impl Into<std::net::IpAddr>) -> io::Result<TcpListener> {
        let address = (ip.into(), 0);
        let listener = self.enter(|| std::net::TcpListener::bind(address))?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// An IPv4 socket in here, to be connected from this runtime.
    pub fn tcp_socket(&self) -> io::Result<TcpSocket> {
        self.enter(TcpSocket::new_v4)
    }

    /// A UDP socket of this runtime, on a free port of `ip` in here.
    pub fn udp_socket(&self, ip: impl Into<std::net::IpAddr>) -> io::Result<UdpSocket> {
        let address = (ip.into(), 0);
        let socket = self.enter(|| std::net::UdpSocket::bind(address))?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    fn move_in(&self) {
        move_in(&self.file);
    }
}

/// Moves this thread, for good.
fn move_in(namespace: &File) {
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace.as_fd(), network).expect("root may enter a namespace");
}

/// Runs `ip` with these commands on standard input.
fn ip(arguments: &[&str], input: &str) -> io::Result<()> {
    use std::io::Write as _;

    let mut child = std::process::Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!(
        "ip {}: {said}",
        arguments.join(" ")
    )))
}

impl Drop for Namespace {
    fn drop(&mut self) {
        leftovers::remove(&self.name);
    }
}
