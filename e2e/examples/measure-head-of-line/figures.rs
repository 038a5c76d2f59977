//! The figures, as a table with one column for each kind of tunnel.

use std::time::Duration;

use crate::scene::{BEAT, MESSAGE_BYTES, VISITORS};
use crate::stalls::{Span, Watched, delays, quantile, stalls, usual_gap};
use crate::{LOSS, ONE_WAY, WINDOW};

/// One kind of tunnel: its name, and each figure with what it is.
pub(crate) struct Column {
    name: &'static str,
    figures: Vec<(String, String)>,
}

impl Column {
    /// The figures of all that was seen.
    pub(crate) fn new(name: &'static str, watched: &Watched) -> Self {
        let Watched {
            visitors, trials, ..
        } = watched;
        let controls: Vec<_> = trials.iter().map(|trial| &trial.control).collect();
        let usual = usual_gap(visitors, &controls);
        let of = |span: &Span| stalls(visitors, span, usual, ONE_WAY);
        let lost: Vec<_> = trials.iter().map(|trial| of(&trial.loss)).collect();
        let quiet: Vec<_> = controls.iter().map(|span| of(span)).collect();
        let mut figures = stall_figures(&lost, &quiet);
        let usual = format!("{:.1} ms", usual.as_secs_f64() * 1e3);
        figures.push(("usual gap between two messages".into(), usual));
        let random_loss: Vec<_> = watched.random_loss.iter().collect();
        let mut without = delays(visitors, &controls);
        let mut with = delays(visitors, &random_loss);
        let at_loss = format!("message delay, {:.0} % loss: p50 · p99", LOSS * 100.0);
        figures.extend([
            (
                "message delay, no loss: p50 · p99".into(),
                delay_figure(&mut without),
            ),
            (at_loss, delay_figure(&mut with)),
        ]);
        Self { name, figures }
    }
}

fn stall_figures(losses: &[Vec<Duration>], controls: &[Vec<Duration>]) -> Vec<(String, String)> {
    let share = |stalled: usize, windows: usize| {
        let all = windows.max(1) * usize::from(VISITORS);
        format!("{:.1} %", stalled as f64 / all as f64 * 100.0)
    };
    let total = |windows: &[Vec<_>]| windows.iter().map(Vec::len).sum::<usize>();
    let mut counts: Vec<_> = losses.iter().map(Vec::len).collect();
    counts.sort_unstable();
    let count = |at: usize| counts.get(at).copied().unwrap_or_default();
    let (least, median, most) = (count(0), count(counts.len() / 2), counts.last());
    let mut lengths = losses.concat();
    let length = quantile(&mut lengths, 0.5).as_secs_f64() * 1e3;
    let rows = [
        (
            "share of the visitors that stall",
            share(total(losses), losses.len()),
        ),
        (
            "visitors that stall: least · median · most",
            format!("{least} · {median} · {}", most.copied().unwrap_or_default()),
        ),
        ("length of a stall, median", format!("{length:.0} ms")),
        (
            "share in the windows without a loss",
            share(total(controls), controls.len()),
        ),
    ];
    rows.map(|(what, figure)| (what.to_owned(), figure)).into()
}

fn delay_figure(delays: &mut [Duration]) -> String {
    let mut at = |share| quantile(delays, share).as_secs_f64() * 1e3;
    format!("{:.0} · {:.0} ms", at(0.5), at(0.99))
}

/// Prints the table.
pub(crate) fn print(columns: &[Column], trials: usize, congestion: &str) {
    println!(
        "{VISITORS} visitors, each gets {MESSAGE_BYTES} bytes every {BEAT:?}; round trip {:?}; {trials} losses of one \
         packet each, {:?} apart; a stall is more than {ONE_WAY:?}; TCP uses {congestion}",
        ONE_WAY * 2,
        WINDOW * 3,
    );
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    row("", &names);
    let rows = columns.first().map_or(0, |column| column.figures.len());
    for at in 0..rows {
        let figures: Vec<_> = columns.iter().map(|column| &column.figures[at].1).collect();
        row(&columns[0].figures[at].0, &figures);
    }
}

fn row(what: &str, figures: &[impl std::fmt::Display]) {
    let figures: String = figures
        .iter()
        .map(|figure| format!("  {figure:>18}"))
        .collect();
    println!("{what:<44}{figures}");
}
