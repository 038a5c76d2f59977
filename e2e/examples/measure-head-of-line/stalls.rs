//! Who stalled and for how long, by when messages came.

use std::ops::Range;
use std::time::{Duration, Instant};

/// A message has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// When.
    pub(crate) at: Instant,
    /// How long ago it was sent.
    pub(crate) delay: Duration,
}

/// A time from here to there.
pub(crate) type Span = Range<Instant>;

/// Two windows: without a loss, and from a loss on.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) control: Span,
    pub(crate) loss: Span,
}

/// All that was seen with one kind of tunnel.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// What came to each visitor of each session.
    pub(crate) visitors: Vec<Vec<Arrival>>,
    /// The trials of all sessions.
    pub(crate) trials: Vec<Trial>,
    /// When packets were lost at random.
    pub(crate) random_loss: Option<Span>,
}

/// The median of the gaps in these spans.
pub(crate) fn usual_gap(visitors: &[Vec<Arrival>], spans: &[&Span]) -> Duration {
    let mut all = vec![];
    for arrivals in visitors {
        all.extend(spans.iter().flat_map(|span| gaps(arrivals, span)));
    }
    quantile(&mut all, 0.5)
}

/// By how much the longest gap of each visitor was longer than usual, of those by more than
/// `tolerance`.
pub(crate) fn stalls(
    visitors: &[Vec<Arrival>],
    span: &Span,
    usual: Duration,
    tolerance: Duration,
) -> Vec<Duration> {
    let longest = visitors
        .iter()
        .filter_map(|arrivals| gaps(arrivals, span).max());
    let excess = longest.map(|gap| gap.saturating_sub(usual));
    excess.filter(|excess| *excess > tolerance).collect()
}

/// How long the messages took that came in these spans.
pub(crate) fn delays(visitors: &[Vec<Arrival>], spans: &[&Span]) -> Vec<Duration> {
    let is_within = |arrival: &&Arrival| spans.iter().any(|span| span.contains(&arrival.at));
    let within = visitors.iter().flatten().filter(is_within);
    within.map(|arrival| arrival.delay).collect()
}

/// The value that this share of them does not pass.
pub(crate) fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort();
    let last = values.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    values.get(at).copied().unwrap_or_default()
}

/// The gaps that ended in a span.
fn gaps<'a>(arrivals: &'a [Arrival], span: &'a Span) -> impl Iterator<Item = Duration> + 'a {
    let pairs = arrivals.windows(2);
    let within = pairs.filter(|pair| span.contains(&pair[1].at));
    within.map(|pair| pair[1].at - pair[0].at)
}
