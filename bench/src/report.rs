//! What a whole run leaves: tables for README.md, two charts, and all figures as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use e2e::bars::{Bar, Chart, Colour, Group, Scale};
use e2e::pages;
use serde_json::{Map, Value, json};

use crate::book::Book;
use crate::goals;
use crate::metric::{Many, Metric};
use crate::row::Row;
use crate::weather::Weather;
use crate::{loopback, lossy, scale};

/// Of the marks in README.md.
const NAME: &str = "bench";
const COMMAND: &str = "make bench";
/// Where there is no figure.
const NOTHING: &str = "–";

/// Figures of the loopback, as people call them, and whether they are in the chart.
const LOOPBACK: [(Metric, &str, bool); 16] = [
    (Metric::RateMany, "requests/s, 64 keep-alive visitors", true),
    (Metric::P50Many, "p50 of 64, ms", false),
    (Metric::P99Many, "p99 of 64, ms", false),
    (Metric::RateTwo, "requests/s, 2 keep-alive visitors", true),
    (Metric::P50Two, "p50 of 2, ms", false),
    (Metric::P99Two, "p99 of 2, ms", false),
    (Metric::CpuPerRequest, "CPU per request, µs", true),
    (Metric::NewPerSecond, "new TLS connections/s", true),
    (Metric::CpuPerConnection, "CPU per new connection, µs", true),
    (Metric::Download, "one download, Gbit/s", true),
    (Metric::EightDownloads, "eight downloads, Gbit/s", true),
    (Metric::Upload, "one upload, Gbit/s", true),
    (Metric::CpuPerGbDown, "CPU per GB down, s", true),
    (Metric::CpuPerGbUp, "CPU per GB up, s", true),
    (Metric::IdleRelay, "idle visitor on the relay, KiB", true),
    (Metric::IdleAgent, "idle visitor on the agent, KiB", true),
];
/// Panics if README.md has no place for the tables: better before all is measured.
pub(crate) fn find_place() {
    pages::find_place(NAME);
}

/// Puts tables, charts and figures where readers find them.
pub(crate) fn write(book: &Book) {
    let machine = machine();
    let files = [
        ("bench-loopback.svg", loopback_chart(book)),
        ("bench-lossy.svg", line_chart(book)),
        ("bench.json", json(book, &machine)),
    ];
    pages::write(NAME, &lines(book, &machine), &files);
}

fn lines(book: &Book, machine: &str) -> String {
    let loopback = LOOPBACK.map(|(metric, what, _)| (metric, what.to_owned()));
    format!(
        "`{COMMAND}` on {machine}; medians.\n\n\
         ![On loopback](docs/bench-loopback.svg)\n\n{}\n\
         ![Over a lossy line](docs/bench-lossy.svg)\n\n{}\n{}\n{}\n",
        table("on loopback", &loopback::ROWS, &loopback, book),
        table("over 100 Mbit/s", &lossy::ROWS, &line_figures(), book),
        table(
            "by the thousand",
            &scale::AGENTS.map(|(row, _)| row),
            &scale_figures(),
            book
        ),
        goals::table(book),
    )
}

