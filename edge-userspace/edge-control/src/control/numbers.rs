//! Workers of pools whose numbers are their places in the list, and change with it.

use std::collections::BTreeMap;

use edge_config::{Problem, Severity};
use edge_model::Pool;

use crate::source::file::BOOTSTRAP;

/// Workers that are named in a warning.
const NAMED: usize = 3;

/// A warning for each pool in which workers that stay have another place in the list than before, and no number that they
/// were given: they have other slots of the Maglev table then.
pub(super) fn renumbered(before: &[Pool], now: &[Pool]) -> Vec<Problem> {
    let of_pool = |(index, pool): (usize, &Pool)| {
        let before = before.iter().find(|old| old.name == pool.name)?;
        let before: BTreeMap<_, _> = before
            .numbered()
            .map(|(number, member)| (&member.name, number))
            .collect();
        let changes = pool.numbered().filter_map(|(number, member)| {
            let old = *before.get(&member.name)?;
            (member.number.is_none() && old != number)
                .then(|| format!("{} ({number}, was {old})", member.name))
        });
        let changes: Vec<_> = changes.collect();
        (!changes.is_empty()).then(|| warning(index, pool, &changes))
    };
    now.iter().enumerate().filter_map(of_pool).collect()
}

fn warning(index: usize, pool: &Pool, changes: &[String]) -> Problem {
    let (count, named) = (changes.len(), changes.get(..NAMED).unwrap_or(changes));
    let more = match count.saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Problem {
        severity: Severity::Warning,
        object: None,
        file: BOOTSTRAP.into(),
        line: 0,
        field: format!("pools[{index}].workers"),
        message: format!(
            "workers of pool {} that stay have new numbers, because these are their places in the list: {}{more}; \
             connections that are not remembered go to other workers",
            pool.name,
            named.join(", "),
        ),
        hint:
            "give each worker of the pool a `number`, these the one that they had, so that lists can change"
                .into(),
    }
}

#[cfg(test)]
mod tests {
    use edge_config::Bootstrap;

    use super::*;

    /// The pools of a file with one pool, whose workers are given by name and, after a colon, by number.
    fn pools(workers: &str) -> Vec<Pool> {
        let worker = |word: &str| {
            let (name, number) = word.split_once(':').unwrap_or((word, ""));
            let number = if number.is_empty() {
                String::new()
            } else {
                format!(", number: {number}")
            };
            format!("{{name: {name}, address: 10.0.0.1, mode: l2{number}}}")
        };
        let workers: Vec<_> = workers.split_whitespace().map(worker).collect();
        let text = format!("pools: [{{name: web, workers: [{}]}}]", workers.join(", "));
        let mut problems = Vec::new();
        let read = Bootstrap::read("edge.yaml", &text, &mut problems);
        read.unwrap_or_else(|| panic!("{problems:?}")).pools
    }

    #[test]
    fn workers_that_stay_and_get_another_place_are_named() {
        let rows = [
            ("a b c", "a b c", None),
            ("a b c", "a b", None),
            ("a b c", "a b c d", None),
            ("a b c", "b c", Some("b (0, was 1), c (1, was 2)")),
            (
                "a b c d e f",
                "b c d e f",
                Some("b (0, was 1), c (1, was 2), d (2, was 3) and 2 more"),
            ),
            ("a b c", "c b a", Some("c (0, was 2), a (2, was 0)")),
            ("a b c", "x b c", None),
            // Given numbers stay, whatever the place, and who changes one means it.
            ("a:0 b:1 c:2", "c:2 b:1", None),
            ("a b c", "b:1 c:2", None),
            ("a:0 b:1", "a:5 b:1", None),
            ("a:7 b:8", "a b", Some("a (0, was 7), b (1, was 8)")),
        ];
        for (before, now, expected) in rows {
            let found = renumbered(&pools(before), &pools(now));
            let messages: Vec<_> = found.iter().map(|problem| problem.message.as_str()).collect();
            assert_eq!(
                messages.len(),
                usize::from(expected.is_some()),
                "{before} -> {now}: {messages:?}"
            );
            let is_named = |expected: &str| {
                messages
                    .iter()
                    .all(|message| message.contains(&format!(": {expected};")))
            };
            assert!(expected.is_none_or(is_named), "{before} -> {now}: {messages:?}");
        }
        assert!(renumbered(&[], &pools("a b")).is_empty(), "a pool that is new");
    }
}
