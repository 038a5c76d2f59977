//! Where the table and the chart go.

use std::fs;
use std::path::PathBuf;

const BEGIN: &str = "<!-- chaos:begin -->";
const END: &str = "<!-- chaos:end -->";

/// The root of the sources.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn readme() -> PathBuf {
    root().join("README.md")
}

/// Panics if README.md has no place for the table.
pub(crate) fn find_places() {
    let text = fs::read_to_string(readme()).expect("README.md");
    replaced(&text, "");
}

/// Puts the table into README.md, between its two marks, and the chart into docs/.
pub(crate) fn write(table: &str, chart: &str) {
    let text = fs::read_to_string(readme()).expect("README.md");
    fs::write(readme(), replaced(&text, table)).expect("writes README.md");
    let docs = root().join("docs");
    fs::create_dir_all(&docs).expect("a folder");
    fs::write(docs.join("chaos.svg"), chart).expect("writes the chart");
    println!("written: README.md docs/chaos.svg");
}

/// The same text with another table.
fn replaced(text: &str, table: &str) -> String {
    let (before, rest) = text.split_once(BEGIN).expect(BEGIN);
    let (_, after) = rest.split_once(END).expect(END);
    format!("{before}{BEGIN}\n{table}{END}{after}")
}
