//! What has been seen, round by round, and what follows from it.

use std::collections::BTreeMap;

use crate::metric::Metric;
use crate::row::Row;

/// All figures of a run. Rounds count from 0.
#[derive(Debug, Default)]
pub(crate) struct Book {
    figures: BTreeMap<(Row, Metric), BTreeMap<usize, f64>>,
}

/// The least, the middle and the most of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[half - 1], values[half]),
            _ => values[half],
        };
        Some(Self {
            least,
            median,
            most,
        })
    }
}

impl Book {
    /// Writes a figure down. One that could not be had is left out.
    pub(crate) fn enter(&mut self, row: Row, metric: Metric, round: usize, value: Option<f64>) {
        if let Some(value) = value {
            self.figures
                .entry((row, metric))
                .or_default()
                .insert(round, value);
        }
    }

    /// What was seen of one figure.
    pub(crate) fn spread(&self, row: Row, metric: Metric) -> Option<Spread> {
        Spread::of(self.figures.get(&(row, metric))?.values().copied())
    }

    /// Two rows compared within each round, since rounds differ by more than rows do.
    pub(crate) fn compare(
        &self,
        metric: Metric,
        (ours, theirs): (Row, Row),
        how: impl Fn(f64, f64) -> f64,
    ) -> Option<Spread> {
        let (ours, theirs) = (
            self.figures.get(&(ours, metric))?,
            self.figures.get(&(theirs, metric))?,
        );
        let both = ours
            .iter()
            .filter_map(|(round, ours)| Some(how(*ours, *theirs.get(round)?)));
        Spread::of(both)
    }

    /// All of it, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Row, Metric, Vec<f64>)> {
        let entries = self.figures.iter();
        entries.map(|((row, metric), rounds)| (*row, *metric, rounds.values().copied().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_within_a_round() {
        let mut book = Book::default();
        for (round, (ours, theirs)) in [(10.0, 5.0), (30.0, 10.0), (8.0, 8.0)]
            .into_iter()
            .enumerate()
        {
            book.enter(Row::Quic, Metric::Download, round, Some(ours));
            book.enter(Row::Rathole, Metric::Download, round, Some(theirs));
        }
        book.enter(Row::Quic, Metric::Download, 3, Some(100.0));
        book.enter(Row::Rathole, Metric::Download, 3, None);
        let ratio = book.compare(
            Metric::Download,
            (Row::Quic, Row::Rathole),
            |ours, theirs| ours / theirs,
        );
        let expected = Spread {
            least: 1.0,
            median: 2.0,
            most: 3.0,
        };
        assert_eq!(ratio, Some(expected));
        assert_eq!(book.spread(Row::Bore, Metric::Download), None);
    }
}
