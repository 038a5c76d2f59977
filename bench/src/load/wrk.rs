//! Visitors who stay and ask again as soon as they have their answer, by wrk.

use std::sync::Arc;
use std::time::Duration;

use e2e::process::folder;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::run;
use crate::chains::chain::Chain;
use crate::place::Place;
use crate::row::Row;

/// What wrk is to say at the end, in one line: its own report rounds.
const SCRIPT: &str = r#"
local pause = tonumber(os.getenv("PAUSE_MS") or "0")
if pause > 0 then
  function delay() return pause end
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("FIGURES %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// What keep-alive visitors have seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Milliseconds, as all here.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) errors: u64,
}

/// So many visitors who stay for so long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) visitors: usize,
    pub(crate) time: Duration,
    /// What each waits before every request.
    pub(crate) pause: Duration,
}

/// A wrk that runs. Dropping it sends all its visitors away.
#[derive(Debug)]
pub(crate) struct Wrk {
    child: Child,
    row: Row,
    time: Duration,
    _script: Arc<TempDir>,
}

/// Starts wrk.
pub(crate) fn start(chain: &Chain, place: &Place, path: &str, crowd: Crowd) -> Wrk {
    let folder = folder();
    let script = folder.path().join("figures.lua");
    std::fs::write(&script, SCRIPT).expect("writes");
    let mut command = Command::new("wrk");
    command.arg("-t1").arg(format!("-c{}", crowd.visitors));
    command.arg(format!("-d{}s", crowd.time.as_secs()));
    command.args(["--timeout", "30s", "-s"]).arg(script);
    command.arg(chain.url(path));
    let mut command = place.visitors_side(&command, &chain.host, chain.entrance.ip());
    command.env("PAUSE_MS", crowd.pause.as_millis().to_string());
    Wrk {
        child: run::spawn(command),
        row: chain.row,
        time: crowd.time,
        _script: folder,
    }
}

/// Waits for the end; `None` if wrk failed.
pub(crate) async fn seen(wrk: Wrk) -> Option<Seen> {
    let said = run::output(wrk.child, wrk.row, wrk.time + run::GRACE).await?;
    let seen = figures(&said);
    if seen.is_none() {
        eprintln!("wrk: {said}");
    }
    seen
}

/// Sends visitors who ask without a pause, and waits until they have gone.
pub(crate) async fn visit(
    chain: &Chain,
    place: &Place,
    path: &str,
    visitors: usize,
    time: Duration,
) -> Option<Seen> {
    let crowd = Crowd {
        visitors,
        time,
        pause: Duration::ZERO,
    };
    seen(start(chain, place, path, crowd)).await
}

fn figures(said: &str) -> Option<Seen> {
    let (_, figures) = said.split_once("FIGURES ")?;
    let mut numbers = figures.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (requests, microseconds) = (next()?, next()?);
    let (p50, p99, errors) = (next()?, next()?, next()?);
    Some(Seen {
        requests,
        rate: requests as f64 * 1e6 / microseconds as f64,
        p50: p50 as f64 / 1e3,
        p99: p99 as f64 / 1e3,
        errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_read() {
        let said = "Running 2s test\nFIGURES 1000 2000000 150 900 0\n";
        let seen = Seen {
            requests: 1000,
            rate: 500.0,
            p50: 0.15,
            p99: 0.9,
            errors: 0,
        };
        assert_eq!(figures(said), Some(seen));
        assert_eq!(figures("Running"), None);
    }
}
