//! `LEAST_REQUEST`: the less busy of two endpoints drawn at random where all are worth the same, else turns that follow
//! weights and requests under way (Envoy's `LeastRequestLoadBalancer`).

use fastrand::Rng;

use super::Weights;
use super::round_robin::RoundRobin;

/// An idle cluster is shared by weight alone under both.
#[derive(Debug)]
pub(super) enum LeastRequest {
    /// Endpoints of one weight: power of two choices.
    TwoChoices(Weights),
    /// Endpoints of several weights: the weight of each, over its requests under way and the one that comes to it, says
    /// how often it has its turn (`active_request_bias` is 1, as Istio leaves it). To compare two of them by requests per
    /// weight would not do: one that is idle would win against any that is not, however small it is.
    Turns(RoundRobin),
}

impl LeastRequest {
    pub(super) fn new(weights: Weights, rng: &mut Rng) -> Self {
        let mut taking = (0..weights.len()).map(|index| weights.get(index));
        let first = taking.find(|weight| *weight > 0);
        match taking.all(|weight| weight == 0 || Some(weight) == first) {
            true => Self::TwoChoices(weights),
            false => Self::Turns(RoundRobin::new(&weights, rng)),
        }
    }

    /// `active` tells an endpoint's requests under way.
    pub(super) fn pick(
        &mut self,
        active: impl Fn(usize) -> u32,
        tried: &[usize],
        rng: &mut Rng,
    ) -> Option<usize> {
        match self {
            Self::TwoChoices(weights) => less_busy_of_two(weights, active, tried, rng),
            Self::Turns(turns) => turns.pick_as_busy(tried, active),
        }
    }
}

fn less_busy_of_two(
    weights: &Weights,
    active: impl Fn(usize) -> u32,
    tried: &[usize],
    rng: &mut Rng,
) -> Option<usize> {
    let first = weights.draw_avoiding(tried, rng)?;
    if weights.len() == 1 {
        return Some(first);
    }
    let Some(second) = draw_second(weights, first, tried, rng) else {
        return Some(first);
    };
    Some(if active(second) < active(first) {
        second
    } else {
        first
    })
}

/// Another endpoint than `first`, if there is one.
fn draw_second(weights: &Weights, first: usize, tried: &[usize], rng: &mut Rng) -> Option<usize> {
    // The same endpoint drawn twice is usual in small clusters only; then a slower draw that leaves it out.
    match weights.draw_avoiding(tried, rng) {
        Some(second) if second != first => Some(second),
        _ => {
            let mut avoided = tried.to_vec();
            avoided.push(first);
            weights.draw_avoiding(&avoided, rng)
        }
    }
}
