//! Turns at which the requests of a connection of HTTP/2 begin.
//!
//! A client may have asked for a hundred things by one read. If all were forwarded at once, whoever else is served by the
//! worker would wait for all of them, and what a flood asks for would be on its way to endpoints before the connection is
//! cut for it, often within the same read. So a few begin at a time, and the next few once everybody else had a turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Requests of one connection that begin at one turn: some hundred microseconds of work.
const AT_ONCE: u32 = 16;

/// The turns of one connection.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    begun: Cell<u32>,
    waiting: RefCell<VecDeque<Waker>>,
}

impl Turns {
    /// Ready once a request may begin. Else `wake_connection` is called if [`Self::next`] is not awaited anyway.
    pub(crate) fn poll_begin(&self, cx: &Context<'_>, wake_connection: impl FnOnce()) -> Poll<()> {
        if self.begun.get() < AT_ONCE {
            self.begun.set(self.begun.get() + 1);
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            wake_connection();
        }
        waiting.push_back(cx.waker().clone());
        Poll::Pending
    }

    /// The next turn, by the connection's own task, which comes back for another one if somebody still waits.
    pub(crate) fn next(&self, cx: &Context<'_>) {
        self.begun.set(0);
        let mut waiting = self.waiting.borrow_mut();
        let now = waiting.len().min(AT_ONCE as usize);
        waiting.drain(..now).for_each(Waker::wake);
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
        let begin = || turns.poll_begin(&cx, || woken.set(woken.get() + 1)).is_ready();
        assert_eq!((0..40).filter(|_| begin()).count(), 16);
        assert_eq!(woken.get(), 1, "one of those that wait wakes the connection");
        turns.next(&cx);
        assert_eq!(turns.waiting.borrow().len(), 24 - 16);
        assert_eq!((0..16).filter(|_| begin()).count(), 16);
        assert!(!begin());
        turns.next(&cx);
        assert!(turns.waiting.borrow().is_empty());
    }
}
