//! Breaks networks, relays and agents while visitors come, and prints for how long nobody was served:
//! `make chaos`.
//!
//! ```text
//! near: echo, client(s) ── round trip 20 ms ── far: server(s), a new visitor every 40 ms, some who stay
//! ```
//!
//! Each story is played over QUIC and over HTTP/2 where it makes sense, with the clocks that the programs
//! have by default. When all are played and every bar is held, the table goes into README.md and the
//! chart into docs/chaos.svg; a bar that is missed is named, nothing is written, and the exit code is 1.
//!
//! `STORY=nat,mtu` plays these alone, and writes nothing. `CYCLES=1000` changes how often `cycles` reconnects.

use std::process::ExitCode;

use e2e::pages;

use crate::story::Bar::{AfterBack, NobodyFails, NobodyIsCut, Outage};
use crate::story::{Bar, Story};

mod agents;
mod chart;
mod cycles;
mod drain;
mod network;
mod played;
mod relays;
mod stage;
mod story;
mod table;
mod ways;

/// Of its marks in README.md.
const NAME: &str = "chaos";

/// Where the network or the relay itself is away, its time counts from when it is back.
const BACK: &[Bar] = &[AfterBack(10)];
const BACK_SOON: &[Bar] = &[AfterBack(5)];
const FAULT: &[Bar] = &[Outage(10)];
const ONE_OF_TWO: &[Bar] = &[Outage(1)];
const UNNOTICED: &[Bar] = &[NobodyFails, NobodyIsCut];
const DRAIN: &[Bar] = &[Outage(1), NobodyFails];

const STORIES: &[Story] = &[
    Story::both("cut-5", "the line is cut for 5 s", BACK, |over| {
        Box::pin(network::cut(over, 5))
    }),
    Story::both("cut-20", "the line is cut for 20 s", BACK, |over| {
        Box::pin(network::cut(over, 20))
    }),
    Story::both("cut-120", "the line is cut for 120 s", BACK, |over| {
        Box::pin(network::cut(over, 120))
    }),
    Story::both(
        "hole-up",
        "what the agent sends vanishes for 10 s",
        BACK,
        |over| Box::pin(network::hole_upwards(over)),
    ),
    Story::both(
        "hole-down",
        "what the relay sends vanishes for 10 s",
        BACK,
        |over| Box::pin(network::hole_downwards(over)),
    ),
    Story::both(
        "mtu",
        "packets over 1300 bytes begin to vanish in a download",
        FAULT,
        |over| Box::pin(network::mtu(over)),
    ),
    Story::each(
        "nat",
        "the NAT forgets its mappings in a download",
        Some(UNNOTICED),
        Some(FAULT),
        |over| Box::pin(network::nat(over)),
    ),
    Story::quic(
        "udp-never",
        "UDP is blocked before the agent starts",
        FAULT,
        |_| Box::pin(ways::udp_never()),
    ),
    Story::quic("udp-dies", "UDP is blocked while it serves", FAULT, |_| {
        Box::pin(ways::udp_dies())
    }),
    Story::quic(
        "udp-returns",
        "UDP passes again, and QUIC takes over",
        UNNOTICED,
        |_| Box::pin(ways::udp_returns()),
    ),
    Story::quic(
        "return-in-download",
        "the same in a download over HTTP/2",
        UNNOTICED,
        |_| Box::pin(ways::return_in_download()),
    ),
    Story::both(
        "relay-killed",
        "the relay is killed, and started again after 2 s",
        BACK_SOON,
        |over| Box::pin(relays::killed(over)),
    ),
    Story::both(
        "relay-stopped",
        "the relay is frozen for 60 s",
        BACK,
        |over| Box::pin(relays::stopped(over)),
    ),
    Story::both(
        "dns",
        "the relay dies, and its name leads to another",
        FAULT,
        |over| Box::pin(relays::dns(over)),
    ),
    Story::both(
        "one-of-two-relays",
        "one of two relays is killed",
        ONE_OF_TWO,
        |over| Box::pin(relays::one_of_two(over)),
    ),
    Story::both(
        "agent-stopped",
        "the agent is frozen for 20 s",
        BACK,
        |over| Box::pin(agents::stopped(over)),
    ),
    Story::both(
        "replica-killed",
        "one of two replicas is killed",
        ONE_OF_TWO,
        |over| Box::pin(agents::replica_killed(over)),
    ),
    Story::both(
        "replica-frozen",
        "one of two replicas freezes",
        ONE_OF_TWO,
        |over| Box::pin(agents::replica_frozen(over)),
    ),
    Story::both(
        "drain-relay",
        "one of two relays is asked to end",
        DRAIN,
        |over| Box::pin(drain::relay(over)),
    ),
    Story::both(
        "drain-replica",
        "one of two replicas is asked to end",
        DRAIN,
        |over| Box::pin(drain::replica(over)),
    ),
    Story::both(
        "cycles",
        "relay and agent lose each other again and again",
        UNNOTICED,
        |over| Box::pin(cycles::cycles(over)),
    )
    .alone(),
];

fn main() -> ExitCode {
    let wanted = std::env::var("STORY").ok();
    let names = wanted.as_deref().map(|names| names.split(','));
    let is_wanted = |story: &&Story| {
        let names = names.clone();
        names.is_none_or(|mut names| names.any(|name| name == story.name))
    };
    let stories: Vec<_> = STORIES.iter().filter(is_wanted).collect();
    if stories.is_empty() {
        let names: Vec<_> = STORIES.iter().map(|story| story.name).collect();
        eprintln!("there is no such story; there are: {}", names.join(" "));
        return ExitCode::from(2);
    }
    if wanted.is_none() {
        // Better now than after all stories.
        pages::find_place(NAME);
    }
    let played = played::all(&stories);
    let table = table::markdown(&played);
    println!("\n{table}");
    let missed = played::missed(&played);
    for row in &missed {
        eprintln!("MISSED {row}");
    }
    if !missed.is_empty() {
        return ExitCode::FAILURE;
    }
    if wanted.is_none() {
        pages::write(NAME, &table, &[("chaos.svg", chart::svg(&played))]);
    }
    ExitCode::SUCCESS
}
