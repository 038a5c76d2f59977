//! Over a long line that loses packets: 100 Mbit/s, and a kernel that knows nothing of it.
//!
//! ```text
//! wrk, curl ─▶ relay ═══ round trip, loss both ways ═══ agent ─▶ nginx
//! ```

use std::sync::Arc;
use std::time::Duration;

use e2e::netsim::{Line, line};
use e2e::poll::pass;
use futures_util::future::join_all;

use crate::book::Book;
use crate::chains::chain::Chain;
use crate::chains::start::start;
use crate::load::curl::{self, Moved};
use crate::load::wrk;
use crate::metric::Metric;
use crate::origin;
use crate::place::Place;
use crate::row::Row;
use crate::settings::Settings;
use crate::weather::Weather;

/// What it measures, in the order of the tables.
pub(crate) const ROWS: [Row; 4] = [Row::Quic, Row::QuicCubic, Row::H2, Row::Rathole];
const BITS_PER_SECOND: u64 = 100_000_000;
/// Who stay and ask again and again.
const VISITORS: usize = 64;
/// How long they do: the hundredth part of all requests is to be more than one of each.
const ASKING: Duration = Duration::from_secs(16);
/// How long a download is watched.
const TIME: Duration = Duration::from_secs(8);
/// For so long two downloads go on before anybody else comes.
const HEAD_START: Duration = Duration::from_secs(3);

/// What is measured in each weather.
#[derive(Clone, Copy)]
enum What {
    /// One download.
    Download,
    /// Small requests.
    Alone,
    /// Small requests beside two downloads.
    Beside,
}

/// Measures all rows in all weathers, each figure on a line and a tunnel of its own: one that has carried
/// something has learned from it. Two lines at a time, which leave the machine idle enough.
pub(crate) async fn measure(settings: &Settings, book: &mut Book) {
    let weathers = Weather::ALL.into_iter();
    let rows: Vec<_> = ROWS
        .into_iter()
        .filter(|row| settings.has_row(*row))
        .collect();
    for weather in weathers.filter(|weather| settings.has_figure(weather.key())) {
        println!("line: {}", weather.name());
        for what in [What::Download, What::Alone, What::Beside] {
            for pair in rows.chunks(2) {
                let lines = pair.iter().map(|row| on_a_line(what, *row, weather));
                for (row, seen) in pair.iter().zip(join_all(lines).await) {
                    for (metric, value) in seen {
                        book.enter(*row, metric, 0, value);
                    }
                }
            }
        }
    }
}

/// What was seen of one row.
type Seen = Vec<(Metric, Option<f64>)>;

async fn on_a_line(what: What, row: Row, weather: Weather) -> Seen {
    let Some(line) = line_in(weather) else {
        return vec![];
    };
    let place = Place::Line(Arc::new(line));
    let origin = origin::start(&place);
    match start(row, &place, &origin).await {
        Ok(chain) => one(what, &chain, &place, weather).await,
        Err(missing) => {
            println!("{}: {} is not installed", row.key(), missing.0);
            vec![]
        }
    }
}

async fn one(what: What, chain: &Chain, place: &Place, weather: Weather) -> Seen {
    let download = |time| curl::download(chain, place, origin::BIG, time);
    let small = wrk::visit(chain, place, origin::PAGE, VISITORS, ASKING);
    match what {
        What::Download => {
            let moved = curl::moved(vec![download(TIME)]).await;
            vec![(Metric::LineDownload(weather), moved.map(Moved::megabits))]
        }
        What::Alone => {
            let alone = small.await;
            vec![
                (Metric::LineP50(weather), alone.map(|seen| seen.p50)),
                (Metric::LineP99(weather), alone.map(|seen| seen.p99)),
            ]
        }
        What::Beside => {
            let _two = [(); 2].map(|()| download(HEAD_START + 2 * ASKING));
            pass(HEAD_START).await;
            let beside = small.await;
            vec![
                (Metric::BesideP50(weather), beside.map(|seen| seen.p50)),
                (Metric::BesideP99(weather), beside.map(|seen| seen.p99)),
            ]
        }
    }
}

fn line_in(weather: Weather) -> Option<Line> {
    let line = line()?;
    line.both(|conditions| {
        conditions.delay = weather.one_way();
        conditions.loss = weather.loss();
        conditions.bits_per_second = Some(BITS_PER_SECOND);
    });
    Some(line)
}
