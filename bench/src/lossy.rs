//! Over a long line that loses packets: 100 Mbit/s, and a kernel that knows nothing of it.
//!
//! ```text
//! wrk, curl ─▶ relay ═══ round trip, loss both ways ═══ agent ─▶ nginx
//! ```

use std::sync::Arc;
use std::time::Duration;

use e2e::netsim::{Line, line};
use e2e::poll::pass;

use crate::book::Book;
use crate::chains::chain::Chain;
use crate::chains::start::start;
use crate::load::curl::{self, Moved};
use crate::load::wrk;
use crate::metric::Metric;
use crate::origin;
use crate::place::Place;
use crate::row::Row;
use crate::weather::Weather;

const ROWS: [Row; 4] = [Row::Quic, Row::QuicCubic, Row::H2, Row::Rathole];
const BITS_PER_SECOND: u64 = 100_000_000;
/// Who stay and ask again and again.
const VISITORS: usize = 64;
/// How long they do, and how long a download is watched.
const TIME: Duration = Duration::from_secs(8);
/// For so long two downloads go on before anybody else comes.
const HEAD_START: Duration = Duration::from_secs(3);

/// Measures all rows in all weathers, each on a line of its own.
pub(crate) async fn measure(book: &mut Book) {
    for weather in Weather::ALL {
        for row in ROWS {
            let Some(line) = line_in(weather) else { return };
            println!("line: {}, {}", weather.name(), row.key());
            let place = Place::Line(Arc::new(line));
            let origin = origin::start(&place);
            match start(row, &place, &origin).await {
                Ok(chain) => one(&chain, &place, weather, book).await,
                Err(missing) => println!("{}: {} is not installed", row.key(), missing.0),
            }
        }
    }
}

async fn one(chain: &Chain, place: &Place, weather: Weather, book: &mut Book) {
    let row = chain.row;
    let alone = wrk::visit(chain, place, origin::PAGE, VISITORS, TIME).await;
    book.enter(row, Metric::LineP50(weather), 0, alone.map(|seen| seen.p50));
    book.enter(row, Metric::LineP99(weather), 0, alone.map(|seen| seen.p99));
    let download = |time| curl::download(chain, place, origin::BIG, time);
    let moved = curl::moved(vec![download(TIME)]).await;
    let speed = moved.map(Moved::megabits);
    book.enter(row, Metric::LineDownload(weather), 0, speed);
    let _two = [(); 2].map(|()| download(HEAD_START + 2 * TIME));
    pass(HEAD_START).await;
    let beside = wrk::visit(chain, place, origin::PAGE, VISITORS, TIME).await;
    book.enter(
        row,
        Metric::BesideP50(weather),
        0,
        beside.map(|seen| seen.p50),
    );
    book.enter(
        row,
        Metric::BesideP99(weather),
        0,
        beside.map(|seen| seen.p99),
    );
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
