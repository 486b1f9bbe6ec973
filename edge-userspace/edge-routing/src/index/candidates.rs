//! Routes that may take a request, from several lists, by ascending number.

use smallvec::SmallVec;

use super::expression::Expression;
use super::regexes::RegexGroup;
use super::trie::NONE;

/// Lists that a request usually meets without memory being taken: one for each place on the way through the trie.
const USUAL: usize = 6;

/// Lists of routes, each ascending, merged as they are asked for: a binary heap by their first numbers. What stands
/// behind a route that is certain to take the request is left out.
pub(super) struct Candidates<'i> {
    heap: SmallVec<[Cursor<'i>; USUAL]>,
    /// The lowest number of the routes that take the request for certain.
    certain: u32,
    /// The number that came last: two lists can have it.
    last: u32,
}

/// The next that may be it.
pub(super) enum Candidate<'i> {
    /// A route of a list: all but the condition on the path is to be checked.
    Listed(u32),
    /// A route that takes the request.
    Certain(u32),
    /// An expression whose routes come next.
    Expression(&'i Expression),
    /// Expressions of which the lowest route is the next.
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
    Expressions(&'i Expression, &'i [Expression]),
    Regexes(&'i RegexGroup),
}

impl<'i> Candidates<'i> {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            heap: SmallVec::new(),
            certain: NONE,
            last: NONE,
        }
    }

    /// Adds a route that takes the request; [`NONE`] adds nothing.
    #[inline]
    pub(super) fn add_certain(&mut self, number: u32) {
        self.certain = self.certain.min(number);
    }

    /// Adds a list of ascending numbers.
    #[inline]
    pub(super) fn add_list(&mut self, numbers: &'i [u32]) {
        if let Some((head, rest)) = numbers.split_first() {
            self.push(*head, Rest::List(rest));
        }
    }

    /// Adds expressions, by ascending number, that are matched one by one when their turn comes.
    #[inline]
    pub(super) fn add_expressions(&mut self, expressions: &'i [Expression]) {
        if let Some((first, rest)) = expressions.split_first() {
            self.push(first.lowest(), Rest::Expressions(first, rest));
        }
    }

    /// Adds expressions that are matched together when their turn comes.
    #[inline]
    pub(super) fn add_regexes(&mut self, group: &'i RegexGroup) {
        self.push(group.lowest(), Rest::Regexes(group));
    }

    /// Takes the candidate with the lowest number.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Candidate<'i>> {
        loop {
            let certain = self.certain;
            let top = match self.heap.first_mut() {
                Some(top) if top.head < certain => top,
                Some(_) | None if certain == NONE => return None,
                Some(_) | None => return Some(Candidate::Certain(certain)),
            };
            let head = top.head;
            let candidate = match top.rest {
                Rest::List([next, rest @ ..]) => {
                    self.replace_first(*next, Rest::List(rest));
                    Candidate::Listed(head)
                }
                Rest::List([]) => {
                    self.remove_first();
                    Candidate::Listed(head)
                }
                Rest::Expressions(expression, [next, rest @ ..]) => {
                    self.replace_first(next.lowest(), Rest::Expressions(next, rest));
                    return Some(Candidate::Expression(expression));
                }
                Rest::Expressions(expression, []) => {
                    self.remove_first();
                    return Some(Candidate::Expression(expression));
                }
                Rest::Regexes(group) => {
                    self.remove_first();
                    return Some(Candidate::Regexes(group));
                }
            };
            if self.last != head {
                self.last = head;
                return Some(candidate);
            }
        }
    }

    /// What comes behind a certain one is not even put in.
    fn push(&mut self, head: u32, rest: Rest<'i>) {
        if head >= self.certain {
            return;
        }
        self.heap.push(Cursor { head, rest });
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

    fn replace_first(&mut self, head: u32, rest: Rest<'i>) {
        if let Some(first) = self.heap.first_mut() {
            *first = Cursor { head, rest };
        }
        self.sift_down();
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
        fn lists_are_merged_in_order_and_without_repetition_up_to_the_certain_one(
            lists in prop::collection::vec(prop::collection::btree_set(0_u32..60, 0..12), 0..12),
            certain in prop::collection::vec(0_u32..60, 0..3),
        ) {
            let lists: Vec<Vec<u32>> = lists.into_iter().map(|list| list.into_iter().collect()).collect();
            let mut candidates = Candidates::new();
            let half = lists.len() / 2;
            lists[..half].iter().for_each(|list| candidates.add_list(list));
            certain.iter().for_each(|number| candidates.add_certain(*number));
            lists[half..].iter().for_each(|list| candidates.add_list(list));
            let (mut merged, mut end) = (vec![], None);
            while let Some(candidate) = candidates.next() {
                match candidate {
                    Candidate::Listed(number) => merged.push(number),
                    Candidate::Certain(number) => {
                        end = Some(number);
                        break;
                    }
                    Candidate::Expression(_) | Candidate::Regexes(_) => unreachable!("there is none"),
                }
            }
            let lowest = certain.iter().min().copied();
            let mut expected: Vec<u32> = lists.concat();
            expected.retain(|number| lowest.is_none_or(|lowest| *number < lowest));
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!((merged, end), (expected, lowest));
        }
    }
}
