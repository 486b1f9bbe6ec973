//! Routes that have the same condition on the path.

use std::sync::Arc;

use edge_model::Route;

use super::candidates::Candidates;
use super::choice::Choice;
use super::trie::NONE;
use crate::predicate;
use crate::request::Head;

/// Routes behind one condition on the path: those with further conditions, up to the first that has none.
pub(super) struct Routes {
    lowest: u32,
    /// Number of the one without further conditions, or [`NONE`]. None is reached behind it.
    pub(super) certain: u32,
    /// Those before it.
    pub(super) conditional: Choice,
}

impl Routes {
    /// Takes routes by ascending number.
    pub(super) fn new(mut numbers: Vec<u32>, routes: &[Arc<Route>]) -> Self {
        let lowest = numbers.first().copied().unwrap_or(NONE);
        let is_certain = |number: &u32| {
            let route = usize::try_from(*number)
                .ok()
                .and_then(|number| routes.get(number));
            route.is_some_and(|route| predicate::has_path_only(&route.matcher))
        };
        let mut certain = NONE;
        if let Some(place) = numbers.iter().position(is_certain) {
            certain = numbers.get(place).copied().unwrap_or(NONE);
            numbers.truncate(place);
        }
        Self {
            lowest,
            certain,
            conditional: Choice::new(numbers, routes),
        }
    }

    /// The lowest number, or [`NONE`].
    pub(super) fn lowest(&self) -> u32 {
        self.lowest
    }

    /// Hands them over once the condition on the path holds.
    #[inline]
    pub(super) fn offer<'i>(&'i self, head: &Head<'_>, candidates: &mut Candidates<'i>) {
        candidates.add_certain(self.certain);
        self.conditional.offer(head, candidates);
    }
}
