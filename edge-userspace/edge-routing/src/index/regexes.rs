//! Many regular expressions on the path, matched in one pass.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use edge_model::{Pattern, Route};
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::pool::Pool;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

use super::shared::Routes;
use super::trie::NONE;

/// Up to so many expressions that a path can match are tried one by one.
const FEW: usize = 4;
/// Expressions in one automaton. More would make its states, which are sets of places in all of them, large and many.
const MOST_PATTERNS: usize = 128;
/// The same by size, see [`Pattern::size`]; a larger expression stays alone.
const MOST_STATES: u32 = 1 << 13;
/// Memory of a lazy automaton, for each thread that uses it. When it is full, the automaton begins anew.
const CACHE_BYTES: usize = 1 << 20;
/// After so many fresh beginnings, each of them worth no more than so many bytes of paths to a state, the automaton is
/// of no use for the paths that come: then the expressions are tried one by one for some requests.
const FRESH_BEGINNINGS: usize = 3;
const BYTES_PER_STATE: usize = 10;
const REQUESTS_WITHOUT: u32 = 1024;
/// Bytes after which the cache is told how far the search is.
const STRIDE: usize = 64;

/// Expressions of several routes and the automaton that matches them together, which is built when it is first needed.
pub(super) struct RegexGroup {
    /// The automaton numbers its expressions by this list.
    members: Box<[(Pattern, Routes)]>,
    lowest: u32,
    automaton: OnceLock<Option<Automaton>>,
    /// How many requests to come are matched one by one.
    avoided: AtomicU32,
}

/// An expression with the numbers of its routes, ascending.
pub(super) type Numbered<'r> = (&'r Pattern, Vec<u32>);

/// Expressions at a place of the trie.
pub(super) enum Placed<'r> {
    /// To be matched one by one.
    Alone(Vec<Numbered<'r>>),
    /// To be matched together.
    Together(Vec<Numbered<'r>>),
}

/// Divides expressions among the places of the trie. Each goes to its literal beginning, so that a path meets those
/// alone that it can match; where it would meet more than a few, they are matched together, in groups that stay small.
/// `place` is told what belongs to a beginning.
pub(super) fn distribute<'r>(expressions: Vec<Numbered<'r>>, place: &mut dyn FnMut(&[u8], Placed<'r>)) {
    let is_small = |numbered: &Numbered<'_>| numbered.0.size() <= MOST_STATES / 4;
    let (mut small, large): (Vec<_>, Vec<_>) = expressions.into_iter().partition(is_small);
    for numbered in large {
        place(numbered.0.literal_prefix(), Placed::Alone(vec![numbered]));
    }
    small.sort_by(|(a, a_numbers), (b, b_numbers)| {
        (a.literal_prefix(), a_numbers).cmp(&(b.literal_prefix(), b_numbers))
    });
    distribute_sorted(&small, 0, place);
}

/// `expressions` is sorted by literal beginning; `met` expressions that are tried one by one lie on the way to them. Each
/// step down is at least one byte of the beginning, of which there are few.
fn distribute_sorted<'r>(expressions: &[Numbered<'r>], met: usize, place: &mut dyn FnMut(&[u8], Placed<'r>)) {
    let (Some((first, _)), Some((last, _))) = (expressions.first(), expressions.last()) else {
        return;
    };
    let (first, last) = (first.literal_prefix(), last.literal_prefix());
    let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    let beginning = first.get(..common).unwrap_or_default();
    let own = expressions.partition_point(|(pattern, _)| pattern.literal_prefix().len() <= common);
    let (here, mut deeper) = expressions.split_at(own);
    let is_alone = met + here.len() <= FEW;
    if !is_alone && here.len() <= FEW && fits(expressions) {
        // Each of them is the beginning of the next.
        return place(beginning, Placed::Together(expressions.to_vec()));
    }
    if is_alone && !here.is_empty() {
        place(beginning, Placed::Alone(here.to_vec()));
    } else {
        for group in grouped(here) {
            place(beginning, Placed::Together(group.to_vec()));
        }
    }
    let met = if is_alone { met + here.len() } else { met };
    while let Some((pattern, _)) = deeper.first() {
        let next = pattern.literal_prefix().get(common).copied();
        let end = deeper.partition_point(|(other, _)| other.literal_prefix().get(common).copied() <= next);
        let (part, rest) = deeper.split_at(end);
        distribute_sorted(part, met, place);
        deeper = rest;
    }
}

/// Cuts a list into groups that one automaton can match.
fn grouped<'l, 'r>(expressions: &'l [Numbered<'r>]) -> Vec<&'l [Numbered<'r>]> {
    let (mut groups, mut rest) = (vec![], expressions);
    while !rest.is_empty() {
        let fitting = (1..=rest.len()).take_while(|len| rest.get(..*len).is_some_and(fits));
        let (group, behind) = rest.split_at(fitting.last().unwrap_or(1));
        groups.push(group);
        rest = behind;
    }
    groups
}

