//! `RANDOM`: any endpoint, in proportion to its weight.

use fastrand::Rng;

use super::Weights;

#[derive(Debug)]
pub(super) struct Random(Weights);

impl Random {
    pub(super) fn new(weights: Weights) -> Self {
        Self(weights)
    }

    pub(super) fn pick(&self, tried: &[usize], rng: &mut Rng) -> Option<usize> {
        self.0.draw_avoiding(tried, rng)
    }
}
