//! A regular expression on the path, matched by itself, and the routes behind it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use edge_model::{Pattern, Route};
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::{Anchored, MatchKind};

use super::shared::Routes;

/// Largest automaton that is built ahead of the texts, in bytes, and what building it may take besides. Expressions of
/// routes need a few kilobytes; one that needs more is matched by [`Pattern::matches`].
const MOST_BYTES: usize = 1 << 16;
const MOST_BYTES_TO_BUILD: usize = 1 << 18;

/// An expression and the routes that have it.
pub(super) struct Expression {
    pattern: Pattern,
    rest: Option<(usize, Arc<RestAutomaton>)>,
    pub(super) routes: Routes,
}

impl Expression {
    /// The lowest number of its routes.
    pub(super) fn lowest(&self) -> u32 {
        self.routes.lowest()
    }

    /// Whether a path that begins with the pattern's literal prefix matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        let together = self.rest.as_ref().and_then(|(offset, automaton)| {
            let behind = path.as_bytes().get(*offset..)?;
            automaton.matches(behind)
        });
        together.unwrap_or_else(|| self.pattern.matches(path))
    }
}

/// Makes expressions that share what they have in common: `/cart/v[0-9]+` and `/shop/v[0-9]+` go on alike behind their
/// literal beginnings, and one automaton that stays in the cache serves both.
#[derive(Default)]
pub(super) struct Expressions {
    rests: HashMap<Box<str>, Arc<RestAutomaton>>,
}

impl Expressions {
    /// The expression of some routes, given by ascending number.
    pub(super) fn make(&mut self, pattern: &Pattern, numbers: Vec<u32>, routes: &[Arc<Route>]) -> Expression {
        let rest = pattern.rest().map(|(offset, source)| {
            let new = || Arc::new(RestAutomaton::new(source));
            let known = self.rests.entry(source.into()).or_insert_with(new);
            (offset, Arc::clone(known))
        });
        Expression {
            pattern: pattern.clone(),
            rest,
            routes: Routes::new(numbers, routes),
        }
    }
}

/// What follows the literal beginning of one or more expressions: an automaton that is built at its first use, as a
/// whole, so that a text is read by one look-up in a table for each of its bytes, whatever came before.
struct RestAutomaton {
    source: Box<str>,
    dfa: OnceLock<Option<dense::DFA<Vec<u32>>>>,
}

impl RestAutomaton {
    fn new(source: &str) -> Self {
        Self {
            source: source.into(),
            dfa: OnceLock::new(),
        }
    }

    /// Whether the whole text matches; `None` when the automaton would be too large.
    fn matches(&self, text: &[u8]) -> Option<bool> {
        let dfa = self.dfa.get_or_init(|| build(&self.source)).as_ref()?;
        let mut state = dfa.universal_start_state(Anchored::Yes)?;
        for byte in text {
            state = dfa.next_state(state, *byte);
            if dfa.is_special_state(state) {
                if dfa.is_dead_state(state) {
                    return Some(false);
                }
                if dfa.is_quit_state(state) {
                    return None;
                }
            }
        }
        Some(dfa.is_match_state(dfa.next_eoi_state(state)))
    }
}

/// Builds an automaton of all matches from the beginning of a text, so that none is given up for another one.
fn build(source: &str) -> Option<dense::DFA<Vec<u32>>> {
    let captures = thompson::Config::new().which_captures(thompson::WhichCaptures::None);
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .accelerate(false)
        .dfa_size_limit(Some(MOST_BYTES))
        .determinize_size_limit(Some(MOST_BYTES_TO_BUILD));
    let mut builder = dense::Builder::new();
    builder.configure(config).thompson(captures).build(source).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, rows: &[(&str, bool)]) {
        let pattern = Pattern::new(source).unwrap();
        let (offset, rest) = pattern.rest().unwrap();
        let automaton = RestAutomaton::new(rest);
        for (path, expected) in rows {
            let found = automaton.matches(&path.as_bytes()[offset..]);
            assert_eq!(found, Some(*expected), "{source} for {path}");
        }
    }

    #[test]
    fn the_whole_of_what_follows_is_matched() {
        check(
            "/a|/ab",
            &[("/ab", true), ("/a", true), ("/abc", false), ("", false)],
        );
        check(
            "/api/v[0-9]+/.*",
            &[("/api/v1/", true), ("/api/v/x", false), ("/api/v1/\n", false)],
        );
        check("/ab", &[("/ab", true), ("/abc", false)]);
        check("/a[^/]", &[("/aä", true), ("/a/", false), ("/aäb", false)]);
    }

    #[test]
    fn one_that_would_be_too_large_is_left_to_the_pattern() {
        let source = "/.*a.{12}";
        let pattern = Pattern::new(source).unwrap();
        let (_, rest) = pattern.rest().unwrap();
        assert_eq!(RestAutomaton::new(rest).matches(b"a123456789012"), None);
        let expression = Expressions::default().make(&pattern, vec![0], &[]);
        assert!(expression.matches("/xa123456789012"));
        assert!(!expression.matches("/xa12345678901"));
    }

    #[test]
    fn expressions_that_go_on_alike_have_one_automaton() {
        let mut expressions = Expressions::default();
        for number in 0..100 {
            let pattern = Pattern::new(&format!("/service{number}/v[0-9]+")).unwrap();
            let expression = expressions.make(&pattern, vec![number], &[]);
            assert!(expression.matches(&format!("/service{number}/v17")));
        }
        assert_eq!(expressions.rests.len(), 1);
    }
}
