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

const TICK_NANOSECONDS: u64 = TICK.as_nanos() as u64;

/// Slots of the wheel; longer timers go round several times.
const SLOTS: u64 = 1024;

/// The timers of a worker.
#[derive(Debug)]
pub(crate) struct Timers {
    began: Instant,
    wheel: RefCell<Wheel>,
    /// Last tick that was looked at.
    turned: Cell<u64>,
    set: Cell<usize>,
    wanted: Notify,
}

/// Entries stay where they are and are used again, so that to set a timer allocates nothing.
#[derive(Debug)]
struct Wheel {
    slots: Vec<Vec<usize>>,
    entries: Vec<Entry>,
    /// Entries that nobody uses.
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Tick from which it is due.
    due: u64,
    /// Where it stands in its slot.
    position: usize,
    fired: bool,
    waker: Option<Waker>,
}

/// Ready once its time has come.
#[derive(Debug)]
pub(crate) struct Timer {
    timers: Rc<Timers>,
    entry: usize,
}

impl Timers {
    pub(crate) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            began: now,
            wheel: RefCell::new(Wheel {
                slots: (0..SLOTS).map(|_| Vec::new()).collect(),
                entries: Vec::new(),
                free: Vec::new(),
            }),
            turned: Cell::new(0),
            set: Cell::new(0),
            wanted: Notify::new(),
        })
    }

    /// A timer for a point in time.
    pub(crate) fn at(self: &Rc<Self>, when: Instant) -> Timer {
        // The tick after the point in time is the first that is not before it.
        let due = self.tick(when).saturating_add(1).max(self.turned.get() + 1);
        let entry = self.wheel.borrow_mut().insert(due);
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
        self.since(Instant::now(), time)
    }

    /// A timer for a time from a point in time on, which saves a look at the clock.
    pub(crate) fn since(self: &Rc<Self>, begin: Instant, time: Duration) -> Timer {
        // A time that no clock can tell is as good as for ever.
        self.at(begin
            .checked_add(time)
            .unwrap_or(begin + Duration::from_secs(u64::from(u32::MAX))))
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

    fn tick(&self, when: Instant) -> u64 {
        let nanoseconds = when.saturating_duration_since(self.began).as_nanos();
        // 2^64 ns are 584 years; a division of 64 bits is one instruction.
        u64::try_from(nanoseconds).unwrap_or(u64::MAX) / TICK_NANOSECONDS
    }

    /// Fires what is due.
    fn turn(&self, now: Instant) {
        let (from, to) = (self.turned.get(), self.tick(now));
        self.turned.set(to.max(from));
        let wakers = self.wheel.borrow_mut().fire(from, to);
        self.set.set(self.set.get().saturating_sub(wakers.len()));
        // Whoever is woken may set or drop timers.
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Wheel {
    fn insert(&mut self, due: u64) -> usize {
        let slot = &mut self.slots[slot_of(due)];
        let entry = Entry {
            due,
            position: slot.len(),
            ..Entry::default()
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        slot.push(index);
        index
    }

    /// Takes what is due from its slots, and answers whom to wake, one for each.
    fn fire(&mut self, from: u64, to: u64) -> Vec<Option<Waker>> {
        let mut wakers = Vec::new();
        for tick in from..to.min(from.saturating_add(SLOTS)) {
            let slot = slot_of(tick + 1);
            let mut at = 0;
            while let Some(index) = self.slots[slot].get(at).copied() {
                if self.entries[index].due <= to {
                    self.take(slot, at);
                    let entry = &mut self.entries[index];
                    entry.fired = true;
                    wakers.push(entry.waker.take());
                } else {
                    at += 1;
                }
            }
        }
        wakers
    }

    /// Takes an entry out of its slot; the last one of the slot takes its place.
    fn take(&mut self, slot: usize, at: usize) {
        let slot = &mut self.slots[slot];
        slot.swap_remove(at);
        if let Some(moved) = slot.get(at) {
            self.entries[*moved].position = at;
        }
    }

    /// Forgets an entry. True when it had not fired.
    fn remove(&mut self, index: usize) -> bool {
        let entry = &mut self.entries[index];
        entry.waker = None;
        let (fired, slot, position) = (entry.fired, slot_of(entry.due), entry.position);
        if !fired {
            self.take(slot, position);
        }
        self.free.push(index);
        !fired
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS).unwrap_or(0)
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut wheel = self.timers.wheel.borrow_mut();
        let entry = &mut wheel.entries[self.entry];
        if entry.fired {
            return Poll::Ready(());
        }
        if entry
            .waker
            .as_ref()
            .is_none_or(|known| !known.will_wake(cx.waker()))
        {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.timers.wheel.borrow_mut().remove(self.entry) {
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
        assert!(timers.wheel.borrow().slots.iter().all(Vec::is_empty));
    }
}