fn fits(expressions: &[Numbered<'_>]) -> bool {
    let sizes = expressions.iter().map(|(pattern, _)| pattern.size());
    expressions.len() <= MOST_PATTERNS && sizes.fold(0, u32::saturating_add) <= MOST_STATES
}

struct Automaton {
    dfa: Arc<DFA>,
    caches: Pool<Cache, NewCache>,
}

type NewCache = Box<dyn Fn() -> Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>;

/// The automaton does not pay for this path, or cannot read it.
struct GaveUp;

impl RegexGroup {
    /// A group of at least one expression.
    pub(super) fn new(expressions: Vec<Numbered<'_>>, routes: &[Arc<Route>]) -> Self {
        let members: Box<[_]> = expressions
            .into_iter()
            .map(|(pattern, numbers)| (pattern.clone(), Routes::new(numbers, routes)))
            .collect();
        let lowest = members.iter().map(|(_, routes)| routes.lowest()).min();
        Self {
            members,
            lowest: lowest.unwrap_or(NONE),
            automaton: OnceLock::new(),
            avoided: AtomicU32::new(0),
        }
    }

    /// The lowest number of the expressions' routes.
    pub(super) fn lowest(&self) -> u32 {
        self.lowest
    }

    /// Calls `found` with the routes of each expression that matches, in no order.
    pub(super) fn matching<'i>(&'i self, path: &str, mut found: impl FnMut(&'i Routes)) {
        let is_avoided = self.avoided.load(Ordering::Relaxed) > 0;
        let automaton = (!is_avoided).then(|| self.automaton.get_or_init(|| Automaton::new(&self.members)));
        let together = automaton.and_then(Option::as_ref).map(|automaton| {
            automaton.matching(path, |pattern| {
                if let Some((_, routes)) = self.members.get(pattern) {
                    found(routes);
                }
            })
        });
        match together {
            Some(Ok(())) => return,
            Some(Err(GaveUp)) => self.avoided.store(REQUESTS_WITHOUT, Ordering::Relaxed),
            None if is_avoided => {
                // Two threads may count one request twice, or once: it is only to come to an end.
                let left = self.avoided.load(Ordering::Relaxed).saturating_sub(1);
                self.avoided.store(left, Ordering::Relaxed);
            }
            None => {}
        }
        for (pattern, routes) in &self.members {
            if pattern.matches(path) {
                found(routes);
            }
        }
    }
}

impl Automaton {
    /// `None` when the library refuses, which it has no reason for after [`Pattern::new`]: then they go one by one.
    fn new(members: &[(Pattern, Routes)]) -> Option<Self> {
        let sources: Vec<&str> = members.iter().map(|(pattern, _)| pattern.rust_source()).collect();
        let nfa = thompson::Compiler::new()
            .configure(thompson::Config::new().which_captures(thompson::WhichCaptures::None))
            .build_many(&sources)
            .ok()?;
        let config = DFA::config()
            // All that match, not the one that a search would prefer.
            .match_kind(MatchKind::All)
            .cache_capacity(CACHE_BYTES)
            .skip_cache_capacity_check(true)
            .minimum_cache_clear_count(Some(FRESH_BEGINNINGS))
            .minimum_bytes_per_state(Some(BYTES_PER_STATE));
        let dfa = Arc::new(DFA::builder().configure(config).build_from_nfa(nfa).ok()?);
        let shared = Arc::clone(&dfa);
        Some(Self {
            dfa,
            caches: Pool::new(Box::new(move || shared.create_cache())),
        })
    }

    fn matching(&self, path: &str, found: impl FnMut(usize)) -> Result<(), GaveUp> {
        let mut cache = self.caches.get();
        let done = self.run(&mut cache, path.as_bytes(), found);
        if done.is_err() {
            cache.reset(&self.dfa);
        }
        done
    }

    /// Reads the path from its beginning to its end; what matches then, matches the whole.
    fn run(&self, cache: &mut Cache, path: &[u8], mut found: impl FnMut(usize)) -> Result<(), GaveUp> {
        let anchored = start::Config::new().anchored(Anchored::Yes);
        let mut state = self.dfa.start_state(cache, &anchored).map_err(|_| GaveUp)?;
        let mut at = 0;
        cache.search_start(at);
        for stride in path.chunks(STRIDE) {
            for byte in stride {
                state = self.dfa.next_state(cache, state, *byte).map_err(|_| GaveUp)?;
                if state.is_dead() {
                    cache.search_finish(at);
                    return Ok(());
                }
                if state.is_quit() {
                    return Err(GaveUp);
                }
            }
            at += stride.len();
            cache.search_update(at);
        }
        cache.search_finish(at);
        state = self.dfa.next_eoi_state(cache, state).map_err(|_| GaveUp)?;
        if state.is_match() {
            for match_index in 0..self.dfa.match_len(cache, state) {
                found(self.dfa.match_pattern(cache, state, match_index).as_usize());
            }
        }
        Ok(())
    }
}
