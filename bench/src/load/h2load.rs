//! New connections, one request each, by h2load: each is a full handshake, since none knows of another.

use tokio::process::Command;

use super::run;
use crate::chains::chain::Chain;
use crate::origin;
use crate::place::Place;

/// So many visitors come at once, from two threads, since one is slower than what it measures; each counts when he has his answer. Gives how many did in a second.
pub(crate) async fn new_connections(chain: &Chain, place: &Place, visitors: usize) -> Option<f64> {
    let count = visitors.to_string();
    let mut command = Command::new("h2load");
    command.args(["--h1", "-t2", "-n", &count, "-c", &count]);
    command.arg(format!("--connect-to={}", chain.entrance));
    command.arg(chain.url(origin::SMALL));
    let load = run::spawn(place.relay_side(command));
    let said = run::output(load, chain.row, run::GRACE).await?;
    let all = format!("{count} done, {count} succeeded, 0 failed");
    if !said.contains(&all) {
        let line = said.lines().find(|line| line.starts_with("requests:"));
        eprintln!("{}: {}", chain.row.key(), line.unwrap_or(&said));
        return None;
    }
    rate(&said)
}

/// From `finished in 1.83s, 1638.08 req/s, 0B/s`.
fn rate(said: &str) -> Option<f64> {
    let (_, rest) = said.split_once("finished in ")?;
    let (_, rest) = rest.split_once(", ")?;
    rest.split_once(" req/s")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read() {
        let said = "starting\n\nfinished in 1.83s, 1638.08 req/s, 0B/s\nrequests: 1";
        assert_eq!(rate(said), Some(1638.08));
        assert_eq!(rate("nothing"), None);
    }
}
