//! What to measure, by environment variables.

use std::env;
use std::time::Duration;

use crate::row::Row;

/// The parts there are.
const PARTS: [&str; 2] = ["loopback", "lossy"];

/// What to measure.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `PARTS=loopback,lossy`: these alone.
    parts: Option<Vec<String>>,
    /// `ROWS=haproxy,quic`: these alone.
    rows: Option<Vec<String>>,
    /// `FIGURES=many,download`: these alone.
    figures: Option<Vec<String>>,
    /// `ROUNDS=5`: how often each figure of the loopback is taken.
    pub(crate) rounds: usize,
    /// `SECONDS_EACH=10`: how long each lasts that has no end by itself.
    pub(crate) time: Duration,
}

impl Settings {
    /// Reads them; says what is wrong.
    pub(crate) fn read() -> Result<Self, String> {
        let parts = list("PARTS");
        let mut named = parts.iter().flatten();
        if let Some(part) = named.find(|part| !PARTS.contains(&part.as_str())) {
            return Err(format!("PARTS: no part {part:?}: {}", PARTS.join(", ")));
        }
        let time = number("SECONDS_EACH", 5)? as u64;
        Ok(Self {
            parts,
            rows: list("ROWS"),
            figures: list("FIGURES"),
            rounds: number("ROUNDS", 3)?,
            time: Duration::from_secs(time),
        })
    }

    /// Whether this part is to be measured.
    pub(crate) fn has(&self, part: &str) -> bool {
        has(self.parts.as_deref(), part)
    }

    /// Whether this row is to be measured.
    pub(crate) fn has_row(&self, row: Row) -> bool {
        has(self.rows.as_deref(), row.key())
    }

    /// Whether this figure is to be taken.
    pub(crate) fn has_figure(&self, figure: &str) -> bool {
        has(self.figures.as_deref(), figure)
    }
}

fn list(name: &str) -> Option<Vec<String>> {
    let text = env::var(name).ok()?;
    Some(text.split(',').map(str::to_owned).collect())
}

fn has(wanted: Option<&[String]>, name: &str) -> bool {
    wanted.is_none_or(|wanted| wanted.iter().any(|one| one == name))
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
