//! Measures the release binaries, and what they can be compared with: `make bench`.
//!
//! * `loopback`: everything on this machine, row by row in turn.
//! * `lossy`: over a simulated line of 100 Mbit/s.
//!
//! Prints a table with a verdict for each goal.

mod book;
mod chains;
mod goals;
mod load;
mod loopback;
mod lossy;
mod metric;
mod origin;
mod place;
mod row;
mod settings;
mod weather;

use std::process::ExitCode;

use crate::book::Book;
use crate::settings::Settings;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = match Settings::read() {
        Ok(settings) => settings,
        Err(mistake) => {
            eprintln!("bench: {mistake}");
            return ExitCode::from(2);
        }
    };
    let mut book = Book::default();
    if settings.has("loopback") {
        loopback::measure(&settings, &mut book).await;
    }
    if settings.has("lossy") {
        lossy::measure(&settings, &mut book).await;
    }
    for (row, metric, values) in book.all() {
        println!("{:12} {:32} {values:.2?}", row.key(), metric.key());
    }
    println!("\n{}", goals::table(&book));
    ExitCode::SUCCESS
}
