//! Over a long line that loses packets: 100 Mbit/s, and a kernel that knows nothing of it.
//!
//! ```text
//! wrk, curl ─▶ relay ═══ round trip, loss both ways ═══ agent ─▶ nginx
//! ```

use std::sync::Arc;
use std::time::Duration;

use e2e::netsim::{Line, Loss, line};

use crate::book::Book;
use crate::chains::chain::Chain;
use crate::chains::start::start;
use crate::load::curl::{self, Moved};
use crate::load::wrk;
use crate::metric::Metric;
use crate::origin;
use crate::place::Place;
use crate::row::Row;

const ROWS: [Row; 4] = [Row::Quic, Row::QuicCubic, Row::H2, Row::Rathole];
const BITS_PER_SECOND: u64 = 100_000_000;
/// Who stay and ask again and again.
const VISITORS: usize = 64;
/// How long they do, and how long a download is watched.
const TIME: Duration = Duration::from_secs(8);
/// For so long two downloads go on before anybody else comes.
const HEAD_START: Duration = Duration::from_secs(3);

/// A line's round trip, and the share of packets that it loses in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weather {
    Clear,
    OnePercent,
    FivePercent,
    /// 200 ms, and two percent.
    Far,
}

impl Weather {
    pub(crate) const ALL: [Self; 4] = [Self::Clear, Self::OnePercent, Self::FivePercent, Self::Far];

    /// Its name in files.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Clear => "50ms_0",
            Self::OnePercent => "50ms_1",
            Self::FivePercent => "50ms_5",
            Self::Far => "200ms_2",
        }
    }

    /// Its name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clear => "50 ms, no loss",
            Self::OnePercent => "50 ms, 1 %",
            Self::FivePercent => "50 ms, 5 %",
            Self::Far => "200 ms, 2 %",
        }
    }

    fn one_way(self) -> Duration {
        Duration::from_millis(if self == Self::Far { 100 } else { 25 })
    }

    fn loss(self) -> Loss {
        match self {
            Self::Clear => Loss::None,
            Self::OnePercent => Loss::Random(0.01),
            Self::FivePercent => Loss::Random(0.05),
            Self::Far => Loss::Random(0.02),
        }
    }

    fn line(self) -> Option<Line> {
        let line = line()?;
        line.both(|conditions| {
            conditions.delay = self.one_way();
            conditions.loss = self.loss();
            conditions.bits_per_second = Some(BITS_PER_SECOND);
        });
        Some(line)
    }
}

/// Measures all rows in all weathers, each on a line of its own.
pub(crate) async fn measure(book: &mut Book) {
    for weather in Weather::ALL {
        for row in ROWS {
            let Some(line) = weather.line() else { return };
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
    tokio::time::sleep(HEAD_START).await;
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
