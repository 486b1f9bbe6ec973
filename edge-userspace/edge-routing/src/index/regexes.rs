//! Many regular expressions on the path, matched in one pass.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use edge_model::Pattern;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::pool::Pool;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

/// Up to so many expressions are tried one by one.
const FEW: usize = 2;
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

/// Regular expressions of several routes and the automaton that matches them together, which is built when it is first
/// needed.
pub(super) struct RegexGroup {
    /// Numbers of the routes, ascending; the automaton numbers its expressions by this list.
    routes: Box<[(u32, Pattern)]>,
    automaton: OnceLock<Option<Automaton>>,
    /// How many requests to come are matched one by one.
    avoided: AtomicU32,
}

/// What the expressions that begin with a literal text come to.
#[derive(Default)]
pub(super) struct Grouped {
    /// To be matched together.
    pub(super) groups: Vec<RegexGroup>,
    /// Numbers of routes that are better off alone.
    pub(super) alone: Vec<u32>,
}

/// Divides routes with expressions among places of the trie: all whose texts begin alike go into one group, as long as
/// it stays small; else each longer beginning has a group of its own. So a path meets few groups, and each of them can
/// match it. `place` gives what belongs to a beginning.
pub(super) fn distribute(routes: &[(u32, &Pattern)], place: &mut dyn FnMut(&[u8], Grouped)) {
    let (small, large): (Vec<_>, Vec<_>) = routes
        .iter()
        .partition(|(_, pattern)| pattern.size() <= MOST_STATES / 4);
    for (number, pattern) in large {
        let alone = Grouped {
            groups: vec![],
            alone: vec![number],
        };
        place(pattern.literal_prefix(), alone);
    }
    let mut small: Vec<(u32, &Pattern)> = small;
    small.sort_by_key(|(number, pattern)| (pattern.literal_prefix(), *number));
    distribute_sorted(&small, place);
}

/// `routes` is sorted by literal beginning. Each step down is at least one byte of it, of which there are few.
fn distribute_sorted(routes: &[(u32, &Pattern)], place: &mut dyn FnMut(&[u8], Grouped)) {
    let (Some((_, first)), Some((_, last))) = (routes.first(), routes.last()) else {
        return;
    };
    let (first, last) = (first.literal_prefix(), last.literal_prefix());
    let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    let beginning = first.get(..common).unwrap_or_default();
    if routes.len() <= FEW {
        for (number, pattern) in routes {
            let alone = Grouped {
                groups: vec![],
                alone: vec![*number],
            };
            place(pattern.literal_prefix(), alone);
        }
        return;
    }
    let fits = |routes: &[(u32, &Pattern)]| routes.len() <= MOST_PATTERNS && size(routes) <= MOST_STATES;
    let own = routes.partition_point(|(_, pattern)| pattern.literal_prefix().len() <= common);
    let (here, mut deeper) = if fits(routes) {
        (routes, &[][..])
    } else {
        routes.split_at(own)
    };
    let mut groups = vec![];
    let mut members: Vec<(u32, Pattern)> = vec![];
    let mut states = 0;
    for (number, pattern) in here {
        if members.len() >= MOST_PATTERNS || states + pattern.size() > MOST_STATES {
            groups.push(RegexGroup::new(std::mem::take(&mut members)));
            states = 0;
        }
        members.push((*number, (*pattern).clone()));
        states += pattern.size();
    }
    if !members.is_empty() {
        groups.push(RegexGroup::new(members));
    }
    if !groups.is_empty() {
        place(
            beginning,
            Grouped {
                groups,
                alone: vec![],
            },
        );
    }
    while let Some((_, pattern)) = deeper.first() {
        let next = pattern.literal_prefix().get(common).copied();
        let end = deeper.partition_point(|(_, other)| other.literal_prefix().get(common).copied() <= next);
        let (part, rest) = deeper.split_at(end);
        distribute_sorted(part, place);
        deeper = rest;
    }
}

fn size(routes: &[(u32, &Pattern)]) -> u32 {
    routes
        .iter()
        .fold(0, |sum, (_, pattern)| sum.saturating_add(pattern.size()))
}

struct Automaton {
    dfa: Arc<DFA>,
    caches: Pool<Cache, NewCache>,
}

type NewCache = Box<dyn Fn() -> Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>;

/// The automaton does not pay for this path, or cannot read it.
struct GaveUp;

impl RegexGroup {
    /// A group of at least one route, by ascending number.
    fn new(mut routes: Vec<(u32, Pattern)>) -> Self {
        routes.sort_unstable_by_key(|(number, _)| *number);
        Self {
            routes: routes.into(),
            automaton: OnceLock::new(),
            avoided: AtomicU32::new(0),
        }
    }

    /// The lowest of the routes' numbers.
    pub(super) fn lowest(&self) -> u32 {
        self.routes.first().map_or(u32::MAX, |(number, _)| *number)
    }

    /// Calls `found` with the number of each route whose expression matches, in no order.
    pub(super) fn matching(&self, path: &str, mut found: impl FnMut(u32)) {
        let is_avoided = self.avoided.load(Ordering::Relaxed) > 0;
        let automaton = (!is_avoided).then(|| self.automaton.get_or_init(|| Automaton::new(&self.routes)));
        let together = automaton.and_then(Option::as_ref).map(|automaton| {
            automaton.matching(path, |pattern| {
                if let Some((number, _)) = self.routes.get(pattern) {
                    found(*number);
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
        for (number, pattern) in &self.routes {
            if pattern.matches(path) {
                found(*number);
            }
        }
    }
}

impl Automaton {
    /// `None` when the library refuses, which it has no reason for after [`Pattern::new`]: then they go one by one.
    fn new(routes: &[(u32, Pattern)]) -> Option<Self> {
        let sources: Vec<&str> = routes.iter().map(|(_, pattern)| pattern.rust_source()).collect();
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
