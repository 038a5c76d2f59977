//! Downloads and uploads, by curl.

use std::path::Path;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::run;
use crate::chains::chain::Chain;
use crate::place::Place;

/// What curl says when it is done: bytes down, bytes up, the status.
const SAYS: &str = "%{size_download} %{size_upload} %{http_code}";
/// Its exit code when it was given a time and has used it up.
const TIME_IS_UP: i32 = 28;

/// What several transfers together came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Moved {
    /// Gigabits a second.
    pub(crate) fn gigabits(self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.time.as_secs_f64()
    }

    /// Megabits a second.
    pub(crate) fn megabits(self) -> f64 {
        self.gigabits() * 1e3
    }
}

fn curl(chain: &Chain, place: &Place, arguments: &[&str], path: &str) -> Command {
    let (ip, port) = (chain.entrance.ip(), chain.entrance.port());
    let resolve = format!("{}:{port}:{ip}", chain.host);
    let mut command = Command::new("curl");
    command.args(["-sk", "--http1.1", "--resolve", &resolve]);
    command.args(["-w", SAYS]).args(arguments);
    command.arg(chain.url(path));
    place.relay_side(command)
}

/// Whether a visitor is served.
pub(crate) async fn answers(chain: &Chain, place: &Place) -> bool {
    let arguments = ["-o", "/dev/null", "--max-time", "5"];
    let command = curl(chain, place, &arguments, crate::origin::SMALL);
    let output = run::spawn(command).wait_with_output().await;
    output.is_ok_and(|output| output.status.success() && output.stdout.ends_with(b"200"))
}

/// A download that runs. Dropping it breaks it off.
pub(crate) fn download(chain: &Chain, place: &Place, path: &str, limit: Duration) -> Child {
    let limit = limit.as_secs().to_string();
    let arguments = ["-o", "/dev/null", "--max-time", &limit];
    run::spawn(curl(chain, place, &arguments, path))
}

/// An upload that runs.
pub(crate) fn upload(chain: &Chain, place: &Place, file: &Path, limit: Duration) -> Child {
    let (file, limit) = (file.to_str().expect("UTF-8"), limit.as_secs().to_string());
    let time = ["--max-time", &limit];
    let arguments = [&time[..], &["-o", "/dev/null", "-H", "Expect:", "-T", file]].concat();
    run::spawn(curl(chain, place, &arguments, "up/big"))
}

/// Waits for the end of all, and counts; `None` if one failed. That its time was up is no failure.
pub(crate) async fn moved(transfers: Vec<Child>) -> Option<Moved> {
    let since = Instant::now();
    let mut bytes = 0;
    for transfer in transfers {
        let output = transfer.wait_with_output().await.expect("is a child");
        let code = output.status.code();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !matches!(code, Some(0 | TIME_IS_UP)) {
            eprintln!("curl: {}: {said}", output.status);
            return None;
        }
        let mut numbers = said.split(' ').filter_map(|number| number.parse().ok());
        let (down, up): (u64, u64) = (numbers.next()?, numbers.next()?);
        bytes += down + up;
    }
    let time = since.elapsed();
    Some(Moved { bytes, time })
}
