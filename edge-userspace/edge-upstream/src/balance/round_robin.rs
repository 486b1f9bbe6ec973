//! `ROUND_ROBIN`: one after the other, each as often as its weight says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;

use super::Weights;

/// Distance between two turns of an endpoint of weight 1; any large number, so that division keeps its precision.
const ROUND: u128 = 1 << 32;

/// Earliest deadline first, as in Envoy's `EdfScheduler`: an endpoint's turns are `ROUND / weight` apart.
#[derive(Debug)]
pub(super) struct RoundRobin {
    /// Next turn of each endpoint: (deadline, index, distance between turns).
    turns: BinaryHeap<Reverse<(u128, usize, u128)>>,
}

impl RoundRobin {
    /// Endpoints begin at random points of their first interval, so that workers that start together do not all
    /// send their first requests to the same endpoint. One without weight has no turn.
    pub(super) fn new(weights: &Weights, rng: &mut Rng) -> Self {
        let taking = (0..weights.len()).filter(|index| weights.get(*index) > 0);
        let turns = taking.map(|index| {
            let distance = ROUND / u128::from(weights.get(index));
            Reverse((rng.u128(..distance), index, distance))
        });
        Self {
            turns: turns.collect(),
        }
    }

    /// The endpoint whose turn is next; the turns of those in `tried` are not used up.
    pub(super) fn pick(&mut self, tried: &[usize]) -> Option<usize> {
        self.pick_as_busy(tried, |_| 0)
    }

    /// The same, where an endpoint that has `active` requests under way waits for its turn after this one as many times
    /// longer.
    pub(super) fn pick_as_busy(&mut self, tried: &[usize], active: impl Fn(usize) -> u32) -> Option<usize> {
        let mut passed_over = Vec::new();
        let mut picked = None;
        while let Some(Reverse((deadline, index, distance))) = self.turns.pop() {
            if !tried.contains(&index) {
                let next = deadline + distance * (u128::from(active(index)) + 1);
                self.turns.push(Reverse((next, index, distance)));
                picked = Some(index);
                break;
            }
            passed_over.push(Reverse((deadline, index, distance)));
        }
        self.turns.extend(passed_over);
        picked
    }
}
