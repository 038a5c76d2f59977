//! What ours is to reach, as ratios within one run: the table that a run ends with.

use serde_json::{Value, json};

use crate::book::{Book, Spread};
use crate::metric::{Many, Metric};
use crate::row::Row;
use crate::weather::Weather;

/// One goal.
struct Goal {
    what: &'static str,
    row: Row,
    seen: Seen,
    bar: Bar,
}

impl Goal {
    fn new(what: &'static str, row: Row, seen: Seen, bar: Bar) -> Self {
        Self {
            what,
            row,
            seen,
            bar,
        }
    }
}

/// What is held against the bar.
#[derive(Clone, Copy)]
enum Seen {
    /// The figure itself.
    Figure(Metric),
    /// In parts of this row's.
    Ratio(Metric, Row),
    /// In parts of the better one of these.
    RatioToBest(Metric, [Row; 2]),
    /// More than this row's.
    Added(Metric, Row),
}

#[derive(Clone, Copy)]
enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    /// Whether the median does.
    fn holds(self, seen: Spread) -> bool {
        match self {
            Self::AtLeast(bar) => seen.median >= bar,
            Self::AtMost(bar) => seen.median <= bar,
        }
    }
}

const PEERS: [Row; 2] = [Row::Rathole, Row::Bore];

/// All goals, in the order of the table.
fn goals() -> Vec<Goal> {
    let transfers = [(Row::Quic, 1.0, 3.2), (Row::H2, 1.2, 2.3)];
    let mut goals: Vec<_> = transfers.into_iter().flat_map(transfer_goals).collect();
    for (row, new) in [(Row::Quic, 1.5), (Row::H2, 1.3)] {
        goals.extend(visitor_goals(row, new));
    }
    // Over HTTP/2 nothing is asked of it.
    goals.push(Goal::new(
        "CPU per new connection, × HAProxy",
        Row::Quic,
        Seen::Ratio(Metric::CpuPerConnection, Row::Haproxy),
        Bar::AtMost(0.65),
    ));
    for (row, count, bar) in [(Row::Quic, 1_000, 64.0), (Row::H2, 240, 128.0)] {
        let memory = Seen::Figure(Metric::RelayMemory(Many::Agents(count)));
        let what = "idle agent on the relay, KiB";
        goals.push(Goal::new(what, row, memory, Bar::AtMost(bar)));
    }
    goals.extend(line_goals());
    goals
}

/// How much of rathole's speed, for how much of HAProxy's CPU.
fn transfer_goals((row, speed, cpu): (Row, f64, f64)) -> [Goal; 4] {
    use Metric::{CpuPerGbDown, CpuPerGbUp, Download, Upload};
    let goal = |what, metric, other, bar| Goal::new(what, row, Seen::Ratio(metric, other), bar);
    let (speed, cpu) = (Bar::AtLeast(speed), Bar::AtMost(cpu));
    let (rathole, haproxy) = (Row::Rathole, Row::Haproxy);
    [
        goal("download, × rathole", Download, rathole, speed),
        goal("upload, × rathole", Upload, rathole, speed),
        goal("CPU per GB down, × HAProxy", CpuPerGbDown, haproxy, cpu),
        goal("CPU per GB up, × HAProxy", CpuPerGbUp, haproxy, cpu),
    ]
}

/// Requests, new connections in parts of bore's, and those who only stay.
fn visitor_goals(row: Row, new: f64) -> [Goal; 6] {
    use Bar::{AtLeast, AtMost};
    use Seen::{Added, Figure, Ratio, RatioToBest};
    let goal = |what, seen, bar| Goal::new(what, row, seen, bar);
    let best = RatioToBest(Metric::RateMany, PEERS);
    let request = Ratio(Metric::CpuPerRequest, Row::Haproxy);
    let anew = Ratio(Metric::NewPerSecond, Row::Bore);
    let later = Added(Metric::P50Two, Row::Haproxy);
    let (relay, agent) = (Figure(Metric::IdleRelay), Figure(Metric::IdleAgent));
    [
        goal("requests/s, × best of rathole, bore", best, AtLeast(1.15)),
        goal("CPU per request, × HAProxy", request, AtMost(1.4)),
        goal("new connections/s, × bore", anew, AtLeast(new)),
        goal("p50 of two, ms more than HAProxy", later, AtMost(0.08)),
        goal("idle visitor on the relay, KiB", relay, AtMost(12.0)),
        goal("idle visitor on the agent, KiB", agent, AtMost(32.0)),
    ]
}

