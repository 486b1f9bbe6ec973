//! "Did you mean": the nearest of the names that would have been right.

/// The candidate with the fewest edits from `name`, if they are few enough to be a slip of the hand.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters: `hots` finds hosts, `foo` does not find to.
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance without regard to case, swapped neighbours counting as one edit. Texts of more than 64
/// characters are never near: the cost stays bounded whatever the input.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).take(65).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).take(65).collect();
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = vec![];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let mut least = (above[j + 1] + 1)
                .min(row[j] + 1)
                .min(above[j] + usize::from(ca != cb));
            if i > 0 && j > 0 && a[i - 1] == *cb && *ca == b[j - 1] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<&str>) {
        assert_eq!(
            nearest(name, ["hosts", "gateways", "http", "exportTo"]),
            expected,
            "{name}"
        );
    }

    #[test]
    fn a_slip_of_the_hand_finds_the_name_that_was_meant() {
        check("host", Some("hosts"));
        check("hsots", Some("hosts"));
        check("exportto", Some("exportTo"));
        check("gatways", Some("gateways"));
        check("htttp", Some("http"));
    }

    #[test]
    fn other_words_find_nothing() {
        check("retries", None);
        check("", None);
        check(&"hosts".repeat(100), None);
    }
}
