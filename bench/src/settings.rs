//! What to measure, by environment variables.

use std::env;
use std::time::Duration;

/// The parts there are.
pub(crate) const PARTS: [&str; 3] = ["loopback", "lossy", "scale"];

/// What to measure.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `PARTS=loopback,lossy`: these alone.
    pub(crate) parts: Vec<String>,
    /// `ROUNDS=5`: how often each figure of the loopback is taken.
    pub(crate) rounds: usize,
    /// `SECONDS_EACH=10`: how long each lasts that has no end by itself.
    pub(crate) time: Duration,
}

impl Settings {
    /// Reads them; says what is wrong.
    pub(crate) fn read() -> Result<Self, String> {
        let parts = env::var("PARTS").unwrap_or_else(|_| PARTS.join(","));
        let parts: Vec<_> = parts.split(',').map(str::to_owned).collect();
        if let Some(part) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
            return Err(format!("PARTS: no part {part:?}: {}", PARTS.join(", ")));
        }
        let time = number("SECONDS_EACH", 5)? as u64;
        Ok(Self {
            parts,
            rounds: number("ROUNDS", 3)?,
            time: Duration::from_secs(time),
        })
    }

    /// Whether this part is to be measured.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|wanted| wanted == part)
    }

    /// Whether all is.
    pub(crate) fn is_whole(&self) -> bool {
        PARTS.iter().all(|part| self.has(part))
    }
}

fn number(name: &str, default: usize) -> Result<usize, String> {
    match env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => match text.parse() {
            Ok(number @ 1..) => Ok(number),
            _ => Err(format!("{name} takes a number from 1 on, not {text:?}")),
        },
    }
}
