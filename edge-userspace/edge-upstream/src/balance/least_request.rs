//! `LEAST_REQUEST`: the less loaded of two endpoints drawn at random (power of two choices).

use fastrand::Rng;

use super::Weights;

/// Draws by weight and compares active requests per weight. An idle cluster is therefore shared by weight alone,
/// and a busy one is levelled so that active requests stand in proportion to weights.
#[derive(Debug)]
pub(super) struct LeastRequest {
    weights: Weights,
}

impl LeastRequest {
    pub(super) fn new(weights: Weights) -> Self {
        Self { weights }
    }

    /// `active` tells an endpoint's requests under way.
    pub(super) fn pick(
        &self,
        active: impl Fn(usize) -> u32,
        tried: &[usize],
        rng: &mut Rng,
    ) -> Option<usize> {
        let first = self.weights.draw_avoiding(tried, rng)?;
        if self.weights.len() == 1 {
            return Some(first);
        }
        let Some(second) = self.draw_second(first, tried, rng) else {
            return Some(first);
        };
        // active/weight of both, compared without division. A tie goes to the first, which was drawn by weight.
        let (ours, theirs) = (u64::from(active(first)), u64::from(active(second)));
        let second_wins = theirs * self.weights.get(first) < ours * self.weights.get(second);
        Some(if second_wins { second } else { first })
    }

    /// Another endpoint than `first`, if there is one.
    fn draw_second(&self, first: usize, tried: &[usize], rng: &mut Rng) -> Option<usize> {
        // The same endpoint drawn twice is usual in small clusters only; then a slower draw that leaves it out.
        match self.weights.draw_avoiding(tried, rng) {
            Some(second) if second != first => Some(second),
            _ => {
                let mut avoided = tried.to_vec();
                avoided.push(first);
                self.weights.draw_avoiding(&avoided, rng)
            }
        }
    }
}
