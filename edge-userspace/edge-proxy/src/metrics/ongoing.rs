//! Metrics of what goes on for long: they are told while it lasts, and not only at its end.
//!
//! What goes on counts in cells of its own. Its worker takes the counts over when it looks over its connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use prometheus::IntCounter;

/// Something that goes on, and counts.
pub(crate) trait Ongoing {
    /// Takes over into the metrics what was not reported yet.
    fn report(&self);

    /// Where it stands among its worker's.
    fn place(&self) -> &Cell<usize>;
}

/// Two numbers that only grow, as they were last reported.
#[derive(Debug, Default)]
pub(crate) struct Reported(Cell<[u64; 2]>);

impl Reported {
    /// Adds to the counters what has come since. Where nothing has, it costs no atomic.
    pub(crate) fn report(&self, now: [u64; 2], counters: [&IntCounter; 2]) {
        let before = self.0.replace(now);
        for ((counter, now), before) in counters.into_iter().zip(now).zip(before) {
            if now != before {
                counter.inc_by(now - before);
            }
        }
    }
}

/// What goes on at a worker.
#[derive(Default)]
pub(crate) struct AllOngoing(RefCell<Vec<Rc<dyn Ongoing>>>);

impl AllOngoing {
    pub(crate) fn add(&self, one: Rc<dyn Ongoing>) {
        let mut all = self.0.borrow_mut();
        one.place().set(all.len());
        all.push(one);
    }

    /// Forgets one that was added; the last takes its place.
    pub(crate) fn remove(&self, one: &dyn Ongoing) {
        let mut all = self.0.borrow_mut();
        let place = one.place().get();
        if place < all.len() {
            all.swap_remove(place);
        }
        if let Some(moved) = all.get(place) {
            moved.place().set(place);
        }
    }

    /// Has all of them report.
    pub(crate) fn report(&self) {
        for one in self.0.borrow().iter() {
            one.report();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct One {
        reports: Cell<u32>,
        place: Cell<usize>,
    }

    impl Ongoing for One {
        fn report(&self) {
            self.reports.set(self.reports.get() + 1);
        }

        fn place(&self) -> &Cell<usize> {
            &self.place
        }
    }

    #[test]
    fn what_has_ended_is_forgotten_in_any_order() {
        let (all, ones) = (AllOngoing::default(), [(); 5].map(|()| Rc::<One>::default()));
        for one in &ones {
            all.add(Rc::clone(one) as Rc<dyn Ongoing>);
        }
        for (asked, gone) in [1, 4, 0, 2, 3].into_iter().enumerate() {
            all.report();
            all.remove(&*ones[gone]);
            assert_eq!(ones[gone].reports.get() as usize, asked + 1, "{gone}");
            assert_eq!(Rc::strong_count(&ones[gone]), 1, "{gone}");
        }
        assert!(all.0.borrow().is_empty());
    }
}