/// The figures of a line, as people call them.
fn line_figures() -> Vec<(Metric, String)> {
    type Kind = (fn(Weather) -> Metric, &'static str);
    let kinds: [Kind; 5] = [
        (Metric::LineDownload, "one download, Mbit/s"),
        (Metric::LineP50, "p50 of 64, ms"),
        (Metric::LineP99, "p99 of 64, ms"),
        (Metric::BesideP50, "p50 of 64 beside two downloads, ms"),
        (Metric::BesideP99, "p99 of 64 beside two downloads, ms"),
    ];
    let figures = kinds.into_iter().flat_map(|(metric, what)| {
        Weather::ALL.map(|weather| (metric(weather), format!("{what}: {}", weather.name())))
    });
    figures.collect()
}

/// What grows with the number of agents and visitors, as people call it.
fn scale_figures() -> Vec<(Metric, String)> {
    let counts: BTreeSet<_> = scale::AGENTS
        .into_iter()
        .flat_map(|(_, counts)| counts)
        .collect();
    let agents = counts.into_iter().map(Many::Agents).flat_map(|many| {
        [
            (Metric::RelayMemory(many), "KiB of the relay for each"),
            (
                Metric::Coming(many),
                "ms of the relay's CPU for each that comes",
            ),
            (
                Metric::Cpu(many),
                "µs of it in a second for each that stays",
            ),
            (Metric::P99(many), "p99 of 64 visitors of another agent, ms"),
        ]
        .map(|(metric, what)| (metric, format!("{}: {what}", many.name())))
    });
    let visitors = scale::VISITORS.map(Many::Visitors).into_iter();
    let visitors = visitors.flat_map(|many| {
        [
            (Metric::RelayMemory(many), "KiB of the relay for each"),
            (Metric::AgentMemory(many), "KiB of the agent for each"),
            (Metric::Cpu(many), "µs of relay and agent for a request"),
            (Metric::Rate(many), "requests/s"),
            (Metric::P99(many), "p99, ms"),
        ]
        .map(|(metric, what)| (metric, format!("{}: {what}", many.name())))
    });
    agents.chain(visitors).collect()
}

fn table(head: &str, rows: &[Row], figures: &[(Metric, String)], book: &Book) -> String {
    let names: Vec<_> = rows.iter().map(|row| row.name()).collect();
    let mut table = format!(
        "| {head} | {} |\n|---|{}\n",
        names.join(" | "),
        "---|".repeat(rows.len())
    );
    for (metric, what) in figures {
        let seen: Vec<_> = rows.iter().map(|row| book.spread(*row, *metric)).collect();
        if seen.iter().all(Option::is_none) {
            continue;
        }
        let cells: Vec<_> = seen
            .into_iter()
            .map(|seen| seen.map_or_else(|| NOTHING.to_owned(), |seen| figure(seen.median)))
            .collect();
        // A String takes everything.
        let _ = writeln!(table, "| {what} | {} |", cells.join(" | "));
    }
    table
}

/// Three digits that count.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        ..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

fn loopback_chart(book: &Book) -> String {
    let charted = LOOPBACK.into_iter().filter(|(.., is_charted)| *is_charted);
    let figures = charted.map(|(metric, what, _)| (metric, what.to_owned()));
    chart("On loopback", &loopback::ROWS[1..], figures, book)
}

fn line_chart(book: &Book) -> String {
    let is_charted = |metric: &Metric| {
        let p50 = matches!(metric, Metric::LineP50(_) | Metric::BesideP50(_));
        !p50
    };
    let figures = line_figures().into_iter();
    let figures = figures.filter(|(metric, _)| is_charted(metric));
    chart("Over 100 Mbit/s", &lossy::ROWS, figures, book)
}

fn chart(
    title: &'static str,
    rows: &[Row],
    figures: impl Iterator<Item = (Metric, String)>,
    book: &Book,
) -> String {
    let bar = |row: &Row, metric| {
        let seen = book.spread(*row, metric)?;
        Some(Bar {
            colour: colour(*row),
            value: seen.median,
            figure: figure(seen.median),
        })
    };
    let groups = figures.map(|(metric, label)| Group {
        bars: rows.iter().filter_map(|row| bar(row, metric)).collect(),
        label,
    });
    Chart {
        title,
        legend: rows.iter().map(|row| (colour(*row), row.short())).collect(),
        scale: Scale::Own,
        groups: groups.collect(),
    }
    .svg()
}

fn colour(row: Row) -> Colour {
    match row {
        Row::Quic => Colour::Blue,
        Row::H2 => Colour::Orange,
        Row::Rathole => Colour::Green,
        Row::Bore => Colour::Violet,
        Row::Direct | Row::Haproxy | Row::QuicCubic => Colour::Grey,
    }
}

/// All that was seen, round by round, under the names of rows and metrics.
fn json(book: &Book, machine: &str) -> String {
    let mut rows = Map::new();
    for (row, metric, values) in book.all() {
        let figures = rows.entry(row.key()).or_insert_with(|| json!({}));
        figures[metric.key()] = Value::from(values);
    }
    let all = json!({
        "command": COMMAND,
        "machine": machine,
        "figures": rows,
        "goals": goals::json(book),
    });
    format!("{all:#}\n")
}

/// The processor's name, how many of them, and the kernel.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let names = processors
        .lines()
        .filter_map(|line| line.strip_prefix("model name"));
    let mut names = names.map(|name| name.trim_start_matches(['\t', ' ', ':']));
    let name = names.next().unwrap_or("unknown processor").to_owned();
    let count = 1 + names.count();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{count} × {name}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        let mut book = Book::default();
        for round in 0..3 {
            let value = 10.0 + round as f64;
            book.enter(Row::Quic, Metric::Download, round, Some(value));
        }
        book
    }

    #[test]
    fn medians_are_in_the_table_and_what_is_missing_is_named() {
        let lines = lines(&book(), "2 × a processor");
        let row = "| one download, Gbit/s | – | – | 11.0 | – | – | – |";
        assert!(lines.contains(row), "{lines}");
        assert!(lines.contains("`make bench` on 2 × a processor"));
    }

    #[test]
    fn every_round_is_in_the_json() {
        let read: Value = serde_json::from_str(&json(&book(), "a machine")).expect("JSON");
        assert_eq!(
            read["figures"]["quic"]["download_gbit_s"],
            json!([10.0, 11.0, 12.0])
        );
        assert_eq!(read["machine"], "a machine");
        assert!(
            read["goals"]
                .as_array()
                .is_some_and(|goals| !goals.is_empty())
        );
    }

    #[test]
    fn a_chart_has_a_bar_for_what_was_seen_alone() {
        let svg = loopback_chart(&book());
        assert_eq!(
            svg.matches("height=\"11\"").count(),
            5 + 1,
            "legend and a bar"
        );
    }
}
