//! The chart: seconds without service, QUIC above HTTP/2.

use e2e::bars::{Bar, Chart, Colour, Group, Scale};
use e2e::transport::Over;

use crate::played::{Played, name};
use crate::table::seconds;

const TITLE: &str = "Seconds without an answer to a new visitor; where network, relay or agent was away, from its return";

/// The chart as SVG. A story in which nobody waited is left out.
pub(crate) fn svg(played: &[Played]) -> String {
    let legend = [Over::Quic, Over::H2].map(|over| (colour(over), name(over)));
    let waited = |group: &Group| group.bars.iter().any(|bar| bar.value > 0.0);
    Chart {
        title: TITLE,
        legend: legend.into(),
        scale: Scale::Shared,
        groups: played.iter().map(group).filter(waited).collect(),
    }
    .svg()
}

fn group(played: &Played) -> Group {
    let bars = played.outcomes().filter_map(|(over, outcome)| {
        let time = outcome.without_service()?;
        Some(Bar {
            colour: colour(over),
            value: time.as_secs_f64(),
            figure: seconds(time),
        })
    });
    Group {
        label: played.story.what.to_owned(),
        bars: bars.collect(),
    }
}

fn colour(over: Over) -> Colour {
    match over {
        Over::Quic => Colour::Blue,
        Over::H2 => Colour::Orange,
    }
}
