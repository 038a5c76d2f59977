//! The table for people: one row for each story, QUIC and HTTP/2 in each cell.

use std::fmt::Write as _;
use std::time::Duration;

use e2e::transport::Over;

use crate::played::{Played, name};
use crate::story::Outcome;

const HEAD: &str = "\
| QUIC · HTTP/2 | no new visitor was answered for | after it was back | slowest answer | requests that failed | visits that were cut |
|---|---|---|---|---|---|
";
/// Where a story is not played over a transport, or has no such figure.
const NOTHING: &str = "–";

/// The table in markdown, and below it the figures of single stories.
pub(crate) fn markdown(played: &[Played]) -> String {
    let (mut table, mut notes) = (HEAD.to_owned(), String::new());
    for one in played {
        // A String takes everything.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} |",
            one.story.what,
            cell(one, |outcome| outcome.outage.map(seconds)),
            cell(one, |outcome| outcome.after_back.map(seconds)),
            cell(one, |outcome| outcome.slowest.map(seconds)),
            cell(one, |outcome| share(outcome.failed, outcome.requests)),
            cell(one, |outcome| share(outcome.cut, outcome.visits)),
        );
        for (over, outcome) in one
            .outcomes()
            .filter(|(_, outcome)| !outcome.notes.is_empty())
        {
            let (what, over, figures) = (one.story.what, name(over), outcome.notes.join("; "));
            let _ = writeln!(notes, "* {what}, {over}: {figures}.");
        }
    }
    if !notes.is_empty() {
        table.push('\n');
    }
    table + &notes
}

fn cell(played: &Played, figure: impl Fn(&Outcome) -> Option<String>) -> String {
    let of = |over| played.outcome(over).and_then(&figure);
    let figures = [Over::Quic, Over::H2].map(of);
    if figures.iter().all(Option::is_none) {
        return NOTHING.to_owned();
    }
    figures
        .map(|figure| figure.unwrap_or_else(|| NOTHING.to_owned()))
        .join(" · ")
}

/// Two digits behind the point below a second, one above.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let digits = if seconds < 1.0 { 2 } else { 1 };
    format!("{seconds:.digits$} s")
}

fn share(some: usize, all: usize) -> Option<String> {
    (all > 0).then(|| match some {
        0 => "0".to_owned(),
        some => format!("{some} of {all}"),
    })
}
