//! Finds the first route of a virtual host that takes a request, without walking the list.
//!
//! Routes keep their numbers. The path leads to the routes whose path condition holds ([`Trie`]: exact paths and
//! prefixes by their bytes, regular expressions by the literal text that they begin with); lists that are still long
//! are split by a value that the request must have ([`Choice`]); and [`Candidates`] hands the rest out by ascending
//! number. So the order is the list's own, and most routes are never looked at.

mod candidates;
mod choice;
mod expression;
mod regexes;
mod shared;
#[cfg(test)]
mod tests;
mod trie;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use edge_model::{PathMatch, Pattern, Route};

use crate::predicate;
use crate::request::Head;
use candidates::{Candidate, Candidates};
use choice::Choice;
use expression::{Expression, Expressions};
use regexes::{Placed, RegexGroup};
use shared::Routes;
use trie::{Case, Kept, Trie, TrieBuilder};

/// Up to so many routes are walked: that costs less than the trie (`cargo xtask bench routing`).
pub(crate) const FEW: usize = 6;

/// The index over the routes of one virtual host.
pub(crate) struct RouteIndex {
    paths: Trie<Entry>,
    /// Those with `ignoreUriCase`.
    folded_paths: Option<Trie<Entry>>,
}

/// Routes that belong to a place of the trie, apart from those without further conditions, which the trie itself holds.
struct Entry {
    /// Routes with further conditions for every path that begins like this.
    beginning: Choice,
    /// The same for exactly this path.
    whole: Choice,
    /// Few regular expressions whose matches begin like this, by their lowest routes.
    expressions: Box<[Expression]>,
    /// Many of them.
    regexes: Box<[RegexGroup]>,
}

/// What belongs to a place of the trie, as it is gathered.
#[derive(Default)]
struct Gathered {
    beginning: Vec<u32>,
    whole: Vec<u32>,
    expressions: Vec<Expression>,
    regexes: Vec<RegexGroup>,
}

impl RouteIndex {
    /// Indexes a virtual host's routes; `None` when there are so few that walking them is quicker.
    pub(crate) fn new(routes: &[Arc<Route>]) -> Option<Self> {
        if routes.len() <= FEW {
            return None;
        }
        let mut paths = TrieBuilder::<Gathered>::new(Case::Sensitive);
        let mut folded = TrieBuilder::<Gathered>::new(Case::Folded);
        let mut patterns = Patterns::default();
        for (number, route) in (0..).zip(routes) {
            match &route.matcher.path {
                PathMatch::Any => paths.entry(b"").beginning.push(number),
                PathMatch::Prefix { value, ignore_case } => {
                    let trie = if *ignore_case { &mut folded } else { &mut paths };
                    trie.entry(value.as_bytes()).beginning.push(number);
                }
                PathMatch::Exact { value, ignore_case } => {
                    let trie = if *ignore_case { &mut folded } else { &mut paths };
                    trie.entry(value.as_bytes()).whole.push(number);
                }
                // Matches nothing but its own text.
                PathMatch::Regex(pattern) if pattern.rest().is_some_and(|(_, rest)| is_empty(rest)) => {
                    paths.entry(pattern.literal_prefix()).whole.push(number);
                }
                PathMatch::Regex(pattern) => patterns.add(pattern, number),
            }
        }
        patterns.distribute(&mut paths, routes);
        let folded_paths = (!folded.is_empty()).then(|| folded.finish(|gathered| gathered.keep(routes)));
        Some(Self {
            paths: paths.finish(|gathered| gathered.keep(routes)),
            folded_paths,
        })
    }

    /// The first of `routes`, which are those that were indexed, that takes the request.
    pub(crate) fn find<'r>(&self, routes: &'r [Arc<Route>], head: &Head<'_>) -> Option<&'r Arc<Route>> {
        let mut candidates = Candidates::new();
        for trie in [Some(&self.paths), self.folded_paths.as_ref()]
            .into_iter()
            .flatten()
        {
            trie.walk(head.path, |met| {
                candidates.add_certain(met.certain);
                if let Some(entry) = met.entry {
                    entry.offer(met.is_whole, head, &mut candidates);
                }
            });
        }
        let route = |number: u32| usize::try_from(number).ok().and_then(|number| routes.get(number));
        while let Some(candidate) = candidates.next() {
            match candidate {
                Candidate::Certain(number) => return route(number),
                Candidate::Listed(number) => {
                    let found = route(number);
                    if found.is_some_and(|route| predicate::check_behind_path(&route.matcher, head).is_ok()) {
                        return found;
                    }
                }
                Candidate::Expression(expression) => {
                    if expression.matches(head.path) {
                        expression.routes.offer(head, &mut candidates);
                    }
                }
                Candidate::Regexes(group) => {
                    group.matching(head.path, |routes| routes.offer(head, &mut candidates));
                }
            }
        }
        None
    }
}

/// Regular expressions, each once, with the numbers of the routes that have it.
#[derive(Default)]
struct Patterns<'r> {
    listed: Vec<(&'r Pattern, Vec<u32>)>,
    places: HashMap<&'r str, usize>,
}

impl<'r> Patterns<'r> {
    fn add(&mut self, pattern: &'r Pattern, number: u32) {
        let place = *self.places.entry(pattern.source()).or_insert_with(|| {
            self.listed.push((pattern, vec![]));
            self.listed.len() - 1
        });
        if let Some((_, numbers)) = self.listed.get_mut(place) {
            numbers.push(number);
        }
    }

    /// Puts them into the trie.
    fn distribute(self, trie: &mut TrieBuilder<Gathered>, routes: &[Arc<Route>]) {
        let mut expressions = Expressions::default();
        regexes::distribute(self.listed, &mut |beginning, placed| {
            let gathered = trie.entry(beginning);
            match placed {
                Placed::Alone(few) => gathered.expressions.extend(
                    few.into_iter()
                        .map(|(pattern, numbers)| expressions.make(pattern, numbers, routes)),
                ),
                Placed::Together(many) => gathered.regexes.push(RegexGroup::new(many, routes)),
            }
        });
    }
}

/// Whether an expression is that of the empty text, as it is printed.
fn is_empty(rest: &str) -> bool {
    rest.is_empty() || rest == "(?:)"
}

impl Gathered {
    fn keep(self, routes: &[Arc<Route>]) -> Kept<Entry> {
        let (beginning, whole) = (
            Routes::new(self.beginning, routes),
            Routes::new(self.whole, routes),
        );
        let mut expressions = self.expressions;
        expressions.sort_unstable_by_key(Expression::lowest);
        let entry = Entry {
            beginning: beginning.conditional,
            whole: whole.conditional,
            expressions: expressions.into(),
            regexes: self.regexes.into(),
        };
        Kept {
            beginning: beginning.certain,
            whole: whole.certain,
            entry: (!entry.is_empty()).then_some(entry),
        }
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        let has_no_expression = self.expressions.is_empty() && self.regexes.is_empty();
        self.beginning.is_empty() && self.whole.is_empty() && has_no_expression
    }

    fn offer<'i>(&'i self, is_whole: bool, head: &Head<'_>, candidates: &mut Candidates<'i>) {
        self.beginning.offer(head, candidates);
        if is_whole {
            self.whole.offer(head, candidates);
        }
        candidates.add_expressions(&self.expressions);
        for group in &self.regexes {
            candidates.add_regexes(group);
        }
    }
}

impl fmt::Debug for RouteIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteIndex").finish_non_exhaustive()
    }
}
