//! How many bytes forwarded connections have carried.
//!
//! What moves bytes adds them up in cells, and nothing else.

use std::cell::Cell;
use std::rc::Rc;

use crate::metrics::{Ongoing, Reported, TcpSeries};

/// Bytes that go one way.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// Read from the side that sends.
    taken: Cell<u64>,
    /// Written to the side that receives.
    given: Cell<u64>,
}

impl Way {
    pub(super) fn took(&self, bytes: usize) {
        self.taken.set(self.taken.get() + bytes as u64);
    }

    pub(super) fn gave(&self, bytes: usize) {
        self.given.set(self.given.get() + bytes as u64);
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.taken.get(), self.given.get())
    }
}

/// Bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(super) from_client: Way,
    pub(super) to_client: Way,
}

impl Moved {
    /// Bytes that came from the client.
    pub(crate) fn received(&self) -> u64 {
        self.from_client.taken.get()
    }

    /// Bytes that went to the client.
    pub(crate) fn sent(&self) -> u64 {
        self.to_client.given.get()
    }

    /// Another number whenever something was moved.
    pub(super) fn progress(&self) -> u64 {
        let of = |way: &Way| way.taken.get().wrapping_add(way.given.get());
        of(&self.from_client).wrapping_add(of(&self.to_client))
    }
}

/// Counts the bytes of one connection in its series.
#[derive(Debug)]
pub(crate) struct Meter {
    moved: Moved,
    /// Bytes received and sent that are in the series.
    reported: Reported,
    series: Rc<TcpSeries>,
    /// Where it stands among its worker's.
    place: Cell<usize>,
}

impl Meter {
    /// Of a connection that has just been opened.
    pub(super) fn new(series: Rc<TcpSeries>) -> Self {
        series.opened.inc();
        Self {
            moved: Moved::default(),
            reported: Reported::default(),
            series,
            place: Cell::default(),
        }
    }

    pub(super) fn moved(&self) -> &Moved {
        &self.moved
    }

    /// The connection has ended.
    pub(super) fn close(&self) {
        self.report();
        self.series.closed.inc();
    }
}

impl Ongoing for Meter {
    fn report(&self) {
        let now = [self.moved.received(), self.moved.sent()];
        self.reported
            .report(now, [&self.series.received, &self.series.sent]);
    }

    fn place(&self) -> &Cell<usize> {
        &self.place
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;

    fn series() -> Rc<TcpSeries> {
        let counter = |name| IntCounter::new(name, "help").unwrap();
        Rc::new(TcpSeries {
            opened: counter("opened"),
            closed: counter("closed"),
            received: counter("received"),
            sent: counter("sent"),
        })
    }

    #[test]
    fn what_was_reported_is_not_reported_again() {
        let series = series();
        let meter = Meter::new(Rc::clone(&series));
        let counts = || {
            (
                series.opened.get(),
                series.closed.get(),
                series.received.get(),
                series.sent.get(),
            )
        };
        meter.moved.from_client.took(7);
        meter.moved.to_client.gave(3);
        // Neither what the endpoint was given nor what it was asked for is the client's.
        meter.moved.from_client.gave(100);
        meter.moved.to_client.took(100);
        assert_eq!(counts(), (1, 0, 0, 0));
        for _ in 0..2 {
            meter.report();
            assert_eq!(counts(), (1, 0, 7, 3));
        }
        meter.moved.from_client.took(1);
        meter.close();
        assert_eq!(counts(), (1, 1, 8, 3));
    }
}
