//! When each name is asked for. Pure: the time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long an answer is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min_ttl: Duration,
    pub(super) max_ttl: Duration,
}

/// How a question ended, as far as it decides about the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// There is an answer, be it that there are no addresses, for this long.
    Answered(Duration),
    /// No server has answered.
    Failed,
}

/// Names with the times at which they are due.
#[derive(Debug)]
pub(super) struct Schedule {
    bounds: Bounds,
    names: HashMap<Arc<str>, State>,
    /// Those that are not being asked for, soonest first.
    queue: BTreeSet<(Instant, Arc<str>)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// When it stands in the queue; `None` while it is being asked for.
    due: Option<Instant>,
    failures: u32,
    tried: bool,
}

impl Schedule {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            names: HashMap::new(),
            queue: BTreeSet::new(),
        }
    }

    /// Asks for these names from now on, and for no others.
    pub(super) fn set(&mut self, names: &BTreeSet<Arc<str>>, now: Instant) {
        self.names.retain(|name, _| names.contains(name));
        self.queue.retain(|(_, name)| names.contains(name));
        self.add(names, now);
    }

    /// Asks for these names, too.
    pub(super) fn add(&mut self, names: &BTreeSet<Arc<str>>, now: Instant) {
        for name in names {
            if !self.names.contains_key(name) {
                let state = State {
                    due: Some(now),
                    ..State::default()
                };
                self.names.insert(Arc::clone(name), state);
                self.queue.insert((now, Arc::clone(name)));
            }
        }
    }

    /// Takes the name that is due first.
    pub(super) fn take(&mut self, now: Instant) -> Option<Arc<str>> {
        let (due, _) = self.queue.first()?;
        if *due > now {
            return None;
        }
        let (_, name) = self.queue.pop_first()?;
        if let Some(state) = self.names.get_mut(&name) {
            state.due = None;
        }
        Some(name)
    }

    /// When the next name is due; `None` when none waits.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Whether each name was tried at least once.
    pub(super) fn all_tried(&self) -> bool {
        self.names.values().all(|state| state.tried)
    }

    /// How many names are known, and for how many the last question failed.
    pub(super) fn counts(&self) -> (usize, usize) {
        let failed = self.names.values().filter(|state| state.failures > 0);
        (self.names.len(), failed.count())
    }

    /// A question has ended; whether the name is still wanted. `jitter` between 0 and 1 spreads the retries of many names.
    pub(super) fn ended(&mut self, name: &Arc<str>, ended: Ended, now: Instant, jitter: f64) -> bool {
        let bounds = self.bounds;
        let Some(state) = self.names.get_mut(name).filter(|state| state.due.is_none()) else {
            return false;
        };
        state.tried = true;
        let pause = match ended {
            Ended::Answered(ttl) => {
                state.failures = 0;
                ttl.clamp(bounds.min_ttl, bounds.max_ttl.max(bounds.min_ttl))
            }
            Ended::Failed => {
                let doubled = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(state.failures));
                state.failures = state.failures.saturating_add(1);
                doubled
                    .min(LONGEST_PAUSE)
                    .mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
            }
        };
        state.due = Some(now + pause);
        self.queue.insert((now + pause, Arc::clone(name)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        min_ttl: Duration::from_secs(5),
        max_ttl: Duration::from_secs(60),
    };

    fn of(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    /// Milliseconds from `start` until the name is due again.
    fn pause_after(schedule: &mut Schedule, start: Instant, ended: Ended) -> u128 {
        let now = schedule.next().unwrap().max(start);
        let name = schedule.take(now).unwrap();
        assert!(schedule.ended(&name, ended, now, 1.0));
        schedule.next().unwrap().duration_since(now).as_millis()
    }

    #[test]
    fn an_answer_lasts_for_its_ttl_within_bounds() {
        let start = Instant::now();
        for (ttl, expected) in [(0, 5000), (5, 5000), (7, 7000), (60, 60_000), (86_400, 60_000)] {
            let mut schedule = Schedule::new(BOUNDS);
            schedule.set(&of(&["a"]), start);
            let ended = Ended::Answered(Duration::from_secs(ttl));
            assert_eq!(pause_after(&mut schedule, start, ended), expected, "{ttl}");
        }
    }

    #[test]
    fn failures_are_retried_ever_more_slowly_until_one_succeeds() {
        let start = Instant::now();
        let mut schedule = Schedule::new(BOUNDS);
        schedule.set(&of(&["a"]), start);
        for expected in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            assert_eq!(pause_after(&mut schedule, start, Ended::Failed), expected);
        }
        assert_eq!(schedule.counts(), (1, 1));
        pause_after(&mut schedule, start, Ended::Answered(Duration::ZERO));
        assert_eq!(schedule.counts(), (1, 0));
        assert_eq!(pause_after(&mut schedule, start, Ended::Failed), 1000);
    }

    #[test]
    fn names_come_and_go_without_asking_twice_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::new(BOUNDS);
        schedule.set(&of(&["a", "b"]), start);
        assert!(!schedule.all_tried());
        let first = schedule.take(start).unwrap();
        schedule.set(&of(&["a", "b"]), start);
        let second = schedule.take(start).unwrap();
        assert_ne!(first, second);
        assert_eq!(schedule.take(start), None, "both are being asked for");
        schedule.set(&of(&["b", "c"]), start);
        assert!(
            !schedule.ended(&"a".into(), Ended::Failed, start, 0.0),
            "nobody wants it any more"
        );
        assert!(schedule.ended(&"b".into(), Ended::Failed, start, 0.0));
        assert!(!schedule.all_tried());
        assert_eq!(schedule.take(start), Some("c".into()));
        assert!(schedule.ended(&"c".into(), Ended::Failed, start, 0.0));
        assert!(schedule.all_tried());
        assert!(schedule.next().unwrap() > start);
    }
}
