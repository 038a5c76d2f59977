//! Peers on other TLS, QUIC and HTTP/2 stacks than ours: the Python scripts in `e2e/peers`.
//!
//! They tell what they see as lines of JSON. Two sides of one stack may agree on a mistake; these do
//! not share it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::process::{self, Process};

/// A script that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Stranger(Process);

/// Starts the script `name` of `e2e/peers`. Panics if its Python is not set up.
pub fn stranger(name: &str, arguments: &[&str]) -> Stranger {
    let mut command = Command::new(python());
    command
        .arg(e2e().join("peers").join(name))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Stranger(process::spawn(command, process::folder()))
}

fn e2e() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python that has what `scripts/requirements.txt` lists.
fn python() -> PathBuf {
    let workspace = e2e().parent().expect("e2e is in the workspace");
    let python = workspace.join(".venv/bin/python");
    assert!(
        python.exists(),
        "{} is not there: run `make setup`",
        python.display()
    );
    python
}

impl Stranger {
    /// The next thing that it says. Panics with its standard error if it has ended.
    pub async fn says(&mut self) -> Value {
        match self.0.line().await {
            Some(line) => serde_json::from_str(&line).expect("a line of JSON"),
            None => {
                self.0.ends().await;
                panic!("it has ended: {}", self.0.log());
            }
        }
    }

    /// Waits for its end, which must be a good one, with nothing left to say.
    pub async fn is_done(mut self) {
        assert_eq!(self.0.rest().await, Vec::<String>::new());
        assert_eq!(self.0.exit_code().await, 0, "{}", self.0.log());
    }
}
