//! Text from the network, made fit for a log line.

use std::fmt;

/// The most bytes of one network string that a log line shows: a DNS name fits, a flood does not.
pub const MAX_LOGGED_BYTES: usize = 255;

/// Displays a string from the network on one line: control characters escaped, the whole cut at
/// [`MAX_LOGGED_BYTES`].
///
/// ```
/// use tunnel_common::escape::Escaped;
/// assert_eq!(Escaped("a\r\nb\u{1b}").to_string(), r"a\r\nb\u{1b}");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = MAX_LOGGED_BYTES;
        for escaped in self.0.chars().map(char::escape_debug) {
            let text = escaped.to_string();
            let Some(left) = room.checked_sub(text.len()) else {
                return f.write_str("…");
            };
            room = left;
            f.write_str(&text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_stays_one_line_and_bounded() {
        let hostile = "\n\x1b[31m\0".repeat(200);
        let shown = Escaped(&hostile).to_string();
        assert!(!shown.contains(['\n', '\x1b', '\0']), "{shown}");
        assert!(shown.len() <= MAX_LOGGED_BYTES + "…".len());
        assert!(shown.ends_with('…'));
    }

    #[test]
    fn a_plain_name_is_shown_as_it_is() {
        assert_eq!(Escaped("example.com").to_string(), "example.com");
    }
}
