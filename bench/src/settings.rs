//! What to measure, by environment variables.

use std::env;
use std::time::Duration;

use crate::row::Row;
use crate::weather::Weather;

/// The parts there are.
const PARTS: [&str; 3] = ["loopback", "lossy", "scale"];
/// The figures there are, besides one for each weather.
pub(crate) const FIGURES: [&str; 9] = [
    "idle", "two", "many", "new", "download", "eight", "upload", "agents", "visitors",
];

/// What to measure.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `PARTS=loopback,lossy`: these alone.
    parts: Option<Vec<String>>,
    /// `ROWS=haproxy,quic`: these alone.
    rows: Option<Vec<String>>,
    /// `FIGURES=many,50ms_1,agents`: these alone, those of the line by its weather.
    figures: Option<Vec<String>>,
    /// `ROUNDS=5`: how often each figure of the loopback is taken.
    pub(crate) rounds: usize,
    /// `SECONDS_EACH=10`: how long each lasts that has no end by itself.
    pub(crate) time: Duration,
}

impl Settings {
    /// Reads them; says what is wrong.
    pub(crate) fn read() -> Result<Self, String> {
        let figures = [&FIGURES[..], &Weather::ALL.map(Weather::key)].concat();
        let time = number("SECONDS_EACH", 5)? as u64;
        Ok(Self {
            parts: list("PARTS", &PARTS)?,
            rows: list("ROWS", &Row::ALL.map(Row::key))?,
            figures: list("FIGURES", &figures)?,
            rounds: number("ROUNDS", 3)?,
            time: Duration::from_secs(time),
        })
    }

    /// Whether all is to be measured: then the run is worth keeping.
    pub(crate) fn is_whole(&self) -> bool {
        self.parts.is_none() && self.rows.is_none() && self.figures.is_none()
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

/// Names by commas, each one of these.
fn list(name: &str, known: &[&str]) -> Result<Option<Vec<String>>, String> {
    let Ok(text) = env::var(name) else {
        return Ok(None);
    };
    let names: Vec<_> = text.split(',').map(str::to_owned).collect();
    match names.iter().find(|one| !known.contains(&one.as_str())) {
        None => Ok(Some(names)),
        Some(one) => Err(format!("{name}: no {one:?} among {}", known.join(", "))),
    }
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
