//! Bounds of the whole process: connections of clients, files, and memory. What is over them is refused before it costs
//! anything, new work first, so that what is under way can end (Envoy's overload manager).
//!
//! The count of connections is one atomic that is touched when a connection comes and goes. How many files are open is
//! told by the descriptor of a new connection, as the kernel gives the lowest that is free (POSIX, open(2)). Memory is
//! looked at by a thread of its own, ten times a second; requests read what it found from one byte that hardly ever
//! changes.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::Bounds;
use crate::memory;

/// How often memory is looked at. In that time a process on a fast network takes up some hundred megabytes at most.
const LOOK: Duration = Duration::from_millis(100);

/// Pause between two attempts to give freed memory back to the system, which walks all of the heap.
const GIVE_BACK: Duration = Duration::from_secs(1);

/// Percent of the memory bound from which requests are refused; connections are at the bound itself.
const REQUESTS_FROM: u64 = 95;

/// Percent of the files that connections of clients may take: all but an eighth.
const CLIENT_FILES: u64 = 87;

/// Percent of any bound from which idle connections are closed early.
const HASTE_FROM: u64 = 80;

/// What is refused for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    /// Nothing.
    None,
    /// Nothing, but idle connections end early.
    Haste,
    /// New requests.
    Requests,
    /// New connections, too.
    Connections,
}

impl Pressure {
    const ALL: [Self; 4] = [Self::None, Self::Haste, Self::Requests, Self::Connections];

    /// At so many bytes of a bound.
    fn of(used: u64, bound: u64) -> Self {
        let reaches = |percent| u128::from(used) * 100 >= u128::from(bound) * u128::from(percent);
        if reaches(100) {
            Self::Connections
        } else if reaches(REQUESTS_FROM) {
            Self::Requests
        } else if reaches(HASTE_FROM) {
            Self::Haste
        } else {
            Self::None
        }
    }
}

/// The bounds with what is in use of them; shared by all workers.
#[derive(Debug)]
pub(crate) struct Overload {
    bounds: Bounds,
    connections: AtomicUsize,
    /// When a connection was last accepted as files were scarce, in milliseconds since `start`; 0 if they are not.
    files_scarce: AtomicU64,
    start: Instant,
    pressure: AtomicU8,
    pressure_gauge: IntGauge,
    memory_gauge: IntGauge,
    shed: Shed,
    accept_failures: IntCounterVec,
}

/// What was refused.
#[derive(Debug)]
struct Shed {
    by_connections: IntCounter,
    by_files: IntCounter,
    by_memory: IntCounter,
    requests: IntCounter,
}

