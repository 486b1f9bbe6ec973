//! Timers of one worker: a wheel that is turned by one timer of the runtime, and only while something is on it.
//!
//! A timer of the runtime for each request would cost a lock and several hundred instructions twice. Here to set and to
//! drop a timer are a push and a swap; what is lost is precision: a timer fires up to one tick late, never early.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Time between two turns. Timeouts of requests are given in tenths of a second and more.
const TICK: Duration = Duration::from_millis(5);

/// Slots of the wheel; longer timers go round several times.
const SLOTS: u64 = 1024;

/// The timers of a worker.
#[derive(Debug)]
pub(crate) struct Timers {
    began: Instant,
    slots: RefCell<Vec<Vec<Rc<Entry>>>>,
    /// Last tick that was looked at.
    turned: Cell<u64>,
    set: Cell<usize>,
    wanted: Notify,
}

#[derive(Debug)]
struct Entry {
    /// Tick from which it is due.
    due: u64,
    /// Where it stands in its slot.
    position: Cell<usize>,
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Ready once its time has come.
#[derive(Debug)]
pub(crate) struct Timer {
    timers: Rc<Timers>,
    entry: Rc<Entry>,
}

impl Timers {
    pub(crate) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            began: now,
            slots: RefCell::new((0..SLOTS).map(|_| Vec::new()).collect()),
            turned: Cell::new(0),
            set: Cell::new(0),
            wanted: Notify::new(),
        })
    }

    /// A timer for a point in time.
    pub(crate) fn at(self: &Rc<Self>, when: Instant) -> Timer {
        let ticks = when.saturating_duration_since(self.began).as_nanos() / TICK.as_nanos();
        // The tick after the point in time is the first that is not before it.
        let due = u64::try_from(ticks)
            .unwrap_or(u64::MAX - 1)
            .saturating_add(1)
            .max(self.turned.get() + 1);
        let entry = Rc::new(Entry {
            due,
            position: Cell::new(0),
            fired: Cell::new(false),
            waker: RefCell::default(),
        });
        if let Some(slot) = self.slots.borrow_mut().get_mut(slot_of(due)) {
            entry.position.set(slot.len());
            slot.push(Rc::clone(&entry));
        }
        if self.set.replace(self.set.get() + 1) == 0 {
            self.wanted.notify_one();
        }
        Timer {
            timers: Rc::clone(self),
            entry,
        }
    }

    /// A timer for a time from now on.
    pub(crate) fn after(self: &Rc<Self>, time: Duration) -> Timer {
        let now = Instant::now();
        // A time that no clock can tell is as good as for ever.
        self.at(now
            .checked_add(time)
            .unwrap_or(now + Duration::from_secs(u64::from(u32::MAX))))
    }

    /// Turns the wheel, for ever. It stands still while no timer is set.
    pub(crate) async fn run(&self) {
        loop {
            if self.set.get() == 0 {
                self.wanted.notified().await;
                // What passed meanwhile held nothing.
                self.turned.set(self.tick(Instant::now()));
            }
            tokio::time::sleep(TICK).await;
            self.turn(Instant::now());
        }
    }

    fn tick(&self, now: Instant) -> u64 {
        let ticks = now.saturating_duration_since(self.began).as_nanos() / TICK.as_nanos();
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Fires what is due.
    fn turn(&self, now: Instant) {
        let (from, to) = (self.turned.get(), self.tick(now));
        self.turned.set(to.max(from));
        let mut due = Vec::new();
        {
            let mut slots = self.slots.borrow_mut();
            for tick in from..to.min(from.saturating_add(SLOTS)) {
                let Some(slot) = slots.get_mut(slot_of(tick + 1)) else {
                    continue;
                };
                let mut at = 0;
                while let Some(entry) = slot.get(at) {
                    if entry.due <= to {
                        due.push(take(slot, at));
                    } else {
                        at += 1;
                    }
                }
            }
        }
        for entry in due.into_iter().flatten() {
            self.set.set(self.set.get().saturating_sub(1));
            entry.fired.set(true);
            if let Some(waker) = entry.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS).unwrap_or(0)
}

/// Takes an entry out; the last one of the slot takes its place.
fn take(slot: &mut Vec<Rc<Entry>>, at: usize) -> Option<Rc<Entry>> {
    if at >= slot.len() {
        return None;
    }
    let entry = slot.swap_remove(at);
    if let Some(moved) = slot.get(at) {
        moved.position.set(at);
    }
    Some(entry)
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.entry.fired.get() {
            return Poll::Ready(());
        }
        let mut waker = self.entry.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.entry.fired.get() {
            return;
        }
        if let Some(slot) = self.timers.slots.borrow_mut().get_mut(slot_of(self.entry.due))
            && take(slot, self.entry.position.get()).is_some()
        {
            self.timers.set.set(self.timers.set.get().saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn fired(timer: &mut Timer) -> bool {
        timer.now_or_never().is_some()
    }

    #[test]
    fn a_timer_fires_within_a_tick_after_its_time_and_never_before() {
        let start = Instant::now();
        for milliseconds in [0, 1, 4, 5, 6, 99, 5120, 7003, 60_001] {
            let timers = Timers::new(start);
            let when = Duration::from_millis(milliseconds);
            let mut timer = timers.at(start + when);
            for step in 0..20_000 {
                let now = TICK * step;
                timers.turn(start + now);
                if fired(&mut timer) {
                    assert!(
                        now >= when && now <= when + TICK,
                        "{milliseconds} ms fired at {now:?}"
                    );
                    break;
                }
            }
            assert!(fired(&mut timer), "{milliseconds}");
        }
    }

    #[test]
    fn a_worker_that_was_held_up_fires_all_that_is_due() {
        let start = Instant::now();
        let timers = Timers::new(start);
        let times = [3, 700, 6000, 30_000];
        let mut all: Vec<_> = times
            .map(|ms| timers.at(start + Duration::from_millis(ms)))
            .into_iter()
            .collect();
        timers.turn(start + Duration::from_secs(10));
        let fired: Vec<_> = all.iter_mut().map(fired).collect();
        assert_eq!(fired, [true, true, true, false]);
    }

    #[test]
    fn dropped_timers_leave_nothing_behind() {
        let start = Instant::now();
        let timers = Timers::new(start);
        let mut kept: Vec<_> = (0..100)
            .map(|at| timers.at(start + Duration::from_millis(50 + at % 3)))
            .collect();
        let mut other = kept.split_off(50);
        kept.reverse();
        drop(kept);
        assert_eq!(timers.set.get(), 50);
        timers.turn(start + Duration::from_secs(1));
        assert!(other.iter_mut().all(fired));
        drop(other);
        assert_eq!(timers.set.get(), 0);
        assert!(timers.slots.borrow().iter().all(Vec::is_empty));
    }
}
