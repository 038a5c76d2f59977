//! Programs of others, run to their end: curl, openssl and their like.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tunnel_client::proxy::credentials;
use tunnel_client::proxy::environment::{NO_PROXY_VARIABLES, PROXY_VARIABLES};

/// How long a tool may take: it may move 100 MB through unoptimised binaries.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a tool to its end. Panics if it is missing or takes too long; it may fail.
pub async fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(name);
    forget_proxies(&mut command);
    let output = command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(LIMIT, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => panic!("{name}: {error}; install the package {}", package(name)),
        Err(_) => panic!("{name} {arguments:?}: not within {LIMIT:?}"),
    }
}

/// The Debian package that a tool comes in.
fn package(tool: &str) -> &str {
    match tool {
        "sh" => "dash",
        "cmp" => "diffutils",
        "ip" => "iproute2",
        "prlimit" => "util-linux",
        same => same,
    }
}

/// Takes away what the environment of whoever runs the stories says about proxies. What the story
/// itself has set for `command` stays.
pub fn forget_proxies(command: &mut Command) {
    let names = PROXY_VARIABLES.into_iter().chain(NO_PROXY_VARIABLES);
    for name in names.chain([credentials::VARIABLE, "http_proxy"]) {
        let mut set = command.as_std().get_envs();
        if !set.any(|(variable, value)| variable == name && value.is_some()) {
            command.env_remove(name);
        }
    }
}

/// What a tool wrote to standard output.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a tool wrote to standard error.
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