/// A connection that counts against the bound until it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<Overload>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Overload {
    /// Nothing in use yet.
    pub(crate) fn new(bounds: Bounds, registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let help =
            "What was refused because the process was at a bound (max_connections, max_files, max_memory)";
        let shed = IntCounterVec::new(Opts::new("edge_overload_shed_total", help), &["what", "bound"])?;
        let pressure_gauge = IntGauge::new(
            "edge_overload_pressure",
            "Pressure on memory: 0 none, 1 idle connections end early, 2 requests are refused, 3 connections, too",
        )?;
        let memory_gauge = IntGauge::new("edge_memory_bytes", "Memory of the process (resident)")?;
        let accept_failures = IntCounterVec::new(
            Opts::new(
                "edge_accept_failures_total",
                "Connections that could not be accepted yet",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(shed.clone()))?;
        registry.register(Box::new(pressure_gauge.clone()))?;
        registry.register(Box::new(memory_gauge.clone()))?;
        registry.register(Box::new(accept_failures.clone()))?;
        Ok(Arc::new(Self {
            bounds,
            connections: AtomicUsize::new(0),
            files_scarce: AtomicU64::new(0),
            start: Instant::now(),
            pressure: AtomicU8::new(0),
            pressure_gauge,
            memory_gauge,
            shed: Shed {
                by_connections: shed.with_label_values(&["connection", "max_connections"]),
                by_files: shed.with_label_values(&["connection", "max_files"]),
                by_memory: shed.with_label_values(&["connection", "max_memory"]),
                requests: shed.with_label_values(&["request", "max_memory"]),
            },
            accept_failures,
        }))
    }

    /// A place for a connection that was just accepted as `file`; `None` when it is to be closed. Where all are taken,
    /// `make_room` is asked to end another connection, whose place this one has: for a moment there may be more than the
    /// bound says.
    pub(crate) fn admit(self: &Arc<Self>, file: RawFd, make_room: impl FnOnce() -> bool) -> Option<Admitted> {
        if self.pressure() >= Pressure::Connections {
            self.shed.by_memory.inc();
            return None;
        }
        let is_reserved = self.is_reserved(file);
        if self.reaches_files(file, HASTE_FROM) {
            self.files_scarce.store(self.now().max(1), Ordering::Relaxed);
        } else if self.files_scarce.load(Ordering::Relaxed) != 0 {
            self.files_scarce.store(0, Ordering::Relaxed);
        }
        if !is_reserved && self.take_place() {
            return Some(Admitted(Arc::clone(self)));
        }
        if make_room() {
            self.connections.fetch_add(1, Ordering::Relaxed);
            return Some(Admitted(Arc::clone(self)));
        }
        match is_reserved {
            true => self.shed.by_files.inc(),
            false => self.shed.by_connections.inc(),
        }
        None
    }

    fn take_place(&self) -> bool {
        let more = |open| (open < self.bounds.max_connections).then_some(open + 1);
        let taken = self
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok()
    }

    /// Whether a connection that was accepted as `file` has one of the files that are for endpoints.
    pub(crate) fn is_reserved(&self, file: RawFd) -> bool {
        self.reaches_files(file, CLIENT_FILES)
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether files were scarce of late: who has accepted nothing since does not know.
    fn lacks_files(&self) -> bool {
        let at = self.files_scarce.load(Ordering::Relaxed);
        at != 0 && u128::from(self.now().saturating_sub(at)) < self.bounds.idle_in_haste.as_millis()
    }

    /// Whether so many percent of the files that the process may open are open, when `file` was the next one.
    fn reaches_files(&self, file: RawFd, percent: u64) -> bool {
        let file = u64::try_from(file).unwrap_or(0);
        let reached = |most: u64| u128::from(file) * 100 >= u128::from(most) * u128::from(percent);
        self.bounds.max_files.is_some_and(reached)
    }

    /// Whether a new request is to be refused; one that is is counted.
    pub(crate) fn refuses_request(&self) -> bool {
        let refused = self.pressure() >= Pressure::Requests;
        if refused {
            self.shed.requests.inc();
        }
        refused
    }

    /// After what time idle connections are to end early, to make room for others.
    pub(crate) fn haste(&self) -> Option<Duration> {
        self.is_in_haste().then_some(self.bounds.idle_in_haste)
    }

    fn is_in_haste(&self) -> bool {
        let open = self.connections.load(Ordering::Relaxed) as u128;
        let is_crowded = open * 100 >= self.bounds.max_connections as u128 * u128::from(HASTE_FROM);
        is_crowded || self.lacks_files() || self.pressure() >= Pressure::Haste
    }

    /// Counts an accept that failed for want of something.
    pub(crate) fn accept_failed(&self, reason: &str) {
        self.accept_failures.with_label_values(&[reason]).inc();
    }

    fn pressure(&self) -> Pressure {
        let level = usize::from(self.pressure.load(Ordering::Relaxed));
        Pressure::ALL.get(level).copied().unwrap_or(Pressure::None)
    }

    fn look(&self, bound: u64) -> Pressure {
        let Some(used) = memory::resident() else {
            return Pressure::None;
        };
        let pressure = Pressure::of(used, bound);
        self.memory_gauge.set(i64::try_from(used).unwrap_or(i64::MAX));
        let level = Pressure::ALL.iter().position(|own| *own == pressure).unwrap_or(0);
        let level = u8::try_from(level).unwrap_or(0);
        let before = self.pressure.swap(level, Ordering::Relaxed);
        self.pressure_gauge.set(i64::from(level));
        if before != level {
            tracing::warn!(used, bound, pressure = ?pressure, "pressure on memory has changed");
        }
        pressure
    }
}

/// Watches over memory until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    /// `None` once it ends.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread, if there is a bound.
    pub(crate) fn start(overload: &Arc<Overload>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let overload = Arc::clone(overload);
        let thread = overload.bounds.max_memory.map(|bound| {
            std::thread::Builder::new()
                .name("overload".to_owned())
                .spawn(move || watch(&overload, bound, &stopped))
        });
        Ok(Self {
            stop: Some(stop),
            thread: thread.transpose()?,
        })
    }
}

