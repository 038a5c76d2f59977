//! Measures the release binaries, and what they can be compared with: `make bench`.
//!
//! * `loopback`: everything on this machine, row by row in turn.
//! * `lossy`: over a simulated line of 100 Mbit/s.
//! * `scale`: agents and visitors by the thousand.
//!
//! Prints a table with a verdict for each goal. A run of all goes into README.md and docs/.

mod book;
mod chains;
mod goals;
mod herd;
mod load;
mod loopback;
mod lossy;
mod metric;
mod origin;
mod place;
mod report;
mod row;
mod scale;
mod settings;
mod weather;

use std::process::ExitCode;

use crate::book::Book;
use crate::settings::Settings;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == herd::COMMAND => herd::run(rest).await,
        _ => measure().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(mistake) => {
            eprintln!("bench: {mistake}");
            ExitCode::from(2)
        }
    }
}

async fn measure() -> Result<(), String> {
    let settings = Settings::read()?;
    if settings.is_whole() {
        report::find_place();
    }
    let mut book = Book::default();
    if settings.has("loopback") {
        loopback::measure(&settings, &mut book).await;
    }
    if settings.has("lossy") {
        lossy::measure(&settings, &mut book).await;
    }
    if settings.has("scale") {
        scale::measure(&settings, &mut book).await;
    }
    for (row, metric, values) in book.all() {
        println!("{:12} {:32} {values:.2?}", row.key(), metric.key());
    }
    println!("\n{}", goals::table(&book));
    if settings.is_whole() {
        report::write(&book);
    }
    Ok(())
}
