//! Connections that are opened while something else goes on.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use edge_lab::fabric::{Client, Mode};

/// Clients that open connections, one after the other each. One whose SYN a full ring has lost waits for a second.
const CLIENTS: usize = 8;

/// Ends the clients, however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Opens IPv4 connections, each of which has to be answered, until there were as many as the range begins with and
/// `is_enough`, which is asked again and again meanwhile, says so, too; never more than the range ends with. Returns how many
/// were opened.
pub(crate) fn open_while(
    client: &Client<'_>,
    mode: Mode,
    count: RangeInclusive<usize>,
    mut is_enough: impl FnMut() -> bool,
) -> usize {
    let is_over = AtomicBool::new(false);
    let (begun, opened) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let open = || {
        while !is_over.load(Ordering::Relaxed) && begun.fetch_add(1, Ordering::Relaxed) < *count.end() {
            let mut fresh = client.connect(mode, false, 1).expect("a connection");
            fresh[0].ask().expect("an answer");
            opened.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let over = Over(&is_over);
        let openers: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(open)).collect();
        while !is_enough() || opened.load(Ordering::Relaxed) < *count.start() {
            let has_failed = openers.iter().all(thread::ScopedJoinHandle::is_finished)
                && opened.load(Ordering::Relaxed) < *count.start();
            if has_failed {
                break;
            }
        }
        drop(over);
        for opener in openers {
            opener.join().expect("every connection is served");
        }
    });
    opened.into_inner()
}
