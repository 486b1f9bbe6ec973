//! Routes that may take a request, from several lists, by ascending number.

use smallvec::SmallVec;

use super::regexes::RegexGroup;

/// Lists that a request usually meets without memory being taken: one for each place on the way through the trie.
const USUAL: usize = 6;

/// Lists of routes, each ascending, merged as they are asked for: a binary heap by their first numbers.
#[derive(Default)]
pub(super) struct Candidates<'i> {
    heap: SmallVec<[Cursor<'i>; USUAL]>,
    /// The number that came last: two lists can have it.
    last: Option<u32>,
}

/// The next that may be it.
pub(super) enum Candidate<'i> {
    /// A route of a list: its path holds unless it has a regular expression.
    Listed(u32),
    /// A route whose path holds.
    Matching(u32),
    /// Regular expressions of which the lowest number is the next.
    Regexes(&'i RegexGroup),
}

#[derive(Clone, Copy)]
struct Cursor<'i> {
    head: u32,
    rest: Rest<'i>,
}

#[derive(Clone, Copy)]
enum Rest<'i> {
    List(&'i [u32]),
    Matching,
    Regexes(&'i RegexGroup),
}

impl<'i> Candidates<'i> {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a list of ascending numbers.
    #[inline]
    pub(super) fn add_list(&mut self, numbers: &'i [u32]) {
        if let Some((head, rest)) = numbers.split_first() {
            self.push(Cursor {
                head: *head,
                rest: Rest::List(rest),
            });
        }
    }

    /// Adds expressions that are matched when their turn comes.
    pub(super) fn add_regexes(&mut self, group: &'i RegexGroup) {
        self.push(Cursor {
            head: group.lowest(),
            rest: Rest::Regexes(group),
        });
    }

    /// Adds a route of such a group that matched.
    pub(super) fn add_matching(&mut self, number: u32) {
        self.push(Cursor {
            head: number,
            rest: Rest::Matching,
        });
    }

    /// Takes the candidate with the lowest number.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Candidate<'i>> {
        loop {
            let top = self.heap.first_mut()?;
            let head = top.head;
            let candidate = match top.rest {
                Rest::List([next, rest @ ..]) => {
                    (top.head, top.rest) = (*next, Rest::List(rest));
                    self.sift_down();
                    Candidate::Listed(head)
                }
                Rest::List([]) => {
                    self.remove_first();
                    Candidate::Listed(head)
                }
                Rest::Matching => {
                    self.remove_first();
                    Candidate::Matching(head)
                }
                Rest::Regexes(group) => {
                    self.remove_first();
                    return Some(Candidate::Regexes(group));
                }
            };
            if self.last.replace(head) != Some(head) {
                return Some(candidate);
            }
        }
    }

    fn push(&mut self, cursor: Cursor<'i>) {
        self.heap.push(cursor);
        let mut at = self.heap.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.head(parent) <= self.head(at) {
                break;
            }
            self.heap.swap(parent, at);
            at = parent;
        }
    }

    fn remove_first(&mut self) {
        self.heap.swap_remove(0);
        self.sift_down();
    }

    fn sift_down(&mut self) {
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            if left >= self.heap.len() {
                return;
            }
            let least = if self.head(left + 1) < self.head(left) {
                left + 1
            } else {
                left
            };
            if self.head(at) <= self.head(least) {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    /// The number that a place of the heap stands for; beyond its end, one behind all others.
    fn head(&self, at: usize) -> u64 {
        self.heap
            .get(at)
            .map_or(u64::MAX, |cursor| u64::from(cursor.head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists_are_merged_in_order_and_without_repetition(
            lists in prop::collection::vec(prop::collection::btree_set(0_u32..60, 0..12), 0..12),
            single in prop::collection::vec(0_u32..60, 0..4),
        ) {
            let lists: Vec<Vec<u32>> = lists.into_iter().map(|list| list.into_iter().collect()).collect();
            let mut candidates = Candidates::new();
            for list in &lists {
                candidates.add_list(list);
            }
            for number in &single {
                candidates.add_matching(*number);
            }
            let mut merged = vec![];
            while let Some(candidate) = candidates.next() {
                match candidate {
                    Candidate::Listed(number) | Candidate::Matching(number) => merged.push(number),
                    Candidate::Regexes(_) => unreachable!("there is none"),
                }
            }
            let mut expected: Vec<u32> = lists.concat();
            expected.extend(single);
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(merged, expected);
        }
    }
}