fn line_goals() -> Vec<Goal> {
    use Bar::{AtLeast, AtMost};
    let goal = |what, row, metric, bar| Goal::new(what, row, Seen::Figure(metric), bar);
    let [clear, one, five, far] = Weather::ALL;
    let speed = Metric::LineDownload;
    let mut goals = vec![];
    for (row, bars) in [
        (Row::Quic, [88.0, 80.0, 65.0]),
        (Row::H2, [85.0, 75.0, 50.0]),
    ] {
        for (weather, bar) in [clear, one, five].into_iter().zip(bars) {
            goals.push(goal(weather.name(), row, speed(weather), AtLeast(bar)));
        }
    }
    let quic = Row::Quic;
    goals.push(goal(far.name(), quic, speed(far), AtLeast(60.0)));
    let alone = Metric::LineP99(one);
    goals.push(goal("50 ms, 1 %: p99, ms", quic, alone, AtMost(110.0)));
    let beside = Metric::BesideP99(one);
    let what = "50 ms, 1 %: p99 beside two downloads, ms";
    goals.push(goal(what, quic, beside, AtMost(200.0)));
    goals
}

impl Seen {
    fn of(self, row: Row, book: &Book) -> Option<Spread> {
        let ratio = |ours: f64, theirs: f64| ours / theirs;
        match self {
            Self::Figure(metric) => book.spread(row, metric),
            Self::Ratio(metric, other) => book.compare(metric, (row, other), ratio),
            Self::RatioToBest(metric, others) => {
                let ratios = others.map(|other| book.compare(metric, (row, other), ratio));
                // The smaller ratio is that to the better one.
                let ratios = ratios.into_iter().flatten();
                ratios.reduce(|one, other| {
                    if one.median < other.median {
                        one
                    } else {
                        other
                    }
                })
            }
            Self::Added(metric, other) => {
                book.compare(metric, (row, other), |ours, theirs| ours - theirs)
            }
        }
    }
}

/// The table in markdown: what was seen (least, median, most), and whether the median holds the bar.
pub(crate) fn table(book: &Book) -> String {
    let head = "| goal | | seen: least · median · most | bar | |\n|---|---|---|---|---|\n";
    let rows = goals().into_iter().map(|goal| row(&goal, book));
    head.to_owned() + &rows.collect::<String>()
}

fn row(goal: &Goal, book: &Book) -> String {
    let bar = match goal.bar {
        Bar::AtLeast(bar) => format!("≥ {bar}"),
        Bar::AtMost(bar) => format!("≤ {bar}"),
    };
    let (seen, verdict) = match goal.seen.of(goal.row, book) {
        None => ("not measured".to_owned(), ""),
        Some(seen) => {
            let verdict = if goal.bar.holds(seen) {
                "met"
            } else {
                "MISSED"
            };
            let Spread {
                least,
                median,
                most,
            } = seen;
            let seen = format!("{least:.2} · **{median:.2}** · {most:.2}");
            (seen, verdict)
        }
    };
    let (what, name) = (goal.what, goal.row.name());
    format!("| {what} | {name} | {seen} | {bar} | {verdict} |\n")
}

/// The same as JSON.
pub(crate) fn json(book: &Book) -> Vec<Value> {
    let one = |goal: Goal| {
        let seen = goal.seen.of(goal.row, book);
        let (relation, bar) = match goal.bar {
            Bar::AtLeast(bar) => ("at_least", bar),
            Bar::AtMost(bar) => ("at_most", bar),
        };
        json!({
            "goal": goal.what,
            "row": goal.row.key(),
            relation: bar,
            "least": seen.map(|seen| seen.least),
            "median": seen.map(|seen| seen.median),
            "most": seen.map(|seen| seen.most),
            "met": seen.map(|seen| goal.bar.holds(seen)),
        })
    };
    goals().into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_by_the_median_and_a_figure_that_is_missing_is_named() {
        let mut book = Book::default();
        for (round, (ours, theirs)) in [(2.0, 1.0), (1.0, 4.0), (6.0, 2.0)].into_iter().enumerate()
        {
            book.enter(Row::Quic, Metric::Download, round, Some(ours));
            book.enter(Row::Rathole, Metric::Download, round, Some(theirs));
        }
        let table = table(&book);
        let quic = Row::Quic.name();
        let met = format!("| download, × rathole | {quic} | 0.25 · **2.00** · 3.00 | ≥ 1 | met |");
        assert!(table.contains(&met), "{table}");
        let none = format!("| upload, × rathole | {quic} | not measured | ≥ 1 |  |");
        assert!(table.contains(&none), "{table}");
    }
}
