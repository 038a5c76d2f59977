//! Where what a measurement has printed is kept: README.md between two marks, and docs/.

use std::fs;
use std::path::PathBuf;

/// The root of the sources.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn readme() -> PathBuf {
    root().join("README.md")
}

/// Panics if README.md has no place for the tables of this name.
pub fn find_place(name: &str) {
    let text = fs::read_to_string(readme()).expect("README.md");
    replaced(&text, name, "");
}

/// Puts these lines into README.md, between the two marks of this name, and the files into docs/.
pub fn write(name: &str, lines: &str, files: &[(&str, String)]) {
    let text = fs::read_to_string(readme()).expect("README.md");
    fs::write(readme(), replaced(&text, name, lines)).expect("writes README.md");
    let docs = root().join("docs");
    fs::create_dir_all(&docs).expect("a folder");
    print!("written: README.md");
    for (file, content) in files {
        fs::write(docs.join(file), content).expect("writes a file");
        print!(" docs/{file}");
    }
    println!();
}

/// The same text with other lines between the marks.
fn replaced(text: &str, name: &str, lines: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name}:begin -->"),
        format!("<!-- {name}:end -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("README.md has the mark");
    let (_, after) = rest.split_once(&end).expect("README.md has the mark");
    format!("{before}{begin}\n{lines}{end}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb <!-- y:begin --><!-- y:end -->\n";
        let expected =
            "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb <!-- y:begin --><!-- y:end -->\n";
        assert_eq!(replaced(text, "x", "new\n"), expected);
    }
}
