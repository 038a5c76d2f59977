//! How cost grows: agents that only stay at one relay, and visitors of one agent.

use std::time::Duration;

use e2e::poll::pass;

use crate::book::Book;
use crate::chains::chain::Chain;
use crate::chains::start::start;
use crate::herd::herd;
use crate::load::wrk::{self, Crowd};
use crate::metric::{Many, Metric};
use crate::origin;
use crate::place::Place;
use crate::row::Row;
use crate::settings::Settings;

/// How many visitors one agent has.
pub(crate) const VISITORS: [u32; 5] = [1, 10, 100, 1_000, 10_000];
/// How many agents a relay has, over QUIC and over HTTP/2: there each has four connections, and of 20,000
/// descriptors the relay's API port takes 1,000.
pub(crate) const AGENTS: [(Row, [u32; 3]); 2] =
    [(Row::Quic, [100, 1_000, 5_000]), (Row::H2, [50, 100, 240])];
/// Until newcomers have settled: packets have their size, buffers are back.
const SETTLE: Duration = Duration::from_secs(5);
/// How long those are watched who only stay.
const IDLE: Duration = Duration::from_secs(10);
/// Visitors of one agent while others only stay.
const BESIDE: usize = 64;

/// Measures both, over QUIC and over HTTP/2.
pub(crate) async fn measure(settings: &Settings, book: &mut Book) {
    let place = Place::loopback();
    let origin = origin::start(&place);
    let wanted = AGENTS.into_iter().filter(|(row, _)| settings.has_row(*row));
    for (row, counts) in wanted {
        println!("scale: {}", row.key());
        if settings.has_figure("visitors") {
            // A chain of its own: what ten thousand visitors leave behind is not the agents'.
            let chain = start(row, &place, &origin).await;
            let Ok(chain) = chain else { continue };
            for count in VISITORS {
                visitors(&chain, &place, count, book).await;
            }
        }
        if settings.has_figure("agents") {
            let chain = start(row, &place, &origin).await;
            let Ok(chain) = chain else { continue };
            agents(&chain, &place, counts, settings, book).await;
        }
    }
}

/// Visitors who ask again and again, and what each costs.
async fn visitors(chain: &Chain, place: &Place, count: u32, book: &mut Book) {
    let (many, before, used) = (
        Many::Visitors(count),
        chain.memory(),
        chain.processor_time(),
    );
    let crowd = Crowd {
        visitors: count as usize,
        time: IDLE,
        pause: Duration::ZERO,
    };
    let visiting = wrk::start(chain, place, origin::SMALL, crowd);
    // All have come, and nobody has gone.
    pass(IDLE - IDLE / 4).await;
    let [relay, agent] = chain.grown(before, count as usize);
    let seen = wrk::seen(visiting).await;
    let used = chain.processor_time() - used;
    let mut enter = |metric: Metric, value| book.enter(chain.row, metric, 0, value);
    enter(Metric::RelayMemory(many), relay);
    enter(Metric::AgentMemory(many), agent);
    enter(Metric::Rate(many), seen.map(|seen| seen.rate));
    enter(Metric::P99(many), seen.map(|seen| seen.p99));
    let cost = seen.map(|seen| used.as_secs_f64() * 1e6 / seen.requests as f64);
    enter(Metric::Cpu(many), cost);
}

/// Agents who only stay, more and more of them, and what they cost the relay and one agent's visitors.
async fn agents(
    chain: &Chain,
    place: &Place,
    counts: [u32; 3],
    settings: &Settings,
    book: &mut Book,
) {
    let (Some(process), Some(api)) = (&chain.relay, &chain.api) else {
        return;
    };
    let (before, mut herds, mut here) = (process.resident_bytes(), vec![], 0);
    for count in counts {
        let (many, used) = (Many::Agents(count), process.processor_time());
        let Some(more) = herd((count - here) as usize, chain.row, api).await else {
            return;
        };
        let came = process.processor_time() - used;
        let mut enter = |metric: Metric, value| book.enter(chain.row, metric, 0, Some(value));
        enter(
            Metric::Coming(many),
            came.as_secs_f64() * 1e3 / f64::from(count - here),
        );
        herds.push(more);
        here = count;
        pass(SETTLE).await;
        let grown = process.resident_bytes().saturating_sub(before) as f64;
        enter(Metric::RelayMemory(many), grown / 1024.0 / f64::from(count));
        let used = process.processor_time();
        pass(IDLE).await;
        let used = process.processor_time() - used;
        // Microseconds of each second, for each agent.
        let each = used.as_secs_f64() * 1e6 / IDLE.as_secs_f64() / f64::from(count);
        enter(Metric::Cpu(many), each);
        if let Some(seen) = wrk::visit(chain, place, origin::SMALL, BESIDE, settings.time).await {
            enter(Metric::Rate(many), seen.rate);
            enter(Metric::P99(many), seen.p99);
        }
    }
}
