//! Slow start: a new endpoint takes its share little by little (Istio `WarmupConfiguration`).

use edge_model::SlowStart;

/// Parts that a weight of 1 is made of, so that a share of it can be told.
pub(super) const PARTS: u32 = 1000;

/// Steps in which a weight grows.
const STEPS: u32 = 50;

/// Weight in [`PARTS`] of an endpoint that is there for so many milliseconds.
pub(super) fn parts(slow_start: &SlowStart, age: u64) -> u32 {
    let whole = slow_start.duration.as_secs_f64() * 1e3;
    #[expect(
        clippy::cast_precision_loss,
        reason = "times of years in milliseconds are exact"
    )]
    let share = age as f64 / whole;
    if !(0.0..1.0).contains(&share) {
        return PARTS;
    }
    let grown = share.powf(1.0 / slow_start.aggression.max(f64::MIN_POSITIVE));
    let grown = grown.max(slow_start.minimum_percent / 100.0).clamp(0.0, 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and PARTS"
    )]
    let parts = (grown * f64::from(PARTS)) as u32;
    parts.max(1)
}

/// Whether an endpoint of that age still grows.
pub(super) fn is_under_way(slow_start: &SlowStart, age: u64) -> bool {
    u128::from(age) < slow_start.duration.as_millis()
}

/// Milliseconds after which weights are worked out anew.
pub(super) fn step(slow_start: &SlowStart) -> u64 {
    u64::try_from((slow_start.duration / STEPS).as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_weight_grows_from_its_minimum_to_the_whole() {
        let even = |percent, aggression| SlowStart {
            duration: Duration::from_secs(10),
            minimum_percent: percent,
            aggression,
        };
        for (warm_up, age, expected) in [
            (even(10.0, 1.0), 0, 100),
            (even(10.0, 1.0), 500, 100),
            (even(10.0, 1.0), 5000, 500),
            (even(10.0, 1.0), 10_000, 1000),
            (even(10.0, 1.0), u64::MAX, 1000),
            (even(0.0, 1.0), 0, 1),
            (even(10.0, 2.0), 2500, 500),
            (even(100.0, 1.0), 0, 1000),
        ] {
            assert_eq!(parts(&warm_up, age), expected, "{warm_up:?} at {age}");
        }
    }
}
