//! Where the parties of a chain are: all on loopback, or at the two ends of a line.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use e2e::netsim::{FAR, Line};
use e2e::ports;
use e2e::process::folder;
use tempfile::TempDir;
use tokio::process::Command;

/// Runs a program that sees other names: in a mount namespace of its own, so that nobody else does.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

/// Where relay and visitors are, and where agent and local service.
#[derive(Debug)]
pub(crate) enum Place {
    /// All on this machine; the folder has the visitors' hosts file.
    Loopback(Arc<TempDir>),
    /// Relay and visitors at the far end, agent and local service at the near one.
    Line(Arc<Line>),
}

impl Place {
    /// Loopback, where nobody has a name yet.
    pub(crate) fn loopback() -> Self {
        Self::Loopback(folder())
    }

    /// The address of all relays.
    pub(crate) fn relay_ip(&self) -> IpAddr {
        match self {
            Self::Loopback(_) => ports::ADDRESS.into(),
            Self::Line(_) => FAR.into(),
        }
    }

    /// A program that runs where relays and visitors are.
    pub(crate) fn relay_side(&self, command: Command) -> Command {
        match self {
            Self::Loopback(_) => command,
            Self::Line(line) => line.far().command(&command),
        }
    }

    /// A program that runs where the agents are.
    pub(crate) fn agent_side(&self, command: Command) -> Command {
        match self {
            Self::Loopback(_) => command,
            Self::Line(line) => line.near().command(&command),
        }
    }

    /// The same for one of the visitors', to whom this name is that address.
    pub(crate) fn visitors_side(&self, command: &Command, name: &str, ip: IpAddr) -> Command {
        let hosts = format!("{ip} {name}\n");
        match self {
            Self::Loopback(folder) => with_hosts(command, folder.path(), &hosts),
            Self::Line(line) => {
                line.far().hosts(&hosts).expect("writes the names");
                line.far().command(command)
            }
        }
    }
}

fn with_hosts(command: &Command, folder: &Path, hosts: &str) -> Command {
    let file = folder.join("hosts");
    fs::write(&file, hosts).expect("writes the names");
    let inner = command.as_std();
    let mut outer = Command::new("unshare");
    outer.args(["--mount", "sh", "-c", WITH_HOSTS]).arg(file);
    outer.arg(inner.get_program()).args(inner.get_args());
    outer
}
