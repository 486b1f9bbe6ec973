//! Who makes room where the process has as many connections as it may: clients that have connected and do not say what
//! they want, or do not end their TLS handshakes. Otherwise whoever opens connections and is slow would keep all others out
//! (slowloris). Those of a proxy in front whose header is still awaited (PROXY protocol) are not among them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use crate::connection::Conn;

/// How long a client may take for its request before others go first: the way to most clients and back, a few times. When
/// it began is known to a second, by [`Worker::now`](super::Worker::now).
const PATIENCE: Duration = Duration::from_secs(2);

/// How many are looked for at once, as that is a look at all connections.
const BATCH: usize = 64;

/// Pause after none was found.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections of a worker that others may crowd out.
#[derive(Default)]
pub(super) struct Crowd {
    /// The slowest first.
    slow: RefCell<VecDeque<Weak<Conn>>>,
    /// When none was found last.
    none: Cell<Option<Instant>>,
}

impl Crowd {
    /// Ends the slowest of `all`; false where none is slow.
    pub(super) fn out<'c>(&self, all: impl Iterator<Item = &'c Rc<Conn>>, now: Instant) -> bool {
        let mut slow = self.slow.borrow_mut();
        if slow.is_empty() && self.none.get().is_none_or(|last| now - last >= PAUSE) {
            *slow = slowest(all, now);
            self.none.set(slow.is_empty().then_some(now));
        }
        while let Some(conn) = slow.pop_front() {
            if let Some(conn) = conn.upgrade()
                && conn.crowd_out()
            {
                return true;
            }
        }
        false
    }
}

fn slowest<'c>(all: impl Iterator<Item = &'c Rc<Conn>>, now: Instant) -> VecDeque<Weak<Conn>> {
    let mut slow: Vec<_> = all
        .filter_map(|conn| Some((conn.owes_request_since()?, conn)))
        .filter(|(since, _)| now.saturating_duration_since(*since) >= PATIENCE)
        .collect();
    slow.sort_by_key(|(since, _)| *since);
    slow.iter()
        .take(BATCH)
        .map(|(_, conn)| Rc::downgrade(conn))
        .collect()
}
