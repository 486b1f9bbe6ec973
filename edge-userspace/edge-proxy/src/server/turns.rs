//! Turns at which the requests of a connection of HTTP/2 begin.
//!
//! A client may have asked for a hundred things by one read. If all were forwarded at once, whoever else is served by the
//! worker would wait for all of them, and what a flood asks for would be on its way to endpoints before the connection is
//! cut for it, often within the same read. So a few begin at a time, and the next few once everybody else had a turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Requests of one connection that begin at one turn: some hundred microseconds of work.
const AT_ONCE: u64 = 16;

/// The turns of one connection. Requests take tickets in the order in which they come.
#[derive(Debug)]
pub(crate) struct Turns {
    /// The next request's ticket.
    next: Cell<u64>,
    /// Tickets below it may begin.
    begun: Cell<u64>,
    /// By ticket, ascending.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            next: Cell::new(0),
            begun: Cell::new(AT_ONCE),
            waiting: RefCell::default(),
        }
    }
}

impl Turns {
    /// Ready once the request that holds `ticket` may begin; it gets one the first time. Else `wake_connection` is called
    /// if [`Self::next`] is not awaited anyway.
    pub(crate) fn poll_begin(
        &self,
        ticket: &mut Option<u64>,
        cx: &Context<'_>,
        wake_connection: impl FnOnce(),
    ) -> Poll<()> {
        let ticket = *ticket.get_or_insert_with(|| self.next.replace(self.next.get() + 1));
        if ticket < self.begun.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            wake_connection();
        }
        match waiting.binary_search_by_key(&ticket, |(known, _)| *known) {
            Ok(at) => waiting[at].1.clone_from(cx.waker()),
            Err(at) => waiting.insert(at, (ticket, cx.waker().clone())),
        }
        Poll::Pending
    }

    /// The next turn, by the connection's own task, which comes back for another one if somebody still waits.
    pub(crate) fn next(&self, cx: &Context<'_>) {
        let begun = self.begun.get().min(self.next.get()) + AT_ONCE;
        self.begun.set(begun);
        let mut waiting = self.waiting.borrow_mut();
        let now = waiting.partition_point(|(ticket, _)| *ticket < begun);
        waiting.drain(..now).for_each(|(_, waker)| waker.wake());
        if !waiting.is_empty() {
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_begin_at_each_turn_in_order() {
        let turns = Turns::default();
        let cx = Context::from_waker(Waker::noop());
        let woken = Cell::new(0);
        let mut tickets = [None; 41];
        let mut begin = |request: usize| {
            let ticket = &mut tickets[request];
            turns
                .poll_begin(ticket, &cx, || woken.set(woken.get() + 1))
                .is_ready()
        };
        assert_eq!((0..40).filter(|request| begin(*request)).count(), 16);
        assert_eq!(woken.get(), 1, "one of those that wait wakes the connection");
        assert!(!begin(16), "to be asked again is no turn");
        turns.next(&cx);
        assert_eq!(turns.waiting.borrow().len(), 24 - 16);
        assert!(!begin(40), "who comes then goes behind those that wait");
        assert!((16..32).all(&mut begin));
        assert!(!(32..41).any(&mut begin));
        turns.next(&cx);
        assert!((32..41).all(&mut begin));
        assert!(turns.waiting.borrow().is_empty());
    }
}
