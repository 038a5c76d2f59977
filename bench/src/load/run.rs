//! Runs one of the visitors' programs to its end.

use std::process::Stdio;
use std::time::Duration;

use e2e::tools;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::row::Row;

/// Within this after its own time a load has ended, or it hangs.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// Starts it, its output kept. Dropping it kills it.
pub(crate) fn spawn(mut command: Command) -> Child {
    tools::forget_proxies(&mut command);
    let started = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    started.unwrap_or_else(|error| panic!("{:?}: {error}", command.as_std()))
}

/// What it wrote to standard output; `None` and a word on standard error if it failed, or has not ended
/// within `limit`. `row` is whom it visits.
pub(crate) async fn output(child: Child, row: Row, limit: Duration) -> Option<String> {
    let output = match timeout(limit, child.wait_with_output()).await {
        Ok(output) => output.expect("is a child"),
        Err(_) => {
            eprintln!("{}: a load has not ended within {limit:?}", row.key());
            return None;
        }
    };
    if !output.status.success() {
        let (status, errors) = (output.status, tools::errors(&output));
        eprintln!("{}: {status}: {errors}", row.key());
        return None;
    }
    Some(tools::text(&output))
}
