//! Finds the first route of a virtual host that takes a request, without walking the list.
//!
//! Routes keep their numbers. The path leads to the routes whose path condition holds ([`Trie`]: exact paths and
//! prefixes by their bytes, regular expressions by the literal text that they begin with); lists that are still long
//! are split by a value that the request must have ([`Choice`]); and [`Candidates`] hands the rest out by ascending
//! number. So the order is the list's own, and most routes are never looked at.

mod candidates;
mod choice;
mod regexes;
#[cfg(test)]
mod tests;
mod trie;

use std::fmt;
use std::sync::Arc;

use edge_model::{PathMatch, Route};

use crate::predicate;
use crate::request::Head;
use candidates::{Candidate, Candidates};
use choice::Choice;
use regexes::{Grouped, RegexGroup};
use trie::{Case, Trie, TrieBuilder};

/// Up to so many routes are walked: that costs less than the trie (`cargo xtask bench routing`).
pub(crate) const FEW: usize = 6;

/// The index over the routes of one virtual host.
pub(crate) struct RouteIndex {
    paths: Trie<Entry>,
    /// Those with `ignoreUriCase`.
    folded_paths: Option<Trie<Entry>>,
}

/// Routes that belong to a place of the trie.
#[derive(Default)]
struct Entry {
    /// Routes for every path that begins like this; single regular expressions, too, whose match has to be checked.
    beginning: Choice,
    /// Routes for exactly this path.
    whole: Choice,
    /// Many regular expressions whose matches begin like this.
    regexes: Box<[RegexGroup]>,
}

/// Numbers of the routes at a place of the trie, as they are gathered.
#[derive(Default)]
struct Gathered {
    beginning: Vec<u32>,
    whole: Vec<u32>,
    regexes: Grouped,
}

impl RouteIndex {
    /// Indexes a virtual host's routes; `None` when there are so few that walking them is quicker.
    pub(crate) fn new(routes: &[Arc<Route>]) -> Option<Self> {
        if routes.len() <= FEW {
            return None;
        }
        let mut paths = TrieBuilder::<Gathered>::new(Case::Sensitive);
        let mut folded = TrieBuilder::<Gathered>::new(Case::Folded);
        let mut regexes = vec![];
        for (number, route) in (0..).zip(routes) {
            let path = &route.matcher.path;
            let trie = match path {
                PathMatch::Prefix {
                    ignore_case: true, ..
                }
                | PathMatch::Exact {
                    ignore_case: true, ..
                } => &mut folded,
                PathMatch::Any | PathMatch::Prefix { .. } | PathMatch::Exact { .. } | PathMatch::Regex(_) => {
                    &mut paths
                }
            };
            match path {
                PathMatch::Any => trie.entry(b"").beginning.push(number),
                PathMatch::Prefix { value, .. } => trie.entry(value.as_bytes()).beginning.push(number),
                PathMatch::Exact { value, .. } => trie.entry(value.as_bytes()).whole.push(number),
                PathMatch::Regex(pattern) => regexes.push((number, pattern)),
            }
        }
        regexes::distribute(&regexes, &mut |beginning, mut grouped| {
            let gathered = &mut paths.entry(beginning).regexes;
            gathered.groups.append(&mut grouped.groups);
            gathered.alone.append(&mut grouped.alone);
        });
        let folded_paths =
            (!folded.is_empty()).then(|| folded.finish(|gathered| Entry::new(gathered, routes)));
        Some(Self {
            paths: paths.finish(|gathered| Entry::new(gathered, routes)),
            folded_paths,
        })
    }

    /// The first of `routes`, which are those that were indexed, that takes the request.
    pub(crate) fn find<'r>(&self, routes: &'r [Arc<Route>], head: &Head<'_>) -> Option<&'r Arc<Route>> {
        let mut candidates = Candidates::new();
        self.paths.walk(head.path, |entry, is_whole| {
            entry.offer(is_whole, head, &mut candidates)
        });
        if let Some(folded) = &self.folded_paths {
            folded.walk(head.path, |entry, is_whole| {
                entry.offer(is_whole, head, &mut candidates)
            });
        }
        while let Some(candidate) = candidates.next() {
            let (number, is_path_known) = match candidate {
                Candidate::Regexes(group) => {
                    group.matching(head.path, |number| candidates.add_matching(number));
                    continue;
                }
                Candidate::Matching(number) => (number, true),
                Candidate::Listed(number) => (number, false),
            };
            let Some(route) = usize::try_from(number).ok().and_then(|number| routes.get(number)) else {
                continue;
            };
            let has_path = is_path_known || predicate::regex_matches(&route.matcher.path, head.path);
            if has_path && predicate::check_behind_path(&route.matcher, head).is_ok() {
                return Some(route);
            }
        }
        None
    }
}

impl Entry {
    fn new(gathered: Gathered, routes: &[Arc<Route>]) -> Self {
        let Gathered {
            mut beginning,
            mut whole,
            regexes: Grouped { groups, mut alone },
        } = gathered;
        cut_behind_unconditional(&mut beginning, routes);
        cut_behind_unconditional(&mut whole, routes);
        if !alone.is_empty() {
            beginning.append(&mut alone);
            beginning.sort_unstable();
        }
        Self {
            beginning: Choice::new(beginning, routes),
            whole: Choice::new(whole, routes),
            regexes: groups.into(),
        }
    }

    fn offer<'i>(&'i self, is_whole: bool, head: &Head<'_>, candidates: &mut Candidates<'i>) {
        self.beginning.offer(head, candidates);
        if is_whole {
            self.whole.offer(head, candidates);
        }
        for group in &self.regexes {
            candidates.add_regexes(group);
        }
    }
}

/// Of routes with the same condition on the path, none is reached behind one without any other condition.
fn cut_behind_unconditional(numbers: &mut Vec<u32>, routes: &[Arc<Route>]) {
    let is_unconditional = |number: &u32| {
        let route = usize::try_from(*number)
            .ok()
            .and_then(|number| routes.get(number));
        route.is_some_and(|route| predicate::has_path_only(&route.matcher))
    };
    if let Some(last) = numbers.iter().position(is_unconditional) {
        numbers.truncate(last + 1);
    }
    numbers.shrink_to_fit();
}

impl fmt::Debug for RouteIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteIndex").finish_non_exhaustive()
    }
}
