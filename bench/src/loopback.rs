//! All on loopback: load, relay, agent and nginx share the machine. Rows take turns at every figure, so that
//! what drifts hits all alike.

use std::time::Duration;

use e2e::poll::pass;

use crate::book::Book;
use crate::chains::chain::Chain;
use crate::chains::start::start;
use crate::load::curl::{self, Moved};
use crate::load::h2load;
use crate::load::wrk::{self, Crowd};
use crate::metric::Metric;
use crate::origin::{self, Origin};
use crate::place::Place;
use crate::row::Row;
use crate::settings::Settings;

/// What it measures, in the order of the tables.
pub(crate) const ROWS: [Row; 6] = [
    Row::Direct,
    Row::Haproxy,
    Row::Quic,
    Row::H2,
    Row::Rathole,
    Row::Bore,
];
/// How many come anew in one go.
const NEW: usize = 2_000;
/// How many stay without a word, for their memory.
const IDLE: usize = 2_000;
/// They come, wait for so long, ask once and wait again.
const IDLE_PAUSE: Duration = Duration::from_secs(15);
/// When all have had their answer, and before they ask again.
const IDLE_LOOK: Duration = Duration::from_secs(25);
/// No download on loopback takes longer.
const TRANSFER_LIMIT: Duration = Duration::from_secs(120);

/// One row, and what it shares with the others.
struct Scene<'a> {
    chain: &'a Chain,
    place: &'a Place,
    origin: &'a Origin,
}

impl Scene<'_> {
    fn processor_time(&self) -> Duration {
        self.chain.processor_time() + self.origin.processor_time()
    }
}

/// Measures all rows, and enters what was seen.
pub(crate) async fn measure(settings: &Settings, book: &mut Book) {
    let place = Place::loopback();
    let origin = origin::start(&place);
    let mut chains = vec![];
    for row in ROWS.into_iter().filter(|row| settings.has_row(*row)) {
        match start(row, &place, &origin).await {
            Ok(chain) => chains.push(chain),
            Err(missing) => println!("{}: {} is not installed", row.key(), missing.0),
        }
    }
    if settings.has_figure("idle") {
        // nginx alone has neither a relay nor an agent.
        for chain in chains.iter().filter(|chain| chain.relay.is_some()) {
            idle(chain, &place, book).await;
        }
    }
    for round in 0..settings.rounds {
        println!("loopback, round {} of {}", round + 1, settings.rounds);
        for (name, figure) in Figure::ALL {
            if !settings.has_figure(name) {
                continue;
            }
            for chain in &chains {
                let scene = Scene {
                    chain,
                    place: &place,
                    origin: &origin,
                };
                figure.take(&scene, settings, book, round).await;
            }
        }
    }
}

/// Figures that are taken together.
#[derive(Clone, Copy, Debug)]
enum Figure {
    Two,
    Many,
    New,
    Download,
    Eight,
    Upload,
}

impl Figure {
    const ALL: [(&str, Self); 6] = [
        ("two", Self::Two),
        ("many", Self::Many),
        ("new", Self::New),
        ("download", Self::Download),
        ("eight", Self::Eight),
        ("upload", Self::Upload),
    ];

    async fn take(self, scene: &Scene<'_>, settings: &Settings, book: &mut Book, round: usize) {
        let row = scene.chain.row;
        let before = scene.processor_time();
        let mut enter = |metric, value| book.enter(row, metric, round, value);
        match self {
            Self::Two => {
                let seen = stay(scene, 2, settings).await;
                enter(Metric::RateTwo, seen.map(|seen| seen.rate));
                enter(Metric::P50Two, seen.map(|seen| seen.p50));
                enter(Metric::P99Two, seen.map(|seen| seen.p99));
            }
            Self::Many => {
                let seen = stay(scene, 64, settings).await;
                let used = scene.processor_time() - before;
                let each = seen.map(|seen| used.as_secs_f64() * 1e6 / seen.requests as f64);
                enter(Metric::RateMany, seen.map(|seen| seen.rate));
                enter(Metric::P50Many, seen.map(|seen| seen.p50));
                enter(Metric::P99Many, seen.map(|seen| seen.p99));
                enter(Metric::CpuPerRequest, each);
            }
            Self::New => {
                let rate = h2load::new_connections(scene.chain, scene.place, NEW).await;
                let used = scene.processor_time() - before;
                let each = rate.map(|_| used.as_secs_f64() * 1e6 / NEW as f64);
                enter(Metric::NewPerSecond, rate);
                enter(Metric::CpuPerConnection, each);
            }
            Self::Download | Self::Eight | Self::Upload => {
                let moved = self.transfer(scene).await;
                let (speed, cost) = self.names();
                let used = scene.processor_time() - before;
                let each = moved.map(|moved| used.as_secs_f64() * 1e9 / moved.bytes as f64);
                enter(speed, moved.map(Moved::gigabits));
                enter(cost, each);
            }
        }
    }

    async fn transfer(self, scene: &Scene<'_>) -> Option<Moved> {
        let Scene {
            chain,
            place,
            origin,
        } = scene;
        let download = |path| curl::download(chain, place, path, TRANSFER_LIMIT);
        let transfers = match self {
            Self::Eight => (0..8).map(|_| download(origin::EIGHTH)).collect(),
            Self::Upload => vec![curl::upload(chain, place, &origin.big, TRANSFER_LIMIT)],
            _ => vec![download(origin::BIG)],
        };
        curl::moved(transfers).await
    }

    fn names(self) -> (Metric, Metric) {
        match self {
            Self::Eight => (Metric::EightDownloads, Metric::CpuPerGbEight),
            Self::Upload => (Metric::Upload, Metric::CpuPerGbUp),
            _ => (Metric::Download, Metric::CpuPerGbDown),
        }
    }
}

async fn stay(scene: &Scene<'_>, visitors: usize, settings: &Settings) -> Option<wrk::Seen> {
    let Scene { chain, place, .. } = scene;
    let seen = wrk::visit(chain, place, origin::SMALL, visitors, settings.time).await?;
    if seen.errors > 0 {
        eprintln!("{}: {} errors", chain.row.key(), seen.errors);
    }
    (seen.errors == 0).then_some(seen)
}

/// What a visitor costs who stays without a word, before anything else has made the processes grow.
async fn idle(chain: &Chain, place: &Place, book: &mut Book) {
    let before = chain.memory();
    let crowd = Crowd {
        visitors: IDLE,
        time: IDLE_LOOK + IDLE_PAUSE,
        pause: IDLE_PAUSE,
    };
    let _visitors = wrk::start(chain, place, origin::SMALL, crowd);
    pass(IDLE_LOOK).await;
    let [relay, agent] = chain.grown(before, IDLE);
    book.enter(chain.row, Metric::IdleRelay, 0, relay);
    book.enter(chain.row, Metric::IdleAgent, 0, agent);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::FIGURES;

    #[test]
    fn every_figure_can_be_asked_for() {
        assert!(Figure::ALL.iter().all(|(name, _)| FIGURES.contains(name)));
    }
}
