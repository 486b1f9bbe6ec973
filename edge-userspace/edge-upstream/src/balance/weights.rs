//! Drawing an index in proportion to its weight.

use fastrand::Rng;

/// Weights of a list, kept so that a draw costs one random number and a binary search.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Sum of the weights up to and with each index.
    cumulative: Vec<u64>,
    /// Whether all weights are the same: then a draw needs no search.
    equal: bool,
}

impl Weights {
    /// Keeps `weights`; a weight of 0 is never drawn.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut sum = 0;
        let cumulative: Vec<u64> = weights
            .into_iter()
            .map(|weight| {
                sum += u64::from(weight);
                sum
            })
            .collect();
        let first = cumulative.first().copied().unwrap_or(0);
        let mut expected = (1..).map(|count: u64| count * first);
        let equal = first > 0 && cumulative.iter().all(|sum| Some(*sum) == expected.next());
        Self { cumulative, equal }
    }

    /// How many weights there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cumulative.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cumulative.is_empty()
    }

    /// Weight at `index`, 0 outside of the list.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        let sum_to = |index: usize| self.cumulative.get(index).copied();
        let before = index.checked_sub(1).and_then(sum_to).unwrap_or(0);
        sum_to(index).map_or(0, |sum| sum - before)
    }

    /// Draws an index; `None` when the list is empty or all weights are 0.
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> Option<usize> {
        if self.equal {
            return Some(rng.usize(..self.len()));
        }
        let sum = self.cumulative.last().copied().filter(|sum| *sum > 0)?;
        let ticket = rng.u64(..sum);
        Some(self.cumulative.partition_point(|up_to| *up_to <= ticket))
    }

    /// The index that a hash belongs to, in proportion to the weights; `None` when all are 0.
    #[must_use]
    pub fn find(&self, hash: u64) -> Option<usize> {
        let sum = self.cumulative.last().copied().filter(|sum| *sum > 0)?;
        let ticket = hash % sum;
        Some(self.cumulative.partition_point(|up_to| *up_to <= ticket))
    }

    /// Draws an index that is not in `avoided`, in proportion to the weights of the rest.
    #[must_use]
    pub fn draw_avoiding(&self, avoided: &[usize], rng: &mut Rng) -> Option<usize> {
        if avoided.is_empty() {
            return self.draw(rng);
        }
        let rest = || (0..self.len()).filter(|index| !avoided.contains(index));
        let sum: u64 = rest().map(|index| self.get(index)).sum();
        if sum == 0 {
            return None;
        }
        let mut ticket = rng.u64(..sum);
        rest().find(|index| {
            let weight = self.get(*index);
            let hit = ticket < weight;
            ticket = ticket.wrapping_sub(weight);
            hit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::assert_fits;

    #[track_caller]
    fn check(weights: &[u32]) {
        let drawn = Weights::new(weights.iter().copied());
        let mut rng = Rng::with_seed(11);
        let mut counts = vec![0; weights.len()];
        for _ in 0..50_000 {
            counts[drawn.draw(&mut rng).unwrap()] += 1;
        }
        let zeros = counts.iter().zip(weights).filter(|(_, weight)| **weight == 0);
        assert_eq!(
            zeros.map(|(count, _)| count).sum::<u64>(),
            0,
            "{weights:?}: {counts:?}"
        );
        let drawable = |count: &(&u64, &u32)| *count.1 > 0;
        let (counts, weights): (Vec<u64>, Vec<u32>) = counts.iter().zip(weights).filter(drawable).unzip();
        assert_fits(&counts, &weights);
    }

    #[test]
    fn draws_follow_the_weights_and_never_take_a_zero() {
        check(&[1, 1, 1]);
        check(&[90, 10]);
        check(&[0, 5, 0, 15]);
        check(&[0, 0, 1]);
        check(&[u32::MAX, u32::MAX, u32::MAX / 2]);
    }

    #[test]
    fn avoiding_shares_the_rest_by_weight() {
        let weights = Weights::new([1, 2, 3, 4]);
        let mut rng = Rng::with_seed(2);
        let mut counts = [0; 4];
        for _ in 0..30_000 {
            counts[weights.draw_avoiding(&[3, 0], &mut rng).unwrap()] += 1;
        }
        assert_eq!((counts[0], counts[3]), (0, 0));
        assert_fits(&counts[1..3], &[2, 3]);
        assert_eq!(weights.draw_avoiding(&[0, 1, 2, 3], &mut rng), None);
    }

    #[test]
    fn nothing_is_drawn_from_nothing() {
        let mut rng = Rng::with_seed(2);
        assert_eq!(Weights::new([]).draw(&mut rng), None);
        assert_eq!(Weights::new([0, 0]).draw(&mut rng), None);
    }
}
