//! The chart: horizontal bars, seconds without service, QUIC above HTTP/2.
//!
//! Legible on light and on dark pages, by itself where the page says which it is and by middle tones
//! where it does not; with the reader's own font.

use std::fmt::Write as _;

use e2e::transport::Over;

use crate::played::{Played, name};
use crate::table::seconds;

// All in pixels.
const LABELS: f64 = 400.0;
const BARS: f64 = 400.0;
const FIGURES: f64 = 60.0;
const HEAD: f64 = 56.0;
const BAR: f64 = 11.0;
const ROW: f64 = 34.0;
const FOOT: f64 = 30.0;
/// So many parts has the scale.
const TICKS: u32 = 5;

const STYLE: &str = "\
<style>
text { font: 13px sans-serif; fill: #57606a }
.figure { font-size: 11px }
.head { font-weight: bold }
.scale { stroke: #8c959f; stroke-width: 0.5; opacity: 0.5 }
.quic { fill: #2f81f7 }
.h2 { fill: #d98324 }
@media (prefers-color-scheme: dark) { text { fill: #a8b3be } }
</style>
";

/// The chart as SVG.
pub(crate) fn svg(played: &[Played]) -> String {
    let timed: Vec<_> = played.iter().filter(|one| longest(one) > 0.0).collect();
    let most = timed.iter().map(|one| longest(one)).fold(0.0, f64::max);
    // A whole number of seconds for each part.
    let scale = (most / f64::from(TICKS)).ceil().max(1.0) * f64::from(TICKS);
    let width = LABELS + BARS + FIGURES;
    let bottom = HEAD + ROW * timed.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"Seconds without service\">\n{STYLE}",
        height = bottom + FOOT,
    );
    head(&mut svg);
    ticks(&mut svg, scale, bottom);
    for (row, one) in timed.into_iter().enumerate() {
        bars(&mut svg, one, HEAD + ROW * row as f64, scale);
    }
    svg + "</svg>\n"
}

/// The longer of its bars, in seconds.
fn longest(played: &Played) -> f64 {
    let times = played
        .outcomes()
        .filter_map(|(_, outcome)| outcome.without_service());
    times.map(|time| time.as_secs_f64()).fold(0.0, f64::max)
}

// A String takes everything: nothing that is written to one can fail.

fn head(svg: &mut String) {
    let what = "Seconds without an answer to a new visitor; where network, relay or agent was away, from its return";
    let _ = writeln!(svg, "<text class=\"head\" x=\"8\" y=\"18\">{what}</text>");
    for (over, at) in [(Over::Quic, LABELS), (Over::H2, LABELS + 70.0)] {
        let (class, name, text_at) = (class(over), name(over), at + 15.0);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{at}\" y=\"31\" width=\"{BAR}\" height=\"{BAR}\"/>\
             <text x=\"{text_at}\" y=\"41\">{name}</text>"
        );
    }
}

fn ticks(svg: &mut String, scale: f64, bottom: f64) {
    for tick in 0..=TICKS {
        let share = f64::from(tick) / f64::from(TICKS);
        let (at, value, under) = (LABELS + BARS * share, scale * share, bottom + 18.0);
        let _ = writeln!(
            svg,
            "<line class=\"scale\" x1=\"{at}\" x2=\"{at}\" y1=\"{HEAD}\" y2=\"{bottom}\"/>\
             <text class=\"figure\" x=\"{at}\" y=\"{under}\" text-anchor=\"middle\">{value}</text>"
        );
    }
}

fn bars(svg: &mut String, played: &Played, top: f64, scale: f64) {
    let (what, middle, end) = (played.story.what, top + ROW / 2.0 + 4.0, LABELS - 8.0);
    let _ = writeln!(
        svg,
        "<text x=\"{end}\" y=\"{middle}\" text-anchor=\"end\">{what}</text>"
    );
    let mut top = top + (ROW - 2.0 * BAR) / 2.0;
    for (over, outcome) in played.outcomes() {
        let Some(time) = outcome.without_service() else {
            continue;
        };
        let long = BARS * time.as_secs_f64() / scale;
        let (class, behind, base) = (class(over), LABELS + long + 5.0, top + BAR - 2.0);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{LABELS}\" y=\"{top}\" width=\"{long:.1}\" height=\"{BAR}\"/>\
             <text class=\"figure\" x=\"{behind:.1}\" y=\"{base}\">{}</text>",
            seconds(time)
        );
        top += BAR;
    }
}

fn class(over: Over) -> &'static str {
    match over {
        Over::Quic => "quic",
        Over::H2 => "h2",
    }
}
