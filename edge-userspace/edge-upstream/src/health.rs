//! Whether a worker elsewhere is healthy, by what its probes say.
//!
//! A worker that is taken out or put back moves the flows that it has, so one probe decides nothing: it takes as many
//! in a row as the thresholds say, and no change follows another sooner than the hold time.

use std::time::{Duration, Instant};

use edge_model::HealthCheck;

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The worker answered in time, as it should.
    Passed,
    /// It did not.
    Failed,
}

/// What is thought of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It takes connections.
    Healthy,
    /// It gets none, and those that it had go to others.
    Unhealthy,
}

/// One worker's health. Unless somebody knows better, it is healthy until probes say otherwise: a start must not send all
/// traffic nowhere.
#[derive(Debug, Clone)]
pub struct Health {
    verdict: Verdict,
    /// When the verdict last changed; `None`: it never did.
    changed: Option<Instant>,
    /// Outcomes in a row that speak against the verdict.
    against: u32,
    passed: u64,
    failed: u64,
}

impl Health {
    /// Of a worker that has not been probed.
    #[must_use]
    pub const fn new() -> Self {
        Self::inherited(Verdict::Healthy)
    }

    /// Of a worker that was judged by an earlier process, and not yet by this one.
    #[must_use]
    pub const fn inherited(verdict: Verdict) -> Self {
        Self {
            verdict,
            changed: None,
            against: 0,
            passed: 0,
            failed: 0,
        }
    }

    /// What is thought of the worker.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Probes that passed, and that failed.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.passed, self.failed)
    }

    /// When the verdict last changed.
    #[must_use]
    pub const fn changed(&self) -> Option<Instant> {
        self.changed
    }

    /// Takes the outcome of a probe at the time `now`; returns the new verdict if it changes.
    pub fn observe(&mut self, check: &HealthCheck, outcome: Outcome, now: Instant) -> Option<Verdict> {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
        }
        let (other, agrees, threshold) = match self.verdict {
            Verdict::Healthy => (
                Verdict::Unhealthy,
                outcome == Outcome::Passed,
                check.unhealthy_threshold,
            ),
            Verdict::Unhealthy => (
                Verdict::Healthy,
                outcome == Outcome::Failed,
                check.healthy_threshold,
            ),
        };
        if agrees {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let is_held = self
            .changed
            .is_some_and(|changed| now.saturating_duration_since(changed) < check.hold);
        if self.against < threshold || is_held {
            return None;
        }
        self.verdict = other;
        self.changed = Some(now);
        self.against = 0;
        Some(other)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// Time until the next probe, `interval` apart with up to a tenth more or less, so that the nodes of a fleet do not
/// probe a worker at the same moment. `draw` is evenly spread over 0 to 1.
#[must_use]
pub fn next_probe(check: &HealthCheck, draw: f64) -> Duration {
    check.interval.mul_f64(0.9 + 0.2 * draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use edge_model::Probe;
    use proptest::prelude::*;

    use super::Outcome::{Failed, Passed};
    use super::Verdict::{Healthy, Unhealthy};
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            probe: Probe::Tcp { port: 80 },
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            hold: Duration::from_secs(10),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "there is no other way to make an Instant"
    )]
    fn base() -> Instant {
        Instant::now()
    }

    /// Feeds outcomes, one a second; the verdicts that came of it, with their second.
    fn changes(outcomes: &str) -> Vec<(usize, Verdict)> {
        changes_of(Health::new(), outcomes)
    }

    fn changes_of(mut health: Health, outcomes: &str) -> Vec<(usize, Verdict)> {
        let start = base();
        let outcomes = outcomes.chars().enumerate();
        let changes = outcomes.filter_map(|(second, outcome)| {
            let outcome = if outcome == '+' { Passed } else { Failed };
            let change = health.observe(&check(), outcome, start + Duration::from_secs(second as u64))?;
            Some((second, change))
        });
        changes.collect()
    }

    #[test]
    fn a_verdict_takes_as_many_outcomes_in_a_row_as_its_threshold() {
        let rows: [(&str, &[(usize, Verdict)]); 7] = [
            ("", &[]),
            ("+++++", &[]),
            ("--+--+--+", &[]),
            ("++---", &[(4, Unhealthy)]),
            ("------------", &[(2, Unhealthy)]),
            // Twelve seconds after the first change, and two passes in a row.
            ("---------+-++", &[(2, Unhealthy), (12, Healthy)]),
            ("---+++++++++++", &[(2, Unhealthy), (12, Healthy)]),
        ];
        for (outcomes, expected) in rows {
            assert_eq!(changes(outcomes), expected, "{outcomes}");
        }
    }

    #[test]
    fn one_that_was_taken_out_before_comes_back_by_the_usual_threshold() {
        let rows: [(&str, &[(usize, Verdict)]); 5] = [
            ("", &[]),
            ("---", &[]),
            ("+-+-", &[]),
            ("--++", &[(3, Healthy)]),
            ("++----------", &[(1, Healthy), (11, Unhealthy)]),
        ];
        for (outcomes, expected) in rows {
            let found = changes_of(Health::inherited(Unhealthy), outcomes);
            assert_eq!(found, expected, "{outcomes}");
        }
    }

    #[test]
    fn probes_are_the_interval_apart_about() {
        let draws = [(0.0, 900), (0.5, 1000), (1.0, 1100), (9.0, 1100)];
        for (draw, expected) in draws {
            let apart = next_probe(&check(), draw).as_secs_f64() * 1000.0;
            assert!((apart - f64::from(expected)).abs() < 1e-6, "{draw}: {apart}");
        }
    }

    proptest! {
        /// However probes flap, changes are at least the hold time apart, and take turns.
        #[test]
        fn a_flap_of_probes_does_not_flap_the_verdict(outcomes in prop::collection::vec(any::<bool>(), 0..400)) {
            let text: String = outcomes.iter().map(|&passed| if passed { '+' } else { '-' }).collect();
            let changes = changes(&text);
            for pair in changes.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= 10);
                prop_assert_ne!(pair[0].1, pair[1].1);
            }
            for (at, verdict) in changes {
                let (threshold, outcome) = if verdict == Unhealthy { (3, false) } else { (2, true) };
                prop_assert!(outcomes[at + 1 - threshold..=at].iter().all(|&passed| passed == outcome));
            }
        }
    }
}