fn watch(overload: &Overload, bound: u64, stopped: &mpsc::Receiver<()>) {
    let mut given_back: Option<Instant> = None;
    loop {
        let pressure = overload.look(bound);
        let is_due = given_back.is_none_or(|last| last.elapsed() >= GIVE_BACK);
        if pressure >= Pressure::Requests && is_due {
            // What was freed may still count as the process's own, and would be refused for ever.
            memory::give_back();
            given_back = Some(Instant::now());
            continue;
        }
        match stopped.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst, and said so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overload(max_connections: usize) -> Arc<Overload> {
        let bounds = Bounds {
            max_connections,
            ..Bounds::default()
        };
        Overload::new(bounds, &Registry::new()).unwrap()
    }

    #[test]
    fn new_work_is_refused_first_and_connections_last() {
        for (used, expected) in [
            (0, Pressure::None),
            (79, Pressure::None),
            (80, Pressure::Haste),
            (94, Pressure::Haste),
            (95, Pressure::Requests),
            (99, Pressure::Requests),
            (100, Pressure::Connections),
            (u64::MAX, Pressure::Connections),
        ] {
            assert_eq!(Pressure::of(used, 100), expected, "{used}");
        }
    }

    #[test]
    fn connections_have_places_until_there_are_none() {
        let overload = overload(5);
        let mut admitted: Vec<_> = (0..4).map(|_| overload.admit(9, || false).unwrap()).collect();
        assert!(overload.is_in_haste(), "four of five");
        admitted.push(overload.admit(9, || false).unwrap());
        assert!(overload.admit(9, || false).is_none());
        admitted.pop();
        admitted.pop();
        assert!(!overload.is_in_haste());
        assert!(overload.admit(9, || false).is_some());
    }

    #[test]
    fn the_last_files_are_not_for_clients() {
        let bounds = Bounds {
            max_files: Some(100),
            ..Bounds::default()
        };
        let overload = Overload::new(bounds, &Registry::new()).unwrap();
        for (file, in_haste, has_place) in [
            (79, false, true),
            (80, true, true),
            (87, true, false),
            (99, true, false),
        ] {
            assert_eq!(overload.admit(file, || false).is_some(), has_place, "{file}");
            assert_eq!(overload.is_in_haste(), in_haste, "{file}");
        }
        assert!(overload.admit(99, || true).is_some(), "another one makes room");
        assert!(overload.admit(10, || false).is_some());
        assert!(!overload.is_in_haste(), "files are there again");
        let bounds = Bounds {
            idle_in_haste: Duration::ZERO,
            ..bounds
        };
        let later = Overload::new(bounds, &Registry::new()).unwrap();
        assert!(later.admit(80, || false).is_some());
        assert!(!later.is_in_haste(), "nobody has come for so long");
    }

    #[test]
    fn memory_is_measured() {
        let watched = overload(1);
        assert_eq!(watched.look(u64::MAX), Pressure::None);
        assert!(watched.memory_gauge.get() > 1 << 20, "a process has a megabyte");
        assert_eq!(watched.look(1), Pressure::Connections);
        assert!(watched.admit(9, || true).is_none());
        assert!(watched.refuses_request());
    }
}
