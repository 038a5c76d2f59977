//! What is wrong with the command line.

/// Adds a mistake, unless it is there: one relay after the other may meet the same.
pub(super) fn tell_once(mistakes: &mut Vec<String>, mistake: String) {
    if !mistakes.contains(&mistake) {
        mistakes.push(mistake);
    }
}
